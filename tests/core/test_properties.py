"""What holds for every stream: of the RFC's frames, of almost its frames, and of any bytes.

tests/support/tiers.py has the numbers of examples. ``make fuzz`` tries many more, and others in every run.
"""

from __future__ import annotations

import array
import base64
import hashlib

import pytest
from hypothesis import event as seen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.core import ACCEPT, CLIENT, KEY, OTHER, TOO_BIG, Memory, Raw
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
    closing,
    converse,
    cut,
    cuts,
    frame_bytes,
    head,
    keys,
    payloads,
    reasons,
    roles,
    said_things,
    say,
)
from wsframe import _mask_py, masking
from wsframe.connection import Connection, State
from wsframe.events import Binary, Close, Fail, Ping, Text
from wsframe.server import ServerConnection
from wsframe.testing import TwoEndpoints, check_grammar, joined

# Properties of one end


@pytest.mark.parametrize("begin", BEGINNINGS)
@given(
    data=st.data(), sizes=cuts, ends=st.booleans(), answer=st.sampled_from(["accept", "accept", "reject", ""])
)
def test_chunks_do_not_matter(begin, data, sizes, ends, answer):
    """The same events, the same replies, the same states, wherever the network cuts the stream."""
    _, make, raw = BEGINNINGS[begin]
    stream = data.draw(raw())
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
    _, make, raw = BEGINNINGS[begin]
    stream = data.draw(raw())
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
    role, make, raw = BEGINNINGS[begin]
    stream = data.draw(st.one_of(st.binary(max_size=100), raw()))
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
def test_a_borrowed_buffer_says_what_receive_data_hears(role, data, sizes):
    chunks = cut(data.draw(frame_bytes(role)), sizes)
    copied = converse(Connection(role, max_message_size=LIMIT), [*chunks, b""], echo=False)
    conn = Connection(role, max_message_size=LIMIT)
    buffer = bytearray(max(map(len, chunks), default=0))
    events = []
    for chunk in chunks:
        buffer[: len(chunk)] = chunk
        if chunk:
            conn.read_from(buffer, len(chunk))
        for _ in range(data.draw(st.integers(0, 3))):
            if event := conn.next_event():
                events.append(event)
        conn.release()
        buffer[:] = b"\xa5" * len(buffer)  # others receive into it
    conn.receive_data(b"")
    while event := conn.next_event():
        events.append(event)
    assert events == copied.events


@given(role=roles, data=st.data(), sizes=cuts, fragments=st.booleans())
def test_what_waits_to_be_read_is_less_than_a_control_frame(role, data, sizes, fragments):
    """Of a data frame only the header waits, and of text the beginning of a character."""
    conn = Connection(role, max_message_size=LIMIT, fragments=fragments)
    for chunk in cut(data.draw(frame_bytes(role)), sizes):
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
    transformed = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[offset:]))
    for apply_mask in (masking.apply_mask, _mask_py.apply_mask):
        for kind in (bytes, bytearray, memoryview, lambda raw: array.array("B", raw)):
            assert apply_mask(kind(data[offset:]), key) == transformed
        assert apply_mask(memoryview(bytearray(data))[offset:], key) == transformed
        assert apply_mask(transformed, key) == data[offset:]


# Properties of two ends


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


def test_the_handshake_of_these_streams_is_the_one_of_the_rfc():
    digest = hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    assert base64.b64encode(digest).decode() == ACCEPT
    assert converse(a_client(), [head(RESPONSE)]).end[0] is State.OPEN
    assert converse(ServerConnection(), [head(REQUEST)]).end[0] is State.OPEN
