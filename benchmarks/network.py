"""Servers and clients over the loopback: CPU of the server for each message, handshake or broadcast.

Each server runs in a process of its own. All servers of a row share a core, and only one has something to do
at a time. The load (load.c) has another core, and never sleeps while it measures: so no server pays for
waking it. CPU is that of the server's process, in user mode and in the kernel.

    echo         each connection has some messages in flight: they are written at once, then all answers read
    handshakes   connect, open, close, 50 at a time
    broadcast    one of 1000 clients sends a message, which the server sends to all of them
    blocking     servers of threads; and clients, beside a server in C, where the CPU is that of the client
    round trip   the time from a message to its answer, with all waiting and waking. What a server writes in
                 two parts shows here if the second part waits for the peer's acknowledgement of the first

Messages are binary.
"""

from __future__ import annotations

import functools
import socket
import tempfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from wsframe import Opcode, encode_frame

from . import samples
from .rows import WSFRAME, CpuTurn, Loader, Row, Settings, Target, Turn, WallTurn, targets
from .subject import HOST, TIMEOUT, Client, Load, Program, Server

TURNS = 15
SIZE = 64

BARE = "bare TCP"
# picows brings transports with it, aiofastnet; this is picows without them.
PLAIN = "picows (no aiofastnet)"
PICOWS = "picows.websockets"
ASYNC = (WSFRAME, "websockets", "picows", PICOWS, "aiohttp", BARE)
FAST = {WSFRAME: "wsframe (aiofastnet)", PICOWS: PICOWS, "websockets": "websockets (aiofastnet)"}
CALLBACKS = {WSFRAME: "wsframe (callbacks)", "websockets": "websockets", "picows": "picows"}
ASGI = {WSFRAME: "wsframe.asgi", "websockets-sansio": "websockets-sansio", "wsproto": "wsproto"}


def start(stack: ExitStack, settings: Settings, server: str, *options: str) -> tuple[Server, Load]:
    """Start a server, and the load that is put on it."""
    if not {"--loop"} & set(options):
        options = (*options, "--loop", settings.loop)
    running = Server(stack, settings.tree, server, *options)
    flags = [flag for flag in ("--tls", "--deflate") if flag in options]
    if server == BARE:
        flags.append("--bare")
    return running, Load(stack, str(running.port), *flags)


def echo(
    server: str, connections: int, in_flight: int, size: int, messages: int, *options: str, idle: int = 0
) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        running, load = start(stack, settings, server, *options)
        load.do("open", connections + idle)
        count = max(settings.scaled(messages), connections * in_flight)
        load.do("check", connections, in_flight, size)
        return CpuTurn(running.cpu, lambda: load.do("echo", connections, in_flight, size, count), count)

    return loader


def round_trip(server: str, size: int, messages: int, options: tuple[str, ...]) -> Loader:
    """Measure one message of JSON that goes to the server and back, by the clock on the wall."""

    def loader(stack: ExitStack, settings: Settings) -> Turn:
        _, load = start(stack, settings, server, *options)
        load.do("open", 1)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        message, answer = folder / "message", folder / "answer"
        [payload] = samples.documents(size, 1)
        is_deflated = "--deflate" in options
        sent = compress(payload) if is_deflated else payload
        message.write_bytes(encode_frame(Opcode.BINARY, sent, rsv=4 * is_deflated, mask=b"abcd"))
        load.do("trips", 1, str(message), str(answer))
        received = answer.read_bytes()
        if (decompress(received) if is_deflated else received) != payload:
            raise RuntimeError("the server sent something else back")
        count = settings.scaled(messages)
        return WallTurn(lambda: load.do("trips", count, str(message), str(answer)), count)

    return loader


def compress(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def decompress(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff")


def handshakes(server: str, count: int, at_once: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        running, load = start(stack, settings, server)
        times = settings.scaled(count)
        return CpuTurn(running.cpu, lambda: load.do("handshakes", times, at_once), times)

    return loader


def broadcast(server: str, connections: int, rounds: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        running, load = start(stack, settings, server, "--broadcast")
        load.do("open", connections)
        times = settings.scaled(rounds)
        load.do("broadcast", SIZE, 1)
        return CpuTurn(running.cpu, lambda: load.do("broadcast", SIZE, times), times * connections)

    return loader


def blocking_server(server: str, rounds: int, is_timed: bool = False) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        running, load = start(stack, settings, server)
        load.do("open", 1)
        load.do("check", 1, 1, SIZE)
        count = settings.scaled(rounds)
        return turn(running, lambda: load.do("echo", 1, 1, SIZE, count), count, is_timed)

    return loader


def turn(program: Program, work: Callable[[], object], count: int, is_timed: bool) -> Turn:
    return WallTurn(work, count) if is_timed else CpuTurn(program.cpu, work, count)


def blocking_client(client: str, rounds: int, is_timed: bool = False) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        with socket.create_server((HOST, 0)) as listener:
            running = Client(stack, settings.tree, client, listener.getsockname()[1])
            listener.settimeout(TIMEOUT)
            sock = stack.enter_context(listener.accept()[0])
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accept(sock)
        running.answer()  # it is open
        Load(stack, "--answer", str(sock.fileno()), str(SIZE), files=(sock.fileno(),))
        count = settings.scaled(rounds)
        return turn(running, lambda: running.ask(str(count)), count, is_timed)

    return loader


def accept(sock: socket.socket) -> None:
    """Answer the request of a client."""
    head = b""
    sock.settimeout(TIMEOUT)
    while not head.endswith(b"\r\n\r\n"):
        received = sock.recv(4096)
        if not received:
            raise ConnectionError("closed during the opening handshake")
        head += received
    sock.sendall(samples.respond(head))


def row(
    name: str,
    unit: str,
    load: Callable[[str], Loader],
    servers: dict[str, str] | tuple[str, ...],
    wanted: tuple[Target, ...] = (),
    turns: int = TURNS,
) -> Row:
    named = servers if isinstance(servers, dict) else {server: server for server in servers}
    return Row(name, f"µs/{unit}", {peer: load(named[peer]) for peer in named}, wanted, turns)


def many_connections() -> list[Row]:
    """Return the rows whose question is how the cost grows with the number of connections."""

    def with_more(name: str, connections: int, idle: int, messages: int, limit: float | None) -> Row:
        # The same server with 100 connections stands beside it, measured in the same turns.
        few = "wsframe with 100 connections"
        peers = {
            peer: echo(peer, connections, 1, SIZE, messages, idle=idle)
            for peer in (WSFRAME, "websockets", PICOWS, "picows")
        }
        peers[few] = echo(WSFRAME, 100, 1, SIZE, 10_000)
        wanted = targets(few, None, 1 / limit) if limit else ()
        return Row(name, "µs/message", peers, wanted, turns=5)

    return [
        with_more("1,000 connections", 1000, 0, 10_000, None),
        with_more("10,000 connections", 10_000, 0, 20_000, 1.5),
        with_more("10,000 connections, 100 active", 100, 9900, 10_000, 1.05),
    ]


def blocking() -> list[Row]:
    servers = {WSFRAME: "wsframe.sync", "websockets.sync": "websockets.sync"}
    clients = {**servers, "websocket-client": "websocket-client"}
    wanted = targets("websockets.sync", 1.3, 1.7)
    found = []
    for name, is_timed in (("message", False), ("round trip", True)):
        load_server = functools.partial(blocking_server, rounds=5_000, is_timed=is_timed)
        load_client = functools.partial(blocking_client, rounds=5_000, is_timed=is_timed)
        suffix = ", round trip" if is_timed else ""
        found += [
            row(f"blocking server{suffix}", name, load_server, servers, wanted),
            row(
                f"blocking client{suffix}",
                name,
                load_client,
                clients,
                wanted if is_timed else wanted + targets("websocket-client", None, 1.35),
            ),
        ]
    return found


def round_trips() -> list[Row]:
    """Return the rows of large messages, compressed and not, over TCP and over TLS."""
    found = []
    for name, size, messages in (("64 KiB", 2**16, 200), ("256 KiB", 2**18, 80), ("1 MiB", 2**20, 24)):
        for kind, options in (
            ("", ()),
            (", TLS", ("--tls",)),
            (", compressed", ("--deflate",)),
            (", compressed, TLS", ("--deflate", "--tls")),
        ):
            load = functools.partial(round_trip, size=size, messages=messages, options=options)
            servers = (WSFRAME, "websockets", "aiohttp")
            found.append(row(f"round trip, {name}{kind}", "round trip", load, servers, turns=5))
    return found


def rows() -> list[Row]:
    hundred = functools.partial(echo, connections=100, in_flight=1, size=SIZE, messages=20_000)
    burst = functools.partial(echo, connections=1, in_flight=64, size=SIZE, messages=64_000)
    kib_64 = functools.partial(echo, connections=8, in_flight=4, size=2**16, messages=3_200)
    mib = functools.partial(echo, connections=4, in_flight=2, size=2**20, messages=240)

    def tls(load: Callable[..., Loader], messages: int) -> Callable[[str], Loader]:
        return lambda server: with_tls(load, server, messages)

    def with_tls(load: Callable[..., Loader], server: str, messages: int) -> Loader:
        keywords = {**load.keywords, "messages": messages}  # type: ignore[attr-defined]
        values = (keywords[name] for name in ("connections", "in_flight", "size", "messages"))
        return echo(server, *values, "--tls")

    level = targets(PICOWS, None, 1)
    secure = (WSFRAME, "websockets", PICOWS, "aiohttp")
    asgi = functools.partial(echo, connections=100, in_flight=1, size=SIZE, messages=10_000)
    return [
        row("100 connections", "message", hundred, (*ASYNC, PLAIN), targets("websockets", 1.5, 1.9)),
        row("100 connections, aiofastnet", "message", hundred, FAST, level),
        row(
            "100 connections, callbacks",
            "message",
            hundred,
            CALLBACKS,
            targets("websockets", 1.8, None) + targets("picows", None, 1),
        ),
        *many_connections(),
        row(
            "64 in flight",
            "message",
            burst,
            (*ASYNC, PLAIN),
            targets("websockets", 4, 12) + targets("picows", None, 5),
        ),
        row(
            "64 KiB",
            "message",
            kib_64,
            (*ASYNC, PLAIN),
            targets("websockets", None, 1.6) + targets("picows", None, 1),
        ),
        row("1 MiB", "message", mib, (*ASYNC, PLAIN), targets(PICOWS, None, 0.95)),
        row("TLS, 100 connections", "message", tls(hundred, 15_000), secure),
        row("TLS, 64 KiB", "message", tls(kib_64, 1_600), secure),
        row("TLS, 100 connections, aiofastnet", "message", tls(hundred, 15_000), FAST, level),
        row("TLS, 64 in flight, aiofastnet", "message", tls(burst, 64_000), FAST, level),
        row("TLS, 64 KiB, aiofastnet", "message", tls(kib_64, 1_600), FAST, level),
        row("TLS, 1 MiB, aiofastnet", "message", tls(mib, 120), FAST, level),
        row("ASGI under uvicorn", "message", asgi, ASGI, targets("websockets-sansio", 1.3, 2.1)),
        row(
            "ASGI under uvicorn, uvloop",
            "message",
            lambda server: echo(server, 100, 1, SIZE, 10_000, "--loop", "uvloop"),
            ASGI,
            targets("websockets-sansio", None, 1.6),
        ),
        row(
            "opening and closing handshake",
            "handshake",
            lambda server: handshakes(server, 1_500, 50),
            tuple(server for server in ASYNC if server != BARE),
            targets("websockets", 1.2, 1.6) + targets("picows", None, 0.8),
        ),
        row(
            "broadcast to 1,000",
            "client",
            lambda server: broadcast(server, 1_000, 20),
            ASYNC,
            targets("websockets", 1.2, 1.2) + targets("picows", None, 1),
        ),
        *round_trips(),
        *blocking(),
    ]
