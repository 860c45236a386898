"""The server of load.py: it serves in a process of its own, and says what it holds.

It prints its port, and then answers each line of JSON on stdin with one on stdout:

    {"do": "report"}    what it holds now, and its longest stall since the last answer
    {"do": "settle", "files": 8, "tasks": 1, "threads": 1}
                        the same, as soon as it holds no more than that
    {"do": "trace"}     the same, and from now on with the memory that Python objects take

SIGTERM ends it as it should end a server: it closes the connections and waits for the handlers. Its last line
says how long that took and how many messages ``send()`` accepted on each connection that has a number.

    /echo       send back what comes
    /push/7     send numbered messages until the end, as connection 7
    /echo/7     the same as /echo, and count as connection 7
    /close      return at once
    /timed      send back what comes, and leave who sends no message for ``patience`` seconds
    /impatient  push, and close after ``patience`` seconds
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from wsframe import aio, sync

HOST = "127.0.0.1"
TICK = 0.005  # seconds
# Otherwise each connection that nobody reads fills megabytes of the kernel's memory.
SEND_BUFFER = 65536
SIZE = 1024  # bytes of a numbered message

Report = dict[str, Any]


def numbered(number: int, size: int = SIZE) -> bytes:
    """Return a message that says which it is."""
    return number.to_bytes(8, "big") + bytes(size - 8)


def allow_many_files() -> int:
    """Let this process open as many files as it may, and return how many these are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Gauge:
    """Measure what the process holds, and how late a ticker is.

    Args:
        count_tasks: a function that returns the number of tasks.
        is_loop: whether the thread that ticks is the one that serves.
    """

    def __init__(self, count_tasks: Callable[[], int], *, is_loop: bool) -> None:
        self._count_tasks = count_tasks
        self._is_loop = is_loop
        self._settled: Report | None = None
        self._ticks = 0
        self.start()

    def start(self) -> None:
        """Begin to measure stalls."""
        self._stall = self._cpu_stall = 0.0
        self._due = time.perf_counter() + TICK
        self._cpu: float | None = None  # the clock of the thread that ticks

    def tick(self) -> None:
        """Take note of how late this is called, and of the CPU that was used meanwhile."""
        self._stall = max(self._stall, time.perf_counter() - self._due)
        if self._cpu is not None:
            self._cpu_stall = max(self._cpu_stall, time.thread_time() - self._cpu)
        self._ticks += 1
        if self._ticks % 4 == 0:
            self._check()
        self._due, self._cpu = time.perf_counter() + TICK, time.thread_time()

    def command(self, line: str) -> None:
        """Obey."""
        command = json.loads(line)
        self._settled = None
        match command.pop("do"):
            case "settle":
                self._settled = command
                return
            case "trace":
                tracemalloc.start()
        say(self.report())
        self.start()

    def _check(self) -> None:
        most = self._settled
        if (
            most is not None
            and self._count_tasks() <= most["tasks"]
            and threads() <= most["threads"]
            and files() <= most["files"]
        ):
            self._settled = None
            say(self.report())
            self.start()

    def report(self) -> Report:
        """Return what the process holds."""
        report = {
            "stall": self._stall * 1000,
            "cpu_stall": self._cpu_stall * 1000 if self._is_loop else None,
            "tasks": self._count_tasks(),
            "threads": threads(),
            "files": files(),
        }
        if tracemalloc.is_tracing():
            gc.collect()
            report["traced"] = tracemalloc.get_traced_memory()[0]
        return report


def threads() -> int:
    return threading.active_count()


def files() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # that of the directory


def say(line: Report) -> None:
    print(json.dumps(line), flush=True)


def listen() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.bind((HOST, 0))
    return sock


def key_of(path: str) -> int:
    """Return the number of a connection, -1 if it has none."""
    return int(path.rpartition("/")[2]) if path.count("/") == 2 else -1


# asyncio


class AioHandlers:
    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.accepted: dict[int, int] = {}

    async def __call__(self, websocket: aio.WebSocket) -> None:
        match websocket.path.split("/")[1]:
            case "echo":
                await self.echo(websocket)
            case "push":
                await self.push(websocket)
            case "timed":
                await self.timed(websocket)
            case "impatient":
                await self.impatient(websocket)

    async def echo(self, websocket: aio.WebSocket) -> None:
        key, accepted = key_of(websocket.path), 0
        try:
            async for message in websocket:
                await websocket.send(message)
                accepted += 1
        finally:
            self.accepted[key] = accepted

    async def push(self, websocket: aio.WebSocket) -> None:
        key, accepted = key_of(websocket.path), 0
        try:
            while True:
                await websocket.send(numbered(accepted))
                accepted += 1
                if key >= 0:  # one of many: let others have a turn
                    await asyncio.sleep(0)
        finally:
            self.accepted[key] = accepted

    async def timed(self, websocket: aio.WebSocket) -> None:
        try:
            while True:
                await websocket.send(await websocket.recv(self.patience))
        except TimeoutError:
            pass

    async def impatient(self, websocket: aio.WebSocket) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await self.push(websocket)
        except TimeoutError:
            await websocket.close(1008, "too slow")


async def run_aio(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    handlers = AioHandlers(options.patience)
    gauge = Gauge(lambda: len(asyncio.all_tasks()), is_loop=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def tick() -> None:
        gauge.tick()
        loop.call_later(TICK, tick)

    def obey() -> None:
        lines = os.read(0, 65536).decode()
        for line in lines.splitlines():
            gauge.command(line)
        if not lines:
            loop.remove_reader(0)
            stop.set()

    timeouts = {"open_timeout": options.open_timeout, "close_timeout": options.close_timeout}
    async with aio.serve(handlers, sock=listen(), compression=None, ping_interval=None, **timeouts) as server:
        loop.add_reader(0, obey)
        tick()
        gauge.start()
        say({"port": server.port})
        await stop.wait()
        gauge.start()
        start = time.monotonic()
        await server.close()
        seconds = time.monotonic() - start
        await asyncio.sleep(0)  # the callbacks of what has ended
        report = gauge.report()
    say({"seconds": seconds, "accepted": handlers.accepted, **report})


# Threads


class SyncHandlers:
    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.accepted: dict[int, int] = {}

    def __call__(self, websocket: sync.WebSocket) -> None:
        match websocket.path.split("/")[1]:
            case "echo":
                self.echo(websocket)
            case "push":
                self.push(websocket)
            case "timed":
                self.timed(websocket)
            case "impatient":
                self.impatient(websocket)

    def echo(self, websocket: sync.WebSocket) -> None:
        key, accepted = key_of(websocket.path), 0
        try:
            for message in websocket:
                websocket.send(message)
                accepted += 1
        finally:
            self.accepted[key] = accepted

    def push(self, websocket: sync.WebSocket) -> None:
        key, accepted = key_of(websocket.path), 0
        try:
            while True:
                websocket.send(numbered(accepted))
                accepted += 1
        finally:
            self.accepted[key] = accepted

    def timed(self, websocket: sync.WebSocket) -> None:
        try:
            while True:
                websocket.send(websocket.recv(self.patience))
        except TimeoutError:
            pass

    def impatient(self, websocket: sync.WebSocket) -> None:
        # send() takes no timeout: another thread closes.
        timer = threading.Timer(self.patience, websocket.close, (1008, "too slow"))
        timer.start()
        try:
            self.push(websocket)
        finally:
            timer.cancel()
            timer.join()


def run_sync(options: argparse.Namespace) -> None:
    handlers = SyncHandlers(options.patience)
    gauge = Gauge(lambda: 0, is_loop=False)
    took: list[float] = []

    def tick() -> None:
        never = threading.Event()
        while not never.wait(TICK):
            gauge.tick()

    def obey() -> None:
        for line in sys.stdin:
            gauge.command(line)
        os.kill(os.getpid(), signal.SIGTERM)

    timeouts = {"open_timeout": options.open_timeout, "close_timeout": options.close_timeout}
    with sync.serve(
        handlers, sock=listen(), compression=None, max_connections=options.cap, ping_interval=None, **timeouts
    ) as server:

        def stop(*_: object) -> None:
            gauge.start()
            start = time.monotonic()
            server.close()
            took.append(time.monotonic() - start)

        signal.signal(signal.SIGTERM, stop)
        for function in (tick, obey):
            threading.Thread(target=function, daemon=True).start()
        say({"port": server.port})
        server.serve_forever()
    say({"seconds": took[0], "accepted": handlers.accepted, **gauge.report()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapter", choices=("aio", "sync"), default="aio")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--open-timeout", type=float, default=10)
    parser.add_argument("--close-timeout", type=float, default=10)
    parser.add_argument("--patience", type=float, default=10)
    parser.add_argument("--cap", type=int, default=1000)
    options = parser.parse_args()
    allow_many_files()
    if options.adapter == "sync":
        run_sync(options)
        return
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run_aio(options))


if __name__ == "__main__":
    main()
