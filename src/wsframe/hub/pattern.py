"""The glob-style patterns of Redis: Pattern matches the bytes that PSUBSCRIBE matches."""

from __future__ import annotations

import re

__all__ = ["Pattern"]

# An escape, a bracket up to its end or the pattern's, stars, or any other byte.
_PARTS = re.compile(
    rb"""\\ (?P<escaped>.)
    | \[ (?P<not>\^?) (?P<set>(?: \\. | [^]]-. | [^]] )*) \]?
    | (?P<stars>\*+)
    | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_RANGES = re.compile(rb"\\(?P<escaped>.)|(?P<first>.)-(?P<last>.)|(?P<other>.)", re.DOTALL)


class Pattern:
    r"""All topics that match a glob, as Redis defines it: ``Pattern("news.*")``.

    ``*`` stands for any bytes, ``?`` for one byte, ``[abc]`` and ``[a-c]`` for one of these, ``[^a]`` for
    one that is none of these, and ``\`` takes the next character literally. Patterns are equal when their
    globs are.

    Redis compares bytes, not characters: ``é`` has two in UTF-8, which ``??`` matches.

    Args:
        glob: the pattern.

    Raises:
        TypeError: the glob is not a string.
        ValueError: it has a lone surrogate, or brackets with characters outside ASCII, whose bytes Redis
            would take one by one.
    """

    __slots__ = ("_match", "encoded", "glob")

    def __init__(self, glob: str) -> None:
        if not isinstance(glob, str):
            raise TypeError(f"a pattern is made of a str, not {type(glob).__name__}")
        try:
            self.encoded = glob.encode()
        except UnicodeEncodeError:
            raise ValueError("a pattern must not have lone surrogates") from None
        self.glob = glob
        self._match = re.compile(_translate(self.encoded), re.DOTALL).fullmatch

    def __repr__(self) -> str:
        return f"Pattern({self.glob!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash((Pattern, self.encoded))

    def matches(self, topic: str | bytes) -> bool:
        """Return whether a topic matches.

        Args:
            topic: the topic, or its UTF-8.
        """
        name = topic.encode() if isinstance(topic, str) else topic
        # Redis does not look at the stars of the pattern when the topic is empty.
        return self._match(name) is not None if name else not self.encoded


def _translate(glob: bytes) -> bytes:
    """Return the regular expression of a glob."""
    expression = b""
    depth = 0
    for part in _PARTS.finditer(glob):
        if part["stars"]:
            # The part between two stars is best matched as early as possible. There is no need to backtrack
            # into it, and atomic groups do not. So the time is bounded.
            expression += b")" * depth + (b"(?>.*?" if part.end() < len(glob) else b".*")
            depth = int(part.end() < len(glob))
        elif part["set"] is not None:
            expression += _set(part["set"], bool(part["not"]))
        else:
            byte = part["other"] or part["escaped"]
            expression += b"." if part["other"] == b"?" else re.escape(byte)
    return expression + b"\\Z" * depth + b")" * depth


def _set(items: bytes, is_negated: bool) -> bytes:
    """Return the regular expression of the items within brackets."""
    if not items.isascii():
        raise ValueError("brackets in a pattern take ASCII characters only: Redis compares bytes")
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
