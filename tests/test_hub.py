"""hub: publish and subscribe, in a process and over a real Redis, which goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import trustme
from adapters import MIB, TIMEOUT, Peer, asynchronous, request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis_server import RedisServer, needs_redis, redis_cluster, redis_server

from wsframe import ConnectionClosed, LocalProtocolError
from wsframe.aio import WebSocket, connect, serve
from wsframe.hub import Hub, Pattern, websocket_of

pytestmark = pytest.mark.usefixtures("leaks")


@pytest.fixture(scope="module", params=["process", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Hubs without and with Redis do the same."""
    return None if request.param == "process" else request.getfixturevalue("redis").url


class Site:
    """A server whose connections stay open, and the clients' ends of them."""

    def __init__(self) -> None:
        self.port = 0
        self.clients: list[WebSocket] = []
        self.websockets: asyncio.Queue[WebSocket] = asyncio.Queue()
        self.is_over = asyncio.Event()

    async def handler(self, websocket: WebSocket) -> None:
        self.websockets.put_nowait(websocket)
        await self.is_over.wait()

    async def open(self, count: int = 1, **options: object) -> list[tuple[WebSocket, WebSocket]]:
        """Open connections; return both ends of each, the server's first."""
        ends = []
        for _ in range(count):
            client = await connect(f"ws://127.0.0.1:{self.port}/", **options)
            self.clients.append(client)
            ends.append((await self.websockets.get(), client))
        return ends


@contextlib.asynccontextmanager
async def site(**options: object) -> AsyncIterator[Site]:
    here = Site()
    async with serve(here.handler, "127.0.0.1", 0, **options) as server:
        here.port = server.port
        yield here
        here.is_over.set()
        for client in here.clients:
            await client.close()


async def in_thread(function, *args):
    return await asyncio.wait_for(asyncio.to_thread(function, *args), TIMEOUT)


def open_peer(port: int) -> Peer:
    """Open a client that reads when it is told to, and has little room for what comes before."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    peer = Peer(sock, is_client=True)
    peer.send(request())
    peer.read_head()
    return peer


async def received(client: WebSocket, *messages: str | bytes) -> bool:
    """Tell whether these are the next messages."""
    return [await client.recv(TIMEOUT) for _ in messages] == list(messages)


async def settled(condition) -> None:
    """Wait until Redis or a peer has done what nobody tells us of."""
    async with asyncio.timeout(TIMEOUT):
        while not await asyncio.to_thread(condition):
            pass


def subscriptions(url: str) -> tuple[list[bytes], int]:
    """Return the channels and the number of patterns that anybody is subscribed to."""
    with Redis.from_url(url) as client:
        return sorted(client.pubsub_channels()), client.pubsub_numpat()


# What both do


@asynchronous
async def test_a_message_reaches_those_who_are_subscribed(url):
    async with site() as here, Hub(url) as hub:
        (one, one_client), (two, two_client), (other, other_client) = await here.open(3)
        await hub.subscribe(one, "news", "sport")
        await hub.subscribe(two, "news")
        await hub.subscribe(other, "weather")
        messages = ["é" * 1000, b"\x00\xff" * 1000, "", b"", b"\xff", b"text as octets", "x" * MIB]
        for message in messages:
            await hub.publish("news", message)
        await hub.publish("sport", bytearray(b"goal"))
        await hub.publish("news", memoryview(b"the end"))
        await hub.publish("weather", "sun")
        await hub.publish("nobody", "listens")
        assert await received(one_client, *messages, b"goal", b"the end")
        assert await received(two_client, *messages, b"the end")
        assert await received(other_client, "sun")


@asynchronous
async def test_a_message_comes_once_however_many_ways_it_was_subscribed_to(url):
    async with site() as here, Hub(url) as hub:
        (both, both_client), (topic, topic_client), (patterns, patterns_client) = await here.open(3)
        await hub.subscribe(both, "news.eu", Pattern("news.*"))
        await hub.subscribe(topic, "news.eu", "news.eu")
        await hub.subscribe(topic, "news.eu")
        await hub.subscribe(patterns, Pattern("*.eu"), Pattern("n*"), Pattern("*"))
        await hub.publish("news.eu", "1")
        await hub.publish("news.us", "2")
        await hub.publish("sport.eu", "3")
        await hub.publish("news.eu", "4")
        assert await received(both_client, "1", "2", "4")
        assert await received(topic_client, "1", "4")
        assert await received(patterns_client, "1", "2", "3", "4")
        await hub.unsubscribe(both, "news.eu")
        await hub.unsubscribe(topic)
        await hub.unsubscribe(patterns, Pattern("*"), Pattern("never"), "never")
        await hub.publish("news.eu", "5")
        await hub.publish("weather", "6")
        await hub.unsubscribe(both, Pattern("news.*"))
        await hub.subscribe(both, "end")
        await hub.subscribe(topic, "end")
        await hub.subscribe(patterns, "end")
        await hub.publish("end", "7")
        assert await received(both_client, "5", "7") or url is not None
        assert await received(topic_client, "7")
        assert await received(patterns_client, "5", "7")


@asynchronous
async def test_a_topic_that_looks_like_a_pattern_is_none(url):
    async with site() as here, Hub(url) as hub:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, "*")
        await hub.publish("news", "1")
        await hub.publish("*", "2")
        assert await received(client, "2")


@asynchronous
async def test_messages_come_in_the_order_of_the_calls(url):
    async with site() as here, Hub(url) as hub, Hub(url) as second:
        (one, one_client), (two, two_client) = await here.open(2)
        await hub.subscribe(one, "a", Pattern("?"))
        await hub.subscribe(two, Pattern("[ab]"))
        numbers = [str(number) for number in range(1000)]
        receiving = asyncio.gather(
            *(received(client, *numbers, *numbers) for client in (one_client, two_client))
        )
        await asyncio.gather(*(hub.publish("ab"[int(number) % 2], number) for number in numbers))
        for number in numbers:
            await hub.publish("b", number)
        assert await receiving == [True, True]
        if url is not None:
            await asyncio.gather(*(second.publish("a", number) for number in numbers))
            assert await received(one_client, *numbers)


@asynchronous
async def test_who_is_gone_is_subscribed_to_nothing(url):
    async with site() as here, Hub(url) as hub:
        (one, one_client), (two, two_client), (three, _) = await here.open(3)
        await hub.subscribe(one, "news", "sport", Pattern("w*"))
        await hub.subscribe(two, "news")
        await hub.subscribe(three, "sport")
        await one_client.close()
        await one.wait_closed()
        three._transport.abort()
        await three.wait_closed()
        await hub.subscribe(one, "more", Pattern("more"))
        await hub.publish("news", "hello")
        assert await received(two_client, "hello")
        assert list(hub._rooms._rooms) == [b"news"]
        assert list(hub._rooms._keys) == [two]
        assert (one._closers, len(two._closers)) == ([], 1)
        await hub.unsubscribe(two)
        assert (hub._rooms._rooms, hub._rooms._patterns, hub._rooms._keys) == ({}, {}, {})
        assert two._closers == []
        if url is not None:
            await settled(lambda: subscriptions(url) == ([], 0))


@pytest.mark.parametrize("slow", ["drop", "close"])
@asynchronous
async def test_a_slow_client_holds_up_nobody(url, slow, caplog):
    caplog.set_level(logging.DEBUG, "wsframe.hub")
    message = bytes(MIB)
    async with (
        site(close_timeout=TIMEOUT, ping_interval=None) as here,
        Hub(url, max_buffered=2 * MIB, slow=slow) as hub,
    ):
        peer = await in_thread(open_peer, here.port)
        lazy = await here.websockets.get()
        [(quick, client)] = await here.open(max_message_size=None)
        await hub.subscribe(lazy, "film")
        await hub.subscribe(quick, "film")
        while not caplog.records:
            await hub.publish("film", message)
            assert await received(client, message)
            assert lazy.buffered_amount < 3 * MIB + 20
        assert caplog.records[-1].getMessage() == "1 of 2 clients were too slow for a message"
        caplog.clear()
        await hub.publish("film", b"the end")
        assert await received(client, b"the end")
        caplog.clear()
        frames = await in_thread(read_until_quiet, peer, lazy, slow)
        assert {bytes(frame.payload) for frame in frames if len(frame.payload) > 10} == {message}
        if slow == "close":
            assert frames[-1].payload == b"\x03\xf0too slow"
        await in_thread(peer.send, peer.close())
        peer.sock.close()


def read_until_quiet(peer: Peer, lazy: WebSocket, slow: str) -> list:
    frames = []
    while not frames or (lazy.buffered_amount if slow == "drop" else len(frames[-1].payload) > 10):
        frames.append(peer.next_frame())
    return frames


@asynchronous
async def test_it_is_compressed_as_the_hub_says(url):
    async with site() as here, Hub(url) as hub, Hub(url, compress=False) as plain:
        [(websocket, client)] = await here.open()
        for publisher, size in (hub, range(20, 200)), (plain, range(3000, 3100)):
            await publisher.subscribe(websocket, "news")
            before = websocket.counters.octets_sent
            await publisher.publish("news", "abc" * 1000)
            assert await received(client, "abc" * 1000)
            assert websocket.counters.octets_sent - before in size
            await publisher.unsubscribe(websocket)


# What is refused


def test_a_hub_says_what_it_wants():
    for wrong in "http://localhost", "localhost:6379", "unix://", "redis://localhost?colour=red", "":
        with pytest.raises(
            ValueError, match="a hub takes the URL of a Redis, redis://, rediss:// or unix://"
        ):
            Hub(wrong)
    with pytest.raises(TypeError, match="a URL is a str, not int"):
        Hub(6379)
    with pytest.raises(ValueError, match='slow must be "drop" or "close", not \'wait\''):
        Hub(slow="wait")
    with pytest.raises(ValueError, match="this is none: .*colour") as caught:
        Hub("redis://:secret@localhost?colour=red")
    assert "secret" not in str(caught.value)


def test_a_hub_over_redis_says_when_the_package_is_missing():
    program = (
        "import sys; sys.modules['redis'] = None; from wsframe.hub import Hub; Hub()\n"
        "try: Hub('redis://localhost')\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("a hub over Redis needs redis-py: pip install 'wsframe[redis]'\n", "")


def test_redis_is_imported_only_for_a_url():
    program = "import sys; from wsframe.hub import Hub; Hub(); assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@asynchronous
async def test_a_hub_is_used_while_it_is_open(url):
    hub = Hub(url)
    calls = [
        lambda: hub.subscribe(None, "news"),
        lambda: hub.unsubscribe(None),
        lambda: hub.publish("news", ""),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"the hub is not open yet: enter it by async with"):
            await call()
    async with hub:
        with pytest.raises(RuntimeError, match="a hub can be opened once"):
            await hub.__aenter__()
    await hub.close()
    for call in calls:
        with pytest.raises(RuntimeError, match="the hub is closed"):
            await call()
    with pytest.raises(RuntimeError, match="a hub can be opened once"):
        await hub.__aenter__()
    await Hub(url).close()


@asynchronous
async def test_arguments_are_checked_before_anything_is_done(url):
    async with site() as here, Hub(url) as hub:
        [(websocket, _)] = await here.open()
        with pytest.raises(TypeError, match="a topic is a str or a Pattern, not bytes"):
            await hub.subscribe(websocket, "news", b"sport")
        with pytest.raises(ValueError, match="a topic must not have lone surrogates"):
            await hub.subscribe(websocket, "news", "\ud800")
        with pytest.raises(TypeError, match=r"only a wsframe.aio.WebSocket can subscribe, not str"):
            await hub.subscribe("news", "news")
        with pytest.raises(TypeError, match="a topic is a str or a Pattern, not int"):
            await hub.unsubscribe(websocket, 1)
        with pytest.raises(TypeError, match="a message is published to a topic, not to a pattern"):
            await hub.publish(Pattern("*"), "hello")
        with pytest.raises(TypeError, match="a topic is a str or a Pattern, not NoneType"):
            await hub.publish(None, "hello")
        with pytest.raises(TypeError):
            await hub.publish("news", 1)
        with pytest.raises(LocalProtocolError, match="text contains a lone surrogate"):
            await hub.publish("news", "\ud800")
        assert hub._rooms._rooms == {}


@asynchronous
async def test_closing_a_hub_leaves_the_connections_open(url):
    async with site() as here:
        [(websocket, client)] = await here.open()
        async with Hub(url) as hub:
            await hub.subscribe(websocket, "news", Pattern("*"))
        assert websocket._closers == []
        await websocket.send("still here")
        assert await received(client, "still here")
    if url is not None:
        await settled(lambda: subscriptions(url) == ([], 0))


# Patterns

octets = st.sampled_from(list("abc-^]\\[*?é€\n\0"))


@needs_redis
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    glob=st.lists(octets, max_size=8).map("".join), topics=st.lists(st.lists(octets, max_size=5).map("".join))
)
@example("*", [""])
@example("", ["", "a"])
@example("[", ["", "[", "a"])
@example("[^", ["", "^", "a", "ab"])
@example("[^]", ["a", "]", ""])
@example("[]", ["a", "]", ""])
@example("[]a]", ["a", "]", "a]", "]a]"])
@example("[a-]", ["a", "-", "]", "_", "b"])
@example("[a-]x]", ["a", "_", "_x", "_x]"])
@example("[c-a]", ["a", "b", "c", "-"])
@example("[\\]]", ["]", "\\", "]]"])
@example("[a\\-c]", ["a", "b", "c", "-", "\\"])
@example("[\\a-c]", ["a", "b", "c", "-", "\\"])
@example("[a-\\]", ["a", "b", "]", "\\", "^"])
@example("[abc", ["a", "c", "d", "ab"])
@example("[\\", ["\\", "["])
@example("a\\", ["a\\", "a"])
@example("\\*a", ["*a", "ba", "\\*a"])
@example("??", ["é", "ab", "€"])
@example("[^a][^a]", ["é", "bc"])
@example("*a*b", ["ab", "aab", "abb", "aba", "cacbcb"])
@example("a**", ["a", "ab", ""])
@example("[&&a]", ["&", "a"])
@example("[a||b~~[[]", ["[", "|", "~", "b"])
@example("*?*", ["", "a"])
def test_a_pattern_matches_what_redis_matches(redis, glob, topics):
    try:
        pattern = Pattern(glob)
    except ValueError:
        assert re.search("\\[.*[^\0-\x7f]", glob, re.DOTALL)
        return
    with redis.client() as client, client.pubsub() as pubsub:
        pubsub.psubscribe(glob)
        assert pubsub.get_message(timeout=TIMEOUT)["type"] == "psubscribe"
        found = [bool(client.publish(topic, "")) for topic in topics]
    assert [pattern.matches(topic) for topic in topics] == found
    assert [pattern.matches(topic.encode()) for topic in topics] == found


def test_a_pattern_that_matches_nothing_says_so_soon():
    assert not Pattern("*a" * 30 + "b").matches("a" * 10_000)


def test_patterns_are_equal_when_their_globs_are():
    assert Pattern("a*") == Pattern("a*") != Pattern("a?")
    assert Pattern("a*") != "a*"
    assert len({Pattern("a*"), Pattern("a*")}) == 1
    assert repr(Pattern("a*")) == "Pattern('a*')"


def test_a_pattern_is_checked():
    with pytest.raises(TypeError, match="a pattern is made of a str, not bytes"):
        Pattern(b"*")
    with pytest.raises(ValueError, match="a pattern must not have lone surrogates"):
        Pattern("\ud800")
    with pytest.raises(ValueError, match="brackets in a pattern take ASCII characters only"):
        Pattern("[é]")


# ASGI


@asynchronous
async def test_the_websocket_of_a_scope():
    async with site() as here:
        [(websocket, _)] = await here.open()
        scope = {"type": "websocket", "extensions": {"wsframe": {"websocket": websocket}}}
        assert websocket_of(scope) is websocket
        command = "uvicorn --ws wsframe.asgi:WebSocketProtocol"
        for extensions in {}, {"extensions": None}, {"extensions": {"websocket.http.response": {}}}:
            with pytest.raises(RuntimeError, match=f"the application does not run on wsframe: .*{command}"):
                websocket_of({"type": "websocket", **extensions})
        with pytest.raises(RuntimeError, match="a scope of type 'http' has no WebSocket"):
            websocket_of({"type": "http"})
