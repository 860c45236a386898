"""WebSockets on asyncio: ``connect``, ``serve`` and ``broadcast``.

websocket.py holds the ``WebSocket``, and protocol.py what the event loop calls of it. client.py opens one;
server.py accepts many; broadcast.py sends to many.
"""

from ..adapter.connecting import Backoff, is_fatal
from .broadcast import broadcast
from .client import Connecting, connect
from .server import Server, Serving, serve
from .websocket import WebSocket

__all__ = [
    "Backoff",
    "Connecting",
    "Server",
    "Serving",
    "WebSocket",
    "broadcast",
    "connect",
    "is_fatal",
    "serve",
]
