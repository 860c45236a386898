"""The life of an open connection, without a socket, an event loop, a thread or a clock of its own.

    the network                        Session                             the application
      | -- read_from, receive_eof --> | Connection | -- take_message, take_piece -->  |
      |                               | queue      |                                  |
      | <-- connection.chunks_to_send | keepalive  | <-- send, send_ping, start_close |
      |                               | counters   |                                  |
    the clock -- poll when it is due ->| log       |

Both adapters use it. What an adapter adds is what waits: for the network, for time and for other tasks or
threads. The task or thread that holds the socket at the moment may drive the session, one at a time.

1. Messages are pulled out of the Connection one at a time, in order, up to the last event. ``take_message``
   takes the next one. ``look_ahead`` pulls messages into the queue before they are asked for, until the queue
   is full.
2. On the way the session acts on everything else. A Pong ends the wait of its Ping. A Close or a Fail becomes
   ``end``, which explains to every later call why the connection is over.
3. ``due`` is the time at which ``poll`` has something to do. Before the end that is a Ping, or the verdict
   about the last one. From the beginning of the closing handshake on it is ``close_deadline``: when it has
   passed, the adapter cuts the TCP connection.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from .. import events
from ..connection import Connection, Message, Role, State, join_pieces
from ..errors import ConnectionClosed
from ..events import Binary, Close, Event, Fail, Ping, Pong, Text
from ..frames import TEXT
from ..prepared import Prepared
from .counters import Counters
from .keepalive import Keepalive, OnPong
from .log import ConnectionLogger, FrameLog
from .options import Timing

__all__ = ["CLEAN_CODES", "PieceReader", "Session"]

OPEN = State.OPEN
# An iteration over messages ends silently after these: normal closure, going away, and no code at all.
CLEAN_CODES = (1000, 1001, 1005)
MAX_QUEUE = 16  # messages
MAX_QUEUE_SIZE = 2**20  # bytes of memory

_ids = itertools.count(1)
_ids_lock = Lock()  # without a GIL, two threads could take the same number


class PieceReader:
    """One iteration over the pieces of a message. Both adapters' ``recv_stream`` returns a subclass.

    Attributes:
        is_begun: whether it has received a piece.
        is_over: whether it has received the last one.
    """

    __slots__ = ("is_begun", "is_over")

    def __init__(self) -> None:
        self.is_begun = False
        self.is_over = False

    def accept(self, piece: Text | Binary) -> str | bytes | None:
        """Return what a piece holds; None for the end of the iteration, when the last fragment was empty.

        Args:
            piece: what ``take_piece`` returned.
        """
        if self.is_begun and not piece.data:
            return None
        self.is_begun = True
        return piece.data


_DROPPED = PieceReader()  # the reader of a message that is dropped


class Session:
    """An open connection as both adapters see it.

    Args:
        connection: the Connection, which may still be in the opening handshake.
        logger: the adapter's logger.
        clock: returns the time in seconds. The times below are times of this clock.
        timing: the time limits. ``open_timeout`` is the adapter's.
        max_queue: the most messages that ``look_ahead`` puts into the queue.
        max_queue_size: the size of the queue from which on ``look_ahead`` stops, in bytes of memory.

    Attributes:
        connection: as given.
        id: the number of the connection in this process. Log records have it.
        end: the Close or Fail that the connection ended with; None before that.
        is_lost: whether the TCP connection is closed. The adapter sets it.
        is_broken: whether some output did not reach the network. The adapter sets it.
        is_at_eof: whether the peer has closed its direction of TCP.
        is_discarding: whether messages are dropped instead of queued, unless they are taken at once.
        stops_at_pings: whether ``pull`` returns after each Ping, so that the adapter can write the Pong
            before it takes what follows. ``pong_bytes`` is not 0 then. The adapter sets it.
        close_deadline: when to cut the TCP connection; None before the closing handshake.
        messages: the queue.
        pong_bytes: how many bytes of Pongs were queued for output. The adapter resets it.
        remote_address, local_address: the ends of the TCP connection. The adapter sets them.
    """

    __slots__ = (
        "__weakref__",
        "_bytes_received",
        "_bytes_sent",
        "_clock",
        "_frame_log",
        "_keepalive",
        "_logger",
        "_max_queue",
        "_max_queue_size",
        "_messages_received",
        "_messages_sent",
        "_pieces",
        "_pings_received",
        "_pings_sent",
        "_queue_size",
        "_reader",
        "_timing",
        "close_deadline",
        "connection",
        "end",
        "id",
        "is_at_eof",
        "is_broken",
        "is_discarding",
        "is_lost",
        "local_address",
        "messages",
        "pong_bytes",
        "remote_address",
        "stops_at_pings",
    )

    def __init__(
        self,
        connection: Connection,
        logger: logging.Logger,
        clock: Callable[[], float],
        timing: Timing,
        max_queue: int = MAX_QUEUE,
        max_queue_size: int = MAX_QUEUE_SIZE,
    ) -> None:
        with _ids_lock:
            self.id = next(_ids)
        self.connection = connection
        self._logger = logger
        self._clock = clock
        self._timing = timing
        self._max_queue = max_queue
        self._max_queue_size = max_queue_size
        self.remote_address: Any = None
        self.local_address: Any = None
        # In
        self.messages: list[Text | Binary] = []
        self._queue_size = 0
        # The reader of the message whose pieces arrive, or _DROPPED when no reader wants the rest
        self._reader: PieceReader | None = None
        self._pieces: list[Any] | None = None  # of a message that take_message() puts together
        self.is_discarding = False
        self.is_at_eof = False
        # Out
        self.pong_bytes = 0
        self.stops_at_pings = False
        # Time
        self._keepalive: Keepalive | None = None  # until it is needed
        self.close_deadline: float | None = None
        # The end
        self.end: Close | Fail | None = None
        self.is_broken = False
        self.is_lost = False
        # Counters and log
        self._bytes_received = self._bytes_sent = 0
        self._messages_received = self._messages_sent = 0
        self._pings_received = self._pings_sent = 0
        self._frame_log: FrameLog | None = None
        if logger.isEnabledFor(logging.DEBUG):
            self._frame_log = FrameLog(self.logger.debug, is_client=connection.role is Role.CLIENT)

    # Bytes in

    def read_from(self, buffer: bytearray, count: int) -> None:
        """Take bytes off the network. ``connection.release`` must follow before the buffer changes.

        Args:
            buffer: holds them at its beginning.
            count: how many there are; 1 or more.
        """
        self._bytes_received += count
        if self._frame_log is not None:
            self._frame_log.received(bytes(buffer[:count]))
        self.connection.read_from(buffer, count)

    def receive_eof(self) -> None:
        """Take the end of the stream."""
        if not self.is_at_eof:
            self.is_at_eof = True
            self.connection.receive_data(b"")

    # Messages out

    def next_handshake_event(self) -> Event | None:
        """Return the next event of the opening handshake; a Fail becomes the ``end``."""
        event = self.connection.next_event()
        if type(event) is Fail:
            self.conclude(event)
        return event

    def pull(self) -> Text | Binary | None:
        """Pull the next message, or piece of one, out of the Connection, and act on the events before it.

        Returns:
            None when more bytes are needed, the connection is over, or it ``stops_at_pings``.
        """
        if self.is_broken and self.end is not None:
            return None  # an adapter that was interrupted within a change has given the Connection up
        while event := self.connection.next_event():
            kind = type(event)
            if kind is Text or kind is Binary:
                message: Text | Binary = event  # type: ignore[assignment]
                if self.end is None:  # else this end is over already
                    if message.final:
                        self._messages_received += 1
                    return message
            elif kind is Ping:
                self._pings_received += 1
                self.pong_bytes += len(event.payload) + 2  # type: ignore[union-attr]
                if self.stops_at_pings:
                    return None
            elif kind is Pong:
                if self._keepalive is not None:
                    self._keepalive.pong(event.payload, self._clock())  # type: ignore[union-attr]
            else:
                self.conclude(event)  # type: ignore[arg-type]
        return None

    def take_queued(self) -> Text | Binary:
        """Take the first message, or piece of one, from the queue."""
        # In this order, a signal handler that raises in between loses no message: see sync/driver.py.
        message = self.messages[0]
        self._queue_size -= events.size_in_memory(message.data)
        del self.messages[0]
        return message

    def put_back(self, message: Text | Binary) -> None:
        """Put a message that was taken back to the front of the queue."""
        self.messages.insert(0, message)
        self._queue_size += events.size_in_memory(message.data)

    def take_message(self) -> Text | Binary | None:
        """Take the next message if all of it is there.

        The rest of a message whose pieces no reader wants any more is dropped first.

        Returns:
            None when more bytes are needed, or the connection is over.
        """
        while (message := self.take_queued() if self.messages else self.pull()) is not None:
            if self._reader is not None:
                if message.final:
                    self._reader = None
            elif message.final and not self._pieces:
                return message
            else:
                if self._pieces is None:
                    self._pieces = []
                self._pieces.append(message.data)
                self._queue_size += events.size_in_memory(message.data)
                if message.final:
                    return self._join_pieces(True)
        return None

    def take_piece(self, reader: PieceReader) -> Text | Binary | None:
        """Take the next piece of the message that a reader receives.

        Args:
            reader: the reader.

        Returns:
            None when more bytes are needed, or the connection is over.

        Raises:
            RuntimeError: another call has dropped the rest of this message.
        """
        self.check_reader(reader)
        while True:
            if self._reader is None and self._pieces:
                piece: Text | Binary | None = self._join_pieces(False)
            else:
                if self._reader is None and not self.messages:
                    self.connection.stream_next()
                piece = self.take_queued() if self.messages else self.pull()
            if piece is None:
                return None
            if self._reader is None or self._reader is reader:
                reader.is_over = piece.final
                self._reader = None if piece.final else reader
                return piece
            if piece.final:  # the last one of a message that no reader wants
                self._reader = None

    def check_reader(self, reader: PieceReader) -> None:
        """Check that the message that a reader has begun is still being received.

        Raises:
            RuntimeError: another call has dropped the rest of this message.
        """
        if reader.is_begun and self._reader is not reader:
            raise RuntimeError("the rest of this message was dropped by another recv, or by close")

    def _join_pieces(self, final: bool) -> Text | Binary:
        assert self._pieces is not None
        joined = join_pieces(self._pieces, final)
        for piece in self._pieces:
            self._queue_size -= events.size_in_memory(piece)
        self._pieces = None
        return joined

    # Reading ahead

    @property
    def has_queued(self) -> bool:
        """Whether a message, or some of one, waits to be taken."""
        return bool(self.messages or self._pieces)

    @property
    def is_full(self) -> bool:
        """Whether the queue has no room for another message."""
        return (
            len(self.messages) >= self._max_queue
            or self._queue_size + self.connection.collected >= self._max_queue_size
        )

    def look_ahead(self) -> bool:
        """Pull messages into the queue until it is full; or drop them, after ``discard``.

        Returns:
            Whether the queue is full: then there may be more to pull.
        """
        while self.is_discarding or not self.is_full:
            if self.is_discarding:
                self.connection.stream_next()  # what is dropped need not be collected
            message = self.pull()
            if message is None:
                return False
            if self.is_discarding:
                self._drop(message)
            else:
                self.messages.append(message)
                self._queue_size += events.size_in_memory(message.data)
        return True

    def discard(self) -> None:
        """Drop the messages in the queue, and from now on all that are not taken at once."""
        self.is_discarding = True
        if self._pieces:
            self._join_pieces(False)
            self._reader = _DROPPED
        if self.messages:
            self._drop(self.messages[-1])
        self.messages.clear()
        self._queue_size = 0

    def _drop(self, message: Text | Binary) -> None:
        # After a piece, the rest of its message is of no use either.
        self._reader = None if message.final else _DROPPED

    # Calls in

    def is_sendable(self) -> bool:
        """Return whether a message may be sent now."""
        return self.connection.state is OPEN and not self.is_broken and not self.is_lost

    def check_sendable(self) -> None:
        """Check that a message may be sent now.

        Raises:
            ConnectionClosed: the connection is closing or closed.
        """
        if not self.is_sendable():
            raise self.closed_error()

    def closed_error(self) -> ConnectionClosed:
        """Return the error that says how the connection ended, or is about to."""
        if self.end is not None:
            is_clean = type(self.end) is Close and not self.is_broken
            return ConnectionClosed(self.end.code, self.end.reason, is_clean)
        sent = self.connection.close_sent
        if sent is not None and not self.is_broken and not self.is_lost:
            return ConnectionClosed(sent.code, sent.reason)
        return ConnectionClosed(1006, "connection was lost")

    def send(self, message: Message, fin: bool = True, compress: bool | None = None) -> None:
        """Queue a message, or a fragment of one, for output. See ``Connection.send_message``.

        Raises:
            ConnectionClosed: the connection is closing or closed.
        """
        if not self.is_sendable():
            raise self.closed_error()
        self.connection.send_message(message, fin, compress)
        self._messages_sent += fin

    def send_slice(self, opcode: int, data: memoryview, fin: bool, compress: bool | None) -> None:
        """Queue a fragment of a message that is encoded already. Text may be cut within a character.

        Raises:
            ConnectionClosed: the connection is closing or closed.
        """
        self.check_sendable()
        send = self.connection.send_text if opcode == TEXT else self.connection.send_binary
        send(data, fin, compress=compress)
        self._messages_sent += fin

    def send_prepared(self, message: Prepared) -> None:
        """Queue a prepared message for output, unless the connection is closing or closed."""
        if self.is_sendable():
            self.connection.send_prepared(message)
            self._messages_sent += 1

    def send_ping(self, payload: bytes | None, on_pong: OnPong) -> bytes:
        """Queue a Ping for output, and return its payload. ``forget_ping`` must follow in the end.

        Args:
            payload: up to 125 bytes; None for 4 random ones.
            on_pong: called with the round trip in seconds, or with None when the connection ends before.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            LocalProtocolError: the payload is too long, or a Ping with the same one waits for its Pong.
        """
        self.check_sendable()
        now = self._clock()
        if self._keepalive is None:
            self._keepalive = Keepalive(None, None, now)
        payload = self._keepalive.next_ping(payload, now, on_pong)
        try:
            self.connection.send_ping(payload)
        except BaseException:
            self.forget_ping(payload, on_pong)
            raise
        self._pings_sent += 1
        return payload

    def forget_ping(self, payload: bytes, on_pong: OnPong) -> None:
        """Forget a Ping whose Pong is no longer waited for.

        Args:
            payload: what ``send_ping`` returned.
            on_pong: the callback that it was given.
        """
        if self._keepalive is not None:
            self._keepalive.forget(payload, on_pong)

    @property
    def latency(self) -> float | None:
        """The last round trip of a Ping in seconds; None before the first."""
        return None if self._keepalive is None else self._keepalive.latency

    # Bytes out

    def note_sent(self, chunks: Sequence[bytes], size: int) -> None:
        """Count and log output that is handed to the network.

        Args:
            chunks: what the Connection had to send.
            size: how many bytes that is.
        """
        self._bytes_sent += size
        if self._frame_log is not None:
            for chunk in chunks:
                self._frame_log.sent(chunk)

    # Time

    def begin(self) -> None:
        """Begin the life of the connection, now that the opening handshake is over."""
        if self._logger.isEnabledFor(logging.INFO):
            self.logger.opened(self.resource_name, self.remote_address)
        timing = self._timing
        if timing.ping_interval is not None:
            self._keepalive = Keepalive(timing.ping_interval, timing.ping_timeout, self._clock())

    @property
    def due(self) -> float | None:
        """When to call ``poll``; None for never. It is ``close_deadline`` once closing has begun."""
        if self.close_deadline is not None:
            return self.close_deadline
        if self._keepalive is None or self.connection.state is not OPEN:
            return None
        return self._keepalive.due

    @property
    def is_waiting_for_pong(self) -> bool:
        """Whether the peer has yet to answer the Ping that it is judged by."""
        return self._keepalive is not None and self._keepalive.is_waiting

    def poll(self, is_held_up: bool = False) -> None:
        """Send a Ping if one is due, or fail the connection because the last one was not answered.

        Args:
            is_held_up: whether it is our fault that a Pong cannot be read.
        """
        connection = self.connection
        # Also when nothing can be sent any more: a peer that does not answer is given up all the same.
        if self._keepalive is None or self.end is not None or self.is_lost or connection.state is not OPEN:
            return
        read = self._bytes_received - connection.unread
        try:
            payload = self._keepalive.poll(self._clock(), read, connection.frame_remaining, is_held_up)
        except TimeoutError as error:
            self.conclude(connection.fail(1011, str(error)))
            return
        if payload is not None:
            connection.send_ping(payload)
            self._pings_sent += 1

    # The end

    def start_close(self, code: int, reason: str) -> bool:
        """Begin the closing handshake, if the connection is open, and return whether it was.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
            TypeError: the code is not an int, or the reason not a string.
        """
        if not self.is_sendable():
            return False
        self.connection.send_close(code, reason)
        self.begin_closing()
        return True

    def begin_closing(self) -> None:
        """Start the time within which the TCP connection must be closed, if it has not begun."""
        if self.close_deadline is None and self._timing.close_timeout is not None:
            self.close_deadline = self._clock() + self._timing.close_timeout

    def conclude(self, end: Close | Fail) -> None:
        """Note how the connection ended. The first end counts.

        Args:
            end: the last event, or one that the application shall see instead.
        """
        if self.end is None:
            self.end = end
        self.begin_closing()
        if self._keepalive is not None:
            self._keepalive.end()

    def lose(self) -> None:
        """Note that the TCP connection is closed."""
        self.is_lost = True
        if self._keepalive is not None:
            self._keepalive.end()

    def log_closed(self) -> None:
        """Log how the connection ended, if it was open."""
        if self.connection.was_opened and self._logger.isEnabledFor(logging.INFO):
            self.logger.closed(self.closed_error())

    # Facts

    @property
    def resource_name(self) -> str:
        """The path and the query of the request."""
        request = getattr(self.connection, "request", None)
        if request is not None:
            return str(request.path)
        return str(self.connection.uri.resource_name)  # type: ignore[attr-defined]

    @property
    def logger(self) -> ConnectionLogger:
        """The logger that puts the connection's ``id`` in front of its messages."""
        return ConnectionLogger(self._logger, self.id)

    @property
    def counters(self) -> Counters:
        """The numbers of what has happened on this connection so far."""
        connection = self.connection
        is_opened = connection.was_opened
        is_failure = connection.close_received is None or self.is_broken
        return Counters(
            int(is_opened),
            int(is_opened and self.is_lost and is_failure),
            self._messages_received,
            self._messages_sent,
            self._bytes_received,
            self._bytes_sent,
            self._pings_received,
            self._pings_sent,
            connection.uncompressed,
            connection.compressed,
        )
