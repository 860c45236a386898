"""``connect``: open a WebSocket on a blocking socket (RFC 6455, section 4.1)."""

from __future__ import annotations

import socket
import ssl as tls
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from ..client import ClientConnection
from ..connection import State
from ..deflate import DEFAULT, Deflate
from ..errors import HandshakeRejected
from ..events import Fail
from ..handshake import HeaderList
from ..keepalive import check_keepalive
from .connection import WebSocket
from .stream import Stream, TLSStream, remaining

__all__ = ["connect"]


def connect(
    uri: str,
    *,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    additional_headers: HeaderList = (),
    deflate: Deflate | None = DEFAULT,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    unix: str | None = None,
    sock: socket.socket | None = None,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    max_message_size: int | None = 2**20,
) -> WebSocket:
    """Open a WebSocket connection.

    ``with connect(uri) as websocket`` closes it at the end.

    Args:
        uri: the address, ``ws://`` or ``wss://``.
        subprotocols: what to offer, the favourite first.
        origin: the value of an Origin header.
        additional_headers: more headers for the request.
        deflate: the compression to offer; None: none. By default it takes little memory.
        ssl: the TLS context for ``wss://``; by default one that verifies the server.
        server_hostname: the name that the server's certificate must have; by default the host.
        unix: connect to the Unix socket at this path.
        sock: use this connected socket.
        open_timeout: how many seconds connecting and the opening handshake may take; None: no limit.
        close_timeout: how many seconds closing may take, before the connection is cut; None: no limit.
        ping_interval: how many seconds there are between Pings that keep the connection alive, while a thread
            is in ``recv``; None: none.
        ping_timeout: how many seconds a Pong may take, before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in octets; None: no limit.

    Raises:
        InvalidURI: the address is not one.
        HandshakeRejected: the server did not open the connection; the error has its response.
        OSError: the TCP connection or TLS failed.
        TimeoutError: it took longer than ``open_timeout``.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: arguments that exclude each other.
    """
    check_keepalive(ping_interval, ping_timeout)
    connection = ClientConnection(
        uri,
        subprotocols=subprotocols,
        origin=origin,
        headers=additional_headers,
        deflate=deflate,
        max_message_size=max_message_size,
    )
    address = connection.uri
    if not address.secure and (ssl is not None or server_hostname is not None):
        raise ValueError("ssl and server_hostname go with wss:// addresses")
    if unix is not None and sock is not None:
        raise ValueError("unix and sock exclude each other")
    deadline = None if open_timeout is None else monotonic() + open_timeout
    if unix is not None:
        sock = _dial(socket.AF_UNIX, unix, deadline)
    elif sock is None:
        sock = _dial_host(address.host, address.port, deadline)
    try:
        if address.secure:
            context = ssl or tls.create_default_context()
            sock = context.wrap_socket(
                sock, server_hostname=server_hostname or address.host, do_handshake_on_connect=False
            )
        stream = TLSStream(sock) if isinstance(sock, tls.SSLSocket) else Stream(sock)
        stream.do_handshake(deadline)
        websocket = WebSocket(connection, stream, close_timeout, ping_interval, ping_timeout)
        _open(websocket, connection, deadline)
    except BaseException:
        sock.close()
        raise
    return websocket


def _dial_host(host: str, port: int, deadline: float | None) -> socket.socket:
    """Connect to the first address of a host that answers."""
    *others, last = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, _, _, _, address in others:
        with suppress(OSError):  # the next one may answer
            return _dial(family, address, deadline)
    return _dial(last[0], last[4], deadline)


def _dial(family: int, address: Any, deadline: float | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(remaining(deadline))
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _open(websocket: WebSocket, connection: ClientConnection, deadline: float | None) -> None:
    websocket._flush(deadline)
    while connection.state is not State.OPEN:
        if websocket._next_event() is None:
            remaining(deadline)
            websocket._receive(deadline)
        elif isinstance(websocket._end, Fail):
            raise HandshakeRejected(websocket._end.reason, connection.response)
    websocket._opened()
