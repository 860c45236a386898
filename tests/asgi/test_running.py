"""wsframe.asgi under uvicorn: handshakes through its parsers, its settings, slow clients, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import signal
import socket
import subprocess
import sys
import tracemalloc

import pytest

import wsframe.sync
from tests.support.adapters import MIB, TIMEOUT, Peer, request
from tests.support.asgi_site import (
    ACCEPT,
    CLOSE,
    CONNECT,
    Site,
    close,
    disconnect,
    echo,
    hear,
    messages,
    parsed,
    parsers,
    site_at,
    to_the_end,
)
from tests.support.cases import case
from tests.support.extras import needs
from tests.support.paths import DOCS
from tests.support.programs import programs
from wsframe import ConnectionClosed, HandshakeRejected, LocalProtocolError, Opcode

uvicorn = pytest.importorskip("uvicorn")

# Sockets


@pytest.mark.parametrize("how", ["host", "fd", "workers"])
def test_nagles_algorithm_is_off_however_uvicorn_listens(place, leaks, tls, how):
    """asyncio sees to that only where uvicorn opens the socket itself: not with --fd, --workers, --reload."""

    async def tell(scope, receive, send):
        await receive()
        await send(ACCEPT)
        sock = scope["extensions"]["wsframe"]["websocket"].transport.get_extra_info("socket")
        nodelay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await send({"type": "websocket.send", "text": str(nodelay != 0)})
        await to_the_end(receive, send)

    for secure in None, tls:
        with case(secure=secure), socket.socket() as listener, contextlib.ExitStack() as stack:
            listener.bind(("127.0.0.1", 0))
            settings = {"fd": listener.fileno()} if how == "fd" else {}
            if how == "workers":  # and --reload: the parent of the processes opens it so
                settings["sockets"] = [uvicorn.Config(None, port=0, log_config=None).bind_socket()]
            site = stack.enter_context(site_at(place, tls=secure, **settings))
            visit = site.visit(tell)
            with site.open(visit) as peer:
                assert peer.read_text() == "True"
                close(peer)
            visit.result()


# Wrong handshakes


def changed(name: str, *lines: str) -> bytes:
    """Return a request with other lines in place of one of a header; a line is kept in place of itself."""
    kept = [line for line in request().decode().split("\r\n") if not line.startswith(name)]
    return "\r\n".join([*kept[:-2], *lines, "", ""]).encode("latin-1")


REQUEST = request()

WRONG = {
    "POST": (REQUEST.replace(b"GET", b"POST"), 405, "method must be GET"),
    "HEAD": (REQUEST.replace(b"GET", b"HEAD"), 405, "method must be GET"),
    "HTTP/1.0": (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), 505, "HTTP version must be 1.1"),
    "version 8": (
        changed("Sec-WebSocket-V", "Sec-WebSocket-Version: 8"),
        426,
        "Sec-WebSocket-Version must be 13",
    ),
    "no version": (changed("Sec-WebSocket-V"), 400, "Sec-WebSocket-Version header is missing"),
    "two versions": (request("Sec-WebSocket-Version: 13"), 400, "more than one Sec-WebSocket-Version header"),
    "no key": (changed("Sec-WebSocket-K"), 400, "Sec-WebSocket-Key header is missing"),
    "a short key": (request(key="YQ=="), 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
    "two keys": (request(f"Sec-WebSocket-Key: {'A' * 22}=="), 400, "more than one Sec-WebSocket-Key header"),
    "no Host": (changed("Host"), 400, None),
    "two Hosts": (request("Host: b"), 400, None),
    "a wrong Host": (changed("Host", "Host: a/b"), 400, "Host header must be a host, with or without a port"),
    "a body": (request("Content-Length: 3") + b"abc", 400, "request must not have a body"),
    "chunks": (request("Transfer-Encoding: chunked"), 400, "request must not have a body"),
    "two Origins": (request("Origin: http://a", "Origin: http://b"), 400, "more than one Origin header"),
    "subprotocols": (
        request("Sec-WebSocket-Protocol: a b"),
        400,
        "Sec-WebSocket-Protocol must be a list of tokens",
    ),
    "extensions": (
        request('Sec-WebSocket-Extensions: permessage-deflate; x="'),
        400,
        "Sec-WebSocket-Extensions is malformed",
    ),
    "fragment": (request(path="/a#b"), 400, None),
    "a long head": (request("X: " + "a" * 17_000), 431, "head exceeds 16384 bytes"),
    "many headers": (request(*["X: a"] * 101), 431, "head has more than 100 headers"),
    "long and many": (request(*["X: " + "a" * 1000] * 40), 431, "head exceeds 16384 bytes"),
}


def test_a_wrong_handshake(site: Site, caplog):
    """The server answers each with its status, and asks no application. uvicorn itself refuses some."""
    for wrong, (data, status, says) in WRONG.items():
        with case(wrong=wrong):
            with site.connect() as peer:
                peer.send(data)
                answer = parsed(peer.read_all(), is_head=wrong == "HEAD")
            assert answer[0] == status
            assert answer[1]["connection"].split(", ")[-1] == "close"
            is_uvicorns = wrong == "a wrong Host" and answer[2] == b"Invalid HTTP request received."
            if wrong == "HEAD":
                assert answer[2] == b""  # RFC 9110, section 9.3.2
            elif says is not None and not is_uvicorns:
                assert answer[2] == says.encode() + b"\n"
            assert answer[1].get("allow", "get") == "get"
            assert ("allow" in answer[1]) == (status == 405)
            assert (answer[1].get("sec-websocket-version") == "13") == (status == 426)
            (warning,) = messages(caplog)
            assert warning.startswith(("Invalid WebSocket handshake: ", "Invalid HTTP request received."))


def test_a_head_that_comes_byte_by_byte(site: Site):
    visit = site.visit(echo)
    with site.connect() as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(path=visit.path):
            peer.send(bytes([byte]))
        assert b" 101 " in peer.read_head()
        peer.send(peer.text("a"), peer.close())
        assert peer.read_text() == "a"
        assert peer.read_close() == (1000, "")


# What the client has sent is what the application sees, or 400

SEEN = [(b"x", b"a b")]
ODD = {
    # bytes, and what the application sees of them after h11 and after httptools; None: nothing, but a 400
    "tab": (b"X: a\tb\r\n", [(b"x", b"a\tb")], [(b"x", b"a\tb")]),
    "spaces around": (b"X: \t a \t\r\n", [(b"x", b"a")], [(b"x", b"a")]),
    "latin-1": (b"X: \xa0\xff\r\n", [(b"x", b"\xa0\xff")], [(b"x", b"\xa0\xff")]),
    "0x80": (b"X: a\x80b\r\n", [(b"x", b"a\x80b")], [(b"x", b"a\x80b")]),
    "0x85": (b"X: a\x85Y: b\r\n", [(b"x", b"a\x85Y: b")], [(b"x", b"a\x85Y: b")]),
    "0x9f": (b"X: a\x9fb\r\n", [(b"x", b"a\x9fb")], [(b"x", b"a\x9fb")]),
    "UTF-8": (
        b"Cookie: name=" + "Łukasz 中文".encode() + b"\r\n",
        [(b"cookie", b"name=" + "Łukasz 中文".encode())],
        [(b"cookie", b"name=" + "Łukasz 中文".encode())],
    ),
    # RFC 7230, section 3.2.4: refuse it, or "replace each received obs-fold with one or more SP".
    "obs-fold": (b"X: a\r\n b\r\n", SEEN, None),
    "obs-fold at first": (b"X:\r\n Upgrade: x\r\n", [(b"x", b"Upgrade: x")], None),
    # Section 3.5: "a recipient MAY recognize a single LF as a line terminator". h11 does.
    "bare LF": (b"X: a\nY: b\r\n", [(b"x", b"a"), (b"y", b"b")], None),
    "bare CR": (b"X: a\rY: b\r\n", None, None),
    "CR CR LF": (b"X: a\r\r\n", None, None),
    "NUL": (b"X: a\0b\r\n", None, None),
    "0x01": (b"X: a\x01b\r\n", None, None),
    "0x0b": (b"X: a\x0bY: b\r\n", None, None),
    "0x0c": (b"X: a\x0cY: b\r\n", None, None),
    "0x1c": (b"X: a\x1cY: b\r\n", None, None),
    "0x7f": (b"X: a\x7fb\r\n", None, None),
    "space in a name": (b"X Y: b\r\n", None, None),
    "space after a name": (b"X : b\r\n", None, None),
    "NUL in a name": (b"X\0: b\r\n", None, None),
    "LF in a name": (b"X\nY: b\r\n", None, None),
    "no name": (b": b\r\n", None, None),
    "UTF-8 in a name": (b"\xc3\xa4: b\r\n", None, None),
    "no colon": (b"Xb\r\n", None, None),
}


def test_no_header_is_smuggled(site: Site, caplog):
    for odd, (data, h11_sees, httptools_sees) in ODD.items():
        seen = h11_sees if site.http == "h11" else httptools_sees
        visit = site.visit(hear)
        expected = request(path=visit.path)
        with case(odd=odd), site.connect() as peer:
            peer.send(expected[:-2] + data + b"\r\n")
            peer.read_head()
            if seen is None:
                assert peer.head.startswith(b"HTTP/1.1 400 ")
                assert not visit.is_begun
                (warning,) = messages(caplog)
                assert warning.startswith("Invalid ")
                continue
            assert peer.head.startswith(b"HTTP/1.1 101 ")
            assert visit.scope["headers"][5:] == seen
            close(peer)


def test_expect_100_continue(site: Site):
    """There is no body to wait for: nothing comes before the 101."""
    visit = site.visit(echo)
    with site.ask(visit, "Expect: 100-continue") as peer:
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        close(peer)


# HTTP on the same TCP connection


def with_http(size: int):
    """An application that also answers HTTP requests, with so many bytes."""

    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await flood(scope, receive, send) if scope["path"] == "/flood" else await echo(
                scope, receive, send
            )
            return
        await receive()
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    return application


async def flood(scope, receive, send):
    """Send up to the end, and count."""
    await receive()
    await send(ACCEPT)
    websocket = scope["extensions"]["wsframe"]["websocket"]
    count = 0
    try:
        while True:
            sending = asyncio.ensure_future(send({"type": "websocket.send", "bytes": bytes(20_000)}))
            await asyncio.wait([sending], timeout=0.3)
            if not sending.done():
                waiting.append(websocket.buffered_amount)
            await sending
            count += 1
    except OSError:
        ended.append(count)


waiting: list[int] = []
ended: list[int] = []


@pytest.fixture(autouse=True)
def floods():
    waiting.clear()
    ended.clear()


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def read_head(peer: Peer) -> bytes:
    """Read a head, and not a byte more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = peer.sock.recv(1)
        assert byte, data
        data += byte
    return data


def read_answer(peer: Peer, size: int) -> None:
    assert read_head(peer).startswith(b"HTTP/1.1 200 ")
    while size:
        data = peer.sock.recv(min(size, 65536))
        assert data
        size -= len(data)


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_after_http_requests_on_the_same_connection(place, leaks, tls, secure, size):
    with site_at(place, with_http(size), tls=tls if secure else None) as site, site.connect() as peer:
        for _ in range(3):
            peer.send(GET)
            read_answer(peer, size)
        # The next request comes when all of this response is read, and the one after that with it.
        peer.send(GET)
        read_answer(peer, size)
        peer.send(request())
        assert read_head(peer).startswith(b"HTTP/1.1 101 ")
        for text in ("a", "b" * 100_000):
            peer.send(peer.text(text))
            assert peer.read_text() == text
        close(peer, 4000)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_a_response_is_still_unsent_when_the_upgrade_comes(place, leaks, tls, secure):
    """What is sent waits for it: the client reads the response, the 101, and what follows, in order."""
    size = 8 * MIB
    application = with_http(size)
    with site_at(place, application, tls=tls if secure else None) as site:
        with site.connect(receive_buffer=4096) as peer:
            peer.send(GET)
            assert peer.sock.recv(1) == b"H"
            # All of it is with the transport: uvicorn counts a request when it is answered.
            while not site.server.server_state.total_requests:
                pass
            peer.send(request(path="/flood"))
            while not waiting:
                pass
            assert waiting[0] < size + 200_000
            before = waiting[0]
            assert read_head(peer).startswith(b"TTP/1.1 200 ")
            rest = size
            while rest:
                rest -= len(peer.sock.recv(min(rest, 65536)))
            assert read_head(peer).startswith(b"HTTP/1.1 101 ")
            for _ in range(100):
                assert peer.next_frame().payload == bytes(20_000)
            assert max(waiting) <= before + 65536
        while not ended:
            pass
        assert ended[0] >= 100
        site.settle()


@pytest.mark.parametrize("place", parsers)
def test_an_upgrade_that_comes_while_uvicorn_answers_another_request(place, leaks):
    """With h11 it waits for its turn. With httptools uvicorn hands it over, and then goes on answering."""

    async def application(scope, receive, send):
        await receive()
        if scope["type"] == "websocket":
            await send(ACCEPT)
            await to_the_end(receive, send)
            return
        await is_asked.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    is_asked = asyncio.Event()
    with site_at(place, application) as site, site.connect() as peer:
        peer.send(GET + request())
        if site.http == "httptools":
            assert read_head(peer).startswith(b"HTTP/1.1 101 ")
            site.loop.run(is_asked.set)
            assert read_head(peer).startswith(b"HTTP/1.1 204 ")
        else:
            site.loop.run(is_asked.set)
            assert read_head(peer).startswith(b"HTTP/1.1 204 ")
            assert read_head(peer).startswith(b"HTTP/1.1 101 ")
        close(peer)


# Settings


def test_ws_max_size(corner, leaks):
    with site_at(corner, ws_max_size=1000) as site:
        for size in (1000, 1001):
            visit = site.visit(echo)
            with site.open(visit) as peer:
                peer.send(peer.encode(Opcode.BINARY, bytes(size)))
                if size == 1000:
                    assert peer.next_frame().payload == bytes(size)
                    peer.send(peer.close())
                assert peer.read_close()[0] == (1000 if size == 1000 else 1009)
            assert visit.heard()[-1]["code"] == (1000 if size == 1000 else 1009)


@pytest.mark.parametrize("limit", [0, 3])
def test_ws_max_queue(corner, leaks, limit):
    """So many messages are read ahead of the application; then what comes waits in the network."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        websocket = scope["extensions"]["wsframe"]["websocket"]
        while websocket.transport.is_reading():
            await asyncio.sleep(0)
        queued.append(len(websocket.session.messages))
        await to_the_end(receive, send)

    queued = []
    with site_at(corner, ws_max_queue=limit) as site:
        visit = site.visit(application)
        with site.open(visit) as peer:
            for number in range(50):
                peer.send(peer.text(str(number)))
            close(peer)
        assert [event["text"] for event in visit.heard()[:-1]] == list(map(str, range(50)))
    assert queued == [max(limit, 1)]


@pytest.mark.parametrize("timeout", [0.05, 0, None])
def test_keepalive(corner, leaks, timeout):
    """Without a timeout, nobody minds that the client does not answer."""
    with site_at(corner, ws_ping_interval=0.05, ws_ping_timeout=timeout) as site:
        visit = site.visit(hear)
        with site.open(visit) as peer:
            assert peer.next_frame().opcode is Opcode.PING
            if timeout:
                assert peer.read_close() == (1011, "no pong within 0.05 seconds")
            else:
                assert [peer.next_frame().opcode for _ in range(3)] == [Opcode.PING] * 3
                peer.send(peer.close())
                assert peer.frames()[-1].opcode is Opcode.CLOSE
        end = disconnect(1011, "no pong within 0.05 seconds") if timeout else disconnect(1000)
        assert visit.heard() == [end]


def test_what_was_queued_when_the_keepalive_gives_up(corner, leaks):
    """It is still received."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while scope["extensions"]["wsframe"]["websocket"].close_code is None:
            await asyncio.sleep(0)
        await to_the_end(receive, send)

    with site_at(corner, ws_ping_interval=0.05, ws_ping_timeout=0.05) as site:
        visit = site.visit(application)
        with site.open(visit) as peer:
            peer.send(peer.text("a"), peer.text("b"))
            assert peer.frames()[-1].payload[:2] == b"\x03\xf3"
        received = [{"type": "websocket.receive", "text": text} for text in "ab"]
        assert visit.heard() == [*received, disconnect(1011, "no pong within 0.05 seconds")]


@pytest.mark.parametrize("interval", [0, None])
def test_no_keepalive(corner, leaks, interval):
    with site_at(corner, ws_ping_interval=interval, ws_ping_timeout=0.01) as site:
        visit = site.visit(hear)
        with site.open(visit) as peer:
            assert visit.scope["extensions"]["wsframe"]["websocket"]._timer is None
            close(peer)


@pytest.mark.parametrize("compression", [True, False])
def test_ws_per_message_deflate(corner, leaks, compression):
    with site_at(corner, ws_per_message_deflate=compression) as site:
        visit = site.visit(echo)
        with site.open(visit, "Sec-WebSocket-Extensions: permessage-deflate") as peer:
            assert (b"permessage-deflate" in peer.head) == compression
            close(peer)
        with wsframe.sync.connect(site.uri(visit := site.visit(echo))) as websocket:
            for message in ("a" * 1000, "b" * 200_000, b"c" * 100_000):
                websocket.send(message)
                assert websocket.recv() == message
            assert bool(websocket.counters.uncompressed) == compression


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"date", "server"}),
        ({"date_header": False, "server_header": False}, set()),
        ({"headers": [("x-a", "\xe4\x81"), ("Server", "mine")], "date_header": False}, {"x-a", "server"}),
    ],
    ids=["as it comes", "none", "--header"],
)
def test_default_headers(corner, leaks, settings, expected):
    """They are in every answer."""

    async def fails(scope, receive, send):
        raise OSError

    async def denies(scope, receive, send):
        await receive()
        await send(CLOSE)

    with site_at(corner, **settings) as site:
        names = {"upgrade", "connection", "sec-websocket-accept"}
        for application in (echo, denies):
            with site.ask(site.visit(application)) as peer:
                lines = peer.read_head().decode("latin-1").split("\r\n")[1:]
                headers = dict(line.lower().split(": ") for line in lines)
                assert headers.keys() - names - {"content-length"} == expected
                assert headers.get("x-a", "\xe4\x81") == "\xe4\x81"
                assert headers.get("server", "uvicorn") == ("mine" if "headers" in settings else "uvicorn")
                if application is echo:
                    peer.send(peer.close())
                    peer.read_close()


def test_default_headers_that_cannot_be_sent(corner, leaks, caplog):
    """Nobody is left waiting: not even a 500 can be sent."""
    with site_at(corner, headers=[("Upgrade", "h2c")]) as site:
        visit = site.visit(echo)
        with site.ask(visit) as peer:
            assert peer.read_head() == b""
        with pytest.raises(LocalProtocolError, match="header upgrade is set by the handshake"):
            visit.result()
    assert messages(caplog) == ["Exception in ASGI application"]


@pytest.mark.parametrize("access_log", [True, False])
def test_access_log(corner, leaks, caplog, access_log):
    caplog.set_level(logging.INFO, "uvicorn.error")
    with site_at(corner, access_log=access_log) as site:
        visit = site.visit(echo)
        with site.open(visit) as peer:
            host, port = peer.sock.getsockname()
            peer.send(peer.close())
            peer.read_close()
    line = f'{host}:{port} - "WebSocket {visit.path}" [accepted]'
    assert (line in messages(caplog)) == access_log


def test_limit_concurrency(corner, leaks, caplog):
    with site_at(corner, limit_concurrency=2) as site:
        with site.open(site.visit(echo)) as first:
            visit = site.visit(echo)
            with site.ask(visit) as second:
                status, headers, body = parsed(second.read_all())
            assert (status, headers["connection"], body) == (503, "close", b"too many connections\n")
            assert not visit.is_begun
            assert messages(caplog) == ["Exceeded concurrency limit."]
            first.send(first.text("a"), first.close())
            assert first.read_text() == "a"
            assert first.read_close() == (1000, "")
        site.settle()
        with site.open(site.visit(echo)) as third:
            third.send(third.close())
            third.read_close()


LABEL: contextvars.ContextVar[str] = contextvars.ContextVar("LABEL", default="none")


@pytest.mark.parametrize("resets", [False, True])
def test_reset_contextvars(corner, leaks, resets):
    """What was set when the server was started is seen, or not."""
    seen = []

    async def application(scope, receive, send):
        seen.append(LABEL.get())
        await echo(scope, receive, send)

    token = LABEL.set("the server's")
    try:
        with site_at(corner, application, reset_contextvars=resets) as site, site.connect() as peer:
            peer.send(request())
            peer.read_head()
            peer.send(peer.close())
            peer.read_close()
    finally:
        LABEL.reset(token)
    assert seen == ["none" if resets else "the server's"]


@pytest.mark.parametrize(
    ("headers", "client", "scheme"),
    [
        (["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"], ("1.2.3.4", 0), "wss"),
        (["X-Forwarded-For: 5.6.7.8, 1.2.3.4", "X-Forwarded-Proto: wss"], ("1.2.3.4", 0), "wss"),
        (["X-Forwarded-Proto: http"], None, "ws"),
    ],
    ids=["https", "wss", "http"],
)
@pytest.mark.parametrize("trusts", [True, False], ids=["trusted", "not trusted"])
def test_proxy_headers(corner, leaks, caplog, headers, client, scheme, trusts):
    caplog.set_level(logging.INFO, "uvicorn.error")
    with site_at(corner, forwarded_allow_ips="127.0.0.1" if trusts else "9.9.9.9") as site:
        visit = site.visit(echo)
        with site.open(visit, *headers) as peer:
            address = peer.sock.getsockname()
            peer.send(peer.close())
            peer.read_close()
    expected = (client or address, scheme) if trusts else (address, "ws")
    assert (visit.scope["client"], visit.scope["scheme"]) == expected
    host, port = expected[0]
    assert f'{host}:{port} - "WebSocket {visit.path}" [accepted]' in messages(caplog)


# Slow clients


def test_a_client_that_does_not_read(corner, leaks):
    """send waits; when the client goes, it raises, and nothing is kept."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        websocket = scope["extensions"]["wsframe"]["websocket"]
        sockets.append(websocket)
        data = bytes(60_000)
        while True:
            await send({"type": "websocket.send", "bytes": data})
            assert websocket.buffered_amount < 65536 + 2 * 60_014

    sockets = []
    with site_at(corner, ws_ping_interval=None, ws_per_message_deflate=False) as site:
        visit = site.visit(application)
        with site.open(visit, receive_buffer=4096) as peer:
            tracemalloc.start()
            try:
                while not sockets or not sockets[0]._is_writing_paused:
                    pass
                for _ in range(50):  # it does not go on
                    site.loop.run(asyncio.sleep, 0)
                assert sockets[0]._is_writing_paused
                assert tracemalloc.get_traced_memory()[1] < 2 * MIB
            finally:
                tracemalloc.stop()
            peer.reset()
        with pytest.raises(OSError, match="lost"):
            visit.result()
        site.settle()
        assert sockets[0].buffered_amount == 0


def test_an_application_that_does_not_receive(corner, leaks):
    """The client has to wait, and nothing is lost."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await goes_on.wait()
        await to_the_end(receive, send)

    goes_on = asyncio.Event()
    with site_at(corner, ws_ping_interval=None) as site:
        visit = site.visit(application)
        with site.open(visit) as peer:
            frame = peer.encode(Opcode.BINARY, bytes(60_000))
            peer.sock.settimeout(0.3)
            count, rest = 0, b""
            with contextlib.suppress(TimeoutError):
                while count < 1000:
                    rest = frame
                    while rest:
                        rest = rest[peer.sock.send(rest) :]
                    count += 1
            assert count < 1000
            websocket = visit.scope["extensions"]["wsframe"]["websocket"]
            assert sum(len(message.data) for message in websocket.session.messages) <= MIB + 60_000
            peer.sock.settimeout(TIMEOUT)
            site.loop.run(goes_on.set)
            peer.send(rest, peer.close())
            assert peer.read_close() == (1000, "")
        assert [event.get("bytes") for event in visit.heard()[:-1]] == [bytes(60_000)] * (count + 1)


# The end of the server


def test_shutdown(corner, leaks):
    """The client gets 1012; what it has sent up to its answer is still received."""
    with site_at(corner) as site:
        visit = site.visit(hear)
        with site.open(visit) as peer:
            site.shut_down()
            frame = peer.next_frame()
            assert (frame.opcode, frame.payload) == (Opcode.CLOSE, b"\x03\xf4")
            peer.send(peer.text("a"), peer.text("b"), peer.close(4000, "mine"))
            assert peer.frames() == []
        received = [{"type": "websocket.receive", "text": text} for text in "ab"]
        assert visit.heard() == [*received, disconnect(1012)]


def test_shutdown_with_messages_queued(corner, leaks):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        websocket = scope["extensions"]["wsframe"]["websocket"]
        while len(websocket.session.messages) < 3:
            await asyncio.sleep(0)
        site.shut_down()
        while websocket.state is wsframe.State.OPEN:
            await asyncio.sleep(0)
        await to_the_end(receive, send)

    with site_at(corner) as site:
        visit = site.visit(application)
        with site.open(visit) as peer:
            peer.send(peer.text("a"), peer.text("b"), peer.text("c"))
            assert peer.next_frame().payload == b"\x03\xf4"
            peer.send(peer.text("d"), peer.close(1012))
            assert peer.frames() == []
        assert [event.get("text") for event in visit.heard()] == ["a", "b", "c", "d", None]
        assert visit.events[-1] == disconnect(1012)


@pytest.mark.parametrize("ending", ["end", "reset"])
def test_shutdown_and_the_client_goes(corner, leaks, ending):
    with site_at(corner) as site:
        visit = site.visit(hear)
        with site.open(visit) as peer:
            site.shut_down()
            assert peer.next_frame().opcode is Opcode.CLOSE
            getattr(peer, ending)()
        assert visit.heard() == [disconnect(1012)]


def test_shutdown_before_accept(corner, leaks):
    """It is refused with 503."""

    async def application(scope, receive, send):
        await receive()
        with contextlib.suppress(OSError):
            await to_the_end(receive, send)

    with site_at(corner) as site:
        visit = site.visit(application)
        with site.ask(visit) as peer:
            assert visit.scope
            site.shut_down()
            status, headers, body = parsed(peer.read_all())
            assert (status, headers["connection"], body) == (503, "close", b"server is going away\n")
        assert visit.heard() == [disconnect(1006, "handshake was refused with 503")]


def test_an_application_that_does_not_end(corner, leaks, caplog):
    """uvicorn cancels it, after timeout_graceful_shutdown."""

    async def application(scope, receive, send):
        assert await receive() == CONNECT
        await send(ACCEPT)
        await asyncio.Event().wait()

    with site_at(corner, timeout_graceful_shutdown=0.1) as site:
        visit = site.visit(application)
        with site.open(visit) as peer:
            site.shut_down()
            assert peer.next_frame().payload == b"\x03\xf4"
            peer.send(peer.close(1012))
            assert peer.frames() == []
            with pytest.raises(asyncio.CancelledError):
                visit.result()
    assert messages(caplog) == ["Cancel 1 running task(s), timeout graceful shutdown exceeded"]


def test_the_lifespan_ends_after_the_connections(corner, leaks):
    order = []

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            order.append("lifespan")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await echo(scope, receive, send)
        order.append("websocket")

    with site_at(corner, application, lifespan="on") as site, site.connect() as peer:
        peer.send(request())
        peer.read_head()
        site.shut_down()
        assert peer.next_frame().payload == b"\x03\xf4"
        peer.send(peer.close(1012))
        assert peer.frames() == []
    assert order == ["websocket", "lifespan"]


# The programs of docs/asgi.md

APPLICATION, WORKER = programs(DOCS / "asgi.md")


def test_the_program_of_the_manual(corner, leaks):
    names = {"__name__": "module"}
    exec(APPLICATION, names)
    with (
        site_at(corner, names["app"]) as site,
        wsframe.sync.connect(f"ws://127.0.0.1:{site.address[1]}/") as websocket,
    ):
        for message in ("a", b"b"):
            websocket.send(message)
            assert websocket.recv() == message


@needs("gunicorn", "uvicorn_worker")
def test_gunicorn(tmp_path, leaks):
    (tmp_path / "module.py").write_text(APPLICATION + WORKER)
    command = "-m gunicorn module:app -k module.Worker -b 127.0.0.1:0 -w 2 --worker-tmp-dir"
    with subprocess.Popen(
        [sys.executable, *command.split(), tmp_path],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            log = iter(process.stderr.readline, "")
            uri = next(line for line in log if "Listening at" in line).split("http")[1].split()[0]
            with wsframe.sync.connect("ws" + uri + "/") as websocket:
                for message in ("a", b"b" * 100_000):
                    websocket.send(message)
                    assert websocket.recv() == message
                # Nobody else says it so.
                with pytest.raises(HandshakeRejected) as rejected:
                    wsframe.sync.connect("ws" + uri + "/", additional_headers={"X-A": "\xa0" * 17_000})
                assert rejected.value.response.status == 431
                assert rejected.value.response.body == b"head exceeds 16384 bytes\n"
            with wsframe.sync.connect("ws" + uri + "/") as websocket:
                process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    websocket.recv(TIMEOUT)
                assert closed.value.code == 1012
            _, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
