r"""One or both directions of a connection: the opening handshake (RFC 6455, section 4), and frames behind it.

    begin -- "GET " or "HTTP/" --> head -- a request --> waiting -- the answer is 101 --> frames
       \_________ else ____________ \____________________________________________________/
                                      \-- no WebSocket, or what follows cannot be read --> over

What the two agree on about compression stands in the server's answer. So what a client says before that is
known waits for it, if both directions are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import h11

from ... import handshake
from ...deflate import Deflate
from ...errors import HandshakeError, RemoteProtocolError
from ...events import Fail, Headers, Request
from ...server import ServerConnection
from .inspector import Inspector, Note, Record, Violation

__all__ = ["Conversation", "Head", "Said"]

_MAX_WAITING = 2**16  # octets that wait for the server's answer
_HEADS = b"GH"  # GET and HTTP/1.1 begin so, and no frame does
_IS_WEBSOCKET = re.compile(rb"^upgrade[ \t]*:[ \t]*websocket", re.IGNORECASE | re.MULTILINE)
_SHOWN = ("Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions")
# It takes from a server's answer what it says, whatever was offered.
_ANY = Deflate(server_max_window_bits=15, client_max_window_bits=15)


@dataclass(slots=True)
class Head:
    """One half of an opening handshake.

    Args:
        offset: where it begins.
        line: what it says first: ``GET /chat`` or ``101``.
        headers: those of its headers that tell what the two agree on.
    """

    offset: int
    line: str
    headers: list[tuple[str, str]]


@dataclass(slots=True)
class Said:
    """A record, and who said it.

    Args:
        is_client: whether the client did; None: unknown.
        record: what was said.
    """

    is_client: bool | None
    record: Record | Head


class _Side:
    def __init__(self, is_client: bool | None) -> None:
        self.is_client = is_client
        self.stage = "begin"
        self.reader = handshake.HeadReader()
        self.offset = 0  # of what comes next, before there are frames
        self.waiting = bytearray()
        self.inspector: Inspector | None = None


class Conversation:
    """Read a connection.

    Args:
        deflate: the compression, if no handshake tells.
        show: how many octets to keep of a payload.
        has_both: whether both directions are there.
        is_open: whether it may begin with frames.

    Attributes:
        is_websocket: whether it is one; None: not known yet.
    """

    def __init__(self, *, deflate: Deflate | None, show: int, has_both: bool, is_open: bool) -> None:
        self.is_websocket: bool | None = None
        self._deflate = deflate
        self._show = show
        self._has_both = has_both
        self._is_open = is_open
        self._request: Request | None = None
        self._sides: dict[bool | None, _Side] = {}

    def feed(self, is_client: bool | None, octets: bytes) -> Iterator[Said]:
        """Take octets of one direction, and say what is in them.

        Args:
            is_client: whether the client says them; None: whoever the first frame tells.
            octets: the next ones, in any pieces; one or more.
        """
        side = self._side(is_client)
        if side.stage == "begin":
            side.stage = "head" if octets[0] in _HEADS else "frames" if self._is_open else "over"
            if side.stage == "over":
                self.is_websocket = False
        if side.stage == "head":
            try:
                found = side.reader.feed(octets)
            except HandshakeError as error:
                yield from self._refuse(side, error, octets)
                return
            if found is None:
                return
            head, octets = found
            yield from self._read_head(side, head)
        if side.stage == "waiting":
            side.waiting += octets
            if len(side.waiting) > _MAX_WAITING:
                side.stage = "frames"
                octets = b""
        if side.stage == "frames":
            yield from self._read_frames(side, octets)

    def finish(self, is_client: bool | None, is_end: bool) -> Iterator[Said]:
        """End one direction.

        Args:
            is_client: which one.
            is_end: whether it ends here; False: what is known of it does.
        """
        side = self._side(is_client)
        if side.stage == "head" and self.is_websocket is not False:
            yield Said(side.is_client, Note(0, "the handshake is cut short"))
        if side.stage in ("waiting", "frames"):
            side.stage = "frames"
            yield from self._read_frames(side, b"")
            assert side.inspector is not None
            for record in side.inspector.finish(is_end):
                yield Said(side.inspector.is_client, record)
        side.stage = "over"

    def lose(self, is_client: bool | None, count: int) -> Iterator[Said]:
        """Take note that octets are missing in one direction.

        Args:
            is_client: which one.
            count: how many.
        """
        side = self._side(is_client)
        if self.is_websocket and side.stage != "over":
            side.stage = "over"
            offset = side.offset if side.inspector is None else side.inspector.offset
            text = f"{count} octets are missing in the capture: nothing behind them can be read"
            yield Said(is_client, Note(offset, text))

    def _side(self, is_client: bool | None) -> _Side:
        if is_client not in self._sides:
            self._sides[is_client] = _Side(is_client)
        return self._sides[is_client]

    def _read_frames(self, side: _Side, octets: bytes) -> Iterator[Said]:
        self.is_websocket = True
        if side.inspector is None:
            side.inspector = Inspector(
                is_client=side.is_client, deflate=self._deflate, show=self._show, offset=side.offset
            )
        inspector = side.inspector
        if side.waiting:
            octets = bytes(side.waiting) + octets
            side.waiting.clear()
        for record in inspector.feed(octets):
            yield Said(inspector.is_client, record)

    # The opening handshake

    def _read_head(self, side: _Side, head: bytes) -> Iterator[Said]:
        side.offset = len(head)
        side.stage = "frames"
        try:
            if head.startswith(b"HTTP/"):
                side.is_client = False
                yield from self._read_response(side, head)
            else:
                side.is_client = True
                yield from self._read_request(side, head)
        except RemoteProtocolError as error:
            yield from self._refuse(side, error, head)

    def _refuse(self, side: _Side, error: RemoteProtocolError, octets: bytes) -> Iterator[Said]:
        """Say what is wrong with a head, if it is one of a WebSocket."""
        side.stage = "over"
        if not self.is_websocket and not _IS_WEBSOCKET.search(octets) and self._has_both:
            self.is_websocket = False
            return
        self.is_websocket = True
        yield Said(side.is_client, Violation(0, error.code, error.reason))

    def _read_request(self, side: _Side, head: bytes) -> Iterator[Said]:
        connection = ServerConnection()
        connection.receive_data(head)
        event = connection.next_event()
        if isinstance(event, Fail):
            raise RemoteProtocolError(event.code, event.reason)
        assert isinstance(event, Request)
        if not event.is_upgrade:
            raise RemoteProtocolError(1002, "the request does not ask for a WebSocket")
        self.is_websocket = True
        self._request = event
        if self._has_both:
            side.stage = "waiting"
        yield Said(True, Head(0, f"GET {event.path}", _shown(event.headers)))

    def _read_response(self, side: _Side, head: bytes) -> Iterator[Said]:
        status, headers = _parse_response(head)
        if status != 101 and not self.is_websocket and self._has_both:
            self.is_websocket = False
            side.stage = "over"
            return
        yield Said(False, Head(0, str(status), _shown(headers)))
        if status != 101:
            self._is_open = False
            for other in (side, self._side(True)):
                other.stage = "over"
            return
        self.is_websocket = True
        try:
            self._deflate = _ANY.check_response(headers.get("sec-websocket-extensions"))
            if (request := self._request) is not None:
                key = request.headers.get("sec-websocket-key")
                handshake.check_response(headers, key, request.subprotocols, extensions_offered=True)
        except RemoteProtocolError as error:
            yield Said(False, Violation(0, error.code, error.reason))
        client = self._side(True)
        if client.stage == "waiting":
            client.stage = "frames"
            yield from self._read_frames(client, b"")


def _parse_response(head: bytes) -> tuple[int, Headers]:
    parser = h11.Connection(h11.CLIENT)
    asked = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    parser.send(h11.Request(method="GET", target="/", headers=asked))
    parser.send(h11.EndOfMessage())
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise RemoteProtocolError(1002, f"malformed HTTP response: {error}") from None
    assert isinstance(event, (h11.InformationalResponse, h11.Response))
    return event.status_code, handshake.decode_headers(event.headers)


def _shown(headers: Headers) -> list[tuple[str, str]]:
    return [(name, headers.get(name)) for name in _SHOWN if headers.get(name)]
