"""The clients of the load: thousands on one thread, which check what comes; and the server's process."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wsframe import FrameDecoder, Opcode, encode_frame

from .server import HOST, Report, numbered

ROOT = Path(__file__).parents[2]
TIMEOUT = 60  # seconds that anything may take that has no timeout of its own
MASK = b"\x01\x02\x03\x04"
SLACK = 5.0  # seconds that a busy machine may take on top of a timeout
AT_ONCE = 64  # connections that are being opened: a listener's backlog is 100
LINGER = b"\1\0\0\0\0\0\0\0"


def request(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def masked(opcode: int, payload: bytes) -> bytes:
    return encode_frame(opcode, payload, mask=MASK)


CLOSE = masked(Opcode.CLOSE, b"\x03\xe8")


# The server


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self._answers = process.stdout
        self.port = int(self.answer()["port"])

    def answer(self, seconds: float = TIMEOUT) -> Report:
        """Wait for the next line that it says."""
        assert self._answers is not None
        poll = select.poll()  # select() knows no more than 1024 files
        poll.register(self._answers, select.POLLIN)
        line = self._answers.readline() if poll.poll(seconds * 1000) else b""
        if not line:
            raise TimeoutError("the server says nothing")
        return json.loads(line)  # type: ignore[no-any-return]

    def command(self, do: str, **arguments: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def report(self, seconds: float = TIMEOUT) -> Report:
        self.command("report")
        return self.answer(seconds)

    def fileno(self) -> int:
        assert self._answers is not None
        return self._answers.fileno()

    def memory(self) -> float:
        """Its resident memory, in KiB."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return float(line.split()[1])
        raise OSError("no Rss")


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """Start a server, and end it."""
    command = [sys.executable, "-m", "tests.load.server", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Server(process)
    finally:
        process.stdin.close()  # which ends it
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


# The clients


class Client:
    """A client that behaves: it checks the numbers of the messages that come, and answers a Close.

    Attributes:
        sent: how many messages it has sent.
        received: how many messages came, in order.
        code: the status code of the server's Close.
        is_over: whether the TCP connection is closed.
        error: what broke it, if something did.
        slowest: the longest time between a message and its echo, in seconds, with one message in flight.
    """

    __slots__ = (
        "_decoder",
        "_fleet",
        "_goal",
        "_head",
        "_left",
        "_path",
        "_sent_at",
        "_unsent",
        "code",
        "error",
        "events",
        "is_open",
        "is_over",
        "received",
        "sent",
        "slowest",
        "sock",
    )

    def __init__(self, fleet: Fleet, path: str, receive_buffer: int | None) -> None:
        self.sock = sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._fleet = fleet
        self._path = path
        self.events = select.EPOLLOUT  # of its connection
        self._goal: str | None = None
        self._head = b""
        self._decoder = FrameDecoder(masked=False)
        self._unsent = b""
        self._left = 0  # messages to send
        self._sent_at = 0.0
        self.is_open = self.is_over = False
        self.sent = self.received = 0
        self.code: int | None = None
        self.error: str | None = None
        self.slowest = 0.0
        sock.connect_ex((HOST, fleet.port))

    def fileno(self) -> int:
        return self.sock.fileno()

    def aim(self, goal: str) -> bool:
        """Let the fleet know when it is "open", "echoed" or "over"."""
        self._goal = None if self._has_reached(goal) else goal
        return self._goal is not None

    def _has_reached(self, goal: str) -> bool:
        if self.is_over:
            return True
        return (
            self.is_open if goal == "open" else goal == "echoed" and self.received >= self.sent + self._left
        )

    def _check_goal(self) -> None:
        if self._goal is not None and self._has_reached(self._goal):
            self._goal = None
            self._fleet.pending -= 1

    def send(self, count: int, in_flight: int = 1) -> None:
        """Send as many messages, some of them before their echoes are there."""
        self._left += count
        for _ in range(min(in_flight, count)):
            self._send_next()

    def _send_next(self) -> None:
        self._left -= 1
        self._sent_at = time.perf_counter()
        self.write(masked(Opcode.BINARY, numbered(self.sent, 64)))
        self.sent += 1

    def stop(self) -> None:
        """Send no more."""
        self._left = 0

    def close(self) -> None:
        """Begin the closing handshake."""
        self.write(CLOSE)

    def write(self, data: bytes) -> None:
        if self.is_over:
            return
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(repr(error))
            return
        self._unsent = self._unsent[sent:]
        events = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        if events != self.events:
            self.events = events
            self._fleet.watch(self, events)

    def ready(self, events: int) -> None:
        """Go on, when the socket is ready."""
        if events & select.EPOLLOUT:
            if not self._head and not self._unsent:
                self._unsent = request(self._path)
            self._flush()
        if events & ~select.EPOLLOUT and not self.is_over:
            self._receive()
        self._check_goal()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(repr(error))
            return
        if not data:
            self._end(None if self.code else "the stream ended without a Close")
            return
        if not self.is_open:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._end(head.partition(b"\r\n")[0].decode())
                return
            self.is_open = True
        if data:
            self._decoder.feed(data)
            while not self.is_over and (frame := self._decoder.next_frame()) is not None:
                self._act_on(frame.opcode, frame.payload)

    def _act_on(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.CLOSE:
            self.code = int.from_bytes(payload[:2], "big")
            self._left = 0
            self.write(masked(Opcode.CLOSE, payload[:2]))
        elif opcode != Opcode.BINARY or self.code is not None:
            self._end(f"unexpected frame: {opcode:x}")
        else:
            number = int.from_bytes(payload[:8], "big")
            if number != self.received:
                self._end(f"message {number} came instead of {self.received}")
                return
            self.received += 1
            if self._sent_at:
                self.slowest = max(self.slowest, time.perf_counter() - self._sent_at)
            if self._left:
                self._send_next()

    def _end(self, error: str | None) -> None:
        self.is_over, self.error = True, error
        self._fleet.forget(self)
        self.sock.close()
        self._check_goal()

    def reset(self) -> None:
        """Break the connection."""
        self._fleet.forget(self)
        self.is_over = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.sock.close()

    def drop(self) -> None:
        """Close the TCP connection without a word."""
        self._fleet.forget(self)
        self.is_over = True
        self.sock.close()


class Fleet:
    """Clients that one thread drives.

    Attributes:
        pending: how many have not reached their goal.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.pending = 0
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for client in list(self._clients.values()):
            client.drop()
        self._epoll.close()

    def watch(self, client: Client, events: int) -> None:
        self._epoll.modify(client.fileno(), events)

    def forget(self, client: Client) -> None:
        """Drive it no more."""
        if self._clients.pop(client.fileno(), None) is not None:
            self._epoll.unregister(client.fileno())

    def start(self, path: str, receive_buffer: int | None = None) -> Client:
        """Let a client connect."""
        client = Client(self, path, receive_buffer)
        self._clients[client.fileno()] = client
        self._epoll.register(client.fileno(), client.events)
        return client

    def open(
        self, count: int, path: str = "/echo", first: int | None = None, receive_buffer: int | None = None
    ) -> list[Client]:
        """Open as many connections; from ``first`` on, their paths have numbers."""
        clients: list[Client] = []
        while len(clients) < count or self.pending:
            while len(clients) < count and self.pending < AT_ONCE:
                number = "" if first is None else f"/{first + len(clients)}"
                clients.append(client := self.start(path + number, receive_buffer))
                self.pending += client.aim("open")
            self.turn()
        for client in clients:
            if not client.is_open:
                raise ConnectionError(f"cannot open a connection: {client.error}")
        return clients

    def reach(self, goal: str, clients: Iterable[Client], seconds: float = TIMEOUT) -> None:
        """Go on until all of them have reached a goal."""
        self.pending = sum(client.aim(goal) for client in clients)
        deadline = time.monotonic() + seconds
        while self.pending:
            self.turn(deadline - time.monotonic())

    def turn(self, seconds: float = TIMEOUT) -> None:
        """Serve those that are ready, or the first that is."""
        ready = self._epoll.poll(max(0, seconds))
        if not ready:
            raise TimeoutError(f"{self.pending} clients wait for something")
        self._serve(ready)

    def serve(self) -> None:
        """Serve those that are ready."""
        self._serve(self._epoll.poll(0))

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        for number, events in ready:
            client = self._clients.get(number)
            if client is not None:
                client.ready(events)

    def run_until_answered(
        self, server: Server, seconds: float, every: float = 0.05, act: Callable[[], None] = lambda: None
    ) -> Report:
        """Drive the clients until the server has answered, and act from time to time."""
        deadline = time.monotonic() + seconds
        due = time.monotonic() + every
        self._epoll.register(server.fileno(), select.EPOLLIN)
        try:
            while True:
                ready = self._epoll.poll(max(0, due - time.monotonic()))
                self._serve(ready)
                if any(number == server.fileno() for number, _ in ready):
                    return server.answer()
                if time.monotonic() > deadline:
                    raise TimeoutError("the server does not answer in time")
                if time.monotonic() >= due:
                    act()
                    due += every
        finally:
            self._epoll.unregister(server.fileno())


def settle(
    fleet: Fleet,
    server: Server,
    held: Report,
    seconds: float,
    every: float = 0.05,
    act: Callable[[], None] = lambda: None,
) -> Report:
    """Wait until the server holds no more than it did, and return what it holds.

    Raises:
        TimeoutError: it holds more than that, still.
    """
    server.command("settle", files=held["files"], tasks=held["tasks"], threads=held["threads"])
    try:
        return fleet.run_until_answered(server, seconds, every, act)
    except TimeoutError:
        now = server.report(SLACK)
        holds = {name: now[name] - held[name] for name in ("files", "tasks", "threads")}
        raise TimeoutError(f"after {seconds:.1f} s the server still holds {holds}") from None


def miscounted(clients: Iterable[Client], accepted: dict[str, int]) -> Iterator[str]:
    """Say of which clients it is not true that they got what the server accepted for them.

    Args:
        clients: those that have the numbers from 0 on.
        accepted: the server's counts.
    """
    for number, client in enumerate(clients):
        count = accepted.get(str(number))
        if client.error is not None:
            yield f"connection {number}: {client.error}"
        elif count != client.received:
            yield f"connection {number}: {count} messages were accepted, {client.received} came"
