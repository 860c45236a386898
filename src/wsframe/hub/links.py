"""A server of Redis: one connection to subscribe and one to publish, by redis-py's connections.

redis-py's own PubSub connects and subscribes again on its own, in whichever call finds that the connection is
lost. Here a connection that is lost is lost: who was publishing is told, and what was subscribed to is
subscribed to again in the one place that knows what is wanted by then.

Commands are answered in their order, so a queue of them tells whose an answer is. On the connection that
subscribes, messages come in between: in RESP2, arrays that begin with their kind. All that comes there is in
the order in which Redis did it. So who becomes a member when the answer to SUBSCRIBE is read gets what was
published since Redis subscribed, and nothing from before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from ..aio import Backoff
from .pattern import Pattern
from .payload import decode
from .rooms import Key, Rooms

__all__ = ["BACKOFF", "Lost", "Node", "Server", "is_moved", "refusal"]

logger = logging.getLogger("wsframe.hub")

# All hubs of a Redis that restarts come back within seconds, but not at once.
BACKOFF = Backoff(0.25, 1.6, 5.0)
HEALTH_CHECK_INTERVAL = 10.0  # seconds
STEADY = 5.0  # seconds that a connection lasts before one that is lost is no more the same trouble
BATCH = 262144  # octets that are written at a time
BURST = 1000  # deliveries, after which others have a turn
PING = "PING"
AFTER = "after SUNSUBSCRIBE"
# Where it is not yet, or no more, known which node has a topic.
_MOVED = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")


class Lost(Exception):
    """A connection to Redis was lost, or could not be made."""


class Server:
    """Be how a Redis, or the node of a cluster, is connected to.

    Args:
        kind: redis-py's class for the connections.
        options: its arguments.
    """

    def __init__(self, kind: type[Any], options: dict[str, Any]) -> None:
        self._kind = kind
        self._options = options
        self.interval = float(options.get("health_check_interval") or HEALTH_CHECK_INTERVAL)

    def __str__(self) -> str:
        options = self._options
        return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    def at(self, host: str, port: int) -> Server:
        """Return another server, that is connected to in the same way but for its address."""
        options = {name: value for name, value in self._options.items() if name != "path"}
        kind = Connection if issubclass(self._kind, UnixDomainSocketConnection) else self._kind
        return Server(kind, {**options, "host": host, "port": port})

    def connection(self) -> Any:
        """Return a connection, not connected yet, that does nothing of its own accord.

        RESP3 has nothing that is needed here. Links look after the connection themselves.
        """
        mine = {"protocol": 2, "decode_responses": False, "socket_timeout": None, "health_check_interval": 0}
        return self._kind(**{**self._options, **mine})

    async def ask(self, *command: str) -> Any:
        """Send one command, on a connection of its own, and return the answer.

        Raises:
            Lost: it cannot be connected to.
            ResponseError: it refuses the command.
        """
        connection = self.connection()
        try:
            async with asyncio.timeout(self.interval):
                await connection.connect()
                await connection.send_command(*command, check_health=False)
                return await connection.read_response()
        except ResponseError:
            raise
        except Exception as error:
            raise Lost(reason(error)) from error
        finally:
            await disconnect(connection)


def reason(error: Exception) -> str:
    """Return what an error says."""
    if isinstance(error, TimeoutError) and not str(error):
        return "it does not answer"
    if not isinstance(error, (Lost, RedisError, OSError)):
        # What is no Redis makes redis-py and us stumble over anything.
        return f"what it says is not understood: {error!r}"
    return str(error) or type(error).__name__


async def disconnect(connection: Any) -> None:
    """Disconnect, also if the peer is slow to."""
    with suppress(RedisError, OSError):
        async with asyncio.timeout(1):
            await connection.disconnect()


class Command:
    """Be a command that is to be written.

    Attributes:
        words: the command and its arguments.
        what: what it is for.
    """

    __slots__ = ("what", "words")

    def __init__(self, words: tuple[str | bytes, ...], what: Any) -> None:
        self.words = words
        self.what = what

    def forget(self) -> None:
        """Let go of the payload: nobody waits for it to be written."""
        self.words = ()


class Link:
    """Be a connection that commands are written to and answers read from at the same time.

    Args:
        server: where to.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._queue: deque[Command] = deque()  # what is to be written
        self._asked: deque[Any] = deque()  # what the commands were for whose answers are to come
        self._wake = asyncio.Event()
        self._is_heard = True

    def _send(self, *words: str | bytes, what: Any = None) -> Command:
        command = Command(words, what)
        self._queue.append(command)
        self._wake.set()
        return command

    def _answered(self, what: Any, answer: Any) -> None:
        """Take the answer to a command, which may be a ResponseError."""
        raise NotImplementedError

    def _received(self, answer: Any) -> int:
        """Take what came; return how many connections it was delivered to."""
        if not self._asked:
            raise Lost(f"it says what it was not asked for: {answer!a}")
        self._answered(self._asked.popleft(), answer)
        return 0

    async def _connect(self) -> Any:
        connection = self._server.connection()
        try:
            async with asyncio.timeout(self._server.interval):
                await connection.connect()
        except BaseException as error:
            await disconnect(connection)
            if isinstance(error, Exception):
                raise Lost(reason(error)) from error
            raise
        return connection

    async def _talk(self, connection: Any) -> None:
        """Write what is queued, and take what comes, until the connection is lost."""
        loop = asyncio.get_running_loop()
        interval = self._server.interval
        reading = asyncio.create_task(self._read(connection))
        reading.add_done_callback(lambda _: self._wake.set())
        self._is_heard = True
        check = loop.time() + interval
        try:
            while True:
                await self._write(connection)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(check):
                        await self._wake.wait()
                self._wake.clear()
                if reading.done():
                    await reading
                if loop.time() >= check:
                    if not self._is_heard:
                        raise Lost(f"it has not answered for {interval:g} s")
                    self._is_heard = False
                    self._send(PING)
                    check = loop.time() + interval
        except Exception as error:
            raise Lost(reason(error)) from error
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()  # it is known
            await disconnect(connection)

    async def _write(self, connection: Any) -> None:
        while self._queue:
            commands: list[tuple[str | bytes, ...]] = []
            size = 0
            while self._queue and size < BATCH:
                command = self._queue.popleft()
                if isinstance(command.what, asyncio.Future) and command.what.cancelled():
                    continue
                commands.append(command.words)
                self._asked.append(command.what)
                size += len(command.words[-1])
            async with asyncio.timeout(self._server.interval):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    async def _read(self, connection: Any) -> None:
        burst = 0
        while True:
            try:
                answer = await connection.read_response()
            except ResponseError as error:
                answer = error
            self._is_heard = True
            # Redis may send faster than it can be delivered: then reading would never wait.
            burst += 1 + self._received(answer)
            if burst >= BURST:
                burst = 0
                await asyncio.sleep(0)


class Publisher(Link):
    """Publish, in order: by a connection that is made when there is something to publish."""

    def publish(self, *words: str | bytes) -> asyncio.Future[None]:
        """Send a command; the future is done when it is answered."""
        published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        command = self._send(*words, what=published)
        published.add_done_callback(lambda _: command.forget())
        return published

    def _answered(self, what: Any, answer: Any) -> None:
        if what is None or what.done():
            return
        if isinstance(answer, ResponseError):
            what.set_exception(answer)
        else:
            what.set_result(None)

    def in_flight(self) -> list[asyncio.Future[None]]:
        """Return what is not answered yet."""
        items = [*self._asked, *(command.what for command in self._queue)]
        return [what for what in items if what is not None and not what.done()]

    async def run(self) -> None:
        """Publish until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._queue:
                continue
            try:
                connection = await self._connect()
            except Lost as lost:
                self._fail(self._queue, f"not published: cannot connect to Redis at {self._server}: {lost}")
                continue
            try:
                await self._talk(connection)
            except Lost as lost:
                self._fail(
                    self._asked,
                    f"it is not known whether this was published: Redis at {self._server} was lost "
                    f"before it answered: {lost}",
                )
                if self._queue:  # nothing of it was written
                    self._wake.set()

    def close(self) -> None:
        """Tell those who wait for an answer, when it has been cancelled, that none will come.

        A task that is cancelled before its first step does nothing at all, so ``run`` cannot do this.
        """
        self._fail(self._asked, "it is not known whether this was published: the connection was closed")
        self._fail(self._queue, "not published: the connection was closed")

    def _fail(self, waiting: deque[Any], problem: str) -> None:
        for item in waiting:
            published = item.what if isinstance(item, Command) else item
            if published is not None and not published.done():
                published.set_exception(ConnectionError(problem))
        waiting.clear()


class Subscriber(Link):
    """Be subscribed to what is wanted, by a connection that is made again when it is lost.

    Args:
        server: where to.
        rooms: what is confirmed, and delivered to.
        compress: as for ``prepare``, what is received.
        look_again: tells the cluster that the server is a node of that a topic may have moved; None: it is in
            no cluster.
    """

    def __init__(
        self, server: Server, rooms: Rooms, compress: bool | None, look_again: Callable[[], None] | None
    ) -> None:
        super().__init__(server)
        self._rooms = rooms
        self._compress = compress
        self._look_again = look_again
        self._is_connected = False
        self._wanted: dict[Key, None] = {}
        # What Redis sends messages for, as of what has been read: it has confirmed it.
        self._active: set[Key] = set()
        self._active_patterns: set[Pattern] = set()  # those of them
        self._unanswered: set[Key] = set()  # what it was asked for, and has not answered
        self._problem: str | None = None  # why messages do not come

    def want(self, key: Key) -> None:
        """Subscribe, if it is not; ``Rooms.confirm`` is called when it is confirmed."""
        self._wanted[key] = None
        self._settle(key)

    def unwant(self, key: Key) -> None:
        """Unsubscribe."""
        del self._wanted[key]
        self._settle(key)

    def _settle(self, key: Key) -> None:
        """Ask for what is wanted and not so, one thing at a time: what was asked for must be answered."""
        if not self._is_connected or key in self._unanswered:
            return
        if key not in self._wanted:
            if key in self._active:
                self._ask("UNSUBSCRIBE", key)
        elif key in self._active:
            self._rooms.confirm(key)
        else:
            self._ask("SUBSCRIBE", key)

    def _ask(self, verb: str, key: Key) -> None:
        self._unanswered.add(key)
        if isinstance(key, Pattern):
            self._send("P" + verb, key.octets, what=(verb, key))
        else:
            self._send(verb if self._look_again is None else "S" + verb, key, what=(verb, key))
            if verb == "UNSUBSCRIBE" and self._look_again is not None:
                self._send(PING, what=AFTER)

    async def run(self) -> None:
        """Be subscribed until it is cancelled."""
        loop = asyncio.get_running_loop()
        delays = iter(BACKOFF)
        while True:
            began = loop.time()
            try:
                connection = await self._connect()
                self._is_connected = True
                for key in self._wanted:
                    self._settle(key)
                await self._talk(connection)
            except Lost as lost:
                self._say(
                    logging.WARNING, "is away, and what is published meanwhile will be missed", str(lost)
                )
            finally:
                self._is_connected = False
                for key in self._wanted:
                    self._rooms.unconfirm(key)
                for forgotten in (self._active, self._active_patterns, self._unanswered):
                    forgotten.clear()
                self._queue.clear()
                self._asked.clear()
            if self._look_again is not None:
                self._look_again()
            if loop.time() - began >= STEADY:
                delays = iter(BACKOFF)
            await asyncio.sleep(next(delays))

    def _say(self, level: int, text: str, problem: str) -> None:
        """Log a problem, once."""
        if problem != self._problem:
            logger.log(level, "Redis at %s " + text + ": %s", self._server, problem)
        self._problem = problem

    def _say_back(self) -> None:
        if self._problem is not None and not self._unanswered and self._wanted.keys() <= self._active:
            self._problem = None
            logger.info("Redis at %s is back; resubscribed to %d topics", self._server, len(self._active))

    def _received(self, answer: Any) -> int:
        if type(answer) is list:
            kind = answer[0]
            if kind == b"message" or kind == b"smessage":
                return self._deliver(answer[1], answer[2])
            if kind == b"pmessage":
                return self._received_by_pattern(*answer[1:])
            if kind == b"sunsubscribe" and (not self._asked or self._asked[0] != ("UNSUBSCRIBE", answer[1])):
                # The topic's slot has moved to another node.
                self._dropped(answer[1])
                return 0
        elif (
            self._asked and self._asked[0] is AFTER and isinstance(answer, ResponseError) and is_moved(answer)
        ):
            # The slot had moved, and the message that says so was taken for the answer, which comes now.
            return 0
        return super()._received(answer)

    def _received_by_pattern(self, pattern: bytes, topic: bytes, payload: bytes) -> int:
        """Deliver a message that comes once for each subscription that it matches, but only once.

        That of the topic, if there is one, is delivered to the members of patterns as well. Otherwise that of
        the least pattern is: any would do, if all of the copies agree on it.
        """
        if topic in self._active:
            return 0
        patterns = [active.octets for active in self._active_patterns if active.matches(topic)]
        if pattern != min(patterns, default=pattern):
            return 0
        return self._deliver(topic, payload)

    def _deliver(self, topic: bytes, payload: bytes) -> int:
        message = decode(payload, self._compress)
        try:
            return self._rooms.deliver(topic, message)
        except Exception:
            # A message that breaks something must not end all subscriptions.
            logger.exception("a message was not delivered to all")
            return 0

    def _dropped(self, key: Key) -> None:
        self._active.discard(key)
        if key in self._wanted:
            self._rooms.unconfirm(key)
        assert self._look_again is not None
        self._look_again()

    def _answered(self, what: Any, answer: Any) -> None:
        is_refused = isinstance(answer, ResponseError)
        if what is AFTER:
            return
        if what is not None:
            verb, key = what
            self._unanswered.discard(key)
            if is_refused:
                self._refused(key, answer)
            else:
                is_active = verb == "SUBSCRIBE"
                (self._active.add if is_active else self._active.discard)(key)
                if isinstance(key, Pattern):
                    (self._active_patterns.add if is_active else self._active_patterns.discard)(key)
                self._settle(key)
        elif not is_refused:  # a Pong: it may grant now what it has refused
            for key in {*self._wanted, *self._active}:
                self._settle(key)
        self._say_back()

    def _refused(self, key: Key, error: ResponseError) -> None:
        if is_moved(error) and self._look_again is not None:
            self._dropped(key)
        elif key in self._wanted and self._rooms.refuse(key, refusal(error)):
            self._say(logging.ERROR, "refuses a subscription that it had, and is asked again", str(error))


def is_moved(error: ResponseError) -> bool:
    """Tell whether another node, or the same one later, would do."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return code in _MOVED or type(error).__name__ in (
        "MovedError",
        "AskError",
        "ClusterDownError",
        "TryAgainError",
    )


def refusal(error: ResponseError, what: str = "") -> Exception:
    """Return the builtin error for one of Redis, with what it means before it."""
    kind = PermissionError if isinstance(error, NoPermissionError) else ConnectionError
    problem = kind(f"{what}Redis refuses it: {error}")
    problem.__cause__ = error
    return problem


class Node:
    """Be what speaks to one server: a Publisher and a Subscriber, each from when it is needed."""

    def __init__(
        self, server: Server, rooms: Rooms, compress: bool | None, look_again: Callable[[], None] | None
    ) -> None:
        self.server = server
        self._publisher = Publisher(server)
        self._subscriber = Subscriber(server, rooms, compress, look_again)
        self._tasks: dict[Link, asyncio.Task[None]] = {}

    def _run(self, link: Any) -> Any:
        if link not in self._tasks or self._tasks[link].done():
            self._tasks[link] = asyncio.create_task(link.run())
        return link

    def publish(self, *command: str | bytes) -> asyncio.Future[None]:
        """Send a command; the future is done when it is answered."""
        published: asyncio.Future[None] = self._run(self._publisher).publish(*command)
        return published

    def in_flight(self) -> list[asyncio.Future[None]]:
        """Return what is published and not answered yet."""
        return self._publisher.in_flight()

    def want(self, key: Key) -> None:
        """Subscribe."""
        self._run(self._subscriber).want(key)

    def unwant(self, key: Key) -> None:
        """Unsubscribe."""
        self._subscriber.unwant(key)

    async def close(self) -> None:
        """Close the connections."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._publisher.close()
