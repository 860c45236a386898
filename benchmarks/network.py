"""Measure servers and clients over the loopback: throughput, round trips, CPU of the server.

Each server runs in a process of its own, and all servers of a row are there all the time. The client is
``load``, except where clients are measured. Where the unit is CPU, it is the server's, in user and in kernel
mode, for each message, handshake or broadcast: so what the client takes does not matter.

    echo         one connection; all frames of those in flight are written at once, then all answers read
    100 conns    100 connections, one frame in flight on each
    handshakes   connect, open, close: one connection after the other
    broadcast    one of 1000 clients sends a message, which the server sends to all of them
    sync         blocking clients, beside a server of bare threads; servers of threads, beside ``load``

In ping-pong, client and server are on the same core: only one of them has something to do at a time. Left
alone, the scheduler has them on one core or on two, as it likes, and waking the other core takes longer than
an echo.

Messages are binary: 64 octets if nothing else is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from . import load, samples
from .rows import WSFRAME, Loader, Row, Settings, Turn, targets

BARE = "bare TCP"
# picows brings transports of its own, aiofastnet; this is picows without them.
PLAIN = "picows (no aiofastnet)"
ASYNC = (WSFRAME, "websockets", "picows", "picows.websockets", "aiohttp", BARE)
SYNC = {WSFRAME: "wsframe.sync", "websockets.sync": "websockets.sync"}
ASGI = {WSFRAME: "wsframe.asgi", "websockets-sansio": "websockets-sansio", "wsproto": "wsproto"}
SIZE = 64


def start(stack: ExitStack, peer: str, settings: Settings, *options: str) -> load.Server:
    return stack.enter_context(load.running(peer, "--loop", settings.loop, *options))


def exchange_with(peer: str, size: int = SIZE) -> load.Exchange:
    return load.Exchange(size, is_bare=peer == BARE)


def echo(peer: str, size: int, in_flight: int, rounds: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        server, exchange = start(stack, peer, settings), exchange_with(peer, size)
        if in_flight == 1:
            return ping_pong_turn(stack, server, exchange, settings.scaled(rounds))
        return echo_turn(stack, server, exchange, in_flight, settings.scaled(rounds))

    return loader


def sync_echo(peer: str, rounds: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        server = start(stack, SYNC[peer], settings)
        return ping_pong_turn(stack, server, exchange_with(peer), settings.scaled(rounds))

    return loader


def echo_turn(
    stack: ExitStack, server: load.Server, exchange: load.Exchange, in_flight: int, rounds: int
) -> Turn:
    sock = stack.enter_context(load.connect(server.port))
    load.verify(sock, exchange)
    load.echo(sock, exchange, in_flight, max(1, rounds // 10))
    return lambda: in_flight * rounds / load.echo(sock, exchange, in_flight, rounds)


def ping_pong_turn(stack: ExitStack, server: load.Server, exchange: load.Exchange, rounds: int) -> Turn:
    server.pin()
    turn = echo_turn(stack, server, exchange, 1, rounds)

    def turn_on_one_core() -> float:
        with load.pinned():
            return turn()

    return turn_on_one_core


def many(peer: str, connections: int, count: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        server, exchange, messages = start(stack, peer, settings), exchange_with(peer), settings.scaled(count)
        socks = load.connect_many(stack, server.port, connections)
        for sock in socks:
            load.verify(sock, exchange)

        def turn() -> float:
            before = server.cpu()
            load.echo_many(socks, exchange, messages)
            return (server.cpu() - before) / max(messages, connections) * 1e6

        return turn

    return loader


def handshakes(peer: str, count: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        server, times = start(stack, peer, settings), settings.scaled(count)
        load.handshakes(server.port, 10)

        def turn() -> float:
            before = server.cpu()
            load.handshakes(server.port, times)
            return (server.cpu() - before) / times * 1e6

        return turn

    return loader


def broadcast(peer: str, connections: int, rounds: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        server, exchange = start(stack, peer, settings, "--broadcast"), exchange_with(peer)
        socks = load.connect_many(stack, server.port, connections)
        times = settings.scaled(rounds)
        time.sleep(0.2)  # the last of them was answered, but may not be in the server's list yet
        load.verify_all(socks, exchange)

        def turn() -> float:
            before = server.cpu()
            load.receive_many(socks, exchange, times)
            return (server.cpu() - before) / times / connections * 1e6

        return turn

    return loader


# Blocking clients

PingPong = Callable[[bytes, int], bytes]


def wsframe_client(stack: ExitStack, uri: str) -> PingPong:
    from wsframe.sync import connect

    websocket = stack.enter_context(connect(uri, deflate=None, ping_interval=None))
    return lambda message, rounds: ping_pong(websocket.send, websocket.recv, message, rounds)


def websockets_client(stack: ExitStack, uri: str) -> PingPong:
    from websockets.sync.client import connect

    websocket = stack.enter_context(connect(uri, compression=None, ping_interval=None))
    return lambda message, rounds: ping_pong(websocket.send, websocket.recv, message, rounds)


def websocket_client(stack: ExitStack, uri: str) -> PingPong:
    from websocket import create_connection

    websocket = create_connection(uri, enable_multithread=False)
    stack.callback(websocket.close)
    return lambda message, rounds: ping_pong(websocket.send_binary, websocket.recv, message, rounds)


def ping_pong(send: Callable[[Any], Any], recv: Callable[[], Any], message: bytes, rounds: int) -> bytes:
    answer = b""
    for _ in range(rounds):
        send(message)
        answer = recv()
    return answer


CLIENTS: dict[str, Callable[[ExitStack, str], PingPong]] = {
    WSFRAME: wsframe_client,
    "websockets.sync": websockets_client,
    "websocket-client": websocket_client,
}


def sync_client(peer: str, rounds: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        server = stack.enter_context(load.running("threads"))
        server.pin()
        with load.pinned():  # and the thread that a client may have
            exchange = CLIENTS[peer](stack, f"ws://{load.HOST}:{server.port}/")
        message, times = samples.binary(SIZE), settings.scaled(rounds)
        assert exchange(message, 10) == bytes(SIZE)

        def turn() -> float:
            with load.pinned():
                start = time.perf_counter()
                exchange(message, times)
                return times / (time.perf_counter() - start)

        return turn

    return loader


def rows() -> list[Row]:
    def echo_row(name: str, size: int, in_flight: int, rounds: int, wanted: tuple[Any, ...]) -> Row:
        peers = {peer: echo(peer, size, in_flight, rounds) for peer in (*ASYNC, PLAIN)}
        return Row(f"echo {name}", "messages/s", peers, targets=wanted)

    core, both = "picows", targets("picows", None, 1)
    in_flight = targets("websockets", 4, 9) + targets(core, None, 2.5)
    round_trips = targets("websockets", 1.1, None) + both
    cpu = targets("websockets", 2, 3) + targets(core, None, 1 / 1.2) + targets("picows.websockets", None, 1)
    hands = targets("websockets", 1.5, 2) + targets(core, None, 1)
    all_of_them = targets("websockets", 1.5, 2) + targets(core, None, 1.2)
    clients = targets("websockets.sync", 1.3, 1.7) + targets("websocket-client", None, 1.35)
    return [
        echo_row("64, ping-pong", SIZE, 1, 3000, round_trips),
        echo_row("64, 64 in flight", SIZE, 64, 200, in_flight),
        echo_row("64 KiB, 64 in flight", 2**16, 64, 4, both),
        echo_row("1 MiB, 8 in flight", 2**20, 8, 3, both),
        Row(
            "100 connections, server CPU",
            "µs/message",
            {peer: many(peer, 100, 5000) for peer in (*ASYNC, PLAIN)},
            is_cost=True,
            targets=cpu,
        ),
        Row(
            "ASGI echo under uvicorn, 100 connections, server CPU",
            "µs/message",
            {peer: many(server, 100, 5000) for peer, server in ASGI.items()},
            is_cost=True,
            targets=targets("websockets-sansio", 1.3, 2),
        ),
        Row(
            "opening and closing handshake, server CPU",
            "µs",
            {peer: handshakes(peer, 150) for peer in ASYNC if peer != BARE},
            is_cost=True,
            targets=hands,
        ),
        Row(
            "broadcast to 1000, server CPU",
            "µs/client",
            {peer: broadcast(peer, 1000, 8) for peer in ASYNC},
            is_cost=True,
            targets=all_of_them,
        ),
        Row(
            "sync client, 64, ping-pong",
            "messages/s",
            {peer: sync_client(peer, 2500) for peer in CLIENTS},
            targets=clients,
        ),
        Row(
            "sync server, 64, ping-pong",
            "messages/s",
            {peer: sync_echo(peer, 2500) for peer in SYNC},
            targets=targets("websockets.sync", 1.3, 1.7),
        ),
    ]
