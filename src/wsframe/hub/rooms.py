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


class Membership:
    """Be what a connection has of a room.

    Attributes:
        calls: the calls of ``subscribe`` that are under way; each is done when the broker has confirmed.
        is_kept: whether one has returned. Until then it lasts as long as there is a call.
    """

    __slots__ = ("calls", "is_kept")

    def __init__(self) -> None:
        self.calls: set[asyncio.Future[None]] = set()
        self.is_kept = False


class Room:
    """Be the connections that are subscribed to a topic or a pattern, and those that will be.

    Attributes:
        memberships: of both.
        members: those who get what is published.
        is_confirmed: whether the broker has confirmed it.
    """

    __slots__ = ("is_confirmed", "members", "memberships")

    def __init__(self) -> None:
        self.memberships: dict[WebSocket, Membership] = {}
        self.members: set[WebSocket] = set()
        self.is_confirmed = False


class Rooms:
    """Be the rooms of a hub.

    Args:
        max_buffered, slow: as for ``broadcast``.

    Attributes:
        broker: what the messages come from.
    """

    broker: Broker

    def __init__(self, max_buffered: int, slow: Literal["drop", "close"]) -> None:
        self._max_buffered = max_buffered
        self._slow = slow
        self._rooms: dict[Key, Room] = {}
        self._patterns: dict[Pattern, Room] = {}  # those of a pattern
        # What each connection has joined or is joining, and the future that is done when it is lost.
        self._keys: dict[WebSocket, tuple[set[Key], asyncio.Future[None]]] = {}

    def keys(self, websocket: WebSocket) -> list[Key]:
        """Return what a connection is subscribed to, or will be."""
        return list(self._keys[websocket][0]) if websocket in self._keys else []

    def join(self, websocket: WebSocket, key: Key) -> asyncio.Future[None]:
        """Let a connection become a member; return the call that is done when it is.

        ``keep`` or ``give_up`` must follow. A connection that is lost becomes none: there is nothing to
        deliver to, and ``recv`` tells why.
        """
        call = asyncio.get_running_loop().create_future()
        if websocket._is_lost:
            call.set_result(None)
            return call
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
        room.memberships.setdefault(websocket, Membership()).calls.add(call)
        if room.is_confirmed:
            room.members.add(websocket)
            call.set_result(None)
        else:
            self.broker.want(key)  # also if it was before: it may have been refused since
        return call

    def keep(self, websocket: WebSocket, key: Key, call: asyncio.Future[None]) -> None:
        """Let a membership last, whatever becomes of other calls."""
        membership = self._membership(websocket, key, call)
        if membership is not None:
            membership.calls.remove(call)
            membership.is_kept = True

    def give_up(self, websocket: WebSocket, key: Key, call: asyncio.Future[None]) -> None:
        """End a membership if it depends on this call alone."""
        membership = self._membership(websocket, key, call)
        if membership is not None:
            membership.calls.remove(call)
            if not (membership.is_kept or membership.calls):
                self.leave(websocket, [key])

    def _membership(self, websocket: WebSocket, key: Key, call: asyncio.Future[None]) -> Membership | None:
        """Return the membership that a call is for, if it has not ended."""
        room = self._rooms.get(key)
        membership = None if room is None else room.memberships.get(websocket)
        return membership if membership is not None and call in membership.calls else None

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
            for call in room.memberships.pop(websocket).calls:
                if not call.done():
                    call.set_result(None)
            if not room.memberships:
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
        if room.is_confirmed:
            return
        room.is_confirmed = True
        for websocket, membership in room.memberships.items():
            for call in membership.calls:
                if not call.done():
                    room.members.add(websocket)
                    call.set_result(None)

    def refuse(self, key: Key, error: Exception) -> bool:
        """Tell those who wait that it cannot be subscribed to; return whether there are members."""
        room = self._rooms[key]
        for membership in room.memberships.values():
            for call in membership.calls:
                if not call.done():
                    call.set_exception(error)
                    call.exception()  # the caller may wait for another one, that is refused as well
        return bool(room.members)

    def unconfirm(self, key: Key) -> None:
        """Let those who come now wait: the messages do not come, until it is confirmed again."""
        self._rooms[key].is_confirmed = False

    def deliver(self, topic: bytes, message: Prepared) -> int:
        """Send a message to all members of the rooms that a topic belongs to; return how many they are."""
        rooms = [room for pattern, room in self._patterns.items() if pattern.matches(topic)]
        if topic in self._rooms:
            rooms.append(self._rooms[topic])
        if not rooms:
            return 0
        members = rooms[0].members if len(rooms) == 1 else set().union(*(room.members for room in rooms))
        slow = broadcast(members, message, max_buffered=self._max_buffered, slow=self._slow)
        if slow:
            logger.debug("%d of %d clients were too slow for a message", len(slow), len(members))
        return len(members)
