"""Echo with other implementations, in both directions, over TCP and TLS, plain and compressed.

Each peer is a client, a server, or both. Behind one blocking face, every client says the same to every
server: one of the two is wsframe's, on asyncio or on threads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import queue
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from tests.support.adapters import new_authority
from tests.support.cases import case
from tests.support.tiers import full
from wsframe import (
    ConnectionClosed,
    Deflate,
    Frame,
    FrameDecoder,
    Opcode,
    aio,
    encode_frame,
    sync,
)
from wsframe.deflate import DEFAULT

pytest.importorskip("aiohttp")
pytest.importorskip("websocket")
pytest.importorskip("websockets")
pytest.importorskip("wsproto")

import aiohttp
import aiohttp.web
import websocket
import websockets
import wsproto
import wsproto.events
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from wsproto.extensions import PerMessageDeflate

T = TypeVar("T")

TIMEOUT = 60  # seconds, for what should happen at once
LIMIT = 4 * 2**20
PING = "(ping)"  # among fragments: a Ping goes here
FRAGMENTS = ("frag", PING, "men", "ted")
BETWEEN = b"between"  # its payload
MESSAGES = ("Hello", "", "ünï \U0001f600", b"", b"\x00\xff", "x" * 2**20, b"y" * 2**20)
Ends = "queue.SimpleQueue[tuple[int | None, str | None]]"


class TLS(NamedTuple):
    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    files: Path

    def uri(self, port: int) -> str:
        return f"{'ws' if self.server is None else 'wss'}://localhost:{port}/"


TCP = TLS(None, None, Path())


class Terms(NamedTuple):
    """The parameters of permessage-deflate, as a peer of the tests is told them (RFC 7692, section 7.1).

    None: it says nothing about this. True: it names the parameter without a value. False, for Node's ws:
    it does not accept it.
    """

    server_no_context_takeover: bool | None = False
    client_no_context_takeover: bool | None = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None


@pytest.fixture(scope="module", params=["tcp", pytest.param("tls", marks=full)])
def tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TLS:
    directory = tmp_path_factory.mktemp("tls")
    if request.param == "tcp":
        return TLS(None, None, directory)
    authority = new_authority()
    certificate = authority.issue_cert("localhost")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(directory / "cert.pem", append=True)
    return TLS(server, client, directory)


class Loop:
    """An event loop in a thread, for the peers that need one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # a conversation goes back and forth between two threads
    loop = Loop()
    yield loop
    loop.close()
    sys.setswitchinterval(interval)


class Node:
    """A process that speaks with Node's ws, as a server or as a client."""

    def __init__(self, script: Path) -> None:
        self.process = subprocess.Popen(
            ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.events: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self.ends: Ends = queue.SimpleQueue()  # of its server's connections
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self) -> None:
        for line in self.process.stdout or ():
            event, *values = json.loads(line)
            if event == "end":
                self.ends.put((values[0], values[1]))
            else:
                self.events.put([event, *values])
        self.events.put(["exit"])

    def do(self, *action: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(action) + "\n")
        self.process.stdin.flush()

    def start(self, *action: Any) -> None:
        """Do this, whatever is left of a test before."""
        self.do(*action)
        while (event := self.events.get(timeout=TIMEOUT)) != ["started"]:
            assert event != ["exit"]

    def read(self, kind: str) -> list[Any]:
        event, *values = self.events.get(timeout=TIMEOUT)
        assert event == kind, values
        return values

    def close(self) -> None:
        with self.process:
            self.process.terminate()
            self.thread.join()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "peer.js"):
        shutil.copy(Path(__file__).with_name(name), directory)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    installed = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm install ws failed: {installed.stderr.strip()[-200:]}")
    node = Node(directory / "peer.js")
    yield node
    node.close()


# Servers: echo; "fragments a b c" answers with these, "close 3002 bye" closes. They yield their port.


async def answer(
    message: str | bytes,
    send: Callable[[str | bytes], Awaitable[Any]],
    send_fragments: Callable[[list[str]], Awaitable[Any]],
    close: Callable[[int, str], Awaitable[Any]],
) -> None:
    words = message.split(" ") if isinstance(message, str) else [""]
    if words[0] == "fragments":
        await send_fragments(words[1:])
    elif words[0] == "close":
        await close(int(words[1]), words[2])
    else:
        await send(message)


def joined(pieces: Sequence[str]) -> str:
    return "".join(piece for piece in pieces if piece != PING)


def send_fragments(connection: Any, pieces: list[str]) -> None:
    for i, piece in enumerate(pieces):
        if piece == PING:
            connection.send_ping(BETWEEN)
        else:
            connection.send_text(piece, fin=i == len(pieces) - 1)


@contextlib.contextmanager
def aio_server(loop: Loop, tls: TLS, ends: Ends, deflate: Deflate = DEFAULT) -> Iterator[int]:
    async def echo(ws: aio.WebSocket) -> None:
        async def fragments(pieces: list[str]) -> None:
            send_fragments(ws.session.connection, pieces)
            ws.proceed()

        try:
            while True:
                await answer(await ws.recv(), ws.send, fragments, ws.close)
        except ConnectionClosed as closed:
            ends.put((closed.code, closed.reason))

    async def start() -> aio.Server:
        return await aio.serve(echo, "127.0.0.1", 0, ssl=tls.server, compression=deflate)

    server = loop.run(start())
    try:
        yield server.port
    finally:
        loop.run(server.close())


@contextlib.contextmanager
def sync_server(loop: Loop, tls: TLS, ends: Ends, deflate: Deflate = DEFAULT) -> Iterator[int]:
    def echo(ws: sync.WebSocket) -> None:
        async def send(message: str | bytes) -> None:
            ws.send(message)

        async def fragments(pieces: list[str]) -> None:
            send_fragments(ws.session.connection, pieces)
            ws._flush(None)

        async def close(code: int, reason: str) -> None:
            ws.close(code, reason)

        try:
            while True:
                asyncio.run(answer(ws.recv(), send, fragments, close))
        except ConnectionClosed as closed:
            ends.put((closed.code, closed.reason))

    with sync.serve(echo, "127.0.0.1", 0, ssl=tls.server, compression=deflate) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.port
        finally:
            server.close()
            thread.join()


async def pings(
    ws: websockets.ServerConnection | websockets.ClientConnection, pieces: Sequence[str]
) -> AsyncIterator[str]:
    for piece in pieces:
        if piece == PING:
            await ws.ping(BETWEEN)
        else:
            yield piece


@contextlib.contextmanager
def websockets_server(loop: Loop, tls: TLS, ends: Ends, deflate: Terms | None = None) -> Iterator[int]:
    async def echo(ws: websockets.ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await answer(await ws.recv(), ws.send, lambda pieces: ws.send(pings(ws, pieces)), ws.close)
        await ws.wait_closed()
        ends.put((ws.close_code, ws.close_reason))

    async def start() -> websockets.Server:
        extensions = deflate and [ServerPerMessageDeflateFactory(**deflate._asdict())]
        options: dict[str, Any] = {"compression": None, "extensions": extensions}
        return await websockets.serve(echo, "127.0.0.1", 0, ssl=tls.server, **options)

    server = loop.run(start())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        loop.run(server.wait_closed())


@contextlib.contextmanager
def aiohttp_server(loop: Loop, tls: TLS, ends: Ends, deflate: Terms | None = None) -> Iterator[int]:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        ws = aiohttp.web.WebSocketResponse(compress=deflate is not None, max_msg_size=LIMIT)
        await ws.prepare(request)

        async def send(message: str | bytes) -> None:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))

        async def fragments(pieces: list[str]) -> None:
            await ws.send_str(joined(pieces))  # it cannot fragment

        async def close(code: int, reason: str) -> None:
            await ws.close(code=code, message=reason.encode())

        async for message in ws:
            await answer(message.data, send, fragments, close)
        ends.put((ws.close_code, message_of_close(ws)))
        return ws

    def message_of_close(ws: aiohttp.web.WebSocketResponse) -> str | None:
        return None  # it does not tell the reason

    async def start() -> aiohttp.web.AppRunner:
        app = aiohttp.web.Application()
        app.router.add_get("/", echo)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server).start()
        return runner

    runner = loop.run(start())
    try:
        yield runner.addresses[0][1]
    finally:
        loop.run(runner.cleanup())


class WSProto:
    """wsproto and a pair of asyncio streams."""

    def __init__(
        self,
        role: Any,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deflate: Terms | None,
    ) -> None:
        self.ws = wsproto.WSConnection(role)
        self.reader, self.writer = reader, writer
        self.extensions = [] if deflate is None else [PerMessageDeflate(**deflate._asdict())]
        self.message: str | bytes = ""
        self.end: tuple[int, str] = (1006, "")
        self.pongs = 0

    async def send(self, event: Any) -> None:
        self.writer.write(self.ws.send(event))
        await self.writer.drain()

    async def send_message(self, message: str | bytes) -> None:
        await self.send(wsproto.events.Message(data=message))

    async def send_fragments(self, pieces: list[str]) -> None:
        for i, piece in enumerate(pieces):
            if piece == PING:
                await self.send(wsproto.events.Ping(payload=BETWEEN))
                continue
            await self.send(wsproto.events.TextMessage(data=piece, message_finished=i == len(pieces) - 1))

    async def close(self, code: int, reason: str) -> None:
        await self.send(wsproto.events.CloseConnection(code=code, reason=reason))

    async def recv(self) -> str | bytes | None:
        """Return the next message, or None when it is over."""
        while True:
            for event in self.ws.events():
                if isinstance(event, wsproto.events.Request):
                    await self.send(wsproto.events.AcceptConnection(extensions=self.extensions))
                elif isinstance(event, wsproto.events.Message):
                    self.message = event.data if not self.message else self.message + event.data  # type: ignore[operator]
                    if event.message_finished:
                        message, self.message = self.message, ""
                        return message
                elif isinstance(event, wsproto.events.Ping):
                    await self.send(event.response())
                elif isinstance(event, wsproto.events.Pong) and event.payload != BETWEEN:
                    self.pongs += 1
                    return ""
                elif isinstance(event, wsproto.events.CloseConnection):
                    self.end = (event.code, event.reason or "")
                    if self.ws.state is wsproto.ConnectionState.REMOTE_CLOSING:
                        await self.send(event.response())
                    return None
            data = await self.reader.read(65536)
            if not data:
                return None
            self.ws.receive_data(data)


@contextlib.contextmanager
def wsproto_server(loop: Loop, tls: TLS, ends: Ends, deflate: Terms | None = None) -> Iterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ws = WSProto(wsproto.ConnectionType.SERVER, reader, writer, deflate)
        while (message := await ws.recv()) is not None:
            await answer(message, ws.send_message, ws.send_fragments, ws.close)
        ends.put(ws.end)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls.server)

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    server = loop.run(start())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.run(stop())


@contextlib.contextmanager
def node_server(
    loop: Loop, tls: TLS, ends: Ends, deflate: Terms | None = None, *, node: Node
) -> Iterator[int]:
    files = [] if tls.server is None else [str(tls.files / "cert.pem"), str(tls.files / "key.pem")]
    node.ends = ends
    node.start("serve", node_deflate(deflate), *files)
    (port,) = node.read("port")
    try:
        yield port
    finally:
        node.do("stop")
        node.read("stopped")


def node_deflate(terms: Terms | None) -> dict[str, Any] | bool:
    if terms is None:
        return False
    names = (
        "serverNoContextTakeover",
        "clientNoContextTakeover",
        "serverMaxWindowBits",
        "clientMaxWindowBits",
    )
    return {"threshold": 0, **dict(zip(names, terms, strict=True))}


# Clients: send, recv (a message), ping, close (which tells how it ended), ended


class AioClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS, deflate: Deflate = DEFAULT) -> None:
        async def connect() -> aio.WebSocket:
            return await aio.connect(uri, ssl=tls.client, compression=deflate)

        self.loop = loop
        self.ws = loop.run(connect())

    def send(self, message: str | bytes) -> None:
        self.loop.run(self.ws.send(message))

    def send_fragments(self, *pieces: str) -> None:
        async def send() -> None:
            send_fragments(self.ws.session.connection, list(pieces))
            self.ws.proceed()

        self.loop.run(send())

    def recv(self) -> str | bytes:
        return self.loop.run(self.ws.recv())

    def ping(self) -> None:
        assert self.loop.run(self.ws.ping()) > 0

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        async def close() -> tuple[int | None, str | None]:
            await self.ws.close(code, reason)
            return self.ws.close_code, self.ws.close_reason

        return self.loop.run(close())

    def ended(self) -> tuple[int | None, str | None]:
        with pytest.raises(ConnectionClosed) as closed:
            self.recv()
        self.loop.run(self.ws.wait_closed())
        return closed.value.code, closed.value.reason


class SyncClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS, deflate: Deflate = DEFAULT) -> None:
        self.ws = sync.connect(uri, ssl=tls.client, compression=deflate)
        self.send = self.ws.send
        self.recv = lambda: self.ws.recv(TIMEOUT)

    def send_fragments(self, *pieces: str) -> None:
        send_fragments(self.ws.session.connection, list(pieces))
        self.ws._flush(None)

    def ping(self) -> None:
        assert self.ws.ping(timeout=TIMEOUT) > 0

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.ws.close(code, reason)
        return self.ws.close_code, self.ws.close_reason

    def ended(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as closed:
            self.recv()
        return closed.value.code, closed.value.reason


class WebsocketsClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS, deflate: Terms | None = None) -> None:
        async def connect() -> websockets.ClientConnection:
            extensions = deflate and [ClientPerMessageDeflateFactory(**deflate._asdict())]
            return await websockets.connect(uri, ssl=tls.client, compression=None, extensions=extensions)

        self.loop = loop
        self.ws = loop.run(connect())

    def send(self, message: str | bytes) -> None:
        self.loop.run(self.ws.send(message))

    def send_fragments(self, *pieces: str) -> None:
        self.loop.run(self.ws.send(pings(self.ws, pieces)))

    def recv(self) -> str | bytes:
        return self.loop.run(self.ws.recv())

    def ping(self) -> None:
        async def ping() -> None:
            await (await self.ws.ping())

        self.loop.run(ping())

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.loop.run(self.ws.close(code, reason))
        return self.ws.close_code, self.ws.close_reason

    def ended(self) -> tuple[int | None, str | None]:
        with pytest.raises(websockets.ConnectionClosed):
            self.recv()
        return self.ws.close_code, self.ws.close_reason


class AiohttpClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS, deflate: Terms | None = None) -> None:
        async def connect() -> aiohttp.ClientWebSocketResponse:
            self.session = aiohttp.ClientSession()
            compress = 0 if deflate is None else deflate.server_max_window_bits or 15
            options: dict[str, Any] = {"max_msg_size": LIMIT, "compress": compress}
            return await self.session.ws_connect(uri, ssl=tls.client or True, **options)

        self.loop = loop
        self.ws = loop.run(connect())

    def send(self, message: str | bytes) -> None:
        ws = self.ws
        self.loop.run(ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))

    send_fragments = None  # it cannot

    def recv(self) -> str | bytes:
        message: str | bytes = self.loop.run(self.ws.receive()).data
        return message

    def ping(self) -> None:
        self.loop.run(self.ws.ping(b"ping"))  # it does not show the pong; but a wrong one would end it

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.loop.run(self.ws.close(code=code, message=reason.encode()))
        self.loop.run(self.session.close())
        return self.ws.close_code, None

    def ended(self) -> tuple[int | None, str | None]:
        message = self.loop.run(self.ws.receive())
        self.loop.run(self.session.close())
        return message.data, message.extra


class WSProtoClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS, deflate: Terms | None = None) -> None:
        async def connect() -> WSProto:
            port = int(uri.rstrip("/").rpartition(":")[2])
            streams = await asyncio.open_connection("localhost", port, ssl=tls.client)
            ws = WSProto(wsproto.ConnectionType.CLIENT, *streams, deflate)
            await ws.send(wsproto.events.Request(host="localhost", target="/", extensions=ws.extensions))
            return ws

        self.loop = loop
        self.ws = loop.run(connect())
        loop.run(self.opened())

    async def opened(self) -> None:
        while self.ws.ws.state is wsproto.ConnectionState.CONNECTING:
            self.ws.ws.receive_data(await self.ws.reader.read(65536))

    def send(self, message: str | bytes) -> None:
        self.loop.run(self.ws.send_message(message))

    def send_fragments(self, *pieces: str) -> None:
        self.loop.run(self.ws.send_fragments(list(pieces)))

    def recv(self) -> str | bytes:
        message = self.loop.run(self.ws.recv())
        assert message is not None
        return message

    def ping(self) -> None:
        self.loop.run(self.ws.send(wsproto.events.Ping(payload=b"ping")))
        assert self.recv() == ""
        assert self.ws.pongs == 1

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.loop.run(self.ws.close(code, reason))
        return self.ended()

    def ended(self) -> tuple[int | None, str | None]:
        async def end() -> None:
            assert await self.ws.recv() is None
            assert await self.ws.reader.read() == b""  # the server closes first
            self.ws.writer.close()
            with contextlib.suppress(OSError):
                await self.ws.writer.wait_closed()

        self.loop.run(end())
        return self.ws.end


class WebsocketClientClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS) -> None:
        options = {"sslopt": {"context": tls.client}} if tls.client else {}
        self.ws = websocket.create_connection(uri, timeout=TIMEOUT, **options)

    def send(self, message: str | bytes) -> None:
        self.ws.send(message) if isinstance(message, str) else self.ws.send_binary(message)

    def send_fragments(self, *pieces: str) -> None:
        for i, piece in enumerate(pieces):
            if piece == PING:
                self.ws.ping(BETWEEN)
                continue
            fin = int(i == len(pieces) - 1)
            opcode = websocket.ABNF.OPCODE_CONT if i else websocket.ABNF.OPCODE_TEXT
            self.ws.send_frame(websocket.ABNF(fin, 0, 0, 0, opcode, 1, piece))

    def recv(self) -> str | bytes:
        message: str | bytes = self.ws.recv()
        return message

    def ping(self) -> None:
        self.ws.ping("ping")
        opcode, payload = self.ws.recv_data(control_frame=True)
        assert (opcode, payload) == (websocket.ABNF.OPCODE_PONG, b"ping")

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.ws.send_close(code, reason.encode())
        return self.ended()

    def ended(self) -> tuple[int | None, str | None]:
        opcode, payload = self.ws.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        self.ws.shutdown()
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()


class NodeClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS, deflate: Terms | None = None, *, node: Node) -> None:
        if deflate:  # as False, it would refuse what a server asks for; as None, offer the last one
            flags, windows = (flag or None for flag in deflate[:2]), (deflate[2], deflate[3] or False)
            deflate = Terms(*flags, *windows)
        files = [] if tls.client is None else [str(tls.files / "ca.pem")]
        node.start("connect", uri, node_deflate(deflate), *files)
        self.do, self.read = node.do, node.read
        self.read("open")

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.do("text", message)
        else:
            self.do("binary", base64.b64encode(message).decode())

    def send_fragments(self, *pieces: str) -> None:
        self.do("fragments", *pieces)

    def recv(self) -> str | bytes:
        is_binary, data = self.read("message")
        raw = base64.b64decode(data)
        return raw if is_binary else raw.decode()

    def ping(self) -> None:
        self.do("ping")
        self.read("pong")

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.do("close", code, reason)
        return self.ended()

    def ended(self) -> tuple[int | None, str | None]:
        code, reason = self.read("close")
        return code, reason


OUR_SERVERS: dict[str, Any] = {"aio": aio_server, "sync": sync_server}
OUR_CLIENTS: dict[str, Any] = {"aio": AioClient, "sync": SyncClient}
SERVERS: dict[str, Any] = {
    "websockets": websockets_server,
    "aiohttp": aiohttp_server,
    "wsproto": wsproto_server,
    "node-ws": node_server,
}
CLIENTS: dict[str, Any] = {
    "websockets": WebsocketsClient,
    "aiohttp": AiohttpClient,
    "wsproto": WSProtoClient,
    "websocket-client": WebsocketClientClient,
    "node-ws": NodeClient,
}


# What peers answer to a Close, where they do not repeat it.
ANSWERS = {"aiohttp": (1000, ""), "websocket-client": (1000, "")}


class Conversation(NamedTuple):
    """What to say to a server."""

    messages: Sequence[str | bytes] = MESSAGES
    fragments: Sequence[str] = FRAGMENTS
    is_brief: bool = False  # without a second connection, which the server closes


PLAIN = Conversation()


def talk(
    connect: Callable[[], Any],
    ends: Ends,
    client: str = "",
    server: str = "",
    conversation: Conversation = PLAIN,
) -> None:
    """Say everything that a client can say, and check how both ends see the end."""
    ws = connect()
    for message in conversation.messages:
        ws.send(message)
        assert ws.recv() == message
    fragments = conversation.fragments
    ws.send(f"fragments {' '.join(fragments)}")
    assert ws.recv() == joined(fragments)
    if ws.send_fragments is not None:
        ws.send_fragments(*fragments)
        assert ws.recv() == joined(fragments)
    ws.ping()
    ws.send("still there")
    assert ws.recv() == "still there"
    assert agree(ws.close(3001, "bye"), ANSWERS.get(server, (3001, "bye")))
    assert agree(ends.get(timeout=TIMEOUT), (3001, "bye"))
    if not conversation.is_brief:
        be_closed(connect, ends, client)


def be_closed(connect: Callable[[], Any], ends: Ends, client: str) -> None:
    """Let the server close, and check how both ends see the end."""
    ws = connect()
    ws.send("close 3002 bye")
    assert agree(ws.ended(), (3002, "bye"))
    assert agree(ends.get(timeout=TIMEOUT), ANSWERS.get(client, (3002, "bye")))


def agree(end: tuple[int | None, str | None], expected: tuple[int, str]) -> bool:
    """Tell whether the code and the reason are right, as far as this peer tells them."""
    return end in (expected, (expected[0], None))


@pytest.fixture
def more(peer: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What only some peers need."""
    return {"node": request.getfixturevalue("node")} if peer == "node-ws" else {}


@pytest.mark.parametrize("ours", OUR_CLIENTS)
@pytest.mark.parametrize("peer", SERVERS)
def test_our_clients_talk_to_their_servers(
    ours: str, peer: str, loop: Loop, tls: TLS, more: dict[str, Any]
) -> None:
    ends: Ends = queue.SimpleQueue()
    with SERVERS[peer](loop, tls, ends, **more) as port:
        talk(lambda: OUR_CLIENTS[ours](loop, tls.uri(port), tls), ends, server=peer)


@pytest.mark.parametrize("ours", OUR_SERVERS)
@pytest.mark.parametrize("peer", CLIENTS)
def test_their_clients_talk_to_our_servers(
    ours: str, peer: str, loop: Loop, tls: TLS, more: dict[str, Any]
) -> None:
    ends: Ends = queue.SimpleQueue()
    with OUR_SERVERS[ours](loop, tls, ends) as port:
        talk(lambda: CLIENTS[peer](loop, tls.uri(port), tls, **more), ends, client=peer)


@pytest.mark.parametrize("server", OUR_SERVERS)
@pytest.mark.parametrize("client", OUR_CLIENTS)
def test_our_clients_talk_to_our_servers(server: str, client: str, loop: Loop, tls: TLS) -> None:
    ends: Ends = queue.SimpleQueue()
    with OUR_SERVERS[server](loop, tls, ends) as port:
        talk(lambda: OUR_CLIENTS[client](loop, tls.uri(port), tls), ends)


# Compression (RFC 7692). A relay between the two ends keeps what goes over the wire, from which zlib alone
# tells what was offered, what was answered, and what each end made of it.

FLAGS = (False, True)
RANDOM = random.Random(7692)
WINDOWS = (9, 10, 12, 13, 15)
SAME = RANDOM.randbytes(200)
# 200 bytes, twice, at the largest distance that a compressor with this window refers back to
FAR = {bits: (data := RANDOM.randbytes(200)) + bytes(2**bits - 462) + data for bits in WINDOWS}
COMPRESSED = ("Hello", "", b"", "ünï \U0001f600", SAME, SAME, *FAR.values())
LARGE = "x" * 2**20


class Said(NamedTuple):
    """A message as it went over the wire."""

    message: str | bytes
    size: int  # of the payloads, in bytes
    frames: int
    pings: int  # between its frames
    is_compressed: bool


class Wire(NamedTuple):
    """What went over one TCP connection."""

    client: bytearray
    server: bytearray

    def extensions(self) -> tuple[str, str]:
        """Return the client's Sec-WebSocket-Extensions and the server's."""
        heads = [bytes(data).partition(b"\r\n\r\n")[0].decode() for data in self]
        offer, answer = (
            re.findall(r"^sec-websocket-extensions: *(.*)\r?$", f"{head}\r", re.I | re.M) for head in heads
        )
        assert len(offer) == len(answer) == 1
        return offer[0].strip(), answer[0].strip()

    def said(self, by: str, no_context_takeover: bool, max_window_bits: int) -> Iterator[Said]:
        """Read what one end said, as it must be readable with these parameters."""
        decoder = FrameDecoder(masked=by == "client", rsv1=True)
        decoder.feed(bytes(getattr(self, by)).partition(b"\r\n\r\n")[2])
        inflate = zlib.decompressobj(-max_window_bits)
        frames: list[Frame] = []
        pings = 0
        while frame := decoder.next_frame():
            if frame.opcode >= Opcode.CLOSE:
                pings += bool(frames) and frame.opcode == Opcode.PING
                continue
            frames.append(frame)
            if not frame.fin:
                continue
            payload = b"".join(bytes(frame.payload) for frame in frames)
            size, is_compressed = len(payload), frames[0].rsv == 4
            if is_compressed:
                if no_context_takeover:
                    inflate = zlib.decompressobj(-max_window_bits)
                payload = inflate.decompress(payload + b"\x00\x00\xff\xff")
            message = payload.decode() if frames[0].opcode == Opcode.TEXT else payload
            yield Said(message, size, len(frames), pings, is_compressed)
            frames, pings = [], 0


@contextlib.contextmanager
def relay(loop: Loop, port: int, wires: list[Wire]) -> Iterator[int]:
    tasks: list[asyncio.Future[Any]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                kept += data
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(bytearray(), bytearray())
        wires.append(wire)
        done = asyncio.get_running_loop().create_future()
        tasks.append(done)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back, wire.client), carry(there, writer, wire.server))
        for end in (writer, back):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        done.set_result(None)

    async def start() -> asyncio.Server:
        return await asyncio.start_server(accept, "127.0.0.1", 0)

    async def finish() -> None:
        await asyncio.gather(*tasks)

    server = loop.run(start())
    try:
        yield server.sockets[0].getsockname()[1]
        loop.run(finish())
    finally:
        loop.loop.call_soon_threadsafe(server.close)


def read_terms(extension: str) -> Terms:
    name, *parameters = re.split(r" *; *", extension)
    assert name == "permessage-deflate"
    pairs = [parameter.partition("=")[::2] for parameter in parameters]
    assert len(dict(pairs)) == len(pairs)
    return Terms(**{name: int(value) if value else True for name, value in pairs})


def bits(value: int | None) -> int:
    return 15 if value is None or isinstance(value, bool) else value


def agree_on(client: Terms, server: Terms) -> Terms:
    """Return what follows from an offer and a server's wishes (section 7.1)."""
    client_bits = client.client_max_window_bits
    return Terms(
        bool(client.server_no_context_takeover or server.server_no_context_takeover),
        bool(client.client_no_context_takeover or server.client_no_context_takeover),
        min(bits(client.server_max_window_bits), bits(server.server_max_window_bits)),
        min(bits(client_bits), bits(server.client_max_window_bits)) if client_bits else 15,
    )


PLAIN = Terms(False, False, None, True)  # what our client offers second: what browsers offer


class Difference(NamedTuple):
    """What a server does in its own way: it acts as if these had been the offer and its wishes."""

    what: str
    when: Callable[[Terms, Terms], Any]
    then: Callable[[Terms, Terms], tuple[Terms, Terms]]


DIFFERENCES: dict[str, list[Difference]] = {
    "wsproto": [
        Difference(
            "of several offers it answers the last, with what it remembers of those before it",
            lambda client, server: client.server_max_window_bits,
            lambda client, server: (client._replace(server_max_window_bits=None), server),
        ),
        Difference(
            "it says nothing of its own window unless it was asked",
            lambda client, server: True,
            lambda client, server: (client, server._replace(server_max_window_bits=None)),
        ),
        Difference(
            "it allows a client the window that this offers, not its own smaller one",
            lambda client, server: client.client_max_window_bits is not True,
            lambda client, server: (client, server._replace(client_max_window_bits=None)),
        ),
    ],
    "node-ws": [
        Difference(
            "it declines an offer with a smaller window than its own, or that asks for what it is told to "
            "refuse, and takes the next one",
            lambda client, server: (
                (client.server_no_context_takeover and server.server_no_context_takeover is False)
                or (client.server_max_window_bits and server.server_max_window_bits is False)
                or (client.server_max_window_bits or 15) < (server.server_max_window_bits or 0)
                or bits(client.client_max_window_bits) < (server.client_max_window_bits or 0)
            ),
            lambda client, server: (PLAIN, server),
        ),
    ],
}

# Servers that keep to another window than they said; never to a larger one.
SILENT_WINDOWS: dict[str, Callable[[Terms, Terms], int]] = {
    "wsproto": lambda client, server: bits(client.server_max_window_bits or server.server_max_window_bits),
}


# After a Ping between the fragments of a compressed message, these take the rest of it as not compressed.
NO_PING_BETWEEN = ("wsproto",)


Side = tuple[bool | None, int | None]  # no_context_takeover and max_window_bits of one direction


def sides(flags: Iterable[bool | None], windows: Iterable[int | None]) -> list[Side]:
    return list(itertools.product(flags, windows))


OURS = sides(FLAGS, (15, 12, 9))
OUR_DEFAULT = Terms(False, False, None, None)  # asks for nothing, and compresses with a window of OUR_BITS
OUR_BITS = 12
# What the peers' clients can offer, and what the peers' servers can be told to wish: for the server, and for
# the client. Where this is little, it is there as often as it takes to meet all of ours.
OFFERS: dict[str, tuple[list[Side], list[Side]]] = {
    "websockets": (sides(FLAGS, (None, 9, 12, 15)), sides(FLAGS, (None, True, 9, 12, 15))),
    "aiohttp": (sides([False], (None, 9, 12)) * 2, sides([False], [True]) * 6),
    "wsproto": (sides(FLAGS, (9, 12, 15)), sides(FLAGS, (9, 12, 15))),
    "node-ws": (sides(FLAGS, (None, 9, 12, 15)), sides(FLAGS, (None, True, 9, 12, 15))),
}
WISHES: dict[str, tuple[list[Side], list[Side]]] = {
    "websockets": (sides(FLAGS, (None, 9, 12, 15)), sides(FLAGS, (None, 9, 12, 15))),
    "aiohttp": (sides([False], [None]) * 6, sides([False], [None]) * 6),
    "wsproto": (sides(FLAGS, (9, 12, 15)), sides(FLAGS, (9, 12, 15))),
    "node-ws": (
        [*sides((None, True), (None, 9, 12, 15)), (False, None), (None, False), (False, False)],
        [*sides((None, True), (None, 9, 12, 15)), (None, False)],
    ),
}


def pairs(server_sides: list[Side], client_sides: list[Side]) -> Iterator[tuple[Terms, Terms]]:
    """Return all that a peer can say, each with some of ours: so that in each direction all meet all.

    The first pair is the one that has the longest conversation, and the second has our default.
    """
    server, client = server_sides[0], client_sides[0]
    yield Terms(server[0], client[0], server[1], client[1]), Terms(False, False, 15, 15)
    yield Terms(server[0], client[0], server[1], client[1]), OUR_DEFAULT
    for (i, server), (j, client) in itertools.product(enumerate(server_sides), enumerate(client_sides)):
        theirs, ours = (
            Terms(server[0], client[0], server[1], client[1])
            for server, client in ((server, client), (OURS[j % len(OURS)], OURS[i % len(OURS)]))
        )
        if (i, j) != (0, 0):
            yield theirs, ours


def wish(terms: Terms) -> Deflate:
    return Deflate(threshold=0, **terms._asdict())


def offered(terms: Terms) -> Terms:
    """Return what our client offers first."""
    server_bits, client_bits = terms[2:]
    return terms._replace(
        server_max_window_bits=None if server_bits == 15 else server_bits,
        client_max_window_bits=True if client_bits in (None, 15) else client_bits,
    )


def check_extensions(wire: Wire, client: Terms, expected: Terms) -> None:
    """Check what was offered, and what was answered."""
    offer, answer = wire.extensions()
    assert read_terms(offer.partition(",")[0]) == client
    said = read_terms(answer)
    assert said.client_max_window_bits is None or client.client_max_window_bits is not None
    # A client keeps to what it offers for itself, whatever the server makes of it.
    alone = bool(client.client_no_context_takeover or said.client_no_context_takeover)
    window = min(bits(said.client_max_window_bits), bits(client.client_max_window_bits))
    assert expected == Terms(
        said.server_no_context_takeover, alone, bits(said.server_max_window_bits), window
    )


def check_messages(said: list[Said], no_context_takeover: bool, max_window_bits: int) -> None:
    """Check that the messages are compressed, as well as the parameters allow."""
    assert all(message.is_compressed for message in said)
    sizes = [message.size for message in said]
    messages = [message.message for message in said]
    first = messages.index(SAME)
    assert messages[first + 1] == SAME
    assert sizes[first] >= len(SAME)
    assert (sizes[first + 1] < len(SAME) // 2) == (not no_context_takeover)
    # Twice 200 bytes do not fit; once, and what the zeros take, does.
    limits = {window: 380 + 2**window // 400 for window in WINDOWS}
    referred = [window for window in WINDOWS if sizes[messages.index(FAR[window])] < limits[window]]
    assert referred == [window for window in WINDOWS if window <= max_window_bits]
    assert LARGE not in messages or sizes[messages.index(LARGE)] < len(LARGE) // 100


def compressed(peer: str, ours: Terms) -> Conversation:
    """Return what to say; what takes longer is in some of the tests only."""
    is_brief = ours != Terms(False, False, 15, 15)
    messages = COMPRESSED if is_brief else (*COMPRESSED, LARGE)
    fragments = [piece for piece in FRAGMENTS if piece != PING or peer not in NO_PING_BETWEEN]
    return Conversation(messages, fragments, is_brief)


def check_wire(
    wire: Wire,
    terms: Terms,
    conversation: Conversation,
    *,
    client_can_fragment: bool = True,
    server_can_fragment: bool = True,
) -> None:
    """Check what each end said."""
    messages, fragments = conversation[:2]
    whole = joined(fragments)
    from_client = list(wire.said("client", terms.client_no_context_takeover, terms.client_max_window_bits))
    from_server = list(wire.said("server", terms.server_no_context_takeover, terms.server_max_window_bits))
    asked = [*messages, f"fragments {' '.join(fragments)}", *[whole] * client_can_fragment, "still there"]
    echoed = [*messages, whole, *[whole] * client_can_fragment, "still there"]
    assert [message.message for message in from_client] == asked
    assert [message.message for message in from_server] == echoed
    check_messages(from_client, terms.client_no_context_takeover, terms.client_max_window_bits)
    check_messages(from_server, terms.server_no_context_takeover, terms.server_max_window_bits)
    for can, message in (
        (client_can_fragment, from_client[-2]),
        (server_can_fragment, from_server[len(messages)]),
    ):
        assert (message.frames >= 3) == can
        assert message.pings == (can and PING in fragments)


Size = Callable[[int | None, int | None], int | None]


@pytest.mark.parametrize("ours", OUR_CLIENTS)
@pytest.mark.parametrize("peer", WISHES)
def test_our_clients_compress_with_their_servers(
    ours: str, peer: str, loop: Loop, more: dict[str, Any], size: Size
) -> None:
    for theirs, wished in itertools.islice(pairs(*WISHES[peer]), size(2, None)):
        with case(theirs=theirs, ours=wished):
            compress_with_their_server(OUR_CLIENTS[ours], peer, theirs, wished, loop, more)


def compress_with_their_server(
    connect: Callable[..., Any], peer: str, theirs: Terms, wished: Terms, loop: Loop, more: dict[str, Any]
) -> None:
    ends: Ends = queue.SimpleQueue()
    wires: list[Wire] = []
    conversation = compressed(peer, wished)
    client = offered(wished)
    acts = client, theirs
    for difference in DIFFERENCES.get(peer, ()):
        if difference.when(*acts):
            acts = difference.then(*acts)
    with SERVERS[peer](loop, TCP, ends, theirs, **more) as port, relay(loop, port, wires) as port:
        talk(
            lambda: connect(loop, TCP.uri(port), TCP, wish(wished)),
            ends,
            server=peer,
            conversation=conversation,
        )
    # Whatever is agreed on, our client keeps to what it wishes for itself.
    agreed = agree_on(*acts)
    expected = agreed._replace(
        client_no_context_takeover=agreed.client_no_context_takeover or client.client_no_context_takeover,
        client_max_window_bits=min(agreed.client_max_window_bits, bits(client.client_max_window_bits)),
    )
    for wire in wires:
        check_extensions(wire, client, expected)
    window = min(expected.client_max_window_bits, wished.client_max_window_bits or OUR_BITS)
    expected = expected._replace(client_max_window_bits=window)
    if peer in SILENT_WINDOWS:
        window = SILENT_WINDOWS[peer](client, theirs)
        assert window <= expected.server_max_window_bits
        expected = expected._replace(server_max_window_bits=window)
    check_wire(wires[0], expected, conversation, server_can_fragment=peer != "aiohttp")


@pytest.mark.parametrize("ours", OUR_SERVERS)
@pytest.mark.parametrize("peer", OFFERS)
def test_their_clients_compress_with_our_servers(
    ours: str, peer: str, loop: Loop, more: dict[str, Any], size: Size
) -> None:
    for theirs, wished in itertools.islice(pairs(*OFFERS[peer]), size(2, None)):
        with case(theirs=theirs, ours=wished):
            compress_with_their_client(OUR_SERVERS[ours], peer, theirs, wished, loop, more)


def compress_with_their_client(
    serve: Callable[..., Any], peer: str, theirs: Terms, wished: Terms, loop: Loop, more: dict[str, Any]
) -> None:
    ends: Ends = queue.SimpleQueue()
    wires: list[Wire] = []
    conversation = compressed(peer, wished)
    with serve(loop, TCP, ends, wish(wished)) as port, relay(loop, port, wires) as port:
        talk(
            lambda: CLIENTS[peer](loop, TCP.uri(port), TCP, theirs, **more),
            ends,
            client=peer,
            conversation=conversation,
        )
    kept = wished._replace(
        server_max_window_bits=wished.server_max_window_bits or OUR_BITS,
        client_max_window_bits=wished.client_max_window_bits or OUR_BITS,
    )
    expected = agree_on(theirs, kept)
    # Our server says nothing of its own window unless it was asked.
    said = expected if theirs.server_max_window_bits else expected._replace(server_max_window_bits=15)
    for wire in wires:
        check_extensions(wire, theirs, said)
    check_wire(wires[0], expected, conversation, client_can_fragment=peer != "aiohttp")


class BrowserClient:
    """What Chrome and Firefox offer, with a socket and zlib."""

    OFFER = "permessage-deflate; client_max_window_bits"

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: keep-alive, Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Extensions: {self.OFFER}\r\n\r\n".encode()
        )
        head = b"".join(iter(self.file.readline, b"\r\n")).decode()
        answer = re.findall(r"^sec-websocket-extensions: (.*)\r$", head, re.I | re.M)
        self.terms = read_terms(answer[0])
        self.decoder = FrameDecoder(masked=False, rsv1=True)
        self.compressor, self.decompressor = self.new_compressor(), self.new_decompressor()

    def new_compressor(self) -> Any:
        return zlib.compressobj(wbits=-bits(self.terms.client_max_window_bits))

    def new_decompressor(self) -> Any:
        return zlib.decompressobj(-bits(self.terms.server_max_window_bits))

    def send_frame(self, opcode: int, payload: bytes, fin: bool = True, rsv: int = 0) -> None:
        self.socket.sendall(encode_frame(opcode, payload, fin, rsv, mask=b"mask"))

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.send_pieces(Opcode.TEXT, [message.encode()])
        else:
            self.send_pieces(Opcode.BINARY, [message])

    def send_fragments(self, *pieces: str) -> None:
        self.send_pieces(Opcode.TEXT, [piece.encode() for piece in pieces])

    def send_pieces(self, opcode: int, pieces: list[bytes]) -> None:
        rsv = 4
        for piece in pieces:
            if piece == PING.encode():
                self.send_frame(Opcode.PING, BETWEEN)
                continue
            data = self.compressor.compress(piece) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
            is_last = piece is pieces[-1]
            self.send_frame(opcode, data[:-4] if is_last else data, is_last, rsv)
            opcode, rsv = Opcode.CONTINUATION, 0
        if self.terms.client_no_context_takeover:
            self.compressor = self.new_compressor()

    def next_frame(self) -> Frame:
        while (frame := self.decoder.next_frame()) is None:
            data = self.file.read1()
            assert data
            self.decoder.feed(data)
        return frame

    def recv(self) -> str | bytes:
        frames = [self.next_frame()]
        while frames[-1].opcode >= Opcode.CLOSE or not frames[-1].fin:
            frames = [frame for frame in frames if frame.opcode < Opcode.CLOSE]
            frames.append(self.next_frame())
        assert frames[0].rsv == 4
        payload = b"".join(bytes(frame.payload) for frame in frames)
        if self.terms.server_no_context_takeover:
            self.decompressor = self.new_decompressor()
        data: bytes = self.decompressor.decompress(payload + b"\x00\x00\xff\xff")
        return data.decode() if frames[0].opcode == Opcode.TEXT else data

    def ping(self) -> None:
        self.send_frame(Opcode.PING, b"ping")
        frame = self.next_frame()
        assert (frame.opcode, bytes(frame.payload)) == (Opcode.PONG, b"ping")

    def close(self, code: int, reason: str) -> tuple[int, str]:
        self.send_frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())
        return self.ended(answer=False)

    def ended(self, *, answer: bool = True) -> tuple[int, str]:
        frame = self.next_frame()
        assert frame.opcode == Opcode.CLOSE
        with self.socket, self.file:
            if answer:
                self.send_frame(Opcode.CLOSE, frame.payload)
            assert self.file.read() == b""  # the server closes first
        return int.from_bytes(frame.payload[:2], "big"), bytes(frame.payload[2:]).decode()


# What our server is told to wish, what it answers to the offer of a browser, and the window that it uses
BROWSERS = [
    (DEFAULT, "client_max_window_bits=12", 12),
    (Deflate(server_max_window_bits=15, client_max_window_bits=15), "client_max_window_bits=15", 15),
    (Deflate(server_max_window_bits=15, client_max_window_bits=9), "client_max_window_bits=9", 15),
    (
        Deflate(server_max_window_bits=9, client_max_window_bits=15, server_no_context_takeover=True),
        "server_no_context_takeover; client_max_window_bits=15",
        9,
    ),
    (
        Deflate(client_no_context_takeover=True),
        "client_no_context_takeover; client_max_window_bits=12",
        12,
    ),
    (
        Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
        "server_no_context_takeover; client_no_context_takeover; client_max_window_bits=12",
        12,
    ),
]


@pytest.mark.parametrize("ours", OUR_SERVERS)
def test_browsers_compress_with_our_servers(ours: str, loop: Loop, size: Size) -> None:
    for deflate, answer, window in BROWSERS[: size(1, None)]:
        with case(ours=deflate):
            compress_with_a_browser(OUR_SERVERS[ours], deflate, answer, window, loop)


def compress_with_a_browser(
    serve: Callable[..., Any], deflate: Deflate, answer: str, window: int, loop: Loop
) -> None:
    ends: Ends = queue.SimpleQueue()
    wires: list[Wire] = []
    conversation = Conversation((*COMPRESSED, LARGE))
    wished = replace(deflate, threshold=0)
    with serve(loop, TCP, ends, wished) as port, relay(loop, port, wires) as port:
        talk(lambda: BrowserClient(port), ends, conversation=conversation)
    for wire in wires:
        assert wire.extensions() == (BrowserClient.OFFER, f"permessage-deflate; {answer}")
    said = read_terms(f"permessage-deflate; {answer}")
    terms = said._replace(
        server_max_window_bits=window,
        client_max_window_bits=bits(said.client_max_window_bits),
    )
    check_wire(wires[0], terms, conversation)
