"""What an attacker sends to the core costs work in proportion to what was sent, and memory within the limits.

Nothing here is timed. What is not linear runs into the suite's timeout, with the sizes of --all.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import hashlib
import itertools
import pickle
import zlib

import pytest

from tests.support.cases import case
from tests.support.core import CLIENT, KEY, SERVER, TOO_BIG, TOO_MANY, Memory, header, hear, hear_all, said
from tests.support.tiers import full
from wsframe import compiled
from wsframe.client import ClientConnection
from wsframe.connection import Connection, State
from wsframe.deflate import Deflate
from wsframe.errors import LocalProtocolError
from wsframe.events import Binary, Close, Fail, Ping, Request, Response, Text, size_in_memory
from wsframe.frames import FrameDecoder
from wsframe.server import ServerConnection

MEGABYTE = 2**20

HEAD = 16_384  # bytes of a head, at most
BODY = 65_536  # bytes of a refusal's body that a client keeps
CONSTANT = 256 * 1024  # bytes that a connection may hold beside what its limits allow


def by_bytes(conn, data, most):
    """Return the events of bytes that come one by one; never do more than ``most`` wait to be read."""
    events = []
    receive_data, next_event = conn.receive_data, conn.next_event
    for i in range(len(data)):
        receive_data(data[i : i + 1])
        while event := next_event():
            events.append(event)
        assert conn.unread <= most
    return events


# Opening handshakes


def request(*lines, **replaced):
    headers = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **replaced,
    }
    head = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1")


def response(conn, *lines, **replaced):
    sent = conn.data_to_send()
    key = sent.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept.decode(),
        **{name: value.replace("{accept}", accept.decode()) for name, value in replaced.items()},
    }
    head = [
        "HTTP/1.1 101 Switching Protocols",
        *(f"{name}: {value}" for name, value in headers.items()),
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1")


def client(**options):
    return ClientConnection("ws://localhost/", subprotocols=["chat"], **options)


def refusal(conn, status):
    """Check that a handshake was refused with a status, and completely."""
    head, _, body = conn.data_to_send().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert body
    assert (conn.state, conn.should_close) == (State.CLOSED, True)
    return True


def is_failed(conn, events):
    assert [type(event) for event in events] == [Fail]
    assert (conn.state, conn.should_close, conn.data_to_send()) == (State.CLOSED, True, b"")
    return True


# One byte in each packet


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize(("opcode", "kind"), [(1, Text), (2, Binary)])
def test_a_megabyte_byte_by_byte_in_one_frame(opcode, kind, fragments, size):
    role = SERVER if fragments else CLIENT
    count = size(2**16, MEGABYTE) // 11
    payload = "κόσμε ".encode() * count
    conn = Connection(role, fragments=fragments)
    events = by_bytes(conn, said(role, opcode, payload), most=13)
    assert events[-1].final
    assert len(events) == (len("κόσμε ") if kind is Text else 11) * count if fragments else 1
    data = (b"" if kind is Binary else "").join(event.data for event in events)
    assert data == (payload if kind is Binary else payload.decode())


def test_a_megabyte_byte_by_byte_in_small_frames(size):
    conn = Connection(SERVER)
    frames = said(SERVER, 1, b"a") + said(SERVER, 1, b"b", False) + said(SERVER, 9) + said(SERVER, 0, b"c")
    count = size(2**17, MEGABYTE) // len(frames)
    events = by_bytes(conn, frames * count, most=6)
    assert events == [Text("a"), Ping(b""), Text("bc")] * count


@pytest.mark.parametrize("line", [b"x", b"a: b\r\n", b"\r\n", b" ", b",", b'"', b"\\", b"\n", b"\r"])
def test_a_megabyte_byte_by_byte_in_a_head(role, line, size):
    begin = b"GET / HTTP/1.1\r\nA: " if role is SERVER else b"HTTP/1.1 101 Yes\r\nA: "
    conn = ServerConnection() if role is SERVER else client()
    conn.data_to_send()
    events = by_bytes(conn, begin + line * (size(2**17, MEGABYTE) // len(line)), most=0)
    assert [type(event) for event in events] == [Fail]
    assert conn.state is State.CLOSED


def test_a_megabyte_in_one_packet_of_small_frames(role, size):
    conn = Connection(role)
    frame = said(role, 2, b"a")
    count = size(2**17, MEGABYTE) // len(frame)
    assert hear(conn, frame * count) == [Binary(b"a")] * count


def test_bytes_that_pile_up_unread_are_appended_not_copied_each_time(role, size):
    """Read one event for each packet of two, so that ever more of them wait."""
    count = size(20_000, 100_000)
    conn = Connection(role)
    frame = said(role, 2, b"a")
    for _ in range(count):
        conn.receive_data(frame + frame)
        assert conn.next_event() == Binary(b"a")
    assert conn.unread == count * len(frame)
    assert hear(conn, frame) == [Binary(b"a")] * (count + 1)


# Fragments


def test_a_million_empty_fragments_are_too_many(role, size):
    conn = Connection(role)
    events = hear(conn, said(role, 1, b"", False))
    events += hear_all(conn, itertools.repeat(said(role, 0, b"", False) * 1000, size(100, 1000)))
    assert events == [TOO_MANY]


def test_without_a_limit_a_million_empty_fragments_are_an_empty_message(role, size):
    conn = Connection(role, max_message_size=None)
    assert hear(conn, said(role, 1, b"", False)) == []
    assert hear_all(conn, itertools.repeat(said(role, 0, b"", False) * 1000, size(100, 1000))) == []
    assert hear(conn, said(role, 0)) == [Text("")]


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("payload", [b"", b"a"])
def test_fragments_hold_the_memory_of_their_bytes_and_no_more(role, fragments, payload, size):
    packets = size(20, 100)
    conn = Connection(role, max_message_size=None, fragments=fragments)
    hear(conn, said(role, 1, b"", False))
    packet = said(role, 0, payload, False) * 1000
    count = 0
    with Memory() as memory:
        for _ in range(packets):
            conn.receive_data(packet)
            while conn.next_event():
                count += 1
    assert count == (packets * 1000 if payload and fragments else 0)
    # A list of the fragments would take 64 bytes for each: 1.3 MB, or 6 MB with --all.
    assert memory.peak < CONSTANT + 2 * len(payload) * packets * 1000


# Lengths


def test_a_length_above_the_limit_fails_before_anything_is_kept(role):
    for length in [2**20 + 1, 2**31, 2**32, 2**62, 2**63 - 1]:
        with case(length=length):
            conn = Connection(role)
            with Memory() as memory:
                assert hear(conn, header(role, 0x82, length), bytes(1000)) == [TOO_BIG]
            assert memory.peak < CONSTANT


def test_a_length_with_the_most_significant_bit_is_a_violation(role):
    for length, limit in itertools.product([2**63, 2**64 - 1], [0, 2**20, None]):
        with case(length=length, limit=limit):
            conn = Connection(role, max_message_size=limit)
            fail = Fail(1002, "payload length must be below 2**63")
            assert hear(conn, header(role, 0x82, length)) == [fail]


def test_a_length_is_believed_only_as_bytes_come(role):
    conn = Connection(role, max_message_size=None)
    with Memory() as memory:
        hear(conn, header(role, 0x82, 2**63 - 1), bytes(1000))
        conn.read_from(bytearray(1000), 1000)
        assert conn.next_event() is None
        conn.release()
    assert memory.peak < CONSTANT


@pytest.mark.parametrize("pieces", [False, True])
def test_what_a_message_holds_is_bounded_by_its_limit(role, pieces):
    """A message of 1 MiB again and again, in fragments and frames of any size, cut anywhere."""
    conn = Connection(role, fragments=pieces)
    sizes = [1, 125, 126, 65_536, 0, 100_000]
    frames = b"".join(said(role, 0, bytes(size), False) for size in sizes)
    rest = 2**20 - sum(sizes) - 5
    data = said(role, 1, b"abcde", False) + frames + said(role, 0, bytes(rest))
    packets = [data[i : i + 4096] for i in range(0, len(data), 4096)]
    with Memory() as memory:
        for _ in range(3):
            for packet in packets:
                conn.receive_data(packet)
                while conn.next_event():
                    pass
    # Twice the message: what came in, and the event made of it.
    assert memory.peak < CONSTANT + (0 if pieces else 2.5 * 2**20)


WIDE_TEXTS = {
    "one wide character": "\N{GRINNING FACE}" + "a" * (2**20 - 4),
    # The string is made anew each time that a wider character comes.
    "wider and wider": "é" + "a" * 2**19 + "\N{SNOWMAN}" + "a" * (2**19 - 10) + "\N{GRINNING FACE}a",
}


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("kind", WIDE_TEXTS)
def test_what_a_text_holds_is_bounded_whatever_its_characters_are(role, kind, is_compressed):
    """docs/security.md has these numbers."""
    limit, text = 2**20, WIDE_TEXTS[kind]
    payload = text.encode()
    assert len(payload) == limit
    if is_compressed:
        compressor = zlib.compressobj(wbits=-12)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    data = said(role, 1, payload, rsv=4 if is_compressed else 0)
    packets = [data[i : i + 4096] for i in range(0, len(data) - 1, 4096)]
    conn = Connection(role, compression=Deflate())
    with Memory() as memory:
        for packet in packets[:-1]:
            assert hear(conn, packet) == []
    assert memory.peak < 2.4 * limit  # while it grows
    assert memory.held < 1.3 * limit + CONSTANT
    with Memory() as memory:
        conn.receive_data(data[4096 * (len(packets) - 1) :])
        event = conn.next_event()
    assert event == Text(text)
    assert memory.held < size_in_memory(text) + CONSTANT
    assert memory.peak < (8.3 - 1) * limit + CONSTANT  # besides what came before


# Control frames


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_flood_of_pings_is_answered_with_no_more_than_it_brought(role, size):
    conn = Connection(role)
    ping = said(role, 9, bytes(size))
    answer = len(ping) + (4 if role is CLIENT else -4)  # the masking key goes in one direction only
    for _ in range(100):
        assert hear(conn, ping * 100) == [Ping(bytes(size))] * 100
        assert conn.unsent == 100 * answer
        assert len(conn.data_to_send()) == 100 * answer
    hear(conn, said(role, 8), ping * 1000)
    conn.data_to_send()
    assert hear(conn, ping * 1000) == []
    assert conn.unsent == 0


def test_a_flood_of_closes_is_answered_once(role):
    conn = Connection(role)
    close = said(role, 8, b"\x03\xe8bye")
    assert hear(conn, close * 1000, close) == [Close(1000, "bye")]
    assert conn.unsent == (7 if role is SERVER else 11)


def test_what_comes_after_the_last_event_is_not_kept(role):
    conn = Connection(role)
    hear(conn, b"\xff")
    packet = bytes(65_536)
    with Memory() as memory:
        for _ in range(100):
            conn.receive_data(packet)
            conn.read_from(bytearray(packet), 100)
            conn.release()
    assert conn.unread == 0
    assert memory.peak < CONSTANT


def test_an_unfinished_message_is_dropped_with_the_last_event(role):
    """A peer who then keeps TCP open keeps no memory."""
    conn = Connection(role)
    with Memory() as memory:
        fragment = said(role, 2, bytes(65_536), False)
        assert hear(conn, fragment, *[said(role, 0, bytes(65_536), False) for _ in range(10)]) == []
        del fragment
        assert memory.held_now() > 11 * 65_536
        assert hear(conn, said(role, 8)) == [Close(1005)]
    assert memory.held < CONSTANT


# The opening handshake


def test_a_head_that_never_ends_is_refused_with_431():
    conn = ServerConnection()
    begin = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "
    conn.receive_data(begin + b"x" * (HEAD - len(begin)))
    assert conn.next_event() is None
    assert hear(conn, b"x") == [Fail(1002, "head exceeds 16384 bytes")]
    assert refusal(conn, 431)


def test_a_response_that_never_ends_fails():
    conn = client()
    conn.data_to_send()
    begin = b"HTTP/1.1 101 Yes\r\nA: "
    conn.receive_data(begin + b"x" * (HEAD - len(begin)))
    assert conn.next_event() is None
    assert is_failed(conn, hear(conn, b"x"))


def test_informational_responses_that_never_end_fail():
    conn = client()
    conn.data_to_send()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert is_failed(conn, hear(conn, *[early] * 1000))


@pytest.mark.parametrize(
    ("headers", "chunk"),
    [
        (b"", b"x" * 1000),
        (b"Content-Length: 1000000000\r\n", b"x" * 1000),
        (b"Transfer-Encoding: chunked\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        # 65536 chunks of a byte take h11 more than a second.
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n", marks=full),
        (b"Transfer-Encoding: chunked\r\n", b"8\r\n" + b"x" * 8 + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n3b9aca00\r\n", b"x" * 1000),
    ],
)
def test_a_body_that_never_ends_is_cut(headers, chunk):
    conn = client()
    conn.data_to_send()
    end = b"" if b"\r\n\r\n" in headers else b"\r\n"
    with Memory() as memory:
        events = hear(conn, b"HTTP/1.1 404 Not Found\r\n" + headers + end)
        events += hear_all(conn, itertools.repeat(chunk, 2 * BODY))
    assert [type(event) for event in events] == [Response, Fail]
    assert events[0].body == b"x" * BODY
    assert memory.peak < CONSTANT + 4 * BODY


PADDINGS = [" ", "\t", ",", ", ", ";", "; ", '"', "\\", '\\"', "=", "a"]
PADDED = ["{0}", "{0}{1}", "{1}{0}", "a{0}{1}", "{1}{0}b", "{1},{0},", '{1};a="{0}']
SIZES = [1_000, 15_000, 100_000]


def padded(good):
    """Return a header's value with a lot of padding in every place, and whether a head can hold it."""
    for padding, value, size in itertools.product(PADDINGS, PADDED, SIZES):
        yield value.format(padding * (size // len(padding)), good), size < HEAD


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("Host", "localhost"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Origin", "http://localhost"),
        ("Content-Length", "0"),
        ("Cookie", "a=b"),
    ],
)
def test_a_padded_header_of_a_request_is_taken_or_refused(name, good):
    opened = 0
    for value, fits in padded(good):
        conn = ServerConnection(subprotocols=["chat"])
        conn.receive_data(request(**{name: value}))
        event = conn.next_event()
        if not fits:
            assert event == Fail(1002, "head exceeds 16384 bytes")
            assert refusal(conn, 431)
        elif isinstance(event, Request):
            opened += event.is_upgrade
            conn.accept()
            assert conn.data_to_send().startswith(b"HTTP/1.1 101 " if event.is_upgrade else b"HTTP/1.1 426 ")
        else:
            assert isinstance(event, Fail)
            assert refusal(conn, 426 if "Version must be 13" in event.reason else 400)
    assert opened >= 2  # blanks around a value are no part of it


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", None),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", ""),
        ("Set-Cookie", "a=b"),
    ],
)
def test_a_padded_header_of_a_response_is_taken_or_fails(name, good):
    opened = 0
    for value, fits in padded("{accept}" if good is None else good):
        conn = client()
        events = hear(conn, response(conn, **{name: value}))
        if conn.state is State.OPEN:
            assert fits
            assert events == [conn.response]
            opened += 1
        else:
            assert is_failed(conn, events)
    assert opened >= 2


@pytest.mark.parametrize("count", [101, 1000])
def test_too_many_headers_are_refused(count):
    conn = ServerConnection()
    hear(conn, request(*["A: b"] * count))
    assert refusal(conn, 431)
    conn = client()
    assert is_failed(conn, hear(conn, response(conn, *["A: b"] * count)))


def test_frames_in_the_same_packet_as_the_request_are_kept():
    conn = ServerConnection()
    conn.receive_data(request() + said(SERVER, 1, b"Hello") + said(SERVER, 8, b"\x03\xe8"))
    assert isinstance(conn.next_event(), Request)
    conn.accept()
    assert conn.next_event() == Text("Hello")
    conn.send_text("Hello to you")
    assert conn.next_event() == Close(1000)


def test_frames_in_the_same_packet_as_the_response_are_kept():
    conn = client()
    conn.receive_data(response(conn) + said(CLIENT, 1, b"Hello") + said(CLIENT, 8, b"\x03\xe8"))
    assert isinstance(conn.next_event(), Response)
    assert hear(conn, b"") == [Text("Hello"), Close(1000)]


def test_frames_after_a_refused_request_are_never_read():
    conn = ServerConnection()
    conn.receive_data(request() + said(SERVER, 1, b"Hello") + b"\xff")
    assert isinstance(conn.next_event(), Request)
    conn.reject(403, body=b"no")
    assert hear(conn, b"\xff") == [Fail(1006, "handshake was refused with 403")]
    assert conn.unread == 0


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 5",
        "Content-Length: 00005",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: -1",
        "Content-Length: 0x5",
    ],
)
def test_a_request_with_a_body_is_refused(line):
    conn = ServerConnection()
    assert [type(event) for event in hear(conn, request(line) + b"12345")] == [Fail]
    assert refusal(conn, 400)


CONTROLS = ["\r", "\n", "\0", "\x0b", "\x0c", "\x1b", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f"]


@pytest.mark.parametrize(
    "line", ["A: b{}c", "A: b{}Sec-WebSocket-Key: x", "A{}B: c", "A: {}", "{}A: b", "A: b{} c", "A{}: b"]
)
def test_control_characters_do_not_get_in(role, line):
    for control in CONTROLS:
        with case(control=control):
            bad = line.format(control)
            if role is SERVER:
                conn = ServerConnection()
                assert [type(event) for event in hear(conn, request(bad))] == [Fail]
                assert refusal(conn, 400)
                assert conn.request is None
            else:
                conn = client()
                assert is_failed(conn, hear(conn, response(conn, bad)))
                assert conn.response is None


def test_control_characters_do_not_get_out():
    for control in [*CONTROLS, "\r\nA: b", "\u2028", "\uffff", "\ud800"]:
        with case(control=control):
            conn = ServerConnection()
            conn.receive_data(request("Sec-WebSocket-Protocol: chat"))
            conn.next_event()
            bad = f"a{control}b"
            for headers in ([("A", bad)], [(bad, "a")], [("A", control)], {"Set-Cookie": bad}):
                for call in (conn.accept, functools.partial(conn.reject, 403)):
                    with pytest.raises((LocalProtocolError, ValueError)):
                        call(headers=headers)
                with pytest.raises((LocalProtocolError, ValueError)):
                    client(additional_headers=headers)
            with pytest.raises(LocalProtocolError):
                conn.accept(subprotocol=bad)
            with pytest.raises(LocalProtocolError):
                ClientConnection("ws://localhost/", subprotocols=[bad])
            with pytest.raises((LocalProtocolError, ValueError)):
                client(origin=bad)
            for uri in (f"ws://localhost/{bad}", f"ws://local{control}host/", f"ws://localhost/?{bad}"):
                try:
                    data = ClientConnection(uri).data_to_send()
                except ValueError:
                    continue
                # What is encoded is harmless.
                assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") == 8
                assert not set(data) & set(range(0x7F, 0x100))
            assert conn.unsent == 0
            conn.accept()
            assert conn.state is State.OPEN


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Host: localhost", 400),
        ("Host: elsewhere", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 400),
        ("Sec-WebSocket-Version: 13", 400),
        ("Sec-WebSocket-Version: 8", 400),
        ("Origin: http://a\r\nOrigin: http://b", 400),
    ],
)
def test_a_request_that_says_something_twice_is_refused(line, status):
    conn = ServerConnection(subprotocols=["chat"])
    assert [type(event) for event in hear(conn, request(line))] == [Fail]
    assert refusal(conn, status)


@pytest.mark.parametrize(
    "line",
    [
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat",
        "Upgrade: h2c",
        "Sec-WebSocket-Extensions: x-webkit-deflate-frame",
        "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate",
    ],
)
def test_a_response_that_says_something_twice_or_what_was_not_asked_fails(line):
    conn = client()
    assert is_failed(conn, hear(conn, response(conn, line)))


def test_an_accept_that_is_right_twice_fails():
    conn = client()
    data = response(conn)
    start = data.index(b"Sec-WebSocket-Accept")
    twice = data[:-2] + data[start:-2] + b"\r\n"
    assert is_failed(conn, hear(conn, twice))


# Attributes that somebody writes to

WRITTEN = [None, -1, -(2**63), 2**63 - 1, 2**100, 0, 1, b"", b"\1" * 3, b"\1" * 1000, "x", [None], object()]
ATTACKED = {
    FrameDecoder: lambda: FrameDecoder(masked=True, rsv1=True),
    Connection: lambda: Connection(SERVER, compression=Deflate()),
    ServerConnection: ServerConnection,
    ClientConnection: lambda: ClientConnection("ws://localhost/"),
}
# Calls without arguments, and with some: what each takes that does not matter here
ARGUMENTS = {
    "feed": [said(SERVER, 2, b"x" * 200)[:50], said(SERVER, 2, b"x" * 200)[50:], said(SERVER, 9)],
    "receive_data": [said(SERVER, 1, b"x" * 200, False)[:50], said(SERVER, 8), b"\xff" * 20, b""],
    "read_from": [bytearray(said(SERVER, 2, b"x" * 200)[:50])],
    "send_text": ["x"],
    "send_binary": [b"x" * 200],
    "send_ping": [b"x"],
}


def use(target):
    """Call everything, in an order that reads on after what was written."""
    names = [name for name in dir(target) if not name.startswith("_") and name not in ("send_close", "fail")]
    for name in [*ARGUMENTS, *names, *ARGUMENTS, *names]:
        for arguments in [(argument,) for argument in ARGUMENTS[name]] if name in ARGUMENTS else [()]:
            # Errors may be of any kind: the object is broken. Only the interpreter must not be.
            with contextlib.suppress(Exception):
                function = getattr(target, name)
                if callable(function):
                    function(*arguments)


@pytest.mark.parametrize("kind", ATTACKED, ids=lambda kind: kind.__name__)
def test_no_attribute_that_is_written_or_deleted_makes_an_object_read_outside_its_buffer(kind):
    for name in [name for name in dir(kind) if not name.startswith("__")]:
        for value in [*WRITTEN, ATTACKED[kind](), "deleted"]:
            with case(name=name, value=value):
                target = ATTACKED[kind]()
                part = said(SERVER, 2, b"x" * 200)[:50]
                with contextlib.suppress(LocalProtocolError):
                    getattr(target, "feed", getattr(target, "receive_data", None))(part)
                    getattr(target, "advance", getattr(target, "next_event", None))()
                with contextlib.suppress(Exception):  # compiled attributes refuse in several ways
                    if value == "deleted":
                        delattr(target, name)
                    else:
                        setattr(target, name, value)
                use(target)


@pytest.mark.skipif(not compiled, reason="without a pointer there is nothing to protect")
@pytest.mark.parametrize("name", ["first", "is_whole", "is_end", "remaining"])
def test_what_advance_found_cannot_be_written(name):
    decoder = FrameDecoder(masked=False)
    frame = said(CLIENT, 2, bytes(200))
    decoder.feed(frame[:10])
    assert not decoder.advance()
    with pytest.raises(AttributeError):
        setattr(decoder, name, -5)
    with pytest.raises(AttributeError):
        delattr(decoder, name)
    decoder.feed(frame[10:])
    assert decoder.next_frame().payload == bytes(200)


@pytest.mark.parametrize("kind", ATTACKED, ids=lambda kind: kind.__name__)
def test_what_holds_the_state_of_a_connection_cannot_be_copied(kind):
    for copies in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=f"a {kind.__name__} cannot be copied or pickled"):
            copies(ATTACKED[kind]())
