"""``wsframe decode``: what two endpoints sent, frame by frame, and where they break the RFC."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import sys
from collections.abc import Iterator
from typing import IO, Any

import click

from ..deflate import Deflate
from ..inspector import (
    HEADING,
    UNAGREED_COMPRESSION,
    ConversationInspector,
    Finding,
    InspectedFrame,
    InspectedMessage,
    Note,
    Span,
    SpanKind,
    Violation,
    is_hexadecimal,
    read_hexadecimal,
    to_json,
    to_spans,
    visible,
)
from ..inspector.capture import Capture, CapturedConnection, CaptureInspector, is_capture
from ..inspector.text import counted
from .standard import Unwritable
from .terminal import Printer, Unusable

__all__ = ["decode"]

_READ_SIZE = 65536
_BEGINNING = 4096  # bytes that tell what a file is
_STYLES: dict[SpanKind, str] = {
    "text": "green",
    "binary": "cyan",
    "close": "magenta",
    "data": "default",
    "message": "bold",
    "violation": "bold red",
    "note": "yellow",
}


@click.command
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", "raw", "hex", "pcap"]),
    default="auto",
    show_default=True,
    help="The format of FILE; pcap: also pcapng.",
)
@click.option("--masked/--unmasked", default=None, help="The sender is a client, which masks; or a server.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="In a capture, also read connections to this port that lack their handshake.",
)
@click.option("--deflate", is_flag=True, help="Messages are compressed, where no handshake says so.")
@click.option("--no-context-takeover", is_flag=True, help="... each of them by itself.")
@click.option(
    "--window-bits", type=click.IntRange(9, 15), default=15, show_default=True, help="... with this window."
)
@click.option("--messages", is_flag=True, help="Also show messages, put together from their frames.")
@click.option("--json", "as_json", is_flag=True, help="Print an object of JSON for each line.")
@click.option(
    "--show",
    type=click.IntRange(min=0),
    metavar="BYTES",
    default=64,
    show_default=True,
    help="How much of a payload to show.",
)
def decode(
    file: IO[bytes],
    kind: str,
    masked: bool | None,
    port: int | None,
    deflate: bool,
    no_context_takeover: bool,
    window_bits: int,
    messages: bool,
    as_json: bool,
    show: int,
) -> None:
    """Show frames, one a line, from bytes, hexadecimal or a capture in FILE or standard input.

    \b
    echo 818537fa213d7f9f4d5158 | wsframe decode
    xxd dump.bin | wsframe decode --deflate --messages
    wsframe decode capture.pcapng
    tcpdump -i lo -U -w - port 8001 | wsframe decode

    A line has the offset of a frame among the bytes of its sender, the sender, FIN and RSV1-3 (as F123), the
    opcode, masking key, length and payload. After a frame that breaks RFC 6455 or 7692 comes a line that
    begins with !. It has the status code with which an endpoint fails the connection, and the reason. Reading
    goes on after that frame as if it were right, as long as its length says where. Lines with # are remarks,
    lines with = messages.

    Other protocols in a capture are left out, and so is everything inside TLS. An opening handshake tells how
    messages are compressed.

    \b
    Exit codes
      0  no violations
      1  violations were found
      2  wrong usage, or FILE cannot be read, or standard output cannot be written
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # | head ends it, as it ends cat
    if (no_context_takeover or window_bits != 15) and not deflate:
        raise click.UsageError("--no-context-takeover and --window-bits go with --deflate")
    agreed = None
    if deflate:
        agreed = Deflate(
            server_max_window_bits=window_bits,
            client_max_window_bits=window_bits,
            server_no_context_takeover=no_context_takeover,
            client_no_context_takeover=no_context_takeover,
        )
    if sys.stdout is None:
        raise Unusable("standard output must be open")
    report: _Report = (_JSONReport if as_json else _TextReport)(messages)
    try:
        try:
            source = _buffered(file)
            beginning = source.peek(_BEGINNING)[:_BEGINNING]
            if kind == "auto":
                kind = _format_of(beginning)
            if kind == "pcap":
                if not is_capture(beginning):
                    raise ValueError("it is neither pcap nor pcapng")
                inspector = CaptureInspector(port=port, compression=agreed, payload_limit=show)
                _decode_capture(Capture(source, beginning), inspector, report)
            else:
                pieces = read_hexadecimal(_lines(source)) if kind == "hex" else _pieces(source)
                conversation = ConversationInspector(
                    compression=agreed, payload_limit=show, has_both_directions=False, may_skip_handshake=True
                )
                _decode_bytes(pieces, masked, conversation, report)
        finally:
            report.end()
    except Unwritable as error:
        raise Unusable(str(error)) from None
    except (OSError, ValueError) as error:
        name = getattr(file, "name", "<stdin>")
        raise Unusable(f"cannot read {'standard input' if name == '<stdin>' else name}: {error}") from None
    raise SystemExit(1 if report.violations else 0)


# Bytes in


def _buffered(file: IO[bytes]) -> io.BufferedReader[Any]:
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)


def _format_of(beginning: bytes) -> str:
    if is_capture(beginning):
        return "pcap"
    return "hex" if is_hexadecimal(beginning) else "raw"


def _pieces(source: io.BufferedReader[Any]) -> Iterator[bytes]:
    return iter(lambda: source.read1(_READ_SIZE), b"")


def _lines(source: IO[bytes]) -> Iterator[str]:
    while line := source.readline(_READ_SIZE):
        try:
            yield line.decode("ascii")
        except UnicodeDecodeError:
            raise ValueError("it is not hexadecimal: it has other characters than ASCII") from None


def _decode_bytes(
    pieces: Iterator[bytes], masked: bool | None, conversation: ConversationInspector, report: _Report
) -> None:
    for data in pieces:
        if data:
            for finding in conversation.feed(masked, data):
                report.add(finding)
            report.flush()
    for finding in conversation.finish(masked, True):
        report.add(finding)


def _decode_capture(capture: Capture, inspector: CaptureInspector, report: _Report) -> None:
    for chunk in capture.chunks():
        for connection, time, finding in inspector.feed(chunk):
            report.add(finding, connection, time)
        report.flush()
    if inspector.others:
        tls = f", {inspector.encrypted} of them TLS" if inspector.encrypted else ""
        report.remark(f"{inspector.others} other TCP connections{tls}")
    if not inspector.count:
        report.remark("no WebSocket; --port reads one whose handshake is not in the capture")
    if capture.skipped:
        report.remark(f"{capture.skipped} packets of a link type that is not known")
    if capture.problem:
        raise ValueError(capture.problem)


# Findings out


class _Report:
    """The output, which counts frames and violations.

    Args:
        messages: whether to show messages as well.
    """

    def __init__(self, messages: bool) -> None:
        self._messages = messages
        self._connections = 0
        self.frames = 0
        self.violations = 0

    def add(self, finding: Finding, connection: CapturedConnection | None = None, time: float = 0.0) -> None:
        if connection is not None and connection.number > self._connections:
            self._connections = connection.number
            self.open(connection)
        self.frames += isinstance(finding, InspectedFrame)
        self.violations += isinstance(finding, Violation)
        if isinstance(finding, Note) and finding.text == UNAGREED_COMPRESSION:
            finding = dataclasses.replace(finding, text=f"{finding.text}: --deflate reads it")
        if self._messages or not isinstance(finding, InspectedMessage):
            self.show(finding, None if connection is None else connection.number, time)

    def open(self, connection: CapturedConnection) -> None:
        """Show the endpoints of a connection."""
        raise NotImplementedError

    def show(self, finding: Finding, connection: int | None, time: float) -> None:
        """Show a finding, with the number of its connection."""
        raise NotImplementedError

    def remark(self, text: str) -> None:
        """Show a remark about the whole input."""
        raise NotImplementedError

    def flush(self) -> None:
        sys.stdout.flush()

    def end(self) -> None:
        """Show the end."""


class _TextReport(_Report):
    """Lines of text: in colour on a terminal."""

    def __init__(self, messages: bool) -> None:
        super().__init__(messages)
        self._printer = Printer()
        if self._printer.is_terminal:
            self._printer.print((HEADING, "dim"))

    def open(self, connection: CapturedConnection) -> None:
        client, server = (
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in (connection.client, connection.server)
        )
        self._printer.print((f"# {connection.number}: {client} connects to {server}", "dim"))

    def show(self, finding: Finding, connection: int | None, time: float) -> None:
        self._printer.print(*map(_styled, to_spans(finding, connection, time)))

    def remark(self, text: str) -> None:
        self._printer.print((f"# {visible(text)}", "dim"))

    def end(self) -> None:
        if self._printer.is_terminal:
            self.remark(f"{counted(self.frames, 'frame')}, {counted(self.violations, 'violation')}")
        self.flush()


def _styled(span: Span) -> str | tuple[str, str]:
    return (span.text, _STYLES[span.kind]) if span.kind in _STYLES else span.text


class _JSONReport(_Report):
    """Objects of JSON, one a line."""

    def open(self, connection: CapturedConnection) -> None:
        client, server = list(connection.client), list(connection.server)
        _print_json({"kind": "stream", "stream": connection.number, "client": client, "server": server})

    def show(self, finding: Finding, connection: int | None, time: float) -> None:
        _print_json(to_json(finding, connection, time))

    def remark(self, text: str) -> None:
        _print_json({"kind": "note", "text": text})


def _print_json(item: dict[str, Any]) -> None:
    print(json.dumps(item))
