"""The interface between the topics of a hub and a broker, and the broker of a single process.

    Topics  ---- subscribe, unsubscribe ---------------->  Broker
            <--- confirm, refuse, unconfirm, deliver ----

A broker carries messages between hubs. It subscribes to a topic once, however many connections of the
process do.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from ..prepared import Prepared
from .pattern import Pattern

__all__ = ["Broker", "InProcessBroker", "Receiver", "TopicName"]

TopicName: TypeAlias = bytes | Pattern  # the UTF-8 of a topic, or a pattern


class Receiver(Protocol):
    """The side that a broker reports to: the topics of a hub."""

    def confirm(self, name: TopicName) -> None:
        """Take note that the messages of a topic or a pattern come from now on."""

    def unconfirm(self, name: TopicName) -> None:
        """Take note that the messages do not come, until ``confirm`` is called again."""

    def refuse(self, name: TopicName, error: Exception) -> bool:
        """Take note that the broker cannot subscribe. Return whether there are subscribers already."""

    def deliver(self, name: bytes, message: Prepared) -> int:
        """Send a message to all subscribers of a topic. Return how many connections that are."""


class Broker(Protocol):
    """The side that carries messages from the hub that publishes them to all hubs that subscribe."""

    async def open(self) -> None:
        """Open the broker.

        Raises:
            ConnectionError: it cannot be reached.
        """

    async def close(self) -> None:
        """Close the broker."""

    def check(self, name: TopicName) -> None:
        """Check that a topic or a pattern can be subscribed to.

        Raises:
            ValueError: it cannot.
        """

    def subscribe(self, name: TopicName) -> None:
        """Request the messages of a topic or a pattern. Do nothing more if they come already.

        The answer is a call of ``Receiver.confirm`` or ``Receiver.refuse``.
        """

    def unsubscribe(self, name: TopicName) -> None:
        """Request no more messages of a topic or a pattern."""

    async def publish(self, name: bytes, message: Prepared) -> None:
        """Publish a message to a topic.

        Raises:
            ConnectionError: it was not published, or that is not known.
            PermissionError: the broker forbids it.
        """


class InProcessBroker:
    """The broker of a single process.

    Args:
        receiver: the topics of the hub.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def check(self, name: TopicName) -> None:
        """Do nothing."""

    def subscribe(self, name: TopicName) -> None:
        """Confirm the subscription at once."""
        self._receiver.confirm(name)

    def unsubscribe(self, name: TopicName) -> None:
        """Do nothing."""

    async def publish(self, name: bytes, message: Prepared) -> None:
        """Deliver the message at once."""
        self._receiver.deliver(name, message)
