"""RFC 6455, section 3: WebSocket URIs.

ws-URI  = "ws:"  "//" host [ ":" port ] path [ "?" query ]
wss-URI = "wss:" "//" host [ ":" port ] path [ "?" query ]
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

from .errors import InvalidURI

__all__ = ["URI", "authority", "join_uri", "parse_uri", "without_userinfo"]

_DEFAULT_PORTS = {False: 80, True: 443}
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
# RFC 3986, section 3.2: only an IPv6 address stands in brackets, and nothing stands around them.
_AUTHORITY = re.compile(r"(?:[^\\\[\]]*@)?(?:\[[^\[\]]*:[^\[\]]*\]|[^\\\[\]:@]*)(?::[0-9]*)?")
# Section 3.2.2, reg-name or IPv6address, with the zone of RFC 6874.
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_LONGEST = 8192  # RFC 7230, section 3.1.1, asks for request lines of at least 8000 bytes


class URI(NamedTuple):
    """The parts of a WebSocket address.

    Attributes:
        secure: whether it is ``wss://``.
        host: the host name or address, without brackets, in ASCII; an IPv6 address with its zone.
        port: the TCP port.
        resource_name: path and query, percent-encoded: what stands in the request line.
        username: the user name, decoded, or None.
        password: the password, decoded, or None.
    """

    secure: bool
    host: str
    port: int
    resource_name: str
    username: str | None = None
    password: str | None = None

    @property
    def authority(self) -> str:
        """Return host and port."""
        return authority(self.host, self.port)

    @property
    def host_header(self) -> str:
        """Return the value of the Host header: the port is left out when it is the default one."""
        # RFC 6874, section 4: a client "MUST remove any ZoneID attached to an outgoing URI".
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.secure] else f"{host}:{self.port}"


def authority(host: str, port: int) -> str:
    """Return host and port, as RFC 3986, section 3.2, writes them.

    Args:
        host: a name or an address; one of IPv6 without brackets.
        port: the TCP port.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _invalid(problem: str, uri: str) -> InvalidURI:
    return InvalidURI(f"{problem}: {without_userinfo(uri)!r}")


def without_userinfo(address: str) -> str:
    """Return an address with "..." in place of its user name and password, for errors and logs.

    Args:
        address: the address of a server or a proxy. It may be malformed.
    """
    # They end with the last "@": a password that should have been encoded may hold anything, also line ends.
    userinfo, at, rest = address.rpartition("@")
    scheme, slashes, _ = userinfo.partition("://")
    return f"{scheme}://...@{rest}" if slashes and scheme.isalnum() else f"...@{rest}" if at else address


def parse_uri(uri: str) -> URI:
    """Take a WebSocket address apart (RFC 6455, section 3).

    Args:
        uri: an address such as ``ws://localhost:8001/chat?room=1``. Characters outside ASCII are
            encoded: by IDNA in the host, as percent-encoded UTF-8 in path and query.

    Returns:
        Its parts, with the default port (80 or 443) and path (``/``) filled in.

    Raises:
        InvalidURI: it is not such an address.
        TypeError: it is not a string.
    """
    if not isinstance(uri, str):
        raise TypeError(f"uri must be a str, not {type(uri).__name__}")
    if len(uri) > _LONGEST:
        raise InvalidURI(f"uri is longer than {_LONGEST} characters")
    # Before urlsplit, which drops tabs and line ends without a word.
    if _UNPRINTABLE.search(uri):
        raise _invalid("uri contains a space, control character or lone surrogate", uri)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _invalid("host or port is malformed", uri) from None
    if parts.scheme not in ("ws", "wss"):
        raise _invalid("scheme must be ws or wss", uri)
    # "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used on
    # these URIs." An empty one, which urlsplit does not tell, is one too.
    if "#" in uri:
        raise _invalid("uri has a fragment identifier", uri)
    if not host:
        raise _invalid("uri has no host", uri)
    try:
        host = host.encode("ascii" if host.isascii() else "idna").decode()
    except UnicodeError:
        raise _invalid("host is not a domain name", uri) from None
    if not _AUTHORITY.fullmatch(parts.netloc) or not _HOST.fullmatch(host):
        raise _invalid("host is not a domain name or address", uri)
    if ":" in host:
        host = host.replace("%25", "%")
    secure = parts.scheme == "wss"
    if port is None:
        port = _DEFAULT_PORTS[secure]
    elif port == 0:
        raise _invalid("port must be 1 to 65535", uri)
    # "%" is safe: what is encoded already stays as it is.
    resource_name = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if "?" in uri:
        resource_name += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]|^`{}\\")
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return URI(secure, host, port, resource_name, username, password)


def join_uri(uri: str, location: str) -> str:
    """Return the address that a redirect leads to (RFC 6455, section 4.1; RFC 9110, section 10.2.2).

    Args:
        uri: the address that was asked.
        location: the value of the Location header: an address, or one that is relative to ``uri``.
            ``http://`` stands for ``ws://``, and ``https://`` for ``wss://``.

    Returns:
        An address. It has the user name and password of ``uri`` when scheme, host and port are the same.

    Raises:
        InvalidURI: that is not an address.
    """
    base = urlsplit(uri)
    userinfo, at, netloc = base.netloc.rpartition("@")
    try:
        # Bytes that should have been percent-encoded; a fragment is for browsers that show a page.
        location = quote(location, safe=_PRINTABLE, encoding="latin-1")
        target = urldefrag(urljoin(base._replace(netloc=netloc).geturl(), location)).url
        has_user = "@" in urlsplit(target).netloc
    except ValueError:
        raise _invalid("location is malformed", location) from None
    if has_user:
        # RFC 9110, section 4.2.4: "it is likely being used to obscure the authority"
        raise _invalid("location has a user name", location)
    scheme, colon, rest = target.partition(":")
    target = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme) + colon + rest
    if parse_uri(target)[:3] == parse_uri(uri)[:3]:  # scheme, host and port
        target = target.replace("//", f"//{userinfo}{at}", 1)
    return target
