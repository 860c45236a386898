r"""Two endpoints that say anything at any time, over a wire that cuts, delays and breaks.

    say, say_fragment, close  -->  [ wire ]  --  deliver  -->  heard
                                       \__ lose_the_stream

After each step each has heard, in order, what the other said so far; in the end both are closed, and agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ..client import ClientConnection
from ..connection import Connection, Role, State, join_pieces
from ..deflate import Deflate
from ..errors import LocalProtocolError
from ..events import Binary, Close, Event, Fail, Ping, Pong, Request, Response, Text
from ..server import ServerConnection
from .strategies import CODES, REASONS, controls, messages

__all__ = ["TwoEndpoints", "check_grammar", "joined"]

_CLIENT, _SERVER = Role.CLIENT, Role.SERVER
_OTHER = {_CLIENT: _SERVER, _SERVER: _CLIENT}
_FIELDS: dict[type, tuple[Any, ...]] = {
    Request: (str, tuple, tuple, (str, type(None)), bool, str, str),
    Response: (int, tuple, bytes, (str, type(None))),
    Text: (str, bool),
    Binary: (bytes, bool),
    Ping: (bytes,),
    Pong: (bytes,),
    Close: (int, str),
    Fail: (int, str),
}


def joined(events: Iterable[Event]) -> list[Event]:
    """Return events with the pieces of each message put together, and without an unfinished one.

    Args:
        events: what was heard, perhaps with ``fragments=True``.
    """
    whole: list[Event] = []
    pieces: list[Any] = []
    for event in events:
        if isinstance(event, (Text, Binary)):
            pieces.append(event.data)
            if event.final:
                whole.append(join_pieces(pieces, True))
                pieces = []
        else:
            whole.append(event)
    return whole


def check_grammar(events: Iterable[Event], conn: Connection) -> None:
    """Check that events come as the grammar of ``wsframe.events`` has it, and hold what they should.

    Args:
        events: all that ``conn.next_event()`` has returned so far.
        conn: the Connection, which tells what has to come first.

    Raises:
        AssertionError: they do not.
    """
    heard = list(events)
    for event in heard:
        assert type(event) in _FIELDS, event
        for name, kind in zip(event.__match_args__, _FIELDS[type(event)], strict=True):
            assert isinstance(getattr(event, name), kind), event
    opening = (
        Request
        if isinstance(conn, ServerConnection)
        else Response
        if isinstance(conn, ClientConnection)
        else None
    )
    rest = heard
    if opening is not None and rest and not isinstance(rest[0], Fail):
        assert isinstance(rest[0], opening), rest[0]
        rest = rest[1:]
    if rest and isinstance(rest[-1], (Close, Fail)):
        rest = rest[:-1]
    piece: Text | Binary | None = None
    for event in rest:
        assert isinstance(event, (Text, Binary, Ping, Pong)), event
        if isinstance(event, (Text, Binary)):
            assert piece is None or type(event) is type(piece), event
            piece = None if event.final else event


def _say(conn: Connection, event: Text | Binary | Ping | Pong, places: list[int], as_bytes: bool) -> None:
    """Say a message, in fragments that are cut at these places, or a Ping or a Pong."""
    if isinstance(event, Ping):
        conn.send_ping(event.payload)
    elif isinstance(event, Pong):
        conn.send_pong(event.payload)
    else:
        data: Any = event.data.encode() if isinstance(event, Text) and as_bytes else event.data
        ends = [*sorted(min(place, len(data)) for place in places), len(data)]
        send: Callable[..., None] = conn.send_text if isinstance(event, Text) else conn.send_binary
        for start, stop in itertools.pairwise([0, *ends[:-1]]):
            # Any bytes-like object will do.
            send(bytearray(data[start:stop]) if isinstance(data, bytes) else data[start:stop], fin=False)
        last = data[ends[-2] if places else 0 :]
        send(memoryview(last) if isinstance(last, bytes) else last)


class TwoEndpoints(RuleBasedStateMachine):
    """The state machine of two endpoints, for ``TwoEndpoints.TestCase`` or ``run_state_machine_as_test``.

    Subclass it and override ``endpoints`` to test your own: subclasses of ``Connection``, or what behaves
    like them. Add rules for what else yours can do.

    Attributes:
        conns: the two Connections, by role.
        heard: the events that each has heard, by role.
        said: what each has said, as the events that the other must hear, by role.
        is_lost: whether the stream was lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conns: dict[Role, Connection] = {}
        self.heard: dict[Role, list[Event]] = {_CLIENT: [], _SERVER: []}
        self.said: dict[Role, list[Event]] = {_CLIENT: [], _SERVER: []}
        self.is_lost = False
        self._wires = {_CLIENT: bytearray(), _SERVER: bytearray()}  # to each
        self._has_hung_up = {_CLIENT: False, _SERVER: False}  # whether the stream to each ends after its wire
        # The message that each sends in fragments: the kind, and the fragments so far
        self._sending: dict[Role, tuple[type[Text | Binary], list[Any]] | None] = {
            _CLIENT: None,
            _SERVER: None,
        }
        self._has_ended = {_CLIENT: False, _SERVER: False}
        self._was_opened = {_CLIENT: False, _SERVER: False}

    def endpoints(self, handshake: bool, fragments: bool, compression: bool) -> tuple[Connection, Connection]:
        """Return a client and a server.

        Args:
            handshake: whether the opening handshake is still to come. Yours may ignore this, and the rest.
            fragments: whether the client hears messages piece by piece.
            compression: whether messages are compressed.
        """
        agreed = Deflate(threshold=1) if compression else None
        if handshake:
            return (
                ClientConnection(
                    "ws://localhost/", subprotocols=["chat"], compression=agreed, fragments=fragments
                ),
                ServerConnection(subprotocols=["chat"], compression=agreed),
            )
        client = Connection(_CLIENT, compression=agreed, fragments=fragments)
        return client, Connection(_SERVER, compression=agreed)

    @initialize(handshake=st.booleans(), fragments=st.booleans(), compression=st.booleans())
    def connect(self, handshake: bool, fragments: bool, compression: bool) -> None:
        """Make the endpoints."""
        client, server = self.endpoints(handshake, fragments, compression)
        self.conns = {_CLIENT: client, _SERVER: server}
        self._was_opened = {role: conn.state is State.OPEN for role, conn in self.conns.items()}

    # What happens

    @rule(
        role=st.sampled_from(Role),
        event=st.one_of(messages(), controls()),
        places=st.lists(st.integers(0, 300), max_size=3),
        as_bytes=st.booleans(),
    )
    def say(self, role: Role, event: Text | Binary | Ping | Pong, places: list[int], as_bytes: bool) -> None:
        """Say something."""
        conn = self.conns[role]
        if conn.state is not State.OPEN:
            self._refuse(conn, lambda: _say(conn, event, places, as_bytes))
        elif self._sending[role] is None or isinstance(event, (Ping, Pong)):
            _say(conn, event, places, as_bytes)
            self.said[role].append(event)

    @rule(role=st.sampled_from(Role), event=messages(), fin=st.booleans())
    def say_fragment(self, role: Role, event: Text | Binary, fin: bool) -> None:
        """Say a fragment of a message, between which others may be heard, and Pings be said."""
        conn, kind = self.conns[role], type(event)
        send: Callable[..., None] = conn.send_text if kind is Text else conn.send_binary
        begun, fragments = self._sending[role] or (kind, [])
        if conn.state is not State.OPEN or begun is not kind:
            self._refuse(conn, lambda: send(event.data, fin))
            return
        send(event.data, fin)
        fragments = [*fragments, event.data]
        self._sending[role] = None if fin else (kind, fragments)
        if fin:
            self.said[role].append(join_pieces(fragments, True))

    @rule(role=st.sampled_from(Role), code=st.sampled_from([*CODES, 1005]), reason=REASONS)
    def close(self, role: Role, code: int, reason: str) -> None:
        """Close the connection."""
        conn = self.conns[role]
        close = Close(code, "" if code == 1005 else reason)
        if conn.state is State.OPEN:
            conn.send_close(close.code, close.reason)
            self.said[role].append(close)
            assert conn.close_sent == close
        else:
            self._refuse(conn, lambda: conn.send_close(close.code, close.reason))

    def _refuse(self, conn: Connection, call: Callable[[], None]) -> None:
        """Check that a call is refused, and changes nothing."""
        before = (conn.state, conn.should_close, conn.close_sent, conn.unsent)
        try:
            call()
        except LocalProtocolError:
            assert (conn.state, conn.should_close, conn.close_sent, conn.unsent) == before
        else:
            raise AssertionError(f"a call that is forbidden in {conn.state.name} was not refused")

    @rule(
        role=st.sampled_from(Role), count=st.integers(1, 400), events=st.one_of(st.none(), st.integers(0, 2))
    )
    def deliver(self, role: Role, count: int, events: int | None) -> None:
        """Carry some bytes to an endpoint, which reads some events, or all that there are."""
        self._flush()
        wire, conn = self._wires[role], self.conns[role]
        if wire:
            conn.receive_data(bytes(wire[:count]))
            del wire[:count]
        elif self._has_hung_up[role]:
            conn.receive_data(b"")
        self._read(role, events)

    @precondition(lambda self: not self.is_lost)
    @rule(kept=st.integers(0, 100))
    def lose_the_stream(self, kept: int) -> None:
        """Cut the wire: some of what is under way still arrives, and then its end."""
        self._flush()
        self.is_lost = True
        for role in Role:
            del self._wires[role][kept:]
            self._has_hung_up[role] = True

    def _flush(self) -> None:
        for role, conn in self.conns.items():
            data = conn.data_to_send()
            if not self._has_hung_up[_OTHER[role]]:
                self._wires[_OTHER[role]] += data
            if conn.should_close and not self._has_hung_up[role]:
                # It closes TCP: the peer gets what was sent, then the end. What is under way here is lost.
                self._has_hung_up[role] = self._has_hung_up[_OTHER[role]] = True
                self._wires[role].clear()

    def _read(self, role: Role, count: int | None = None) -> None:
        conn = self.conns[role]
        for _ in range(count) if count is not None else itertools.count():
            closed_before = conn.close_sent
            event = conn.next_event()
            if event is None:
                return
            assert not self._has_ended[role], f"{event} came after the end"
            self.heard[role].append(event)
            match event:
                case Request():
                    assert isinstance(conn, ServerConnection)
                    conn.accept()
                    self._was_opened[role] = True
                case Response():
                    self._was_opened[role] = True
                case Ping(payload):
                    self.said[role].append(Pong(payload))
                case Close(code, reason):
                    self._has_ended[role] = True
                    if closed_before is None:
                        self.said[role].append(Close(code, reason))
                case Fail(code):
                    self._has_ended[role] = True
                    assert code == 1006, f"{role.value} failed on what its peer said: {event}"

    # What holds

    def _messages_heard(self, role: Role) -> list[Event]:
        return joined(event for event in self.heard[role] if not isinstance(event, (Request, Response, Fail)))

    @invariant()
    def each_hears_what_the_other_said(self) -> None:
        """Check that what was heard is what was said, in its order, as far as it has come."""
        for role in self.conns:
            heard = self._messages_heard(role)
            said = self.said[_OTHER[role]][: len(heard)]
            assert heard == said, f"{role.value} heard {heard}, which was {said}"

    @invariant()
    def the_state_tells_what_may_be_said(self) -> None:
        """Check the state of each endpoint by what it has said and heard."""
        for role, conn in self.conns.items():
            if conn.state is State.OPEN:
                assert self._was_opened[role]
                assert conn.close_sent is conn.close_received is None
                assert not self._has_ended[role]
            elif self._was_opened[role]:
                assert conn.close_sent or self._has_ended[role]
            if conn.close_received:
                assert conn.close_sent
                assert self._has_ended[role]

    def teardown(self) -> None:
        """Say what was begun, close, and check that both agree in the end."""
        if not self.conns:
            return
        for role, conn in self.conns.items():
            sending = self._sending[role]
            if sending is not None and conn.state is State.OPEN:
                self.say_fragment(role, Text("") if sending[0] is Text else Binary(b""), True)
        rounds = 0
        while not all(conn.state is State.CLOSED for conn in self.conns.values()):
            for role, conn in self.conns.items():
                if conn.state is State.OPEN:
                    self.close(role, 1000, "done")
                self.deliver(role, 2**20, None)
            rounds += 1
            assert rounds < 10, "the endpoints do not come to an end"
        self._check_the_end()

    def _check_the_end(self) -> None:
        client, server = self.conns[_CLIENT], self.conns[_SERVER]
        for role, conn in self.conns.items():
            assert self._has_ended[role]
            assert conn.should_close
            check_grammar(self.heard[role], conn)
        # Agreed: what one received is what the other sent, and without a loss both have closed.
        if not self.is_lost:
            assert client.close_received
            assert server.close_received
            for role in Role:
                # Pongs that are said after Close find nobody who listens.
                said = self.said[_OTHER[role]]
                last = max(place for place, event in enumerate(said) if isinstance(event, Close))
                assert self._messages_heard(role) == said[: last + 1]
            assert client.subprotocol == server.subprotocol
        for conn, peer in ((client, server), (server, client)):
            assert conn.close_received in (None, peer.close_sent)
