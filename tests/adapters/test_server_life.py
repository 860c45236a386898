"""The life of a server: where it listens, whom it lets in, how many, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import errno
import grp
import os
import pwd
import queue
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.adapters import (
    TIMEOUT,
    Peer,
    SyncAdapter,
    asynchronous,
    close_payload,
    needs_ipv6,
    open_peer,
    request,
)
from tests.support.cases import case
from wsframe import (
    ConnectionClosed,
    FrameDecoder,
    HandshakeRejected,
    Opcode,
    Response,
    State,
    aio,
    basic_auth,
    encode_frame,
    redirect,
    sync,
)
from wsframe.adapter import listeners

pytestmark = pytest.mark.usefixtures("leaks")

EXAMPLE = Path(__file__).parents[2] / "examples/server.py"
AUTHORIZED = {"Authorization": "Basic " + base64.b64encode("ädä:se:cret".encode()).decode()}


def rejected(adapter, uri, **options) -> Response:
    with pytest.raises(HandshakeRejected) as caught:
        adapter.connect(uri, max_redirects=0, **options)
    assert caught.value.response is not None
    return caught.value.response


def talks(adapter, uri, **options) -> bool:
    with adapter.connect(uri, **options) as websocket:
        websocket.send("x")
        return websocket.recv() == "x"


class Held:
    """A handler that hands over its WebSocket, and returns when it may."""

    def __init__(self) -> None:
        self.websockets = queue.SimpleQueue()
        self.may_end = threading.Event()

    def __call__(self, websocket):
        self.websockets.put(websocket)
        self.may_end.wait(TIMEOUT)

    def next(self):
        return self.websockets.get(timeout=TIMEOUT)


@pytest.fixture
def held():
    held = Held()
    yield held
    held.may_end.set()


# Whom it lets in


def test_basic_auth(adapter):
    with adapter.serve(process_request=basic_auth({"ädä": "se:cret"}, realm="chat")) as running:
        assert talks(adapter, running.uri, additional_headers=AUTHORIZED)
        for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Basic \xff"}):
            answer = rejected(adapter, running.uri, additional_headers=headers)
            assert answer.status == 401
            assert answer.headers.get("WWW-Authenticate") == 'Basic realm="chat", charset="UTF-8"'


def test_basic_auth_before_a_redirect(adapter):
    def process(request):
        return None if request.path == "/v2" else redirect("/v2", 308)

    with adapter.serve(process_request=basic_auth(("ädä", "se:cret"), process_request=process)) as running:
        answer = rejected(adapter, running.uri + "v1", additional_headers=AUTHORIZED)
        assert (answer.status, answer.headers.get("Location")) == (308, "/v2")
        assert talks(adapter, running.uri + "v2", additional_headers=AUTHORIZED)
        assert rejected(adapter, running.uri + "v2").status == 401


def test_basic_auth_asks_a_database_that_takes_time(aio_adapter):
    async def check(name, password):
        await asyncio.sleep(0)
        return (name, password) == ("ädä", "se:cret")

    with aio_adapter.serve(process_request=basic_auth(check)) as running:
        assert talks(aio_adapter, running.uri, additional_headers=AUTHORIZED)
        assert rejected(aio_adapter, running.uri).status == 401


class Later:
    def __await__(self):
        yield


def test_on_threads_nobody_waits_for_a_coroutine(caplog):
    async def check(name, password):
        return True

    with pytest.raises(TypeError, match=r"coroutine function: wsframe\.aio"):
        sync.serve(print, "127.0.0.1", 0, process_request=basic_auth(check))
    adapter = SyncAdapter()
    with adapter.serve(process_request=lambda request: Later()) as running:
        assert rejected(adapter, running.uri).status == 500
    assert "must return a Response or None" in caplog.text
    caplog.clear()


def test_origins_may_be_patterns(adapter):
    origins = (origin for origin in [re.compile(r"https://\w+\.example\.com"), "http://localhost:8000"])
    with adapter.serve(origins=origins) as running:
        for origin in ("https://a.example.com", "HTTPS://B.example.com:443", "http://localhost:8000"):
            assert talks(adapter, running.uri, origin=origin)
        for origin in ("https://a.example.com.evil", "https://example.com", "http://localhost", "null", None):
            assert rejected(adapter, running.uri, origin=origin).status == 403


SENSELESS_OPTIONS = [
    ({"port": 0, "origins": ["https://example.com/"]}, ValueError, "origin must be like"),
    ({"port": 0, "origins": re.compile("x")}, TypeError, "must be a list"),
    ({"port": 0, "max_connections": 0}, ValueError, "max_connections must be 1 or more, not 0"),
    ({"host": []}, ValueError, "nothing to listen on"),
    ({"unix": []}, ValueError, "nothing to listen on"),
    ({"sock": []}, ValueError, "nothing to listen on"),
    ({"unix": "x", "reuse_port": True}, ValueError, "reuse_port goes with host and port"),
    ({"unix": "x", "unix_mode": "660"}, TypeError, "must be an int such as 0o660, not str"),
    ({"unix": "x", "unix_mode": True}, TypeError, "must be an int such as 0o660, not bool"),
    ({"unix": "x", "unix_mode": 660}, ValueError, r"such as 0o660, not 660 \(0o1224\)"),
    ({"unix": "x", "unix_mode": -1}, ValueError, "from 0 to 0o777"),
    ({"unix": "x", "unix_owner": (0, 0)}, TypeError, 'must be a str such as "www-data", not tuple'),
    ({"unix": "x", "unix_owner": 0}, TypeError, 'must be a str such as "www-data", not int'),
    *(
        ({"unix": "x", "unix_owner": owner}, ValueError, 'must be "user", "user:group" or ":group"')
        for owner in ("", ":", "0:")
    ),
    ({"unix": "x", "unix_owner": "no such user"}, ValueError, "there is no user 'no such user'"),
    ({"unix": "x", "unix_owner": "a\0b"}, ValueError, "there is no user"),
    ({"unix": "x", "unix_owner": "\udc80"}, ValueError, "there is no user"),
    ({"unix": "x", "unix_owner": ":no such group"}, ValueError, "there is no group 'no such group'"),
    ({"unix": "x", "unix_owner": "0:0:0"}, ValueError, "there is no group '0:0'"),
    # chown() takes this for "unchanged".
    ({"unix": "x", "unix_owner": "4294967295"}, ValueError, "there is no user '4294967295'"),
    ({"unix": "x", "unix_owner": ":" + "9" * 5000}, ValueError, "there is no group"),
    ({"port": 0, "unix_mode": 0o660}, ValueError, "unix_mode and unix_owner go with unix"),
    ({"port": 0, "unix_owner": "0"}, ValueError, "unix_mode and unix_owner go with unix"),
    ({"unix": ["x", "\0x"], "unix_mode": 0o660}, ValueError, "an abstract Unix socket has neither"),
    ({"unix": "\0x", "unix_owner": "0"}, ValueError, "an abstract Unix socket has neither"),
]


@pytest.mark.parametrize("serve", [aio.serve, sync.serve], ids=["aio", "sync"])
def test_options_that_make_no_sense(serve):
    for options, error, problem in SENSELESS_OPTIONS:
        with case(options=options), pytest.raises(error, match=problem):
            serve(print, **options)


# How many it lets in


def test_more_clients_than_there_may_be_are_told_so(aio_adapter, held, tls):
    requests = []
    for server, client in ((None, None), (tls.server, tls.client)):
        with aio_adapter.serve(
            held, max_connections=2, process_request=requests.append, ssl=server
        ) as running:
            peers = [running.open(tls=client) for _ in range(2)]
            websockets = [held.next() for _ in peers]
            requests.clear()
            for _ in range(5):
                answer = rejected(aio_adapter, running.uri, ssl=client)
                assert (answer.status, answer.headers.get("Retry-After")) == (503, "5")
                assert answer.body == b"too many connections\n"
            assert requests == []
            assert len(running.server.connections) == 2
            # There is room again when one is closed.
            held.may_end.set()
            for peer in peers:
                peer.send(peer.close())
                assert peer.read_close() == (1000, "")
                peer.sock.close()
            for websocket in websockets:
                websocket.wait_closed()
            while running.server._tasks:  # a connection counts until its handler has returned
                pass
            with aio_adapter.connect(running.uri, ssl=client) as websocket:
                assert list(websocket) == []
            held.may_end.clear()


def test_clients_that_say_nothing_do_not_fill_a_server(aio_adapter, held):
    """Not for those who are connected; and there are never many more sockets than connections."""
    with aio_adapter.serve(held, max_connections=1, open_timeout=None) as running:
        peer = running.open()
        silent = [running.connect() for _ in range(110)]
        held.next()
        # 101 is what it keeps: this one, and 100 that may say something.
        cut = 0
        for other in silent:
            with suppress(ConnectionResetError, BrokenPipeError):
                other.send(request())
                cut += not other.sock.recv(12)
                continue
            cut += 1
        assert cut == 10
        for other in silent:
            other.sock.close()
        peer.send(peer.text("it is served"))
        held.may_end.set()
        peer.send(peer.close())
        assert peer.read_close() == (1000, "")
        peer.sock.close()


# Who is there


def states(adapter, server) -> set[State]:
    return adapter.call(lambda: {websocket.state for websocket in server.connections})


def test_connections_are_the_open_ones(adapter, held, tls):
    answered, may_answer = threading.Event(), threading.Event()

    def process(request):
        if request.path == "/slow":
            answered.set()
            may_answer.wait(TIMEOUT)
        return Response(404) if request.path == "/no" else None

    with adapter.serve(held, process_request=None if adapter.name != "sync" else process) as running:
        server = running.server
        silent = running.connect()
        assert server.connections == set()
        assert isinstance(server.connections, set)
        peers = []
        for number in range(1, 4):
            # From when the client knows that it is open...
            peers.append(running.open())
            assert len(server.connections) == number
        assert states(adapter, server) == {State.OPEN}
        websockets = [held.next() for _ in peers]
        if adapter.name == "sync":
            slow = running.connect()
            slow.send(request(path="/slow"))
            assert answered.wait(TIMEOUT)
            assert rejected(adapter, running.uri + "no").status == 404
            assert len(server.connections) == 3
            may_answer.set()
            assert slow.read_head().startswith(b"HTTP/1.1 101 ")
            assert len(server.connections) == 4
            slow.sock.close()
            held.next().close()
        # ... up to its Close, whoever sends it, although their handlers go on.
        closing_one = threading.Thread(target=websockets[0].close)
        closing_one.start()
        frame = [peer for peer in peers if select.select([peer.sock], [], [], 0.1)[0]]
        while not frame:
            frame = [peer for peer in peers if select.select([peer.sock], [], [], 0.1)[0]]
        assert len(server.connections) == 2
        for peer in peers:
            peer.sock.close()
        closing_one.join(TIMEOUT)
        held.may_end.set()
        for websocket in websockets:
            websocket.wait_closed(TIMEOUT)
        assert server.connections == set()
        silent.sock.close()


def test_connections_can_be_iterated_over_while_they_change(adapter, held):
    with adapter.serve(held) as running:
        peers = [running.open() for _ in range(3)]
        seen = 0
        for websocket in running.server.connections:
            seen += 1
            peers.append(running.open())
            assert adapter.call(getattr, websocket, "state") is State.OPEN
        assert seen == 3
        assert len(running.server.connections) == 6
        held.may_end.set()
        for peer in peers:
            peer.sock.close()


# How it ends


@pytest.mark.parametrize(
    "where", ["before TLS", "in TLS", "before the request", "in it", "before the answer"]
)
def test_who_is_not_open_yet_is_cut_at_once(adapter, tls, where, spawn):
    """There is no other limit of time."""
    is_asked, may_answer = threading.Event(), threading.Event()

    async def process_later(request):
        is_asked.set()
        await asyncio.get_running_loop().create_future()

    def process(request):
        is_asked.set()
        may_answer.wait(TIMEOUT)

    options = {"close_timeout": None, "open_timeout": None, "ssl": tls.server if "TLS" in where else None}
    process = process if adapter.name == "sync" else process_later
    with adapter.serve(process_request=process, **options) as running, running.connect() as peer:
        if where == "in TLS":
            incoming = client_hello(tls.client)
            peer.send(incoming)
            assert peer.sock.recv(1)  # its answer begins
        elif where == "in it":
            peer.send(request()[:-2])
        elif where == "before the answer":
            peer.send(request())
            assert is_asked.wait(TIMEOUT)
        elif where == "before TLS":
            peer.send(b"\x16")
        # The one after it was accepted: so was it.
        assert is_served(running, options["ssl"] and tls.client)
        closing = spawn(running.close)
        with suppress(ConnectionResetError):
            assert b"HTTP/1.1 101" not in peer.read_all()
        may_answer.set()  # on threads nobody can interrupt it
        closing.result(TIMEOUT)


def is_served(running, client) -> bool:
    with running.connect(client) as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        return peer.read_all().startswith(b"HTTP/1.1 400 ")


def client_hello(context) -> bytes:
    import ssl

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_the_grace_time_cuts_who_does_not_answer(adapter, maybe_tls, held):
    server, client = maybe_tls or (None, None)
    with adapter.serve(close_timeout=None, ssl=server) as running, running.open(tls=client) as peer:
        peer.send(peer.text("x"))
        assert peer.read_text() == "x"
        running.close(1012, "restart", 0.1)
        assert peer.read_close() == (1012, "restart")


def test_the_grace_time_may_be_longer_than_the_close_timeout(adapter, spawn):
    """For handlers: they may have something to finish."""
    started, may_end, ended = threading.Event(), threading.Event(), []

    def handler(websocket):
        started.set()
        with pytest.raises(ConnectionClosed):
            websocket.recv()
        may_end.wait(TIMEOUT)
        ended.append(websocket)

    with adapter.serve(handler, close_timeout=0.1) as running, running.open() as peer:
        assert started.wait(TIMEOUT)
        closing = spawn(running.close, 1001, "", TIMEOUT)
        assert peer.next_frame().payload == close_payload(1001)
        assert not wait([closing], 0.3).done
        assert peer.next_frame() is None  # it was cut after the close_timeout
        may_end.set()
        closing.result(TIMEOUT)
        assert len(ended) == 1


def test_on_threads_a_handler_that_sleeps_does_not_hold_up_the_end(held):
    adapter = SyncAdapter()
    with adapter.serve(held, close_timeout=None) as running, running.open() as peer:
        held.next()
        running.close(1001, "", 0.1)
        assert not held.may_end.is_set()
        assert peer.read_close() == (1001, "")
        held.may_end.set()


@pytest.mark.parametrize("how", ["one", "two", "two, and somebody outside"])
def test_handlers_that_close_the_server_do_not_wait_for_each_other(adapter, spawn, how):
    """Without a limit of time."""
    count = 1 if how == "one" else 2
    barrier, ended = threading.Barrier(count), queue.SimpleQueue()

    def blocking(websocket):
        websocket.recv()
        barrier.wait(TIMEOUT)
        running.server.close(1012, "restart")
        ended.put(websocket)

    async def handle(websocket):
        await websocket.recv()
        await asyncio.to_thread(barrier.wait, TIMEOUT)
        await running.server.close(1012, "restart")
        ended.put(websocket)

    with adapter.serve(native(adapter, blocking, handle), close_timeout=None) as running:
        peers = [running.open() for _ in range(count)]
        idle = running.open()
        for peer in peers:
            peer.send(peer.text("stop"))
        for peer in (*peers, idle):
            assert peer.next_frame().payload == close_payload(1012, "restart")
        closing = spawn(running.close) if "outside" in how else None
        for peer in (*peers, idle):
            peer.send(peer.close(1012))
            with suppress(OSError):  # the server was quicker
                peer.end()
        for peer in (*peers, idle):
            assert peer.read_all() == b""
            peer.sock.close()
        for _ in range(count):
            ended.get(timeout=TIMEOUT)
        if closing is not None:
            closing.result(TIMEOUT)


def native(adapter, blocking, asynchronous):
    """Return the handler that is made for the adapter: on asyncio it does not run in a thread."""
    return blocking if adapter.name == "sync" else asynchronous


def test_closing_twice_waits_twice(adapter, held, spawn):
    with adapter.serve(held, close_timeout=None) as running, running.open() as peer:
        held.next()
        closing = [spawn(running.close), spawn(running.close, 1012, "again")]
        frame = peer.next_frame()
        assert frame.payload in (close_payload(1001), close_payload(1012, "again"))
        peer.send(frame_back(peer, frame))
        peer.end()
        assert not wait(closing, 0.2).done
        held.may_end.set()
        assert [future.result(TIMEOUT) for future in closing] == [None, None]
        running.close()


def frame_back(peer, frame) -> bytes:
    return peer.encode(frame.opcode, frame.payload)


def test_the_shorter_grace_time_holds(adapter, spawn):
    with adapter.serve(close_timeout=None) as running, running.open() as peer:
        peer.send(peer.text("x"))
        assert peer.read_text() == "x"
        closing = spawn(running.close)
        assert peer.next_frame().payload == close_payload(1001)
        running.close(1012, "now", 0)
        closing.result(TIMEOUT)
        assert peer.next_frame() is None  # one Close is enough


@pytest.mark.parametrize(
    ("close_timeout", "options"),
    [(None, {"grace": 0.1}), (0.1, {})],
    ids=["after the grace time", "after the close_timeout"],
)
@asynchronous
async def test_a_handler_that_is_late_is_cancelled(close_timeout, options):
    cancelled = []

    async def handler(websocket):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(websocket)
            raise

    async with aio.serve(handler, "127.0.0.1", 0, close_timeout=close_timeout) as server:
        websocket = await aio.connect(f"ws://localhost:{server.port}/")
        await server.close(**options)
        assert len(cancelled) == 1
        await websocket.close()


@asynchronous
async def test_a_handler_that_does_not_end_when_it_is_cancelled_is_left(caplog):
    may_end = asyncio.Event()

    async def handler(websocket):
        while not may_end.is_set():
            with suppress(asyncio.CancelledError):
                await may_end.wait()

    async with aio.serve(handler, "127.0.0.1", 0, close_timeout=0.1) as server:
        websocket = await aio.connect(f"ws://localhost:{server.port}/")
        await server.close(grace=0)
        await websocket.close()
        assert "1 handlers go on although they were cancelled" in caplog.text
        caplog.clear()
        may_end.set()


@asynchronous
async def test_cancelling_the_close_of_a_server_does_not_stop_it():
    async def handler(websocket):
        async for message in websocket:
            await websocket.send(message)

    server = await aio.serve(handler, "127.0.0.1", 0)
    async with aio.connect(f"ws://localhost:{server.port}/") as websocket:
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
        assert caught.value.code == 1001
    await server.wait_closed()
    await server.serve_forever()


# Many connections, with messages under way both ways

GRACE = 20


class Flood:
    """Handlers that send numbers, ten at a time, and remember how many were sent."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}

    def blocking(self, websocket):
        count = 0
        with suppress(ConnectionClosed):
            while True:
                websocket.send(str(count))
                count += 1
                if count % 10 == 0:
                    websocket.recv()
        self.sent[websocket.path] = count

    async def asynchronous(self, websocket):
        count = 0
        with suppress(ConnectionClosed):
            while True:
                await websocket.send(str(count))
                count += 1
                if count % 10 == 0:
                    await websocket.recv()
        self.sent[websocket.path] = count


async def count_messages(port: int, number: int, is_under_way) -> int:
    """Take numbers, and ask for more, up to one Close and the end of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path=f"/{number}"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    decoder, count, is_closed = FrameDecoder(masked=False), 0, False
    mask = b"mask"
    with closing(writer):
        while data := await reader.read(65536):
            decoder.feed(data)
            while (frame := decoder.next_frame()) is not None:
                assert not is_closed
                if frame.opcode == Opcode.CLOSE:
                    assert frame.payload == close_payload(1001, "maintenance")
                    writer.write(encode_frame(Opcode.CLOSE, frame.payload, mask=mask))
                    is_closed = True
                else:
                    assert frame.payload == str(count).encode()
                    count += 1
                    if count % 10 == 0:
                        writer.write(encode_frame(Opcode.TEXT, b"more", mask=mask))
                    if count == 30:
                        is_under_way()
        assert is_closed
        return count


def test_connections_are_closed_cleanly_while_messages_are_under_way(adapter, spawn, size, record_property):
    flood, under_way, count = Flood(), threading.Semaphore(0), size(50, 200)

    async def clients():
        return await asyncio.gather(
            *(count_messages(running.server.port, number, under_way.release) for number in range(count))
        )

    handler = native(adapter, flood.blocking, flood.asynchronous)
    with adapter.serve(handler, compression=None) as running:
        counting = spawn(asyncio.run, clients())
        for _ in range(count):
            assert under_way.acquire(timeout=TIMEOUT)
        assert len(running.server.connections) == count
        begin = time.perf_counter()
        running.close(1001, "maintenance", GRACE)
        seconds = time.perf_counter() - begin
        received = counting.result(TIMEOUT)
        # Cut at the end of the grace time, a client would have had no Close, or a server's handler no end.
        assert flood.sent == {f"/{number}": messages for number, messages in enumerate(received)}
        assert running.server.connections == set()
    record_property("seconds", seconds)
    print(f"{count} connections, {sum(received)} messages, closed in {seconds:.2f} s")


# Where it listens


@pytest.mark.parametrize("hosts", [["127.0.0.1", "::1"], ["::1", "127.0.0.1", "127.0.0.1"]])
@needs_ipv6
def test_any_free_port_is_the_same_one_on_every_address(adapter, hosts):
    with adapter.serve(None, hosts, 0) as running:
        names = {sock.getsockname()[:2] for sock in running.server.sockets}
        assert names == {("127.0.0.1", running.server.port), ("::1", running.server.port)}
        assert talks(adapter, f"ws://127.0.0.1:{running.server.port}/")
        assert talks(adapter, f"ws://[::1]:{running.server.port}/")


@pytest.mark.parametrize("hosts", [None, ""])
def test_no_host_is_every_interface(adapter, hosts):
    with adapter.serve(None, hosts, 0) as running:
        assert "0.0.0.0" in {sock.getsockname()[0] for sock in running.server.sockets}
        assert talks(adapter, running.uri)


@needs_ipv6
def test_a_port_that_is_taken_on_one_address_is_not_kept_on_the_other(adapter):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"cannot listen on .*'::1'.* in use"):
            adapter.serve(None, ["127.0.0.1", "::1"], port).__enter__()
        socket.create_server(("127.0.0.1", port)).close()


def test_a_name_that_is_none(adapter):
    with pytest.raises(socket.gaierror):
        adapter.serve(None, "nowhere.invalid", 0).__enter__()


def test_an_address_that_is_not_ours(adapter):
    with pytest.raises(OSError, match="cannot listen on"):
        adapter.serve(None, ["127.0.0.1", "192.0.2.1"], 0).__enter__()


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
def test_servers_share_a_port(adapter):
    with adapter.serve(None, "127.0.0.1", 0, reuse_port=True) as running:
        port = running.server.port
        with adapter.serve(None, "127.0.0.1", port, reuse_port=True) as second:
            assert second.server.port == port
            assert talks(adapter, running.uri)
        assert talks(adapter, running.uri)
        with pytest.raises(OSError, match="in use"):
            adapter.serve(None, "127.0.0.1", port).__enter__()


def backlog(sock: socket.socket) -> int:
    # In Linux's struct tcp_info tcpi_sacked, after eight bytes and five words, is this.
    return struct.unpack_from("8x20xI", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the backlog")
def test_sockets_that_listen_already_are_taken_as_they_are(adapter, maybe_tls):
    server, client = maybe_tls or (None, None)
    listening = [socket.create_server(("127.0.0.1", 0), backlog=7) for _ in range(2)]
    copies = [sock.dup() for sock in listening]
    with adapter.serve(sock=listening, ssl=server) as running:
        scheme = "wss" if client else "ws"
        for sock in copies:
            assert talks(adapter, f"{scheme}://localhost:{sock.getsockname()[1]}/", ssl=client)
            assert backlog(sock) == 7
        assert running.server.port == copies[0].getsockname()[1]
    # Whoever else has them goes on: systemd does.
    for sock in copies:
        socket.create_connection(sock.getsockname()).close()
        sock.accept()[0].close()
        sock.close()


def test_sockets_that_are_only_bound(adapter):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    with adapter.serve(sock=sock) as running:
        assert talks(adapter, running.uri)
    assert sock.fileno() == -1


def test_sockets_without_streams():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for serve in (aio.serve, sync.serve):
            with pytest.raises(ValueError, match="must be a stream socket"):
                serve(print, sock=[sock])


def test_several_unix_sockets(adapter, tmp_path, maybe_tls):
    server, client = maybe_tls or (None, None)
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    with adapter.serve(unix=paths, ssl=server) as running:
        for path in paths:
            assert talks(adapter, "wss://localhost/" if client else "ws://localhost/", unix=path, ssl=client)
        with pytest.raises(ValueError, match="a Unix socket has no port"):
            running.server.port  # noqa: B018
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="does not listen"):
        running.server.port  # noqa: B018


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has abstract Unix sockets")
def test_an_abstract_unix_socket(adapter):
    path = f"\0wsframe-test-{os.getpid()}-{adapter.name}"
    with adapter.serve(unix=path):
        sock = socket.socket(socket.AF_UNIX)  # uvloop's clients know no such names
        sock.connect(path)
        assert talks(adapter, "ws://localhost/", sock=sock)


def test_a_unix_socket_has_the_mode_and_the_owner_that_it_is_given(adapter, tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    unix = [str(path) for path in paths]
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    umask = os.umask(0o027)
    try:
        for mode, bits in ((None, 0o750), (0o600, 0o600), (0o660, 0o660), (0o666, 0o666)):
            with case(mode=mode), adapter.serve(unix=unix, unix_mode=mode):
                assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [bits, bits]
                assert talks(adapter, "ws://localhost/", unix=unix[1])
        for owner in (user, f"{user}:{group}", f":{group}", f"{os.geteuid()}:{os.getegid()}"):
            with case(owner=owner), adapter.serve(unix=unix, unix_owner=owner):
                for path in paths:
                    assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())
                    assert stat.S_IMODE(path.stat().st_mode) == 0o750
                assert talks(adapter, "ws://localhost/", unix=unix[1])
    finally:
        os.umask(umask)


def test_nobody_can_connect_before_mode_and_owner_are_set(adapter, tmp_path, monkeypatch):
    path = str(tmp_path / "socket")
    steps = []

    def watch(step):
        with socket.socket(socket.AF_UNIX) as early:
            steps.append((step, stat.S_IMODE(os.stat(path).st_mode), early.connect_ex(path)))

    class Watched(socket.socket):
        def listen(self, *backlog):
            if not any(step == "listen" for step, _, _ in steps):  # an event loop listens once more
                watch("listen")
            super().listen(*backlog)

    def chown(*arguments, _chown=os.chown, **options):
        watch("chown")
        _chown(*arguments, **options)

    def chmod(*arguments, _chmod=os.chmod, **options):
        watch("chmod")
        _chmod(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(listeners.socket, "socket", Watched)
        patch.setattr(os, "chown", chown)
        patch.setattr(os, "chmod", chmod)
        with adapter.serve(unix=path, unix_mode=0o600, unix_owner=str(os.geteuid())):
            assert talks(adapter, "ws://localhost/", unix=path)
    assert [(step, error) for step, _, error in steps] == [
        (step, errno.ECONNREFUSED) for step in ("chown", "chmod", "listen")
    ]
    assert steps[-1][1] == 0o600


@pytest.mark.parametrize(("function", "what"), [("chown", "owner"), ("chmod", "mode")])
def test_a_mode_or_owner_that_cannot_be_set_leaves_no_file(adapter, tmp_path, monkeypatch, function, what):
    function_of_os = getattr(os, function)

    def refuse(path, *arguments, **options):
        if path.endswith("b"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        function_of_os(path, *arguments, **options)

    options = {
        "unix": [str(tmp_path / "a"), str(tmp_path / "b")],
        "unix_mode": 0o600,
        "unix_owner": str(os.geteuid()),
    }
    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse)
        with pytest.raises(
            PermissionError, match=rf"cannot set the {what} of '.*/b': Operation not permitted"
        ):
            adapter.serve(**options).__enter__()
    assert os.listdir(tmp_path) == []


# It begins after what it needs is imported: another user may not read it. The folder is the current one,
# because another user may not pass through those above it.
AS_NOBODY = """
import grp, os, pwd, socket, sys
import wsframe.sync
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
try:
    {}
except OSError as error:
    print(type(error).__name__)
else:
    print("done")
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_who_may_connect_to_a_unix_socket_and_who_may_give_it_away(adapter, tmp_path):
    user, group = 65533, 65534

    def as_nobody(statement):
        arguments = [sys.executable, "-c", AS_NOBODY.format(statement), str(user), str(group)]
        process = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path)
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    tmp_path.chmod(0o777)
    connecting = "socket.socket(socket.AF_UNIX).connect('socket')"
    for mode, owner, expected in (
        (0o755, None, "PermissionError"),  # as the umask of most systems has it
        (0o660, None, "PermissionError"),
        (0o600, f"{user}", "done"),
        (0o660, f":{group}", "done"),
        (0o640, f":{group}", "PermissionError"),
        (0o660, f"{user + 1}:{group + 1}", "PermissionError"),
        (0o666, None, "done"),
    ):
        with (
            case(mode=mode, owner=owner),
            adapter.serve(unix=str(tmp_path / "socket"), unix_mode=mode, unix_owner=owner),
        ):
            assert talks(adapter, "ws://localhost/", unix=str(tmp_path / "socket"))
            assert as_nobody(connecting) == expected
    serving = "wsframe.sync.serve(print, unix='mine', unix_owner='{}').close()"
    assert as_nobody(serving.format("0")) == "PermissionError"
    assert as_nobody(serving.format(f"{user}:{group}")) == "done"
    assert os.listdir(tmp_path) == []


def test_the_file_of_a_dead_server_is_replaced(adapter, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with adapter.serve(unix=path):
        assert talks(adapter, "ws://localhost/", unix=path)
    assert not os.path.exists(path)


def test_the_file_of_a_server_that_lives_is_not(adapter, tmp_path):
    path = str(tmp_path / "socket")
    with adapter.serve(unix=path):
        with pytest.raises(OSError, match=r"cannot listen on .*in use"):
            adapter.serve(unix=[str(tmp_path / "other"), path]).__enter__()
        assert os.listdir(tmp_path) == ["socket"]
        assert talks(adapter, "ws://localhost/", unix=path)


def test_what_is_no_socket_is_not_removed(adapter, tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        adapter.serve(unix=str(path)).__enter__()
    assert path.read_text() == "precious"


def test_the_file_of_the_next_server_stays(adapter, tmp_path):
    path = str(tmp_path / "socket")

    def talks_there():
        return talks(adapter, "ws://localhost/", unix=path)

    with adapter.serve(unix=path):
        assert talks_there()
        os.unlink(path)
        with adapter.serve(unix=path) as second:
            running = second
            assert talks_there()
            os.rename(path, path + "2")
            with adapter.serve(unix=path):
                assert talks_there()  # else it is shut down before its thread serves
            os.rename(path + "2", path)
        assert running.server.sockets == ()
        assert not os.path.exists(path)
        successor = socket.socket(socket.AF_UNIX)
        successor.bind(path)
    assert os.path.exists(path)
    successor.close()


def test_the_file_of_an_inherited_unix_socket_stays(adapter, tmp_path):
    path = str(tmp_path / "socket")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    with adapter.serve(sock=sock):
        assert talks(adapter, "ws://localhost/", unix=path)
    assert os.path.exists(path)


# examples/server.py, as a process of its own


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def example(*arguments: str, inherited: socket.socket | None = None):
    command = [sys.executable, "-W", "error", str(EXAMPLE), *arguments]
    environment = {**os.environ, "ADMIN": "ada:secret", "PYTHONUNBUFFERED": "1"}
    if inherited is not None:
        # As systemd does it: the socket is file descriptor 3, and the process is told that it is meant.
        command = [sys.executable, "-c", ACTIVATE, str(inherited.fileno()), *command]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        pass_fds=[] if inherited is None else [inherited.fileno()],
    )
    with process:
        try:
            assert process.stderr is not None
            listening = process.stderr.readline()
            assert listening.startswith("listening on "), listening + process.stderr.read()
            port = re.search(r"'127\.0\.0\.1', (\d+)", listening)
            yield process, int(port[1]) if port else 0
        finally:
            process.kill()


def get(port: int, path: str, *headers: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""])
        sock.sendall(head.encode())
        return b"".join(iter(lambda: sock.recv(4096), b""))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_example_ends_well(number):
    with example("127.0.0.1", "0") as (process, port):
        assert get(port, "/healthz").endswith(b"\r\n\r\nok\n")
        assert get(port, "/connections").startswith(b"HTTP/1.1 401 ")
        websockets = [sync.connect(f"ws://127.0.0.1:{port}/{name}") for name in "abc"]
        authorization = "Authorization: Basic " + base64.b64encode(b"ada:secret").decode()
        listed = get(port, "/connections", authorization).decode()
        assert sorted(line[-2:] for line in listed.splitlines()[-3:]) == ["/a", "/b", "/c"]
        process.send_signal(signal.SIGUSR1)
        assert process.stderr.readline() == "3 connections\n"
        assert sorted(process.stderr.readline()[-3:] for _ in range(3)) == ["/a\n", "/b\n", "/c\n"]
        for websocket in websockets:
            websocket.send("x")
        process.send_signal(number)
        assert process.stderr.readline() == "closing 3 connections\n"
        for websocket in websockets:
            assert list(websocket) == ["x"]
            assert (websocket.close_code, websocket.close_reason) == (1001, "the server restarts")
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""


def test_the_example_is_told_twice_to_end():
    with example("127.0.0.1", "0") as (process, port), open_peer(port) as peer:
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "closing 1 connections\n"
        assert peer.next_frame().opcode == Opcode.CLOSE
        # It would wait for the answer now.
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == -signal.SIGTERM


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_the_example_takes_the_socket_of_systemd(family, tmp_path):
    path = str(tmp_path / "socket")
    if family == "tcp":
        listening = socket.create_server(("127.0.0.1", 0))
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
    with listening:
        # A client that came before the server is served too: that is what systemd's sockets are for.
        early = socket.socket(listening.family)
        early.connect(listening.getsockname())
        with example(inherited=listening) as (process, port):
            assert port == (listening.getsockname()[1] if family == "tcp" else 0)
            peer = Peer(early, is_client=True)
            peer.send(request(), peer.text("x"))
            assert peer.read_head().startswith(b"HTTP/1.1 101 ")
            assert peer.read_text() == "x"
            process.send_signal(signal.SIGTERM)
            assert peer.next_frame().payload == close_payload(1001, "the server restarts")
            peer.send(peer.close(1001))
            peer.end()
            assert peer.read_all() == b""
            assert process.wait(TIMEOUT) == 0
        early.close()
        # And the next one finds it where it was.
        assert family == "tcp" or os.path.exists(path)
        with example(inherited=listening) as (process, _):
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
