"""How connections end, through both adapters: Closes, losses, violations, and the closing of TCP."""

from __future__ import annotations

import select
import socket
from concurrent.futures import wait
from contextlib import suppress

import pytest

from tests.support.adapters import MIB, TIMEOUT, close_payload, each_role_and_transport, opened
from tests.support.cases import case
from wsframe import ConnectionClosed, LocalProtocolError, Opcode, State

pytestmark = pytest.mark.usefixtures("leaks")


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


def test_the_peer_closes(adapter, role, spawn):
    for code, reason in [(1000, ""), (3000, "bye"), (1001, "é" * 61), (None, "")]:
        with case(code=code, reason=reason), opened(adapter, role) as (websocket, peer):
            assert websocket.state is State.OPEN
            assert (websocket.close_code, websocket.close_reason) == (None, None)
            ending = spawn(end_of, websocket)
            peer.send(peer.close(code, reason))
            frame = peer.next_frame()
            payload = close_payload(code, reason) if code else b""
            assert (frame.opcode, frame.payload) == (Opcode.CLOSE, payload)
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


def test_we_close(adapter, role, spawn):
    for code, reason, payload in [(1000, "", b"\x03\xe8"), (3000, "bye", b"\x0b\xb8bye"), (1005, "", b"")]:
        with case(code=code), opened(adapter, role) as (websocket, peer):
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


WRONG_CLOSES = [
    (1006, "", LocalProtocolError),
    (999, "", LocalProtocolError),
    (5000, "", LocalProtocolError),
    (1000, "x" * 124, LocalProtocolError),
    (1000, "\ud800", LocalProtocolError),
    (1005, "x", LocalProtocolError),
    ("1000", "", TypeError),
    (1000, b"", TypeError),
]


def test_a_close_that_cannot_be_sent_changes_nothing(pair):
    websocket, peer = pair
    for code, reason, error in WRONG_CLOSES:
        with case(code=code, reason=reason):
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
    ("data", "code", "reason"),
    [
        (lambda peer: peer.violation, 1002, "mask"),
        (lambda peer: b"\xc1\x00" if not peer.is_client else b"\xc1\x80\0\0\0\0", 1002, "reserved"),
        (lambda peer: peer.encode(Opcode.CONTINUATION, b""), 1002, "continu"),
        (lambda peer: peer.encode(Opcode.TEXT, b"\xff"), 1007, "UTF-8"),
        (lambda peer: peer.encode(Opcode.BINARY, bytes(1001)), 1009, "too big"),
        (lambda peer: peer.encode(Opcode.CLOSE, b"\x03"), 1002, "1 byte"),
        (lambda peer: peer.close(1006), 1002, "1006"),
    ],
    ids=["mask", "rsv", "continuation", "utf-8", "size", "close length", "close code"],
)
def test_the_peer_breaks_the_protocol(adapter, role, spawn, data, code, reason):
    with opened(adapter, role, max_message_size=1000) as (websocket, peer):
        ending = spawn(end_of, websocket)
        peer.send(data(peer))
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


@each_role_and_transport
@pytest.mark.parametrize("code", [1002, 1009])
def test_the_peer_reads_why_although_it_is_sending(adapter, role, maybe_tls, spawn, code):
    with opened(adapter, role, maybe_tls, max_message_size=1000) as (websocket, peer):
        receiving = spawn(websocket.recv)
        data = peer.violation if code == 1002 else peer.encode(Opcode.BINARY, bytes(1001))
        peer.send(data, bytes(10 * MIB))
        assert peer.read_close()[0] == code
        peer.sock.close()
        assert receiving.exception(TIMEOUT).code == code


@each_role_and_transport
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


@each_role_and_transport
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


@each_role_and_transport
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


# Closing takes too long


@each_role_and_transport
@pytest.mark.parametrize("data", [b"", b"\x81"], ids=["silence", "half a frame"])
def test_the_peer_never_answers_our_close(adapter, role, maybe_tls, data):
    with opened(adapter, role, maybe_tls, close_timeout=0.1) as (websocket, peer):
        peer.send(data)
        websocket.close(3000)
        assert websocket.state is State.CLOSED
        assert websocket.close_code == 1006
        assert peer.read_close() == (3000, "")


def close_during_a_flood(websocket, peer, data, spawn) -> None:
    """Close while the peer sends these bytes again and again, and does not read."""

    def flood() -> None:
        while True:
            peer.send(data)

    flooding = spawn(flood)
    websocket.close()
    assert websocket.close_code == 1006
    # It may wait for us to read for as long as its system thinks that we are there.
    with suppress(OSError):
        peer.sock.shutdown(socket.SHUT_RDWR)
    assert isinstance(flooding.exception(TIMEOUT), OSError)


@each_role_and_transport
def test_the_peer_floods_and_never_answers_our_close(adapter, role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls, close_timeout=0.1) as (websocket, peer):
        close_during_a_flood(websocket, peer, peer.text("more") * 1000, spawn)


def test_the_peer_pings_and_never_reads(adapter, role, spawn):
    with opened(adapter, role, close_timeout=0.1) as (websocket, peer):
        close_during_a_flood(websocket, peer, peer.encode(Opcode.PING, b"x" * 125) * 1000, spawn)


@each_role_and_transport
def test_the_peer_breaks_the_protocol_and_stays(adapter, role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls, close_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(peer.violation)
        assert peer.read_close()[0] == 1002
        assert receiving.exception(TIMEOUT).code == 1002
        websocket.wait_closed()
