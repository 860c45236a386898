"""Who floods and who sleeps: what waits in memory is bounded both ways, and nothing of it is lost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.adapters import MIB, TIMEOUT, fill, opened
from wsframe import Opcode


@contextmanager
def at_most(octets: int) -> Iterator[None]:
    """Check how much memory Python takes meanwhile. What the system holds is not counted."""
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert taken < octets, f"{taken / MIB:.2f} MiB"


def receive(adapter, websocket, count) -> list[str | bytes]:
    async def receive_all():
        return [await websocket.websocket.recv() for _ in range(count)]

    if adapter.name == "sync":
        return [websocket.recv() for _ in range(count)]
    return adapter.loop.run(receive_all)


@pytest.mark.parametrize("size", [0, 1000, 60_000, MIB], ids=["empty", "1000", "60000", "1 MiB"])
def test_a_peer_that_floods_and_a_handler_that_sleeps(adapter, role, spawn, size):
    """16 messages and 1 MiB wait at most, one more of up to 1 MiB, and what came with it."""
    with opened(adapter, role, ping_interval=None) as (websocket, peer):
        octets = peer.encode(Opcode.BINARY, bytes(size)) * max(1, 60_000 // (size + 6))
        messages = len(octets) // len(peer.encode(Opcode.BINARY, bytes(size)))
        with at_most(4 * MIB):
            flooded = fill(peer, octets) * messages
        # Wake up: nothing is lost.
        receiving = spawn(receive, adapter, websocket, flooded + messages)
        peer.send(peer.unsent)
        received = receiving.result(TIMEOUT)
        assert len(received) == flooded + messages
        assert set(received) == {bytes(size)}
        peer.send(peer.close())


def test_a_peer_that_floods_with_pings_and_reads_no_pongs(adapter, role, spawn):
    with opened(adapter, role, receive_buffer=4096, ping_interval=None) as (websocket, peer):
        receiving = spawn(websocket.recv)
        octets = peer.encode(Opcode.PING, bytes(125)) * 500
        with at_most(4 * MIB):
            pings = fill(peer, octets) * 500
        sending = spawn(peer.sock.sendall, peer.unsent + peer.text("a"))
        pongs = [peer.next_frame() for _ in range(pings + 500)]
        assert {(frame.opcode, frame.payload) for frame in pongs} == {(Opcode.PONG, bytes(125))}
        sending.result(TIMEOUT)
        assert receiving.result(TIMEOUT) == "a"
        peer.send(peer.close())


@pytest.mark.parametrize("size", [100, 60_000])
def test_a_handler_that_floods_and_a_peer_that_sleeps(adapter, role, spawn, size):
    """send() waits when 64 KiB and one message are unsent."""
    total = 32 * MIB // size if size > 1000 else 100_000
    with opened(adapter, role, receive_buffer=4096, ping_interval=None, deflate=None) as (websocket, peer):
        message = bytes(size)

        async def flood():
            for _ in range(total):
                await websocket.websocket.send(message)

        def flood_and_block():
            for _ in range(total):
                websocket.send(message)

        received = []
        with at_most(4 * MIB):
            is_sync = adapter.name == "sync"
            flooding = spawn(flood_and_block) if is_sync else spawn(adapter.loop.run, flood)
            while not (waiting := websocket.buffered_amount) and not flooding.done():
                pass
            assert waiting < 65536 + 2 * (size + 14)
        while len(received) < total:
            received.append(peer.next_frame())
            assert websocket.buffered_amount < 65536 + 2 * (size + 14)
        flooding.result(TIMEOUT)
        assert {(frame.opcode, frame.payload) for frame in received} == {(Opcode.BINARY, message)}
        peer.send(peer.close())
