r"""Both directions of a connection: the opening handshake (RFC 6455, section 4), and the frames after it.

    begin -- "GET " or "HTTP/" --> head -- a request --> waiting -- the answer is 101 --> frames
       \_________ else ____________ \____________________________________________________/
                                      \-- no WebSocket, or what follows cannot be read --> over

The server's answer tells which compression the two agreed on. So where both directions are inspected, frames
of the client that come before that answer wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import h11

from .. import handshake
from ..deflate import Deflate
from ..errors import InvalidRequest, RemoteProtocolError
from ..events import Fail, Headers, Request
from ..server import ServerConnection
from .direction import FrameInspector
from .findings import Finding, InspectedHead, Note, Violation

__all__ = ["ConversationInspector"]

_MAX_WAITING = 2**16  # bytes of a client that wait for the server's answer
_HEADS = b"GH"  # GET and HTTP/1.1 begin with these letters, and no frame does
_IS_WEBSOCKET = re.compile(rb"^upgrade[ \t]*:[ \t]*websocket", re.IGNORECASE | re.MULTILINE)
_SHOWN = ("Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions")
# It accepts every valid answer, whatever was offered.
_ANY = Deflate(server_max_window_bits=15, client_max_window_bits=15)


class _Side:
    def __init__(self, is_client: bool | None) -> None:
        self.is_client = is_client
        self.stage = "begin"
        self.reader = handshake.HeadReader()
        self.offset = 0  # of the first frame
        self.waiting = bytearray()
        self.inspector: FrameInspector | None = None


class ConversationInspector:
    """An inspector of a connection, from its opening handshake on.

    Args:
        compression: the compression that was agreed on; a handshake overrides it.
        payload_limit: how many bytes of each payload to keep.
        has_both_directions: whether ``feed`` gets both directions, and not only one of them.
        may_skip_handshake: whether the connection may begin with frames.

    Attributes:
        is_websocket: whether the connection is a WebSocket; None: not known yet.
    """

    def __init__(
        self,
        *,
        compression: Deflate | None = None,
        payload_limit: int = 64,
        has_both_directions: bool = True,
        may_skip_handshake: bool = False,
    ) -> None:
        self.is_websocket: bool | None = None
        self._deflate = compression
        self._payload_limit = payload_limit
        self._has_both_directions = has_both_directions
        self._may_skip_handshake = may_skip_handshake
        self._request: Request | None = None
        self._sides: dict[bool | None, _Side] = {}

    def feed(self, is_client: bool | None, data: bytes) -> Iterator[Finding]:
        """Take the next bytes of one direction, and return what is in them.

        Args:
            is_client: whether the client sent them; None: the first frame decides.
            data: one byte or more; how they are cut into pieces does not matter.
        """
        side = self._side(is_client)
        if side.stage == "begin":
            side.stage = "head" if data[0] in _HEADS else "frames" if self._may_skip_handshake else "over"
            if side.stage == "over":
                self.is_websocket = False
        if side.stage == "head":
            try:
                found = side.reader.feed(data)
            except InvalidRequest as error:
                yield from self._refuse(side, error, data)
                return
            if found is None:
                return
            head, data = found
            yield from self._read_head(side, head)
        if side.stage == "waiting":
            side.waiting += data
            if len(side.waiting) > _MAX_WAITING:
                side.stage = "frames"
                data = b""
        if side.stage == "frames":
            yield from self._read_frames(side, data)

    def finish(self, is_client: bool | None, is_end: bool) -> Iterator[Finding]:
        """End one direction.

        Args:
            is_client: which one.
            is_end: True: the direction ends here. False: it may go on, but nothing more of it was captured.
        """
        side = self._side(is_client)
        if side.stage == "head" and self.is_websocket is not False:
            yield Note(side.is_client, 0, "the handshake is cut short")
        if side.stage in ("waiting", "frames"):
            side.stage = "frames"
            yield from self._read_frames(side, b"")
            assert side.inspector is not None
            yield from side.inspector.finish(is_end)
        side.stage = "over"

    def lose(self, is_client: bool | None, count: int) -> Iterator[Finding]:
        """End one direction because bytes of it were not captured.

        Args:
            is_client: which one.
            count: how many bytes are missing.
        """
        side = self._side(is_client)
        if self.is_websocket and side.stage != "over":
            side.stage = "over"
            offset = side.offset if side.inspector is None else side.inspector.offset
            text = f"{count} bytes are missing in the capture: nothing behind them can be read"
            yield Note(is_client, offset, text)

    def _side(self, is_client: bool | None) -> _Side:
        if is_client not in self._sides:
            self._sides[is_client] = _Side(is_client)
        return self._sides[is_client]

    def _read_frames(self, side: _Side, data: bytes) -> Iterator[Finding]:
        self.is_websocket = True
        if side.inspector is None:
            side.inspector = FrameInspector(
                is_client=side.is_client,
                compression=self._deflate,
                payload_limit=self._payload_limit,
                offset=side.offset,
            )
        if side.waiting:
            data = bytes(side.waiting) + data
            side.waiting.clear()
        yield from side.inspector.feed(data)

    # The opening handshake

    def _read_head(self, side: _Side, head: bytes) -> Iterator[Finding]:
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

    def _refuse(self, side: _Side, error: RemoteProtocolError, data: bytes) -> Iterator[Finding]:
        """Return what is wrong with a head, if it is one of a WebSocket."""
        side.stage = "over"
        if not self.is_websocket and not _IS_WEBSOCKET.search(data) and self._has_both_directions:
            self.is_websocket = False
            return
        self.is_websocket = True
        yield Violation(side.is_client, 0, error.code, error.reason)

    def _read_request(self, side: _Side, head: bytes) -> Iterator[Finding]:
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
        if self._has_both_directions:
            side.stage = "waiting"
        yield InspectedHead(True, 0, f"GET {event.path}", _shown(event.headers))

    def _read_response(self, side: _Side, head: bytes) -> Iterator[Finding]:
        status, headers = _parse_response(head)
        if status != 101 and not self.is_websocket and self._has_both_directions:
            self.is_websocket = False
            side.stage = "over"
            return
        yield InspectedHead(False, 0, str(status), _shown(headers))
        if status != 101:
            self._may_skip_handshake = False
            for other in (side, self._side(True)):
                other.stage = "over"
            return
        self.is_websocket = True
        try:
            self._deflate = _ANY.check_response(headers.get("sec-websocket-extensions", ""))
            if (request := self._request) is not None:
                key = request.headers.get("sec-websocket-key", "")
                handshake.check_response(headers, key, request.subprotocols, extensions_offered=True)
        except RemoteProtocolError as error:
            yield Violation(False, 0, error.code, error.reason)
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
    return [(name, value) for name in _SHOWN if (value := headers.get(name))]
