"""The examples run, by the commands of examples/README.md, and real clients use them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from tests.support.adapters import MIB, TIMEOUT, Peer, request
from tests.support.chromium import chromium, needs_certutil, needs_chromium
from tests.support.extras import needs
from tests.support.paths import EXAMPLES, ROOT
from tests.support.redis_server import needs_redis, redis_server
from tests.support.tiers import full
from wsframe import ConnectionClosed, HandshakeRejected, Opcode
from wsframe.sync import connect

pytestmark = pytest.mark.usefixtures("leaks")

README = (EXAMPLES / "README.md").read_text()
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.M)
    for line in block.splitlines()
]
INSTALLS = [line for line in LINES if line.startswith("pip install ")]
# All of them, so that none is left out: a new one is too many here.
ECHO_SERVER, ECHO_CLIENT, CHAT, CLUSTER, STARLETTE, FASTAPI, DASHBOARD, SERVER, STREAM = [
    line for line in LINES if line not in INSTALLS
]
LISTENS = r"localhost:(\d+)/"
UVICORN = r"running on http://127.0.0.1:(\d+) "
CTRL_C = r"(Traceback \(most recent call last\):.*\nKeyboardInterrupt\n)?"


def environment(**variables: object) -> dict[str, str]:
    """Return an environment in which ``python`` is this one, and what was installed with it is found."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    more = {name: str(value) for name, value in variables.items()}
    return {**inherited, "PATH": path, "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1", **more}


class Example:
    """An example that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_for(self, pattern: str) -> str:
        """Read what it prints, up to what matches."""
        said = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said.append(line)
            if match := re.search(pattern, line):
                return match[1]
        raise AssertionError("".join(said))

    def end(self) -> str:
        """End it as Ctrl-C does, and return what it has printed since."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.communicate(timeout=TIMEOUT)[0]


@contextmanager
def started(command: str, pass_fds: tuple[int, ...] = (), **variables: object) -> Iterator[Example]:
    """Run a command of the README."""
    process = subprocess.Popen(
        shlex.split(command),
        cwd=ROOT,
        env=environment(**variables),
        pass_fds=pass_fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # as a terminal has it
    )
    with process:
        try:
            yield Example(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def listening(command: str) -> Iterator[int]:
    """Run a server on any port, and see that Ctrl-C ends it, and that it had nothing to complain of."""
    with started(command, PORT=0) as example:
        yield int(example.wait_for(LISTENS))
        assert re.fullmatch(CTRL_C, example.end(), re.DOTALL)


@contextmanager
def asgi(command: str, **variables: object) -> Iterator[str]:
    """Run an ASGI application on any port."""
    with started(command, UVICORN_PORT=0, **variables) as example:
        yield f"127.0.0.1:{example.wait_for(UVICORN)}"
        said = example.end()
        assert "Application shutdown complete." in said
        assert "ERROR" not in said


def get(port: int, path: str = "/", tls: ssl.SSLContext | None = None) -> str:
    if tls is None:
        asking = http.client.HTTPConnection("localhost", port, TIMEOUT)
    else:
        asking = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=tls)
    asking.request("GET", path)
    response = asking.getresponse()
    body = response.read().decode()
    asking.close()
    assert response.status == 200
    return body


def rejection(uri: str) -> tuple[int, bytes]:
    with pytest.raises(HandshakeRejected) as caught:
        connect(uri)
    response = caught.value.response
    assert response is not None
    return response.status, response.body


# The index


def test_the_index_has_every_example():
    for path in EXAMPLES.iterdir():
        if path.name not in ("README.md", "__pycache__"):
            assert f"{path.name}/" in README if path.is_dir() else f"`{path.name}`" in README, path.name
    for link in re.findall(r"\]\(([^#)]+)\)", README):
        assert (EXAMPLES / link).exists(), link


def test_what_the_index_installs_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in INSTALLS:
        package = shlex.split(line)[2]
        match = re.fullmatch(r"\.(?:\[(.*)])?", package)
        assert match, line
        assert set((match[1] or "cli").split(",")) <= extras.keys(), line


# Echo


def test_echo():
    with listening(ECHO_SERVER) as port:
        run = subprocess.run(
            shlex.split(ECHO_CLIENT),
            cwd=ROOT,
            env=environment(PORT=port),
            input="Hello!\n\nHellö\n",
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert (run.stdout, run.stderr, run.returncode) == ("Hello!\n\nHellö\n", "", 0)


# The chat


def test_people_chat():
    with listening(CHAT) as port:
        uri = f"ws://localhost:{port}/"
        assert "new WebSocket(" in get(port, "/Ada")
        with connect(uri + "Ada") as ada:
            assert ada.recv(TIMEOUT) == "Ada is here"
            with connect(uri + "Bob") as bob:
                assert [ada.recv(TIMEOUT), bob.recv(TIMEOUT)] == ["Bob is here"] * 2
                bob.send("Hello!")
                assert [ada.recv(TIMEOUT), bob.recv(TIMEOUT)] == ["Bob: Hello!"] * 2
            assert ada.recv(TIMEOUT) == "Bob has left"


# How much the system may keep for a socket that is not read, in bytes
WMEM = Path("/proc/sys/net/ipv4/tcp_wmem")
UNREAD = int(WMEM.read_text().split()[2]) if WMEM.exists() else 4 * MIB


@full
def test_nobody_waits_for_a_slow_one():
    with listening(CHAT) as port, socket.socket() as sock, Peer(sock, is_client=True) as slow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        slow.send(request(path="/slow"))
        slow.read_head()
        assert slow.read_text() == "slow is here"
        with connect(f"ws://localhost:{port}/Ada") as ada:
            assert ada.recv(TIMEOUT) == "Ada is here"
            for _ in range((2 * MIB + UNREAD) // 1000):
                ada.send("x" * 1000)
                assert ada.recv(TIMEOUT) == "Ada: " + "x" * 1000
            # It gets what was kept for it, and then the reason.
            frames = [slow.next_frame()]
            while frames[-1].opcode == Opcode.TEXT:
                frames.append(slow.next_frame())
            assert frames[0].payload == b"Ada is here"
            assert MIB < sum(len(frame.payload) for frame in frames) < 2 * MIB + UNREAD
            assert (frames[-1].opcode, frames[-1].payload) == (Opcode.CLOSE, b"\x03\xf0too slow")
            slow.send(slow.close(1008, "too slow"))
            assert ada.recv(TIMEOUT) == "slow has left"


# The chat in several processes

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")


@pytest.fixture
def cluster(tmp_path):
    """Run the chat with a Redis of its own; yield the port of nginx, whom to trust, and Redis."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "chain.pem", append=True)
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    # nginx inherits its socket, so nobody else can take the port before it does.
    with redis_server() as redis, socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        variables = {"REDIS_URL": redis.url, "PORT": port, "FOLDER": tmp_path, "NGINX": f"{fd};"}
        # Unbuffered, print() makes several writes of a line, and three processes write to the same pipe.
        variables["PYTHONUNBUFFERED"] = ""
        with started(CLUSTER, (fd,), **variables) as example:
            for _ in range(3):
                example.wait_for("listens on (.*)")
            yield port, authority, redis
            said = example.end()
            assert example.process.returncode == 128 + signal.SIGINT, said
            assert "Traceback" not in said
            assert list(tmp_path.glob("*.sock")) == [], said


@full
@needs_redis
@needs_nginx
def test_people_chat_across_processes(cluster):
    port, authority, redis = cluster
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(tls)
    assert "new WebSocket(" in get(port, tls=tls)
    uri = f"wss://localhost:{port}/chat/"
    with connect(uri + "Ada", ssl=tls) as ada:
        assert "permessage-deflate" in ada.response.headers.get("Sec-WebSocket-Extensions")
        own = ada.recv(TIMEOUT)
        with connect(uri + "Zo%C3%AB", ssl=tls) as zoe:
            announced = zoe.recv(TIMEOUT)
            assert ada.recv(TIMEOUT) == announced
            # nginx takes them by turns.
            assert re.fullmatch(r"Ada is here, in process (\d+)", own)
            assert re.fullmatch(r"Zoë is here, in process (\d+)", announced)
            assert own.split()[-1] != announced.split()[-1]
            zoe.send("Hello!")
            assert [ada.recv(TIMEOUT), zoe.recv(TIMEOUT)] == ["Zoë: Hello!"] * 2
            ada.send("ü" * 400)
            assert [ada.recv(TIMEOUT), zoe.recv(TIMEOUT)] == ["Ada: " + "ü" * 400] * 2
            # Redis goes, and comes back.
            redis.kill()
            zoe.send("Is anybody there?")
            assert zoe.recv(TIMEOUT) == "nobody has heard that"
            redis.restart()
            heard = None
            while heard is None:
                zoe.send("Here I am again")
                with suppress(TimeoutError):
                    heard = ada.recv(0.1)
            assert heard == "Zoë: Here I am again"
        while heard != "Zoë has left":
            assert heard == "Zoë: Here I am again"
            heard = ada.recv(TIMEOUT)
        with connect(uri + "x" * 21, ssl=tls) as other, pytest.raises(ConnectionClosed) as caught:
            other.recv(TIMEOUT)
        assert (caught.value.code, caught.value.reason) == (4000, "choose another name")


def alert_of(browser):
    """Return the question that a page asks, or None as long as it asks none."""
    from selenium.common.exceptions import NoAlertPresentException

    with suppress(NoAlertPresentException):
        return browser.driver.switch_to.alert


@full
@needs_redis
@needs_nginx
@needs_chromium
@needs_certutil
def test_browsers_chat_across_processes(cluster):
    port, authority, _ = cluster
    with chromium(authority) as browser:
        names = {}
        for name in "Ada", "Zoë":
            names[name] = browser.open_window(f"https://localhost:{port}/")
            alert = browser.wait(lambda: alert_of(browser))
            alert.send_keys(name)
            alert.accept()
            browser.wait(lambda name=name: f"{name} is here, in process" in browser.text("pre"))
        browser.find("input").send_keys("Hello!\n")
        browser.look_at(names["Ada"])
        browser.wait(lambda: browser.text("pre").endswith("Zoë: Hello!"))


# ASGI


@needs("uvicorn", "click", "starlette")
def test_starlette():
    with asgi(STARLETTE) as server:
        with connect(f"ws://{server}/echo") as websocket:
            websocket.send("Hellö")
            assert websocket.recv(TIMEOUT) == "Hellö"
        with connect(f"ws://{server}/rooms/1") as ada, connect(f"ws://{server}/rooms/1") as bob:
            ada.send("one")
            assert ada.recv(TIMEOUT) == "one"
            bob.send("two")  # and by now she is in the room, too
            assert ada.recv(TIMEOUT) == "two"
            with connect(f"ws://{server}/rooms/2") as other:
                other.send("three")
                assert other.recv(TIMEOUT) == "three"
            ada.send("four")
            assert ada.recv(TIMEOUT) == "four"
        assert rejection(f"ws://{server}/rooms/secret") == (403, b"you are not invited\n")
        assert rejection(f"ws://{server}/elsewhere") == (403, b"")


@full
@needs("uvicorn", "click", "fastapi")
def test_fastapi():
    with asgi(FASTAPI) as server:
        with connect(f"ws://{server}/echo") as websocket:
            websocket.send("Hellö")
            assert websocket.recv(TIMEOUT) == "Hellö"
        uri = f"ws://{server}/rooms/1"
        with connect(uri + "?token=secret-of-ada") as ada:
            ada.send("Hello!")
            assert ada.recv(TIMEOUT) == "Ada: Hello!"
            with connect(uri + "?token=secret-of-bob") as bob:
                bob.send("Hello to you!")
                assert [ada.recv(TIMEOUT), bob.recv(TIMEOUT)] == ["Bob: Hello to you!"] * 2
            asking = http.client.HTTPConnection(server, timeout=TIMEOUT)
            headers = {"Content-Type": "application/json"}
            asking.request("POST", "/rooms/1?token=secret-of-bob", json.dumps({"text": "tea"}), headers)
            assert asking.getresponse().status == 202
            asking.close()
            assert ada.recv(TIMEOUT) == "Bob announces: tea"
        assert rejection(uri) == (401, b'{"detail":"who are you?"}')


@full
@needs("uvicorn", "click", "starlette", "fastapi")
@needs_redis
def test_rooms_of_several_processes(redis):
    with (
        asgi(STARLETTE, REDIS_URL=redis.url) as one,
        asgi(FASTAPI, REDIS_URL=redis.url) as two,
        connect(f"ws://{one}/rooms/1") as ada,
        connect(f"ws://{two}/rooms/1?token=secret-of-bob") as bob,
    ):
        ada.send("Hello!")
        assert ada.recv(TIMEOUT) == "Hello!"
        bob.send("Hello to you!")
        assert ada.recv(TIMEOUT) == "Bob: Hello to you!"
        ada.send("Tea?")
        heard = bob.recv(TIMEOUT)
        while heard != "Tea?":
            assert heard in ("Hello!", "Bob: Hello to you!")
            heard = bob.recv(TIMEOUT)


# The dashboard


@full
def test_the_dashboard():
    with listening(DASHBOARD) as port:
        assert "new WebSocket(" in get(port)
        with connect(f"ws://localhost:{port}/") as one:
            assert "permessage-deflate" in one.response.headers.get("Sec-WebSocket-Extensions")
            minute = json.loads(one.recv(TIMEOUT))
            assert isinstance(minute, list)
            first = json.loads(one.recv(TIMEOUT))
            assert first["connections"] == 1
            # Who comes later gets what was, and then the same.
            with connect(f"ws://localhost:{port}/") as two:
                before = two.counters.bytes_received
                texts = [two.recv(TIMEOUT), two.recv(TIMEOUT)]
                assert json.loads(texts[0])[: len(minute) + 1] == [*minute, first]
                heard = one.recv(TIMEOUT)
                while heard != texts[1]:
                    heard = one.recv(TIMEOUT)
                sample = json.loads(heard)
                sent, left = sample["counters"]["uncompressed"], sample["counters"]["compressed"]
                assert sample["compression_ratio"] == left / sent < 1
                two.send("no")  # it listens to nobody
                with suppress(ConnectionClosed):
                    while True:
                        texts.append(two.recv(TIMEOUT))
                assert two.close_code == 1009
                # What came was compressed.
                data = two.counters.bytes_received - before
                assert 0 < data < 0.7 * sum(map(len, texts))


@full
@needs_chromium
def test_a_browser_draws_the_dashboard():
    with listening(DASHBOARD) as port, chromium(trustme.CA()) as browser:
        browser.open(f"http://localhost:{port}/")
        # The second sample says what compression has left of the first.
        browser.wait(lambda: re.search(r"compression leaves \d+\.\d %", browser.text("table")))
        assert "connections 1" in browser.text("table")
        assert browser.text("#state").startswith("connected, with permessage-deflate")
        for chart in "cpu", "delay":
            points = browser.find(f"#{chart} polyline").get_attribute("points").split()
            assert len(points) >= 2
            assert all(0 <= float(point.partition(",")[2]) <= 1 for point in points)


# Others


def test_a_server_in_production():
    with started(SERVER, PORT=0) as example:
        port = int(example.wait_for(r"listening on \(.*?, (\d+)"))
        assert get(port, "/healthz") == "ok\n"
        with connect(f"ws://localhost:{port}/") as websocket:
            websocket.send("Hello!")
            assert websocket.recv(TIMEOUT) == "Hello!"
            os.killpg(example.process.pid, signal.SIGTERM)
            assert list(websocket) == []
            assert (websocket.close_code, websocket.close_reason) == (1001, "the server restarts")
        assert example.process.wait(TIMEOUT) == 0


@full
def test_a_stream_needs_little_memory():
    run = subprocess.run(
        shlex.split(STREAM), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (run.stderr, run.returncode) == ("", 0)
    match = re.fullmatch(r"aio: 64 MiB each way in \d+\.\d s, (\d+\.\d) MiB of memory\n", run.stdout)
    assert match
    assert float(match[1]) < 32
