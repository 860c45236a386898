"""The Subscriber: it keeps what Redis sends in line with what the hub subscribes to.

    desired      what the hub subscribes to
    subscribed   what Redis sends messages for, as of what has been read
    changing     what a SUBSCRIBE or an UNSUBSCRIBE without a reply is about

``_reconcile`` sends at most one command at a time for a name, and is called again with its reply. When the
connection is lost, another one is made, and all that is desired is subscribed to again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, NoReturn, TypeAlias

from redis.exceptions import ResponseError

from ..broker import Receiver, TopicName
from ..pattern import Pattern
from .address import BACKOFF, ConnectionLost, RedisAddress
from .link import Command, Link, is_slot_error, refusal
from .payload import decode

__all__ = ["Subscriber"]

logger = logging.getLogger("wsframe.hub")

Verb: TypeAlias = Literal["SUBSCRIBE", "UNSUBSCRIBE"]

STABLE_AFTER = 5.0  # seconds; the loss of a connection that lasted as long is a new problem


class Change(Command):
    """SUBSCRIBE or UNSUBSCRIBE, or their forms for patterns and for sharded channels.

    Args:
        verb: the command in its plain form.
        name: the topic or the pattern.
        is_sharded: whether the server is a node of a cluster.

    Attributes:
        verb: the command in its plain form.
        name: the topic or the pattern.
    """

    __slots__ = ("name", "verb")

    def __init__(self, verb: Verb, name: TopicName, is_sharded: bool) -> None:
        if isinstance(name, Pattern):
            super().__init__("P" + verb, name.encoded)
        else:
            super().__init__("S" + verb if is_sharded else verb, name)
        self.verb = verb
        self.name = name


class Fence(Command):
    """A PING after SUNSUBSCRIBE, whose reply says that no other reply to SUNSUBSCRIBE comes.

    When a slot moves, the node unsubscribes by itself. Its message looks like the reply to a SUNSUBSCRIBE
    that is on its way, which the node then refuses with MOVED.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("PING")


class Subscriber:
    """The connection to a server that subscribes.

    Args:
        address: the server.
        receiver: the topics that subscriptions are confirmed to, and messages delivered.
        compress: as for ``prepare``, for the messages that are received.
        refresh_slots: called when a topic may have moved to another node. None: the server is not a node of a
            cluster.
    """

    def __init__(
        self,
        address: RedisAddress,
        receiver: Receiver,
        compress: bool | None,
        refresh_slots: Callable[[], None] | None,
    ) -> None:
        self._link = Link(address, self._receive)
        self._receiver = receiver
        self._compress = compress
        self._refresh_slots = refresh_slots
        self._is_connected = False
        self._desired: dict[TopicName, None] = {}  # an ordered set
        self._subscribed: set[TopicName] = set()
        self._subscribed_patterns: set[Pattern] = set()  # the part of _subscribed that is patterns
        self._changing: set[TopicName] = set()
        self._problem: str | None = None  # the problem that was logged last, until it is over

    def subscribe(self, name: TopicName) -> None:
        """Subscribe to a topic or a pattern. Confirm it at once if Redis sends its messages already."""
        self._desired[name] = None
        self._reconcile(name)

    def unsubscribe(self, name: TopicName) -> None:
        """Unsubscribe from a topic or a pattern."""
        del self._desired[name]
        self._reconcile(name)

    def _reconcile(self, name: TopicName) -> None:
        if not self._is_connected or name in self._changing:
            return
        if name not in self._desired:
            if name in self._subscribed:
                self._send("UNSUBSCRIBE", name)
        elif name in self._subscribed:
            self._receiver.confirm(name)
        else:
            self._send("SUBSCRIBE", name)

    def _send(self, verb: Verb, name: TopicName) -> None:
        is_sharded = self._refresh_slots is not None
        self._changing.add(name)
        self._link.send(Change(verb, name, is_sharded))
        if is_sharded and verb == "UNSUBSCRIBE":
            self._link.send(Fence())

    async def run(self) -> NoReturn:
        """Stay subscribed until this is cancelled."""
        loop = asyncio.get_running_loop()
        delays = iter(BACKOFF)
        while True:
            start = loop.time()
            try:
                connection = await self._link.address.connect()
                self._is_connected = True
                for name in self._desired:
                    self._reconcile(name)
                await self._link.run(connection)
            except ConnectionLost as lost:
                self._log_problem(
                    logging.WARNING, "is away, and what is published meanwhile will be missed", str(lost)
                )
            finally:
                self._is_connected = False
                for name in self._desired:
                    self._receiver.unconfirm(name)
                for names in (self._subscribed, self._subscribed_patterns, self._changing):
                    names.clear()
                self._link.queued.clear()
                self._link.unanswered.clear()
            if self._refresh_slots is not None:
                self._refresh_slots()
            if loop.time() - start >= STABLE_AFTER:
                delays = iter(BACKOFF)
            await asyncio.sleep(next(delays))

    def _log_problem(self, level: int, text: str, problem: str) -> None:
        """Log a problem, unless it is the one that was logged last."""
        if problem != self._problem:
            logger.log(level, "Redis at %s " + text + ": %s", self._link.address, problem)
        self._problem = problem

    def _log_recovery(self) -> None:
        """Log that the problem is over, if it is."""
        if self._problem is not None and not self._changing and self._desired.keys() <= self._subscribed:
            self._problem = None
            logger.info(
                "Redis at %s is back; resubscribed to %d topics", self._link.address, len(self._subscribed)
            )

    # Messages: each method returns to how many connections a message was delivered

    def _receive(self, reply: object) -> int:
        if type(reply) is list:
            kind = reply[0]
            if kind == b"message" or kind == b"smessage":
                return self._deliver(reply[1], reply[2])
            if kind == b"pmessage":
                return self._deliver_by_pattern(*reply[1:])
            if kind == b"sunsubscribe" and not self._is_unsubscribing(reply[1]):
                self._slot_moved(reply[1])
                return 0
        elif isinstance(self._link.oldest, Fence) and is_slot_error(reply):
            return 0  # the late reply to SUNSUBSCRIBE
        self._answered(self._link.answered(reply), reply)
        return 0

    def _deliver_by_pattern(self, pattern: bytes, topic: bytes, payload: bytes) -> int:
        """Deliver a message only once, although it comes once for each subscription that it matches.

        If there is a subscription to the topic itself, its message is delivered to all. Otherwise that of the
        least pattern is: any would do, as long as the same one is chosen for all copies.
        """
        if topic in self._subscribed:
            return 0
        patterns = [other.encoded for other in self._subscribed_patterns if other.matches(topic)]
        if pattern != min(patterns, default=pattern):
            return 0
        return self._deliver(topic, payload)

    def _deliver(self, topic: bytes, payload: bytes) -> int:
        message = decode(payload, self._compress)
        try:
            return self._receiver.deliver(topic, message)
        except Exception:
            # A message that breaks something must not end all subscriptions.
            logger.exception("a message was not delivered to all")
            return 0

    # Replies

    def _answered(self, command: Command, reply: object) -> None:
        if isinstance(command, Fence):
            return
        if isinstance(command, Change):
            self._changing.discard(command.name)
            if isinstance(reply, ResponseError):
                self._refused(command.name, reply)
            else:
                self._changed(command)
        elif not isinstance(reply, ResponseError):  # a Pong: Redis may grant now what it has refused
            for name in {*self._desired, *self._subscribed}:
                self._reconcile(name)
        self._log_recovery()

    def _changed(self, change: Change) -> None:
        name, is_subscribed = change.name, change.verb == "SUBSCRIBE"
        (self._subscribed.add if is_subscribed else self._subscribed.discard)(name)
        if isinstance(name, Pattern):
            (self._subscribed_patterns.add if is_subscribed else self._subscribed_patterns.discard)(name)
        self._reconcile(name)

    def _refused(self, name: TopicName, error: ResponseError) -> None:
        if self._refresh_slots is not None and is_slot_error(error):
            self._slot_moved(name)
        elif name in self._desired and self._receiver.refuse(name, refusal(error)):
            self._log_problem(
                logging.ERROR, "refuses a subscription that it had, and is asked again", str(error)
            )

    def _is_unsubscribing(self, topic: bytes) -> bool:
        """Return whether the next reply is that of an UNSUBSCRIBE for a topic."""
        oldest = self._link.oldest
        return isinstance(oldest, Change) and oldest.verb == "UNSUBSCRIBE" and oldest.name == topic

    def _slot_moved(self, name: TopicName) -> None:
        self._subscribed.discard(name)
        if name in self._desired:
            self._receiver.unconfirm(name)
        assert self._refresh_slots is not None
        self._refresh_slots()
