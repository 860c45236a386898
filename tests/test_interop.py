"""Echo with other implementations, in both directions, over TCP and TLS.

Each peer is a client, a server, or both. Behind one blocking face, every client says the same to every
server: one of the two is wsframe's, on asyncio or on threads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import queue
import shutil
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import aiohttp.web
import pytest
import trustme
import websocket
import websockets
import wsproto
import wsproto.events

from wsframe import ConnectionClosed, aio, sync

T = TypeVar("T")

TIMEOUT = 60  # seconds, for what should happen at once
LIMIT = 4 * 2**20
FRAGMENTS = ("frag", "men", "ted")
MESSAGES = ("Hello", "", "ünï \U0001f600", b"", b"\x00\xff", "x" * 2**20, b"y" * 2**20)
Ends = "queue.SimpleQueue[tuple[int | None, str | None]]"


class TLS(NamedTuple):
    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    files: Path

    def uri(self, port: int) -> str:
        return f"{'ws' if self.server is None else 'wss'}://localhost:{port}/"


@pytest.fixture(scope="module", params=["tcp", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TLS:
    directory = tmp_path_factory.mktemp("tls")
    if request.param == "tcp":
        return TLS(None, None, directory)
    authority = trustme.CA()
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
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "peer.js"):
        shutil.copy(Path(__file__).parent / "interop" / name, directory)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    installed = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm install ws failed: {installed.stderr.strip()[-200:]}")
    return directory / "peer.js"


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


def send_fragments(connection: Any, pieces: list[str]) -> None:
    for i, piece in enumerate(pieces):
        connection.send_text(piece, fin=i == len(pieces) - 1)


@contextlib.contextmanager
def aio_server(loop: Loop, tls: TLS, ends: Ends) -> Iterator[int]:
    async def echo(ws: aio.WebSocket) -> None:
        async def fragments(pieces: list[str]) -> None:
            send_fragments(ws._connection, pieces)
            ws._flush()

        try:
            while True:
                await answer(await ws.recv(), ws.send, fragments, ws.close)
        except ConnectionClosed as closed:
            ends.put((closed.code, closed.reason))

    async def start() -> aio.Server:
        return await aio.serve(echo, "127.0.0.1", 0, ssl=tls.server)

    server = loop.run(start())
    try:
        yield server.port
    finally:
        loop.run(server.close())


@contextlib.contextmanager
def sync_server(loop: Loop, tls: TLS, ends: Ends) -> Iterator[int]:
    def echo(ws: sync.WebSocket) -> None:
        async def send(message: str | bytes) -> None:
            ws.send(message)

        async def fragments(pieces: list[str]) -> None:
            send_fragments(ws._connection, pieces)
            ws._flush(None)

        async def close(code: int, reason: str) -> None:
            ws.close(code, reason)

        try:
            while True:
                asyncio.run(answer(ws.recv(), send, fragments, close))
        except ConnectionClosed as closed:
            ends.put((closed.code, closed.reason))

    with sync.serve(echo, "127.0.0.1", 0, ssl=tls.server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.port
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def websockets_server(loop: Loop, tls: TLS, ends: Ends) -> Iterator[int]:
    async def echo(ws: websockets.ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await answer(await ws.recv(), ws.send, ws.send, ws.close)
        await ws.wait_closed()
        ends.put((ws.close_code, ws.close_reason))

    async def start() -> websockets.Server:
        return await websockets.serve(echo, "127.0.0.1", 0, ssl=tls.server, compression=None)

    server = loop.run(start())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        loop.run(server.wait_closed())


@contextlib.contextmanager
def aiohttp_server(loop: Loop, tls: TLS, ends: Ends) -> Iterator[int]:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        ws = aiohttp.web.WebSocketResponse(compress=False, max_msg_size=LIMIT)
        await ws.prepare(request)

        async def send(message: str | bytes) -> None:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))

        async def fragments(pieces: list[str]) -> None:
            await ws.send_str("".join(pieces))  # it cannot fragment

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

    def __init__(self, role: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ws = wsproto.WSConnection(role)
        self.reader, self.writer = reader, writer
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
            await self.send(wsproto.events.TextMessage(data=piece, message_finished=i == len(pieces) - 1))

    async def close(self, code: int, reason: str) -> None:
        await self.send(wsproto.events.CloseConnection(code=code, reason=reason))

    async def recv(self) -> str | bytes | None:
        """Return the next message, or None when it is over."""
        while True:
            for event in self.ws.events():
                if isinstance(event, wsproto.events.Request):
                    await self.send(wsproto.events.AcceptConnection())
                elif isinstance(event, wsproto.events.Message):
                    self.message = event.data if not self.message else self.message + event.data  # type: ignore[operator]
                    if event.message_finished:
                        message, self.message = self.message, ""
                        return message
                elif isinstance(event, wsproto.events.Ping):
                    await self.send(event.response())
                elif isinstance(event, wsproto.events.Pong):
                    self.pongs += 1
                    return ""
                elif isinstance(event, wsproto.events.CloseConnection):
                    self.end = (event.code, event.reason or "")
                    if self.ws.state is wsproto.ConnectionState.REMOTE_CLOSING:
                        await self.send(event.response())
                    return None
            octets = await self.reader.read(65536)
            if not octets:
                return None
            self.ws.receive_data(octets)


@contextlib.contextmanager
def wsproto_server(loop: Loop, tls: TLS, ends: Ends) -> Iterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ws = WSProto(wsproto.ConnectionType.SERVER, reader, writer)
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
def node_server(loop: Loop, tls: TLS, ends: Ends, node: Path) -> Iterator[int]:
    files = [] if tls.server is None else [str(tls.files / "cert.pem"), str(tls.files / "key.pem")]
    with subprocess.Popen(["node", str(node), "server", *files], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        (port,) = json.loads(process.stdout.readline())

        def read_ends() -> None:
            for line in process.stdout or ():
                ends.put(tuple(json.loads(line)))

        thread = threading.Thread(target=read_ends)
        thread.start()
        try:
            yield port
        finally:
            process.terminate()
            thread.join()


# Clients: send, recv (a message), ping, close (which tells how it ended), ended


class AioClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS) -> None:
        async def connect() -> aio.WebSocket:
            return await aio.connect(uri, ssl=tls.client)

        self.loop = loop
        self.ws = loop.run(connect())

    def send(self, message: str | bytes) -> None:
        self.loop.run(self.ws.send(message))

    def send_fragments(self, *pieces: str) -> None:
        send_fragments(self.ws._connection, list(pieces))
        self.loop.loop.call_soon_threadsafe(self.ws._flush)

    def recv(self) -> str | bytes:
        return self.loop.run(self.ws.recv())

    def ping(self) -> None:
        assert self.loop.run(self.ws.ping()) > 0

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.loop.run(self.ws.close(code, reason))
        return self.ws.close_code, self.ws.close_reason

    def ended(self) -> tuple[int | None, str | None]:
        with pytest.raises(ConnectionClosed) as closed:
            self.recv()
        self.loop.run(self.ws.wait_closed())
        return closed.value.code, closed.value.reason


class SyncClient:
    def __init__(self, loop: Loop, uri: str, tls: TLS) -> None:
        self.ws = sync.connect(uri, ssl=tls.client)
        self.send = self.ws.send
        self.recv = lambda: self.ws.recv(TIMEOUT)

    def send_fragments(self, *pieces: str) -> None:
        send_fragments(self.ws._connection, list(pieces))
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
    def __init__(self, loop: Loop, uri: str, tls: TLS) -> None:
        async def connect() -> websockets.ClientConnection:
            return await websockets.connect(uri, ssl=tls.client, compression=None)

        self.loop = loop
        self.ws = loop.run(connect())

    def send(self, message: str | bytes) -> None:
        self.loop.run(self.ws.send(message))

    def send_fragments(self, *pieces: str) -> None:
        self.loop.run(self.ws.send(pieces))

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
    def __init__(self, loop: Loop, uri: str, tls: TLS) -> None:
        async def connect() -> aiohttp.ClientWebSocketResponse:
            self.session = aiohttp.ClientSession()
            return await self.session.ws_connect(uri, ssl=tls.client or True, max_msg_size=LIMIT)

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
    def __init__(self, loop: Loop, uri: str, tls: TLS) -> None:
        async def connect() -> WSProto:
            port = int(uri.rstrip("/").rpartition(":")[2])
            streams = await asyncio.open_connection("localhost", port, ssl=tls.client)
            ws = WSProto(wsproto.ConnectionType.CLIENT, *streams)
            await ws.send(wsproto.events.Request(host="localhost", target="/"))
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
    def __init__(self, loop: Loop, uri: str, tls: TLS, node: Path) -> None:
        files = [] if tls.client is None else [str(tls.files / "ca.pem")]
        command = ["node", str(node), "client", uri, *files]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, *action: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(action) + "\n")
        self.process.stdin.flush()

    def read(self, kind: str) -> list[Any]:
        assert self.process.stdout is not None
        event, *values = json.loads(self.process.stdout.readline())
        assert event == kind
        return values

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.do("text", message)
        else:
            self.do("binary", base64.b64encode(message).decode())

    def send_fragments(self, *pieces: str) -> None:
        self.do("fragments", *pieces)

    def recv(self) -> str | bytes:
        is_binary, data = self.read("message")
        octets = base64.b64decode(data)
        return octets if is_binary else octets.decode()

    def ping(self) -> None:
        self.do("ping")
        self.read("pong")

    def close(self, code: int, reason: str) -> tuple[int | None, str | None]:
        self.do("close", code, reason)
        return self.ended()

    def ended(self) -> tuple[int | None, str | None]:
        code, reason = self.read("close")
        with self.process:
            self.process.terminate()
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


def talk(connect: Callable[[], Any], ends: Ends, client: str = "", server: str = "") -> None:
    """Say everything that a client can say, and check how both ends see the end."""
    ws = connect()
    for message in MESSAGES:
        ws.send(message)
        assert ws.recv() == message
    ws.send(f"fragments {' '.join(FRAGMENTS)}")
    assert ws.recv() == "".join(FRAGMENTS)
    if ws.send_fragments is not None:
        ws.send_fragments(*FRAGMENTS)
        assert ws.recv() == "".join(FRAGMENTS)
    ws.ping()
    ws.send("still there")
    assert ws.recv() == "still there"
    assert agree(ws.close(3001, "bye"), ANSWERS.get(server, (3001, "bye")))
    assert agree(ends.get(timeout=TIMEOUT), (3001, "bye"))

    ws = connect()
    ws.send("close 3002 bye")
    assert agree(ws.ended(), (3002, "bye"))
    assert agree(ends.get(timeout=TIMEOUT), ANSWERS.get(client, (3002, "bye")))


def agree(end: tuple[int | None, str | None], expected: tuple[int, str]) -> bool:
    """Tell whether the code and the reason are right, as far as this peer tells them."""
    return end in (expected, (expected[0], None))


@pytest.mark.parametrize("ours", OUR_CLIENTS)
@pytest.mark.parametrize("peer", SERVERS)
def test_our_clients_talk_to_their_servers(
    ours: str, peer: str, loop: Loop, tls: TLS, request: pytest.FixtureRequest
) -> None:
    ends: Ends = queue.SimpleQueue()
    more = [request.getfixturevalue("node")] if peer == "node-ws" else []
    with SERVERS[peer](loop, tls, ends, *more) as port:
        talk(lambda: OUR_CLIENTS[ours](loop, tls.uri(port), tls), ends, server=peer)


@pytest.mark.parametrize("ours", OUR_SERVERS)
@pytest.mark.parametrize("peer", CLIENTS)
def test_their_clients_talk_to_our_servers(
    ours: str, peer: str, loop: Loop, tls: TLS, request: pytest.FixtureRequest
) -> None:
    ends: Ends = queue.SimpleQueue()
    more = [request.getfixturevalue("node")] if peer == "node-ws" else []
    with OUR_SERVERS[ours](loop, tls, ends) as port:
        talk(lambda: CLIENTS[peer](loop, tls.uri(port), tls, *more), ends, client=peer)


@pytest.mark.parametrize("server", OUR_SERVERS)
@pytest.mark.parametrize("client", OUR_CLIENTS)
def test_our_clients_talk_to_our_servers(server: str, client: str, loop: Loop, tls: TLS) -> None:
    ends: Ends = queue.SimpleQueue()
    with OUR_SERVERS[server](loop, tls, ends) as port:
        talk(lambda: OUR_CLIENTS[client](loop, tls.uri(port), tls), ends)
