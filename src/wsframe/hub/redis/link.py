"""A Link: commands go out and replies come in at the same time, on one connection to Redis.

    send() --> queued --> written --> unanswered --> answered()
                             |            ^
                             v            |  in the order of the commands
                           Redis ------ replies, and messages in between

Redis answers commands in their order. So a queue of the commands without a reply says which one a reply
belongs to. On a connection that subscribes, messages come in between: in RESP2, arrays that begin with their
kind. All that comes is in the order in which Redis acted. So a connection that becomes a subscriber when the
reply to SUBSCRIBE is read gets what was published since Redis subscribed, and nothing from before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoPermissionError, ResponseError

from .address import ConnectionLost, RedisAddress, describe, disconnect

__all__ = ["Command", "Link", "is_slot_error", "refusal"]

WRITE_SIZE = 262144  # bytes that are written at a time
DELIVERIES_PER_TURN = 1000  # deliveries before other tasks have a turn
# The node does not have the slot of a topic, or no node has it now.
SLOT_ERRORS = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
SLOT_ERROR_CLASSES = ("MovedError", "AskError", "TryAgainError", "ClusterDownError")


class Command:
    """A command for Redis.

    Args:
        words: the command and its arguments.
    """

    __slots__ = ("words",)

    def __init__(self, *words: str | bytes) -> None:
        self.words = words

    def is_cancelled(self) -> bool:
        """Return whether the command must not be written any more."""
        return False

    def release(self) -> None:
        """Free the arguments, which may be large: they are not needed any more."""
        self.words = ()


class Link:
    """A connection to Redis, which may be made again after it is lost.

    Args:
        address: the server.
        receive: takes each reply, which may be a ResponseError, and each message. It returns the number of
            connections that a message was delivered to.

    Attributes:
        address: the server.
        queued: the commands that are to be written.
        unanswered: the commands that are written, and have no reply yet.
    """

    def __init__(self, address: RedisAddress, receive: Callable[[object], int]) -> None:
        self.address = address
        self.queued: deque[Command] = deque()
        self.unanswered: deque[Command] = deque()
        self._receive = receive
        self._wake = asyncio.Event()
        self._has_received = True  # since the last health check

    @property
    def oldest(self) -> Command | None:
        """The command that the next reply belongs to."""
        return self.unanswered[0] if self.unanswered else None

    def send(self, command: Command) -> None:
        """Queue a command."""
        self.queued.append(command)
        self._wake.set()

    def answered(self, reply: object) -> Command:
        """Return the command that a reply belongs to: the oldest one without a reply.

        Raises:
            ConnectionLost: there is none.
        """
        if not self.unanswered:
            raise ConnectionLost(f"it says what it was not asked for: {reply!a}")
        return self.unanswered.popleft()

    async def wait(self) -> None:
        """Wait until a command is queued."""
        while not self.queued:
            await self._wake.wait()
            self._wake.clear()

    async def run(self, connection: AbstractConnection) -> NoReturn:
        """Write what is queued, and receive, until the connection is lost.

        Raises:
            ConnectionLost: it is lost.
        """
        loop = asyncio.get_running_loop()
        interval = self.address.health_check_interval
        reading = asyncio.create_task(self._read(connection))
        reading.add_done_callback(lambda _: self._wake.set())
        self._has_received = True
        next_check = loop.time() + interval
        try:
            while True:
                await self._write(connection)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_check):
                        await self._wake.wait()
                self._wake.clear()
                if reading.done():
                    await reading
                if loop.time() >= next_check:
                    if not self._has_received:
                        raise ConnectionLost(f"it has not answered for {interval:g} s")
                    self._has_received = False
                    self.send(Command("PING"))
                    next_check = loop.time() + interval
        except Exception as error:
            raise ConnectionLost(describe(error)) from error
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()  # it is raised already
            await disconnect(connection)

    async def _write(self, connection: AbstractConnection) -> None:
        while self.queued:
            commands: list[tuple[str | bytes, ...]] = []
            size = 0
            while self.queued and size < WRITE_SIZE:
                command = self.queued.popleft()
                if command.is_cancelled():
                    continue
                commands.append(command.words)
                size += len(command.words[-1])
                command.release()
                self.unanswered.append(command)
            async with asyncio.timeout(self.address.health_check_interval):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    async def _read(self, connection: AbstractConnection) -> NoReturn:
        deliveries = 0
        while True:
            try:
                reply = await connection.read_response()
            except ResponseError as error:
                reply = error
            self._has_received = True
            # If Redis sends faster than messages are delivered, reading never waits.
            deliveries += 1 + self._receive(reply)
            if deliveries >= DELIVERIES_PER_TURN:
                deliveries = 0
                await asyncio.sleep(0)


def is_slot_error(reply: object) -> bool:
    """Return whether a node refuses what another node of the cluster, or the same one later, would do."""
    if not isinstance(reply, ResponseError):
        return False
    code = getattr(reply, "status_code", None) or str(reply).partition(" ")[0]
    return code in SLOT_ERRORS or type(reply).__name__ in SLOT_ERROR_CLASSES


def refusal(error: ResponseError, prefix: str = "") -> Exception:
    """Return the builtin exception for an error of Redis. Its text begins with a prefix."""
    kind = PermissionError if isinstance(error, NoPermissionError) else ConnectionError
    problem = kind(f"{prefix}Redis refuses it: {error}")
    problem.__cause__ = error
    return problem
