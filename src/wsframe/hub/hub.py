"""``Hub``: the face of publish and subscribe. It checks what it is given; the rooms and the broker do it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from ..aio import WebSocket
from ..prepared import prepare
from .pattern import Pattern
from .rooms import Key, Process, Rooms

__all__ = ["Hub", "websocket_of"]


class Hub:
    """Be where connections subscribe to topics, and anybody publishes to them.

    ``async with Hub() as hub`` opens it, and closes it at the end. Without a URL it is that of one process.
    With the URL of a Redis, all hubs on it are one, and programs may publish there by other means, too.

    A message reaches those who are subscribed when it is published, each of them once, and those of one
    publisher in their order. It is encoded once, and compressed at most once for each set of parameters that
    was agreed on. Nobody waits for a slow client. Nothing is kept: who is not there, because it is not
    connected or because Redis is away, misses what is published meanwhile.

    Args:
        url: ``redis://[[user]:password@]host[:port]``, ``rediss://...`` for TLS, or ``unix:///path``, with
            options of redis-py as its query: ``?ssl_ca_certs=/path``. Every ``health_check_interval``
            seconds, 10 by default, Redis is asked whether it is there, and it is given up when it says
            nothing until the next time. None: no Redis.
        max_buffered: how many octets may wait in a connection before it counts as slow.
        slow: what happens to slow ones. "drop": they miss the message. "close": they are closed with 1008.
        compress: whether to compress messages where that is agreed on; None: those that reach the threshold.

    Raises:
        ValueError: the URL is none for Redis, or ``slow`` is neither "drop" nor "close".
        ImportError: there is a URL, and redis-py is not installed.
        ConnectionError: Redis is not there; from the ``async with``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        max_buffered: int = 2**20,
        slow: Literal["drop", "close"] = "drop",
        compress: bool | None = None,
    ) -> None:
        if slow not in ("drop", "close"):
            raise ValueError(f'slow must be "drop" or "close", not {slow!r}')
        self._compress = compress
        self._rooms = Rooms(max_buffered, slow)
        if url is None:
            self._rooms.broker = Process(self._rooms)
        else:
            try:
                from .redis import Redis
            except ImportError as error:
                raise ImportError("a hub over Redis needs redis-py: pip install 'wsframe[redis]'") from error
            self._rooms.broker = Redis(url, self._rooms, compress)
        self._broker = self._rooms.broker
        self._state = "new"  # then "opening", "open", and "closed"
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Hub:
        if self._state != "new":
            raise RuntimeError("a hub can be opened once")
        self._state = "opening"
        self._loop = asyncio.get_running_loop()
        try:
            await self._broker.open()
        except BaseException:
            if self._state == "opening":
                self._state = "new"
            raise
        if self._state == "closed":
            await self._broker.close()
            raise RuntimeError("the hub was closed")
        self._state = "open"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all subscriptions, and leave Redis. The connections stay open."""
        self._state = "closed"
        self._rooms.clear(RuntimeError("the hub was closed"))
        await self._broker.close()

    def _check_open(self) -> None:
        if self._state == "closed":
            raise RuntimeError("the hub is closed")
        if self._state != "open":
            raise RuntimeError("the hub is not open yet: enter it by async with")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "the hub was opened in another event loop: from other threads, call it by "
                "asyncio.run_coroutine_threadsafe"
            )

    async def subscribe(self, websocket: WebSocket, *topics: str | Pattern) -> None:
        """Let a connection get what is published to topics from now on.

        When this returns, Redis has confirmed it. While Redis is away it waits; when it is cancelled then, it
        leaves what it was to join.

        The subscription ends when the connection is lost, at the latest. For one that is lost already this
        does nothing, as ``broadcast`` does: its ``recv`` tells why.

        Args:
            websocket: the connection.
            topics: names, and patterns for all names that match.

        Raises:
            TypeError: an argument has a wrong type.
            ValueError: a topic has a lone surrogate, or there is a pattern and Redis is a cluster, where
                patterns see nothing of what is published to shards.
            PermissionError: the rules of Redis' ACL forbid it.
            ConnectionError: Redis refuses it for another reason: a script keeps it busy, say.
            RuntimeError: the hub is not open, or is closed meanwhile, or was opened in another event loop.
        """
        self._check_open()
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"only a wsframe.aio.WebSocket can subscribe, not {type(websocket).__name__}")
        keys = dict.fromkeys(_key(topic) for topic in topics)
        for key in keys:
            self._broker.check(key)
        calls = {key: self._rooms.join(websocket, key) for key in keys}
        try:
            for call in calls.values():
                await call
        except BaseException:
            for key, call in calls.items():
                self._rooms.give_up(websocket, key, call)
            raise
        for key, call in calls.items():
            self._rooms.keep(websocket, key, call)

    async def unsubscribe(self, websocket: WebSocket, *topics: str | Pattern) -> None:
        """Let a connection get no more of what is published to topics. It waits for nothing.

        Args:
            websocket: the connection.
            topics: those that it subscribed to; without any, all of them. Others are passed over.

        Raises:
            TypeError: a topic is neither a string nor a pattern.
            ValueError: a topic has a lone surrogate.
            RuntimeError: the hub is not open, or was opened in another event loop.
        """
        self._check_open()
        self._rooms.leave(websocket, [_key(topic) for topic in topics] or self._rooms.keys(websocket))

    async def publish(self, topic: str, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message to all who are subscribed to a topic, in all processes.

        When this returns Redis has it, and passes it on to the processes; whether the clients get it, nobody
        is told. Messages that are published at the same time go out in the order of the calls.

        Args:
            topic: the name.
            message: ``str`` goes out as text, a bytes-like object as binary.

        Raises:
            ConnectionError: Redis is away or refuses it, or the hub is closed meanwhile, and the message was
                not published; or Redis went away, or the connection was closed, before it answered, and
                nobody knows. The text says which. It is not tried again.
            PermissionError: the rules of Redis' ACL forbid it.
            LocalProtocolError: the text contains a lone surrogate.
            TypeError: the topic is not a string, or the message none of these.
            ValueError: the topic has a lone surrogate.
            RuntimeError: the hub is not open, or was opened in another event loop.
        """
        self._check_open()
        key = _key(topic)
        if isinstance(key, Pattern):
            raise TypeError("a message is published to a topic, not to a pattern")
        await self._broker.publish(key, prepare(message, compress=self._compress))


def _key(topic: str | Pattern) -> Key:
    if isinstance(topic, Pattern):
        return topic
    if not isinstance(topic, str):
        raise TypeError(f"a topic is a str or a Pattern, not {type(topic).__name__}")
    try:
        return topic.encode()
    except UnicodeEncodeError:
        raise ValueError("a topic must not have lone surrogates") from None


def websocket_of(scope: Mapping[str, Any]) -> WebSocket:
    """Return the WebSocket behind an ASGI scope, to subscribe it: ``websocket_of(self.scope)`` in Channels.

    Args:
        scope: the application's, also as Starlette's ``websocket.scope`` and Channels' ``self.scope``.

    Raises:
        RuntimeError: the scope has none, because another server or protocol runs the application.
    """
    extension = (scope.get("extensions") or {}).get("wsframe") or {}
    websocket = extension.get("websocket")
    if isinstance(websocket, WebSocket):
        return websocket
    if scope.get("type") != "websocket":
        raise RuntimeError(f"a scope of type {scope.get('type')!r} has no WebSocket")
    raise RuntimeError(
        "the application does not run on wsframe: start it by `wsframe asgi module:app`, or by "
        "`uvicorn --ws wsframe.asgi:WebSocketProtocol module:app`"
    )
