"""Peers: ends of a connection, on blocking sockets, that send the bytes that a test gives them."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from tests.support.core import KEY, MASK, close_payload
from wsframe import Frame, FrameDecoder, Opcode, encode_frame
from wsframe.handshake import accept_key

# How many seconds something that must happen may take before its test fails.
TIMEOUT = 60
MIB = 2**20


def request(*headers: str, path: str = "/", host: str = "localhost", key: str = KEY) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def response(*headers: str, key: str = KEY) -> bytes:
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


class Peer:
    """One end of a connection that says what it is told, right or wrong, on a blocking socket."""

    def __init__(self, sock: socket.socket, *, is_client: bool) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.is_client = is_client
        self.head = b""
        self._decoder = FrameDecoder(masked=not is_client)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def encode(self, opcode: int, payload: bytes | str = b"", fin: bool = True) -> bytes:
        data = payload.encode() if isinstance(payload, str) else payload
        return encode_frame(opcode, data, fin, mask=MASK if self.is_client else None)

    def text(self, text: str) -> bytes:
        return self.encode(Opcode.TEXT, text)

    def close(self, code: int | None = 1000, reason: str = "") -> bytes:
        return self.encode(Opcode.CLOSE, b"" if code is None else close_payload(code, reason))

    @property
    def violation(self) -> bytes:
        """A frame that is masked where it must not be, or the other way round: 1002."""
        return encode_frame(Opcode.TEXT, b"x", mask=None if self.is_client else MASK)

    def read_head(self) -> bytes:
        """Read a head up to its blank line; what comes after it are frames."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                break
            data += more
        self.head, _, rest = data.partition(b"\r\n\r\n")
        if rest:
            self._decoder.feed(rest)
        return self.head

    def next_frame(self) -> Frame | None:
        """Read a frame; None at the end of the stream."""
        while (frame := self._decoder.next_frame()) is None:
            data = self.sock.recv(65536)
            if not data:
                assert not self._decoder.unread, "the stream ended within a frame"
                return None
            self._decoder.feed(data)
        return frame

    def frames(self) -> list[Frame]:
        """Read all frames up to the end of the stream."""
        return list(iter(self.next_frame, None))

    def read_text(self) -> str:
        frame = self.next_frame()
        assert frame is not None
        assert frame.opcode == Opcode.TEXT, frame
        return frame.payload.decode()

    def read_close(self) -> tuple[int, str]:
        """Read a Close, and then the end of the stream."""
        frames = self.frames()
        assert [frame.opcode for frame in frames] == [Opcode.CLOSE]
        payload = frames[0].payload
        return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    def read_all(self) -> bytes:
        """Read bytes up to the end of the stream."""
        return b"".join(iter(lambda: self.sock.recv(65536), b""))

    def end(self) -> None:
        """Close this direction."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def connect_peer(port: int, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> Peer:
    """Connect a client that has sent nothing yet; its receive buffer is of this size."""
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname="localhost")
    return Peer(sock, is_client=True)


def open_peer(
    port: int,
    *data: bytes,
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
    path: str = "/",
    headers: tuple[str, ...] = (),
) -> Peer:
    """Open a client; it sends these bytes in the same packet as its request."""
    peer = connect_peer(port, tls, receive_buffer)
    peer.send(request(*headers, path=path), *data)
    assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
    return peer


def fill(peer: Peer, data: bytes) -> int:
    """Send until the other end takes no more, and return how often."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        peer.sock.setsockopt(socket.SOL_SOCKET, option, 65536)
    peer.sock.setblocking(False)
    for count in range(64 * MIB // len(data)):
        rest = memoryview(data)
        while rest:
            if not select.select([], [peer.sock], [], 0.2)[1]:
                peer.sock.settimeout(TIMEOUT)
                peer.unsent = bytes(rest)
                return count
            with suppress(BlockingIOError):
                rest = rest[peer.sock.send(rest) :]
    raise AssertionError("it takes everything")


class Listener:
    """A server that says what it is told."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(TIMEOUT)
        self.tls = tls
        self.port = self.sock.getsockname()[1]
        self.uri = f"{'wss' if tls else 'ws'}://localhost:{self.port}/"

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def accept(self) -> Peer:
        sock, _ = self.sock.accept()
        sock.settimeout(TIMEOUT)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_side=True)
        return Peer(sock, is_client=False)

    def open(self, *data: bytes, headers: tuple[str, ...] = ()) -> Peer:
        """Accept a client and its request; send these bytes in the same packet as the answer."""
        peer = self.accept()
        peer.send(response(*headers, key=key_of(peer.read_head())), *data)
        return peer


def key_of(head: bytes) -> str:
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name == "Sec-WebSocket-Key":
            return value
    raise AssertionError(head)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


class TLS(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


def new_authority() -> Any:
    """Return a new authority that issues certificates; skip the test where trustme is missing."""
    return pytest.importorskip("trustme", reason="trustme is not installed").CA()


@pytest.fixture(scope="session")
def tls() -> TLS:
    authority = new_authority()
    tls = TLS(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls.server)
    authority.configure_trust(tls.client)
    return tls
