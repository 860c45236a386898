"""A dashboard: once a second this process measures itself, and every browser draws it.

A sample is JSON; it is encoded and compressed once for all. Who comes later gets the last minute first.
"""

import asyncio
import json
import os
import resource
import time
from collections import deque
from pathlib import Path

from wsframe import Response
from wsframe.aio import broadcast, serve

PAGE = Path(__file__).with_suffix(".html").read_bytes()
HTML = [("Content-Type", "text/html; charset=utf-8")]
samples = deque(maxlen=60)


def page(request):
    return None if request.is_upgrade else Response(200, HTML, PAGE)


async def dashboard(ws):
    await ws.send(json.dumps(list(samples)))
    await ws.wait_closed()


async def measure(server):
    while True:
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(1)
        seconds = time.perf_counter() - start
        sample = {
            "cpu": (time.process_time() - cpu) / seconds,  # of one core
            "delay": seconds - 1,  # how late the event loop is, in seconds
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,  # at most so far, in KiB on Linux
            "load": os.getloadavg()[0],
            "connections": len(server.connections),
            "compression_ratio": server.counters.compression_ratio,
            "counters": server.counters._asdict(),
        }
        samples.append(sample)
        # A browser that does not keep up misses samples, and gets the next ones in time.
        broadcast(server.connections, json.dumps(sample), max_buffered=2**14)


async def main():
    port = int(os.environ.get("PORT", 8001))
    async with serve(dashboard, "localhost", port, process_request=page, max_message_size=0) as server:
        print(f"http://localhost:{server.port}/", flush=True)
        await measure(server)


asyncio.run(main())
