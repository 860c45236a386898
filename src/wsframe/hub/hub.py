"""The public face of publish and subscribe: it checks the arguments. Topics and the broker do the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from ..aio import WebSocket
from ..prepared import prepare
from .broker import Broker, InProcessBroker, TopicName
from .pattern import Pattern
from .topics import Topics

__all__ = ["Hub", "websocket_of"]


class Hub:
    """A hub: connections subscribe to topics, and any code publishes to them.

    ``async with Hub() as hub`` opens it, and closes it at the end. Without a URL it works within one process.
    With the URL of a Redis, all hubs on that Redis act as one, and other programs may publish there, too.

    A message reaches the connections that are subscribed when it is published. Each gets it once, and gets
    the messages of one publisher in order. A message is encoded once, and compressed at most once for each
    set of agreed parameters. A slow client delays no other. Nothing is kept: a client that is not connected
    misses what is published meanwhile, and so do all of them while Redis is away.

    Args:
        url: ``redis://[[user]:password@]host[:port]``, ``rediss://...`` for TLS, or ``unix:///path``, with
            options of redis-py as its query: ``?ssl_ca_certs=/path``. Every ``health_check_interval``
            seconds, 10 by default, the hub sends Redis a PING. If Redis has sent nothing by the next one, its
            connection is dropped. None: no Redis.
        max_buffered: how many bytes may wait in a connection before it counts as slow.
        slow: what happens to slow connections. "drop": they miss the message. "close": they are closed with
            1008.
        compress: whether to compress messages where that is agreed on; None: those that reach the threshold.

    Raises:
        ValueError: the URL is not one of a Redis, or ``slow`` is neither "drop" nor "close".
        ImportError: there is a URL, and redis-py is not installed.
        ConnectionError: Redis cannot be reached; from the ``async with``.
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
        self._topics = Topics(max_buffered, slow)
        self._broker: Broker
        if url is None:
            self._broker = InProcessBroker(self._topics)
        else:
            try:
                from .redis import RedisBroker
            except ImportError as error:
                raise ImportError("a hub over Redis needs redis-py: pip install 'wsframe[redis]'") from error
            self._broker = RedisBroker(url, self._topics, compress)
        self._topics.broker = self._broker
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
        """End all subscriptions, and disconnect from Redis. The connections stay open."""
        self._state = "closed"
        self._topics.clear(RuntimeError("the hub was closed"))
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
        """Subscribe a connection to topics.

        When this returns, Redis has confirmed it: the connection gets what is published from then on. While
        Redis is away this waits. If it is cancelled then, it ends the subscriptions that it began.

        A subscription ends with its connection, at the latest. For a connection that is closed already this
        does nothing, as ``broadcast`` does: its ``recv`` says why.

        Args:
            websocket: the connection.
            topics: names, and patterns for all names that match.

        Raises:
            TypeError: an argument has a wrong type.
            ValueError: a topic has a lone surrogate, or there is a pattern and Redis is a cluster, which has
                no patterns for sharded channels.
            PermissionError: the rules of Redis' ACL forbid it.
            ConnectionError: Redis refuses it for another reason: a script keeps it busy, say.
            RuntimeError: the hub is not open, is closed meanwhile, or was opened in another event loop.
        """
        self._check_open()
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"only a wsframe.aio.WebSocket can subscribe, not {type(websocket).__name__}")
        names = dict.fromkeys(_name_of(topic) for topic in topics)
        for name in names:
            self._broker.check(name)
        waiters = {name: self._topics.subscribe(websocket, name) for name in names}
        try:
            for waiter in waiters.values():
                await waiter
        except BaseException:
            for name, waiter in waiters.items():
                self._topics.give_up(websocket, name, waiter)
            raise
        for name, waiter in waiters.items():
            self._topics.keep(websocket, name, waiter)

    async def unsubscribe(self, websocket: WebSocket, *topics: str | Pattern) -> None:
        """Unsubscribe a connection from topics. This does not wait for Redis.

        Args:
            websocket: the connection.
            topics: names and patterns that it subscribed to; without any, all of them. Others are ignored.

        Raises:
            TypeError: a topic is neither a string nor a pattern.
            ValueError: a topic has a lone surrogate.
            RuntimeError: the hub is not open, or was opened in another event loop.
        """
        self._check_open()
        self._topics.unsubscribe(websocket, [_name_of(topic) for topic in topics])

    async def publish(self, topic: str, message: str | bytes | bytearray | memoryview) -> None:
        """Publish a message to all subscribers of a topic, in all processes.

        When this returns, Redis has the message and passes it on to the processes. It does not say whether
        any client gets it. Messages that are published at the same time go out in the order of the calls.

        Args:
            topic: the name.
            message: ``str`` goes out as text, a bytes-like object as binary.

        Raises:
            ConnectionError: the message was not published, because Redis is away or refuses it, or the hub
                was closed meanwhile. Or it is not known whether it was published, because the connection to
                Redis was lost or closed before the answer. The text says which. It is not tried again.
            PermissionError: the rules of Redis' ACL forbid it.
            LocalProtocolError: the text contains a lone surrogate.
            TypeError: the topic is not a string, or the message is neither text nor bytes.
            ValueError: the topic has a lone surrogate.
            RuntimeError: the hub is not open, or was opened in another event loop.
        """
        self._check_open()
        name = _name_of(topic)
        if isinstance(name, Pattern):
            raise TypeError("a message is published to a topic, not to a pattern")
        await self._broker.publish(name, prepare(message, compress=self._compress))


def _name_of(topic: str | Pattern) -> TopicName:
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
