"""What attackers send to a server and a client that run."""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress

import pytest

from tests.support.adapters import KEY, MIB, TIMEOUT, key_of, request, response
from tests.support.cases import case
from wsframe import HandshakeFailed, Opcode
from wsframe.handshake import accept_key

pytestmark = pytest.mark.usefixtures("leaks")


def status(peer) -> int:
    """Read a refusal, which must be complete, and the end of the stream."""
    head, _, body = peer.read_all().partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head
    return int(head.split(b" ")[1])


def trickle(peer) -> None:
    """Send byte by byte until the other end cuts the connection, which is before it has 16 KiB."""
    data = 0
    while not select.select([peer.sock], [], [], 0.001)[0]:
        peer.send(b"x")
        data += 1
    assert data < 16_000
    with suppress(ConnectionResetError):
        assert peer.sock.recv(1) == b""


def check_that_it_runs(running, tls=None) -> None:
    with running.open(tls=tls and tls.client) as peer:
        peer.send(peer.text("still there?"), peer.close())
        assert peer.read_text() == "still there?"
        assert peer.read_close() == (1000, "")


# A server


def test_byte_by_byte(adapter):
    with adapter.serve() as running, running.connect() as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = request() + peer.text("é" * 10) + peer.encode(Opcode.PING, b"p") + peer.close(3000, "bye")
        for byte in data:
            peer.send(bytes([byte]))
        peer.read_head()
        assert peer.read_text() == "é" * 10
        assert peer.next_frame().opcode == Opcode.PONG
        assert peer.read_close() == (3000, "bye")
        peer.end()
        assert running.end() == (3000, True)


def test_frames_in_the_same_packet_as_the_handshake(adapter, maybe_tls):
    with adapter.serve(ssl=maybe_tls and maybe_tls.server) as running:
        with running.connect(maybe_tls and maybe_tls.client) as peer:
            peer.send(request(), peer.text("a"), peer.text("b"), peer.close(3000))
            peer.read_head()
            assert [peer.read_text(), peer.read_text()] == ["a", "b"]
            assert peer.read_close() == (3000, "")
        assert running.end() == (3000, True)


def test_a_violation_in_the_same_packet_as_the_handshake(adapter):
    with adapter.serve() as running, running.open(b"\x83\x80\0\0\0\0") as peer:
        assert peer.read_close()[0] == 1002
        peer.end()
        assert running.end() == (1002, False)


def test_a_million_empty_fragments(adapter, maybe_tls, spawn):
    with adapter.serve(ssl=maybe_tls and maybe_tls.server) as running:
        with running.open(tls=maybe_tls and maybe_tls.client) as peer:
            fragments = peer.encode(Opcode.CONTINUATION, b"", False) * 1_000_000
            peer.send(peer.encode(Opcode.TEXT, b"", False), fragments)
            code, reason = peer.read_close()
            assert code == 1009
            assert "fragments" in reason
        assert running.end() == (1009, False)


def test_a_length_that_is_too_large(adapter, maybe_tls):
    with adapter.serve(ssl=maybe_tls and maybe_tls.server) as running:
        for length, code in [(2**63 - 1, 1009), (2**63, 1002), (2**64 - 1, 1002), (MIB + 1, 1009)]:
            with case(length=length), running.open(tls=maybe_tls and maybe_tls.client) as peer:
                # Only the header is sent: that is enough.
                peer.send(b"\x82\xff" + length.to_bytes(8, "big") + bytes(4))
                assert peer.read_close()[0] == code
            assert running.end() == (code, False), length


def test_a_head_that_is_too_large(adapter, maybe_tls):
    heads = {
        "lines": b"GET / HTTP/1.1\r\n" + b"X-Header: value\r\n" * 64 * 1024,
        "a path": b"GET /" + b"x" * MIB,
        "spaces": b"GET / HTTP/1.1\r\nX: " + b" " * 100_000 + b"\r\n\r\n",
        "spaces in a request": request(f"X: {' ' * 100_000}x"),
        "headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    }
    with adapter.serve(ssl=maybe_tls and maybe_tls.server) as running:
        for name, data in heads.items():
            with case(head=name):
                with running.connect(maybe_tls and maybe_tls.client) as peer:
                    peer.send(data)
                    assert status(peer) == 431
                check_that_it_runs(running, maybe_tls)


WRONG_HANDSHAKES = [
    (request("Content-Length: 5") + b"hello", 400),
    (request("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    (request("X: a\rb"), 400),
    (request("X: a\nb"), 400),
    (request("X: a\0b"), 400),
    (request("X: a\x0bb"), 400),
    (request("X: a\x1cb"), 400),
    (request("X: a\x7fb"), 400),
    (request("X: a", " folded"), 400),
    (request("X : a"), 400),
    (request("\u00e9: a"), 400),
    (request("Host: other"), 400),
    (request(f"Sec-WebSocket-Key: {KEY}"), 400),
    (request("Sec-WebSocket-Version: 13"), 400),
    (request(key="short"), 400),
    (request(path="relative"), 400),
    (request(path="/a b"), 400),
    (request().replace(b"GET", b"POST"), 405),
    (request().replace(b"GET", b"OPTIONS"), 405),
    (request('Sec-WebSocket-Extensions: permessage-deflate; x="'), 400),
    (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    (request().replace(b"Version: 13", b"Version: 8"), 426),
    (request().replace(b"Host: localhost\r\n", b""), 400),
    (request().replace(b"Connection: Upgrade", b"Connection: close"), 400),
    (request().replace(b"Upgrade: websocket\r\n", b""), 426),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
    (b"\r\n" * 10, 400),
    (b"\n\n", 400),
]


def test_a_handshake_that_is_wrong(adapter):
    with adapter.serve() as running:
        for data, expected in WRONG_HANDSHAKES:
            with case(data=data):
                with running.connect() as peer:
                    peer.send(data)
                    assert status(peer) == expected
                check_that_it_runs(running)


UNUSUAL_HANDSHAKES = [
    request().replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
    request().replace(b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: UPGRADE"),
    request().replace(b"Upgrade: websocket", b"uPGRADE: h2c, WebSocket"),
    request().replace(b"Host", b"HOST").replace(b"Sec-WebSocket-Key", b"sec-websocket-key"),
    request().replace(b"Sec-WebSocket-Version: 13", b"SEC-WEBSOCKET-VERSION:13 \t"),
    request("Content-Length: 0"),
    request("X: caf\u00e9"),
    request("X: a\x85b"),
    b"\r\n" + request(),
    request(path="ws://localhost/"),
]


def test_a_handshake_that_is_unusual(adapter):
    with adapter.serve() as running:
        for data in UNUSUAL_HANDSHAKES:
            with case(data=data), running.connect() as peer:
                peer.send(data)
                assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
                assert f"Sec-WebSocket-Accept: {accept_key(KEY)}".encode() in peer.head
                peer.send(peer.text("hello"))
                assert peer.read_text() == "hello"


def test_a_refusal_is_read_although_the_client_is_sending(adapter, maybe_tls):
    server, client = maybe_tls or (None, None)
    with adapter.serve(ssl=server) as running, running.connect(client) as peer:
        peer.send(request("Content-Length: 4194304"), bytes(4 * MIB))
        assert status(peer) == 400


def test_a_client_that_says_nothing_more(adapter):
    with adapter.serve(open_timeout=0.1) as running:
        peers = [running.connect() for _ in range(3)]
        for peer, data in zip(peers, (b"", b"GET / HT", request()[:-1]), strict=True):
            peer.send(data)
        for peer, name in zip(peers, ("nothing", "a line", "a head"), strict=True):
            with case(said=name), peer:
                assert peer.read_all() == b""
        check_that_it_runs(running)


def test_a_client_that_is_slow(adapter):
    with adapter.serve(open_timeout=0.1) as running:
        with running.connect() as peer:
            peer.send(b"GET / HTTP/1.1\r\nX: ")
            trickle(peer)
        check_that_it_runs(running)


def test_a_client_that_says_nothing_in_tls(adapter, tls):
    with adapter.serve(open_timeout=0.1, ssl=tls.server) as running, running.connect() as peer:
        assert peer.read_all() == b""


def test_a_client_that_speaks_no_tls(adapter, tls):
    with adapter.serve(ssl=tls.server) as running:
        with running.connect() as peer:
            peer.send(request())
            with suppress(ConnectionResetError):
                assert b"HTTP" not in peer.read_all()
        check_that_it_runs(running, tls)


def test_a_client_that_does_not_trust_the_server(adapter, tls):
    with adapter.serve(ssl=tls.server) as running:
        with pytest.raises(ssl.SSLError):
            running.connect(ssl.create_default_context())
        with pytest.raises(ssl.SSLError):
            adapter.connect(running.uri)
        check_that_it_runs(running, tls)


def test_a_client_that_goes(adapter):
    with adapter.serve() as running:
        for data in (b"", request(), request() + b"\x81"):
            with case(data=data):
                with running.connect() as peer:
                    peer.send(data)
                    peer.reset()
                check_that_it_runs(running)


# A client


def answer(listener, data):
    """Accept a client, answer with these bytes and end the stream; return what it says after its request."""
    with listener.accept() as peer:
        key = key_of(peer.read_head())
        peer.send(data(key) if callable(data) else data)
        peer.end()
        return peer.read_all()


WRONG_ANSWERS = [
    (lambda key: response(f"Sec-WebSocket-Accept: {accept_key(key)}", key=key), "more than one"),
    (lambda key: response(key=KEY), "does not answer"),
    (lambda key: response(key=key).replace(b"Accept", b"Except"), "missing"),
    (lambda key: response(key=key).replace(b"websocket", b"h2c"), "Upgrade"),
    (lambda key: response(key=key).replace(b"Connection: Upgrade", b"Connection: close"), "Connection"),
    (lambda key: response("Sec-WebSocket-Extensions: bbf-usp-protocol", key=key), "extension"),
    (lambda key: response("Sec-WebSocket-Protocol: chat", key=key), "subprotocol"),
    (lambda key: response(key=key).replace(b"HTTP/1.1", b"HTTP/1.0"), "1.1"),
    (lambda key: response("X: a\0b", key=key), "0x00"),
    (lambda key: response("X: a\nb", key=key), "CR LF"),
    (b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 200_000, "16384"),
    (b"HTTP/1.1 " + b"x" * MIB, "16384"),
    (b"SSH-2.0-OpenSSH_9.0\r\n", "does not speak HTTP, but says b'SSH-2.0-OpenSSH_9.0'"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "informational"),
    (b"", "lost"),
    (b"HTTP/1.1 101 Sw", "lost"),
]


def test_a_server_that_answers_wrongly(adapter, listener, spawn):
    for data, reason in WRONG_ANSWERS:
        with case(expected=reason):
            answering = spawn(answer, listener, data)
            with pytest.raises(HandshakeFailed, match=reason):
                adapter.connect(listener.uri)
            # It may be cut while it sends more than it should.
            assert isinstance(answering.exception(TIMEOUT), OSError | None)


def test_frames_in_the_same_packet_as_the_response(adapter, listener, spawn):
    connecting = spawn(adapter.connect, listener.uri)
    frames = b"\x81\x01a\x82\x01b\x89\x01p\x88\x02\x0b\xb8"
    with listener.open(frames) as peer:
        websocket = connecting.result(TIMEOUT)
        assert [websocket.recv(), websocket.recv()] == ["a", b"b"]
        ending = spawn(websocket.recv)
        assert peer.next_frame().opcode == Opcode.PONG
        assert peer.next_frame().payload == b"\x0b\xb8"
        peer.end()
        assert ending.exception(TIMEOUT).code == 3000


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Switching Protocols\r\nX: "])
def test_a_server_that_says_nothing_more(adapter, listener, spawn, data):
    connecting = spawn(adapter.connect, listener.uri, open_timeout=0.1)
    with listener.accept() as peer:
        peer.read_head()
        peer.send(data)
        assert isinstance(connecting.exception(TIMEOUT), TimeoutError)
        assert peer.read_all() == b""


def test_a_server_that_is_slow(adapter, listener, spawn):
    connecting = spawn(adapter.connect, listener.uri, open_timeout=0.1)
    with listener.accept() as peer:
        peer.read_head()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
        trickle(peer)
        assert isinstance(connecting.exception(TIMEOUT), TimeoutError)


def test_a_server_that_says_nothing_in_tls(adapter, listener, spawn, tls):
    connecting = spawn(adapter.connect, listener.uri.replace("ws", "wss"), ssl=tls.client, open_timeout=0.1)
    with listener.accept() as peer:
        assert isinstance(connecting.exception(TIMEOUT), TimeoutError)
        assert peer.read_all() != b"", "there was no ClientHello"


def test_nobody_listens(adapter, listener):
    listener.sock.close()
    with pytest.raises(OSError, match=r"refused|failed"):
        adapter.connect(listener.uri)
