"""Which connection subscribes to which topic, and the delivery to the subscribers.

A subscription begins when ``Hub.subscribe`` is called. Messages are delivered to it when the broker has
confirmed that they come. It ends with the connection, at the latest. Nothing here waits or knows Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Literal

from ..aio import WebSocket, broadcast
from ..connection import State
from ..prepared import Prepared
from .broker import Broker, TopicName
from .pattern import Pattern

__all__ = ["Topics"]

logger = logging.getLogger("wsframe.hub")


class Subscription:
    """The subscription of a connection to a topic or a pattern.

    Attributes:
        waiters: a future for each call of ``Hub.subscribe`` in progress. It is done when the broker has
            confirmed.
        is_kept: whether such a call has returned. Until then the subscription lasts as long as a call is in
            progress.
    """

    __slots__ = ("is_kept", "waiters")

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[None]] = set()
        self.is_kept = False


class Topic:
    """The subscriptions to a topic or a pattern.

    Attributes:
        subscriptions: all of them, also those that are not confirmed.
        subscribers: the connections that messages are delivered to.
        is_confirmed: whether the broker has confirmed that the messages come.
    """

    __slots__ = ("is_confirmed", "subscribers", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: dict[WebSocket, Subscription] = {}
        self.subscribers: set[WebSocket] = set()
        self.is_confirmed = False


class Topics:
    """The topics and the patterns of a hub that have subscriptions.

    It is the receiver that the broker reports to.

    Args:
        max_buffered, slow: as for ``broadcast``.

    Attributes:
        broker: the broker that messages come from. It must be set before the first subscription.
    """

    broker: Broker

    def __init__(self, max_buffered: int, slow: Literal["drop", "close"]) -> None:
        self._max_buffered = max_buffered
        self._slow = slow
        self._topics: dict[TopicName, Topic] = {}
        self._patterns: dict[Pattern, Topic] = {}  # the part of _topics that each message is tried against
        self._names: dict[WebSocket, set[TopicName]] = {}  # what each connection subscribes to

    def names_of(self, websocket: WebSocket) -> set[TopicName]:
        """Return what a connection subscribes to, also what is not confirmed."""
        return set(self._names.get(websocket, ()))

    def subscribe(self, websocket: WebSocket, name: TopicName) -> asyncio.Future[None]:
        """Subscribe a connection to a topic or a pattern.

        A connection that is closed is not subscribed: its ``recv`` says why it is closed.

        Returns:
            A future that is done when the broker has confirmed. ``keep`` or ``give_up`` must follow.
        """
        waiter = asyncio.get_running_loop().create_future()
        if websocket.state is State.CLOSED:
            waiter.set_result(None)
            return waiter
        if websocket not in self._names:
            self._names[websocket] = set()
            websocket.add_close_callback(self.unsubscribe)
        self._names[websocket].add(name)
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic()
            if isinstance(name, Pattern):
                self._patterns[name] = topic
        topic.subscriptions.setdefault(websocket, Subscription()).waiters.add(waiter)
        if topic.is_confirmed:
            topic.subscribers.add(websocket)
            waiter.set_result(None)
        else:
            self.broker.subscribe(name)  # once more, as the broker may have refused since the last time
        return waiter

    def keep(self, websocket: WebSocket, name: TopicName, waiter: asyncio.Future[None]) -> None:
        """Keep a subscription, whatever becomes of the other calls that wait for it."""
        subscription = self._subscription(websocket, name, waiter)
        if subscription is not None:
            subscription.waiters.remove(waiter)
            subscription.is_kept = True

    def give_up(self, websocket: WebSocket, name: TopicName, waiter: asyncio.Future[None]) -> None:
        """End a subscription unless it is kept or another call waits for it."""
        subscription = self._subscription(websocket, name, waiter)
        if subscription is not None:
            subscription.waiters.remove(waiter)
            if not (subscription.is_kept or subscription.waiters):
                self.unsubscribe(websocket, [name])

    def _subscription(
        self, websocket: WebSocket, name: TopicName, waiter: asyncio.Future[None]
    ) -> Subscription | None:
        """Return the subscription that a waiter belongs to, or None if it has ended."""
        topic = self._topics.get(name)
        subscription = None if topic is None else topic.subscriptions.get(websocket)
        return subscription if subscription is not None and waiter in subscription.waiters else None

    def unsubscribe(self, websocket: WebSocket, names: Collection[TopicName] = ()) -> None:
        """End subscriptions of a connection, also those that are not confirmed.

        Args:
            websocket: the connection.
            names: what to unsubscribe from. Without any, it is all that the connection subscribes to.
        """
        subscribed = self._names.get(websocket, set())
        for name in subscribed.intersection(names or subscribed):
            subscribed.remove(name)
            topic = self._topics[name]
            topic.subscribers.discard(websocket)
            for waiter in topic.subscriptions.pop(websocket).waiters:
                if not waiter.done():
                    waiter.set_result(None)
            if not topic.subscriptions:
                del self._topics[name]
                if isinstance(name, Pattern):
                    del self._patterns[name]
                self.broker.unsubscribe(name)
        if websocket in self._names and not subscribed:
            del self._names[websocket]
            websocket.remove_close_callback(self.unsubscribe)

    def clear(self, error: Exception) -> None:
        """End all subscriptions. Those that are not confirmed fail with an error."""
        for name in self._topics:
            self.refuse(name, error)
        for websocket in list(self._names):
            self.unsubscribe(websocket)

    # The receiver: called by the broker

    def confirm(self, name: TopicName) -> None:
        """Complete the subscriptions that wait: from now on the messages come."""
        topic = self._topics[name]
        if topic.is_confirmed:
            return
        topic.is_confirmed = True
        for websocket, subscription in topic.subscriptions.items():
            for waiter in subscription.waiters:
                if not waiter.done():
                    topic.subscribers.add(websocket)
                    waiter.set_result(None)

    def unconfirm(self, name: TopicName) -> None:
        """Let new subscriptions wait: the messages do not come, until ``confirm`` is called again."""
        self._topics[name].is_confirmed = False

    def refuse(self, name: TopicName, error: Exception) -> bool:
        """Fail the subscriptions that wait. Return whether there are subscribers already."""
        topic = self._topics[name]
        for subscription in topic.subscriptions.values():
            for waiter in subscription.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
                    waiter.exception()  # the caller may await another one first, which fails as well
        return bool(topic.subscribers)

    def deliver(self, name: bytes, message: Prepared) -> int:
        """Send a message to all subscribers of a topic. Return how many connections that are."""
        topics = [topic for pattern, topic in self._patterns.items() if pattern.matches(name)]
        if name in self._topics:
            topics.append(self._topics[name])
        if not topics:
            return 0
        subscribers = topics[0].subscribers
        if len(topics) > 1:
            subscribers = subscribers.union(*(topic.subscribers for topic in topics[1:]))
        slow = broadcast(subscribers, message, max_buffered=self._max_buffered, slow=self._slow)
        if slow:
            logger.debug("%d of %d clients were too slow for a message", len(slow), len(subscribers))
        return len(subscribers)
