"""What is shown of records: lines for people, which scripts can cut into columns, or JSON.

    offset  from    flags opcode       key      length  payload
         0  client  F---  TEXT         37fa213d      5  "Hello"
!        0  client  1002 reserved bits must be zero
"""

from __future__ import annotations

import codecs
import json
import sys
from dataclasses import dataclass
from typing import Any

from ...events import Close
from ...frames import BINARY, CLOSE, TEXT, Opcode
from ..terminal import Printer, close_name, visible
from .capture import Endpoint
from .conversation import Head, Said
from .inspector import Frame, Message, Note, Violation

__all__ = ["JSON", "Report", "Stream", "Text"]

_FLAGS = ((0x80, "F"), (0x40, "1"), (0x20, "2"), (0x10, "3"))
_STYLES = {TEXT: "green", BINARY: "cyan", CLOSE: "magenta"}


@dataclass(slots=True)
class Stream:
    """A connection in a capture.

    Args:
        number: which one it is.
        client: its endpoints.
        server: and the other.
        time: when something came, in seconds since the beginning of the capture.
    """

    number: int
    client: Endpoint
    server: Endpoint
    time: float = 0.0


class Report:
    """Count and show what was said.

    Args:
        messages: whether to show messages as well.

    Attributes:
        frames: how many there were.
        violations: how many there were.
    """

    def __init__(self, messages: bool) -> None:
        self._messages = messages
        self.frames = 0
        self.violations = 0

    def add(self, said: Said, stream: Stream | None = None) -> None:
        """Show a record.

        Args:
            said: the record, and who said it.
            stream: the connection in a capture.
        """
        self.frames += isinstance(said.record, Frame)
        self.violations += isinstance(said.record, Violation)
        if self._messages or not isinstance(said.record, Message):
            self._show(said, stream)

    def open(self, stream: Stream) -> None:
        """Show that there is another connection in a capture."""

    def remark(self, text: str) -> None:
        """Tell something about all of it."""

    def flush(self) -> None:
        """Write what was shown."""
        sys.stdout.flush()

    def end(self) -> None:
        """Show what there is to say at the end."""

    def _show(self, said: Said, stream: Stream | None) -> None:
        raise NotImplementedError


class Text(Report):
    """Show it as text: in colour on a terminal."""

    def __init__(self, messages: bool) -> None:
        super().__init__(messages)
        self._printer = Printer()
        if self._printer.is_terminal:
            self._printer.print(("  offset  from    flags opcode        key       length  payload", "dim"))

    def open(self, stream: Stream) -> None:
        """Show that there is another connection in a capture."""
        client, server = (f"{_bracketed(address)}:{port}" for address, port in (stream.client, stream.server))
        self._printer.print((f"# {stream.number}: {client} connects to {server}", "dim"))

    def remark(self, text: str) -> None:
        """Tell something about all of it."""
        self._printer.print((f"# {visible(text)}", "dim"))

    def end(self) -> None:
        """Show on a terminal how many there were."""
        if self._printer.is_terminal:
            counts = _count(self.frames, "frame"), _count(self.violations, "violation")
            self._printer.print((f"# {', '.join(counts)}", "dim"))
        self.flush()

    def _show(self, said: Said, stream: Stream | None) -> None:
        record = said.record
        mark = {Violation: "!", Message: "=", Note: "#"}.get(type(record), " ")
        where = f"{stream.number:>3} {stream.time:>11.6f}" if stream else ""
        who = {True: "client", False: "server", None: "-"}[said.is_client]
        place = f"{mark}{where}{record.offset:>7}  {who:6}  "
        match record:
            case Frame():
                self._printer.print(place, *_frame_parts(record))
            case Message():
                kind, shown = Opcode(record.opcode).name, _payload(record.opcode, record.payload)
                size = f"{_count(record.frames, 'frame')}, {_count(record.length, 'octet')}"
                shown = _cut(shown, record.payload, record.length)
                self._printer.print((f"{place}{kind} of {size}  {shown}", "bold"))
            case Violation():
                self._printer.print((f"{place}{record.code} {visible(record.reason)}", "bold red"))
            case Note():
                self._printer.print((f"{place}{visible(record.text)}", "yellow"))
            case Head():
                headers = "".join(f"  {name}: {value}" for name, value in record.headers)
                self._printer.print(f"{place}{visible(record.line)}{visible(headers)}")


def _frame_parts(frame: Frame) -> tuple[str | tuple[str, str], ...]:
    flags = "".join(name if frame.first & flag else "-" for flag, name in _FLAGS)
    key = frame.key.hex() if frame.key else "-"
    header = f"{flags}  {_name(frame.opcode):12}  {key:8}  {frame.length:>6}  "
    if frame.opcode == CLOSE and frame.close is not None:
        return header, (_close_text(frame.close), _STYLES[CLOSE])
    kind = -1 if frame.is_opaque else frame.kind
    shown = _payload(kind, frame.payload)
    size = frame.length if frame.size is None else frame.size
    inflated = "" if frame.size is None else f"inflates to {frame.size}  "
    return header, inflated, (_cut(shown, frame.payload, size), _STYLES.get(kind, "default"))


def _name(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"reserved {opcode}"


def _close_text(close: Close) -> str:
    if close.code == 1005:
        return "no code"
    return f"{close.code} {close_name(close.code)}" + (f'  "{visible(close.reason)}"' if close.reason else "")


def _payload(kind: int, payload: bytearray) -> str:
    if kind != TEXT:
        return payload.hex(" ")
    return f'"{visible(_text(payload))}"'


def _text(payload: bytearray) -> str:
    # What is cut within a character, by its fragment or by us, is left out.
    return codecs.getincrementaldecoder("utf-8")("backslashreplace").decode(payload)


def _cut(shown: str, payload: bytearray, size: int) -> str:
    return shown if len(payload) >= size else f"{shown}..."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class JSON(Report):
    """Show it as objects of JSON, one a line."""

    def open(self, stream: Stream) -> None:
        """Show that there is another connection in a capture."""
        client, server = list(stream.client), list(stream.server)
        self._print({"kind": "stream", "stream": stream.number, "client": client, "server": server})

    def remark(self, text: str) -> None:
        """Tell something about all of it."""
        self._print({"kind": "note", "text": text})

    def _show(self, said: Said, stream: Stream | None) -> None:
        record = said.record
        where: dict[str, Any] = {"stream": stream.number, "time": round(stream.time, 6)} if stream else {}
        where |= {
            "from": {True: "client", False: "server", None: None}[said.is_client],
            "offset": record.offset,
        }
        self._print({"kind": type(record).__name__.lower(), **where, **_object(record)})

    def _print(self, item: dict[str, Any]) -> None:
        print(json.dumps(item))


def _object(record: Any) -> dict[str, Any]:
    match record:
        case Frame():
            item: dict[str, Any] = {
                "fin": bool(record.first & 0x80),
                "rsv": record.first >> 4 & 7,
                "opcode": record.opcode,
                "name": _name(record.opcode),
                "key": record.key.hex() if record.key else None,
                "length": record.length,
            }
            if record.size is not None:
                item["inflated"] = record.size
            if record.close is not None:
                item |= {"code": record.close.code, "reason": record.close.reason}
            return item | _json_payload(-1 if record.is_opaque else record.kind, record.payload)
        case Message():
            item = {"name": Opcode(record.opcode).name, "frames": record.frames, "length": record.length}
            return item | _json_payload(record.opcode, record.payload)
        case Violation():
            return {"code": record.code, "reason": record.reason}
        case Note():
            return {"text": record.text}
    return {"line": record.line, "headers": dict(record.headers)}


def _json_payload(kind: int, payload: bytearray) -> dict[str, str]:
    """Return the beginning of a payload: as text, if it is, and always in hexadecimal."""
    item = {"text": _text(payload)} if kind == TEXT else {}
    return {**item, "hex": payload.hex()}
