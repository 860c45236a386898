"""wsframe.adapter.keepalive: when Pings are due and what their Pongs tell, by a clock that the tests move."""

from __future__ import annotations

import pytest

from wsframe import LocalProtocolError
from wsframe.adapter.keepalive import Keepalive


def pings(interval=20.0, timeout=20.0, now=100.0) -> Keepalive:
    return Keepalive(interval, timeout, now)


def answered(keeper, payload, now):
    """Let a Pong come, and return the round trips that it reports."""
    reported = {}
    sent = dict(keeper._sent)
    for each, (when, _) in sent.items():
        keeper._sent[each] = when, lambda seconds, each=each: reported.update({each: seconds})
    keeper.pong(payload, now)
    return reported


def test_a_ping_is_due_after_the_interval():
    keeper = pings()
    assert keeper.due == 120
    assert keeper.poll(119.9, 0, 0) is None
    assert keeper.due == 120
    payload = keeper.poll(120, 0, 0)
    assert len(payload) == 4


def test_the_payload_is_another_one_each_time():
    keeper = pings()
    first = keeper.poll(120, 0, 0)
    keeper.pong(first, 121)
    second = keeper.poll(140, 0, 0)
    assert second is not None
    assert second != first


def test_a_pong_tells_the_round_trip():
    keeper = pings()
    assert keeper.latency is None
    payload = keeper.poll(120, 0, 0)
    assert answered(keeper, payload, 120.25) == {payload: 0.25}
    assert keeper.latency == 0.25
    assert keeper.poll(140, 0, 0) is not None


def test_pings_are_sent_at_intervals_and_not_at_their_pongs():
    keeper = pings()
    keeper.pong(keeper.poll(120, 0, 0), 135)
    assert keeper.poll(139, 0, 0) is None
    assert keeper.due == 140
    assert keeper.poll(140, 0, 0) is not None
    assert keeper.due == 160


def test_no_pong_in_time():
    keeper = pings(20, 5)
    keeper.poll(120, 0, 0)
    assert keeper.due == 125
    assert keeper.poll(124.9, 0, 0) is None
    assert keeper.due == 125
    # If the loop was busy, the Pong is there, but not read yet.
    assert keeper.poll(125, 0, 0) is None
    assert keeper.due == 125.01
    with pytest.raises(TimeoutError, match="no pong within 5 seconds"):
        keeper.poll(125.01, 0, 0)


def test_a_pong_that_a_busy_loop_reads_late():
    keeper = pings(20, 5)
    payload = keeper.poll(120, 0, 0)
    assert keeper.poll(180, 0, 0) is None
    keeper.pong(payload, 180)
    assert keeper.poll(180.01, 6, 0) is not None


def test_a_timeout_longer_than_the_interval_is_looked_at_in_between():
    keeper = pings(5, 20)
    payload = keeper.poll(105, 0, 0)
    assert keeper.due == 110
    assert keeper.poll(110, 0, 0) is None  # one at a time
    assert keeper.due == 115
    keeper.pong(payload, 111)
    assert keeper.poll(115, 0, 0) is not None
    assert keeper.due == 120


def test_a_short_timeout_does_not_bring_the_next_ping_forward():
    keeper = pings(20, 5)
    keeper.pong(keeper.poll(120, 0, 0), 121)
    assert keeper.poll(125, 0, 0) is None
    assert keeper.due == 140


def test_whose_pong_we_do_not_read_has_the_whole_timeout_again():
    keeper = pings(20, 20)
    payload = keeper.poll(120, 0, 0)
    assert keeper.poll(140, 0, 0, is_held_up=True) is None
    assert keeper.due == 160
    assert answered(keeper, payload, 150) == {payload: 30}
    assert keeper.poll(160, 0, 0) is not None
    assert keeper.poll(180, 0, 0) is None
    with pytest.raises(TimeoutError):
        keeper.poll(180.01, 0, 0)


def test_who_sends_a_long_frame_has_it_as_long_as_it_goes_on():
    keeper = pings(20, 20)
    payload = keeper.poll(120, 0, 0)
    assert keeper.poll(140, 1000, 9000) is None  # it began
    assert keeper.poll(160, 2000, 8000) is None
    assert keeper.poll(180, 9999, 1) is None
    assert answered(keeper, payload, 190) == {payload: 70}


@pytest.mark.parametrize(
    ("read", "remaining"),
    [(1000, 9000), (2000, 9000), (2000, 7000), (10000, 0), (10000, 10), (0, 10000)],
    ids=["stopped", "another of that size", "another", "ended", "the next one", "backwards"],
)
def test_who_could_have_sent_a_pong_between_two_frames_does_not(read, remaining):
    keeper = pings(20, 20)
    keeper.poll(120, 0, 0)
    assert keeper.poll(140, 1000, 9000) is None
    with pytest.raises(TimeoutError):
        keeper.poll(160, read, remaining)


def test_without_a_timeout_the_peer_is_never_given_up():
    keeper = pings(20, None)
    first = keeper.poll(120, 0, 0)
    second = keeper.poll(140, 0, 0)
    assert second not in (None, first)
    assert keeper.due == 160
    assert answered(keeper, first, 141) == {}
    assert answered(keeper, second, 141) == {second: 1}


def test_without_an_interval_there_is_nothing_to_look_at():
    keeper = pings(None)
    assert keeper.due is None
    assert keeper.poll(1e9, 0, 0) is None
    payload = keeper.next_ping(None, 100)
    assert answered(keeper, payload, 101) == {payload: 1}
    assert keeper.latency == 1


def test_a_pong_answers_the_earlier_pings_as_well():
    keeper = pings()
    mine = keeper.poll(120, 0, 0)
    keeper.next_ping(b"a", 121)
    keeper.next_ping(b"b", 122)
    keeper.next_ping(b"c", 123)
    assert answered(keeper, b"b", 124) == {mine: 4, b"a": 3, b"b": 2}
    assert keeper.latency == 2
    assert keeper.poll(140, 0, 0) is not None  # the keepalive's was answered too
    assert answered(keeper, b"a", 141) == {}
    assert answered(keeper, b"c", 141) == {b"c": 18}


def test_an_unsolicited_pong_is_ignored():
    keeper = pings()
    assert answered(keeper, b"?", 101) == {}
    assert keeper.latency is None


def test_a_payload_is_waited_for_once():
    keeper = pings()
    keeper.next_ping(b"a", 100)
    with pytest.raises(LocalProtocolError, match="waiting for its pong"):
        keeper.next_ping(b"a", 101)
    keeper.forget(b"a")
    keeper.forget(b"a")
    assert keeper.next_ping(b"a", 102) == b"a"
    assert answered(keeper, b"a", 103) == {b"a": 1}
