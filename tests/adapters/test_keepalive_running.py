"""Keepalive on running connections, through both adapters: what needs a clock and a socket.

The rules are those of wsframe.adapter.keepalive, which test_keepalive.py tests by a clock of its own.
"""

from __future__ import annotations

import queue
import select
import time

import pytest

import wsframe.aio
import wsframe.sync
from tests.support.adapters import MIB, TIMEOUT, each_role, each_role_and_transport, opened
from tests.support.cases import case
from wsframe import ConnectionClosed, Opcode, State

NEVER = 1000


def next_ping(peer) -> bytes:
    frame = peer.next_frame()
    assert frame is not None
    assert frame.opcode == Opcode.PING, frame
    return frame.payload


def pong(peer, payload: bytes) -> bytes:
    return peer.encode(Opcode.PONG, payload)


def is_quiet(peer, seconds: float) -> bool:
    return not select.select([peer.sock], [], [], seconds)[0]


# On time


@each_role_and_transport
def test_pings_are_sent_while_recv_waits(adapter, role, spawn, maybe_tls):
    with opened(adapter, role, maybe_tls, ping_interval=0.05, ping_timeout=NEVER) as (websocket, peer):
        assert websocket.latency is None
        receiving = spawn(websocket.recv)
        payloads = []
        for _ in range(3):
            payloads.append(next_ping(peer))
            peer.send(pong(peer, payloads[-1]))
        assert len(set(payloads)) == 3
        peer.send(peer.text("a"))
        assert receiving.result(TIMEOUT) == "a"
        assert 0 < websocket.latency < TIMEOUT
        peer.send(peer.close())


@each_role
def test_no_pings_without_an_interval(adapter, role):
    with opened(adapter, role, ping_interval=None, ping_timeout=0.01) as (websocket, peer):
        with pytest.raises(TimeoutError):
            websocket.recv(timeout=0.1)
        assert is_quiet(peer, 0)
        peer.send(peer.close())


@each_role
def test_pings_are_sent_while_messages_come(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=NEVER) as (websocket, peer):
        received = queue.SimpleQueue()

        def receive_all():
            for message in websocket:
                received.put(message)

        receiving = spawn(receive_all)
        while is_quiet(peer, 0):
            peer.send(peer.text("a"))
            assert received.get(timeout=TIMEOUT) == "a"
        peer.send(pong(peer, next_ping(peer)), peer.close())
        peer.end()
        receiving.result(TIMEOUT)
        assert websocket.latency is not None


@each_role
def test_ping_tells_the_latency(adapter, role, spawn):
    with opened(adapter, role, ping_interval=None) as (websocket, peer):
        pinging = spawn(websocket.ping, b"hello")
        assert next_ping(peer) == b"hello"
        peer.send(pong(peer, b"hello"))
        assert pinging.result(TIMEOUT) == websocket.latency > 0
        peer.send(peer.close())


@each_role
def test_ping_and_keepalive_together(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=NEVER) as (websocket, peer):
        pinging = spawn(websocket.ping, b"mine")
        seen = []
        while len(seen) < 2 or b"mine" not in seen:
            seen.append(next_ping(peer))
        # The last Pong answers all before it.
        peer.send(pong(peer, seen[-1]))
        assert pinging.result(TIMEOUT) > 0
        peer.send(peer.close())


# No Pong


@each_role_and_transport
def test_a_peer_that_does_not_answer(adapter, role, spawn, maybe_tls):
    with opened(adapter, role, maybe_tls, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        next_ping(peer)
        with pytest.raises(ConnectionClosed) as caught:
            receiving.result(TIMEOUT)
        assert (caught.value.code, caught.value.reason) == (1011, "no pong within 0.1 seconds")
        assert not caught.value.clean
        assert websocket.close_code == 1011
        assert peer.read_close() == (1011, "no pong within 0.1 seconds")


@each_role
def test_a_wrong_pong_is_none(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(pong(peer, next_ping(peer)[:-1]))
        with pytest.raises(ConnectionClosed, match="no pong"):
            receiving.result(TIMEOUT)


@each_role
def test_who_waits_for_a_ping_is_told(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
        pinging = spawn(websocket.ping)
        with pytest.raises(ConnectionClosed, match="1011 no pong within"):
            pinging.result(TIMEOUT)
        assert peer.frames()[-1].opcode == Opcode.CLOSE


@each_role
def test_messages_do_not_answer_a_ping(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.02, ping_timeout=0.1) as (websocket, peer):

        def receive_all():
            while True:
                websocket.recv()

        receiving = spawn(receive_all)
        next_ping(peer)
        while is_quiet(peer, 0.005):
            peer.send(peer.text("a"))
        with pytest.raises(ConnectionClosed, match="no pong"):
            receiving.result(TIMEOUT)
        assert peer.read_close()[0] == 1011


@each_role
def test_a_long_frame_holds_up_the_pong(adapter, role, spawn, size):
    """A Pong cannot come in the middle of a frame: a slow peer that sends one is given the time."""
    with opened(adapter, role, ping_interval=0.02, ping_timeout=0.2) as (websocket, peer):
        receiving = spawn(websocket.recv)
        message = bytes(size(60, 100))
        data = peer.encode(Opcode.BINARY, message)
        for byte in data[:-1]:
            peer.send(bytes([byte]))
            time.sleep(0.005)  # this is the slow peer: it takes 0.3 s, or 0.5 s
        payload = next_ping(peer)
        peer.send(data[-1:] + pong(peer, payload))
        assert receiving.result(TIMEOUT) == message
        assert websocket.state is State.OPEN
        peer.send(peer.close())


@each_role
def test_a_frame_that_does_not_go_on_does_not(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.02, ping_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(peer.encode(Opcode.BINARY, bytes(100))[:50])
        with pytest.raises(ConnectionClosed, match="no pong"):
            receiving.result(TIMEOUT)
        assert peer.frames()[-1].opcode == Opcode.CLOSE


@each_role
def test_who_comes_back_late_to_recv_finds_the_pong(adapter, role):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=0.3) as (websocket, peer):
        with pytest.raises(TimeoutError):
            websocket.recv(timeout=0.07)  # the ping was sent, and is not answered yet
        peer.send(pong(peer, next_ping(peer)), peer.text("a"))
        time.sleep(0.35)  # busy with something else
        if adapter.name == "sync":
            assert websocket.recv() == "a"
            assert websocket.latency is not None
        else:
            # Meanwhile it was read, and the next one sent, which nobody answers.
            assert websocket.recv() == "a"
        peer.send(peer.close())


# asyncio: also when nobody receives


@each_role
def test_pings_are_sent_while_nobody_receives(aio_adapter, role):
    with opened(aio_adapter, role, ping_interval=0.05, ping_timeout=NEVER) as (websocket, peer):
        for _ in range(3):
            peer.send(pong(peer, next_ping(peer)))
        assert websocket.latency is not None
        peer.send(peer.close())


@each_role
def test_a_peer_whose_pong_waits_behind_its_messages_is_not_given_up(aio_adapter, role):
    """Nobody receives them, which is not the peer's fault."""
    with opened(aio_adapter, role, ping_interval=0.05, ping_timeout=0.2) as (websocket, peer):
        payload = next_ping(peer)
        peer.send(*[peer.text(str(number)) for number in range(40)], pong(peer, payload))
        assert is_quiet(peer, 0.5)
        assert [websocket.recv() for _ in range(40)] == [*map(str, range(40))]
        assert next_ping(peer) != payload
        assert websocket.latency >= 0.5
        peer.send(peer.close())


@each_role
def test_pings_are_sent_while_the_outbox_is_full(aio_adapter, role, spawn):
    options = {"ping_interval": 0.05, "ping_timeout": NEVER}
    with opened(aio_adapter, role, receive_buffer=4096, **options) as (websocket, peer):
        sending = spawn(websocket.send, bytes(8 * MIB))
        while websocket.buffered_amount == 0 or not websocket.counters.pings_sent:
            assert not sending.done()
        frames = [peer.next_frame(), peer.next_frame()]
        assert sorted(frame.opcode for frame in frames) == [Opcode.BINARY, Opcode.PING]
        sending.result(TIMEOUT)
        peer.send(peer.close())


@each_role
def test_a_peer_that_does_not_read_is_given_up(aio_adapter, role, spawn):
    options = {"ping_interval": 0.05, "ping_timeout": 0.1, "close_timeout": 0.1}
    with opened(aio_adapter, role, receive_buffer=4096, **options) as (websocket, _):
        sending = spawn(websocket.send, bytes(8 * MIB))
        with pytest.raises(ConnectionClosed, match="no pong"):
            spawn(websocket.recv).result(TIMEOUT)
        with pytest.raises(ConnectionClosed, match="no pong"):
            sending.result(TIMEOUT) or websocket.send("a")


@each_role
def test_a_busy_loop_finds_the_pong(aio_adapter, role):
    with opened(aio_adapter, role, ping_interval=0.05, ping_timeout=0.2) as (websocket, peer):
        payload = next_ping(peer)

        def be_busy():
            peer.send(pong(peer, payload), peer.text("a"))
            time.sleep(0.3)

        aio_adapter.loop.run(be_busy)
        assert websocket.recv() == "a"
        peer.send(pong(peer, next_ping(peer)))
        assert websocket.state is State.OPEN
        peer.send(peer.close())


# Options


@pytest.mark.parametrize("package", [wsframe.aio, wsframe.sync], ids=["aio", "sync"])
def test_wrong_options_are_told(package):
    for options in ({"ping_interval": 0}, {"ping_timeout": -1}):
        with case(options=options):
            with pytest.raises(ValueError, match="must be positive"):
                package.connect("ws://localhost/", **options)
            with pytest.raises(ValueError, match="must be positive"):
                package.serve(print, "localhost", 0, **options)
