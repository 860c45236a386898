"""What wsframe.testing promises: to who tests an endpoint, and to who tests a handler."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.stateful import run_state_machine_as_test

from tests.support.core import CLIENT, LOST, OTHER, SERVER, frames_of
from tests.support.tiers import full
from wsframe import ConnectionClosed, HandshakeRejected, encode_frame, testing
from wsframe.client import ClientConnection
from wsframe.connection import Connection, Role, State
from wsframe.deflate import Deflate
from wsframe.errors import LocalProtocolError, RemoteProtocolError
from wsframe.events import Binary, Close, Fail, Ping, Pong, Request, Response, Text
from wsframe.frames import Frame, FrameDecoder, Opcode
from wsframe.server import ServerConnection

roles = st.sampled_from(Role)
# A registered profile would be that of all test modules.
quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
EVENTS = (Request, Response, Text, Binary, Ping, Pong, Close, Fail)


def listen(conn, chunks, *, end=False):
    heard = []
    for chunk in [*chunks, *([b""] if end else [])]:
        conn.receive_data(chunk)
        while event := conn.next_event():
            heard.append(event)
            if isinstance(event, Request):
                conn.accept()
    return heard


def check_makes(strategy, traits_of, wanted):
    """Check that a strategy makes examples with all the wanted traits, perhaps each in another example.

    Hypothesis sees the traits only. It would warn of an example of many bytes.
    """
    missing = set(wanted)

    def is_complete(traits):
        missing.difference_update(traits)
        return not missing

    patience = settings(quick, max_examples=20_000, phases=[Phase.generate])
    with contextlib.suppress(NoSuchExample):
        find(strategy.map(lambda example: set(traits_of(example))), is_complete, settings=patience)
    assert not missing


def simplest(strategy, condition):
    """Return what Hypothesis shrinks such an example to."""
    return find(strategy, condition, settings=settings(quick, max_examples=100))


# Strategies


@quick
@given(payload=testing.payloads(max_size=300))
def test_payloads_are_bytes_up_to_a_size(payload):
    assert type(payload) is bytes
    assert len(payload) <= 300


def test_payloads_reach_the_sizes_where_the_header_changes():
    lengths = [0, 125, 126, 65535, 65536]
    check_makes(testing.payloads(max_size=70_000), lambda payload: [len(payload)], lengths)


@quick
@given(message=testing.messages(max_size=50))
def test_messages_are_what_can_be_sent(message):
    pair = testing.pair()
    if isinstance(message, Text):
        assert len(message.data.encode()) <= 50
        pair.client.send_text(message.data)
    else:
        assert len(message.data) <= 50
        pair.client.send_binary(message.data)
    assert pair.pump().server == [message]


@quick
@given(role=roles, data=st.data())
def test_events_are_what_a_connection_may_say(role, data):
    event = data.draw(testing.events(role))
    assert isinstance(event, EVENTS)
    assert not isinstance(event, Request if role is CLIENT else Response)
    conn = Connection(role)
    if not isinstance(event, (Request, Response)):
        testing.check_grammar([event], conn)


@pytest.mark.parametrize("role", Role)
def test_events_are_of_every_kind(role):
    kinds = set(EVENTS) - {Request if role is CLIENT else Response}
    check_makes(testing.events(role), lambda event: [type(event)], kinds)


@quick
@given(frame=testing.frames(), role=roles)
def test_frames_are_legal_by_themselves(frame, role):
    assert type(frame) is Frame
    decoder = FrameDecoder(masked=role is SERVER)
    decoder.feed(
        encode_frame(frame.opcode, frame.payload, frame.fin, frame.rsv, bytes(4) if role is SERVER else None)
    )
    assert decoder.next_frame() == frame
    if frame.opcode is Opcode.CLOSE:
        conn = Connection(CLIENT)
        heard = listen(conn, [encode_frame(frame.opcode, frame.payload)])
        assert [type(event) for event in heard] == [Close]


def test_frames_are_of_the_opcodes_that_are_wanted():
    for opcode in Opcode:
        assert simplest(testing.frames(), lambda frame, opcode=opcode: frame.opcode is opcode) == Frame(
            opcode
        )
    for opcode in (Opcode.PING, Opcode.PONG):
        assert find(testing.frames(opcodes=[opcode]), lambda _: True).opcode is opcode


@quick
@given(role=roles, data=st.data())
def test_hostile_frames_are_read_or_refused(role, data):
    decoder = FrameDecoder(masked=role is SERVER, max_size=1000)
    decoder.feed(data.draw(testing.frames(role, hostile=True)))
    try:
        while decoder.next_frame():
            pass
        code = None
    except RemoteProtocolError as error:
        code = error.code
    assert code in (None, 1002, 1009)


RULES = [
    "reserved bits",
    "masked",
    "minimally",
    "opcode",
    "status code",
    "too big",
    "UTF-8",
    "fragmented",
    "2**63",
    "125 bytes",
    "1 byte long",
]


@pytest.mark.parametrize("role", Role)
def test_hostile_frames_break_every_rule(role):
    def broken_rules(data):
        reasons = [event.reason for event in listen(Connection(role), [data]) if isinstance(event, Fail)]
        return [rule for rule in RULES for reason in reasons if rule in reason]

    check_makes(testing.frames(role, hostile=True), broken_rules, RULES)


WAYS = {
    "plain": {},
    "compressed": {"compression": Deflate(threshold=0)},
    "compressed anew": {
        "compression": Deflate(
            client_no_context_takeover=True, server_no_context_takeover=True, client_max_window_bits=9
        )
    },
}


@pytest.mark.parametrize("way", WAYS)
@settings(quick)
@given(role=roles, data=st.data())
def test_legal_streams_are_heard_as_they_were_meant(way, role, data):
    options = WAYS[way]
    stream = data.draw(testing.streams(role, **options))
    conn = Connection(role, **options)
    heard = listen(conn, data.draw(testing.chunked(stream)))
    assert heard == list(stream.events)
    testing.check_grammar(heard, conn)
    is_closed = bool(heard) and isinstance(heard[-1], Close)
    # Nothing is documented to come after that but the end of a stream without a Close.
    assert listen(conn, [], end=True) == ([] if is_closed else [LOST])


@quick
@given(role=roles, data=st.data(), close=st.booleans())
def test_streams_end_with_a_close_or_not_as_it_is_wished(role, data, close):
    stream = data.draw(testing.streams(role, close=close, max_messages=2, max_size=3))
    assert any(isinstance(event, Close) for event in stream.events) is close
    messages = [event for event in stream.events if isinstance(event, (Text, Binary))]
    assert len(messages) <= 2
    assert all(len(event.data) <= 3 for event in messages)


# The strategies mask what a client sends, and else do the same for both roles.
one_role = pytest.mark.parametrize("role", [CLIENT, pytest.param(SERVER, marks=full)])


@one_role
def test_streams_are_fragmented_and_compressed_with_controls_in_between(role):
    def pairs_of_frames(data):
        frames = frames_of(OTHER[role], data)
        return itertools.pairwise((int(frame.opcode), frame.fin, frame.rsv) for frame in frames)

    strategy = testing.streams(role, compression=Deflate(), max_messages=1, max_size=20, close=False)
    first = (2, False, 4)
    check_makes(strategy, pairs_of_frames, [(first, (9, True, 0)), (first, (0, True, 0))])


@pytest.mark.parametrize("way", WAYS)
@settings(quick)
@given(role=roles, data=st.data(), ends=st.booleans())
def test_hostile_streams_give_documented_events_only(way, role, data, ends):
    options = WAYS[way]
    raw = data.draw(testing.streams(role, hostile=True, **options))
    conn = Connection(role, max_message_size=1000, **options)
    heard = listen(conn, data.draw(testing.chunked(raw)), end=ends)
    testing.check_grammar(heard, conn)
    assert {event.code for event in heard if isinstance(event, Fail)} <= {1002, 1006, 1007, 1009}
    assert all(event.code != 1006 for event in heard if isinstance(event, Fail)) or ends


@one_role
def test_hostile_streams_are_hostile(role):
    def codes(data):
        return [event.code for event in listen(Connection(role), [data]) if isinstance(event, Fail)]

    check_makes(testing.streams(role, hostile=True), codes, [1002, 1007, 1009])


@quick
@given(raw=st.binary(max_size=200), data=st.data(), max_pieces=st.integers(1, 10))
def test_chunked_joins(raw, data, max_pieces):
    pieces = data.draw(testing.chunked(raw, max_pieces=max_pieces))
    assert b"".join(pieces) == raw
    assert all(pieces)
    assert len(pieces) <= max_pieces


def test_chunked_cuts_not_at_all_or_everywhere_and_takes_a_strategy():
    assert simplest(testing.chunked(b"abc"), lambda _: True) == [b"abc"]
    check_makes(testing.chunked(bytes(100)), lambda pieces: [len(pieces)], [100])
    check_makes(testing.chunked(testing.streams(CLIENT)), lambda pieces: [len(pieces)], [2])


SUBPROTOCOLS = ("chat", "superchat")


@quick
@given(data=st.data())
def test_requests_open_a_server(data):
    raw = data.draw(testing.handshakes(SERVER, subprotocols=SUBPROTOCOLS, compression=True))
    conn = ServerConnection(subprotocols=SUBPROTOCOLS)
    (request,) = listen(conn, data.draw(testing.chunked(raw)))
    assert conn.state is State.OPEN
    assert set(request.subprotocols) <= set(SUBPROTOCOLS)
    assert request.path == raw.split()[1].decode()
    assert testing.key_of(raw) == testing.SAMPLE_KEY


@quick
@given(data=st.data())
def test_responses_open_a_client(data):
    conn = ClientConnection("ws://localhost/", subprotocols=SUBPROTOCOLS)
    key = testing.key_of(conn.data_to_send())
    raw = data.draw(testing.handshakes(CLIENT, key=key, subprotocols=SUBPROTOCOLS, compression=True))
    (response,) = listen(conn, data.draw(testing.chunked(raw)))
    assert response.status == 101
    assert conn.state is State.OPEN
    assert conn.subprotocol in (None, *SUBPROTOCOLS)


def test_handshakes_offer_and_accept_what_they_may():
    for role, texts in [
        (SERVER, [b"chat, superchat", b"permessage-deflate"]),
        (CLIENT, [b"Protocol: superchat"]),
    ]:
        strategy = testing.handshakes(role, subprotocols=SUBPROTOCOLS, compression=True)
        check_makes(strategy, lambda data, texts=texts: [text for text in texts if text in data], texts)
        plain = find(testing.handshakes(role), lambda _: True)
        assert b"Sec-WebSocket-Protocol" not in plain
        assert b"Sec-WebSocket-Extensions" not in plain


def test_there_is_no_key_where_there_is_none():
    with pytest.raises(ValueError, match="no Sec-WebSocket-Key"):
        testing.key_of(b"GET / HTTP/1.1\r\n\r\n")


@quick
@given(role=roles, data=st.data(), ends=st.booleans())
def test_hostile_handshakes_give_documented_events_only(role, data, ends):
    conn = ServerConnection() if role is SERVER else ClientConnection("ws://localhost/")
    key = testing.SAMPLE_KEY if role is SERVER else testing.key_of(conn.data_to_send())
    raw = data.draw(testing.handshakes(role, hostile=True, key=key))
    heard = listen(conn, data.draw(testing.chunked(raw, max_pieces=20)), end=ends)
    testing.check_grammar(heard, conn)


def test_hostile_requests_are_refused_for_many_reasons():
    def statuses(data):
        conn = ServerConnection()
        listen(conn, [data])
        return conn.data_to_send().split()[1:2]

    check_makes(testing.handshakes(SERVER, hostile=True), statuses, [b"400", b"405", b"426", b"431", b"505"])


@quick
@given(offers=testing.deflate_offers(), wish=st.builds(Deflate, server_max_window_bits=st.integers(9, 15)))
def test_deflate_offers_are_accepted(offers, wish):
    accepted = wish.accept(offers)
    # A window of 8 bits is legal, but zlib cannot compress with it.
    if any("server_max_window_bits=8" not in offer.replace('"', "") for offer in offers.split(",")):
        assert accepted is not None
    assert accepted is None or accepted[1].server_max_window_bits <= wish.server_max_window_bits


@quick
@given(offers=testing.deflate_offers(hostile=True))
def test_hostile_deflate_offers_are_accepted_declined_or_malformed(offers):
    try:
        verdict = (Deflate().accept(offers) or ("declined",))[0]
    except RemoteProtocolError as error:
        verdict = error.reason
    assert verdict.startswith(("permessage-deflate", "declined", "Sec-WebSocket-Extensions is malformed"))


def test_hostile_deflate_offers_are_declined_for_what_stands_in_them():
    texts = ("=16", "unknown", "Permessage-Deflate", '="15')

    def reasons(offers):
        try:
            return [] if Deflate().accept(offers) else [text for text in texts[:3] if text in offers]
        except RemoteProtocolError:
            return [text for text in texts[3:] if text in offers]

    check_makes(testing.deflate_offers(hostile=True, max_offers=1), reasons, texts)


# Pairs


@quick
@given(
    to_server=st.lists(testing.messages(), max_size=4),
    to_client=st.lists(testing.messages(), max_size=4),
    sizes=st.one_of(st.none(), st.lists(st.integers(1, 50), min_size=1, max_size=3)),
    handshake=st.booleans(),
    compression=st.sampled_from([None, Deflate(threshold=0)]),
    fragments=st.booleans(),
)
def test_a_pair_loses_nothing(to_server, to_client, sizes, handshake, compression, fragments):
    pair = testing.pair(handshake=handshake, compression=compression, sizes=sizes, fragments=fragments)
    opening = pair.pump()
    assert [type(event) for event in (*opening.server, *opening.client)] == [Request, Response] * handshake
    for conn, messages in ((pair.client, to_server), (pair.server, to_client)):
        assert conn.state is State.OPEN
        assert (conn.compression is None) is (compression is None)
        for message in messages:
            conn.send_message(message.data)
    heard = pair.pump()
    assert testing.joined(heard.server) == to_server
    assert testing.joined(heard.client) == to_client
    pair.client.send_close(4000, "bye")
    assert pair.pump() == ([Close(4000, "bye")], [Close(4000, "bye")])
    assert pair.client.state is pair.server.state is State.CLOSED
    assert pair.pump() == ([], [])


@quick
@given(
    messages=st.lists(testing.messages(), min_size=1, max_size=4),
    cut_after=st.integers(0, 2000),
    handshake=st.booleans(),
    sizes=st.sampled_from([None, [1], [7, 100]]),
)
def test_a_wire_that_is_cut_ends_both_streams(messages, cut_after, handshake, sizes):
    pair = testing.pair(handshake=handshake, cut_after=cut_after, sizes=sizes)
    opening = pair.pump()
    said = []
    if pair.client.state is State.OPEN:
        for message in messages:
            pair.client.send_message(message.data)
        said = messages
    heard = pair.pump()
    server, client = opening.server + heard.server, opening.client + heard.client
    arrived = [event for event in server if isinstance(event, (Text, Binary))]
    assert arrived == said[: len(arrived)]
    if pair.is_cut:
        assert pair.client.state is pair.server.state is State.CLOSED
        assert isinstance(server[-1], Fail)
        assert isinstance(client[-1], Fail)
    else:
        assert arrived == said


def test_a_wire_carries_exactly_as_many_bytes_as_it_is_to():
    pair = testing.pair(cut_after=6 + 4 + 5)
    pair.client.send_text("abcd")
    pair.client.send_text("lost")
    assert [type(event) for event in pair.pump().server] == [Text, Fail]
    pair = testing.pair(cut_after=6 + 4)
    pair.client.send_text("abcd")
    assert pair.pump().server == [
        Text("abcd"),
        LOST,
    ]


def test_a_wire_can_be_cut_at_any_time():
    pair = testing.pair()
    pair.server.send_text("lost")
    assert not pair.is_cut
    pair.cut()
    heard = pair.pump()
    assert pair.is_cut
    assert [type(event) for event in (*heard.client, *heard.server)] == [Fail, Fail]


def test_a_pair_splits_bytes_into_pieces_of_the_sizes_given():
    class Counting(Connection):
        def __init__(self, role):
            super().__init__(role)
            self.pieces = []

        def receive_data(self, data):
            self.pieces.append(len(data))
            super().receive_data(data)

    server = Counting(SERVER)
    pair = testing.Pair(Connection(CLIENT), server, sizes=[1, 3])
    pair.client.send_text("abc")
    assert pair.pump().server == [Text("abc")]
    assert server.pieces == [1, 3, 1, 3, 1]


@pytest.mark.parametrize("options", [{"sizes": []}, {"sizes": [1, 0]}, {"cut_after": -1}])
def test_a_pair_refuses_what_it_cannot_do(options):
    with pytest.raises(ValueError, match="must"):
        testing.pair(**options)


def test_a_pair_answers_requests_as_it_is_told():
    options = {
        "handshake": True,
        "uri": "ws://localhost/a",
        "subprotocols": ["chat"],
        "additional_headers": [("X-A", "b")],
    }
    requests = []
    pair = testing.pair(**options, process_request=requests.append)
    (response,) = pair.pump().client
    assert (response.status, pair.client.subprotocol, pair.server.subprotocol) == (101, "chat", "chat")
    assert [(request.path, request.headers.get("x-a")) for request in requests] == [("/a", "b")]

    pair = testing.pair(**options, process_request=lambda _: Response(101, [("X-C", "d")]))
    assert pair.pump().client[0].headers.get("x-c") == "d"

    pair = testing.pair(**options, process_request=lambda _: Response(403, body=b"no"))
    response, fail = pair.pump().client
    assert (response.status, response.body, type(fail)) == (403, b"no", Fail)
    assert pair.client.state is pair.server.state is State.CLOSED


def test_a_pair_has_limits():
    pair = testing.pair(max_message_size=3)
    pair.client.send_text("abcd")
    heard = pair.pump()
    assert heard.server == [Fail(1009, "message is too big")]
    assert heard.client == [Close(1009, "message is too big")]


# The grammar


@pytest.mark.parametrize(
    "events",
    [
        [Fail(1002), Text("after the end")],
        [Close(1000), Close(1000)],
        [Request("/")],
        [Text("a", False), Binary(b"")],
        [Ping("not bytes")],
        [None],
    ],
)
def test_what_is_not_of_the_grammar_is_told(events):
    with pytest.raises(AssertionError):
        testing.check_grammar(events, Connection(SERVER))


def test_the_grammar_knows_what_opens_a_connection():
    testing.check_grammar([Request("/"), Text("a"), Close()], ServerConnection())
    testing.check_grammar(
        [Response(101), Text("a", False), Ping(), Text("")], ClientConnection("ws://localhost/")
    )
    testing.check_grammar([Fail(1002)], ServerConnection())
    with pytest.raises(AssertionError):
        testing.check_grammar([Text("a")], ServerConnection())


# The machine

machine_settings = settings(quick, max_examples=30, stateful_step_count=30)
buggy_settings = settings(
    machine_settings, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False, database=None
)


def test_the_machine_finds_nothing_wrong_with_wsframe():
    run_state_machine_as_test(testing.TwoEndpoints, settings=machine_settings)


class SwallowsEmptyMessages(Connection):
    def next_event(self):
        event = super().next_event()
        return super().next_event() if event in (Text(""), Binary(b"")) else event


class SaysCloseTwice(Connection):
    def send_close(self, code=1000, reason=""):
        if self.state is State.OPEN:
            super().send_close(code, reason)


class ForgetsTheReason(Connection):
    def next_event(self):
        event = super().next_event()
        return Close(event.code) if isinstance(event, Close) else event


class NeverCloses(Connection):
    def receive_data(self, data):
        if data:
            super().receive_data(data)


BUGS = [SwallowsEmptyMessages, SaysCloseTwice, ForgetsTheReason, NeverCloses]


@pytest.mark.parametrize("endpoint", BUGS)
@pytest.mark.parametrize("role", Role)
def test_the_machine_finds_a_bug_on_either_side(endpoint, role):
    class Buggy(testing.TwoEndpoints):
        def endpoints(self, handshake, fragments, compression):
            return tuple((endpoint if role is mine else Connection)(mine) for mine in (CLIENT, SERVER))

    with pytest.raises((AssertionError, LocalProtocolError)):
        run_state_machine_as_test(Buggy, settings=buggy_settings)


# Handlers on asyncio


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def turns(count=200):
    """Let all that can happen happen."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main):
    async def in_time():
        async with asyncio.timeout(30):
            await main()

    asyncio.run(in_time())


@pytest.mark.parametrize("read_size", [None, 1, 1000])
def test_a_handler_echoes(read_size):
    async def main():
        async with testing.connected(echo, read_size=read_size) as websocket:
            for message in ("Hello!", b"bytes", "", "é" * 3000):
                await websocket.send(message)
                assert await websocket.recv() == message
            assert await websocket.ping() >= 0
        assert (websocket.state, websocket.close_code) == (State.CLOSED, 1000)

    run(main)


def test_a_handler_sees_the_handshake_and_so_does_the_client():
    seen = []

    async def handler(websocket):
        seen.append((websocket.path, websocket.request.headers.get("x-a"), websocket.request.origin))
        seen.append((websocket.remote_address, websocket.local_address))

    async def main():
        async with testing.connected(
            handler,
            path="/chat?room=1",
            additional_headers=[("X-A", "b")],
            origin="http://localhost",
            origins=["http://localhost"],
            subprotocols=["chat", "superchat"],
            offered_subprotocols=["other", "superchat"],
            process_request=lambda _: Response(101, [("X-C", "d")]),
        ) as websocket:
            assert websocket.subprotocol == "superchat"
            assert websocket.response.headers.get("x-c") == "d"
            assert websocket.remote_address == ("server", 0)

    run(main)
    assert seen == [("/chat?room=1", "b", "http://localhost"), (("client", 0), ("server", 0))]


def test_a_handler_that_raises_closes_with_1011(caplog):
    async def handler(websocket):
        raise ValueError("planted")

    async def main():
        async with testing.connected(handler) as websocket:
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.recv()
        assert (closed.value.code, closed.value.clean) == (1011, True)

    run(main)
    assert [record.exc_info[1].args for record in caplog.records] == [("planted",)]


def test_a_handler_closes_with_its_code_and_sees_that_of_the_client():
    seen = []

    async def closes(websocket):
        await websocket.close(4000, "bye")

    async def waits(websocket):
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        seen.append((closed.value.code, closed.value.reason))

    async def main():
        async with testing.connected(closes) as websocket:
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.recv()
            assert (closed.value.code, closed.value.reason) == (4000, "bye")
        async with testing.connected(waits) as websocket:
            await websocket.close(4001, "why")
        async with testing.connected(waits):
            pass

    run(main)
    assert seen == [(4001, "why"), (1000, "")]


def test_a_handler_that_returns_closes_with_1000():
    async def handler(websocket):
        await websocket.send("only this")

    async def main():
        async with testing.connected(handler) as websocket:
            assert [message async for message in websocket] == ["only this"]
            assert websocket.close_code == 1000

    run(main)


def test_a_refusal_is_raised():
    async def main():
        refusing = testing.connected(echo, process_request=lambda _: Response(403, body=b"no"))
        with pytest.raises(HandshakeRejected) as rejected:
            async with refusing:
                pytest.fail("it was not refused")
        assert (rejected.value.response.status, rejected.value.response.body) == (403, b"no")
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    run(main)


@pytest.mark.parametrize("compression", [None, Deflate(threshold=0)])
def test_compression_is_agreed_on_or_not(compression):
    async def main():
        async with testing.connected(echo, compression=compression) as websocket:
            assert bool(websocket.response.headers.get("sec-websocket-extensions")) is (
                compression is not None
            )
            await websocket.send("a" * 5000)
            assert await websocket.recv() == "a" * 5000

    run(main)


def test_a_message_over_the_limit_fails_the_connection():
    async def main():
        async with testing.connected(echo, max_message_size=10, compression=None) as websocket:
            await websocket.send("a" * 11)
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.recv()
            assert closed.value.code == 1009

    run(main)


def test_a_sender_waits_for_a_handler_that_does_not_read():
    async def main():
        reads = asyncio.Event()
        received = []

        async def handler(websocket):
            await reads.wait()
            async for message in websocket:
                received.append(len(message))

        async with testing.connected(handler, compression=None) as websocket:
            sent = []

            async def sender():
                for _ in range(100):
                    await websocket.send(bytes(50_000))
                    sent.append(50_000)

            sending = asyncio.create_task(sender())
            await turns()
            stuck_at = len(sent)
            # What fits: 16 messages or 1 MiB in the queue, as much before it, and 64 KiB in the transport
            assert 1 < stuck_at < 60
            await turns()
            assert len(sent) == stuck_at
            reads.set()
            await sending
        assert received == sent == [50_000] * 100

    run(main)


def test_a_client_that_goes_away_is_seen_by_the_handler():
    seen = []

    async def handler(websocket):
        try:
            await websocket.recv()
        except ConnectionClosed as closed:
            seen.append((closed.code, closed.clean))

    async def main():
        async with testing.connected(handler) as websocket:
            websocket.abort()
            await turns()
        assert websocket.state is State.CLOSED

    run(main)
    assert seen == [(1006, False)]


def test_a_client_that_goes_away_frees_a_handler_that_sends():
    seen = []

    async def handler(websocket):
        try:
            while True:
                await websocket.send(bytes(60_000))
        except ConnectionClosed as closed:
            seen.append(closed.code)
            raise

    async def main():
        async with testing.connected(handler, compression=None) as websocket:
            await turns()  # it is stuck
            assert seen == []
            websocket.abort()
            await turns()
            assert seen == [1006]

    run(main)


def test_a_handler_that_does_not_return_is_cancelled():
    cancelled = []

    async def handler(websocket):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main():
        async with testing.connected(handler, close_timeout=0.05):
            pass

    run(main)
    assert cancelled == [True]


def test_an_error_of_the_test_itself_gets_out():
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with testing.connected(echo):
                1 / 0  # noqa: B018

    run(main)
    with pytest.raises(ZeroDivisionError), testing.connected_sync(lambda websocket: None):
        1 / 0  # noqa: B018


def test_a_read_of_nothing_is_refused():
    async def main():
        with pytest.raises(ValueError, match="read_size"):
            async with testing.connected(echo, read_size=0):
                pass

    run(main)


# Handlers with threads


def echo_sync(websocket):
    for message in websocket:
        websocket.send(message)


def test_a_sync_handler_echoes():
    with testing.connected_sync(echo_sync) as websocket:
        for message in ("Hello!", b"bytes", "", "é" * 100_000):
            websocket.send(message)
            assert websocket.recv() == message
        assert websocket.ping() >= 0
    assert (websocket.state, websocket.close_code) == (State.CLOSED, 1000)
    assert "wsframe.testing" not in {thread.name for thread in threading.enumerate()}


def test_a_sync_handler_sees_the_handshake():
    seen = []
    with testing.connected_sync(
        lambda websocket: seen.append((websocket.path, websocket.request.headers.get("x-a"))),
        path="/chat?room=1",
        additional_headers=[("X-A", "b")],
        origin="http://localhost",
        origins=["http://localhost"],
        subprotocols=["chat"],
        process_request=lambda _: Response(101, [("X-C", "d")]),
        compression=None,
    ) as websocket:
        assert websocket.subprotocol == "chat"
        assert websocket.response.headers.get("x-c") == "d"
        assert websocket.response.headers.get("sec-websocket-extensions") is None
    assert seen == [("/chat?room=1", "b")]


def test_a_sync_handler_that_raises_closes_with_1011(caplog):
    def handler(websocket):
        raise ValueError("planted")

    with testing.connected_sync(handler) as websocket, pytest.raises(ConnectionClosed) as closed:
        websocket.recv()
    assert (closed.value.code, closed.value.clean) == (1011, True)
    assert [record.exc_info[1].args for record in caplog.records] == [("planted",)]


def test_a_sync_handler_closes_with_its_code_and_is_refused():
    with (
        testing.connected_sync(lambda websocket: websocket.close(4000, "bye")) as websocket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        websocket.recv()
    assert (closed.value.code, closed.value.reason) == (4000, "bye")
    with (
        pytest.raises(HandshakeRejected) as rejected,
        testing.connected_sync(echo_sync, process_request=lambda _: Response(503)),
    ):
        pytest.fail("it was not refused")
    assert rejected.value.response.status == 503


def test_a_sync_handler_with_wrong_options_is_told_at_once():
    with pytest.raises(LocalProtocolError), testing.connected_sync(echo_sync, subprotocols=["no token"]):
        pytest.fail("it was accepted")
