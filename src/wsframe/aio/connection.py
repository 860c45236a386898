"""A WebSocket on asyncio: a transport and a Connection.

    transport -- buffer_updated --> Connection -- next_event --> recv()
    transport <-- write -- _flush <-- Connection <-- send_* -- send()

Three rules decide when the next event is read:

1. ``recv`` reads it straight from the Connection whenever octets are there: a batch of frames that came
   in one read costs one wake-up.
2. Octets that come while a task waits in ``recv`` wake it, and it has its turn before anybody looks further
   ahead. So its answer goes out before a Close that came in the same packet is acted on. It has it at once,
   not after another trip through the loop: see ``Wakeup``.
3. Octets that come while nobody waits are looked at ahead of ``recv``: Pings are answered, messages are
   queued. When the queue is full the transport is paused, and the Connection holds what is left over.

And two decide when octets are written: a ``send`` is written at once if no received octets wait to be
read; otherwise what is sent is collected, until ``recv`` has to wait, the loop's turn ends or 64 KiB are
there.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import threading
from asyncio import current_task
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from time import perf_counter
from typing import Any, cast

from .. import masking
from ..connection import (
    ABANDONED,
    Connection,
    Fragment,
    Message,
    State,
    check_fragment,
    is_fragmented,
    join_pieces,
)
from ..errors import ConnectionClosed, LocalProtocolError
from ..events import Binary, Close, Fail, Ping, Pong, Request, Response, Text
from ..frames import TEXT, as_octets
from ..prepared import Prepared, prepare

__all__ = ["CLEAN_CODES", "WebSocket"]

OPEN, CONNECTING = State.OPEN, State.CONNECTING
MAX_QUEUED_MESSAGES = 16
MAX_QUEUED_SIZE = 2**20  # octets
READ_SIZE = 65536
HIGH_WATER = 65536  # octets of unsent output
# A message of more octets is compressed in slices, between which others have a turn. Measured with 1 MiB of
# JSON: compressed at once it stops the loop for 8 ms, in slices for 0.5 ms, and takes as long; a thread
# would not be quicker for one connection, and is not needed for the others.
COMPRESSED_SLICE = 65536
# Iteration ends silently after these: normal closure, going away, and a Close without a code.
CLEAN_CODES = (1000, 1001, 1005)


class Input:
    """Hold what the connections of a thread receive into: an idle one has no memory for what may come.

    Event loops fill it and say so before they do anything else. It is not larger than it need be: memory
    that malloc takes from the system anew for each read costs more than what is read.
    """

    __slots__ = ("buffer", "octets")

    def __init__(self) -> None:
        self.octets = bytearray(READ_SIZE)
        self.buffer = memoryview(self.octets)

    def grow(self, size: int) -> None:
        self.octets = bytearray(size)
        self.buffer = memoryview(self.octets)


class _Shared(threading.local):
    def __init__(self) -> None:
        self.input = Input()


_shared = _Shared()


class Wakeup:
    """Be a future whose task goes on as soon as it is done, not in the next turn of the loop.

    The event loop calls us with what it read, and no task runs meanwhile: so the one that waits for it can.

    Attributes:
        is_waiting: whether a task waits.
        is_woken: whether it will go on soon, but has not had its turn.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_context",
        "_is_awaited",
        "_is_cancelled",
        "_loop",
        "is_waiting",
        "is_woken",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._callback: Callable[[Wakeup], object] | None = None
        self._context: contextvars.Context | None = None
        self._is_awaited = False
        self._is_cancelled = False
        self.is_waiting = False
        self.is_woken = False

    def __await__(self) -> Any:  # an iterator, which is enough, but not for mypy
        return self

    def __iter__(self) -> Wakeup:
        return self

    def __next__(self) -> Wakeup:
        if self._is_awaited:
            raise StopIteration
        self._is_awaited = self._asyncio_future_blocking = True
        return self

    def wake(self) -> None:
        """Let the task go on."""
        if not self.is_waiting:
            return
        self.is_waiting, self.is_woken = False, True
        assert self._callback is not None
        assert self._context is not None
        if current_task(self._loop) is None:
            self._context.run(self._callback, self)
        else:
            self._loop.call_soon(self._callback, self, context=self._context)

    # What a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Wakeup], object], *, context: contextvars.Context
    ) -> None:
        """Take what goes on with the task."""
        self._callback, self._context = callback, context
        self.is_waiting = True

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        """Let the task go on with a CancelledError."""
        if not self.is_waiting:
            return False
        self.is_waiting, self._is_cancelled = False, True
        assert self._callback is not None
        self._loop.call_soon(self._callback, self, context=self._context)
        return True

    def result(self) -> None:
        """Return nothing, or raise a CancelledError."""
        self.is_woken = False
        if self._is_cancelled:
            raise asyncio.CancelledError


class WebSocket:
    """Be an open WebSocket: what ``connect`` returns and what ``serve`` gives to its handler.

    Iterating over it gives its messages: text as ``str``, binary as ``bytes``. The iteration ends when the
    connection is closed with 1000, 1001 or no code, and raises ``ConnectionClosed`` when it is closed
    otherwise or lost. Any task may send; one at a time may receive.

    The methods that begin with ``connection_``, ``buffer_``, ``eof_``, ``pause_`` and ``resume_`` and
    ``get_buffer`` are called by the event loop: it is an ``asyncio.BufferedProtocol``, made one by its
    subclasses.
    """

    __slots__ = (
        "__weakref__",
        "_close_timeout",
        "_close_timer",
        "_connection",
        "_corked",
        "_drained",
        "_duplicate",
        "_end",
        "_eof",
        "_input",
        "_is_discarding",
        "_is_flush_scheduled",
        "_is_half_closed",
        "_is_looking_ahead",
        "_is_lost",
        "_is_reading_paused",
        "_is_writing_paused",
        "_local_address",
        "_loop",
        "_lost",
        "_messages",
        "_pieces",
        "_pings",
        "_pongs",
        "_queued",
        "_reader",
        "_remote_address",
        "_sender",
        "_sending",
        "_transport",
    )

    def __init__(self, connection: Connection, close_timeout: float | None) -> None:
        self._connection = connection
        self._close_timeout = close_timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._remote_address: Any = None
        self._local_address: Any = None
        self._lost = self._loop.create_future()
        self._is_lost = False
        self._end: Close | Fail | None = None
        self._eof = False
        self._close_timer: asyncio.TimerHandle | None = None
        # Octets in
        self._input = _shared.input
        self._reader: Wakeup | None = None
        self._messages: list[Text | Binary] = []  # a few: see MAX_QUEUED_MESSAGES
        self._queued = 0
        self._pieces: Pieces | None = None  # whose message is being received
        self._is_looking_ahead = False
        self._is_reading_paused = False
        self._is_discarding = False
        self._pings: dict[bytes, tuple[asyncio.Future[float], float]] = {}
        # Octets out
        self._corked = 0
        self._sending: asyncio.Future[None] | None = None  # done when a fragmented message is sent
        self._sender: asyncio.Task[Any] | None = None  # the task that sends it
        self._pongs = 0
        self._is_flush_scheduled = False
        self._is_half_closed = False
        self._duplicate: socket.socket | None = None
        self._is_writing_paused = False
        self._drained: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<WebSocket {self.state.name} {self.remote_address}>"

    # What it is

    @property
    def state(self) -> State:
        """State.CONNECTING, OPEN, CLOSING or CLOSED."""
        return State.CLOSED if self._is_lost else self._connection.state

    @property
    def request(self) -> Request | None:
        """The client's request, on a server."""
        return getattr(self._connection, "request", None)

    @property
    def response(self) -> Response | None:
        """The server's response, on a client."""
        return getattr(self._connection, "response", None)

    @property
    def path(self) -> str:
        """The resource name: path and query."""
        request = self.request
        return self._connection.uri.resource_name if request is None else request.path  # type: ignore[attr-defined]

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol in use, or None."""
        return self._connection.subprotocol

    @property
    def remote_address(self) -> Any:
        """The peer's address, as ``socket.getpeername`` returns it."""
        return self._remote_address

    @property
    def local_address(self) -> Any:
        """This end's address, as ``socket.getsockname`` returns it."""
        return self._local_address

    @property
    def close_code(self) -> int | None:
        """The status code that the connection ended with; None before that (RFC 6455, 7.1.5)."""
        return None if self._end is None else self._end.code

    @property
    def close_reason(self) -> str | None:
        """The reason that the connection ended with; None before that (RFC 6455, 7.1.6)."""
        return None if self._end is None else self._end.reason

    # Receiving

    async def recv(self, timeout: float | None = None) -> str | bytes:
        """Receive the next message. Cancelling it loses none.

        Args:
            timeout: how many seconds to wait; None: for ever.

        Returns:
            Text as ``str``, binary as ``bytes``.

        Raises:
            ConnectionClosed: the connection ended, and all messages before its end were received.
            TimeoutError: no message came in time.
            RuntimeError: another task is receiving.
        """
        self._check_reader()
        message = self._next_whole()
        if message is None:
            if timeout is None:
                message = await self._receive()
            else:
                async with asyncio.timeout(timeout):
                    message = await self._receive()
        return message.data

    def recv_stream(self) -> Pieces:
        """Receive the next message in pieces, as they arrive: ``async for piece in ws.recv_stream()``.

        The memory that it takes is bounded by what is on the way, not by the message: for a message of any
        size, open the connection with ``max_message_size=None``. Text comes in pieces of ``str``, binary of
        ``bytes``; an empty message is one empty piece. Cancelling it loses nothing: go on with the same
        iterator. What is not received of a message is dropped by the next ``recv`` or ``recv_stream``.

        Its iterator raises what ``recv`` does, also in the middle of a message that does not arrive whole.
        """
        return Pieces(self)

    def _check_reader(self) -> None:
        if self._reader is not None and (self._reader.is_waiting or self._reader.is_woken):
            raise RuntimeError("another task is receiving from this WebSocket already")

    def _next_whole(self) -> Text | Binary | None:
        """Return the next message if all of it is there."""
        message = self._next_message()
        if message is None or (message.final and self._pieces is None):
            return message
        self._put_back(message)
        return None

    async def _receive(self) -> Text | Binary:
        """Wait for a message, and put it together when it comes in pieces."""
        pieces: list[Any] = []
        try:
            while True:
                message = self._next_message()
                if message is None:
                    await self._wait()
                elif self._pieces is not None:
                    # Somebody has received the beginning of it, and does not want the rest.
                    if message.final:
                        self._pieces = None
                elif message.final and not pieces:
                    return message
                else:
                    pieces.append(message.data)
                    if message.final:
                        whole = join_pieces(pieces, True)
                        pieces.clear()
                        return whole
        finally:
            if pieces:  # it was cancelled
                self._put_back(join_pieces(pieces, False))

    async def _receive_piece(self, pieces: Pieces) -> Text | Binary:
        self._check_reader()
        while True:
            if self._pieces is None and not self._messages:
                self._connection.stream_next()
            piece = self._next_message()
            if piece is None:
                await self._wait()
                continue
            if self._pieces is None or self._pieces is pieces:
                self._pieces = None if piece.final else pieces
                return piece
            if piece.final:  # of one that nobody wants any more
                self._pieces = None

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            self._check_reader()
            message = self._next_whole()
            if message is None:
                message = await self._receive()
        except ConnectionClosed as closed:
            if closed.clean and closed.code in CLEAN_CODES:
                raise StopAsyncIteration from None
            raise
        return message.data

    def _next_message(self) -> Text | Binary | None:
        if self._messages:
            message = self._messages.pop(0)
            self._queued -= len(message.data)
            if self._is_reading_paused:
                self._schedule_look_ahead()  # there is room again
            return message
        event = self._pull()
        if event is None and self._end is not None:
            self._flush()
            raise self._closed()
        return event

    def _put_back(self, message: Text | Binary) -> None:
        self._messages.insert(0, message)
        self._queued += len(message.data)

    def _wait(self) -> Wakeup:
        """Wait for octets, or for the end: await what this returns."""
        # Everything that came in was read: now write the answers, and read on.
        self._flush()
        self._resume_reading()
        self._reader = Wakeup(self._loop)
        return self._reader

    def _pull(self) -> Text | Binary | None:
        """Read events up to the next message; None: more octets are needed, or it is over."""
        while event := self._connection.next_event():
            kind = type(event)
            if kind is Text or kind is Binary:
                return event  # type: ignore[return-value]
            if kind is Ping:
                self._schedule_flush()
                if self._is_writing_paused:
                    self._pongs += len(event.payload) + 2  # type: ignore[union-attr]
            elif kind is Pong:
                self._receive_pong(event.payload)  # type: ignore[union-attr]
            elif kind is Close or kind is Fail:
                self._end = event  # type: ignore[assignment]
                self._start_close_timer()
        return None

    def _wake_reader(self) -> None:
        if self._reader is not None:
            self._reader.wake()

    def _schedule_look_ahead(self) -> None:
        if not self._is_looking_ahead:
            self._is_looking_ahead = True
            self._loop.call_soon(self._look_ahead)

    def _look_ahead(self) -> None:
        """Read events ahead of ``recv``, until the queue is full."""
        self._is_looking_ahead = False
        if self._reader is not None and self._reader.is_woken:
            # The task that waits in recv was woken, and has not had its turn yet.
            self._schedule_look_ahead()
            return
        connection = self._connection
        while (
            len(self._messages) < MAX_QUEUED_MESSAGES
            and self._queued + connection.collected < MAX_QUEUED_SIZE
        ):
            if self._is_discarding:
                connection.stream_next()
            message = self._pull()
            if message is None:
                self._resume_reading()
                break
            if self._is_discarding:
                self._drop(message)
            else:
                self._messages.append(message)
                self._queued += len(message.data)
        else:
            self._pause_reading()
        if self._messages or self._end:
            self._wake_reader()
        self._flush()

    def _queued_size(self) -> int:
        return self._queued + self._connection.collected

    def _drop(self, message: Text | Binary) -> None:
        """Drop a message, or a piece of one: then the rest is not wanted either."""
        self._pieces = None if message.final else Pieces(self)

    def _pause_reading(self) -> None:
        if not (self._is_reading_paused or self._eof or self._transport.is_closing()):
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and self._pongs < HIGH_WATER:
            self._is_reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # Sending

    async def send(
        self,
        message: Message | Iterable[Fragment] | AsyncIterable[Fragment],
        *,
        compress: bool | None = None,
    ) -> None:
        """Send a message; waits while more than 64 KiB are unsent.

        An iterable, or asynchronous iterable, goes out as one fragmented message: each of its items as soon
        as it is there. Pings go out in between; other messages wait until it is done. When it raises
        half-way, or this call is cancelled then, the connection is closed with 1011, because the message
        cannot be completed. One without items sends nothing.

        Args:
            message: ``str`` goes out as text, a bytes-like object as binary, an iterable of either as one
                fragmented message, and what ``prepare`` returned as it is.
            compress: whether to compress it, if that is agreed on; None: if it reaches the threshold.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            LocalProtocolError: the text contains a lone surrogate.
            TypeError: the message is none of these, or its items are not all text or all binary.
            RuntimeError: an iterable sends on the connection that it is being sent on.
        """
        if self._is_writing_paused:
            await self._drain()
        if self._sending is not None:
            await self._wait_to_send()
        self._check_open()
        if type(message) is not str and type(message) is not bytes and type(message) is not Prepared:
            if is_fragmented(message):
                await self._send_fragments(message, compress)  # type: ignore[arg-type]
                return
            if not isinstance(message, str):
                message = as_octets(message)  # type: ignore[arg-type]
        size = len(message)
        if size > COMPRESSED_SLICE and self._is_compressed_slowly(message, compress):
            await self._send_slices(prepare(message), compress)  # type: ignore[arg-type]
            return
        self._connection.send_message(message, True, compress)
        self._cork(size)
        if self._is_writing_paused:
            await self._drain()

    def _is_compressed_slowly(self, message: Message, compress: bool | None) -> bool:
        return type(message) is not Prepared and self._connection.compresses(len(message), compress)

    async def _wait_to_send(self) -> None:
        while self._sending is not None:
            if self._sender is current_task():
                raise RuntimeError("a message cannot be sent inside another one")
            await asyncio.shield(self._sending)

    async def _send_fragments(
        self, fragments: Iterable[Fragment] | AsyncIterable[Fragment], compress: bool | None
    ) -> None:
        last: Fragment | None = None
        self._start_sending()
        try:
            async for fragment in _iterate(fragments):
                check_fragment(fragment, last)
                self._check_open()
                self._connection.send_message(fragment, False, compress)
                self._cork(len(fragment))
                last = fragment
                await self._yield()
            if last is not None:
                self._check_open()
                self._connection.send_message(last[:0])
                self._cork(0)
        except BaseException as error:
            if last is not None:
                self._abandon(error)
            raise
        finally:
            self._stop_sending()

    async def _send_slices(self, message: Prepared, compress: bool | None) -> None:
        """Send a message in fragments that each take little time to compress."""
        is_text = message.opcode == TEXT
        send = self._connection.send_text if is_text else self._connection.send_binary
        octets = memoryview(message.payload)
        self._start_sending()
        try:
            while octets:
                self._check_open()
                send(octets[:COMPRESSED_SLICE], len(octets) <= COMPRESSED_SLICE, compress=compress)
                octets = octets[COMPRESSED_SLICE:]
                self._cork(COMPRESSED_SLICE)
                await self._yield()
        except asyncio.CancelledError:
            # The message is not lost by that.
            if octets and self.state is OPEN:
                send(octets, compress=compress)
                self._flush()
            raise
        finally:
            self._stop_sending()

    def _start_sending(self) -> None:
        self._sending = self._loop.create_future()
        self._sender = current_task()

    def _stop_sending(self) -> None:
        assert self._sending is not None
        self._sending.set_result(None)
        self._sending = self._sender = None

    def _abandon(self, error: BaseException) -> None:
        """Close the connection, because a message cannot be completed."""
        if self._connection.state is OPEN and not self._is_lost:
            self._connection.send_close(1011, ABANDONED)
            self._start_close_timer()
            self._flush()
            error.add_note(f"wsframe closed the connection with 1011: {ABANDONED}")

    async def _yield(self) -> None:
        """Let others have a turn, and the peer time to read."""
        if self._is_writing_paused:
            await self._drain()
        else:
            await asyncio.sleep(0)

    async def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a Ping and wait for its Pong.

        The Pong is read when there is room for the messages before it: 16 of them, and 1 MiB. When more
        came, somebody has to receive them.

        Args:
            payload: up to 125 octets; by default 4 random ones.
            timeout: how many seconds to wait; None: for ever.

        Returns:
            The round trip, in seconds.

        Raises:
            ConnectionClosed: the connection is closing or closed, or ended before the Pong.
            LocalProtocolError: the payload is too long, or the same one is waited for already.
            TimeoutError: it did not come in time.
        """
        self._check_open()
        payload = os.urandom(4) if payload is None else bytes(memoryview(payload))
        if payload in self._pings:
            raise LocalProtocolError("a ping with this payload is waiting for its pong already")
        self._connection.send_ping(payload)
        pong: asyncio.Future[float] = self._loop.create_future()
        self._pings[payload] = (pong, perf_counter())
        self._flush()
        try:
            async with asyncio.timeout(timeout):
                return await pong
        finally:
            self._pings.pop(payload, None)

    def _receive_pong(self, payload: bytes) -> None:
        if payload not in self._pings:
            return  # Section 5.5.3: "A response to an unsolicited Pong frame is not expected."
        # The peer may answer only the latest of several Pings: that answers the earlier ones as well.
        now = perf_counter()
        for earlier in list(self._pings):
            pong, sent = self._pings.pop(earlier)
            if not pong.done():
                pong.set_result(now - sent)
            if earlier == payload:
                break

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until it is closed.

        Messages that still come are dropped, unless another task receives them.

        It does nothing more than wait when the connection is closing or closed already.

        Args:
            code: the status code: 1000 to 1003, 1007 to 1014, 3000 to 4999, or 1005 for none.
            reason: up to 123 octets of UTF-8.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
            TypeError: the code is not an int, or the reason not a string.
        """
        if self._connection.state is OPEN and not self._is_lost:
            self._connection.send_close(code, reason)
            self._start_close_timer()
        self._is_discarding = True
        if self._messages:
            self._drop(self._messages[-1])
        self._messages.clear()
        self._queued = 0
        self._look_ahead()
        self._resume_reading()
        await self.wait_closed()

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed, which ``close`` or receiving up to its end sees to.

        Args:
            timeout: how many seconds to wait; None: for ever.

        Raises:
            TimeoutError: it is not closed in time.
        """
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._lost)

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._connection.state is not OPEN or self._is_lost:
            raise self._closed()

    def _closed(self) -> ConnectionClosed:
        if self._end is not None:
            return ConnectionClosed(self._end.code, self._end.reason, type(self._end) is Close)
        sent = self._connection.close_sent
        if sent is not None and not self._is_lost:
            return ConnectionClosed(sent.code, sent.reason)
        return ConnectionClosed(1006, "connection was lost")

    def _cork(self, size: int) -> None:
        self._corked += size
        if self._corked >= HIGH_WATER or not (self._messages or self._connection.has_unread()):
            self._flush()
        else:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._is_flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        """Write what the Connection has to send, and close when it says so."""
        connection = self._connection
        self._corked = 0
        if connection.has_unsent():
            chunks = connection.chunks_to_send()
            transport = self._transport
            if transport.is_closing():
                pass  # nobody reads it
            elif len(chunks) == 1:
                transport.write(chunks[0])
            elif max(map(len, chunks)) < HIGH_WATER:
                transport.write(b"".join(chunks))
            else:
                # Not writelines(), which on some versions of Python never calls pause_writing().
                for chunk in chunks:
                    transport.write(chunk)
        if connection.should_close:
            self._close_transport()
        elif self._pongs >= HIGH_WATER:
            # The peer sends Pings, and does not read our Pongs.
            self._pause_reading()

    async def _drain(self) -> None:
        while self._is_writing_paused and not self._is_lost:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                self._drained.remove(waiter)

    # Closing

    def _close_transport(self) -> None:
        """Close the TCP connection so that the peer reads all that was written.

        Closing a socket that has unread octets resets the connection, and the reset overtakes our Close.
        So close one direction, and drop what comes until the peer closes the other (section 7.1.1).
        """
        self._start_close_timer()
        transport = self._transport
        if self._eof:
            transport.close()
        elif not self._is_half_closed and not transport.is_closing():
            self._is_half_closed = True
            self._resume_reading()
            if transport.can_write_eof():
                with suppress(OSError):  # the peer was faster, and has reset the connection
                    transport.write_eof()
            elif self._connection.close_received is None:
                # TLS can't close one direction without losing what comes in the other: TCP can. On a
                # duplicate, because event loops keep their sockets to themselves.
                sock = transport.get_extra_info("socket")
                self._duplicate = socket.socket(fileno=socket.dup(sock.fileno()))
                self._loop.add_writer(self._duplicate, self._shut_down)
            else:
                transport.close()

    def _shut_down(self) -> None:
        # What was written under TLS is on its way when the socket can take more.
        # asyncio's TLS transport counts what it has not passed on, but not what the one below has not sent.
        below = getattr(getattr(self._transport, "_ssl_protocol", None), "_transport", None)
        if below is not None and below.get_write_buffer_size():
            return
        if self._duplicate is not None and not self._transport.get_write_buffer_size():
            with suppress(OSError):
                self._duplicate.shutdown(socket.SHUT_WR)
            self._forget_duplicate()

    def _forget_duplicate(self) -> None:
        if self._duplicate is not None:
            self._loop.remove_writer(self._duplicate)
            self._duplicate.close()
            self._duplicate = None

    def _start_close_timer(self) -> None:
        if self._close_timer is None and self._close_timeout is not None and not self._is_lost:
            self._close_timer = self._loop.call_later(self._close_timeout, self._transport.abort)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by the event loop)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by name
        self._transport.set_write_buffer_limits(HIGH_WATER)
        # A closed transport does not always know them.
        self._remote_address = transport.get_extra_info("peername")
        self._local_address = transport.get_extra_info("sockname")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where octets off the network go (called by the event loop)."""
        # TLS asks for room for all that it has, and asyncio drops at the end of the stream what found none.
        if sizehint > len(self._input.octets):
            self._input.grow(sizehint)
        return self._input.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take octets off the network (called by the event loop)."""
        self._connection.receive_data(masking.take(self._input.octets, 0, nbytes))
        self._read_on()
        if not self._is_discarding and self._connection.unread > HIGH_WATER * 4:
            # Some loops read on and on before anybody else has a turn. Not while closing: uvloop drops what
            # it holds of a paused TLS connection, perhaps the Close, when TCP ends without a close_notify.
            self._pause_reading()

    def eof_received(self) -> bool:
        """Take the end of the stream (called by the event loop)."""
        self._eof = True
        self._connection.receive_data(b"")
        self._read_on()
        # Keep the transport open for the answers that are still to come; TLS can't.
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End (called by the event loop)."""
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._forget_duplicate()
        if not self._eof:
            self._eof = True
            self._connection.receive_data(b"")
        self._is_lost = True
        self._lost.set_result(None)
        self.resume_writing()
        self._read_on()
        for pong, _ in self._pings.values():
            if not pong.done():
                pong.set_exception(self._closed())
        self._pings.clear()

    def pause_writing(self) -> None:
        """Stop sending: more than 64 KiB are unsent (called by the event loop)."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Go on sending (called by the event loop)."""
        self._is_writing_paused = False
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        if self._pongs:
            self._pongs = 0
            if not self._messages:
                self._resume_reading()

    def _read_on(self) -> None:
        """Read what came in: see the rules above."""
        if self._connection.state is CONNECTING:
            self._read_handshake()
            if self._connection.state is CONNECTING:
                return
            if self._connection.state is not OPEN:
                self._flush()
                return
        reader = self._reader
        if reader is not None and reader.is_waiting:
            message = self._pull()
            if message is not None:
                self._put_back(message)
            if message is not None or self._end is not None:
                reader.wake()
            if not self._connection.has_unread() and not self._eof:
                self._flush()
                return
        self._schedule_look_ahead()

    def start(self) -> None:
        """Begin to receive when the opening handshake is over, and write what it has to say."""
        self._flush()
        self._resume_reading()
        self._read_on()

    def _read_handshake(self) -> None:
        """Go on with the opening handshake. The client and the server say how."""
        raise NotImplementedError


class Pieces:
    """Iterate over the pieces of one message: what ``recv_stream`` returns."""

    __slots__ = ("_is_begun", "_is_over", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._is_begun = False
        self._is_over = False

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str | bytes:
        if self._is_over:
            raise StopAsyncIteration
        if self._is_begun and self._websocket._pieces is not self:
            raise RuntimeError("the rest of this message was dropped by another recv, or by close")
        piece = await self._websocket._receive_piece(self)
        self._is_over = piece.final
        if self._is_begun and not piece.data:
            raise StopAsyncIteration  # the last fragment was empty
        self._is_begun = True
        return piece.data


async def _iterate(fragments: Iterable[Fragment] | AsyncIterable[Fragment]) -> AsyncIterator[Fragment]:
    if isinstance(fragments, AsyncIterable):
        async for fragment in fragments:
            yield fragment
    else:
        for fragment in fragments:
            yield fragment
