"""Proxies between a client and its server (RFC 6455, section 4.1, item 3).

client                  proxy                    server
  | CONNECT server:443 -->| TCP                    |      or the same in SOCKS
  | <-- 200               |<---------------------->|
  | TLS, then the opening handshake -------------->|
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import HandshakeFailed, HandshakeRejected, InvalidRequest
from ..events import Response
from ..handshake import decode_headers
from ..uri import URI, authority, without_userinfo
from .wording import describe

__all__ = ["Proxy", "Tunnel", "environment_proxy", "parse_proxy", "socks"]

_MAX_BODY_SIZE = 65536  # bytes of a refusal that are kept
_PORTS = {"http": 80, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
# RFC 1928, section 6: what may be better next time. SOCKS 4 does not say more than that it failed, 91.
_TEMPORARY = frozenset({1, 3, 4, 5, 6, 91})

# Around an IPv6 address in no_proxy, but not with a port behind it
_BRACKETS = re.compile(r"\A\[([0-9A-Fa-f:.]*)\](?!:)")


class Proxy(NamedTuple):
    """The parts of a proxy's address.

    Fields:
        scheme: ``http``, ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``.
        host: the host name or address, without brackets.
        port: the TCP port.
        username: the user name, decoded, or None.
        password: the password, decoded, or None.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.scheme}://{self.authority}>"  # logs must not show the password

    @property
    def authority(self) -> str:
        """Return host and port."""
        return authority(self.host, self.port)

    def tunnel_to(self, uri: URI) -> str:
        """Return the name of the tunnel through it, for messages.

        Args:
            uri: the server's address.
        """
        return f"tunnel through proxy {self.authority} to {uri.authority}"


def parse_proxy(proxy: str) -> Proxy:
    """Take a proxy's address apart.

    Args:
        proxy: an address such as ``http://user:password@localhost:3128`` or ``socks5h://localhost``. Without
            a scheme it is an HTTP proxy; without a port, the port is 80 for HTTP and 1080 for SOCKS. A path,
            query or fragment is ignored, as curl does.

    Raises:
        ValueError: it is not such an address.
        TypeError: it is not a string.
    """
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a str, a bool or None, not {type(proxy).__name__}")
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname, parts.port
        # An "@" there ends a password with a "/", "?" or "#": what looks like the host is the user name.
        is_right = parts.scheme in _PORTS and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        host, is_right = None, False
    if not host or not is_right:
        schemes = ", ".join(f"{scheme}://" for scheme in _PORTS)
        shown = without_userinfo(proxy)
        raise ValueError(f"proxy must be one of {schemes}, with host and port, not {shown!r}")
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    if username is not None and ":" in username and parts.scheme == "http":
        raise ValueError("user name for a proxy must not contain a colon")  # RFC 7617, section 2
    return Proxy(parts.scheme, host, port or _PORTS[parts.scheme], username, password)


def environment_proxy(uri: URI) -> Proxy | None:
    """Return the proxy that the environment, or the system, has for an address; None: it has none.

    Args:
        uri: the address. For ``ws://`` the first is taken of ``ws_proxy``, ``socks_proxy``, ``http_proxy``
            and ``all_proxy``; for ``wss://``, of ``wss_proxy``, ``socks_proxy``, ``https_proxy`` and
            ``all_proxy``. ``no_proxy`` lists the hosts, domains, addresses and networks that need none.

    Raises:
        ValueError: what it has is not a proxy's address.
    """
    from urllib.request import getproxies, proxy_bypass  # it takes as long to import as all the rest

    proxies = getproxies()
    own = ("wss", "socks", "https", "all") if uri.secure else ("ws", "socks", "http", "all")
    name = next((name for name in own if proxies.get(name)), None)
    if name is None or proxy_bypass(uri.authority) or _is_within(uri.host, proxies.get("no", "")):
        return None
    proxy = proxies[name]
    scheme, _, rest = proxy.rpartition("://")
    if scheme == "socks" or (name == "socks" and scheme in ("", "http")):
        # RFC 6455, section 4.1, asks for SOCKS5; systems and desktops do not tell.
        proxy = f"socks5h://{rest}"
    try:
        return parse_proxy(proxy)
    except ValueError as error:
        raise ValueError(f"in the environment, {name}_proxy is wrong: {error}") from None


def _is_within(host: str, networks: str) -> bool:
    """Return whether a host is an address, and ``no_proxy`` has it or a network that it is in.

    urllib compares texts. So it knows neither networks nor the other spellings of an IPv6 address.
    """
    from ipaddress import ip_address, ip_network

    try:
        address = ip_address(host)
    except ValueError:
        return False
    for network in networks.split(","):
        with suppress(ValueError):  # it is a name, or has a port
            if address in ip_network(_BRACKETS.sub(r"\1", network.strip()), strict=False):
                return True
    return False


class Tunnel:
    """Ask an HTTP proxy for a connection to a server (RFC 9110, section 9.3.6).

    Args:
        proxy: the proxy.
        uri: the server's address.

    Attributes:
        request: the bytes to send to the proxy.
    """

    def __init__(self, proxy: Proxy, uri: URI) -> None:
        import h11  # as in client.py

        headers = [("Host", uri.authority)]
        if proxy.username is not None:
            credentials = f"{proxy.username}:{proxy.password or ''}".encode()
            headers.append(("Proxy-Authorization", "Basic " + base64.b64encode(credentials).decode()))
        self._name = proxy.tunnel_to(uri)
        self._parser = h11.Connection(h11.CLIENT)
        request = h11.Request(method="CONNECT", target=uri.authority, headers=headers)
        self.request = (self._parser.send(request) or b"") + (self._parser.send(h11.EndOfMessage()) or b"")
        self._response: Response | None = None

    def receive(self, data: bytes) -> bool:
        """Take bytes from the proxy, and return whether the tunnel is open.

        Args:
            data: the bytes; ``b""`` is the end of the stream.

        Raises:
            HandshakeRejected: the proxy answered with a status that opens no tunnel.
            HandshakeFailed: its answer is malformed, or it closed the connection without one.
        """
        import h11

        parser = self._parser
        try:
            parser.receive_data(data)
            while (event := parser.next_event()) is not h11.NEED_DATA:
                if event is h11.PAUSED:
                    # The server has nothing to say before our request.
                    if parser.trailing_data[0]:
                        raise self._failure("server speaks first")
                    return True
                if isinstance(event, h11.Response):
                    self._response = Response(event.status_code, decode_headers(event.headers))
                elif isinstance(event, h11.Data):
                    assert self._response is not None
                    self._response.body += event.data
                if isinstance(event, h11.EndOfMessage) or self._is_enough():
                    break
            else:
                return False
        except InvalidRequest as error:
            raise self._failure(error.reason) from None
        except h11.RemoteProtocolError as error:
            if self._response is None:
                problem = f"malformed HTTP response: {error}" if data else "proxy closed the connection"
                raise self._failure(problem) from (None if data else EOFError())
        assert self._response is not None
        problem = f"proxy answered with {describe(self._response)}"
        raise HandshakeRejected(f"{self._name} failed: {problem}", self._response)

    def _is_enough(self) -> bool:
        return self._response is not None and len(self._response.body) >= _MAX_BODY_SIZE

    def _failure(self, problem: str) -> HandshakeFailed:
        return HandshakeFailed(f"{self._name} failed: {problem}", self._response)


@contextmanager
def socks(proxy: Proxy, uri: URI) -> Iterator[dict[str, Any]]:
    """Yield the arguments of python-socks for a SOCKS proxy, and translate its errors.

    Args:
        proxy: the proxy.
        uri: the server's address.

    Raises:
        ImportError: python-socks is not installed.
        HandshakeFailed: the proxy does not let us through.
        ConnectionError: the proxy cannot reach the server.
    """
    try:
        from python_socks import ProxyError, ProxyType
    except ImportError as error:
        raise ImportError("SOCKS proxies need python-socks: pip install 'wsframe[proxy]'") from error
    try:
        yield {
            "proxy_type": ProxyType[proxy.scheme[:6].upper()],
            "host": proxy.host,
            "port": proxy.port,
            "username": proxy.username,
            "password": proxy.password if proxy.username is None else proxy.password or "",
            "rdns": proxy.scheme in ("socks4a", "socks5h"),
        }
    except ProxyError as error:
        # Without a code for anything, the proxy has closed the connection.
        if error.error_code in _TEMPORARY or not hasattr(error.__cause__, "error_code"):
            raise ConnectionError(str(error)) from error
        raise HandshakeFailed(f"{proxy.tunnel_to(uri)} failed: {error}") from error
