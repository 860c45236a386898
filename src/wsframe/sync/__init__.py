"""WebSockets on blocking sockets: ``connect`` and ``serve``.

websocket.py holds the ``WebSocket``, and driver.py what it rests on: a session, a stream and a lock.
client.py opens one. server.py accepts many, with a thread for each. stream.py hides whether a socket speaks
TLS.
"""

from ..adapter.connecting import Backoff, is_fatal
from .client import connect
from .server import Server, serve
from .websocket import WebSocket

__all__ = ["Backoff", "Server", "WebSocket", "connect", "is_fatal", "serve"]
