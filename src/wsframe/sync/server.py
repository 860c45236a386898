"""``serve``: accept WebSockets on blocking sockets, with a thread for each (RFC 6455, section 4.2)."""

from __future__ import annotations

import errno
import inspect
import re
import selectors
import socket
import ssl as tls
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TypeAlias

from ..adapter.auth import ProcessRequest
from ..adapter.counters import Counters
from ..adapter.listeners import Address, Listeners
from ..adapter.options import ServerOptions, Timing
from ..connection import Connection, Role
from ..deflate import DEFAULT, Deflate
from ..errors import ConnectionClosed, is_only
from ..events import Request
from ..server import ServerConnection
from .driver import OPEN, logger
from .stream import SocketStream, TLSStream, deadline_after, earlier
from .websocket import WebSocket

__all__ = ["Handler", "Server", "serve"]


Handler: TypeAlias = Callable[[WebSocket], None]
"""A function that is called with each open ``WebSocket`` of a server, in a thread of its own."""

# After the grace time connections are cut, which wakes handlers that wait for them: they have these seconds
# to end. The others sleep elsewhere, and nothing can wake them.
_LAST_SECONDS = 1.0


def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    process_request: ProcessRequest | None = None,
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
    max_connections: int = 1000,
) -> Server:
    """Accept WebSocket connections, and run a handler for each in a thread of its own.

    ``with serve(...) as server`` closes the server at the end. It listens at once, and accepts
    connections in ``server.serve_forever()``.

    The connection is closed with 1000 when its handler returns. When the handler raises, the error is
    logged and the connection is closed with 1011. A ``ConnectionClosed`` is not an error, alone or as all
    that an ``ExceptionGroup`` holds.

    Args:
        handler: a function that is called with each open ``WebSocket``.
        host: where to listen, one or more names or addresses; None: on all interfaces.
        port: the TCP port; 0: any free one, the same on every address, which ``server.port`` tells.
        process_request: a function that is called with each ``Request`` before it is answered. It returns
            None to accept (a plain GET gets 426), ``Response(101, headers)`` to accept with more headers,
            or any other ``Response`` to answer with that and close. ``wsframe.redirect`` makes one, and
            ``wsframe.basic_auth`` makes such a function.
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
            They are sent while a thread is in ``recv``.
        ping_timeout: how many seconds a Pong may take before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in bytes; None: no limit.
        max_connections: how many connections may be open at a time. More clients wait until one is closed.

    Raises:
        OSError: the address cannot be listened on.
        LocalProtocolError: a subprotocol is not a token, or comes twice.
        ValueError: arguments exclude each other, a number is out of range, an origin is not one, or there is
            no such owner.
        TypeError: an argument has a wrong type.
    """
    if inspect.iscoroutinefunction(process_request):
        raise TypeError(
            "process_request must be a function, not a coroutine function: wsframe.aio takes those"
        )
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
    listeners = address.listen(
        socket.getaddrinfo(name, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for name in address.hosts
    )
    return Server(handler, options, listeners)


class Server:
    """A server, as ``serve`` returns it.

    Args:
        handler: a function that is called with each open ``WebSocket``, in a thread of its own.
        options: the options of ``serve``.
        listeners: the sockets to listen on. By default there are none, and the only clients are those of
            ``serve_socket``.
    """

    def __init__(self, handler: Handler, options: ServerOptions, listeners: Listeners | None = None) -> None:
        self._handler = handler
        self._options = options
        self._listeners = listeners or Listeners()
        self._past = Counters()  # of the connections that are over
        self._lock = threading.RLock()  # close() may be called by a signal handler
        self._ended = threading.Condition(self._lock)  # a thread has ended, which close() waits for
        self._threads: set[threading.Thread] = set()
        self._opening: set[SocketStream] = set()
        self._websockets: dict[threading.Thread, WebSocket] = {}
        self._serving: threading.Thread | None = None  # the thread of serve_forever()
        self._is_closing = False  # whether close() was called
        self._is_close_deferred = False  # whether serve_forever() has to do the rest of it
        self._closers: set[threading.Thread] = set()  # of handlers that close the server
        self._farewell = 1001, ""  # the code and reason that open connections are closed with
        self._cut_time: float | None = None  # when close() cuts them
        self._end_time: float | None = None  # when it stops waiting for the handlers
        # A byte wakes serve_forever(), when something has changed that it waits for.
        self._waker, self._wakened = socket.socketpair()
        for sock in (*self._listeners.sockets, self._waker, self._wakened):
            sock.setblocking(False)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it listens on."""
        return tuple(self._listeners.sockets)

    @property
    def port(self) -> int:
        """The TCP port that it listens on; a Unix socket has none, and raises a ValueError."""
        return self._listeners.port

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open now: neither those that are opening nor those that are closing.

        It is a copy: iterate over it while they come and go.
        """
        with self._lock:
            websockets = list(self._websockets.values())
        return {websocket for websocket in websockets if websocket.state is OPEN}

    @property
    def counters(self) -> Counters:
        """What happened on all of its connections so far, in numbers that only grow."""
        with self._lock:
            total = self._past
            for websocket in self._websockets.values():
                total = total.plus(websocket.counters)
        return total

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve_forever(self) -> None:
        """Accept connections, until another thread or a signal handler calls ``close()``.

        Raises:
            RuntimeError: the server is closed, or serves already.
        """
        with selectors.DefaultSelector() as full, selectors.DefaultSelector() as ready:
            with self._lock:
                if self._is_closing or self._serving is not None:
                    raise RuntimeError("the server is closed, or serves already")
                self._serving = threading.current_thread()
                full.register(self._wakened, selectors.EVENT_READ)
                for sock in (*self.sockets, self._wakened):
                    ready.register(sock, selectors.EVENT_READ)
            try:
                self._accept_until_closed(full, ready)
            finally:
                self._serving = None
                if self._is_close_deferred:
                    self._close_all()
                self._close_wakers()

    def _accept_until_closed(self, full: selectors.BaseSelector, ready: selectors.BaseSelector) -> None:
        while not self._is_closing:
            selector = full if self.is_full else ready
            for key, _ in selector.select():
                if key.fileobj is self._wakened:
                    self._wakened.recv(4096)
                elif not self._accept(key.fileobj):  # type: ignore[arg-type]
                    full.select(1)  # until a client has gone, or for a second

    def close(self, code: int = 1001, reason: str = "", grace: float | None = None) -> None:
        """Refuse new connections, close the open ones, and wait for the handlers.

        Connections that are still in the TLS or opening handshake are cut at once. Those that are not closed
        are cut after the grace time, or after ``close_timeout`` if that is shorter. A handler that still runs
        after the grace time cannot be ended: its thread is left behind.

        Called again, it waits as well, and the shorter grace time holds. A handler that calls it does not
        wait for itself, nor for others that do. A signal handler may call it: in the thread of
        ``serve_forever()`` it returns at once, and that does the rest.

        Args:
            code: the status code to close with.
            reason: the reason to close with.
            grace: how many seconds closing and the handlers may take; None: the server's ``close_timeout``.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
        """
        Connection(Role.SERVER).send_close(code, reason)  # raises now if they cannot be sent
        now = monotonic()
        with self._lock:
            if not self._is_closing:
                self._farewell = code, reason
            self._is_closing = True
            close_timeout = self._options.timing.close_timeout
            grace = close_timeout if grace is None else grace
            self._end_time = earlier(self._end_time, None if grace is None else now + grace)
            last = None if close_timeout is None else now + close_timeout
            self._cut_time = earlier(self._cut_time, earlier(self._end_time, last))
        self._wake()
        if self._serving is threading.current_thread():
            # It was interrupted, perhaps while it holds the lock that the threads need to end.
            self._is_close_deferred = True
        else:
            self._close_all()

    def _close_all(self) -> None:
        thread = threading.current_thread()
        with self._lock:
            self._listeners.close()
            for stream in self._opening:
                stream.abort()
            websockets = list(self._websockets.values())
            threads = set(self._threads)
        for websocket in websockets:
            with suppress(TimeoutError):  # a slow one holds up no other: its own thread sends the rest
                websocket.start_close(*self._farewell, monotonic())
        with self._ended:
            if thread in self._threads:
                self._closers.add(thread)
            self._ended.notify_all()
            if not self._wait_for_threads(thread, lambda: self._cut_time):
                for websocket in self._websockets.values():
                    websocket.abort()
                if self._end_time is not None:
                    self._end_time = max(self._end_time, monotonic() + _LAST_SECONDS)
                self._wait_for_threads(thread, lambda: self._end_time)
            ending = threads - self._threads
        for other in ending:
            other.join()  # it has nothing left to do
        self._close_wakers()

    def _wait_for_threads(self, thread: threading.Thread, deadline: Callable[[], float | None]) -> bool:
        """Wait until the others have ended, and return whether they have in time."""
        while self._threads - (self._closers if thread in self._closers else set()):
            end = deadline()  # another call of close() may have moved it
            if end is not None and end <= monotonic():
                return False
            self._ended.wait(None if end is None else end - monotonic())
        return True

    def _wake(self) -> None:
        with suppress(OSError):  # it is full of wake-ups already, or closed
            self._waker.send(b"\0")

    def _close_wakers(self) -> None:
        if self._is_closing and self._serving is None:
            self._waker.close()
            self._wakened.close()

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a client, and return whether there was room for it on this machine."""
        if self.is_full:
            return True
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                return True  # the client has gone, or the server is closed
            logger.exception("cannot accept a connection")
            return False
        try:
            self.serve_socket(sock)
        except RuntimeError:
            logger.exception("cannot start a thread for a connection")
            return False
        return True

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        limit = self._options.max_connections
        return limit is not None and len(self._threads) >= limit

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve the client of a socket that you have accepted yourself, in a thread of its own.

        The socket is the server's from now on. A server that is closed closes it. ``max_connections`` is not
        applied: do not accept a client while the server ``is_full``.

        Args:
            sock: a connected socket.

        Raises:
            RuntimeError: there can be no more threads; the socket is closed.
        """
        thread = threading.Thread(target=self._run, args=(sock,), daemon=True, name="wsframe")
        with self._lock:
            try:
                thread.start()
            except RuntimeError:
                sock.close()
                raise
            self._threads.add(thread)

    def _run(self, sock: socket.socket) -> None:
        """Serve one client, in a thread of its own."""
        deadline, context = deadline_after(self._options.timing.open_timeout), self._options.ssl
        try:
            if context is not None:
                sock.setblocking(False)
                sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            stream = TLSStream(sock) if isinstance(sock, tls.SSLSocket) else SocketStream(sock)
            websocket = self._open(stream, deadline)
            if websocket is not None:
                self._handle(websocket)
        except OSError:
            pass  # the opening handshake failed, or took too long: the client is told nothing
        finally:
            sock.close()
            thread = threading.current_thread()
            with self._ended:
                if (over := self._websockets.pop(thread, None)) is not None:
                    self._past = self._past.plus(over.counters)
                self._closers.discard(thread)
                self._threads.discard(thread)
                self._ended.notify_all()
            self._wake()

    def _open(self, stream: SocketStream, deadline: float | None) -> WebSocket | None:
        with self._lock:
            if self._is_closing:
                return None
            self._opening.add(stream)
        try:
            stream.do_handshake(deadline)
            connection = self._options.connection()
            websocket = WebSocket(connection, stream, self._options.timing)

            def answer(request: Request) -> None:
                self._answer(connection, request)
                if connection.state is OPEN:
                    # From here on it is closed with a Close, and not cut.
                    with self._lock:
                        self._opening.discard(stream)
                        self._websockets[threading.current_thread()] = websocket

            if websocket.shake_hands(deadline, answer):
                return websocket
            websocket.close_tcp(deadline)
            return None
        finally:
            with self._lock:
                self._opening.discard(stream)

    def _answer(self, connection: ServerConnection, request: Request) -> None:
        process_request = self._options.process_request
        try:
            response = process_request and process_request(request)
            if isinstance(response, Awaitable):
                if inspect.iscoroutine(response):
                    response.close()  # or Python complains that it was never awaited
                raise TypeError("process_request must return a Response or None, not an awaitable")
            connection.respond(response)
        except Exception:
            logger.exception("process_request failed")
            connection.reject(500, body=b"internal server error\n")

    def _handle(self, websocket: WebSocket) -> None:
        is_served = not self._is_closing
        code, reason = (1000, "") if is_served else self._farewell
        try:
            if is_served:
                self._handler(websocket)
        except Exception as error:
            if not is_only(error, ConnectionClosed):
                websocket.logger.exception("connection handler failed")
                code, reason = 1011, "internal error"
        except BaseException:
            code, reason = 1011, "internal error"
            raise
        finally:
            websocket.close(code, reason)
