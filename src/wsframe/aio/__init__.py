"""WebSockets on asyncio: ``connect``, ``serve`` and ``broadcast``.

connection.py holds the ``WebSocket``, an asyncio protocol around a ``Connection``. client.py opens one;
server.py accepts many; broadcast.py sends to many.
"""

from ..adapter.connecting import Backoff, is_fatal
from .broadcast import broadcast
from .client import Connecting, connect
from .connection import WebSocket
from .server import Server, Serving, serve

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
