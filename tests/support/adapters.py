"""What the tests of the adapters share: peers that speak octets, and one blocking face for both adapters."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import os
import queue
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trustme

import wsframe.aio
import wsframe.sync
from tests.support.core import MASK
from tests.support.tiers import full
from wsframe import ConnectionClosed, Frame, FrameDecoder, Opcode, encode_frame
from wsframe.handshake import accept_key

try:
    import uvloop
except ImportError:
    uvloop = None

# How many seconds something that must happen may take before its test fails.
MIB = 2**20
TIMEOUT = 60
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

LOOPS = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop
    uvloop.new_event_loop().close()  # the first one opens a pipe for the process


# A parameter for each event loop. In the quick tier, asyncio's stands for both.
loops = [pytest.param(new, id=name, marks=full if name == "uvloop" else ()) for name, new in LOOPS.items()]
loop_names = [pytest.param(name, marks=full if name == "uvloop" else ()) for name in LOOPS]


# Nothing is left over


def open_files() -> set[tuple[str, str]]:
    files = set()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):
            files.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return files


@pytest.fixture(scope="session")
def frozen() -> Iterator[None]:
    """What was imported need not be looked through after each test: that takes longer than most tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def leaks(frozen: None, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that a test leaves no thread, no file and no complaint behind. Expected ones it clears."""
    files, threads = open_files(), set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), thread
    gc.collect()
    assert not open_files() - files
    assert [record.getMessage() for record in caplog.get_records("call")] == []


# Peers that speak octets


def request(*headers: str, path: str = "/", host: str = "localhost", key: str = KEY) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def response(*headers: str, key: str = KEY) -> bytes:
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


class Peer:
    """One end of a connection that says what it is told, right or wrong, on a blocking socket."""

    def __init__(self, sock: socket.socket, *, is_client: bool) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.is_client = is_client
        self.head = b""
        self._decoder = FrameDecoder(masked=not is_client)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *octets: bytes) -> None:
        self.sock.sendall(b"".join(octets))

    def encode(self, opcode: int, payload: bytes | str = b"", fin: bool = True) -> bytes:
        octets = payload.encode() if isinstance(payload, str) else payload
        return encode_frame(opcode, octets, fin, mask=MASK if self.is_client else None)

    def text(self, text: str) -> bytes:
        return self.encode(Opcode.TEXT, text)

    def close(self, code: int | None = 1000, reason: str = "") -> bytes:
        return self.encode(Opcode.CLOSE, b"" if code is None else close_payload(code, reason))

    @property
    def violation(self) -> bytes:
        """A frame that is masked where it must not be, or the other way round: 1002."""
        return encode_frame(Opcode.TEXT, b"x", mask=None if self.is_client else MASK)

    def read_head(self) -> bytes:
        """Read a head up to its blank line; what comes after it are frames."""
        octets = b""
        while b"\r\n\r\n" not in octets:
            more = self.sock.recv(65536)
            if not more:
                break
            octets += more
        self.head, _, rest = octets.partition(b"\r\n\r\n")
        if rest:
            self._decoder.feed(rest)
        return self.head

    def next_frame(self) -> Frame | None:
        """Read a frame; None at the end of the stream."""
        while (frame := self._decoder.next_frame()) is None:
            octets = self.sock.recv(65536)
            if not octets:
                assert not self._decoder.unread, "the stream ended within a frame"
                return None
            self._decoder.feed(octets)
        return frame

    def frames(self) -> list[Frame]:
        """Read all frames up to the end of the stream."""
        return list(iter(self.next_frame, None))

    def read_text(self) -> str:
        frame = self.next_frame()
        assert frame is not None
        assert frame.opcode == Opcode.TEXT, frame
        return frame.payload.decode()

    def read_close(self) -> tuple[int, str]:
        """Read a Close, and then the end of the stream."""
        frames = self.frames()
        assert [frame.opcode for frame in frames] == [Opcode.CLOSE]
        payload = frames[0].payload
        return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    def read_all(self) -> bytes:
        """Read octets up to the end of the stream."""
        return b"".join(iter(lambda: self.sock.recv(65536), b""))

    def end(self) -> None:
        """Close this direction."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def fill(peer: Peer, octets: bytes) -> int:
    """Send until the other end takes no more, and return how often."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        peer.sock.setsockopt(socket.SOL_SOCKET, option, 65536)
    peer.sock.setblocking(False)
    for count in range(64 * MIB // len(octets)):
        rest = memoryview(octets)
        while rest:
            if not select.select([], [peer.sock], [], 0.2)[1]:
                peer.sock.settimeout(TIMEOUT)
                peer.unsent = bytes(rest)
                return count
            with suppress(BlockingIOError):
                rest = rest[peer.sock.send(rest) :]
    raise AssertionError("it takes everything")


class Listener:
    """A server that says what it is told."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(TIMEOUT)
        self.tls = tls
        self.port = self.sock.getsockname()[1]
        self.uri = f"{'wss' if tls else 'ws'}://localhost:{self.port}/"

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def accept(self) -> Peer:
        sock, _ = self.sock.accept()
        sock.settimeout(TIMEOUT)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_side=True)
        return Peer(sock, is_client=False)

    def open(self, *octets: bytes, headers: tuple[str, ...] = ()) -> Peer:
        """Accept a client and its request; send these octets in the same packet as the answer."""
        peer = self.accept()
        peer.send(response(*headers, key=key_of(peer.read_head())), *octets)
        return peer


def key_of(head: bytes) -> str:
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name == "Sec-WebSocket-Key":
            return value
    raise AssertionError(head)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def spawn(leaks: None) -> Iterator[Callable[..., Future[Any]]]:
    """Run functions in threads: ``spawn(function, *args)`` returns a Future."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


class TLS(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def tls() -> TLS:
    authority = trustme.CA()
    tls = TLS(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls.server)
    authority.configure_trust(tls.client)
    return tls


# asyncio


class LoopThread:
    """An event loop in a thread, in debug mode, that must be quiet and leave no task behind."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.problems: list[Any] = []
        self._new_event_loop = new_event_loop
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._main)
        self._thread.start()
        assert self._is_running.wait(TIMEOUT)

    def _main(self) -> None:
        with asyncio.Runner(debug=True, loop_factory=self._new_event_loop) as runner:
            runner.run(watch(self._wait(), self.problems))

    async def _wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Blocking handlers run here, all of them at a time.
        self._loop.set_default_executor(ThreadPoolExecutor(64))
        self._end = asyncio.Event()
        self._is_running.set()
        await self._end.wait()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call an asynchronous function in the loop, and wait for it."""

        async def call() -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(TIMEOUT)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        assert self.problems == []


async def watch(coroutine: Any, problems: list[Any]) -> None:
    """Run a coroutine, and collect what the loop complains about and the tasks that do not end."""
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = math.inf

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # In debug mode asyncio reports clients that fail at TLS.
        if "transport creation" not in context["message"]:
            problems.append(context)

    loop.set_exception_handler(complain)
    await coroutine
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        _, late = await asyncio.wait(tasks, timeout=TIMEOUT)
        problems += late


def asynchronous(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an asynchronous test in debug mode on each event loop, which must be quiet."""

    @pytest.mark.parametrize("new_event_loop", loops)
    def run(*args: Any, new_event_loop: Callable[[], asyncio.AbstractEventLoop], **kwargs: Any) -> None:
        problems: list[Any] = []
        with asyncio.Runner(debug=True, loop_factory=new_event_loop) as runner:
            runner.run(watch(asyncio.wait_for(test(*args, **kwargs), TIMEOUT), problems))
        gc.collect()
        assert problems == []

    functools.update_wrapper(run, test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    del run.__wrapped__
    signature = inspect.signature(test)
    loop = inspect.Parameter("new_event_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])
    return run


# Both adapters, behind one face


class Blocking:
    """A WebSocket of wsframe.aio that is used like one of wsframe.sync."""

    def __init__(self, loop: LoopThread, websocket: wsframe.aio.WebSocket) -> None:
        self._loop = loop
        self.websocket = websocket

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.websocket, name)
        if inspect.iscoroutinefunction(attribute):
            return functools.partial(self._loop.run, attribute)
        return attribute

    def __repr__(self) -> str:
        return repr(self.websocket)

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> str | bytes:
        try:
            return self._loop.run(self.websocket.__anext__)
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
        sock = socket.socket()
        sock.settimeout(TIMEOUT)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.server.port))
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="localhost")
        return Peer(sock, is_client=True)

    def open(
        self,
        *octets: bytes,
        tls: ssl.SSLContext | None = None,
        path: str = "/",
        headers: tuple[str, ...] = (),
        receive_buffer: int | None = None,
    ) -> Peer:
        """Connect a client; it sends these octets in the same packet as its request."""
        peer = self.connect(tls, receive_buffer)
        peer.send(request(*headers, path=path), *octets)
        assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
        return peer


class SyncAdapter:
    name = "sync"

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
            running = Running(server, server.shutdown, options.get("ssl"))
            running.ends = echo.ends
            try:
                yield running
            finally:
                server.shutdown()
                thread.join(TIMEOUT)
                assert not thread.is_alive()

    def close(self) -> None:
        pass


class AioAdapter:
    name = "aio"

    def __init__(self, loop: str) -> None:
        self.loop = LoopThread(LOOPS[loop])
        self.close = self.loop.close

    def connect(self, uri: str, **options: Any) -> Blocking:
        return Blocking(self.loop, self.loop.run(wsframe.aio.connect, uri, **options))

    @contextmanager
    def serve(
        self, handler: Callable[[Any], None] | None = None, *address: Any, **options: Any
    ) -> Iterator[Running]:
        """Serve, by default an echo, on any port. A handler that blocks runs in a thread."""
        echo = Echo()

        async def handle(websocket: wsframe.aio.WebSocket) -> None:
            await asyncio.to_thread(handler, Blocking(self.loop, websocket))

        function = echo.asynchronous if handler is None else handle
        if not address and not {"unix", "sock"} & options.keys():
            address = ("127.0.0.1", 0)
        server = self.loop.run(wsframe.aio.serve, function, *address, **options)
        running = Running(server, functools.partial(self.loop.run, server.close), options.get("ssl"))
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
def maybe_tls(request: pytest.FixtureRequest, tls: TLS) -> TLS | None:
    return tls if request.param == "tls" else None


@pytest.fixture
def pair(adapter: SyncAdapter | AioAdapter, role: str) -> Iterator[tuple[Any, Peer]]:
    """A WebSocket, on a client and on a server, and its peer."""
    with opened(adapter, role) as pair:
        yield pair
