"""TCP connections, put together from the segments that were captured (RFC 9293, section 3.4).

A segment that comes twice counts once, and one that comes early waits. Where a segment is missing, its
direction ends. The segments may be hostile. So there are limits to how many connections are known at a time,
and to how many bytes wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

__all__ = ["SocketAddress", "TCPChunk", "TCPReassembler", "TCPSegment"]

_FIN, _SYN, _RST = 0x01, 0x02, 0x04
_MAX_CONNECTIONS = 4096  # that are known at a time
_MAX_WAITING = 2**20  # bytes that wait in one direction
_MAX_WAITING_IN_ALL = 2**26
_MAX_SEGMENTS = 1024  # that wait in one direction
_WINDOW = 2**30  # a segment that is further away than any window is not part of this connection
_MODULUS = 2**32

SocketAddress = tuple[str, int]
"""An IP address and a port."""


class TCPSegment(NamedTuple):
    """A TCP segment.

    Attributes:
        source: the address of its sender.
        target: the address that it was sent to, which is another one.
        sequence: its sequence number.
        data: its data.
        flags: its flags, as in its header.
    """

    source: SocketAddress
    target: SocketAddress
    sequence: int
    data: bytes
    flags: int


class TCPChunk(NamedTuple):
    """The next bytes of one direction of a TCP connection, or its end.

    Attributes:
        time: when the segment was captured that completes it.
        connection: a number for the TCP connection.
        source: the address of the sender.
        target: the other address.
        data: the bytes. ``b""`` comes once for each direction, last.
        missing: at the end, how many bytes are missing before later ones; 0: there are no later ones.
        is_end: at the end, whether the sender or a reset ended the direction.
    """

    time: float
    connection: int
    source: SocketAddress
    target: SocketAddress
    data: bytes = b""
    missing: int = 0
    is_end: bool = False


@dataclass(slots=True)
class _Direction:
    """The segments of one direction, in order.

    A position is counted from the first byte on. Unlike a sequence number, it does not wrap around.
    """

    source: SocketAddress
    sequence: int | None = None  # of the byte at ``position``
    position: int = 0
    end: int | None = None  # the position of the FIN
    is_over: bool = False
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    waiting_size: int = 0

    def add(self, sequence: int, data: bytes, is_last: bool) -> Iterator[bytes]:
        if self.sequence is None:
            self.sequence = sequence % _MODULUS
        ahead = (sequence - self.sequence + _MODULUS // 2) % _MODULUS - _MODULUS // 2
        if abs(ahead) > _WINDOW:
            return
        if is_last and self.end is None:
            self.end = self.position + ahead + len(data)
        if data:
            heappush(self.waiting, (self.position + ahead, data))
            self.waiting_size += len(data)
        while self.waiting and self.waiting[0][0] <= self.position:
            start, data = heappop(self.waiting)
            self.waiting_size -= len(data)
            fresh = data[self.position - start :]
            if fresh:
                self.position += len(fresh)
                self.sequence = (self.sequence + len(fresh)) % _MODULUS
                yield fresh

    @property
    def is_ended(self) -> bool:
        return self.end is not None and self.position >= self.end

    @property
    def missing(self) -> int:
        """The number of bytes that are missing before those that wait."""
        return self.waiting[0][0] - self.position if self.waiting else 0

    @property
    def is_hopeless(self) -> bool:
        return self.waiting_size > _MAX_WAITING or len(self.waiting) > _MAX_SEGMENTS


@dataclass(slots=True)
class _TCPConnection:
    number: int
    directions: dict[SocketAddress, _Direction]

    def has_syn(self, syn: TCPSegment) -> bool:
        """Tell whether a SYN belongs to this connection, perhaps sent again."""
        direction = self.directions[syn.source]
        if direction.sequence is None:
            return True
        return (direction.sequence - direction.position - 1 - syn.sequence) % _MODULUS == 0


class TCPReassembler:
    """A reader of TCP connections, which takes segments in the order in which they were captured."""

    def __init__(self) -> None:
        self._connections: OrderedDict[frozenset[SocketAddress], _TCPConnection] = OrderedDict()
        self._count = 0
        self._waiting = 0  # bytes, in all directions

    def feed(self, segment: TCPSegment, time: float) -> Iterator[TCPChunk]:
        """Take the next segment, and return the bytes that are next in their direction.

        Args:
            segment: the segment.
            time: when it was captured.
        """
        is_syn, is_fin, is_rst = (segment.flags & flag for flag in (_SYN, _FIN, _RST))
        name = frozenset((segment.source, segment.target))
        connection = self._connections.get(name)
        if connection is not None and is_syn and not connection.has_syn(segment):
            # Another connection uses the same ports.
            yield from self._end(self._connections.pop(name), time)
            connection = None
        if connection is None:
            if len(self._connections) >= _MAX_CONNECTIONS:
                yield from self._end(self._connections.popitem(last=False)[1], time)
            self._count += 1
            directions = {address: _Direction(address) for address in (segment.source, segment.target)}
            connection = self._connections[name] = _TCPConnection(self._count, directions)
        self._connections.move_to_end(name)
        direction = connection.directions[segment.source]
        if direction.is_over:
            return
        self._waiting -= direction.waiting_size
        sequence = segment.sequence + bool(is_syn)  # "the SYN is considered to occur before the first data"
        for data in direction.add(sequence, segment.data, bool(is_fin)):
            yield _chunk(connection, direction, time, data=data)
        self._waiting += direction.waiting_size
        if direction.is_hopeless or self._waiting > _MAX_WAITING_IN_ALL:
            yield _chunk(connection, direction, time, missing=direction.missing)
            self._forget(direction)
        for ended in connection.directions.values():
            if not ended.is_over and (ended.is_ended or is_rst):
                yield _chunk(connection, ended, time, is_end=True)
                self._forget(ended)

    def finish(self, time: float) -> Iterator[TCPChunk]:
        """Return the ends of all directions that are not over: there are no more segments.

        Args:
            time: when the capture ended.
        """
        for connection in self._connections.values():
            yield from self._end(connection, time)

    def _end(self, connection: _TCPConnection, time: float) -> Iterator[TCPChunk]:
        for direction in connection.directions.values():
            if not direction.is_over:
                yield _chunk(connection, direction, time, missing=direction.missing)
                self._forget(direction)

    def _forget(self, direction: _Direction) -> None:
        direction.is_over = True
        self._waiting -= direction.waiting_size
        direction.waiting.clear()
        direction.waiting_size = 0


def _chunk(connection: _TCPConnection, direction: _Direction, time: float, **what: Any) -> TCPChunk:
    target = next(address for address in connection.directions if address != direction.source)
    return TCPChunk(time, connection.number, direction.source, target, **what)
