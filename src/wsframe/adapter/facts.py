"""The read-only face of a WebSocket, which is the same in every adapter."""

from __future__ import annotations

from typing import Any, NoReturn

from ..connection import State
from ..events import Request, Response
from .counters import Counters
from .log import ConnectionLogger
from .session import Session

__all__ = ["Facts"]


class Facts:
    """The facts about a WebSocket, read from its session."""

    __slots__ = ()

    session: Session

    def __repr__(self) -> str:
        return f"<WebSocket {self.state.name} {self.remote_address}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a WebSocket cannot be copied or pickled")

    @property
    def id(self) -> int:
        """The number of the connection in this process. Log records have it."""
        return self.session.id

    @property
    def state(self) -> State:
        """State.CONNECTING, OPEN, CLOSING or CLOSED."""
        return State.CLOSED if self.session.is_lost else self.session.connection.state

    @property
    def request(self) -> Request | None:
        """The client's request, on a server; None on a client."""
        return getattr(self.session.connection, "request", None)

    @property
    def response(self) -> Response | None:
        """The server's response, on a client; None on a server."""
        return getattr(self.session.connection, "response", None)

    @property
    def path(self) -> str:
        """The path and the query of the request."""
        return self.session.resource_name

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol in use, or None."""
        return self.session.connection.subprotocol

    @property
    def remote_address(self) -> Any:
        """The peer's address, as ``socket.getpeername`` returns it."""
        return self.session.remote_address

    @property
    def local_address(self) -> Any:
        """The address of this end, as ``socket.getsockname`` returns it."""
        return self.session.local_address

    @property
    def close_code(self) -> int | None:
        """The status code that the connection ended with; None before that (RFC 6455, 7.1.5)."""
        return None if self.session.end is None else self.session.end.code

    @property
    def close_reason(self) -> str | None:
        """The reason that the connection ended with; None before that (RFC 6455, 7.1.6)."""
        return None if self.session.end is None else self.session.end.reason

    @property
    def latency(self) -> float | None:
        """The last round trip of a Ping in seconds; None before the first."""
        return self.session.latency

    @property
    def logger(self) -> ConnectionLogger:
        """The logger that puts the connection's ``id`` in front of its messages."""
        return self.session.logger

    @property
    def counters(self) -> Counters:
        """The numbers of what has happened on this connection so far."""
        return self.session.counters
