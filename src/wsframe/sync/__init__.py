"""WebSockets on blocking sockets: ``connect`` and ``serve``.

connection.py holds the ``WebSocket``, a ``Connection`` and a stream. client.py opens one; server.py accepts
many, with a thread for each. stream.py hides whether a socket speaks TLS.
"""

from ..adapter.connecting import Backoff, is_fatal
from .client import connect
from .connection import WebSocket
from .server import Server, serve

__all__ = ["Backoff", "Server", "WebSocket", "connect", "is_fatal", "serve"]
