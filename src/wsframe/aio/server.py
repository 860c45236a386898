"""``serve``: accept WebSockets on asyncio (RFC 6455, section 4.2)."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import ssl as tls
from asyncio import current_task
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, TypeAlias

from ..adapter.auth import AsyncProcessRequest
from ..adapter.counters import Counters
from ..adapter.listeners import BACKLOG, Address, Listeners
from ..adapter.options import ServerOptions, Timing
from ..adapter.sockets import is_unix
from ..connection import Connection, Role
from ..deflate import DEFAULT, Deflate
from ..errors import ConnectionClosed, is_only
from ..events import Fail, Request, Response
from .protocol import CONNECTING, OPEN, logger
from .websocket import WebSocket

__all__ = ["Handler", "Server", "Serving", "serve"]


Handler: TypeAlias = Callable[[WebSocket], Awaitable[None]]
"""A coroutine function that is called with each open ``WebSocket`` of a server."""

# A client that asks when the server is full is told when to ask again.
_FULL = Response(503, [("Retry-After", "5")], b"too many connections\n")
_SURPLUS = 100  # so many may be told so at a time; when more come, they are cut
_BURST = 100  # clients that are accepted in a turn of the loop


def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    process_request: AsyncProcessRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Iterable[str | re.Pattern[str] | None] | None = None,
    compression: Deflate | None = DEFAULT,
    ssl: tls.SSLContext | None = None,
    unix: str | Sequence[str] | None = None,
    unix_mode: int | None = None,
    unix_owner: str | None = None,
    sock: socket.socket | Sequence[socket.socket] | None = None,
    reuse_port: bool = False,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    max_message_size: int | None = 2**20,
    max_connections: int | None = None,
) -> Serving:
    """Accept WebSocket connections, and run a handler for each.

    ``async with serve(...) as server`` closes the server at the end; ``await serve(...)`` returns it.

    The connection is closed with 1000 when its handler returns. When the handler raises, the error is
    logged and the connection is closed with 1011. A ``ConnectionClosed`` is not an error, alone or as all
    that an ``ExceptionGroup`` holds.

    Args:
        handler: a coroutine function that is called with each open ``WebSocket``.
        host: where to listen, one or more names or addresses; None: on all interfaces.
        port: the TCP port; 0: any free one, the same on every address, which ``server.port`` tells.
        process_request: a function that is called with each ``Request`` before it is answered. It returns
            None to accept (a plain GET gets 426), ``Response(101, headers)`` to accept with more headers,
            or any other ``Response`` to answer with that and close. ``wsframe.redirect`` makes one, and
            ``wsframe.basic_auth`` makes such a function. It may be a coroutine function.
        subprotocols: the subprotocols that the server speaks, its favourite first.
        origins: the origins whose pages may connect, strings such as ``https://example.com`` and compiled
            patterns that match all of one: see ``wsframe.Origins``. Others get 403. By default all may.
        compression: the compression to agree on with clients that offer it; None to disable it. By default
            it takes little memory.
        ssl: the TLS context, for ``wss://``.
        unix: listen on a Unix socket at this path, or at each of several. A file that a dead server has left
            there is replaced, and ours is removed at the end.
        unix_mode: the permissions of the Unix socket, such as 0o660; None: what the umask leaves. A client
            that may not write to it cannot connect.
        unix_owner: the owner of the Unix socket, ``"user"``, ``"user:group"`` or ``":group"``, by name or
            number; None: the user and group of this process. Only root can choose another user.
        sock: listen on this bound socket, or on each of several. Those that listen already, because systemd
            or a parent has made them, are taken as they are.
        reuse_port: share the port with other processes that do so too.
        open_timeout: how many seconds the opening handshake may take; None: no limit.
        close_timeout: how many seconds closing may take before the connection is cut; None: no limit.
        ping_interval: how many seconds pass between Pings that keep the connection alive; None: send none.
        ping_timeout: how many seconds a Pong may take before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in bytes; None: no limit.
        max_connections: how many connections may be open at a time. A client that asks for one more gets 503
            with Retry-After, before ``process_request`` sees it. None: no limit.

    Raises:
        OSError: the address cannot be listened on; from the ``async with`` or ``await``.
        LocalProtocolError: a subprotocol is not a token, or comes twice.
        ValueError: arguments exclude each other, a number is out of range, an origin is not one, or there is
            no such owner.
        TypeError: an argument has a wrong type.
    """
    options = ServerOptions(
        process_request=process_request,
        subprotocols=subprotocols,
        origins=origins,
        compression=compression,
        max_message_size=max_message_size,
        ssl=ssl,
        timing=Timing(open_timeout, close_timeout, ping_interval, ping_timeout),
        max_connections=max_connections,
    )
    address = Address(
        host, port, unix, sock, reuse_port=reuse_port, unix_mode=unix_mode, unix_owner=unix_owner
    )
    return Serving(Server(handler, options), address)


class Serving:
    """The result of ``serve``: await it, or enter it with ``async with``."""

    def __init__(self, server: Server, address: Address) -> None:
        self._server = server
        self._address = address

    def __await__(self) -> Generator[Any, None, Server]:
        return self._server._listen(self._address).__await__()

    async def __aenter__(self) -> Server:
        return await self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()


class Server:
    """A running server, as ``serve`` returns it.

    One that you make yourself does not listen. It serves the clients of ``serve_socket`` and ``protocol``.

    Args:
        handler: a coroutine function that is called with each open ``WebSocket``.
        options: the options of ``serve``.
    """

    def __init__(self, handler: Handler, options: ServerOptions) -> None:
        self._handler = handler
        self._options = options
        self._past = Counters()  # of the connections that are lost
        self._listeners: Listeners | None = None
        self._servers: list[asyncio.Server] = []  # which accept clients for us
        self._polled: list[socket.socket] = []  # where we accept them
        self._accepting: dict[_ServerWebSocket, asyncio.Task[None]] = {}  # up to connection_made
        self._protocols: set[_ServerWebSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Its end
        self._closing: asyncio.Task[None] | None = None
        self._closers: set[asyncio.Task[Any]] = set()  # handlers that close the server
        self._changed = asyncio.Event()  # is set when there is less of all these to wait for
        self._is_over_for_closers = asyncio.Event()
        self._is_closed = asyncio.Event()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it listens on."""
        return () if self._listeners is None else tuple(self._listeners.sockets)

    @property
    def port(self) -> int:
        """The TCP port that it listens on; a Unix socket has none, and raises a ValueError."""
        return (self._listeners or Listeners()).port

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open now: neither those that are opening nor those that are closing.

        It is a copy: iterate over it while they come and go.
        """
        return {protocol for protocol in self._protocols if protocol.state is OPEN}

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
        await self._is_closed.wait()

    async def close(self, code: int = 1001, reason: str = "", grace: float | None = None) -> None:
        """Refuse new connections, close the open ones, and wait for the handlers.

        Connections that are still in the TLS or opening handshake are cut at once. After the grace time those
        that are not closed are cut, and handlers that have not returned are cancelled.

        Called again, it waits as well, and the shorter grace time holds. A handler that calls it does not
        wait for itself, nor for others that do. Cancelling it stops the waiting, and not the closing.

        Args:
            code: the status code to close with.
            reason: the reason to close with.
            grace: how many seconds closing and the handlers may take; None: the server's ``close_timeout``.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
        """
        Connection(Role.SERVER).send_close(code, reason)  # raises now if they cannot be sent
        loop = asyncio.get_running_loop()
        if self._closing is None:
            self._closing = loop.create_task(self._close(code, reason))
        grace = self._options.timing.close_timeout if grace is None else grace
        if grace is not None:
            self._call_later(grace, self._cut)
        task = current_task()
        if task in self._tasks:
            # It is as good as over: two of them must not wait for each other.
            self._closers.add(task)
            self._changed.set()
            await self._is_over_for_closers.wait()
        else:
            await asyncio.shield(self._closing)

    async def _close(self, code: int, reason: str) -> None:
        try:
            self._stop_accepting()
            for protocol in list(self._protocols):
                if protocol.state is CONNECTING:
                    protocol.abort()
            farewells = [asyncio.ensure_future(protocol.close(code, reason)) for protocol in self._protocols]
            while self._accepting or self._protocols or len(self._tasks) > len(self._closers):
                await self._wait_for_change()
            self._is_over_for_closers.set()
            while self._tasks:
                await self._wait_for_change()
            await asyncio.gather(*farewells)
        finally:
            self._is_over_for_closers.set()
            self._is_closed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function unless the server is closed by then."""
        assert self._closing is not None
        timer = asyncio.get_running_loop().call_later(seconds, function)
        self._closing.add_done_callback(lambda _: timer.cancel())

    def _cut(self) -> None:
        """End what has not ended within the grace time."""
        for protocol in list(self._protocols):
            protocol.abort()
        late = self._tasks if self._is_over_for_closers.is_set() else self._tasks - self._closers
        for task in late:
            task.cancel()
        close_timeout = self._options.timing.close_timeout
        if close_timeout is not None:
            self._call_later(close_timeout, self._give_up)

    def _give_up(self) -> None:
        if self._tasks:
            logger.error("%d handlers go on although they were cancelled", len(self._tasks))
        self._tasks.clear()
        self._closers.clear()
        self._changed.set()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._closers.discard(task)
        self._changed.set()

    # Clients come

    async def _listen(self, address: Address) -> Server:
        if self._listeners is not None:
            raise RuntimeError("this serve() was used already")
        self._listeners = Listeners()
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(
            *(
                loop.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
                for host in address.hosts
            )
        )
        self._listeners = address.listen(found)
        try:
            for sock in self._listeners.sockets:
                sock.setblocking(False)
                await self._start_accepting(sock, is_inherited=address.is_inherited)
        except BaseException:
            self._stop_accepting()
            raise
        return self

    async def _start_accepting(self, sock: socket.socket, *, is_inherited: bool) -> None:
        """Let the event loop accept clients, or accept them here.

        The event loop is quicker. But it calls listen() on a socket that listens already, and so replaces the
        backlog that its maker chose; and it does not tell us of the clients that are in the TLS handshake.
        """
        loop = asyncio.get_running_loop()
        if self._options.ssl is not None or is_inherited:
            try:
                loop.add_reader(sock, self._accept, sock)
                self._polled.append(sock)
                return
            except NotImplementedError:
                pass  # Windows
        options = {**self._tls_arguments(), "backlog": BACKLOG}
        create: Any = loop.create_server
        if is_unix(sock) and not isinstance(loop, asyncio.BaseEventLoop):
            create = loop.create_unix_server  # which asyncio does not need
            if "cleanup_socket" in inspect.signature(create).parameters:
                options["cleanup_socket"] = False  # the file is removed here
        self._servers.append(await create(self.protocol, sock=sock, **options))

    def _tls_arguments(self) -> dict[str, Any]:
        """Return the arguments of the event loop that are about TLS."""
        ssl = self._options.ssl
        return {} if ssl is None else {"ssl": ssl, **self._options.timing.of_tls}

    def _accept(self, listener: socket.socket) -> None:
        """Accept the clients that wait."""
        loop = asyncio.get_running_loop()
        for _ in range(_BURST):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # There are no file descriptors or no memory: perhaps there are in a second.
                logger.exception("cannot accept a connection")
                loop.remove_reader(listener)
                loop.call_later(1, self._accept_again, listener)
                return
            self.serve_socket(sock)

    def _accept_again(self, listener: socket.socket) -> None:
        if self._closing is None:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve the client of a socket that you have accepted yourself.

        The socket is the server's from now on. A server that is closed, or has too many clients, closes it.

        Args:
            sock: a connected socket.
        """
        if self._closing is not None:
            sock.close()
            return
        sock.setblocking(False)
        websocket = _ServerWebSocket(self)
        self._accepting[websocket] = asyncio.get_running_loop().create_task(self._connect(websocket, sock))

    def protocol(self) -> WebSocket:
        """Return a protocol that serves one more client, on a transport of your own.

        So the method is a protocol factory for event loops: ``loop.create_server(server.protocol, ...)``.
        """
        return _ServerWebSocket(self)

    async def _connect(self, websocket: _ServerWebSocket, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self.is_crowded:
                sock.close()
            else:
                await loop.connect_accepted_socket(lambda: websocket, sock, **self._tls_arguments())
        except OSError:
            pass  # the TLS handshake failed, or took too long: the client is told nothing
        finally:
            self._accepting.pop(websocket, None)
            self._changed.set()

    def _stop_accepting(self) -> None:
        """Stop listening, and cut the clients that are in the TLS handshake."""
        loop = asyncio.get_running_loop()
        for server in self._servers:
            server.close()
        for sock in self._polled:
            loop.remove_reader(sock)
        self._polled.clear()
        if self._listeners is not None:
            self._listeners.close()
        for task in self._accepting.values():
            task.cancel()

    # Clients are served

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        limit = self._options.max_connections
        return limit is not None and len(self._tasks) >= limit

    @property
    def is_crowded(self) -> bool:
        """Whether there are too many clients to tell all of them that it is full."""
        limit = self._options.max_connections
        return limit is not None and len(self._protocols) + len(self._accepting) > limit + _SURPLUS

    def _start(self, websocket: _ServerWebSocket, request: Request) -> None:
        websocket.task = task = asyncio.get_running_loop().create_task(self._run(websocket, request))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    async def _run(self, websocket: _ServerWebSocket, request: Request) -> None:
        try:
            if await self._answer(websocket, request):
                await self._handle(websocket)
        except BaseException:
            websocket.abort()
            raise

    async def _answer(self, websocket: _ServerWebSocket, request: Request) -> bool:
        """Answer a request, and return whether the connection is open."""
        process_request = self._options.process_request
        try:
            response = process_request and process_request(request)
            if inspect.isawaitable(response):
                response = await response
            websocket.answer(response)
        except Exception:
            websocket.logger.exception("process_request failed")
            websocket.answer(Response(500, body=b"internal server error\n"))
        return websocket.state is OPEN

    async def _handle(self, websocket: WebSocket) -> None:
        code, reason = 1000, ""
        try:
            await self._handler(websocket)
        except Exception as error:
            if not is_only(error, ConnectionClosed):
                websocket.logger.exception("connection handler failed")
                code, reason = 1011, "internal error"
        await websocket.close(code, reason)


class _ServerWebSocket(WebSocket):
    __slots__ = ("_connection", "_open_timer", "_server", "task")

    def __init__(self, server: Server) -> None:
        self._connection = server._options.connection()
        super().__init__(self._connection, server._options.timing)
        self._server = server
        self._open_timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server = self._server
        server._accepting.pop(self, None)
        server._protocols.add(self)
        if server._closing is not None or server.is_crowded:  # or it was accepted before that
            self.abort()
        elif (timeout := server._options.timing.open_timeout) is not None:
            self._open_timer = asyncio.get_running_loop().call_later(timeout, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._server._protocols.discard(self)
        self._server._changed.set()
        if self._connection.state is CONNECTING and self.task is not None:
            self.task.cancel()  # its answer would reach no client
        super().connection_lost(exc)
        self._server._past = self._server._past.plus(self.session.counters)

    def _stop_timer(self) -> None:
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None

    def read_handshake(self) -> None:
        if self._connection.request is not None:
            return  # it waits for its answer
        event = self.session.next_handshake_event()
        if isinstance(event, Request):
            if self._server.is_full:
                self._connection.respond(_FULL)
                self._stop_timer()
                return
            # What follows the request is read when it is answered.
            self.pause_reading()
            self._server._start(self, event)
        elif isinstance(event, Fail):
            self._stop_timer()

    def answer(self, response: Response | None) -> None:
        connection = self._connection
        if connection.state is not CONNECTING or self.session.is_lost:
            return
        connection.respond(response)
        self._stop_timer()
        if connection.state is OPEN:
            self.begin()
        self.proceed()
