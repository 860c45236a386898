"""A WebSocket on a blocking socket: a stream, a Connection, a lock. No thread of its own.

Whoever waits for something drives the connection: it reads from the stream, answers Pings and gives what
came to the others. One thread reads at a time; many may send.

    _lock       protects the Connection; it is never held while the network is waited for
    _changed    is notified of what others may wait for
    _writing    is held while bytes are written, so that frames go out in the order of their calls
    _reader     is the thread that reads; others who wait for ``_changed`` need not

A signal handler interrupts a call of the main thread between two steps, and it may do two things.

It may raise, as Ctrl-C does. A call that only waits has changed nothing then: the connection goes on. A call
that was changing the Connection may have done half of it: the connection is given up. In both cases nothing
stays taken. Locks are released by ``with`` or ``finally``, and ``_reader`` by an assignment that comes first
in its ``finally``: the interpreter runs signal handlers after calls, and not before such an assignment.

It may call the connection again. The call that it interrupted holds what it holds until the handler returns.
So the locks are reentrant, and the places that must not be entered twice ask. Writing is left to the
interrupted call that writes. A change of the Connection within another one, and the waiting in ``close()``,
are left to another thread. Reading within a call that reads is refused.
"""

from __future__ import annotations

import itertools
import logging
from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Condition, Lock, RLock, get_ident
from time import monotonic
from typing import Any, NoReturn

from ..adapter.counters import Counters
from ..adapter.keepalive import Pings
from ..adapter.log import ConnectionLogger, FrameLog
from ..connection import (
    ABANDONED,
    Connection,
    Fragment,
    Message,
    Role,
    State,
    check_fragment,
    is_fragmented,
    join_pieces,
)
from ..errors import ConnectionClosed, WebSocketError
from ..events import Binary, Close, Event, Fail, Ping, Pong, Request, Response, Text, size_in_memory
from .stream import Stream, remaining

__all__ = ["WebSocket"]

logger = logging.getLogger("wsframe.sync")

OPEN = State.OPEN
MAX_QUEUED_MESSAGES = 16
MAX_QUEUED_SIZE = 2**20  # bytes
HIGH_WATER = 65536  # bytes of unsent output
_MOMENT = 0.05  # seconds
# How many seconds a thread that was woken has, and how many pass before another look at what should have been
# notified: Ctrl-C may have come in between.
_SECOND = 1.0
# Iteration ends silently after these: normal closure, going away, and a Close without a code.
CLEAN_CODES = (1000, 1001, 1005)
# What send_message(), send_ping() and send_close() raise before they change anything. Anything else comes
# from a signal handler, or came in the midst of a change.
_REFUSALS = (BufferError, TypeError, ValueError, WebSocketError)
_INTERRUPTED = Fail(1006, "connection was lost: a signal handler raised while it was being changed")
_NOTHING = memoryview(b"")
_ids = itertools.count(1)
_ids_lock = Lock()  # without a GIL, two threads could take the same


class WebSocket:
    """Be an open WebSocket: what ``connect`` returns and what ``serve`` gives to its handler.

    Iterating over it gives its messages: text as ``str``, binary as ``bytes``. The iteration ends when the
    connection is closed with 1000, 1001 or no code, and raises ``ConnectionClosed`` when it is closed
    otherwise or lost. Any thread may call anything; Pings are answered, and sent, while one is in ``recv``.

    Attributes:
        id: the number of the connection in this process, which it is logged under.
    """

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        close_timeout: float | None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
    ) -> None:
        with _ids_lock:
            self.id = next(_ids)
        self._connection = connection
        self._stream = stream
        self._close_timeout = close_timeout
        self._lock: Any = RLock()
        self._changed = Condition(self._lock)
        self._waiting = 0  # how many threads wait for that
        self._writing: Any = RLock()
        self._is_writing = False  # whether the thread that holds it does
        self._is_left = False  # whether another thread may have left output for it to write
        self._reader = 0  # the thread that reads, or 0
        self._is_late = False  # whether it has read after its deadline
        self._deferred: Any = None  # a lock that is held until the last deferred call is done
        self._buffer = bytearray(65536)
        self._arrived = -1  # how many bytes are in the buffer, unknown to the Connection; -1: it knows
        # Output of the Connection that is not written yet. Only the thread that holds _writing uses it.
        # Others look at its size: a number can be read without a lock, also where there is no GIL.
        self._unwritten = _NOTHING
        self._unwritten_size = 0
        self._is_broken = False  # writing failed
        self._lost: OSError | None = None  # why reading did
        self._is_closed = False
        self._end: Close | Fail | None = None
        self._messages: deque[Text | Binary] = deque()
        self._queued = 0
        self._pieces: Pieces | None = None  # whose message is being received
        self._sender: int | None = None  # the thread that sends a fragmented message
        self._pings = Pings(ping_interval, ping_timeout, monotonic())
        # Of the pings that ping() waits for: payload -> the round trip in seconds, once they are answered
        self._round_trips: dict[bytes, list[float]] = {}
        self._bytes_received = self._bytes_sent = 0
        self._messages_received = self._messages_sent = 0
        self._pings_received = self._pings_sent = 0
        self._frame_log: FrameLog | None = None
        if logger.isEnabledFor(logging.DEBUG):
            self._frame_log = FrameLog(self.logger.debug, is_client=connection.role is Role.CLIENT)
        self._remote_address: Any = stream.sock.getpeername()
        self._local_address: Any = stream.sock.getsockname()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a WebSocket cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<WebSocket {self.state.name} {self._remote_address}>"

    # What it is

    @property
    def state(self) -> State:
        """State.CONNECTING, OPEN, CLOSING or CLOSED."""
        return State.CLOSED if self._is_closed else self._connection.state

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

    @property
    def latency(self) -> float | None:
        """The last round trip of a Ping, in seconds; None before the first."""
        return self._pings.latency

    @property
    def buffered_amount(self) -> int:
        """How many bytes were sent, and not yet taken by the system."""
        with self._lock:
            return self._unwritten_size + self._connection.unsent

    @property
    def logger(self) -> ConnectionLogger:
        """What logs under the connection's ``id``."""
        return ConnectionLogger(logger, self.id)

    @property
    def counters(self) -> Counters:
        """What happened on this connection so far, in numbers."""
        connection = self._connection
        is_opened = connection.was_opened
        return Counters(
            int(is_opened),
            int(is_opened and self._is_closed and not self._closed().clean),
            self._messages_received,
            self._messages_sent,
            self._bytes_received,
            self._bytes_sent,
            self._pings_received,
            self._pings_sent,
            connection.uncompressed,
            connection.compressed,
        )

    # Receiving

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Receive the next message.

        Args:
            timeout: how many seconds to wait; None: for ever.

        Returns:
            Text as ``str``, binary as ``bytes``.

        Raises:
            ConnectionClosed: the connection ended, and all messages before its end were received. It is
                raised when the TCP connection is closed as well, which may take ``close_timeout``, but no
                longer than ``timeout``.
            TimeoutError: no message came in time.
            RuntimeError: a signal handler calls it that has interrupted another call that receives.
        """
        deadline = None if timeout is None else monotonic() + timeout
        thread = self._check_not_reading()
        pieces: list[Any] = []
        final = False
        try:
            self._start_reading(thread, deadline)
            while True:
                message = self._next_message(deadline)
                if self._pieces is not None:
                    # Somebody has received the beginning of it, and does not want the rest.
                    if message.final:
                        self._pieces = None
                elif message.final and not pieces:
                    return message.data
                else:
                    final = message.final
                    pieces.append(message.data)
                    if final:
                        whole = join_pieces(pieces, True)
                        pieces.clear()
                        return whole.data
        finally:
            try:
                if pieces:  # it did not come in time
                    self._put_back(join_pieces(pieces, final))
            except BaseException:
                self._give_up()
                raise
            finally:
                if self._reader == thread:
                    self._reader = 0
                self._stop_reading()

    def recv_stream(self, timeout: float | None = None) -> Pieces:
        """Receive the next message in pieces, as they arrive: ``for piece in ws.recv_stream()``.

        The memory that it takes is bounded by what is on the way, not by the message: for a message of any
        size, open the connection with ``max_message_size=None``. Text comes in pieces of ``str``, binary of
        ``bytes``; an empty message is one empty piece. What is not received of a message is dropped by the
        next ``recv`` or ``recv_stream``.

        Its iterator raises what ``recv`` does, also in the middle of a message that does not arrive whole.
        After a TimeoutError it goes on.

        Args:
            timeout: how many seconds to wait for each piece; None: for ever.
        """
        return Pieces(self, timeout)

    def _next_message(self, deadline: float | None) -> Text | Binary:
        """Return the next message, or piece of one, as the thread that reads.

        Between the step that takes it and the return there is no call, after which Ctrl-C could lose it.
        """
        if self._messages:
            message = self._messages[0]
            self._queued -= size_in_memory(message.data)
            del self._messages[0]
            if not self._messages:
                self._queued = 0
            return message
        while True:
            event = self._next_event(deadline)
            if event is None:
                if self._end is not None:
                    self._finish(self._close_deadline(deadline))
                    raise self._closed()
                if deadline is not None and monotonic() >= deadline:
                    # Look once whether a message is there, but not again: bytes may come without an end.
                    if self._is_late:
                        raise TimeoutError("timed out")
                    self._is_late = True
                self._receive(deadline)
            elif event.__class__ is Text or event.__class__ is Binary:
                self._messages_received += event.final
                return event

    def _put_back(self, message: Text | Binary) -> None:
        self._messages.appendleft(message)
        self._queued += size_in_memory(message.data)

    def _receive_piece(self, pieces: Pieces, timeout: float | None) -> Text | Binary:
        deadline = None if timeout is None else monotonic() + timeout
        thread = self._check_not_reading()
        piece: Text | Binary | None = None
        try:
            try:
                self._start_reading(thread, deadline)
                pieces.check()
                while True:
                    if self._pieces is None and not self._messages:
                        self._connection.stream_next()
                    piece = self._next_message(deadline)
                    if self._pieces is None or self._pieces is pieces:
                        self._pieces = None if piece.final else pieces
                        return piece
                    if piece.final:  # of one that nobody wants any more
                        self._pieces = None
                    piece = None
            finally:
                if self._reader == thread:
                    self._reader = 0
                self._stop_reading()
        except BaseException:
            if piece is not None:
                self._give_up()  # nobody gets this piece, so the rest of the message must not follow
            raise

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        try:
            return self.recv()
        except ConnectionClosed as closed:
            if closed.clean and closed.code in CLEAN_CODES:
                raise StopIteration from None
            raise

    def _wait(self, deadline: float | None) -> None:
        seconds = remaining(deadline)
        self._waiting += 1
        try:
            self._changed.wait(_SECOND if seconds is None else min(seconds, _SECOND))
        except BaseException:
            if not self._lock._is_owned():  # wait() had let go of it
                self._lock.acquire()
            raise
        finally:
            self._waiting -= 1

    def _notify(self) -> None:
        if self._waiting:
            self._changed.notify_all()

    def _check_not_reading(self) -> int:
        """Check that this thread may start to read, and return it."""
        thread = get_ident()
        if self._reader == thread or self._lock._is_owned():
            raise RuntimeError("a signal handler cannot receive: it has interrupted a call that receives")
        return thread

    def _start_reading(self, thread: int, deadline: float | None) -> None:
        with self._lock:
            while self._reader:
                self._wait_for_reader(deadline)
            self._is_late = False
            self._reader = thread

    def _wait_for_reader(self, deadline: float | None) -> None:
        """Wait until the thread that reads leaves, or notifies."""
        # The other thread clears _reader, and then looks whether a thread waits. So this one counts itself
        # as waiting, and then looks at _reader.
        self._waiting += 1
        try:
            if self._reader:
                self._wait(deadline)
        finally:
            self._waiting -= 1

    def _stop_reading(self) -> None:
        if self._waiting:
            with self._lock:
                self._notify()
        if self._is_closed:
            self._close_stream(0)

    def _next_event(self, deadline: float | None = None) -> Event | None:
        """Return the next event after acting on it, as the thread that reads.

        Args:
            deadline: when to give up sending what we answer; it stays queued. None: never.

        Raises:
            TimeoutError: our answers fill the queue, and could not be sent in time.
        """
        try:
            with self._lock:
                event: Event | None = None
                if self._end is None:
                    if self._arrived >= 0:
                        self._connection.read_from(self._buffer, self._arrived)
                        self._arrived = -1
                    event = self._connection.next_event()
                kind = type(event)
                if kind is Pong:
                    self._receive_pong(event.payload)  # type: ignore[union-attr]
                elif kind is Close or kind is Fail:
                    self._end = event  # type: ignore[assignment]
                    self._notify()
                elif kind is Ping:
                    self._pings_received += 1
                else:
                    return event
        except BaseException:
            self._give_up()
            raise
        if self._end is None:
            self._answer(deadline)
        else:
            with suppress(TimeoutError):  # if it cannot be sent at once, _finish() waits
                self._flush(monotonic())
        return event

    def _answer(self, deadline: float | None) -> None:
        """Write our answers; keepalive gives up a peer that asks for more of them and does not read any."""
        while self._end is None:
            with self._lock:
                is_too_much = self._connection.unsent > HIGH_WATER
            if not is_too_much:
                # The peer may want us to read before it reads. What there is no room for waits for that.
                with suppress(TimeoutError):
                    self._flush(monotonic())
                return
            due = self._pings.due if self._connection.state is OPEN else None
            until = due if deadline is None else deadline if due is None else min(due, deadline)
            try:
                self._flush(until)
                return
            except TimeoutError:
                if until is None or until == deadline or monotonic() < until:
                    raise  # the last: a signal handler has raised it
            self._keep_alive()

    def _give_up(self) -> None:
        """Use the Connection no more: a signal handler has raised within a change of it.

        Whatever is written or read from here on might be wrong.
        """
        self._is_broken = True
        if self._end is None:
            self._end = _INTERRUPTED
        self._stream.abort()

    def _receive(self, deadline: float | None) -> None:
        """Read from the stream, as the thread that reads."""
        until = deadline
        due = self._pings.due
        if due is not None and self._connection.state is OPEN:
            if not self._pings.is_waiting and monotonic() >= due:
                self._keep_alive()
                due = self._pings.due
            until = due if deadline is None else min(due, deadline)  # type: ignore[type-var]
        # While answers are left, look only: with TLS, what is there may be nothing to receive.
        only_look = self._is_left and self._write_rest(until)
        is_waiting = False
        try:
            self._connection.release()
            buffer = memoryview(self._buffer)
            is_waiting = True
            try:
                count = self._stream.receive_into(buffer, monotonic() if only_look else until)
            except OSError as error:
                if isinstance(error, TimeoutError) and error.errno is None:
                    if only_look:
                        return
                    if until is None or until == deadline or monotonic() < until:
                        raise  # the last: a signal handler has raised it
                    self._keep_alive()
                    return
                count, self._lost = 0, error
            is_waiting = False
            self._bytes_received += count
            self._arrived = count
            if self._frame_log is not None:
                self._frame_log.received(bytes(buffer[:count]))
        except BaseException:
            if not is_waiting:
                self._give_up()
            raise

    def _write_rest(self, deadline: float | None) -> bool:
        """Write the answers that there was no room for, or return whether there are bytes to read first."""
        while True:
            try:
                self._flush(monotonic())
                return False  # or another thread writes them
            except TimeoutError:
                if self._stream.wait_for_either(deadline):
                    return deadline is None or monotonic() < deadline

    # Keepalive

    def _opened(self) -> None:
        if logger.isEnabledFor(logging.INFO):
            self.logger.opened(self.path, self._remote_address)

    def _keep_alive(self) -> None:
        """Send a Ping, or fail the connection because the last one was not answered."""
        try:
            with self._lock:
                if self._connection.state is not OPEN or self._end is not None:
                    return
                read = self._bytes_received - self._connection.unread
                try:
                    payload = self._pings.look(monotonic(), read, self._connection.frame_remaining)
                except TimeoutError as error:
                    self._end = self._connection.fail(1011, str(error))
                    self._notify()
                else:
                    if payload is None:
                        return
                    self._connection.send_ping(payload)
                    self._pings_sent += 1
        except BaseException:
            self._give_up()
            raise
        with suppress(TimeoutError):  # what cannot be written at once is written with the next message
            self._flush(monotonic())
        if self._end is not None:
            self._stream.abort()

    # Sending

    def send(self, message: Message | Iterable[Fragment], *, compress: bool | None = None) -> None:
        """Send a message; waits until the system has taken it.

        An iterable goes out as one fragmented message: each of its items as soon as it is there. Pings go out
        in between; other messages wait until it is done. When it raises half-way, the connection is closed
        with 1011, because the message cannot be completed. One without items sends nothing.

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
        if self._lock._is_owned():
            self._defer(self.send, message, compress=compress)
            return
        if is_fragmented(message):
            self._send_fragments(message, compress)  # type: ignore[arg-type]
            return
        while not self._send(message, True, compress, None):  # type: ignore[arg-type]
            with self._lock:
                self._wait_to_send()

    def _send(self, message: Message, fin: bool, compress: bool | None, sender: int | None) -> bool:
        """Send a message, or as the sender of a fragmented one a fragment; False: it is not its turn."""
        try:
            with self._writing:
                with self._lock:
                    if self._sender != sender:
                        return False
                    self._check_open()
                    try:
                        self._connection.send_message(message, fin, compress)
                        if self._is_writing or self._unwritten_size:
                            self._is_left = True
                        else:
                            # At once, or the thread that reads takes it for answers that are too many.
                            self._unwritten = memoryview(self._connection.data_to_send())
                            self._unwritten_size = len(self._unwritten)
                    except _REFUSALS:
                        raise
                    except BaseException:
                        self._give_up()
                        raise
                    self._messages_sent += fin
                self._write(None)
        finally:
            # Another thread may have queued a Ping or a Pong meanwhile, and left it to this one to write.
            if self._is_left:
                self._flush(None)
        if self._is_broken:
            raise self._closed()
        return True

    def _wait_to_send(self) -> None:
        if self._sender == get_ident():
            raise RuntimeError("a message cannot be sent inside another one")
        while self._sender is not None:
            self._wait(None)

    def _send_fragments(self, fragments: Iterable[Fragment], compress: bool | None) -> None:
        last: str | bytes | None = None
        sender = get_ident()
        with self._lock:
            self._wait_to_send()  # it refuses a message inside another one
        try:
            with self._lock:
                self._wait_to_send()
                self._check_open()
                self._sender = sender
            for fragment in fragments:
                last = check_fragment(fragment, last)
                self._send(last, False, compress, sender)
            if last is not None:
                self._send(last[:0], True, compress, sender)
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            if self._sender == sender:
                self._sender = None
            with self._lock:
                self._notify()

    def _abandon(self, error: BaseException) -> None:
        """Close the connection, if some of a message was sent that cannot be completed."""
        connection = self._connection
        if connection.is_within_message and connection.state is OPEN and not self._is_broken:
            with suppress(TimeoutError):
                self._send_close(1011, ABANDONED, self._close_deadline())
            error.add_note(f"wsframe closed the connection with 1011: {ABANDONED}")

    def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a Ping and wait for its Pong. Messages that come before it are kept for ``recv``.

        Args:
            payload: up to 125 bytes; by default 4 random ones.
            timeout: how many seconds to wait; None: for ever.

        Returns:
            The round trip, in seconds.

        Raises:
            ConnectionClosed: the connection is closing or closed, or ended before the Pong.
            LocalProtocolError: the payload is too long, or the same one is waited for already.
            TimeoutError: it did not come in time.
            RuntimeError: 16 messages or 1 MiB came before it, and nobody receives them. Or a signal handler
                calls it that has interrupted another call.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if payload is not None:
            payload = bytes(memoryview(payload))
        if self._is_inside():
            raise RuntimeError(
                "a signal handler cannot ping: it has interrupted a call that uses the connection"
            )
        thread = get_ident()
        answer: list[float] = []
        is_late = False
        try:
            try:
                with self._lock:
                    self._check_open()
                    payload = self._pings.send(payload, monotonic())
                    self._round_trips[payload] = answer
                    self._connection.send_ping(payload)
                    self._pings_sent += 1
            except _REFUSALS:
                raise
            except BaseException:
                self._give_up()
                raise
            self._flush(deadline)
            while True:
                try:
                    with self._lock:
                        while self._reader and not answer and self._end is None:
                            self._wait_for_reader(deadline)
                        if answer:
                            return answer[0]
                        if self._end is not None:
                            raise self._closed()
                        if is_late:
                            raise TimeoutError("timed out")
                        is_late = deadline is not None and monotonic() >= deadline
                        self._reader = thread
                    self._read_ahead(deadline)
                finally:
                    if self._reader == thread:
                        self._reader = 0
                        self._stop_reading()
        finally:
            with self._lock:
                # Not if another call waits for a Pong with this payload.
                if payload is not None and self._round_trips.get(payload) is answer:
                    del self._round_trips[payload]
                    self._pings.forget(payload)

    def _read_ahead(self, deadline: float | None) -> None:
        """Read one event ahead of ``recv``, or some more bytes, as the thread that reads."""
        queued = self._queued + self._connection.collected
        if len(self._messages) >= MAX_QUEUED_MESSAGES or queued >= MAX_QUEUED_SIZE:
            raise RuntimeError("the receive queue is full: receive its messages first")
        event = self._next_event(deadline)
        if event.__class__ is Text or event.__class__ is Binary:
            self._messages.append(event)
            self._messages_received += event.final
            self._queued += size_in_memory(event.data)
        elif event is None and self._end is None:
            self._receive(deadline)

    def _receive_pong(self, payload: bytes) -> None:
        for answered, seconds in self._pings.answer(payload, monotonic()).items():
            if answered in self._round_trips:
                self._round_trips[answered].append(seconds)
        self._notify()

    def _check_open(self) -> None:
        if self._connection.state is not OPEN or self._is_broken or self._is_closed:
            raise self._closed()

    def _closed(self) -> ConnectionClosed:
        if self._end is not None:
            is_clean = type(self._end) is Close and not self._is_broken
            return ConnectionClosed(self._end.code, self._end.reason, is_clean)
        sent = self._connection.close_sent
        if sent is not None and not self._is_broken:
            return ConnectionClosed(sent.code, sent.reason)
        return ConnectionClosed(1006, "connection was lost")

    def _flush(self, deadline: float | None) -> None:
        """Write what the Connection has to send, unless another thread writes: it will write this too.

        The one that reads must not wait for the one that writes: the peer may be waiting for us to read
        before it reads what we write. Only when it makes us answer more than it reads, we wait.
        """
        while True:
            with self._lock:
                if self._is_broken or not (self._unwritten_size or self._connection.has_unsent()):
                    self._is_left = False
                    return
                self._is_left = True
                is_too_much = self._connection.unsent > HIGH_WATER
            try:
                if is_too_much:
                    self._start_writing(deadline)
                elif not self._writing.acquire(blocking=False):
                    return
                if self._is_writing:
                    return  # below a signal handler, and goes on when that returns
                self._write(deadline)
            finally:
                try:  # noqa: SIM105 - suppress() is a call: Ctrl-C after it would leave the lock taken
                    self._writing.release()
                except RuntimeError:
                    pass  # it was not taken

    def _start_writing(self, deadline: float | None) -> None:
        seconds = remaining(deadline)
        if not self._writing.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError("timed out")

    def _write(self, deadline: float | None) -> None:
        """Write what the Connection has to send, as the thread that writes.

        What could not be written in time stays, and is written before anything else.
        """
        if self._is_writing:
            self._is_left = True
            return  # below a signal handler, and goes on when that returns
        self._is_writing = True
        is_waiting = False
        try:
            data = self._unwritten
            while not self._is_broken:
                if not data:
                    with self._lock:
                        self._is_left = False
                        data = memoryview(self._connection.data_to_send())
                        if not data:
                            return
                        self._unwritten = data
                        self._unwritten_size = len(data)
                sent = 0
                is_waiting = True
                try:
                    sent = self._stream.send(data, deadline)
                except OSError as error:
                    if isinstance(error, TimeoutError) and error.errno is None:
                        raise
                    # What the peer sent before can still be read; perhaps it says why.
                    self._is_broken = True
                is_waiting = False
                self._bytes_sent += sent
                if self._frame_log is not None and sent:
                    self._frame_log.sent(bytes(data[:sent]))
                self._unwritten = data = data[sent:] if sent < len(data) else _NOTHING
                self._unwritten_size = len(data)
                if not data and not self._is_left:
                    return
        except BaseException:
            self._is_left = True
            if not is_waiting:
                self._give_up()  # some of a frame is out, and nobody knows how much
            raise
        finally:
            self._is_writing = False
            if self._is_closed:
                self._close_stream(0)

    # Closing

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until it is closed.

        Messages that still come are dropped, unless another thread receives them.

        It does nothing more than wait when the connection is closing or closed already. In a signal handler
        that has interrupted another call of this connection, it cannot wait: it sends the Close and returns.
        The interrupted call does the rest, and raises ``ConnectionClosed``.

        Args:
            code: the status code: 1000 to 1003, 1007 to 1014, 3000 to 4999, or 1005 for none.
            reason: up to 123 bytes of UTF-8.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
            TypeError: the code is not an int, or the reason not a string.
        """
        if self._is_inside():
            if not self._lock._is_owned():
                with suppress(TimeoutError):
                    self._send_close(code, reason, monotonic())
            self._defer(self.close, code, reason)
            return
        deadline = self._close_deadline()
        thread = get_ident()
        try:
            try:
                self._send_close(code, reason, deadline)
                self._start_reading(thread, deadline)
            except TimeoutError:
                # Another thread reads, and the peer does not close: wake it, and take its place. If a signal
                # handler holds it up, go on all the same.
                self._stream.abort()
                with suppress(TimeoutError):
                    self._start_reading(thread, monotonic() + _SECOND)
            try:
                if self._reader == thread:
                    self._drop_messages(deadline)
            except TimeoutError:
                self._stream.abort()
            finally:
                self._finish(deadline)
        finally:
            if self._reader == thread:
                self._reader = 0
            self._stop_reading()

    def _drop_messages(self, deadline: float | None) -> None:
        """Wait for the last event, as the thread that reads."""
        self._messages.clear()
        self._queued = 0
        while self._end is None:
            self._connection.stream_next()  # what is dropped need not be collected
            if self._next_event(deadline) is None and self._end is None:
                remaining(deadline)
                self._receive(deadline)

    def _is_inside(self) -> bool:
        """Tell whether this thread is within another call: then a signal handler has interrupted that."""
        return self._reader == get_ident() or self._lock._is_owned() or self._writing._is_owned()

    def _defer(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a function in another thread, because a signal handler has interrupted a call of this one.

        The other thread can wait for that. Functions that are deferred are called in this order.
        """
        done, previous = allocate_lock(), self._deferred
        done.acquire()
        self._deferred = done
        try:
            start_new_thread(self._do_later, (previous, done, function, args, kwargs))
        except RuntimeError:
            done.release()
            self._stream.abort()  # there is no thread to be had

    def _do_later(
        self, previous: Any, done: Any, function: Callable[..., object], args: Any, kwargs: Any
    ) -> None:
        if previous is not None:
            previous.acquire()
        try:
            function(*args, **kwargs)
        except ConnectionClosed:
            pass
        finally:
            done.release()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed, which another thread sees to.

        Args:
            timeout: how many seconds to wait; None: for ever.

        Raises:
            TimeoutError: it is not closed in time.
            RuntimeError: a signal handler calls it that has interrupted a change of the connection.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self._lock._is_owned():
            raise RuntimeError("a signal handler cannot wait here: it has interrupted a call")
        with self._lock:
            while not self._is_closed:
                self._wait(deadline)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _close_deadline(self, other: float | None = None) -> float | None:
        """Return when to cut the connection; not later than another deadline."""
        if self._close_timeout is None:
            return other
        deadline = monotonic() + self._close_timeout
        return deadline if other is None else min(deadline, other)

    def _send_close(self, code: int, reason: str, deadline: float | None) -> None:
        if self._lock._is_owned():
            self._defer(self._send_close, code, reason, deadline)
            return
        try:
            with self._lock:
                if self._connection.state is OPEN and not self._is_closed:
                    self._connection.send_close(code, reason)
        except _REFUSALS:
            raise
        except BaseException:
            self._give_up()
            raise
        self._flush(deadline)

    def _write_last(self, deadline: float | None) -> None:
        """Write our Close, after what another thread is sending."""
        try:
            while not self._writing.acquire(timeout=_MOMENT):
                # The peer may want us to read before it reads.
                remaining(deadline)
                self._stream.drain(monotonic() + _MOMENT)
            self._write(deadline)
        finally:
            try:  # noqa: SIM105 - suppress() is a call: Ctrl-C after it would leave the lock taken
                self._writing.release()
            except RuntimeError:
                pass  # it was not taken

    def _finish(self, deadline: float | None) -> None:
        """Close the TCP connection so that the peer reads all that was written (section 7.1.1)."""
        if self._is_closed:
            return
        try:
            self._write_last(deadline)
        except TimeoutError:
            self._is_broken = True  # the peer did not get all of it, and not our Close
        if self._connection.should_close:
            self._stream.shut_down()
        # "the client SHOULD wait for the server to close the connection"
        self._stream.drain(deadline)
        # Another thread that is still sending wakes up: nobody may use the socket once it is closed.
        self._stream.shut_down()
        self._close_stream(_SECOND)
        with self._lock:
            self._connection.receive_data(b"")
            while self._end is None:
                event = self._connection.next_event()
                if event is None:
                    self._end = _INTERRUPTED
                elif isinstance(event, (Close, Fail)):
                    self._end = event
            self._is_closed = True
            self._notify()
        self._close_stream(0)
        if logger.isEnabledFor(logging.INFO) and self._connection.was_opened:
            self.logger.closed(self._closed())

    def _close_stream(self, seconds: float) -> None:
        """Close the socket, unless another thread still uses it: then that one does, when it leaves."""
        try:
            if not self._writing.acquire(timeout=seconds):
                self._stream.abort()
            elif self._reader == 0 or self._reader == get_ident():
                self._stream.close()
        finally:
            try:  # noqa: SIM105 - suppress() is a call: Ctrl-C after it would leave the lock taken
                self._writing.release()
            except RuntimeError:
                pass  # it was not taken


class Pieces:
    """Iterate over the pieces of one message: what ``recv_stream`` returns."""

    def __init__(self, websocket: WebSocket, timeout: float | None) -> None:
        self._websocket = websocket
        self._timeout = timeout
        self._is_begun = False
        self._is_over = False

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> str | bytes:
        if self._is_over:
            raise StopIteration
        piece = self._websocket._receive_piece(self, self._timeout)
        self._is_over = piece.final
        if self._is_begun and not piece.data:
            raise StopIteration  # the last fragment was empty
        self._is_begun = True
        return piece.data

    def check(self) -> None:
        """Check that the message is still being received.

        Raises:
            RuntimeError: another ``recv`` went on to the next one.
        """
        if self._is_begun and self._websocket._pieces is not self:
            raise RuntimeError("the rest of this message was dropped by another recv")
