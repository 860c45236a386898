"""Send one message of 1 GiB to a server and one back, in little memory, on asyncio and on threads.

    python examples/stream.py             1 GiB each way through both adapters
    python examples/stream.py aio 64      64 MiB through one of them
    python examples/stream.py sync 64 compressed

``send`` takes an iterable, and sends each of its items as a fragment; ``recv_stream`` gives a message in
pieces, as they arrive. Neither end ever holds more than what is on the way. Server and client run in one
process here; the memory that is printed is what both took together, above what the program had before.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator

from wsframe import Deflate, aio, sync

PIECE = os.urandom(8192) * 8  # 64 KiB
OPTIONS = {"max_message_size": None, "compression": None}


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


async def stream_on_asyncio(count: int) -> int:
    async def answer(ws: aio.WebSocket) -> None:
        received = 0
        async for piece in ws.recv_stream():
            received += len(piece)
        await ws.send(pieces(received // len(PIECE)))

    received = 0
    async with (
        aio.serve(answer, "localhost", 0, **OPTIONS) as server,
        aio.connect(f"ws://localhost:{server.port}/", **OPTIONS) as ws,
    ):
        await ws.send(pieces(count))
        async for piece in ws.recv_stream():
            received += len(piece)
    return received


def stream_on_threads(count: int) -> int:
    def answer(ws: sync.WebSocket) -> None:
        received = sum(len(piece) for piece in ws.recv_stream())
        ws.send(pieces(received // len(PIECE)))

    with sync.serve(answer, "localhost", 0, **OPTIONS) as server:
        threading.Thread(target=server.serve_forever).start()
        with sync.connect(f"ws://localhost:{server.port}/", **OPTIONS) as ws:
            ws.send(pieces(count))
            return sum(len(piece) for piece in ws.recv_stream())


def run(name: str, size: int) -> None:
    count = size * 2**20 // len(PIECE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    received = asyncio.run(stream_on_asyncio(count)) if name == "aio" else stream_on_threads(count)
    seconds = time.perf_counter() - start
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert received == size * 2**20
    print(f"{name}: {size} MiB each way in {seconds:.1f} s, {more / 1024:.1f} MiB of memory", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "compressed" in arguments:
        arguments.remove("compressed")
        OPTIONS["compression"] = Deflate()
    name, size = (*arguments, "", "")[:2]
    for adapter in [name] if name else ["aio", "sync"]:
        run(adapter, int(size or 1024))
