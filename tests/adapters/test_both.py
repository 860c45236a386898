"""What both adapters promise: messages, Pings, endings and the closing of the TCP connection."""

from __future__ import annotations

import array
import select
import time
from concurrent.futures import wait
from contextlib import suppress

import pytest

from tests.support.adapters import MIB, TIMEOUT, close_payload, fill, opened
from wsframe import ConnectionClosed, LocalProtocolError, Opcode, State

pytestmark = pytest.mark.usefixtures("leaks")


# Messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [
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
    ],
    ids=lambda value: f"{type(value).__name__}-{len(value)}",
)
def test_messages_come_back(adapter, maybe_tls, message, expected):
    with adapter.serve(ssl=maybe_tls and maybe_tls.server) as running:
        with adapter.connect(running.uri, ssl=maybe_tls and maybe_tls.client) as websocket:
            websocket.send(message)
            received = websocket.recv()
            assert type(received) is type(expected)
            assert received == expected
        assert running.end() == (1000, True)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (1, TypeError),
        (None, TypeError),
        ([1], TypeError),
        ({"a": "b"}, TypeError),
        ("\ud800", LocalProtocolError),
    ],
)
def test_what_cannot_be_sent_changes_nothing(pair, message, error):
    websocket, peer = pair
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


@pytest.mark.parametrize("code", [1000, 1001, None])
def test_iteration_ends(pair, code):
    websocket, peer = pair
    peer.send(peer.text("a"), peer.text("b"), peer.close(code))
    peer.end()
    assert list(websocket) == ["a", "b"]
    assert list(websocket) == []
    assert peer.next_frame().opcode == Opcode.CLOSE


@pytest.mark.parametrize("code", [1002, 1008, 1011, 3000, 4999])
def test_iteration_raises(pair, code):
    websocket, peer = pair
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


@pytest.mark.parametrize(("payload", "error"), [(b"x" * 126, LocalProtocolError), ("text", TypeError)])
def test_a_ping_that_cannot_be_sent_changes_nothing(pair, payload, error):
    websocket, peer = pair
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


# Endings


def end_of(websocket) -> tuple[int, str, bool]:
    with pytest.raises(ConnectionClosed) as caught:
        websocket.recv()
    closed = caught.value
    # It stays so, and nothing can be sent any more.
    for call in (websocket.recv, lambda: websocket.send("x"), lambda: websocket.ping(b"x")):
        with pytest.raises(ConnectionClosed) as caught:
            call()
        assert caught.value.args == closed.args
    websocket.close(4000, "too late")
    websocket.wait_closed()
    assert websocket.state is State.CLOSED
    assert (websocket.close_code, websocket.close_reason) == (closed.code, closed.reason)
    return closed.code, closed.reason, closed.clean


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3000, "bye"), (1001, "é" * 61), (None, "")])
def test_the_peer_closes(pair, spawn, code, reason):
    websocket, peer = pair
    assert websocket.state is State.OPEN
    assert (websocket.close_code, websocket.close_reason) == (None, None)
    ending = spawn(end_of, websocket)
    peer.send(peer.close(code, reason))
    frame = peer.next_frame()
    assert (frame.opcode, frame.payload) == (Opcode.CLOSE, close_payload(code, reason) if code else b"")
    peer.end()
    assert peer.next_frame() is None
    assert ending.result(TIMEOUT) == (code or 1005, reason, True)


def test_the_peer_saw_a_violation(pair, spawn):
    websocket, peer = pair
    ending = spawn(end_of, websocket)
    peer.send(peer.close(1002, "reserved bits must be zero"))
    peer.end()
    assert peer.read_close() == (1002, "reserved bits must be zero")
    assert ending.result(TIMEOUT) == (1002, "reserved bits must be zero", True)


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [(1000, "", b"\x03\xe8"), (3000, "bye", b"\x0b\xb8bye"), (1005, "", b"")],
)
def test_we_close(pair, spawn, code, reason, payload):
    websocket, peer = pair
    closing = spawn(websocket.close, code, reason)
    frame = peer.next_frame()
    assert (frame.opcode, frame.payload) == (Opcode.CLOSE, payload)
    assert not closing.done()
    # What it says before it answers is dropped.
    peer.send(peer.text("late"), peer.encode(Opcode.PING), peer.encode(Opcode.CLOSE, payload))
    peer.end()
    assert [frame.opcode for frame in peer.frames()] in ([], [Opcode.PONG])
    closing.result(TIMEOUT)
    assert end_of(websocket) == (code, reason, True)


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1006, "", LocalProtocolError),
        (999, "", LocalProtocolError),
        (5000, "", LocalProtocolError),
        (1000, "x" * 124, LocalProtocolError),
        (1000, "\ud800", LocalProtocolError),
        (1005, "x", LocalProtocolError),
        ("1000", "", TypeError),
        (1000, b"", TypeError),
    ],
)
def test_a_close_that_cannot_be_sent_changes_nothing(pair, code, reason, error):
    websocket, peer = pair
    peer.send(peer.text("kept"))
    with pytest.raises(error):
        websocket.close(code, reason)
    assert websocket.recv() == "kept"
    websocket.send("next")
    assert peer.read_text() == "next"


@pytest.mark.parametrize("how", ["end", "reset"])
def test_the_connection_is_lost(pair, spawn, how):
    websocket, peer = pair
    ending = spawn(end_of, websocket)
    getattr(peer, how)()
    code, reason, clean = ending.result(TIMEOUT)
    assert (code, clean) == (1006, False)
    assert "lost" in reason


@pytest.mark.parametrize(
    ("octets", "code", "reason"),
    [
        (lambda peer: peer.violation, 1002, "mask"),
        (lambda peer: b"\xc1\x00" if not peer.is_client else b"\xc1\x80\0\0\0\0", 1002, "reserved"),
        (lambda peer: peer.encode(Opcode.CONTINUATION, b""), 1002, "continu"),
        (lambda peer: peer.encode(Opcode.TEXT, b"\xff"), 1007, "UTF-8"),
        (lambda peer: peer.encode(Opcode.BINARY, bytes(1001)), 1009, "too big"),
        (lambda peer: peer.encode(Opcode.CLOSE, b"\x03"), 1002, "1 octet"),
        (lambda peer: peer.close(1006), 1002, "1006"),
    ],
    ids=["mask", "rsv", "continuation", "utf-8", "size", "close length", "close code"],
)
def test_the_peer_breaks_the_protocol(adapter, role, spawn, octets, code, reason):
    with opened(adapter, role, max_message_size=1000) as (websocket, peer):
        ending = spawn(end_of, websocket)
        peer.send(octets(peer))
        told, why = peer.read_close()
        assert told == code
        assert reason in why
        peer.end()
        assert ending.result(TIMEOUT) == (code, why, False)


@pytest.mark.parametrize("end", ["Close", "violation"])
def test_a_message_before_the_end_is_received(pair, end):
    websocket, peer = pair
    peer.send(peer.text("a"), peer.close() if end == "Close" else peer.violation)
    peer.end()
    assert websocket.recv() == "a"
    with pytest.raises(ConnectionClosed):
        websocket.recv()
    assert peer.next_frame().opcode == Opcode.CLOSE


def test_a_message_of_exactly_the_limit(adapter, role):
    with opened(adapter, role, max_message_size=1000) as (websocket, peer):
        peer.send(peer.encode(Opcode.BINARY, bytes(500), False), peer.encode(Opcode.CONTINUATION, bytes(500)))
        assert websocket.recv() == bytes(1000)


def test_a_message_without_a_limit(adapter, role, spawn):
    with opened(adapter, role, max_message_size=None) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(peer.encode(Opcode.BINARY, bytes(4 * MIB)))
        assert receiving.result(TIMEOUT) == bytes(4 * MIB)


# The closing of the TCP connection


@pytest.mark.parametrize("code", [1002, 1009])
def test_the_peer_reads_why_although_it_is_sending(adapter, role, maybe_tls, spawn, code):
    with opened(adapter, role, maybe_tls, max_message_size=1000) as (websocket, peer):
        receiving = spawn(websocket.recv)
        octets = peer.violation if code == 1002 else peer.encode(Opcode.BINARY, bytes(1001))
        peer.send(octets, bytes(10 * MIB))
        assert peer.read_close()[0] == code
        peer.sock.close()
        assert receiving.exception(TIMEOUT).code == code


@pytest.mark.parametrize("is_reading", [True, False])
def test_the_peer_reads_our_close_although_it_is_sending(adapter, role, maybe_tls, spawn, is_reading):
    with opened(adapter, role, maybe_tls) as (websocket, peer):
        receiving = spawn(websocket.recv) if is_reading else None
        closing = spawn(websocket.close, 3000, "enough")
        message = peer.encode(Opcode.BINARY, bytes(MIB))
        for _ in range(4):
            peer.send(message)
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (Opcode.CLOSE, close_payload(3000, "enough"))
        peer.send(peer.close(3000))
        if role == "server":
            assert peer.next_frame() is None
        peer.sock.close()
        closing.result(TIMEOUT)
        assert websocket.close_code == 3000
        if is_reading:
            receiving.exception(TIMEOUT)


def test_messages_that_nobody_received_do_not_reset_the_connection(adapter, role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls) as (websocket, peer):
        peer.send(*(peer.text("unread") for _ in range(1000)))
        closing = spawn(websocket.close)
        assert peer.next_frame().opcode == Opcode.CLOSE
        peer.send(peer.close())
        if role == "server":
            assert peer.next_frame() is None
        peer.sock.close()
        closing.result(TIMEOUT)


def test_the_server_closes_first(adapter, spawn):
    with opened(adapter, "client") as (websocket, peer):
        closing = spawn(websocket.close)
        assert peer.next_frame().opcode == Opcode.CLOSE
        peer.send(peer.close())
        # Section 7.1.1: "the client SHOULD wait for the server to close the connection"
        assert select.select([peer.sock], [], [], 0.1) == ([], [], [])
        assert not closing.done()
        peer.end()
        closing.result(TIMEOUT)
        assert peer.next_frame() is None


def test_what_was_sent_is_read_before_the_close(adapter, role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls) as (websocket, peer):
        messages = 16 if adapter.name == "aio" else 1
        sending = spawn(lambda: [websocket.send(bytes(MIB)) for _ in range(messages)])
        receiving = spawn(websocket.recv)
        if adapter.name == "sync":
            # It is one thread that sends and receives.
            assert peer.next_frame().payload == bytes(MIB)
            sending.result(TIMEOUT)
        else:
            assert not wait([sending], 0.2).done
        peer.send(peer.violation)
        frames = peer.frames()
        assert {frame.payload for frame in frames[:-1]} <= {bytes(MIB)}
        assert frames[-1].opcode == Opcode.CLOSE
        assert frames[-1].payload[:2] == b"\x03\xea"
        peer.sock.close()
        assert receiving.exception(TIMEOUT).code == 1002
        sending.exception(TIMEOUT)


def test_a_slow_reader_reads_all_that_was_sent_before_the_close(aio_adapter, maybe_tls, spawn):
    """On sync, one thread sends and receives."""
    # So little fits into its buffer that the event loop, TLS and the system all hold something.
    with opened(aio_adapter, "server", maybe_tls, receive_buffer=4096) as (websocket, peer):
        sending = spawn(lambda: [websocket.send(bytes(MIB)) for _ in range(8)])
        assert not wait([sending], 0.1).done
        receiving = spawn(websocket.recv)
        peer.send(peer.violation)
        *messages, close = peer.frames()
        assert {frame.payload for frame in messages} == {bytes(MIB)}
        assert (close.opcode, close.payload[:2]) == (Opcode.CLOSE, b"\x03\xea")
        peer.sock.close()
        assert receiving.exception(TIMEOUT).code == 1002
        sending.exception(TIMEOUT)


# Back pressure


def test_who_does_not_receive_is_not_flooded(pair, spawn):
    websocket, peer = pair
    message = peer.encode(Opcode.BINARY, bytes(65536))
    count = fill(peer, message)
    assert count < 16 * MIB / 65536
    # It goes on where it was interrupted.
    sending = spawn(peer.send, peer.unsent, message)
    assert [websocket.recv() for _ in range(count + 2)] == [bytes(65536)] * (count + 2)
    sending.result(TIMEOUT)


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
