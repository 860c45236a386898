"""What the tests of wsframe.asgi share: uvicorn in a thread, and applications at its paths."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.adapters import LOOPS, TIMEOUT, TLS, LoopThread, Peer, request
from tests.support.extras import is_installed
from tests.support.tiers import full

try:
    import uvicorn
except ImportError:  # this is a plugin of every test: only those of uvicorn are skipped
    uvicorn = None

OURS = "wsframe.asgi:WebSocketProtocol"
HTTP = ["httptools", "h11"] if is_installed("httptools") else ["h11"]
# uvicorn's HTTP parser, and the event loop. In the quick tier, the first place stands for all.
PLACES = [f"{http}-{loop}" for http in HTTP for loop in LOOPS]
places = [pytest.param(place, marks=() if place == PLACES[0] else full) for place in PLACES]
# For a test whose result depends on the parser, each parser has a place in the quick tier.
parsers = [pytest.param(place, marks=full if place.endswith("-uvloop") else ()) for place in PLACES]

App = Callable[[Any, Any, Any], Awaitable[Any]]


class Visit:
    """One run of an application: what it is given, what it receives, how it ends."""

    def __init__(self, app: App, path: str) -> None:
        self.app = app
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._scope: Future[dict[str, Any]] = Future()
        self._end: Future[Any] = Future()

    async def run(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        async def hear() -> Any:
            event = await receive()
            self.events.append(event)
            return event

        self._scope.set_result(scope)
        try:
            result = await self.app(scope, hear, send)
        except BaseException as error:
            self._end.set_exception(error)
            raise
        self._end.set_result(result)
        return result

    @property
    def scope(self) -> dict[str, Any]:
        """Wait for the request."""
        return self._scope.result(TIMEOUT)

    @property
    def is_begun(self) -> bool:
        return self._scope.done()

    def result(self) -> Any:
        """Wait for the end of the application; raises what it raised."""
        return self._end.result(TIMEOUT)

    def heard(self) -> list[dict[str, Any]]:
        """Wait for the end, and return what came after websocket.connect."""
        self.result()
        assert self.events[0] == {"type": "websocket.connect"}
        return self.events[1:]


class Site:
    """uvicorn with applications: each has a path. It listens on these sockets, if there are any."""

    def __init__(
        self,
        place: str,
        app: Any = None,
        ws: str = OURS,
        tls: TLS | None = None,
        sockets: list[socket.socket] | None = None,
        **settings: Any,
    ) -> None:
        http, loop = place.split("-")
        self.http, self.tls, self._sockets = http, tls, sockets
        self.loop = LoopThread(LOOPS[loop])
        self._visits: dict[str, Visit] = {}
        self._paths = map("/{}".format, itertools.count())
        if not {"uds", "fd", "host"} & settings.keys():
            settings["host"] = "127.0.0.1"
        settings = {"lifespan": "off", "log_config": None, "interface": "asgi3", "port": 0, **settings}
        self.config = uvicorn.Config(app or self, http=http, ws=ws, **settings)
        self.config.load()
        if tls is not None:
            self.config.ssl = tls.server
        self.server = uvicorn.Server(self.config)
        self._serving = self.loop.run(self._start)

    async def _start(self) -> asyncio.Task[None]:
        serving = asyncio.create_task(self.server.serve(self._sockets))
        while not self.server.started:
            assert not serving.done(), serving
            await asyncio.sleep(0.001)
        return serving

    def visit(self, app: App) -> Visit:
        """Give an application a path."""
        visit = Visit(app, next(self._paths))
        self._visits[visit.path] = visit
        return visit

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        path = scope["path"].removeprefix(scope["root_path"])
        return await self._visits["/" + path.split("/")[1]].run(scope, receive, send)

    @property
    def address(self) -> Any:
        return self.server.servers[0].sockets[0].getsockname()

    def uri(self, visit: Visit) -> str:
        return f"{'wss' if self.tls else 'ws'}://localhost:{self.address[1]}{visit.path}"

    def connect(self, receive_buffer: int | None = None) -> Peer:
        """Connect a client that has said nothing yet."""
        address = self.address
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        sock = socket.socket(socket.AF_INET6 if len(address) == 4 else family)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(TIMEOUT)
        sock.connect(address)
        if self.tls is not None:
            sock = self.tls.client.wrap_socket(sock, server_hostname="localhost")
        return Peer(sock, is_client=True)

    def ask(self, visit: Visit, *headers: str, more: str = "", receive_buffer: int | None = None) -> Peer:
        """Connect a client, and send its request."""
        peer = self.connect(receive_buffer)
        peer.send(request(*headers, path=visit.path + more))
        return peer

    def open(self, visit: Visit, *headers: str, receive_buffer: int | None = None) -> Peer:
        """Connect a client, up to the 101."""
        peer = self.ask(visit, *headers, receive_buffer=receive_buffer)
        assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
        return peer

    def settle(self) -> None:
        """Wait until no connection and no task is left."""
        state = self.server.server_state

        async def settle() -> None:
            while state.connections or state.tasks:
                await asyncio.sleep(0)

        self.loop.run(settle)

    def shut_down(self) -> None:
        """Begin to shut down, as SIGTERM does."""
        self.server.should_exit = True

    def close(self) -> None:
        async def close() -> None:
            self.shut_down()
            await self._serving

        self.loop.run(close)
        state = self.server.server_state
        assert not state.connections
        assert not state.tasks
        self.loop.close()


@contextmanager
def site_at(place: str, app: Any = None, **settings: Any) -> Iterator[Site]:
    """Run uvicorn with some settings."""
    site = Site(place, app, **settings)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture(params=places, scope="module")
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=places[:: max(len(places) - 1, 1)])
def corner(request: pytest.FixtureRequest) -> str:
    """The first place and the last one, for a test whose result no parser and no loop can change."""
    return request.param


@pytest.fixture(scope="module")
def running(place: str) -> Iterator[Site]:
    with site_at(place) as site:
        yield site


@pytest.fixture
def site(running: Site, leaks: None) -> Iterator[Site]:
    """uvicorn as it comes; nothing of a test is left on it."""
    yield running
    running.settle()


def close(peer: Peer, code: int = 1000) -> None:
    """Close the connection as its client, and check that the server answers with the same code."""
    peer.send(peer.close(code))
    assert peer.read_close() == (code, "")


def parsed(response: bytes, *, is_head: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the body of a response, perhaps to a HEAD."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.lower().partition(": ")
        # Section 4.4 wants a 426 to have "Connection: Upgrade", and we close.
        assert name not in headers or name == "connection", lines
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if not is_head:
        assert headers.get("content-length", str(len(body))) == str(len(body))
    return int(status.split()[1]), headers, body


# Events

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}


def disconnect(code: int, reason: str = "") -> dict[str, object]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, and clear it: it was expected."""
    said = [record.getMessage().strip() for record in caplog.records]
    caplog.clear()
    return said


# Applications


async def hear(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and receive up to the end, after which nothing goes."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    await to_the_end(receive, send)


async def to_the_end(receive: Any, send: Any) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    await nothing_goes(receive, send)


async def nothing_goes(receive: Any, send: Any) -> None:
    for event in (
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "bytes": b"a"},
        {"type": "websocket.close"},
        {"type": "websocket.http.response.start", "status": 200, "headers": []},
        {"type": "websocket.http.response.body", "body": b""},
    ):
        with pytest.raises(OSError, match=r"clos|lost|refused"):
            await send(event)
    with pytest.raises(RuntimeError, match="nothing follows"):
        await receive()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
