"""The servers of all peers, each to run in a process of its own: ``python -m benchmarks.servers PEER``.

    echo       send back what comes
    broadcast  send what comes to all connections

A server listens on a port of its own choice, prints it, and ends when its stdin is closed. Keepalive is off,
and so is compression, except with ``--deflate``. Each does it as its own README or manual has it. ``picows``
is the core of picows, with its callbacks; ``picows.websockets`` is its interface of coroutines.

``bare TCP`` is no WebSocket: a protocol of asyncio that sends back the octets that come, whatever they are.
It is the limit of what a server on that loop can reach.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import inspect
import resource
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

HOST = "127.0.0.1"


def announce(port: int) -> None:
    print(port, flush=True)


async def until_stdin_is_closed(port: int) -> None:
    announce(port)
    await asyncio.to_thread(sys.stdin.read)


def without_keepalive(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the argument that switches it off, where there is one."""
    return {"ping_interval": None} if "ping_interval" in inspect.signature(function).parameters else {}


# Coroutines


async def wsframe(mode: str, deflate: bool) -> None:
    from wsframe import Deflate, aio

    async def echo(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def to_all(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            aio.broadcast(server.connections, message)

    handler = echo if mode == "echo" else to_all
    compression = Deflate() if deflate else None
    options = without_keepalive(aio.serve)
    async with aio.serve(handler, HOST, 0, deflate=compression, **options) as server:
        await until_stdin_is_closed(server.port)


async def websockets(mode: str, deflate: bool, module: str = "websockets.asyncio.server") -> None:
    server_module = importlib.import_module(module)

    async def echo(websocket: Any) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def to_all(websocket: Any) -> None:
        async for message in websocket:
            server_module.broadcast(server.connections, message)

    handler = echo if mode == "echo" else to_all
    compression = "deflate" if deflate else None
    options = {"compression": compression, "ping_interval": None}
    async with server_module.serve(handler, HOST, 0, **options) as server:
        await until_stdin_is_closed(server.sockets[0].getsockname()[1])


async def picows_websockets(mode: str, deflate: bool) -> None:
    """The same, on picows."""
    await websockets(mode, deflate, "picows.websockets.asyncio.server")


async def aiohttp(mode: str, deflate: bool) -> None:
    from aiohttp import web

    connections: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=deflate)
        await websocket.prepare(request)
        connections.add(websocket)
        async for message in websocket:
            if mode == "echo":
                await websocket.send_bytes(message.data)
            else:
                for connection in connections:
                    await connection.send_bytes(message.data)
        connections.discard(websocket)
        return websocket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    await until_stdin_is_closed(runner.addresses[0][1])


# ASGI, under uvicorn

UVICORN = {
    "wsframe.asgi": "wsframe.asgi:WebSocketProtocol",
    "websockets-sansio": "websockets-sansio",
    "wsproto": "wsproto",
}


async def asgi(implementation: str, mode: str, deflate: bool) -> None:
    import uvicorn

    sends: set[Any] = set()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sends.add(send)
        while (event := await receive())["type"] == "websocket.receive":
            # What groups of Channels come to: each consumer sends a message of its own, which is the same.
            for each in sends if mode == "broadcast" else (send,):
                await each({"type": "websocket.send", "bytes": event["bytes"]})
        sends.discard(send)

    config = uvicorn.Config(
        application,
        HOST,
        0,
        loop="none",
        ws=UVICORN[implementation],
        ws_per_message_deflate=deflate,
        ws_ping_interval=None,
        lifespan="off",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    await until_stdin_is_closed(server.servers[0].sockets[0].getsockname()[1])
    server.force_exit = server.should_exit = True
    await serving


# Callbacks


async def picows(mode: str, deflate: bool, use_aiofastnet: bool | None = None) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    if deflate:
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

    listener = Echo if mode == "echo" else Broadcast
    factory: Any = lambda request: listener()  # noqa: E731
    server = await ws_create_server(factory, HOST, 0, use_aiofastnet=use_aiofastnet)
    await until_stdin_is_closed(server.sockets[0].getsockname()[1])


async def picows_plain(mode: str, deflate: bool) -> None:
    """Run it on the loop's own transports, as the others are, and not on those of aiofastnet."""
    await picows(mode, deflate, use_aiofastnet=False)


async def bare_tcp(mode: str, deflate: bool) -> None:
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
            if not self.is_open:  # whoever asks for a WebSocket has one
                self.is_open = True
                self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            elif mode == "echo":
                self.transport.write(data)
            else:
                for transport in transports:
                    transport.write(data)

    server = await asyncio.get_running_loop().create_server(Bare, HOST, 0)
    await until_stdin_is_closed(server.sockets[0].getsockname()[1])


# Threads


def wsframe_sync() -> None:
    from wsframe import sync

    def echo(websocket: sync.WebSocket) -> None:
        for message in websocket:
            websocket.send(message)

    with sync.serve(echo, HOST, 0, deflate=None, **without_keepalive(sync.serve)) as server:
        announce(server.port)
        threading.Thread(target=shut_down_with_stdin, args=(server,)).start()
        server.serve_forever()


def websockets_sync() -> None:
    from websockets.sync.server import ServerConnection, serve

    def echo(websocket: ServerConnection) -> None:
        for message in websocket:
            websocket.send(message)

    with serve(echo, HOST, 0, compression=None, ping_interval=None) as server:
        announce(server.socket.getsockname()[1])
        threading.Thread(target=shut_down_with_stdin, args=(server,)).start()
        server.serve_forever()


def shut_down_with_stdin(server: Any) -> None:
    sys.stdin.read()
    server.shutdown()


def bare_threads() -> None:
    """Answer each frame of a client with a fixed one, from a blocking socket: for clients to be measured by.

    A client's frame that has up to 125 octets is answered by a server's of the same length.
    """
    from . import load

    def answer(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        load.accept(sock)
        received = sock.recv(65536)
        size = (received[1] & 127) + 6
        response = bytes((received[0], size - 6)) + bytes(size - 6)
        while received:
            while len(received) < size:
                received += sock.recv(size - len(received))
            if received[0] == 0x88:
                sock.sendall(b"\x88\x02\x03\xe8")
                break
            sock.sendall(response)
            received = sock.recv(size)
        sock.close()

    with socket.create_server((HOST, 0)) as listener:
        announce(listener.getsockname()[1])
        threading.Thread(target=serve_threads, args=(listener, answer), daemon=True).start()
        sys.stdin.read()


def serve_threads(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=answer, args=(sock,), daemon=True).start()


ASYNC: dict[str, Callable[[str, bool], Coroutine[Any, Any, None]]] = {
    "wsframe": wsframe,
    "websockets": websockets,
    "picows": picows,
    "picows (no aiofastnet)": picows_plain,
    "picows.websockets": picows_websockets,
    "aiohttp": aiohttp,
    "bare TCP": bare_tcp,
    **{name: functools.partial(asgi, name) for name in UVICORN},
}
SYNC: dict[str, Callable[[], None]] = {
    "wsframe.sync": wsframe_sync,
    "websockets.sync": websockets_sync,
    "threads": bare_threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description="Run a peer's server.")
    parser.add_argument("peer", choices=(*ASYNC, *SYNC))
    parser.add_argument("--broadcast", action="store_true")
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    allow_many_files()
    if options.peer in SYNC:
        SYNC[options.peer]()
        return
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(ASYNC[options.peer]("broadcast" if options.broadcast else "echo", options.deflate))


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
