"""Who is subscribed to what, and the delivery to them. Nothing here waits or knows of Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias

from ..aio import WebSocket, broadcast
from ..prepared import Prepared
from .pattern import Pattern

__all__ = ["Broker", "Key", "Process", "Rooms"]

logger = logging.getLogger("wsframe.hub")

Key: TypeAlias = bytes | Pattern  # the octets of a topic, or a pattern


class Broker(Protocol):
    """Be where messages are published to and come from."""

    async def open(self) -> None:
        """Begin."""

    async def close(self) -> None:
        """End."""

    def check(self, key: Key) -> None:
        """Raise a ValueError if it cannot be subscribed to."""

    def want(self, key: Key) -> None:
        """See to it that its messages come; ``Rooms.confirm`` is called when they do."""

    def unwant(self, key: Key) -> None:
        """See to it that they come no more."""

    async def publish(self, topic: bytes, message: Prepared) -> None:
        """Pass a message on to all who want it."""


class Process:
    """Be the broker within one process: what is wanted comes at once."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def check(self, key: Key) -> None:
        """Do nothing."""

    def want(self, key: Key) -> None:
        """Confirm it."""
        self._rooms.confirm(key)

    def unwant(self, key: Key) -> None:
        """Do nothing."""

    async def publish(self, topic: bytes, message: Prepared) -> None:
        """Deliver it."""
        self._rooms.deliver(topic, message)


class Room:
    """Be the connections that are subscribed to a topic or a pattern, and those that will be.

    Attributes:
        members: they get what is published.
        joining: they become members, and their futures are done, when the broker confirms.
        is_confirmed: whether it has.
    """

    __slots__ = ("is_confirmed", "joining", "members")

    def __init__(self) -> None:
        self.members: set[WebSocket] = set()
        self.joining: list[tuple[WebSocket, asyncio.Future[None]]] = []
        self.is_confirmed = False


class Rooms:
    """Be the rooms of a hub.

    Args:
        max_buffered, slow, compress: as for ``broadcast``.

    Attributes:
        broker: what the messages come from.
    """

    broker: Broker

    def __init__(self, max_buffered: int, slow: Literal["drop", "close"], compress: bool | None) -> None:
        self._max_buffered = max_buffered
        self._slow = slow
        self._compress = compress
        self._rooms: dict[Key, Room] = {}
        self._patterns: dict[Pattern, Room] = {}  # those of a pattern
        # What each connection has joined or is joining, and the future that is done when it is lost.
        self._keys: dict[WebSocket, tuple[set[Key], asyncio.Future[None]]] = {}

    def keys(self, websocket: WebSocket) -> list[Key]:
        """Return what a connection is subscribed to, or will be."""
        return list(self._keys[websocket][0]) if websocket in self._keys else []

    def join(self, websocket: WebSocket, key: Key) -> asyncio.Future[None] | None:
        """Let a connection become a member: when the future is done, or now if there is none.

        A connection that is lost becomes none: there is nothing to deliver to, and ``recv`` tells why.
        """
        if websocket._is_lost:
            return None
        if websocket not in self._keys:
            lost = asyncio.get_running_loop().create_future()
            lost.add_done_callback(lambda _: self.leave(websocket, self.keys(websocket)))
            websocket._closers.append(lost)
            self._keys[websocket] = set(), lost
        self._keys[websocket][0].add(key)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = Room()
            if isinstance(key, Pattern):
                self._patterns[key] = room
            self.broker.want(key)
        if room.is_confirmed:
            room.members.add(websocket)
            return None
        joined = asyncio.get_running_loop().create_future()
        room.joining.append((websocket, joined))
        return joined

    def give_up(self, websocket: WebSocket, key: Key, joined: asyncio.Future[None]) -> None:
        """Undo a ``join``, unless the connection was a member before, or is joining once more."""
        is_member = joined.done() and not joined.cancelled() and joined.exception() is None
        room = self._rooms.get(key)
        if room is None:
            return
        room.joining = [entry for entry in room.joining if entry[1] is not joined]
        others = room.members if not is_member else set()
        if websocket not in others and all(other is not websocket for other, _ in room.joining):
            self.leave(websocket, [key])

    def leave(self, websocket: WebSocket, keys: Iterable[Key]) -> None:
        """End memberships, also those that are waited for. The last one of a room closes it."""
        for key in keys:
            if websocket not in self._keys or key not in self._keys[websocket][0]:
                continue
            joined_keys, lost = self._keys[websocket]
            joined_keys.discard(key)
            if not joined_keys:
                del self._keys[websocket]
                websocket._closers.remove(lost)
            room = self._rooms[key]
            room.members.discard(websocket)
            for entry in [entry for entry in room.joining if entry[0] is websocket]:
                room.joining.remove(entry)
                if not entry[1].done():
                    entry[1].set_result(None)
            if not (room.members or room.joining):
                del self._rooms[key]
                if isinstance(key, Pattern):
                    del self._patterns[key]
                self.broker.unwant(key)

    def clear(self, error: Exception) -> None:
        """End all memberships; those that are waited for fail."""
        for key in self._rooms:
            self.refuse(key, error)
        for websocket in list(self._keys):
            self.leave(websocket, self.keys(websocket))

    # Called by the broker

    def confirm(self, key: Key) -> None:
        """Let those in who wait: from now on the messages come."""
        room = self._rooms[key]
        room.is_confirmed = True
        for websocket, joined in room.joining:
            if not joined.done():
                room.members.add(websocket)
                joined.set_result(None)
        room.joining.clear()

    def refuse(self, key: Key, error: Exception) -> None:
        """Tell those who wait that it cannot be subscribed to."""
        for _, joined in self._rooms[key].joining:
            if not joined.done():
                joined.set_exception(error)

    def unconfirm(self, key: Key) -> None:
        """Let those who come now wait: the messages do not come, until it is confirmed again."""
        self._rooms[key].is_confirmed = False

    def deliver(self, topic: bytes, message: str | bytes | Prepared) -> int:
        """Send a message to all members of the rooms that a topic belongs to; return how many they are."""
        rooms = [room for pattern, room in self._patterns.items() if pattern.matches(topic)]
        if topic in self._rooms:
            rooms.append(self._rooms[topic])
        if not rooms:
            return 0
        members = rooms[0].members if len(rooms) == 1 else set().union(*(room.members for room in rooms))
        slow = broadcast(
            members, message, compress=self._compress, max_buffered=self._max_buffered, slow=self._slow
        )
        if slow:
            logger.debug("%d of %d clients were too slow for a message", len(slow), len(members))
        return len(members)
