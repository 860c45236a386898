"""What goes wrong, and whose fault it is.

    WebSocketError
      |-- LocalProtocolError     you asked for what the RFC forbids now
      |-- RemoteProtocolError    the peer broke the RFC
      |     `-- HandshakeError   ... in its opening handshake
      |-- InvalidURI             the address is not a WebSocket address
      |-- HandshakeRejected      the server did not open the connection
      `-- ConnectionClosed       the connection is closing or closed

Yours are exceptions, the peer's are events: a RemoteProtocolError is raised inside the core and never
escapes ``Connection.next_event()``, which returns a ``Fail`` event in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .events import Response

__all__ = [
    "ConnectionClosed",
    "HandshakeError",
    "HandshakeRejected",
    "InvalidURI",
    "LocalProtocolError",
    "RemoteProtocolError",
    "WebSocketError",
    "is_only",
]


class WebSocketError(Exception):
    """Be the base of every error that wsframe raises on purpose."""


class LocalProtocolError(WebSocketError):
    """Say that the caller asked for something that the RFC forbids in this state.

    Nothing was queued and nothing changed: the connection goes on as if the call had not been made.
    """


class RemoteProtocolError(WebSocketError):
    """Say that the peer broke the protocol (RFC 6455, section 7.1.7).

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


class HandshakeError(RemoteProtocolError):
    """Say that the peer's opening handshake is wrong, and with what HTTP response a server refuses it.

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
    """Say that an address is not a ``ws://`` or ``wss://`` URI (RFC 6455, section 3)."""


class HandshakeRejected(WebSocketError):
    """Say that the server did not open the connection, or that a proxy did not let us reach it.

    Args:
        message: what was wrong.
        response: its HTTP response with its headers and body, or None if it sent none.
    """

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message, response)
        self.response = response

    def __str__(self) -> str:
        return str(self.args[0])


class ConnectionClosed(WebSocketError):
    """Say that the connection is closing or closed.

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
    """Tell whether an error is of a kind, or a group that holds no other kind: a TaskGroup raises those.

    Args:
        error: the error.
        kind: the kind.
    """
    return isinstance(error, kind) or (isinstance(error, ExceptionGroup) and error.split(kind)[1] is None)
