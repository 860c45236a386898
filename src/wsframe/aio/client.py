"""``connect``: open a WebSocket on asyncio (RFC 6455, section 4.1)."""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections.abc import Generator, Sequence
from typing import Any

from ..client import ClientConnection
from ..deflate import DEFAULT, Deflate
from ..errors import HandshakeRejected
from ..events import Fail, Response
from ..handshake import HeaderList
from ..keepalive import check_keepalive
from .connection import OPEN, WebSocket

__all__ = ["Connecting", "connect"]


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
) -> Connecting:
    """Open a WebSocket connection.

    ``async with connect(uri) as websocket`` closes it at the end; ``await connect(uri)`` returns it.

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
        ping_interval: how many seconds there are between Pings that keep the connection alive; None: none.
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
    options: dict[str, Any] = {}
    if address.secure:
        options["ssl"] = ssl or tls.create_default_context()
        options["server_hostname"] = server_hostname or address.host
        options["ssl_handshake_timeout"] = open_timeout
        options["ssl_shutdown_timeout"] = close_timeout
    elif ssl is not None or server_hostname is not None:
        raise ValueError("ssl and server_hostname go with wss:// addresses")
    if unix is not None and sock is not None:
        raise ValueError("unix and sock exclude each other")
    if unix is not None:
        options["path"] = unix
    elif sock is not None:
        options["sock"] = sock
    else:
        options["host"], options["port"] = address.host, address.port
    timing = {"close_timeout": close_timeout, "ping_interval": ping_interval, "ping_timeout": ping_timeout}
    return Connecting(connection, options, open_timeout, timing)


class Connecting:
    """Be what ``connect`` returns: await it, or enter it with ``async with``."""

    def __init__(
        self,
        connection: ClientConnection,
        options: dict[str, Any],
        open_timeout: float | None,
        timing: dict[str, float | None],
    ) -> None:
        self._connection = connection
        self._options = options
        self._open_timeout = open_timeout
        self._timing = timing
        self._websocket: _ClientWebSocket | None = None

    def __await__(self) -> Generator[Any, None, WebSocket]:
        return self._connect().__await__()

    async def __aenter__(self) -> WebSocket:
        return await self._connect()

    async def __aexit__(self, *_: object) -> None:
        assert self._websocket is not None
        await self._websocket.close()

    async def _connect(self) -> WebSocket:
        if self._websocket is not None:
            raise RuntimeError("this connect() was used already")
        self._websocket = websocket = _ClientWebSocket(self._connection, **self._timing)
        loop = asyncio.get_running_loop()
        create = loop.create_unix_connection if "path" in self._options else loop.create_connection
        async with asyncio.timeout(self._open_timeout):
            try:
                await create(lambda: websocket, **self._options)
                await websocket.opened
            except BaseException:
                websocket.abort()
                raise
        return websocket


class _ClientWebSocket(WebSocket):
    __slots__ = ("opened",)

    _connection: ClientConnection

    def __init__(self, connection: ClientConnection, **timing: float | None) -> None:
        super().__init__(connection, **timing)
        self.opened: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.start()

    def abort(self) -> None:
        self.opened.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _read_handshake(self) -> None:
        while not self.opened.done() and (event := self._connection.next_event()):
            if isinstance(event, Fail):
                self._end = event
                self.opened.set_exception(HandshakeRejected(event.reason, self._connection.response))
            elif isinstance(event, Response) and self._connection.state is OPEN:
                self.opened.set_result(None)
                self._opened()
