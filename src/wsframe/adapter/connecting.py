"""Opening a WebSocket connection (RFC 6455, sections 4.1 and 7.2.3): the part that both adapters share.

    +--> address --> proxy --> TCP --> TLS --> opening handshake --> open
    |       ^                                          |
    |       +----------------- redirect ---------------+
    +-- backoff -- failed, or lost

Nothing here waits, and nothing touches the network. An adapter asks its ``Route`` where to connect, tells it
each phase that begins, and lets it follow redirects and word errors.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any, TypeVar

from ..client import ClientConnection
from ..errors import HandshakeFailed, HandshakeRejected, InvalidURI
from ..events import Fail
from ..handshake import check_headers
from ..uri import URI, join_uri, parse_uri
from .options import ClientOptions
from .proxy import environment_proxy
from .wording import describe, is_own_timeout, reason_of, strerror

__all__ = ["Backoff", "Route", "handshake_failure", "interleave", "is_fatal", "retry_after", "unreachable"]

# RFC 8305, section 5: "One recommended value for a default delay is 250 milliseconds."
ATTEMPT_DELAY = 0.25  # seconds
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEMPORARY = frozenset({408, 425, 429, *range(500, 600)})
_SAYS_WHEN = frozenset({429, 503})  # RFC 6585, section 4; RFC 9110, section 15.6.4
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
_LONGEST_DELAY = 90.0  # seconds

T = TypeVar("T", bound=tuple[Any, ...])


# Where to connect


def interleave(addresses: Iterable[T]) -> list[T]:
    """Order the results of ``getaddrinfo`` so that address families alternate (RFC 8305, section 4).

    Args:
        addresses: tuples that begin with an address family, the best first.
    """
    families: dict[Any, list[T]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain(*zip_longest(*families.values())) if address is not None]


def unreachable(failures: list[tuple[Any, OSError]]) -> OSError:
    """Return the error that says why none of a host's addresses could be connected to.

    Args:
        failures: the addresses and their errors.
    """
    reasons = [strerror(error.errno) if error.errno else str(error) for _, error in failures]
    if len(set(reasons)) > 1:
        reasons = [f"{reason} ({address[0]})" for reason, (address, _) in zip(reasons, failures, strict=True)]
    return OSError(failures[-1][1].errno, ", ".join(dict.fromkeys(reasons)))


class Route:
    """The way from an address to its server, over proxies and redirects.

    Args:
        options: the options of ``connect``.

    Attributes:
        options: the same.
        connection: a ClientConnection for the address that the route leads to now.
        proxy: the proxy to connect to instead of the server, or None.
        phase: what is being done, for messages: ``connection to localhost:8001``.

    Raises:
        InvalidURI: the address is not one.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: the proxy is not one.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._given_headers = check_headers(options.additional_headers)
        self._given_proxy = options.given_proxy()
        self.restart()

    def restart(self) -> None:
        """Begin again, at the first address."""
        self._headers, self._server_hostname = self._given_headers, self.options.server_hostname
        self._redirects = 0
        self._lead_to(self.options.uri)

    def _lead_to(self, uri: str) -> None:
        self._uri = uri
        self.connection = self.options.connection(uri, self._headers)
        self.proxy = self._given_proxy
        if self.options.proxy is True and self.options.shortcut is None:
            self.proxy = environment_proxy(self.connection.uri)
        self.phase = f"connection to {self.connection.uri.authority}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, by default one that verifies the server; None for a ``ws://`` address."""
        if not self.connection.uri.secure:
            return None
        return self.options.ssl or ssl.create_default_context()

    @property
    def server_hostname(self) -> str:
        """The name that the server's certificate must have."""
        return self._server_hostname or self.connection.uri.host

    @property
    def next_hop(self) -> tuple[bytes, int]:
        """The host and port to connect to: those of the proxy, or of the server."""
        hop = self.proxy or self.connection.uri
        # As bytes: socket would encode a str by IDNA, and raise errors of that.
        return hop.host.encode(), hop.port

    def enter(self, phase: str) -> None:
        """Enter a phase, which errors are then about.

        Args:
            phase: ``lookup``, ``connection``, ``tunnel``, ``TLS handshake`` or ``opening handshake``.
        """
        uri, proxy = self.connection.uri, self.proxy
        if phase == "lookup":
            self.phase = f"lookup of {(proxy or uri).host}"
        elif phase == "connection":
            hop = uri.authority if proxy is None else f"proxy {proxy.authority}"
            self.phase = f"connection to {self.options.unix or hop}"
        elif phase == "tunnel":
            assert proxy is not None
            self.phase = proxy.tunnel_to(uri)
        else:
            self.phase = f"{phase} with {uri.authority}"

    def follow(self, rejected: HandshakeRejected) -> None:
        """Follow the redirect that the server answered with.

        Args:
            rejected: the error that has the response.

        Raises:
            HandshakeRejected: the same error, when the response is no redirect of the server; or another
                one, when this redirect must not be followed.
        """
        response = rejected.response
        if response is not self.connection.response or not self.options.max_redirects:
            raise rejected  # a response that is not the server's is a proxy's
        locations = response.headers.get_all("location")
        if response.status not in _REDIRECTS or len(locations) != 1:
            raise rejected
        old = self.connection.uri
        try:
            target = join_uri(self._uri, locations[0])
            new = parse_uri(target)
        except InvalidURI as error:
            raise HandshakeRejected(
                f"redirect from {_shown(old)} is not followed: {error}", response
            ) from None
        is_same_origin = new[:3] == old[:3]
        shortcut = self.options.shortcut
        problem = None
        if self._redirects == self.options.max_redirects:
            problem = f"there were {self._redirects} redirects before it, which is the limit"
        elif old.secure and not new.secure:
            problem = "it leads from TLS to none"
        elif shortcut == "sock" or (shortcut and not is_same_origin):
            problem = f"{shortcut} leads to one server only"
        if problem:
            message = f"redirect from {_shown(old)} to {_shown(new)} is not followed: {problem}"
            raise HandshakeRejected(message, response)
        self._redirects += 1
        if not is_same_origin:
            self._headers = [pair for pair in self._headers if pair[0].lower() not in _CREDENTIALS]
            self._server_hostname = None
        self._lead_to(target)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Reword the errors of the network within the block, to say what failed and where."""
        try:
            yield
        except OSError as error:
            if is_own_timeout(error):
                timeout = self.options.timing.open_timeout
                seconds = "" if timeout is None else f" after {timeout:g} s"
                raise TimeoutError(f"{self.phase} timed out{seconds}") from error
            message = f"{self.phase} failed: {reason_of(error)}"
            if error.errno is None:
                raise type(error)(message) from error
            error.strerror = message
            raise


# What went wrong


def _shown(uri: URI) -> str:
    return f"{'wss' if uri.secure else 'ws'}://{uri.authority}"


def handshake_failure(
    connection: ClientConnection, fail: Fail, lost: OSError | None = None
) -> HandshakeFailed:
    """Return the error that says why the opening handshake did not succeed.

    Args:
        connection: the connection.
        fail: its last event.
        lost: the error of the network by which the connection was lost, or None.
    """
    response = connection.response
    failed = f"opening handshake with {connection.uri.authority} failed"
    if fail.code != 1006:
        return HandshakeFailed(f"{failed}: {fail.reason}", response)
    if response is not None:
        return HandshakeRejected(f"{failed}: server answered with {describe(response)}", response)
    reason = "" if lost is None else f": {reason_of(lost)}"
    failure = HandshakeFailed(f"{failed}: connection was lost before the server answered{reason}")
    failure.__cause__ = lost or EOFError("the stream ended")
    return failure


# Again


def is_fatal(error: Exception) -> bool:
    """Return whether trying again would be of no use.

    It may be of use when the network failed, when the connection was lost before the server answered, and
    when the server, or a proxy, answered with status 408, 425, 429 or 500 to 599. All else is fatal: other
    responses, a server's certificate that is not valid, an address that is not one.

    Args:
        error: the error that ``connect`` raised.
    """
    if isinstance(error, HandshakeRejected):
        return error.status not in _TEMPORARY
    if isinstance(error, HandshakeFailed):
        return not isinstance(error.__cause__, (EOFError, OSError))
    return not isinstance(error, OSError) or isinstance(error, ssl.SSLCertVerificationError)


def retry_after(error: Exception) -> float:
    """Return how many seconds the server wants us to wait (RFC 9110, section 10.2.3), at most 90.

    A server, or a proxy, says it with status 429 or 503, in seconds or as a date. A value that is neither is
    ignored.

    Args:
        error: the error that ``connect`` raised.
    """
    if not isinstance(error, HandshakeRejected) or error.status not in _SAYS_WHEN:
        return 0.0
    value = error.response.headers.get("retry-after", "").strip(" \t")
    is_number = value.isascii() and value.isdecimal()
    delay = float(value) if is_number else _read_date(value) - time.time()
    return max(0.0, min(delay, _LONGEST_DELAY))


def _read_date(value: str) -> float:
    """Return the time that an HTTP-date means (RFC 9110, section 5.6.7); 0: it is not one."""
    from datetime import UTC  # few clients need these
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    # "interpret the date as UTC": in the obsolete format of asctime() there is no zone.
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


class Backoff:
    """The seconds to wait before each attempt to connect again (RFC 6455, section 7.2.3).

    Each is random, from 0 to a limit that grows. So the clients of a server that went down do not come back
    all at once, and not too often.

    Args:
        first: the first limit, in seconds.
        factor: by how much it grows.
        longest: the last limit, in seconds.
    """

    def __init__(self, first: float = 5.0, factor: float = 1.6, longest: float = _LONGEST_DELAY) -> None:
        if not (0 <= first <= longest and factor >= 1):
            raise ValueError("backoff needs 0 <= first <= longest, and factor >= 1")
        self.first = first
        self.factor = factor
        self.longest = longest

    def __repr__(self) -> str:
        return f"Backoff({self.first:g}, {self.factor:g}, {self.longest:g})"

    def __iter__(self) -> Iterator[float]:
        limit = self.first
        while True:
            yield random.uniform(0, limit)  # noqa: S311
            limit = min(limit * self.factor, self.longest)
