"""The adapters, with their event loop and a client in one process: so their instructions can be counted.

The rows on the network measure what a server costs in the end, but there a change of 2 % is seen only after
minutes. These rows count the instructions of the same servers in user mode. The client is in them with some
calls of ``send`` and ``recv``, the same for all peers. The kernel is not.

    echo         100 connections with one message in flight on each; one connection with 64
    handshakes   connect, open, close
    blocking     a blocking client, and the other end of its connection by hand
"""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wsframe import Opcode, encode_frame

from . import clients, samples, servers
from .codec import Case
from .network import accept
from .rows import WSFRAME

HOST = "127.0.0.1"
SIZE = 64
PEERS = (WSFRAME, "websockets", "picows.websockets", "aiohttp", "picows")
CLIENTS = {WSFRAME: "wsframe.sync", "websocket-client": "websocket-client"}
PAYLOAD = samples.binary(SIZE)
FRAME, ANSWER = samples.masked(PAYLOAD), encode_frame(Opcode.BINARY, PAYLOAD)
CLOSE = encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=b"\1\2\3\4")
HANDSHAKES = 20
MESSAGES = 100


class Served:
    """An asyncio server and its clients, which take turns in one thread."""

    def __init__(self, peer: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._port = 0
        serve, _ = servers.ASYNC[peer]
        self._task = self.loop.create_task(serve(servers.Options(serve=self._serve)))
        self.turn_until(lambda: self._port > 0 or self._task.done())
        if self._task.done():
            self._task.result()

    async def _serve(self, port: int) -> None:
        self._port = port
        await asyncio.Event().wait()

    def turn_until(self, is_done: Callable[[], bool]) -> None:
        """Let the loop turn, without ever sleeping, until this is so."""

        def look() -> None:
            if is_done():
                self.loop.stop()
            else:
                self.loop.call_soon(look)

        self.loop.call_soon(look)
        self.loop.run_forever()

    def connect(self) -> Client:
        sock = socket.create_connection((HOST, self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        client = Client(sock)
        sock.send(samples.REQUEST)
        self.turn_until(lambda: client.receive().endswith(b"\r\n\r\n"))
        assert client.received.startswith(b"HTTP/1.1 101 "), client.received
        client.received.clear()
        return client


class Client:
    """A client's socket, and what has come on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.send = sock.send
        self.received = bytearray()
        self.is_over = False

    def receive(self) -> bytearray:
        with suppress(BlockingIOError):
            data = self.sock.recv(65536)
            self.is_over = not data
            self.received += data
        return self.received


def echo(peer: str, connections: int, in_flight: int) -> Callable[[], object]:
    served = Served(peer)
    all_clients = [served.connect() for _ in range(connections)]
    batch, answer = FRAME * in_flight, ANSWER * in_flight

    def run() -> None:
        for client in all_clients:
            client.send(batch)
        waiting = all_clients

        def is_answered() -> bool:
            nonlocal waiting
            waiting = [client for client in waiting if len(client.receive()) < len(answer)]
            return not waiting

        served.turn_until(is_answered)
        for client in all_clients:
            assert client.received == answer, bytes(client.received[:100])
            client.received.clear()

    return run


def handshakes(peer: str) -> Callable[[], object]:
    served = Served(peer)

    def run() -> None:
        for _ in range(HANDSHAKES):
            client = served.connect()
            client.send(CLOSE)
            served.turn_until(lambda client=client: client.receive()[:1] == b"\x88" and client.is_over)
            client.sock.close()
        gc.collect(0)

    return run


def blocking(peer: str) -> Callable[[], object]:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        other: list[socket.socket] = []

        def let_in() -> None:
            sock, _ = listener.accept()
            accept(sock)
            other.append(sock)

        thread = threading.Thread(target=let_in)
        thread.start()
        send, receive = clients.PEERS[CLIENTS[peer]](f"ws://{HOST}:{port}/")
        thread.join()
    (sock,) = other
    sock.setblocking(True)

    def run() -> None:
        for _ in range(MESSAGES):
            send(PAYLOAD)
            sock.recv(4096)
            sock.send(ANSWER)
            answer: Any = receive()
            assert answer == PAYLOAD

    return run


def cases() -> list[Case]:
    def case(name: str, unit: str, units: int, job: Callable[..., Callable[[], object]]) -> Case:
        return Case(f"{name}, in one process", unit, units, {p: functools.partial(job, p) for p in PEERS})

    return [
        case("100 connections", "message", 100, functools.partial(echo, connections=100, in_flight=1)),
        case("64 in flight", "message", 64, functools.partial(echo, connections=1, in_flight=64)),
        case("opening and closing handshake", "handshake", HANDSHAKES, handshakes),
        Case(
            "blocking client, in one process",
            "message",
            MESSAGES,
            {peer: functools.partial(blocking, peer) for peer in CLIENTS},
        ),
    ]
