"""What a network interface heard: pcap and pcapng files, and the TCP streams in them (RFC 9293, section 3.4).

dpkt reads the files and the packets. This puts the segments of each stream in order: what comes twice counts
once, what comes early waits, and where something is missing the stream ends.

A capture may be hostile. So there are limits to how many streams are known at a time, to what waits in each,
and to a packet; and what dpkt cannot read is no packet.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from ipaddress import ip_address
from typing import IO, Any, NamedTuple

import dpkt

__all__ = ["Capture", "Chunk", "Endpoint", "is_capture"]

_MAGICS = tuple(
    bytes.fromhex(magic)
    for magic in ("d4c3b2a1", "a1b2c3d4", "4d3cb2a1", "a1b23c4d", "34cdb2a1", "a1b2cd34", "0a0d0d0a")
)
_PCAPNG = _MAGICS[-1]
_MAX_BLOCK = 2**24  # octets of the file that are read at once; a packet has 64 KiB, or 256 KiB
_MAX_STREAMS = 4096  # that are known at a time
_MAX_WAITING = 2**20  # octets that wait in one direction
_MAX_WAITING_IN_ALL = 2**26
_MAX_SEGMENTS = 1024  # that wait
_WINDOW = 2**30  # what is further away than any window is not of this stream
_MODULUS = 2**32

_MAX_LAYERS = 8  # of a packet below IP
_FIN, _SYN, _RST = 0x01, 0x02, 0x04

Endpoint = tuple[str, int]  # address and port
_Packet = tuple[int, float, bytes]  # link type, time in seconds, octets


def _ip(octets: bytes) -> Any:
    return dpkt.ip6.IP6(octets) if octets[0] >> 4 == 6 else dpkt.ip.IP(octets)


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
    """Tell whether something is a capture.

    Args:
        beginning: its first four octets or more.
    """
    return beginning.startswith(_MAGICS)


class Chunk(NamedTuple):
    """Some of what one endpoint said to another.

    Args:
        time: when, in seconds from the first packet on.
        stream: a number for the TCP connection.
        source: who says it.
        target: to whom.
        octets: what it says; ``b""`` comes once, last.
        missing: then, how many octets are missing before those that are known; 0: nothing more is known.
        is_end: then, whether it ends here.
    """

    time: float
    stream: int
    source: Endpoint
    target: Endpoint
    octets: bytes = b""
    missing: int = 0
    is_end: bool = False


class _Segment(NamedTuple):
    source: Endpoint
    target: Endpoint
    sequence: int
    octets: bytes
    flags: int


@dataclass(slots=True)
class _Direction:
    """Put the segments of one direction in order.

    Positions are counted from the first octet on, and do not wrap around as sequence numbers do.
    """

    endpoint: Endpoint
    sequence: int | None = None  # of the octet at ``position``
    position: int = 0
    end: int | None = None  # the position of the FIN
    is_over: bool = False
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    waiting_size: int = 0

    def add(self, sequence: int, octets: bytes, is_last: bool) -> Iterator[bytes]:
        if self.sequence is None:
            self.sequence = sequence % _MODULUS
        ahead = (sequence - self.sequence + _MODULUS // 2) % _MODULUS - _MODULUS // 2
        if abs(ahead) > _WINDOW:
            return
        if is_last and self.end is None:
            self.end = self.position + ahead + len(octets)
        if octets:
            heappush(self.waiting, (self.position + ahead, octets))
            self.waiting_size += len(octets)
        while self.waiting and self.waiting[0][0] <= self.position:
            start, octets = heappop(self.waiting)
            self.waiting_size -= len(octets)
            fresh = octets[self.position - start :]
            if fresh:
                self.position += len(fresh)
                self.sequence = (self.sequence + len(fresh)) % _MODULUS
                yield fresh

    @property
    def is_ended(self) -> bool:
        return self.end is not None and self.position >= self.end

    @property
    def missing(self) -> int:
        """How many octets are missing before those that wait."""
        return self.waiting[0][0] - self.position if self.waiting else 0

    def is_hopeless(self) -> bool:
        return self.waiting_size > _MAX_WAITING or len(self.waiting) > _MAX_SEGMENTS


@dataclass(slots=True)
class _Stream:
    number: int
    directions: dict[Endpoint, _Direction]

    def has(self, segment: _Segment) -> bool:
        """Tell whether a SYN is that of this connection, perhaps once more."""
        direction = self.directions[segment.source]
        if direction.sequence is None:
            return True
        return (direction.sequence - direction.position - 1 - segment.sequence) % _MODULUS == 0


class Capture:
    """Read the TCP streams of a capture.

    Args:
        file: the capture.
        beginning: its first octets, which are still to be read.

    Attributes:
        problem: why it could not be read to its end, or "".
        skipped: how many packets could not be read, because their link type is not known.
    """

    def __init__(self, file: IO[bytes], beginning: bytes) -> None:
        self.problem = ""
        self.skipped = 0
        self._packets = _read_pcapng(file) if beginning.startswith(_PCAPNG) else _read_pcap(file)
        self._streams: OrderedDict[frozenset[Endpoint], _Stream] = OrderedDict()
        self._count = 0
        self._waiting = 0  # octets, in all directions
        self._start: float | None = None
        self._time = 0.0

    def chunks(self) -> Iterator[Chunk]:
        """Return what endpoints say, in the order in which it was heard."""
        try:
            for link, time, octets in self._packets:
                self._start = time if self._start is None else self._start
                self._time = time - self._start
                if link not in _LINKS:
                    self.skipped += 1
                elif (segment := _segment(_LINKS[link], octets)) is not None:
                    yield from self._receive(segment)
        except ValueError as error:
            self.problem = str(error)
        for stream in self._streams.values():
            yield from self._end(stream)

    def _receive(self, segment: _Segment) -> Iterator[Chunk]:
        is_syn, is_fin, is_rst = (segment.flags & flag for flag in (_SYN, _FIN, _RST))
        name = frozenset((segment.source, segment.target))
        stream = self._streams.get(name)
        if stream is not None and is_syn and not stream.has(segment):
            # The ports are used again, by another connection.
            yield from self._end(self._streams.pop(name))
            stream = None
        if stream is None:
            if len(self._streams) >= _MAX_STREAMS:
                yield from self._end(self._streams.popitem(last=False)[1])
            self._count += 1
            ends = segment.source, segment.target
            stream = self._streams[name] = _Stream(self._count, {end: _Direction(end) for end in ends})
        self._streams.move_to_end(name)
        direction = stream.directions[segment.source]
        if direction.is_over:
            return
        self._waiting -= direction.waiting_size
        sequence = segment.sequence + bool(is_syn)  # "the SYN is considered to occur before the first data"
        for octets in direction.add(sequence, segment.octets, bool(is_fin)):
            yield self._chunk(stream, segment.source, octets=octets)
        self._waiting += direction.waiting_size
        if direction.is_hopeless() or self._waiting > _MAX_WAITING_IN_ALL:
            yield self._chunk(stream, segment.source, missing=direction.missing)
            self._forget(direction)
        for ended in stream.directions.values():
            if not ended.is_over and (ended.is_ended or is_rst):
                yield self._chunk(stream, ended.endpoint, is_end=True)
                self._forget(ended)

    def _end(self, stream: _Stream) -> Iterator[Chunk]:
        """Say how a stream ends that nothing more is known of."""
        for direction in stream.directions.values():
            if not direction.is_over:
                yield self._chunk(stream, direction.endpoint, missing=direction.missing)
                self._forget(direction)

    def _forget(self, direction: _Direction) -> None:
        direction.is_over = True
        self._waiting -= direction.waiting_size
        direction.waiting.clear()
        direction.waiting_size = 0

    def _chunk(self, stream: _Stream, source: Endpoint, **what: Any) -> Chunk:
        target = next(end for end in stream.directions if end != source)
        return Chunk(self._time, stream.number, source, target, **what)


# Packets


def _segment(link: Any, octets: bytes) -> _Segment | None:
    """Return the TCP segment in a packet, if there is one."""
    try:
        packet = link(octets)
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
        return _Segment(source, target, tcp.seq, bytes(tcp.data), tcp.flags)
    except Exception:  # dpkt raises what its parsers happen to raise: then it is no packet that we know
        return None


def _read(file: IO[bytes], size: int) -> bytes:
    """Read a part of a block: all of it, or nothing at the end."""
    if not 0 <= size <= _MAX_BLOCK:
        raise ValueError(f"the capture is damaged: it has a block of {size} octets")
    octets = file.read(size)
    if octets and len(octets) < size:
        raise ValueError("the capture is cut short")
    return octets


class _PcapFile:
    """What dpkt reads from, bounded."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return _read(self._file, size)


def _read_pcap(file: IO[bytes]) -> Iterator[_Packet]:
    try:
        reader = dpkt.pcap.Reader(_PcapFile(file))
        for time, octets in reader:
            yield reader.datalink(), float(time), octets
    except dpkt.UnpackError as error:
        raise ValueError(f"the capture is damaged: {error}") from None


def _read_pcapng(file: IO[bytes]) -> Iterator[_Packet]:
    """Read blocks (draft-ietf-opsawg-pcapng).

    dpkt knows one interface, and reads options, which nobody here asks for, in quadratic time.
    """
    order = "<"
    interfaces: list[tuple[int, float]] = []  # their link types, and how many seconds the unit of time is
    while head := _read(file, 8):
        if head[:4] == _PCAPNG:  # a section: its third field tells the order of octets
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
    """Return what an interface's option if_tsresol says, in seconds."""
    position = 0
    while position + 4 <= len(options):
        code, size = struct.unpack_from(order + "HH", options, position)
        if code == 9 and position + 4 < len(options):
            exponent = options[position + 4]
            return float(2.0 ** -(exponent & 0x7F) if exponent & 0x80 else 10.0**-exponent)
        position += 4 + (size + 3 & ~3)
    return 1e-6
