"""RFC 6455, section 5: data framing.

      0                   1                   2                   3
      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
     +-+-+-+-+-------+-+-------------+-------------------------------+
     |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
     |I|S|S|S|  (4)  |A|     (7)     |            (16/64)            |
     |N|V|V|V|       |S|             |   (if payload len==126/127)   |
     | |1|2|3|       |K|             |                               |
     +-+-+-+-+-------+-+-------------+ - - - - - - - - - - - - - - - +
     |     Extended payload length continued, if payload len == 127  |
     + - - - - - - - - - - - - - - - +-------------------------------+
     |                               |Masking-key, if MASK set to 1  |
     +-------------------------------+-------------------------------+
     | Masking-key (continued)       |          Payload Data         |
     +-------------------------------- - - - - - - - - - - - - - - - +
     :                     Payload Data continued ...                :
     +---------------------------------------------------------------+

``encode_frame`` writes one frame. ``FrameDecoder`` reads them: bytes in, frames out. It also is the
input buffer of a ``Connection``, which reads a frame piece by piece while it arrives.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NoReturn

from . import masking
from .errors import LocalProtocolError, RemoteProtocolError

__all__ = ["CloseCode", "Frame", "FrameDecoder", "Opcode", "encode_frame"]


class Opcode(IntEnum):
    """The opcodes (RFC 6455, section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """The status codes (RFC 6455, section 7.4.1, and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


# Plain ints for the hot path: IntEnum(value) costs 350 ns.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, MASK = 0x80, 0x40, 0x80
# Section 5.5: "Control frames are identified by opcodes where the most significant bit of the opcode is 1."
CONTROL = 0x08
# The same, where only this module reads them: ints of C when it is compiled, which Python cannot import.
_RSV1, _MASK, _CONTROL = RSV1, MASK, CONTROL


def legal_bytes(*firsts: int) -> bytes:
    """Return a table that has a 1 for each first byte that is legal, and a 0 for all others."""
    return bytes(first in firsts for first in range(256))


# A first byte is legal or not: FIN, RSV1-3 and the opcode are judged at one look, by what may come now.
_CONTROL_FRAMES = (FIN | CLOSE, FIN | PING, FIN | PONG)
_DATA = (TEXT, BINARY, FIN | TEXT, FIN | BINARY)
_CONTINUATION = (CONTINUATION, FIN | CONTINUATION)
# RFC 7692, section 6: with permessage-deflate, RSV1 marks the first frame of a compressed message.
_COMPRESSED = (RSV1 | TEXT, RSV1 | BINARY, FIN | RSV1 | TEXT, FIN | RSV1 | BINARY)
BETWEEN_MESSAGES = legal_bytes(*_DATA, *_CONTROL_FRAMES)
BETWEEN_COMPRESSED = legal_bytes(*_DATA, *_COMPRESSED, *_CONTROL_FRAMES)
WITHIN_MESSAGE = legal_bytes(*_CONTINUATION, *_CONTROL_FRAMES)
_ANYWHERE = legal_bytes(*_DATA, *_CONTINUATION, *_CONTROL_FRAMES)
_ANYWHERE_COMPRESSED = legal_bytes(*_DATA, *_COMPRESSED, *_CONTINUATION, *_CONTROL_FRAMES)

MAX_LENGTH = 2**63 - 1  # section 5.2: "the most significant bit MUST be 0"


class Frame:
    """A frame (RFC 6455, section 5.2).

    Args:
        opcode: what kind of frame it is.
        payload: the unmasked payload.
        fin: whether it is the last fragment of its message.
        rsv: the three reserved bits, as a number of 0 to 7 (RSV1 is 4).
    """

    __slots__ = __match_args__ = ("opcode", "payload", "fin", "rsv")

    def __init__(self, opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> None:
        self.opcode = Opcode(opcode)
        self.payload = payload
        self.fin = fin
        self.rsv = rsv

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (self.opcode, self.payload, self.fin, self.rsv) == (
            other.opcode,
            other.payload,
            other.fin,
            other.rsv,
        )

    def __hash__(self) -> int:
        return hash((self.opcode, self.payload, self.fin, self.rsv))

    def __repr__(self) -> str:
        payload = repr(self.payload[:64])
        if len(self.payload) > 64:
            payload += f"...<{len(self.payload)}>"
        return f"Frame({self.opcode.name}, {payload}, fin={self.fin}, rsv={self.rsv})"


def encode_frame(
    opcode: int,
    payload: bytes | bytearray | memoryview,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
) -> bytes:
    """Return the bytes of one frame (RFC 6455, section 5.2).

    Args:
        opcode: an Opcode.
        payload: any contiguous bytes-like object.
        fin: whether it is the last fragment of its message.
        rsv: the three reserved bits, as a number of 0 to 7 (RSV1 is 4).
        mask: the masking key, 4 bytes; None for a frame that is not masked, as a server sends it.

    Raises:
        LocalProtocolError: the opcode is reserved, or a control frame is fragmented or larger than 125.
        ValueError: ``rsv`` is out of range, or the masking key is not 4 bytes long.
        TypeError: the payload is not bytes-like, or not contiguous.
    """
    if not 0 <= rsv <= 7:
        raise ValueError(f"rsv must be 0 to 7, not {rsv}")
    try:
        opcode = Opcode(opcode)
    except ValueError:
        raise LocalProtocolError(f"opcode {opcode} is reserved") from None
    payload = as_bytes(payload)
    if opcode >= CLOSE:
        if not fin:
            raise LocalProtocolError("control frames cannot be fragmented")
        if len(payload) > 125:
            raise LocalProtocolError(f"a control frame has at most 125 bytes, not {len(payload)}")
    first = (FIN if fin else 0) | rsv << 4 | opcode
    if mask is None:
        return masking.encode_header(first, len(payload), 0) + payload
    return masking.encode_header(first, len(payload), MASK) + mask + masking.apply_mask(payload, mask)


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Return what a bytes-like object holds, without a copy if it is ``bytes`` already.

    Args:
        data: any contiguous bytes-like object; items of several bytes count as that many.

    Raises:
        TypeError: it is not bytes-like (an int is not), or not contiguous.
    """
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"data must be bytes-like, not {type(data).__name__}") from None
    if not view.c_contiguous:
        raise TypeError("data must be contiguous")
    return view.tobytes()


class FrameDecoder:
    """The frames in bytes that come in any pieces (RFC 6455, section 5.2).

    Strict: only legal first bytes, minimal lengths, control frames of at most 125 bytes that are not
    fragmented, and masking exactly where the RFC asks for it. Each field of a header is judged as soon
    as it is there, a length before its payload is buffered.

    Args:
        masked: True to read what a client sends, False to read what a server sends. Section 5.1: "a
            client MUST mask all frames", "a server MUST NOT mask any frames".
        max_size: the largest payload of a data frame, in bytes; by default 2**63 - 1.
        rsv1: whether RSV1 may mark the first frame of a message, as RFC 7692 has it.
    """

    __slots__ = (
        "_borrowed",
        "_buffer",
        "_end",
        "_key",
        "_mask_bit",
        "_position",
        "_start",
        "_turn",
        "first",
        "is_end",
        "is_whole",
        "legal",
        "max_compressed_size",
        "max_size",
        "partial",
        "remaining",
    )

    def __init__(self, *, masked: bool, max_size: int = MAX_LENGTH, rsv1: bool = False) -> None:
        # Which first bytes may come now
        self.legal = _ANYWHERE_COMPRESSED if rsv1 else _ANYWHERE
        self.max_size = max_size = min(max_size, MAX_LENGTH)  # what fits into 64 bits
        self.max_compressed_size = max_size  # the same for frames with RSV1
        self.partial = False  # whether advance() gives a data frame in pieces, as it arrives
        # What advance() found
        self.first = 0
        self.is_whole = False
        self.is_end = False
        self._start = 0  # of what read_payload() reads, up to _position
        # Its masking key: None if it stands in front of it, empty if there is none
        self._key: bytes | None = None if masked else b""
        # What is not read yet stands in _buffer[_position:_end]. The buffer is what feed() or read_from() was
        # given, or a bytearray of our own that joins several of these.
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._end = 0
        # A view of the buffer of read_from(), so that nobody can resize it; None when there is none
        self._borrowed: memoryview | None = None
        self._mask_bit = MASK if masked else 0
        # The frame of which some is still to come: how many bytes of its payload, and how far the key is to
        # be turned for them
        self.remaining = 0
        self._turn = 0

    def __reduce__(self) -> NoReturn:
        # A copy would share the buffer, which changes under its offsets.
        raise TypeError("a FrameDecoder cannot be copied or pickled")

    # Bytes in

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes off the network.

        Args:
            data: any contiguous bytes-like object.

        Raises:
            TypeError: it is not bytes-like, or not contiguous.
        """
        data = as_bytes(data)
        if self._position < self._end:
            self._append(data)
        else:
            self._buffer, self._borrowed = data, None
            self._position, self._end = 0, len(data)

    def read_from(self, buffer: bytearray, count: int) -> None:
        """Read bytes in the buffer that they were received into, without a copy, until ``release`` is called.

        Args:
            buffer: its first bytes are those. Do not change it before ``release``.
            count: how many came.

        Raises:
            TypeError: the buffer is not a ``bytearray``.
            ValueError: it does not hold as many.
        """
        if type(buffer) is not bytearray:
            raise TypeError(f"buffer must be a bytearray, not {type(buffer).__name__}")
        if not 0 <= count <= len(buffer):
            raise ValueError(f"count must be 0 to {len(buffer)}, not {count}")
        if self._position < self._end:
            self._append(memoryview(buffer)[:count])
        else:
            self._buffer, self._borrowed = buffer, memoryview(buffer)
            self._position, self._end = 0, count

    def release(self) -> None:
        """Give back the buffer of ``read_from``. Bytes in it that were not read are copied."""
        if self._borrowed is None:
            return
        if self._position == self._end:
            self._forget()
        else:
            self._buffer = self._buffer[self._position : self._end]
            self._position, self._end = 0, len(self._buffer)
            self._borrowed = None

    def _append(self, data: bytes | memoryview) -> None:
        """Put bytes behind those that were not read yet, in a buffer of our own."""
        self.release()
        buffer = self._buffer
        if type(buffer) is bytearray:
            del buffer[: self._position]  # this moves nothing: bytearrays are made for it
        else:
            buffer = self._buffer = bytearray(buffer[self._position :])
        buffer += data
        self._position, self._end = 0, len(buffer)

    @property
    def unread(self) -> int:
        """How many bytes have come in that were not read yet."""
        return self._end - self._position

    def has_unread(self) -> bool:
        """Return whether bytes have come in that were not read yet."""
        return self._position < self._end

    def drain(self) -> bytes:
        """Return the bytes that were not read yet, and forget them."""
        data = masking.take(self._buffer, self._position, self._end)
        self._forget()
        return data

    def _forget(self) -> None:
        """Hold no memory for what was read."""
        self._buffer, self._borrowed = b"", None
        self._position = self._end = 0

    # Frames out

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None if more bytes are needed.

        Raises:
            RemoteProtocolError: what came is not a frame, or too large.
        """
        if not self.advance():
            return None
        return Frame(self.first & 0x0F, self.read_payload(), self.first >= FIN, self.first >> 4 & 7)

    def advance(self) -> bool:
        """Read on, for a caller that wants no ``Frame`` objects.

        When it returns True, ``first`` is the first byte of a frame (FIN, RSV1-3 and the opcode), and one
        of ``read_payload``, ``read_text`` and ``collect`` may be called for its payload, if it ``is_whole``.
        With ``partial``, it may be some of the payload of a data frame; then ``is_end`` tells whether it is
        the last of it.

        Returns:
            False when more bytes are needed.

        Raises:
            RemoteProtocolError: what came is not a frame, or too large.
        """
        position = self._position
        end = self._end
        if position == end:
            self._forget()
            return False
        if self.remaining:
            return self._advance_payload()
        buffer = self._buffer
        data = buffer  # compiled, this is a pointer: below, what is not there yet is never looked at
        # 1. FIN, RSV1-3 and opcode
        first = data[position]
        if not self.legal[first]:
            raise self._illegal(first)
        # 2. MASK
        if end - position < 2:
            return False
        second = data[position + 1]
        if second & _MASK != self._mask_bit:
            # "a server MUST close the connection upon receiving a frame that is not masked" and
            # "a client MUST close a connection if it detects a masked frame", both with 1002.
            problem = "frames must be masked" if self._mask_bit else "frames must not be masked"
            raise RemoteProtocolError(1002, problem)
        # 3. Payload length
        length = second & 0x7F
        position += 2
        if length > 125:
            if first & _CONTROL:
                # Section 5.5: "All control frames MUST have a payload length of 125 bytes or less"
                raise RemoteProtocolError(1002, "control frame payload exceeds 125 bytes")
            # 4. Extended payload length
            size = 2 if length == 126 else 8
            if end - position < size:
                return False
            length = self._read_length(position, size)
            position += size
        # 5. The limit
        limit = self.max_compressed_size if first & _RSV1 else self.max_size
        if length > limit and not first & _CONTROL:
            raise RemoteProtocolError(1009, "message is too big")
        # 6. Masking key
        if self._mask_bit:
            if end - position < 4:
                return False
            position += 4
        # 7. The header is complete
        self.first = first
        if end - position < length:
            if self._mask_bit:
                self._key = masking.take(buffer, position - 4, position)
                self._turn = 0
            self._position = position
            self.remaining = length
            return position < end and self._advance_payload()
        if self._key:
            self._key = None
        self._start = position
        self._position = position + length
        self.is_whole = self.is_end = True
        return True

    def _read_length(self, position: int, size: int) -> int:
        data = self._buffer
        if size == 2:
            length = data[position] << 8 | data[position + 1]
        else:
            if data[position] & 0x80:
                raise RemoteProtocolError(1002, "payload length must be below 2**63")
            length = int.from_bytes(self._buffer[position : position + size], "big")
        # "the minimal number of bytes MUST be used to encode the length"
        if length < (126 if size == 2 else 65536):
            raise RemoteProtocolError(1002, "payload length must be encoded minimally")
        return length

    def _advance_payload(self) -> bool:
        """Read on in the payload of a frame that was not there whole with its header."""
        start = self._position
        length = min(self._end - start, self.remaining)
        self.is_end = length == self.remaining
        if not self.is_end and (not self.partial or self.first & _CONTROL):
            return False
        self.is_whole = not self.partial or self.first & _CONTROL != 0
        self._start = start
        self._position = start + length
        self.remaining -= length
        turn = self._turn
        if turn and self._key:
            self._key = self._key[turn:] + self._key[:turn]
        self._turn = length & 3
        return True

    def payload_size(self) -> int:
        """Return how many bytes of a payload ``advance`` found."""
        return self._position - self._start

    def read_payload(self) -> bytes:
        """Return the payload, or the part of it, that ``advance`` found."""
        return masking.unmask(self._buffer, self._start, self._position, self._key)

    def read_text(self) -> str:
        """Return the payload, or the part of it, that ``advance`` found, as text.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        return masking.unmask_text(self._buffer, self._start, self._position, self._key)

    def collect(self, message: masking.MessageBuffer) -> None:
        """Append the payload, or the part of it, that ``advance`` found to a message.

        Args:
            message: what came of it before.
        """
        message.unmask(self._buffer, self._start, self._position, self._key, self.remaining)

    def _illegal(self, first: int) -> RemoteProtocolError:
        opcode, fin = first & 0x0F, first >= FIN
        if first & 0x70:
            # "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values."
            return RemoteProtocolError(1002, "reserved bits must be zero")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            # "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket
            # Connection_."
            return RemoteProtocolError(1002, f"opcode {opcode} is reserved")
        if opcode >= CLOSE and not fin:
            # Section 5.5: control frames "MUST NOT be fragmented".
            return RemoteProtocolError(1002, "control frames must not be fragmented")
        if opcode == CONTINUATION:
            return RemoteProtocolError(1002, "continuation frame without a message to continue")
        # Section 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of
        # another message".
        return RemoteProtocolError(1002, "expected a continuation frame")
