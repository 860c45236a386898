"""What websockets and wsproto make of the same frames, and where they differ from wsframe.

Each of them agrees with us up to the first frame of the stream that is one of its differences.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

import pytest
from hypothesis import event as seen
from hypothesis import given
from hypothesis import strategies as st

from tests.support.core import OTHER, SERVER, Raw
from tests.support.streams import (
    CLOSE,
    CODES,
    CONTINUATION,
    LIMIT,
    TEXT,
    almost_streams,
    closing,
    converse,
    encode,
    reasons,
    roles,
    said_things,
    say,
)
from wsframe.connection import Connection, Role
from wsframe.events import Binary, Close, Fail, Ping, Pong, Text
from wsframe.testing import joined

pytest.importorskip("websockets")
pytest.importorskip("wsproto")

import websockets.client
import websockets.frames
import websockets.protocol
import websockets.server
import websockets.uri
import wsproto.connection
import wsproto.events


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
    data: bytes


def contexts(raws):
    context = Context(None, 0, b"")
    for raw in raws:
        yield raw, context
        if raw.opcode < CLOSE:
            kind = raw.opcode if context.kind is None else context.kind
            size, data = context.size + len(raw.payload), context.data + raw.payload
            context = Context(None, 0, b"") if raw.fin else Context(kind, size, data)


def is_illegal(raw, context):
    """Tell whether the first byte or the masking is enough to refuse the frame."""
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
    data = context.data + raw.payload
    is_text = (raw.opcode if context.kind is None else context.kind) == TEXT
    return is_text and raw.opcode < CLOSE and not raw.fin and b"\xed\xa0" <= data[-2:] <= b"\xed\xbf"


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
        # A frame that must not come and is too big as well: we judge each byte as it arrives, so it is 1002.
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
        # Python's decoder waits for the third byte, which cannot make it right.
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
    data = conn.data_to_send()
    as_they_hear = {"websockets": as_websockets_hears, "wsproto": as_wsproto_hears}[peer]

    class Said:
        @staticmethod
        def encode(_):
            return data

    assert as_they_hear(OTHER[role], [Said], None) == said
