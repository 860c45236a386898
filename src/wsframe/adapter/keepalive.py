"""RFC 6455, sections 5.5.2 and 5.5.3: Pings that keep a connection alive and detect a peer that is gone.

    -- Ping "1f3a" -->
    <-- Pong "1f3a" --    the time in between is the latency; no Pong within the timeout: the peer is gone

Nothing here has a clock: the time is an argument. ``poll`` is to be called when it is ``due``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from ..errors import LocalProtocolError

__all__ = ["Keepalive", "OnPong"]

OnPong: TypeAlias = Callable[[float | None], object]
"""Called with the round trip of a Ping in seconds, or with None if the connection ends before the Pong."""

_MOMENT = 0.01  # seconds


class Keepalive:
    """The Pings that wait for their Pongs, and the verdict whether the peer is still there.

    Args:
        interval: the seconds between Pings; None if ``poll`` sends none.
        timeout: the seconds that a Pong may take before the peer is given up; None for no limit.
        now: the time in seconds, of the clock that all methods are given.

    Attributes:
        due: when to call ``poll`` next; None for never.
        latency: the last round trip in seconds; None before the first.
    """

    __slots__ = (
        "_deadline",
        "_interval",
        "_is_last_chance",
        "_next",
        "_payload",
        "_read",
        "_remaining",
        "_sent",
        "_timeout",
        "due",
        "latency",
    )

    def __init__(self, interval: float | None, timeout: float | None, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._sent: dict[bytes, tuple[float, OnPong | None]] = {}  # payload -> when it was sent, for whom
        self._payload: bytes | None = None  # of the Ping that the peer is judged by
        self._next = now if interval is None else now + interval
        self._deadline = now
        self._is_last_chance = False
        self._read = self._remaining = 0  # at the last poll
        self.due = None if interval is None else self._next
        self.latency: float | None = None

    def next_ping(self, payload: bytes | None, now: float, on_pong: OnPong | None = None) -> bytes:
        """Note that a Ping is sent, and return its payload.

        Args:
            payload: up to 125 bytes; None for 4 random ones, which no peer can answer beforehand.
            now: the time.
            on_pong: called when the Pong comes, or when ``end`` is called.

        Raises:
            LocalProtocolError: a Ping with this payload waits for its Pong already.
        """
        if payload is None:
            payload = os.urandom(4)
        elif payload in self._sent:
            raise LocalProtocolError("a ping with this payload is waiting for its pong already")
        self._sent[payload] = now, on_pong
        return payload

    @property
    def is_waiting(self) -> bool:
        """Whether the peer has yet to answer the Ping that it is judged by."""
        return self._payload is not None and self._timeout is not None

    def forget(self, payload: bytes, on_pong: OnPong | None = None) -> None:
        """Forget a Ping whose Pong is no longer waited for.

        Args:
            payload: that of the Ping.
            on_pong: as it was given to ``next_ping``. A later Ping with the same payload is kept.
        """
        if payload in self._sent and self._sent[payload][1] is on_pong:
            del self._sent[payload]

    def pong(self, payload: bytes, now: float) -> None:
        """Note a Pong, and report the round trips of the Pings that it answers.

        Args:
            payload: that of the Pong.
            now: the time.
        """
        # Section 5.5.3: "A response to an unsolicited Pong frame is not expected."
        if payload not in self._sent:
            return
        self.latency = now - self._sent[payload][0]
        # The peer "MAY elect to send a Pong frame for only the most recently processed Ping frame": that
        # answers the earlier ones as well.
        for earlier in list(self._sent):
            sent, on_pong = self._sent.pop(earlier)
            if earlier == self._payload:
                self._payload = None
            if on_pong is not None:
                on_pong(now - sent)
            if earlier == payload:
                break

    def end(self) -> None:
        """Tell every caller that waits for a Pong that none will come."""
        while self._sent:
            _, (_, on_pong) = self._sent.popitem()
            if on_pong is not None:
                on_pong(None)

    def poll(self, now: float, read: int, remaining: int, is_held_up: bool = False) -> bytes | None:
        """Return the payload of a Ping to send now, or None.

        Args:
            now: the time.
            read: how many bytes the Connection has read so far.
            remaining: its ``frame_remaining``.
            is_held_up: whether it is our fault that a Pong cannot be read. Then the peer has the whole
                timeout again, as it has while it sends one long frame.

        Raises:
            TimeoutError: the peer has not answered in time, and is gone.
        """
        if self._interval is None:
            return None
        progress = read - self._read
        is_same_frame = 0 < progress == self._remaining - remaining and remaining > 0
        self._read, self._remaining = read, remaining
        if self._payload is not None and self._timeout is not None:
            if is_held_up or is_same_frame:
                self._deadline = now + self._timeout
                self._is_last_chance = False
            elif now >= self._deadline:
                self._judge(now, self._timeout)
            self.due = min(self._deadline, now + self._interval)
            return None
        if now < self._next:
            self.due = self._next
            return None
        if self._payload is not None:
            self.forget(self._payload)  # without a timeout its Pong may take forever
        self._payload = self.next_ping(None, now)
        self._next = self.due = now + self._interval
        if self._timeout is not None:
            self._deadline = now + self._timeout
            self._is_last_chance = False
            self.due = min(self._next, self._deadline)
        return self._payload

    def _judge(self, now: float, timeout: float) -> None:
        if self._is_last_chance:
            raise TimeoutError(f"no pong within {timeout:g} seconds")
        # A long frame may have begun before the peer read our Ping. And an event loop that was busy all the
        # time has not read a Pong that is there.
        self._is_last_chance = True
        self._deadline = now + (timeout if self._remaining else _MOMENT)
