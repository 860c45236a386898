"""Servers, through both adapters: requests, refusals, options, handlers, and the end of a server."""

from __future__ import annotations

import http.client
import os
import queue
import socket
import threading
from contextlib import closing

import pytest

from tests.support.adapters import TIMEOUT, close_payload, request, response
from tests.support.cases import case
from wsframe import (
    ConnectionClosed,
    HandshakeFailed,
    HandshakeRejected,
    LocalProtocolError,
    Opcode,
    Response,
    State,
    basic_auth,
    redirect,
)
from wsframe.aio import serve as aio_serve
from wsframe.deflate import DEFAULT
from wsframe.sync import serve as sync_serve

pytestmark = pytest.mark.usefixtures("leaks")


def rejected(adapter, uri, **options) -> Response:
    with pytest.raises(HandshakeRejected) as caught:
        adapter.connect(uri, **options)
    assert caught.value.response is not None
    return caught.value.response


# Requests


REFUSALS = [
    Response(200, [("Content-Type", "text/html")], b"<p>page</p>"),
    Response(404),
    Response(503, [("Retry-After", "1")], b"full"),
    Response(401, body=b"x" * 65536),
]


def test_process_request_refuses(adapter, maybe_tls):
    server, client = maybe_tls or (None, None)
    with adapter.serve(process_request=lambda request: response, ssl=server) as running:
        for response in REFUSALS:
            with case(status=response.status):
                answer = rejected(adapter, running.uri, ssl=client)
                assert (answer.status, answer.body) == (response.status, response.body)
                assert set(response.headers) <= {(name.title(), value) for name, value in answer.headers}


def test_process_request_accepts(adapter):
    requests = []

    def process(request):
        requests.append(request)
        return None if request.path == "/" else Response(101, [("Set-Cookie", "a=b")])

    with adapter.serve(process_request=process) as running:
        with adapter.connect(running.uri) as websocket:
            assert websocket.response.headers.get("Set-Cookie") is None
        with adapter.connect(running.uri + "x", additional_headers={"X-A": "b"}) as websocket:
            assert websocket.response.headers.get("Set-Cookie") == "a=b"
    assert [request.path for request in requests] == ["/", "/x"]
    assert requests[1].headers.get("X-A") == "b"


# Bytes that a cookie or a header of a proxy may have: RFC 9110, section 5.5, obs-text
OBS_TEXT = bytes(range(0x80, 0x100))
UTF_8 = ["Céline", "Łukasz", "Ödön À", "中文", "😀"]


def test_a_server_takes_header_values_in_utf8_and_gives_them_back(adapter):
    def process(request):
        value = request.headers.get("cookie")
        headers = [("X-Seen", value), ("X-Given", value.encode("latin-1"))]
        return Response(101 if request.path == "/" else 403, headers)

    with adapter.serve(process_request=process) as running:
        for value in [*(f"name={name}".encode() for name in UTF_8), OBS_TEXT]:
            for path, status in [("/", b" 101 "), ("/no", b" 403 ")]:
                with case(value=value, path=path), running.connect() as peer:
                    head, blank_line = request(path=path)[:-2], b"\r\n"
                    peer.send(head + b"Cookie: " + value + b"\r\n" + blank_line)
                    answer = peer.read_head() + b"\r\n"
                    assert status in answer
                    assert b"\r\nX-Seen: " + value + b"\r\nX-Given: " + value + b"\r\n" in answer


def test_a_client_sends_and_takes_header_values_in_utf8(adapter, spawn, listener):
    cookie, city = "name=Łukasz".encode(), "Łódź".encode()
    for given in (cookie, cookie.decode("latin-1")):
        connecting = spawn(adapter.connect, listener.uri, additional_headers={"Cookie": given})
        with listener.accept() as peer:
            head = peer.read_head()
            assert b"\r\nCookie: " + cookie in head
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
            peer.send(response(f"X-City: {city.decode('latin-1')}", key=key))
            websocket = connecting.result(TIMEOUT)
            assert websocket.response.headers.get("X-City").encode("latin-1") == city
            peer.send(peer.close())
        websocket.close()  # now that the peer has closed TCP
    connecting = spawn(adapter.connect, listener.uri)
    with listener.accept() as peer:
        peer.read_head()
        peer.send(b"HTTP/1.1 403 Nie\xc5\x82\r\nX-City: " + city + b"\r\nContent-Length: 0\r\n\r\n")
        rejected = connecting.exception(TIMEOUT)
    assert isinstance(rejected, HandshakeRejected)
    assert "status 403 Forbidden" in str(rejected)
    assert rejected.response.headers.get("X-City").encode("latin-1") == city


def test_a_header_value_outside_latin_1_is_refused_with_the_remedy(adapter, caplog):
    with pytest.raises(ValueError, match="value of header Cookie has a character outside latin-1: give its"):
        adapter.connect("ws://localhost:1/", additional_headers={"Cookie": "name=Łukasz"})
    answer = Response(101, [("X-City", "Łódź")])
    with adapter.serve(process_request=lambda _: answer) as running:
        assert rejected(adapter, running.uri).status == 500
    assert "value of header X-City has a character outside latin-1: give its bytes" in caplog.text
    caplog.clear()


def test_process_request_may_be_asynchronous(aio_adapter):
    async def process(request):
        return Response(403, body=b"later") if request.path == "/no" else None

    with aio_adapter.serve(process_request=process) as running:
        assert rejected(aio_adapter, running.uri + "no").body == b"later"
        with aio_adapter.connect(running.uri) as websocket:
            websocket.send("yes")
            assert websocket.recv() == "yes"


def test_process_request_fails(adapter, caplog):
    def process(request):
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    with adapter.serve(process_request=process) as running:
        for wrong in (ValueError("secret"), "text", Response(101, [("Upgrade", "x")]), Response(99)):
            with case(wrong=wrong):
                answer = rejected(adapter, running.uri)
                assert answer.status == 500
                assert b"secret" not in answer.body
                (record,) = caplog.get_records("call")
                assert record.name == f"wsframe.{adapter.name}"
                assert record.exc_info
                caplog.clear()


def test_a_plain_get(adapter):
    for process in (None, lambda request: None, lambda request: Response(101)):
        with adapter.serve(process_request=process) as running, running.connect() as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = peer.read_all()
            assert answer.startswith(b"HTTP/1.1 426 "), process
            assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer, process


def test_a_page_beside_the_socket(adapter):
    def process(request):
        return None if request.is_upgrade else Response(200, body=b"healthy")

    with adapter.serve(process_request=process) as running:
        with running.connect() as peer:
            peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert peer.read_all().endswith(b"\r\n\r\nhealthy")
        with adapter.connect(running.uri) as websocket:
            websocket.send("x")
            assert websocket.recv() == "x"


def healthy(request):
    return None if request.is_upgrade else Response(200, [("X-Path", request.path)], b"healthy\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_health_check_of_an_http_client(adapter, method):
    with adapter.serve(process_request=healthy) as running:
        for version, text in [(11, "HTTP/1.1"), (10, "HTTP/1.0")]:
            client = http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=TIMEOUT)
            client._http_vsn, client._http_vsn_str = version, text
            with case(version=text), closing(client):
                client.request(method, "/health")
                answer = client.getresponse()
                assert (answer.status, answer.headers["X-Path"]) == (200, "/health")
                assert answer.headers["Content-Length"] == "8"
                assert answer.read() == (b"" if method == "HEAD" else b"healthy\n")


@pytest.mark.parametrize(
    "check",
    [
        b"OPTIONS / HTTP/1.0\r\n\r\n",  # option httpchk
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"\r\nHEAD http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    ],
)
def test_a_health_check_of_a_load_balancer(adapter, check):
    method, path, version = check.decode().split()[:3]
    body = b"" if method == "HEAD" else b"healthy\n"
    with adapter.serve(process_request=healthy) as running, running.connect() as peer:
        peer.send(check)
        head, _, rest = peer.read_all().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nX-Path: " + (b"/" if path == "http://a/" else path.encode()) in head
        assert b"\r\nContent-Length: 8" in head
        assert rest == body
    status = b" 405 " if version == "HTTP/1.1" else b" 505 "
    for process in (None, lambda request: None, lambda request: Response(101)):
        with adapter.serve(process_request=process) as running, running.connect() as peer:
            peer.send(check)
            head, _, rest = peer.read_all().partition(b"\r\n\r\n")
            assert status in head
            assert (b"\r\nAllow: GET\r\n" in head) == (status == b" 405 ")
            assert (rest == b"") == (method == "HEAD")


def test_credentials_and_redirects_of_a_head(adapter, caplog):
    for process, status in [
        (basic_auth(("ada", "secret"), process_request=healthy), b" 401 "),
        (lambda request: redirect("/elsewhere"), b" 302 "),
        (lambda request: 1 / 0, b" 500 "),
    ]:
        with adapter.serve(process_request=process) as running, running.connect() as peer:
            peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            head, _, rest = peer.read_all().partition(b"\r\n\r\n")
            assert status in head
            assert b"\r\nContent-Length: " in head
            assert rest == b""
    assert "process_request failed" in caplog.text
    caplog.clear()


def test_a_health_check_of_a_full_server(aio_adapter):
    with (
        aio_adapter.serve(process_request=healthy, max_connections=1) as running,
        running.open(),
        running.connect() as peer,
    ):
        peer.send(b"HEAD / HTTP/1.0\r\n\r\n")
        head, _, rest = peer.read_all().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nContent-Length: " in head
        assert rest == b""


@pytest.mark.parametrize("form", ["http://x", "ws://x", "wss://x:443", "WS://x"])
def test_an_absolute_form_opens_and_its_host_replaces_the_host_header(adapter, form):
    requests = queue.SimpleQueue()
    with adapter.serve(process_request=requests.put) as running, running.connect() as peer:
        peer.send(b"\r\n" + request(path=f"{form}/ocpp/CP1", host="other"), peer.text("a"))
        assert b" 101 " in peer.read_head()
        assert peer.read_text() == "a"
        asked = requests.get(timeout=TIMEOUT)
        assert (asked.path, asked.headers.get_all("host")) == ("/ocpp/CP1", [form.partition("//")[2]])


def test_subprotocols(adapter):
    subprotocols = queue.SimpleQueue()
    for ours, theirs, chosen in [
        ((), (), None),
        (("a", "b"), ("b", "a"), "a"),
        (("a",), ("b",), None),
        (("a",), (), None),
    ]:
        with (
            case(ours=ours, theirs=theirs),
            adapter.serve(lambda ws: subprotocols.put(ws.subprotocol), subprotocols=ours) as running,
        ):
            with adapter.connect(running.uri, subprotocols=theirs) as websocket:
                assert websocket.subprotocol == chosen
            assert subprotocols.get(timeout=TIMEOUT) == chosen


def test_a_subprotocol_that_is_offered_twice_counts_once(adapter):
    requests = queue.SimpleQueue()
    with adapter.serve(process_request=requests.put, subprotocols=["ocpp1.6"]) as running:
        with running.connect() as peer:
            peer.send(request("Sec-WebSocket-Protocol: ocpp1.6, ocpp1.6"))
            assert b"\r\nSec-WebSocket-Protocol: ocpp1.6" in peer.read_head()
        assert requests.get(timeout=TIMEOUT).subprotocols == ("ocpp1.6",)


def test_malformed_extensions_are_refused_before_process_request(adapter):
    asked = []
    for compression in (DEFAULT, None):
        with adapter.serve(process_request=asked.append, compression=compression) as running:
            for value in ("a b", 'permessage-deflate; x="', "@", ";", "a;", "a=b"):
                with case(value=value), running.connect() as peer:
                    peer.send(request(f"Sec-WebSocket-Extensions: {value}"))
                    assert peer.read_all().startswith(b"HTTP/1.1 400 ")
    assert asked == []


def test_malformed_extensions_of_a_server_fail_the_client(adapter, spawn, listener):
    for compression in (DEFAULT, None):
        connecting = spawn(adapter.connect, listener.uri, compression=compression)
        with listener.open(headers=('Sec-WebSocket-Extensions: permessage-deflate; x="',)):
            failed = connecting.exception(TIMEOUT)
        assert type(failed) is HandshakeFailed
        assert failed.response.status == 101
        assert "Sec-WebSocket-Extensions is malformed" in str(failed)


def test_origins(adapter):
    for origins, origin, status in [
        (None, "https://evil.example", 101),
        (["https://good.example"], "https://good.example", 101),
        (["https://good.example"], "https://evil.example", 403),
        (["https://good.example"], None, 403),
        (["https://good.example", None], None, 101),
    ]:
        with case(origin=origin, origins=origins), adapter.serve(origins=origins) as running:
            if status == 101:
                with adapter.connect(running.uri, origin=origin) as websocket:
                    assert websocket.response.status == 101
            else:
                assert rejected(adapter, running.uri, origin=origin).status == status


@pytest.mark.parametrize("serve", [aio_serve, sync_serve], ids=["aio", "sync"])
def test_wrong_options_of_serve(serve):
    for options, error in [
        ({}, ValueError),
        ({"port": 0, "unix": "x"}, ValueError),
        ({"port": 0, "origins": "https://example.com"}, TypeError),
        ({"port": 0, "subprotocols": ["a", "a"]}, LocalProtocolError),
        ({"port": 0, "subprotocols": "a"}, TypeError),
    ]:
        with case(options=options), pytest.raises(error):
            serve(print, **options)


def test_wrong_options_of_connect(adapter):
    for options, error in [
        ({"uri": "http://localhost/"}, ValueError),
        ({"ssl": True}, ValueError),
        ({"server_hostname": "x"}, ValueError),
        ({"subprotocols": ["a b"]}, LocalProtocolError),
        ({"additional_headers": {"Host": "x"}}, LocalProtocolError),
        ({"additional_headers": {"X": "a\r\nY: b"}}, LocalProtocolError),
    ]:
        with case(options=options), pytest.raises(error):
            adapter.connect(**{"uri": "ws://localhost:1/"} | options)


# Where it listens


def test_unix_sockets(adapter, tmp_path):
    path = str(tmp_path / "socket")
    with adapter.serve(unix=path), adapter.connect("ws://localhost/x", unix=path) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


def test_sockets_of_ones_own(adapter, maybe_tls):
    server, client = maybe_tls or (None, None)
    listening = socket.create_server(("127.0.0.1", 0))
    with adapter.serve(sock=listening, ssl=server) as running:
        sock = socket.create_connection(listening.getsockname())
        with adapter.connect(running.uri, sock=sock, ssl=client) as websocket:
            websocket.send("hello")
            assert websocket.recv() == "hello"


def test_a_port_that_is_taken(adapter, listener):
    with pytest.raises(OSError, match="in use"), adapter.serve(None, "127.0.0.1", listener.port):
        pass


# Handlers


CLOSED, BUG = ConnectionClosed(1006), ValueError("bug")


@pytest.mark.parametrize(
    "error",
    [
        None,
        BUG,
        ExceptionGroup("mixed", [CLOSED, BUG]),
        ExceptionGroup("", [CLOSED, ExceptionGroup("nested and mixed", [BUG])]),
        CLOSED,
        ExceptionGroup("", [CLOSED, ConnectionClosed(1000)]),
        ExceptionGroup("", [CLOSED, ExceptionGroup("nested", [CLOSED])]),
    ],
    ids=repr,
)
def test_the_handler_ends(adapter, caplog, error):
    """A ConnectionClosed is not an error, alone or as all that an ExceptionGroup holds."""

    def handler(websocket):
        if error is not None:
            raise error

    is_logged = "bug" in repr(error)
    with adapter.serve(handler) as running, running.open() as peer:
        code, reason = (1011, "internal error") if is_logged else (1000, "")
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (Opcode.CLOSE, close_payload(code, reason))
        peer.send(peer.close(code, reason))
        assert peer.next_frame() is None
    if is_logged:
        (record,) = caplog.get_records("call")
        assert record.name == f"wsframe.{adapter.name}"
        assert "ValueError: bug" in caplog.text
        assert "in handler" in caplog.text
        caplog.clear()


def test_the_handler_that_gets_too_large_a_message_did_nothing_wrong(adapter):
    with adapter.serve(max_message_size=10) as running, running.open() as peer:
        peer.send(peer.text("x" * 11))
        assert peer.read_close()[0] == 1009


def test_connections(adapter):
    started, may_end = queue.SimpleQueue(), threading.Event()

    def handler(websocket):
        started.put(websocket)
        may_end.wait(TIMEOUT)

    with adapter.serve(handler) as running:
        peers = [running.open() for _ in range(3)]
        for _ in peers:
            started.get(timeout=TIMEOUT)
        assert len(running.server.connections) == 3
        states = adapter.call(lambda: {websocket.state for websocket in running.server.connections})
        assert states == {State.OPEN}
        may_end.set()
        for peer in peers:
            peer.send(peer.close())
            assert peer.read_close() == (1000, "")
            peer.sock.close()
    assert running.server.connections == set()


# Its end


def test_a_server_closes(adapter, maybe_tls, spawn):
    server, client = maybe_tls or (None, None)
    ends = []
    started = queue.SimpleQueue()

    def handler(websocket):
        started.put(websocket)
        try:
            websocket.recv()
        except ConnectionClosed as closed:
            ends.append(closed.code)

    with adapter.serve(handler, ssl=server) as running:
        uri = running.uri
        idle, silent = running.connect(client), running.open(tls=client)
        websocket = adapter.connect(running.uri, ssl=client)
        for _ in range(2):
            started.get(timeout=TIMEOUT)
        closing = spawn(running.close)
        assert list(websocket) == []
        assert websocket.close_code == 1001
        websocket.close()
        frame = silent.next_frame()
        assert frame.payload == close_payload(1001)
        assert not closing.done()
        silent.send(silent.close(1001))
        assert silent.next_frame() is None
        silent.sock.close()
        closing.result(TIMEOUT)
        with pytest.raises(OSError):  # noqa: PT011  # refused or reset
            adapter.connect(uri, ssl=client)
        idle.sock.close()
    assert ends == [1001, 1001]


def test_a_server_closes_with_a_code(adapter, spawn):
    with adapter.serve() as running, running.open() as peer:
        for code in (1006, 999):
            with pytest.raises(LocalProtocolError):
                running.close(code)
        peer.send(peer.text("the handler runs"))
        assert peer.read_text() == "the handler runs"
        closing = spawn(running.close, 1012, "restart")
        assert peer.next_frame().payload == close_payload(1012, "restart")
        peer.send(peer.close(1012))
        assert peer.next_frame() is None
        peer.end()
        closing.result(TIMEOUT)


def test_a_server_waits_for_its_handlers(adapter, spawn):
    may_end, ended, started = threading.Event(), threading.Event(), threading.Event()

    def handler(websocket):
        started.set()
        with pytest.raises(ConnectionClosed):
            websocket.recv()
        may_end.wait(TIMEOUT)
        ended.set()

    with adapter.serve(handler) as running, running.open() as peer:
        assert started.wait(TIMEOUT)
        closing = spawn(running.close)
        assert peer.next_frame().payload == close_payload(1001)
        peer.send(peer.close(1001))
        assert peer.next_frame() is None
        peer.end()
        assert not closing.done()
        may_end.set()
        closing.result(TIMEOUT)
        assert ended.is_set()


def test_a_server_cuts_who_does_not_answer(adapter, maybe_tls):
    server, client = maybe_tls or (None, None)
    with adapter.serve(close_timeout=0.1, ssl=server) as running, running.open(tls=client) as peer:
        peer.send(peer.text("the handler runs"))
        assert peer.read_text() == "the handler runs"
        running.close()
        assert peer.read_close() == (1001, "")
        if adapter.name == "sync":  # on asyncio, the handler was cancelled
            assert running.end() == (1006, False)


def test_a_server_cuts_who_was_refused_and_stays(adapter):
    with adapter.serve(close_timeout=0.1) as running, running.connect() as peer:
        peer.send(request("Content-Length: 1"))
        assert peer.read_all().startswith(b"HTTP/1.1 400 ")
        running.close()


def test_many_connections_leave_nothing_behind(adapter):
    with adapter.serve() as running:
        for _ in range(100):
            with adapter.connect(running.uri) as websocket:
                websocket.send("x")
                assert websocket.recv() == "x"
        files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert files < 100
