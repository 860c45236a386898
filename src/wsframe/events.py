"""What the peer can say.

    events  = opening *( Text / Binary / Ping / Pong ) ( Close / Fail )
    opening = Request / Response

A Fail may come before the opening, or instead of it. Nothing follows a Close or a Fail.

Events are small classes with ``__slots__``: they compare by class and value, match by position
(``case Text(data)``), pickle, and cost about 100 ns each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

__all__ = [
    "Binary",
    "Close",
    "Event",
    "Fail",
    "Headers",
    "Ping",
    "Pong",
    "Request",
    "Response",
    "Text",
    "size_in_memory",
]

_SHOWN = 64  # bytes or characters of a payload that a repr shows


def _shorten(value: object) -> str:
    if isinstance(value, (str, bytes)) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}...<{len(value)}>"
    return repr(value)


class Headers(tuple[tuple[str, str], ...]):
    """HTTP headers: pairs of a name and a value, in the order in which they came.

    What the peer sent has names in lower case.
    """

    __slots__ = ()

    def get(self, name: str, default: str = "") -> str:
        """Return the values of a header, joined by commas (RFC 7230, section 3.2.2).

        Args:
            name: the header's name, in any case.
            default: what to return when the header is not there.
        """
        values = self.get_all(name)
        return ", ".join(values) if values else default

    def get_all(self, name: str) -> list[str]:
        """Return the values of a header, one for each time that it came.

        Args:
            name: the header's name, in any case.
        """
        name = name.lower()
        return [value for key, value in self if key == name or key.lower() == name]


def _decode(header: tuple[str, str | bytes]) -> tuple[str, str]:
    name, value = header
    return name, value.decode("latin-1") if isinstance(value, bytes) else value


class _Event:
    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if self.__class__ is not other.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    def __hash__(self) -> int:
        return hash((self.__class__, *(getattr(self, name) for name in self.__match_args__)))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # A pickle of one build is read by the other.
        return self.__class__, tuple(getattr(self, name) for name in self.__match_args__)

    def __repr__(self) -> str:
        values = [f"{name}={_shorten(getattr(self, name))}" for name in self.__match_args__]
        return f"{self.__class__.__name__}({', '.join(values)})"


class Request(_Event):
    """A client asks to open a connection (RFC 6455, section 4.2.1).

    Answer it with ``accept()`` or ``reject()``. One that asks for a WebSocket is a GET over HTTP/1.1, or,
    from ``handshake.check_request``, an extended CONNECT of RFC 8441.

    Args:
        path: the resource name, with its query: ``/chat?room=1``. That of an ``OPTIONS *`` is ``*``.
        headers: the HTTP headers. Where the request line has a host, it stands in the Host header.
        subprotocols: the subprotocols that the client offers, its favourite first.
        origin: the value of the Origin header, or None.
        is_upgrade: False for a GET, HEAD or OPTIONS that does not ask for a WebSocket: a browser that wants a
            page, or a health check. ``reject(200, body=...)`` answers it; a HEAD gets no body.
        method: the HTTP method: ``GET``, ``HEAD``, ``OPTIONS`` or ``CONNECT``.
        http_version: the HTTP version, such as ``1.1`` or ``1.0``.
    """

    __slots__ = __match_args__ = (
        "path",
        "headers",
        "subprotocols",
        "origin",
        "is_upgrade",
        "method",
        "http_version",
    )

    def __init__(
        self,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        subprotocols: Iterable[str] = (),
        origin: str | None = None,
        is_upgrade: bool = True,
        method: str = "GET",
        http_version: str = "1.1",
    ) -> None:
        self.path = path
        self.headers = Headers(headers)
        self.subprotocols = tuple(subprotocols)
        self.origin = origin
        self.is_upgrade = is_upgrade
        self.method = method
        self.http_version = http_version


class Response(_Event):
    """The server answered; 101 means that the connection is open (RFC 6455, section 4.1).

    Args:
        status: the HTTP status code.
        headers: the HTTP headers. A value in ``bytes`` is decoded as ISO 8859-1, and goes out again as it is.
        body: what came after them, unless the status is 101; cut at 64 KiB.
        subprotocol: the subprotocol that the server chose, or None.
    """

    __slots__ = __match_args__ = ("status", "headers", "body", "subprotocol")

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[str, str | bytes]] = (),
        body: bytes = b"",
        subprotocol: str | None = None,
    ) -> None:
        self.status = status
        self.headers = headers if type(headers) is Headers else Headers(map(_decode, headers))
        self.body = body
        self.subprotocol = subprotocol


class Text(_Event):
    """A text message, or with ``fragments=True`` a piece of one (RFC 6455, section 5.6).

    Args:
        data: the text.
        final: whether the message ends here.

    Raises:
        TypeError: ``data`` is not a ``str``.
    """

    __slots__ = __match_args__ = ("data", "final")

    def __init__(self, data: str, final: bool = True) -> None:
        if type(data) is not str:
            raise TypeError(f"data must be str, not {type(data).__name__}")
        self.data = data
        self.final = final


class Binary(_Event):
    """A binary message, or with ``fragments=True`` a piece of one (RFC 6455, section 5.6).

    Args:
        data: the bytes.
        final: whether the message ends here.

    Raises:
        TypeError: ``data`` is not ``bytes``.
    """

    __slots__ = __match_args__ = ("data", "final")

    def __init__(self, data: bytes, final: bool = True) -> None:
        if type(data) is not bytes:
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        self.data = data
        self.final = final


class Ping(_Event):
    """A Ping, which is already answered by a Pong (RFC 6455, section 5.5.2).

    Args:
        payload: up to 125 bytes.
    """

    __slots__ = __match_args__ = ("payload",)

    def __init__(self, payload: bytes = b"") -> None:
        self.payload = payload


class Pong(_Event):
    """A Pong: the answer to a Ping, or a one-way heartbeat (RFC 6455, section 5.5.3).

    Args:
        payload: the bytes of the Ping that it answers.
    """

    __slots__ = __match_args__ = ("payload",)

    def __init__(self, payload: bytes = b"") -> None:
        self.payload = payload


class Close(_Event):
    """The peer closed the connection (RFC 6455, section 5.5.1).

    Args:
        code: the status code; 1005 when the Close had none.
        reason: the reason, which may be empty.
    """

    __slots__ = __match_args__ = ("code", "reason")

    def __init__(self, code: int = 1005, reason: str = "") -> None:
        self.code = code
        self.reason = reason


class Fail(_Event):
    """We failed the connection, or it was lost (RFC 6455, section 7.1.7).

    Args:
        code: why we failed it; 1006 when it ended without a Close.
        reason: what was wrong.
    """

    __slots__ = __match_args__ = ("code", "reason")

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        self.code = code
        self.reason = reason


Event: TypeAlias = Request | Response | Text | Binary | Ping | Pong | Close | Fail
"""What ``next_event`` returns."""


def size_in_memory(data: str | bytes) -> int:
    """Return how many bytes a message takes at most while it is held, without the object's fixed overhead.

    The interpreter gives every character of a ``str`` as many bytes as its widest one needs: 1, 2 or 4.
    ``sys.getsizeof`` would say which, but PyPy lacks it, so that a text with one character outside ASCII
    counts four bytes for each of its characters.

    Args:
        data: the data of a ``Text`` or a ``Binary``.
    """
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return 4 * len(data)
