"""The one client of all servers: blocking sockets, frames encoded beforehand, answers read by their length.

It costs as little as a client in Python can, and it costs the same whichever server it talks to. It looks at
what a server answers once, when a server is started, and at the number of octets ever after.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wsframe import Opcode, encode_frame

from . import samples

HOST = "127.0.0.1"
TIMEOUT = 30  # seconds that any server has for anything
CLOSE = encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=b"\x01\x02\x03\x04")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

CORE = max(os.sched_getaffinity(0))


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this process on one core, and let it go again."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A server in a process of its own: its port, and what it uses of the machine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.pid = process.pid
        self.port = port

    def cpu(self) -> float:
        """The seconds of CPU that the process has used, in user and in kernel mode."""
        # Linux: the clock of another process, as clock_getcpuclockid(3) has it.
        return time.clock_gettime((~self.pid << 3) | 2)

    def pin(self) -> None:
        """Keep it on the one core where ``pinned`` keeps the client."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {CORE})

    def memory(self) -> float:
        """Its resident memory, in KiB."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return float(line.split()[1])
        raise OSError("no Rss")


@contextmanager
def running(peer: str, *options: str) -> Iterator[Server]:
    """Start a server, and end it."""
    command = [sys.executable, "-m", "benchmarks.servers", peer, *options]
    pipe, root = subprocess.PIPE, Path(__file__).parent.parent
    with tempfile.TemporaryFile() as log:  # not a pipe: nobody reads it while the server runs
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, cwd=root)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            poll = select.poll()  # select() knows no more than 1024 files
            poll.register(process.stdout, select.POLLIN)
            line = process.stdout.readline() if poll.poll(TIMEOUT * 1000) else b""
            if not line.strip():
                process.kill()
                process.wait()
                log.seek(0)
                raise failure(log.read().decode(errors="replace"))
            yield Server(process, int(line))
        finally:
            process.stdin.close()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def failure(stderr: str) -> Exception:
    lines = stderr.strip().splitlines() or ["the server did not start"]
    if lines[-1].startswith("ModuleNotFoundError"):
        return ModuleNotFoundError(lines[-1])
    return RuntimeError(lines[-1])


# The handshake


def connect(port: int) -> socket.socket:
    """Open a WebSocket."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The kernel's own timeouts: for those of Python, each recv is two system calls.
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT, 0))
    sock.sendall(samples.REQUEST)
    response = read_head(sock)
    if not response.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(response.partition(b"\r\n")[0].decode())
    return sock


def read_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = sock.recv(4096)
        if not received:
            raise ConnectionError("closed during the handshake")
        head += received
    return head


def accept(sock: socket.socket) -> None:
    """Answer a client's request, for a server that is no WebSocket otherwise."""
    lines = read_head(sock).split(b"\r\n")
    key = next(line.split()[1] for line in lines if line.lower().startswith(b"sec-websocket-key:"))
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key + GUID).digest()) + b"\r\n\r\n"
    )


def handshakes(port: int, count: int) -> None:
    """Open and close as many connections, one after the other."""
    for _ in range(count):
        with connect(port) as sock:
            sock.sendall(CLOSE)
            received = b""
            while octets := sock.recv(64):
                received += octets
            if not received.startswith(b"\x88"):
                raise ConnectionError("no Close came back")


# Echo


class Exchange:
    """A frame that is sent, and how its answer looks."""

    def __init__(self, size: int, is_bare: bool) -> None:
        payload = samples.binary(size)
        self.frame = samples.masked(payload)
        self.answer = self.frame if is_bare else encode_frame(Opcode.BINARY, payload)


def verify(sock: socket.socket, exchange: Exchange) -> None:
    """Look at one answer."""
    sock.sendall(exchange.frame)
    read_answer(sock, exchange)


def verify_all(socks: list[socket.socket], exchange: Exchange) -> None:
    """Look at what all are sent that one has sent."""
    socks[0].sendall(exchange.frame)
    for sock in socks:
        read_answer(sock, exchange)


def read_answer(sock: socket.socket, exchange: Exchange) -> None:
    answer = bytearray()
    while len(answer) < len(exchange.answer):
        received = sock.recv(2**20)
        if not received:
            raise ConnectionError("closed in the middle of an answer")
        answer += received
    if answer != exchange.answer:
        raise ValueError(f"answered {bytes(answer[:16]).hex()} of {len(answer)} octets")


def echo(sock: socket.socket, exchange: Exchange, in_flight: int, rounds: int) -> float:
    """Send as many frames at once, read their answers, and so on; return the seconds that it took."""
    batch, size = exchange.frame * in_flight, len(exchange.answer) * in_flight
    send = sock.sendall if len(batch) <= 65536 else None
    buffer = bytearray(min(size, 2**20))
    recv_into = sock.recv_into
    start = time.perf_counter()
    for _ in range(rounds):
        if send is None:
            swap(sock, batch, size, buffer)
            continue
        send(batch)
        left = size
        while left:
            received = recv_into(buffer, left)
            if not received:
                raise ConnectionError("closed in the middle of an answer")
            left -= received
    return time.perf_counter() - start


def swap(sock: socket.socket, batch: bytes, size: int, buffer: bytearray) -> None:
    """Write and read at once, for more than socket buffers hold."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    sock.setblocking(False)
    view = memoryview(batch)
    while size:
        ((_, events),) = poll.poll(TIMEOUT * 1000) or [(0, 0)]
        if not events:
            raise TimeoutError("no answer")
        if events & select.POLLIN:
            received = sock.recv_into(buffer, min(size, len(buffer)))
            if not received:
                raise ConnectionError("closed in the middle of an answer")
            size -= received
        if view and events & select.POLLOUT:
            view = view[sock.send(view) :]
            if not view:
                poll.modify(sock, select.POLLIN)
    sock.setblocking(True)


# Many connections


def connect_many(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    return [stack.enter_context(connect(port)) for _ in range(count)]


def echo_many(socks: list[socket.socket], exchange: Exchange, count: int) -> None:
    """Keep one frame in flight on every connection, until as many were answered."""
    by_number = {sock.fileno(): sock for sock in socks}
    left = dict.fromkeys(by_number, len(exchange.answer))
    with select.epoll() as epoll:
        for number, sock in by_number.items():
            epoll.register(number, select.EPOLLIN)
            sock.sendall(exchange.frame)
        sent = waiting = len(socks)
        while waiting:
            ready = epoll.poll(TIMEOUT)
            if not ready:
                raise TimeoutError("no answer")
            for number, _ in ready:
                received = len(os.read(number, left[number]))
                if not received:
                    raise ConnectionError("closed in the middle of an answer")
                left[number] -= received
                if left[number]:
                    continue
                left[number] = len(exchange.answer)
                if sent < count:
                    sent += 1
                    os.write(number, exchange.frame)
                else:
                    waiting -= 1


def receive_many(socks: list[socket.socket], exchange: Exchange, rounds: int) -> None:
    """Send a frame on the first connection, and read its answer on all; as many times."""
    size = len(exchange.answer)
    with select.epoll() as epoll:
        for sock in socks:
            epoll.register(sock.fileno(), select.EPOLLIN)
        for _ in range(rounds):
            socks[0].sendall(exchange.frame)
            left = size * len(socks)
            while left:
                ready = epoll.poll(TIMEOUT)
                if not ready:
                    raise TimeoutError("no answer")
                for number, _ in ready:
                    received = len(os.read(number, size))
                    if not received:
                        raise ConnectionError("closed in the middle of an answer")
                    left -= received
