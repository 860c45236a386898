"""RFC 6455, section 4.1: the client's side of the opening handshake.

client                                  server
  | GET /chat, Upgrade: websocket  -->    |
  |   <-- 101 Switching Protocols         |   Response(101): the connection is open
  |   <-- 404 and a body                  |   Response(404), then Fail
  |   <-- 101 that is wrong               |   Fail
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import handshake
from .connection import CLOSED, CONNECTING, OPEN, Connection, Role, check_compression
from .deflate import DEFAULT, Deflate
from .errors import LocalProtocolError, RemoteProtocolError
from .events import Event, Response
from .uri import parse_uri

if TYPE_CHECKING:
    import h11

__all__ = ["ClientConnection"]

_MAX_BODY_SIZE = 65536  # bytes of a refusal that are kept
_MAX_INFORMATIONAL = 10  # responses of 100 to 199 before the one that counts
_SHOWN = 24  # bytes that an error shows of an answer that is not HTTP


class ClientConnection(Connection):
    """The client's end of a WebSocket connection (RFC 6455, section 4.1).

    The request is in ``data_to_send()`` at once. The first event is a ``Response``: 101 means that the
    connection is open, any other status is followed by a ``Fail``. A 101 that is wrong is a ``Fail``.

    Args:
        uri: the address, ``ws://`` or ``wss://``. User name and password go out as Basic credentials.
        subprotocols: the subprotocols to offer, the favourite first.
        origin: the value of an Origin header, or None.
        additional_headers: more headers for the request. A value in ``bytes`` goes out as it is, a ``str`` in
            ISO 8859-1.
        compression: the compression to offer (RFC 7692); None: none. By default it is the offer of browsers.
        max_message_size: as for ``Connection``.
        fragments: as for ``Connection``.

    Attributes:
        uri: the parts of the address.
        response: the server's ``Response``, whatever its status, or None.

    Raises:
        InvalidURI: the address is not one.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: the value of a header has a character outside ISO 8859-1.
        TypeError: an argument has a wrong type.
    """

    __slots__ = (
        "_body",
        "_head_reader",
        "_informational",
        "_key",
        "_offered",
        "_parser",
        "_start",
        "_subprotocols",
        "response",
        "uri",
    )

    def __init__(
        self,
        uri: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        additional_headers: handshake.HeaderList = (),
        compression: Deflate | None = DEFAULT,
        max_message_size: int | None = 2**20,
        fragments: bool = False,
    ) -> None:
        super().__init__(Role.CLIENT, max_message_size=max_message_size, fragments=fragments)
        self.uri = parse_uri(uri)
        self.state = CONNECTING
        self.response: Response | None = None
        self._in_handshake = True
        self._head_reader = handshake.HeadReader()
        self._parser: h11.Connection | None = None
        self._start: bytes | None = b""
        self._body = bytearray()
        self._informational = 0
        self._key = handshake.new_key()
        self._subprotocols = handshake.check_subprotocols(subprotocols)
        self._offered = check_compression(compression)
        self._output.append(self._encode_request(origin, additional_headers))

    def _encode_request(self, origin: str | None, additional_headers: handshake.HeaderList) -> bytes:
        uri = self.uri
        request = [
            ("Host", uri.host_header),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", handshake.VERSION),
        ]
        if origin is not None:
            request.append(("Origin", handshake.check_header("Origin", origin)))
        if self._subprotocols:
            request.append(("Sec-WebSocket-Protocol", ", ".join(self._subprotocols)))
        if self._offered is not None:
            request.append(("Sec-WebSocket-Extensions", self._offered.offer()))
        more = handshake.check_headers(additional_headers)
        if uri.username is not None and not any(name.lower() == "authorization" for name, _ in more):
            # RFC 7617, section 2
            if ":" in uri.username:
                raise LocalProtocolError("user name must not contain a colon")
            credentials = f"{uri.username}:{uri.password or ''}".encode()
            request.append(("Authorization", "Basic " + base64.b64encode(credentials).decode()))
        return handshake.encode_request(uri.resource_name, request + more)

    def _next_handshake_event(self) -> Event | None:
        if self.state is CLOSED:
            assert self.response is not None
            return self._fail(1006, f"server answered with status {self.response.status}")
        while self._parser is None:
            parts = self._head_reader.feed(self._take_head())
            if parts is None:
                return None
            head, rest = parts
            self._decoder.feed(rest)
            status = self._read_head(head)
            if status == 101:
                return self._open()
            if status < 200:
                self._informational += 1
                if self._informational > _MAX_INFORMATIONAL:
                    raise RemoteProtocolError(1002, "too many informational responses")
                self._parser = self.response = None
        return self._read_body(self._parser)

    def _take_head(self) -> bytes:
        """Take bytes of the head, once it is known to be one.

        A server of another protocol may send a line, and then wait for us: its blank line would never come.
        """
        if self._start is None:
            return self._decoder.drain()
        data = self._start + self._decoder.drain()
        if data.startswith(b"HTTP/"):
            self._start = None
            return data
        if data.startswith(b"\x15\x03"):  # an alert, which answers our "GET"
            raise RemoteProtocolError(1002, "server speaks TLS, as for a wss address")
        line, is_line, _ = data[:_SHOWN].partition(b"\n")
        if not b"HTTP/".startswith(data) and (is_line or len(data) >= _SHOWN or self._eof):
            raise RemoteProtocolError(1002, f"server does not speak HTTP, but says {line.rstrip()!r}")
        self._start = data
        return b""

    def _read_head(self, head: bytes) -> int:
        if plain := handshake.read_plain_head(head):
            self.response = Response(101, plain[1])
            return 101
        import h11  # as in server.py

        # h11 reads a response as the answer to a request, so it is told of one.
        self._parser = parser = h11.Connection(h11.CLIENT)
        asked = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        parser.send(h11.Request(method="GET", target="/", headers=asked))
        parser.send(h11.EndOfMessage())
        parser.receive_data(head)
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError(1002, f"malformed HTTP response: {error}"[:120]) from None
        assert isinstance(event, (h11.InformationalResponse, h11.Response))
        # "The HTTP version MUST be at least 1.1"; a refusal may come from an older server.
        if event.status_code == 101 and event.http_version != b"1.1":
            raise RemoteProtocolError(1002, "HTTP version must be 1.1")
        self.response = Response(event.status_code, handshake.decode_headers(event.headers))
        return event.status_code

    def _open(self) -> Response:
        assert self.response is not None
        headers = self.response.headers
        offered = self._offered
        self.subprotocol = handshake.check_response(
            headers, self._key, self._subprotocols, extensions_offered=offered is not None
        )
        compression = offered and offered.check_response(headers.get("sec-websocket-extensions", ""))
        self.response.subprotocol = self.subprotocol
        if compression is not None:
            self._agree(compression)
        self.state = OPEN
        self._in_handshake = False
        self._parser = None
        return self.response

    def _read_body(self, parser: h11.Connection) -> Response | None:
        import h11

        data = self._decoder.drain()
        if data:
            parser.receive_data(data)
        is_complete = self._eof
        while len(self._body) < _MAX_BODY_SIZE:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError:
                is_complete = True  # the body is cut short, which the status does not depend on
                break
            if isinstance(event, h11.Data):
                self._body += event.data
            else:
                is_complete = is_complete or event is not h11.NEED_DATA
                break
        else:
            is_complete = True
        if not is_complete:
            return None
        assert self.response is not None
        self.response.body = bytes(self._body[:_MAX_BODY_SIZE])
        self.state = CLOSED
        self.should_close = True
        return self.response
