"""Measure permessage-deflate: `python -m benchmarks.deflate`.

    throughput  a message of JSON through two Connections, sans-IO: send_binary on a server, next_event on a
                client, for each zlib module, with context takeover, 12 window bits, memory level 5
    threshold   what compressing short messages costs and saves, with and without context takeover
    no takeover a fresh zlib object for each message, beside one that Z_FULL_FLUSH clears
    memory      resident memory of an asyncio echo server for each of 500 connections: idle, and after one
                compressed message each way, beside websockets and aiohttp

The figures of memory are differences of the resident size of a process. The others are medians of turns.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import wsframe
from wsframe import Binary, ClientConnection, Connection, Deflate, Response, Role, aio

TURNS = 9
MODULES = ("zlib", "zlib_ng.zlib_ng", "isal.isal_zlib")
CONNECTIONS = 500


def messages(size: int, count: int) -> list[bytes]:
    """JSON as a dashboard or a chat sends it: alike, but no two the same."""
    rng = random.Random(1)

    def entry() -> dict[str, Any]:
        return {
            "id": rng.randrange(10**6),
            "user": rng.choice(["alice", "bob", "carol", "dave"]),
            "price": round(rng.random() * 100, 2),
            "tags": rng.sample(["red", "green", "blue", "large", "small"], 2),
        }

    text = json.dumps([entry() for _ in range(count * size // 60)]).encode()
    return [text[i * size : (i + 1) * size] for i in range(count)]


def microseconds(call: Callable[[bytes], object], inputs: list[bytes]) -> float:
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        for octets in inputs:
            call(octets)
        times.append((time.perf_counter() - start) / len(inputs) * 1e6)
    return statistics.median(times)


def measure_throughput() -> None:
    print(f"\n{'throughput':34}{'compress':>16}{'decompress':>18}{'size':>10}")
    for size, count in ((200, 400), (2048, 200), (65536, 12)):
        for name in MODULES:
            deflate = Deflate(zlib=importlib.import_module(name), threshold=0)
            server = Connection(Role.SERVER, deflate=deflate)
            inputs = messages(size, count)
            frames: list[bytes] = []

            def send(message: bytes, server: Connection = server, frames: list[bytes] = frames) -> None:
                server.send_binary(message)
                frames.append(server.data_to_send())

            compressing = microseconds(send, inputs)
            client = Connection(Role.CLIENT, deflate=deflate)

            def receive(frame: bytes, client: Connection = client) -> None:
                client.receive_data(frame)
                assert type(client.next_event()) is Binary

            decompressing = []
            for turn in range(TURNS):  # a frame can be read once only
                turn_frames = frames[turn * count : (turn + 1) * count]
                start = time.perf_counter()
                for frame in turn_frames:
                    receive(frame)
                decompressing.append((time.perf_counter() - start) / count * 1e6)
            took = statistics.median(decompressing)
            ratio = sum(map(len, frames)) / len(frames) / size
            print(
                f"{size:7} octets  {name:18}{compressing:8.1f} us {size / compressing:4.0f} MB/s"
                f"{took:8.1f} us {size / took:5.0f} MB/s{ratio:8.1%}"
            )


def measure_threshold() -> None:
    print(f"\n{'threshold':20}{'plain':>10}{'with takeover':>24}{'without':>22}")
    for size in (16, 32, 64, 96, 128, 192, 256, 512):
        row = f"{size:7} octets     "
        inputs = messages(size, 400)
        for deflate in (None, Deflate(threshold=0), Deflate(threshold=0, server_no_context_takeover=True)):
            server = Connection(Role.SERVER, deflate=deflate)
            client = Connection(Role.CLIENT, deflate=deflate)
            lengths = []

            def both(
                message: bytes,
                server: Connection = server,
                client: Connection = client,
                lengths: list[int] = lengths,
            ) -> None:
                server.send_binary(message)
                frame = server.data_to_send()
                lengths.append(len(frame))
                client.receive_data(frame)
                client.next_event()

            row += f"{microseconds(both, inputs):8.1f} us {statistics.mean(lengths):6.1f} octets"
        print(row)


def measure_no_takeover() -> None:
    print(f"\n{'without takeover':24}{'fresh object':>14}{'Z_FULL_FLUSH':>14}")
    for size, name in itertools.product((64, 200, 2048, 65536), MODULES):
        module: Any = importlib.import_module(name)
        inputs = messages(size, 400 if size < 65536 else 10)
        kept = module.compressobj(module.Z_DEFAULT_COMPRESSION, module.DEFLATED, -12, 5)

        def fresh(octets: bytes, module: Any = module) -> None:
            compressor = module.compressobj(module.Z_DEFAULT_COMPRESSION, module.DEFLATED, -12, 5)
            compressor.compress(octets) + compressor.flush(module.Z_SYNC_FLUSH)

        def cleared(octets: bytes, kept: Any = kept, module: Any = module) -> None:
            kept.compress(octets) + kept.flush(module.Z_FULL_FLUSH)

        a, b = microseconds(fresh, inputs), microseconds(cleared, inputs)
        print(f"{size:6} {name:16}{a:11.1f} us{b:11.1f} us")


# Memory


async def serve_wsframe(deflate: Deflate | None) -> None:
    async def echo(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with aio.serve(echo, "127.0.0.1", 0, deflate=deflate) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def serve_websockets(compression: str | None) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=compression, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def serve_aiohttp(compress: bool) -> None:
    from aiohttp import web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=compress)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


SERVERS: dict[str, Callable[[], Any]] = {
    "wsframe": lambda: serve_wsframe(Deflate()),
    "wsframe, deflate=None": lambda: serve_wsframe(None),
    "websockets": lambda: serve_websockets("deflate"),
    "websockets, compression=None": lambda: serve_websockets(None),
    "aiohttp": lambda: serve_aiohttp(True),
    "aiohttp, compress=False": lambda: serve_aiohttp(False),
}


def resident(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4.0  # KiB


def converse(conn: ClientConnection, sock: socket.socket, expected: type) -> None:
    sock.sendall(conn.data_to_send())
    while not (event := conn.next_event()):
        conn.receive_data(sock.recv(65536))
    assert isinstance(event, expected), event


def measure_memory() -> None:
    print(f"\n{'memory per connection':32}{'idle':>12}{'after one message':>20}")
    message = messages(500, 1)[0]
    for name in SERVERS:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.deflate", "serve", name]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            uri = f"ws://127.0.0.1:{port}/"
            ends = []
            try:
                for number in range(CONNECTIONS + 20):
                    if number == 20:  # after a few, what is made once is there
                        before = resident(server.pid)
                    conn, sock = ClientConnection(uri), socket.create_connection(("127.0.0.1", port))
                    ends.append((conn, sock))
                    converse(conn, sock, Response)
                    if number < 20:
                        conn.send_binary(message)
                        converse(conn, sock, Binary)
                idle = resident(server.pid)
                for conn, sock in ends[20:]:
                    conn.send_binary(message)
                    converse(conn, sock, Binary)
                after = resident(server.pid)
            finally:
                for _, sock in ends:
                    sock.close()
                server.kill()
        row = f"{(idle - before) / CONNECTIONS:8.1f} KiB{(after - before) / CONNECTIONS:16.1f} KiB"
        print(f"{name:32}{row}", flush=True)


def main() -> None:
    build = "compiled mask" if wsframe.compiled else "pure Python"
    print(f"wsframe {build}, zlib {zlib.ZLIB_RUNTIME_VERSION}, Python {sys.version.split()[0]}")
    measure_throughput()
    measure_threshold()
    measure_no_takeover()
    measure_memory()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(SERVERS[sys.argv[2]]())
    else:
        main()
