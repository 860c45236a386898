"""A message as a payload of Redis, which programs in any language can publish and read.

- Text is its UTF-8: ``redis-cli PUBLISH room hello`` reaches everybody in the room as the text "hello".
- Binary is the octet 0xFF, with which no UTF-8 begins, and then the octets of the message.
- Anything else that is not UTF-8 is a binary message as it stands.
"""

from __future__ import annotations

from .. import frames
from ..prepared import Prepared

__all__ = ["decode", "encode"]

BINARY = b"\xff"


def encode(message: Prepared) -> bytes:
    """Return a message as a payload."""
    return message.payload if message.opcode == frames.TEXT else BINARY + message.payload


def decode(payload: bytes, compress: bool | None) -> Prepared:
    """Return the message that a payload means.

    Args:
        payload: the octets.
        compress: as for ``prepare``.
    """
    if payload[:1] == BINARY:
        return Prepared(frames.BINARY, payload[1:], compress)
    try:
        payload.decode()
    except UnicodeDecodeError:
        return Prepared(frames.BINARY, payload, compress)
    return Prepared(frames.TEXT, payload, compress)
