"""What goes wrong, and whose fault it is.

    WebSocketError
      |-- LocalProtocolError        the RFC does not allow this call in this state
      |-- RemoteProtocolError       the peer broke the RFC
      |     `-- InvalidRequest      ... in the request of its opening handshake
      |-- InvalidURI                the address is not a WebSocket address
      |-- HandshakeFailed           connect(): the opening handshake did not succeed
      |     `-- HandshakeRejected   ... because the server, or a proxy, answered with another status
      `-- ConnectionClosed          the connection is closing or closed

Yours are exceptions, the peer's are events: a RemoteProtocolError is raised inside the core and never
escapes ``Connection.next_event()``, which returns a ``Fail`` event in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .events import Response

__all__ = [
    "ConnectionClosed",
    "HandshakeFailed",
    "HandshakeRejected",
    "InvalidRequest",
    "InvalidURI",
    "LocalProtocolError",
    "RemoteProtocolError",
    "WebSocketError",
    "is_only",
]


class WebSocketError(Exception):
    """The base of the errors that wsframe raises on purpose."""


class LocalProtocolError(WebSocketError):
    """A call that the RFC does not allow in this state.

    Nothing was sent and nothing changed: the connection goes on as if the call had not been made.
    """


class RemoteProtocolError(WebSocketError):
    """A violation of the protocol by the peer (RFC 6455, section 7.1.7).

    Args:
        code: the status code to fail the connection with (section 7.4.1).
        reason: a lower-case fragment that fits into a Close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"


class InvalidRequest(RemoteProtocolError):
    """An opening handshake that a server must refuse (RFC 6455, section 4.2.1), and the response that does.

    A client's head reader raises it too, for a response. There only ``code`` and ``reason`` have a meaning.

    Args:
        status: the HTTP status code of the refusal, such as 400 or 426.
        reason: one line that says what was wrong.
        headers: headers that this status needs, such as ``Allow`` for 405.
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(1002, reason)
        self.args = (status, reason, headers)
        self.status = status
        self.headers = headers


class InvalidURI(WebSocketError, ValueError):
    """An address that is not a ``ws://`` or ``wss://`` URI (RFC 6455, section 3)."""


class HandshakeFailed(WebSocketError):
    """An opening handshake of ``connect`` that did not succeed.

    The connection was lost before the server answered, the server does not speak WebSocket, its 101 is
    wrong, or a proxy did not open a tunnel to it.

    Args:
        message: what was wrong.
        response: the HTTP response of the server or the proxy, or None.
    """

    response: Response | None

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message, response)
        self.response = response

    def __str__(self) -> str:
        return str(self.args[0])


class HandshakeRejected(HandshakeFailed):
    """An opening handshake that the server, or a proxy, answered with another status.

    A redirect that is not followed is one too.

    Args:
        message: what was wrong.
        response: the HTTP response, with its headers and body.
    """

    response: Response

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message, response)

    @property
    def status(self) -> int:
        """The status of the response."""
        return self.response.status


class ConnectionClosed(WebSocketError):
    """The error of a connection that is closing or closed.

    Args:
        code: the status code that the peer sent, or that we failed the connection with; 1005 when the
            peer's Close had none, 1006 when there was no Close (RFC 6455, section 7.1.5).
        reason: the reason that came with it (section 7.1.6).
        clean: whether both endpoints sent a Close (section 7.1.4).
    """

    def __init__(self, code: int, reason: str = "", clean: bool = False) -> None:
        super().__init__(code, reason, clean)
        self.code = code
        self.reason = reason
        self.clean = clean

    def __str__(self) -> str:
        how = "closed" if self.clean else "lost or failed"
        return f"connection {how}: {self.code}" + (f" {self.reason}" if self.reason else "")


def is_only(error: Exception, kind: type[Exception]) -> bool:
    """Return whether an error is of a kind, or a group of errors of that kind alone, as a TaskGroup raises.

    Args:
        error: the error.
        kind: the kind.
    """
    return isinstance(error, kind) or (isinstance(error, ExceptionGroup) and error.split(kind)[1] is None)
