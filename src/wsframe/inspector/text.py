"""Findings as text: lines for people, which scripts can cut into columns, and objects of JSON.

    offset  from    flags opcode       key      length  payload
         0  client  F---  TEXT         37fa213d      5  "Hello"
!        0  client  1002 reserved bits must be zero
"""

from __future__ import annotations

import codecs
from typing import Any, Literal, NamedTuple

from ..events import Close
from ..frames import BINARY, CLOSE, TEXT, CloseCode, Opcode
from .findings import Finding, InspectedFrame, InspectedHead, InspectedMessage, Note, Violation

__all__ = ["HEADING", "Span", "SpanKind", "close_name", "counted", "to_json", "to_spans", "visible"]

HEADING = "  offset  from    flags opcode        key       length  payload"
"""The names of the columns of a frame's line."""

SpanKind = Literal["plain", "text", "binary", "close", "data", "message", "violation", "note"]
"""What a part of a line is: a payload of text, binary, a Close or other data; or of another kind of line."""

_FLAGS = ((0x80, "F"), (0x40, "1"), (0x20, "2"), (0x10, "3"))
_PAYLOAD_KINDS: dict[int, SpanKind] = {TEXT: "text", BINARY: "binary", CLOSE: "close"}
_OPAQUE = -1  # stands for the opcode of a payload that cannot be read


class Span(NamedTuple):
    """A part of a line.

    Attributes:
        text: the text, in which nothing acts on a terminal.
        kind: what it is, for a colour.
    """

    text: str
    kind: SpanKind = "plain"


def visible(text: str) -> str:
    r"""Return text without characters that act on a terminal, or that hide other text.

    Control characters of both sets, line ends, marks that change the direction of writing, invisible and
    unassigned characters and lone surrogates become escapes: ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: what a peer sent.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def close_name(code: int) -> str:
    """Return the name of a status code (RFC 6455, section 7.4).

    Args:
        code: any number.
    """
    try:
        return CloseCode(code).name
    except ValueError:
        if 3000 <= code < 4000:
            return "registered by a library"
        return "private use" if 4000 <= code < 5000 else "not a status code"


def to_spans(finding: Finding, connection: int | None = None, time: float = 0.0) -> list[Span]:
    """Return the line for a finding, in parts.

    Args:
        finding: the finding.
        connection: the number of the connection, if there are several.
        time: with a number: a time in seconds.
    """
    mark = {Violation: "!", InspectedMessage: "=", Note: "#"}.get(type(finding), " ")
    where = "" if connection is None else f"{connection:>3} {time:>11.6f}"
    sender = {True: "client", False: "server", None: "-"}[finding.is_client]
    place = f"{mark}{where}{finding.offset:>7}  {sender:6}  "
    match finding:
        case InspectedFrame():
            return [Span(place), *_frame_spans(finding)]
        case InspectedMessage():
            size = f"{counted(finding.frame_count, 'frame')}, {counted(finding.length, 'byte')}"
            shown = _payload(finding.opcode, finding.payload, finding.length)
            return [Span(f"{place}{Opcode(finding.opcode).name} of {size}  {shown}", "message")]
        case Violation():
            return [Span(f"{place}{finding.code} {visible(finding.reason)}", "violation")]
        case Note():
            return [Span(f"{place}{visible(finding.text)}", "note")]
        case InspectedHead():
            headers = "".join(f"  {name}: {value}" for name, value in finding.headers)
            return [Span(f"{place}{visible(finding.line)}{visible(headers)}")]


def _frame_spans(frame: InspectedFrame) -> list[Span]:
    flags = "".join(name if frame.first_byte & flag else "-" for flag, name in _FLAGS)
    key = frame.masking_key.hex() if frame.masking_key else "-"
    header = Span(f"{flags}  {_opcode_name(frame.opcode):12}  {key:8}  {frame.length:>6}  ")
    if frame.opcode == CLOSE and frame.close is not None:
        return [header, Span(_close_text(frame.close), "close")]
    opcode = _readable_opcode(frame)
    length = frame.length if frame.inflated_length is None else frame.inflated_length
    payload = Span(_payload(opcode, frame.payload, length), _PAYLOAD_KINDS.get(opcode, "data"))
    if frame.inflated_length is None:
        return [header, payload]
    return [header, Span(f"inflates to {frame.inflated_length}  "), payload]


def _opcode_name(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"reserved {opcode}"


def _readable_opcode(frame: InspectedFrame) -> int:
    return _OPAQUE if frame.is_opaque else frame.payload_opcode


def _close_text(close: Close) -> str:
    if close.code == 1005:
        return "no code"
    return f"{close.code} {close_name(close.code)}" + (f'  "{visible(close.reason)}"' if close.reason else "")


def _payload(opcode: int, payload: bytearray, length: int) -> str:
    """Return the beginning of a payload, and dots if that is not all."""
    shown = f'"{visible(_decoded(payload))}"' if opcode == TEXT else payload.hex(" ")
    return shown if len(payload) >= length else f"{shown}..."


def _decoded(payload: bytearray) -> str:
    # A character that is cut, by its fragment or by the limit, is left out.
    return codecs.getincrementaldecoder("utf-8")("backslashreplace").decode(payload)


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, which is in the plural unless the number is 1.

    Args:
        number: how many.
        noun: of what, in the singular.
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def to_json(finding: Finding, connection: int | None = None, time: float = 0.0) -> dict[str, Any]:
    """Return the object for a finding, which ``json.dumps`` takes.

    Args:
        finding: the finding.
        connection: the number of the connection, if there are several.
        time: with a number: a time in seconds.
    """
    where = {} if connection is None else {"stream": connection, "time": round(time, 6)}
    sender = {True: "client", False: "server", None: None}[finding.is_client]
    place = {**where, "from": sender, "offset": finding.offset}
    match finding:
        case InspectedFrame():
            return {"kind": "frame", **place, **_frame_object(finding)}
        case InspectedMessage():
            name = Opcode(finding.opcode).name
            size = {"name": name, "frames": finding.frame_count, "length": finding.length}
            return {"kind": "message", **place, **size, **_payload_object(finding.opcode, finding.payload)}
        case Violation():
            return {"kind": "violation", **place, "code": finding.code, "reason": finding.reason}
        case Note():
            return {"kind": "note", **place, "text": finding.text}
        case InspectedHead():
            return {"kind": "head", **place, "line": finding.line, "headers": dict(finding.headers)}


def _frame_object(frame: InspectedFrame) -> dict[str, Any]:
    item: dict[str, Any] = {
        "fin": frame.fin,
        "rsv": frame.rsv,
        "opcode": frame.opcode,
        "name": _opcode_name(frame.opcode),
        "key": frame.masking_key.hex() if frame.masking_key else None,
        "length": frame.length,
    }
    if frame.inflated_length is not None:
        item["inflated"] = frame.inflated_length
    if frame.close is not None:
        item |= {"code": frame.close.code, "reason": frame.close.reason}
    return item | _payload_object(_readable_opcode(frame), frame.payload)


def _payload_object(opcode: int, payload: bytearray) -> dict[str, str]:
    """Return the beginning of a payload: in hexadecimal, and as text if it is text."""
    text = {"text": _decoded(payload)} if opcode == TEXT else {}
    return {**text, "hex": payload.hex()}
