"""The Publisher: it publishes to one server, in the order of the calls.

It connects when there is something to publish. If the connection is lost, each message without an answer
fails, and its error says whether it was written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from redis.exceptions import ResponseError

from .address import ConnectionLost, RedisAddress
from .link import Command, Link

__all__ = ["Publisher"]


class Publication(Command):
    """PUBLISH or SPUBLISH.

    Attributes:
        published: a future that is done when Redis has answered.
    """

    __slots__ = ("published",)

    def __init__(self, *words: str | bytes) -> None:
        super().__init__(*words)
        self.published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.published.add_done_callback(lambda _: self.release())

    def is_cancelled(self) -> bool:
        """Return whether the caller has stopped waiting."""
        return self.published.cancelled()


class Publisher:
    """The connection to a server that publishes.

    Args:
        address: the server.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._link = Link(address, self._receive)

    def publish(self, *words: str | bytes) -> asyncio.Future[None]:
        """Send a command. Return a future that is done when Redis has answered."""
        publication = Publication(*words)
        self._link.send(publication)
        return publication.published

    def in_flight(self) -> list[asyncio.Future[None]]:
        """Return the futures of the commands without an answer."""
        return _pending([*self._link.unanswered, *self._link.queued])

    async def run(self) -> None:
        """Publish until this is cancelled."""
        address = self._link.address
        while True:
            await self._link.wait()
            try:
                connection = await address.connect()
            except ConnectionLost as lost:
                _fail(self._link.queued, f"not published: cannot connect to Redis at {address}: {lost}")
                continue
            try:
                await self._link.run(connection)
            except ConnectionLost as lost:
                _fail(
                    self._link.unanswered,
                    f"it is not known whether this was published: Redis at {address} was lost "
                    f"before it answered: {lost}",
                )

    def close(self) -> None:
        """Fail the commands without an answer, after ``run`` was cancelled.

        ``run`` cannot do this: a task that is cancelled before its first step never runs.
        """
        _fail(self._link.unanswered, "it is not known whether this was published: the connection was closed")
        _fail(self._link.queued, "not published: the connection was closed")

    def _receive(self, reply: object) -> int:
        command = self._link.answered(reply)
        if isinstance(command, Publication) and not command.published.done():
            if isinstance(reply, ResponseError):
                command.published.set_exception(reply)
            else:
                command.published.set_result(None)
        return 0


def _pending(commands: Iterable[Command]) -> list[asyncio.Future[None]]:
    """Return the futures of the publications that are not done."""
    publications = [command for command in commands if isinstance(command, Publication)]
    return [publication.published for publication in publications if not publication.published.done()]


def _fail(commands: deque[Command], problem: str) -> None:
    for published in _pending(commands):
        published.set_exception(ConnectionError(problem))
    commands.clear()
