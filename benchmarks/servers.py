"""The servers of all peers, each to run in a process of its own: ``python -m benchmarks.servers PEER``.

    echo       send back what comes
    broadcast  send what comes to all connections

A server listens on a port of its own choice, prints it, and ends when its stdin is closed. Keepalive is off,
and so is compression, except with ``--deflate``. Each does it as its own README or manual has it. ``picows``
is the core of picows, with its callbacks; ``picows.websockets`` is its interface of coroutines. Both bring
transports with them, aiofastnet: ``(aiofastnet)`` is a peer on the same ones. ``wsframe (callbacks)`` is a
protocol on wsframe's Connection, without coroutines.

``bare TCP`` is no WebSocket: a protocol of asyncio that sends back the bytes that come, whatever they are.
It is the limit of what a server on that loop can reach.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import inspect
import resource
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from . import samples

HOST = "127.0.0.1"


def announce(port: int) -> None:
    print(port, flush=True)


async def until_stdin_is_closed(port: int) -> None:
    announce(port)
    await asyncio.to_thread(sys.stdin.read)


@dataclass(frozen=True)
class Options:
    """How a server is to run.

    Args:
        is_broadcast: whether it sends what comes to all connections, and not back only.
        deflate: whether it compresses.
        tls: what it speaks TLS by.
        serve: called with the port when the server listens; the server ends when it returns.
    """

    is_broadcast: bool = False
    deflate: bool = False
    tls: ssl.SSLContext | None = None
    serve: Callable[[int], Coroutine[Any, Any, None]] = until_stdin_is_closed


def without_keepalive(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the argument that switches it off, where there is one."""
    return {"ping_interval": None} if "ping_interval" in inspect.signature(function).parameters else {}


# Coroutines


async def wsframe(options: Options) -> None:
    from wsframe import Deflate, aio

    async def echo(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def to_all(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            aio.broadcast(server.connections, message)

    handler = to_all if options.is_broadcast else echo
    deflate = Deflate() if options.deflate else None
    off = without_keepalive(aio.serve)
    async with aio.serve(handler, HOST, 0, compression=deflate, ssl=options.tls, **off) as server:
        await options.serve(server.port)


async def websockets(options: Options, module: str = "websockets.asyncio.server") -> None:
    server_module = importlib.import_module(module)

    async def echo(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def to_all(websocket: Any) -> None:
        async for message in websocket:
            server_module.broadcast(server.connections, message)

    handler = to_all if options.is_broadcast else echo
    compression = "deflate" if options.deflate else None
    off = {"compression": compression, "ping_interval": None}
    async with server_module.serve(handler, HOST, 0, ssl=options.tls, **off) as server:
        await options.serve(server.sockets[0].getsockname()[1])


async def picows_websockets(options: Options) -> None:
    """The same, on picows."""
    await websockets(options, "picows.websockets.asyncio.server")


async def aiohttp(options: Options) -> None:
    from aiohttp import web

    connections: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=options.deflate)
        await websocket.prepare(request)
        connections.add(websocket)
        async for message in websocket:
            for connection in connections if options.is_broadcast else (websocket,):
                await connection.send_bytes(message.data)
        connections.discard(websocket)
        return websocket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=options.tls).start()
    await options.serve(runner.addresses[0][1])


# ASGI, under uvicorn

UVICORN = {
    "wsframe.asgi": "wsframe.asgi:WebSocketProtocol",
    "websockets-sansio": "websockets-sansio",
    "wsproto": "wsproto",
}


async def asgi(implementation: str, options: Options) -> None:
    import uvicorn

    sends: set[Any] = set()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.add(send)
        while (event := await receive())["type"] == "websocket.receive":
            # What groups of Channels come to: each consumer sends a message of its own, which is the same.
            for each in sends if options.is_broadcast else (send,):
                await each({"type": "websocket.send", "bytes": event["bytes"]})
        sends.discard(send)

    config = uvicorn.Config(
        application,
        HOST,
        0,
        loop="none",
        ws=UVICORN[implementation],
        ws_per_message_deflate=options.deflate,
        ws_ping_interval=None,
        lifespan="off",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await options.serve(server.servers[0].sockets[0].getsockname()[1])
    server.force_exit = server.should_exit = True
    await serving


# Callbacks


async def wsframe_callbacks(options: Options) -> None:
    """Run a protocol on the core: what wsframe.aio costs beyond it is the price of coroutines."""
    from wsframe import Binary, Request, ServerConnection, Text

    data = bytearray(2**18)
    view = memoryview(data)

    class Protocol(asyncio.BufferedProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.connection = ServerConnection(compression=None)

        def get_buffer(self, sizehint: int) -> memoryview:
            return view

        def buffer_updated(self, count: int) -> None:
            connection = self.connection
            connection.read_from(data, count)
            while event := connection.next_event():
                kind = type(event)
                if kind is Binary:
                    connection.send_binary(event.data)  # type: ignore[union-attr]
                elif kind is Text:
                    connection.send_text(event.data)  # type: ignore[union-attr]
                elif kind is Request:
                    connection.accept()
            connection.release()
            self.transport.write(connection.data_to_send())
            if connection.should_close:
                self.transport.close()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Protocol, HOST, 0, ssl=options.tls)
    await options.serve(server.sockets[0].getsockname()[1])


async def picows(options: Options, use_aiofastnet: bool | None = None) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    if options.deflate:
        raise NotImplementedError("picows does not compress")
    close = WSMsgType.CLOSE
    transports: set[WSTransport] = set()

    class Listener(WSListener):
        # It leaves waiting to its user, and logs a warning if there is no waiting.
        def pause_writing(self) -> None: ...

        def resume_writing(self) -> None: ...

    class Echo(Listener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == close:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    class Broadcast(Listener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            transports.discard(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == close:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
                return
            kind, payload = frame.msg_type, frame.get_payload_as_bytes()
            for other in transports:
                other.send(kind, payload)

    listener = Broadcast if options.is_broadcast else Echo
    factory: Any = lambda request: listener()  # noqa: E731
    server = await ws_create_server(factory, HOST, 0, use_aiofastnet=use_aiofastnet, ssl=options.tls)
    await options.serve(server.sockets[0].getsockname()[1])


async def picows_plain(options: Options) -> None:
    """Run it on the loop's own transports, as the others are, and not on those of aiofastnet."""
    await picows(options, use_aiofastnet=False)


async def bare_tcp(options: Options) -> None:
    transports: set[Any] = set()

    # Not a Protocol: for each read of one the loop allocates 256 KiB, which takes longer than a short read.
    class Bare(asyncio.BufferedProtocol):
        is_open = False

        def __init__(self) -> None:
            self.view = memoryview(bytearray(2**16))

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            transports.add(self.transport)

        def connection_lost(self, exc: Exception | None) -> None:
            transports.discard(self.transport)

        def get_buffer(self, sizehint: int) -> memoryview:
            return self.view

        def buffer_updated(self, nbytes: int) -> None:
            data = bytes(self.view[:nbytes])
            if not self.is_open:  # the request, which is not read
                self.is_open = True
                self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            else:
                for transport in transports if options.is_broadcast else (self.transport,):
                    transport.write(data)

    server = await asyncio.get_running_loop().create_server(Bare, HOST, 0)
    await options.serve(server.sockets[0].getsockname()[1])


# Threads


def wsframe_sync() -> None:
    from wsframe import sync

    def echo(websocket: sync.WebSocket) -> None:
        for message in websocket:
            websocket.send(message)

    with sync.serve(echo, HOST, 0, compression=None, **without_keepalive(sync.serve)) as server:
        announce(server.port)
        threading.Thread(target=call_with_stdin, args=(server.close,)).start()
        server.serve_forever()


def websockets_sync() -> None:
    from websockets.sync.server import ServerConnection, serve

    def echo(websocket: ServerConnection) -> None:
        for message in websocket:
            websocket.send(message)

    with serve(echo, HOST, 0, compression=None, ping_interval=None) as server:
        announce(server.socket.getsockname()[1])
        threading.Thread(target=call_with_stdin, args=(server.shutdown,)).start()
        server.serve_forever()


def call_with_stdin(function: Callable[[], object]) -> None:
    """Call a function when standard input ends."""
    sys.stdin.read()
    function()


# A server, and whether it runs on aiofastnet's transports
ASYNC: dict[str, tuple[Callable[[Options], Coroutine[Any, Any, None]], bool]] = {
    "wsframe": (wsframe, False),
    "wsframe (aiofastnet)": (wsframe, True),
    "wsframe (callbacks)": (wsframe_callbacks, False),
    "websockets": (websockets, False),
    "websockets (aiofastnet)": (websockets, True),
    # They have it without being told.
    "picows": (picows, False),
    "picows.websockets": (picows_websockets, False),
    "picows (no aiofastnet)": (picows_plain, False),
    "aiohttp": (aiohttp, False),
    "bare TCP": (bare_tcp, False),
    **{name: (functools.partial(asgi, name), False) for name in UVICORN},
}
SYNC: dict[str, Callable[[], None]] = {
    "wsframe.sync": wsframe_sync,
    "websockets.sync": websockets_sync,
}


def use_aiofastnet(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    import aiofastnet

    aiofastnet.patch_loop(loop)
    # A method that patch_loop leaves alone, and that wsframe.aio accepts clients of TLS with.
    loop.connect_accepted_socket = functools.partial(  # type: ignore[method-assign]
        aiofastnet.connect_accepted_socket, loop
    )
    return loop


def new_event_loop(name: str, is_fast: bool) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    return use_aiofastnet(loop) if is_fast else loop


def certified() -> ssl.SSLContext:
    """Return a context with a certificate that nobody has to trust."""
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(HOST).configure_cert(context)
    return context


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description="Run a peer's server.")
    parser.add_argument("peer", choices=(*ASYNC, *SYNC))
    parser.add_argument("--broadcast", action="store_true")
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    arguments = parser.parse_args()
    allow_many_files()
    samples.free_a_large_block()
    if arguments.peer in SYNC:
        SYNC[arguments.peer]()
        return
    options = Options(arguments.broadcast, arguments.deflate, certified() if arguments.tls else None)
    serve, is_fast = ASYNC[arguments.peer]
    with asyncio.Runner(loop_factory=lambda: new_event_loop(arguments.loop, is_fast)) as runner:
        runner.run(serve(options))


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
