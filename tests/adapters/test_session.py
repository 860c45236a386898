"""wsframe.adapter.session: the life of a connection, by a clock that the tests move, without a socket."""

from __future__ import annotations

import logging

import pytest

from wsframe import (
    Binary,
    Close,
    Connection,
    ConnectionClosed,
    Fail,
    Opcode,
    Role,
    ServerConnection,
    State,
    Text,
    encode_frame,
    prepare,
)
from wsframe.adapter.options import Timing
from wsframe.adapter.session import PieceReader, Session

logger = logging.getLogger("wsframe.tests")
CLOSE_1000 = b"\x03\xe8"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def session_of(connection=None, clock=None, **options):
    limits = {name: options.pop(name) for name in ("max_queue", "max_queue_size") if name in options}
    session = Session(
        connection or Connection(Role.CLIENT), logger, clock or Clock(), Timing(**options), **limits
    )
    session.begin()
    return session


def receive(session, *frames):
    """Let frames arrive."""
    data = b"".join(frames)
    session.read_from(bytearray(data), len(data))
    session.connection.release()


def text(data, fin=True, opcode=Opcode.TEXT):
    return encode_frame(opcode, data.encode(), fin=fin)


def sent(session):
    return session.connection.data_to_send()


def test_messages_are_taken_in_order_and_nothing_is_taken_twice():
    session = session_of()
    receive(session, text("a"), text("b"))
    assert session.take_message() == Text("a")
    assert session.take_message() == Text("b")
    assert session.take_message() is None


def test_the_queue_holds_as_many_messages_as_it_may():
    session = session_of(max_queue=2)
    receive(session, text("a"), text("b"), text("c"))
    assert session.look_ahead() is True
    assert [message.data for message in session.messages] == ["a", "b"]
    assert session.take_message() == Text("a")
    assert session.is_full is False
    assert session.look_ahead() is True
    assert [session.take_message().data for _ in range(2)] == ["b", "c"]
    assert session.look_ahead() is False


def test_the_queue_holds_as_much_memory_as_it_may():
    session = session_of(max_queue_size=8)
    receive(session, text("\u20ac\u20ac"), text("b"))  # four bytes for each of these characters
    assert session.look_ahead() is True
    assert len(session.messages) == 1
    assert session.take_message() == Text("\u20ac\u20ac")
    assert session.is_full is False


def test_some_of_a_large_message_fills_the_queue_as_well():
    session = session_of(max_queue_size=100)
    receive(session, encode_frame(Opcode.BINARY, bytes(1000))[:150])
    assert session.look_ahead() is False
    assert session.is_full


def test_pings_are_answered_and_counted_on_the_way_to_a_message():
    session = session_of()
    receive(session, encode_frame(Opcode.PING, b"p"), text("a"))
    assert session.take_message() == Text("a")
    assert sent(session)[:1] == b"\x8a"
    assert session.pong_bytes == 3
    assert session.counters.pings_received == 1


def test_a_reader_receives_pieces_and_an_abandoned_rest_is_dropped():
    session = session_of()
    reader = PieceReader()
    receive(session, text("a", fin=False))
    assert session.take_piece(reader) == Text("a", False)
    reader.is_begun = True
    receive(session, text("b", fin=False, opcode=Opcode.CONTINUATION))
    assert session.take_message() is None
    receive(session, text("c", opcode=Opcode.CONTINUATION), text("next"))
    assert session.take_message() == Text("next")
    with pytest.raises(RuntimeError, match="dropped by another recv"):
        session.take_piece(reader)


def test_a_message_that_was_begun_in_pieces_is_put_together_for_a_call_that_wants_it_whole():
    """A reader has asked for pieces, and gave up before the first one came."""
    session = session_of()
    assert session.take_piece(PieceReader()) is None
    receive(session, text("a", fin=False))
    assert session.take_message() is None
    receive(session, text("b", fin=False, opcode=Opcode.CONTINUATION))
    assert session.take_message() is None
    # Now another reader receives the rest: what was put together is its first piece.
    reader = PieceReader()
    assert session.take_piece(reader) == Text("ab", False)
    receive(session, text("c", opcode=Opcode.CONTINUATION))
    assert session.take_piece(reader) == Text("c", True)
    assert reader.is_over
    assert session.counters.messages_received == 1


def test_what_is_discarded_is_dropped_with_the_rest_of_its_message():
    session = session_of()
    assert session.take_piece(PieceReader()) is None
    receive(session, text("a", fin=False))
    assert session.look_ahead() is False
    session.discard()
    assert session.messages == []
    receive(session, text("b", opcode=Opcode.CONTINUATION), text("c"), encode_frame(Opcode.CLOSE, CLOSE_1000))
    assert session.look_ahead() is False
    assert session.messages == []
    assert session.end == Close(1000)


def test_a_ping_is_due_after_the_interval_and_its_pong_tells_the_latency():
    clock = Clock()
    session = session_of(clock=clock, ping_interval=20, ping_timeout=5)
    assert session.due == 120
    session.poll()
    assert sent(session) == b""
    clock.now = 120
    session.poll()
    ping = sent(session)
    assert (ping[0], session.due, session.is_waiting_for_pong) == (0x80 | Opcode.PING, 125, True)
    clock.now = 120.5
    receive(session, encode_frame(Opcode.PONG, payload_of(ping)))
    assert session.pull() is None
    assert (session.latency, session.is_waiting_for_pong) == (0.5, False)


def payload_of(ping):
    """Return the payload of a client's Ping."""
    server = Connection(Role.SERVER)
    server.receive_data(ping)
    return server.next_event().payload


def test_a_peer_that_does_not_answer_is_given_up_with_1011():
    clock = Clock()
    session = session_of(clock=clock, ping_interval=20, ping_timeout=5, close_timeout=3)
    for clock.now in (120, 125, 126):
        session.poll()
    assert session.end == Fail(1011, "no pong within 5 seconds")
    assert (session.due, session.close_deadline) == (129, 129)
    error = session.closed_error()
    assert (error.code, error.clean) == (1011, False)
    clock.now = 200
    session.poll()  # it is over
    assert session.due == 129


def test_the_time_for_closing_begins_once():
    clock = Clock()
    session = session_of(clock=clock, close_timeout=10)
    assert session.start_close(1001, "bye") is True
    clock.now = 105
    session.begin_closing()
    receive(session, encode_frame(Opcode.CLOSE, CLOSE_1000))
    assert session.pull() is None
    assert (session.end, session.due) == (Close(1000), 110)
    assert session.start_close(1000, "") is False


def test_without_a_limit_closing_is_never_due():
    session = session_of(close_timeout=None, ping_interval=None)
    session.start_close(1000, "")
    assert session.due is None


def test_a_close_that_cannot_be_sent_starts_nothing():
    session = session_of()
    with pytest.raises(TypeError):
        session.start_close("1000", "")
    assert session.is_sendable()
    assert session.close_deadline is None


@pytest.mark.parametrize("how", ["closing", "lost", "broken", "over"])
def test_nothing_is_sent_when_the_connection_is_closing_or_closed(how):
    session = session_of()
    if how == "closing":
        session.start_close(3000, "why")
        sent(session)
    elif how == "lost":
        session.lose()
    elif how == "broken":
        session.is_broken = True
    else:
        receive(session, encode_frame(Opcode.CLOSE, CLOSE_1000))
        session.pull()
        sent(session)
    assert not session.is_sendable()
    for call in (
        lambda: session.send("x"),
        lambda: session.send_slice(Opcode.TEXT, memoryview(b"x"), True, None),
        lambda: session.send_ping(None, lambda _: None),
        session.check_sendable,
    ):
        with pytest.raises(ConnectionClosed) as caught:
            call()
        assert caught.value.code == {"closing": 3000, "over": 1000}.get(how, 1006)
    session.send_prepared(prepare("x"))
    assert sent(session) == b""
    assert session.counters.messages_sent == 0


def test_messages_are_counted_when_they_are_sent_whole():
    session = session_of()
    session.send("a", False)
    session.send("b")
    session.send_slice(Opcode.BINARY, memoryview(b"c"), False, None)
    session.send_slice(Opcode.BINARY, memoryview(b"d"), True, None)
    session.send_prepared(prepare("e"))
    assert session.counters.messages_sent == 3


def test_a_caller_learns_its_round_trip_or_that_there_will_be_none():
    clock = Clock()
    session = session_of(clock=clock, ping_interval=None)
    told = []
    assert session.send_ping(b"a", told.append) == b"a"
    clock.now += 2
    receive(session, encode_frame(Opcode.PONG, b"a"), encode_frame(Opcode.PONG, b"unsolicited"))
    session.pull()
    assert told == [2]
    session.send_ping(b"b", told.append)
    receive(session, encode_frame(Opcode.CLOSE, CLOSE_1000))
    session.pull()
    assert told == [2, None]


def test_a_ping_is_forgotten_by_its_own_caller_only():
    session = session_of(ping_interval=None)
    one, two = [].append, [].append
    session.send_ping(b"a", one)
    session.forget_ping(b"a", one)
    session.send_ping(b"a", two)
    session.forget_ping(b"a", one)
    with pytest.raises(Exception, match="waiting for its pong"):
        session.send_ping(b"a", one)
    session.forget_ping(b"a", two)
    session.send_ping(b"a", one)


def test_the_first_end_counts_and_messages_after_it_are_dropped():
    session = session_of()
    session.conclude(Close(1000, "mine"))
    receive(session, text("late"), encode_frame(Opcode.CLOSE, b"\x0b\xb8"))
    assert session.take_message() is None
    assert session.end == Close(1000, "mine")
    assert session.connection.close_received == Close(3000)


def test_the_end_of_the_stream_is_a_failure_that_is_counted():
    session = session_of()
    session.receive_eof()
    session.receive_eof()
    assert session.is_at_eof
    assert session.pull() is None
    assert session.end.code == 1006
    session.lose()
    assert (session.counters.connections, session.counters.failures) == (1, 1)


def test_a_failing_handshake_is_the_end():
    connection = ServerConnection()
    session = Session(connection, logger, Clock(), Timing())
    receive(session, b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
    event = session.next_handshake_event()
    assert isinstance(event, Fail)
    assert (session.end, connection.was_opened) == (event, False)
    session.lose()
    session.log_closed()
    assert session.counters.failures == 0


def test_each_session_has_a_number_that_its_log_shows(caplog):
    caplog.set_level(logging.INFO, logger.name)
    connection = ServerConnection()
    connection.receive_data(
        b"GET /chat?token=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    connection.next_event()
    connection.accept()
    one, two = session_of(connection), session_of(connection)
    assert one.id < two.id
    assert connection.state is State.OPEN
    one.receive_eof()
    one.pull()
    one.lose()
    one.log_closed()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == f"[{one.id}] opened: /chat with None"
    assert messages[-1].startswith(f"[{one.id}] lost or failed: 1006")


def test_binary_pieces_are_put_together_as_binary():
    session = session_of()
    assert session.take_piece(PieceReader()) is None
    receive(session, encode_frame(Opcode.BINARY, b"a", fin=False))
    assert session.take_message() is None
    receive(session, encode_frame(Opcode.CONTINUATION, b"b"))
    assert session.take_message() == Binary(b"ab")


def test_a_message_of_any_size_is_dropped_after_discard():
    session = session_of(Connection(Role.CLIENT, max_message_size=None), max_queue_size=100)
    receive(session, encode_frame(Opcode.BINARY, bytes(1000))[:500])
    assert session.take_message() is None
    assert session.is_full
    session.discard()
    receive(session, encode_frame(Opcode.BINARY, bytes(1000))[500:], encode_frame(Opcode.CLOSE, CLOSE_1000))
    session.look_ahead()
    assert session.end == Close(1000)


def test_a_peer_is_given_up_also_when_nothing_reaches_it():
    clock = Clock()
    session = session_of(clock=clock, ping_interval=20, ping_timeout=5)
    session.is_broken = True
    for clock.now in (120, 125, 126):
        session.poll()
    assert session.end == Fail(1011, "no pong within 5 seconds")


def test_pieces_that_have_arrived_are_queued_after_the_end():
    session = session_of()
    assert session.take_piece(PieceReader()) is None
    receive(session, text("part", fin=False))
    assert session.take_message() is None
    receive(session, encode_frame(Opcode.CLOSE, CLOSE_1000))
    assert session.take_message() is None
    assert session.end == Close(1000)
    assert session.has_queued
    assert session.take_piece(PieceReader()) == Text("part", False)
    assert not session.has_queued


def test_pull_stops_at_each_ping_for_an_adapter_that_answers_it_first():
    session = session_of()
    session.stops_at_pings = True
    receive(session, encode_frame(Opcode.PING, b""), text("a"))
    assert session.take_message() is None
    assert session.pong_bytes == 2
    assert session.take_message() == Text("a")
