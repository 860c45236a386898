"""Keepalive, latency, counters and logs of running connections, in both adapters."""

from __future__ import annotations

import asyncio
import logging
import select
import time

import pytest

import wsframe.aio
import wsframe.sync
from tests.support.adapters import MIB, TIMEOUT, opened
from wsframe import ConnectionClosed, Opcode, State
from wsframe.frames import encode_frame

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


def test_no_pings_without_an_interval(adapter, role):
    with opened(adapter, role, ping_interval=None, ping_timeout=0.01) as (websocket, peer):
        with pytest.raises(TimeoutError):
            websocket.recv(timeout=0.1)
        assert is_quiet(peer, 0)
        peer.send(peer.close())


def test_pings_are_sent_while_messages_come(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=NEVER) as (websocket, peer):

        def receive_all():
            count = 0
            for _ in websocket:
                count += 1
            return count

        receiving = spawn(receive_all)
        sent = 0
        while is_quiet(peer, 0):
            peer.send(peer.text("a"))
            sent += 1
        peer.send(pong(peer, next_ping(peer)), peer.close())
        peer.end()
        assert receiving.result(TIMEOUT) == sent
        assert websocket.latency is not None


def test_ping_tells_the_latency(adapter, role, spawn):
    with opened(adapter, role, ping_interval=None) as (websocket, peer):
        pinging = spawn(websocket.ping, b"hello")
        assert next_ping(peer) == b"hello"
        peer.send(pong(peer, b"hello"))
        assert pinging.result(TIMEOUT) == websocket.latency > 0
        peer.send(peer.close())


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


def test_a_wrong_pong_is_none(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(pong(peer, next_ping(peer)[:-1]))
        with pytest.raises(ConnectionClosed, match="no pong"):
            receiving.result(TIMEOUT)


def test_who_waits_for_a_ping_is_told(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
        pinging = spawn(websocket.ping)
        with pytest.raises(ConnectionClosed, match="1011 no pong within"):
            pinging.result(TIMEOUT)
        assert peer.frames()[-1].opcode == Opcode.CLOSE


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


def test_a_long_frame_holds_up_the_pong(adapter, role, spawn):
    """A Pong cannot come in the middle of a frame: a slow peer that sends one is given the time."""
    with opened(adapter, role, ping_interval=0.02, ping_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        octets = peer.encode(Opcode.BINARY, bytes(100))
        for octet in octets[:-1]:
            peer.send(bytes([octet]))
            time.sleep(0.005)  # this is the slow peer: it takes 0.5 s
        payload = next_ping(peer)
        peer.send(octets[-1:] + pong(peer, payload))
        assert receiving.result(TIMEOUT) == bytes(100)
        assert websocket.state is State.OPEN
        peer.send(peer.close())


def test_a_frame_that_does_not_go_on_does_not(adapter, role, spawn):
    with opened(adapter, role, ping_interval=0.02, ping_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(peer.encode(Opcode.BINARY, bytes(100))[:50])
        with pytest.raises(ConnectionClosed, match="no pong"):
            receiving.result(TIMEOUT)
        assert peer.frames()[-1].opcode == Opcode.CLOSE


def test_who_comes_back_late_to_recv_finds_the_pong(adapter, role):
    with opened(adapter, role, ping_interval=0.05, ping_timeout=0.05) as (websocket, peer):
        with pytest.raises(TimeoutError):
            websocket.recv(timeout=0.07)  # the ping was sent, and is not answered yet
        peer.send(pong(peer, next_ping(peer)), peer.text("a"))
        time.sleep(0.1)  # busy with something else
        if adapter.name == "sync":
            assert websocket.recv() == "a"
            assert websocket.latency is not None
        else:
            # Meanwhile it was read, and the next one sent, which nobody answers.
            assert websocket.recv() == "a"
        peer.send(peer.close())


# asyncio: also when nobody receives


def test_pings_are_sent_while_nobody_receives(aio_adapter, role):
    with opened(aio_adapter, role, ping_interval=0.05, ping_timeout=NEVER) as (websocket, peer):
        for _ in range(3):
            peer.send(pong(peer, next_ping(peer)))
        assert websocket.latency is not None
        peer.send(peer.close())


def test_a_peer_whose_pong_waits_behind_its_messages_is_not_given_up(aio_adapter, role):
    """Nobody receives them, which is not the peer's fault."""
    with opened(aio_adapter, role, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
        payload = next_ping(peer)
        peer.send(*[peer.text(str(number)) for number in range(40)], pong(peer, payload))
        assert is_quiet(peer, 0.5)
        assert [websocket.recv() for _ in range(40)] == [*map(str, range(40))]
        assert next_ping(peer) != payload
        assert websocket.latency >= 0.5
        peer.send(peer.close())


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


def test_a_peer_that_does_not_read_is_given_up(aio_adapter, role, spawn):
    options = {"ping_interval": 0.05, "ping_timeout": 0.1, "close_timeout": 0.1}
    with opened(aio_adapter, role, receive_buffer=4096, **options) as (websocket, _):
        sending = spawn(websocket.send, bytes(8 * MIB))
        with pytest.raises(ConnectionClosed, match="no pong"):
            spawn(websocket.recv).result(TIMEOUT)
        with pytest.raises(ConnectionClosed, match="no pong"):
            sending.result(TIMEOUT) or websocket.send("a")


def test_a_busy_loop_finds_the_pong(aio_adapter, role):
    with opened(aio_adapter, role, ping_interval=0.05, ping_timeout=0.1) as (websocket, peer):
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


@pytest.mark.parametrize("options", [{"ping_interval": 0}, {"ping_timeout": -1}])
@pytest.mark.parametrize("package", [wsframe.aio, wsframe.sync])
def test_wrong_options_are_told(package, options):
    with pytest.raises(ValueError, match="must be positive"):
        package.connect("ws://localhost/", **options)
    with pytest.raises(ValueError, match="must be positive"):
        package.serve(print, "localhost", 0, **options)


# What was sent and not taken


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


# Counters


def test_what_passes_is_counted(adapter, role, spawn):
    with opened(adapter, role, ping_interval=None) as (websocket, peer):
        handshake = websocket.counters
        assert handshake.connections == 1
        assert handshake.octets_received > 100
        assert handshake.octets_sent > 100
        frames = peer.text("hello"), peer.encode(Opcode.PING, b"x"), peer.encode(Opcode.BINARY, b"")
        peer.send(*frames)
        assert [websocket.recv(), websocket.recv()] == ["hello", b""]
        websocket.send("four")
        websocket.send(["a", "b"])
        received = [peer.next_frame() for _ in range(5)]
        pinging = spawn(websocket.ping, b"")
        next_ping(peer)
        peer.send(pong(peer, b""))
        pinging.result(TIMEOUT)
        counters = websocket.counters
        assert counters.messages_received == 2
        assert counters.messages_sent == 2
        assert (counters.pings_received, counters.pings_sent) == (1, 1)
        mask = 0 if peer.is_client else 4  # what we send is masked if we are the client
        sent = sum(len(frame.payload) + 2 + mask for frame in received) + 2 + mask
        assert counters.octets_sent - handshake.octets_sent == sent
        octets = sum(map(len, frames)) + len(pong(peer, b""))
        assert counters.octets_received - handshake.octets_received == octets
        assert (counters.uncompressed, counters.compression_ratio) == (0, None)
        peer.send(peer.close())


def test_what_compression_does_is_counted(adapter):
    def handler(websocket):
        for message in websocket:
            websocket.send(message)

    with adapter.serve(handler) as running, adapter.connect(running.uri) as websocket:
        websocket.send("abc" * 1000)
        websocket.recv()
        websocket.send("abc", compress=False)
        websocket.recv()
        counters = websocket.counters
        assert counters.uncompressed == 3000
        assert 0 < counters.compressed < 100
        assert counters.compression_ratio == counters.compressed / 3000


def test_a_server_counts_all_of_its_connections(adapter):
    with adapter.serve() as running:
        for number in range(3):
            with adapter.connect(running.uri, ping_interval=None) as websocket:
                for _ in range(number):
                    websocket.send("abc")
                    websocket.recv()
            running.end()
        peer = running.open()
        peer.send(peer.text("a"))
        assert peer.read_text() == "a"
        peer.reset()
        running.end()
        with running.connect() as plain:
            plain.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert plain.read_all().startswith(b"HTTP/1.1 426")
        deadline = time.monotonic() + TIMEOUT
        while (counters := running.server.counters).failures < 1:
            assert time.monotonic() < deadline
        assert counters.connections == 4
        assert counters.failures == 1
        assert counters.messages_received == counters.messages_sent == 4


def test_counters_add_up():
    from wsframe.counters import Counters

    one, other = Counters(*range(10)), Counters(*range(0, 100, 10))
    assert one.plus(other) == Counters(*range(0, 110, 11))
    assert other.compression_ratio == 90 / 80


# Logs


def test_what_is_logged(adapter, role, spawn, caplog):
    name = f"wsframe.{adapter.name}"
    with caplog.at_level(logging.DEBUG, name):
        with opened(adapter, role, ping_interval=None, headers=("Cookie: secret",)) as (websocket, peer):
            peer.send(peer.text("secret"), peer.encode(Opcode.BINARY, bytes(70000), False))
            assert websocket.recv() == "secret"
            websocket.send(b"secret")
            peer.next_frame()
            peer.send(peer.encode(Opcode.CONTINUATION), peer.close(3000, "bye\n"))
            peer.end()
            assert websocket.recv() == bytes(70000)
            with pytest.raises(ConnectionClosed):
                websocket.recv()
        number = websocket.id
    messages = [record.getMessage() for record in caplog.records if record.name == name]
    mine = [
        message.removeprefix(f"[{number}] ") for message in messages if message.startswith(f"[{number}] ")
    ]
    assert mine[0].startswith("> GET / HTTP/1.1" if role == "client" else "< GET / HTTP/1.1")
    assert f"opened: / with {websocket.remote_address}" in mine
    for line in (
        "< TEXT 6 octets",
        "> BINARY 6 octets",
        "< BINARY 70000 octets, more follows",
        "< CONTINUATION 0 octets",
        "< CLOSE 3000 'bye\\n'",
        "> CLOSE 3000 'bye\\n'",
        "closed: 3000 'bye\\n'",
    ):
        assert mine.count(line) == 1, line
    assert "secret" not in "".join(messages)
    assert all(message.isprintable() for message in messages)
    assert {record.connection for record in caplog.records if record.name == name} >= {number}
    caplog.clear()


def test_the_query_is_not_logged(adapter, caplog):
    with caplog.at_level(logging.DEBUG, f"wsframe.{adapter.name}"), adapter.serve() as running:
        uri = running.uri + "chat?token=secret"
        with adapter.connect(uri, additional_headers=[("Authorization", "Bearer secret")]) as websocket:
            websocket.send("secret")
            websocket.recv()
        running.end()
    assert "/chat" in caplog.text
    assert "GET /chat?... HTTP/1.1" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()


def test_violations_are_logged(adapter, role, caplog):
    name = f"wsframe.{adapter.name}"
    with caplog.at_level(logging.DEBUG, name), opened(adapter, role, ping_interval=None) as (websocket, peer):
        peer.send(peer.violation)
        peer.end()
        with pytest.raises(ConnectionClosed):
            websocket.recv()
    assert "< violation: frames must" in caplog.text
    assert "lost or failed: 1002 'frames must" in caplog.text
    caplog.clear()


def test_a_logger_of_ones_own(adapter, role, caplog):
    name = f"wsframe.{adapter.name}"
    with caplog.at_level(logging.INFO, name), opened(adapter, role) as (websocket, peer):
        websocket.logger.info("a user came: %s", "Ann")
        peer.send(peer.close())
        peer.end()
        with pytest.raises(ConnectionClosed):
            websocket.recv()
    assert f"[{websocket.id}] a user came: Ann" in caplog.text
    caplog.clear()


def test_a_frame_log_reads_any_pieces():
    from wsframe.log import FrameLog

    lines = []
    log = FrameLog(lines.append, is_client=False)
    octets = (
        b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
        + encode_frame(Opcode.TEXT, b"hello", mask=b"abcd")
        + encode_frame(Opcode.PING, b"", mask=b"abcd")
        + encode_frame(Opcode.BINARY, bytes(300), rsv=4, mask=b"abcd")
        + encode_frame(Opcode.CLOSE, b"", mask=b"abcd")
        + b"\xff"
        + b"whatever follows"
    )
    log.received(octets)
    whole = lines[:]
    lines.clear()
    log = FrameLog(lines.append, is_client=False)
    for octet in octets:
        log.received(bytes([octet]))
    assert lines == whole
    assert lines == [
        "< GET /a?... HTTP/1.1",
        "< TEXT 5 octets",
        "< PING 0 octets",
        "< BINARY 300 octets, compressed",
        "< CLOSE",
        "< violation: reserved bits must be zero (1002)",
    ]


def test_a_frame_log_does_not_read_bodies_or_endless_heads():
    from wsframe.log import FrameLog

    lines = []
    log = FrameLog(lines.append, is_client=False)
    log.sent(b"HTTP/1.1 404 Not Found\r\n\r\nsecret")
    log.sent(b"more")
    for _ in range(100):
        log.received(b"x" * 1000)
    log.received(b"\r\n\r\n\x81\x80")
    assert lines == ["> HTTP/1.1 404 Not Found"]
