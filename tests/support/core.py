"""What the tests of the core share: frames as a peer says them, and what an endpoint hears of them."""

from __future__ import annotations

import tracemalloc

from wsframe import Role, encode_frame

MASK = b"\x01\x02\x03\x04"


def said(end, opcode, payload=b"", fin=True, rsv=0):
    """Return a frame that an endpoint hears."""
    return encode_frame(opcode, payload, fin, rsv, MASK if end is Role.SERVER else None)


def header(end, first, length):
    """Return a header that announces 64 bits of length, and its masking key."""
    is_masked = end is Role.SERVER
    return bytes([first, is_masked << 7 | 127]) + length.to_bytes(8, "big") + (MASK if is_masked else b"")


def hear(conn, *chunks):
    return hear_all(conn, chunks)


def hear_all(conn, chunks):
    events = []
    for chunk in chunks:
        conn.receive_data(chunk)
        while event := conn.next_event():
            events.append(event)
    return events


class Memory:
    """Measure the most memory that was held within the block, in octets, and what is held at its end."""

    def __enter__(self):
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_):
        self.held, self.peak = (octets - self._before for octets in tracemalloc.get_traced_memory())
        tracemalloc.stop()
