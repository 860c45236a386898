"""What holds for every stream: of the RFC's frames, of almost its frames, and of any octets.

tests/support/tiers.py has the numbers of examples. ``make fuzz`` tries many more, and others in every run.
"""

from __future__ import annotations

import array
import base64
import codecs
import hashlib
import itertools
from typing import NamedTuple

import pytest
import websockets.client
import websockets.frames
import websockets.protocol
import websockets.server
import websockets.uri
import wsproto.connection
import wsproto.events
from hypothesis import event as seen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.core import ACCEPT, CLIENT, KEY, OTHER, SERVER, TOO_BIG, Memory, Raw
from tests.support.streams import (
    BEGINNINGS,
    BINARY,
    CLOSE,
    CODES,
    CONTINUATION,
    LIMIT,
    PONG,
    REQUEST,
    RESPONSE,
    TEXT,
    a_client,
    almost_streams,
    converse,
    cut,
    cuts,
    encode,
    frame_octets,
    head,
    keys,
    payloads,
    reasons,
    roles,
    short_payloads,
)
from wsframe import masking
from wsframe.connection import Connection, Role, State
from wsframe.events import Binary, Close, Fail, Ping, Pong, Text
from wsframe.server import ServerConnection
from wsframe.testing import TwoEndpoints, check_grammar, joined

# Properties of one end


@pytest.mark.parametrize("begin", BEGINNINGS)
@given(
    data=st.data(), sizes=cuts, ends=st.booleans(), answer=st.sampled_from(["accept", "accept", "reject", ""])
)
def test_chunks_do_not_matter(begin, data, sizes, ends, answer):
    """The same events, the same replies, the same states, wherever the network cuts the stream."""
    _, make, octets = BEGINNINGS[begin]
    stream = data.draw(octets())
    close_after = data.draw(st.sampled_from([None, 1, 2]))
    end = [b""] if ends else []
    whole = converse(
        make(max_message_size=LIMIT),
        [stream, *end] if stream else end,
        answer=answer,
        close_after=close_after,
    )
    in_chunks = converse(
        make(max_message_size=LIMIT), cut(stream, sizes) + end, answer=answer, close_after=close_after
    )
    assert in_chunks == whole
    seen(f"{len(whole.events)} events")


@pytest.mark.parametrize("begin", BEGINNINGS)
@given(data=st.data(), sizes=cuts)
def test_pieces_make_up_the_same_messages(begin, data, sizes):
    _, make, octets = BEGINNINGS[begin]
    stream = data.draw(octets())
    chunks = [*cut(stream, sizes), b""]
    whole = converse(make(max_message_size=LIMIT), chunks, echo=False)
    pieces = converse(make(max_message_size=LIMIT, fragments=True), chunks, echo=False)
    assert joined(pieces.events) == whole.events
    assert pieces[2:] == whole[2:]
    for event in pieces.events:
        if isinstance(event, (Text, Binary)):
            assert event.data or event.final


@pytest.mark.parametrize("begin", BEGINNINGS)
@given(data=st.data(), sizes=cuts, ends=st.booleans(), fragments=st.booleans(), more=st.binary(min_size=1))
def test_whatever_comes_in_fits_the_grammar(begin, data, sizes, ends, fragments, more):
    """Only documented events; at most one Close out, the last frame; nothing after the end."""
    role, make, octets = BEGINNINGS[begin]
    stream = data.draw(st.one_of(st.binary(max_size=100), octets()))
    conn = make(max_message_size=LIMIT, fragments=fragments)
    heard = converse(conn, cut(stream, sizes) + [b""] * ends)
    check_grammar(heard.events, conn)
    opcodes = [opcode for opcode, _, _ in heard.frames]
    assert opcodes.count(CLOSE) == (conn.close_sent is not None)
    after = opcodes[opcodes.index(CLOSE) + 1 :] if CLOSE in opcodes else []
    assert after == []
    if ends:
        assert isinstance(heard.events[-1], (Close, Fail))
        assert (conn.state, conn.should_close) == (State.CLOSED, True)
    if heard.events and isinstance(heard.events[-1], (Close, Fail)):
        before = (conn.state, conn.should_close, conn.close_sent, conn.close_received)
        if not ends:
            conn.receive_data(more)
        assert conn.next_event() is None
        assert (conn.state, conn.should_close, conn.close_sent, conn.close_received) == before
        assert (conn.data_to_send(), conn.unread) == (b"", 0)
        assert conn.state in (State.CLOSING, State.CLOSED)
        assert conn.should_close or (role is CLIENT and isinstance(heard.events[-1], Close))


@given(role=roles, data=st.data(), sizes=cuts)
def test_the_buffer_hears_what_receive_data_hears(role, data, sizes):
    stream = data.draw(frame_octets(role))
    chunks = cut(stream, sizes)
    copied = converse(Connection(role, max_message_size=LIMIT), [*chunks, b""], echo=False)
    conn = Connection(role, max_message_size=LIMIT)
    events = []
    for chunk in [*chunks, b""]:
        while True:
            with conn.get_buffer(data.draw(st.sampled_from([-1, 1, 5, 4096]))) as buffer:
                count = min(len(buffer), len(chunk))
                buffer[:count] = chunk[:count]
            conn.buffer_updated(count)
            while event := conn.next_event():
                events.append(event)
            chunk = chunk[count:]
            if not chunk:
                break
    assert events == copied.events


@given(role=roles, data=st.data(), sizes=cuts)
def test_a_borrowed_buffer_says_what_receive_data_hears(role, data, sizes):
    chunks = cut(data.draw(frame_octets(role)), sizes)
    copied = converse(Connection(role, max_message_size=LIMIT), [*chunks, b""], echo=False)
    conn = Connection(role, max_message_size=LIMIT)
    buffer = bytearray(max(map(len, chunks), default=0))
    events = []
    for chunk in chunks:
        buffer[: len(chunk)] = chunk
        if chunk:
            conn.borrow(buffer, len(chunk))
        for _ in range(data.draw(st.integers(0, 3))):
            if event := conn.next_event():
                events.append(event)
        conn.give_back()
        buffer[:] = b"\xa5" * len(buffer)  # others receive into it
    conn.receive_data(b"")
    while event := conn.next_event():
        events.append(event)
    assert events == copied.events


@given(role=roles, data=st.data(), sizes=cuts, fragments=st.booleans())
def test_what_waits_to_be_read_is_less_than_a_control_frame(role, data, sizes, fragments):
    """Of a data frame only the header waits, and of text the beginning of a character."""
    conn = Connection(role, max_message_size=LIMIT, fragments=fragments)
    for chunk in cut(data.draw(frame_octets(role)), sizes):
        conn.receive_data(chunk)
        while conn.next_event():
            pass
        assert conn.unread < 6 + 125


@settings(max_examples=max(10, settings().max_examples // 10))
@given(
    role=roles,
    fragments=st.booleans(),
    size=st.integers(1, 1000),
    cut_at=st.integers(1, 5000),
    text=st.booleans(),
)
def test_what_is_held_is_less_than_the_limit_and_a_constant(role, fragments, size, cut_at, text):
    limit = 50_000
    conn = Connection(role, max_message_size=limit, fragments=fragments)
    fragment = Raw(CONTINUATION, b"a" * size).encode(role)
    stream = Raw(TEXT if text else BINARY).encode(role) + fragment * (2 * limit // size)
    last = None
    with Memory() as memory:
        for i in range(0, len(stream), cut_at):
            conn.receive_data(stream[i : i + cut_at])
            while event := conn.next_event():
                last = event
    assert last == TOO_BIG
    # A buffer that grows is up to an eighth larger than what it holds, and there is the old one to copy from.
    assert memory.peak < (0 if fragments else 2.25 * limit) + 4 * cut_at + 20_000


@given(data=payloads, key=keys, offset=st.integers(0, 9))
@example(bytes(641), b"\1\2\3\4", 0)
@example(bytes(range(256)) * 1000, b"\xff\0\x80\x7f", 3)
def test_the_mask_in_use_is_the_mask_in_python_and_that_of_the_rfc(data, key, offset):
    """Section 5.3: transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4)."""
    transformed = bytes(octet ^ key[i % 4] for i, octet in enumerate(data[offset:]))
    for apply_mask in (masking.apply_mask, masking.pure_apply_mask):
        for kind in (bytes, bytearray, memoryview, lambda octets: array.array("B", octets)):
            assert apply_mask(kind(data[offset:]), key) == transformed
        assert apply_mask(memoryview(bytearray(data))[offset:], key) == transformed
        assert apply_mask(transformed, key) == data[offset:]


# Properties of two ends


said_texts = st.text(max_size=300)
said_things = st.one_of(
    st.tuples(st.just("text"), st.lists(said_texts, min_size=1, max_size=4)),
    st.tuples(st.just("octets of text"), st.lists(st.integers(0, 300), max_size=3), said_texts),
    st.tuples(st.just("binary"), st.lists(payloads, min_size=1, max_size=4)),
    st.tuples(st.just("ping"), short_payloads),
    st.tuples(st.just("pong"), short_payloads),
)


def say(conn, thing):
    """Say something, and return the event that the peer must hear."""
    match thing:
        case "text", fragments:
            for fragment in fragments[:-1]:
                conn.send_text(fragment, fin=False)
            conn.send_text(fragments[-1])
            return Text("".join(fragments))
        case "octets of text", places, text:
            octets = text.encode()
            ends = sorted(min(place, len(octets)) for place in places)
            for start, stop in itertools.pairwise([0, *ends]):
                conn.send_text(octets[start:stop], fin=False)
            conn.send_text(octets[ends[-1] if ends else 0 :])
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
    conn.send_close(code, "" if code == 1005 else reason)
    return Close(code, "" if code == 1005 else reason)


@given(
    role=roles,
    things=st.lists(said_things, max_size=6),
    code=st.sampled_from([*CODES, 1005]),
    reason=reasons,
    sizes=cuts,
)
def test_what_one_end_says_the_other_hears(role, things, code, reason, sizes):
    conn, peer = Connection(role), Connection(OTHER[role])
    said = [say(conn, thing) for thing in things]
    said.append(closing(conn, code, reason))
    heard = converse(peer, cut(conn.data_to_send(), sizes), echo=False)
    assert heard.events == said
    # The answers: a Pong to each Ping, and the Close.
    pings = [(PONG, True, event.payload) for event in said if isinstance(event, Ping)]
    assert heard.frames[:-1] == pings
    assert heard.frames[-1][0] == CLOSE
    assert peer.close_sent == peer.close_received == conn.close_sent


class Endpoints(TwoEndpoints):
    """A client and a server over a wire that cuts, delays, and breaks: see wsframe.testing."""


Endpoints.TestCase.settings = settings(
    max_examples=settings().max_examples // 2, stateful_step_count=40, deadline=None
)
TestEndpoints = Endpoints.TestCase


# Differential: what others hear in the same frames
#
# Each of them agrees with us up to the first frame of the stream that is one of its differences.


def as_we_hear(role, raws, limit):
    chunks = [encode(role, raws)] if raws else []
    heard = converse(Connection(role, max_message_size=limit), chunks, echo=False).events
    return [Fail(event.code) if isinstance(event, Fail) else event for event in heard]


def as_websockets_hears(role, raws, limit=LIMIT):
    if role is SERVER:
        protocol = websockets.server.ServerProtocol(state=websockets.protocol.OPEN, max_size=limit)
    else:
        uri = websockets.uri.parse_uri("ws://localhost/")
        protocol = websockets.client.ClientProtocol(uri, state=websockets.protocol.OPEN, max_size=limit)
    protocol.receive_data(encode(role, raws))
    events, message, kind = [], b"", None
    decoder = codecs.getincrementaldecoder("utf-8")()
    for frame in protocol.events_received():
        match frame.opcode:
            case websockets.frames.Opcode.PING:
                events.append(Ping(bytes(frame.data)))
            case websockets.frames.Opcode.PONG:
                events.append(Pong(bytes(frame.data)))
            case websockets.frames.Opcode.CLOSE:
                close = websockets.frames.Close.parse(frame.data)
                events.append(Close(int(close.code), close.reason))
            case _:
                # websockets leaves it to its adapters to judge text.
                kind = frame.opcode if frame.opcode else kind
                message += frame.data
                if kind is websockets.frames.Opcode.TEXT:
                    try:
                        decoder.decode(frame.data, frame.fin)
                    except UnicodeDecodeError:
                        return [*events, Fail(1007)]
                if frame.fin:
                    is_text = kind is websockets.frames.Opcode.TEXT
                    events.append(Text(message.decode()) if is_text else Binary(bytes(message)))
                    message = b""
    if protocol.parser_exc is not None:
        events.append(Fail(int(protocol.close_sent.code)))
    return events


def as_wsproto_hears(role, raws, limit=None):
    assert limit is None  # it has none
    kind = (
        wsproto.connection.ConnectionType.SERVER
        if role is SERVER
        else wsproto.connection.ConnectionType.CLIENT
    )
    conn = wsproto.connection.Connection(kind)
    conn.receive_data(encode(role, raws))
    events = []
    for event in conn.events():
        match event:
            case wsproto.events.TextMessage():
                events.append(Text(event.data, event.message_finished))
            case wsproto.events.BytesMessage():
                events.append(Binary(bytes(event.data), event.message_finished))
            case wsproto.events.Ping():
                events.append(Ping(bytes(event.payload)))
            case wsproto.events.Pong():
                events.append(Pong(bytes(event.payload)))
            case wsproto.events.CloseConnection():
                # A violation is told as a Close as well; only the state does not change.
                failed = conn.state is wsproto.connection.ConnectionState.OPEN
                events.append(Fail(int(event.code)) if failed else Close(int(event.code), event.reason))
    return joined(events)


class Context(NamedTuple):
    """What came before a frame: the message that it may continue."""

    kind: int | None  # None between messages
    size: int
    octets: bytes


def contexts(raws):
    context = Context(None, 0, b"")
    for raw in raws:
        yield raw, context
        if raw.opcode < CLOSE:
            kind = raw.opcode if context.kind is None else context.kind
            size, octets = context.size + len(raw.payload), context.octets + raw.payload
            context = Context(None, 0, b"") if raw.fin else Context(kind, size, octets)


def is_illegal(raw, context):
    """Tell whether the first octet or the masking is enough to refuse the frame."""
    if not raw.masked or raw.first & 0x70 or raw.opcode not in (0, 1, 2, 8, 9, 10):
        return True
    if raw.opcode >= CLOSE:
        return not raw.fin or raw.announced > 125
    return (raw.opcode == CONTINUATION) is (context.kind is None)


def is_illegal_and_not_there(raw, context):
    return raw.announced > len(raw.payload) and is_illegal(raw, context)


def is_minimal(raw):
    return raw.form <= (0 if raw.announced < 126 else 2 if raw.announced < 65536 else 8)


def holds_half_a_surrogate(raw, context):
    octets = context.octets + raw.payload
    is_text = (raw.opcode if context.kind is None else context.kind) == TEXT
    return is_text and raw.opcode < CLOSE and not raw.fin and b"\xed\xa0" <= octets[-2:] <= b"\xed\xbf"


def has_close_of_two_faults(raw, context):
    if raw.opcode != CLOSE or len(raw.payload) < 2 or int.from_bytes(raw.payload[:2], "big") in CODES:
        return False
    try:
        raw.payload[2:].decode()
    except UnicodeDecodeError:
        return True
    return False


DIFFERENCES = {
    "websockets": {
        # Section 5.2: "the minimal number of bytes MUST be used to encode the length"
        "takes lengths that are not minimal": lambda raw, context: not is_minimal(raw),
        # Section 5.2: "the most significant bit MUST be 0": 1002 here, 1009 there
        "finds a length of 2**63 too big, not illegal": lambda raw, context: raw.announced >= 2**63,
        # A frame that must not come and is too big as well: we judge each octet as it arrives, so it is 1002.
        "judges the length before the opcode": lambda raw, context: (
            is_illegal(raw, context) and context.size + raw.announced > LIMIT
        ),
        # The limit is for the message, which a control frame between its fragments is no part of.
        "counts control frames within a message": lambda raw, context: (
            raw.opcode >= CLOSE and context.size + raw.announced > LIMIT
        ),
        # Section 5.4: "Control frames MAY be injected in the middle of a fragmented message", Close is one.
        "fails when a Close comes within a message": lambda raw, context: (
            raw.opcode == CLOSE and context.kind is not None
        ),
        # 1002 here for the status code, 1007 there for the reason
        "judges the reason before the code": has_close_of_two_faults,
        # Python's decoder waits for the third octet, which cannot make it right.
        "holds back half a surrogate": holds_half_a_surrogate,
        # It waits for the payload, which we don't need to see that the frame is illegal.
        "reads a frame before it judges it": is_illegal_and_not_there,
    },
    "wsproto": {
        # No limit means 2**63 - 1 here, and what is left of that for a further fragment.
        "has no limit at all": lambda raw, context: raw.announced < 2**63 <= context.size + raw.announced,
        # IANA registered it in 2016.
        "does not know status code 1014": lambda raw, context: (
            raw.opcode == CLOSE and raw.payload[:2] == (1014).to_bytes(2, "big")
        ),
        "holds back half a surrogate": holds_half_a_surrogate,
        # Fragments are judged together with their payload.
        "reads a frame before it judges it": is_illegal_and_not_there,
    },
}
PEERS = {"websockets": (as_websockets_hears, LIMIT), "wsproto": (as_wsproto_hears, None)}


def up_to_a_difference(peer, raws):
    """Return the frames before the first that is a listed difference, and its name or None."""
    for count, (raw, context) in enumerate(contexts(raws)):
        for name, is_different in DIFFERENCES[peer].items():
            if is_different(raw, context):
                return raws[:count], name
        if raw.length is not None:
            # What follows is its payload, and no frame.
            return raws[: count + 1], None
    return raws, None


@pytest.mark.parametrize("peer", PEERS)
@given(role=roles, raws=almost_streams())
def test_another_library_hears_the_same(peer, role, raws):
    hears, limit = PEERS[peer]
    raws, difference = up_to_a_difference(peer, raws)
    seen(difference or "no difference")
    assert as_we_hear(role, raws, limit) == hears(role, raws, limit)


SHOWN = {
    ("websockets", "takes lengths that are not minimal"): (
        [Raw(0x82, b"a", form=2)],
        [Fail(1002)],
        [Binary(b"a")],
    ),
    ("websockets", "finds a length of 2**63 too big, not illegal"): (
        [Raw(0x82, length=2**63)],
        [Fail(1002)],
        [Fail(1009)],
    ),
    ("websockets", "judges the length before the opcode"): (
        [Raw(0x80, length=LIMIT + 1)],
        [Fail(1002)],
        [Fail(1009)],
    ),
    ("websockets", "counts control frames within a message"): (
        [Raw(0x02, bytes(LIMIT)), Raw(0x89, b"a")],
        [Ping(b"a")],
        [Fail(1009)],
    ),
    ("websockets", "fails when a Close comes within a message"): (
        [Raw(0x02, b"a"), Raw(0x88, b"\x03\xe8")],
        [Close(1000)],
        [Fail(1002)],
    ),
    ("websockets", "judges the reason before the code"): (
        [Raw(0x88, b"\x03\xed\xff")],
        [Fail(1002)],
        [Fail(1007)],
    ),
    ("websockets", "holds back half a surrogate"): ([Raw(0x01, b"\xed\xa0")], [Fail(1007)], []),
    ("websockets", "reads a frame before it judges it"): ([Raw(0x80, length=LIMIT)], [Fail(1002)], []),
    ("wsproto", "has no limit at all"): ([Raw(0x02, b"a"), Raw(0x00, length=2**63 - 1)], [Fail(1009)], []),
    ("wsproto", "reads a frame before it judges it"): ([Raw(0x80, length=LIMIT)], [Fail(1002)], []),
    ("wsproto", "does not know status code 1014"): ([Raw(0x88, b"\x03\xf6")], [Close(1014)], [Fail(1002)]),
    ("wsproto", "holds back half a surrogate"): ([Raw(0x01, b"\xed\xa0")], [Fail(1007)], []),
}


@pytest.mark.parametrize(
    ("peer", "name"), [(peer, name) for peer, names in DIFFERENCES.items() for name in names]
)
@pytest.mark.parametrize("role", Role)
def test_another_library_differs_where_it_is_listed(peer, name, role):
    raws, ours, theirs = SHOWN[peer, name]
    hears, limit = PEERS[peer]
    assert as_we_hear(role, raws, limit) == ours
    assert [event for event in hears(role, raws, limit) if not isinstance(event, Text)] == theirs
    assert up_to_a_difference(peer, raws) == (raws[:-1], name)


@pytest.mark.parametrize("peer", PEERS)
@given(
    role=roles,
    things=st.lists(said_things, max_size=6),
    code=st.sampled_from([c for c in CODES if c != 1014]),
    reason=reasons,
)
def test_another_library_hears_what_we_say(peer, role, things, code, reason):
    conn = Connection(role)
    said = [say(conn, thing) for thing in things]
    said.append(closing(conn, code, reason))
    octets = conn.data_to_send()
    as_they_hear = {"websockets": as_websockets_hears, "wsproto": as_wsproto_hears}[peer]

    class Said:
        @staticmethod
        def encode(_):
            return octets

    assert as_they_hear(OTHER[role], [Said], None) == said


def test_the_handshake_of_these_streams_is_the_one_of_the_rfc():
    digest = hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    assert base64.b64encode(digest).decode() == ACCEPT
    assert converse(a_client(), [head(RESPONSE)]).end[0] is State.OPEN
    assert converse(ServerConnection(), [head(REQUEST)]).end[0] is State.OPEN
