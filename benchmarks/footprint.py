"""Memory for each connection, and time to import: costs that are there before anything is sent.

memory    the resident memory (Rss) of an asyncio echo server for each of 500 connections: idle, and with
          permessage-deflate, after 64 KiB of JSON each way. The client offers what browsers offer, and the
          rest is each server's own choice. The same of blocking clients; there the server compresses with
          the largest window, as it may where nobody asked for less. The memory of the first 20 connections
          is not counted: it has much that is made once
import    CPU of ``import`` in a fresh interpreter, with its bytecode there
"""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack

from wsframe import Binary, ClientConnection, Deflate, Request, Response, ServerConnection

from . import samples
from .rows import WSFRAME, Loader, Row, Settings, Target, Turn, targets
from .subject import HOST, TIMEOUT, Client, Server, failure, running

WARM_UP = 20
CONNECTIONS = 500
PEERS = (WSFRAME, "websockets", "picows", "picows.websockets", "aiohttp")
LARGEST = Deflate(server_max_window_bits=15, client_max_window_bits=15)
BROWSER = LARGEST  # with these it makes the offer that browsers make
IMPORTS = {
    WSFRAME: "wsframe",
    "websockets": "websockets.server",
    "wsproto": "wsproto",
    "aiohttp": "aiohttp.web",
    "picows": "picows",
    "websocket-client": "websocket",
}


class Visitor:
    """A client that sends messages and compares the answers."""

    def __init__(self, stack: ExitStack, server: Server, deflate: Deflate | None) -> None:
        self._connection = ClientConnection(f"ws://{HOST}:{server.port}/", compression=deflate)
        self._sock = stack.enter_context(socket.create_connection((HOST, server.port), timeout=TIMEOUT))
        response = self._exchange()
        assert type(response) is Response, response
        is_compressed = bool(response.headers.get("sec-websocket-extensions"))
        assert is_compressed is (deflate is not None), "the server does not compress"

    def _exchange(self) -> object:
        self._sock.sendall(self._connection.data_to_send())
        while not (event := self._connection.next_event()):
            self._connection.receive_data(self._sock.recv(65536))
        return event

    def talk(self) -> None:
        for message in samples.DOCUMENTS:
            self._connection.send_binary(message)
            assert self._exchange() == Binary(message)


def memory(peer: str, deflate: Deflate | None) -> Loader:
    options = ["--deflate"] if deflate else []

    def measure(settings: Settings) -> float:
        count = settings.scaled(CONNECTIONS)
        with running(settings.tree, peer, "--loop", settings.loop, *options) as server, ExitStack() as stack:
            for _ in range(WARM_UP):
                Visitor(stack, server, deflate).talk()
            before = server.memory()
            visitors = [Visitor(stack, server, deflate) for _ in range(count)]
            if deflate:
                for visitor in visitors:
                    visitor.talk()
            return (server.memory() - before) / count

    def loader(stack: ExitStack, settings: Settings) -> Turn:
        with running(settings.tree, peer, *options) as server, ExitStack() as visitors:
            Visitor(visitors, server, deflate).talk()
        return lambda: measure(settings)

    return loader


def echo(stack: ExitStack, listener: socket.socket) -> None:
    """Accept a client, compress with the largest window, and stay connected after the last message."""
    sock = stack.enter_context(listener.accept()[0])
    sock.settimeout(TIMEOUT)
    connection = ServerConnection(compression=LARGEST)
    answered = 0
    while answered < len(samples.DOCUMENTS):
        connection.receive_data(sock.recv(65536))
        while event := connection.next_event():
            if type(event) is Request:
                connection.accept()
                assert connection.compression is not None, "the client does not compress"
            else:
                assert type(event) is Binary, event
                connection.send_binary(event.data)
                answered += 1
        sock.sendall(connection.data_to_send())


def client_memory(peer: str) -> Loader:
    def turn(settings: Settings, count: int) -> float:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.create_server((HOST, 0)))
            listener.settimeout(TIMEOUT)
            client = Client(stack, settings.tree, peer, listener.getsockname()[1], "--compressed")
            client.answer()

            def open_more(number: int) -> float:
                client.tell(str(number))
                for _ in range(number):
                    echo(stack, listener)
                client.answer()
                return client.memory()

            before = open_more(WARM_UP)
            return (open_more(count) - before) / count

    def loader(stack: ExitStack, settings: Settings) -> Turn:
        turn(settings, 1)
        return lambda: turn(settings, settings.scaled(CONNECTIONS))

    return loader


def importing(module: str) -> Loader:
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"

    def loader(stack: ExitStack, settings: Settings) -> Turn:
        # All have their bytecode: those that pip installed, and those that it did not.
        environment = {**settings.tree.environment(), "PYTHONDONTWRITEBYTECODE": ""}

        def turn() -> float:
            command = [sys.executable, "-c", code]
            run = subprocess.run(command, capture_output=True, timeout=TIMEOUT, env=environment)
            if run.returncode:
                raise failure(run.stderr.decode())
            return float(run.stdout) * 1000

        turn()  # makes the bytecode
        return turn

    return loader


def rows() -> list[Row]:
    def memory_row(name: str, deflate: Deflate | None, wanted: tuple[Target, ...]) -> Row:
        # picows does not compress.
        peers = {peer: memory(peer, deflate) for peer in PEERS if not deflate or peer != "picows"}
        return Row(f"memory, {name}", "KiB", peers, wanted, turns=3)

    clients = {WSFRAME: client_memory("wsframe.sync"), "websockets.sync": client_memory("websockets.sync")}
    imports = {peer: importing(module) for peer, module in IMPORTS.items()}
    return [
        memory_row("idle", None, targets("", 8, 6.5)),
        memory_row("64 KiB compressed", BROWSER, targets("", 55, 52)),
        Row("memory of a client, 64 KiB compressed", "KiB", clients, turns=3),
        Row("import", "ms", imports, targets("websockets", 1 / 0.6, 1 / 0.6)),
    ]
