"""Publish over Redis to many clients of many servers, kill Redis and start it again, and count what arrives.

    python -m tests.hub.load            # 4 servers with 500 clients each
    python -m tests.hub.load --quick    # the same, smaller: a few seconds

The publisher, each server and each fleet of clients are processes of their own. There are two rounds, and in
between Redis is killed, and started again when publish() has failed. In a round each client must get every
message, once and in order; what is published while Redis is away must fail. The exit code is 1 if that is not
so.

CPU is what the processes of a kind used in both rounds together: per delivery for servers and clients, per
message for the publisher and Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.load.server import allow_many_files
from tests.support.paths import ROOT
from tests.support.redis_server import RedisServer, redis_server
from wsframe import compiled
from wsframe.aio import WebSocket, connect, serve
from wsframe.hub import Hub

TOPIC = "load"
SIZE = 100  # bytes of a message
AT_ONCE = 100  # messages that are published at a time, and clients that connect


# The processes. Each is told what to do by lines of JSON, and answers by such lines.


async def told() -> Any:
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


def tell(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def publish(url: str) -> None:
    """Publish the numbers of a range; answer how many were published and in how many seconds."""
    async with Hub(url) as hub:
        while order := await told():
            numbers = range(*order)
            published = 0
            start, cpu = time.perf_counter(), time.process_time()
            for first in numbers[::AT_ONCE]:
                batch = range(first, min(first + AT_ONCE, numbers.stop))
                results = await asyncio.gather(
                    *(hub.publish(TOPIC, f"{number:<{SIZE}}") for number in batch), return_exceptions=True
                )
                published += sum(result is None for result in results)
                for result in results:
                    assert result is None or isinstance(result, ConnectionError), result
            tell([published, time.perf_counter() - start, time.process_time() - cpu])


async def host(url: str) -> None:
    """Serve clients, who all subscribe; answer when Redis was away and is back."""

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno in (logging.WARNING, logging.INFO):
                tell("away" if record.levelno == logging.WARNING else "back")

    logger = logging.getLogger("wsframe.hub")
    logger.setLevel(logging.INFO)
    async with Hub(url) as hub:

        async def handler(websocket: WebSocket) -> None:
            await hub.subscribe(websocket, TOPIC)
            await websocket.send("subscribed")
            async for _ in websocket:
                raise AssertionError("clients say nothing")

        async with serve(handler, "127.0.0.1", 0) as server:
            tell(server.port)
            logger.addHandler(Said())
            while await told():
                tell(time.process_time())


async def listen(ports: list[int], count: int) -> None:
    """Connect so many clients to each server; answer what they miss of a range, and when they had it."""
    clients: list[WebSocket] = []
    for port in ports:
        for first in range(0, count, AT_ONCE):
            these = range(first, min(first + AT_ONCE, count))
            clients += await asyncio.gather(
                *(connect(f"ws://127.0.0.1:{port}/", compression=None) for _ in these)
            )
    for client in clients:
        assert await client.recv() == "subscribed"
    tell(len(clients))
    while order := await told():
        cpu = time.process_time()
        wrong = sum(await asyncio.gather(*(heard(client, range(*order)) for client in clients)))
        tell([wrong, time.monotonic(), time.process_time() - cpu])
    for client in clients:
        client.transport.abort()


async def heard(client: WebSocket, numbers: range) -> int:
    """Receive up to the last number; return how many messages are missing, doubled or not in order."""
    wrong = 0
    expected = numbers.start
    while expected < numbers.stop:
        try:
            number = int(await client.recv(30))
        except TimeoutError:
            return wrong + numbers.stop - expected
        wrong += abs(number - expected)
        expected = number + 1
    return wrong


# The one that starts them


class Process:
    """A process that does as it is told."""

    def __init__(self, role: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", "tests.hub.load", "--role", role, json.dumps(arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"a process has ended: {self.process.args}"
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def running(role: str, *arguments: Any) -> Iterator[Process]:
    process = Process(role, *arguments)
    try:
        yield process
    finally:
        process.close()


def redis_cpu(redis: RedisServer) -> float:
    with redis.client() as client:
        cpu = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def run(servers: int, clients: int, fleets: int, messages: int) -> bool:
    """Run both rounds; return whether all is well."""
    is_well = True
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        hosts = [stack.enter_context(running("host", redis.url)) for _ in range(servers)]
        ports = [host.answer() for host in hosts]
        share = clients // fleets
        listeners = [stack.enter_context(running("listen", ports, share)) for _ in range(fleets)]
        publisher = stack.enter_context(running("publish", redis.url))
        count = sum(listener.answer() for listener in listeners)
        print(
            f"{count} clients of {servers} servers, {'compiled' if compiled else 'pure Python'}", flush=True
        )
        used: dict[str, float] = dict.fromkeys(("publisher", "Redis", "servers", "clients"), 0.0)

        def server_cpu() -> float:
            for host in hosts:
                host.tell("cpu")
            return float(sum(host.answer() for host in hosts))

        def play(numbers: range) -> None:
            nonlocal is_well
            before = redis_cpu(redis), server_cpu()
            start = time.monotonic()
            for process in (*listeners, publisher):
                process.tell([numbers.start, numbers.stop])
            published, seconds, cpu = publisher.answer()
            answers = [listener.answer() for listener in listeners]
            wrong = sum(answer[0] for answer in answers)
            took = max(answer[1] for answer in answers) - start
            used["publisher"] += cpu
            used["clients"] += sum(answer[2] for answer in answers)
            used["Redis"] += redis_cpu(redis) - before[0]
            used["servers"] += server_cpu() - before[1]
            is_well &= published == len(numbers) and not wrong
            if len(numbers) == 1:
                return
            print(
                f"{published} messages published in {seconds:.2f} s, {published / seconds:.0f}/s; "
                f"{count * len(numbers)} deliveries in {took:.2f} s, {count * len(numbers) / took:.0f}/s; "
                f"{wrong} missing, doubled or out of order",
                flush=True,
            )

        play(range(messages))
        redis.kill()
        start = time.monotonic()
        publisher.tell([0, AT_ONCE])
        published, *_ = publisher.answer()
        is_well &= published == 0
        print(f"Redis is killed: {AT_ONCE - published} of {AT_ONCE} messages are refused", flush=True)
        assert [host.answer() for host in hosts] == ["away"] * servers
        redis.restart()
        restarted = time.monotonic()
        for host in hosts:
            while host.answer() != "back":
                pass
        print(
            f"Redis was away for {restarted - start:.2f} s; all are subscribed again "
            f"{time.monotonic() - restarted:.2f} s later",
            flush=True,
        )
        play(range(messages, 2 * messages))
        play(range(2 * messages, 2 * messages + 1))  # nothing else has come before it
        for kind, cpu in used.items():
            each = 2 * messages * (count if kind in ("servers", "clients") else 1)
            print(f"CPU of the {kind}: {cpu:.2f} s, {cpu / each * 1e6:.1f} us each", flush=True)
    print("well" if is_well else "BROKEN", flush=True)
    return is_well


def main() -> int:
    allow_many_files()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=500, help="of each server; %(default)s by default")
    parser.add_argument("--fleets", type=int, default=2, help="processes of clients; %(default)s by default")
    parser.add_argument("--messages", type=int, default=1000, help="in a round; %(default)s by default")
    options = parser.parse_args()
    if options.role is not None:
        role, arguments = options.role
        asyncio.run({"publish": publish, "host": host, "listen": listen}[role](*json.loads(arguments)))
        return 0
    if options.quick:
        options.servers, options.clients, options.messages = 2, 10, 50
    return not run(options.servers, options.clients, options.fleets, options.messages)


if __name__ == "__main__":
    sys.exit(main())
