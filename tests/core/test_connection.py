"""RFC 6455, sections 5.4 to 5.6, 6 and 7. Each sample is read three ways: whole, byte by byte, and followed
by a byte that is not part of it."""

from __future__ import annotations

import array
import base64
import copy
import enum
import hashlib
import itertools
import pickle

import pytest

from tests.support.cases import case
from tests.support.core import (
    BAD_TEXT,
    CLIENT,
    LOST,
    OTHER,
    READINGS,
    SERVER,
    TOO_BIG,
    TOO_MANY,
    close_payload,
    frames_of,
    hear,
    pairs_of,
    raw_frame,
    sent,
)
from tests.support.objects import FailingClass, FullMemory, sendable, unsendable
from wsframe import compiled, prepare
from wsframe.client import ClientConnection
from wsframe.connection import Connection, State, as_plain, check_fragment, is_fragmented, join_pieces
from wsframe.deflate import Deflate
from wsframe.errors import LocalProtocolError
from wsframe.events import Binary, Close, Fail, Ping, Pong, Response, Text
from wsframe.frames import CloseCode
from wsframe.server import ServerConnection

CONNECTING, OPEN, CLOSING, CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED

# First bytes
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
TEXT_STARTS, BINARY_STARTS, GOES_ON, ENDS = 0x01, 0x02, 0x00, 0x80

# A Ping may come after any frame, so its first byte may.
TRAILING = b"\x89"
BY_BYTE = READINGS[1]


def all_said(role, frames):
    return b"".join(raw_frame(role, *frame) for frame in frames)


def sent_pairs(conn):
    return pairs_of(sent(conn))


def snapshot(conn):
    return conn.state, conn.should_close, conn.close_sent, conn.close_received, conn.unsent, conn.unread


# Opening handshakes, to begin in CONNECTING

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client(ClientConnection):
    """A client whose request was sent already."""

    def __init__(self):
        super().__init__("ws://localhost/")
        self.request_sent = self.data_to_send()


def connecting(role):
    return ServerConnection() if role is SERVER else Client()


def response_to(request):
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def opened(role):
    conn = connecting(role)
    if role is SERVER:
        conn.receive_data(REQUEST)
        assert conn.next_event() is conn.request
        conn.accept()
        assert conn.data_to_send() == response_to(REQUEST)
    else:
        conn.receive_data(response_to(conn.request_sent))
        assert conn.next_event() == Response(101, conn.response.headers)
    return conn


def with_request(role):
    conn = ServerConnection()
    conn.receive_data(REQUEST)
    assert conn.next_event() is conn.request
    return conn


def refused(role):
    if role is SERVER:
        conn = with_request(role)
        conn.reject(403)
        fail = Fail(1006, "handshake was refused with 403")
        assert conn.next_event() == fail
    else:
        conn = connecting(role)
        conn.receive_data(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert conn.next_event().status == 403
        assert conn.next_event() == Fail(1006, "server answered with status 403")
    conn.data_to_send()
    return conn


def closing_first(role):
    conn = Connection(role)
    conn.send_close(1001, "bye")
    conn.data_to_send()
    return conn


def over_by_peer(role):
    conn = Connection(role)
    assert hear(conn, raw_frame(role, CLOSE, close_payload(1001))) == [Close(1001)]
    conn.data_to_send()
    return conn


def over_by_us(role):
    conn = closing_first(role)
    assert hear(conn, raw_frame(role, CLOSE, close_payload(1001))) == [Close(1001)]
    return conn


def over_by_violation(role):
    conn = Connection(role)
    assert hear(conn, b"\xff") == [Fail(1002, "reserved bits must be zero")]
    conn.data_to_send()
    return conn


def ended(begin):
    def begin_and_end(role):
        conn = begin(role)
        conn.receive_data(b"")
        while conn.next_event():
            pass
        conn.data_to_send()
        return conn

    begin_and_end.__name__ = f"{begin.__name__} and ended"
    return begin_and_end


# The state table of connection.py, cell by cell.

ROWS = {
    "CONNECTING": [connecting],
    "CONNECTING with a request": [with_request],
    "OPEN": [Connection, opened],
    "CLOSING first": [closing_first],
    "CLOSING over": [over_by_peer, over_by_us, over_by_violation],
    "CLOSED": [refused],
    "CLOSED by the end": [
        ended(begin) for begin in (connecting, opened, closing_first, over_by_peer, over_by_us, refused)
    ],
}

CALLS = {
    "send text": lambda conn: conn.send_text("Hello"),
    "send text bytes": lambda conn: conn.send_text(b"Hello"),
    "send text fragment": lambda conn: conn.send_text("Hello", fin=False),
    "send binary": lambda conn: conn.send_binary(b"Hello"),
    "send binary fragment": lambda conn: conn.send_binary(b"Hello", fin=False),
    "send ping": lambda conn: conn.send_ping(b"Hello"),
    "send pong": lambda conn: conn.send_pong(b"Hello"),
    "send close": lambda conn: conn.send_close(),
}
SENT = {
    "send text": (TEXT, b"Hello"),
    "send text bytes": (TEXT, b"Hello"),
    "send text fragment": (TEXT_STARTS, b"Hello"),
    "send binary": (BINARY, b"Hello"),
    "send binary fragment": (BINARY_STARTS, b"Hello"),
    "send ping": (PING, b"Hello"),
    "send pong": (PONG, b"Hello"),
    "send close": (CLOSE, close_payload(1000)),
}

VIOLATION = Fail(1002, "opcode 3 is reserved")
GETS = {
    "gets data": lambda role: raw_frame(role, TEXT, b"Hello"),
    "gets Close": lambda role: raw_frame(role, CLOSE, close_payload(1001, "away")),
    "violation": lambda role: raw_frame(role, 0x83),
    "end of stream": lambda role: b"",
}

# (row, what comes in): (event, state, should_close of a client and of a server, frames out)
CELLS = {
    ("OPEN", "gets data"): (Text("Hello"), OPEN, (False, False), []),
    ("OPEN", "gets Close"): (
        Close(1001, "away"),
        CLOSING,
        (False, True),
        [(CLOSE, close_payload(1001, "away"))],
    ),
    ("OPEN", "violation"): (
        VIOLATION,
        CLOSING,
        (True, True),
        [(CLOSE, close_payload(1002, "opcode 3 is reserved"))],
    ),
    ("OPEN", "end of stream"): (LOST, CLOSED, (True, True), []),
    ("CLOSING first", "gets data"): (Text("Hello"), CLOSING, (False, False), []),
    ("CLOSING first", "gets Close"): (Close(1001, "away"), CLOSING, (False, True), []),
    ("CLOSING first", "violation"): (VIOLATION, CLOSING, (True, True), []),
    ("CLOSING first", "end of stream"): (LOST, CLOSED, (True, True), []),
    ("CONNECTING", "end of stream"): (LOST, CLOSED, (True, True), []),
    ("CONNECTING with a request", "end of stream"): (LOST, CLOSED, (True, True), []),
}
# What has no event is ignored. In CONNECTING, and after the end of the stream, no frame comes.
IGNORED = {
    ("CLOSING over", "gets data"): CLOSING,
    ("CLOSING over", "gets Close"): CLOSING,
    ("CLOSING over", "violation"): CLOSING,
    ("CLOSING over", "end of stream"): CLOSED,
    ("CLOSED", "gets data"): CLOSED,
    ("CLOSED", "gets Close"): CLOSED,
    ("CLOSED", "violation"): CLOSED,
    ("CLOSED", "end of stream"): CLOSED,
    ("CLOSED by the end", "end of stream"): CLOSED,
}


def begun(row):
    return [pytest.param(begin, id=f"{row}: {begin.__name__}") for begin in ROWS[row]]


def cells(table):
    return [
        pytest.param(begin, what, table[row, what], id=f"{row}: {begin.__name__}, {what}")
        for row, what in table
        for begin in ROWS[row]
    ]


@pytest.mark.parametrize("begin", begun("OPEN"))
def test_what_is_said_in_open_goes_out(role, begin):
    for call, make_call in CALLS.items():
        with case(call=call):
            conn = begin(role)
            make_call(conn)
            assert sent_pairs(conn) == [SENT[call]]
            is_close = call == "send close"
            assert conn.state is (CLOSING if is_close else OPEN)
            assert conn.close_sent == (Close(1000) if is_close else None)
            assert not conn.should_close  # "never right after only sending Close"
            assert conn.next_event() is None


@pytest.mark.parametrize("begin", [begin for row in ROWS if row != "OPEN" for begin in begun(row)])
def test_nothing_is_said_unless_open_and_a_refused_call_changes_nothing(role, begin):
    for call, make_call in CALLS.items():
        with case(call=call):
            conn = begin(role)
            before = snapshot(conn)
            refusal = f"cannot send while the connection is {conn.state.name}"
            with pytest.raises(LocalProtocolError, match=refusal):
                make_call(conn)
            assert snapshot(conn) == before
            assert conn.data_to_send() == b""


@pytest.mark.parametrize(("begin", "what", "outcome"), cells(CELLS))
def test_what_the_peer_says_leads_to_one_event(role, begin, what, outcome):
    for reading in READINGS:
        with case(reading=reading):
            conn = begin(role)
            event, state, should_close, frames = outcome
            data = GETS[what](role)
            chunks = reading.chunks(data, TRAILING) if data else [b""]
            assert hear(conn, *chunks) == [event]
            assert conn.state is state
            assert conn.should_close is should_close[conn.role is SERVER]
            assert sent_pairs(conn) == frames
            is_over = isinstance(event, (Close, Fail))
            assert conn.unread == (0 if is_over or not data else len(reading.trailing(TRAILING)))
            assert conn.close_received == (event if isinstance(event, Close) else None)
            assert conn.next_event() is None


@pytest.mark.parametrize(("begin", "what", "state"), cells(IGNORED))
def test_after_the_last_event_nothing_is_heard(role, begin, what, state):
    for reading in READINGS:
        with case(reading=reading):
            conn = begin(role)
            should_close = conn.should_close
            close_sent, close_received = conn.close_sent, conn.close_received
            data = GETS[what](role)
            assert hear(conn, *(reading.chunks(data, TRAILING) if data else [b""])) == []
            assert conn.state is state
            assert conn.should_close is (should_close or what == "end of stream")
            assert (conn.close_sent, conn.close_received) == (close_sent, close_received)
            assert conn.data_to_send() == b""
            assert conn.unread == 0


@pytest.mark.parametrize("begin", begun("CLOSED by the end"))
def test_bytes_after_the_end_of_the_stream_are_the_callers_mistake(role, begin):
    conn = begin(role)
    before = snapshot(conn)
    with pytest.raises(LocalProtocolError, match="bytes after the end of the stream"):
        conn.receive_data(b"\x89\x00")
    with pytest.raises(LocalProtocolError, match="bytes after the end of the stream"):
        conn.read_from(bytearray(b"\x89\x00"), 2)
    assert snapshot(conn) == before
    assert conn.next_event() is None


def test_a_violation_in_the_handshake_fails_it_and_a_server_answers_first(role, reading):
    conn = connecting(role)
    data = (REQUEST if role is SERVER else response_to(conn.request_sent)).replace(
        b"websocket", b"web\0socket"
    )
    events = hear(conn, *reading.chunks(data, TRAILING))
    assert events == [Fail(1002, "byte 0x00 is not allowed in a head")]
    assert conn.state is CLOSED
    assert conn.should_close
    assert conn.close_sent is None
    answer = conn.data_to_send()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") if role is SERVER else answer == b""


# Arguments


def test_role_must_be_a_role():
    problem = r"role must be Role.CLIENT or Role.SERVER"
    for role in ["client", None, 1, "SERVER"]:
        with case(role=role), pytest.raises(TypeError, match=problem):
            Connection(role)


def test_max_message_size_must_be_a_natural_number(role):
    for limit, error in [("1", TypeError), (1.0, TypeError), (b"1", TypeError), (-1, ValueError)]:
        with case(limit=limit, error=error), pytest.raises(error, match="max_message_size must"):
            Connection(role, max_message_size=limit)


def test_a_limit_beyond_all_frames_is_no_limit(role):
    for compression, limit in itertools.product([None, Deflate()], [2**63 - 1, 2**63, 2**64, 2**100]):
        with case(compression=compression, limit=limit):
            conn = Connection(role, max_message_size=limit, compression=compression)
            assert hear(conn, raw_frame(role, TEXT, b"Hello"), raw_frame(role, BINARY, length=2**63 - 1)) == [
                Text("Hello")
            ]


def test_was_opened_tells_whether_the_handshake_has_succeeded(role):
    for conn, was_opened in [(Connection(role), True), (connecting(role), False), (refused(role), False)]:
        assert conn.was_opened is was_opened


def test_repr_tells_role_and_state(role):
    assert repr(Connection(role)) == f"<Connection {role.name} OPEN>"
    assert repr(connecting(SERVER)) == "<ServerConnection SERVER CONNECTING>"


class Forgetful(Connection):
    def __init__(self):
        pass


# What needs a connection that was initialised
NEEDY_CALLS = {
    "receive_data": lambda conn: conn.receive_data(b"\x81"),
    "receive_data at the end": lambda conn: conn.receive_data(b"") or conn.next_event(),
    "read_from": lambda conn: conn.read_from(bytearray(1), 1),
    "release": lambda conn: conn.release(),
    "next_event": lambda conn: conn.next_event(),
    "stream_next": lambda conn: conn.stream_next() or conn.next_event(),
    "unread": lambda conn: conn.unread,
    "has_unread": lambda conn: conn.has_unread(),
    "send_text": lambda conn: conn.send_text("Hello"),
    "send_ping": lambda conn: conn.send_ping(),
    "send_close": lambda conn: conn.send_close(),
    "send_text when open": lambda conn: setattr(conn, "state", OPEN) or conn.send_text("Hello"),
    "send_text of bytes when open": lambda conn: setattr(conn, "state", OPEN) or conn.send_text(b"Hello"),
    "send_close when open": lambda conn: setattr(conn, "state", OPEN) or conn.send_close(),
}


@pytest.mark.parametrize("new", [Forgetful, lambda: Connection.__new__(Connection)], ids=["init", "new"])
def test_a_connection_that_was_not_initialised_is_of_no_use(new):
    for call, make_call in NEEDY_CALLS.items():
        with case(call=call):
            conn = new()
            with pytest.raises(AttributeError):
                make_call(conn)


def test_a_connection_starts_open_without_a_handshake(role):
    conn = Connection(role)
    assert (conn.state, conn.should_close, conn.subprotocol) == (OPEN, False, None)
    assert (conn.close_sent, conn.close_received) == (None, None)
    assert (conn.unread, conn.unsent, conn.data_to_send(), conn.chunks_to_send()) == (0, 0, b"", [])
    assert conn.next_event() is None


def test_receive_data_takes_bytes_only(role):
    for data in ["text", 5, None, [1], memoryview(b"abcd")[::2]]:
        with case(data=data):
            conn = Connection(role)
            before = snapshot(conn)
            with pytest.raises(TypeError, match="data must be"):
                conn.receive_data(data)
            assert snapshot(conn) == before


@pytest.mark.parametrize(
    "kind",
    [bytes, bytearray, memoryview, lambda data: array.array("B", data)],
    ids=["bytes", "bytearray", "memoryview", "array"],
)
def test_receive_data_takes_any_bytes_and_keeps_none_of_the_callers_memory(role, kind):
    conn = Connection(role)
    data = kind(raw_frame(role, TEXT, b"Hello"))
    conn.receive_data(data)
    if isinstance(data, bytearray):
        data[:] = bytes(len(data))
        data.clear()
    assert conn.next_event() == Text("Hello")


# Sending: data

WIDE = array.array("I", [0x41424344, 0x45464748])
HOLES = memoryview(b"abcdef")[::2]
BYTES = [
    b"",
    b"Hello",
    bytearray(b"Hello"),
    memoryview(b"Hello")[1:3],
    WIDE,
    memoryview(WIDE),
    memoryview(bytes(6)).cast("B", (2, 3)),
]


def test_payloads_are_measured_in_bytes(role):
    for data in BYTES:
        with case(data=data):
            raw = memoryview(data).tobytes()
            for send, first in (
                (Connection.send_binary, BINARY),
                (Connection.send_text, TEXT),
                (Connection.send_ping, PING),
                (Connection.send_pong, PONG),
            ):
                conn = Connection(role)
                send(conn, data)
                assert sent_pairs(conn) == [(first, raw)]


@pytest.mark.parametrize("method", ["send_text", "send_binary", "send_ping", "send_pong"])
def test_only_bytes_are_payloads(role, method):
    for data in [5, None, 1.5, ["Hello"], object(), HOLES]:
        with case(data=data):
            conn = Connection(role)
            before = snapshot(conn)
            with pytest.raises(TypeError, match="data must be"):
                getattr(conn, method)(data)
            assert snapshot(conn) == before
            conn.send_text("Hello")
            assert sent_pairs(conn) == [(TEXT, b"Hello")]


@pytest.mark.parametrize("method", ["send_binary", "send_ping", "send_pong"])
def test_a_string_is_no_binary_payload(role, method):
    conn = Connection(role)
    with pytest.raises(TypeError, match="data must be bytes-like, not str"):
        getattr(conn, method)("Hello")
    assert conn.unsent == 0


def test_text_goes_out_as_utf_8(role):
    for text in ["", "Hello", "κόσμε", "\0", "\U0010ffff", "\ufeff\ufffe"]:
        with case(text=text):
            for data in (text, text.encode(), bytearray(text.encode())):
                conn = Connection(role)
                conn.send_text(data)
                assert sent_pairs(conn) == [(TEXT, text.encode())]


class Color(enum.StrEnum):
    RED = "Hello"


class Shout(str):
    def __str__(self):
        return self.upper()


@pytest.mark.parametrize("text", [Color.RED, Shout("Hello")])
def test_a_subclass_of_str_is_text(role, text):
    conn = Connection(role)
    conn.send_text(text)
    conn.send_message(text)
    conn.send_message(prepare(text))
    conn.send_close(1000, text)
    assert [payload for _, payload in sent_pairs(conn)] == [b"Hello"] * 3 + [b"\x03\xe8Hello"]


def test_a_lone_surrogate_is_refused_before_anything_is_queued(role):
    for text, fin in itertools.product(["\ud800", "a\udfff", "\udc80b"], [True, False]):
        with case(text=text, fin=fin):
            conn = Connection(role)
            before = snapshot(conn)
            with pytest.raises(LocalProtocolError, match="text contains a lone surrogate"):
                conn.send_text(text, fin)
            assert snapshot(conn) == before
            conn.send_binary(b"no text message was begun")
            assert sent_pairs(conn) == [(BINARY, b"no text message was begun")]


def test_frames_of_any_size_go_out_minimally_encoded(role):
    for size in [0, 1, 124, 125, 126, 127, 65535, 65536, 100_000]:
        with case(size=size):
            payload = bytes(size)
            conn = Connection(role)
            conn.send_binary(payload)
            if size < 126:
                length = bytes([size])
            else:
                length = (
                    b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
                )
            data = conn.data_to_send()
            if role is SERVER:
                assert data == b"\x82" + length + payload
            else:
                header = len(length) + 1
                assert data[:header] == bytes([0x82, length[0] | 0x80]) + length[1:]
                key = data[header : header + 4]
                # A payload of zeros shows the masking key.
                assert data[header + 4 :] == (key * (size // 4 + 1))[:size]


def test_each_frame_of_a_client_has_a_masking_key_of_its_own():
    conn = Connection(CLIENT)
    for _ in range(2000):  # more than one pool of keys
        conn.send_binary(bytes(4))
    data = conn.data_to_send()
    assert len({data[i + 2 : i + 6] for i in range(0, len(data), 10)}) > 1990


@pytest.mark.parametrize(("method", "first"), [("send_ping", PING), ("send_pong", PONG)])
def test_control_payloads_have_at_most_125_bytes(role, method, first):
    conn = Connection(role)
    for payload in (bytes(126), bytearray(200), array.array("I", [0] * 32)):
        with pytest.raises(LocalProtocolError, match="payload must be at most 125 bytes long, not"):
            getattr(conn, method)(payload)
        assert conn.unsent == 0
    getattr(conn, method)(bytes(125))
    getattr(conn, method)()
    assert sent_pairs(conn) == [(first, bytes(125)), (first, b"")]


# Sending: fragments (section 5.4)

FRAGMENTED = {
    "two of text": ([("text", "Hel", False), ("text", "lo", True)], [(0x01, b"Hel"), (0x80, b"lo")]),
    "three of binary": (
        [("binary", b"a", False), ("binary", b"b", False), ("binary", b"c", True)],
        [(0x02, b"a"), (0x00, b"b"), (0x80, b"c")],
    ),
    "empty ones": (
        [("text", "", False), ("text", b"", False), ("text", "", True)],
        [(0x01, b""), (0x00, b""), (0x80, b"")],
    ),
    "bytes cut inside a character": (
        [("text", b"\xe2", False), ("text", b"\x82", False), ("text", b"\xac", True)],
        [(0x01, b"\xe2"), (0x00, b"\x82"), (0x80, b"\xac")],
    ),
    "bytes, then a string": (
        [
            ("text", b"\xe2\x82\xac", False),
            ("text", "€", False),
            ("text", b"\xc3", False),
            ("text", b"\xa9", True),
        ],
        [(0x01, "€".encode()), (0x00, "€".encode()), (0x00, b"\xc3"), (0x80, b"\xa9")],
    ),
    "pings between fragments": (
        [("text", "a", False), ("ping", b"p"), ("pong", b"q"), ("text", "b", True)],
        [(0x01, b"a"), (0x89, b"p"), (0x8A, b"q"), (0x80, b"b")],
    ),
    "two messages": (
        [("text", "a", False), ("text", "b", True), ("binary", b"c", False), ("binary", b"d", True)],
        [(0x01, b"a"), (0x80, b"b"), (0x02, b"c"), (0x80, b"d")],
    ),
    "a Close between fragments": (
        [("binary", b"a", False), ("close", 1001)],
        [(0x02, b"a"), (0x88, b"\x03\xe9")],
    ),
}


@pytest.mark.parametrize("name", FRAGMENTED)
def test_fragments_go_out_as(role, name):
    calls, frames = FRAGMENTED[name]
    conn = Connection(role)
    for kind, *arguments in calls:
        getattr(conn, f"send_{kind}")(*arguments)
    assert sent_pairs(conn) == frames


REFUSED_FRAGMENTS = {
    "binary within text": (
        [("text", "a", False)],
        ("binary", b"b"),
        "a fragmented text message is being sent",
        ("text", b"b"),
    ),
    "text within binary": (
        [("binary", b"a", False)],
        ("text", "b"),
        "a fragmented binary message is being sent",
        ("binary", b"b"),
    ),
    "text bytes within binary": (
        [("binary", b"a", False)],
        ("text", b"b"),
        "a fragmented binary message is being sent",
        ("binary", b"b"),
    ),
    "a string inside a character": (
        [("text", b"a\xe2\x82", False)],
        ("text", "b"),
        "the last fragment ended inside a character",
        ("text", b"\xac"),
    ),
    "an empty string that ends the message inside a character": (
        [("text", b"a\xe2\x82", False)],
        ("text", ""),
        "the last fragment ended inside a character",
        ("text", b"\xac"),
    ),
    "bytes that end the message inside a character": (
        [("text", b"a\xe2", False)],
        ("text", b"\x82", True),
        "text is not UTF-8",
        ("text", b"\x82\xac"),
    ),
    "bytes that don't go on with the character": (
        [("text", b"a\xe2", False)],
        ("text", b"b", False),
        "text is not UTF-8",
        ("text", b"\x82\xac"),
    ),
    "a first fragment not UTF-8": (
        [],
        ("text", b"\xff", False),
        "text is not UTF-8",
        ("binary", b"b"),
    ),
    "two bytes of a surrogate": (
        [],
        ("text", b"\xed\xa0", False),
        "text is not UTF-8",
        ("binary", b"b"),
    ),
    "a surrogate over two fragments": (
        [("text", b"a\xed", False)],
        ("text", b"\xbf", False),
        "text is not UTF-8",
        ("text", b"\x9f\xbf"),
    ),
    "a whole message that is not UTF-8": ([], ("text", b"a\xc0\x80"), "text is not UTF-8", ("binary", b"b")),
    "a whole message that ends inside a character": (
        [],
        ("text", b"a\xe2\x82"),
        "text is not UTF-8",
        ("text", b"b"),
    ),
    "a type within a message": ([("text", b"\xe2", False)], ("text", 5), None, ("text", b"\x82\xac")),
}


@pytest.mark.parametrize("name", REFUSED_FRAGMENTS)
def test_a_refused_fragment_leaves_the_message_as_it_was(role, name):
    before, (kind, *arguments), problem, (next_kind, next_payload) = REFUSED_FRAGMENTS[name]
    conn = Connection(role)
    for before_kind, *before_arguments in before:
        getattr(conn, f"send_{before_kind}")(*before_arguments)
    as_it_was = snapshot(conn)
    with pytest.raises(LocalProtocolError if problem else TypeError, match=problem):
        getattr(conn, f"send_{kind}")(*arguments)
    assert snapshot(conn) == as_it_was
    getattr(conn, f"send_{next_kind}")(next_payload)
    first = 0x80 if before else {"text": TEXT, "binary": BINARY}[next_kind]
    assert sent_pairs(conn)[len(before) :] == [(first, next_payload)]


# Sending: Close (section 5.5.1)


def test_status_codes_are_sendable_or_not_in_both_directions_alike(role):
    """Section 7.4.2: 0-999 are not used, 1000-2999 are for the RFC, 3000-4999 for the rest of us."""
    defined = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, *range(3000, 5000)}
    for code in [*range(5101), 65535]:
        conn = Connection(role)
        payload = close_payload(code, "why")
        events = hear(conn, raw_frame(role, CLOSE, payload))
        if code in defined:
            assert events == [Close(code, "why")]
            assert sent_pairs(conn) == [(CLOSE, payload)]
        else:
            problem = f"status code {code} must not be sent"
            assert events == [Fail(1002, problem)]
            assert sent_pairs(conn) == [(CLOSE, close_payload(1002, problem))]
        assert conn.close_sent == Close(events[0].code, events[0].reason)

        conn = Connection(role)
        if code in defined:
            conn.send_close(code, "why")
            assert sent_pairs(conn) == [(CLOSE, payload)]
            assert conn.close_sent == Close(code, "why")
        else:
            with pytest.raises(LocalProtocolError):
                conn.send_close(code, "why")
            assert snapshot(conn) == snapshot(Connection(role))


def test_a_status_code_has_16_bits(role):
    for code in [-1, 65536, 2**70]:
        with case(code=code):
            conn = Connection(role)
            with pytest.raises(LocalProtocolError, match=f"status code {code} must not be sent"):
                conn.send_close(code)
            assert conn.state is OPEN


def test_code_1005_sends_a_close_without_a_code(role):
    conn = Connection(role)
    with pytest.raises(LocalProtocolError, match="a Close without a status code has no reason"):
        conn.send_close(1005, "why")
    assert snapshot(conn) == snapshot(Connection(role))
    conn.send_close(1005)
    assert sent_pairs(conn) == [(CLOSE, b"")]
    assert conn.close_sent == Close(1005)


def test_a_close_code_may_be_an_int_enum(role):
    conn = Connection(role)
    conn.send_close(CloseCode.GOING_AWAY)
    assert sent_pairs(conn) == [(CLOSE, b"\x03\xe9")]
    assert type(conn.close_sent.code) is int


def test_a_reason_of_up_to_123_bytes_is_sent_and_heard(role):
    for reason in ["", "a" * 123, "é" * 61 + "a", "€" * 41, "😀" * 30 + "abc"]:
        with case(reason=reason):
            conn = Connection(role)
            conn.send_close(1000, reason)
            assert sent_pairs(conn) == [(CLOSE, close_payload(1000, reason))]
            assert conn.close_sent == Close(1000, reason)
            peer = Connection(role)
            assert hear(peer, raw_frame(role, CLOSE, close_payload(1000, reason))) == [Close(1000, reason)]


@pytest.mark.parametrize(
    ("code", "reason", "error", "problem"),
    [
        (1000, "a" * 124, LocalProtocolError, "at most 123 bytes long, not 124"),
        (1000, "é" * 62, LocalProtocolError, "at most 123 bytes long, not 124"),
        (1000, "€" * 41 + "a", LocalProtocolError, "at most 123 bytes long, not 124"),
        (1000, "😀" * 31, LocalProtocolError, "at most 123 bytes long, not 124"),
        (1000, "\ud83d", LocalProtocolError, "reason contains a lone surrogate"),
        (True, "", TypeError, "code must be an int, not bool"),
        (1000.0, "", TypeError, "code must be an int, not float"),
        ("1000", "", TypeError, "code must be an int, not str"),
        (None, "", TypeError, "code must be an int, not NoneType"),
        (1000, b"why", TypeError, "reason must be a str, not bytes"),
        (1000, None, TypeError, "reason must be a str, not NoneType"),
        (1005, b"", TypeError, "reason must be a str, not bytes"),
    ],
)
def test_a_close_that_cannot_be_sent_changes_nothing(role, code, reason, error, problem):
    conn = Connection(role)
    with pytest.raises(error, match=problem):
        conn.send_close(code, reason)
    assert snapshot(conn) == snapshot(Connection(role))
    conn.send_close()
    assert sent_pairs(conn) == [(CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(("code", "reason"), [(1011, "no pong in time"), (4000, ""), (1000, "é" * 61)])
def test_failing_the_connection_for_a_reason_of_ones_own(role, code, reason):
    """Section 7.1.7: a Close goes out, nothing is read any more, and TCP is closed."""
    conn = Connection(role)
    conn.receive_data(raw_frame(role, 0x81, b"a"))
    fail = conn.fail(code, reason)
    assert fail == Fail(code, reason)
    assert sent_pairs(conn) == [(0x88, close_payload(code, reason))]
    assert (conn.state, conn.should_close) == (State.CLOSING, True)
    assert conn.close_sent == Close(code, reason)
    assert hear(conn, raw_frame(role, 0x81, b"b"), raw_frame(role, 0x88)) == []
    assert conn.unsent == 0
    with pytest.raises(LocalProtocolError, match="cannot send while the connection is CLOSING"):
        conn.fail(code, reason)


@pytest.mark.parametrize(
    ("code", "reason", "error", "problem"),
    [
        (1005, "", LocalProtocolError, "a failure has a status code"),
        (1006, "", LocalProtocolError, "status code 1006 must not be sent"),
        (1011, "x" * 124, LocalProtocolError, "at most 123 bytes"),
        ("1011", "", TypeError, "code must be an int"),
        (1011, None, TypeError, "reason must be a str"),
    ],
)
def test_a_failure_that_cannot_be_sent_changes_nothing(role, code, reason, error, problem):
    conn = Connection(role)
    before = snapshot(conn)
    with pytest.raises(error, match=problem):
        conn.fail(code, reason)
    assert snapshot(conn) == before
    assert hear(conn, raw_frame(role, 0x81, b"a")) == [Text("a")]


def test_what_is_still_to_come_of_a_frame(role):
    conn = Connection(role)
    assert conn.frame_remaining == 0
    data = raw_frame(role, 0x82, bytes(100))
    for left in reversed(range(len(data))):
        events = hear(conn, data[len(data) - left - 1 : len(data) - left])
        assert events == ([] if left else [Binary(bytes(100))])
        assert conn.frame_remaining == (left if left <= 100 else 0)


# Receiving: samples, as pairs of first byte and payload, then what they lead to

SAMPLES = {
    "5.7 text": ([(TEXT, b"Hello")], [Text("Hello")], []),
    "5.7 text in two fragments": ([(0x01, b"Hel"), (0x80, b"lo")], [Text("Hello")], []),
    "5.7 ping": ([(PING, b"Hello")], [Ping(b"Hello")], [(PONG, b"Hello")]),
    "5.7 256 bytes": ([(BINARY, bytes(256))], [Binary(bytes(256))], []),
    "5.7 64 KiB": ([(BINARY, bytes(65536))], [Binary(bytes(65536))], []),
    "empty messages": ([(TEXT, b""), (BINARY, b"")], [Text(""), Binary(b"")], []),
    "empty fragments": (
        [(0x01, b""), (0x00, b""), (0x80, b""), (0x02, b""), (0x80, b"")],
        [Text(""), Binary(b"")],
        [],
    ),
    "125 and 126 bytes": ([(TEXT, b"a" * 125), (TEXT, b"b" * 126)], [Text("a" * 125), Text("b" * 126)], []),
    "5.5.2 empty ping": ([(PING, b"")], [Ping(b"")], [(PONG, b"")]),
    "5.5.2 longest ping": ([(PING, bytes(125))], [Ping(bytes(125))], [(PONG, bytes(125))]),
    "5.5.3 pongs": ([(PONG, b""), (PONG, b"Hello")], [Pong(b""), Pong(b"Hello")], []),
    "5.4 control frames between fragments": (
        [(0x01, b"a"), (PING, b"1"), (0x00, b"b"), (PONG, b"2"), (PING, b""), (0x80, b"c")],
        [Ping(b"1"), Pong(b"2"), Ping(b""), Text("abc")],
        [(PONG, b"1"), (PONG, b"")],
    ),
    "5.6 a character over fragments": (
        [(0x01, b"\xf0"), (0x00, b"\x9f\x98"), (0x00, b""), (0x80, b"\x80")],
        [Text("😀")],
        [],
    ),
    "5.6 binary is not judged": (
        [(BINARY, b"\xff\xc0"), (0x02, b"\xed"), (0x80, b"\xa0")],
        [Binary(b"\xff\xc0"), Binary(b"\xed\xa0")],
        [],
    ),
    "8.1 longest and shortest of each length": (
        [(TEXT, "\0\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode())],
        [Text("\0\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff")],
        [],
    ),
    "byte order marks are text": ([(TEXT, b"\xef\xbb\xbfa")], [Text("\ufeffa")], []),
    "5.5.1 empty Close": ([(CLOSE, b"")], [Close(1005)], [(CLOSE, b"")]),
    "5.5.1 Close with a code": ([(CLOSE, b"\x03\xe8")], [Close(1000)], [(CLOSE, b"\x03\xe8")]),
    "5.5.1 Close with a reason": (
        [(CLOSE, b"\x0f\xa0" + "κ".encode())],
        [Close(4000, "κ")],
        [(CLOSE, b"\x0f\xa0" + "κ".encode())],
    ),
    "5.5.1 Close between fragments": (
        [(0x01, b"a"), (CLOSE, b"\x03\xe8")],
        [Close(1000)],
        [(CLOSE, b"\x03\xe8")],
    ),
    "5.5.1 nothing after Close": (
        [(CLOSE, b""), (TEXT, b"a"), (PING, b"b"), (CLOSE, b"\x03\xe8"), (0x83, b"")],
        [Close(1005)],
        [(CLOSE, b"")],
    ),
    "everything": (
        [(PING, b"1"), (TEXT, b"2"), (0x02, b"3"), (PONG, b"4"), (0x80, b"5"), (CLOSE, b"\x03\xe8")],
        [Ping(b"1"), Text("2"), Pong(b"4"), Binary(b"35"), Close(1000)],
        [(PONG, b"1"), (CLOSE, b"\x03\xe8")],
    ),
}


def fails(frames, code, reason, *events):
    return frames, [*events, Fail(code, reason)], [(CLOSE, close_payload(code, reason))]


SAMPLES |= {
    "5.2 RSV1": fails([(0xC1, b"a")], 1002, "reserved bits must be zero"),
    "5.2 RSV2": fails([(0xA1, b"a")], 1002, "reserved bits must be zero"),
    "5.2 RSV3 on a Ping": fails([(0x99, b"")], 1002, "reserved bits must be zero"),
    "5.2 reserved opcode": fails([(0x8B, b"")], 1002, "opcode 11 is reserved"),
    "5.4 nothing to go on with": fails(
        [(0x80, b"a")], 1002, "continuation frame without a message to continue"
    ),
    "5.4 nothing more to go on with": fails(
        [(0x01, b"a"), (0x80, b"b"), (0x80, b"c")],
        1002,
        "continuation frame without a message to continue",
        Text("ab"),
    ),
    "5.4 text within text": fails([(0x01, b"a"), (TEXT, b"b")], 1002, "expected a continuation frame"),
    "5.4 binary within text": fails(
        [(0x01, b"a"), (0x00, b""), (0x02, b"b")], 1002, "expected a continuation frame"
    ),
    "5.5 fragmented Ping": fails([(0x09, b"")], 1002, "control frames must not be fragmented"),
    "5.5 Ping of 126 bytes": fails([(PING, bytes(126))], 1002, "control frame payload exceeds 125 bytes"),
    "5.5 Close of 126 bytes": fails(
        [(CLOSE, close_payload(1000, "a" * 124))], 1002, "control frame payload exceeds 125 bytes"
    ),
    "5.5.1 Close of 1 byte": fails([(CLOSE, b"\x03")], 1002, "close payload must not be 1 byte long"),
    "5.5.1 Close with a bad code": fails([(CLOSE, b"\x03\xed")], 1002, "status code 1005 must not be sent"),
    "5.5.1 Close with a bad code and a bad reason": fails(
        [(CLOSE, b"\x03\xed\xff")], 1002, "status code 1005 must not be sent"
    ),
    "5.5.1 Close with a reason that is not UTF-8": fails([(CLOSE, b"\x03\xe8\xff")], 1007, BAD_TEXT.reason),
    "5.5.1 Close with half a character": fails([(CLOSE, b"\x03\xe8\xe2\x82")], 1007, BAD_TEXT.reason),
    "5.5.1 Close with a surrogate": fails([(CLOSE, b"\x03\xe8\xed\xa0\x80")], 1007, BAD_TEXT.reason),
    "8.1 text that ends inside a character": fails([(TEXT, b"a\xe2\x82")], 1007, BAD_TEXT.reason),
    "8.1 text that ends inside a character, in fragments": fails(
        [(0x01, b"a\xe2"), (0x00, b"\x82"), (0x80, b"")], 1007, BAD_TEXT.reason
    ),
    "what was good before a violation": fails(
        [(TEXT, b"a"), (0x02, b"b"), (PONG, b"c"), (0x80, b"d"), (0xFF, b"")],
        1002,
        "reserved bits must be zero",
        Text("a"),
        Pong(b"c"),
        Binary(b"bd"),
    ),
}


def has_ended(events):
    return isinstance(events[-1], (Close, Fail))


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(role, name):
    for reading in READINGS:
        with case(reading=reading):
            frames, events, replies = SAMPLES[name]
            conn = Connection(role)
            chunks = reading.chunks(all_said(role, frames), TRAILING)
            assert hear(conn, *chunks) == events
            assert sent_pairs(conn) == replies
            over = has_ended(events)
            assert conn.state is (CLOSING if over else OPEN)
            assert conn.should_close is (over and (role is SERVER or isinstance(events[-1], Fail)))
            assert conn.unread == (0 if over else len(reading.trailing(TRAILING)))


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_after_we_sent_close(role, name):
    """Section 5.5.2: a Ping is answered "unless it already received a Close frame"; Close is sent once."""
    for reading in READINGS:
        with case(reading=reading):
            frames, events, replies = SAMPLES[name]
            conn = closing_first(role)
            assert hear(conn, *reading.chunks(all_said(role, frames), TRAILING)) == events
            assert sent_pairs(conn) == [reply for reply in replies if reply[0] != CLOSE]
            assert conn.state is CLOSING
            assert conn.close_sent == Close(1001, "bye")


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_then_the_end_of_the_stream(role, name):
    frames, events, replies = SAMPLES[name]
    conn = Connection(role)
    conn.receive_data(all_said(role, frames))
    conn.receive_data(b"")
    assert conn.state is OPEN
    assert hear(conn, b"") == (events if has_ended(events) else [*events, LOST])
    assert sent_pairs(conn) == replies
    assert conn.state is CLOSED
    assert conn.should_close
    assert conn.next_event() is None


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_cut_short_by_the_end_of_the_stream_ends_too(role, name):
    frames, events, _ = SAMPLES[name]
    data = all_said(role, frames)
    for cut in range(min(len(data), 64)):
        conn = Connection(role)
        heard = hear(conn, data[:cut], b"") if cut else hear(conn, b"")
        assert has_ended(heard)
        assert heard[:-1] == events[: len(heard) - 1]
        assert heard[-1] in (LOST, events[-1])
        assert conn.state is CLOSED


def test_frames_are_masked_in_one_direction_only(role, reading):
    """Section 5.1: an endpoint fails the connection when it gets what only its own side sends."""
    other = CLIENT if role is SERVER else SERVER
    problem = f"frames must {'' if role is SERVER else 'not '}be masked"
    for first in (TEXT, PING, CLOSE):
        conn = Connection(role)
        assert hear(conn, *reading.chunks(raw_frame(other, first, b""), TRAILING)) == [Fail(1002, problem)]
        assert sent_pairs(conn) == [(CLOSE, close_payload(1002, problem))]


def test_every_reason_to_fail_fits_into_a_close(role):
    for frames, events, _ in SAMPLES.values():
        if isinstance(events[-1], Fail):
            conn = Connection(role)
            hear(conn, all_said(role, frames))
            # Short enough, and all ASCII: it can stand in a header or a log as it is.
            assert len(conn.close_sent.reason) <= 123
            assert conn.close_sent.reason.isascii()


@pytest.mark.parametrize("code", [1002, 1007])
def test_the_peer_hears_why_it_was_failed(role, code):
    payload = b"\x03" if code == 1002 else b"\x03\xe8\xff"
    conn = Connection(role)
    [fail] = hear(conn, raw_frame(role, CLOSE, payload))
    peer = Connection(CLIENT if role is SERVER else SERVER)
    assert hear(peer, conn.data_to_send()) == [Close(fail.code, fail.reason)]
    assert fail.code == code


# Laziness: the state is as of the event


@pytest.mark.parametrize("last", ["gets Close", "violation", "end of stream"])
def test_what_was_said_before_the_end_can_still_be_answered(role, last):
    conn = Connection(role)
    conn.receive_data(raw_frame(role, TEXT, b"Hello"))
    conn.receive_data(raw_frame(role, PING, b"Ping"))
    conn.receive_data(GETS[last](role))
    assert conn.next_event() == Text("Hello")
    assert (conn.state, conn.should_close) == (OPEN, False)
    assert conn.unsent == 0
    conn.send_text("Hello to you")
    assert conn.next_event() == Ping(b"Ping")
    assert (conn.state, conn.should_close) == (OPEN, False)
    conn.send_binary(b"still there")
    event, state, should_close, frames = CELLS["OPEN", last]
    assert conn.next_event() == event
    assert (conn.state, conn.should_close) == (state, should_close[role is SERVER])
    assert conn.next_event() is None
    assert sent_pairs(conn) == [(TEXT, b"Hello to you"), (PONG, b"Ping"), (BINARY, b"still there"), *frames]


def test_closing_in_answer_to_a_message_crosses_the_peers_close(role):
    conn = Connection(role)
    conn.receive_data(raw_frame(role, TEXT, b"Hello") + raw_frame(role, CLOSE, close_payload(1001)))
    assert conn.next_event() == Text("Hello")
    conn.send_close(1000)
    assert not conn.should_close
    assert conn.next_event() == Close(1001)
    assert sent_pairs(conn) == [(CLOSE, close_payload(1000))]
    assert (conn.close_sent, conn.close_received) == (Close(1000), Close(1001))
    assert conn.should_close is (role is SERVER)


def test_bytes_are_kept_until_they_are_read(role):
    conn = Connection(role)
    data = raw_frame(role, TEXT, b"a") + raw_frame(role, TEXT, b"b")
    conn.receive_data(data)
    assert conn.unread == len(data)
    assert conn.next_event() == Text("a")
    assert conn.unread == len(data) // 2
    conn.receive_data(raw_frame(role, TEXT, b"c"))
    assert [conn.next_event(), conn.next_event(), conn.next_event()] == [Text("b"), Text("c"), None]
    assert conn.unread == 0


def test_a_close_then_the_end_in_one_read_is_still_a_clean_close(role):
    conn = Connection(role)
    conn.receive_data(raw_frame(role, CLOSE, close_payload(1000)))
    conn.receive_data(b"")
    assert conn.next_event() == Close(1000)
    assert (conn.state, conn.should_close) == (CLOSED, True)
    assert sent_pairs(conn) == [(CLOSE, close_payload(1000))]


def test_a_violation_then_the_end_in_one_read_is_closed_at_once(role):
    conn = Connection(role)
    conn.receive_data(b"\xff")
    conn.receive_data(b"")
    assert conn.next_event() == Fail(1002, "reserved bits must be zero")
    assert (conn.state, conn.should_close) == (CLOSED, True)


# Limits


def test_a_message_may_have_as_many_bytes_as_the_limit_but_not_one_more(role):
    for limit in [0, 1, 125, 126, 1000, 65535, 65536, 2**20]:
        with case(limit=limit):
            conn = Connection(role, max_message_size=limit)
            assert hear(conn, raw_frame(role, BINARY, bytes(limit))) == [Binary(bytes(limit))]
            assert hear(conn, raw_frame(role, TEXT, bytes(limit))) == [Text("\0" * limit)]
            # As of the header, when nothing of the payload has come.
            header = raw_frame(role, BINARY, b"", limit + 1)
            if role is SERVER:
                header = header[:-4]  # not even the masking key
            assert hear(conn, header[:-1]) == []
            assert hear(conn, header[-1:]) == [TOO_BIG]
            assert sent_pairs(conn) == [(CLOSE, close_payload(1009, TOO_BIG.reason))]


def test_the_limit_is_1_mib_by_default(role):
    for conn in (Connection(role), opened(role)):
        assert hear(conn, raw_frame(role, BINARY, b"", 2**20)) == []
        assert hear(Connection(role), raw_frame(role, BINARY, b"", 2**20 + 1)) == [TOO_BIG]


SIZES_OF_TEN = [
    ([10], True),
    ([11], False),
    ([10, 0, 0], True),
    ([5, 5], True),
    ([5, 6], False),
    ([0, 10], True),
    ([0, 11], False),
    ([1] * 10, True),
    ([1] * 11, False),
    ([3, 3, 3, 2], False),
    ([10, 0, 1], False),
]


@pytest.mark.parametrize("pieces", [False, True])
def test_the_limit_is_for_the_message_not_for_the_frame(role, pieces):
    for reading, (sizes, fits) in itertools.product(READINGS, SIZES_OF_TEN):
        with case(reading=reading, sizes=sizes, fits=fits):
            conn = Connection(role, max_message_size=10, fragments=pieces)
            firsts = [0x02, *[0x00] * (len(sizes) - 1)]
            firsts[-1] |= 0x80
            frames = [(first, bytes(size)) for first, size in zip(firsts, sizes, strict=True)]
            # Neither earlier messages nor control frames count.
            before = [(BINARY, bytes(10)), (0x02, bytes(9)), (PONG, bytes(100)), (0x80, bytes(1))]
            between = [part for frame in frames for part in (frame, (PONG, bytes(50)))]
            data = all_said(role, before + (between[:-1]))
            events = hear(conn, *reading.chunks(data, TRAILING))
            messages = [event for event in events if isinstance(event, Binary)]
            whole = b"".join(event.data for event in messages)
            if fits:
                assert len(whole) == 20 + sum(sizes)
                assert messages[-1].final
                assert conn.state is OPEN
            else:
                assert events[-1] == TOO_BIG
                assert sum(event.final for event in messages) == 2


def test_control_frames_have_no_other_limit(role):
    conn = Connection(role, max_message_size=0)
    assert hear(conn, raw_frame(role, PING, bytes(125)), raw_frame(role, TEXT), raw_frame(role, CLOSE)) == [
        Ping(bytes(125)),
        Text(""),
        Close(1005),
    ]


def test_without_a_limit_any_length_is_taken(role):
    for size in [2**20 + 1, 2**40, 2**63 - 1]:
        with case(size=size):
            conn = Connection(role, max_message_size=None)
            assert hear(conn, raw_frame(role, BINARY, b"beginning", size)) == []
            assert hear(conn, b"") == [LOST]
            pieces = Connection(role, max_message_size=None, fragments=True)
            assert hear(pieces, raw_frame(role, BINARY, b"beginning", size)) == [
                Binary(b"beginning", final=False)
            ]


def test_without_a_limit_a_message_still_has_less_than_2_to_the_63_bytes(role):
    conn = Connection(role, max_message_size=None, fragments=True)
    assert hear(conn, raw_frame(role, 0x02, b"a"), raw_frame(role, 0x00, b"", 2**63 - 1)) == [
        Binary(b"a", final=False),
        TOO_BIG,
    ]


def fragments_of(role, count):
    return raw_frame(role, 0x02) + raw_frame(role, 0x00) * (count - 2)


@pytest.mark.parametrize("pieces", [False, True])
def test_a_message_may_have_65536_fragments_but_not_one_more(role, pieces):
    conn = Connection(role, fragments=pieces)
    most = fragments_of(role, 65536)
    assert hear(conn, most, raw_frame(role, PONG), raw_frame(role, 0x80, b"a")) == [Pong(b""), Binary(b"a")]
    # The count starts again for each message.
    assert hear(conn, most, raw_frame(role, PONG), raw_frame(role, 0x00)) == [Pong(b""), TOO_MANY]


def test_a_larger_limit_allows_one_fragment_for_each_64_bytes(role):
    limit = 66_000 * 64
    conn = Connection(role, max_message_size=limit)
    assert hear(conn, fragments_of(role, 66_000)) == []
    assert hear(conn, raw_frame(role, 0x00)) == [TOO_MANY]


# Text is judged as it arrives: what cannot be completed, and the index of the byte that shows it

INVALID_TEXT = [
    (b"\x80", 0),
    (b"\xbf", 0),
    (b"\xc0\x80", 0),  # overlong
    (b"\xc1\xbf", 0),
    (b"\xe0\x80\x80", 1),
    (b"\xe0\x9f\xbf", 1),
    (b"\xf0\x80\x80\x80", 1),
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xf8\x88\x80\x80\x80", 0),
    (b"\xfc\x84\x80\x80\x80\x80", 0),
    (b"\xed\xa0\x80", 1),  # surrogates
    (b"\xed\xad\xbf", 1),
    (b"\xed\xbf\xbf", 1),
    (b"\xed\xa0\x80\xed\xb0\x80", 1),
    (b"\xf4\x90\x80\x80", 1),  # > U+10FFFF
    (b"\xf4\xbf\xbf\xbf", 1),
    (b"\xf5\x80\x80\x80", 0),
    (b"\xfe", 0),
    (b"\xff", 0),
    (b"\xc3A", 1),  # cut short by another character
    (b"\xc3\xc3\xa9", 1),
    (b"\xe2A", 1),
    (b"\xe2\x82A", 2),
    (b"\xe2\x82\xe2", 2),
    (b"\xf0\x9fA", 2),
    (b"\xf0\x9f\x98A", 3),
    (b"\xf0\x9f\x98\xf0", 3),
    (b"\xed\x9fA", 2),
]


@pytest.mark.parametrize("pieces", [False, True])
def test_text_fails_at_the_first_byte_that_cannot_be_completed(role, pieces):
    for (data, bad), before in itertools.product(INVALID_TEXT, ["", "abc", "κόσμε", "😀"]):
        with case(data=data, bad=bad, before=before):
            good = before.encode() + data[:bad]
            bad_byte = data[bad : bad + 1]

            # Inside a frame that has not arrived whole: byte by byte, and all that came in one read
            for first in (TEXT, 0x01):
                frame = raw_frame(role, first, good + data[bad:], length=1000)
                header = len(frame) - len(good + data[bad:])
                conn = Connection(role, fragments=pieces)
                events = hear(conn, frame[:header], *BY_BYTE.cut(frame[header : header + len(good)]))
                assert "".join(event.data for event in events) == (before if pieces else "")
                assert hear(conn, frame[header + len(good) : header + len(good) + 1]) == [BAD_TEXT]
                assert sent_pairs(conn) == [(CLOSE, close_payload(1007, BAD_TEXT.reason))]

                conn = Connection(role, fragments=pieces)
                assert hear(conn, frame[: header + len(good) + 1])[-1] == BAD_TEXT

            # In fragments: one for each byte
            conn = Connection(role, fragments=pieces)
            events = hear(
                conn, raw_frame(role, 0x01), *(raw_frame(role, 0x00, bytes([byte])) for byte in good)
            )
            assert "".join(event.data for event in events) == (before if pieces else "")
            assert hear(conn, raw_frame(role, 0x00, bad_byte)) == [BAD_TEXT]

            # Whole
            conn = Connection(role, fragments=pieces)
            assert hear(conn, raw_frame(role, TEXT, good + bad_byte)) == [BAD_TEXT]


def test_the_first_two_bytes_of_a_character_are_refused_exactly_if_nothing_completes_them():
    """All of them, against the encoding of every character."""
    characters = [*range(0x80, 0x800), *range(0x800, 0xD800, 64), *range(0xE000, 0x110000, 64)]
    completable = {chr(character).encode()[:2] for character in characters}
    for pair in itertools.product(range(0xC0, 0x100), range(0x100)):
        conn = Connection(CLIENT)
        events = hear(conn, b"\x81\x7e\x10\x00" + bytes(pair))
        assert events == ([] if bytes(pair) in completable else [BAD_TEXT]), pair


def test_text_that_ends_inside_a_character_fails_as_of_its_last_byte(role, reading):
    for good in (b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0\x9f", b"\xf0\x9f\x98", b"\xed", b"\xed\x9f"):
        conn = Connection(role)
        assert hear(conn, raw_frame(role, 0x01, good)) == []
        assert hear(conn, *reading.chunks(raw_frame(role, 0x80), TRAILING)) == [BAD_TEXT]


def test_a_message_after_a_character_cut_by_fragments_starts_afresh(role):
    conn = Connection(role)
    frames = [(0x01, b"\xe2"), (0x80, b"\x82\xac"), (TEXT, b"a"), (0x02, b"\xe2"), (0x80, b""), (0x01, b"b")]
    assert hear(conn, all_said(role, frames), raw_frame(role, 0x80)) == [
        Text("€"),
        Text("a"),
        Binary(b"\xe2"),
        Text("b"),
    ]


# Messages piece by piece


PIECES = {
    "a message in one frame": ([(TEXT, b"Hello")], [Text("Hello")]),
    "fragments": ([(0x01, b"Hel"), (0x80, b"lo")], [Text("Hel", False), Text("lo")]),
    "binary fragments": (
        [(0x02, b"a"), (0x00, b"b"), (0x80, b"c")],
        [Binary(b"a", False), Binary(b"b", False), Binary(b"c")],
    ),
    "empty fragments are no pieces, but the last is": (
        [(0x02, b""), (0x00, b"a"), (0x00, b""), (0x80, b"")],
        [Binary(b"a", False), Binary(b"")],
    ),
    "empty messages": (
        [(TEXT, b""), (BINARY, b""), (0x01, b""), (0x80, b""), (0x02, b""), (0x80, b"")],
        [Text(""), Binary(b""), Text(""), Binary(b"")],
    ),
    "a character cut by fragments comes with its last byte": (
        [(0x01, b"a\xf0"), (0x00, b"\x9f\x98"), (0x80, b"\x80")],
        [Text("a", False), Text("😀")],
    ),
    "control frames in between": (
        [(0x01, b"a"), (PING, b"1"), (0x00, b"b"), (PONG, b"2"), (0x80, b"c"), (CLOSE, b"")],
        [Text("a", False), Ping(b"1"), Text("b", False), Pong(b"2"), Text("c"), Close(1005)],
    ),
    "a Close in between": ([(0x02, b"a"), (CLOSE, b"")], [Binary(b"a", False), Close(1005)]),
    "a violation in between": (
        [(0x02, b"a"), (TEXT, b"b")],
        [Binary(b"a", False), Fail(1002, "expected a continuation frame")],
    ),
}


@pytest.mark.parametrize("name", PIECES)
def test_pieces_come_as_fragments_do(role, name):
    frames, events = PIECES[name]
    whole = Connection(role, fragments=True)
    assert hear(whole, all_said(role, frames)) == events
    apart = Connection(role, fragments=True)
    assert hear(apart, *(raw_frame(role, *frame) for frame in frames)) == events
    assert sent_pairs(apart) == sent_pairs(whole)


def test_pieces_come_as_bytes_do(role):
    """Also inside one long frame; and a character only when it is there whole."""
    data = raw_frame(role, TEXT, "aé€".encode())
    header = len(data) - 6
    conn = Connection(role, fragments=True)
    expected = [Text("a", False), None, Text("é", False), None, None, Text("€", True)]
    assert hear(conn, data[:header]) == []
    for byte, event in zip(BY_BYTE.cut(data[header:]), expected, strict=True):
        assert hear(conn, byte) == ([event] if event else [])


def test_a_long_frame_comes_in_the_pieces_in_which_it_arrives(role):
    for cut in [1, 2, 3, 4, 5, 7, 4096, 99_999]:
        with case(cut=cut):
            payload = bytes(itertools.islice(itertools.cycle(range(251)), 100_000))
            data = raw_frame(role, BINARY, payload)
            header = len(data) - len(payload)
            conn = Connection(role, fragments=True)
            events = hear(conn, data[: header + cut], data[header + cut :])
            assert events == [Binary(payload[:cut], False), Binary(payload[cut:])]
            # The same, when it is to be one message
            conn = Connection(role)
            assert hear(conn, data[: header + cut], data[header + cut :]) == [Binary(payload)]


@pytest.mark.parametrize("name", SAMPLES)
def test_pieces_make_up_the_messages_of_each_sample(role, name):
    for reading in READINGS:
        with case(reading=reading):
            frames, events, replies = SAMPLES[name]
            conn = Connection(role, fragments=True)
            heard = []
            pieces = []
            for event in hear(conn, *reading.chunks(all_said(role, frames), TRAILING)):
                if isinstance(event, (Text, Binary)):
                    pieces.append(event.data)
                    if not event.final:
                        continue
                    empty = "" if isinstance(event, Text) else b""
                    event = type(event)(empty.join(pieces))
                    pieces = []
                heard.append(event)
            assert heard == events
            assert sent_pairs(conn) == replies


# Bytes in without a copy


def receive_into(conn, data, buffer):
    """Return the events of what comes through one buffer that is used again and again."""
    events = []
    while data:
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        conn.read_from(buffer, count)
        while event := conn.next_event():
            events.append(event)
        conn.release()
        data = data[count:]
    return events


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_received_into_a_buffer(role, name):
    for size in [1, 7, 4096, 100_000]:
        with case(size=size):
            frames, events, replies = SAMPLES[name]
            conn = Connection(role)
            assert receive_into(conn, all_said(role, frames), bytearray(size)) == events
            assert sent_pairs(conn) == replies


@pytest.mark.parametrize(
    ("begin", "event"),
    [(Connection, LOST), (connecting, LOST), (closing_first, LOST), (over_by_peer, None), (refused, None)],
)
def test_no_bytes_in_the_buffer_are_the_end_of_the_stream(role, begin, event):
    conn = begin(role)
    conn.read_from(bytearray(16), 0)
    assert conn.next_event() == event
    assert (conn.state, conn.should_close) == (CLOSED, True)
    assert conn.next_event() is None


def test_more_than_the_buffer_holds_is_an_error(role):
    conn = Connection(role)
    for count in (17, -1):
        with pytest.raises(ValueError, match="count must be 0 to 16"):
            conn.read_from(bytearray(16), count)
    assert conn.unread == 0
    assert conn.state is OPEN


def test_bytes_are_not_lost_between_the_two_ways_in(role):
    data = raw_frame(role, TEXT, b"Hello") * 3
    conn = Connection(role)
    conn.receive_data(data[:4])
    conn.read_from(bytearray(data[4:9]), 5)
    conn.receive_data(data[9:12])
    conn.release()
    conn.read_from(bytearray(data[12:] + b"beyond"), len(data) - 12)
    conn.release()
    assert hear(conn, TRAILING) == [Text("Hello")] * 3


@pytest.mark.parametrize("begin", [over_by_peer, over_by_us, over_by_violation, refused])
def test_bytes_in_a_buffer_after_the_last_event_are_ignored(role, begin):
    conn = begin(role)
    data = raw_frame(role, TEXT, b"Hello") * 3
    assert receive_into(conn, data, bytearray(data)) == []
    assert conn.unread == 0
    assert conn.data_to_send() == b""


def test_the_last_event_lets_the_buffer_go(role):
    conn = Connection(role)
    buffer = bytearray(raw_frame(role, CLOSE) + raw_frame(role, TEXT, b"Hello"))
    conn.read_from(buffer, len(buffer))
    assert conn.next_event() == Close(1005)
    buffer.clear()  # which fails while somebody holds a view of it
    conn.release()
    assert conn.unread == 0
    assert conn.next_event() is None


# Bytes out


def test_data_to_send_forgets_what_it_returned(role):
    conn = Connection(role)
    conn.send_text("a")
    conn.send_text("b")
    size = 2 * (3 if role is SERVER else 7)
    assert conn.unsent == size
    assert len(conn.data_to_send()) == size
    assert conn.unsent == 0
    assert conn.data_to_send() == b""
    conn.send_ping()
    conn.chunks_to_send().clear()
    assert conn.chunks_to_send() == []


def test_a_large_payload_is_a_chunk_of_its_own(role):
    for size in [16_384, 65_536, 1_000_000]:
        with case(size=size):
            payload = bytes(size)
            conn = Connection(role)
            conn.send_text("before")
            conn.send_binary(payload)
            conn.send_text("after")
            assert conn.unsent == sum(map(len, conn._output))
            before, *chunks, after = conn.chunks_to_send()
            if role is SERVER or not compiled:  # compiled, it is masked into its frame
                header, chunk = chunks
                assert len(header) <= 14
                assert len(chunk) == size
                if role is SERVER:
                    assert chunk is payload
            assert pairs_of(frames_of(role, b"".join([before, *chunks, after]))) == [
                (TEXT, b"before"),
                (BINARY, payload),
                (TEXT, b"after"),
            ]


def test_small_frames_are_one_chunk_each(role):
    conn = Connection(role)
    conn.send_binary(bytes(16_383))
    conn.send_ping(b"a")
    assert len(conn.chunks_to_send()) == 2


def test_handshake_answers_and_frames_go_out_in_order():
    conn = ServerConnection()
    conn.receive_data(REQUEST + raw_frame(SERVER, PING, b"a") + raw_frame(SERVER, TEXT, b"b"))
    assert conn.next_event() is conn.request
    conn.accept()
    conn.send_text("c")
    assert [conn.next_event(), conn.next_event()] == [Ping(b"a"), Text("b")]
    data = conn.data_to_send()
    response = response_to(REQUEST)
    assert data.startswith(response)
    assert pairs_of(frames_of(SERVER, data[len(response) :])) == [(TEXT, b"c"), (PONG, b"a")]


# For the adapters: what a user gives as a message


MESSAGES = [
    ("text", False),
    (b"bytes", False),
    (bytearray(b"bytes"), False),
    (memoryview(b"bytes"), False),
    (array.array("I", [1, 2]), False),
    (prepare("text"), False),
    ({"a": 1}, False),
    (None, False),
    (5, False),
    ([b"a"], True),
    (iter(["a"]), True),
    ((), True),
]


def test_what_is_a_message_in_fragments():
    for message, expected in MESSAGES:
        with case(message=message, expected=expected):
            assert is_fragmented(message) is expected


def test_a_class_that_fails_is_no_message():
    """The error is raised, and not left for the next call to stumble over."""
    with pytest.raises(KeyError):
        is_fragmented(FailingClass())


def test_an_asynchronous_iterable_is_a_message_in_fragments():
    class Fragments:
        async def __aiter__(self):
            yield b""

    assert is_fragmented(Fragments())


@pytest.mark.parametrize(
    ("fragment", "last", "message"),
    [
        (prepare("text"), None, "a fragment must be str or bytes-like, not Prepared"),
        (b"bytes", "text", "the fragments of a message must be all str or all bytes-like"),
        ("text", b"bytes", "the fragments of a message must be all str or all bytes-like"),
    ],
)
def test_what_cannot_be_the_next_fragment(fragment, last, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        check_fragment(fragment, last)


def test_what_can_be_the_next_fragment():
    for fragment, last in [("a", None), (b"a", None), ("b", "a"), (bytearray(), b"a")]:
        with case(fragment=fragment, last=last):
            assert check_fragment(fragment, last) == fragment
    for name, thing, held in sendable():
        with case(name=name):
            for plain in check_fragment(thing, None), as_plain(thing):
                assert (type(plain), plain) == (type(held), held)


def test_whether_a_message_is_being_sent_in_fragments(role):
    conn = Connection(role)
    assert not conn.is_within_message
    for send, data in (conn.send_text, "a"), (conn.send_binary, b"a"):
        send(data, fin=False)
        assert conn.is_within_message
        conn.send_ping()
        send(data, fin=False)
        assert conn.is_within_message
        send(data)
        assert not conn.is_within_message


# Strange objects, and errors within a call


def test_an_object_is_sent_as_what_it_holds(role):
    for name, thing, held in sendable():
        with case(name=name):
            conn = Connection(role)
            conn.send_message(thing)
            conn.send_message(prepare(thing))
            data = held.encode() if isinstance(held, str) else held
            first = TEXT if isinstance(held, str) else BINARY
            assert sent_pairs(conn) == [(first, data)] * 2
            if first == BINARY:
                conn.send_ping(thing)
                conn.send_binary(thing)
                assert sent_pairs(conn) == [(PING, data), (BINARY, data)]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_an_object_that_is_refused_changes_nothing(role, is_compressed):
    compression = Deflate(threshold=0) if is_compressed else None
    for name, thing, error in unsendable():
        for method in "send_message", "send_text", "send_binary", "send_ping", "send_pong":
            with case(name=name, method=method):
                conn = Connection(role, compression=compression)
                before = snapshot(conn)
                with pytest.raises((error, TypeError)):
                    getattr(conn, method)(thing)
                assert snapshot(conn) == before
                assert (conn.is_within_message, conn.uncompressed) == (False, 0)
        with case(name=name), pytest.raises(error):
            prepare(thing)


def test_a_close_code_that_fails_changes_nothing(role):
    class Code(int):
        def __int__(self):
            raise KeyError("of its own")

    conn = Connection(role)
    before = snapshot(conn)
    for call in conn.send_close, conn.fail:
        with pytest.raises(KeyError):
            call(Code(1000))
        assert snapshot(conn) == before


@pytest.mark.parametrize("fin", [True, False])
def test_an_error_of_the_compressor_leaves_the_connection_as_it_was(role, fin):
    """The next message must not refer to one that the peer has never got."""
    module = FullMemory()
    compression = Deflate(threshold=0, zlib=module)
    conn, peer = Connection(role, compression=compression), Connection(OTHER[role], compression=compression)
    words = "one word after another " * 10
    for number in range(3):
        before = snapshot(conn), conn.uncompressed, conn.compressed
        module.is_full = True
        with pytest.raises(MemoryError):
            conn.send_text(words + "lost" * number, fin)
        module.is_full = False
        assert (snapshot(conn), conn.uncompressed, conn.compressed) == before
        conn.send_text(words + "lost" * number)
        assert hear(peer, conn.data_to_send()) == [Text(words + "lost" * number)]
        # And in the middle of one
        conn.send_text(words, fin=False)
        module.is_full = True
        with pytest.raises(MemoryError):
            conn.send_text(words[::-1], fin)
        module.is_full = False
        conn.send_text(words[::-1])
        assert hear(peer, conn.data_to_send()) == [Text(words + words[::-1])]


def test_pieces_are_joined():
    assert join_pieces(["a", "b"], True) == Text("ab")
    assert join_pieces([b"a", b"", b"b"], False) == Binary(b"ab", False)


@pytest.mark.parametrize("kind", [Text, Binary])
def test_stream_next_inside_a_message_gives_what_was_collected_at_once(role, kind):
    conn = Connection(role)
    first = TEXT_STARTS if kind is Text else BINARY_STARTS
    more = b"\xe2\x82" if kind is Text else b"c"
    assert hear(conn, raw_frame(role, first, b"ab"), raw_frame(role, GOES_ON, more)) == []
    assert conn.collected == 2 + len(more)
    conn.stream_next()
    assert conn.next_event() == kind("ab" if kind is Text else b"abc", False)
    assert conn.next_event() is None
    assert conn.collected == 0
    pieces = hear(
        conn,
        raw_frame(role, GOES_ON, b"\xac"),
        raw_frame(role, ENDS, b"d"),
        raw_frame(role, ENDS | first, b"e"),
    )
    data = ("\N{EURO SIGN}", "d", "e") if kind is Text else (b"\xac", b"d", b"e")
    assert pieces == [kind(data[0], False), kind(data[1]), kind(data[2])]


def test_stream_next_inside_a_character_gives_nothing_until_it_is_whole(role):
    conn = Connection(role)
    assert hear(conn, raw_frame(role, TEXT_STARTS, b"\xe2\x82")) == []
    conn.stream_next()
    assert conn.next_event() is None
    assert hear(conn, raw_frame(role, ENDS, b"\xac")) == [Text("\N{EURO SIGN}")]


def test_stream_next_before_the_end_of_the_stream_gives_what_was_collected_first(role):
    conn = Connection(role)
    assert hear(conn, raw_frame(role, TEXT_STARTS, b"ab")) == []
    conn.stream_next()
    conn.receive_data(b"")
    assert [conn.next_event(), type(conn.next_event())] == [Text("ab", False), Fail]


def test_whether_bytes_wait_is_told(role):
    conn = Connection(role)
    assert (conn.has_unread(), conn.unread, conn.has_unsent(), conn.unsent) == (False, 0, False, 0)
    conn.receive_data(raw_frame(role, ENDS | BINARY_STARTS, b"a"))
    conn.send_binary(b"b")
    assert conn.has_unread()
    assert conn.unread > 0
    assert conn.has_unsent()
    assert conn.unsent > 0
    conn.next_event()
    conn.data_to_send()
    assert (conn.has_unread(), conn.unread, conn.has_unsent(), conn.unsent) == (False, 0, False, 0)


# A buffer that is borrowed


def test_what_is_not_read_of_a_borrowed_buffer_is_kept(role):
    data = raw_frame(role, 0x81, b"one") + raw_frame(role, 0x81, b"two")
    buffer = bytearray(data)
    conn = Connection(role)
    conn.read_from(buffer, len(data))
    assert conn.next_event() == Text("one")
    conn.release()
    buffer[:] = bytes(len(data))
    assert conn.next_event() == Text("two")


def test_a_borrowed_buffer_is_not_read_after_the_last_event(role):
    conn = Connection(role)
    assert hear(conn, raw_frame(role, 0x88)) == [Close(1005)]
    data = raw_frame(role, 0x81, b"more")
    conn.read_from(bytearray(data), len(data))
    assert conn.next_event() is None
    conn.release()
    assert conn.unread == 0


@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_connection_cannot_be_copied(copies):
    """A copy would share the decoder, in which positions belong to a buffer."""
    with pytest.raises(TypeError, match="a Connection cannot be copied or pickled"):
        copies(Connection(SERVER))
