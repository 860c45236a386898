"""What happened on one connection, or on all of a server's, in numbers that only grow.

for name, value in server.counters._asdict().items():
    print(f"wsframe_{name}_total {value}")        # as Prometheus reads it
"""

from __future__ import annotations

from operator import add
from typing import NamedTuple

__all__ = ["Counters"]


class Counters(NamedTuple):
    """Count what passed.

    Attributes:
        connections: how many were opened.
        failures: how many of them ended without a closing handshake.
        messages_received: messages that the peer sent, as far as they were read.
        messages_sent: messages that ``send`` and ``broadcast`` accepted.
        bytes_received: bytes off the network, of all kinds; with TLS, what was in it.
        bytes_sent: bytes that were written.
        pings_received: Pings, which were answered.
        pings_sent: Pings, those of keepalive among them.
        uncompressed: bytes of messages that were sent compressed, before that.
        compressed: and after it.
    """

    connections: int = 0
    failures: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    pings_received: int = 0
    pings_sent: int = 0
    uncompressed: int = 0
    compressed: int = 0

    def plus(self, other: Counters) -> Counters:
        """Return the sums of these and others.

        Args:
            other: the others.
        """
        return Counters._make(map(add, self, other))

    @property
    def compression_ratio(self) -> float | None:
        """What compression left of a byte; None if nothing was compressed."""
        return self.compressed / self.uncompressed if self.uncompressed else None
