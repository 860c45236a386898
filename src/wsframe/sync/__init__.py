"""WebSockets on blocking sockets: ``connect`` and ``serve``.

connection.py holds the ``WebSocket``, a ``Connection`` and a stream. client.py opens one; server.py accepts
many, with a thread for each. stream.py hides whether a socket speaks TLS.
"""

from .client import connect
from .connection import WebSocket
from .server import Server, serve

__all__ = ["Server", "WebSocket", "connect", "serve"]
