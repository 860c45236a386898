from __future__ import annotations

import base64

import h11
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.support.cases import case
from tests.support.core import ACCEPT, KEY
from wsframe import handshake
from wsframe.errors import InvalidRequest, LocalProtocolError, RemoteProtocolError
from wsframe.events import Headers, Request
from wsframe.handshake import (
    HeadReader,
    accept,
    accept_key,
    check_header,
    check_headers,
    check_request,
    check_response,
    check_subprotocols,
    choose_subprotocol,
    decode_headers,
    encode_request,
    encode_response,
    new_key,
    refusal,
)

# RFC 6455, section 1.3
REQUEST = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Origin": "http://example.com",
    "Sec-WebSocket-Protocol": "chat, superchat",
    "Sec-WebSocket-Version": "13",
}
RESPONSE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": ACCEPT,
    "Sec-WebSocket-Protocol": "chat",
}
# RFC 8441, section 5.1
EXTENDED_CONNECT = {
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":scheme": "https",
    ":path": "/chat",
    ":authority": "server.example.com",
    "sec-websocket-protocol": "chat, superchat",
    "sec-websocket-extensions": "permessage-deflate",
    "sec-websocket-version": "13",
    "origin": "http://www.example.com",
}
CONTROLS = [*map(chr, range(0x09)), *map(chr, range(0x0A, 0x20)), "\x7f"]
OUTSIDE_LATIN_1 = ["\u0100", "Ł", "€", "\u2028", "\uffff", "\ud800", "😀"]


def changed(headers, name, *values):
    """Return headers with one header given these values instead: none, one or several."""
    return [(key, value) for key, value in headers.items() if key != name] + [
        (name, value) for value in values
    ]


# Keys


def test_the_sample_key_of_rfc6455_1_3():
    assert accept_key(KEY) == ACCEPT


def test_a_key_is_16_fresh_bytes_in_base64_rfc6455_4_1(monkeypatch):
    monkeypatch.setattr("os.urandom", lambda size: b"the sample nonce" if size == 16 else b"")
    assert new_key() == KEY
    monkeypatch.undo()
    assert new_key() != new_key()
    assert len(base64.b64decode(new_key(), validate=True)) == 16


# Bytes of a head

# With every byte that may stand in a value: obs-text of RFC 9110, section 5.5, and a tab
OBS_TEXT = bytes(range(0x80, 0x100))
HEAD = b"GET / HTTP/1.1\r\nHost: " + OBS_TEXT + b"\ta\r\n\r\n"


def read(data, reading, trailing=b" \t\n\n\r\0"):
    """Return the head that HeadReader finds; None if there is none, and check what is left."""
    reader = HeadReader()
    *first, last = reading.cut(data)
    for chunk in first:
        assert reader.feed(chunk) is None
    found = reader.feed(last + reading.trailing(trailing))
    if found is None:
        return None
    head, rest = found
    assert rest == reading.trailing(trailing)
    return head


@pytest.mark.parametrize("head", [HEAD, b"\r\n\r\n", b"a\r\n\r\n"])
def test_a_head_ends_with_a_blank_line_rfc7230_3(head, reading):
    assert read(head, reading) == head


EMPTY_LINE = b"\r\n"


def test_one_empty_line_may_come_before_a_request_rfc9112_2_2(reading):
    for head in (HEAD, b"HEAD " + HEAD[4:]):
        reader = HeadReader(skip_empty_line=True)
        *first, last = reading.cut(EMPTY_LINE + head)
        assert [reader.feed(chunk) for chunk in first] == [None] * len(first)
        assert reader.feed(last + reading.trailing(b"a")) == (head, reading.trailing(b"a"))
        assert reader.is_head_request == head.startswith(b"HEAD")


def test_only_one_empty_line_may_come_before_a_request(reading):
    # What has no line is left to h11, which refuses it.
    for start, skips in [(EMPTY_LINE * 2, True), (EMPTY_LINE, False)]:
        reader = HeadReader(skip_empty_line=skips)
        *first, last = reading.cut(start + HEAD)
        assert [reader.feed(chunk) for chunk in first] == [None] * len(first)
        assert reader.feed(last) == (EMPTY_LINE + HEAD, b"")


@pytest.mark.parametrize("start", [b"\n", b"\r\r", b"\ra", b"\r\n\n", b"\r\n\0", b"\0"])
def test_an_empty_line_is_cr_lf_and_what_follows_is_judged(start, reading):
    reader = HeadReader(skip_empty_line=True)
    with pytest.raises(InvalidRequest) as caught:
        list(map(reader.feed, reading.cut(start + HEAD)))
    assert caught.value.status == 400


def test_an_empty_line_is_no_part_of_the_16_kib():
    head = b"a" * 16380 + b"\r\n\r\n"
    assert HeadReader(skip_empty_line=True).feed(EMPTY_LINE + head) == (head, b"")
    with pytest.raises(InvalidRequest, match="exceeds"):
        HeadReader(skip_empty_line=True).feed(EMPTY_LINE + b"a" + head)


@pytest.mark.parametrize(
    ("start", "is_head_request"),
    [(b"HEAD /", True), (b"GET /", False), (b"HEADER /", False), (b"HEA", False)],
)
def test_the_reader_tells_a_head_request_whatever_follows(start, is_head_request, reading):
    reader = HeadReader()
    for chunk in reading.cut(start):
        assert reader.feed(chunk) is None
    with pytest.raises(InvalidRequest):
        reader.feed(b"\0")
    assert reader.is_head_request is is_head_request


def test_the_reader_starts_anew_after_a_head():
    reader = HeadReader()
    assert reader.feed(HEAD + b"a\r\n\r") == (HEAD, b"a\r\n\r")
    assert reader.feed(b"a\r\n\r") is None
    assert reader.feed(b"\nb") == (b"a\r\n\r\n", b"b")


# The last byte of each sample is the one that must not be.
@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        pytest.param(b"\n", "lines must end with CR LF", id="7230 3.5 LF first"),
        pytest.param(b"a\n", "lines must end with CR LF", id="7230 3.5 bare LF"),
        pytest.param(b"a: b\r\n\n", "lines must end with CR LF", id="7230 3.5 blank line without CR"),
        pytest.param(b"a\ra", "lines must end with CR LF", id="7230 3.5 bare CR"),
        pytest.param(b"a\r\r", "lines must end with CR LF", id="7230 3.5 CR CR"),
        pytest.param(b"a: b\r\n\rc", "lines must end with CR LF", id="7230 3.5 blank line without LF"),
        pytest.param(b"a: b\r\n ", "header lines must not be folded", id="7230 3.2.4 obs-fold"),
        pytest.param(b"a: b\r\n\t", "header lines must not be folded", id="7230 3.2.4 obs-fold with a tab"),
    ],
)
def test_an_illegal_byte_is_refused_at_once(sample, problem, reading):
    with pytest.raises(InvalidRequest) as caught:
        read(sample, reading, trailing=b"\r\n\r\n")
    assert (caught.value.status, caught.value.reason) == (400, problem)


def test_a_control_character_is_refused_at_once(reading):
    for byte in (*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F):
        with case(byte=f"{byte:#04x}"):
            with pytest.raises(InvalidRequest) as caught:
                read(b"a: " + bytes([byte]), reading, trailing=b"\r\n\r\n")
            problem = f"byte 0x{byte:02x} is not allowed in a head"
            assert (caught.value.status, caught.value.reason) == (400, problem)


@pytest.mark.parametrize("size", [1, 1000, 20000])
def test_a_head_of_16_kib_is_fine(size):
    head = b"a" * 16380 + b"\r\n\r\n"
    reader = HeadReader()
    *first, last = [head[i : i + size] for i in range(0, len(head), size)]
    assert [reader.feed(chunk) for chunk in first] == [None] * len(first)
    assert reader.feed(last + b"a") == (head, b"a")


@pytest.mark.parametrize("head", [b"a" * 16381 + b"\r\n\r\n", b"a" * 20000, b"a" * 16385 + b"\0"])
def test_a_head_of_more_than_16_kib_is_refused(head):
    with pytest.raises(InvalidRequest) as caught:
        HeadReader().feed(head)
    assert (caught.value.status, caught.value.reason) == (431, "head exceeds 16384 bytes")


def test_a_head_without_an_end_is_refused_after_16_kib():
    reader = HeadReader()
    assert reader.feed(b"a" * 16384) is None
    with pytest.raises(InvalidRequest, match="exceeds") as caught:
        reader.feed(b"a")
    assert caught.value.status == 431


def test_what_comes_after_a_head_has_no_limit():
    assert HeadReader().feed(HEAD + bytes(20000)) == (HEAD, bytes(20000))


def test_headers_are_decoded_as_latin_1_without_control_characters():
    assert decode_headers([(b"host", OBS_TEXT)]) == (("host", OBS_TEXT.decode("latin-1")),)
    for control in CONTROLS:
        with case(control=control), pytest.raises(InvalidRequest, match="control") as caught:
            decode_headers([(b"a", b"b" + control.encode())])
        assert caught.value.status == 400


def test_headers_are_decoded_up_to_100():
    assert len(decode_headers([(b"a", b"b")] * 100)) == 100
    with pytest.raises(InvalidRequest) as caught:
        decode_headers([(b"a", b"b")] * 101)
    assert (caught.value.status, caught.value.reason) == (431, "head has more than 100 headers")


# Headers out


@pytest.mark.parametrize("headers", [[("X-A", "b\té \xff"), ("Set-Cookie", "")], {"X-A": "b"}, (), {}])
def test_headers_of_a_user_are_pairs_or_a_mapping(headers):
    assert check_headers(headers) == list(dict(headers).items())


def test_a_value_with_a_control_character_is_not_sent():
    for character in CONTROLS:
        with case(character=character):
            for value in (character, f"a{character}b", f"a{character}", f"€{character}"):
                with pytest.raises(LocalProtocolError, match="value of header X-A has a control character"):
                    check_headers({"X-A": value})
            with pytest.raises(LocalProtocolError, match="control character"):
                check_headers({"X-A": b"a" + character.encode()})


def test_bytes_are_a_value_that_goes_out_as_it_is_rfc9110_5_5():
    for value in (OBS_TEXT, "name=Łukasz".encode(), b"", b"a\tb"):
        (pair,) = check_headers({"Set-Cookie": value})
        assert pair == ("Set-Cookie", value.decode("latin-1"))
        assert encode_response(204, [pair]).endswith(b"\r\nSet-Cookie: " + value + b"\r\n\r\n")
        assert encode_request("/", [pair]).endswith(b"\r\nSet-Cookie: " + value + b"\r\n\r\n")


def test_a_str_outside_latin_1_is_refused_with_the_remedy():
    for character in OUTSIDE_LATIN_1:
        with case(character=character), pytest.raises(ValueError, match="outside latin-1") as caught:
            check_headers({"X-City": f"a{character}"})
        assert str(caught.value) == (
            "value of header X-City has a character outside latin-1: give its bytes, "
            "or value.encode().decode('latin-1')"
        )
    text = "Łódź"
    assert check_header("X-City", text.encode().decode("latin-1")) == check_header("X-City", text.encode())


NO_TOKENS = ["", " ", "a b", "a:", ":a", "a\r", "a\n", "é", "a\0", "a,", "(a)", "a\u2028", "a "]


def test_a_name_that_is_no_token_is_not_sent_rfc7230_3_2_6():
    for name in NO_TOKENS:
        with case(name=name), pytest.raises(LocalProtocolError, match="not a token"):
            check_headers({name: "b"})


@pytest.mark.parametrize(
    ("name", "value"), [(b"a", "b"), ("a", None), ("a", 1), (None, "b"), ("a", bytearray(b"b"))]
)
def test_a_header_is_a_str_and_a_str_or_bytes(name, value):
    with pytest.raises(TypeError, match=r"a name \(str\) and a value \(str or bytes\), not"):
        check_header(name, value)


HEADERS_OF_THE_HANDSHAKE = [
    *REQUEST,
    "sec-websocket-accept",
    "SEC-WEBSOCKET-EXTENSIONS",
    "content-length",
    "Transfer-Encoding",
]


def test_headers_that_the_handshake_sets_are_not_for_the_user():
    for name in HEADERS_OF_THE_HANDSHAKE:
        with case(name=name), pytest.raises(LocalProtocolError, match="is set by the handshake"):
            check_headers([(name, "x")])


def test_a_request_is_written():
    assert encode_request("/a?b", [("Host", "x"), ("X-A", "é")]) == (
        b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-A: \xe9\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("status", "body", "data"),
    [
        (101, b"", b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n"),
        (200, b"page", b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 4\r\n\r\npage"),
        (204, b"", b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"),
        (304, b"", b"HTTP/1.1 304 Not Modified\r\nA: b\r\n\r\n"),
        (404, b"", b"HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Length: 0\r\n\r\n"),
        (599, b"", b"HTTP/1.1 599 \r\nA: b\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_a_response_is_written_with_its_length_rfc7230_3_3_2(status, body, data):
    assert encode_response(status, [("A", "b")], body) == data
    # RFC 9110, section 9.3.2: the answer to a HEAD has the length of the body, and no body.
    assert encode_response(status, [("A", "b")], body, method="HEAD") == data.removesuffix(body)
    client = h11.Connection(h11.CLIENT)
    client.send(
        h11.Request(
            method="GET", target="/", headers=[("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "x")]
        )
    )
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    assert client.next_event().status_code == status


# The request


@pytest.mark.parametrize(
    "headers", [REQUEST, list(REQUEST.items()), tuple(REQUEST.items())], ids=["dict", "list", "tuple"]
)
def test_the_sample_request_of_rfc6455_1_3(headers):
    request = check_request(headers, path="/chat")
    expected = [(name.lower(), value) for name, value in REQUEST.items()]
    assert request == Request("/chat", expected, ["chat", "superchat"], "http://example.com")
    assert type(request.headers) is Headers


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_names_and_tokens_are_read_in_any_case(case):
    headers = {case(name): value for name, value in REQUEST.items()}
    headers[case("Upgrade")] = case("websocket")
    headers[case("Connection")] = case("upgrade")
    assert check_request(headers).is_upgrade


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Connection", ["keep-alive, Upgrade"]),
        ("Connection", ["keep-alive", "upgrade"]),
        ("Connection", [" ,, \tUPGRADE\t, ,x"]),
        ("Upgrade", ["h2c, websocket"]),
        ("Upgrade", ["h2c", "WebSocket"]),
        ("Host", ["[::1]:8001"]),
        ("Host", ["\tserver.example.com "]),
        ("Sec-WebSocket-Key", [f" {KEY}\t"]),
        ("Sec-WebSocket-Version", [" 13\t"]),
        ("Origin", []),
        ("Sec-WebSocket-Protocol", []),
        ("Content-Length", ["0"]),
        ("Content-Length", ["0", " 00 "]),
        ("Cookie", ["a=é\t\xff"]),
        ("Cookie", [OBS_TEXT.decode("latin-1")]),
        ("Cookie", [OBS_TEXT]),
    ],
)
def test_a_request_is_accepted_rfc6455_4_2_1(name, values):
    request = check_request(changed(REQUEST, name, *values))
    assert request.is_upgrade
    assert ("Sec-WebSocket-Accept", ACCEPT) in accept(request)


@pytest.mark.parametrize(
    ("values", "subprotocols"),
    [
        ([], ()),
        ([""], ()),
        (["chat"], ("chat",)),
        (["b , a,\tc"], ("b", "a", "c")),
        (["b", "a"], ("b", "a")),
        ([",, a,"], ("a",)),
        (["chat, Chat"], ("chat", "Chat")),
        # Some chargers offer one twice.
        (["ocpp1.6, ocpp1.6"], ("ocpp1.6",)),
        (["b, a, b", "a", "c"], ("b", "a", "c")),
    ],
)
def test_subprotocols_are_read_in_their_order_rfc6455_4_1_item_10(values, subprotocols):
    assert check_request(changed(REQUEST, "Sec-WebSocket-Protocol", *values)).subprotocols == subprotocols


@pytest.mark.parametrize(
    ("values", "origin"), [([], None), (["null"], "null"), ([" https://a "], "https://a"), ([""], "")]
)
def test_the_origin_is_read(values, origin):
    assert check_request(changed(REQUEST, "Origin", *values)).origin == origin


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/chat?a=b&c=%20", "/chat?a=b&c=%20"),
        ("//a", "//a"),
        ('/"[]^`{|}', '/"[]^`{|}'),
    ],
)
def test_the_target_is_a_path_rfc9112_3_2_1(target, path):
    request = check_request(REQUEST, path=target)
    assert (request.path, request.headers.get("host")) == (path, "server.example.com")


@pytest.mark.parametrize("host", [["server.example.com"], ["other:8080"]])
@pytest.mark.parametrize(
    ("target", "path", "authority"),
    [
        ("http://example.com/chat?a", "/chat?a", "example.com"),
        ("HTTPS://Example.com:99", "/", "Example.com:99"),
        ("http://example.com?a", "/?a", "example.com"),
        ("ws://example.com/ocpp/CP1", "/ocpp/CP1", "example.com"),
        ("wss://example.com:443/ocpp/CP1", "/ocpp/CP1", "example.com:443"),
        ("WS://[::1]:80//a", "//a", "[::1]:80"),
        ("Wss://example.com", "/", "example.com"),
    ],
)
def test_the_host_of_an_absolute_form_replaces_the_host_header_rfc9112_3_2_2(target, path, authority, host):
    for upgrade in (["websocket"], []):
        headers = dict(changed(REQUEST, "Host", *host))
        request = check_request(changed(headers, "Upgrade", *upgrade), path=target)
        assert request.path == path
        assert request.headers.get_all("host") == [authority]
        assert len(request.headers) == len(headers) - (not upgrade)


def test_an_absolute_form_does_not_make_up_for_a_wrong_host_header():
    for host, reason in [([], "missing"), (["a", "b"], "more than one"), (["a/b"], "must be a host")]:
        with case(host=host), pytest.raises(InvalidRequest, match=reason) as caught:
            check_request(changed(REQUEST, "Host", *host), path="ws://example.com/")
        assert caught.value.status == 400


UPGRADE_REQUIRED = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"))


@pytest.mark.parametrize(
    ("name", "values", "status", "reason"),
    [
        # "A |Host| header field": RFC 7230, section 5.4
        ("Host", [], 400, "Host header is missing"),
        ("Host", ["a", "a"], 400, "more than one Host header"),
        ("Host", [""], 400, "Host header must be a host, with or without a port"),
        ("Host", ["a b"], 400, "Host header must be a host, with or without a port"),
        ("Host", ["a/b"], 400, "Host header must be a host, with or without a port"),
        ("Host", ["a@b"], 400, "Host header must be a host, with or without a port"),
        ("Host", ["é"], 400, "Host header must be a host, with or without a port"),
        ("Content-Length", ["1"], 400, "request must not have a body"),
        ("Content-Length", ["0", "5"], 400, "request must not have a body"),
        ("Content-Length", [""], 400, "request must not have a body"),
        ("Content-Length", ["0, 0"], 400, "request must not have a body"),
        ("Content-Length", ["-0"], 400, "request must not have a body"),
        ("Transfer-Encoding", ["chunked"], 400, "request must not have a body"),
        ("Transfer-Encoding", [""], 400, "request must not have a body"),
        ("Connection", [], 400, "Connection header must include upgrade"),
        ("Connection", ["close"], 400, "Connection header must include upgrade"),
        ("Connection", ["upgraded"], 400, "Connection header must include upgrade"),
        ("Connection", ["keep-alive Upgrade"], 400, "Connection header must include upgrade"),
        ("Sec-WebSocket-Key", [], 400, "Sec-WebSocket-Key header is missing"),
        ("Sec-WebSocket-Key", [KEY, KEY], 400, "more than one Sec-WebSocket-Key header"),
        ("Sec-WebSocket-Key", [""], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        ("Sec-WebSocket-Key", [KEY[:-2]], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        ("Sec-WebSocket-Key", ["A" * 24], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        ("Sec-WebSocket-Key", ["A" * 23 + "="], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        ("Sec-WebSocket-Key", ["A" * 20 + "===="], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        (
            "Sec-WebSocket-Key",
            ["A" * 10 + " " + "A" * 11 + "=="],
            400,
            "Sec-WebSocket-Key must be base64 of 16 bytes",
        ),
        ("Sec-WebSocket-Key", ["A" * 21 + "-=="], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        ("Sec-WebSocket-Key", ["é" * 22 + "=="], 400, "Sec-WebSocket-Key must be base64 of 16 bytes"),
        (
            "Sec-WebSocket-Key",
            ["A" * 22 + "==" + "A" * 22 + "=="],
            400,
            "Sec-WebSocket-Key must be base64 of 16 bytes",
        ),
        ("Sec-WebSocket-Version", [], 400, "Sec-WebSocket-Version header is missing"),
        ("Sec-WebSocket-Version", ["13", "13"], 400, "more than one Sec-WebSocket-Version header"),
        ("Sec-WebSocket-Version", ["8"], 426, "Sec-WebSocket-Version must be 13"),
        ("Sec-WebSocket-Version", [""], 426, "Sec-WebSocket-Version must be 13"),
        ("Sec-WebSocket-Version", ["013"], 426, "Sec-WebSocket-Version must be 13"),
        ("Sec-WebSocket-Version", ["13, 8"], 426, "Sec-WebSocket-Version must be 13"),
        ("Origin", ["http://a", "http://a"], 400, "more than one Origin header"),
        ("Sec-WebSocket-Protocol", ["a b"], 400, "Sec-WebSocket-Protocol must be a list of tokens"),
        ("Sec-WebSocket-Protocol", ["a", '"b"'], 400, "Sec-WebSocket-Protocol must be a list of tokens"),
        ("Sec-WebSocket-Protocol", ["é"], 400, "Sec-WebSocket-Protocol must be a list of tokens"),
        ("Sec-WebSocket-Extensions", ["a b"], 400, "Sec-WebSocket-Extensions is malformed"),
        ("Sec-WebSocket-Extensions", ["a", "b;"], 400, "Sec-WebSocket-Extensions is malformed"),
    ],
)
def test_a_request_is_refused_rfc6455_4_2_1(name, values, status, reason):
    with pytest.raises(InvalidRequest) as caught:
        check_request(changed(REQUEST, name, *values))
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert caught.value.headers == (UPGRADE_REQUIRED if status == 426 else ())


@pytest.mark.parametrize("name", [*REQUEST, "Cookie"])
def test_a_value_with_a_control_character_is_not_read(name):
    for character in [*CONTROLS, *OUTSIDE_LATIN_1]:
        with case(character=character):
            with pytest.raises(InvalidRequest, match="control or non-latin-1") as caught:
                check_request(changed(REQUEST, name, REQUEST.get(name, "") + character))
            assert caught.value.status == 400
            with pytest.raises(RemoteProtocolError, match="control or non-latin-1"):
                check_response(changed(RESPONSE, name, RESPONSE.get(name, "") + character), KEY, ["chat"])


NO_PATHS = [
    "",
    "*",
    "chat",
    "server.example.com:80",
    "ftp://a/",
    "wsss://a/",
    "http:///",
    "ws://",
    "ws://?a",
    "ws://user@a/",
    "http://user:password@a:80/",
    "ws://a\\b/",
    "ws:/a/",
    "ws://a#b",
    "/#",
    "/a#b",
    "/a b",
    "/\x00",
    "/é",
    "http://a#b",
]


def test_a_target_that_is_no_path_is_refused():
    for target in NO_PATHS:
        with case(target=target):
            with pytest.raises(InvalidRequest) as caught:
                check_request(REQUEST, path=target)
            assert (caught.value.status, caught.value.reason) == (400, "request target must be a path")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_health_checks_are_requests_that_ask_for_no_websocket(method, version):
    for headers in (REQUEST, {"Host": "a"}):
        request = check_request(headers, method=method, path="/health", http_version=version)
        if (method, version) == ("GET", "1.1"):
            assert request.is_upgrade == (headers is REQUEST)
        else:
            assert request == Request(
                "/health",
                [(name.lower(), value) for name, value in headers.items()],
                is_upgrade=False,
                method=method,
                http_version=version,
            )
            with pytest.raises(LocalProtocolError, match="does not ask for a WebSocket"):
                accept(request)


def test_http_1_0_needs_no_host_but_not_a_wrong_one():
    assert check_request([], http_version="1.0").headers == ()
    assert check_request([], path="http://a/", http_version="1.0").headers == (("host", "a"),)
    for host in (["a", "a"], [""], ["a b"], ["a@b"]):
        with case(host=host), pytest.raises(InvalidRequest, match="Host") as caught:
            check_request([("Host", value) for value in host], http_version="1.0")
        assert caught.value.status == 400


def test_an_asterisk_is_the_target_of_options_only_rfc9112_3_2_4():
    for version in ("1.0", "1.1"):
        request = check_request({"Host": "a"}, method="OPTIONS", path="*", http_version=version)
        assert (request.path, request.headers.get("host"), request.is_upgrade) == ("*", "a", False)
        for method in ("GET", "HEAD"):
            with pytest.raises(InvalidRequest, match="request target must be a path"):
                check_request({"Host": "a"}, method=method, path="*", http_version=version)


def test_a_health_check_must_not_have_a_body():
    for method, version in [("OPTIONS", "1.1"), ("HEAD", "1.1"), ("GET", "1.0")]:
        for header in [("Content-Length", "1"), ("Transfer-Encoding", "chunked")]:
            with case(method=method, header=header), pytest.raises(InvalidRequest, match="body"):
                check_request([("Host", "a"), header], method=method, http_version=version)


@pytest.mark.parametrize(
    ("method", "version", "status", "reason", "headers"),
    [
        ("GET", "1.1", 426, "this is a WebSocket server", "UPGRADE"),
        ("HEAD", "1.1", 405, "method must be GET", (("Allow", "GET"),)),
        ("OPTIONS", "1.1", 405, "method must be GET", (("Allow", "GET"),)),
        ("GET", "1.0", 505, "HTTP version must be 1.1", ()),
        ("HEAD", "1.0", 505, "HTTP version must be 1.1", ()),
        ("OPTIONS", "1.0", 505, "HTTP version must be 1.1", ()),
    ],
)
def test_what_refuses_a_request_that_asks_for_no_websocket(method, version, status, reason, headers):
    error = refusal(check_request({"Host": "a"}, method=method, http_version=version))
    assert (error.status, error.reason) == (status, reason)
    assert error.headers == (UPGRADE_REQUIRED if headers == "UPGRADE" else headers)


def test_another_method_is_refused_with_405_and_allow():
    for method in ["POST", "CONNECT", "TRACE", "get", "head", ""]:
        with case(method=method):
            with pytest.raises(InvalidRequest) as caught:
                check_request(REQUEST, method=method)
            assert (caught.value.status, caught.value.reason) == (405, "method must be GET")
            assert caught.value.headers == (("Allow", "GET"),)


def test_another_version_of_http_is_refused_with_505():
    for version in ["0.9", "2.0", "2", "1.2", "1", "1.10", ""]:
        with case(version=version):
            with pytest.raises(InvalidRequest) as caught:
                check_request(REQUEST, http_version=version)
            assert (caught.value.status, caught.value.reason) == (505, "HTTP version must be 1.1")


@pytest.mark.parametrize("values", [[], [""], ["h2c"], ["websockets"], ["websocket/13"], ["web socket"]])
def test_a_get_without_upgrade_is_a_plain_one(values):
    request = check_request(changed(REQUEST, "Upgrade", *values), path="/chat")
    assert (request.path, request.is_upgrade, request.subprotocols) == ("/chat", False, ())
    with pytest.raises(LocalProtocolError, match="does not ask for a WebSocket"):
        accept(request)


# RFC 8441


@pytest.mark.parametrize("headers", [EXTENDED_CONNECT, list(EXTENDED_CONNECT.items())], ids=["dict", "list"])
def test_the_sample_of_rfc8441_5_1(headers):
    request = check_request(headers)
    expected = list(EXTENDED_CONNECT.items())
    assert request == Request(
        "/chat",
        expected,
        ["chat", "superchat"],
        "http://www.example.com",
        method="CONNECT",
        http_version="2",
    )
    assert check_request(headers, http_version="3").http_version == "3"  # RFC 9220
    assert accept(request) == []
    more = {"Set-Cookie": "a=b"}
    assert accept(request, subprotocol="chat", headers=more) == [
        ("Sec-WebSocket-Protocol", "chat"),
        ("Set-Cookie", "a=b"),
    ]


@pytest.mark.parametrize(
    ("name", "values", "status", "reason"),
    [
        (":protocol", ["webtransport"], 501, "protocol must be websocket"),
        (":protocol", [""], 501, "protocol must be websocket"),
        (":method", ["GET"], 400, "method must be CONNECT"),
        (":method", [], 400, "method must be CONNECT"),
        (":path", [], 400, "request target must be a path"),
        (":path", ["*"], 400, "request target must be a path"),
        (":path", ["/", "/"], 400, "request target must be a path"),
        ("sec-websocket-version", [], 400, "Sec-WebSocket-Version header is missing"),
        ("sec-websocket-version", ["8"], 426, "Sec-WebSocket-Version must be 13"),
        ("sec-websocket-protocol", ["a b"], 400, "Sec-WebSocket-Protocol must be a list of tokens"),
        ("sec-websocket-extensions", ["@"], 400, "Sec-WebSocket-Extensions is malformed"),
        ("origin", ["a", "b"], 400, "more than one Origin header"),
    ],
)
def test_an_extended_connect_is_refused_rfc8441_5(name, values, status, reason):
    with pytest.raises(InvalidRequest) as caught:
        check_request(changed(EXTENDED_CONNECT, name, *values))
    assert (caught.value.status, caught.value.reason) == (status, reason)


# The response


def test_the_sample_response_of_rfc6455_1_3():
    request = check_request(REQUEST)
    response = accept(request, subprotocol="chat", headers=[("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    assert response == [*RESPONSE.items(), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]
    assert check_response(response, KEY, ["chat", "superchat"]) == "chat"


def test_a_response_without_a_subprotocol():
    response = accept(check_request(REQUEST))
    assert "Sec-WebSocket-Protocol" not in dict(response)
    assert check_response(response, KEY, ["chat"]) is None


@pytest.mark.parametrize("subprotocol", ["Chat", "", "chat, superchat", "chat\r\nX-A: b", b"chat"])
def test_a_subprotocol_that_was_not_offered_is_not_accepted(subprotocol):
    with pytest.raises(LocalProtocolError, match="did not offer"):
        accept(check_request(REQUEST), subprotocol=subprotocol)


def test_headers_that_cannot_be_sent_are_not_accepted():
    with pytest.raises(LocalProtocolError, match="control"):
        accept(check_request(REQUEST), headers={"X-A": "b\r\nX-B: c"})


@pytest.mark.parametrize(
    ("ours", "chosen"),
    [
        ([], None),
        (["echo"], None),
        (["superchat", "chat"], "superchat"),
        (["echo", "chat"], "chat"),
        (["CHAT"], None),
    ],
)
def test_the_first_subprotocol_of_the_server_is_chosen(ours, chosen):
    assert choose_subprotocol(check_request(REQUEST), ours) == chosen


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Upgrade", ["WebSocket"]),
        ("Upgrade", [" websocket\t"]),
        ("Connection", ["keep-alive, UPGRADE"]),
        ("Connection", ["keep-alive", "upgrade"]),
        ("Sec-WebSocket-Accept", [f" {ACCEPT}\t"]),
        ("Sec-WebSocket-Protocol", [" chat\t"]),
        ("Sec-WebSocket-Extensions", [""]),
        ("Server", [OBS_TEXT.decode("latin-1")]),
        ("Server", [OBS_TEXT]),
    ],
)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_response_is_accepted_rfc6455_4_1(name, values, case):
    response = [(case(key), value) for key, value in changed(RESPONSE, name, *values)]
    assert check_response(response, KEY, ["chat"]) == "chat"
    assert check_response(dict(changed(RESPONSE, "Server", "x")), KEY, ["chat"]) == "chat"


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("Upgrade", [], "Upgrade header must be websocket"),
        ("Upgrade", ["h2c"], "Upgrade header must be websocket"),
        ("Upgrade", ["websocket", "websocket"], "Upgrade header must be websocket"),
        ("Upgrade", ["h2c, websocket"], "Upgrade header must be websocket"),
        ("Connection", [], "Connection header must include upgrade"),
        ("Connection", ["close"], "Connection header must include upgrade"),
        ("Sec-WebSocket-Accept", [], "Sec-WebSocket-Accept header is missing"),
        ("Sec-WebSocket-Accept", [ACCEPT, ACCEPT], "more than one Sec-WebSocket-Accept header"),
        ("Sec-WebSocket-Accept", [""], "Sec-WebSocket-Accept does not answer the key"),
        ("Sec-WebSocket-Accept", [ACCEPT.lower()], "Sec-WebSocket-Accept does not answer the key"),
        ("Sec-WebSocket-Accept", [f"{ACCEPT}, {ACCEPT}"], "Sec-WebSocket-Accept does not answer the key"),
        ("Sec-WebSocket-Accept", [accept_key(ACCEPT)], "Sec-WebSocket-Accept does not answer the key"),
        ("Sec-WebSocket-Accept", ["é"], "Sec-WebSocket-Accept does not answer the key"),
        ("Sec-WebSocket-Extensions", ["x"], "server uses an extension that was not offered"),
        ("Sec-WebSocket-Extensions", ["@"], "Sec-WebSocket-Extensions is malformed"),
        ("Sec-WebSocket-Extensions", ["a", "b;"], "Sec-WebSocket-Extensions is malformed"),
        ("Sec-WebSocket-Protocol", ["a b"], "server uses a subprotocol that was not offered"),
        (
            "Sec-WebSocket-Extensions",
            ["", "permessage-deflate"],
            "server uses an extension that was not offered",
        ),
        ("Sec-WebSocket-Protocol", ["echo"], "server uses a subprotocol that was not offered"),
        ("Sec-WebSocket-Protocol", ["CHAT"], "server uses a subprotocol that was not offered"),
        ("Sec-WebSocket-Protocol", [""], "server uses a subprotocol that was not offered"),
        ("Sec-WebSocket-Protocol", ["chat, superchat"], "server uses a subprotocol that was not offered"),
        ("Sec-WebSocket-Protocol", ["chat", "chat"], "more than one Sec-WebSocket-Protocol header"),
    ],
)
def test_a_response_is_refused_rfc6455_4_1(name, values, reason):
    with pytest.raises(RemoteProtocolError) as caught:
        check_response(changed(RESPONSE, name, *values), KEY, ["chat", "superchat"])
    assert (caught.value.code, caught.value.reason) == (1002, reason)


def test_a_subprotocol_is_refused_when_none_was_offered():
    with pytest.raises(RemoteProtocolError, match="not offered"):
        check_response(RESPONSE, KEY)


# Linear time: with anything that is quadratic in its length, these would take minutes.


def reason_of(check, *arguments):
    """Return why a head is refused; nothing if it is accepted. Nothing else is raised."""
    try:
        check(*arguments)
    except RemoteProtocolError as error:
        return error.reason
    return ""


LONG = {
    "spaces": " " * 100_000,
    "spaces within": "a" + " " * 100_000 + "b",
    "commas": "," * 100_000,
    "elements": "a, " * 33_000,
    "tabs": "\t," * 50_000 + "a",
    "quotes": '"' * 100_000,
}


LONG_HEADERS = [
    *REQUEST,
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Content-Length",
    "Transfer-Encoding",
    "Cookie",
    ":protocol",
]


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_long_headers_are_judged_in_linear_time(value):
    for name in LONG_HEADERS:
        with case(name=name):
            assert len(reason_of(check_request, changed(REQUEST, name, value))) < 124
            assert len(reason_of(check_response, changed(RESPONSE, name, value), KEY, ["chat"])) < 124


# Subprotocols of a user


@pytest.mark.parametrize("subprotocols", [(), [], ["chat"], ("b", "a"), ["!#$%&'*+-.^_`|~1A"]])
def test_subprotocols_that_can_be_offered_rfc6455_4_1_item_10(subprotocols):
    assert check_subprotocols(subprotocols) == tuple(subprotocols)


def test_a_subprotocol_that_is_no_token_is_not_offered():
    for subprotocol in ["", "a b", "a,b", "a\r\nb", "a\n", "é", '"a"', "a\0", "a/b", "\x85"]:
        with case(subprotocol=subprotocol), pytest.raises(LocalProtocolError, match="is not a token"):
            check_subprotocols(["chat", subprotocol])


def test_a_subprotocol_is_offered_once():
    with pytest.raises(LocalProtocolError, match="unique"):
        check_subprotocols(["a", "b", "a"])


@pytest.mark.parametrize("subprotocols", ["chat", b"chat", [b"chat"], [None]])
def test_subprotocols_are_a_list_of_str(subprotocols):
    with pytest.raises(TypeError, match=r"not a str|must be a str"):
        check_subprotocols(subprotocols)


# Heads that are read without h11

pieces_of_heads = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"GET / HTTP/1.1\r\n",
                b"GET /chat?a=%20 HTTP/1.1\r\n",
                b"GET  / HTTP/1.1\r\n",
                b"GET /\x00 HTTP/1.1\r\n",
                b"POST / HTTP/1.1\r\n",
                b"GET / HTTP/1.0\r\n",
                b"HTTP/1.1 101 Switching Protocols\r\n",
                b"HTTP/1.1 101\r\n",
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.0 101 x\r\n",
                b"Host: localhost\r\n",
                b"hOST:\tx \r\n",
                b"Upgrade: websocket\r\n",
                b"X-Empty:\r\n",
                b"X-Empty: \t \r\n",
                b"X: a:b \t c\t\r\n",
                b"Content-Length: 0\r\n",
                b"Content-Length: 1, 1\r\n",
                b"Transfer-Encoding: gzip\r\n",
                b"Connection: close\r\n",
                b"\xe9: x\r\n",
                b"X: \xe9\r\n",
                b"Cookie: name=" + "Łukasz".encode() + b"\r\n",
                b"X: \x85\xa0 \xff\x80\t\r\n",
                b"HTTP/1.1 101 " + "Łódź".encode() + b"\r\n",
                b"GET /\xe9 HTTP/1.1\r\n",
                b"X Y: z\r\n",
                b"X : z\r\n",
                b": z\r\n",
                b" folded\r\n",
                b"no colon\r\n",
                b"\r\n",
                b"\n",
                b"\r",
                b":",
            ]
        ),
        st.binary(max_size=3),
    ),
    max_size=8,
)


def read_by_h11(head, is_request):
    if is_request:
        parser = h11.Connection(h11.SERVER)
    else:
        parser = h11.Connection(h11.CLIENT)
        asked = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        parser.send(h11.Request(method="GET", target="/", headers=asked))
        parser.send(h11.EndOfMessage())
    parser.receive_data(head)
    event = parser.next_event()
    assert event.http_version == b"1.1"
    if is_request:
        assert event.method == b"GET"
        return event.target.decode(), handshake.decode_headers(event.headers)
    assert event.status_code == 101
    return "", handshake.decode_headers(event.headers)


@settings(max_examples=5 * settings().max_examples)
@given(
    start=st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 101 OK\r\n"]),
    pieces=pieces_of_heads,
)
def test_what_is_read_without_h11_is_what_h11_reads(start, pieces):
    data = start + b"".join(pieces) + b"\r\n\r\n"
    try:
        head, _ = handshake.HeadReader().feed(data)
    except InvalidRequest:
        return
    plain = handshake.read_plain_head(head)
    event("plain" if plain else "not plain")
    if plain is not None:
        assert plain == read_by_h11(head, head.startswith(b"GET"))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (
            b"GET /a?b HTTP/1.1\r\nHost: x\r\nX-Y:\t a:b \t\r\nZ:\r\n\r\n",
            ("/a?b", Headers([("host", "x"), ("x-y", "a:b"), ("z", "")])),
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n", ("", Headers([("a", "b")]))),
        (b"HTTP/1.1 101\r\n\r\n", ("", Headers())),
        (b"GET / HTTP/1.1\r\n\r\n", None),  # Host is missing
        (b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: \x85\xa0" + OBS_TEXT + b"\r\n\r\n",
            ("/", Headers([("host", "x"), ("x", "\x85\xa0" + OBS_TEXT.decode("latin-1"))])),
        ),
        (b"HTTP/1.1 101 \xc5\x81\r\n\r\n", ("", Headers())),
        (b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX\xe9: y\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n", None),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
    ],
)
def test_a_head_is_plain_or_left_to_h11(head, expected):
    assert handshake.read_plain_head(head) == expected


@settings(max_examples=5 * settings().max_examples)
@given(data=pieces_of_heads.map(b"".join))
def test_what_is_clean_has_nothing_illegal(data):
    if handshake._is_clean(data):
        assert handshake._ILLEGAL.search(data) is None
