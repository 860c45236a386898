"""The options of the sockets: what a socket that was made by hand lacks beside one of asyncio."""

from __future__ import annotations

import socket
import struct
import sys

import pytest

from tests.support.adapters import TIMEOUT, Blocking, Listener, key_of, response
from tests.support.cases import case


def socket_of(websocket):
    """Return the socket of a WebSocket, under TLS the one below."""
    if isinstance(websocket, Blocking):
        return websocket.websocket.transport.get_extra_info("socket")
    return websocket._stream.sock


def has_nodelay(websocket):
    return socket_of(websocket).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def plain_listener():
    """Return a socket that listens, and whose object does not know the number of its protocol."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def inherited_listener():
    """Return a socket that listens, as uvicorn's --fd opens it: its object has the wrong family."""
    with plain_listener() as listener:
        return socket.fromfd(listener.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)


def plain_client(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.connect(("127.0.0.1", port))
    return sock


@pytest.mark.parametrize("listen", [None, plain_listener, inherited_listener])
def test_nagles_algorithm_is_off_on_accepted_and_connected_sockets(adapter, maybe_tls, listen):
    """Otherwise what leaves in two writes waits for the peer's delayed ACK: 40 ms."""
    server, client = maybe_tls or (None, None)
    address = {"sock": listen()} if listen else {}

    def handler(websocket):
        assert websocket.recv() == "a"
        websocket.send(str(adapter.call(has_nodelay, websocket)))

    with adapter.serve(handler, ssl=server, **address) as running:
        port = running.server.port
        for is_given in False, True:
            options = {"sock": plain_client(port)} if is_given else {}
            with case(is_given=is_given), adapter.connect(running.uri, ssl=client, **options) as websocket:
                assert adapter.call(has_nodelay, websocket)
                websocket.send("a")
                assert websocket.recv() == "True"


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_nagles_algorithm_is_off_through_a_proxy(adapter, listener: Listener, spawn, scheme):
    if scheme == "socks5h":
        pytest.importorskip("python_socks", reason="python-socks is not installed")

    def answer():
        with listener.accept() as peer:
            if scheme == "http":
                assert peer.read_head().startswith(b"CONNECT x.invalid:9 ")
                peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                for data in b"\5\0", b"\5\0\0\1\0\0\0\0\0\0":
                    peer.sock.recv(65536)
                    peer.send(data)
            peer.send(response(key=key_of(peer.read_head())))
            assert peer.next_frame().opcode == 8
            peer.send(peer.close())

    answering = spawn(answer)
    proxy = f"{scheme}://127.0.0.1:{listener.port}"
    with adapter.connect("ws://x.invalid:9/", proxy=proxy) as websocket:
        assert adapter.call(has_nodelay, websocket)
    answering.result(TIMEOUT)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_as_many_clients_may_wait_as_python_lets(adapter, maybe_tls):
    """asyncio calls listen() on a socket that listens already, and has another opinion."""
    with socket.socket() as usual:
        usual.listen()
        expected = backlog(usual)
    server, client = maybe_tls or (None, None)
    with adapter.serve(ssl=server) as running, adapter.connect(running.uri, ssl=client):
        assert [backlog(sock) for sock in running.server.sockets] == [expected]


def backlog(listener):
    """Return ``tcp_info.tcpi_sacked``, which for a socket that listens is the length of its queue."""
    return struct.unpack_from("=8x20xI", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 0)[0]
