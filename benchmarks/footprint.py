"""Measure what wsframe takes before it does anything: memory of a connection, and time to import it.

memory    the resident memory of an asyncio echo server (Rss), for each of 500 connections: idle, and after
          one message each way. What the first 20 connections take is not counted: much is made once. With
          deflate, the client offers what wsframe's client offers by default, 12 window bits, and the message
          is compressed both ways; the memory level is each server's own choice
import    CPU of ``import`` in a fresh interpreter, with its bytecode there
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack

from wsframe import Binary, ClientConnection, Deflate, Response

from . import load, samples
from .rows import WSFRAME, Loader, Row, Settings, Target, Turn, targets

WARM_UP = 20
CONNECTIONS = 500
MESSAGE = samples.documents(500, 1)[0]
PEERS = (WSFRAME, "websockets", "picows", "picows.websockets", "aiohttp")
IMPORTS = {
    WSFRAME: "wsframe",
    "websockets": "websockets.server",
    "wsproto": "wsproto",
    "aiohttp": "aiohttp.web",
    "picows": "picows",
    "websocket-client": "websocket",
}


def converse(connection: ClientConnection, sock: socket.socket, expected: type) -> None:
    sock.sendall(connection.data_to_send())
    while not (event := connection.next_event()):
        connection.receive_data(sock.recv(65536))
    assert type(event) is expected, event


def memory(peer: str, deflate: bool, after_a_message: bool) -> Loader:
    options = ["--deflate"] if deflate else []

    def open_one(stack: ExitStack, port: int) -> tuple[ClientConnection, socket.socket]:
        connection = ClientConnection(f"ws://{load.HOST}:{port}/", deflate=Deflate() if deflate else None)
        sock = stack.enter_context(socket.create_connection((load.HOST, port), timeout=load.TIMEOUT))
        converse(connection, sock, Response)
        return connection, sock

    def send(connection: ClientConnection, sock: socket.socket) -> None:
        connection.send_binary(MESSAGE)
        converse(connection, sock, Binary)

    def measure(count: int, loop: str) -> float:
        with ExitStack() as stack:
            server = stack.enter_context(load.running(peer, "--loop", loop, *options))
            for _ in range(WARM_UP):
                send(*open_one(stack, server.port))
            before = server.memory()
            opened = [open_one(stack, server.port) for _ in range(count)]
            if after_a_message:
                for connection, sock in opened:
                    send(connection, sock)
            return (server.memory() - before) / count

    def loader(stack: ExitStack, settings: Settings) -> Turn:
        with load.running(peer, *options) as server, ExitStack() as connections:
            connection, sock = open_one(connections, server.port)
            send(connection, sock)
            assert connection.response is not None
            assert bool(connection.response.headers.get("sec-websocket-extensions")) is deflate
        return lambda: measure(settings.scaled(CONNECTIONS), settings.loop)

    return loader


def importing(module: str) -> Loader:
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    # All have their bytecode: those that pip installed, and those that it did not.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}

    def turn() -> float:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, timeout=load.TIMEOUT, env=environment)
        if run.returncode:
            raise load.failure(run.stderr.decode())
        return float(run.stdout) * 1000

    def loader(stack: ExitStack, settings: Settings) -> Turn:
        turn()  # makes the bytecode
        return turn

    return loader


def rows() -> list[Row]:
    def memory_row(name: str, deflate: bool, after_a_message: bool, wanted: tuple[Target, ...] = ()) -> Row:
        peers = {
            peer: memory(peer, deflate, after_a_message)
            for peer in PEERS
            if peer != "picows" or not deflate  # it does not compress
        }
        return Row(f"memory, {name}", "KiB", peers, is_cost=True, targets=wanted, turns=3)

    imports = {peer: importing(module) for peer, module in IMPORTS.items()}
    return [
        memory_row("idle", False, False),
        memory_row("after a message", False, True, targets("", 8, 7)),
        memory_row("deflate, idle", True, False),
        memory_row("deflate, after a message", True, True, targets("", 40, 40)),
        Row("import", "ms", imports, is_cost=True, targets=targets("websockets", 1 / 0.6, 1 / 0.6)),
    ]
