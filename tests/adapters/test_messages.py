"""Messages and Pings, through both adapters."""

from __future__ import annotations

import array
import copy
import pickle
import time
from contextlib import suppress

import pytest

from tests.support.adapters import MIB, TIMEOUT, opened
from tests.support.cases import case
from wsframe import ConnectionClosed, LocalProtocolError, Opcode, State

pytestmark = pytest.mark.usefixtures("leaks")


# Messages


MESSAGES = [
    ("Hello!", "Hello!"),
    ("", ""),
    ("\0é€\U0001f600", "\0é€\U0001f600"),
    (b"\0\xff\x80", b"\0\xff\x80"),
    (b"", b""),
    (bytearray(b"abc"), b"abc"),
    (memoryview(b"abc"), b"abc"),
    (memoryview(b"abcdef")[1:4], b"bcd"),
    (memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
    ("x" * MIB, "x" * MIB),
    (bytes(range(256)) * 4096, bytes(range(256)) * 4096),
]


def test_messages_come_back(adapter, maybe_tls):
    with adapter.serve(ssl=maybe_tls and maybe_tls.server) as running:
        for message, expected in MESSAGES:
            with case(message=message, length=len(message)):
                with adapter.connect(running.uri, ssl=maybe_tls and maybe_tls.client) as websocket:
                    websocket.send(message)
                    received = websocket.recv()
                    assert type(received) is type(expected)
                    assert received == expected
                assert running.end() == (1000, True)


def test_what_cannot_be_sent_changes_nothing(pair):
    websocket, peer = pair
    for message, error in [
        (1, TypeError),
        (None, TypeError),
        ([1], TypeError),
        ({"a": "b"}, TypeError),
        ("\ud800", LocalProtocolError),
    ]:
        with case(message=message):
            with pytest.raises(error):
                websocket.send(message)
            websocket.send("next")
            assert peer.read_text() == "next"


def test_messages_come_in_order_and_whole(pair):
    websocket, peer = pair
    peer.send(*(peer.text(str(number)) for number in range(1000)))
    peer.send(peer.encode(Opcode.BINARY, b"a", False), peer.encode(Opcode.PING, b"!"))
    peer.send(peer.encode(Opcode.CONTINUATION, b"b", False), peer.encode(Opcode.CONTINUATION, b"c"))
    assert [websocket.recv() for _ in range(1001)] == [*map(str, range(1000)), b"abc"]
    assert peer.next_frame().opcode == Opcode.PONG


def test_recv_times_out_and_loses_nothing(pair):
    websocket, peer = pair
    peer.send(peer.text("whole")[:-1])
    with pytest.raises(TimeoutError):
        websocket.recv(timeout=0.05)
    with pytest.raises(TimeoutError):
        websocket.recv(timeout=0)
    peer.send(peer.text("whole")[-1:], peer.text("another"))
    assert websocket.recv(timeout=TIMEOUT) == "whole"
    assert websocket.recv(timeout=0) == "another"


def test_recv_without_time_takes_what_has_come(pair):
    websocket, peer = pair
    peer.send(peer.text("here"))
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            assert websocket.recv(timeout=0) == "here"
            break
    else:
        pytest.fail("it never received it")


def test_iteration_ends(adapter, role):
    for code in (1000, 1001, None):
        with case(code=code), opened(adapter, role) as (websocket, peer):
            peer.send(peer.text("a"), peer.text("b"), peer.close(code))
            peer.end()
            assert list(websocket) == ["a", "b"]
            assert list(websocket) == []
            assert peer.next_frame().opcode == Opcode.CLOSE


def test_iteration_raises(adapter, role):
    for code in (1002, 1008, 1011, 3000, 4999):
        with case(code=code), opened(adapter, role) as (websocket, peer):
            peer.send(peer.text("a"), peer.close(code, "why"))
            peer.end()
            assert next(iter(websocket)) == "a"
            with pytest.raises(ConnectionClosed) as caught:
                next(iter(websocket))
            assert (caught.value.code, caught.value.reason, caught.value.clean) == (code, "why", True)


def test_iteration_raises_when_the_connection_is_lost(pair):
    websocket, peer = pair
    peer.send(peer.text("a"))
    peer.end()
    assert next(iter(websocket)) == "a"
    with pytest.raises(ConnectionClosed) as caught:
        next(iter(websocket))
    assert (caught.value.code, caught.value.clean) == (1006, False)


# Pings


def test_a_ping_returns_the_round_trip(adapter):
    with adapter.serve() as running, adapter.connect(running.uri) as websocket:
        assert websocket.ping() >= 0
        assert websocket.ping(b"") >= 0
        assert websocket.ping(memoryview(b"x" * 125)) >= 0


def test_a_ping_keeps_the_messages_that_come_before_its_pong(pair, spawn):
    websocket, peer = pair
    pinging = spawn(websocket.ping, b"ping")
    assert peer.next_frame().payload == b"ping"
    unasked = peer.encode(Opcode.PONG, b"who asked?")
    peer.send(peer.text("a"), unasked, peer.encode(Opcode.BINARY, b"b"), peer.encode(Opcode.PONG, b"ping"))
    assert pinging.result(TIMEOUT) >= 0
    assert [websocket.recv(), websocket.recv()] == ["a", b"b"]


@pytest.mark.parametrize("received", [5, 20])
def test_a_ping_is_answered_when_the_receive_queue_was_full(pair, spawn, received):
    websocket, peer = pair
    peer.send(*(peer.text(str(number)) for number in range(20)))
    assert [websocket.recv() for _ in range(received)] == [*map(str, range(received))]
    pinging = spawn(websocket.ping, b"ping")
    assert peer.next_frame().payload == b"ping"
    peer.send(peer.encode(Opcode.PONG, b"ping"))
    assert pinging.result(TIMEOUT) >= 0
    assert [websocket.recv() for _ in range(20 - received)] == [*map(str, range(received, 20))]


def test_a_ping_is_answered_after_a_message_that_filled_the_receive_queue(pair, spawn):
    websocket, peer = pair
    peer.send(peer.encode(Opcode.BINARY, bytes(MIB)))
    assert websocket.recv() == bytes(MIB)
    pinging = spawn(websocket.ping, b"ping")
    assert peer.next_frame().payload == b"ping"
    peer.send(peer.encode(Opcode.PONG, b"ping"))
    assert pinging.result(TIMEOUT) >= 0


def test_what_it_is(adapter, maybe_tls):
    server, client = maybe_tls or (None, None)
    with adapter.serve(ssl=server) as running:
        with adapter.connect(running.uri + "chat?room=1", ssl=client) as websocket:
            assert websocket.path == "/chat?room=1"
            assert websocket.request is None
            assert websocket.response.status == 101
            assert websocket.subprotocol is None
            assert websocket.state is State.OPEN
            assert "OPEN" in repr(websocket)
            addresses = websocket.remote_address, websocket.local_address
            assert addresses[0] == ("127.0.0.1", running.server.port)
            assert addresses[1][0] == "127.0.0.1"
        # They are known afterwards, too.
        assert (websocket.remote_address, websocket.local_address) == addresses
        assert "CLOSED" in repr(websocket)


def test_a_pong_answers_the_pings_before_it(pair, spawn):
    websocket, peer = pair
    first = spawn(websocket.ping, b"1")
    assert peer.next_frame().payload == b"1"
    second = spawn(websocket.ping, b"2")
    assert peer.next_frame().payload == b"2"
    peer.send(peer.encode(Opcode.PONG, b"2"))
    assert first.result(TIMEOUT) >= second.result(TIMEOUT) >= 0


def test_a_ping_is_unique_while_it_waits(pair, spawn):
    websocket, peer = pair
    pinging = spawn(websocket.ping, b"same")
    assert peer.next_frame().payload == b"same"
    with pytest.raises(LocalProtocolError, match="waiting"):
        websocket.ping(b"same")
    peer.send(peer.encode(Opcode.PONG, b"same"))
    assert pinging.result(TIMEOUT) >= 0


def test_a_ping_that_cannot_be_sent_changes_nothing(pair):
    websocket, peer = pair
    for payload, error in [(b"x" * 126, LocalProtocolError), ("text", TypeError)]:
        with case(payload=payload):
            with pytest.raises(error):
                websocket.ping(payload)
            websocket.send("next")
            assert peer.read_text() == "next"


@pytest.mark.parametrize("how", ["Close", "loss", "violation"])
def test_a_ping_raises_when_the_connection_ends(pair, spawn, how):
    websocket, peer = pair
    pinging = spawn(websocket.ping)
    assert peer.next_frame().opcode == Opcode.PING
    peer.send({"Close": peer.close(3000, "bye"), "loss": b"", "violation": peer.violation}[how])
    peer.end()
    with pytest.raises(ConnectionClosed) as caught:
        pinging.result(TIMEOUT)
    assert caught.value.code == {"Close": 3000, "loss": 1006, "violation": 1002}[how]


def test_pings_are_answered_while_one_waits_in_recv(pair, spawn):
    websocket, peer = pair
    receiving = spawn(websocket.recv)
    for payload in (b"", b"x", b"y" * 125):
        peer.send(peer.encode(Opcode.PING, payload))
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (Opcode.PONG, payload)
    peer.send(peer.text("done"))
    assert receiving.result(TIMEOUT) == "done"


@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_websocket_cannot_be_copied(pair, copies):
    websocket, peer = pair
    with pytest.raises(TypeError, match="a WebSocket cannot be copied or pickled"):
        copies(getattr(websocket, "websocket", websocket))
    peer.send(peer.close())
