from __future__ import annotations

import pickle
import sys
from itertools import combinations

import pytest

from tests.support.cases import case
from wsframe.events import Binary, Close, Fail, Headers, Ping, Pong, Request, Response, Text, size_in_memory

HEADERS = [("host", "x"), ("cookie", "a=1")]

# Each of them differs from all others.
SAMPLES = [
    Request("/"),
    Request("/chat", HEADERS, ["chat", "echo"], "https://example.com"),
    Request("/", is_upgrade=False),
    Request("/", is_upgrade=False, method="HEAD"),
    Request("/", is_upgrade=False, http_version="1.0"),
    Response(101),
    Response(101, subprotocol="chat"),
    Response(404, HEADERS, b"no"),
    Response(404, [("x-city", "Łódź".encode())]),
    Text(""),
    Text("a"),
    Text("a", final=False),
    Binary(b""),
    Binary(b"a"),
    Binary(b"a", final=False),
    Ping(),
    Ping(b"a"),
    Pong(),
    Pong(b"a"),
    Close(),
    Close(1000),
    Close(1006),
    Close(1000, "bye"),
    Fail(),
    Fail(1000),
    Fail(1005),
]


def test_events_survive_pickling_equal_with_an_equal_hash():
    for event in SAMPLES:
        with case(event=event):
            copy = pickle.loads(pickle.dumps(event))
            assert copy is not event
            assert copy == event
            assert hash(copy) == hash(event)
            assert repr(copy) == repr(event)


def test_a_pickle_says_no_more_than_the_call_that_makes_the_event():
    # ... and so it is the same in both builds.
    assert Text("Hello", False).__reduce_ex__(4) == (Text, ("Hello", False))


def test_events_of_other_class_or_value_differ():
    for event, other in combinations(SAMPLES, 2):
        assert event != other


def test_events_differ_from_what_is_no_event():
    for event in SAMPLES:
        with case(event=event):
            values = tuple(getattr(event, name) for name in event.__match_args__)
            assert event != values
            assert event.__eq__(values) is NotImplemented


def test_events_have_no_dict():
    for event in SAMPLES:
        with case(event=event), pytest.raises(AttributeError):
            event.colour = "red"


def matched(event):
    match event:
        case Request(path, headers, subprotocols, origin, is_upgrade, method, http_version):
            return path, headers, subprotocols, origin, is_upgrade, method, http_version
        case Response(status, headers, body, subprotocol):
            return status, headers, body, subprotocol
        case Text(data, final):
            return data, final
        case Binary(data, final):
            return data, final
        case Ping(payload):
            return (payload,)
        case Pong(payload):
            return (payload,)
        case Close(code, reason):
            return code, reason
        case Fail(code, reason):
            return code, reason


@pytest.mark.parametrize(
    ("event", "values"),
    [
        (Request("/", HEADERS, ["a"], "o"), ("/", Headers(HEADERS), ("a",), "o", True, "GET", "1.1")),
        (Request("*", (), (), None, False, "OPTIONS", "1.0"), ("*", (), (), None, False, "OPTIONS", "1.0")),
        (Response(404, HEADERS, b"no"), (404, Headers(HEADERS), b"no", None)),
        (Text("a"), ("a", True)),
        (Binary(b"a", False), (b"a", False)),
        (Ping(b"a"), (b"a",)),
        (Pong(), (b"",)),
        (Close(), (1005, "")),
        (Fail(), (1006, "")),
    ],
    ids=repr,
)
def test_events_match_by_position(event, values):
    assert matched(event) == values


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            Request("/", [("host", "x")]),
            "Request(path='/', headers=(('host', 'x'),), subprotocols=(), origin=None, is_upgrade=True, "
            "method='GET', http_version='1.1')",
        ),
        (Response(101), "Response(status=101, headers=(), body=b'', subprotocol=None)"),
        (Text("é"), "Text(data='é', final=True)"),
        (Text("x" * 64), f"Text(data='{'x' * 64}', final=True)"),
        (Text("x" * 65), f"Text(data='{'x' * 64}'...<65>, final=True)"),
        (Binary(b"x" * 2**20, False), f"Binary(data=b'{'x' * 64}'...<1048576>, final=False)"),
        (Ping(b"\0"), "Ping(payload=b'\\x00')"),
        (Pong(), "Pong(payload=b'')"),
        (Close(1000, "bye"), "Close(code=1000, reason='bye')"),
        (Fail(1002, "no"), "Fail(code=1002, reason='no')"),
    ],
)
def test_repr_shows_class_and_values_and_shortens_payloads(event, text):
    assert repr(event) == text


def test_headers_are_found_in_any_case_and_joined_by_commas_rfc7230_3_2_2():
    headers = Headers([("upgrade", "a, b"), ("host", "x"), ("upgrade", "c"), ("empty", "")])
    assert headers.get("Upgrade") == "a, b, c"
    assert headers.get_all("UPGRADE") == ["a, b", "c"]
    assert headers.get_all("cookie") == []
    assert headers.get("cookie") is None
    assert headers.get("cookie", "none") == "none"
    assert headers.get("empty", "none") == ""


def test_headers_survive_pickling():
    copy = pickle.loads(pickle.dumps(Headers(HEADERS)))
    assert type(copy) is Headers
    assert copy == tuple(HEADERS)


def test_headers_are_found_in_any_case():
    headers = Headers([("Set-Cookie", "a"), ("set-cookie", "b")])
    assert headers.get_all("SET-cookie") == ["a", "b"]


@pytest.mark.parametrize("kind", [Text, Binary])
@pytest.mark.parametrize("data", [None, 5, bytearray(b"a"), memoryview(b"a")])
def test_a_message_is_str_or_bytes(kind, data):
    with pytest.raises(TypeError, match=f"data must be (str|bytes), not {type(data).__name__}"):
        kind(data)


def test_text_is_str_and_binary_is_bytes():
    with pytest.raises(TypeError, match="data must be str, not bytes"):
        Text(b"a")
    with pytest.raises(TypeError, match="data must be bytes, not str"):
        Binary("a")


def test_a_value_in_bytes_is_decoded_as_latin_1():
    value = bytes(range(0x80, 0x100))
    response = Response(403, [("x-a", value), ("x-b", "é")])
    assert response.headers == (("x-a", value.decode("latin-1")), ("x-b", "é"))
    assert response.headers.get("x-a").encode("latin-1") == value


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"", 0),
        (b"a" * 1000, 1000),
        (b"\xff" * 1000, 1000),
        ("", 0),
        ("a" * 1000, 1000),
        ("a" * 999 + "é", 4000),
        ("a" * 999 + "\N{SNOWMAN}", 4000),
        ("a" * 999 + "\N{GRINNING FACE}", 4000),
    ],
)
def test_the_size_in_memory_of_a_text_counts_its_widest_character(data, size):
    assert size_in_memory(data) == size


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy has no sys.getsizeof")
def test_the_size_in_memory_is_not_exceeded_by_what_the_interpreter_takes():
    for character in ("a", "é", "\N{SNOWMAN}", "\N{GRINNING FACE}"):
        with case(character=character):
            text = "a" * 10_000 + character
            assert sys.getsizeof(text) <= size_in_memory(text) + 100  # its header
