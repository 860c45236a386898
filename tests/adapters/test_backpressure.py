"""Back pressure: what waits in memory is bounded both ways, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager

import pytest

from tests.support.adapters import MIB, TIMEOUT, each_role, fill, opened
from tests.support.tiers import full
from wsframe import Opcode

pytestmark = pytest.mark.usefixtures("leaks")


@contextmanager
def at_most(data: int) -> Iterator[None]:
    """Check how much memory Python takes meanwhile. What the system holds is not counted."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has no tracemalloc")
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert taken < data, f"{taken / MIB:.2f} MiB"


def receive(adapter, websocket, count) -> list[str | bytes]:
    async def receive_all():
        return [await websocket.websocket.recv() for _ in range(count)]

    if adapter.name == "sync":
        return [websocket.recv() for _ in range(count)]
    return adapter.call(receive_all)


@each_role
@pytest.mark.parametrize(
    "length",
    [
        pytest.param(0, id="empty messages", marks=full),
        pytest.param(1000, id="1000 bytes"),
        pytest.param(60_000, id="60,000 bytes", marks=full),
        pytest.param(MIB, id="1 MiB", marks=full),
    ],
)
def test_a_peer_that_floods_and_a_handler_that_sleeps(adapter, role, spawn, length):
    """16 messages and 1 MiB wait at most, one more of up to 1 MiB, and what came with it."""
    with opened(adapter, role, ping_interval=None) as (websocket, peer):
        data = peer.encode(Opcode.BINARY, bytes(length)) * max(1, 60_000 // (length + 6))
        messages = len(data) // len(peer.encode(Opcode.BINARY, bytes(length)))
        with at_most(4 * MIB):
            flooded = fill(peer, data) * messages
        # Wake up: nothing is lost.
        receiving = spawn(receive, adapter, websocket, flooded + messages)
        peer.send(peer.unsent)
        received = receiving.result(TIMEOUT)
        assert len(received) == flooded + messages
        assert set(received) == {bytes(length)}
        peer.send(peer.close())


@each_role
def test_a_peer_that_floods_with_pings_and_reads_no_pongs(adapter, role, spawn):
    with opened(adapter, role, receive_buffer=4096, ping_interval=None) as (websocket, peer):
        receiving = spawn(websocket.recv)
        data = peer.encode(Opcode.PING, bytes(125)) * 500
        with at_most(4 * MIB):
            pings = fill(peer, data) * 500
        sending = spawn(peer.sock.sendall, peer.unsent + peer.text("a"))
        pongs = [peer.next_frame() for _ in range(pings + 500)]
        assert {(frame.opcode, frame.payload) for frame in pongs} == {(Opcode.PONG, bytes(125))}
        sending.result(TIMEOUT)
        assert receiving.result(TIMEOUT) == "a"
        peer.send(peer.close())


@each_role
@pytest.mark.parametrize(
    "length", [pytest.param(100, id="100 bytes", marks=full), pytest.param(60_000, id="60,000 bytes")]
)
def test_a_handler_that_floods_and_a_peer_that_sleeps(adapter, role, spawn, length):
    """send() waits when 64 KiB and one message are unsent."""
    total = 32 * MIB // length if length > 1000 else 100_000
    limit = 65536 + 2 * (length + 14)
    message = bytes(length)
    with opened(adapter, role, receive_buffer=4096, ping_interval=None, compression=None) as (
        websocket,
        peer,
    ):
        waited = []

        async def flood():
            for _ in range(total):
                await websocket.websocket.send(message)
                waited.append(websocket.buffered_amount)

        def flood_and_block():
            for _ in range(total):
                websocket.send(message)
                waited.append(websocket.buffered_amount)

        received = []
        with at_most(4 * MIB):
            is_sync = adapter.name == "sync"
            flooding = spawn(flood_and_block) if is_sync else spawn(adapter.call, flood)
            while not (waiting := websocket.buffered_amount) and not flooding.done():
                pass
            assert waiting < limit
        while len(received) < total:
            received.append(peer.next_frame())
            if is_sync:  # its threads may look while another one sends
                assert websocket.buffered_amount < limit
        flooding.result(TIMEOUT)
        assert max(waited) < limit
        assert {(frame.opcode, frame.payload) for frame in received} == {(Opcode.BINARY, message)}
        peer.send(peer.close())


@each_role
def test_who_does_not_receive_is_not_flooded(pair, spawn):
    websocket, peer = pair
    message = peer.encode(Opcode.BINARY, bytes(65536))
    count = fill(peer, message)
    assert count < 16 * MIB / 65536
    # It goes on where it was interrupted.
    sending = spawn(peer.send, peer.unsent, message)
    assert [websocket.recv() for _ in range(count + 2)] == [bytes(65536)] * (count + 2)
    sending.result(TIMEOUT)


@each_role
def test_who_sends_waits_for_the_peer_to_read(pair, spawn):
    websocket, peer = pair
    sent = []

    def send() -> None:
        for number in range(64):
            websocket.send(bytes([number]) * MIB)
            sent.append(number)

    sending = spawn(send)
    assert not wait([sending], 0.3).done
    assert len(sent) < 32
    assert [peer.next_frame().payload for _ in range(64)] == [bytes([number]) * MIB for number in range(64)]
    sending.result(TIMEOUT)


@each_role
def test_a_flood_of_pings_is_answered_as_the_peer_reads(pair, spawn):
    websocket, peer = pair
    receiving = spawn(websocket.recv)
    pings = [peer.encode(Opcode.PING, bytes([number]) * 125) for number in range(256)]
    count = fill(peer, b"".join(pings))
    assert count < 16 * MIB / len(b"".join(pings))
    sending = spawn(peer.send, peer.unsent, peer.text("done"))
    pongs = [peer.next_frame() for _ in range(256 * (count + 1))]
    assert {pong.opcode for pong in pongs} == {Opcode.PONG}
    assert [pong.payload[0] for pong in pongs] == [*range(256)] * (count + 1)
    sending.result(TIMEOUT)
    assert receiving.result(TIMEOUT) == "done"


def test_the_buffered_amount(aio_adapter, role):
    with opened(aio_adapter, role, receive_buffer=4096, ping_interval=None) as (websocket, peer):
        assert websocket.buffered_amount == 0

        async def send():
            sending = asyncio.create_task(websocket.websocket.send(bytes(8 * MIB)))
            await asyncio.sleep(0)
            return sending, websocket.buffered_amount

        sending, waiting = aio_adapter.call(send)
        # The system takes a few MiB at once.
        assert MIB < waiting <= 8 * MIB + 14
        assert len(peer.next_frame().payload) == 8 * MIB
        aio_adapter.call(lambda: sending)
        assert websocket.buffered_amount < 65536
        peer.send(peer.close())
