"""Strategies for what a peer sends, of the grammar or almost, and what an endpoint makes of it."""

from __future__ import annotations

import itertools
from typing import NamedTuple
from unittest import mock

from hypothesis import strategies as st

from tests.support.core import ACCEPT, CLIENT, KEY, SERVER, Raw, frames_of
from wsframe.client import ClientConnection
from wsframe.connection import Connection, Role, State
from wsframe.events import Binary, Close, Ping, Pong, Request, Text
from wsframe.server import ServerConnection

LIMIT = 1000

FIN, CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 0, 1, 2, 8, 9, 10
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
NOT_UTF8 = [
    b"\x80",
    b"\xc0\x80",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xf0\x8f",
    b"\xf4\x90",
    b"\xf5",
    b"\xe2\x82",
    b"\xed\xbf",
]

# Bytes and how they are cut


def encode(role, raws):
    return b"".join(raw.encode(role) for raw in raws)


def cut(data, sizes):
    """Return bytes in pieces of these sizes, over and over."""
    pieces = []
    for size in itertools.cycle(sizes):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    return pieces


roles = st.sampled_from(Role)
cuts = st.one_of(
    st.just([1]),
    st.lists(st.integers(1, 20), min_size=1),
    st.lists(st.integers(1, 2000), min_size=1, max_size=5),
)
sizes = st.one_of(st.integers(0, 20), st.sampled_from([124, 125, 126, 127, 255, 256, 999, 1000, 1001]))
bytes_of_a_size = st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 127))
texts = st.one_of(st.text(max_size=20), st.builds(bytes.decode, bytes_of_a_size))
payloads = st.one_of(st.binary(max_size=20), bytes_of_a_size)
short_payloads = st.one_of(st.binary(max_size=20), st.just(bytes(125)))
reasons = st.one_of(st.text(max_size=30), st.just("é" * 61)).filter(
    lambda reason: len(reason.encode()) <= 123
)
close_payloads = st.one_of(
    st.just(b""),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason.encode(), st.sampled_from(CODES), reasons
    ),
)
bad_close_payloads = st.one_of(
    st.binary(min_size=1, max_size=1),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason,
        st.sampled_from(CODES + BAD_CODES),
        st.sampled_from([b"", b"why", *NOT_UTF8]),
    ),
)
keys = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))
controls = st.builds(
    lambda first, payload, key: Raw(first, payload, key=key),
    st.sampled_from([FIN | PING, FIN | PONG]),
    short_payloads,
    keys,
)


@st.composite
def messages(draw):
    """One message as frames: whole, or in fragments with control frames between them."""
    is_text = draw(st.booleans())
    payload = draw(texts).encode() if is_text else draw(payloads)
    if is_text and draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(payload)))
        payload = payload[:place] + draw(st.sampled_from(NOT_UTF8)) + payload[place:]
    opcode = TEXT if is_text else BINARY
    places = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    raws = []
    for start, stop in itertools.pairwise([0, *places, len(payload)]):
        if raws:
            raws += draw(st.lists(controls, max_size=2))
            opcode = CONTINUATION
        raws.append(Raw(opcode, payload[start:stop], key=draw(keys)))
    return [*raws[:-1], raws[-1]._replace(first=raws[-1].first | FIN)]


@st.composite
def streams(draw):
    """Frames as an endpoint says them, sometimes with text that is none, and up to a Close or not so far."""
    parts = draw(st.lists(st.one_of(messages(), controls.map(lambda raw: [raw])), max_size=6))
    raws = list(itertools.chain.from_iterable(parts))
    if draw(st.booleans()):
        close = Raw(FIN | CLOSE, draw(st.one_of(close_payloads, close_payloads, bad_close_payloads)))
        raws.insert(draw(st.integers(0, len(raws))), close)
    return raws


@st.composite
def strange_frames(draw):
    """One frame that is legal by chance: any first byte, any length, masked or not."""
    first = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 2, 128, 129, 130, 136, 137, 138])))
    match draw(st.integers(0, 3)):
        case 0:
            return Raw(first, draw(payloads), masked=draw(st.booleans()))
        case 1:
            return Raw(first, draw(payloads), form=draw(st.sampled_from([2, 8])))
        case 2:
            return Raw(
                first, length=draw(st.sampled_from([1, 126, LIMIT + 1, 65536, 2**63 - 1, 2**63, 2**64 - 1]))
            )
        case _:
            return Raw(first, draw(payloads), key=draw(keys))


@st.composite
def almost_streams(draw):
    """Frames of which one or two are not what should stand there."""
    raws = draw(streams())
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(raws)))
        raws[place : place + draw(st.integers(0, 1))] = [draw(strange_frames())]
    return raws


@st.composite
def mutated(draw, data):
    """Bytes of which some are changed, lost, or come twice, or that end too soon."""
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 4)))
        data[start:stop] = draw(st.one_of(st.binary(max_size=4), st.just(bytes(data[start:stop] * 2))))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@st.composite
def frame_bytes(draw, role):
    raws = draw(almost_streams())
    data = encode(role, raws)
    return draw(mutated(data)) if draw(st.booleans()) else data


# Opening handshakes

REQUEST = [
    "GET /chat?a=b HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
]
RESPONSE = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT}",
]
REFUSAL = ["HTTP/1.1 403 Forbidden", "Content-Length: 5"]
CHUNKED = ["HTTP/1.1 404 Not Found", "Transfer-Encoding: chunked"]
EARLY = ["HTTP/1.1 103 Early Hints", "Link: </a>"]
MORE_LINES = [
    "Origin: http://localhost",
    "Sec-WebSocket-Protocol: chat",
    "Sec-WebSocket-Protocol: other, chat",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    "Content-Length: 0",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "X: " + "x" * 16_300,
    "X: a\x0bb",
    " folded",
    "no colon",
    ": no name",
    "Host: elsewhere",
]


def head(lines):
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@st.composite
def heads(draw, lines):
    """A head, perhaps with a line more or less, or with bytes changed."""
    lines = list(lines)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(1, len(lines)))
        lines[place : place + draw(st.integers(0, 1))] = draw(
            st.lists(st.sampled_from(MORE_LINES), max_size=1)
        )
    data = head(lines)
    return draw(mutated(data)) if draw(st.integers(0, 3)) == 0 else data


@st.composite
def requests_and_frames(draw):
    begin = draw(
        st.one_of(st.just(head(REQUEST)), heads(REQUEST), heads(["GET / HTTP/1.1", "Host: localhost"]))
    )
    return begin + draw(frame_bytes(SERVER))


@st.composite
def responses_and_frames(draw):
    early = head(EARLY) * draw(st.sampled_from([0, 0, 0, 1, 10, 11]))
    begin = draw(st.one_of(st.just(head(RESPONSE)), heads(RESPONSE), heads(REFUSAL), heads(CHUNKED)))
    body = draw(st.one_of(frame_bytes(CLIENT), mutated(b"5\r\nHello\r\n0\r\n\r\n"), st.just(b"Hello")))
    return early + begin + body


def a_client(**options):
    with mock.patch("wsframe.handshake.new_key", return_value=KEY):
        conn = ClientConnection("ws://localhost/chat", subprotocols=["chat"], **options)
    conn.data_to_send()
    return conn


BEGINNINGS = {
    "client": (CLIENT, lambda **options: Connection(CLIENT, **options), lambda: frame_bytes(CLIENT)),
    "server": (SERVER, lambda **options: Connection(SERVER, **options), lambda: frame_bytes(SERVER)),
    "client's handshake": (CLIENT, a_client, responses_and_frames),
    "server's handshake": (
        SERVER,
        lambda **options: ServerConnection(subprotocols=["chat"], **options),
        requests_and_frames,
    ),
}


# What an endpoint does


class Heard(NamedTuple):
    """What an endpoint heard, the state with each event, what it sent, and its state in the end."""

    events: list
    states: list
    frames: list
    head: bytes
    end: tuple


def converse(conn, chunks, *, answer="accept", echo=True, close_after=None):
    """Receive chunks, answer as an adapter and its application do, and return what happened."""
    events, states, frames, heads_out = [], [], [], b""
    for chunk in chunks:
        conn.receive_data(chunk)
        while (event := conn.next_event()) is not None:
            events.append(event)
            states.append((conn.state, conn.should_close))
            if isinstance(event, Request) and answer == "accept":
                conn.accept()
            elif isinstance(event, Request) and answer == "reject":
                conn.reject(403, body=b"no")
            if isinstance(event, (Text, Binary)) and event.final and echo and conn.state is State.OPEN:
                conn.send_text(event.data) if isinstance(event, Text) else conn.send_binary(event.data)
            if len(events) == close_after and conn.state is State.OPEN:
                conn.send_close(4000, "enough")
    data = conn.data_to_send()
    if data.startswith(b"HTTP/"):
        heads_out, _, data = data.partition(b"\r\n\r\n")
    if heads_out and b" 101 " not in heads_out:
        heads_out, data = heads_out + data, b""
    for frame in frames_of(conn.role, data):
        assert frame.rsv == 0 or conn.compression is not None
        frames.append((frame.opcode, frame.fin, frame.payload))
    end = (conn.state, conn.should_close, conn.close_sent, conn.close_received, conn.subprotocol, conn.unread)
    return Heard(events, states, frames, heads_out, end)


# What an endpoint sends, and the events that its peer must give

said_texts = st.text(max_size=300)
said_things = st.one_of(
    st.tuples(st.just("text"), st.lists(said_texts, min_size=1, max_size=4)),
    st.tuples(st.just("bytes of text"), st.lists(st.integers(0, 300), max_size=3), said_texts),
    st.tuples(st.just("binary"), st.lists(payloads, min_size=1, max_size=4)),
    st.tuples(st.just("ping"), short_payloads),
    st.tuples(st.just("pong"), short_payloads),
)


def say(conn, thing):
    """Send something, and return the event that the peer must give."""
    match thing:
        case "text", fragments:
            for fragment in fragments[:-1]:
                conn.send_text(fragment, fin=False)
            conn.send_text(fragments[-1])
            return Text("".join(fragments))
        case "bytes of text", places, text:
            data = text.encode()
            ends = sorted(min(place, len(data)) for place in places)
            for start, stop in itertools.pairwise([0, *ends]):
                conn.send_text(data[start:stop], fin=False)
            conn.send_text(data[ends[-1] if ends else 0 :])
            return Text(text)
        case "binary", fragments:
            for fragment in fragments[:-1]:
                conn.send_binary(bytearray(fragment), fin=False)
            conn.send_binary(memoryview(fragments[-1]))
            return Binary(b"".join(fragments))
        case "ping", payload:
            conn.send_ping(payload)
            return Ping(payload)
        case "pong", payload:
            conn.send_pong(payload)
            return Pong(payload)


def closing(conn, code, reason):
    """Send a Close, and return the event that the peer must give."""
    conn.send_close(code, "" if code == 1005 else reason)
    return Close(code, "" if code == 1005 else reason)
