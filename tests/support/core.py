"""What the tests of the core share: frames as a peer sends them, and what an endpoint makes of them."""

from __future__ import annotations

import functools
import itertools
import operator
import tracemalloc
from collections.abc import Iterable
from typing import Any, NamedTuple

from wsframe import Connection, Event, Fail, Frame, FrameDecoder, Role, _mask_py, encode_frame, masking

CLIENT, SERVER = Role.CLIENT, Role.SERVER
OTHER = {CLIENT: SERVER, SERVER: CLIENT}

MASK = b"\x01\x02\x03\x04"
SAMPLE_MASK = bytes.fromhex("37fa213d")  # RFC 6455, section 5.7
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

LOST = Fail(1006, "connection was lost: the stream ended without a Close")
BAD_TEXT = Fail(1007, "text is not UTF-8")
TOO_BIG = Fail(1009, "message is too big")
TOO_MANY = Fail(1009, "message has too many fragments")


class Reading(NamedTuple):
    """A way to read a sample: whole, byte by byte, or with trailing bytes that are not part of it."""

    way: str

    def cut(self, sample: bytes) -> list[bytes]:
        if self.way == "byte by byte":
            return [sample[i : i + 1] for i in range(len(sample))]
        return [sample]

    def trailing(self, data: bytes) -> bytes:
        """Return the bytes that follow the sample: none, unless this is the way to read it."""
        return data if self.way == "with trailing bytes" else b""

    def chunks(self, sample: bytes, trailing: bytes) -> list[bytes]:
        return self.cut(sample + self.trailing(trailing))


READINGS = [Reading("whole"), Reading("byte by byte"), Reading("with trailing bytes")]


# Frames that an endpoint receives


def said(role: Role, opcode: int, payload: Any = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """Return a frame that the endpoint with this role receives."""
    return encode_frame(opcode, payload, fin, rsv, MASK if role is SERVER else None)


class Raw(NamedTuple):
    """A frame as it stands on the wire, legal or not. This does not rely on the encoder of wsframe."""

    first: int
    payload: bytes = b""
    masked: bool = True  # in the direction in which frames are masked; False: in the other one
    form: int = 0  # bytes of extended payload length: 0, 2 or 8; more only if the length needs it
    length: int | None = None  # the length in the header, if it differs from that of the payload
    key: bytes = SAMPLE_MASK

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def fin(self) -> bool:
        return self.first >= 0x80

    @property
    def announced(self) -> int:
        return len(self.payload) if self.length is None else self.length

    def encode(self, role: Role) -> bytes:
        """Return the frame that the endpoint with this role receives."""
        length = self.announced
        form = max(self.form, 0 if length < 126 else 2 if length < 65536 else 8)
        masked = (role is SERVER) is self.masked
        second = {0: length, 2: 126, 8: 127}[form] | masked << 7
        start = bytes([self.first, second]) + (length.to_bytes(form, "big") if form else b"")
        if not masked:
            return start + self.payload
        return start + self.key + bytes(map(operator.xor, self.payload, itertools.cycle(self.key)))


def raw_frame(role: Role, first: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Return a frame that the endpoint with this role receives, from its first byte; perhaps cut short."""
    return Raw(first, payload, length=length).encode(role)


def header(role: Role, first: int, length: int) -> bytes:
    """Return a header that announces 64 bits of length, and its masking key."""
    return Raw(first, form=8, length=length, key=MASK).encode(role)


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


# What an endpoint hears, and what it sends


def events_of(conn: Connection) -> list[Event]:
    """Return the events of what was received so far."""
    return list(iter(conn.next_event, None))


def hear(conn: Connection, *chunks: bytes) -> list[Event]:
    return hear_all(conn, chunks)


def hear_all(conn: Connection, chunks: Iterable[bytes]) -> list[Event]:
    """Receive chunks, and return the events of them all."""
    events: list[Event] = []
    for chunk in chunks:
        conn.receive_data(chunk)
        while event := conn.next_event():
            events.append(event)
    return events


def frames_of(role: Role, data: bytes) -> list[Frame]:
    """Return the frames that the endpoint with this role sent; nothing may follow them."""
    decoder = FrameDecoder(masked=role is CLIENT, rsv1=True)
    decoder.feed(data)
    frames = []
    while frame := decoder.next_frame():
        frames.append(frame)
    assert decoder.unread == 0
    return frames


def sent(conn: Connection) -> list[Frame]:
    """Take what an endpoint has to send, and return its frames."""
    return frames_of(conn.role, conn.data_to_send())


def pairs_of(frames: Iterable[Frame]) -> list[tuple[int, bytes]]:
    """Return the first byte and the payload of each frame."""
    return [(frame.fin << 7 | frame.rsv << 4 | frame.opcode, frame.payload) for frame in frames]


@functools.cache
def fill_tables_of_mask() -> None:
    """Let the Python mask make the tables that it keeps for the process, of each length and each byte."""
    if not masking.compiled:
        for length in range(_mask_py._LONGEST_INTEGER + 1):
            masking.apply_mask(bytes(length), MASK)
        for byte in range(256):
            masking.apply_mask(bytes(_mask_py._LONGEST_INTEGER + 1), bytes([byte] * 4))


class Memory:
    """Measure the most memory that was held within the block, in bytes, and what is held at its end.

    Tables that wsframe makes once in a process do not count, whichever test is the first to need them.
    """

    def __enter__(self) -> Memory:
        fill_tables_of_mask()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def held_now(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self._before

    def __exit__(self, *_: object) -> None:
        self.held, self.peak = (size - self._before for size in tracemalloc.get_traced_memory())
        tracemalloc.stop()
