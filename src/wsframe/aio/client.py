"""``connect``: open a WebSocket on asyncio (RFC 6455, section 4.1)."""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

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
from ..adapter.options import ClientOptions, Timing
from ..adapter.proxy import Proxy, Tunnel, socks
from ..adapter.sockets import is_unix
from ..client import ClientConnection
from ..deflate import DEFAULT, Deflate
from ..errors import HandshakeRejected
from ..events import Fail, Response
from ..handshake import HeaderList
from .protocol import OPEN, logger
from .websocket import WebSocket

__all__ = ["Connecting", "Create", "connect"]

_DAY = 86400  # seconds

Create: TypeAlias = Callable[[Callable[[], WebSocket]], Awaitable[object]]
"""A coroutine function that connects the protocol of a factory to a transport."""


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
        subprotocols: the subprotocols to offer, the favourite first.
        origin: the value of an Origin header.
        additional_headers: more headers for the request; a value is a ``str`` in ISO 8859-1, or ``bytes``.
        compression: the compression to offer; None to disable it. By default it is the offer of browsers.
        ssl: the TLS context for ``wss://``; by default one that verifies the server.
        server_hostname: the name that the server's certificate must have; by default the host.
        unix: connect to the Unix socket at this path.
        sock: use this connected socket.
        proxy: the proxy to go through: ``http://``, ``socks4://``, ``socks4a://``, ``socks5://`` or
            ``socks5h://user:password@host:port``; True: the proxy of the environment; None: no proxy.
            Not with ``unix`` or ``sock``. SOCKS needs ``pip install 'wsframe[proxy]'``.
        max_redirects: how many redirects to follow; 0 for no redirects. They never lead from TLS to TCP.
            To another scheme, host or port they take no user name, password, Authorization or Cookie along.
        backoff: for ``async for``, the seconds to wait before each attempt to connect again: when they end,
            so does trying. They begin anew after each connection that was opened. A server's ``Retry-After``
            can make a delay longer, up to 90 seconds.
        is_fatal: for ``async for``, decides which errors end the loop; by default ``wsframe.aio.is_fatal``.
        open_timeout: how many seconds opening may take, with all redirects; None: no limit.
        close_timeout: how many seconds closing may take before the connection is cut; None: no limit.
        ping_interval: how many seconds pass between Pings that keep the connection alive; None: send none.
        ping_timeout: how many seconds a Pong may take before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in bytes; None: no limit.

    Raises:
        InvalidURI: the address is not one.
        HandshakeRejected: the server, or the proxy, refused the connection; the error has its response.
        HandshakeFailed: the opening handshake did not succeed for another reason.
        OSError: the TCP connection or TLS failed.
        TimeoutError: opening took longer than ``open_timeout``.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: arguments exclude each other, a number is out of range, or the proxy is not one.
        TypeError: an argument has a wrong type.
        ImportError: python-socks is not installed.
    """
    options = ClientOptions(
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
        timing=Timing(open_timeout, close_timeout, ping_interval, ping_timeout),
    )
    return Connecting(Route(options), backoff, is_fatal)


class Connecting:
    """The result of ``connect``: await it, enter it with ``async with``, or iterate over it."""

    def __init__(self, route: Route, backoff: Iterable[float], is_fatal: Callable[[Exception], bool]) -> None:
        self._route = route
        self._options = route.options
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
        if self._options.sock is not None:
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
                    # A loop that goes on while the connection is open wants the next one at once.
                    delay = 0.0 if websocket.state is OPEN else next(delays, 0.0)
                finally:
                    await websocket.close()
            await asyncio.sleep(delay)

    async def over(self, create: Create) -> WebSocket:
        """Open the connection over a transport of your own, and return it.

        No proxy is used, and no redirect is followed.

        Args:
            create: a coroutine function that is called with a protocol factory, and connects the protocol to
                a transport, as ``loop.create_connection`` does.

        Raises:
            HandshakeRejected: the server refused the connection.
            HandshakeFailed: the opening handshake did not succeed for another reason.
            TimeoutError: opening took longer than ``open_timeout``.
            RuntimeError: this ``connect()`` was used already.
        """
        self._use()
        with self._route.explained():
            async with asyncio.timeout(self._options.timing.open_timeout):
                return await self._open(create)

    def _use(self) -> None:
        if self._is_used:
            raise RuntimeError("this connect() was used already")
        self._is_used = True

    async def _connect_once(self) -> WebSocket:
        self._use()
        return await self._connect()

    async def _connect(self) -> WebSocket:
        with self._route.explained():
            async with asyncio.timeout(self._options.timing.open_timeout):
                while True:
                    try:
                        return await self._open(self._create)
                    except HandshakeRejected as rejected:
                        self._route.follow(rejected)

    async def _open(self, create: Create) -> WebSocket:
        """Connect a WebSocket to a transport, and do the opening handshake."""
        websocket = _ClientWebSocket(self._route.connection, self._options.timing)
        try:
            await create(lambda: websocket)
            self._route.enter("opening handshake")
            await websocket.opened
        except BaseException:
            websocket.abort()
            raise
        return websocket

    async def _create(self, factory: Callable[[], WebSocket]) -> None:
        """Connect a protocol to where the route leads, with TLS for a ``wss://`` address."""
        route, loop = self._route, asyncio.get_running_loop()
        context = route.tls_context()
        sock = self._options.sock or await self._dial()
        create = loop.create_unix_connection if is_unix(sock) else loop.create_connection
        if context is None:
            await create(factory, sock=sock)
            return
        route.enter("TLS handshake")
        limits: Any = self._options.timing.of_tls
        await create(factory, sock=sock, ssl=context, server_hostname=route.server_hostname, **limits)

    async def _dial(self) -> socket.socket:
        """Connect to the server, or to the proxy and through it."""
        route, loop = self._route, asyncio.get_running_loop()
        if self._options.unix is not None:
            route.enter("connection")
            return await race([(socket.AF_UNIX, self._options.unix)])
        route.enter("lookup")
        host, port = route.next_hop
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
        OSError: no address answers.
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
                except OSError as error:  # this machine lacks the family
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

    def __init__(self, connection: ClientConnection, timing: Timing) -> None:
        super().__init__(connection, timing)
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost: OSError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.proceed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc if isinstance(exc, OSError) else None
        super().connection_lost(exc)

    def abort(self) -> None:
        self.opened.cancel()
        if self.transport is not None:
            super().abort()

    def read_handshake(self) -> None:
        session = self.session
        while not self.opened.done() and (event := session.next_handshake_event()):
            if isinstance(event, Fail):
                assert isinstance(session.connection, ClientConnection)
                self.opened.set_exception(handshake_failure(session.connection, event, self._lost))
            elif isinstance(event, Response) and session.connection.state is OPEN:
                self.opened.set_result(None)
                self.begin()
