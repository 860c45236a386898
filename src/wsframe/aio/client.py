"""``connect``: open a WebSocket on asyncio (RFC 6455, section 4.1)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl as tls
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from ..adapter.connecting import (
    ATTEMPT_DELAY,
    Backoff,
    Route,
    handshake_failure,
    interleave,
    retry_after,
    unreachable,
)
from ..adapter.connecting import is_fatal as is_fatal_by_default
from ..adapter.keepalive import check_keepalive
from ..adapter.proxy import Proxy, Tunnel, socks
from ..client import ClientConnection
from ..deflate import DEFAULT, Deflate
from ..errors import HandshakeRejected
from ..events import Fail, Response
from ..handshake import HeaderList
from .connection import OPEN, WebSocket

__all__ = ["Connecting", "connect"]

logger = logging.getLogger("wsframe.aio")
_DAY = 86400  # seconds


def connect(
    uri: str,
    *,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    additional_headers: HeaderList = (),
    compression: Deflate | None = DEFAULT,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    unix: str | None = None,
    sock: socket.socket | None = None,
    proxy: str | bool | None = True,
    max_redirects: int = 10,
    backoff: Iterable[float] = Backoff(),
    is_fatal: Callable[[Exception], bool] = is_fatal_by_default,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    max_message_size: int | None = 2**20,
) -> Connecting:
    """Open a WebSocket connection.

    ``async with connect(uri) as websocket`` closes it at the end; ``await connect(uri)`` returns it.
    ``async for websocket in connect(uri)`` gives one after the other: each is closed when the loop goes on.
    After one that could not be opened, or has ended, there is a delay (RFC 6455, section 7.2.3).

    Args:
        uri: the address, ``ws://`` or ``wss://``.
        subprotocols: what to offer, the favourite first.
        origin: the value of an Origin header.
        additional_headers: more headers for the request; a value is a ``str`` in ISO 8859-1, or ``bytes``.
        compression: the compression to offer; None: none. By default it is the offer of browsers.
        ssl: the TLS context for ``wss://``; by default one that verifies the server.
        server_hostname: the name that the server's certificate must have; by default the host.
        unix: connect to the Unix socket at this path.
        sock: use this connected socket.
        proxy: the proxy to go through: ``http://``, ``socks4://``, ``socks4a://``, ``socks5://`` or
            ``socks5h://user:password@host:port``; True: the one that the environment has; None: none.
            Not with ``unix`` or ``sock``. SOCKS needs ``pip install 'wsframe[proxy]'``.
        max_redirects: how many redirects to follow; 0: none. They never lead from TLS to none. To another
            scheme, host or port they take no user name, password, Authorization or Cookie along.
        backoff: for ``async for``, the seconds to wait before each attempt to connect again: when they end,
            so does trying. They begin anew after each connection that was opened. A server's ``Retry-After``
            can make a delay longer, up to 90 seconds.
        is_fatal: tells which errors end ``async for``; by default ``wsframe.aio.is_fatal``.
        open_timeout: how many seconds it may take until it is open, redirects and all; None: no limit.
        close_timeout: how many seconds closing may take, before the connection is cut; None: no limit.
        ping_interval: how many seconds there are between Pings that keep the connection alive; None: none.
        ping_timeout: how many seconds a Pong may take, before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in bytes; None: no limit.

    Raises:
        InvalidURI: the address is not one.
        HandshakeRejected: the server, or the proxy, refused the connection; the error has its response.
        HandshakeFailed: the opening handshake did not succeed for another reason.
        OSError: the TCP connection or TLS failed.
        TimeoutError: it took longer than ``open_timeout``.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: arguments that exclude each other, or a proxy that is not one.
        ImportError: python-socks is not installed.
    """
    check_keepalive(ping_interval, ping_timeout)
    route = Route(
        uri,
        subprotocols=subprotocols,
        origin=origin,
        additional_headers=additional_headers,
        compression=compression,
        max_message_size=max_message_size,
        ssl=ssl,
        server_hostname=server_hostname,
        unix=unix,
        sock=sock,
        proxy=proxy,
        max_redirects=max_redirects,
        open_timeout=open_timeout,
    )
    timing = {"close_timeout": close_timeout, "ping_interval": ping_interval, "ping_timeout": ping_timeout}
    return Connecting(route, ssl, unix, sock, open_timeout, timing, backoff, is_fatal)


class Connecting:
    """Be what ``connect`` returns: await it, enter it with ``async with``, or iterate over it."""

    def __init__(
        self,
        route: Route,
        ssl: tls.SSLContext | None,
        unix: str | None,
        sock: socket.socket | None,
        open_timeout: float | None,
        timing: dict[str, float | None],
        backoff: Iterable[float],
        is_fatal: Callable[[Exception], bool],
    ) -> None:
        self._route = route
        self._ssl = ssl
        self._unix = unix
        self._sock = sock
        self._open_timeout = open_timeout
        self._timing = timing
        self._backoff = backoff
        self._is_fatal = is_fatal
        self._is_used = False
        self._websocket: WebSocket | None = None

    def __await__(self) -> Generator[Any, None, WebSocket]:
        return self._connect_once().__await__()

    async def __aenter__(self) -> WebSocket:
        self._websocket = await self._connect_once()
        return self._websocket

    async def __aexit__(self, *_: object) -> None:
        assert self._websocket is not None
        await self._websocket.close()

    async def __aiter__(self) -> AsyncGenerator[WebSocket, None]:
        """Connect, and connect again whenever the loop goes on."""
        self._use()
        if self._sock is not None:
            raise ValueError("a socket of one's own connects once")
        delays = iter(self._backoff)
        while True:
            try:
                self._route.restart()
                websocket = await self._connect()
            except Exception as error:
                if self._is_fatal(error):
                    raise
                delay = next(delays, None)
                if delay is None:
                    raise
                delay = max(delay, retry_after(error))
                logger.info("%s; connecting again in %.1f s", error, delay)
            else:
                delays = iter(self._backoff)
                try:
                    yield websocket
                    # Who goes on while it is open wants the next one.
                    delay = 0.0 if websocket.state is OPEN else next(delays, 0.0)
                finally:
                    await websocket.close()
            await asyncio.sleep(delay)

    def _use(self) -> None:
        if self._is_used:
            raise RuntimeError("this connect() was used already")
        self._is_used = True

    async def _connect_once(self) -> WebSocket:
        self._use()
        return await self._connect()

    async def _connect(self) -> WebSocket:
        with self._route.explained():
            async with asyncio.timeout(self._open_timeout):
                while True:
                    try:
                        return await self._open()
                    except HandshakeRejected as rejected:
                        self._route.follow(rejected)

    async def _open(self) -> WebSocket:
        """Do the opening handshake with where the route leads to."""
        route, loop = self._route, asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if route.connection.uri.secure:
            options["ssl"] = self._ssl or tls.create_default_context()
            options["server_hostname"] = route.server_hostname
            options["ssl_handshake_timeout"] = self._open_timeout
            options["ssl_shutdown_timeout"] = self._timing["close_timeout"]
        sock = self._sock or await self._dial()
        if options:
            route.enter("TLS handshake")
        is_unix = sock.family == getattr(socket, "AF_UNIX", None)
        create = loop.create_unix_connection if is_unix else loop.create_connection
        websocket = _ClientWebSocket(route.connection, **self._timing)
        try:
            await create(lambda: websocket, sock=sock, **options)
            route.enter("opening handshake")
            await websocket.opened
        except BaseException:
            websocket.abort()
            raise
        return websocket

    async def _dial(self) -> socket.socket:
        """Connect to the server, or to the proxy and through it."""
        route, loop = self._route, asyncio.get_running_loop()
        if self._unix is not None:
            route.enter("connection")
            return await race([(socket.AF_UNIX, self._unix)])
        route.enter("lookup")
        # As bytes: socket would encode a str by IDNA, and raise errors of that.
        host, port = route.next_hop.host.encode(), route.next_hop.port
        try:
            # An address needs no thread that looks it up.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        route.enter("connection")
        sock = await race([(family, address) for family, _, _, _, address in found])
        try:
            if route.proxy is not None:
                route.enter("tunnel")
                await self._pass(route.proxy, sock)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _pass(self, proxy: Proxy, sock: socket.socket) -> None:
        """Have a proxy connect to the server."""
        loop, uri = asyncio.get_running_loop(), self._route.connection.uri
        if proxy.scheme == "http":
            tunnel = Tunnel(proxy, uri)
            await loop.sock_sendall(sock, tunnel.request)
            while not tunnel.receive(await loop.sock_recv(sock, 65536)):
                pass
            return

        async def connect(**_: Any) -> socket.socket:
            return sock

        with socks(proxy, uri) as options:
            from python_socks.async_.asyncio import Proxy as SOCKSProxy

            # "The proxy before the proxy" is that we have connected to it.
            forward: Any = SimpleNamespace(connect=connect)
            # open_timeout is the limit.
            await SOCKSProxy(**options, forward=forward).connect(uri.host, uri.port, timeout=_DAY)


async def race(addresses: Iterable[tuple[Any, Any]]) -> socket.socket:
    """Connect to the first address that answers: each has a moment before the next joins (RFC 8305).

    Args:
        addresses: pairs of an address family and an address, the best first.

    Raises:
        OSError: none answers.
    """
    loop = asyncio.get_running_loop()
    waiting = interleave(addresses)
    attempts: dict[asyncio.Task[None], tuple[socket.socket, Any]] = {}
    failures: list[tuple[Any, OSError]] = []
    try:
        while waiting or attempts:
            if waiting:
                family, address = waiting.pop(0)
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                except OSError as error:  # a family that this machine has not
                    failures.append((address, error))
                    continue
                sock.setblocking(False)
                attempts[asyncio.ensure_future(loop.sock_connect(sock, address))] = sock, address
            delay = ATTEMPT_DELAY if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                try:
                    attempt.result()
                except OSError as error:
                    sock, address = attempts.pop(attempt)
                    sock.close()
                    failures.append((address, error))
                else:
                    return attempts.pop(attempt)[0]
    finally:
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        for sock, _ in attempts.values():
            sock.close()
    raise unreachable(failures)


class _ClientWebSocket(WebSocket):
    __slots__ = ("_lost", "opened")

    _connection: ClientConnection

    def __init__(self, connection: ClientConnection, **timing: float | None) -> None:
        super().__init__(connection, **timing)
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: OSError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc if isinstance(exc, OSError) else None
        super().connection_lost(exc)

    def abort(self) -> None:
        self.opened.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _read_handshake(self) -> None:
        while not self.opened.done() and (event := self._connection.next_event()):
            if isinstance(event, Fail):
                self._finish(event)
                self.opened.set_exception(handshake_failure(self._connection, event, self._lost))
            elif isinstance(event, Response) and self._connection.state is OPEN:
                self.opened.set_result(None)
                self._opened()
