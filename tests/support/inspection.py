"""What the tests of the inspector share: findings as lines, and messages that are compressed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wsframe import Deflate, Opcode, encode_frame
from wsframe.deflate import Compressor
from wsframe.inspector import Finding, FrameInspector, InspectedMessage, to_spans

HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # RFC 6455, section 5.7
HELLO_LINE = '       0  client  F---  TEXT          37fa213d       5  "Hello"'


def findings_of(chunks: Iterable[bytes], **options: Any) -> list[Finding]:
    """Return the findings in one direction, which ends with the chunks."""
    inspector = FrameInspector(**{"is_client": None, **options})
    return [finding for chunk in chunks for finding in inspector.feed(chunk)] + list(inspector.finish(True))


def line_of(finding: Finding, connection: int | None = None, time: float = 0.0) -> str:
    return "".join(span.text for span in to_spans(finding, connection, time)).rstrip()


def lines_of(findings: Iterable[Finding], messages: bool = False) -> list[str]:
    return [line_of(finding) for finding in findings if messages or not isinstance(finding, InspectedMessage)]


def inspect(data: bytes, messages: bool = False, **options: Any) -> list[str]:
    """Return the lines for one direction."""
    return lines_of(findings_of([data], **options), messages)


def compressed(compression: Deflate, *messages: bytes) -> bytes:
    """Return text messages as a server sends them."""
    compressor = Compressor(compression, is_server=True)
    return b"".join(encode_frame(Opcode.TEXT, compressor.compress(message), rsv=4) for message in messages)
