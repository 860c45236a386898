r"""Bytes that were written down in hexadecimal, in any of these forms.

818537fa213d7f9f4d5158                                           digits
0x81, 0x85, 0x37, ...    \x81\x85\x37    81:85:37               digits with separators or prefixes
00000000: 8185 37fa 213d 7f9f 4d51 58              ..7.!=..MQX   xxd
00000000  81 85 37 fa 21 3d 7f 9f  4d 51 58  |..7.!=..MQX|       hexdump -C
000000 81 85 37 fa 21 3d 7f 9f 4d 51 58  >..7.!=..MQX<           od -A x -t x1z
0000   81 85 37 fa 21 3d 7f 9f 4d 51 58   ..7.!=..MQX            Wireshark
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

__all__ = ["is_hexadecimal", "read_hexadecimal"]

_BETWEEN = re.compile(r"0x|\\x|[\s,:;{}\[\]()'\"-]+", re.IGNORECASE)
_SEPARATORS = " \t\r\n,:;{}[]()'\"-"
_ONE_DIGIT = re.compile(r"0x([0-9A-F])(?![0-9A-F])", re.IGNORECASE)
_PLAIN = re.compile(r"(?:0x|\\x|[0-9A-F\s,:;{}\[\]()'\"-])+", re.IGNORECASE)
_OFFSET = re.compile(r"\s*(?:0x)?([0-9A-Fa-f]{4,16})(:?)(?:[ \t]+(.*)|)", re.DOTALL)
# How the column of text begins, by the mark at its end. A run of blanks is tried at its beginning only.
_TEXT_COLUMNS = {"|": re.compile(r"(?<![ \t])[ \t]+\|"), "<": re.compile(r"(?<![ \t])[ \t]+>")}


def is_hexadecimal(beginning: bytes) -> bool:
    """Tell whether a file begins as hexadecimal does, and as no frame and no head does.

    Args:
        beginning: its first bytes.
    """
    try:
        line = beginning.decode("ascii").lstrip().partition("\n")[0].rstrip("\\")
    except UnicodeDecodeError:
        return False
    return bool(line) and (bool(_PLAIN.fullmatch(line)) or _has_offset(line))


def _has_offset(line: str) -> bool:
    """Tell whether a first line has an offset: it has a colon, text beside it, or it is 0."""
    line = line.rstrip()
    match = _OFFSET.fullmatch(line)
    if match is None or not match[3]:
        return False
    return bool(match[2] or _without_text_column(line) != line or int(match[1], 16) == 0)


def _without_text_column(line: str) -> str:
    """Return a line without its column of text, which stands between two marks at its end."""
    column = _TEXT_COLUMNS.get(line[-1:])
    match = column and column.search(line, 0, len(line) - 1)
    return line[: match.start()] if match else line


def read_hexadecimal(pieces: Iterable[str]) -> Iterator[bytes]:
    """Read bytes from hexadecimal.

    Args:
        pieces: lines of text with their line ends; a long line may come in several pieces.

    Raises:
        ValueError: a line is not hexadecimal; the message has its number.
    """
    iterator = iter(pieces)
    first = next((piece for piece in iterator if piece.strip()), "")
    read = _read_dump if _has_offset(first) else _read_digits
    return read(chain([first], iterator))


def _read_digits(pieces: Iterable[str]) -> Iterator[bytes]:
    rest, number = "", 1
    for piece in pieces:
        rest += piece
        # Not between the two digits of a byte, nor within 0x or \\x
        cut = (
            max(rest.rfind("\\"), *(rest.rfind(character) + 1 for character in _SEPARATORS)) or len(rest) & ~1
        )
        yield _parse(rest[:cut], number)
        rest = rest[cut:]
        number += piece.endswith("\n")
    yield _parse(rest, number)


def _read_dump(pieces: Iterable[str]) -> Iterator[bytes]:
    expected = None
    for number, line in enumerate(pieces, 1):
        if not line.strip():
            continue
        if line.strip() == "*":
            raise ValueError(f"line {number} stands for lines that were left out; hexdump -v leaves out none")
        match = _OFFSET.fullmatch(_without_text_column(line.rstrip()))
        if match is None:
            raise ValueError(
                f"line {number} does not begin with an offset in hexadecimal, as the first one does"
            )
        offset, colon, digits = int(match[1], 16), match[2], match[3] or ""
        if expected is not None and offset != expected:
            raise ValueError(f"line {number} has the offset {offset:x}, where {expected:x} was expected")
        # The column of text: xxd writes it after two blanks, Wireshark after three, with two within it.
        data = _parse(digits.partition("  " if colon else "   ")[0], number)
        expected = offset + len(data)
        yield data


def _parse(text: str, number: int) -> bytes:
    data = bytearray()
    for digits in _BETWEEN.sub(" ", _ONE_DIGIT.sub(r"0\1", text)).split():
        try:
            data += bytes.fromhex(digits)
        except ValueError:
            digits = digits if len(digits) <= 40 else f"{digits[:40]}..."
            raise ValueError(f"line {number}: {digits!r} is not bytes in hexadecimal") from None
    return bytes(data)
