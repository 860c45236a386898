"""Every program of the manual runs, and says what its page says; the reference has every public name."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import importlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import wsframe.aio
from tests.support.adapters import TIMEOUT
from tests.support.extras import needs
from tests.support.paths import DOCS, EXAMPLES, ROOT
from tests.support.ports import reserved_port
from tests.support.programs import command, programs
from tests.support.tiers import full
from wsframe import Close, Connection, ConnectionClosed, Deflate, HandshakeRejected, Role, Text, sync
from wsframe.sync import WebSocket, connect

# Each page's programs, so that none is left out: a new one is too many here.
FUZZING = programs(DOCS / "fuzzing.md")
INDEX_AIO, INDEX_SYNC, INDEX_SERVER, INDEX_CLIENT, INDEX_OPEN = programs(DOCS / "index.md")
ANSWERS, ASK, EVERYBODY, NAMES, CHAT = programs(DOCS / "tutorial.md")
CLIENT, THREADS, TRIO, PIECES, NO_COPY, COMPRESSED, IN_HTTP, IN_HTTP2, FRAMES = programs(DOCS / "sansio.md")
TOO_LARGE, DIGEST, BORED = programs(DOCS / "limits.md")


# Programs that run to their end


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (INDEX_AIO, ["Hello!"]),
        (INDEX_SYNC, ["Hello!"]),
        (TOO_LARGE, ["100", "connection closed: 1009 message is too big"]),
        (DIGEST, [hashlib.sha256(bytes(10 * 2**20)).hexdigest()]),
        (BORED, ["4001 nothing to say True", "4001 nothing to say"]),
    ],
    ids=["index, aio", "index, sync", "too large", "digest", "bored"],
)
def test_a_program_says_what_its_page_says(program: str, lines: list[str]) -> None:
    with reserved_port() as port:
        run = subprocess.run(command(program, port), capture_output=True, text=True, timeout=TIMEOUT)
    assert (run.stderr, run.stdout.splitlines()) == ("", lines)


def test_a_program_without_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    for program in INDEX_OPEN, PIECES, NO_COPY, COMPRESSED, FRAMES:
        exec(program, {})
    digest, message, compressed, plain, frame = capsys.readouterr().out.splitlines()
    assert digest == hashlib.sha256(bytes(1000 * 4096)).hexdigest()
    assert message == "Hello!"
    assert int(compressed) < 50
    assert plain == "1004"
    assert frame == "Frame(TEXT, b'Hello', fin=True, rsv=0)"


@full
@pytest.mark.parametrize("number", range(len(FUZZING)))
def test_a_program_passes_its_own_tests(number: int, tmp_path: Path) -> None:
    file = tmp_path / "test_program.py"
    file.write_text(FUZZING[number])
    options = ["-q", "-p", "no:cacheprovider"]
    arguments = [sys.executable, "-W", "error", "-m", "pytest", *options, file.name]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr


def test_production(caplog: pytest.LogCaptureFixture) -> None:
    names: dict[str, Any] = {}
    for program in programs(DOCS / "production.md"):
        exec(program, names)

    async def main() -> None:
        options = {"process_request": names["metrics"], "ping_interval": None}
        async with wsframe.aio.serve(names["handler"], "localhost", 0, **options) as server:
            names["server"] = server
            uri = f"ws://localhost:{server.port}/"
            async with wsframe.aio.connect(uri) as one, wsframe.aio.connect(uri) as other:
                await one.send("hello")
                assert await one.recv() == await other.recv() == "hello"
                with pytest.raises(HandshakeRejected) as caught:
                    await wsframe.aio.connect(uri + "metrics")
                assert caught.value.response is not None
                lines = caught.value.response.body.decode().splitlines()
                assert "wsframe_connections_total 2" in lines
                assert "wsframe_messages_sent_total 2" in lines
                assert "wsframe_open_connections 2" in lines
        async with (
            wsframe.aio.serve(names["chat"], "localhost", 0) as server,
            wsframe.aio.connect(f"ws://localhost:{server.port}/") as one,
        ):
            await one.send("hello")
            assert await one.recv() == "hello"

    with caplog.at_level("INFO", "wsframe.aio"):
        asyncio.run(main())
    assert "a user came" in caplog.text
    assert "opened: / with" in caplog.text


# Programs that serve


@contextmanager
def serving(source: str) -> Iterator[Callable[[], socket.socket]]:
    """Run a server, and give what connects to it."""
    with reserved_port() as port:
        process = subprocess.Popen(command(source, port), stderr=subprocess.PIPE, text=True)

        def dial() -> socket.socket:
            deadline = time.monotonic() + TIMEOUT
            while time.monotonic() < deadline and process.poll() is None:
                with suppress(ConnectionRefusedError):  # until it listens
                    return socket.create_connection(("localhost", port), TIMEOUT)
            raise AssertionError("it does not listen")

        try:
            yield dial
        finally:
            process.kill()
            _, errors = process.communicate()
            assert errors == ""


def opened(dial: Callable[[], socket.socket], path: str = "/", **options: object) -> WebSocket:
    sock = dial()
    uri = f"ws://localhost:{sock.getpeername()[1]}{path}"
    return connect(uri, sock=sock, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "path"),
    [
        pytest.param(INDEX_SERVER, "/", id="index"),
        pytest.param(THREADS, "/echo", id="threads"),
        pytest.param(TRIO, "/", id="trio", marks=needs("trio")),
        pytest.param(IN_HTTP, "/", id="in HTTP"),
    ],
)
def test_a_server_echoes(server: str, path: str) -> None:
    with serving(server) as dial:
        with opened(dial, path) as websocket:
            for message in "Hello!", "x" * 10_000, b"\x00" * 10_000:
                websocket.send(message)
                assert websocket.recv(TIMEOUT) == message
        assert (websocket.close_code, websocket.state.name) == (1000, "CLOSED")


@pytest.mark.parametrize(
    "server", [pytest.param(THREADS, id="threads"), pytest.param(TRIO, id="trio", marks=needs("trio"))]
)
def test_a_server_goes_on_when_a_client_vanishes_or_breaks_the_protocol(server: str) -> None:
    with serving(server) as dial:
        with dial() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        with dial() as sock:
            sock.sendall(b"GET /echo HTTP/1.0\r\n\r\n")
            assert b"".join(iter(lambda: sock.recv(65536), b"")).startswith(b"HTTP/1.1 505 ")
        with opened(dial, "/echo") as websocket:
            websocket.send("Hello!")
            assert websocket.recv(TIMEOUT) == "Hello!"


def test_the_server_on_threads_answers_404_and_has_a_limit() -> None:
    with serving(THREADS) as dial:
        for headers, status in [({}, 404), ({"Connection": "close"}, 404)]:
            asking = http.client.HTTPConnection("localhost")
            asking.sock = dial()
            asking.request("GET", "/", headers=headers)
            assert asking.getresponse().status == status
            asking.close()
        with opened(dial, "/echo") as websocket:
            websocket.send("x" * 100_001)
            with pytest.raises(ConnectionClosed, match="1009 message is too big"):
                websocket.recv(TIMEOUT)


def test_the_server_in_http_has_a_page_and_compresses() -> None:
    with serving(IN_HTTP) as dial:
        asking = http.client.HTTPConnection("localhost")
        asking.sock = dial()
        for _ in range(2):  # on one connection
            asking.request("GET", "/")
            response = asking.getresponse()
            assert (response.status, response.read()) == (200, b"a page\n")
        asking.request("GET", "/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        response = asking.getresponse()
        assert (response.status, response.read()) == (400, b"Sec-WebSocket-Version header is missing")
        asking.close()
        with opened(dial, compression=Deflate()) as websocket:
            assert "permessage-deflate" in websocket.response.headers.get("sec-websocket-extensions")
            websocket.send("again and " * 100)
            assert websocket.recv(TIMEOUT) == "again and " * 100


@needs("h2")
def test_the_server_in_http2_echoes_on_two_streams() -> None:
    from h2.connection import H2Connection
    from h2.events import DataReceived, ResponseReceived, StreamEnded

    def head(**more: str) -> list[tuple[str, str]]:
        pseudo = {"method": "CONNECT", "protocol": "websocket", "scheme": "https", "path": "/chat"}
        named = {**pseudo, "authority": "localhost", **more}
        return [(f":{name}", value) for name, value in named.items()]

    version = ("sec-websocket-version", "13")
    statuses: dict[int, str] = {}
    heard: dict[int, list[object]] = {1: [], 3: [], 5: []}
    ended = set()
    with serving(IN_HTTP2) as dial, dial() as sock:
        peer = H2Connection()
        peer.initiate_connection()
        peer.send_headers(1, [*head(), version, ("sec-websocket-protocol", "chat")])
        peer.send_headers(3, [*head(), version])
        peer.send_headers(5, [*head(), ("sec-websocket-version", "12")])
        ends = {1: Connection(Role.CLIENT), 3: Connection(Role.CLIENT)}
        for stream, end in ends.items():
            end.send_text(f"on stream {stream}")
            end.send_text("Hello!")
            end.send_close(1000)
            peer.send_data(stream, end.data_to_send())
        while ended != {1, 3, 5}:
            sock.sendall(peer.data_to_send())
            for event in peer.receive_data(sock.recv(65536)):
                if isinstance(event, ResponseReceived):
                    statuses[event.stream_id] = dict(event.headers)[b":status"].decode()
                elif isinstance(event, DataReceived):
                    end = ends[event.stream_id]
                    end.receive_data(event.data)
                    heard[event.stream_id] += iter(end.next_event, None)
                elif isinstance(event, StreamEnded):
                    ended.add(event.stream_id)
        assert peer.remote_settings.enable_connect_protocol == 1
    assert statuses == {1: "200", 3: "200", 5: "426"}
    assert heard == {
        stream: [Text(f"on stream {stream}"), Text("Hello!"), Close(1000)] if stream in ends else []
        for stream in (1, 3, 5)
    }


# Clients


@pytest.mark.parametrize(
    ("client", "lines"),
    [
        (INDEX_CLIENT, ["Hello!", "closed with 1000"]),
        (CLIENT, ["Hello!", "closed with 1000 "]),
    ],
    ids=["index", "socket"],
)
def test_a_client_hears_an_echo(client: str, lines: list[str]) -> None:
    def echo(websocket: WebSocket) -> None:
        for message in websocket:
            websocket.send(message)

    with sync.serve(echo, "localhost", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        run = subprocess.run(command(client, server.port), capture_output=True, text=True, timeout=TIMEOUT)
    thread.join(TIMEOUT)
    assert (run.stderr, run.stdout.splitlines()) == ("", lines)


def test_the_client_on_a_socket_is_told_when_nobody_answers() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        process = subprocess.Popen(
            command(CLIENT, listener.getsockname()[1]), stdout=subprocess.PIPE, text=True
        )
        sock, _ = listener.accept()
        sock.recv(65536)
        sock.close()
        output, _ = process.communicate(timeout=TIMEOUT)
    assert output == "closed with 1006 connection was lost: the stream ended without a Close\n"


# The tutorial


def test_the_first_server_answers() -> None:
    with serving(ANSWERS) as dial, opened(dial) as websocket:
        websocket.send("Hello!")
        assert websocket.recv(TIMEOUT) == "You said: Hello!"
        asking = command(ASK, websocket.remote_address[1])
        run = subprocess.run(asking, capture_output=True, text=True, timeout=TIMEOUT)
    assert (run.stderr, run.stdout) == ("", "You said: Hello!\n")


def test_the_second_server_tells_everybody() -> None:
    with serving(EVERYBODY) as dial, opened(dial) as one, opened(dial) as two:
        two.send("I am here")  # and so in the set; one is, when it hears that
        assert two.recv(TIMEOUT) == "I am here"
        one.send("Hello!")
        assert two.recv(TIMEOUT) == "Hello!"
        two.send("Hello to you!")
        assert one.recv(TIMEOUT) in ("I am here", "Hello!")
        assert two.recv(TIMEOUT) == "Hello to you!"


@pytest.mark.parametrize("server", [NAMES, CHAT], ids=["names", "chat"])
def test_people_chat(server: str) -> None:
    with serving(server) as dial, opened(dial, "/Ada") as ada:
        assert ada.recv(TIMEOUT) == "Ada is here"
        with opened(dial, "/Zo%C3%AB") as zoe:
            assert [ada.recv(TIMEOUT), zoe.recv(TIMEOUT)] == ["Zoë is here"] * 2
            zoe.send("Hello!")
            assert [ada.recv(TIMEOUT), zoe.recv(TIMEOUT)] == ["Zoë: Hello!"] * 2
            for path in "/Ada", "/", "/" + "x" * 21:
                with opened(dial, path) as other, pytest.raises(ConnectionClosed) as caught:
                    other.recv(TIMEOUT)
                assert (caught.value.code, caught.value.reason) == (4000, "choose another name")
        assert ada.recv(TIMEOUT) == "Zoë has left"


def test_the_chat_has_a_page_and_a_limit() -> None:
    with serving(CHAT) as dial:
        asking = http.client.HTTPConnection("localhost")
        asking.sock = dial()
        asking.request("GET", "/Ada")
        response = asking.getresponse()
        page = response.read().decode()
        asking.close()
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "new WebSocket(" in page
        with opened(dial, "/Ada") as ada:
            ada.send("x" * 1001)
            assert ada.recv(TIMEOUT) == "Ada is here"
            with pytest.raises(ConnectionClosed, match="1009"):
                ada.recv(TIMEOUT)


def test_the_chat_is_the_example_and_has_40_lines() -> None:
    assert (EXAMPLES / "chat.py").read_text() == CHAT
    assert len([line for line in CHAT.splitlines() if line.strip()]) <= 40


# The reference

MODULES = [
    "wsframe",
    "wsframe.adapter.auth",
    "wsframe.aio",
    "wsframe.aio.client",
    "wsframe.aio.server",
    "wsframe.deflate",
    "wsframe.errors",
    "wsframe.events",
    "wsframe.frames",
    "wsframe.handshake",
    "wsframe.hub",
    "wsframe.inspector",
    "wsframe.inspector.capture",
    "wsframe.inspector.tcp",
    "wsframe.masking",
    "wsframe.prepared",
    "wsframe.sync",
    "wsframe.sync.client",
    "wsframe.sync.server",
    "wsframe.testing",
    "wsframe.uri",
]


def resolve(path: str) -> object:
    """Return what a dotted path means; the module ``wsframe.testing.pair`` has a ``pair``."""
    *modules, name = path.split(".")
    return getattr(importlib.import_module(".".join(modules)), name)


def test_the_reference_has_every_public_name_once() -> None:
    pages = sorted((DOCS / "reference").glob("*.md"))
    paths = [path for page in pages for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
    assert sorted(set(paths)) == sorted(paths)
    assert [path for path in paths if path in sys.modules] == []  # Griffe would show the module
    shown = [(path.rpartition(".")[2], resolve(path)) for path in paths]
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            assert any(name == other and getattr(module, name) is value for other, value in shown), (
                f"{module.__name__}.{name} is not in docs/reference/"
            )


def test_every_program_is_known_here() -> None:
    pages = {page.name for page in DOCS.rglob("*.md") if "```python\n" in page.read_text()}
    here = {"fuzzing.md", "index.md", "limits.md", "production.md", "sansio.md", "tutorial.md"}
    # Each of these has a module of its own: asgi.md tests/asgi/test_running.py, the others one beside this.
    elsewhere = {"asgi.md", "client.md", "hub.md", "server.md"}
    assert pages == here | elsewhere


def test_every_page_is_in_the_nav() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f" {page.relative_to(DOCS)}\n" in nav


# The tests that the manual names

FOLDERS = [ROOT / folder for folder in ("benchmarks", "docs", "examples", "fuzz", "tests")]
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md"))]
SPAN = re.compile(r"`([^`\n]+)`")


def test_every_test_that_a_page_names_exists() -> None:
    """A page names files, and functions by their whole name or by its beginning and ``_...``."""
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    functions = "\n".join(re.findall(r"def (test_\w+)\(", sources))
    for page in PAGES:
        for span in SPAN.findall(page.read_text()):
            where = f"{page.relative_to(ROOT)} names {span}"
            if re.fullmatch(r"(tests|core|adapters?|aio|sync|asgi|hub|inspector|cli|docs)/[\w/]+\.py", span):
                assert any((ROOT / base / span).exists() for base in ("", "tests", "src/wsframe")), where
            elif re.fullmatch(r"test_\w+\.py", span):
                raise AssertionError(f"{where} without its folder")
            elif match := re.fullmatch(r"(test_\w+?)(_\.\.\.)?", span):
                end = "_" if match[2] else "$"
                assert re.search(rf"^{match[1]}{end}", functions, re.MULTILINE), where
