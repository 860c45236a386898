"""``wsframe decode``: what two endpoints said, frame by frame, and where they break the RFC.

octets --> hexadecimal, capture --> conversation --> inspector --> report
"""

from __future__ import annotations

import io
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from typing import IO

import click

from ...deflate import Deflate
from ..standard import Unwritable
from ..terminal import Unusable
from .capture import Capture, Chunk, Endpoint, is_capture
from .conversation import Conversation
from .hexadecimal import is_hexadecimal, read_hexadecimal
from .report import JSON, Report, Stream, Text

__all__ = ["decode"]

_READ_SIZE = 65536
_BEGINNING = 4096  # octets that tell what a file is


@click.command
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", "raw", "hex", "pcap"]),
    default="auto",
    show_default=True,
    help="What FILE holds; pcap: also pcapng.",
)
@click.option("--masked/--unmasked", default=None, help="Who says it: a client masks, a server does not.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="In a capture, read streams to this port without a handshake, too.",
)
@click.option("--deflate", is_flag=True, help="Messages are compressed, where no handshake tells.")
@click.option("--no-context-takeover", is_flag=True, help="... each of them by itself.")
@click.option(
    "--window-bits", type=click.IntRange(9, 15), default=15, show_default=True, help="... with this window."
)
@click.option("--messages", is_flag=True, help="Show messages as well, put together.")
@click.option("--json", "as_json", is_flag=True, help="Print an object of JSON for each line.")
@click.option(
    "--show",
    type=click.IntRange(min=0),
    metavar="OCTETS",
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
    """Show frames, one a line, from octets, hexadecimal or a capture in FILE or standard input.

    \b
    echo 818537fa213d7f9f4d5158 | wsframe decode
    xxd dump.bin | wsframe decode --deflate --messages
    wsframe decode capture.pcapng
    tcpdump -i lo -U -w - port 8001 | wsframe decode

    A line has the offset of a frame in what its endpoint says, who says it, its FIN and RSV1-3 (as F123), its
    opcode, masking key, length and payload. A frame that breaks RFC 6455 or 7692 is followed by a line that
    begins with !, has the status code that an endpoint fails with, and says why; reading goes on behind it as
    if it were right, as long as the length tells where. Lines with # are remarks, with = messages.

    What a capture has of other protocols is left out; so is what TLS hides. An opening handshake tells how
    messages are compressed.

    \b
    Exit codes
      0  all is as it must be
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
    report: Report = (JSON if as_json else Text)(messages)
    try:
        try:
            _decode(file, kind, report, masked, port, agreed, show)
        finally:
            report.end()
    except Unwritable as error:
        raise Unusable(str(error)) from None
    except (OSError, ValueError) as error:
        name = getattr(file, "name", "<stdin>")
        raise Unusable(f"cannot read {'standard input' if name == '<stdin>' else name}: {error}") from None
    raise SystemExit(1 if report.violations else 0)


def _decode(
    file: IO[bytes],
    kind: str,
    report: Report,
    masked: bool | None,
    port: int | None,
    deflate: Deflate | None,
    show: int,
) -> None:
    source = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
    beginning = source.peek(_BEGINNING)[:_BEGINNING]
    if kind == "auto":
        kind = "pcap" if is_capture(beginning) else "hex" if is_hexadecimal(beginning) else "raw"
    if kind == "pcap":
        if not is_capture(beginning):
            raise ValueError("it is neither pcap nor pcapng")
        _Captured(report, deflate, show, port).read(Capture(source, beginning))
    else:
        pieces = (
            read_hexadecimal(_lines(source)) if kind == "hex" else iter(lambda: source.read1(_READ_SIZE), b"")
        )
        _decode_octets(pieces, report, masked, deflate, show)


def _lines(source: IO[bytes]) -> Iterator[str]:
    while line := source.readline(_READ_SIZE):
        try:
            yield line.decode("ascii")
        except UnicodeDecodeError:
            raise ValueError("it is not hexadecimal: it has other characters than ASCII") from None


def _decode_octets(
    pieces: Iterator[bytes], report: Report, masked: bool | None, deflate: Deflate | None, show: int
) -> None:
    conversation = Conversation(deflate=deflate, show=show, has_both=False, is_open=True)
    for octets in pieces:
        if octets:
            for said in conversation.feed(masked, octets):
                report.add(said)
            report.flush()
    for said in conversation.finish(masked, True):
        report.add(said)


class _Reading:
    """A TCP connection that may be a WebSocket.

    Args:
        client: its endpoints.
        server: and the other.
        conversation: what they say.
    """

    def __init__(self, client: Endpoint, server: Endpoint, conversation: Conversation) -> None:
        self.client = client
        self.server = server
        self.conversation = conversation
        self.stream: Stream | None = None  # when it is known to be one


class _Captured:
    """Show the WebSockets of a capture."""

    def __init__(self, report: Report, deflate: Deflate | None, show: int, port: int | None) -> None:
        self._report = report
        self._deflate = deflate
        self._show = show
        self._port = port
        self._readings: dict[int, _Reading | None] = {}  # None: it is something else
        self._ends: Counter[int] = Counter()
        self._number = 0
        self._others = 0
        self._encrypted = 0

    def read(self, capture: Capture) -> None:
        for chunk in capture.chunks():
            self._read_chunk(chunk)
            self._report.flush()
        if self._others:
            tls = f", {self._encrypted} of them TLS" if self._encrypted else ""
            self._report.remark(f"{self._others} other TCP connections{tls}")
        if not self._number:
            self._report.remark("no WebSocket; --port reads one whose handshake is not in the capture")
        if capture.skipped:
            self._report.remark(f"{capture.skipped} packets of a link type that is not known")
        if capture.problem:
            raise ValueError(capture.problem)

    def _read_chunk(self, chunk: Chunk) -> None:
        name = chunk.stream
        if chunk.octets and name not in self._readings:
            self._readings[name] = self._begin(chunk)
        reading = self._readings.get(name)
        if reading is not None and reading.conversation.is_websocket is not False:
            is_client = chunk.source == reading.client
            conversation = reading.conversation
            if chunk.octets:
                records = conversation.feed(is_client, chunk.octets)
            elif chunk.missing:
                records = conversation.lose(is_client, chunk.missing)
            else:
                records = conversation.finish(is_client, chunk.is_end)
            for said in records:
                self._report.add(said, self._stream(reading, chunk.time))
            if conversation.is_websocket is False:
                self._others += 1
        if not chunk.octets:
            self._ends[name] += 1
            if self._ends[name] == 2:
                self._readings.pop(name, None)
                del self._ends[name]

    def _begin(self, chunk: Chunk) -> _Reading | None:
        source, target = chunk.source, chunk.target
        is_open = self._port in (source[1], target[1])
        match chunk.octets[:1]:
            case b"G":  # GET
                client = source
            case b"H":  # HTTP/1.1
                client = target
            case _ if is_open:
                client = target if source[1] == self._port else source
            case first:
                self._others += 1
                self._encrypted += first == b"\x16"  # a TLS record with a handshake
                return None
        conversation = Conversation(deflate=self._deflate, show=self._show, has_both=True, is_open=is_open)
        return _Reading(client, target if client == source else source, conversation)

    def _stream(self, reading: _Reading, time: float) -> Stream:
        if reading.stream is None:
            self._number += 1
            reading.stream = Stream(self._number, reading.client, reading.server)
            self._report.open(reading.stream)
        reading.stream.time = time
        return reading.stream
