"""RFC 6455, sections 5.5.2 and 5.5.3: Pings that keep a connection alive, and tell whether the peer is there.

    -- Ping "1f3a" -->
    <-- Pong "1f3a" --    latency: what passed in between; none within the timeout: the peer is gone

Sans-IO: the time is an argument. Whoever has a clock calls ``look`` when it is ``due``.
"""

from __future__ import annotations

import os

from ..errors import LocalProtocolError

__all__ = ["Pings"]

_MOMENT = 0.01  # seconds


class Pings:
    """Remember the Pings that were sent, and judge by their Pongs whether the peer is there.

    Args:
        interval: how many seconds there are between Pings; None: ``look`` asks for none.
        timeout: how many seconds a Pong may take before the peer is given up; None: any time.
        now: the time, in seconds, of the clock that all methods are given.

    Attributes:
        due: when to ``look`` next; None: never.
        latency: the last round trip, in seconds; None before the first.
    """

    __slots__ = (
        "_deadline",
        "_interval",
        "_is_last_look",
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
        self._sent: dict[bytes, float] = {}  # payload -> when
        self._payload: bytes | None = None  # of the Ping that the peer is judged by
        self._next = now if interval is None else now + interval
        self._deadline = now
        self._is_last_look = False
        self._read = self._remaining = 0  # at the last look
        self.due = None if interval is None else self._next
        self.latency: float | None = None

    def send(self, payload: bytes | None, now: float) -> bytes:
        """Note that a Ping is sent, and return its payload.

        Args:
            payload: up to 125 bytes; None: 4 random ones, which nobody can answer beforehand.
            now: the time.

        Raises:
            LocalProtocolError: one with this payload is not answered yet.
        """
        if payload is None:
            payload = os.urandom(4)
        elif payload in self._sent:
            raise LocalProtocolError("a ping with this payload is waiting for its pong already")
        self._sent[payload] = now
        return payload

    @property
    def is_waiting(self) -> bool:
        """Whether the peer has a Ping to answer that it is judged by."""
        return self._payload is not None and self._timeout is not None

    def forget(self, payload: bytes) -> None:
        """Forget a Ping that nobody waits for any more.

        Args:
            payload: that of the Ping.
        """
        self._sent.pop(payload, None)

    def answer(self, payload: bytes, now: float) -> dict[bytes, float]:
        """Note a Pong, and return the Pings that it answers with their round trips in seconds.

        Args:
            payload: that of the Pong.
            now: the time.
        """
        answered: dict[bytes, float] = {}
        # Section 5.5.3: "A response to an unsolicited Pong frame is not expected."
        if payload in self._sent:
            # The peer "MAY elect to send a Pong frame for only the most recently processed Ping frame":
            # that answers the earlier ones as well.
            for earlier in list(self._sent):
                answered[earlier] = now - self._sent.pop(earlier)
                if earlier == self._payload:
                    self._payload = None
                if earlier == payload:
                    break
            self.latency = answered[payload]
        return answered

    def look(self, now: float, read: int, remaining: int, is_held_up: bool = False) -> bytes | None:
        """Return the payload of a Ping to send now, or None.

        Args:
            now: the time.
            read: how many bytes the Connection has read so far.
            remaining: its ``frame_remaining``.
            is_held_up: whether it is our fault that a Pong cannot be read: then the peer has the whole
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
                self._is_last_look = False
            elif now >= self._deadline:
                self._judge(now, self._timeout)
            self.due = min(self._deadline, now + self._interval)
            return None
        if now < self._next:
            self.due = self._next
            return None
        if self._payload is not None:
            self.forget(self._payload)  # it may take any time, and nobody waits for it
        self._payload = self.send(None, now)
        self._next = self.due = now + self._interval
        if self._timeout is not None:
            self._deadline = now + self._timeout
            self._is_last_look = False
            self.due = min(self._next, self._deadline)
        return self._payload

    def _judge(self, now: float, timeout: float) -> None:
        if self._is_last_look:
            raise TimeoutError(f"no pong within {timeout:g} seconds")
        # A long frame may have begun before the peer read our Ping. And a loop that was busy all the time has
        # not read the Pong, which is there.
        self._is_last_look = True
        self._deadline = now + (timeout if self._remaining else _MOMENT)
