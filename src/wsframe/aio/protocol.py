"""What a WebSocket on asyncio does in a turn of the loop: a transport and a Connection.

    transport -- buffer_updated --> Connection -- next_event --> recv()
    transport <-- write -- _flush <-- Connection <-- send_* -- send()

Nothing here waits; connection.py has what does. Three rules decide when the next event is read:

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
import gc
import itertools
import logging
import socket
import threading
from asyncio import current_task
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any, cast

from ..connection import Connection, Role, State
from ..counters import Counters
from ..errors import ConnectionClosed
from ..events import Binary, Close, Fail, Ping, Pong, Text, size_in_memory
from ..keepalive import Pings
from ..log import ConnectionLogger, FrameLog
from ..prepared import Prepared

__all__ = ["Protocol", "Wakeup"]

logger = logging.getLogger("wsframe.aio")

OPEN, CONNECTING = State.OPEN, State.CONNECTING
MAX_QUEUED_MESSAGES = 16
MAX_QUEUED_SIZE = 2**20  # bytes of memory
# Measured with messages of 64 KiB and 1 MiB: a system call costs more than a copy of what it writes or reads,
# up to these sizes, in octets.
LARGE = 262144
READ_SIZE = 262144
HIGH_WATER = 65536  # octets of unsent output
# Who sends and sends, and does not receive, lets others have a turn after that many octets; a message counts
# as some more.
BURST = 262144
MESSAGE_COST = 2048
# How many bytes a frame that waits to be written counts besides its payload, so that empty ones count too.
FRAME_COST = 16
# The same for a message that is broadcast and waits for the end of a fragmented message. Measured, it takes
# 136 bytes, and 640 when it was encoded for other connections too.
POSTED_COST = 512
MOMENT = 0.05  # seconds
NOBODY = object()
_ids = itertools.count(1)


class Input:
    """Hold what the connections of a thread receive into: an idle one has no memory for what may come.

    Event loops fill it and say so before they do anything else, and what is not read then is copied.

    Attributes:
        octets: the buffer.
        buffer: a view of it.
        is_borrowed: whether a Connection reads from it.
    """

    __slots__ = ("buffer", "is_borrowed", "octets")

    def __init__(self) -> None:
        self.renew(READ_SIZE)

    def renew(self, size: int) -> None:
        """Leave the buffer to whoever has it, and have another one."""
        self.octets = bytearray(size)
        self.buffer = memoryview(self.octets)
        self.is_borrowed = False


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


def transport_below(transport: asyncio.Transport) -> asyncio.WriteTransport | None:
    """Return the transport that a TLS transport writes to.

    A TLS transport counts what it has not passed on, but not what the one below has not sent, and tells
    nobody which that is. asyncio's attributes do; uvloop's can be seen by the garbage collector alone.
    """
    layer = getattr(transport, "_ssl_protocol", None)
    if layer is not None:
        return cast(asyncio.WriteTransport, layer._transport)
    for layer in gc.get_referents(transport):
        if hasattr(layer, "resume_writing"):
            for below in gc.get_referents(layer):
                if below is not transport and hasattr(below, "get_write_buffer_size"):
                    return cast(asyncio.WriteTransport, below)
    return None


def set_nodelay(transport: asyncio.BaseTransport) -> None:
    """Switch off Nagle's algorithm: what leaves in two writes must not wait for the peer's delayed ACK.

    asyncio does so only where the socket object has the number of the protocol. ``socket.socket(AF_INET)``
    has not, and neither have the sockets that it accepts.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # A Unix socket has no such option. The family does not tell: under uvicorn's --fd it is wrong. And
        # some systems say EINVAL when the peer has reset the connection already.
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def join_small(chunks: list[bytes]) -> Iterator[bytes]:
    """Join what is cheaper to copy than to write by itself."""
    small: list[bytes] = []
    for chunk in chunks:
        if len(chunk) < LARGE:
            small.append(chunk)
            continue
        if small:
            yield b"".join(small)
            small.clear()
        yield chunk
    if small:
        yield b"".join(small)


class Protocol:
    """Be the part of a WebSocket that the event loop calls.

    With ``asyncio.BufferedProtocol`` beside it among the bases of a class, it is one.
    """

    __slots__ = (
        "__weakref__",
        "_burst",
        "_close_callbacks",
        "_close_timeout",
        "_close_timer",
        "_closers",
        "_connection",
        "_corked",
        "_drained",
        "_duplicate",
        "_end",
        "_eof",
        "_frame_log",
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
        "_max_queued_messages",
        "_messages",
        "_messages_received",
        "_messages_sent",
        "_octets_received",
        "_octets_sent",
        "_outbox",
        "_outbox_size",
        "_pieces",
        "_ping_interval",
        "_ping_timeout",
        "_ping_timer",
        "_pings",
        "_pings_received",
        "_pings_sent",
        "_pongs",
        "_queued",
        "_reader",
        "_remote_address",
        "_round_trips",
        "_sender",
        "_sending",
        "_transport",
        "id",
    )

    def __init__(
        self,
        connection: Connection,
        close_timeout: float | None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
    ) -> None:
        self._connection = connection
        self._close_timeout = close_timeout
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self.id = next(_ids)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._remote_address: Any = None
        self._local_address: Any = None
        self._closers: list[asyncio.Future[None]] = []  # of those who wait until it is lost
        self._close_callbacks: tuple[Callable[..., object], ...] = ()
        self._is_lost = False
        self._end: Close | Fail | None = None
        self._eof = False
        self._close_timer: asyncio.TimerHandle | None = None
        # Octets in
        self._input = _shared.input
        self._reader: Wakeup | None = None
        self._max_queued_messages = MAX_QUEUED_MESSAGES
        self._messages: list[Text | Binary] = []
        self._queued = 0
        self._pieces: object = None  # whose message is being received, or NOBODY
        self._is_looking_ahead = False
        self._is_reading_paused = False
        self._is_discarding = False
        self._octets_received = 0
        self._messages_received = 0
        self._pings_received = 0
        self._frame_log: FrameLog | None = None
        # Keepalive
        self._pings: Pings | None = None  # until there are any
        self._round_trips: dict[bytes, asyncio.Future[float]] | None = (
            None  # of the pings that ping() waits for
        )
        self._ping_timer: asyncio.TimerHandle | None = None
        # Octets out
        self._corked = 0
        self._burst = 0
        self._octets_sent = 0
        self._messages_sent = 0
        self._pings_sent = 0
        self._outbox: list[Prepared] = []  # what is broadcast while a fragmented message is sent
        self._outbox_size = 0  # the bytes of their payloads
        self._sending: asyncio.Future[None] | None = None  # done when a fragmented message is sent
        self._sender: asyncio.Task[Any] | None = None  # the task that sends it
        self._pongs = 0
        self._is_flush_scheduled = False
        self._is_half_closed = False
        self._duplicate: socket.socket | None = None
        self._is_writing_paused = False
        self._drained: list[asyncio.Future[None]] = []

    # Octets in

    def _check_reader(self) -> None:
        if self._reader is not None and (self._reader.is_waiting or self._reader.is_woken):
            raise RuntimeError("another task is receiving from this WebSocket already")

    def _next_whole(self) -> Text | Binary | None:
        """Return the next message if all of it is there."""
        self._check_reader()
        message = self._next_message()
        if message is None or (message.final and self._pieces is None):
            return message
        self._put_back(message)
        return None

    def _next_message(self) -> Text | Binary | None:
        self._burst = 0
        if self._messages:
            message = self._messages.pop(0)
            self._queued -= size_in_memory(message.data)
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
        self._queued += size_in_memory(message.data)

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
                if self._end is not None:
                    continue  # this end has closed the connection, and wants no more
                self._messages_received += not self._connection._as_pieces  # and so it is a final one
                return event  # type: ignore[return-value]
            if kind is Ping:
                self._pings_received += 1
                self._schedule_flush()
                self._pongs += len(event.payload) + 2  # type: ignore[union-attr]
            elif kind is Pong:
                self._receive_pong(event.payload)  # type: ignore[union-attr]
            elif kind is Close or kind is Fail:
                if self._end is None:
                    self._end = event  # type: ignore[assignment]
                self._start_close_timer()
        return None

    def _schedule_look_ahead(self) -> None:
        if not self._is_looking_ahead:
            self._is_looking_ahead = True
            self._loop.call_soon(self._look_ahead)

    def _look_ahead(self) -> None:
        """Read events ahead of ``recv``, until the queue is full."""
        self._is_looking_ahead = False
        reader = self._reader
        if reader is not None and reader.is_woken:
            # The task that waits in recv was woken, and has not had its turn yet.
            self._schedule_look_ahead()
            return
        if reader is not None and reader.is_waiting:
            # It has read all that is there, and wants the rest of its message, however large.
            self._flush()
            return
        connection = self._connection
        while (
            len(self._messages) < self._max_queued_messages
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
                self._queued += size_in_memory(message.data)
        else:
            self._pause_reading()
        self._flush()

    def _discard(self) -> None:
        """Drop what was received and what will be, unless a task waits for it."""
        self._is_discarding = True
        if self._messages:
            self._drop(self._messages[-1])
        self._messages.clear()
        self._queued = 0
        self._look_ahead()
        self._resume_reading()

    def _drop(self, message: Text | Binary) -> None:
        """Drop a message, or a piece of one: then the rest is not wanted either."""
        self._pieces = None if message.final else NOBODY

    def _pause_reading(self) -> None:
        if not (self._is_reading_paused or self._eof or self._transport.is_closing()):
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and self._pongs < HIGH_WATER:
            self._is_reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # Keepalive

    def _keep_alive(self) -> None:
        """Send a Ping, or fail the connection because the last one was not answered."""
        pings = self._pings
        if pings is None or self._is_lost or self._connection.state is not OPEN:
            return
        connection = self._connection
        now = perf_counter()
        # What the peer sent fills the queue, and is not received. That it does not read Pongs is its fault.
        is_held_up = self._is_reading_paused and self._pongs < HIGH_WATER
        read = self._octets_received - connection.unread
        try:
            payload = pings.look(now, read, connection.frame_remaining, is_held_up)
        except TimeoutError as error:
            self._fail(1011, str(error))
            return
        if payload is not None:
            self._send_ping(payload)
        if pings.due is not None:
            self._ping_timer = self._loop.call_later(max(0, pings.due - now), self._keep_alive)

    def _send_ping(self, payload: bytes) -> None:
        self._connection.send_ping(payload)
        self._pings_sent += 1
        self._flush()

    def _receive_pong(self, payload: bytes) -> None:
        if self._pings is None:
            return  # Section 5.5.3: "A response to an unsolicited Pong frame is not expected."
        for answered, seconds in self._pings.answer(payload, perf_counter()).items():
            waiter = (self._round_trips or {}).pop(answered, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(seconds)

    def _fail_pings(self) -> None:
        for waiter in (self._round_trips or {}).values():
            if not waiter.done():
                waiter.set_exception(self._closed())
        self._round_trips = None

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection for a reason of ours."""
        self._finish(self._connection.fail(code, reason))
        self._fail_pings()
        self._flush()

    def _finish(self, end: Close | Fail) -> None:
        """Let ``recv`` say that it is over, once it has returned what is queued."""
        self._end = end
        if self._reader is not None:
            self._reader.wake()

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
        if self._connection.has_unread() or (self._eof and not self._connection._over):
            self._schedule_look_ahead()
        else:
            self._flush()

    def start(self) -> None:
        """Begin to receive when the opening handshake is over, and write what it has to say."""
        self._flush()
        self._resume_reading()
        self._read_on()

    @property
    def logger(self) -> ConnectionLogger:
        """What logs under the connection's ``id``."""
        return ConnectionLogger(logger, self.id)

    @property
    def counters(self) -> Counters:
        """What happened on this connection so far, in numbers."""
        connection = self._connection
        is_opened = not connection._in_handshake
        return Counters(
            int(is_opened),
            int(is_opened and self._is_lost and connection.close_received is None),
            self._messages_received,
            self._messages_sent,
            self._octets_received,
            self._octets_sent,
            self._pings_received,
            self._pings_sent,
            connection.uncompressed,
            connection.compressed,
        )

    def _read_handshake(self) -> None:
        """Go on with the opening handshake. The client and the server say how."""
        raise NotImplementedError

    # Octets out

    def _send_at_once(self, message: object, compress: bool | None) -> bool:
        """Send a message, if that takes no waiting and no looking at what it is."""
        if self._is_writing_paused or self._sending is not None:
            return False
        kind = type(message)
        if kind is not str and kind is not bytes and kind is not Prepared:
            return False
        size = len(message)  # type: ignore[arg-type]
        if size >= HIGH_WATER:
            return False
        self._check_open()
        self._connection.send_message(message, True, compress)  # type: ignore[arg-type]
        self._messages_sent += 1
        self._burst += size + MESSAGE_COST
        self._cork(size)
        return True

    def _post(self, message: Prepared, max_buffered: int) -> bool:
        """Send a message without waiting; False: too much waits already."""
        if self._connection.state is not OPEN or self._is_lost:
            return True
        # As long as writing is not paused, less than HIGH_WATER waits.
        if (self._is_writing_paused or self._outbox or max_buffered < HIGH_WATER) and (
            self._outbox_size + len(self._outbox) * POSTED_COST + self._corked
            >= max_buffered - self._transport.get_write_buffer_size()
        ):
            return False
        self._messages_sent += 1
        if self._sending is not None:
            self._outbox.append(message)
            self._outbox_size += len(message)
        else:
            self._connection.send_prepared(message)
            self._cork(len(message))
        return True

    def _post_outbox(self) -> None:
        """Send what was posted while a fragmented message was being sent."""
        outbox, self._outbox, self._outbox_size = self._outbox, [], 0
        for message in outbox:
            if self._connection.state is OPEN and not self._is_lost:
                self._connection.send_prepared(message)
                self._cork(len(message))

    @property
    def buffered_amount(self) -> int:
        """How many octets were sent, and not yet taken by the system, as far as the event loop knows."""
        if self._is_lost:
            return 0
        waiting = self._outbox_size + self._connection.unsent
        return waiting + self._transport.get_write_buffer_size()

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
        self._corked += size + FRAME_COST
        if self._corked >= HIGH_WATER or not (self._messages or self._connection.has_unread()):
            self._flush()
        else:
            self._schedule_flush()

    def _collect(self, size: int) -> None:
        """Write what was sent of a message when 64 KiB of it are there; more of it follows."""
        self._corked += size
        if self._corked >= HIGH_WATER:
            self._flush()

    def _schedule_flush(self) -> None:
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._is_flush_scheduled = False
        self._flush()

    def _forget_pongs(self) -> None:
        """Read on, if it was paused because of Pongs, and they are written."""
        if self._pongs >= HIGH_WATER and not self._is_writing_paused:
            self._pongs = 0
            if not self._messages:
                self._resume_reading()

    def _flush(self) -> None:
        """Write what the Connection has to send, and close when it says so."""
        connection = self._connection
        # While writing is paused, 64 KiB wait here for one write: what a transport holds of many small ones
        # takes long to add up, which asyncio's do with each (since 3.12).
        is_held = self._is_writing_paused and self._corked < HIGH_WATER
        if connection.has_unsent() and (not is_held or connection.should_close):
            self._corked = 0
            chunks = connection.chunks_to_send()
            transport = self._transport
            size = len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
            self._octets_sent += size
            if self._frame_log is not None:
                for chunk in chunks:
                    self._frame_log.sent(chunk)
            if transport.is_closing():
                # Nobody reads it. Who sends must wait, or there is no next turn, which tells of the loss.
                self._is_writing_paused = not self._is_lost
            elif len(chunks) == 1:
                transport.write(chunks[0])
            elif size < LARGE:
                transport.write(b"".join(chunks))
            else:
                # Not writelines(), which on some versions of Python never calls pause_writing().
                for joined in join_small(chunks):
                    transport.write(joined)
        if connection.should_close:
            self._close_transport()
        elif self._pongs >= HIGH_WATER:
            # Perhaps the peer sends Pings, and does not read our Pongs. asyncio has told so when they were
            # written; uvloop writes at the end of its turn, and tells in the next.
            self._pause_reading()
            self._loop.call_soon(self._loop.call_soon, self._forget_pongs)

    def _flush_now(self) -> None:
        self._flush()

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
                self._shut_down_later()
            else:
                transport.close()

    def _shut_down_later(self) -> None:
        """Close one direction below TLS, when all that was written under TLS is on its way.

        TLS can't do that without losing what comes in the other direction: TCP can. On a duplicate, because
        event loops keep their sockets to themselves.
        """
        sock = self._transport.get_extra_info("socket")
        try:
            duplicate = socket.socket(fileno=socket.dup(sock.fileno()))
        except OSError:  # there are no file descriptors left
            self._transport.close()
            return
        try:
            self._loop.add_writer(duplicate, self._shut_down)
        except NotImplementedError:  # Windows' loop
            duplicate.close()
            self._shut_down_by_polling()
        else:
            self._duplicate = duplicate

    def _shut_down(self) -> None:
        # The socket can take more.
        if self._duplicate is not None and self._has_written_all():
            with suppress(OSError):
                self._duplicate.shutdown(socket.SHUT_WR)
            self._forget_duplicate()

    def _shut_down_by_polling(self) -> None:
        if self._is_lost:
            return
        if self._has_written_all():
            with suppress(OSError):
                self._transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        else:
            self._loop.call_later(MOMENT, self._shut_down_by_polling)

    def _has_written_all(self) -> bool:
        """Tell whether neither TLS nor the transport below it holds anything."""
        below = transport_below(self._transport)
        waits_below = below is not None and below.get_write_buffer_size() > 0
        return not (self._transport.get_write_buffer_size() or waits_below)

    def _forget_duplicate(self) -> None:
        if self._duplicate is not None:
            self._loop.remove_writer(self._duplicate)
            self._duplicate.close()
            self._duplicate = None

    def _start_close(self, code: int, reason: str) -> None:
        """Begin to close the connection, if it is open."""
        if self._connection.state is OPEN and not self._is_lost:
            self._connection.send_close(code, reason)
            self._start_close_timer()
            self._flush()

    def _start_close_timer(self) -> None:
        if self._close_timer is None and self._close_timeout is not None and not self._is_lost:
            self._close_timer = self._loop.call_later(self._close_timeout, self._transport.abort)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by the event loop)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by name
        self._transport.set_write_buffer_limits(HIGH_WATER)
        set_nodelay(transport)
        # A closed transport does not always know them.
        self._remote_address = transport.get_extra_info("peername")
        self._local_address = transport.get_extra_info("sockname")
        if logger.isEnabledFor(logging.DEBUG):
            is_client = self._connection.role is Role.CLIENT
            self._frame_log = FrameLog(self.logger.debug, is_client=is_client)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where octets off the network go (called by the event loop)."""
        # TLS asks for room for all that it has, and asyncio drops at the end of the stream what found none.
        source = self._input
        if source.is_borrowed or sizehint > len(source.octets):
            source.renew(max(sizehint, READ_SIZE))
        return source.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take octets off the network (called by the event loop)."""
        if self._eof:
            return  # Windows' loop says what it had read when the transport was closed
        source = self._input
        self._octets_received += nbytes
        if self._frame_log is not None:
            self._frame_log.received(bytes(source.buffer[:nbytes]))
        source.is_borrowed = True
        self._connection.borrow(source.octets, nbytes)
        self._read_on()
        self._connection.give_back()
        source.is_borrowed = False
        if not self._is_discarding and self._connection.unread > HIGH_WATER * 4:
            # Some loops read on and on before anybody else has a turn. Not while closing: uvloop drops what
            # it holds of a paused TLS connection, perhaps the Close, when TCP ends without a close_notify.
            self._pause_reading()
        elif self._pongs >= HIGH_WATER:
            self._flush()

    def eof_received(self) -> bool:
        """Take the end of the stream (called by the event loop)."""
        self._eof = True
        self._connection.receive_data(b"")
        self._read_on()
        # Keep the transport open for the answers that are still to come; TLS can't.
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End (called by the event loop)."""
        for timer in (self._close_timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
        self._forget_duplicate()
        if not self._eof:
            self._eof = True
            self._connection.receive_data(b"")
        self._is_lost = True
        for closer in self._closers:
            if not closer.done():
                closer.set_result(None)
        for callback in self._close_callbacks:
            self._loop.call_soon(callback, self)
        self._close_callbacks = ()
        self.resume_writing()
        self._read_on()
        self._fail_pings()
        if logger.isEnabledFor(logging.INFO) and not self._connection._in_handshake:
            self.logger.closed(self._closed())

    def pause_writing(self) -> None:
        """Stop sending: more than 64 KiB are unsent (called by the event loop)."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Go on sending (called by the event loop)."""
        self._is_writing_paused = False
        if self._connection.has_unsent():
            self._flush()
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        self._forget_pongs()
