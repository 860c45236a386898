"""RFC 6454: the origins whose pages may connect."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["Origins"]

# RFC 6454, section 7.1: "null", or a scheme, a host and perhaps a port; nothing after them. Colons stand in a
# host only within the brackets of IPv6.
_ORIGIN = re.compile(r"null|([a-z][a-z0-9+.\-]*)://(\[[0-9a-f:.]*\]|[^/?#\\\s@:\[\]]*)(?::([0-9]+))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Origins:
    """A list of origins: ``origin in origins`` is whether an Origin header is one of them (RFC 6454).

    Scheme and host are compared in any case, and the default port of ``http`` and ``https`` is as good as
    none: ``https://Example.com:443`` is ``https://example.com``. Any other port must be the same.

    Args:
        origins: strings such as ``https://example.com``; compiled patterns, which must match the whole of an
            origin, in lower case and without a default port; None for requests without an Origin.

    Raises:
        TypeError: one of them is of another type, or they are not a list.
        ValueError: a string is not an origin, which ends with the host or the port.
    """

    __slots__ = ("_names", "_patterns")

    def __init__(self, origins: Iterable[str | re.Pattern[str] | None]) -> None:
        if isinstance(origins, (str, re.Pattern)):
            raise TypeError(f"origins must be a list of str, not a {type(origins).__name__}")
        names: set[str | None] = set()
        patterns: list[re.Pattern[str]] = []
        for origin in origins:
            if isinstance(origin, re.Pattern) and isinstance(origin.pattern, str):
                patterns.append(origin)
            elif origin is None:
                names.add(None)
            elif not isinstance(origin, str):
                kind = "pattern of bytes" if isinstance(origin, re.Pattern) else type(origin).__name__
                raise TypeError(f"origins must be str, patterns of str or None, not {kind}")
            elif not _ORIGIN.fullmatch(name := _normal(origin)):
                raise ValueError(f"origin must be like https://example.com or null, not {origin!r}")
            else:
                names.add(name)
        self._names = frozenset(names)
        self._patterns = tuple(patterns)

    def __contains__(self, origin: str | None) -> bool:
        if origin is None:
            return None in self._names
        origin = _normal(origin)
        return origin in self._names or any(pattern.fullmatch(origin) for pattern in self._patterns)


def _normal(origin: str) -> str:
    """Return an origin as browsers write it (RFC 6454, sections 4 and 6.2)."""
    origin = origin.lower()
    parts = _ORIGIN.fullmatch(origin)
    if parts and parts[3] and parts[3] == _DEFAULT_PORTS.get(parts[1]):
        return origin[: parts.end(2)]
    return origin
