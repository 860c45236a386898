"""The options of ``connect`` and ``serve``, in groups.

    connect(uri, ...)      -->  ClientOptions ( Timing )  -->  Route
    serve(handler, ...)    -->  ServerOptions ( Timing )  -->  Server

Each group checks itself when it is made. The rest of an adapter takes it as one object and trusts it.
"""

from __future__ import annotations

import re
import socket
import ssl as tls
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..client import ClientConnection
from ..deflate import DEFAULT, Deflate
from ..handshake import HeaderList
from ..origins import Origins
from ..server import ServerConnection
from ..uri import parse_uri
from .auth import AsyncProcessRequest
from .proxy import Proxy, parse_proxy
from .sockets import check_unix

__all__ = ["ClientOptions", "ServerOptions", "Timing"]


def _check_number(name: str, number: int, least: int) -> None:
    if not isinstance(number, int):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if number < least:
        raise ValueError(f"{name} must be {least} or more, not {number}")


@dataclass(frozen=True, slots=True)
class Timing:
    """The time limits of a connection, in seconds.

    Args:
        open_timeout: how long opening may take; None: no limit.
        close_timeout: how long closing may take; None: no limit.
        ping_interval: the time between keepalive Pings; None: send none.
        ping_timeout: how long a Pong may take; None: any time.

    Raises:
        ValueError: ``ping_interval`` or ``ping_timeout`` is not positive.
        TypeError: one of them is not a number.
    """

    open_timeout: float | None = 10
    close_timeout: float | None = 10
    ping_interval: float | None = 20
    ping_timeout: float | None = 20

    def __post_init__(self) -> None:
        for name in self.__slots__:
            seconds = getattr(self, name)
            if seconds is None:
                continue
            if not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be a number of seconds or None, not {type(seconds).__name__}")
            if name.startswith("ping") and not seconds > 0:
                raise ValueError(f"{name} must be positive, or None to switch it off, not {seconds!r}")

    @property
    def of_tls(self) -> dict[str, float | None]:
        """The limits of TLS, as the arguments of an event loop."""
        return {"ssl_handshake_timeout": self.open_timeout, "ssl_shutdown_timeout": self.close_timeout}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """The options of ``connect``, but for those of ``async for``.

    Each field means what the argument of that name does. ``timing`` holds the four time limits.

    Raises:
        InvalidURI: ``ssl`` or ``server_hostname`` is given, and the address is not one.
        ValueError: options exclude each other, or a number is out of range.
        TypeError: an option has a wrong type.
    """

    uri: str
    subprotocols: Sequence[str] = ()
    origin: str | None = None
    additional_headers: HeaderList = ()
    compression: Deflate | None = DEFAULT
    max_message_size: int | None = 2**20
    ssl: tls.SSLContext | None = None
    server_hostname: str | None = None
    unix: str | None = None
    sock: socket.socket | None = None
    proxy: str | bool | None = True
    max_redirects: int = 10
    timing: Timing = Timing()

    def __post_init__(self) -> None:
        if self.unix is not None and self.sock is not None:
            raise ValueError("unix and sock exclude each other")
        if self.unix is not None:
            check_unix()
        if self.shortcut is not None and self.given_proxy() is not None:
            raise ValueError(f"proxy and {self.shortcut} exclude each other")
        _check_number("max_redirects", self.max_redirects, 0)
        is_for_tls = self.ssl is not None or self.server_hostname is not None
        if is_for_tls and not parse_uri(self.uri).secure:
            raise ValueError("ssl and server_hostname go with wss:// addresses")

    @property
    def shortcut(self) -> str | None:
        """The option that takes the place of a TCP connection to the address, or None."""
        return "unix" if self.unix is not None else "sock" if self.sock is not None else None

    def given_proxy(self) -> Proxy | None:
        """Return the proxy that ``proxy`` names; None: it names none, but may stand for the environment's.

        Raises:
            ValueError: it is not the address of a proxy.
            TypeError: it has a wrong type.
        """
        return None if self.proxy is None or isinstance(self.proxy, bool) else parse_proxy(self.proxy)

    def connection(self, uri: str, additional_headers: HeaderList) -> ClientConnection:
        """Return a Connection for an address, which a redirect may have changed.

        Args:
            uri: the address.
            additional_headers: more headers for the request.
        """
        return ClientConnection(
            uri,
            subprotocols=self.subprotocols,
            origin=self.origin,
            additional_headers=additional_headers,
            compression=self.compression,
            max_message_size=self.max_message_size,
        )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of ``serve``, but for the handler and the address to listen on.

    Each field means what the argument of that name does. ``timing`` holds the four time limits.

    Raises:
        LocalProtocolError: a subprotocol is not a token, or comes twice.
        ValueError: an origin is not one, or a number is out of range.
        TypeError: an option has a wrong type.
    """

    process_request: AsyncProcessRequest | None = None
    subprotocols: Sequence[str] = ()
    origins: Origins | Iterable[str | re.Pattern[str] | None] | None = None
    compression: Deflate | None = DEFAULT
    max_message_size: int | None = 2**20
    ssl: tls.SSLContext | None = None
    timing: Timing = Timing()
    max_connections: int | None = None

    def __post_init__(self) -> None:
        if self.max_connections is not None:
            _check_number("max_connections", self.max_connections, 1)
        if self.origins is not None and not isinstance(self.origins, Origins):
            object.__setattr__(self, "origins", Origins(self.origins))  # read once, for all connections
        self.connection()  # what is wrong is found here, and not with the first client

    def connection(self) -> ServerConnection:
        """Return a Connection for one more client."""
        return ServerConnection(
            subprotocols=self.subprotocols,
            origins=self.origins,
            compression=self.compression,
            max_message_size=self.max_message_size,
        )
