"""What a connection tells about itself, through both adapters: its counters, and what is logged of it."""

from __future__ import annotations

import logging
import time

import pytest

from tests.support.adapters import TIMEOUT, opened
from wsframe import ConnectionClosed, Opcode
from wsframe.adapter.counters import Counters
from wsframe.adapter.log import FrameLog
from wsframe.frames import encode_frame

pytestmark = pytest.mark.usefixtures("leaks")


# Counters


def test_what_passes_is_counted(adapter, role, spawn):
    with opened(adapter, role, ping_interval=None) as (websocket, peer):
        handshake = websocket.counters
        assert handshake.connections == 1
        assert handshake.bytes_received > 100
        assert handshake.bytes_sent > 100
        frames = peer.text("hello"), peer.encode(Opcode.PING, b"x"), peer.encode(Opcode.BINARY, b"")
        peer.send(*frames)
        assert [websocket.recv(), websocket.recv()] == ["hello", b""]
        websocket.send("four")
        websocket.send(["a", "b"])
        received = [peer.next_frame() for _ in range(5)]
        pinging = spawn(websocket.ping, b"")
        assert peer.next_frame().opcode == Opcode.PING
        pong = peer.encode(Opcode.PONG, b"")
        peer.send(pong)
        pinging.result(TIMEOUT)
        counters = websocket.counters
        assert counters.messages_received == 2
        assert counters.messages_sent == 2
        assert (counters.pings_received, counters.pings_sent) == (1, 1)
        mask = 0 if peer.is_client else 4  # what we send is masked if we are the client
        sent = sum(len(frame.payload) + 2 + mask for frame in received) + 2 + mask
        assert counters.bytes_sent - handshake.bytes_sent == sent
        data = sum(map(len, frames)) + len(pong)
        assert counters.bytes_received - handshake.bytes_received == data
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
        "< TEXT 6 bytes",
        "> BINARY 6 bytes",
        "< BINARY 70000 bytes, more follows",
        "< CONTINUATION 0 bytes",
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
    lines = []
    log = FrameLog(lines.append, is_client=False)
    data = (
        b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
        + encode_frame(Opcode.TEXT, b"hello", mask=b"abcd")
        + encode_frame(Opcode.PING, b"", mask=b"abcd")
        + encode_frame(Opcode.BINARY, bytes(300), rsv=4, mask=b"abcd")
        + encode_frame(Opcode.CLOSE, b"", mask=b"abcd")
        + b"\xff"
        + b"whatever follows"
    )
    log.received(data)
    whole = lines[:]
    lines.clear()
    log = FrameLog(lines.append, is_client=False)
    for byte in data:
        log.received(bytes([byte]))
    assert lines == whole
    assert lines == [
        "< GET /a?... HTTP/1.1",
        "< TEXT 5 bytes",
        "< PING 0 bytes",
        "< BINARY 300 bytes, compressed",
        "< CLOSE",
        "< violation: reserved bits must be zero (1002)",
    ]


def test_control_characters_of_iso_8859_1_in_a_head_are_logged_as_escapes():
    lines = []
    log = FrameLog(lines.append, is_client=True)
    log.received(b"HTTP/1.1 101 Nie\x85\x9b[2J\r\nX: \x9b\r\n\r\n")
    assert lines == [r"< 'HTTP/1.1 101 Nie\x85\x9b[2J'"]


def test_the_empty_line_before_a_request_is_not_logged():
    lines = []
    FrameLog(lines.append, is_client=False).received(b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n\x89\x80abcd")
    assert lines == ["< GET /a HTTP/1.1", "< PING 0 bytes"]


def test_a_frame_log_does_not_read_bodies_or_endless_heads():
    lines = []
    log = FrameLog(lines.append, is_client=False)
    log.sent(b"HTTP/1.1 404 Not Found\r\n\r\nsecret")
    log.sent(b"more")
    for _ in range(100):
        log.received(b"x" * 1000)
    log.received(b"\r\n\r\n\x81\x80")
    assert lines == ["> HTTP/1.1 404 Not Found"]
