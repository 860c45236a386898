"""Put load on running servers, break their clients, and check what they promise then.

    python -m tests.load                                # aio on asyncio: 5,000 connections, 10,000 opens
    python -m tests.load --adapter aio --loop uvloop
    python -m tests.load --adapter sync --connections 500
    python -m tests.load --quick                        # the same, smaller: a few seconds

The server runs in a process of its own (server.py), the clients in this one (clients.py). Each line
is a phase and its figures; the exit code is 1 when a promise is broken, which says what and where.

    idle      connections are open, and say nothing
    active    the same ones send messages, and get them back
    vanish    clients break off or hang, each in another way: the server must free each of them within its
              timeouts, and others go on undisturbed
    churn     connections are opened, and end in all kinds of ways: nothing may be left
    SIGTERM   the server ends while it is busy: with 1001, in time, and what send() accepted arrives once
              and in order

A stall is how late a ticker is that should run every 5 ms: on the server's event loop, or in a thread beside
those of the connections. CPU is what the loop's own thread used meanwhile, which the rest of the machine has
no part in.
"""

from __future__ import annotations

import argparse
import operator
import platform
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from wsframe import compiled

from .clients import (
    AT_ONCE,
    CLOSE,
    LINGER,
    SLACK,
    TIMEOUT,
    Client,
    Fleet,
    Server,
    miscounted,
    request,
    serving,
    settle,
)
from .server import HOST, Report, allow_many_files

WARM_UP = 50
MANY = 10**9
ENOUGH = 5  # messages of each client, before the server is terminated


@dataclass
class Settings:
    adapter: str = "aio"
    loop: str = "asyncio"
    connections: int = 5000
    messages: int = 10
    opens: int = 10_000
    vanishing: int = 50  # clients of each kind
    bystanders: int = 20
    terminated: int = 500  # connections of each kind, when the server is terminated
    timeout: float = 3  # to open, to close, and what handlers have patience for, in seconds
    grace: float = 10  # seconds to end, when some clients hang
    every: float = 1  # seconds between the bytes of slow clients
    phases: tuple[str, ...] = ("idle", "active", "vanish", "churn", "SIGTERM")

    def options(self, cap: int, timeout: float) -> list[str]:
        seconds = str(timeout)
        return [
            *("--adapter", self.adapter, "--loop", self.loop, "--cap", str(cap)),
            *("--open-timeout", seconds, "--close-timeout", seconds, "--patience", seconds),
        ]


QUICK: dict[str, Any] = {
    "connections": 200,
    "opens": 500,
    "vanishing": 5,
    "terminated": 20,
    "timeout": 0.3,
    "grace": 2,
    "every": 0.05,
}


@dataclass
class Results:
    """What was measured and what was broken."""

    is_quiet: bool = False
    broken: list[str] = field(default_factory=list)

    def figure(self, phase: str, what: str, report: Report | None = None) -> None:
        if report is not None:
            cpu = "" if report["cpu_stall"] is None else f" (CPU {report['cpu_stall']:.1f})"
            what += f"; longest stall {report['stall']:.1f} ms{cpu}"
        if not self.is_quiet:
            print(f"{phase:<9} {what}", flush=True)

    def check(self, is_kept: bool, promise: str) -> None:
        if not is_kept:
            self.broken.append(promise)
            if not self.is_quiet:
                print(f"BROKEN    {promise}", flush=True)


def warm_up(fleet: Fleet, server: Server) -> Report:
    """Let the server make what it makes once, and return what it holds then."""
    clients = fleet.open(WARM_UP)
    for client in clients:
        client.send(2)
    fleet.reach("echoed", clients)
    for client in clients:
        client.close()
    fleet.reach("over", clients)
    held = server.report()
    if held["threads"] > 3 or held["tasks"] > 1:
        held = settle(fleet, server, {"files": 10**6, "tasks": 1, "threads": 3}, TIMEOUT)
    return held


# Many connections


def check_many(settings: Settings, results: Results) -> None:
    """Keep connections open, idle and active, and close them."""
    count = settings.connections
    with serving(*settings.options(count + WARM_UP, TIMEOUT)) as server, Fleet(server.port) as fleet:
        held = warm_up(fleet, server)
        before, start = server.memory(), time.perf_counter()
        clients = fleet.open(count)
        rate = count / (time.perf_counter() - start)
        memory = (server.memory() - before) / count
        report = server.report()
        results.check(
            report["files"] - held["files"] == count, f"each of {count} connections is one open file"
        )
        results.figure("idle", f"{count} open, {memory:.1f} KiB each; opened {rate:.0f}/s", report)

        start = time.perf_counter()
        for client in clients:
            client.send(settings.messages)
        fleet.reach("echoed", clients)
        seconds = time.perf_counter() - start
        memory = (server.memory() - before) / count
        slowest = max(client.slowest for client in clients) * 1000
        results.check(
            all(client.received == settings.messages and not client.is_over for client in clients),
            "every message comes back once and in order",
        )
        results.figure(
            "active",
            f"{count * settings.messages} messages on {count} connections, {memory:.1f} KiB each; "
            f"{count * settings.messages / seconds:.0f}/s, slowest echo {slowest:.0f} ms",
            server.report(),
        )
        start = time.perf_counter()
        for client in clients:
            client.close()
        fleet.reach("over", clients)
        results.check(
            all(client.code == 1000 and client.error is None for client in clients),
            "every connection closes with 1000",
        )
        report = check_freed(fleet, server, held, results, "active: all connections closed")
        rate = count / (time.perf_counter() - start)
        results.figure("active", f"{count} closed and freed, {rate:.0f}/s", report)


def check_freed(fleet: Fleet, server: Server, held: Report, results: Results, what: str) -> Report:
    """Check that the server holds no more than it did, at once, and return what it holds."""
    try:
        return settle(fleet, server, held, SLACK)
    except TimeoutError as error:
        results.check(False, f"{what}: {error}")
        return server.report()


# Clients that vanish


class Raw:
    """A client that does what it should not.

    Attributes:
        is_cut: whether the server has closed the connection.
    """

    def __init__(self, port: int, data: bytes = b"", receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(SLACK)
        self.sock.connect((HOST, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(data)
        self.is_cut = False

    def open(self, path: str, data: bytes = b"") -> Raw:
        """Open a WebSocket, and leave what comes after the response where it is."""
        try:
            self.sock.sendall(request(path) + data)
            blank = -1
            while blank < 0:
                blank = self.sock.recv(1024, socket.MSG_PEEK).find(b"\r\n\r\n")
            self.sock.recv(blank + 4)
        except OSError:
            self.sock.close()
            raise
        return self

    def trickle(self) -> None:
        """Send one byte."""
        try:
            self.sock.send(b"x")
        except OSError:
            self.is_cut = True

    def sip(self) -> None:
        """Read one byte."""
        try:
            self.sock.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            self.is_cut = True

    def end(self) -> None:
        """Close this direction."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.sock.close()


@dataclass
class Kind:
    """A way to vanish.

    Attributes:
        begin: opens one such client.
        timeouts: how many timeouts the server has to free it.
        act: what it does every second.
    """

    name: str
    begin: Callable[[int], Raw]
    timeouts: int
    act: Callable[[Raw], None] | None = None


def broken(client: Raw) -> Raw:
    client.reset()
    return client


def ended(client: Raw) -> Raw:
    client.end()
    return client


FRAME = b"\x82\xfe\x01\x00\0\0\0\0"  # the header of a masked frame of 256 bytes
SMALL = 4096  # bytes of receive buffer

KINDS = (
    Kind("reset", lambda port: broken(Raw(port).open("/echo")), 0),
    Kind("reset in the head", lambda port: broken(Raw(port, request("/echo")[:-9])), 0),
    Kind("reset in a frame", lambda port: broken(Raw(port).open("/echo", FRAME + b"abc")), 0),
    Kind("reset, unread output", lambda port: broken(Raw(port, receive_buffer=SMALL).open("/push")), 0),
    Kind("one direction ended", lambda port: ended(Raw(port).open("/echo")), 0),
    Kind("one direction ended in the head", lambda port: ended(Raw(port, request("/echo")[:-9])), 0),
    Kind("one direction ended in a frame", lambda port: ended(Raw(port).open("/echo", FRAME + b"abc")), 0),
    Kind(
        "one direction ended, never reads",
        lambda p: ended(Raw(p, receive_buffer=SMALL).open("/impatient")),
        2,
    ),
    Kind("says nothing", lambda port: Raw(port), 1),
    Kind("head byte by byte", lambda port: Raw(port, b"GET / HTTP/1.1\r\nX: "), 1, Raw.trickle),
    Kind("frame byte by byte", lambda port: Raw(port).open("/timed", FRAME), 2, Raw.trickle),
    Kind("no Close comes back", lambda port: Raw(port).open("/close"), 1),
    Kind("frame instead of a Close", lambda port: Raw(port).open("/close", FRAME), 1, Raw.trickle),
    Kind("TCP is left open after Close", lambda port: Raw(port).open("/echo", CLOSE), 1),
    Kind("never reads", lambda port: Raw(port, receive_buffer=SMALL).open("/impatient"), 2),
    Kind("reads byte by byte", lambda port: Raw(port, receive_buffer=SMALL).open("/impatient"), 2, Raw.sip),
)


def check_vanishing(settings: Settings, results: Results) -> None:
    """Let clients vanish, while others echo."""
    kinds = list(KINDS)
    cap = settings.vanishing + settings.bystanders + WARM_UP
    while kinds:
        with serving(*settings.options(cap, settings.timeout)) as server, Fleet(server.port) as fleet:
            warm_up(fleet, server)
            bystanders = fleet.open(settings.bystanders)
            for client in bystanders:
                client.send(MANY)
            held = server.report()
            # When it has broken a promise, the next kind gets another server.
            while kinds and check_kind(kinds.pop(0), settings, results, server, fleet, bystanders, held):
                pass


def check_kind(
    kind: Kind,
    settings: Settings,
    results: Results,
    server: Server,
    fleet: Fleet,
    bystanders: list[Client],
    held: Report,
) -> bool:
    """Let clients vanish in one way, and return whether the server freed them."""
    what = f"{settings.vanishing} x {kind.name}"
    before = [client.received for client in bystanders]
    for client in bystanders:
        client.slowest = 0.0
    raws: list[Raw] = []

    def act() -> None:
        for raw in raws:
            if kind.act is not None and not raw.is_cut:
                kind.act(raw)

    timeout = kind.timeouts * settings.timeout
    start = time.monotonic()
    try:
        for _ in range(settings.vanishing):
            raws.append(kind.begin(server.port))
            fleet.serve()
        report = settle(fleet, server, held, timeout + SLACK, settings.every, act)
        seconds = time.monotonic() - start
    except OSError as error:  # TimeoutError is one
        results.check(False, f"{what}: freed in {timeout:g} s; but {error}")
        return False
    finally:
        for raw in raws:
            raw.sock.close()
    going_on = [client.received for client in bystanders if not client.is_over]
    results.check(
        len(going_on) == len(before) and all(map(operator.gt, going_on, before)), f"{what}: others go on"
    )
    slowest = max(client.slowest for client in bystanders) * 1000
    results.figure(
        "vanish",
        f"{what}: freed in {seconds:.2f} s of {timeout:g}; others' slowest echo {slowest:.0f} ms",
        report,
    )
    return True


# Opens and closes


def end_politely(client: Client) -> None:
    client.close()


def end_by_server(client: Client) -> None:
    pass


def end_in_a_frame(client: Client) -> None:
    client.write(FRAME)
    client.reset()


ENDS: tuple[tuple[str, Callable[[Client], None]], ...] = (
    ("/echo", end_politely),
    ("/close", end_by_server),
    ("/echo", Client.reset),
    ("/echo", Client.drop),
    ("/echo", end_in_a_frame),
)


def churn(fleet: Fleet, count: int) -> None:
    """Open connections and end them, one way after the other; and some never get beyond a part of a head."""
    each = 20
    opened = 0
    while opened < count:
        for path, end in ENDS:
            clients = fleet.open(each, path)
            for client in clients:
                if path == "/echo":
                    client.send(1)
            fleet.reach("over" if path == "/close" else "echoed", clients)
            for client in clients:
                end(client)
            fleet.reach("over", clients)
            opened += each
        for data in (b"", b"GET / HT", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
            for way in (broken, ended):
                way(Raw(fleet.port, data)).sock.close()
                opened += 1


def check_churn(settings: Settings, results: Results) -> None:
    """Open and close many connections, and look at what is left."""
    with serving(*settings.options(WARM_UP, TIMEOUT)) as server, Fleet(server.port) as fleet:
        held = warm_up(fleet, server)
        server.command("trace")
        server.answer()
        churn(fleet, settings.opens // 5)
        before = check_freed(fleet, server, held, results, "churn: warm-up")
        memory, start = server.memory(), time.perf_counter()
        churn(fleet, settings.opens)
        seconds = time.perf_counter() - start
        after = check_freed(fleet, server, held, results, f"churn: {settings.opens} opens and closes")
        grown = after["traced"] - before["traced"]
        results.check(grown < 65536, f"churn: memory does not grow, but it did by {grown} bytes")
        results.figure(
            "churn",
            f"{settings.opens} opened and ended, {settings.opens / seconds:.0f}/s (traced); left: "
            f"{after['files'] - held['files']} files, {after['tasks'] - held['tasks']} tasks, "
            f"{after['threads'] - held['threads']} threads, {grown / 1024:.1f} KiB of objects, "
            f"{server.memory() - memory:.0f} KiB of Rss",
            after,
        )


# The end


def check_end(settings: Settings, results: Results, *, with_faults: bool) -> None:
    """Terminate a server while it is busy."""
    count = settings.terminated
    what = "SIGTERM, with others that hang" if with_faults else "SIGTERM"
    hanging = settings.bystanders if with_faults else 0
    grace = settings.grace if with_faults else TIMEOUT
    cap = 3 * (count + hanging) + WARM_UP + AT_ONCE
    with serving(*settings.options(cap, grace)) as server, Fleet(server.port) as fleet:
        held = warm_up(fleet, server)
        raws = [Raw(server.port, receive_buffer=SMALL).open("/push") for _ in range(hanging)]
        raws += [Raw(server.port).open("/echo") for _ in range(hanging)]
        raws += [Raw(server.port, b"GET / HT") for _ in range(hanging)]
        echoing = fleet.open(count, "/echo", 0)
        idle = fleet.open(count, "/echo", count)
        for client in echoing:
            client.send(MANY, in_flight=8)
        pushing = fleet.open(count, "/push", 2 * count, receive_buffer=65536)
        clients = [*echoing, *idle, *pushing]
        while any(client.received < ENOUGH for client in (*echoing, *pushing)):
            fleet.turn()
        results.figure("SIGTERM", f"{count} echo, {count} idle, {count} are pushed to", server.report())
        opening = [fleet.start("/echo") for _ in range(AT_ONCE)]
        for _ in range(random.randrange(4)):  # some are further than others
            fleet.turn()
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        last = fleet.run_until_answered(server, grace + TIMEOUT)
        fleet.reach("over", [*clients, *opening])
        code = server.process.wait(TIMEOUT)
        seconds = time.monotonic() - start
        for raw in raws:
            raw.sock.close()
    # When nobody hangs, it need not wait until the grace time is over.
    most = grace + SLACK if with_faults else grace / 2
    results.check(seconds < most, f"{what}: it ends in less than {most:g} s; but it took {seconds:.1f}")
    results.check(code == 0, f"{what}: its exit code is 0; but it is {code}")
    codes = {client.code for client in clients}
    results.check(codes == {1001}, f"{what}: all are closed with 1001; but the codes are {codes}")
    wrong = list(miscounted(clients, last["accepted"]))
    results.check(not wrong, f"{what}: what send() accepts arrives; but {len(wrong)} are wrong: {wrong[:5]}")
    codes = {client.code for client in opening if client.is_open}
    results.check(codes <= {1001}, f"{what}: who is just opening gets 1001 as well; but some got {codes}")
    left = {name: last[name] - held[name] for name in ("files", "tasks", "threads")}
    if not (
        with_faults and settings.adapter == "sync"
    ):  # threads whose connection was cut are not waited for
        results.check(max(left.values()) <= 0, f"{what}: nothing is left; but {left} is")
    messages = sum(client.received for client in clients)
    results.figure(
        what,
        f"ended in {seconds:.2f} s of {grace:g}; {len(clients)} connections got {messages} messages "
        "as they were accepted, and 1001",
        last,
    )


def run(settings: Settings, results: Results) -> None:
    if {"idle", "active"} & set(settings.phases):
        check_many(settings, results)
    if "vanish" in settings.phases:
        check_vanishing(settings, results)
    if "churn" in settings.phases:
        check_churn(settings, results)
    if "SIGTERM" in settings.phases:
        check_end(settings, results, with_faults=False)
        check_end(settings, results, with_faults=True)


def main() -> int:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", choices=("aio", "sync"), default="aio")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--connections", type=int, help="open at a time (aio: 5000, sync: 1000)")
    parser.add_argument("--messages", type=int, help="of each of them")
    parser.add_argument("--opens", type=int, help="opened and ended")
    parser.add_argument("--vanishing", type=int, help="clients of each kind")
    parser.add_argument("--terminated", type=int, help="connections of each kind (aio: 500, sync: 100)")
    parser.add_argument("--timeout", type=float, help="each of the server's, in seconds")
    parser.add_argument("--every", type=float, help="seconds between the bytes of slow clients")
    parser.add_argument("--phases", nargs="+", choices=defaults.phases, help="only these")
    parser.add_argument("--quick", action="store_true", help="smaller numbers, and shorter timeouts")
    options = vars(parser.parse_args())
    settings = Settings()
    if options["adapter"] == "sync":
        settings = replace(settings, connections=1000, terminated=100)
    if options.pop("quick"):
        settings = replace(settings, **QUICK)
    settings = replace(settings, **{name: value for name, value in options.items() if value is not None})
    files = allow_many_files() - 200
    if settings.connections > files:
        print(f"only {files} connections: this process may open no more files (ulimit -Hn)")
        settings.connections = files
    adapter = settings.adapter if settings.adapter == "sync" else f"aio on {settings.loop}"
    build = "compiled" if compiled else "pure Python"
    print(f"{adapter}, {build}, {platform.python_implementation()} {platform.python_version()}")
    results = Results()
    run(settings, results)
    print(f"{len(results.broken)} promises broken")
    return 1 if results.broken else 0
