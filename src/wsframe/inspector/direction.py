"""One direction of an open connection, frame by frame, and where it breaks the RFC.

A ``FrameDecoder`` ends at the first violation, as it must. A ``FrameInspector`` goes on after it, as long as
the lengths say where the next frame begins. So it reads headers by itself, takes each at its word, and judges
nothing. The core is the judge: a ``FrameDecoder`` for a header, given what is legal at this point; a
``Decompressor`` for compressed data; and a ``Connection`` for a Close.

The bytes may be hostile. Time is linear in their number and in what they decompress to, which is limited for
each message. Memory holds a window, and the part of a frame and of a message that is kept.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from ..connection import Connection, Role
from ..deflate import Decompressor, Deflate
from ..errors import RemoteProtocolError
from ..events import Close, Fail
from ..frames import (
    BETWEEN_COMPRESSED,
    BETWEEN_MESSAGES,
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    MAX_LENGTH,
    RSV1,
    TEXT,
    WITHIN_MESSAGE,
    FrameDecoder,
    encode_frame,
)
from ..masking import apply_mask
from .findings import Finding, InspectedFrame, InspectedMessage, Note, Violation

__all__ = ["UNAGREED_COMPRESSION", "FrameInspector"]

UNAGREED_COMPRESSION = "RSV1 marks what is compressed"
"""The text of the note on the first message that seems compressed, without ``compression``."""

_MAX_MESSAGE_SIZE = 2**24  # the decompressed size after which a message is not decompressed any further
_DATA = (TEXT, BINARY, CONTINUATION)
_STEP = 65536  # bytes that are decompressed at a time
_MAX_CONTROL_SIZE = 125


class FrameInspector:
    """An inspector of one direction of a connection, from its first frame on.

    Args:
        is_client: whether the client sends it, and so must mask it; None: the first frame decides.
        compression: the compression that was agreed on, or None.
        payload_limit: how many bytes of each payload to keep.
        offset: the offset of the first byte.

    Attributes:
        is_client: whether the client sends it; None: unknown until the first frame.
        offset: the offset of the next byte.
        is_stuck: whether nothing that follows can be read.
    """

    def __init__(
        self,
        *,
        is_client: bool | None,
        compression: Deflate | None = None,
        payload_limit: int = 64,
        offset: int = 0,
    ) -> None:
        self.is_client = is_client
        self.offset = offset
        self.is_stuck = False
        self._payload_limit = payload_limit
        self._deflate = compression
        self._has_noted_compression = False
        self._is_closed = False
        # The frame in progress
        self._header = bytearray()
        self._start = offset
        self._frame: InspectedFrame | None = None
        self._position = 0  # in its payload
        self._compressed = bytearray()  # the beginning of its payload, if that is decompressed
        self._remarks: list[Violation | Note] = []
        # The message in progress
        self._message: InspectedMessage | None = None
        self._is_compressed = False
        self._is_judged = False  # whether its text must be UTF-8: after a violation it may be anything
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        # For the next compressed message, and for the one in progress; None: they cannot be decompressed
        self._decompressor = self._fresh_decompressor()
        self._decompressing: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[Finding]:
        """Take the next bytes, and return what is in them, frame by frame.

        Args:
            data: the bytes; how they are cut into pieces does not matter.
        """
        position = 0
        while position < len(data) and not self.is_stuck:
            if self._frame is None:
                if not self._header:
                    self._start = self.offset
                piece = data[position : position + self._missing_header()]
                self._header += piece
                if not self._missing_header():
                    self._begin_frame(bytes(self._header))
                    self._header.clear()
            else:
                piece = data[position : position + self._frame.length - self._position]
                self._read_payload(self._frame, piece)
            position += len(piece)
            self.offset += len(piece)
            if self._frame is not None and (self._position == self._frame.length or self.is_stuck):
                yield from self._end_frame(self._frame)

    def finish(self, is_end: bool) -> Iterator[Finding]:
        """Return what is to be said of the end, and of a frame that is cut short by it.

        Args:
            is_end: True: the direction ends here. False: it may go on, but nothing more of it was captured.
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
            problem = f"ends within a frame: {missing} of {frame.length} bytes of its payload are missing"
        elif self._header:
            # A header may be wrong before it is complete.
            if (error := self._judge(bytes(self._header))) is not None:
                yield Violation(self.is_client, self._start, error.code, error.reason)
            problem = f"ends within a header, after {len(self._header)} bytes of it"
        elif self._message is not None and not self._is_closed:
            problem = "ends within a fragmented message"
        if problem and is_end:
            yield Violation(self.is_client, self.offset, 1006, f"the stream {problem}")
        elif problem:
            yield Note(self.is_client, self.offset, f"the capture {problem}")
        self.is_stuck = True

    # The header

    def _missing_header(self) -> int:
        """Return how many bytes of the header are missing, as far as is known."""
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
        self._frame = frame = InspectedFrame(self.is_client, self._start, first, key, length, first & 0x0F)
        self._position = 0
        self._compressed.clear()
        problem = self._judge(header)
        if problem is not None:
            self._add_violation(problem)
            self.is_stuck = length > MAX_LENGTH
        if frame.opcode in _DATA:
            self._begin_fragment(frame, problem is None)
        if not length:
            self._read_payload(frame, b"")

    def _judge(self, header: bytes) -> RemoteProtocolError | None:
        """Return what the core says against a header at this point."""
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

    def _add_violation(self, error: RemoteProtocolError) -> None:
        self._remarks.append(Violation(self.is_client, self._start, error.code, error.reason))

    def _add_note(self, text: str) -> None:
        self._remarks.append(Note(self.is_client, self._start, text))

    def _begin_fragment(self, frame: InspectedFrame, is_legal: bool) -> None:
        if frame.opcode != CONTINUATION:
            self._begin_message(frame)
        message = self._message
        if message is not None:
            message.frame_count += 1
            frame.payload_opcode = message.opcode
            frame.is_opaque = self._is_compressed and self._decompressing is None
            self._is_judged = self._is_judged and is_legal

    def _begin_message(self, frame: InspectedFrame) -> None:
        if self._decompressing is not None:
            self._lose_window()  # the end of a compressed message is missing
        self._message = InspectedMessage(frame.is_client, frame.offset, frame.opcode)
        self._is_judged = True
        self._utf8.reset()
        self._is_compressed = frame.first_byte & RSV1 != 0
        self._decompressing = self._decompressor if self._is_compressed else None
        if frame.first_byte & 0x70 == RSV1 and self._deflate is None and not self._has_noted_compression:
            self._has_noted_compression = True
            self._add_note(UNAGREED_COMPRESSION)

    # The payload

    def _read_payload(self, frame: InspectedFrame, piece: bytes) -> None:
        if frame.masking_key is not None:
            turn = self._position & 3
            piece = apply_mask(piece, frame.masking_key[turn:] + frame.masking_key[:turn])
        self._position += len(piece)
        if frame.opcode not in _DATA:
            _keep(frame.payload, piece, max(self._payload_limit, _MAX_CONTROL_SIZE))
        elif self._message is None or frame.is_opaque:
            _keep(frame.payload, piece, self._payload_limit)
        elif not self._is_compressed:
            self._add_data(frame, self._message, piece)
        elif self._decompressing is not None:
            self._decompress(frame, self._message, self._decompressing, piece)

    def _decompress(
        self, frame: InspectedFrame, message: InspectedMessage, decompressor: Decompressor, piece: bytes
    ) -> None:
        frame.inflated_length = frame.inflated_length or 0
        _keep(self._compressed, piece, self._payload_limit)
        try:
            decompressor.feed(piece, message.frame_count - 1)
            while decompressor.has_more:
                data = decompressor.read(_STEP)
                frame.inflated_length += len(data)
                self._add_data(frame, message, data)
                if message.length > _MAX_MESSAGE_SIZE:
                    self._give_up(frame)
                    self._add_note(
                        f"the message decompresses to more than {_MAX_MESSAGE_SIZE} bytes: not read on"
                    )
                    self._lose_window()
                    return
        except RemoteProtocolError as error:
            self._give_up(frame)
            self._add_violation(error)
            self._lose_window()

    def _give_up(self, frame: InspectedFrame) -> None:
        """Discard what a frame decompressed to: how much that is depends on how its bytes were cut."""
        frame.payload[:] = self._compressed
        frame.inflated_length = None
        frame.is_opaque = True
        self._remarks = [remark for remark in self._remarks if remark != self._not_utf8()]

    def _lose_window(self) -> None:
        """Stop to decompress this message; later ones too, if they may refer to what is lost."""
        self._decompressing = None
        self._decompressor = self._fresh_decompressor()
        if self._decompressor is not None and self._keeps_context():
            self._decompressor = None
            self._add_note("compressed messages refer to what came before: from here on they cannot be read")

    def _fresh_decompressor(self) -> Decompressor | None:
        # A server decompresses what a client sends. If the sender is unknown, both directions agree.
        return None if self._deflate is None else Decompressor(self._deflate, is_server=bool(self.is_client))

    def _keeps_context(self) -> bool:
        compression = self._deflate
        assert compression is not None
        alone = (
            compression.client_no_context_takeover
            if self.is_client
            else compression.server_no_context_takeover
        )
        return not alone

    def _add_data(self, frame: InspectedFrame, message: InspectedMessage, data: bytes) -> None:
        _keep(frame.payload, data, self._payload_limit)
        _keep(message.payload, data, self._payload_limit)
        message.length += len(data)
        self._judge_text(message, data, False)

    def _judge_text(self, message: InspectedMessage, data: bytes, final: bool) -> None:
        if message.opcode == TEXT and self._is_judged:
            try:
                self._utf8.decode(data, final)
            except UnicodeDecodeError:
                self._is_judged = False
                self._remarks.append(self._not_utf8())

    def _not_utf8(self) -> Violation:
        return Violation(self.is_client, self._start, 1007, "text is not UTF-8")

    # The end of a frame, and of a message

    def _end_frame(self, frame: InspectedFrame) -> Iterator[Finding]:
        message = None
        if self.is_stuck:
            self._add_note("no frame can be that long: nothing behind it can be read")
        elif frame.opcode == CLOSE:
            self._end_close(frame)
        elif frame.opcode in _DATA and frame.fin:
            message = self._end_message()
        self._frame = None
        yield frame
        yield from self._remarks
        self._remarks.clear()
        if message is not None:
            yield message

    def _end_close(self, frame: InspectedFrame) -> None:
        self._is_closed = True
        if frame.length <= _MAX_CONTROL_SIZE:
            connection = Connection(Role.CLIENT)
            connection.receive_data(encode_frame(CLOSE, frame.payload))
            event = connection.next_event()
            if isinstance(event, Close):
                frame.close = event
                return
            if isinstance(event, Fail):
                self._add_violation(RemoteProtocolError(event.code, event.reason))
        if frame.length >= 2:
            reason = frame.payload[2:].decode("utf-8", "backslashreplace")
            frame.close = Close(int.from_bytes(frame.payload[:2], "big"), reason)

    def _end_message(self) -> InspectedMessage | None:
        message, is_opaque = self._message, self._is_compressed and self._decompressing is None
        self._message = None
        if message is None or is_opaque:
            return None
        if self._decompressing is not None:
            try:
                self._decompressing.finish()
            except RemoteProtocolError as error:
                self._add_violation(error)
                self._lose_window()
            self._decompressing = None
        self._judge_text(message, b"", True)
        return message


def _keep(kept: bytearray, data: bytes, limit: int) -> None:
    kept += data[: max(limit - len(kept), 0)]
