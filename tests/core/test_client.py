from __future__ import annotations

import base64

import h11
import pytest

from tests.support.cases import case
from tests.support.core import LOST, READINGS
from wsframe import parse_uri
from wsframe.client import ClientConnection
from wsframe.connection import State
from wsframe.errors import InvalidURI, LocalProtocolError
from wsframe.events import Binary, Fail, Response, Text

URI = "ws://server.example.com/chat"
# RFC 6455, section 1.2
REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)
OBS_TEXT = bytes(range(0x80, 0x100))  # RFC 9110, section 5.5
HELLO = b"\x81\x05Hello"  # section 5.7


@pytest.fixture(autouse=True)
def _sample_nonce(monkeypatch):
    monkeypatch.setattr("wsframe.handshake.new_key", lambda: "dGhlIHNhbXBsZSBub25jZQ==")


def connecting():
    conn = ClientConnection(URI, subprotocols=["chat", "superchat"])
    conn.data_to_send()
    return conn


def changed(old, new):
    """Return the sample response with these bytes replaced."""
    assert RESPONSE.count(old) == 1
    return RESPONSE.replace(old, new)


def receive(conn, data, reading, trailing=b""):
    """Feed bytes up to the first event, which is returned, and then the rest of them."""
    event = None
    *first, last = reading.cut(data)
    for chunk in (*first, last + reading.trailing(trailing)):
        conn.receive_data(chunk)
        event = event or conn.next_event()
    return event


def check_over(conn, *received):
    """Check that nothing follows, whatever is received."""
    assert (conn.state, conn.should_close) == (State.CLOSED, True)
    for data in received:
        conn.receive_data(data)
    assert (conn.next_event(), conn.data_to_send()) == (None, b"")
    for call in (lambda: conn.send_text("a"), conn.send_close):
        with pytest.raises(LocalProtocolError):
            call()


# The request


@pytest.mark.parametrize(
    ("uri", "arguments", "request_line_and_host", "lines"),
    [
        (URI, {}, b"", b""),
        (URI, {"origin": "http://example.com"}, b"", b"Origin: http://example.com\r\n"),
        (URI, {"subprotocols": ["chat", "b"]}, b"", b"Sec-WebSocket-Protocol: chat, b\r\n"),
        (URI, {"additional_headers": {"Cookie": "a=\xe9"}}, b"", b"Cookie: a=\xe9\r\n"),
        (URI, {"additional_headers": {"Cookie": OBS_TEXT}}, b"", b"Cookie: " + OBS_TEXT + b"\r\n"),
        (
            URI,
            {"additional_headers": {"Cookie": OBS_TEXT.decode("latin-1")}},
            b"",
            b"Cookie: " + OBS_TEXT + b"\r\n",
        ),
        (URI, {"additional_headers": [("A", "b"), ("A", "c")]}, b"", b"A: b\r\nA: c\r\n"),
        ("ws://[::1]:99/\xfc?a", {}, b"GET /%C3%BC?a HTTP/1.1\r\nHost: [::1]:99\r\n", b""),
        # RFC 7617, section 2
        (
            URI.replace("//", "//Aladdin:open%20sesame@"),
            {},
            b"",
            b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n",
        ),
        (URI.replace("//", "//test:123%C2%A3@"), {}, b"", b"Authorization: Basic dGVzdDoxMjPCow==\r\n"),
        (URI.replace("//", "//a@"), {}, b"", b"Authorization: Basic YTo=\r\n"),
        (
            URI.replace("//", "//a@"),
            {"additional_headers": {"authorization": "Bearer b"}},
            b"",
            b"authorization: Bearer b\r\n",
        ),
    ],
)
def test_the_request_of_rfc6455_1_2_is_sent_at_once(uri, arguments, request_line_and_host, lines):
    conn = ClientConnection(uri, compression=None, **arguments)
    data = conn.data_to_send()
    rest = REQUEST.partition(b"server.example.com\r\n")[2]
    assert data == (request_line_and_host or REQUEST.removesuffix(rest)) + rest + lines + b"\r\n"
    assert (conn.state, conn.uri, conn.response) == (State.CONNECTING, parse_uri(uri), None)
    assert (conn.next_event(), conn.should_close) == (None, False)
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    assert type(server.next_event()) is h11.Request


def test_each_connection_has_a_key_of_its_own(monkeypatch):
    monkeypatch.undo()
    keys = {
        line
        for _ in range(2)
        for line in ClientConnection(URI).data_to_send().split(b"\r\n")
        if b"-Key: " in line
    }
    assert [len(base64.b64decode(key.partition(b": ")[2], validate=True)) for key in keys] == [16, 16]


@pytest.mark.parametrize(
    ("uri", "arguments", "error", "problem"),
    [
        ("http://h/", {}, InvalidURI, "scheme"),
        ("ws://h/\r\nX-A: b", {}, InvalidURI, "control"),
        ("ws://h\0/", {}, InvalidURI, "control"),
        (None, {}, TypeError, "uri must be a str"),
        ("ws://a%3Ab@h/", {}, LocalProtocolError, "user name must not contain a colon"),
        (URI, {"origin": "a\r\nX-A: b"}, LocalProtocolError, "control"),
        (URI, {"origin": "a\x7f"}, LocalProtocolError, "control"),
        (URI, {"origin": "http://Ł"}, ValueError, "value of header Origin has a character outside latin-1"),
        (URI, {"origin": 5}, TypeError, "str or bytes"),
        (URI, {"subprotocols": "chat"}, TypeError, "list of str"),
        (URI, {"subprotocols": ["chat\r\nX-A: b"]}, LocalProtocolError, "not a token"),
        (URI, {"subprotocols": ["chat", "chat"]}, LocalProtocolError, "unique"),
        (URI, {"additional_headers": {"X-A": "b\r\nX-B: c"}}, LocalProtocolError, "control"),
        (URI, {"additional_headers": {"X-A": "b\x1c"}}, LocalProtocolError, "control"),
        (URI, {"additional_headers": {"X-A:": "b"}}, LocalProtocolError, "not a token"),
        (URI, {"additional_headers": {"Host": "a"}}, LocalProtocolError, "set by the handshake"),
        (URI, {"additional_headers": {"X-A": b"b\r"}}, LocalProtocolError, "control"),
        (URI, {"additional_headers": {"Cookie": "name=Łukasz"}}, ValueError, "give its bytes"),
        (URI, {"additional_headers": [("X-A", None)]}, TypeError, "str or bytes"),
        (URI, {"max_message_size": -1}, ValueError, "must not be negative"),
    ],
)
def test_what_cannot_be_sent_is_refused(uri, arguments, error, problem):
    with pytest.raises(error, match=problem):
        ClientConnection(uri, **arguments)


# 101


def test_the_sample_of_rfc6455_1_2_with_frames_in_the_same_packet(reading):
    conn = connecting()
    response = receive(conn, RESPONSE, reading, trailing=HELLO)
    assert response is conn.response
    headers = [tuple(line.split(": ")) for line in RESPONSE.decode().split("\r\n")[1:-2]]
    assert response == Response(101, [(name.lower(), value) for name, value in headers], subprotocol="chat")
    assert (conn.state, conn.subprotocol, conn.should_close) == (State.OPEN, "chat", False)
    assert conn.unread == len(reading.trailing(HELLO))
    if not conn.unread:
        conn.receive_data(HELLO)
    assert conn.next_event() == Text("Hello")
    assert conn.next_event() is None
    conn.send_text("Hello")
    data = conn.data_to_send()
    assert (data[:2], len(data)) == (b"\x81\x85", 11)


@pytest.mark.parametrize(
    ("old", "new", "subprotocol"),
    [
        pytest.param(b"Sec-WebSocket-Protocol: chat\r\n", b"", None, id="no subprotocol"),
        pytest.param(b"Protocol: chat", b"Protocol: superchat", "superchat", id="the other subprotocol"),
        pytest.param(b"Connection: Upgrade", b"CONNECTION:keep-alive, upgrade", "chat", id="keep-alive"),
        pytest.param(b"Upgrade: websocket", b"upgrade: WebSocket", "chat", id="WebSocket"),
        pytest.param(b" Switching Protocols", b"", "chat", id="no reason phrase"),
        pytest.param(b"Switching Protocols", b"\xe9", "chat", id="reason phrase in ISO 8859-1"),
        pytest.param(b"chat\r\n", b"chat" + b"\r\na: b" * 96 + b"\r\n", "chat", id="100 headers"),
        pytest.param(
            b"chat\r\n", b"chat\r\na:" + b"b" * (16384 - len(RESPONSE) - 4) + b"\r\n", "chat", id="16 KiB"
        ),
        pytest.param(
            b"HTTP/1.1 101",
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 101",
            "chat",
            id="103 first",
        ),
        pytest.param(
            b"HTTP/1.1 101", b"HTTP/1.1 100 \r\n\r\n" * 10 + b"HTTP/1.1 101", "chat", id="10 times 100 first"
        ),
    ],
)
def test_a_101_opens_the_connection_rfc6455_4_1(old, new, subprotocol):
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            response = receive(conn, changed(old, new), reading, trailing=HELLO)
            assert (response.status, response.subprotocol, response.body) == (101, subprotocol, b"")
            assert (conn.state, conn.subprotocol) == (State.OPEN, subprotocol)
            assert conn.next_event() == (Text("Hello") if reading.trailing(HELLO) else None)


@pytest.mark.parametrize("line", [b"101 Switching Protocols", b"101 \xc5\x81", b"403 \xc5\x81"])
def test_a_header_in_utf8_reaches_the_user_with_its_status(line):
    city = "Łódź 中文".encode()
    more = b"X-City: " + city + b"\r\n" + b"Content-Length: 0\r\n" * line.startswith(b"4")
    sample = RESPONSE.replace(b"101 Switching Protocols", line).replace(b"Upgrade: ", more + b"Upgrade: ", 1)
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            response = receive(conn, sample, reading)
            assert response.status == int(line[:3])
            assert response.headers.get("X-City").encode("latin-1") == city


MALFORMED = "malformed HTTP response: "


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"Upgrade: websocket\r\n", b"", "Upgrade header must be websocket"),
        (b"Upgrade: websocket", b"Upgrade: h2c", "Upgrade header must be websocket"),
        (b"Connection: Upgrade\r\n", b"", "Connection header must include upgrade"),
        (b"Connection: Upgrade", b"Connection: close", "Connection header must include upgrade"),
        (b"Accept: s3p", b"Accept: S3P", "Sec-WebSocket-Accept does not answer the key"),
        (b"Sec-WebSocket-Accept", b"X-A", "Sec-WebSocket-Accept header is missing"),
        (
            b"Sec-WebSocket-Protocol: chat",
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "more than one Sec-WebSocket-Accept header",
        ),
        (b"Protocol: chat", b"Protocol: echo", "server uses a subprotocol that was not offered"),
        (
            b"Protocol: chat",
            b"Extensions: x-webkit-deflate-frame",
            "server uses an extension that was not offered",
        ),
        (b"HTTP/1.1", b"HTTP/1.0", "HTTP version must be 1.1"),
        (b"HTTP/1.1", b"HTTP/1.2", "HTTP version must be 1.1"),
        (
            b"HTTP/1.1 101",
            b"HTTP/1.1 100 \r\n\r\n" * 11 + b"HTTP/1.1 101",
            "too many informational responses",
        ),
        (b"chat\r\n", b"chat" + b"\r\na: b" * 97 + b"\r\n", "head has more than 100 headers"),
        (
            b"chat\r\n",
            b"chat\r\na:" + b"b" * (16385 - len(RESPONSE) - 4) + b"\r\n",
            "head exceeds 16384 bytes",
        ),
        (b"Upgrade: websocket\r\n", b"Upgrade: websocket\n", "lines must end with CR LF"),
        (b"Upgrade: websocket\r\n", b"Upgrade: websocket\r", "lines must end with CR LF"),
        (b"Upgrade: websocket", b"Upgrade:\r\n websocket", "header lines must not be folded"),
        (
            b"Accept: ",
            b"Accept : ",
            MALFORMED
            + "illegal header line: bytearray(b'Sec-WebSocket-Accept : s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')",
        ),
        (
            b"HTTP/1.1 101",
            b"HTTP/1.1 099",
            MALFORMED + "InformationalResponse status_code should be in range [100, 200), not 99",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols",
            b"HTTP/1.1 1O1 OK",
            MALFORMED + "illegal status line: bytearray(b'HTTP/1.1 1O1 OK')",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols",
            b"ICY 200 OK",
            "server does not speak HTTP, but says b'ICY 200 OK'",
        ),
        *(
            (b"Upgrade: ", b"Upgrade: " + bytes([byte]), f"byte 0x{byte:02x} is not allowed in a head")
            for byte in (0x00, 0x0B, 0x0C, 0x1B, 0x1C, 0x1D, 0x1E, 0x7F)
        ),
    ],
)
def test_a_response_that_is_wrong_fails_the_connection_rfc6455_4_1(old, new, reason):
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            assert receive(conn, changed(old, new), reading, trailing=HELLO) == Fail(1002, reason)
            check_over(conn, RESPONSE + HELLO, b"")


def test_a_101_that_is_wrong_can_be_looked_at():
    conn = connecting()
    conn.receive_data(changed(b"s3p", b"S3P"))
    assert conn.next_event() == Fail(1002, "Sec-WebSocket-Accept does not answer the key")
    assert conn.response.status == 101
    assert conn.response.headers.get("Upgrade") == "websocket"


# Another status


@pytest.mark.parametrize(
    ("sample", "status", "body"),
    [
        pytest.param(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404, b"no", id="content length"
        ),
        pytest.param(b"HTTP/1.1 426 \r\nContent-Length: 0\r\n\r\n", 426, b"", id="no body"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="204"),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302, b"", id="redirect"
        ),
        pytest.param(b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404, b"no", id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.1 103 \r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", id="103 first"
        ),
        pytest.param(
            b"HTTP/1.1 403 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n1;a=b\r\no\r\n0\r\nA: b\r\n\r\n",
            403,
            b"no",
            id="chunked",
        ),
    ],
)
def test_another_status_is_a_response_with_its_body_and_a_fail(sample, status, body):
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            response = receive(conn, sample, reading, trailing=b"HTTP/1.1 101 \r\n")
            assert response is conn.response
            assert (response.status, response.body, response.subprotocol) == (status, body, None)
            assert (conn.state, conn.should_close) == (State.CLOSED, True)
            assert conn.next_event() == Fail(1006, f"server answered with status {status}")
            check_over(conn, RESPONSE + HELLO, b"")


HEAD = b"HTTP/1.1 500 Internal Server Error\r\n"


@pytest.mark.parametrize(
    ("sample", "body"),
    [
        pytest.param(HEAD + b"\r\nwhat", b"what", id="until the end of the stream"),
        pytest.param(HEAD + b"\r\n", b"", id="nothing until the end of the stream"),
        pytest.param(b"HTTP/1.0 500 \r\n\r\nwhat", b"what", id="HTTP/1.0"),
        pytest.param(HEAD + b"Content-Length: 9\r\n\r\nwhat", b"what", id="cut off"),
        pytest.param(HEAD + b"Content-Length: 9\r\n\r\n", b"", id="cut off after the head"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nwhat", b"what", id="cut off after a chunk"
        ),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nw", b"w", id="cut off within a chunk"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4", b"", id="cut off before a chunk"),
    ],
)
def test_a_body_may_end_with_the_stream_rfc7230_3_3_3(sample, body):
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            assert receive(conn, sample, reading) is None
            assert (conn.state, conn.should_close) == (State.CONNECTING, False)
            conn.receive_data(b"")
            response = conn.next_event()
            assert response is conn.response
            assert (response.status, response.body) == (500, body)
            assert conn.next_event() == Fail(1006, "server answered with status 500")
            check_over(conn)


def test_a_body_with_a_wrong_chunk_is_kept_up_to_it():
    conn = connecting()
    conn.receive_data(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nwhat\r\nxyz\r\n")
    assert conn.next_event().body == b"what"
    assert conn.next_event() == Fail(1006, "server answered with status 500")
    check_over(conn, RESPONSE + HELLO, b"")


@pytest.mark.parametrize("headers", [b"", b"Content-Length: 70000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_is_cut_at_64_kib(headers):
    for size in [1000, 65536, 100000]:
        with case(size=size):
            conn = connecting()
            body = bytes(i % 251 for i in range(70000))
            data = HEAD + headers + b"\r\n" + (b"11170\r\n" if b"chunked" in headers else b"") + body
            event, position = None, 0
            while event is None:
                assert position < len(data)
                conn.receive_data(data[position : position + size])
                position += size
                event = conn.next_event()
            assert event.body == body[:65536]
            assert conn.next_event() == Fail(1006, "server answered with status 500")
            check_over(conn, RESPONSE + HELLO, b"")


def test_a_body_of_64_kib_is_whole():
    conn = connecting()
    conn.receive_data(HEAD + b"Content-Length: 65536\r\n\r\n" + bytes(65535))
    assert conn.next_event() is None
    conn.receive_data(b"\1")
    assert conn.next_event().body == bytes(65535) + b"\1"


# The end of the stream


def test_the_stream_may_end_within_the_response():
    for length in range(len(RESPONSE)):
        with case(length=length):
            conn = connecting()
            conn.receive_data(RESPONSE[:length])
            conn.receive_data(b"")
            assert conn.next_event() == LOST
            assert conn.response is None
            check_over(conn)


def test_the_stream_may_end_after_an_informational_response():
    conn = connecting()
    conn.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert conn.next_event() is None
    conn.receive_data(b"")
    assert conn.next_event() == LOST
    assert conn.response is None


def test_the_stream_may_end_right_after_the_101():
    conn = connecting()
    conn.receive_data(RESPONSE)
    conn.receive_data(b"")
    assert conn.next_event().status == 101
    assert conn.state is State.OPEN
    assert conn.next_event() == LOST
    check_over(conn)


def test_the_response_can_be_received_into_a_buffer():
    conn = connecting()
    data = b"HTTP/1.1 100 \r\n\r\n" + RESPONSE + HELLO
    conn.read_from(bytearray(data), len(data))
    assert conn.next_event() is conn.response
    assert conn.next_event() == Text("Hello")


def test_by_default_a_message_may_have_1_mib():
    conn = connecting()
    conn.receive_data(RESPONSE + b"\x82\x7f" + (2**20).to_bytes(8, "big") + bytes(2**20))
    assert conn.next_event().status == 101
    assert conn.next_event() == Binary(bytes(2**20))
    conn.receive_data(b"\x82\x7f" + (2**20 + 1).to_bytes(8, "big"))
    assert conn.next_event() == Fail(1009, "message is too big")


def test_the_arguments_are_those_of_connection():
    conn = ClientConnection(URI, subprotocols=["chat"], max_message_size=4, fragments=True)
    conn.receive_data(RESPONSE + b"\x82\x04abc")
    assert conn.next_event().status == 101
    assert conn.next_event() == Binary(b"abc", final=False)
    conn.receive_data(b"d\x82\x05")
    assert conn.next_event() == Binary(b"d")
    assert conn.next_event() == Fail(1009, "message is too big")


# What is no response


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.0\r\n", "server does not speak HTTP, but says b'SSH-2.0-OpenSSH_9.0'"),
        (b"220 mail\n", "server does not speak HTTP, but says b'220 mail'"),
        (b"H\n", "server does not speak HTTP, but says b'H'"),
        (b"HTTP 1.1 200\r\n", "server does not speak HTTP, but says b'HTTP 1.1 200'"),
        (b"\xff\xfe" * 12, f"server does not speak HTTP, but says {bytes([255, 254]) * 12!r}"),
        (b"\x15\x03\x03\x00\x02\x02\x16", "server speaks TLS, as for a wss address"),
    ],
)
def test_who_speaks_something_else_is_not_waited_for(said, reason):
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            assert receive(conn, said, reading, trailing=RESPONSE) == Fail(1002, reason)
            assert conn.response is None
            check_over(conn, RESPONSE + HELLO, b"")


@pytest.mark.parametrize(
    ("said", "end"),
    [
        (b"H", LOST),
        (b"HTTP", LOST),
        (b"HTTP/", LOST),
        (b"\x15", Fail(1002, "server does not speak HTTP, but says b'\\x15'")),
        (b"hello", Fail(1002, "server does not speak HTTP, but says b'hello'")),
        (b"HTTP:", Fail(1002, "server does not speak HTTP, but says b'HTTP:'")),
    ],
)
def test_the_stream_may_end_before_it_is_known_what_it_speaks(said, end):
    for reading in READINGS:
        with case(reading=reading):
            conn = connecting()
            assert receive(conn, said, reading) is None
            conn.receive_data(b"")
            assert conn.next_event() == end
            check_over(conn)
