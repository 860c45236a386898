"""RFC 6455, section 4: the opening handshake, as functions on HTTP heads.

    GET /chat HTTP/1.1                                HTTP/1.1 101 Switching Protocols
    Host: server.example.com                          Upgrade: websocket
    Upgrade: websocket                                Connection: Upgrade
    Connection: Upgrade                               Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==       Sec-WebSocket-Protocol: chat
    Sec-WebSocket-Version: 13
    Sec-WebSocket-Protocol: chat, superchat

A head is read in three steps: ``HeadReader`` collects its bytes, h11 parses them (``read_plain_head`` does
where there is nothing special in them), and ``check_request`` or ``check_response`` judges the headers. These
two, with ``accept``, work on header lists alone, so that a server that speaks HTTP already can use them; over
HTTP/2 as well (RFC 8441: ``:protocol = websocket``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeAlias

from .deflate import check_extensions
from .errors import InvalidRequest, LocalProtocolError, RemoteProtocolError
from .events import Headers, Request

__all__ = [
    "HeadReader",
    "HeaderList",
    "accept",
    "accept_key",
    "check_header",
    "check_headers",
    "check_request",
    "check_response",
    "check_subprotocols",
    "choose_subprotocol",
    "encode_request",
    "encode_response",
    "new_key",
    "refusal",
]

MAX_HEAD_SIZE = 16384  # bytes
MAX_HEADERS = 100
VERSION = "13"
# RFC 7231, section 6.5.15: "The server MUST send an Upgrade header field in a 426 response".
UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", VERSION),
)

HeaderList: TypeAlias = Iterable[tuple[str, str | bytes]] | Mapping[str, str | bytes]
"""Headers to send: pairs, or a mapping, of names and values.

A value in ``bytes`` goes out as it is, a ``str`` in ISO 8859-1.
"""

# RFC 7230, section 3.2.6
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, section 5.5, field-value, decoded as ISO 8859-1: obs-text, which is 0x80 to 0xff, may be anything,
# and most of it is UTF-8. Control characters split lines elsewhere.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_RESOURCE_NAME = re.compile(r"/[\x21\x22\x24-\x7e]*")
# RFC 3986, section 3.2: host [ ":" port ], by its characters
_HOST = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=%:\[\]]+")
# RFC 9112, section 3.2.2
_ABSOLUTE_FORM = re.compile(rf"(?:http|ws)s?://({_HOST.pattern})(?=[/?]|\Z)", re.IGNORECASE)

# RFC 9112, of what most heads are made: a line that is GET and HTTP/1.1, or 101, and fields.
_PLAIN_LINE = re.compile(rf"(?:GET ([\x21-\x7e]++) HTTP/1\.1|HTTP/1\.1 101(?: {_FIELD_VALUE.pattern}+)?)\r\n")
_PLAIN_FIELDS = re.compile(rf"(?:{_TOKEN.pattern}+:{_FIELD_VALUE.pattern}+\r\n)*+\r\n")
_PLAIN_FIELD = re.compile(r"([^:]++):[\t ]*+([^\r]*+)\r\n")

_BLANK_LINE = re.compile(rb"\n\r?\n")
# Lines end with CRLF and only with CRLF; no line is folded; no control characters.
_ILLEGAL = re.compile(rb"(?<!\r)\n|\r[^\n]|\r\n[\t ]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_VISIBLE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])


def _is_clean(data: bytes) -> bool:
    """Return whether all is legal, in a fraction of the time of ``_ILLEGAL``; False: perhaps it is not."""
    line_ends = len(data.translate(None, _VISIBLE))
    return line_ends == 2 * data.count(b"\r\n") and b"\r\n " not in data and b"\r\n\t" not in data


# Methods of requests that the application is asked about. A health check may be any of them.
_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_WRONG_METHOD = 405, "method must be GET", (("Allow", "GET"),)
_WRONG_VERSION = 505, "HTTP version must be 1.1"
_HEAD_METHOD = b"HEAD "

# Headers that a user may not set, because the handshake does.
_OURS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "origin",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)


# Bytes of a head


class HeadReader:
    """Collect the bytes of a head up to its blank line, in linear time whatever the pieces.

    Section 4: lines are split on CRLF only; what holds a bare CR or LF, a folded line or a control
    character is refused as soon as it is there, and so is what exceeds 16 KiB.

    Args:
        skip_empty_line: whether one empty line may come before the head, as before a request.

    Attributes:
        is_head_request: whether the method is HEAD, also when what follows it is wrong.
    """

    __slots__ = ("_bytes", "_skip_empty_line", "is_head_request")

    def __init__(self, *, skip_empty_line: bool = False) -> None:
        self._bytes = bytearray()
        self._skip_empty_line = skip_empty_line
        self.is_head_request = False

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take bytes, and return the head and what follows it, or None if more bytes are needed.

        Args:
            data: the next bytes of the stream.

        Raises:
            InvalidRequest: with status 400 for an illegal byte, 431 for a head that is too large.
        """
        raw = self._bytes
        seen = len(raw)
        raw += data
        if self._skip_empty_line and len(raw) >= 2:
            # RFC 9112, section 2.2: "a server that is expecting to receive and parse a request-line SHOULD
            # ignore at least one empty line (CRLF) received prior to the request-line."
            self._skip_empty_line = False
            if raw.startswith(b"\r\n"):
                del raw[:2]
                data, seen = data[2 - seen :], 0
        if seen < len(_HEAD_METHOD):
            self.is_head_request = raw.startswith(_HEAD_METHOD)
        blank_line = _BLANK_LINE.search(raw, max(seen - 2, 0))
        end = blank_line.end() if blank_line else len(raw)
        illegal = None
        if seen or not _is_clean(data[:end]):
            illegal = _ILLEGAL.search(raw, max(seen - 2, 0), min(end, MAX_HEAD_SIZE))
        if illegal:
            what = illegal[0]
            if what.startswith(b"\r\n"):
                raise InvalidRequest(400, "header lines must not be folded")
            if what.startswith((b"\r", b"\n")):
                raise InvalidRequest(400, "lines must end with CR LF")
            raise InvalidRequest(400, f"byte 0x{what[0]:02x} is not allowed in a head")
        if end > MAX_HEAD_SIZE:
            raise InvalidRequest(431, f"head exceeds {MAX_HEAD_SIZE} bytes")
        if blank_line is None:
            return None
        head, rest = bytes(raw[:end]), bytes(raw[end:])
        raw.clear()
        return head, rest


def read_plain_head(head: bytes) -> tuple[str, Headers] | None:
    """Read the head of a GET, or of a 101, without a body and with nothing special in it.

    h11 would read the same, but takes half of the time of a handshake. What is not so plain is left to it,
    and so are all errors: a property test compares the two.

    Args:
        head: what ``HeadReader`` returned.

    Returns:
        The target of the request, or ``""`` for a response, and the headers; None: it is not plain.
    """
    text = head.decode("latin-1")
    line = _PLAIN_LINE.match(text)
    if line is None or _PLAIN_FIELDS.fullmatch(text, line.end()) is None:
        return None
    pairs = _PLAIN_FIELD.findall(text, line.end())
    headers = Headers([(name.lower(), value.rstrip("\t ")) for name, value in pairs])
    # Of these h11 knows what is allowed and what is not.
    names = [name for name, _ in headers]
    is_request = line[1] is not None
    if "content-length" in names or "transfer-encoding" in names or (is_request and names.count("host") != 1):
        return None
    return line[1] or "", _limited(headers)


def decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return headers as text: h11's bytes, decoded.

    Args:
        headers: pairs of bytes; names in lower case.

    Raises:
        InvalidRequest: with status 431, when there are more than 100; with 400, when a value has a control
            character.
    """
    return _limited(_read_headers((name.decode("ascii"), value) for name, value in headers))


def _limited(headers: Headers) -> Headers:
    if len(headers) > MAX_HEADERS:
        raise InvalidRequest(431, f"head has more than {MAX_HEADERS} headers")
    return headers


def check_headers(headers: HeaderList) -> list[tuple[str, str]]:
    """Return the headers that a user wants to send, as pairs, when they can be sent.

    Args:
        headers: pairs, or a mapping, of names and values.

    Raises:
        LocalProtocolError: a name is not a token, a value has a control character, or the header is one
            that the handshake sets by itself.
        ValueError: a value has a character outside ISO 8859-1.
        TypeError: a name is not a string, or a value neither a string nor bytes.
    """
    pairs = []
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        pairs.append((name, check_header(name, value)))
        if name.lower() in _OURS:
            raise LocalProtocolError(f"header {name} is set by the handshake")
    return pairs


def check_header(name: str, value: str | bytes) -> str:
    """Return a header's value as text when the header can be sent (RFC 9110, sections 5.1 and 5.5).

    Args:
        name: the header's name.
        value: its value. ``bytes`` are decoded as ISO 8859-1, which is how headers are encoded.

    Raises:
        LocalProtocolError: the name is not a token, or the value has a control character.
        ValueError: the value has a character outside ISO 8859-1.
        TypeError: the name is not a string, or the value neither a string nor bytes.
    """
    if not isinstance(name, str) or not isinstance(value, (str, bytes)):
        raise TypeError(f"a header must be a name (str) and a value (str or bytes), not {name!r}: {value!r}")
    if not _TOKEN.fullmatch(name):
        raise LocalProtocolError(f"header name {name!r} is not a token")
    text = value if isinstance(value, str) else value.decode("latin-1")
    if not _FIELD_VALUE.fullmatch(text):
        if _CONTROL.search(text):
            raise LocalProtocolError(f"value of header {name} has a control character")
        raise ValueError(
            f"value of header {name} has a character outside latin-1: give its bytes, "
            "or value.encode().decode('latin-1')"
        )
    return text


def encode_request(resource_name: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the bytes of a GET (RFC 6455, section 4.1).

    Args:
        resource_name: path and query.
        headers: checked headers.
    """
    return _encode_head(f"GET {resource_name} HTTP/1.1", headers)


def encode_response(
    status: int, headers: Iterable[tuple[str, str]], body: bytes = b"", *, method: str = "GET"
) -> bytes:
    """Return the bytes of a response (RFC 7230, section 3).

    Args:
        status: the HTTP status code.
        headers: checked headers; Content-Length is added where a body may be.
        body: the body.
        method: the request's method. The answer to a HEAD has the length of the body, and no body.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    headers = list(headers)
    # RFC 7230, section 3.3.2: no Content-Length "with a status code of 1xx (Informational) or 204".
    if status >= 200 and status not in (204, 304):
        headers.append(("Content-Length", str(len(body))))
    # RFC 9110, section 9.3.2: "the server MUST NOT send content in the response".
    return _encode_head(f"HTTP/1.1 {status} {phrase}", headers) + (b"" if method == "HEAD" else body)


def _encode_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# The key


def new_key() -> str:
    """Return a fresh Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455, section 4.1, item 7)."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a key (RFC 6455, section 4.2.2, item 5.4).

    Args:
        key: the value of Sec-WebSocket-Key.
    """
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False)
    return base64.b64encode(digest.digest()).decode()


def _is_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except ValueError:  # binascii.Error is one, and so is what a character outside ASCII gives
        return False


# Headers


def _read_headers(headers: HeaderList) -> Headers:
    pairs = []
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        text = value if isinstance(value, str) else value.decode("latin-1")
        if not _FIELD_VALUE.fullmatch(text):
            raise InvalidRequest(400, "a header value has a control or non-latin-1 character")
        pairs.append((name.lower(), text))
    return Headers(pairs)


def _elements(value: str) -> list[str]:
    """Split a comma-separated list (RFC 7230, section 7: empty elements are ignored)."""
    return [element for part in value.split(",") if (element := part.strip(" \t"))]


def _single(headers: Headers, name: str, label: str) -> str | None:
    values = headers.get_all(name)
    if len(values) > 1:
        raise InvalidRequest(400, f"more than one {label} header")
    return values[0].strip(" \t") if values else None


def _includes(headers: Headers, name: str, token: str) -> bool:
    return token in _elements(headers.get(name, "").lower())


def check_request(
    headers: HeaderList, *, method: str = "GET", path: str = "/", http_version: str = "1.1"
) -> Request:
    """Judge a client's opening handshake (RFC 6455, section 4.2.1; RFC 8441, section 5).

    Args:
        headers: the HTTP headers; with the pseudo-headers for HTTP/2.
        method: the HTTP method; for HTTP/2 it stands in ``:method``.
        path: the target of the request line; for HTTP/2 it stands in ``:path``.
        http_version: the HTTP version, such as ``1.1``.

    Returns:
        The request. ``is_upgrade`` is False when it does not ask for a WebSocket: it is a plain GET, a HEAD
        or OPTIONS, or in HTTP/1.0. ``refusal`` returns what refuses it.

    Raises:
        InvalidRequest: it is wrong; the error has the status and headers to refuse it with.
    """
    headers = _read_headers(headers)
    if headers.get_all(":protocol"):
        return _check_extended_connect(headers, http_version)
    # 1. "The method of the request MUST be GET, and the HTTP version MUST be at least 1.1." HTTP/2
    #    and later don't have a request line. Health checks are HEAD, OPTIONS or HTTP/1.0 as well.
    if http_version not in ("1.0", "1.1"):
        raise InvalidRequest(*_WRONG_VERSION)
    if method not in _METHODS:
        raise InvalidRequest(*_WRONG_METHOD)
    # 2. The resource name
    resource_name, authority = _read_target(path, method)
    # 3. "A |Host| header field containing the server's authority." HTTP/1.0 has none.
    host = _single(headers, "host", "Host")
    if host is None and http_version == "1.1":
        raise InvalidRequest(400, "Host header is missing")
    # RFC 9112, section 3.2: 400 also to "a Host header field with an invalid field value"
    if host is not None and not _HOST.fullmatch(host):
        raise InvalidRequest(400, "Host header must be a host, with or without a port")
    # Section 3.2.2: "the origin server MUST ignore the received Host header field (if any) and instead use
    # the host information of the request-target."
    if authority:
        others = (header for header in headers if header[0] != "host")
        headers = Headers([("host", authority), *others])
    # A body would be taken for frames.
    lengths = headers.get_all("content-length")
    if headers.get_all("transfer-encoding") or any(set(length.strip(" \t")) != {"0"} for length in lengths):
        raise InvalidRequest(400, "request must not have a body")
    # 4. "An |Upgrade| header field containing the value "websocket", treated as an ASCII
    #    case-insensitive value." Without it, it is another GET.
    is_upgrade = method == "GET" and http_version == "1.1" and _includes(headers, "upgrade", "websocket")
    if not is_upgrade:
        return Request(resource_name, headers, is_upgrade=False, method=method, http_version=http_version)
    # 5. "A |Connection| header field that includes the token "Upgrade""
    if not _includes(headers, "connection", "upgrade"):
        raise InvalidRequest(400, "Connection header must include upgrade")
    # 6. "A |Sec-WebSocket-Version| header field, with a value of 13."
    _check_version(headers)
    # 7. "A |Sec-WebSocket-Key| header field with a base64-encoded value that, when decoded, is 16
    #    bytes in length."
    key = _single(headers, "sec-websocket-key", "Sec-WebSocket-Key")
    if key is None:
        raise InvalidRequest(400, "Sec-WebSocket-Key header is missing")
    if not _is_key(key):
        raise InvalidRequest(400, "Sec-WebSocket-Key must be base64 of 16 bytes")
    # 8. and 9. "Optionally," Origin and Sec-WebSocket-Protocol
    return _request(resource_name, headers)


def _check_extended_connect(headers: Headers, http_version: str) -> Request:
    if headers.get(":protocol") != "websocket":
        raise InvalidRequest(501, "protocol must be websocket")
    if headers.get(":method") != "CONNECT":
        raise InvalidRequest(400, "method must be CONNECT")
    _check_version(headers)
    # Pseudo-headers begin with HTTP/2: a caller that says nothing means that.
    version = "2" if http_version == "1.1" else http_version
    return _request(_check_path(headers.get(":path", "")), headers, "CONNECT", version)


def refusal(request: Request) -> InvalidRequest:
    """Return the error that refuses a request which does not ask for a WebSocket.

    Args:
        request: what ``check_request`` returned, with ``is_upgrade`` False.
    """
    if request.http_version != "1.1":
        return InvalidRequest(*_WRONG_VERSION)
    if request.method != "GET":
        return InvalidRequest(*_WRONG_METHOD)
    return InvalidRequest(426, "this is a WebSocket server", UPGRADE_REQUIRED)


def _check_version(headers: Headers) -> None:
    version = _single(headers, "sec-websocket-version", "Sec-WebSocket-Version")
    if version is None:
        raise InvalidRequest(400, "Sec-WebSocket-Version header is missing")
    if version != VERSION:
        # Section 4.4: "the server MUST respond with [...] a |Sec-WebSocket-Version| header field"
        raise InvalidRequest(426, "Sec-WebSocket-Version must be 13", UPGRADE_REQUIRED)


def _request(resource_name: str, headers: Headers, method: str = "GET", http_version: str = "1.1") -> Request:
    origin = _single(headers, "origin", "Origin")
    subprotocols = _elements(headers.get("sec-websocket-protocol", ""))
    for subprotocol in subprotocols:
        if not _TOKEN.fullmatch(subprotocol):
            raise InvalidRequest(400, "Sec-WebSocket-Protocol must be a list of tokens")
    # Section 9.1: "the recipient of such malformed data MUST immediately _Fail the WebSocket Connection_",
    # whatever the server knows of extensions. A well-formed offer may be declined.
    try:
        check_extensions(headers.get("sec-websocket-extensions", ""))
    except RemoteProtocolError as error:
        raise InvalidRequest(400, error.reason) from None
    # Section 4.1, item 10: "MUST all be unique strings". Chargers repeat one (ocpp1.6), and mean it once.
    return Request(
        resource_name,
        headers,
        dict.fromkeys(subprotocols),
        origin,
        method=method,
        http_version=http_version,
    )


def _read_target(target: str, method: str) -> tuple[str, str]:
    """Return the path of a request target, with its query, and the host and port of an absolute-form."""
    # RFC 9112, section 3.2.4: "The asterisk-form of request-target is only used for a server-wide OPTIONS
    # request".
    if target == "*" and method == "OPTIONS":
        return target, ""
    authority = ""
    if absolute := _ABSOLUTE_FORM.match(target):
        authority = absolute[1]
        target = target[absolute.end() :]
        target = target if target.startswith("/") else "/" + target
    return _check_path(target), authority


def _check_path(path: str) -> str:
    if not _RESOURCE_NAME.fullmatch(path):
        raise InvalidRequest(400, "request target must be a path")
    return path


def check_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """Return the subprotocols that a user offers, when they can be offered (section 4.1, item 10).

    Args:
        subprotocols: names, the favourite first.

    Raises:
        LocalProtocolError: one is not a token, or comes twice.
        TypeError: they are a string, or one is not a string.
    """
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols must be a list of str, not a str")
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str):
            raise TypeError(f"subprotocol must be a str, not {type(subprotocol).__name__}")
        if not _TOKEN.fullmatch(subprotocol):
            raise LocalProtocolError(f"subprotocol {subprotocol!r} is not a token")
    if len(set(subprotocols)) != len(subprotocols):
        raise LocalProtocolError("subprotocols must be unique")
    return tuple(subprotocols)


def choose_subprotocol(request: Request, subprotocols: Sequence[str]) -> str | None:
    """Return the first of the server's subprotocols that the client offers, or None.

    Args:
        request: the client's request.
        subprotocols: what the server speaks, its favourite first.
    """
    return next((name for name in subprotocols if name in request.subprotocols), None)


def accept(
    request: Request, *, subprotocol: str | None = None, extensions: str = "", headers: HeaderList = ()
) -> list[tuple[str, str]]:
    """Return the headers of the response that opens the connection (RFC 6455, section 4.2.2, item 5).

    They go with status 101, or with 200 over HTTP/2 (RFC 8441).

    Args:
        request: what ``check_request`` returned.
        subprotocol: one of those that the client offers, or None.
        extensions: the value of Sec-WebSocket-Extensions, which ``Deflate.accept`` returns; "" for none.
        headers: more headers, such as cookies.

    Raises:
        LocalProtocolError: the subprotocol was not offered, the request is a plain GET, or
            ``check_headers`` refuses the headers.
        ValueError: the value of a header has a character outside ISO 8859-1.
    """
    if not request.is_upgrade:
        raise LocalProtocolError("the request does not ask for a WebSocket")
    if subprotocol is not None and subprotocol not in request.subprotocols:
        raise LocalProtocolError(f"the client did not offer subprotocol {subprotocol!r}")
    more = check_headers(headers)
    response = []
    # RFC 8441, section 5: over HTTP/2 these are "not included".
    if not request.headers.get_all(":protocol"):
        key = request.headers.get("sec-websocket-key", "").strip(" \t")
        response += [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(key)),
        ]
    if subprotocol is not None:
        response.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions:
        check_header("Sec-WebSocket-Extensions", extensions)
        response.append(("Sec-WebSocket-Extensions", extensions))
    return response + more


def check_response(
    headers: HeaderList, key: str, subprotocols: Sequence[str] = (), *, extensions_offered: bool = False
) -> str | None:
    """Judge the headers of a server's 101 (RFC 6455, section 4.1, the second half).

    Args:
        headers: the HTTP headers.
        key: the Sec-WebSocket-Key that was sent.
        subprotocols: those that were offered.
        extensions_offered: whether any were. Then Sec-WebSocket-Extensions is left to the caller, who
            judges it with ``Deflate.check_response``.

    Returns:
        The subprotocol that the server chose, or None.

    Raises:
        RemoteProtocolError: "the client MUST _Fail the WebSocket Connection_".
    """
    headers = _read_headers(headers)
    # 2. "If the response lacks an |Upgrade| header field or [it] contains a value that is not an
    #    ASCII case-insensitive match for the value "websocket""
    if _elements(headers.get("upgrade", "").lower()) != ["websocket"]:
        raise RemoteProtocolError(1002, "Upgrade header must be websocket")
    # 3. "If the response lacks a |Connection| header field or the |Connection| header field doesn't
    #    contain a token that is an ASCII case-insensitive match for the value "Upgrade""
    if not _includes(headers, "connection", "upgrade"):
        raise RemoteProtocolError(1002, "Connection header must include upgrade")
    # 4. Sec-WebSocket-Accept
    accepts = headers.get_all("sec-websocket-accept")
    if len(accepts) != 1:
        problem = (
            "more than one Sec-WebSocket-Accept header"
            if accepts
            else "Sec-WebSocket-Accept header is missing"
        )
        raise RemoteProtocolError(1002, problem)
    if accepts[0].strip(" \t") != accept_key(key):
        raise RemoteProtocolError(1002, "Sec-WebSocket-Accept does not answer the key")
    # 5. "indicates the use of an extension that was not present in the client's handshake"; section 9.1 fails
    #    a value that is malformed.
    extensions = headers.get("sec-websocket-extensions", "")
    check_extensions(extensions)
    if not extensions_offered and _elements(extensions):
        raise RemoteProtocolError(1002, "server uses an extension that was not offered")
    # 6. "indicates the use of a subprotocol that was not present in the client's handshake"
    chosen = headers.get_all("sec-websocket-protocol")
    if len(chosen) > 1:
        raise RemoteProtocolError(1002, "more than one Sec-WebSocket-Protocol header")
    if not chosen:
        return None
    subprotocol = chosen[0].strip(" \t")
    if subprotocol not in subprotocols:
        raise RemoteProtocolError(1002, "server uses a subprotocol that was not offered")
    return subprotocol
