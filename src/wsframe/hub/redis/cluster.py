"""The broker over Redis: one server, or the nodes of a Redis Cluster.

On a cluster each topic belongs to a slot, and each slot to a node. When a node does not have a slot any more,
it says so. Then the slots of all nodes are fetched anew, and subscriptions and messages go to the new nodes.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from typing import NoReturn

from redis.crc import key_slot
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from ...prepared import Prepared
from ..broker import Receiver, TopicName
from ..pattern import Pattern
from .address import BACKOFF, ConnectionLost, RedisAddress
from .link import is_slot_error, refusal
from .payload import encode
from .publisher import Publisher
from .subscriber import Subscriber

__all__ = ["RedisBroker"]

logger = logging.getLogger("wsframe.hub")

IN_FLIGHT_TIMEOUT = 1.0  # seconds


class Node:
    """The Publisher and the Subscriber of one server. Each connects when it is used for the first time.

    Args:
        address: the server.
        subscriber: its Subscriber.

    Attributes:
        address: the server.
    """

    def __init__(self, address: RedisAddress, subscriber: Subscriber) -> None:
        self.address = address
        self._publisher = Publisher(address)
        self._subscriber = subscriber
        self._tasks: dict[Publisher | Subscriber, asyncio.Task[None]] = {}

    def _start(self, part: Publisher | Subscriber) -> None:
        """Run the Publisher or the Subscriber, if it is not running."""
        if part not in self._tasks or self._tasks[part].done():
            self._tasks[part] = asyncio.create_task(part.run())

    def publish(self, *words: str | bytes) -> asyncio.Future[None]:
        """Send a command. Return a future that is done when Redis has answered."""
        self._start(self._publisher)
        return self._publisher.publish(*words)

    def in_flight(self) -> list[asyncio.Future[None]]:
        """Return the futures of the commands that were published and have no answer."""
        return self._publisher.in_flight()

    def subscribe(self, name: TopicName) -> None:
        """Subscribe to a topic or a pattern."""
        self._start(self._subscriber)
        self._subscriber.subscribe(name)

    def unsubscribe(self, name: TopicName) -> None:
        """Unsubscribe from a topic or a pattern."""
        self._subscriber.unsubscribe(name)

    async def close(self) -> None:
        """Close both connections."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._publisher.close()


class RedisBroker:
    """The broker over a Redis or a Redis Cluster.

    Args:
        url: the address.
        receiver: the topics of the hub.
        compress: as for ``prepare``, for the messages that are received.

    Raises:
        TypeError: the URL is not a str.
        ValueError: it is not a URL of a Redis.
    """

    def __init__(self, url: str, receiver: Receiver, compress: bool | None) -> None:
        if not isinstance(url, str):
            raise TypeError(f"a URL is a str, not {type(url).__name__}")
        try:
            self._address = RedisAddress.parse(url)
        except (RedisError, TypeError, ValueError) as error:
            # The URL may hold a password, and is not shown.
            raise ValueError(
                f"a hub takes the URL of a Redis, redis://, rediss:// or unix://, and this is none: {error}"
            ) from error
        self._receiver = receiver
        self._compress = compress
        self._is_cluster = False
        self._is_closed = False
        self._nodes: dict[RedisAddress, Node] = {}
        self._subscribed_on: dict[TopicName, Node] = {}  # the node that has the subscription to a name
        # Of a cluster: the first slot of each range, in order, and the node that has the range
        self._slots: list[tuple[int, Node]] = []
        self._slots_source = self._address  # the node that is asked first for the slots
        self._refresh_is_due = asyncio.Event()
        self._slots_refreshed = asyncio.Event()  # set for a moment: it wakes those that publish again
        self._refresher: asyncio.Task[None] | None = None
        self._publish_lock = asyncio.Lock()  # held to publish something new, and to change the slots

    async def open(self) -> None:
        """Find out whether Redis is there, and whether it is a cluster.

        Raises:
            ConnectionError: it cannot be reached.
        """
        try:
            try:
                info = await self._address.execute("INFO", "cluster")
            except NoPermissionError as error:
                logger.warning(
                    "Redis at %s is taken for no cluster, as it may not be asked: %s", self._address, error
                )
                info = b""
            self._is_cluster = isinstance(info, bytes) and b"cluster_enabled:1" in info
            if self._is_cluster:
                await self._use_slots(await self._fetch_slots())
                self._refresher = asyncio.create_task(self._keep_slots_current())
        except (ConnectionLost, ResponseError) as error:
            raise ConnectionError(f"cannot connect to Redis at {self._address}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.wait([self._refresher])
            self._refresher = None
        self._slots_refreshed.set()
        for node in self._nodes.values():
            await node.close()

    def _node_at(self, address: RedisAddress) -> Node:
        node = self._nodes.get(address)
        if node is None:
            refresh_slots = self.refresh_slots if self._is_cluster else None
            subscriber = Subscriber(address, self._receiver, self._compress, refresh_slots)
            node = self._nodes[address] = Node(address, subscriber)
        return node

    def _node_of(self, name: TopicName) -> Node:
        if not self._is_cluster:
            return self._node_at(self._address)
        assert isinstance(name, bytes)
        return self._slots[bisect_right(self._slots, key_slot(name), key=lambda slot: slot[0]) - 1][1]

    def check(self, name: TopicName) -> None:
        """Check that this is not a pattern on a cluster.

        Raises:
            ValueError: it is.
        """
        if self._is_cluster and isinstance(name, Pattern):
            raise ValueError(
                "there are no patterns on a Redis Cluster, whose shards each know some topics only"
            )

    def subscribe(self, name: TopicName) -> None:
        """Subscribe to a topic or a pattern, on its node."""
        node = self._subscribed_on[name] = self._node_of(name)
        node.subscribe(name)

    def unsubscribe(self, name: TopicName) -> None:
        """Unsubscribe from a topic or a pattern."""
        self._subscribed_on.pop(name).unsubscribe(name)

    async def publish(self, name: bytes, message: Prepared) -> None:
        """Publish a message, and wait until Redis has it.

        Raises:
            ConnectionError: it was not published, or that is not known.
            PermissionError: the rules of Redis' ACL forbid it.
        """
        async with self._publish_lock:
            published = self._publish(name, message)
        for attempts_left in (3, 2, 1, 0):
            try:
                await published
            except ResponseError as error:
                if not (attempts_left and self._is_cluster and is_slot_error(error)):
                    raise refusal(error, "not published: ") from error
            except ConnectionError:
                self.refresh_slots()
                raise
            else:
                return
            # It was not published. Another node will take it, or this one later.
            self._slots_source = self._node_of(name).address
            self.refresh_slots()
            await self._slots_refreshed.wait()
            published = self._publish(name, message)

    def _publish(self, name: bytes, message: Prepared) -> asyncio.Future[None]:
        if self._is_closed:
            raise ConnectionError("not published: the hub was closed")
        command = "SPUBLISH" if self._is_cluster else "PUBLISH"
        return self._node_of(name).publish(command, name, encode(message))

    # The slots of a cluster

    def refresh_slots(self) -> None:
        """Fetch the slots anew, soon."""
        self._refresh_is_due.set()

    async def _keep_slots_current(self) -> NoReturn:
        while True:
            await self._refresh_is_due.wait()
            delays = iter(BACKOFF)
            while self._refresh_is_due.is_set():
                self._refresh_is_due.clear()
                try:
                    slots = await self._fetch_slots()
                except Exception as error:  # also a reply that makes no sense: publish() may wait for this
                    logger.debug("no node of the Redis Cluster says where its slots are: %s", error)
                    slots = self._slots
                    self._refresh_is_due.set()
                await self._use_slots(slots)
                await asyncio.sleep(next(delays))

    async def _fetch_slots(self) -> list[tuple[int, Node]]:
        """Ask the nodes, one after another, which node has which slots, until one answers.

        Raises:
            ConnectionLost: none can be reached.
            ResponseError: the last one refuses to say, or there are no slots.
        """
        addresses = list(dict.fromkeys([self._slots_source, self._address, *self._nodes]))
        for address in addresses:
            try:
                ranges = await address.execute("CLUSTER", "SLOTS")
                break
            except (ConnectionLost, ResponseError):
                if address is addresses[-1]:
                    raise
        self._slots_source = address
        # A node that does not know its own host sends none.
        slots = [
            (first, self._node_at(address.at(host.decode(), port) if host else address))
            for first, _, (host, port, *_), *_ in ranges
        ]
        if not slots:
            raise ResponseError("no node of the Redis Cluster has slots")
        return sorted(slots, key=lambda slot: slot[0])

    async def _use_slots(self, slots: list[tuple[int, Node]]) -> None:
        """Subscribe and publish by these slots from now on.

        A message that an old node refused, and that goes to another one, goes before all new messages. So the
        messages of a topic stay in order. A node that hangs is not waited for.
        """
        async with self._publish_lock:
            in_flight = [published for node in self._nodes.values() for published in node.in_flight()]
            if in_flight:
                await asyncio.wait(in_flight, timeout=IN_FLIGHT_TIMEOUT)
            self._slots = slots
            for name, node in list(self._subscribed_on.items()):
                if self._node_of(name) is not node:
                    node.unsubscribe(name)
                    self._receiver.unconfirm(name)
                self.subscribe(name)
            self._slots_refreshed.set()
            self._slots_refreshed.clear()
            await asyncio.sleep(0)  # let them publish, in the order in which they began to wait
        current = {node for _, node in slots}
        for address, node in list(self._nodes.items()):
            if node not in current:
                del self._nodes[address]
                await node.close()
