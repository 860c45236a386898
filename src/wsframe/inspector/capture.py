"""The WebSockets in what a network interface captured: pcap and pcapng files. Needs ``wsframe[cli]``.

dpkt reads the files and the packets, ``tcp`` puts the segments in order. A capture may be hostile. So there
is a limit to the size of a packet, and one that dpkt cannot read is left out.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import IO, Any, NamedTuple

import dpkt

from ..deflate import Deflate
from .conversation import ConversationInspector
from .findings import Finding
from .tcp import SocketAddress, TCPChunk, TCPReassembler, TCPSegment

__all__ = ["Capture", "CaptureInspector", "CapturedConnection", "CapturedFinding", "is_capture"]

_MAGICS = tuple(
    bytes.fromhex(magic)
    for magic in ("d4c3b2a1", "a1b2c3d4", "4d3cb2a1", "a1b23c4d", "34cdb2a1", "a1b2cd34", "0a0d0d0a")
)
_PCAPNG = _MAGICS[-1]
_MAX_BLOCK = 2**24  # bytes of the file that are read at once; a packet has 64 KiB, or 256 KiB
_MAX_LAYERS = 8  # of a packet below IP
_TLS_HANDSHAKE = b"\x16"  # the first byte of a TLS record with a handshake

_Packet = tuple[int, float, bytes]  # its link type, its time in seconds, and its bytes


def _ip(data: bytes) -> Any:
    return dpkt.ip6.IP6(data) if data[0] >> 4 == 6 else dpkt.ip.IP(data)


# By the numbers of https://www.tcpdump.org/linktypes.html
_LINKS = {
    0: dpkt.loopback.Loopback,
    1: dpkt.ethernet.Ethernet,
    12: _ip,  # on some systems
    14: _ip,
    101: _ip,
    108: dpkt.loopback.Loopback,
    113: dpkt.sll.SLL,
    228: _ip,
    229: _ip,
    276: dpkt.sll2.SLL2,
}


def is_capture(beginning: bytes) -> bool:
    """Tell whether a file is a capture.

    Args:
        beginning: its first four bytes or more.
    """
    return beginning.startswith(_MAGICS)


class Capture:
    """A capture: a pcap or pcapng file.

    Args:
        file: the file, from its first byte on.
        beginning: its first four bytes or more, which stay to be read from ``file``.

    Attributes:
        problem: why it could not be read to its end, or ``""``.
        skipped: the number of packets that were left out because their link type is unknown.
    """

    def __init__(self, file: IO[bytes], beginning: bytes) -> None:
        self.problem = ""
        self.skipped = 0
        self._packets = _read_pcapng(file) if beginning.startswith(_PCAPNG) else _read_pcap(file)

    def chunks(self) -> Iterator[TCPChunk]:
        """Return what was sent over TCP, in the order in which it was captured.

        The time of a chunk is in seconds since the first packet of the capture.
        """
        reassembler = TCPReassembler()
        start, now = None, 0.0
        try:
            for link, time, data in self._packets:
                start = time if start is None else start
                now = time - start
                if link not in _LINKS:
                    self.skipped += 1
                elif (segment := _segment(_LINKS[link], data)) is not None:
                    yield from reassembler.feed(segment, now)
        except ValueError as error:
            self.problem = str(error)
        yield from reassembler.finish(now)


@dataclass(frozen=True, slots=True)
class CapturedConnection:
    """A WebSocket in a capture.

    Args:
        number: its number: 1 for the first WebSocket of the capture.
        client: the address of the client.
        server: the address of the server.
    """

    number: int
    client: SocketAddress
    server: SocketAddress


class CapturedFinding(NamedTuple):
    """A finding in a capture.

    Attributes:
        connection: the WebSocket that it belongs to.
        time: when the last of it was captured, in seconds since the first packet of the capture.
        finding: the finding.
    """

    connection: CapturedConnection
    time: float
    finding: Finding


@dataclass(slots=True)
class _Candidate:
    """A TCP connection that may be a WebSocket."""

    client: SocketAddress
    server: SocketAddress
    conversation: ConversationInspector
    connection: CapturedConnection | None = None  # once it is known to be one


class CaptureInspector:
    """An inspector of the WebSockets in a capture.

    Args:
        port: a port of servers whose connections may lack their handshake, or None.
        compression: the compression of connections that lack it, or None.
        payload_limit: how many bytes of each payload to keep.

    Attributes:
        count: the number of WebSockets.
        others: the number of other TCP connections.
        encrypted: how many of the others are TLS.
    """

    def __init__(
        self, *, port: int | None = None, compression: Deflate | None = None, payload_limit: int = 64
    ) -> None:
        self.count = 0
        self.others = 0
        self.encrypted = 0
        self._port = port
        self._deflate = compression
        self._payload_limit = payload_limit
        self._candidates: dict[int, _Candidate | None] = {}  # None: it is something else
        self._ends: Counter[int] = Counter()

    def feed(self, chunk: TCPChunk) -> Iterator[CapturedFinding]:
        """Take the next chunk of a capture, and return what is in it.

        Args:
            chunk: the chunk, from ``Capture.chunks()``.
        """
        if chunk.data and chunk.connection not in self._candidates:
            self._candidates[chunk.connection] = self._begin(chunk)
        candidate = self._candidates.get(chunk.connection)
        if candidate is not None and candidate.conversation.is_websocket is not False:
            is_client = chunk.source == candidate.client
            conversation = candidate.conversation
            if chunk.data:
                findings = conversation.feed(is_client, chunk.data)
            elif chunk.missing:
                findings = conversation.lose(is_client, chunk.missing)
            else:
                findings = conversation.finish(is_client, chunk.is_end)
            for finding in findings:
                yield CapturedFinding(self._connection(candidate), chunk.time, finding)
            if conversation.is_websocket is False:
                self.others += 1
        if not chunk.data:
            self._ends[chunk.connection] += 1
            if self._ends[chunk.connection] == 2:
                self._candidates.pop(chunk.connection, None)
                del self._ends[chunk.connection]

    def _begin(self, chunk: TCPChunk) -> _Candidate | None:
        source, target = chunk.source, chunk.target
        may_skip_handshake = self._port in (source[1], target[1])
        match chunk.data[:1]:
            case b"G":  # GET
                client = source
            case b"H":  # HTTP/1.1
                client = target
            case _ if may_skip_handshake:
                client = target if source[1] == self._port else source
            case first:
                self.others += 1
                self.encrypted += first == _TLS_HANDSHAKE
                return None
        conversation = ConversationInspector(
            compression=self._deflate,
            payload_limit=self._payload_limit,
            may_skip_handshake=may_skip_handshake,
        )
        return _Candidate(client, target if client == source else source, conversation)

    def _connection(self, candidate: _Candidate) -> CapturedConnection:
        if candidate.connection is None:
            self.count += 1
            candidate.connection = CapturedConnection(self.count, candidate.client, candidate.server)
        return candidate.connection


# Packets


def _segment(link: Any, data: bytes) -> TCPSegment | None:
    """Return the TCP segment in a packet, if there is one."""
    try:
        packet = link(data)
        for _ in range(_MAX_LAYERS):
            if isinstance(packet, (dpkt.ip.IP, dpkt.ip6.IP6)):
                break
            packet = packet.data
        tcp = packet.data
        if not isinstance(tcp, dpkt.tcp.TCP):
            return None
        source = str(ip_address(packet.src)), tcp.sport
        target = str(ip_address(packet.dst)), tcp.dport
        if source == target:  # an old attack
            return None
        return TCPSegment(source, target, tcp.seq, bytes(tcp.data), tcp.flags)
    except Exception:  # dpkt's parsers raise errors of many types, and each says: not such a packet
        return None


def _read(file: IO[bytes], size: int) -> bytes:
    """Read a part of a block: all of it, or nothing at the end of the file."""
    if not 0 <= size <= _MAX_BLOCK:
        raise ValueError(f"the capture is damaged: it has a block of {size} bytes")
    data = file.read(size)
    if data and len(data) < size:
        raise ValueError("the capture is cut short")
    return data


class _PcapFile:
    """A file for dpkt to read from, with a limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return _read(self._file, size)


def _read_pcap(file: IO[bytes]) -> Iterator[_Packet]:
    try:
        reader = dpkt.pcap.Reader(_PcapFile(file))
        for time, data in reader:
            yield reader.datalink(), float(time), data
    except dpkt.UnpackError as error:
        raise ValueError(f"the capture is damaged: {error}") from None


def _read_pcapng(file: IO[bytes]) -> Iterator[_Packet]:
    """Read blocks (draft-ietf-opsawg-pcapng).

    dpkt reads one interface only, and its reader of options takes quadratic time.
    """
    order = "<"
    interfaces: list[tuple[int, float]] = []  # their link types, and the unit of their times in seconds
    while head := _read(file, 8):
        if head[:4] == _PCAPNG:  # a section: its third field tells the byte order
            magic = _read(file, 4)
            order = ">" if magic == b"\x1a\x2b\x3c\x4d" else "<"
            interfaces = []
            (size,) = struct.unpack(order + "I", head[4:])
            _read(file, size - 12)
            continue
        kind, size = struct.unpack(order + "II", head)
        body = _read(file, size - 8)
        try:
            if kind == 1:  # an interface
                (link,) = struct.unpack_from(order + "H", body)
                interfaces.append((link, _unit(order, body[8:-4])))
            elif kind == 6:  # a packet
                interface, high, low, length = struct.unpack_from(order + "IIII", body)
                link, unit = interfaces[interface]
                yield link, (high << 32 | low) * unit, body[20 : 20 + length]
        except (struct.error, IndexError):
            raise ValueError("the capture is damaged") from None


def _unit(order: str, options: bytes) -> float:
    """Return the unit of times, in seconds, from an interface's option if_tsresol."""
    position = 0
    while position + 4 <= len(options):
        code, size = struct.unpack_from(order + "HH", options, position)
        if code == 9 and position + 4 < len(options):
            exponent = options[position + 4]
            return float(2.0 ** -(exponent & 0x7F) if exponent & 0x80 else 10.0**-exponent)
        position += 4 + (size + 3 & ~3)
    return 1e-6
