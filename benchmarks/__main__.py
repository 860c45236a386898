"""Measure decoding and asyncio echo beside `websockets`: `python -m benchmarks`.

Both are measured in turns in one run; a figure is the median of the turns. What counts is the ratio: the
machine is shared and noisy.

    decode      masked messages in reads of 64 KiB, sans-IO, on the server's side: messages a second
    echo        an asyncio echo server in a process of its own, coroutine API, and one raw client that sends
                octets made before; compression and keepalive are off: messages a second
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import websockets
import websockets.speedups  # its C mask must be there
from websockets.asyncio.server import serve as websockets_serve
from websockets.frames import Opcode as TheirOpcode
from websockets.server import ServerProtocol

import wsframe
from wsframe import Binary, Connection, Opcode, Role, Text, aio, encode_frame

TEXT, BINARY, CONT = TheirOpcode.TEXT, TheirOpcode.BINARY, TheirOpcode.CONT
TURNS = 9
READ = 65536
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode: Opcode, payload: bytes, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin, mask=os.urandom(4))


def fragmented(payload: bytes, count: int) -> bytes:
    size = len(payload) // count
    pieces = [payload[i * size : (i + 1) * size] for i in range(count)]
    return b"".join(
        masked(Opcode.CONTINUATION if i else Opcode.TEXT, piece, i == count - 1)
        for i, piece in enumerate(pieces)
    )


DECODE = {
    "decode text 32": (lambda: masked(Opcode.TEXT, b"x" * 32), 20000),
    "decode binary 125": (lambda: masked(Opcode.BINARY, b"x" * 125), 20000),
    "decode text 1 KiB": (lambda: masked(Opcode.TEXT, b"x" * 1024), 8000),
    "decode binary 16 KiB": (lambda: masked(Opcode.BINARY, b"x" * 16384), 1000),
    "decode binary 1 MiB": (lambda: masked(Opcode.BINARY, b"x" * 2**20), 20),
    "decode 16 fragments of 32": (lambda: fragmented(b"x" * 512, 16), 2000),
}


def decode_wsframe(reads: list[bytes]) -> int:
    connection = Connection(Role.SERVER)
    count = 0
    for read in reads:
        connection.receive_data(read)
        while event := connection.next_event():
            if type(event) is Text or type(event) is Binary:
                count += len(event.data) and 1
    return count


def decode_websockets(reads: list[bytes]) -> int:
    protocol = ServerProtocol()
    protocol.receive_data(REQUEST)
    (request,) = protocol.events_received()
    protocol.send_response(protocol.accept(request))
    fragments: list[bytes] = []
    is_text = False
    count = 0
    for read in reads:
        protocol.receive_data(read)
        for frame in protocol.events_received():
            if frame.opcode in (TEXT, BINARY, CONT):
                if frame.opcode is not CONT:
                    is_text = frame.opcode is TEXT
                fragments.append(frame.data)
                if frame.fin:
                    data = b"".join(fragments) if len(fragments) > 1 else fragments[0]
                    fragments = []
                    count += len(str(data, "utf-8") if is_text else data) and 1
    return count


def measure_decode(make: Callable[[], bytes], count: int) -> tuple[list[float], list[float]]:
    stream = b"".join(make() for _ in range(count))
    reads = [stream[i : i + READ] for i in range(0, len(stream), READ)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for decode, rates in zip((decode_wsframe, decode_websockets), times, strict=True):
            start = time.perf_counter()
            assert decode(reads) == count
            rates.append(count / (time.perf_counter() - start))
    return times


# Echo


async def serve_wsframe() -> None:
    async def echo(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with aio.serve(echo, "127.0.0.1", 0) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def serve_websockets() -> None:
    async def echo(websocket: websockets.ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with websockets_serve(echo, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


SERVERS = {"wsframe": serve_wsframe, "websockets": serve_websockets}
ECHO = {
    "echo 64 octets, ping-pong": (64, 1, 4000),
    "echo 64 octets, 64 in flight": (64, 64, 40000),
    "echo 64 KiB, 8 in flight": (65536, 8, 1000),
}


async def measure_one_echo(port: int, size: int, in_flight: int, count: int) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    message = masked(Opcode.BINARY, b"x" * size)
    answer = len(encode_frame(Opcode.BINARY, b"x" * size))
    batch = message * in_flight
    start = time.perf_counter()
    for _ in range(count // in_flight):
        writer.write(batch)
        await reader.readexactly(answer * in_flight)
    seconds = time.perf_counter() - start
    writer.write(masked(Opcode.CLOSE, b"\x03\xe8"))
    await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return count // in_flight * in_flight / seconds


def measure_echo(size: int, in_flight: int, count: int) -> tuple[list[float], list[float]]:
    rates: tuple[list[float], list[float]] = ([], [])
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks", "serve"]
    servers = [subprocess.Popen([*command, name], stdin=pipe, stdout=pipe) for name in SERVERS]
    try:
        ports = [int(server.stdout.readline()) for server in servers]  # type: ignore[union-attr]
        for _ in range(TURNS):
            for port, measured in zip(ports, rates, strict=True):
                measured.append(asyncio.run(measure_one_echo(port, size, in_flight, count)))
    finally:
        for server in servers:
            server.communicate()
    return rates


def main() -> None:
    build = "compiled mask" if wsframe.compiled else "pure Python"
    versions = f"websockets {websockets.__version__} with its C mask, Python {sys.version.split()[0]}"
    print(f"wsframe {build}, {versions}")
    print(f"{'':30}{'wsframe/s':>12}{'websockets/s':>14}{'ratio':>8}")
    for name, options in {**DECODE, **ECHO}.items():
        ours, theirs = measure_decode(*options) if name in DECODE else measure_echo(*options)  # type: ignore[arg-type,call-arg]
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"{name:30}{a:12,.0f}{b:14,.0f}{a / b:8.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(SERVERS[sys.argv[2]]())
    else:
        main()
