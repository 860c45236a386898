"""The broker over Redis: one server, or the nodes of a Redis Cluster, where each topic has its home.

A topic's slot says which node that is. A node that it has moved from says so, and then all are looked up
anew.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from typing import Any

from redis.asyncio.connection import Connection, UnixDomainSocketConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from ..prepared import Prepared
from .links import BACKOFF, Lost, Node, Server, is_moved, refusal
from .pattern import Pattern
from .payload import encode
from .rooms import Key, Rooms

__all__ = ["Redis"]

logger = logging.getLogger("wsframe.hub")

PATIENCE = 1.0  # seconds


class Redis:
    """Be a broker: a Redis, or a Redis Cluster.

    Args:
        url: its address.
        rooms: what is delivered to.
        compress: as for ``prepare``, what is received.
    """

    def __init__(self, url: str, rooms: Rooms, compress: bool | None) -> None:
        if not isinstance(url, str):
            raise TypeError(f"a URL is a str, not {type(url).__name__}")
        try:
            options: dict[str, Any] = dict(parse_url(url))
            for of_a_pool in ("max_connections", "timeout"):
                options.pop(of_a_pool, None)
            kind = options.pop("connection_class", Connection)
            if issubclass(kind, UnixDomainSocketConnection) and not options.get("path"):
                raise ValueError("unix:// needs a path")
            self._server = Server(kind, options)
            self._server.connection()
        except (RedisError, TypeError, ValueError) as error:
            # The URL may hold a password, and is not shown.
            raise ValueError(
                f"a hub takes the URL of a Redis, redis://, rediss:// or unix://, and this is none: {error}"
            ) from error
        self._rooms = rooms
        self._compress = compress
        self._is_cluster = False
        self._is_closed = False
        self._nodes: dict[str, Node] = {}
        self._homes: dict[Key, Node] = {}  # where a key is subscribed to
        # Of a cluster: where each range of slots begins, and its node
        self._slots: list[tuple[int, Node]] = []
        self._look_again = asyncio.Event()
        self._told_by = self._server  # the node that is known to answer
        self._looked = asyncio.Event()  # wakes those whose messages are to go to another node
        self._turn = asyncio.Lock()  # to publish what is new, or to change the slots
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Find out whether it is there, and whether it is a cluster.

        Raises:
            ConnectionError: it is not.
        """
        try:
            try:
                about = await self._server.ask("INFO", "cluster")
            except NoPermissionError as error:
                logger.warning(
                    "Redis at %s is taken for no cluster, as it may not be asked: %s", self._server, error
                )
                about = b""
            self._is_cluster = isinstance(about, bytes) and b"cluster_enabled:1" in about
            if self._is_cluster:
                await self._move(await self._look())
                self._keeper = asyncio.create_task(self._keep())
        except (Lost, ResponseError) as error:
            raise ConnectionError(f"cannot connect to Redis at {self._server}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._looked.set()
        for node in self._nodes.values():
            await node.close()

    def _node_at(self, server: Server) -> Node:
        node = self._nodes.get(str(server))
        if node is None:
            look_again = self.look_again if self._is_cluster else None
            node = self._nodes[str(server)] = Node(server, self._rooms, self._compress, look_again)
        return node

    def _node_of(self, key: Key) -> Node:
        if not self._is_cluster:
            return self._node_at(self._server)
        assert isinstance(key, bytes)
        return self._slots[bisect_right(self._slots, key_slot(key), key=lambda slot: slot[0]) - 1][1]

    def check(self, key: Key) -> None:
        """Raise a ValueError if it is a pattern, and this a cluster."""
        if self._is_cluster and isinstance(key, Pattern):
            raise ValueError(
                "there are no patterns on a Redis Cluster, whose shards each know some topics only"
            )

    def want(self, key: Key) -> None:
        """Subscribe, if it is not."""
        node = self._homes[key] = self._node_of(key)
        node.want(key)

    def unwant(self, key: Key) -> None:
        """Unsubscribe."""
        self._homes.pop(key).unwant(key)

    async def publish(self, topic: bytes, message: Prepared) -> None:
        """Publish, and wait until Redis has it."""
        async with self._turn:
            published = self._publish(topic, message)
        for is_last in (False, False, False, True):
            try:
                await published
            except ResponseError as error:
                if is_last or not (self._is_cluster and is_moved(error)):
                    raise refusal(error, "not published: ") from error
            except ConnectionError:
                self.look_again()
                raise
            else:
                return
            # It was not published, and another node will do it, or this one later.
            self._told_by = self._node_of(topic).server
            self.look_again()
            await self._looked.wait()
            published = self._publish(topic, message)

    def _publish(self, topic: bytes, message: Prepared) -> asyncio.Future[None]:
        if self._is_closed:
            raise ConnectionError("not published: the hub was closed")
        command = "SPUBLISH" if self._is_cluster else "PUBLISH"
        return self._node_of(topic).publish(command, topic, encode(message))

    # The slots of a cluster

    def look_again(self) -> None:
        """Find out anew which node has which slots, soon."""
        self._look_again.set()

    async def _keep(self) -> None:
        """Follow the slots to where they are."""
        while True:
            await self._look_again.wait()
            delays = iter(BACKOFF)
            while self._look_again.is_set():
                self._look_again.clear()
                try:
                    slots = await self._look()
                except Exception as error:  # also if it says nonsense: somebody may wait for this to go on
                    logger.debug("no node of the Redis Cluster says where its slots are: %s", error)
                    slots = self._slots
                    self._look_again.set()
                await self._move(slots)
                await asyncio.sleep(next(delays))

    async def _look(self) -> list[tuple[int, Node]]:
        """Ask the first of the nodes that answers which one has which slots.

        Raises:
            Lost: none is there.
            ResponseError: it refuses to say, or there are no slots.
        """
        others = (node.server for node in self._nodes.values())
        servers = list(dict.fromkeys([self._told_by, self._server, *others]))
        for server in servers:
            try:
                ranges = await server.ask("CLUSTER", "SLOTS")
                break
            except (Lost, ResponseError):
                if server is servers[-1]:
                    raise
        self._told_by = server
        # A node that does not know its own name sends none.
        slots = [
            (first, self._node_at(server.at(host.decode(), port) if host else server))
            for first, _, (host, port, *_), *_ in ranges
        ]
        if not slots:
            raise ResponseError("no node of the Redis Cluster has slots")
        return sorted(slots, key=lambda slot: slot[0])

    async def _move(self, slots: list[tuple[int, Node]]) -> None:
        """Subscribe and publish by these slots from now on.

        What was published by the old ones, and has to go to another node, goes before anything new: so the
        messages of a topic stay in order. A node that hangs is not waited for.
        """
        async with self._turn:
            in_flight = [published for node in self._nodes.values() for published in node.in_flight()]
            if in_flight:
                await asyncio.wait(in_flight, timeout=PATIENCE)
            self._slots = slots
            for key, home in list(self._homes.items()):
                if self._node_of(key) is not home:
                    home.unwant(key)
                    self._rooms.unconfirm(key)
                self.want(key)
            self._looked.set()
            self._looked.clear()
            await asyncio.sleep(0)  # they have their turn, in the order in which they began to wait
        current = {node for _, node in slots}
        for name, node in list(self._nodes.items()):
            if node not in current:
                del self._nodes[name]
                await node.close()
