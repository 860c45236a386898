r"""RFC 6455, sections 5.4 to 5.6, 6 and 7: the connection, as a state machine.

Theory of operation
===================

A Connection is the RFC and nothing else: bytes in, events out; calls in, bytes out. It never touches
the network, a clock or a thread. An adapter does its I/O, and follows this contract:

    1  receive_data(what you read; b"" at the end)
    2  next_event() until it returns None, acting on each
    3  write data_to_send()
    4  if should_close: close.   While state is CLOSING: use a timeout

It has four states:

    CONNECTING -- accepted --> OPEN -- Close sent or received, or failed --> CLOSING -- end --> CLOSED
        \________ handshake refused or broken _________________________________________________/

    state                   | send | send_close   | gets data | gets Close     | violation      | end
    ------------------------+------+--------------+-----------+----------------+----------------+-------------
    CONNECTING              | no   | no           | -         | -              | Fail, CLOSED,* | Fail, CLOSED
    OPEN                    | yes  | yes, CLOSING | event     | event, echo,   | Fail, Close,   | Fail, CLOSED
                            |      |              |           | CLOSING,       | CLOSING, *     |
                            |      |              |           | server: *      |                |
    CLOSING, ours was 1st   | no   | no           | event     | event,         | Fail, *        | Fail, CLOSED
                            |      |              |           | server: *      |                |
    CLOSING, over           | no   | no           | ignored   | ignored        | ignored        | CLOSED
    CLOSED                  | no   | no           | -         | -              | -              | -

    no: raises LocalProtocolError      *: should_close turns true, as it does at every end of stream

"Over" means that the last event, a Close or a Fail, has been returned.

It is lazy: bytes are only stored when they come in, and ``next_event`` reads them up to the next event.
So the state that you see is the state as of that event, and what a peer said before it closed, or before
it broke the protocol, can still be answered.

What may come next is not a set of flags to be tested: the decoder holds the set of first bytes that are
legal now, and this module swaps that set at the beginning and at the end of a fragmented message.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any, NoReturn, TypeAlias

# As masking.py says of itself: compiled, events.Text(...) and events.Binary(...) are made without a call.
from . import events, masking
from .deflate import Deflate
from .errors import LocalProtocolError, RemoteProtocolError
from .events import Close, Event, Fail, Ping, Pong
from .frames import (
    BETWEEN_COMPRESSED,
    BETWEEN_MESSAGES,
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL,
    FIN,
    MAX_LENGTH,
    PING,
    PONG,
    RSV1,
    TEXT,
    WITHIN_MESSAGE,
    FrameDecoder,
    as_bytes,
)
from .prepared import Prepared

__all__ = ["Connection", "Fragment", "Message", "Role", "State"]

Fragment: TypeAlias = str | bytes | bytearray | memoryview
Message: TypeAlias = Fragment | Prepared
# Why a connection is closed with 1011 when the fragments of a message end before the message does
ABANDONED = "message could not be completed"

# The first byte of a message that is one frame
_WHOLE_TEXT, _WHOLE_BINARY = FIN | TEXT, FIN | BINARY
_PIECE = 65536  # bytes: what one event of a compressed message holds, with fragments=True
# A message may have this many fragments, or one for so many bytes of the limit if those are more.
_MAX_FRAGMENTS = 65536
_BYTES_PER_FRAGMENT = 64
# Section 7.4: the status codes that may stand in a Close frame, and those that never do.
_REGISTERED_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
NO_STATUS_RECEIVED, ABNORMAL_CLOSURE = 1005, 1006


class Role(Enum):
    """The two endpoints of a connection (RFC 6455, section 1.2)."""

    CLIENT = "client"
    SERVER = "server"


class State(IntEnum):
    """The states of a connection (RFC 6455, sections 4.1 and 7.1)."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


_CLIENT = Role.CLIENT
CONNECTING, OPEN, CLOSING, CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED


def _is_sendable(code: int) -> bool:
    """Return whether a status code may stand in a Close frame (sections 7.4.1 and 7.4.2)."""
    return code in _REGISTERED_CODES or 3000 <= code < 5000


def _encode_close(code: int, reason: str) -> bytes:
    """Return the payload of a Close (section 5.5.1)."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"code must be an int, not {type(code).__name__}")
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {type(reason).__name__}")
    if code == NO_STATUS_RECEIVED:
        if reason:
            raise LocalProtocolError("a Close without a status code has no reason")
        return b""
    if not _is_sendable(code):
        raise LocalProtocolError(f"status code {code} must not be sent")
    try:
        data = reason.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("reason contains a lone surrogate") from None
    if len(data) > 123:
        raise LocalProtocolError(f"reason must be at most 123 bytes long, not {len(data)}")
    return code.to_bytes(2, "big") + data


def is_fragmented(message: object) -> bool:
    """Return whether a user gives a message as an iterable of its fragments.

    Args:
        message: what is to be sent. Bytes-like objects and mappings are iterable, but not meant so.
    """
    # One class in each call, where it is not built in. When ``message.__class__`` raises, the compiled build
    # does not notice it in a call with a tuple of classes, and the next call raises a SystemError.
    if isinstance(message, (str, bytes, bytearray, memoryview)):
        return False
    if isinstance(message, Prepared) or isinstance(message, Mapping):  # noqa: SIM101
        return False
    try:
        memoryview(message)  # type: ignore[arg-type]
    except TypeError:
        return isinstance(message, Iterable) or isinstance(message, AsyncIterable)  # noqa: SIM101
    return False


def as_plain(data: Any) -> str | bytes:
    """Return text as a ``str``, and what any other object holds as ``bytes``.

    A subclass may have a length of its own, and a buffer of no dimension, or of several, has none of bytes.

    Args:
        data: a string or a bytes-like object.

    Raises:
        TypeError: it is neither, or not contiguous.
    """
    return str.__str__(data) if isinstance(data, str) else as_bytes(data)


def check_fragment(fragment: object, last: object) -> str | bytes:
    """Return the next fragment of a message as ``str`` or ``bytes``.

    Args:
        fragment: what comes next.
        last: what came before it, or None.

    Raises:
        TypeError: it is neither text nor bytes-like, or the other of the two.
    """
    if isinstance(fragment, Prepared):
        raise TypeError("a fragment must be str or bytes-like, not Prepared")
    if last is not None and isinstance(fragment, str) is not isinstance(last, str):
        raise TypeError("the fragments of a message must be all str or all bytes-like")
    return as_plain(fragment)


def join_pieces(pieces: Sequence[Any], final: bool) -> events.Text | events.Binary:
    """Put pieces of a message together.

    Args:
        pieces: what they hold: all ``str`` or all ``bytes``; one or more.
        final: whether the message ends with them.
    """
    data = pieces[0][:0].join(pieces)
    return events.Text(data, final) if isinstance(data, str) else events.Binary(data, final)


def check_compression(compression: Deflate | None) -> Deflate | None:
    """Return what a user wishes, when it is a ``Deflate`` or None.

    Raises:
        TypeError: it is neither.
    """
    if compression is not None and not isinstance(compression, Deflate):
        raise TypeError(f"compression must be a Deflate or None, not {type(compression).__name__}")
    return compression


class _PartialMessage:
    """A message that goes out, or comes in, of which some is still to come.

    Attributes:
        opcode: TEXT or BINARY; CONTINUATION while there is no such message.
        is_compressed: whether it is compressed.
        pending: the first bytes of a character, which the text ends with so far.
    """

    __slots__ = ("is_compressed", "opcode", "pending")

    def __init__(self) -> None:
        self.opcode = CONTINUATION
        self.is_compressed = False
        self.pending = b""

    def decode(self, data: bytes, final: bool) -> str:
        """Decode the next bytes of a text, and refuse at once a byte that no other can complete.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        if not self.pending and data.isascii():
            return data.decode("ascii")
        data = self.pending + data
        text, length = codecs.utf_8_decode(data, "strict", final)
        pending = data[length:]
        # The codec waits for the third byte of a surrogate, but the second gives it away.
        if b"\xed\xa0" <= pending < b"\xee":
            raise UnicodeDecodeError("utf-8", pending, 0, 2, "surrogates are not allowed")
        self.pending = pending
        return text


class _IncomingMessage(_PartialMessage):
    """A message that comes in fragments, or in a frame that is not there whole (section 5.4).

    Attributes:
        buffer: what has come of it, unless events give it piece by piece.
        fragments: how many of its fragments are there whole.
        room: how many bytes it may still decompress to.
    """

    __slots__ = ("buffer", "fragments", "room")

    def __init__(self) -> None:
        super().__init__()
        self.buffer = masking.MessageBuffer()
        self.fragments = 0
        self.room = 0

    def check_text(self, size: int, final: bool) -> None:
        """Check the last bytes of a text as they come, so that a bad one fails the connection at once."""
        if self.pending or not self.buffer.is_ascii(size):
            self.decode(self.buffer.last(size), final)

    def take(self) -> events.Text | events.Binary:
        """Return the message, which is whole, and make room for the next."""
        opcode = self.opcode
        self.opcode = CONTINUATION
        if opcode == TEXT:
            return events.Text(self.buffer.take_text())
        return events.Binary(self.buffer.take())

    def take_piece(self) -> events.Text | events.Binary | None:
        """Return what the buffer holds, up to the last whole character."""
        data = self.buffer.take()
        if self.opcode == BINARY:
            return events.Binary(data, False)
        text = data[: len(data) - len(self.pending)].decode("utf-8")
        return events.Text(text, False) if text else None


class Connection:
    """One endpoint of a WebSocket connection that is open already (RFC 6455).

    Use ``ServerConnection`` and ``ClientConnection`` where the opening handshake is still to come.

    Args:
        role: Role.CLIENT or Role.SERVER.
        max_message_size: the largest message to receive, in bytes; by default 1 MiB. A larger one
            fails the connection with 1009 as soon as a header announces it. None: no limit.
        compression: what was agreed on about compression (RFC 7692), or None.
        fragments: whether ``Text`` and ``Binary`` arrive piece by piece, as the bytes come in, with
            ``final=False`` until the last; otherwise each is a whole message.

    Attributes:
        role: as given.
        state: State.CONNECTING, OPEN, CLOSING or CLOSED, as of the last event.
        should_close: once ``data_to_send()`` is written, close the TCP connection.
        subprotocol: the subprotocol in use, or None.
        compression: what is agreed on about compression, or None.
        close_sent: the ``Close`` that we sent, or None.
        close_received: the ``Close`` that the peer sent, or None.
        end: the last event, a ``Close`` or a ``Fail``; None before it.
        uncompressed: how many bytes the messages had that were sent compressed.
        compressed: how many they had after that.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: ``max_message_size`` is negative.
    """

    __slots__ = (
        "__weakref__",
        "_as_pieces",
        "_compressor",
        "_decoder",
        "_decompressor",
        "_eof",
        "_fragments",
        "_in_handshake",
        "_incoming",
        "_max_message_size",
        "_outgoing",
        "_output",
        "close_received",
        "close_sent",
        "compressed",
        "compression",
        "end",
        "role",
        "should_close",
        "state",
        "subprotocol",
        "uncompressed",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int | None = 2**20,
        compression: Deflate | None = None,
        fragments: bool = False,
    ) -> None:
        if not isinstance(role, Role):
            raise TypeError(f"role must be Role.CLIENT or Role.SERVER, not {role!r}")
        if max_message_size is None:
            max_message_size = MAX_LENGTH
        if not isinstance(max_message_size, int) or isinstance(max_message_size, bool):
            raise TypeError(f"max_message_size must be an int, not {type(max_message_size).__name__}")
        if max_message_size < 0:
            raise ValueError(f"max_message_size must not be negative: {max_message_size}")
        max_message_size = min(max_message_size, MAX_LENGTH)  # no frame is longer
        self.role = role
        self.state = OPEN
        self.should_close = False
        self.subprotocol: str | None = None
        self.close_sent: Close | None = None
        self.close_received: Close | None = None
        self.end: Close | Fail | None = None
        self._in_handshake = False

        # Bytes in
        self._max_message_size = max_message_size
        self._fragments = fragments
        self._as_pieces = fragments  # the same, but for a message that stream_next() asks for
        self._decoder = FrameDecoder(masked=role is Role.SERVER, max_size=max_message_size)
        self._decoder.partial = True
        self._decoder.legal = BETWEEN_MESSAGES
        self._eof = False  # the end of the stream has come in
        # Made when the first one comes, and used for all of them
        self._incoming: _IncomingMessage | None = None

        # Bytes out
        self._output: list[bytes] = []
        self._outgoing = _PartialMessage()
        self.uncompressed = self.compressed = 0

        # What the compression makes for each direction, once it is agreed on
        self._compressor: Any = None
        self._decompressor: Any = None
        self.compression: Deflate | None = None
        if compression is not None:
            self._agree(compression)

    def _agree(self, compression: Deflate) -> None:
        """Use the compression that was agreed on."""
        check_compression(compression)
        self.compression = compression
        is_server = self.role is Role.SERVER
        self._compressor = compression.compressor(is_server=is_server)
        self._decompressor = compression.decompressor(is_server=is_server)
        self._decoder.legal = BETWEEN_COMPRESSED
        # What does not compress grows a little. The limit is for what it decompresses to; this one keeps
        # out frames that are too big whatever is in them.
        limit = self._max_message_size
        self._decoder.max_compressed_size = min(limit + limit // 4 + 1024, MAX_LENGTH)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.role.name} {self.state.name}>"

    def __reduce__(self) -> NoReturn:
        # A copy would share the decoder and the queue of what is to be sent, or have none of them.
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled")

    @property
    def was_opened(self) -> bool:
        """Whether the opening handshake has succeeded."""
        return not self._in_handshake

    # 1. Bytes in

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes off the network. It never raises for what the peer did.

        Args:
            data: what was read; any contiguous bytes-like object. ``b""`` is the end of the stream.

        Raises:
            TypeError: it is not bytes-like, or not contiguous.
            LocalProtocolError: bytes come after the end of the stream.
        """
        data = as_bytes(data)
        if not data:
            self._receive_eof()
        elif self._eof:
            raise LocalProtocolError("bytes after the end of the stream")
        elif self.end is None:
            self._decoder.feed(data)

    def read_from(self, buffer: bytearray, count: int) -> None:
        """Take bytes off the network where they were received, without the copy that ``receive_data`` makes.

        Call ``next_event`` as often as you like, and then ``release``. For ``socket.recv_into`` and
        ``asyncio.BufferedProtocol``: one buffer serves any number of connections.

        Args:
            buffer: its first bytes are those. Do not change it before ``release``.
            count: how many came; 0 is the end of the stream.

        Raises:
            LocalProtocolError: bytes come after the end of the stream.
            TypeError: the buffer is not a ``bytearray``.
            ValueError: it does not hold as many.
        """
        if count == 0:
            self._receive_eof()
        elif self._eof:
            raise LocalProtocolError("bytes after the end of the stream")
        elif self.end is None:
            self._decoder.read_from(buffer, count)

    def release(self) -> None:
        """Give back the buffer of ``read_from``. Bytes in it that no event has used are copied."""
        self._decoder.release()

    def _receive_eof(self) -> None:
        self._eof = True
        if self.end is not None:
            self.state = CLOSED
            self.should_close = True

    @property
    def unread(self) -> int:
        """How many bytes have come in that ``next_event`` has not read yet."""
        return self._decoder.unread

    def has_unread(self) -> bool:
        """Return whether bytes have come in that ``next_event`` has not read yet."""
        return self._decoder.has_unread()

    @property
    def frame_remaining(self) -> int:
        """How many bytes of a frame that is read in part are still to come: no Pong can, before them."""
        return self._decoder.remaining

    # 2. Events out

    def next_event(self) -> Event | None:
        """Return what the peer said next, or None if more bytes are needed.

        The last event is a Close or a Fail. Pings are answered and Closes are echoed by the core: what
        it answers stands in ``data_to_send()``. It never raises for what the peer did.
        """
        if self.end is not None:
            return None
        try:
            if self._in_handshake:
                return self._next_handshake_event() or (self._end_of_stream() if self._eof else None)
            if self._incoming is not None and self._incoming.opcode:
                incoming = self._incoming
                # More of a message may have come than events have told.
                if self._as_pieces and incoming.buffer.size and (event := incoming.take_piece()):
                    return event
                if incoming.is_compressed and self._decompressor.has_more:
                    event = self._decompress(incoming)
                    if event is not None:
                        return event
            decoder = self._decoder
            while decoder.advance():
                first = decoder.first
                if first & CONTROL:
                    return self._receive_control(first & 0x0F, decoder.read_payload())
                if decoder.is_whole and not self._as_pieces:
                    # The usual case: a message is one frame, and all of it is there.
                    if first == _WHOLE_TEXT:
                        return events.Text(decoder.read_text())
                    if first == _WHOLE_BINARY:
                        return events.Binary(decoder.read_payload())
                    if first & FIN and first & RSV1:
                        payload = decoder.read_payload()
                        payload = self._decompressor.decompress(payload, self._max_message_size)
                        if first == _WHOLE_TEXT | RSV1:
                            return events.Text(payload.decode("utf-8"))
                        return events.Binary(payload)
                event = self._receive_piece()
                if event is not None:
                    return event
        except RemoteProtocolError as error:
            return self._fail(error.code, error.reason)
        except UnicodeDecodeError:
            # Section 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the
            # byte stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket
            # Connection_."
            return self._fail(1007, "text is not UTF-8")
        return self._end_of_stream() if self._eof else None

    def _next_handshake_event(self) -> Event | None:
        """Return the next event of the opening handshake, which the subclasses know."""
        raise NotImplementedError

    def _end_of_stream(self) -> Fail:
        # Section 7.1.5: "If [...] no Close control frame was received [...], _The WebSocket Connection
        # Close Code_ is considered to be 1006."
        return self._fail(ABNORMAL_CLOSURE, "connection was lost: the stream ended without a Close")

    def _receive_piece(self) -> events.Text | events.Binary | None:
        """Take some of a message that is fragmented, or not there whole (section 5.4)."""
        decoder = self._decoder
        first = decoder.first
        incoming = self._incoming
        if incoming is None:
            incoming = self._incoming = _IncomingMessage()
        if incoming.opcode == CONTINUATION:
            incoming.opcode = first & 0x0F
            incoming.is_compressed = first & RSV1 != 0
            incoming.fragments = 0
            incoming.room = self._max_message_size
            decoder.legal = WITHIN_MESSAGE
        fragments = incoming.fragments
        final = decoder.is_end and first & FIN != 0
        if final:
            decoder.legal = BETWEEN_MESSAGES if self.compression is None else BETWEEN_COMPRESSED
            decoder.max_size = self._max_message_size
        elif incoming.is_compressed:
            decoder.max_size = decoder.max_compressed_size
        else:
            decoder.max_size -= decoder.payload_size()
        if decoder.is_end and not final:
            incoming.fragments += 1
            if _MAX_FRAGMENTS <= incoming.fragments >= self._max_message_size // _BYTES_PER_FRAGMENT:
                raise RemoteProtocolError(1009, "message has too many fragments")
        if incoming.is_compressed:
            self._decompressor.feed(decoder.read_payload(), fragments)
            return self._decompress(incoming)
        if self._as_pieces:
            return self._receive_bytes(incoming, decoder.read_payload(), final)
        decoder.collect(incoming.buffer)
        if incoming.opcode == TEXT:
            incoming.check_text(decoder.payload_size(), final)
        return incoming.take() if final else None

    def _decompress(self, incoming: _IncomingMessage) -> events.Text | events.Binary | None:
        """Take what a piece decompresses to, up to the next event (RFC 7692, section 7.2.2)."""
        decoder, decompressor = self._decoder, self._decompressor
        while True:
            data = decompressor.read(min(incoming.room, _PIECE - 1) + 1)
            incoming.room -= len(data)
            if incoming.room < 0:
                raise RemoteProtocolError(1009, "message is too big")
            is_read = not decompressor.has_more
            final = is_read and decoder.is_end and decoder.first & FIN != 0
            if final:
                decompressor.finish()
            event = self._receive_bytes(incoming, data, final)
            if event is not None or is_read:
                return event

    def _receive_bytes(
        self, incoming: _IncomingMessage, data: bytes, final: bool
    ) -> events.Text | events.Binary | None:
        """Take some bytes of a message, and return it when it is whole, or a piece of it."""
        opcode = incoming.opcode
        if not self._as_pieces:
            incoming.buffer.append(data, 0)
            if opcode == TEXT:
                incoming.check_text(len(data), final)
            return incoming.take() if final else None
        if final:
            incoming.opcode = CONTINUATION
            self._as_pieces = self._fragments
        if opcode == TEXT:
            text = incoming.decode(data, final)
            return events.Text(text, final) if text or final else None
        return events.Binary(data, final) if data or final else None

    def stream_next(self) -> None:
        """Give the next message piece by piece, as ``fragments=True`` does for all of them.

        When some of a message has come in already, it is that one, and this is its first piece.
        """
        self._as_pieces = True

    @property
    def collected(self) -> int:
        """How many bytes are kept of a message that is not there whole yet."""
        return 0 if self._incoming is None else self._incoming.buffer.size

    def _receive_control(self, opcode: int, payload: bytes) -> Ping | Pong | Close:
        """Act on a control frame (section 5.5)."""
        if opcode == PING:
            # Section 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in
            # response, unless it already received a Close frame."
            self._queue_frame(FIN | PONG, payload)
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        close = self._parse_close(payload)
        self.close_received = close
        if self.close_sent is None:
            # Section 5.5.1: "If an endpoint receives a Close frame and did not previously send a Close
            # frame, the endpoint MUST send a Close frame in response."
            self._queue_frame(FIN | CLOSE, payload)
            self.close_sent = close
        self.state = CLOSING
        self._conclude(close)
        # Section 7.1.1: "the server MUST close the TCP connection immediately", "the client SHOULD wait
        # for the server to close the connection".
        if self.role is Role.SERVER:
            self.should_close = True
        return close

    def _parse_close(self, payload: bytes) -> Close:
        if not payload:
            return Close(NO_STATUS_RECEIVED)
        # Section 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
        # integer"
        if len(payload) == 1:
            raise RemoteProtocolError(1002, "close payload must not be 1 byte long")
        code = int.from_bytes(payload[:2], "big")
        if not _is_sendable(code):
            raise RemoteProtocolError(1002, f"status code {code} must not be sent")
        return Close(code, str(payload[2:], "utf-8"))

    def _fail(self, code: int, reason: str) -> Fail:
        """Fail the connection (section 7.1.7)."""
        if self._in_handshake or code == ABNORMAL_CLOSURE:
            self.state = CLOSED
        else:
            if self.close_sent is None:
                self.close_sent = Close(code, reason)
                self._queue_frame(FIN | CLOSE, code.to_bytes(2, "big") + reason.encode())
            self.state = CLOSING
        self.should_close = True
        fail = Fail(code, reason)
        self._conclude(fail)
        return fail

    def _conclude(self, end: Close | Fail) -> None:
        """Note the last event. Bytes that come after it are ignored."""
        self.end = end
        self._decoder.drain()
        self._incoming = self._compressor = self._decompressor = None  # they hold memory
        if self._eof:
            self._receive_eof()

    # 3. Calls in

    def send_text(
        self,
        data: str | bytes | bytearray | memoryview,
        fin: bool = True,
        *,
        compress: bool | None = None,
    ) -> None:
        """Send a text message, or a fragment of one (RFC 6455, section 5.6).

        Args:
            data: the text; bytes must be UTF-8. Between fragments they may be cut anywhere.
            fin: whether the message ends here. After ``fin=False``, go on with ``send_text``.
            compress: whether to compress the message, if that is agreed on. None: if its first fragment
                reaches the threshold, or there are more. The first fragment decides.

        Raises:
            LocalProtocolError: the state is not OPEN, a fragmented binary message is being sent, or the
                text is not UTF-8 (a lone surrogate is not). Nothing was queued.
            TypeError: ``data`` is neither a string nor bytes-like.
        """
        self._send(TEXT, data, fin, compress)

    def send_binary(
        self, data: bytes | bytearray | memoryview, fin: bool = True, *, compress: bool | None = None
    ) -> None:
        """Send a binary message, or a fragment of one (RFC 6455, section 5.6).

        Args:
            data: any contiguous bytes-like object; items of several bytes count as that many.
            fin: whether the message ends here. After ``fin=False``, go on with ``send_binary``.
            compress: as for ``send_text``.

        Raises:
            LocalProtocolError: the state is not OPEN, or a fragmented text message is being sent.
            TypeError: ``data`` is not bytes-like (a string and an int are not), or not contiguous.
        """
        self._send(BINARY, data, fin, compress)

    def send_message(self, message: Message, fin: bool = True, compress: bool | None = None) -> None:
        """Send a message, or a fragment of one, by its type.

        Args:
            message: ``str`` goes out as text, a bytes-like object as binary, a ``Prepared`` as it is.
            fin: whether the message ends here; a ``Prepared`` does.
            compress: as for ``send_text``; a ``Prepared`` knows for itself.

        Raises:
            LocalProtocolError: as ``send_text``, ``send_binary`` and ``send_prepared`` do.
            TypeError: it is none of these.
        """
        if isinstance(message, str):
            self._send(TEXT, message, fin, compress)
        elif isinstance(message, Prepared):
            self.send_prepared(message)
        else:
            self._send(BINARY, message, fin, compress)

    def compresses(self, length: int, compress: bool | None = None) -> bool:
        """Return whether a message will be compressed.

        Args:
            length: its length, in bytes.
            compress: as for ``send_text``.
        """
        return self._compressor is not None and self._compressor.is_wanted(length, compress)

    def send_prepared(self, prepared: Prepared) -> None:
        """Send a message that ``prepare`` encoded (RFC 6455, section 5.6).

        Args:
            prepared: the message.

        Raises:
            LocalProtocolError: the state is not OPEN, or a fragmented message is being sent.
            TypeError: it is not a ``Prepared``.
        """
        if not isinstance(prepared, Prepared):
            raise TypeError(f"prepared must be a Prepared, not {type(prepared).__name__}")
        self._check_sending(CONTINUATION)
        first, payload, chunks = prepared.encode(self._compressor)
        if first & RSV1 and self._compressor is not None:
            # The peer's window moves on by a message that our compressor has not seen.
            self._compressor.forget()
            self.uncompressed += len(prepared.payload)
            self.compressed += len(payload)
        if self.role is _CLIENT:
            self._queue_frame(first, payload)
        else:
            self._output += chunks

    def send_ping(self, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a Ping (RFC 6455, section 5.5.2).

        Args:
            payload: up to 125 bytes, which the Pong brings back.

        Raises:
            LocalProtocolError: the state is not OPEN, or the payload is longer.
            TypeError: the payload is not bytes-like, or not contiguous.
        """
        self._send_control(PING, payload)

    def send_pong(self, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a Pong that no Ping asked for (RFC 6455, section 5.5.3). Pings are answered anyway.

        Args:
            payload: up to 125 bytes.

        Raises:
            LocalProtocolError: the state is not OPEN, or the payload is longer.
            TypeError: the payload is not bytes-like, or not contiguous.
        """
        self._send_control(PONG, payload)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake (RFC 6455, section 7.1.2).

        Messages still arrive until the peer's Close does, which is the last event.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999; 1005 sends a Close without a code.
            reason: up to 123 bytes of UTF-8.

        Raises:
            LocalProtocolError: the state is not OPEN, the code must not be sent, or the reason is too
                long, has a lone surrogate, or comes with code 1005.
            TypeError: the code is not an int, or the reason not a string.
        """
        self._check_open()
        payload, close = _encode_close(code, reason), Close(int(code), reason)
        self._queue_frame(FIN | CLOSE, payload)
        self.close_sent = close
        self.state = CLOSING

    def fail(self, code: int, reason: str = "") -> Fail:
        """Fail the connection for a reason of your own: no Pong comes, say (RFC 6455, section 7.1.7).

        Nothing is read any more, and ``next_event`` returns no other event.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: up to 123 bytes of UTF-8.

        Returns:
            The last event.

        Raises:
            LocalProtocolError: the state is not OPEN, the code must not be sent, or the reason is too long or
                has a lone surrogate.
            TypeError: the code is not an int, or the reason not a string.
        """
        self._check_open()
        if code == NO_STATUS_RECEIVED:
            raise LocalProtocolError("a failure has a status code")
        _encode_close(code, reason)
        return self._fail(int(code), reason)

    def _check_open(self) -> None:
        if self.state is not OPEN:
            raise LocalProtocolError(f"cannot send while the connection is {self.state.name}")

    def _check_sending(self, opcode: int) -> None:
        self._check_open()
        sent = self._outgoing.opcode
        if sent and sent != opcode:
            kind = "text" if sent == TEXT else "binary"
            raise LocalProtocolError(f"a fragmented {kind} message is being sent")

    def _send_control(self, opcode: int, payload: bytes | bytearray | memoryview) -> None:
        self._check_open()
        payload = as_bytes(payload)
        if len(payload) > 125:
            raise LocalProtocolError(f"payload must be at most 125 bytes long, not {len(payload)}")
        self._queue_frame(FIN | opcode, payload)

    def _send(self, opcode: int, data: Any, fin: bool, compress: bool | None) -> None:
        """Queue a message, or a fragment of one, as text or as binary."""
        outgoing = self._outgoing
        if self.state is not OPEN or (outgoing.opcode and outgoing.opcode != opcode):
            self._check_sending(opcode)
        if opcode == TEXT and isinstance(data, str):
            if outgoing.pending:
                raise LocalProtocolError("the last fragment ended inside a character")
            # The member of a StrEnum, or what a template returns, is a string as well.
            if type(data) is not str:
                data = str.__str__(data)
        else:
            if type(data) is not bytes:
                data = as_bytes(data)
            if opcode == TEXT:
                self._check_utf8(data, fin)
        # Section 5.4: the first fragment has the opcode, the others have opcode 0, the last has FIN.
        first = CONTINUATION if outgoing.opcode else opcode
        try:
            if self._compressor is not None:
                if type(data) is str:
                    data = data.encode("utf-8")
                if not outgoing.opcode:
                    is_wanted = compress is None and not fin
                    outgoing.is_compressed = is_wanted or self._compressor.is_wanted(len(data), compress)
                    # RFC 7692, section 6: RSV1 is set on the first fragment, and on no other.
                    if outgoing.is_compressed:
                        first |= RSV1
                if outgoing.is_compressed:
                    size = len(data)
                    data = self._compressor.compress(data, fin)
                    self.uncompressed += size
                    self.compressed += len(data)
            if fin:
                first |= FIN
            # As _queue_frame() does: one call less for each message
            masking.append_frame(self._output, first, data, self.role is _CLIENT)
        except UnicodeEncodeError:
            raise LocalProtocolError("text contains a lone surrogate") from None
        outgoing.opcode = CONTINUATION if fin else opcode

    def _check_utf8(self, data: bytes, fin: bool) -> None:
        try:
            self._outgoing.decode(data, fin)
        except UnicodeDecodeError:
            raise LocalProtocolError("text is not UTF-8") from None

    def _queue_frame(self, first: int, payload: str | bytes) -> None:
        masking.append_frame(self._output, first, payload, self.role is _CLIENT)

    @property
    def is_within_message(self) -> bool:
        """Whether a message is being sent in fragments, and its last one is still to come."""
        return self._outgoing.opcode != CONTINUATION

    # Bytes out

    def data_to_send(self) -> bytes:
        """Return the bytes to put on the network, and forget them; ``b""`` if there are none."""
        chunks = self.chunks_to_send()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def chunks_to_send(self) -> list[bytes]:
        """Return the bytes to put on the network in pieces, and forget them.

        So a long payload goes out without being copied. For ``transport.writelines`` or ``socket.sendmsg``.
        """
        output = self._output
        self._output = []
        return output

    def has_unsent(self) -> bool:
        """Return whether bytes wait for ``data_to_send()``."""
        return bool(self._output)

    @property
    def unsent(self) -> int:
        """How many bytes wait for ``data_to_send()``."""
        return sum(map(len, self._output))
