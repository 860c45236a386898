"""asgi with Django Channels: examples/django_chat as it is under uvicorn, over Redis, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.support.adapters import TIMEOUT, Peer
from tests.support.django_chat import EXAMPLE, Site, site
from tests.support.redis_server import RedisServer, needs_redis
from tests.support.tiers import full
from wsframe import ConnectionClosed, HandshakeRejected, Opcode

for module in ("uvicorn", "click", "django", "channels", "channels_redis"):
    pytest.importorskip(module)

pytestmark = [pytest.mark.usefixtures("leaks"), full]

DAY = 86400  # seconds
LOST = "connection was lost: the stream ended without a Close"


@pytest.fixture(scope="module")
def alone() -> Iterator[Site]:
    """The example without any setting: its layer is in memory."""
    with site() as chat:
        yield chat


@pytest.fixture(scope="module")
def processes(redis: RedisServer) -> Iterator[tuple[Site, Site]]:
    with site(REDIS_URL=redis.url) as here, site(REDIS_URL=redis.url) as there:
        yield here, there


@pytest.fixture
def here(redis: RedisServer, processes: tuple[Site, Site]) -> Iterator[Site]:
    """The first of two processes. A test leaves nothing behind in both of them, nor in Redis."""
    yield processes[0]
    for process in processes:
        assert process.tasks() == ""
    # Messages for who has just gone, channels_redis leaves to expire.
    with redis.client() as client:
        assert [key for key in keys(redis) if not 0 < client.ttl(key) <= 60] == []
        client.flushall()


@pytest.fixture
def there(processes: tuple[Site, Site]) -> Site:
    return processes[1]


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """The path of a room that is this test's own."""
    return "/rooms/" + re.sub(r"[^a-z0-9]+", "-", request.node.name)[-40:] + "/"


def keys(redis: RedisServer) -> list[bytes]:
    """Return what channels_redis has in Redis: members of groups, and messages for them."""
    with redis.client() as client:
        return client.keys("asgi*")


def members(redis: RedisServer, room: str) -> int:
    with redis.client() as client:
        return client.zcard("asgi:group:room." + room.split("/")[2])


def told(websocket) -> dict[str, Any]:
    return json.loads(websocket.recv(TIMEOUT))


def say(text: str) -> str:
    return json.dumps({"text": text})


def read(peer: Peer) -> dict[str, Any]:
    return json.loads(peer.read_text())


def kinds(received: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("websocket.") for event in received]


# The chat


def test_the_name_on_the_page_is_known_to_the_consumer(alone, room):
    ada, bob = alone.enter("Ada"), alone.enter("Bob \N{SNOWMAN} <b>")
    with alone.connect(room, ada) as first, alone.connect("/rooms/attic/", ada) as elsewhere:
        assert told(first) == told(elsewhere) == {"name": "Ada", "came": True}
        with alone.connect(room, bob) as second:
            name = "Bob \N{SNOWMAN} <b>"
            assert told(first) == told(second) == {"name": name, "came": True}
            second.send(say("see <https://example.com/>"))
            link = '<a href="https://example.com/" rel="nofollow">https://example.com/</a>'
            html = f"<p>see &lt;{link}&gt;</p>"
            assert told(first) == told(second) == {"name": name, "html": html}
        assert told(first) == {"name": name, "left": 1000}
    assert kinds(alone.ended(room)) == ["connect", "receive", "disconnect"]
    assert kinds(alone.ended(room)) == ["connect", "disconnect"]
    assert alone.tasks() == ""


@needs_redis
def test_two_processes(here, there, room):
    with here.connect(room, here.enter("Ada")) as ada:
        assert told(ada) == {"name": "Ada", "came": True}
        with there.connect(room, there.enter("Bob")) as bob:
            assert told(ada) == told(bob) == {"name": "Bob", "came": True}
            expected = [{"name": "Ada", "html": f"<p>number {number}</p>"} for number in range(50)]
            for number in range(50):
                ada.send(say(f"number {number}"))
            assert [told(bob) for _ in expected] == expected
            assert [told(ada) for _ in expected] == expected
            bob.close(3001)
            assert told(ada) == {"name": "Bob", "left": 3001}


def test_the_page_needs_a_name_and_the_form_is_protected(alone, room):
    connection = HTTPConnection("localhost", alone.port, timeout=TIMEOUT)
    for method, path, status in ("GET", room, 302), ("POST", "/", 403):
        connection.request(method, path, "name=Ada&room=lobby" if method == "POST" else None)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_the_synchronous_consumer(alone):
    with alone.connect("/preview/") as first, alone.connect("/preview/") as second:
        for websocket in (first, second):
            websocket.send("1 < 2\nand so on")
            assert websocket.recv(TIMEOUT) == "<p>1 &lt; 2<br>and so on</p>"
        second.send("")
        assert second.recv(TIMEOUT) == "<p></p>"
        second.send(b"\0")
        with pytest.raises(ConnectionClosed) as closed:
            second.recv(TIMEOUT)
        assert (closed.value.code, closed.value.reason) == (1003, "expected text")
        received = alone.ended("/preview/")
        assert kinds(received) == ["connect", "receive", "receive", "receive", "disconnect"]
        assert received[-1] == {"type": "websocket.disconnect", "code": 1003, "reason": "expected text"}
    assert alone.ended("/preview/")[-1] == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    assert alone.tasks() == ""


# Who is refused


@pytest.mark.parametrize(
    ("path", "options"),
    [
        pytest.param(None, {"cookie": ""}, id="no-session"),
        pytest.param(None, {"cookie": "sessionid=eyJuYW1lIjoiQWRhIn0:1:forged"}, id="forged-session"),
        pytest.param("/nowhere/", {}, id="unknown-route"),
        pytest.param("/rooms/" + 41 * "a" + "/", {}, id="long-room"),
        pytest.param(None, {"origin": "http://evil.example"}, id="foreign-origin"),
        pytest.param(None, {"origin": "null"}, id="origin-null"),
        pytest.param(None, {"origin": None}, id="no-origin"),
    ],
)
@needs_redis
def test_denied(redis, here, room, path, options):
    path = path or room
    with pytest.raises(HandshakeRejected) as rejected:
        here.connect(path, **{"cookie": here.enter("Ada"), **options})
    assert rejected.value.response.status == 403
    assert here.ended(path) == [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1006, "reason": "handshake was refused with 403"},
    ]
    assert keys(redis) == []


def test_allowed_hosts(room):
    with site(ALLOWED_HOSTS="localhost,.example.com") as chat:
        cookie = chat.enter("Ada")
        with chat.connect(room, cookie, origin="https://www.example.com") as websocket:
            assert told(websocket)["came"]
        with pytest.raises(HandshakeRejected):
            chat.connect(room, cookie, origin="https://example.org")


# How it ends, and what the consumer sees of it


def close(peer: Peer) -> None:
    peer.send(peer.close(3001, "b\N{LATIN SMALL LETTER Y WITH DIAERESIS}e"))
    assert peer.read_close() == (3001, "b\N{LATIN SMALL LETTER Y WITH DIAERESIS}e")


def close_without_code(peer: Peer) -> None:
    peer.send(peer.close(None))
    assert peer.read_close()[0] == 1005


def end(peer: Peer) -> None:
    peer.end()
    peer.read_all()


def violate(peer: Peer) -> None:
    peer.send(b"\x83\x80\0\0\0\0")  # opcode 3
    assert peer.read_close() == (1002, "opcode 3 is reserved")


def send_what_is_refused(peer: Peer) -> None:
    peer.send(peer.text('{"text": 1}'))
    frame = peer.next_frame()
    assert frame.opcode == Opcode.CLOSE
    assert frame.payload == b"\x0f\xa1" + b'expected {"text": "..."}'
    peer.send(peer.close(4001, "as you say"))
    assert peer.read_all() == b""


def send_what_is_refused_and_vanish(peer: Peer) -> None:
    peer.send(peer.encode(Opcode.BINARY, b"\0"))
    assert peer.next_frame().opcode == Opcode.CLOSE
    peer.reset()


ENDINGS = {
    "client-closes": (close, 3001, "b\N{LATIN SMALL LETTER Y WITH DIAERESIS}e"),
    "client-closes-without-code": (close_without_code, 1005, ""),
    "client-ends-the-stream": (end, 1006, LOST),
    "client-resets": (Peer.reset, 1006, LOST),
    "client-violates": (violate, 1002, "opcode 3 is reserved"),
    "server-closes": (send_what_is_refused, 4001, 'expected {"text": "..."}'),
    "server-closes-and-client-resets": (send_what_is_refused_and_vanish, 4001, 'expected {"text": "..."}'),
}


@pytest.mark.parametrize(("end", "code", "reason"), ENDINGS.values(), ids=ENDINGS)
@needs_redis
def test_endings(redis, here, there, room, end, code, reason):
    with there.connect(room, there.enter("Bob")) as bob:
        assert told(bob) == {"name": "Bob", "came": True}
        with here.open(room, here.enter("Ada")) as ada:
            assert read(ada) == {"name": "Ada", "came": True}
            assert members(redis, room) == 2
            end(ada)
            received = here.ended(room)
        assert kinds(received)[0] == "connect"
        assert kinds(received).count("disconnect") == 1
        assert received[-1] == {"type": "websocket.disconnect", "code": code, "reason": reason}
        assert members(redis, room) == 1
        assert here.tasks() == ""
        # The consumer has seen it too, and has said so.
        assert told(bob) == {"name": "Ada", "came": True}
        assert told(bob) == {"name": "Ada", "left": code}
    assert there.ended(room)[-1] == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    assert there.tasks() == ""
    assert keys(redis) == []


@needs_redis
def test_server_shutdown(redis, there, room):
    with there.connect(room, there.enter("Bob")) as bob:
        assert told(bob) == {"name": "Bob", "came": True}
        with site(REDIS_URL=redis.url) as chat:
            with chat.open(room, chat.enter("Ada")) as ada:
                assert read(ada) == {"name": "Ada", "came": True}
                chat.process.send_signal(signal.SIGTERM)
                frame = ada.next_frame()
                assert (frame.opcode, frame.payload) == (Opcode.CLOSE, (1012).to_bytes(2, "big"))
                ada.send(ada.close(1012))
                assert ada.read_all() == b""
            assert chat.ended(room) == [
                {"type": "websocket.connect"},
                {"type": "websocket.disconnect", "code": 1012, "reason": ""},
            ]
            assert chat.process.wait(TIMEOUT) in (0, -signal.SIGTERM)
        assert told(bob) == {"name": "Ada", "came": True}
        assert told(bob) == {"name": "Ada", "left": 1012}
        assert members(redis, room) == 1
    there.ended(room)
    assert there.tasks() == ""
    assert keys(redis) == []


@needs_redis
def test_a_process_that_is_killed_leaves_its_members_for_a_day(redis, here, room):
    with site(REDIS_URL=redis.url) as chat, chat.connect(room, chat.enter("Ada")) as ada:
        assert told(ada)["came"]
        chat.process.kill()
        with pytest.raises(ConnectionClosed):
            ada.recv(TIMEOUT)
    with redis.client() as client:
        (group,) = keys(redis)
        assert client.zcard(group) == 1
        assert 0 < client.ttl(group) <= DAY
        client.delete(group)


@needs_redis
def test_a_message_comes_when_the_client_has_gone(redis, here, there, room):
    """To send it is an error, and leaves the consumer all the same its disconnect."""
    with there.connect(room, there.enter("Bob")) as bob:
        assert told(bob)["came"]
        with here.open(room + "?late", here.enter("Ada")) as ada:
            assert read(ada) == {"name": "Ada", "came": True}
            ada.reset()
            assert here.hear("gone")["gone"] == room
            bob.send(say("are you there?"))
            assert kinds(here.ended(room)) == ["connect", "disconnect"]
        assert members(redis, room) == 1
        assert told(bob) == {"name": "Ada", "came": True}
        assert told(bob) == {"name": "Bob", "html": "<p>are you there?</p>"}
        assert told(bob) == {"name": "Ada", "left": 1006}


@needs_redis
def test_many_come_and_go_at_once(redis, here, there, room):
    """Half of them vanish while others still speak: nobody stays in the room."""
    cookies = here.enter("Ada"), there.enter("Bob")
    with there.connect(room, cookies[1]):
        peers = [
            chat.open(room, cookie)
            for _ in range(20)
            for chat, cookie in zip((here, there), cookies, strict=True)
        ]
        for number, peer in enumerate(peers):
            peer.send(peer.text(say("x")), *[peer.close(3001)] * (number % 2))
        for peer in peers:
            peer.reset()
        endings = [chat.ended(room) for chat in (here, there) for _ in range(20)]
        assert [kinds(received).count("disconnect") for received in endings] == [1] * 40
        assert {received[-1]["code"] for received in endings} <= {1006, 3001}
        assert members(redis, room) == 1
    assert kinds(there.ended(room)) == ["connect", "disconnect"]
    assert members(redis, room) == 0


@needs_redis
def test_a_room_in_which_nobody_speaks(redis, here, room):
    """Its consumer waits for messages from Redis, and asks again after 5 seconds."""
    with here.connect(room, here.enter("Ada")) as ada, redis.client() as client:
        assert told(ada)["came"]
        client.config_resetstat()
        while not client.info("commandstats").get("cmdstat_bzpopmin"):
            with pytest.raises(TimeoutError):
                ada.recv(0.5)
        ada.send(say("still here"))
        assert told(ada)["html"] == "<p>still here</p>"


# The example's README


def test_the_readme(room):
    readme = (EXAMPLE / "README.md").read_text()
    command = "uvicorn chat.asgi:application --ws wsframe.asgi:WebSocketProtocol"
    assert readme.count(command) == 2
    with site(app="chat.asgi:application") as chat, chat.connect(room, chat.enter("Ada")) as ada:
        assert told(ada) == {"name": "Ada", "came": True}
    for name in re.findall(r"^\| `(\w+)` ", readme, re.MULTILINE):
        assert f'os.environ.get("{name}"' in (EXAMPLE / "chat/settings.py").read_text()


def test_django_checks_it():
    command = [sys.executable, "-m", "django", "check", "--deploy", "--fail-level", "ERROR"]
    result = subprocess.run(
        [*command, "--settings", "chat.settings", "--pythonpath", str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 0, result.stderr
