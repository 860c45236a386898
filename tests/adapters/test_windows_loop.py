"""wsframe.aio on a loop that lacks what the loop of Windows lacks, played on this system."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.adapters import MIB, TIMEOUT, AioAdapter, Listener, close_payload, opened
from tests.support.loops import MISSING_ON_WINDOWS, WindowsLoop
from wsframe import ConnectionClosed, HandshakeRejected, Opcode, aio, sync


@pytest.fixture
def adapter(leaks):
    adapter = AioAdapter("windows")
    yield adapter
    adapter.close()


@pytest.fixture
def windows(monkeypatch):
    """Take away what the module ``socket`` lacks there."""
    for name in "AF_UNIX", "SO_REUSEPORT", "MSG_DONTWAIT":
        monkeypatch.delattr(socket, name, raising=False)


def test_the_loop_lacks_these_methods():
    loop = WindowsLoop()
    for name in MISSING_ON_WINDOWS:
        assert getattr(loop, name).__func__ is getattr(asyncio.AbstractEventLoop, name)
    with pytest.raises(NotImplementedError):
        loop.add_reader(0, print)
    loop.close()


@pytest.mark.parametrize("is_given", [False, True])
def test_a_conversation(adapter, windows, maybe_tls, is_given):
    """Also on sockets that are given, of which one listens already."""
    server, client = maybe_tls or (None, None)
    address = {"sock": socket.create_server(("127.0.0.1", 0))} if is_given else {}
    with adapter.serve(ssl=server, **address) as running:
        given = {"sock": socket.create_connection(("127.0.0.1", running.server.port))} if is_given else {}
        with adapter.connect(running.uri, ssl=client, **given) as websocket:
            for message in "Hello!", bytes(MIB):
                websocket.send(message)
                assert websocket.recv() == message
        assert running.end() == (1000, True)


def test_a_connection_through_a_proxy(adapter, windows, listener: Listener, spawn):
    def answer():
        with listener.accept() as peer:
            assert peer.read_head().startswith(b"CONNECT x.invalid:9 ")
            peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    answering = spawn(answer)
    with pytest.raises(HandshakeRejected, match="status 403"):
        adapter.connect("ws://x.invalid:9/", proxy=f"http://127.0.0.1:{listener.port}")
    answering.result(TIMEOUT)


def test_the_peer_reads_why_a_connection_failed(adapter, windows, role, maybe_tls, spawn):
    """The loop cannot say when all was written under TLS, and the end of one direction must come after it."""
    with opened(adapter, role, maybe_tls, max_message_size=1000) as (websocket, peer):
        receiving = spawn(websocket.recv)
        peer.send(peer.violation, bytes(4 * MIB))
        assert peer.read_close() == (1002, "frames must " + ("not " * (role == "client")) + "be masked")
        peer.sock.close()
        assert receiving.exception(TIMEOUT).code == 1002
        websocket.wait_closed(TIMEOUT)


def test_a_slow_peer_reads_all_that_was_sent_before_a_failure(adapter, windows, role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls) as (websocket, peer):
        sending = spawn(lambda: [websocket.send(bytes(MIB)) for _ in range(16)])
        receiving = spawn(websocket.recv)
        peer.send(peer.violation)
        assert receiving.exception(TIMEOUT).code == 1002  # while most of it waits
        *frames, last = peer.frames()
        assert (last.opcode, last.payload[:2]) == (Opcode.CLOSE, close_payload(1002))
        assert {frame.payload for frame in frames} <= {bytes(MIB)}
        peer.sock.close()
        assert isinstance(sending.exception(TIMEOUT), (ConnectionClosed, type(None)))


def test_a_peer_that_stays_is_cut_after_a_failure(adapter, windows, tls):
    with opened(adapter, "server", tls, close_timeout=0.1) as (websocket, peer):
        peer.send(peer.violation)
        websocket.wait_closed(TIMEOUT)
        assert websocket.close_code == 1002


def test_what_windows_has_not_is_refused(windows):
    async def handler(websocket):
        raise AssertionError

    for serve, connect in (aio.serve, aio.connect), (sync.serve, sync.connect):
        with pytest.raises(ValueError, match="this system has no Unix sockets"):
            serve(handler, unix="path")
        with pytest.raises(ValueError, match="this system has no Unix sockets"):
            connect("ws://localhost/", unix="path")
        with pytest.raises(ValueError, match="this system has no reuse_port"):
            serve(handler, "localhost", 0, reuse_port=True)


# And where there are no file descriptors left


def test_a_failure_needs_no_file_descriptor(aio_adapter, role, tls, spawn, monkeypatch):
    def dup(_):
        raise OSError(24, "Too many open files")

    with opened(aio_adapter, role, tls) as (websocket, peer):
        monkeypatch.setattr(socket, "dup", dup)
        receiving = spawn(websocket.recv)
        peer.send(peer.violation)
        assert peer.next_frame().payload[:2] == close_payload(1002)
        peer.sock.close()
        assert receiving.exception(TIMEOUT).code == 1002
        websocket.wait_closed(TIMEOUT)
