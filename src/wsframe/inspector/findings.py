"""What an inspection finds: plain data. ``text`` turns it into lines and into objects of JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..events import Close
from ..frames import FIN

__all__ = ["Finding", "InspectedFrame", "InspectedHead", "InspectedMessage", "Note", "Violation"]


@dataclass(slots=True)
class InspectedHead:
    """One half of an opening handshake.

    Args:
        is_client: whether the client sent it.
        offset: where it begins, in bytes from the beginning of its direction.
        line: its first line, in short: ``GET /chat`` or ``101``.
        headers: those of its headers that negotiate something.
    """

    is_client: bool | None
    offset: int
    line: str
    headers: list[tuple[str, str]]


@dataclass(slots=True)
class InspectedFrame:
    """A frame as it was sent, right or wrong.

    Args:
        is_client: whether the client sent it; None: unknown.
        offset: where it begins, in bytes from the beginning of its direction.
        first_byte: its first byte: FIN, RSV1-3 and the opcode.
        masking_key: its masking key; None: it is not masked.
        length: the length of its payload, as its header says.
        payload_opcode: its opcode; that of a continuation is the opcode of its message, if there is one.
        payload: the beginning of the payload, unmasked, and decompressed where that is possible.
        inflated_length: the length of its payload after decompression; None: it was not decompressed.
        is_opaque: whether it is compressed and cannot be decompressed.
        close: what a Close says.
    """

    is_client: bool | None
    offset: int
    first_byte: int
    masking_key: bytes | None
    length: int
    payload_opcode: int
    payload: bytearray = field(default_factory=bytearray)
    inflated_length: int | None = None
    is_opaque: bool = False
    close: Close | None = None

    @property
    def fin(self) -> bool:
        """Whether it is the final frame of its message."""
        return self.first_byte & FIN != 0

    @property
    def rsv(self) -> int:
        """Its reserved bits: RSV1 is 4, RSV2 is 2, RSV3 is 1."""
        return self.first_byte >> 4 & 7

    @property
    def opcode(self) -> int:
        """Its opcode, which may be a reserved one."""
        return self.first_byte & 0x0F


@dataclass(slots=True)
class InspectedMessage:
    """A message, put together from its frames.

    Args:
        is_client: whether the client sent it; None: unknown.
        offset: where its first frame begins.
        opcode: TEXT or BINARY.
        frame_count: the number of its frames.
        length: its length in bytes, after decompression.
        payload: the beginning of it.
    """

    is_client: bool | None
    offset: int
    opcode: int
    frame_count: int = 0
    length: int = 0
    payload: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Violation:
    """A violation of RFC 6455 or RFC 7692.

    Args:
        is_client: whether the client is at fault; None: unknown.
        offset: where the frame or the head that breaks the RFC begins.
        code: the status code with which an endpoint fails the connection.
        reason: what is wrong.
    """

    is_client: bool | None
    offset: int
    code: int
    reason: str


@dataclass(slots=True)
class Note:
    """A remark about something that is not a violation.

    Args:
        is_client: whether it is about what the client sent; None: unknown.
        offset: the place that it is about.
        text: the remark.
    """

    is_client: bool | None
    offset: int
    text: str


Finding = InspectedHead | InspectedFrame | InspectedMessage | Violation | Note
"""Anything that an inspection finds."""
