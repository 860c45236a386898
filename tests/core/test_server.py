from __future__ import annotations

from http import HTTPStatus

import h11
import pytest

from tests.support.cases import case
from tests.support.core import LOST, READINGS
from wsframe import encode_frame
from wsframe.connection import State
from wsframe.errors import LocalProtocolError
from wsframe.events import Binary, Fail, Request, Response, Text
from wsframe.server import ServerConnection

# RFC 6455, section 1.2
REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)
PLAIN_GET = b"GET /health HTTP/1.1\r\nHost: server.example.com\r\n\r\n"
PLAIN = "text/plain; charset=utf-8"
OBS_TEXT = bytes(range(0x80, 0x100))  # RFC 9110, section 5.5
HELLO = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"  # section 5.7


def changed(old, new, request=REQUEST):
    """Return the sample request with these bytes replaced."""
    assert request.count(old) == 1
    return request.replace(old, new)


def receive(conn, data, reading, trailing=HELLO):
    """Feed bytes up to the first event, which is returned, and then the rest of them."""
    event = None
    *first, last = reading.cut(data)
    for chunk in (*first, last + reading.trailing(trailing)):
        conn.receive_data(chunk)
        event = event or conn.next_event()
    return event


def parse_response(data, method="GET", length=None):
    """Return status, headers and body of a response that is complete, as h11 reads them."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    response, body = client.next_event(), b""
    assert type(response) is h11.Response
    while type(event := client.next_event()) is h11.Data:
        body += event.data
    assert type(event) is h11.EndOfMessage
    headers = {name.decode(): value.decode() for name, value in response.headers}
    assert response.status_code in (204, 304) or headers["content-length"] == str(
        len(body) if length is None else length
    )
    assert client.their_state is h11.MUST_CLOSE
    assert client.trailing_data == (b"", False)
    return response.status_code, headers, body


def check_refusal(conn, status, reason, **headers):
    """Check what a connection that was refused says: a complete response with one line of text."""
    found_status, found, body = parse_response(conn.data_to_send())
    assert (found_status, body.decode()) == (status, reason + "\n")
    assert "\n" not in reason
    assert found["content-type"] == PLAIN
    assert headers.items() <= found.items()
    assert (conn.state, conn.should_close) == (State.CLOSED, True)
    # Nothing follows
    conn.receive_data(REQUEST + HELLO)
    conn.receive_data(b"")
    assert (conn.next_event(), conn.data_to_send()) == (None, b"")
    for call in (conn.accept, lambda: conn.reject(404), lambda: conn.send_text("a"), conn.send_close):
        with pytest.raises(LocalProtocolError):
            call()


# Requests that are accepted


def test_the_sample_of_rfc6455_1_2_with_frames_in_the_same_packet(reading):
    conn = ServerConnection(subprotocols=["chat"])
    request = receive(conn, REQUEST, reading)
    assert type(request) is Request
    assert request is conn.request
    assert (request.path, request.is_upgrade) == ("/chat", True)
    assert (request.subprotocols, request.origin) == (("chat", "superchat"), "http://example.com")
    assert request.headers[0] == ("host", "server.example.com")
    assert len(request.headers) == 7
    assert (conn.state, conn.next_event(), conn.data_to_send()) == (State.CONNECTING, None, b"")
    conn.accept()
    assert (conn.state, conn.subprotocol, conn.should_close) == (State.OPEN, "chat", False)
    assert conn.data_to_send() == RESPONSE
    assert conn.unread == len(reading.trailing(HELLO))
    if not conn.unread:
        conn.receive_data(HELLO)
    assert conn.next_event() == Text("Hello")
    conn.send_text("Hello")
    assert conn.data_to_send() == b"\x81\x05Hello"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade", id="Firefox"),
        pytest.param(
            b"Connection: Upgrade", b"Connection: keep-alive\r\nconnection: UPGRADE", id="two Connections"
        ),
        pytest.param(b"Upgrade: websocket", b"UPGRADE: h2c\r\nupgrade: WebSocket", id="two Upgrades"),
        pytest.param(b"Host: ", b"hOST:", id="name in another case"),
        *(
            pytest.param(b"/chat", form + b"/chat", id=f"absolute form {form.decode()}")
            for form in (b"http://a", b"https://a:443", b"ws://[::1]:80", b"wss://a", b"WSS://A")
        ),
        pytest.param(b"GET /", b"\r\nGET /", id="an empty line first"),
        pytest.param(b"Version: 13", b"Version: 13\r\nContent-Length: 0", id="empty body"),
        pytest.param(b"Version: 13", b"Version: 13\r\nX-A: \xe9\t" + OBS_TEXT, id="obs-text"),
        pytest.param(
            b"Version: 13", b"Version: 13\r\nContent-Length: 0\r\nX: " + OBS_TEXT, id="obs-text through h11"
        ),
        pytest.param(b"chat, superchat", b"superchat\r\nSec-WebSocket-Protocol: chat", id="two Protocols"),
        pytest.param(b"chat, superchat", b"chat, superchat, chat", id="a subprotocol twice"),
        pytest.param(b"Version: 13", b"Version: 13" + b"\r\na: b" * 93, id="100 headers"),
        pytest.param(b"Version: 13", b"Version: 13\r\na:" + b"b" * (16384 - len(REQUEST) - 4), id="16 KiB"),
    ],
)
def test_a_request_is_accepted_rfc6455_4_2_1(old, new):
    for reading in READINGS:
        with case(reading=reading):
            conn = ServerConnection(subprotocols=["chat"])
            request = receive(conn, changed(old, new), reading)
            assert request.path == "/chat"
            conn.accept()
            assert conn.data_to_send() == RESPONSE


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({}, b""),
        ({"subprotocol": None}, b""),
        ({"subprotocol": "superchat"}, b"Sec-WebSocket-Protocol: superchat\r\n"),
        ({"headers": [("Set-Cookie", "a=b"), ("X-A", "\xe9")]}, b"Set-Cookie: a=b\r\nX-A: \xe9\r\n"),
        ({"headers": {"X-A": "b"}}, b"X-A: b\r\n"),
        ({"headers": {"X-A": OBS_TEXT}}, b"X-A: " + OBS_TEXT + b"\r\n"),
    ],
)
def test_accept_takes_a_subprotocol_and_headers_rfc6455_4_2_2(arguments, lines):
    conn = ServerConnection()
    conn.receive_data(REQUEST)
    conn.next_event()
    conn.accept(**arguments)
    assert conn.data_to_send() == RESPONSE.replace(b"Sec-WebSocket-Protocol: chat\r\n", lines)
    assert conn.subprotocol == arguments.get("subprotocol")


UNSENDABLE = [
    ({"headers": {"X-A": "b\r\nX-B: c"}}, LocalProtocolError, "control"),
    ({"headers": {"X-A": b"b\x1b"}}, LocalProtocolError, "control"),
    ({"headers": {"X-A": "Ł"}}, ValueError, "outside latin-1: give its bytes"),
    ({"headers": {"X-A\r\n": "b"}}, LocalProtocolError, "not a token"),
    ({"headers": {"Connection": "close"}}, LocalProtocolError, "set by the handshake"),
    ({"headers": [("X-A", 5)]}, TypeError, "str or bytes"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"subprotocol": "echo"}, LocalProtocolError, "did not offer"),
        ({"subprotocol": "chat\r\nX-A: b"}, LocalProtocolError, "did not offer"),
        *UNSENDABLE,
    ],
)
def test_after_an_accept_that_cannot_be_sent_nothing_has_changed(arguments, error, problem):
    conn = ServerConnection(subprotocols=["chat"])
    conn.receive_data(REQUEST)
    conn.next_event()
    with pytest.raises(error, match=problem):
        conn.accept(**arguments)
    assert (conn.state, conn.data_to_send(), conn.subprotocol) == (State.CONNECTING, b"", None)
    conn.accept()
    assert conn.data_to_send() == RESPONSE


def test_there_must_be_a_request_to_answer():
    conn = ServerConnection()
    conn.receive_data(REQUEST)
    for answer in (conn.accept, lambda: conn.reject(404)):
        with pytest.raises(LocalProtocolError, match="no request to answer"):
            answer()
    conn.next_event()
    conn.accept()
    for answer in (conn.accept, lambda: conn.reject(404)):
        with pytest.raises(LocalProtocolError, match="no request to answer"):
            answer()
    assert conn.data_to_send().count(b"HTTP/1.1") == 1


def test_by_default_a_message_may_have_1_mib():
    conn = ServerConnection()
    conn.receive_data(REQUEST + encode_frame(2, bytes(2**20), mask=b"\0\0\0\0"))
    conn.next_event()
    conn.accept()
    assert conn.next_event() == Binary(bytes(2**20))
    conn.receive_data(b"\x82\xff" + (2**20 + 1).to_bytes(8, "big"))
    assert conn.next_event() == Fail(1009, "message is too big")


def test_the_arguments_are_those_of_connection():
    conn = ServerConnection(max_message_size=4, fragments=True)
    conn.receive_data(REQUEST + encode_frame(2, b"abcd", mask=b"\0\0\0\0")[:-1])
    conn.next_event()
    conn.accept()
    assert conn.next_event() == Binary(b"abc", final=False)
    conn.receive_data(b"d" + encode_frame(2, b"abcde", mask=b"\0\0\0\0"))
    assert conn.next_event() == Binary(b"d")
    assert conn.next_event() == Fail(1009, "message is too big")


@pytest.mark.parametrize("more", [b"", b"\r\nContent-Length: 0"], ids=["plain", "through h11"])
@pytest.mark.parametrize("name", ["Céline", "Łukasz", "Ödön À", "中文", "😀"])
def test_a_cookie_in_utf8_reaches_the_application_and_goes_back_as_it_came(name, more):
    cookie = f"name={name}".encode()
    for reading in READINGS:
        with case(reading=reading):
            conn = ServerConnection()
            request = receive(
                conn, changed(b"Version: 13", b"Version: 13\r\nCookie: " + cookie + more), reading
            )
            value = request.headers.get("cookie")
            assert value.encode("latin-1") == cookie
            conn.reject(403, [("X-Seen", value), ("X-Given", cookie)])
            head = conn.data_to_send()
            assert b"\r\nX-Seen: " + cookie + b"\r\nX-Given: " + cookie + b"\r\n" in head


# Requests that are refused

MALFORMED = "malformed HTTP request: "


@pytest.mark.parametrize(
    ("old", "new", "status", "reason"),
    [
        # Request line
        (b"GET", b"POST", 405, "method must be GET"),
        (b"HTTP/1.1", b"HTTP/0.9", 505, "HTTP version must be 1.1"),
        (b"HTTP/1.1", b"HTTP/2.0", 505, "HTTP version must be 1.1"),
        (b"/chat", b"*", 400, "request target must be a path"),
        (b"/chat", b"/chat#a", 400, "request target must be a path"),
        # Headers
        (b"Host: server.example.com\r\n", b"", 400, MALFORMED + "Missing mandatory Host: header"),
        (b"Host: server.example.com", b"Host: a\r\nHost: a", 400, MALFORMED + "Found multiple Host: headers"),
        (
            b"Host: server.example.com",
            b"Host: a b",
            400,
            "Host header must be a host, with or without a port",
        ),
        (b"Connection: Upgrade", b"Connection: close", 400, "Connection header must include upgrade"),
        (b"Version: 13", b"Version: 8", 426, "Sec-WebSocket-Version must be 13"),
        (b"Version: 13", b"Extensions: x", 400, "Sec-WebSocket-Version header is missing"),
        (
            b"Version: 13",
            b"Version: 13\r\nSec-WebSocket-Version: 13",
            400,
            "more than one Sec-WebSocket-Version header",
        ),
        (b"Key: dGhlIHNhbXBsZSBub25jZQ==", b"Extensions: x", 400, "Sec-WebSocket-Key header is missing"),
        (
            b"dGhlIHNhbXBsZSBub25jZQ==",
            b"dGhlIHNhbXBsZSBub25jZQ",
            400,
            "Sec-WebSocket-Key must be base64 of 16 bytes",
        ),
        (
            b"Origin: http://example.com",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            400,
            "more than one Sec-WebSocket-Key header",
        ),
        (b"Origin: http://example.com", b"Origin: a\r\nOrigin: a", 400, "more than one Origin header"),
        (b"chat, superchat", b"(chat)", 400, "Sec-WebSocket-Protocol must be a list of tokens"),
        (b"Version: 13", b"Version: 13\r\nContent-Length: 1", 400, "request must not have a body"),
        (b"Version: 13", b"Version: 13\r\nTransfer-Encoding: chunked", 400, "request must not have a body"),
        (b"Version: 13", b"Version: 13" + b"\r\na: b" * 94, 431, "head has more than 100 headers"),
        (
            b"Version: 13",
            b"Version: 13\r\na:" + b"b" * (16385 - len(REQUEST) - 4),
            431,
            "head exceeds 16384 bytes",
        ),
        # RFC 7230, section 3
        (
            b"Origin:",
            b"Origin :",
            400,
            MALFORMED + "illegal header line: bytearray(b'Origin : http://example.com')",
        ),
        (
            b"Origin: ",
            b":protocol: websocket\r\nOrigin: ",
            400,
            MALFORMED + "illegal header line: bytearray(b':protocol: websocket')",
        ),
        (b"GET /", b" GET /", 400, MALFORMED + "illegal request line: bytearray(b' GET /chat HTTP/1.1')"),
        (b"GET /", b"\r\n\r\nGET /", 400, MALFORMED + "no request line received"),
        (b"GET /", b"\nGET /", 400, "lines must end with CR LF"),
        (b"/chat", b"ws://user@server.example.com/chat", 400, "request target must be a path"),
        (
            b"/chat HTTP/1.1\r\nHost: server.example.com",
            b"ws://server.example.com/chat HTTP/1.1",
            400,
            MALFORMED + "Missing mandatory Host: header",
        ),
        (b"HTTP/1.1", b"HTTP/1.1\n", 400, "lines must end with CR LF"),
        (b"websocket\r\n", b"websocket\n", 400, "lines must end with CR LF"),
        (b"websocket\r\n", b"websocket\r", 400, "lines must end with CR LF"),
        (b"Origin: ", b"Origin: \r\n ", 400, "header lines must not be folded"),
        *(
            (b"Origin: ", b"Origin: " + bytes([byte]), 400, f"byte 0x{byte:02x} is not allowed in a head")
            for byte in (0x00, 0x0B, 0x0C, 0x1B, 0x1C, 0x1D, 0x1E, 0x7F)
        ),
        # Obs-text stands in values only.
        (
            b"Host: server.example.com",
            "Host: münchen.de".encode(),
            400,
            "Host header must be a host, with or without a port",
        ),
        (
            b"Origin: ",
            b"\xc5\x81: a\r\nOrigin: ",
            400,
            MALFORMED + r"illegal header line: bytearray(b'\xc5\x81: a')",
        ),
        (
            b"/chat",
            b"/\xc5\x81",
            400,
            MALFORMED + r"illegal request line: bytearray(b'GET /\xc5\x81 HTTP/1.1')",
        ),
    ],
)
def test_a_request_is_refused_with_a_complete_response_rfc6455_4_2_2(old, new, status, reason):
    for reading in READINGS:
        with case(reading=reading):
            conn = ServerConnection()
            assert receive(conn, changed(old, new), reading) == Fail(1002, reason)
            headers = {405: {"allow": "GET"}, 426: {"sec-websocket-version": "13", "upgrade": "websocket"}}
            check_refusal(conn, status, reason, **headers.get(status, {}))
            assert conn.request is None


@pytest.mark.parametrize(
    ("origins", "old", "new", "reason"),
    [
        (["http://example.com"], b"http://example.com", b"http://example.com", None),
        (["https://a", "http://example.com"], b"http://example.com", b"http://example.com", None),
        ([None], b"Origin: http://example.com\r\n", b"", None),
        (None, b"Origin: http://example.com\r\n", b"", None),
        (["https://a"], b"http://example.com", b"http://example.com", "origin is not allowed"),
        (["http://example.com"], b"http://example.com", b"http://example.com.evil", "origin is not allowed"),
        (["http://example.com"], b"http://example.com", b"null", "origin is not allowed"),
        ([None], b"http://example.com", b"http://example.com", "origin is not allowed"),
        ([], b"http://example.com", b"http://example.com", "origin is not allowed"),
        (["http://example.com"], b"Origin: http://example.com\r\n", b"", "Origin header is missing"),
    ],
)
def test_an_origin_that_is_not_allowed_is_refused_with_403_rfc6455_4_2_2(origins, old, new, reason):
    for reading in READINGS:
        with case(reading=reading):
            conn = ServerConnection(origins=origins)
            event = receive(conn, changed(old, new), reading)
            if reason is None:
                assert event is conn.request
                conn.accept(subprotocol="chat")
                assert conn.data_to_send() == RESPONSE
            else:
                assert event == Fail(1002, reason)
                check_refusal(conn, 403, reason)


# A plain GET


def test_a_plain_get_reaches_the_application(reading):
    conn = ServerConnection(origins=["http://example.com"])
    request = receive(conn, PLAIN_GET[:-2] + b"\r\n", reading)
    assert request == Request("/health", [("host", "server.example.com")], is_upgrade=False)
    conn.reject(200, {"Content-Type": "text/html"}, b"<p>fine")
    status, headers, body = parse_response(conn.data_to_send())
    assert (status, body) == (200, b"<p>fine")
    assert headers == {"content-type": "text/html", "connection": "close", "content-length": "7"}
    assert (conn.state, conn.should_close) == (State.CLOSED, True)
    assert conn.next_event() == Fail(1006, "handshake was refused with 200")
    assert conn.next_event() is None


HEALTH_CHECKS = [
    (b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", "/health"),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*"),
    (b"GET /health HTTP/1.0\r\n\r\n", "/health"),
    (b"HEAD / HTTP/1.0\r\nHost: a\r\n\r\n", "/"),
    (b"OPTIONS / HTTP/1.0\r\n\r\n", "/"),  # HAProxy's httpchk
    (b"OPTIONS * HTTP/1.0\r\n\r\n", "*"),
    (b"\r\nHEAD ws://a/health HTTP/1.1\r\nHost: b\r\n\r\n", "/health"),
    (REQUEST.replace(b"GET", b"HEAD"), "/chat"),
    (REQUEST.replace(b"GET", b"OPTIONS"), "/chat"),
    (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), "/chat"),
]


@pytest.mark.parametrize(("sample", "path"), HEALTH_CHECKS)
def test_a_health_check_reaches_the_application(sample, path, reading):
    method, _, version = sample.strip().partition(b"\r\n")[0].decode().split()
    conn = ServerConnection(origins=["https://a"])
    request = receive(conn, sample, reading)
    assert request is conn.request
    assert (request.path, request.is_upgrade) == (path, False)
    assert (request.method, f"HTTP/{request.http_version}") == (method, version)
    conn.reject(200, body=b"fine\n")
    status, headers, body = parse_response(conn.data_to_send(), method, 5)
    assert (status, headers["content-type"]) == (200, PLAIN)
    assert body == (b"" if method == "HEAD" else b"fine\n")
    assert conn.next_event() == Fail(1006, "handshake was refused with 200")


@pytest.mark.parametrize("is_accepted", [True, False])
@pytest.mark.parametrize(("sample", "path"), HEALTH_CHECKS)
def test_a_health_check_that_is_accepted_or_not_answered_is_refused(sample, path, is_accepted):
    conn = ServerConnection()
    conn.receive_data(sample)
    method, http_version = conn.next_event().method, conn.request.http_version
    status, reason = (
        (405, "method must be GET") if http_version == "1.1" else (505, "HTTP version must be 1.1")
    )
    if is_accepted:
        conn.accept()
        assert conn.next_event() == Fail(1006, f"handshake was refused with {status}")
    else:
        assert conn.next_event() == Fail(1002, reason)
    found, headers, body = parse_response(conn.data_to_send(), method, len(reason) + 1)
    assert (found, body) == (status, b"" if method == "HEAD" else reason.encode() + b"\n")
    assert headers.get("allow") == ("GET" if status == 405 else None)
    assert (conn.state, conn.should_close) == (State.CLOSED, True)


@pytest.mark.parametrize(
    ("sample", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"HEAD /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"HEAD / HTTP/1.1\r\nHost: a\0", 400),
        (b"\r\nHEAD / HTTP/1.1\r\nHost: a\n", 400),
        (b"HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\na: " + b"b" * 16384, 431),
    ],
)
def test_a_refusal_of_a_head_has_no_body(sample, status, reading):
    conn = ServerConnection()
    event = receive(conn, sample, reading, trailing=b"")
    found, _, body = parse_response(conn.data_to_send(), "HEAD", len(event.reason) + 1)
    assert (found, body, conn.request) == (status, b"", None)


def test_the_host_of_an_absolute_form_is_that_of_the_request():
    conn = ServerConnection(origins=["http://example.com"])
    conn.receive_data(changed(b"/chat", b"ws://other.example:8080/chat"))
    request = conn.next_event()
    assert request.headers.get_all("host") == ["other.example:8080"]
    assert (request.path, request.is_upgrade) == ("/chat", True)


@pytest.mark.parametrize("is_accepted", [True, False])
def test_a_plain_get_that_is_accepted_or_not_answered_gets_426(is_accepted):
    conn = ServerConnection()
    conn.receive_data(PLAIN_GET)
    assert not conn.next_event().is_upgrade
    if is_accepted:
        conn.accept()
        assert conn.next_event() == Fail(1006, "handshake was refused with 426")
    else:
        assert conn.next_event() == Fail(1002, "this is a WebSocket server")
    upgrade = {"sec-websocket-version": "13", "upgrade": "websocket"}
    check_refusal(conn, 426, "this is a WebSocket server", **upgrade)


# reject()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((404,), (404, {"content-length": "0"}, b"")),
        ((HTTPStatus.FORBIDDEN, (), b"no"), (403, {"content-type": PLAIN, "content-length": "2"}, b"no")),
        (
            (599, {"content-type": "a/b"}, b"\0\n"),
            (599, {"content-type": "a/b", "content-length": "2"}, b"\0\n"),
        ),
        ((200,), (200, {"content-length": "0"}, b"")),
        ((204,), (204, {}, b"")),
        ((205,), (205, {"content-length": "0"}, b"")),
        ((302, {"Location": "/b"}), (302, {"location": "/b", "content-length": "0"}, b"")),
        ((304,), (304, {}, b"")),
    ],
)
def test_reject_answers_any_response_rfc6455_4_2_2(arguments, expected):
    for reading in READINGS:
        with case(reading=reading):
            conn = ServerConnection()
            receive(conn, REQUEST, reading)
            conn.reject(*arguments)
            status, headers, body = parse_response(conn.data_to_send())
            assert headers.pop("connection") == "close"
            assert (status, headers, body) == expected
            assert (conn.state, conn.should_close) == (State.CLOSED, True)
            assert conn.next_event() == Fail(1006, f"handshake was refused with {status}")
            assert conn.next_event() is None


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"status": 101}, ValueError, "status must be 200 to 599, not 101"),
        ({"status": 199}, ValueError, "status must be 200 to 599, not 199"),
        ({"status": 600}, ValueError, "status must be 200 to 599, not 600"),
        ({"status": "404"}, TypeError, "status must be an int, not str"),
        ({"body": "no"}, TypeError, "body must be bytes, not str"),
        ({"status": 204, "body": b"a"}, ValueError, "a response with status 204 has no body"),
        ({"status": 205, "body": b"a"}, ValueError, "a response with status 205 has no body"),
        ({"status": 304, "body": b"a"}, ValueError, "a response with status 304 has no body"),
        *UNSENDABLE,
    ],
)
def test_after_a_reject_that_cannot_be_sent_nothing_has_changed(arguments, error, problem):
    conn = ServerConnection(subprotocols=["chat"])
    conn.receive_data(REQUEST)
    conn.next_event()
    with pytest.raises(error, match=problem):
        conn.reject(**{"status": 404, **arguments})
    assert (conn.state, conn.data_to_send(), conn.should_close) == (State.CONNECTING, b"", False)
    conn.accept()
    assert conn.data_to_send() == RESPONSE


# The end of the stream


def test_the_stream_may_end_within_the_request():
    for length in range(len(REQUEST)):
        with case(length=length):
            conn = ServerConnection()
            conn.receive_data(REQUEST[:length])
            conn.receive_data(b"")
            assert conn.next_event() == LOST
            assert (conn.state, conn.should_close, conn.data_to_send()) == (State.CLOSED, True, b"")
            assert conn.next_event() is None


def test_the_stream_may_end_before_the_answer():
    conn = ServerConnection()
    conn.receive_data(REQUEST)
    conn.receive_data(b"")
    assert conn.next_event() is conn.request
    assert conn.next_event() == LOST
    with pytest.raises(LocalProtocolError, match="no request to answer"):
        conn.accept()


def test_the_request_is_answered_when_the_stream_ended_in_the_same_read():
    conn = ServerConnection(subprotocols=["chat"])
    conn.receive_data(REQUEST)
    conn.receive_data(b"")
    conn.next_event()
    conn.accept()
    assert conn.data_to_send() == RESPONSE
    assert conn.next_event() == LOST


def test_the_request_can_be_received_into_a_buffer():
    conn = ServerConnection(subprotocols=["chat"])
    data = REQUEST + HELLO
    conn.read_from(bytearray(data), len(data))
    assert conn.next_event() is conn.request
    conn.accept()
    assert conn.next_event() == Text("Hello")


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"subprotocols": "chat"}, TypeError, "subprotocols must be a list of str"),
        ({"subprotocols": ["chat\r\n"]}, LocalProtocolError, "not a token"),
        ({"subprotocols": ["chat", "chat"]}, LocalProtocolError, "unique"),
        ({"origins": "https://a"}, TypeError, "origins must be a list of str"),
        ({"max_message_size": -1}, ValueError, "must not be negative"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, problem):
    with pytest.raises(error, match=problem):
        ServerConnection(**arguments)


def test_an_application_that_answers_426_says_what_to_upgrade_to():
    conn = ServerConnection()
    conn.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    conn.next_event()
    conn.reject(426)
    assert (
        b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        in conn.data_to_send()
    )


def test_a_malformed_request_is_not_repeated_at_length():
    conn = ServerConnection()
    conn.receive_data(b"GET / HTTP/1.1\r\n" + b"x" * 10000 + b"\r\n\r\n")
    fail = conn.next_event()
    assert fail.reason.startswith("malformed HTTP request: ")
    assert len(fail.reason) <= 120


# What a process_request returned


@pytest.mark.parametrize(
    ("response", "status", "subprotocol"),
    [
        (None, 101, "chat"),
        (Response(101, [("X-Trace", "1")]), 101, "chat"),
        (Response(101, subprotocol="superchat"), 101, "superchat"),
        (Response(403, [("X-Trace", "1")], b"no\n"), 403, None),
    ],
)
def test_a_request_is_answered_with_what_process_request_returned(response, status, subprotocol):
    conn = ServerConnection(subprotocols=["chat", "superchat"])
    conn.receive_data(REQUEST)
    assert conn.next_event() is conn.request
    conn.respond(response)
    head, _, body = conn.data_to_send().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert conn.subprotocol == subprotocol
    assert (conn.state is State.OPEN, conn.was_opened) == (status == 101, status == 101)
    if response is not None:
        assert body == response.body
        assert (b"\r\nX-Trace: 1" in head) is bool(response.headers)


@pytest.mark.parametrize("response", [True, 403, "no", ("a", "b")])
def test_what_is_no_response_is_refused_and_the_request_can_still_be_answered(response):
    conn = ServerConnection()
    conn.receive_data(REQUEST)
    conn.next_event()
    with pytest.raises(TypeError, match="process_request must return a Response or None, not"):
        conn.respond(response)
    assert conn.data_to_send() == b""
    conn.respond(None)
    assert conn.state is State.OPEN
