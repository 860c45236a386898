"""hub: publish and subscribe, in a process and over a real Redis, which goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.adapters import MIB, TIMEOUT, Peer, asynchronous, in_thread, open_peer
from tests.support.hub_site import received, settled, site
from tests.support.paths import ROOT
from tests.support.redis_server import needs_redis, needs_redis_py, redis_server
from tests.support.tiers import full
from wsframe import LocalProtocolError
from wsframe.aio import WebSocket, connect
from wsframe.hub import Hub, Pattern, websocket_of

if TYPE_CHECKING:
    from redis import Redis

pytestmark = pytest.mark.usefixtures("leaks")


@pytest.fixture(scope="module", params=["process", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Hubs without and with Redis do the same."""
    return None if request.param == "process" else request.getfixturevalue("redis").url


def subscriptions(url: str) -> tuple[list[bytes], int]:
    """Return the channels and the number of patterns that anybody is subscribed to."""
    from redis import Redis

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
        messages = ["é" * 1000, b"\x00\xff" * 1000, "", b"", b"\xff", b"text as bytes", "x" * MIB]
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
        assert await received(both_client, "5")
        await hub.unsubscribe(both, Pattern("news.*"))
        await hub.publish("news.eu", "7")
        for websocket in both, topic, patterns:
            await hub.subscribe(websocket, "end")
        await hub.publish("end", "8")
        assert await received(both_client, "8")
        assert await received(topic_client, "8")
        assert await received(patterns_client, "5", "7", "8")


@asynchronous
async def test_a_topic_that_looks_like_a_pattern_is_none(url):
    async with site() as here, Hub(url) as hub:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, "*")
        await hub.publish("news", "1")
        await hub.publish("*", "2")
        assert await received(client, "2")


@asynchronous
async def test_messages_come_in_the_order_of_the_calls(url, size):
    async with site() as here, Hub(url) as hub, Hub(url) as second:
        (one, one_client), (two, two_client) = await here.open(2)
        await hub.subscribe(one, "a", Pattern("?"))
        await hub.subscribe(two, Pattern("[ab]"))
        numbers = [str(number) for number in range(size(100, 400))]
        first_half = numbers[: len(numbers) // 2]
        receiving = asyncio.gather(
            *(received(client, *numbers, *first_half) for client in (one_client, two_client))
        )
        await asyncio.gather(*(hub.publish("ab"[int(number) % 2], number) for number in numbers))
        for number in first_half:
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
        three.abort()
        await three.wait_closed()
        await hub.subscribe(one, "more", Pattern("more"))
        await hub.publish("news", "hello")
        assert await received(two_client, "hello")
        assert list(hub._topics._topics) == [b"news"]
        assert list(hub._topics._names) == [two]
        assert (one._close_callbacks, len(two._close_callbacks)) == ((), 1)
        await hub.unsubscribe(two)
        assert (hub._topics._topics, hub._topics._patterns, hub._topics._names) == ({}, {}, {})
        assert two._close_callbacks == ()
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
        peer = await in_thread(open_peer, here.port, receive_buffer=4096)
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
        # What was queued for the slow client comes first, and then this message, or the Close.
        last = asyncio.ensure_future(lazy.send("last")) if slow == "drop" else None
        frames = await in_thread(read_up_to, peer, b"last" if last else b"\x03\xf0too slow")
        if last:
            await last
        assert {bytes(frame.payload) for frame in frames if len(frame.payload) > 10} == {message}
        await in_thread(peer.send, peer.close())
        peer.sock.close()


def read_up_to(peer: Peer, payload: bytes) -> list:
    frames = [peer.next_frame()]
    while frames[-1].payload != payload:
        frames.append(peer.next_frame())
    return frames


@asynchronous
async def test_it_is_compressed_as_the_hub_says(url):
    async with site() as here, Hub(url) as hub, Hub(url, compress=False) as plain:
        [(websocket, client)] = await here.open()
        for publisher, size in (hub, range(20, 200)), (plain, range(3000, 3100)):
            await publisher.subscribe(websocket, "news")
            before = websocket.counters.bytes_sent
            await publisher.publish("news", "abc" * 1000)
            assert await received(client, "abc" * 1000)
            assert websocket.counters.bytes_sent - before in size
            await publisher.unsubscribe(websocket)


# Over Redis


@needs_redis
@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
@asynchronous
async def test_redis_is_reached_by_tcp_by_a_unix_socket_and_by_tls(kind):
    with redis_server(unix=kind == "unix", tls=trustme.CA() if kind == "tls" else None) as redis:
        async with site() as here, Hub(redis.url) as hub, Hub(redis.url) as other:
            [(websocket, client)] = await here.open()
            await hub.subscribe(websocket, "news", Pattern("*"))
            await other.publish("news", "hello")
            await other.publish("sport", b"x" * MIB)
            assert await received(client, "hello", b"x" * MIB)


@asynchronous
async def test_programs_in_any_language_publish(redis):
    async with site() as here, Hub(redis.url) as hub:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, "news", Pattern("other\\?"))
        with redis.client() as foreign:
            for payload in "é", b"\xff\x00\x01", b"\xff", b"", b"\x80 no UTF-8", b"\xed\xa0\x80":
                assert foreign.publish("news", payload) == 1
            assert foreign.publish("other?", "one") == 1
            assert foreign.publish(b"other\xff", "is no topic of ours") == 0
        assert await received(client, "é", b"\x00\x01", b"", "", b"\x80 no UTF-8", b"\xed\xa0\x80", "one")
        command = ["redis-cli", "-p", str(redis.port), "PUBLISH", "news", "hello"]
        run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert run.stdout == "1\n"
        assert await received(client, "hello")


@asynchronous
async def test_programs_in_any_language_hear_what_is_published(redis):
    with redis.client() as foreign, foreign.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("news")
        assert pubsub.get_message(timeout=TIMEOUT) is None
        async with Hub(redis.url) as hub:
            for message in "é", b"\x00\x01":
                await hub.publish("news", message)
        payloads = [pubsub.get_message(timeout=TIMEOUT)["data"] for _ in range(2)]
        assert payloads == ["é".encode(), b"\xff\x00\x01"]


@asynchronous
async def test_there_is_one_subscription_for_each_topic_and_none_when_all_have_left(redis):
    async with site() as here, Hub(redis.url) as hub, Hub(redis.url) as second:
        ends = await here.open(5)
        for websocket, _ in ends:
            await hub.subscribe(websocket, "news", Pattern("n*"))
            await second.subscribe(websocket, "news")
        with redis.client() as client:
            assert client.pubsub_numsub("news") == [(b"news", 2)]
            assert client.publish("news", "x") == 3
            for number, (websocket, end) in enumerate(ends):
                if number % 2:
                    await end.close()
                else:
                    await hub.unsubscribe(websocket)
            await settled(
                lambda: client.pubsub_numsub("news") == [(b"news", 1)] and not client.pubsub_numpat()
            )
        here.is_over.set()
        for _, end in ends:
            await end.close()
        await settled(lambda: subscriptions(redis.url) == ([], 0))


@asynchronous
async def test_many_come_and_go_at_the_same_time(redis):
    topics = ["a", "b", Pattern("[bc]"), Pattern("?")]
    random.seed(7)
    async with site() as here, Hub(redis.url) as hub:
        ends = await here.open(12)
        subscribed = {websocket: set() for websocket, _ in ends}

        async def come_and_go(websocket):
            for _ in range(60):
                topic = random.choice(topics)
                if random.random() < 0.5:
                    await hub.unsubscribe(websocket, topic)
                    subscribed[websocket].discard(topic)
                    continue
                subscribing = asyncio.create_task(hub.subscribe(websocket, topic))
                if random.random() < 0.5:
                    for _ in range(random.randrange(8)):
                        await asyncio.sleep(0)
                    subscribing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await subscribing
                    subscribed[websocket].add(topic)

        await asyncio.gather(*(come_and_go(websocket) for websocket, _ in ends))
        for websocket, _ in ends:
            assert hub._topics.names_of(websocket) == {
                topic if isinstance(topic, Pattern) else topic.encode() for topic in subscribed[websocket]
            }
        everything = set().union(*subscribed.values())
        channels = sorted(topic.encode() for topic in everything if isinstance(topic, str))
        await settled(lambda: subscriptions(redis.url) == (channels, len(everything) - len(channels)))
        for topic in "a", "b", "c", "dd":
            await hub.publish(topic, topic)
        for websocket, _ in ends:
            await hub.subscribe(websocket, "end")
        await hub.publish("end", "end")
        for websocket, client in ends:
            expected = [
                topic
                for topic in ("a", "b", "c")
                if any(
                    it.matches(topic) if isinstance(it, Pattern) else it == topic
                    for it in subscribed[websocket]
                )
            ]
            assert await received(client, *expected, "end")


@asynchronous
async def test_the_last_one_leaves_while_another_one_joins(redis, size):
    async with site() as here, Hub(redis.url) as hub:
        (one, one_client), (two, two_client) = await here.open(2)
        for number in range(size(20, 100)):
            await hub.subscribe(one, "news")
            subscribing = asyncio.create_task(hub.subscribe(two, "news"))
            await hub.unsubscribe(one, "news")
            if number % 2:
                await asyncio.sleep(0)
            await asyncio.gather(subscribing, hub.unsubscribe(one), hub.subscribe(one, "news"))
            await hub.publish("news", str(number))
            assert await received(one_client, str(number))
            assert await received(two_client, str(number))
            await asyncio.gather(hub.unsubscribe(one), hub.unsubscribe(two))


@asynchronous
async def test_nothing_is_lost_or_doubled_from_when_subscribe_returns(redis):
    """While numbers are published, many subscribe and unsubscribe: what each hears has no gap."""
    async with site() as here, Hub(redis.url) as hub, Hub(redis.url) as publisher:
        ends = await here.open(6)
        next_number = 0
        is_over = False

        async def count():
            nonlocal next_number
            while not is_over:
                next_number += 1
                await publisher.publish("count", str(next_number - 1))

        async def listen(websocket, client, *topics):
            for _ in range(15):
                await hub.subscribe(websocket, *topics)
                first_after = next_number
                heard = [int(await client.recv(TIMEOUT))]
                while heard[-1] < first_after + 3:
                    heard.append(int(await client.recv(TIMEOUT)))
                await hub.unsubscribe(websocket)
                await websocket.send("end")
                heard += [int(number) async for number in until_end(client)]
                assert heard[0] <= first_after
                assert heard == list(range(heard[0], heard[0] + len(heard)))

        counting = asyncio.create_task(count())
        topics = [["count"], [Pattern("c*")], ["count", Pattern("c*"), Pattern("*t")]] * 2
        await asyncio.gather(*(listen(*end, *which) for end, which in zip(ends, topics, strict=True)))
        is_over = True
        await counting


async def until_end(client: WebSocket) -> AsyncIterator[str]:
    while (message := await client.recv(TIMEOUT)) != "end":
        yield message


@asynchronous
async def test_others_have_their_turn_while_messages_pour_in(redis):
    async with site() as here, Hub(redis.url) as hub:
        ends = await here.open(50)
        for websocket, _ in ends:
            await hub.subscribe(websocket, "news")
        watched, client = ends[0]
        sent = set()
        with redis.client() as foreign, foreign.pipeline(transaction=False) as pipeline:
            for number in range(1000):
                pipeline.publish("news", str(number))
            pipeline.execute()
        while watched.counters.messages_sent < 1000:
            await asyncio.sleep(0)
            sent.add(watched.counters.messages_sent)
        # They are in few pieces, each of which could be read without waiting.
        assert len(sent) > 40
        assert await received(client, *map(str, range(1000)))


@asynchronous
async def test_unsubscribing_and_closing_end_a_subscribe_that_waits(redis):
    async with site() as here, Hub(redis.url) as hub:
        (one, _), (two, _), (three, _) = await here.open(3)
        await hub.subscribe(three, "old")
        await hub.subscribe(one, "older")
        cancelled = asyncio.create_task(hub.subscribe(one, "old", "older", "new"))
        await asyncio.sleep(0)
        assert one in hub._topics._topics[b"old"].subscribers
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert hub._topics.names_of(one) == {b"older"}
        await hub.unsubscribe(one)
        subscribing = asyncio.create_task(hub.subscribe(one, "news"))
        subscribing_too = asyncio.create_task(hub.subscribe(two, "news"))
        await asyncio.sleep(0)
        await hub.unsubscribe(one)
        two.abort()
        await subscribing
        await subscribing_too
        closing = asyncio.create_task(hub.subscribe(three, "news", "sport"))
        await asyncio.sleep(0)
        await hub.close()
        with pytest.raises(RuntimeError, match="the hub was closed"):
            await closing
        assert one._close_callbacks == three._close_callbacks == ()


PROCESS = """
import asyncio, sys
from wsframe.aio import serve
from wsframe.hub import Hub

async def main():
    async with Hub(sys.argv[1]) as hub:
        async def handler(ws):
            await hub.subscribe(ws, "room")
            await ws.send("welcome")
            async for message in ws:
                await hub.publish("room", message)
        async with serve(handler, "127.0.0.1", 0) as server:
            print(server.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@asynchronous
async def test_hubs_in_several_processes_are_one(redis):
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            command = [sys.executable, "-W", "error", "-c", PROCESS, redis.url]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate, timeout=TIMEOUT)
            port = int(await in_thread(process.stdout.readline))
            for _ in range(2):
                client = await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/"))
                assert await received(client, "welcome")
                clients.append(client)
        for number, client in enumerate(clients):
            await client.send(f"I am {number}")
            for other in clients:
                assert await received(other, f"I am {number}")
        async with Hub(redis.url) as hub:
            await hub.publish("room", b"from here")
        for client in clients:
            assert await received(client, b"from here")


# Redis goes away


@needs_redis
@asynchronous
async def test_redis_is_killed_and_comes_back(caplog):
    caplog.set_level(logging.INFO, "wsframe.hub")
    with redis_server() as redis:
        async with site() as here, Hub(redis.url) as hub:
            (one, one_client), (two, two_client), (late, late_client) = await here.open(3)
            await hub.subscribe(one, "news", Pattern("n*"))
            await hub.subscribe(two, "sport")
            await hub.publish("news", "before")
            assert await received(one_client, "before")
            redis.kill()
            # It may have been on its way.
            with pytest.raises(ConnectionError, match="published"):
                await hub.publish("news", "lost")
            address = f"Redis at 127.0.0.1:{redis.port}"
            for _ in range(2):
                with pytest.raises(ConnectionError, match=f"not published: cannot connect to {address}: "):
                    await hub.publish("news", "lost")
            subscribing = asyncio.create_task(hub.subscribe(late, "late", "news", "sport"))
            again = asyncio.create_task(hub.subscribe(one, "news", "more"))
            given_up = asyncio.create_task(hub.subscribe(late, "given up", "news"))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            again.cancel()
            await asyncio.wait([again])
            assert not subscribing.done()
            redis.restart()
            await subscribing
            assert hub._topics.names_of(late) == {b"late", b"news", b"sport"}
            assert hub._topics.names_of(one) == {b"news", Pattern("n*")}
            for topic in "news", "sport", "late", "given up":
                await hub.publish(topic, f"after {topic}")
            assert await received(one_client, "after news")
            assert await received(two_client, "after sport")
            assert await received(late_client, "after news", "after sport", "after late")
            assert subscriptions(redis.url) == ([b"late", b"news", b"sport"], 1)
            away, *others, back = [record.getMessage() for record in caplog.records]
            assert away.startswith(f"{address} is away, and what is published meanwhile will be missed: ")
            assert len(others) <= 1  # another reason: connection refused
            assert back == f"{address} is back; resubscribed to 4 topics"
            assert caplog.records[0].levelname == "WARNING"
            caplog.clear()


@needs_redis
@asynchronous
async def test_what_was_to_be_published_when_redis_went_away(caplog):
    with redis_server() as redis:
        async with Hub(redis.url) as hub:
            await hub.publish("news", "hello")
            redis.hang()
            publishing = [asyncio.create_task(hub.publish("news", str(number))) for number in range(10)]
            [node] = hub._broker._nodes.values()
            publisher = node._publisher
            while len(publisher._link.unanswered) != 10:
                await asyncio.sleep(0)
            cancelled = publishing.pop()
            cancelled.cancel()
            redis.kill()
            for task in publishing:
                with pytest.raises(
                    ConnectionError, match="it is not known whether this was published: Redis at "
                ):
                    await task
            redis.restart()
            await hub.publish("news", "back")
            assert cancelled.cancelled()


@full
@needs_redis
@asynchronous
async def test_a_redis_that_hangs_is_noticed(caplog):
    with redis_server() as redis:
        async with site() as here, Hub(f"{redis.url}?health_check_interval=1") as hub:
            [(websocket, client)] = await here.open()
            await hub.subscribe(websocket, "news")
            await hub.publish("news", "before")
            redis.hang()
            with pytest.raises(ConnectionError, match=r"not known .*: it has not answered for 1 s"):
                await hub.publish("news", "lost?")
            with pytest.raises(ConnectionError, match=r"not published: .*: it does not answer"):
                await hub.publish("news", "lost")
            subscribing = asyncio.create_task(hub.subscribe(websocket, "sport"))
            while not caplog.records:
                await asyncio.sleep(0.01)
            redis.proceed()
            await subscribing
            await hub.subscribe(websocket, "news")
            await hub.publish("sport", "after")
            messages = [await client.recv(TIMEOUT), await client.recv(TIMEOUT)]
            # It had been received, and so it was published when the process went on, but not to us.
            assert messages == ["before", "after"]
            assert "is away" in caplog.text
            caplog.clear()


def pings(admin: Redis) -> int:
    return admin.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]


@full
@needs_redis
def test_a_redis_that_is_quiet_is_not_taken_for_dead():
    async def main(redis):
        async with site() as here, Hub(f"{redis.url}?health_check_interval=1") as hub:
            [(websocket, client)] = await here.open()
            await hub.publish("news", "")
            await hub.subscribe(websocket, "news")
            with redis.client() as admin:
                await settled(lambda: pings(admin) >= 4)
                connections = admin.info("stats")["total_connections_received"]
            await hub.publish("news", "hello")
            assert await received(client, "hello")
            await hub.unsubscribe(websocket)
            with redis.client() as admin:
                before = pings(admin)
                await settled(lambda: pings(admin) >= before + 2)
                assert admin.info("stats")["total_connections_received"] == connections + 1

    with redis_server() as redis:
        asyncio.run(main(redis))


# redis-py calls writelines(), with which nobody waits there for what is not written: all of it is as written.
WRITES_AT_ONCE = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


@full
@needs_redis
@pytest.mark.skipif(WRITES_AT_ONCE, reason="asyncio's writelines() never pauses in this version of Python")
@asynchronous
async def test_what_was_not_written_is_not_published(caplog):
    with redis_server() as redis:
        async with Hub(f"{redis.url}?health_check_interval=1") as hub:
            await hub.publish("news", "hello")
            redis.hang()
            publishing = [hub.publish("film", bytes(8 * MIB)) for _ in range(4)]
            errors = await asyncio.gather(*publishing, return_exceptions=True)
            redis.proceed()
            texts = [str(error).partition(":")[0] for error in errors]
            unknown, not_published = "it is not known whether this was published", "not published"
            assert texts == [unknown, not_published, not_published, not_published]


@asynchronous
async def test_a_publish_ends_when_the_hub_is_closed_at_once(redis):
    async with Hub(redis.url) as hub:
        publishing = asyncio.create_task(hub.publish("news", "last words"))
        await asyncio.sleep(0)
    with pytest.raises(ConnectionError, match=r"^not published: the connection was closed"):
        await asyncio.wait_for(publishing, TIMEOUT)


@asynchronous
async def test_a_publish_that_is_cancelled_before_it_is_written_is_none(redis):
    async with site() as here, Hub(redis.url) as hub:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, "news")
        await hub.publish("news", "begin")
        first, second = (asyncio.create_task(hub.publish("news", text)) for text in ("first", "second"))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()
        assert await received(client, "begin", "second")


@needs_redis
@asynchronous
async def test_a_publish_that_is_cancelled_keeps_nothing():
    with redis_server() as redis:
        async with Hub(redis.url) as hub:
            await hub.publish("film", "begin")
            redis.hang()
            publishing = [asyncio.create_task(hub.publish("film", bytes(8 * MIB))) for _ in range(4)]
            [node] = hub._broker._nodes.values()
            publisher = node._publisher
            while len(publisher._link.queued) != 3:  # one is being written
                await asyncio.sleep(0)
            for task in publishing:
                task.cancel()
            await asyncio.wait(publishing)
            assert [command.words for command in publisher._link.queued] == [(), (), ()]
            redis.proceed()
            await hub.publish("film", "end")


class Unseen(set):
    """A set that nobody may go through."""

    def __iter__(self):
        raise AssertionError("it has many elements")


@asynchronous
async def test_a_message_that_comes_by_a_pattern_is_not_sought_among_all_topics(redis):
    async with site() as here, Hub(redis.url) as hub:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, "a", "b", Pattern("n*"))
        [node] = hub._broker._nodes.values()
        subscriber = node._subscriber
        subscriber._subscribed = Unseen(subscriber._subscribed)
        await hub.publish("news", "hello")
        assert await received(client, "hello")
        await hub.unsubscribe(websocket, Pattern("n*"))
        await settled(lambda: not subscriber._subscribed_patterns)


@asynchronous
async def test_a_message_that_breaks_something_does_not_end_the_subscriptions(redis, caplog):
    async with site() as here, Hub(redis.url) as hub:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, "news", "sport")
        hub._topics._topics[b"sport"].subscribers.add(None)
        await hub.publish("sport", "broken")
        while not caplog.records:
            await asyncio.sleep(0)
        await hub.subscribe(websocket, "news")
        await hub.publish("news", "hello")
        while (message := await client.recv(TIMEOUT)) != "hello":
            assert message == "broken"  # it may have come first
        assert [record.getMessage() for record in caplog.records] == ["a message was not delivered to all"]
        hub._topics._topics[b"sport"].subscribers.discard(None)
        caplog.clear()


@needs_redis_py
@asynchronous
async def test_what_is_no_redis_is_not_taken_for_one():
    connections = 0

    async def serve_nonsense(reader, writer):
        nonlocal connections
        connections += 1
        while await reader.read(65536):
            writer.write(nonsense)
        writer.close()

    server = await asyncio.start_server(serve_nonsense, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        nonsense = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with pytest.raises(ConnectionError, match=r"cannot connect to Redis at 127\.0\.0\.1:"):
            await Hub(url).__aenter__()
        # Answers that nobody asked for: the connection is given up.
        nonsense = b"+OK\r\n" * 10
        async with Hub(url) as hub:
            await hub.publish("news", "hello")
            before = connections
            await hub.publish("news", "hello")
            assert connections == before + 1


@contextlib.asynccontextmanager
async def false_redis(answers: Callable[[bytes], bytes | None]) -> AsyncIterator[str]:
    """Be a server that answers as Redis until it is connected to, and then what it is told, or hangs up."""

    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
            answer = answers(data)
            if answer is None:
                break
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@needs_redis_py
@pytest.mark.parametrize(
    "nonsense",
    [b"*x\r\n", b"*0\r\n", b"*2\r\n$7\r\nmessage\r\n$1\r\na\r\n", b"*1\r\n" * 3000],
    ids=["no-number", "empty", "short", "deep"],
)
@asynchronous
async def test_what_is_not_understood_is_a_connection_lost(nonsense, caplog):
    def answers(data: bytes) -> bytes:
        return b"$0\r\n\r\n" if data.endswith(b"cluster\r\n") else nonsense if b"\r\nnews" in data else b""

    async with false_redis(answers) as url, site() as here, Hub(url) as hub:
        [(websocket, _)] = await here.open()
        subscribing = asyncio.create_task(hub.subscribe(websocket, "news"))
        while not caplog.records:
            await asyncio.sleep(0)
        subscribing.cancel()
        await asyncio.wait([subscribing])
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "will be missed: what it says is not understood: " in caplog.text
        if nonsense == b"*x\r\n":
            with pytest.raises(ConnectionError, match=r"not known .*: what it says is not understood: Value"):
                await hub.publish("news", "hello")
        caplog.clear()


@needs_redis_py
@asynchronous
async def test_a_hub_does_not_open_on_what_is_not_understood():
    async with false_redis(lambda data: b"*x\r\n" * data.count(b"INFO\r\n$7")) as url:
        with pytest.raises(ConnectionError, match=r"cannot connect to Redis at .*not understood: ValueError"):
            await Hub(url).__aenter__()


@needs_redis_py
@asynchronous
async def test_a_redis_that_drops_connections_is_not_run_down(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "wsframe.hub")
    connections = backoffs = 0

    class Delays:
        def __iter__(self):
            nonlocal backoffs
            backoffs += 1
            return itertools.repeat(0)

    def answers(data: bytes) -> bytes | None:
        nonlocal connections
        connections += data.count(b"LIB-NAME")
        if data.endswith(b"cluster\r\n"):
            return b"$0\r\n\r\n"
        return None if b"LIB-VER" in data and connections > 1 else b""

    monkeypatch.setattr("wsframe.hub.redis.subscriber.BACKOFF", Delays())
    async with false_redis(answers) as url, site() as here:
        [(websocket, _)] = await here.open()
        for stable_after in 1000, 0:
            monkeypatch.setattr("wsframe.hub.redis.subscriber.STABLE_AFTER", stable_after)
            connections = backoffs = 0
            async with Hub(url) as hub:
                subscribing = asyncio.create_task(hub.subscribe(websocket, "news"))
                await asyncio.sleep(0)
                await hub.unsubscribe(websocket)  # so nothing is asked for, and nothing answered
                await subscribing
                while connections < 10:
                    await asyncio.sleep(0)
            assert (backoffs == 1) == (stable_after == 1000)
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            caplog.clear()


@needs_redis
@asynchronous
async def test_redis_cuts_the_connections(caplog):
    with redis_server() as redis, redis.client() as admin:
        async with site() as here, Hub(redis.url) as hub:
            [(websocket, client)] = await here.open()
            await hub.subscribe(websocket, "news")
            await hub.publish("news", "before")
            for connection in admin.client_list():
                if int(connection["id"]) != admin.client_id():
                    admin.client_kill_filter(_id=connection["id"])
            await settled(lambda: "is away" in caplog.text)
            await hub.subscribe(websocket, "sport")
            with contextlib.suppress(ConnectionError):  # it may have been written just before
                await hub.publish("nobody", "listens")
            await hub.publish("news", "killed")
            assert await received(client, "before", "killed")
            caplog.clear()
            # One message is more than may wait for a process.
            admin.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
            admin.publish("news", bytes(MIB))
            await settled(lambda: "is away" in caplog.text)
            await hub.subscribe(websocket, "weather")
            await hub.publish("news", "overrun")
            assert await received(client, "overrun")
            caplog.clear()


@needs_redis_py
@asynchronous
async def test_a_subscription_begins_with_the_last_reply():
    """The last subscriber unsubscribes, and another one subscribes, before Redis has answered."""
    heard = b""
    connection = None

    async def be_redis(reader, writer):
        nonlocal heard, connection
        while data := await reader.read(65536):
            heard += data
            writer.write(b"+OK\r\n" * data.count(b"SETINFO") + b"$0\r\n\r\n" * data.count(b"\r\nINFO\r\n"))
            if b"SUBSCRIBE" in data:
                connection = writer
        writer.close()

    def push(kind: bytes, last: bytes) -> None:
        connection.write(b"*3\r\n$%d\r\n%b\r\n$4\r\nnews\r\n%b\r\n" % (len(kind), kind, last))

    async def answer(number: int, kind: bytes, last: bytes) -> None:
        while heard.count(b"SUBSCRIBE") != number:
            await asyncio.sleep(0)
        push(kind, last)

    server = await asyncio.start_server(be_redis, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, site() as here, Hub(url) as hub:
        (one, _), (two, client) = await here.open(2)
        await asyncio.gather(hub.subscribe(one, "news"), answer(1, b"subscribe", b":1"))
        await hub.unsubscribe(one)
        subscribing = asyncio.create_task(hub.subscribe(two, "news"))
        await answer(2, b"message", b"$5\r\nearly")
        push(b"unsubscribe", b":0")
        await answer(3, b"subscribe", b":1")
        push(b"message", b"$4\r\nlate")
        assert await received(client, "late")
        await subscribing
        # What is asked for is not asked for again.
        await hub.unsubscribe(two)
        subscribing_too = asyncio.create_task(hub.subscribe(one, "news"))
        await answer(4, b"unsubscribe", b":0")
        while heard.count(b"SUBSCRIBE") != 5:
            await asyncio.sleep(0)
        await hub.unsubscribe(one)
        await subscribing_too
        subscribing = asyncio.create_task(hub.subscribe(two, "news"))
        await answer(5, b"subscribe", b":1")
        await subscribing
        push(b"message", b"$4\r\nlast")
        assert await received(client, "last")
        assert heard.count(b"SUBSCRIBE") == 5


@asynchronous
async def test_a_subscribe_that_is_cancelled_when_redis_confirms_is_none(redis):
    async with site() as here, Hub(redis.url) as hub:
        [(websocket, _)] = await here.open()
        subscribing = asyncio.create_task(hub.subscribe(websocket, "news"))
        await asyncio.sleep(0)
        subscribing.cancel()
        hub._topics.confirm(b"news")
        await asyncio.wait([subscribing])
        assert subscribing.cancelled()
        assert (hub._topics.names_of(websocket), websocket._close_callbacks) == (set(), ())
    await settled(lambda: subscriptions(redis.url) == ([], 0))


@needs_redis
@asynchronous
async def test_it_closes_while_redis_is_away(caplog):
    with redis_server() as redis:
        async with site() as here, Hub(redis.url) as hub:
            [(websocket, _)] = await here.open()
            await hub.subscribe(websocket, "news")
            redis.kill()
            subscribing = asyncio.create_task(hub.subscribe(websocket, "sport"))
            while not caplog.records:
                await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="the hub was closed"):
            await subscribing
        another = Hub(redis.url)
        with pytest.raises(ConnectionError, match=f"cannot connect to Redis at 127.0.0.1:{redis.port}: "):
            await another.__aenter__()
        redis.restart()
        async with another:
            await another.publish("news", "back")
        caplog.clear()


@needs_redis
@asynchronous
async def test_redis_refuses(caplog):
    with redis_server() as redis:
        with redis.client() as admin:
            admin.execute_command(*["ACL", "SETUSER", "ann", "on", ">pw", "~*", "&news*", "+@all", "-info"])
            admin.execute_command(*["ACL", "SETUSER", "default", "on", ">secret"])
        port = redis.port
        for wrong in f"redis://127.0.0.1:{port}", f"redis://:wrong@127.0.0.1:{port}":
            with pytest.raises(
                ConnectionError, match=f"cannot connect to Redis at 127.0.0.1:{port}"
            ) as caught:
                await Hub(wrong).__aenter__()
            assert "wrong@" not in str(caught.value)
        async with site() as here, Hub(f"redis://ann:pw@127.0.0.1:{port}/1") as hub:
            [(websocket, client)] = await here.open()
            assert "is taken for no cluster" in caplog.text
            caplog.clear()
            with pytest.raises(PermissionError, match="Redis refuses it: "):
                await hub.subscribe(websocket, "news", "secret", Pattern("*"))
            assert hub._topics.names_of(websocket) == set()
            assert not caplog.records  # the caller knows
            with pytest.raises(PermissionError, match=r"^not published: Redis refuses it: "):
                await hub.publish("secret", "hello")
            await hub.subscribe(websocket, "news")
            await hub.publish("news", "hello")
            assert await received(client, "hello")


@needs_redis
@asynchronous
async def test_who_comes_when_another_one_was_just_refused_is_told_too():
    with redis_server() as redis:
        with redis.client() as admin:
            admin.execute_command(*["ACL", "SETUSER", "ann", "on", ">pw", "~*", "&news", "+@all"])
        url = f"redis://ann:pw@127.0.0.1:{redis.port}?health_check_interval=1000"
        async with site() as here, Hub(url) as hub:
            (one, _), (two, _) = await here.open(2)
            first = asyncio.create_task(hub.subscribe(one, "secret"))
            await asyncio.sleep(0)
            [waiter] = hub._topics._topics[b"secret"].subscriptions[one].waiters

            async def second():
                while not waiter.done():
                    await asyncio.sleep(0)
                assert not first.done()
                await hub.subscribe(two, "secret")

            errors = await asyncio.wait_for(asyncio.gather(first, second(), return_exceptions=True), TIMEOUT)
            assert [type(error) for error in errors] == [PermissionError, PermissionError]
            assert hub._topics._topics == {}


@full
@needs_redis
@asynchronous
async def test_what_was_refused_when_redis_came_back_is_asked_for_again(caplog):
    caplog.set_level(logging.INFO, "wsframe.hub")
    with redis_server() as redis, redis.client() as admin:

        def set_channels(*rules: str) -> None:
            admin.execute_command("ACL", "SETUSER", "ann", *rules)

        set_channels("on", ">pw", "~*", "&*", "+@all")
        url = f"redis://ann:pw@127.0.0.1:{redis.port}?health_check_interval=1"
        async with site() as here, Hub(url) as hub:
            (one, client), (two, _) = await here.open(2)
            await hub.subscribe(one, "news", "sport")
            set_channels("resetchannels", "&sport")  # this cuts the connection
            await settled(lambda: "refuses a subscription that it had" in caplog.text)
            with pytest.raises(PermissionError):
                await asyncio.wait_for(hub.subscribe(two, "news"), TIMEOUT)
            assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
            set_channels("allchannels")
            await settled(lambda: subscriptions(redis.url) == ([b"news", b"sport"], 0))
            await asyncio.wait_for(hub.subscribe(two, "news"), TIMEOUT)
            await hub.publish("news", "hello")
            assert await received(client, "hello")
            assert caplog.records[-1].getMessage().endswith("is back; resubscribed to 2 topics")
            caplog.clear()


@full
@needs_redis
@asynchronous
async def test_what_redis_was_too_busy_to_unsubscribe_it_is_asked_again():
    from redis import ResponseError

    with redis_server(options=("--lua-time-limit", "1")) as redis, redis.client() as admin:
        async with site() as here, Hub(f"{redis.url}?health_check_interval=1") as hub:
            [(websocket, client)] = await here.open()
            await hub.subscribe(websocket, "news", "old", "older")
            with redis.client() as other:
                busy = asyncio.create_task(asyncio.to_thread(other.eval, "while true do end", 0))
                await settled(lambda: is_busy(admin))
                await hub.unsubscribe(websocket, "old", "older")
                [node] = hub._broker._nodes.values()
                subscriber = node._subscriber
                await settled(lambda: not subscriber._changing)
                admin.script_kill()
                with pytest.raises(ResponseError, match="killed"):
                    await busy
            # Redis has this one, and says nothing when it is asked for it.
            await asyncio.wait_for(hub.subscribe(websocket, "older"), TIMEOUT)
            await settled(lambda: subscriptions(redis.url) == ([b"news", b"older"], 0))
            await hub.publish("older", "hello")
            assert await received(client, "hello")


def is_busy(admin: Redis) -> bool:
    from redis import ResponseError

    try:
        admin.ping()
    except ResponseError as error:
        return str(error).startswith("BUSY") or "busy running a script" in str(error)
    return False


@needs_redis
@asynchronous
async def test_a_subscribe_that_is_given_up_undoes_no_other():
    with redis_server() as redis:
        async with site() as here, Hub(redis.url) as hub:
            (one, client), (other, _) = await here.open(2)
            await hub.subscribe(other, "lobby")
            redis.hang()
            first = asyncio.create_task(hub.subscribe(one, "lobby", "game"))
            await asyncio.sleep(0)
            await hub.subscribe(one, "lobby")
            first.cancel()
            await asyncio.wait([first])
            assert hub._topics.names_of(one) == {b"lobby"}
            # One that is of a subscription that has ended undoes none either.
            first = asyncio.create_task(hub.subscribe(one, "lobby", "game"))
            await asyncio.sleep(0)
            await hub.unsubscribe(one)
            await hub.subscribe(one, "lobby")
            first.cancel()
            await asyncio.wait([first])
            redis.proceed()
            await hub.publish("lobby", "hello")
            assert await received(client, "hello")


# Addresses


@needs_redis_py
def test_addresses_are_equal_when_they_name_the_same_server():
    from wsframe.hub.redis.address import RedisAddress

    address = RedisAddress.parse("redis://user:secret@localhost:6380?health_check_interval=3")
    same = RedisAddress.parse("rediss://elsewhere").at("localhost", 6380)
    assert address == same
    assert {address: 1}[same] == 1
    assert address != RedisAddress.parse("redis://localhost") != "localhost:6379"
    assert str(address) == "localhost:6380"
    unix = RedisAddress.parse("unix:///run/redis.sock?health_check_interval=3")
    assert str(unix) == "/run/redis.sock"
    assert str(unix.at("localhost", 6379)) == "localhost:6379"
    assert unix.at("localhost", 6379).health_check_interval == address.health_check_interval == 3


# What is refused


@needs_redis_py
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
    with pytest.raises(ValueError, match=r"this is none: .*colour") as caught:
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
async def test_a_hub_belongs_to_the_event_loop_that_opened_it(url):
    async with site() as here, Hub(url) as hub:
        [(websocket, client)] = await here.open()
        calls = [
            lambda: hub.subscribe(websocket, "news"),
            lambda: hub.unsubscribe(websocket),
            lambda: hub.publish("news", "hello"),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="the hub was opened in another event loop"):
                await asyncio.to_thread(lambda call=call: asyncio.run(call()))
        await hub.subscribe(websocket, "news")
        publish = asyncio.run_coroutine_threadsafe, hub.publish("news", "hello"), asyncio.get_running_loop()
        await asyncio.wrap_future(await asyncio.to_thread(*publish))
        assert await received(client, "hello")


@asynchronous
async def test_a_hub_is_opened_once_and_closed_for_good(redis):
    hub = Hub(redis.url)
    results = await asyncio.gather(hub.__aenter__(), hub.__aenter__(), return_exceptions=True)
    assert results[0] is hub
    assert str(results[1]) == "a hub can be opened once"
    await hub.close()
    hub = Hub(redis.url)
    opening = asyncio.create_task(hub.__aenter__())
    await asyncio.sleep(0)
    await hub.close()
    with pytest.raises(RuntimeError, match="the hub was closed"):
        await opening
    with pytest.raises(RuntimeError, match="the hub is closed"):
        await hub.publish("news", "hello")


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
        assert hub._topics._topics == {}


@asynchronous
async def test_closing_a_hub_leaves_the_connections_open(url):
    async with site() as here:
        [(websocket, client)] = await here.open()
        async with Hub(url) as hub:
            await hub.subscribe(websocket, "news", Pattern("*"))
        assert websocket._close_callbacks == ()
        await websocket.send("still here")
        assert await received(client, "still here")
    if url is not None:
        await settled(lambda: subscriptions(url) == ([], 0))


# Patterns

characters = st.sampled_from(list("abc-^]\\[*?é€\n\0"))


@needs_redis
@settings(
    max_examples=3 * settings.default.max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    glob=st.lists(characters, max_size=8).map("".join),
    topics=st.lists(st.lists(characters, max_size=5).map("".join)),
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


# Under load


@full
@needs_redis
def test_the_load_program_finds_all_well():
    command = [sys.executable, "-m", "tests.hub.load", "--quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    assert (run.returncode, run.stderr, run.stdout.splitlines()[-1]) == (0, "", "well")
