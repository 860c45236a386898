"""A message as the payload of a Redis channel, which programs in any language can publish and read.

- Text is its UTF-8: ``redis-cli PUBLISH news hello`` sends the text "hello" to all subscribers of "news".
- Binary is the byte FF, with which no UTF-8 begins, and then the bytes of the message.
- Any other payload that is not UTF-8 is a binary message as it is.
"""

from __future__ import annotations

from ... import frames
from ...prepared import Prepared

__all__ = ["decode", "encode"]

BINARY_PREFIX = b"\xff"


def encode(message: Prepared) -> bytes:
    """Return the payload of a message."""
    return message.payload if message.opcode == frames.TEXT else BINARY_PREFIX + message.payload


def decode(payload: bytes, compress: bool | None) -> Prepared:
    """Return the message of a payload.

    Args:
        payload: the payload.
        compress: as for ``prepare``.
    """
    if payload.startswith(BINARY_PREFIX):
        return Prepared(frames.BINARY, payload[1:], compress)
    try:
        payload.decode()
    except UnicodeDecodeError:
        return Prepared(frames.BINARY, payload, compress)
    return Prepared(frames.TEXT, payload, compress)
