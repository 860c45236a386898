"""What the event loop calls: a transport, a session, and the rules that decide when to read and write.

    transport -- buffer_updated --> Session -- take_message --> recv()
    transport <-- write -- flush <-- Session <-- send -- send()

Nothing here waits; websocket.py has the calls that do. Three rules decide when the next event is read:

1. ``recv`` takes the next message straight from the session whenever bytes are there. A batch of frames that
   arrived in one read costs one wake-up.
2. Bytes that arrive while a task waits in ``recv`` wake the task, and it has its turn before anything reads
   further ahead. So its answer goes out before a Close that came in the same packet is acted on. It has its
   turn at once, not after another trip through the loop: see ``Wakeup``.
3. Bytes that arrive while no task waits are read ahead of ``recv``: Pings are answered, messages are queued.
   When the queue is full the transport is paused, and the Connection holds what is left over.

Two rules decide when bytes are written. A ``send`` is written at once if no received bytes wait to be read.
Otherwise output is collected until ``recv`` has to wait, the loop's turn ends or 64 KiB are there.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import socket
import threading
from asyncio import current_task
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any, cast

from ..adapter.options import Timing
from ..adapter.session import MAX_QUEUE, PieceReader, Session
from ..adapter.sockets import set_nodelay
from ..connection import Connection, State
from ..events import Binary, Close, Fail, Text
from ..prepared import Prepared

__all__ = ["Protocol", "Wakeup"]

logger = logging.getLogger("wsframe.aio")

OPEN, CONNECTING = State.OPEN, State.CONNECTING
# Measured with messages of 64 KiB and 1 MiB: a system call costs more than a copy of what it writes or reads,
# up to these sizes, in bytes.
LARGE = 262144
READ_SIZE = 262144
HIGH_WATER = 65536  # bytes of unsent output
# A task that sends without ever receiving lets other tasks have a turn after this many bytes. A message
# counts as some more.
BURST = 262144
MESSAGE_COST = 2048
# What a frame that waits to be written counts besides its payload, in bytes, so that empty ones count too.
FRAME_COST = 16
# The same for a message that is broadcast and waits for the end of a fragmented message. Measured, it takes
# 136 bytes, and 640 when it was encoded for other connections too.
POSTED_COST = 512
MOMENT = 0.05  # seconds


class ReadBuffer:
    """The memory that all connections of a thread receive into, so that an idle one needs none.

    An event loop fills it and calls ``buffer_updated`` before it does anything else. Bytes that the
    Connection has not read by then are copied.

    Attributes:
        data: the buffer.
        buffer: a view of it.
        is_borrowed: whether a Connection reads from it.
    """

    __slots__ = ("buffer", "data", "is_borrowed")

    def __init__(self) -> None:
        self.renew(READ_SIZE)

    def renew(self, size: int) -> None:
        """Leave the buffer to the Connection that reads from it, and make another one."""
        self.data = bytearray(size)
        self.buffer = memoryview(self.data)
        self.is_borrowed = False


class _Shared(threading.local):
    def __init__(self) -> None:
        self.read_buffer = ReadBuffer()


_shared = _Shared()


class Wakeup:
    """A future whose task goes on as soon as it is done, not in the next turn of the loop.

    The event loop calls us with the bytes that it read, and no task runs meanwhile. So the task that waits
    for them can run at once.

    Args:
        loop: the event loop.

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

    # Called by the task, as it calls a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._loop

    def add_done_callback(
        self, callback: Callable[[Wakeup], object], *, context: contextvars.Context
    ) -> None:
        """Take the callback that lets the task go on."""
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

    A TLS transport counts the bytes that it has not passed on, but not those that the transport below has not
    sent. It has no public attribute for that transport. asyncio has a private one. uvloop's is visible to the
    garbage collector alone.
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


def wake_all(waiters: tuple[asyncio.Future[None], ...]) -> None:
    """Let the tasks that wait go on.

    Args:
        waiters: the futures that they await.
    """
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


class Protocol:
    """The part of a WebSocket that the event loop calls.

    Together with ``asyncio.BufferedProtocol`` among the bases of a class, it is an asyncio protocol.

    Args:
        connection: the Connection, which may still be in the opening handshake.
        timing: the time limits.
        max_queue: the most messages that are read ahead of ``recv``; by default 16.

    Attributes:
        session: the life of the connection.
        transport: the transport, from ``connection_made`` on.
    """

    __slots__ = (
        "__weakref__",
        "_burst",
        "_close_callbacks",
        "_close_waiters",
        "_corked",
        "_drain_waiters",
        "_duplicate",
        "_is_closing",
        "_is_flush_scheduled",
        "_is_looking_ahead",
        "_is_reading_paused",
        "_is_writing_paused",
        "_loop",
        "_outbox",
        "_outbox_size",
        "_read_buffer",
        "_sender",
        "_sending",
        "_timer",
        "_timer_due",
        "_waiter",
        "session",
        "transport",
    )

    def __init__(
        self,
        connection: Connection,
        timing: Timing,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.session = Session(connection, logger, perf_counter, timing, max_queue)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._close_callbacks: tuple[Callable[..., object], ...] = ()
        self._close_waiters: tuple[asyncio.Future[None], ...] = ()  # done when TCP is closed
        # In
        self._read_buffer = _shared.read_buffer
        self._waiter: Wakeup | None = None  # of the task in recv
        self._is_looking_ahead = False
        self._is_reading_paused = False
        # Out
        self._corked = 0
        self._burst = 0
        self._outbox: list[Prepared] = []  # broadcast messages that wait for the end of a fragmented message
        self._outbox_size = 0  # the bytes of their payloads
        self._sending: asyncio.Future[None] | None = None  # done when a fragmented message is sent
        self._sender: asyncio.Task[Any] | None = None  # the task that sends it
        self._is_flush_scheduled = False
        self._is_writing_paused = False
        self._drain_waiters: tuple[asyncio.Future[None], ...] = ()
        self._is_closing = False
        self._duplicate: socket.socket | None = None

    # Bytes in

    def _take(self, reader: PieceReader | None = None) -> Text | Binary | None:
        """Take the next message if all of it is there, or the next piece for a reader.

        Raises:
            ConnectionClosed: the connection is over.
            RuntimeError: another task is receiving, or has dropped the rest of the reader's message.
        """
        if self._waiter is not None:
            if self._waiter.is_waiting or self._waiter.is_woken:
                raise RuntimeError("another task is receiving from this WebSocket already")
            self._waiter = None
        session = self.session
        message = session.take_message() if reader is None else session.take_piece(reader)
        self._burst = 0
        if self._is_reading_paused:
            self._schedule_look_ahead()  # there is room in the queue again
        if message is None and session.end is not None:
            self._set_timer()
            self.flush()
            raise session.closed_error()
        return message

    def _wait(self) -> Wakeup:
        """Return an awaitable that waits until there may be something to take. Awaiting it returns None."""
        # Everything that came in was read. Now write the answers, and read on.
        self.flush()
        self._resume_reading()
        self._waiter = Wakeup(self._loop)
        return self._waiter

    def _schedule_look_ahead(self) -> None:
        if not self._is_looking_ahead:
            self._is_looking_ahead = True
            self._loop.call_soon(self._look_ahead)

    def _look_ahead(self) -> None:
        """Read events ahead of ``recv``, until the queue is full."""
        self._is_looking_ahead = False
        waiter = self._waiter
        if waiter is not None and waiter.is_woken:
            # The task that waits in recv was woken, and has not had its turn yet.
            self._schedule_look_ahead()
            return
        if waiter is None or not waiter.is_waiting:
            if self.session.look_ahead():
                self.pause_reading()
            else:
                self._resume_reading()
            self._set_timer()
        # else it has read all that is there, and waits for the rest of its message, however large.
        self.flush()

    def discard(self) -> None:
        """Drop what was received and what will be, unless a task waits for it."""
        self.session.discard()
        self._look_ahead()
        self._resume_reading()

    def pause_reading(self) -> None:
        """Stop reading from the transport."""
        if not (self._is_reading_paused or self.session.is_at_eof or self.transport.is_closing()):
            self._is_reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and self.session.pong_bytes < HIGH_WATER:
            self._is_reading_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _read_on(self) -> None:
        """Read the events of bytes that arrived: see the rules above."""
        session = self.session
        connection = session.connection
        if connection.state is CONNECTING:
            self.read_handshake()
            if connection.state is CONNECTING:
                return
            if connection.state is not OPEN:
                self._wake()  # an ASGI application may wait already
                self.flush()
                return
        waiter = self._waiter
        if waiter is not None and waiter.is_waiting:
            message = session.pull()
            if message is not None:
                session.put_back(message)
            if message is not None or session.end is not None:
                waiter.wake()
        if session.close_deadline is not None:
            self._set_timer()
        if connection.has_unread() or (session.is_at_eof and connection.end is None):
            self._schedule_look_ahead()
        else:
            self.flush()

    def read_handshake(self) -> None:
        """Go on with the opening handshake. Clients and servers say how."""
        raise NotImplementedError

    def begin(self) -> None:
        """Begin the life of an open connection."""
        self.session.begin()
        self._set_timer()

    def proceed(self) -> None:
        """Write the answer to the opening handshake, and read what follows the request."""
        self.flush()
        self._resume_reading()
        self._read_on()

    # Bytes out

    def _send_at_once(self, message: object, compress: bool | None) -> bool:
        """Send a message, if that needs no waiting and no look at its kind."""
        if self._is_writing_paused or self._sending is not None:
            return False
        kind = type(message)
        if kind is not str and kind is not bytes and kind is not Prepared:
            return False
        size = len(message)  # type: ignore[arg-type]
        if size >= HIGH_WATER:
            return False
        self.session.send(message, True, compress)  # type: ignore[arg-type]
        self._burst += size + MESSAGE_COST
        self._cork(size)
        return True

    def post(self, message: Prepared, max_buffered: int) -> bool:
        """Send a message without waiting.

        Args:
            message: the message.
            max_buffered: how many bytes may wait already.

        Returns:
            False when more bytes wait already. Then the message is not sent.
        """
        if not self.session.is_sendable():
            return True
        # As long as writing is not paused, less than HIGH_WATER waits.
        if (self._is_writing_paused or self._outbox or max_buffered < HIGH_WATER) and (
            self._outbox_size + len(self._outbox) * POSTED_COST + self._corked
            >= max_buffered - self.transport.get_write_buffer_size()
        ):
            return False
        if self._sending is not None:
            self._outbox.append(message)
            self._outbox_size += len(message)
        else:
            self.session.send_prepared(message)
            self._cork(len(message))
        return True

    def _post_outbox(self) -> None:
        """Send what was posted while a fragmented message was being sent."""
        outbox, self._outbox, self._outbox_size = self._outbox, [], 0
        for message in outbox:
            self.session.send_prepared(message)
            self._cork(len(message))

    @property
    def buffered_amount(self) -> int:
        """How many bytes were sent and not yet taken by the system, as far as the event loop knows."""
        if self.session.is_lost:
            return 0
        waiting = self._outbox_size + self.session.connection.unsent
        return waiting + self.transport.get_write_buffer_size()

    def _cork(self, size: int) -> None:
        """Write output of this size now, or together with what follows."""
        self._corked += size + FRAME_COST
        if self._corked >= HIGH_WATER or not (self.session.messages or self.session.connection.has_unread()):
            self.flush()
        elif not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _collect(self, size: int) -> None:
        """Write some of a message when 64 KiB of it are there; more of it follows."""
        self._corked += size
        if self._corked >= HIGH_WATER:
            self.flush()

    def _scheduled_flush(self) -> None:
        self._is_flush_scheduled = False
        self.flush()

    def _forget_pongs(self) -> None:
        """Read on, if reading was paused because of Pongs, and they are written."""
        if self.session.pong_bytes >= HIGH_WATER and not self._is_writing_paused:
            self.session.pong_bytes = 0
            if not self.session.messages:
                self._resume_reading()

    def flush(self) -> None:
        """Write what the Connection has to send, and close the TCP connection when it is time."""
        session = self.session
        connection = session.connection
        # While writing is paused, 64 KiB wait here for one write. asyncio adds up with each write what its
        # transport holds (since 3.12), which takes long when that is many small writes.
        is_held = self._is_writing_paused and self._corked < HIGH_WATER
        if connection.has_unsent() and (not is_held or connection.should_close):
            self._corked = 0
            self._write(connection.chunks_to_send())
        if connection.should_close:
            if not self._is_closing:
                self._close_transport()
        elif session.pong_bytes >= HIGH_WATER:
            # Perhaps the peer sends Pings, and does not read our Pongs. asyncio has called pause_writing()
            # when they were written. uvloop writes at the end of its turn, and calls it in the next.
            self.pause_reading()
            self._loop.call_soon(self._loop.call_soon, self._forget_pongs)

    def _write(self, chunks: list[bytes]) -> None:
        transport = self.transport
        size = len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
        self.session.note_sent(chunks, size)
        if transport.is_closing():
            # The peer gets nothing any more. A task that sends must wait now. Otherwise the loop would have
            # no next turn, in which it reports the loss.
            self._is_writing_paused = not self.session.is_lost
        elif len(chunks) == 1:
            transport.write(chunks[0])
        elif size < LARGE:
            transport.write(b"".join(chunks))
        else:
            # Not writelines(), which on some versions of Python never calls pause_writing().
            for joined in join_small(chunks):
                transport.write(joined)

    # Time

    def _set_timer(self) -> None:
        """Set the timer for when the session is due, if it is not set for then."""
        due = self.session.due
        if due == self._timer_due:
            return
        self._cancel_timer()
        if due is not None and not self.session.is_lost:
            self._timer_due = due
            self._timer = self._loop.call_later(max(0, due - perf_counter()), self._poll)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_due = None

    def _poll(self) -> None:
        """Do what is due: send a Ping, give up the peer, or cut the TCP connection."""
        session = self.session
        due, self._timer, self._timer_due = self._timer_due, None, None
        if due == session.close_deadline:
            self.abort()
            return
        # Reading is paused when received messages fill the queue. It is also paused when the peer does not
        # read our Pongs; that is the peer's fault.
        session.poll(self._is_reading_paused and session.pong_bytes < HIGH_WATER)
        if session.end is not None:
            self._wake()
        self.flush()
        self._set_timer()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()

    # Closing

    def start_close(self, code: int, reason: str) -> None:
        """Send a Close, if the connection is open, and return without waiting.

        Args:
            code: as for ``close``.
            reason: as for ``close``.
        """
        if self.session.start_close(code, reason):
            self._set_timer()
            self.flush()

    def conclude(self, end: Close | Fail) -> None:
        """Let ``recv`` raise this end, once it has returned the messages in the queue.

        Args:
            end: how the connection has ended.
        """
        self.session.conclude(end)
        self._wake()

    def abort(self) -> None:
        """Cut the TCP connection at once."""
        self.transport.abort()

    def _close_transport(self) -> None:
        """Close the TCP connection so that the peer reads all that was written.

        Closing a socket that has unread bytes resets the connection, and the reset overtakes our Close.
        So close one direction, and drop what comes until the peer closes the other (section 7.1.1).
        """
        self._is_closing = True
        self.session.begin_closing()
        self._set_timer()
        transport = self.transport
        if self.session.is_at_eof:
            transport.close()
        elif not transport.is_closing():
            self._resume_reading()
            if transport.can_write_eof():
                with suppress(OSError):  # the peer was faster, and has reset the connection
                    transport.write_eof()
            elif self.session.connection.close_received is None:
                self._shut_down_later()
            else:
                transport.close()

    def _shut_down_later(self) -> None:
        """Close one direction below TLS, when all that was written under TLS is on its way.

        TLS can't do that without losing what comes in the other direction: TCP can. On a duplicate, because
        event loops keep their sockets to themselves.
        """
        sock = self.transport.get_extra_info("socket")
        try:
            duplicate = socket.socket(fileno=socket.dup(sock.fileno()))
        except OSError:  # there are no file descriptors left
            self.transport.close()
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
        if self.session.is_lost:
            return
        if self._has_written_all():
            with suppress(OSError):
                self.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        else:
            self._loop.call_later(MOMENT, self._shut_down_by_polling)

    def _has_written_all(self) -> bool:
        """Return whether neither TLS nor the transport below it holds anything."""
        below = transport_below(self.transport)
        waits_below = below is not None and below.get_write_buffer_size() > 0
        return not (self.transport.get_write_buffer_size() or waits_below)

    def _forget_duplicate(self) -> None:
        if self._duplicate is not None:
            self._loop.remove_writer(self._duplicate)
            self._duplicate.close()
            self._duplicate = None

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (called by the event loop)."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by name
        self.transport.set_write_buffer_limits(HIGH_WATER)
        # asyncio does so only where the socket object has the number of the protocol. A socket that was made
        # without it has not, nor has one that it accepts.
        if (sock := transport.get_extra_info("socket")) is not None:
            set_nodelay(sock)
        # A closed transport does not always know them.
        self.session.remote_address = transport.get_extra_info("peername")
        self.session.local_address = transport.get_extra_info("sockname")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where bytes off the network go (called by the event loop)."""
        # TLS asks for room for all that it has, and asyncio drops at the end of the stream what found none.
        source = self._read_buffer
        if source.is_borrowed or sizehint > len(source.data):
            source.renew(max(sizehint, READ_SIZE))
        return source.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes off the network (called by the event loop)."""
        session = self.session
        if session.is_at_eof:
            return  # Windows' loop reports what it had read when the transport was closed
        source = self._read_buffer
        source.is_borrowed = True
        session.read_from(source.data, nbytes)
        self._read_on()
        session.connection.release()
        source.is_borrowed = False
        if not session.is_discarding and session.connection.unread > HIGH_WATER * 4:
            # Some loops read on and on before anything else has a turn. Not while closing: uvloop drops what
            # it holds of a paused TLS connection, perhaps the Close, when TCP ends without a close_notify.
            self.pause_reading()
        elif session.pong_bytes >= HIGH_WATER:
            self.flush()

    def eof_received(self) -> bool:
        """Take the end of the stream (called by the event loop)."""
        self.session.receive_eof()
        if self._is_closing:
            self.transport.close()
        self._read_on()
        # Keep the transport open for the answers that are still to come; TLS can't.
        return self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End (called by the event loop)."""
        self._cancel_timer()
        self._forget_duplicate()
        self.session.receive_eof()
        self.session.lose()
        wake_all(self._close_waiters)
        for callback in self._close_callbacks:
            self._loop.call_soon(callback, self)
        self._close_callbacks = ()
        self.resume_writing()
        self._read_on()
        self.session.log_closed()

    def pause_writing(self) -> None:
        """Stop sending: more than 64 KiB are unsent (called by the event loop)."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """Go on sending (called by the event loop)."""
        self._is_writing_paused = False
        if self.session.connection.has_unsent():
            self.flush()
        wake_all(self._drain_waiters)
        self._forget_pongs()
