"""Redis' glob-style patterns, on octets as Redis has them: what PSUBSCRIBE means."""

from __future__ import annotations

import re

__all__ = ["Pattern"]

# An escape, a bracket up to its end or the pattern's, stars, or any other octet.
_PARTS = re.compile(
    rb"""\\ (?P<escaped>.)
    | \[ (?P<not>\^?) (?P<set>(?: \\. | [^]]-. | [^]] )*) \]?
    | (?P<stars>\*+)
    | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_RANGES = re.compile(rb"\\(?P<escaped>.)|(?P<first>.)-(?P<last>.)|(?P<other>.)", re.DOTALL)


class Pattern:
    r"""Be all topics that match a glob, as Redis defines it: ``Pattern("news.*")``.

    ``*`` stands for any octets, ``?`` for one octet, ``[abc]`` and ``[a-c]`` for one of these, ``[^a]`` for
    one that is none of these, and ``\`` takes the next character literally. Patterns are equal when their
    globs are.

    Redis compares octets, not characters: ``é`` has two in UTF-8, which ``??`` matches.

    Args:
        glob: the pattern.

    Raises:
        TypeError: the glob is not a string.
        ValueError: it has a lone surrogate, or brackets with characters outside ASCII, which Redis would take
            for their octets.
    """

    __slots__ = ("_match", "glob", "octets")

    def __init__(self, glob: str) -> None:
        if not isinstance(glob, str):
            raise TypeError(f"a pattern is made of a str, not {type(glob).__name__}")
        try:
            self.octets = glob.encode()
        except UnicodeEncodeError:
            raise ValueError("a pattern must not have lone surrogates") from None
        self.glob = glob
        self._match = re.compile(_translate(self.octets), re.DOTALL).fullmatch

    def __repr__(self) -> str:
        return f"Pattern({self.glob!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.octets == other.octets

    def __hash__(self) -> int:
        return hash((Pattern, self.octets))

    def matches(self, topic: str | bytes) -> bool:
        """Tell whether a topic matches.

        Args:
            topic: the topic, or its octets.
        """
        octets = topic.encode() if isinstance(topic, str) else topic
        # Redis looks at no star when there is nothing to match.
        return self._match(octets) is not None if octets else not self.octets


def _translate(glob: bytes) -> bytes:
    """Return the regular expression of a glob."""
    expression = b""
    depth = 0
    for part in _PARTS.finditer(glob):
        if part["stars"]:
            # What stands between two stars is best matched as early as it can be: there is no need to come
            # back to it, and atomic groups don't. So the time that it takes is bounded.
            expression += b")" * depth + (b"(?>.*?" if part.end() < len(glob) else b".*")
            depth = int(part.end() < len(glob))
        elif part["set"] is not None:
            expression += _set(part["set"], bool(part["not"]))
        else:
            octet = part["other"] or part["escaped"]
            expression += b"." if part["other"] == b"?" else re.escape(octet)
    return expression + b"\\Z" * depth + b")" * depth


def _set(items: bytes, is_negated: bool) -> bytes:
    """Return the regular expression of what stands within brackets."""
    if not items.isascii():
        raise ValueError("brackets in a pattern take ASCII characters only: Redis compares octets")
    ranges = b""
    for item in _RANGES.finditer(items):
        if item["first"] is not None:
            first, last = sorted((item["first"], item["last"]))
            ranges += re.escape(first) + b"-" + re.escape(last)
        else:
            ranges += re.escape(item["escaped"] or item["other"])
    if not ranges:
        return b"." if is_negated else b"(?!)"
    return b"[" + b"^" * is_negated + ranges + b"]"
