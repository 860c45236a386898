"""RFC 6455, section 4.2: the server's side of the opening handshake.

client                                  server
  | GET /chat, Upgrade: websocket  -->    |   Request, or a refusal and Fail
  |   <-- 101 Switching Protocols         |   accept()
  |   <-- 403 and a line of text          |   reject(403)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import EllipsisType

from . import handshake
from .connection import CLOSED, CONNECTING, OPEN, Connection, Role, check_compression
from .deflate import DEFAULT, Deflate
from .errors import InvalidRequest, LocalProtocolError
from .events import Event, Request, Response
from .origins import Origins

__all__ = ["ServerConnection"]

_CONNECTION_CLOSE = ("Connection", "close")
_PLAIN_TEXT = ("Content-Type", "text/plain; charset=utf-8")


class ServerConnection(Connection):
    """The server's end of a WebSocket connection (RFC 6455, section 4.2).

    The first event is a ``Request``: answer it with ``accept()`` or ``reject()``. A handshake that is
    wrong is answered by the core with the HTTP error that fits, and the event is a ``Fail``.

    Args:
        subprotocols: the subprotocols that the server speaks, its favourite first.
        origins: the origins whose pages may connect, as strings such as ``https://example.com`` or compiled
            patterns of them: see ``Origins``. Others get 403. None in the list allows requests without an
            Origin. By default all may.
        compression: the compression to agree on with clients that offer it (RFC 7692); None: none. By default
            it takes little memory.
        max_message_size: as for ``Connection``.
        fragments: as for ``Connection``.

    Attributes:
        request: the client's ``Request``, or None.

    Raises:
        LocalProtocolError: a subprotocol is not a token, or comes twice.
        ValueError: an origin is not one.
        TypeError: an argument has a wrong type.
    """

    __slots__ = (
        "_head_reader",
        "_origins",
        "_refusal",
        "_subprotocols",
        "_wished",
        "request",
    )

    def __init__(
        self,
        *,
        subprotocols: Sequence[str] = (),
        origins: Origins | Iterable[str | re.Pattern[str] | None] | None = None,
        compression: Deflate | None = DEFAULT,
        max_message_size: int | None = 2**20,
        fragments: bool = False,
    ) -> None:
        super().__init__(Role.SERVER, max_message_size=max_message_size, fragments=fragments)
        self.state = CONNECTING
        self.request: Request | None = None
        self._in_handshake = True
        self._head_reader = handshake.HeadReader(skip_empty_line=True)
        self._subprotocols = handshake.check_subprotocols(subprotocols)
        self._origins = origins if origins is None or isinstance(origins, Origins) else Origins(origins)
        self._wished = check_compression(compression)
        self._refusal = ""

    def _next_handshake_event(self) -> Event | None:
        if self.state is CLOSED:
            return self._fail(1006, self._refusal)
        try:
            if self.request is None:
                self.request = self._read_request()
                return self.request
            if not self.request.is_upgrade:
                # It was offered to the application, which went on without an answer.
                raise handshake.refusal(self.request)
        except InvalidRequest as error:
            self._refuse(error)
            return self._fail(error.code, error.reason)
        return None

    def _read_request(self) -> Request | None:
        parts = self._head_reader.feed(self._decoder.drain())
        if parts is None:
            return None
        head, rest = parts
        self._decoder.feed(rest)
        if plain := handshake.read_plain_head(head):
            path, headers = plain
            request = handshake.check_request(headers, path=path)
        else:
            request = self._parse_request(head)
        # Section 4.2.2, item 4: "If the server does not wish to accept this connection, it MUST return
        # an appropriate HTTP error code (e.g., 403 Forbidden)".
        if self._origins is not None and request.is_upgrade and request.origin not in self._origins:
            raise InvalidRequest(
                403, "origin is not allowed" if request.origin else "Origin header is missing"
            )
        return request

    def _parse_request(self, head: bytes) -> Request:
        import h11  # a quarter of the time of importing wsframe, for what most heads do without

        parser = h11.Connection(h11.SERVER)
        parser.receive_data(head)
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise InvalidRequest(400, f"malformed HTTP request: {error}"[:120]) from None
        assert isinstance(event, h11.Request)
        return handshake.check_request(
            handshake.decode_headers(event.headers),
            method=event.method.decode("ascii"),
            path=event.target.decode("ascii"),
            http_version=event.http_version.decode("ascii"),
        )

    def accept(
        self,
        subprotocol: str | EllipsisType | None = ...,
        headers: handshake.HeaderList = (),
    ) -> None:
        """Accept the request and open the connection with a 101 (RFC 6455, section 4.2.2).

        A request that does not ask for a WebSocket is refused: a plain GET with 426, a HEAD or OPTIONS with
        405, and HTTP/1.0 with 505.

        Args:
            subprotocol: one that the client offers, or None for none; by default the first of the
                server's ``subprotocols`` that it offers.
            headers: more headers for the response. A value in ``bytes`` goes out as it is, a ``str`` in
                ISO 8859-1.

        Raises:
            LocalProtocolError: there is no request to answer, the subprotocol was not offered, or a
                header cannot be sent.
            ValueError: the value of a header has a character outside ISO 8859-1.
            TypeError: a header is not a pair of a string and a value, which is a string or bytes.
        """
        request = self._unanswered()
        if not request.is_upgrade:
            self._refuse(handshake.refusal(request))
            return
        if subprotocol is ...:
            subprotocol = handshake.choose_subprotocol(request, self._subprotocols)
        extensions, compression = "", None
        if self._wished is not None:
            offers = request.headers.get("sec-websocket-extensions", "")
            extensions, compression = self._wished.accept(offers) or ("", None)
        response = handshake.accept(request, subprotocol=subprotocol, extensions=extensions, headers=headers)
        self._output.append(handshake.encode_response(101, response))
        self.subprotocol = subprotocol
        if compression is not None:
            self._agree(compression)
        self.state = OPEN
        self._in_handshake = False

    def reject(self, status: int, headers: handshake.HeaderList = (), body: bytes = b"") -> None:
        """Answer the request with any other HTTP response, and close (RFC 6455, section 4.2.2).

        Args:
            status: 200 to 599.
            headers: more headers for the response, as for ``accept``.
            body: the body; plain text, unless ``headers`` has a Content-Type. The answer to a HEAD has only
                its length.

        Raises:
            LocalProtocolError: there is no request to answer, or a header cannot be sent.
            ValueError: the status is out of range, or does not go with a body; or the value of a header has a
                character outside ISO 8859-1.
            TypeError: an argument has a wrong type.
        """
        self._unanswered()
        if not isinstance(status, int):
            raise TypeError(f"status must be an int, not {type(status).__name__}")
        if not 200 <= status <= 599:
            raise ValueError(f"status must be 200 to 599, not {status}")
        if not isinstance(body, bytes):
            raise TypeError(f"body must be bytes, not {type(body).__name__}")
        if body and status in (204, 205, 304):
            raise ValueError(f"a response with status {status} has no body")
        response = handshake.check_headers(headers)
        if status == 426:
            response += handshake.UPGRADE_REQUIRED
        if body and not any(name.lower() == "content-type" for name, _ in response):
            response.append(_PLAIN_TEXT)
        self._send_refusal(status, response, body)

    def respond(self, response: Response | None) -> None:
        """Answer the request as a ``process_request`` decided (RFC 6455, section 4.2.2).

        Args:
            response: None to accept the request; ``Response(101, headers, subprotocol=...)`` to accept it
                with more headers and a subprotocol of your choice; any other ``Response`` to reject it.

        Raises:
            LocalProtocolError: as ``accept`` and ``reject`` do.
            ValueError: as ``reject`` does.
            TypeError: as ``reject`` does, or the response is neither a ``Response`` nor None.
        """
        if response is None:
            self.accept()
        elif not isinstance(response, Response):
            raise TypeError(f"process_request must return a Response or None, not {type(response).__name__}")
        elif response.status == 101:
            self.accept(response.subprotocol or ..., response.headers)
        else:
            self.reject(response.status, response.headers, response.body)

    def _unanswered(self) -> Request:
        if self.state is not CONNECTING or self.request is None:
            raise LocalProtocolError("there is no request to answer")
        return self.request

    def _refuse(self, error: InvalidRequest) -> None:
        self._send_refusal(error.status, [*error.headers, _PLAIN_TEXT], error.reason.encode() + b"\n")

    def _send_refusal(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        method = "HEAD" if self._head_reader.is_head_request else "GET"
        headers = [*headers, _CONNECTION_CLOSE]
        self._output.append(handshake.encode_response(status, headers, body, method=method))
        self._refusal = f"handshake was refused with {status}"
        self.state = CLOSED
        self.should_close = True
