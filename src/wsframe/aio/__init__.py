"""WebSockets on asyncio: ``connect`` and ``serve``.

connection.py holds the ``WebSocket``, an asyncio protocol around a ``Connection``. client.py opens one;
server.py accepts many.
"""

from ..establish import Backoff, is_fatal
from .client import Connecting, connect
from .connection import WebSocket
from .server import Server, Serving, serve

__all__ = ["Backoff", "Connecting", "Server", "Serving", "WebSocket", "connect", "is_fatal", "serve"]
