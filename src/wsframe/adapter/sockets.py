"""What both adapters ask of the sockets that they are given, or make."""

from __future__ import annotations

import socket
from contextlib import suppress

__all__ = ["check_unix", "is_unix", "set_nodelay"]


def check_unix() -> None:
    """Check that this system has Unix sockets.

    Raises:
        ValueError: it has none.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError("this system has no Unix sockets")


def is_unix(sock: socket.socket) -> bool:
    """Return whether a socket is a Unix socket.

    Args:
        sock: the socket.
    """
    return sock.family == getattr(socket, "AF_UNIX", None)


def set_nodelay(sock: socket.socket) -> None:
    """Switch off Nagle's algorithm: what leaves in two writes must not wait for the peer's delayed ACK.

    Args:
        sock: the socket; an event loop's wrapper of one will do.
    """
    # A Unix socket has no such option. The family does not tell: under uvicorn's --fd it is wrong. And some
    # systems say EINVAL when the peer has reset the connection already.
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
