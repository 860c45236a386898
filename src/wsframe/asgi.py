"""ASGI 2.5: the WebSockets of any ASGI application, under uvicorn.

    $ uvicorn module:app --ws wsframe.asgi:WebSocketProtocol          or          $ wsframe asgi module:app

uvicorn                             WebSocketProtocol                                     application
  | connection_made(transport)  -->   |                                                     |
  | data_received(the request)  -->   | app(scope, receive, send); websocket.connect  -->   |
  | transport.set_protocol(it)        |   <-- websocket.accept                              |
  |                                   |   <-- or websocket.close, websocket.http.response   |
the event loop                        |                                                     |
  | get_buffer, buffer_updated  -->   | websocket.receive  -->                              |
  |                                   |   <-- websocket.send                                |
  | connection_lost, or                                                                     |
uvicorn's shutdown()            -->   | websocket.disconnect  -->                           |

HTTP is uvicorn's. When a request asks for a WebSocket it is serialised again and handed over, with the
transport: from there on this is a ``wsframe.aio.WebSocket``, whose ``recv`` and ``send`` speak ASGI. Nothing
is imported of uvicorn; what is used of it stands in the figure, and in the settings that ``__init__`` reads.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, unquote

import h11

from .adapter.options import Timing
from .aio.protocol import CONNECTING, HIGH_WATER, OPEN
from .aio.websocket import WebSocket
from .deflate import DEFAULT
from .errors import ConnectionClosed, LocalProtocolError, is_only
from .events import Close, Fail, Request
from .prepared import Prepared, prepare
from .server import ServerConnection

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["ClientDisconnected", "WebSocketProtocol"]

# By this name uvicorn's own implementations log, and what configures logging for uvicorn knows it.
logger = logging.getLogger("uvicorn.error")

Event: TypeAlias = MutableMapping[str, Any]

_CLOSE_TIMEOUT = 10  # seconds
# How many messages are remembered at a time, as many as there are groups that send at once, and for how long
_REPEATED_MESSAGES = 8
_REPEATED_SECONDS = 1.0
_EMPTY: Event = {}
# Applications set these in their responses, and so does the handshake: it knows better.
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class ClientDisconnected(OSError):
    """The application sent something when the connection was closing or closed.

    The specification wants an ``OSError``. An application that lets it pass ends silently, also when it
    passes as all that an ``ExceptionGroup`` holds.
    """


class WebSocketProtocol(WebSocket):
    """A WebSocket of an ASGI application, for uvicorn's ``--ws`` or ``Config(ws=...)``.

    It honours uvicorn's ``ws_max_size``, ``ws_max_queue``, ``ws_ping_interval``, ``ws_ping_timeout``,
    ``ws_per_message_deflate``, ``limit_concurrency``, ``access_log``, ``root_path``, ``reset_contextvars``
    and default headers. The scope has the ``WebSocket`` itself in ``scope["extensions"]["wsframe"]``, under
    ``"websocket"``.

    Args:
        config: uvicorn's configuration.
        server_state: what uvicorn's server shares with its protocols.
        app_state: the state that the application's lifespan has left.
        _loop: what uvicorn gives to protocols in its own tests; the running loop is used.
    """

    __slots__ = (
        "_app_state",
        "_body",
        "_config",
        "_connection",
        "_farewell",
        "_is_announced",
        "_is_over",
        "_response",
        "_scope",
        "_server_state",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        connection = ServerConnection(
            compression=DEFAULT if config.ws_per_message_deflate else None,
            max_message_size=config.ws_max_size,
        )
        timing = Timing(
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=_positive(config.ws_ping_interval),
            ping_timeout=_positive(config.ws_ping_timeout),
        )
        super().__init__(connection, timing, max(config.ws_max_queue, 1))
        self._connection = connection
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._scope: dict[str, Any] = {}
        self._is_announced = False  # the application has received websocket.connect,
        self._is_over = False  # and websocket.disconnect
        self._response: Event | None = None  # websocket.http.response.start,
        self._body: list[bytes] = []  # and what followed it
        self._farewell: Close | None = None  # our Close, if we were first

    # Called by uvicorn and the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by uvicorn)."""
        super().connection_made(transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        if self.transport.get_write_buffer_size() > HIGH_WATER // 4:
            # An HTTP response is still being sent. Perhaps HTTP was told to pause: now the transport has said
            # so in any case, and will tell us when to go on. With less in it, down to what TLS says after its
            # handshake, it has said that already, or never will.
            self.transport.set_write_buffer_limits(0)
            self.transport.set_write_buffer_limits(HIGH_WATER)
            self.pause_writing()

    def data_received(self, data: bytes) -> None:
        """Take the request (called by uvicorn; the event loop has ``get_buffer`` for all that follows)."""
        data = _as_received(data, self.transport.get_protocol())
        self.get_buffer(len(data))[: len(data)] = data
        self.buffer_updated(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """End (called by the event loop)."""
        self._server_state.connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection because the server goes away (called by uvicorn).

        What the client has sent is still received, up to its Close.
        """
        if self._connection.state is OPEN:
            self._farewell = Close(1012)
            self.start_close(1012, "")
        elif self._connection.state is CONNECTING:
            self._reject(503, body=b"server is going away\n")

    def read_handshake(self) -> None:
        """Read the request, and start the application."""
        event = self.session.next_handshake_event()
        if isinstance(event, Request) and not event.is_upgrade:
            event = self.session.next_handshake_event()  # which refuses it: HTTP is uvicorn's
        if isinstance(event, Request):
            self._serve(event)
        elif isinstance(event, Fail):
            request = self._connection.request
            if request is None or not request.is_upgrade:
                logger.warning("Invalid WebSocket handshake: %s", event.reason)

    # The application

    def _serve(self, request: Request) -> None:
        """Start the application."""
        config, state = self._config, self._server_state
        limit = config.limit_concurrency
        if limit is not None and max(len(state.connections), len(state.tasks)) >= limit:
            logger.warning("Exceeded concurrency limit.")
            self._connection.reject(503, self._headers(), b"too many connections\n")
            return
        self._scope = self._describe(request)
        context = contextvars.Context() if getattr(config, "reset_contextvars", False) else None
        task = asyncio.get_running_loop().create_task(self._run(), context=context)
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    def _describe(self, request: Request) -> dict[str, Any]:
        config = self._config
        raw_path, _, query_string = request.path.partition("?")
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "wss" if self.transport.get_extra_info("sslcontext") else "ws",
            "server": _address(self.local_address),
            "client": _address(self.remote_address),
            "root_path": config.root_path,
            "path": config.root_path + unquote(raw_path),
            "raw_path": (config.root_path + raw_path).encode("ascii"),
            "query_string": query_string.encode("ascii"),
            "headers": [(name.encode("ascii"), value.encode("latin-1")) for name, value in request.headers],
            "subprotocols": list(request.subprotocols),
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, "wsframe": {"websocket": self}},
        }

    async def _run(self) -> None:
        code, reason = 1011, "internal error"
        try:
            result: object = await self._config.loaded_app(self._scope, self._receive_event, self._send_event)
            if self.state is CONNECTING:
                logger.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                logger.error("ASGI callable should return None, but returned %r.", result)
            else:
                code, reason = 1000, ""
        except Exception as error:
            if not is_only(error, ClientDisconnected):
                logger.exception("Exception in ASGI application\n")
        finally:
            if self.state is CONNECTING:
                try:
                    self._reject(500, body=b"Internal Server Error")
                except (
                    LocalProtocolError
                ):  # of uvicorn's default headers, perhaps it is one of them that failed
                    self.abort()
            self.start_close(code, reason)
            self.discard()

    async def _receive_event(self) -> Event:
        """Return the next event for the application, as its ``receive``. Cancelling it loses nothing."""
        if not self._is_announced:
            self._is_announced = True
            return {"type": "websocket.connect"}
        try:
            data = await self.recv()
        except ConnectionClosed as closed:
            if self._is_over:
                raise RuntimeError("websocket.disconnect was received already: nothing follows it") from None
            self._is_over = True
            end = closed if self._farewell is None else self._farewell
            return {"type": "websocket.disconnect", "code": end.code, "reason": end.reason}
        return {"type": "websocket.receive", "text" if type(data) is str else "bytes": data}

    async def _send_event(self, event: Event) -> None:
        """Act on an event of the application, as its ``send``. It waits while more than 64 KiB are unsent."""
        kind = event["type"]
        if kind == "websocket.send" and self._connection.state is OPEN:
            message: str | bytes | Prepared = _payload(event)
            if self._connection.compresses(len(message)):
                message = _repeated.prepare(message, self.session.id)  # type: ignore[arg-type]
            try:
                await self.send(message)
            except ConnectionClosed as closed:
                raise ClientDisconnected(str(closed)) from None
            return
        steps = self._steps()
        if kind not in steps:
            raise RuntimeError(f"the application may send {' or '.join(steps)} now, not {kind}")
        steps[kind](event)

    def _steps(self) -> dict[str, Callable[[Event], object]]:
        """Return what the application may send now."""
        state = self.state
        if state is OPEN:
            return {"websocket.send": _payload, "websocket.close": self._close}  # the first was sent already
        if state is not CONNECTING:
            raise ClientDisconnected("connection is closing or closed")
        if self._response is not None:
            return {"websocket.http.response.body": self._respond}
        return {
            "websocket.accept": self._accept,
            "websocket.close": self._deny,
            "websocket.http.response.start": self._begin_response,
        }

    def _accept(self, event: Event) -> None:
        self._connection.accept(event.get("subprotocol") or None, self._headers(event))
        self._log("[accepted]")
        self.begin()
        self.proceed()

    def _deny(self, event: Event) -> None:  # noqa: ARG002  # there is no Close to put its code into
        self._reject(403)

    def _begin_response(self, event: Event) -> None:
        # It goes out with its body: until then it can still become a 500.
        self._response = event

    def _respond(self, event: Event) -> None:
        assert self._response is not None
        self._body.append(event.get("body", b""))
        if not event.get("more_body"):
            self._reject(self._response["status"], self._response, b"".join(self._body))

    def _reject(self, status: int, event: Event = _EMPTY, body: bytes = b"") -> None:
        self._connection.reject(status, self._headers(event), body)
        self._log(str(status))
        self.proceed()

    def _close(self, event: Event) -> None:
        code, reason = event.get("code"), event.get("reason") or ""
        end = Close(1000 if code is None else code, reason)
        self.start_close(end.code, end.reason)
        # It is over for the application: whatever the client answers, and without waiting for it.
        self._farewell = end
        self.conclude(end)
        self.discard()

    def _headers(self, event: Event = _EMPTY) -> list[tuple[str, str]]:
        """Return the headers of a response: uvicorn's, and those of an event."""
        headers: Iterable[tuple[bytes, bytes]] = event.get("headers") or ()
        return [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in (*self._server_state.default_headers, *headers)
            if name.lower() not in _FRAMING
        ]

    def _log(self, outcome: str) -> None:
        if self._config.access_log and self._scope:
            client, query = self._scope["client"], self._scope["query_string"].decode("ascii")
            logger.info(
                '%s - "WebSocket %s" %s',
                "{}:{}".format(*client) if client else "",
                quote(self._scope["path"]) + ("?" + query if query else ""),
                outcome,
            )


class _Repeated(threading.local):
    """The messages that many connections of a thread send, which are then compressed once for all of them.

    The groups of Channels have each consumer encode and send the same message. Measured with 500 connections
    and JSON of 140, 970 and 4200 bytes, a message takes 2.5, 2.7 and 4.1 µs instead of 11, 26 and 70. But
    what is compressed for many connections has no context: it is 3.3, 1.6 and 1.1 times as long. So this
    begins with the third connection that sends the message.
    """

    def __init__(self) -> None:
        self._sent: dict[str | bytes, _Sent] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def prepare(self, message: str | bytes, sender: int) -> str | bytes | Prepared:
        """Return the message itself, or a prepared one if other connections have sent it just now."""
        if len(message) >= HIGH_WATER or type(message) not in (str, bytes):
            return message
        sent = self._sent.get(message)
        if sent is None:
            loop = asyncio.get_running_loop()
            if self._loop is not loop:  # the timer of another loop would not fire any more
                self._sent.clear()
                self._loop = loop
            if not self._sent:
                loop.call_later(_REPEATED_SECONDS, self._sent.clear)
            if len(self._sent) == _REPEATED_MESSAGES:
                del self._sent[next(iter(self._sent))]
            sent = self._sent[message] = _Sent()
        if sent.prepared is None and sent.is_by_others(sender):
            sent.prepared = prepare(message)
        return sent.prepared or message


class _Sent:
    """A message and the first connections that have sent it."""

    __slots__ = ("prepared", "senders")

    def __init__(self) -> None:
        self.prepared: Prepared | None = None
        self.senders: list[int] = []

    def is_by_others(self, sender: int) -> bool:
        """Return whether two other connections have sent it."""
        if sender not in self.senders:
            self.senders.append(sender)
        return len(self.senders) > 2


_repeated = _Repeated()


def _payload(event: Event) -> str | bytes:
    """Return what websocket.send sends."""
    data, text = event.get("bytes"), event.get("text")
    if isinstance(text, str) and data is None:  # perhaps Django's SafeString
        return text
    if isinstance(data, (bytes, bytearray, memoryview)) and text is None:
        return data  # type: ignore[return-value]  # one that is not bytes is as good
    raise TypeError(
        "websocket.send must have text, a str, or bytes, not "
        f"text={type(text).__name__} and bytes={type(data).__name__}"
    )


def _positive(seconds: float | None) -> float | None:
    """Return how uvicorn says how often, and we: its 0 is None."""
    return seconds if seconds and seconds > 0 else None


def _address(address: object) -> tuple[str, int | None] | None:
    """Return a socket's address as it stands in a scope: a Unix socket has a path and no port, or nothing."""
    if isinstance(address, tuple):
        return (str(address[0]), int(address[1]))
    return (address, None) if isinstance(address, str) and address else None


def _as_received(request: bytes, http: object) -> bytes:
    """Return a request as the client has sent it.

    uvicorn says HTTP/1.1 whatever the client said, and drops what came in the same packet; h11 still has it.

    Args:
        request: the request as uvicorn serialised it.
        http: what has parsed it.
    """
    version = (getattr(http, "scope", None) or {}).get("http_version", "1.1")
    if version != "1.1":
        request = request.replace(b" HTTP/1.1\r\n", f" HTTP/{version}\r\n".encode(), 1)
    parser = getattr(http, "conn", None)
    return request + (parser.trailing_data[0] if isinstance(parser, h11.Connection) else b"")
