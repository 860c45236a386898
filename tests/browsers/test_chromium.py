"""Chromium as a peer: of wsframe serve and its page, over TLS too, and of the examples with a page."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from tests.support.adapters import LOOPS, MIB, TIMEOUT, LoopThread
from tests.support.chromium import Browser, chromium, needs_certutil, needs_chromium
from tests.support.django_chat import site
from tests.support.extras import needs
from tests.support.paths import EXAMPLES
from tests.support.ports import reserved_port
from tests.support.tiers import full
from wsframe.aio import WebSocket, serve

pytest.importorskip("click")
pytest.importorskip("rich")

from wsframe.cli.serve import Demo

pytestmark = [needs_chromium, full]

RECONNECT = EXAMPLES / "reconnect"

# A WebSocket that writes down its events, and what waits for the next one.
RECORD = """
    const events = [], waiting = []
    const ws = new WebSocket(location.origin.replace(/^http/, "ws") + path, protocols)
    ws.binaryType = "arraybuffer"
    for (const kind of ["open", "message", "error", "close"])
        ws["on" + kind] = event => {
            events.push(kind === "message" ? [kind, event.data]
                : kind === "close" ? [kind, event.code, event.reason, event.wasClean]
                : [kind])
            waiting.splice(0).forEach(resolve => resolve())
        }
    const reach = async count => {
        while (events.length < count) await new Promise(resolve => waiting.push(resolve))
        return events[count - 1]
    }
    const closed = async () => {
        while (events.at(-1)?.[0] !== "close") await reach(events.length + 1)
        return events
    }
"""


class Server:
    """``wsframe serve``, and beside its paths ``/close``, which closes as it is told."""

    def __init__(self, loop: LoopThread, tls: ssl.SSLContext | None = None) -> None:
        self._loop = loop
        self._demo = Demo()
        self._scheme = "https" if tls else "http"
        self.websockets: queue.SimpleQueue[WebSocket] = queue.SimpleQueue()
        self._server = loop.run(
            serve,
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._process_request,
            subprotocols=["second", "first"],
            ssl=tls,
        )

    def _process_request(self, request: Any) -> Any:
        return None if request.path == "/close" else self._demo.process_request(request)

    async def _handle(self, websocket: WebSocket) -> None:
        self.websockets.put(websocket)
        if websocket.path == "/close":
            code, reason = json.loads(await websocket.recv())
            await websocket.close(code, reason)
        else:
            await self._demo.handle(websocket)

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self._server.port}/"

    def run(self, function: Any, *args: Any) -> Any:
        return self._loop.run(function, *args)

    def websocket(self) -> WebSocket:
        """Return the next one that was opened."""
        return self.websockets.get(timeout=TIMEOUT)

    def end(self) -> tuple[int | None, str | None]:
        """Wait until the next one is closed; return with which code and reason."""
        websocket = self.websocket()
        self.run(websocket.wait_closed, TIMEOUT)
        return websocket.close_code, websocket.close_reason

    def close(self) -> None:
        self._loop.run(self._server.close)


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    loop = LoopThread(LOOPS["asyncio"])
    try:
        server = Server(loop, tls)
        try:
            yield server
        finally:
            server.close()
    finally:
        loop.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def chrome(authority: trustme.CA) -> Iterator[Browser]:
    with chromium(authority) as browser:
        yield browser


@pytest.fixture
def browser(chrome: Browser) -> Iterator[Browser]:
    """The browser of this module, with one window, in which a page of nobody is open."""
    yield chrome
    for window in chrome.driver.window_handles[1:]:
        chrome.look_at(window)
        chrome.close_window()
    chrome.open("about:blank")


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(demo: Server, browser: Browser) -> Server:
    """The server, whose page the browser shows."""
    while not demo.websockets.empty():
        demo.websockets.get()
    browser.open(demo.url)
    # The page has opened two of its own.
    paths = sorted(demo.websocket().path for _ in range(2))
    assert paths == ["/chat", "/echo"]
    return demo


def record(browser: Browser, script: str, path: str = "/echo", protocols: tuple[str, ...] = (), **names: Any):
    """Open a WebSocket in the page, and do something with it."""
    return browser.run(RECORD + script, path=path, protocols=list(protocols), **names)


# wsframe serve and its page


def test_the_page_of_wsframe_serve(browser, server):
    first = browser.driver.current_window_handle
    browser.find("#echo input").send_keys("Grüße\n")
    browser.wait(lambda: browser.text("#echo li").startswith("Grüße ("))
    assert browser.text("#echo .state") == "open"
    browser.open_window(server.url)
    browser.wait(lambda: browser.text("#chat .state") == "open")  # what is typed before is not sent
    browser.find("#chat input").send_keys("hello\n")
    said = browser.wait(lambda: browser.text("#chat li"))
    assert said.endswith(": hello")
    browser.look_at(first)
    browser.wait(lambda: browser.text("#chat li") == said)


def test_text(browser, server):
    assert record(
        browser,
        r"""
        await reach(1)
        ws.send("Hello")
        ws.send("")
        ws.send("\u20ac \u{1f600} \0")
        ws.send("a lone surrogate: \ud800")
        ws.send("x".repeat(70000))
        await reach(6)
        ws.close()
        await closed()
        return [events[5][1].length, ...events.toSpliced(5, 1)]
        """,
    ) == [
        70000,
        ["open"],
        ["message", "Hello"],
        ["message", ""],
        ["message", "\u20ac \U0001f600 \0"],
        ["message", "a lone surrogate: \ufffd"],
        ["close", 1005, "", True],
    ]


@pytest.mark.parametrize("kind", ["ArrayBuffer", "Blob"])
def test_a_mebibyte(browser, server, kind):
    """Random bytes, which the browser compares."""
    assert record(
        browser,
        """
        await reach(1)
        if (kind === "Blob") ws.binaryType = "blob"
        const bytes = new Uint8Array(size)
        for (let i = 0; i < size; i += 65536) crypto.getRandomValues(bytes.subarray(i, i + 65536))
        ws.send(kind === "Blob" ? new Blob([bytes]) : bytes)
        const [, data] = await reach(2)
        const back = new Uint8Array(kind === "Blob" ? await data.arrayBuffer() : data)
        return [data.constructor.name, back.length, back.every((byte, i) => byte === bytes[i])]
        """,
        kind=kind,
        size=MIB,
    ) == [kind, MIB, True]


def test_one_byte_too_many(browser, server):
    events = record(
        browser, "await reach(1); ws.send(new Uint8Array(size)); return await closed()", size=MIB + 1
    )
    assert events == [["open"], ["close", 1009, "message is too big", True]]


def test_ping(browser, server):
    """The browser answers, although no script has a say in it."""
    websocket = browser.run(RECORD + "window.ws = ws; await reach(1)", path="/echo", protocols=[])
    websocket = server.websocket()
    assert server.run(websocket.ping, b"who is there?") > 0


# How it is opened, and how it is not


def test_the_request(browser, server):
    assert record(
        browser,
        "await reach(1); return [ws.protocol, ws.extensions]",
        "/echo?a=%20b",
        protocols=("first", "second"),
    ) == ["second", "permessage-deflate; client_max_window_bits=12"]
    request = server.websocket().request
    assert request.path == "/echo?a=%20b"
    assert request.origin == server.url[:-1]
    assert request.subprotocols == ("first", "second")


def test_compression(browser, server):
    """Negotiated, and used by both."""
    record(browser, "window.ws = ws; await reach(1); ws.send('abc'.repeat(10000)); await reach(2)")
    counters = server.websocket().counters
    assert counters.uncompressed == 30000
    assert counters.compressed < 300
    assert counters.bytes_received < 1000  # with the request


def test_refused(browser, server):
    assert record(browser, "return await closed()", "/nowhere") == [["error"], ["close", 1006, "", False]]


def test_nobody_listens(browser, server):
    script = RECORD.replace('location.origin.replace(/^http/, "ws")', "origin") + "return await closed()"
    with socket.socket() as sock:  # bound, but it does not listen
        sock.bind(("127.0.0.1", 0))
        origin = f"ws://127.0.0.1:{sock.getsockname()[1]}"
        events = browser.run(script, origin=origin, path="/", protocols=[])
    assert events == [["error"], ["close", 1006, "", False]]


# How it is closed


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 1005, ""),
        ([1000], 1000, ""),
        ([3001], 3001, ""),
        ([4000, "see you — bye"], 4000, "see you — bye"),
        ([4999, "x" * 123], 4999, "x" * 123),
    ],
    ids=["none", "1000", "3001", "4000", "4999"],
)
def test_the_browser_closes(browser, server, arguments, code, reason):
    events = record(browser, "await reach(1); ws.close(...args); return await closed()", args=arguments)
    assert events == [["open"], ["close", code, reason, True]]
    assert server.end() == (code, reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "going away"), (1005, ""), (1011, ""), (3001, ""), (4000, "see you — bye")],
    ids=str,
)
def test_the_server_closes(browser, server, code, reason):
    events = record(
        browser,
        "await reach(1); ws.send(what); return await closed()",
        "/close",
        what=json.dumps([code, reason]),
    )
    assert events == [["open"], ["close", code, reason, True]]


def test_the_connection_is_lost(browser, server):
    browser.run(
        RECORD + "window.end = closed(); await reach(1)",
        path="/echo",
        protocols=[],
    )
    websocket = server.websocket()
    server.run(websocket.transport.abort)
    assert browser.run("return await window.end") == [["open"], ["close", 1006, "", False]]


def test_the_window_is_closed(browser, server):
    """(A page that is only left keeps its WebSocket for a while: one may come back to it.)"""
    browser.open_window(server.url)
    for _ in range(2):
        server.websocket()
    browser.run(RECORD + "window.ws = ws; await reach(1)", path="/echo", protocols=[])
    browser.close_window()
    assert server.end() == (1001, "")


# wss://


@needs_certutil
def test_wss(browser, authority):
    """The certificate is one that the browser trusts, as it would any other."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    with running(tls) as server:
        browser.open(server.url)
        assert browser.run("return [location.protocol, isSecureContext]") == ["https:", True]
        assert record(
            browser,
            """
            await reach(1)
            ws.send("secret")
            ws.send(new Uint8Array(size))
            const [, bytes] = await reach(3)
            ws.close(1000, "bye")
            return [ws.url, events[1], bytes.byteLength, (await closed()).at(-1)]
            """,
            size=MIB,
        ) == [
            server.url.replace("https", "wss") + "echo",
            ["message", "secret"],
            MIB,
            ["close", 1000, "bye", True],
        ]
        browser.open("about:blank")


def test_wss_with_a_certificate_that_nobody_trusts(browser, demo):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    with running(tls) as server:
        browser.open(demo.url)
        script = RECORD.replace('location.origin.replace(/^http/, "ws")', "origin")
        events = browser.run(
            script + "return await closed()",
            origin=server.url.replace("https", "wss")[:-1],
            path="/echo",
            protocols=[],
        )
    assert events == [["error"], ["close", 1006, "", False]]


# The examples


@needs("uvicorn", "django", "channels", "channels_redis")
def test_two_people_chat_with_django(browser):
    """Each window is on another name of the server, and so has its own cookies."""

    def enter(host: str, name: str, chat: Any) -> str:
        window = browser.open_window(f"http://{host}:{chat.port}/")
        browser.find("[name=name]").send_keys(name)
        browser.find("button").click()
        browser.wait(lambda: f"{name} is here" in browser.text("ul"))
        return window

    with site(app="chat.asgi:application") as chat:
        ada = enter("localhost", "Ada", chat)
        bob = enter("127.0.0.1", "Bob", chat)
        browser.find("input").send_keys("1 < 2, <b>Ada</b>")
        browser.wait(lambda: browser.text("#preview") == "1 < 2, <b>Ada</b>")
        browser.find("button").click()
        browser.wait(lambda: "Bob:" in browser.text("ul"))
        browser.look_at(ada)
        browser.wait(lambda: browser.text("ul") == "Ada is here Bob is here Bob: 1 < 2, <b>Ada</b>")
        browser.find("input").send_keys("so it is\n")
        browser.look_at(bob)
        browser.wait(lambda: browser.text("ul") == "Bob is here Bob: 1 < 2, <b>Ada</b> Ada: so it is")
        browser.close_window()
        browser.look_at(ada)
        browser.wait(lambda: browser.text("ul").endswith(" Bob has left, with 1001"))
        browser.close_window()


# Keep every text of the state: the page shows some for less time than a look at it may take.
OBSERVE = """
    const state = document.querySelector("#state")
    window.states = []
    new MutationObserver(() => states.push(state.textContent)).observe(state, {childList: true})
"""


@contextmanager
def reconnect_server(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", str(RECONNECT / "server.py"), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"http://localhost:{port}/\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_the_page_reconnects(browser, port):
    def state() -> str:
        return browser.text("#state")

    def has_been(part: str) -> bool:
        """Tell whether the state has had this in it, also when it has changed since."""
        return browser.run("return states.some(state => state.includes(part))", part=part)

    def say(text: str) -> None:
        browser.find("input").send_keys(text + "\n")

    def answered() -> list[str]:
        return browser.texts("li.answered")

    def offered() -> list[str]:
        return browser.texts("li:has(button)")

    with reconnect_server(port):
        browser.open(f"http://localhost:{port}/")
        browser.wait(lambda: state() == "open")
        browser.run(OBSERVE)
        say("one")
        browser.wait(lambda: answered() == ["one"])
    browser.wait(lambda: has_been("closed with 1006, try "))
    assert not browser.find("input").is_enabled()
    # It is in vain at first.
    browser.wait(lambda: has_been("try 3"))
    with reconnect_server(port):
        browser.wait(lambda: state() == "open")
        say("two")
        browser.wait(lambda: answered() == ["one", "two"])
        # The server says that it restarts, or has an error: the page counts from 1 again.
        for code in "1012", "1011":
            say(f"close {code} soon back")
            browser.wait(lambda code=code: code in " ".join(offered()) and state() == "open")
        # What had no answer is not sent again before somebody says so.
        assert answered() == ["one", "two"]
        assert offered() == ["close 1012 soon back Send again", "close 1011 soon back Send again"]
        say("close 4000 you are banned")
        browser.wait(lambda: state() == "closed with 4000 you are banned")
        assert browser.run("return timer === undefined && socket.readyState === WebSocket.CLOSED")
        browser.run("connect()")
        browser.wait(lambda: state() == "open")
        say("close 1000")
        browser.wait(lambda: state() == "closed with 1000")
        assert browser.run("return timer === undefined")
        browser.run("connect()")
        browser.wait(lambda: state() == "open")
        browser.run("states.length = 0")
        browser.find("li button").click()
        browser.wait(lambda: has_been("closed with 1012 soon back, try 1 in "))
