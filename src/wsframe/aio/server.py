"""``serve``: accept WebSockets on asyncio (RFC 6455, section 4.2)."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, TypeAlias

from ..connection import Connection, Role
from ..counters import Counters
from ..deflate import DEFAULT, Deflate
from ..errors import ConnectionClosed
from ..events import Fail, Request, Response
from ..keepalive import check_keepalive
from ..server import ServerConnection
from .connection import CONNECTING, OPEN, WebSocket

__all__ = ["Handler", "ProcessRequest", "Server", "Serving", "serve"]

Handler: TypeAlias = Callable[[WebSocket], Awaitable[None]]
ProcessRequest: TypeAlias = Callable[[Request], "Response | Awaitable[Response | None] | None"]


def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    process_request: ProcessRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Iterable[str | None] | None = None,
    deflate: Deflate | None = DEFAULT,
    ssl: tls.SSLContext | None = None,
    unix: str | None = None,
    sock: socket.socket | None = None,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    max_message_size: int | None = 2**20,
) -> Serving:
    """Accept WebSocket connections, and run a handler for each.

    ``async with serve(...) as server`` closes the server at the end; ``await serve(...)`` returns it.

    The connection is closed with 1000 when its handler returns. When the handler raises, the error is
    logged and the connection is closed with 1011; a ``ConnectionClosed`` is not an error.

    Args:
        handler: a coroutine function that is called with each open ``WebSocket``.
        host: where to listen; None: on all interfaces.
        port: the TCP port; 0: any free one, which ``server.port`` tells.
        process_request: a function or coroutine function that is called with each ``Request`` before it
            is answered. It returns None to accept (a plain GET gets 426), ``Response(101, headers)`` to
            accept with more headers, or any other ``Response`` to answer with that and close.
        subprotocols: what the server speaks, its favourite first.
        origins: the origins whose pages may connect; others get 403. By default all may.
        deflate: the compression to agree on with clients that offer it; None: none. By default it takes
            little memory.
        ssl: the TLS context, for ``wss://``.
        unix: listen on a Unix socket at this path.
        sock: listen on this bound socket.
        open_timeout: how many seconds the opening handshake may take; None: no limit.
        close_timeout: how many seconds closing may take, before the connection is cut; None: no limit.
        ping_interval: how many seconds there are between Pings that keep the connection alive; None: none.
        ping_timeout: how many seconds a Pong may take, before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in octets; None: no limit.

    Raises:
        OSError: the address cannot be listened on.
        LocalProtocolError: a subprotocol is not a token, or comes twice.
        ValueError: arguments that exclude each other.
    """
    check_keepalive(ping_interval, ping_timeout)
    if [host is not None or port is not None, unix is not None, sock is not None].count(True) != 1:
        raise ValueError("give one of: host and port, unix, sock")
    connection_options: dict[str, Any] = {
        "subprotocols": subprotocols,
        "origins": None if origins is None or isinstance(origins, str) else tuple(origins),
        "deflate": deflate,
        "max_message_size": max_message_size,
    }
    if isinstance(origins, str):
        raise TypeError("origins must be a list of str, not a str")
    ServerConnection(**connection_options)  # wrong options are told now, not with the first client
    options: dict[str, Any] = {}
    if unix is not None:
        options["path"] = unix
    elif sock is not None:
        options["sock"] = sock
    else:
        options["host"], options["port"] = host, port or 0
    if ssl is not None:
        options["ssl"] = ssl
        options["ssl_handshake_timeout"] = open_timeout
        options["ssl_shutdown_timeout"] = close_timeout
    timing = {"close_timeout": close_timeout, "ping_interval": ping_interval, "ping_timeout": ping_timeout}
    server = Server(handler, process_request, connection_options, open_timeout, timing)
    return Serving(server, options)


class Serving:
    """Be what ``serve`` returns: await it, or enter it with ``async with``."""

    def __init__(self, server: Server, options: dict[str, Any]) -> None:
        self._server = server
        self._options = options

    def __await__(self) -> Generator[Any, None, Server]:
        return self._server._listen(self._options).__await__()

    async def __aenter__(self) -> Server:
        return await self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()


class Server:
    """Be a running server.

    Attributes:
        connections: its open ``WebSocket`` objects.
    """

    def __init__(
        self,
        handler: Handler,
        process_request: ProcessRequest | None,
        connection_options: dict[str, Any],
        open_timeout: float | None,
        timing: dict[str, float | None],
    ) -> None:
        self.connections: set[WebSocket] = set()
        self._handler = handler
        self._process_request = process_request
        self._connection_options = connection_options
        self._open_timeout = open_timeout
        self._close_timeout = timing["close_timeout"]
        self._timing = timing
        self._past = Counters()  # of the connections that are lost
        self._protocols: set[_ServerWebSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._closed: asyncio.Future[None] | None = None
        self._is_closing = False

    @property
    def sockets(self) -> Sequence[Any]:
        """The sockets that it listens on."""
        return () if self._server is None else self._server.sockets

    @property
    def port(self) -> int:
        """The TCP port that it listens on; a Unix socket has none, and raises a ValueError."""
        name = self.sockets[0].getsockname()
        if isinstance(name, str):
            raise ValueError("a Unix socket has no port")
        return int(name[1])

    @property
    def counters(self) -> Counters:
        """What happened on all of its connections so far, in numbers that only grow."""
        total = self._past
        for protocol in self._protocols:
            total = total.plus(protocol.counters)
        return total

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def serve_forever(self) -> None:
        """Wait until the server is closed."""
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the server, its connections and its handlers are closed."""
        assert self._closed is not None
        await asyncio.shield(self._closed)

    async def close(self, code: int = 1001, reason: str = "") -> None:
        """Refuse new connections, close the open ones, and wait for the handlers.

        Connections that are not closed within ``close_timeout`` are cut, and handlers that have not
        returned by then are cancelled.

        Args:
            code: the status code to close with.
            reason: the reason to close with.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
        """
        assert self._server is not None
        assert self._closed is not None
        Connection(Role.SERVER).send_close(code, reason)  # what cannot be sent is told now
        self._is_closing = True
        self._server.close()
        for protocol in list(self._protocols):
            if protocol.state is CONNECTING:
                protocol.abort()
        try:
            await self._close_connections(code, reason)
        finally:
            if not self._closed.done():
                self._closed.set_result(None)

    async def _close_connections(self, code: int, reason: str) -> None:
        closing = [asyncio.ensure_future(protocol.close(code, reason)) for protocol in self._protocols]
        # A handler may be closing the server.
        tasks = self._tasks - {asyncio.current_task()}
        if closing or tasks:
            _, late = await asyncio.wait([*closing, *tasks], timeout=self._close_timeout)
            for protocol in list(self._protocols):
                protocol.abort()
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self._close_timeout)

    async def _listen(self, options: dict[str, Any]) -> Server:
        if self._server is not None:
            raise RuntimeError("this serve() was used already")
        loop = asyncio.get_running_loop()
        self._closed = loop.create_future()
        create = loop.create_unix_server if "path" in options else loop.create_server
        self._server = await create(lambda: _ServerWebSocket(self), **options)
        return self

    def _start(self, websocket: _ServerWebSocket, request: Request) -> None:
        websocket.task = task = asyncio.get_running_loop().create_task(self._run(websocket, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, websocket: _ServerWebSocket, request: Request) -> None:
        try:
            if await self._answer(websocket, request):
                await self._handle(websocket)
        except BaseException:
            websocket.abort()
            raise

    async def _answer(self, websocket: _ServerWebSocket, request: Request) -> bool:
        """Answer a request, and tell whether the connection is open."""
        try:
            response = self._process_request and self._process_request(request)
            if inspect.isawaitable(response):
                response = await response
            websocket.answer(response)
        except Exception:
            websocket.logger.exception("process_request failed")
            websocket.answer(Response(500, body=b"internal server error\n"))
        return websocket.state is OPEN

    async def _handle(self, websocket: WebSocket) -> None:
        self.connections.add(websocket)
        code, reason = 1000, ""
        try:
            await self._handler(websocket)
        except ConnectionClosed:
            pass
        except Exception:
            websocket.logger.exception("connection handler failed")
            code, reason = 1011, "internal error"
        finally:
            self.connections.discard(websocket)
        await websocket.close(code, reason)


class _ServerWebSocket(WebSocket):
    __slots__ = ("_open_timer", "_server", "task")

    _connection: ServerConnection

    def __init__(self, server: Server) -> None:
        super().__init__(ServerConnection(**server._connection_options), **server._timing)
        self._server = server
        self._open_timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server._protocols.add(self)
        if self._server._is_closing:  # it was accepted before that
            self.abort()
        elif self._server._open_timeout is not None:
            self._open_timer = self._loop.call_later(self._server._open_timeout, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._server._protocols.discard(self)
        if self._connection.state is CONNECTING and self.task is not None:
            self.task.cancel()  # nobody waits for its answer
        super().connection_lost(exc)
        self._server._past = self._server._past.plus(self.counters)

    def abort(self) -> None:
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None

    def _read_handshake(self) -> None:
        if self._connection.request is not None:
            return  # it waits for its answer
        event = self._connection.next_event()
        if isinstance(event, Request):
            # What follows the request is read when it is answered.
            self._pause_reading()
            self._server._start(self, event)
        elif isinstance(event, Fail):
            self._stop_timer()
            self._end = event

    def answer(self, response: Response | None) -> None:
        connection = self._connection
        if connection.state is not CONNECTING or self._is_lost:
            return
        if response is None:
            connection.accept()
        elif response.status == 101:
            connection.accept(response.subprotocol or ..., response.headers)
        else:
            connection.reject(response.status, response.headers, response.body)
        self._stop_timer()
        if connection.state is OPEN:
            self._opened()
        self.start()
