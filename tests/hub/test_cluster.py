"""hub: publish and subscribe over a real Redis Cluster, whose topics move and whose nodes go away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

pytest.importorskip("redis", reason="redis-py is not installed")

from redis.crc import key_slot

from tests.support.adapters import TIMEOUT, asynchronous
from tests.support.hub_site import received, settled, site
from tests.support.redis_server import MISSING, RedisServer, needs_redis, redis_cluster
from tests.support.tiers import full
from wsframe.hub import Hub, Pattern

pytestmark = [pytest.mark.usefixtures("leaks"), full]


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    if MISSING:
        pytest.skip(MISSING)
    with redis_cluster() as nodes:
        yield nodes


def topics_of(cluster: list[RedisServer]) -> list[str]:
    """Return a topic for each node, as the node itself sees it."""
    topics = []
    for node in cluster:
        with node.client() as client:
            [(first, last)] = [
                (first, last)
                for first, last, (_, port, *_) in client.execute_command("CLUSTER", "SLOTS")
                if port == node.port
            ]
        topics.append(
            next(topic for topic in map(str, range(100)) if first <= key_slot(topic.encode()) <= last)
        )
    return topics


def shard_channels(cluster: list[RedisServer]) -> list[list[bytes]]:
    """Return what is subscribed to on each node."""
    channels = []
    for node in cluster:
        with node.client() as client:
            channels.append(client.execute_command("PUBSUB", "SHARDCHANNELS"))
    return channels


@contextmanager
def moved(cluster: list[RedisServer], topic: str) -> Iterator[None]:
    """Let a topic of the first node be on the second one."""
    slot = key_slot(topic.encode())
    with ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for node in cluster]
        source, target, _ = [client.execute_command("CLUSTER", "MYID") for client in clients]

        def move(node_id: bytes) -> None:
            for client in *clients[1:], clients[0]:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id)

        move(target)
        try:
            yield
        finally:
            move(source)


def connections(cluster: list[RedisServer]) -> int:
    """Return how many the nodes have accepted, with one of each for this."""
    total = 0
    for node in cluster:
        with node.client() as client:
            total += client.info("stats")["total_connections_received"]
    return total


@asynchronous
async def test_a_cluster_has_a_topic_on_each_node(cluster):
    topics = topics_of(cluster)
    async with site() as here, Hub(cluster[0].url) as hub, Hub(cluster[2].url) as other:
        (one, one_client), (two, two_client) = await here.open(2)
        await hub.subscribe(one, *topics)
        await other.subscribe(two, topics[1], topics[1])
        assert shard_channels(cluster) == [[topic.encode()] for topic in topics]
        numbers = [str(number) for number in range(200)]
        await asyncio.gather(*(other.publish(topics[1], number) for number in numbers))
        assert await received(one_client, *numbers)
        assert await received(two_client, *numbers)
        for topic in topics:
            await hub.publish(topic, f"on {topic}")
            assert await received(one_client, f"on {topic}")
        assert await received(two_client, f"on {topics[1]}")
        for node, topic in zip(cluster, topics, strict=True):
            with node.client() as foreign:
                assert foreign.execute_command("SPUBLISH", topic, b"\xff\x00") >= 1
            assert await received(one_client, b"\x00")
        with pytest.raises(ValueError, match="there are no patterns on a Redis Cluster"):
            await hub.subscribe(one, "news", Pattern("*"))
        assert len(hub._topics.names_of(one)) == 3
        await hub.unsubscribe(one)
        await two_client.close()
        await settled(lambda: shard_channels(cluster) == [[], [], []])


@asynchronous
async def test_a_topic_follows_its_slot_to_another_node(cluster):
    topic, *others = topics_of(cluster)
    url = cluster[0].url
    async with site() as here, Hub(url) as hub, Hub(url) as publisher, Hub(url) as stale:
        (one, one_client), (two, two_client) = await here.open(2)
        await hub.subscribe(one, topic, *others)
        await publisher.publish(topic, "before")
        assert await received(one_client, "before")
        with moved(cluster, topic):
            await settled(lambda: topic.encode() in shard_channels(cluster)[1])
            # These are told by the old node where it is now.
            await publisher.publish(topic, "after")
            await stale.subscribe(two, topic)
            await publisher.publish(topic, "again")
            assert await received(one_client, "after", "again")
            assert await received(two_client, "again")
            for other in others:
                await publisher.publish(other, other)
            assert await received(one_client, *others)
            assert topic.encode() not in shard_channels(cluster)[0]
            await hub.unsubscribe(one)
            await stale.unsubscribe(two)
            await settled(lambda: shard_channels(cluster) == [[], [], []])


@asynchronous
async def test_who_leaves_a_topic_that_has_just_moved_disturbs_nobody(cluster):
    """The node says of its own accord that it is unsubscribed, and then refuses to unsubscribe."""
    topic = topics_of(cluster)[0]
    others = [other for other in map(str, range(100, 200)) if key_slot(other.encode()) < 5400]
    async with site() as here, Hub(cluster[0].url) as hub:
        (one, _), (two, client) = await here.open(2)
        await hub.subscribe(one, topic)
        await hub.subscribe(two, others[0])
        with moved(cluster, topic):
            await hub.unsubscribe(one)
            await hub.subscribe(two, *others[1:])
            for other in others:
                await hub.publish(other, other)
            assert await received(client, *others)


@asynchronous
async def test_what_is_published_while_a_topic_moves_stays_in_order(cluster):
    topic = topics_of(cluster)[0]
    numbers = [str(number) for number in range(600)]
    async with site() as here, Hub(cluster[0].url) as hub, Hub(cluster[0].url) as publisher:
        [(websocket, client)] = await here.open()
        await hub.subscribe(websocket, topic)
        await publisher.publish(topic, "before")
        with moved(cluster, topic):
            await settled(lambda: topic.encode() in shard_channels(cluster)[1])
            before = connections(cluster)
            publishing = []
            for number in numbers:
                publishing.append(asyncio.create_task(publisher.publish(topic, number)))
                # The last ones come when the first ones are answered, and one after another.
                if int(number) > 300:
                    await asyncio.sleep(0)
            await asyncio.gather(*publishing)
            assert await received(client, "before", *numbers)
            assert connections(cluster) - before < 10
            await hub.unsubscribe(websocket)
            await settled(lambda: shard_channels(cluster) == [[], [], []])


@asynchronous
async def test_publishing_ends_when_a_hub_is_closed_while_it_looks_where_a_topic_is(cluster):
    topic = topics_of(cluster)[0]
    for stage in 0, 1, 2:  # not begun, told that it has moved, looking
        async with Hub(cluster[0].url) as hub:
            with moved(cluster, topic):
                publishing = [asyncio.create_task(hub.publish(topic, str(number))) for number in range(10)]
                await asyncio.sleep(0)
                while stage > 0 and not hub._broker._refresh_is_due.is_set():
                    await asyncio.sleep(0)
                while stage > 1 and hub._broker._refresh_is_due.is_set():
                    await asyncio.sleep(0)
                await hub.close()
        results = await asyncio.wait_for(asyncio.gather(*publishing, return_exceptions=True), TIMEOUT)
        assert all(result is None or "published" in str(result) for result in results)


@asynchronous
async def test_a_node_of_a_cluster_is_killed_and_comes_back(cluster, caplog):
    caplog.set_level(logging.INFO, "wsframe.hub")
    topics = topics_of(cluster)
    async with site() as here, Hub(cluster[0].url) as hub:
        (websocket, client), (late, late_client) = await here.open(2)
        await hub.subscribe(websocket, *topics)
        cluster[0].kill()
        try:
            with pytest.raises(ConnectionError, match="published"):
                await hub.publish(topics[0], "lost")
            for topic in topics[1:]:
                await hub.publish(topic, "others go on")
            assert await received(client, "others go on", "others go on")
            subscribing = asyncio.create_task(hub.subscribe(late, topics[0]))
            while not caplog.records:
                await asyncio.sleep(0)
            assert not subscribing.done()
        finally:
            cluster[0].restart()
        await subscribing
        await published(hub, topics[0], "back")
        assert await received(client, "back")
        assert await received(late_client, "back")
        texts = [record.getMessage() for record in caplog.records]
        assert texts[0].startswith(f"Redis at 127.0.0.1:{cluster[0].port} is away")
        assert texts[-1] == f"Redis at 127.0.0.1:{cluster[0].port} is back; resubscribed to 1 topics"
        caplog.clear()


@needs_redis
def test_a_replica_takes_over(caplog):
    async def main(cluster):
        topics = topics_of(cluster[:3])
        async with site() as here, Hub(cluster[0].url) as hub:
            [(websocket, client)] = await here.open()
            await hub.subscribe(websocket, *topics)
            await hub.publish(topics[0], "before")
            assert await received(client, "before")
            await asyncio.to_thread(cluster[0].kill)
            await published(hub, topics[0], "after")
            subscribing = [hub.subscribe(websocket, topic) for topic in topics]
            await asyncio.gather(*subscribing)
            for topic in topics:
                await hub.publish(topic, topic)
            while (message := await client.recv(TIMEOUT)) != topics[0]:
                assert message == "after"
            assert await received(client, *topics[1:])
            dead = f"127.0.0.1:{cluster[0].port}"
            await settled(lambda: dead not in map(str, hub._broker._nodes))

    with redis_cluster(has_replica=True) as cluster:
        asyncio.run(main(cluster))
        cluster[0].restart()
    assert "is away" in caplog.text
    caplog.clear()


async def published(hub: Hub, topic: str, message: str) -> None:
    """Publish as soon as it can be: a node that was restarted takes a while to trust itself."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                return await hub.publish(topic, message)
            except ConnectionError:
                await asyncio.sleep(0.01)
