"""Both adapters behind one blocking face, so that a test is written once for the two."""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import wsframe.aio
import wsframe.sync
from tests.support.core import KEY, close_payload
from tests.support.loops import LOOPS, LoopThread, WindowsLoop, asynchronous, in_thread, loop_names, loops
from tests.support.peers import (
    MIB,
    TIMEOUT,
    TLS,
    Listener,
    Peer,
    connect_peer,
    fill,
    key_of,
    needs_ipv6,
    new_authority,
    open_peer,
    request,
    response,
)
from tests.support.tiers import full
from wsframe import ConnectionClosed

# Modules of other folders import these names from here.
__all__ = [
    "KEY",
    "LOOPS",
    "MIB",
    "TIMEOUT",
    "TLS",
    "AioAdapter",
    "Blocking",
    "Echo",
    "Held",
    "Listener",
    "LoopThread",
    "Peer",
    "Running",
    "SyncAdapter",
    "asynchronous",
    "close_payload",
    "connect_peer",
    "each_role",
    "each_role_and_transport",
    "fill",
    "in_thread",
    "key_of",
    "loop_names",
    "loops",
    "needs_ipv6",
    "new_authority",
    "open_peer",
    "opened",
    "request",
    "response",
]


class InLoop:
    """An object of wsframe.aio for another thread: the event loop reads its attributes and runs its methods.

    Other threads may not use wsframe.aio at all, not even to read a number.
    """

    def __init__(self, loop: LoopThread, target: Any) -> None:
        self._loop = loop
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if self._loop.is_current():
            return getattr(self._target, name)
        attribute = self._loop.run(getattr, self._target, name)
        return functools.partial(self._loop.run, attribute) if callable(attribute) else attribute


class Blocking(InLoop):
    """A WebSocket of wsframe.aio that is used like one of wsframe.sync."""

    @property
    def websocket(self) -> wsframe.aio.WebSocket:
        return self._target

    def __repr__(self) -> str:
        return self._loop.run(repr, self._target)

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> str | bytes:
        try:
            return self._loop.run(self._target.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Echo:
    """Echo messages, and remember how connections end."""

    def __init__(self) -> None:
        self.ends: queue.SimpleQueue[ConnectionClosed] = queue.SimpleQueue()

    def blocking(self, websocket: wsframe.sync.WebSocket) -> None:
        try:
            while True:
                websocket.send(websocket.recv())
        except ConnectionClosed as closed:
            self.ends.put(closed)

    async def asynchronous(self, websocket: wsframe.aio.WebSocket) -> None:
        try:
            while True:
                await websocket.send(await websocket.recv())
        except ConnectionClosed as closed:
            self.ends.put(closed)


class Held:
    """A handler for wsframe.aio that hands its WebSocket to the test, and returns when the test is over."""

    def __init__(self) -> None:
        self.websockets: asyncio.Queue[wsframe.aio.WebSocket] = asyncio.Queue()
        self.is_over = asyncio.Event()

    async def __call__(self, websocket: wsframe.aio.WebSocket) -> None:
        self.websockets.put_nowait(websocket)
        await self.is_over.wait()


class Running:
    """A server that runs."""

    def __init__(self, server: Any, close: Callable[..., None], tls: ssl.SSLContext | None) -> None:
        self.server = server
        self.close = close
        self.ends: queue.SimpleQueue[ConnectionClosed] = queue.SimpleQueue()
        self._is_secure = tls is not None

    @property
    def uri(self) -> str:
        return f"{'wss' if self._is_secure else 'ws'}://localhost:{self.server.port}/"

    def end(self) -> tuple[int, bool]:
        """Wait until a connection ends, and return its code and whether it was clean."""
        closed = self.ends.get(timeout=TIMEOUT)
        return closed.code, closed.clean

    def connect(self, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> Peer:
        """Connect a client that has said nothing yet; its receive buffer is of this size."""
        return connect_peer(self.server.port, tls, receive_buffer)

    def open(self, *data: bytes, **options: Any) -> Peer:
        """Open a client: ``open_peer`` with the port of this server."""
        return open_peer(self.server.port, *data, **options)


class SyncAdapter:
    name = "sync"

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function where it may read the state of a WebSocket and of a server: here."""
        return function(*args)

    def connect(self, uri: str, **options: Any) -> wsframe.sync.WebSocket:
        return wsframe.sync.connect(uri, **options)

    @contextmanager
    def serve(
        self, handler: Callable[[Any], None] | None = None, *address: Any, **options: Any
    ) -> Iterator[Running]:
        """Serve, by default an echo, on any port."""
        echo = Echo()
        if not address and not {"unix", "sock"} & options.keys():
            address = ("127.0.0.1", 0)
        with wsframe.sync.serve(handler or echo.blocking, *address, **options) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            running = Running(server, server.close, options.get("ssl"))
            running.ends = echo.ends
            try:
                yield running
            finally:
                server.close()
                thread.join(TIMEOUT)
                assert not thread.is_alive()

    def close(self) -> None:
        pass


class AioAdapter:
    name = "aio"

    def __init__(self, loop: str) -> None:
        self.loop = LoopThread(WindowsLoop if loop == "windows" else LOOPS[loop])
        self.call = self.loop.run
        self.close = self.loop.close

    def connect(self, uri: str, **options: Any) -> Blocking:
        return Blocking(self.loop, self.loop.run(wsframe.aio.connect, uri, **options))

    @contextmanager
    def serve(
        self, handler: Callable[[Any], None] | None = None, *address: Any, **options: Any
    ) -> Iterator[Running]:
        """Serve, by default an echo, on any port. A handler that is not asynchronous runs in a thread."""
        echo = Echo()

        async def handle(websocket: wsframe.aio.WebSocket) -> None:
            await asyncio.to_thread(handler, Blocking(self.loop, websocket))

        function = handle
        if handler is None or inspect.iscoroutinefunction(handler):
            function = handler or echo.asynchronous
        if not address and not {"unix", "sock"} & options.keys():
            address = ("127.0.0.1", 0)
        server = self.loop.run(wsframe.aio.serve, function, *address, **options)
        running = Running(
            InLoop(self.loop, server), functools.partial(self.loop.run, server.close), options.get("ssl")
        )
        running.ends = echo.ends
        try:
            yield running
        finally:
            self.loop.run(server.close)


@pytest.fixture(params=["sync", *loop_names])
def adapter(request: pytest.FixtureRequest, leaks: None) -> Iterator[SyncAdapter | AioAdapter]:
    """Each adapter, asyncio's on each event loop."""
    adapter = SyncAdapter() if request.param == "sync" else AioAdapter(request.param)
    yield adapter
    adapter.close()


@pytest.fixture(params=loop_names)
def aio_adapter(request: pytest.FixtureRequest, leaks: None) -> Iterator[AioAdapter]:
    """wsframe.aio on each event loop, for what only asyncio does."""
    adapter = AioAdapter(request.param)
    yield adapter
    adapter.close()


@contextmanager
def opened(
    adapter: SyncAdapter | AioAdapter,
    role: str,
    tls: TLS | None = None,
    headers: tuple[str, ...] = (),
    receive_buffer: int | None = None,
    **options: Any,
) -> Iterator[tuple[Any, Peer]]:
    """Open a connection between a WebSocket, a client or a server, and a peer that says what it is told.

    The peer's request or response has these headers. A client's receive buffer is of this size.
    """
    if role == "client":
        if tls is not None:
            options["ssl"] = tls.client
        with Listener(tls and tls.server) as listener, ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(adapter.connect, listener.uri, **options)
            with listener.open(headers=headers) as peer:
                websocket = connecting.result(TIMEOUT)
                yield websocket, peer
            websocket.close()
        return
    websockets: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_over = threading.Event()

    def handler(websocket: Any) -> None:
        websockets.put(websocket)
        is_over.wait(TIMEOUT)

    with adapter.serve(handler, ssl=tls and tls.server, **options) as running:
        try:
            client = tls and tls.client
            with running.open(tls=client, headers=headers, receive_buffer=receive_buffer) as peer:
                yield websockets.get(timeout=TIMEOUT), peer
        finally:
            is_over.set()


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["tcp", "tls"])
def maybe_tls(request: pytest.FixtureRequest) -> TLS | None:
    return request.getfixturevalue("tls") if request.param == "tls" else None


@pytest.fixture
def pair(adapter: SyncAdapter | AioAdapter, role: str) -> Iterator[tuple[Any, Peer]]:
    """A WebSocket, on a client and on a server, and its peer."""
    with opened(adapter, role) as pair:
        yield pair


# For what depends on the role or on TLS, but hardly on both: in the quick tier, two pairs stand for the four.
each_role_and_transport = pytest.mark.parametrize(
    ("role", "maybe_tls"),
    [
        ("client", "tls"),
        ("server", "tcp"),
        pytest.param("client", "tcp", marks=full),
        pytest.param("server", "tls", marks=full),
    ],
    indirect=True,
)

# For what does not depend on the role: in the quick tier, a server stands for both.
each_role = pytest.mark.parametrize("role", ["server", pytest.param("client", marks=full)], indirect=True)
