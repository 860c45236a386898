"""What drives a blocking connection: a stream, a session and a lock. It has no thread of its own.

The thread that waits for something drives the connection: it reads from the stream, answers Pings and hands
over what other threads wait for. One thread reads at a time; many may send.

    _lock       protects the session; it is never held while a thread waits for the network
    _changed    is notified of what other threads may wait for
    _writing    is held while bytes are written, so that frames go out in the order of their calls
    _reader     is the thread that reads; other threads that wait for ``_changed`` need not

A signal handler interrupts a call of the main thread between two steps, and it may do two things.

It may raise, as Ctrl-C does. A call that only waits has changed nothing then, and the connection goes on. A
call that was changing the session may have done half of it, and the connection is given up. In both cases
nothing stays taken. Locks are released by ``with`` or ``finally``, and ``_reader`` by an assignment that
comes first in its ``finally``: the interpreter runs signal handlers after calls, not before an assignment.
For the same reason ``_writing`` is released where it stands, not by a method or a context manager.

It may call the connection again. The call that it interrupted holds what it holds until the handler returns.
So the locks are reentrant, and places that must not be entered twice check for that. Writing is left to the
interrupted call that writes. A change of the session within another change, and the waiting in ``close()``,
are left to another thread. Reading within a call that reads is refused.
"""

from __future__ import annotations

import logging
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Condition, RLock, get_ident
from time import monotonic
from typing import Any

from ..adapter.options import Timing
from ..adapter.session import PieceReader, Session
from ..adapter.wording import is_own_timeout
from ..connection import ABANDONED, Connection, Fragment, Message, State, check_fragment, is_fragmented
from ..errors import ConnectionClosed, WebSocketError
from ..events import Binary, Fail, Request, Text
from .stream import SocketStream, deadline_after, earlier, remaining

__all__ = ["Driver"]

logger = logging.getLogger("wsframe.sync")

OPEN = State.OPEN
READ_SIZE = 65536
MAX_SPARE_BUFFERS = 32  # 2 MiB
HIGH_WATER = 65536  # bytes of unsent output
MOMENT = 0.05  # seconds
# The seconds that a thread has that was woken. Also the seconds between two looks at what should have been
# notified, for Ctrl-C may have come before the notification.
SECOND = 1.0
# What calls of the session raise before they change anything. Any other exception comes from a signal
# handler, or in the midst of a change.
REFUSALS = (BufferError, TypeError, ValueError, WebSocketError)
_INTERRUPTED = Fail(1006, "connection was lost: a signal handler raised while it was being changed")
_NOTHING = memoryview(b"")

# Buffers that no connection reads into now. So a connection needs one only while a thread reads it. Threads
# can share a list of Python without a lock.
_spare_buffers: list[bytearray] = []


def _take_buffer() -> bytearray:
    try:
        return _spare_buffers.pop()
    except IndexError:
        return bytearray(READ_SIZE)


class Driver:
    """The part of a WebSocket that reads, writes, and keeps threads and signal handlers apart.

    Args:
        connection: the Connection, which may still be in the opening handshake.
        stream: the connected socket.
        timing: the time limits.

    Attributes:
        session: the life of the connection.
        lost: the error that ended reading, or None.
    """

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_buffer",
        "_changed",
        "_deferred",
        "_is_left",
        "_is_writing",
        "_lock",
        "_reader",
        "_sender",
        "_stream",
        "_unwritten",
        "_unwritten_size",
        "_waiting",
        "_writing",
        "lost",
        "session",
    )

    def __init__(
        self,
        connection: Connection,
        stream: SocketStream,
        timing: Timing,
    ) -> None:
        self.session = Session(connection, logger, monotonic, timing)
        self.session.stops_at_pings = True
        self.session.remote_address = stream.sock.getpeername()
        self.session.local_address = stream.sock.getsockname()
        self._stream = stream
        self._lock: Any = RLock()
        self._changed = Condition(self._lock)
        self._waiting = 0  # how many threads wait for that
        self._deferred: Any = None  # a lock that is held until the last deferred call is done
        # Bytes in
        self._reader = 0  # the thread that reads, or 0
        self._buffer: bytearray | None = None
        self._arrived = 0  # how many bytes in the buffer the session does not know
        self.lost: OSError | None = None
        # Bytes out
        self._writing: Any = RLock()
        self._is_writing = False  # whether the thread that holds it does
        self._is_left = False  # whether another thread may have left output for it to write
        # Output that was taken from the Connection and is not written yet. Only the thread that holds
        # _writing uses it. Others look at its size: a number can be read without a lock, also without a GIL.
        self._unwritten = _NOTHING
        self._unwritten_size = 0
        self._sender: int | None = None  # the thread that sends a fragmented message

    # Messages in

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Receive the next message.

        Args:
            timeout: how many seconds to wait; None for no limit.

        Returns:
            Text as ``str``, binary as ``bytes``.

        Raises:
            ConnectionClosed: the connection ended, and all messages before its end were received. It is
                raised when the TCP connection is closed as well, which may take ``close_timeout``, but no
                longer than ``timeout``.
            TimeoutError: no message came in time.
            RuntimeError: a signal handler calls it that has interrupted another call that receives.
        """
        return self._receive(None, timeout).data

    def _receive(self, reader: PieceReader | None, timeout: float | None) -> Text | Binary:
        """Receive the next message, or the next piece for a reader."""
        deadline = None if timeout is None else deadline_after(timeout)
        thread = get_ident()
        if self._reader == thread or self._lock._is_owned():
            raise RuntimeError("a signal handler cannot receive: it has interrupted a call that receives")
        session = self.session
        message: Text | Binary | None = None
        is_late = False
        try:
            try:
                self._start_reading(thread, deadline)
                while True:
                    message = self._take(reader)
                    if message is not None:
                        return message
                    if session.pong_bytes:
                        self._answer(deadline)
                        continue
                    if session.end is not None:
                        self.close_tcp(deadline)
                        raise session.closed_error()
                    if deadline is not None and monotonic() >= deadline:
                        # Look once whether a message is there, but not again: bytes may come without an end.
                        if is_late:
                            raise TimeoutError("timed out")
                        is_late = True
                    self._read(deadline)
            finally:
                if self._reader == thread:
                    self._reader = 0
                self._stop_reading()
        except BaseException:
            if message is not None and reader is not None:
                self._give_up()  # this piece is lost, so the rest of the message must not follow
            raise

    def _take(self, reader: PieceReader | None) -> Text | Binary | None:
        """Take what has arrived of the next message, as the thread that reads."""
        session = self.session
        message: Text | Binary | None = None
        if reader is not None:
            session.check_reader(reader)
        try:
            with self._lock:
                if session.end is None or session.has_queued:
                    if self._arrived:
                        self._hand_over()
                    message = session.take_message() if reader is None else session.take_piece(reader)
                    if self._buffer is not None:
                        self._release_buffer()
                    if self._waiting:
                        self._changed.notify_all()  # a Pong may have come, or the end
        except BaseException:
            self._give_up()
            raise
        return message

    def _hand_over(self) -> None:
        """Hand the bytes that have arrived to the session. ``_release_buffer`` must follow."""
        if self._arrived and self._buffer is not None and self.session.end is None:
            self.session.read_from(self._buffer, self._arrived)
        self._arrived = 0

    def _release_buffer(self) -> None:
        """Leave the buffer to the next read of any connection."""
        buffer = self._buffer
        if buffer is not None:
            self.session.connection.release()
            self._buffer = None  # first: a signal handler may raise, and two connections must not share it
            if len(_spare_buffers) < MAX_SPARE_BUFFERS:
                _spare_buffers.append(buffer)

    def _look_ahead(self, deadline: float | None) -> bool:
        """Queue messages that have arrived, as the thread that reads; return whether the queue is full."""
        while True:
            try:
                with self._lock:
                    self._hand_over()
                    is_full = self.session.look_ahead()
                    self._release_buffer()
                    self._notify()
            except BaseException:
                self._give_up()
                raise
            if not self.session.pong_bytes:
                return is_full
            self._answer(deadline)

    # The thread that reads

    def _wait(self, deadline: float | None) -> None:
        seconds = remaining(deadline)
        self._waiting += 1
        try:
            self._changed.wait(SECOND if seconds is None else min(seconds, SECOND))
        except BaseException:
            if not self._lock._is_owned():  # wait() had let go of it
                self._lock.acquire()
            raise
        finally:
            self._waiting -= 1

    def _notify(self) -> None:
        if self._waiting:
            self._changed.notify_all()

    def _start_reading(self, thread: int, deadline: float | None) -> None:
        with self._lock:
            while self._reader:
                self._wait_for_reader(deadline)
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
        if self.session.is_lost:
            self._close_stream(0)

    def _read(self, deadline: float | None) -> None:
        """Read from the stream, as the thread that reads."""
        session = self.session
        until = deadline
        due = session.due if session.connection.state is OPEN else None
        if due is not None:
            if monotonic() >= due and not session.is_waiting_for_pong:
                self._poll()
                due = session.due
            until = due if deadline is None else earlier(due, deadline)
        # While answers are left, look only: with TLS, what is there may be nothing to receive.
        only_look = self._is_left and self._write_rest(until)
        is_waiting = False
        try:
            if self._buffer is None:
                self._buffer = _take_buffer()
            is_waiting = True
            try:
                count = self._stream.receive_into(self._buffer, monotonic() if only_look else until)
            except OSError as error:
                if is_own_timeout(error):
                    self._release_buffer()
                    if only_look:
                        return
                    if until is None or until == deadline or monotonic() < until:
                        raise  # the last: a signal handler has raised it
                    self._poll()
                    return
                count, self.lost = 0, error
            is_waiting = False
            self._arrived = count
            if count == 0:
                with self._lock:
                    session.receive_eof()
        except BaseException:
            if not is_waiting:
                self._give_up()
            raise

    def _answer(self, deadline: float | None) -> None:
        """Write our answers. Keepalive gives up a peer that asks for more of them than it reads."""
        self.session.pong_bytes = 0
        while self.session.end is None:
            with self._lock:
                is_too_much = self.session.connection.unsent > HIGH_WATER
            if not is_too_much:
                break
            due = self.session.due if self.session.connection.state is OPEN else None
            until = earlier(due, deadline)
            try:
                self._flush(until)
                return
            except TimeoutError:
                if until is None or until == deadline or monotonic() < until:
                    raise  # the last: a signal handler has raised it
            self._poll()
        # The peer may want us to read before it reads. What there is no room for waits for that.
        with suppress(TimeoutError):
            self._flush(monotonic())

    def _write_rest(self, deadline: float | None) -> bool:
        """Write the answers that there was no room for, or return whether there are bytes to read first."""
        while True:
            try:
                self._flush(monotonic())
                return False  # or another thread writes them
            except TimeoutError:
                if self._stream.wait_for_either(deadline):
                    return deadline is None or monotonic() < deadline

    def _poll(self) -> None:
        """Send a Ping, or fail the connection because the last one was not answered."""
        try:
            with self._lock:
                self.session.poll()
                self._notify()
        except BaseException:
            self._give_up()
            raise
        with suppress(TimeoutError):  # what cannot be written at once is written with the next message
            self._flush(monotonic())
        if self.session.end is not None:
            self.abort()

    def _give_up(self) -> None:
        """Stop using the Connection, because a signal handler has raised within a change of it.

        Whatever is written or read from here on might be wrong.
        """
        self.session.is_broken = True
        if self.session.end is None:
            self.session.end = _INTERRUPTED
        self.abort()

    # Messages out

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
                self.session.check_sendable()
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
        session = self.session
        if session.connection.is_within_message and session.is_sendable():
            with suppress(TimeoutError):
                self.start_close(1011, ABANDONED)
            error.add_note(f"wsframe closed the connection with 1011: {ABANDONED}")

    def _send(self, message: Message, fin: bool, compress: bool | None, sender: int | None) -> bool:
        """Send a message, or as the sender a fragment; return False if another thread is the sender."""
        session = self.session
        try:
            with self._writing:
                with self._lock:
                    if self._sender != sender:
                        return False
                    try:
                        session.send(message, fin, compress)
                        if self._is_writing or self._unwritten_size:
                            self._is_left = True
                        else:
                            # At once, or the thread that reads takes it for answers that are too many.
                            self._take_output()
                    except REFUSALS:
                        raise
                    except BaseException:
                        self._give_up()
                        raise
                self._write(None)
        finally:
            # Another thread may have queued a Ping or a Pong meanwhile, and left it to this one to write.
            if self._is_left:
                self._flush(None)
        if session.is_broken:
            raise session.closed_error()
        return True

    def _take_output(self) -> bool:
        """Take what the Connection has to send, as the thread that writes; False if there is nothing."""
        data = self.session.connection.data_to_send()
        self._unwritten = memoryview(data)
        self._unwritten_size = len(data)
        if not data:
            return False
        self.session.note_sent((data,), len(data))
        return True

    def _flush(self, deadline: float | None) -> None:
        """Write what the Connection has to send, unless another thread writes: it will write this too.

        The thread that reads must not wait for the one that writes: the peer may be waiting for us to read
        before it reads what we write. It waits only when the peer makes us answer more than it reads.
        """
        while True:
            with self._lock:
                connection = self.session.connection
                if self.session.is_broken or not (self._unwritten_size or connection.has_unsent()):
                    self._is_left = False
                    return
                self._is_left = True
                is_too_much = connection.unsent > HIGH_WATER
            try:
                if not self._writing.acquire(blocking=False):
                    if not is_too_much:
                        return
                    self._start_writing(deadline)
                if self._is_writing:
                    return  # below a signal handler, and goes on when that returns
                self._write(deadline)
            finally:
                try:  # noqa: SIM105 - no call may come before release(): see above
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
            while not self.session.is_broken:
                if not self._unwritten_size:
                    with self._lock:
                        self._is_left = False
                        if not self._take_output():
                            return
                data = self._unwritten
                sent = 0
                is_waiting = True
                try:
                    sent = self._stream.send(data, deadline)
                except OSError as error:
                    if is_own_timeout(error):
                        raise
                    # What the peer sent before can still be read; perhaps it tells why.
                    self.session.is_broken = True
                is_waiting = False
                self._unwritten = data[sent:] if sent < len(data) else _NOTHING
                self._unwritten_size = len(data) - sent
                if sent == len(data) and not self._is_left:
                    return
        except BaseException:
            self._is_left = True
            if not is_waiting:
                self._give_up()  # some of a frame is out, and nothing knows how much
            raise
        finally:
            self._is_writing = False
            if self.session.is_lost:
                self._close_stream(0)

    @property
    def buffered_amount(self) -> int:
        """How many bytes were sent and not yet taken by the system."""
        with self._lock:
            return self._unwritten_size + self.session.connection.unsent

    # Calls from signal handlers

    def _is_inside(self) -> bool:
        """Return whether this thread is within another call: then a signal handler has interrupted that."""
        return self._reader == get_ident() or self._lock._is_owned() or self._writing._is_owned()

    def _defer(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a function in another thread, because a signal handler has interrupted a call of this one.

        The other thread can wait for that. Deferred functions are called in this order.
        """
        done, previous = allocate_lock(), self._deferred
        done.acquire()
        self._deferred = done
        try:
            start_new_thread(self._do_later, (previous, done, function, args, kwargs))
        except RuntimeError:
            done.release()
            self.abort()  # there is no thread to be had

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

    # The beginning

    def shake_hands(self, deadline: float | None, answer: Callable[[Request], None] | None = None) -> bool:
        """Do the opening handshake, and begin the life of the connection.

        Args:
            deadline: when to give up; None for never.
            answer: answers the request, on a server.

        Returns:
            Whether the connection is open. If it is not, ``session.end`` is the reason.

        Raises:
            TimeoutError: it took too long.
            OSError: the connection is broken.
        """
        session = self.session
        self._flush(deadline)
        while not session.connection.was_opened:
            self._hand_over()
            event = session.next_handshake_event()
            self._release_buffer()
            if isinstance(event, Request) and answer is not None:
                answer(event)
            self._flush(deadline)
            if session.end is not None:
                return False
            if event is None:
                remaining(deadline)
                self._read(deadline)
        session.begin()
        return True

    # The end

    def start_close(self, code: int, reason: str, deadline: float | None = None) -> None:
        """Send a Close, if the connection is open, and return when it is written.

        Args:
            code: as for ``close``.
            reason: as for ``close``.
            deadline: when to give up writing; None for the end of ``close_timeout``.

        Raises:
            TimeoutError: it could not be written in time. It stays queued.
        """
        session = self.session
        if self._lock._is_owned():
            self._defer(self.start_close, code, reason, deadline)
            return
        try:
            with self._lock:
                session.start_close(code, reason)
        except REFUSALS:
            raise
        except BaseException:
            self._give_up()
            raise
        self._flush(earlier(session.close_deadline, deadline))

    def abort(self) -> None:
        """Cut the TCP connection at once. Threads that wait for it wake up."""
        self._stream.abort()

    def _drop_messages(self, deadline: float | None) -> None:
        """Wait for the last event, as the thread that reads."""
        with self._lock:
            self.session.discard()
        is_late = False
        while self.session.end is None:
            self._look_ahead(deadline)
            if self.session.end is None:
                if is_late:
                    raise TimeoutError("timed out")
                # Look once after the deadline: the Close may be there.
                is_late = deadline is not None and monotonic() >= deadline
                self._read(deadline)

    def _write_last(self, deadline: float | None) -> None:
        """Write our Close, after what another thread is sending."""
        try:
            while not self._writing.acquire(timeout=MOMENT):
                # The peer may want us to read before it reads.
                remaining(deadline)
                self._stream.drain(monotonic() + MOMENT)
            self._write(deadline)
        finally:
            try:  # noqa: SIM105 - no call may come before release(): see above
                self._writing.release()
            except RuntimeError:
                pass  # it was not taken

    def close_tcp(self, deadline: float | None) -> None:
        """Close the TCP connection so that the peer reads all that was written (section 7.1.1).

        Args:
            deadline: when to cut it, if that is before the end of ``close_timeout``; None: not before.
        """
        session = self.session
        if session.is_lost:
            return
        session.begin_closing()
        deadline = earlier(session.close_deadline, deadline)
        try:
            self._write_last(deadline)
        except TimeoutError:
            session.is_broken = True  # the peer did not get all of it, and not our Close
        if session.connection.should_close:
            self._stream.shut_down()
        # "the client SHOULD wait for the server to close the connection"
        self._stream.drain(deadline)
        # Another thread that is still sending wakes up: no thread may use the socket once it is closed.
        self._stream.shut_down()
        self._close_stream(SECOND)
        with self._lock:
            session.receive_eof()
            session.stops_at_pings = False
            while session.end is None:
                if session.pull() is None:
                    session.conclude(_INTERRUPTED)
            session.lose()
            self._notify()
        self._close_stream(0)
        # Otherwise the list keeps the buffers of connections that have ended, and does not shrink again.
        with suppress(IndexError):
            _spare_buffers.pop()
        session.log_closed()

    def _close_stream(self, seconds: float) -> None:
        """Close the socket, unless another thread still uses it: then that one does, when it leaves."""
        try:
            if not self._writing.acquire(timeout=seconds):
                self._stream.abort()
            elif self._reader == 0 or self._reader == get_ident():
                self._stream.close()
        finally:
            try:  # noqa: SIM105 - no call may come before release(): see above
                self._writing.release()
            except RuntimeError:
                pass  # it was not taken
