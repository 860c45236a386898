"""One direction of a connection, frame by frame: what it says, and where it breaks the RFC.

A ``FrameDecoder`` ends at the first violation, as it must. This goes on behind it, as far as the lengths tell
where the next frame begins. So there is a reader of headers here, which takes every header for what it says
and judges nothing; and who judges is the core: a ``FrameDecoder`` for the header, told what may come now; a
``Decompressor`` for what is compressed; and a ``Connection`` for a Close.

Whatever the octets are, time is linear in what they are and in what they decompress to, of which there is a
limit for a message; and memory holds what is shown of a frame and of a message, and a window.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...connection import Connection, Role
from ...deflate import Decompressor, Deflate
from ...errors import RemoteProtocolError
from ...events import Close, Fail
from ...frames import (
    BETWEEN_COMPRESSED,
    BETWEEN_MESSAGES,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    MASK,
    MAX_LENGTH,
    RSV1,
    TEXT,
    WITHIN_MESSAGE,
    FrameDecoder,
    encode_frame,
)
from ...masking import apply_mask

__all__ = ["Frame", "Inspector", "Message", "Note", "Record", "Violation"]

_MAX_MESSAGE = 2**24  # octets: what one message may decompress to
_DATA = (TEXT, BINARY, CONTINUATION)
_STEP = 65536  # octets that are decompressed at a time
_CONTROL = 125  # octets: the most that a control frame has


@dataclass(slots=True)
class Frame:
    """A frame as it stands there, right or wrong.

    Args:
        offset: where it begins, in octets from the beginning of its direction.
        first: its first octet: FIN, RSV1-3 and the opcode.
        key: its masking key, or None.
        length: what its header says of its payload.
        kind: TEXT, BINARY or another opcode; of a continuation, that of its message, if there is one.
        payload: the beginning of the payload, unmasked, and decompressed if that can be done.
        size: the length of all of it, decompressed; None: it is not compressed, or cannot be decompressed.
        is_opaque: whether it is compressed, and cannot be decompressed.
        close: what a Close says.
    """

    offset: int
    first: int
    key: bytes | None
    length: int
    kind: int
    payload: bytearray = field(default_factory=bytearray)
    size: int | None = None
    is_opaque: bool = False
    close: Close | None = None

    @property
    def opcode(self) -> int:
        """The opcode."""
        return self.first & 0x0F


@dataclass(slots=True)
class Message:
    """A message, put together.

    Args:
        offset: where its first frame begins.
        opcode: TEXT or BINARY.
        frames: how many it has.
        length: its length in octets, decompressed.
        payload: the beginning of it.
    """

    offset: int
    opcode: int
    frames: int = 0
    length: int = 0
    payload: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Violation:
    """A place where the RFC is broken.

    Args:
        offset: where the frame begins that does it.
        code: the status code that an endpoint fails the connection with.
        reason: what is wrong.
    """

    offset: int
    code: int
    reason: str


@dataclass(slots=True)
class Note:
    """Something that is worth knowing, and no violation.

    Args:
        offset: where it is.
        text: what it is.
    """

    offset: int
    text: str


Record = Frame | Message | Violation | Note


class Inspector:
    """Read one direction of a connection.

    Args:
        is_client: whether a client says it, and so must mask it; None: as the first frame does.
        deflate: the compression that was agreed on, or None.
        show: how many octets to keep of a payload.
        offset: where it begins.
    """

    def __init__(
        self, *, is_client: bool | None, deflate: Deflate | None = None, show: int = 64, offset: int = 0
    ) -> None:
        self.is_client = is_client
        self.offset = offset
        self.is_stuck = False  # nothing that follows can be read
        self._show = show
        self._deflate = deflate
        self._is_hinted = False
        self._is_closed = False
        # The frame that is not there whole
        self._header = bytearray()
        self._start = offset
        self._frame: Frame | None = None
        self._position = 0  # in its payload
        self._compressed = bytearray()  # the beginning of it, if it is decompressed
        self._remarks: list[Violation | Note] = []  # about it
        # The message that is not there whole
        self._message: Message | None = None
        self._is_compressed = False
        self._is_judged = False  # whether its text is looked at: after a violation it may be anything
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        # What reads the next message that is compressed, and the one that is not there whole; or None, if
        # that cannot be done
        self._decompressor = self._fresh_decompressor()
        self._decompressing: Decompressor | None = None

    def feed(self, octets: bytes) -> Iterator[Record]:
        """Take octets, and say what is in them.

        Args:
            octets: the next ones of the stream, in any pieces.
        """
        position = 0
        while position < len(octets) and not self.is_stuck:
            if self._frame is None:
                if not self._header:
                    self._start = self.offset
                piece = octets[position : position + self._missing_header()]
                self._header += piece
                if not self._missing_header():
                    self._begin_frame(bytes(self._header))
                    self._header.clear()
            else:
                piece = octets[position : position + self._frame.length - self._position]
                self._read_payload(self._frame, piece)
            position += len(piece)
            self.offset += len(piece)
            if self._frame is not None and (self._position == self._frame.length or self.is_stuck):
                yield from self._end_frame(self._frame)

    def finish(self, is_end: bool) -> Iterator[Record]:
        """End the stream.

        Args:
            is_end: whether it ends here; False: what is known of it does.
        """
        if self.is_stuck:
            return
        problem = ""
        if self._frame is not None:
            frame = self._frame
            self._frame = None
            yield frame
            yield from self._remarks
            missing = frame.length - self._position
            problem = f"ends within a frame: {missing} of {frame.length} octets of its payload are missing"
        elif self._header:
            # What is wrong in it is wrong whatever follows.
            if (error := self._judge(bytes(self._header))) is not None:
                yield Violation(self._start, error.code, error.reason)
            problem = f"ends within a header, after {len(self._header)} octets of it"
        elif self._message is not None and not self._is_closed:
            problem = "ends within a fragmented message"
        if problem and is_end:
            yield Violation(self.offset, 1006, f"the stream {problem}")
        elif problem:
            yield Note(self.offset, f"the capture {problem}")
        self.is_stuck = True

    # The header, as it is

    def _missing_header(self) -> int:
        header = self._header
        if len(header) < 2:
            return 2 - len(header)
        size = 2 + {126: 2, 127: 8}.get(header[1] & 0x7F, 0) + (4 if header[1] & MASK else 0)
        return size - len(header)

    def _begin_frame(self, header: bytes) -> None:
        first, second = header[:2]
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(header[2 : 4 if length == 126 else 10], "big")
        key = header[-4:] if second & MASK else None
        if self.is_client is None:
            self.is_client = key is not None
        self._frame = frame = Frame(self._start, first, key, length, first & 0x0F)
        self._position = 0
        self._compressed.clear()
        problem = self._judge(header)
        if problem is not None:
            self._violate(problem)
            self.is_stuck = length > MAX_LENGTH
        if frame.opcode in _DATA:
            self._begin_fragment(frame, problem is None)
        if not length:
            self._read_payload(frame, b"")

    def _judge(self, header: bytes) -> RemoteProtocolError | None:
        """Ask the core about a header, at the place where it stands."""
        decoder = FrameDecoder(masked=bool(self.is_client))
        between = BETWEEN_MESSAGES if self._deflate is None else BETWEEN_COMPRESSED
        decoder.legal = between if self._message is None else WITHIN_MESSAGE
        decoder.feed(header)
        try:
            decoder.advance()
        except RemoteProtocolError as error:
            return error
        if self._is_closed and header[0] & 0x0F < CLOSE:
            # Section 5.5.1: "The application MUST NOT send any more data frames after sending a Close frame."
            return RemoteProtocolError(1002, "data frame after a Close")
        return None

    def _violate(self, problem: RemoteProtocolError) -> None:
        self._remarks.append(Violation(self._start, problem.code, problem.reason))

    def _note(self, text: str) -> None:
        self._remarks.append(Note(self._start, text))

    def _begin_fragment(self, frame: Frame, is_legal: bool) -> None:
        if frame.opcode != CONTINUATION:
            self._begin_message(frame)
        message = self._message
        if message is not None:
            message.frames += 1
            frame.kind = message.opcode
            frame.is_opaque = self._is_compressed and self._decompressing is None
            self._is_judged = self._is_judged and is_legal

    def _begin_message(self, frame: Frame) -> None:
        if self._decompressing is not None:
            self._lose_window()  # the end of a compressed message is missing
        self._message = Message(frame.offset, frame.opcode)
        self._is_judged = True
        self._utf8.reset()
        self._is_compressed = frame.first & RSV1 != 0
        self._decompressing = self._decompressor if self._is_compressed else None
        if frame.first & 0x70 == RSV1 and self._deflate is None and not self._is_hinted:
            self._is_hinted = True
            self._note("RSV1 marks what is compressed: --deflate reads it")

    # The payload

    def _read_payload(self, frame: Frame, piece: bytes) -> None:
        if frame.key is not None:
            turn = self._position & 3
            piece = apply_mask(piece, frame.key[turn:] + frame.key[:turn])
        self._position += len(piece)
        if frame.opcode not in _DATA:
            _keep(frame.payload, piece, max(self._show, _CONTROL))
        elif self._message is None or frame.is_opaque:
            _keep(frame.payload, piece, self._show)
        elif not self._is_compressed:
            self._hear(frame, self._message, piece)
        elif self._decompressing is not None:
            self._decompress(frame, self._message, self._decompressing, piece)

    def _decompress(self, frame: Frame, message: Message, decompressor: Decompressor, piece: bytes) -> None:
        frame.size = frame.size or 0
        _keep(self._compressed, piece, self._show)
        try:
            decompressor.feed(piece, message.frames - 1)
            while decompressor.has_more:
                octets = decompressor.read(_STEP)
                frame.size += len(octets)
                self._hear(frame, message, octets)
                if message.length > _MAX_MESSAGE:
                    self._give_up(frame)
                    self._note(f"the message decompresses to more than {_MAX_MESSAGE} octets: not read on")
                    self._lose_window()
                    return
        except RemoteProtocolError as error:
            self._give_up(frame)
            self._violate(error)
            self._lose_window()

    def _give_up(self, frame: Frame) -> None:
        """Forget what a frame decompressed to: how far that goes depends on the pieces that it came in."""
        frame.payload[:] = self._compressed
        frame.size = None
        frame.is_opaque = True
        self._remarks = [remark for remark in self._remarks if remark != _not_utf8(self._start)]

    def _lose_window(self) -> None:
        """Decompress no further in this message; nor in the next ones, if they may refer to it."""
        self._decompressing = None
        self._decompressor = self._fresh_decompressor()
        if self._decompressor is not None and self._keeps_context():
            self._decompressor = None
            self._note("compressed messages refer to what came before: from here on they cannot be read")

    def _fresh_decompressor(self) -> Decompressor | None:
        # What a client says, a server decompresses. (Who does not know who speaks has the same for both.)
        return None if self._deflate is None else Decompressor(self._deflate, is_server=bool(self.is_client))

    def _keeps_context(self) -> bool:
        deflate = self._deflate
        assert deflate is not None
        alone = deflate.client_no_context_takeover if self.is_client else deflate.server_no_context_takeover
        return not alone

    def _hear(self, frame: Frame, message: Message, octets: bytes) -> None:
        _keep(frame.payload, octets, self._show)
        _keep(message.payload, octets, self._show)
        message.length += len(octets)
        self._judge_text(message, octets, False)

    def _judge_text(self, message: Message, octets: bytes, final: bool) -> None:
        if message.opcode == TEXT and self._is_judged:
            try:
                self._utf8.decode(octets, final)
            except UnicodeDecodeError:
                self._is_judged = False
                self._remarks.append(_not_utf8(self._start))

    # The end of a frame, and of a message

    def _end_frame(self, frame: Frame) -> Iterator[Record]:
        message = None
        if self.is_stuck:
            self._note("no frame can be that long: nothing behind it can be read")
        elif frame.opcode == CLOSE:
            self._end_close(frame)
        elif frame.opcode in _DATA and frame.first & FIN:
            message = self._end_message()
        self._frame = None
        yield frame
        yield from self._remarks
        self._remarks.clear()
        if message is not None:
            yield message

    def _end_close(self, frame: Frame) -> None:
        self._is_closed = True
        if frame.length <= _CONTROL:
            connection = Connection(Role.CLIENT)
            connection.receive_data(encode_frame(CLOSE, frame.payload))
            event = connection.next_event()
            if isinstance(event, Close):
                frame.close = event
                return
            if isinstance(event, Fail):
                self._violate(RemoteProtocolError(event.code, event.reason))
        if frame.length >= 2:
            reason = frame.payload[2:].decode("utf-8", "backslashreplace")
            frame.close = Close(int.from_bytes(frame.payload[:2], "big"), reason)

    def _end_message(self) -> Message | None:
        message, is_opaque = self._message, self._is_compressed and self._decompressing is None
        self._message = None
        if message is None or is_opaque:
            return None
        if self._decompressing is not None:
            try:
                self._decompressing.finish()
            except RemoteProtocolError as error:
                self._violate(error)
                self._lose_window()
            self._decompressing = None
        self._judge_text(message, b"", True)
        return message


def _not_utf8(offset: int) -> Violation:
    return Violation(offset, 1007, "text is not UTF-8")


def _keep(kept: bytearray, octets: bytes, most: int) -> None:
    kept += octets[: max(most - len(kept), 0)]
