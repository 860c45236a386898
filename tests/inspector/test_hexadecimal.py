"""Bytes in hexadecimal, in the forms that people and programs write."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.inspection import HELLO
from wsframe import Opcode, encode_frame
from wsframe.inspector import is_hexadecimal, read_hexadecimal

DATA = HELLO + bytes.fromhex("8a8537fa213d7f9f4d5158")
DUMPS = {
    "digits": DATA.hex(),
    "upper case": DATA.hex().upper(),
    "bytes": DATA.hex(" "),
    "words": DATA.hex(" ", 4),
    "lines": DATA.hex("\n", 3),
    "colons": DATA.hex(":"),
    "C": "{" + ", ".join(f"0x{byte:x}" for byte in DATA) + "};",
    "Python": '"' + "".join(f"\\x{byte:02x}" for byte in DATA) + '"',
    "0x": f"0x{DATA.hex()}",
    "xxd": """\
00000000: 8185 37fa 213d 7f9f 4d51 588a 8537 fa21  ..7.!=..MQX..7.!
00000010: 3d7f 9f4d 5158                           =..MQX
""",
    "xxd -g1": """\
00000000: 81 85 37 fa 21 3d 7f 9f 4d 51 58 8a 85 37 fa 21  ..7.!=..MQX..7.!
00000010: 3d 7f 9f 4d 51 58                                =..MQX
""",
    "hexdump -C": """\
00000000  81 85 37 fa 21 3d 7f 9f  4d 51 58 8a 85 37 fa 21  |..7.!=..MQX..7.!|
00000010  3d 7f 9f 4d 51 58                                 |=..MQX|
00000016
""",
    "hexdump -C, from somewhere": """\
00000100  81 85 37 fa 21 3d 7f 9f  4d 51 58 8a 85 37 fa 21  |..7.!=..MQX..7.!|
00000110  3d 7f 9f 4d 51 58                                 |=..MQX|
00000116
""",
    "od -A x -t x1z": """\
000000 81 85 37 fa 21 3d 7f 9f 4d 51 58 8a 85 37 fa 21  >..7.!=..MQX..7.!<
000010 3d 7f 9f 4d 51 58                                >=..MQX<
000016
""",
    "Wireshark": """\
0000   81 85 37 fa 21 3d 7f 9f 4d 51 58 8a 85 37 fa 21   ..7.!=..MQX..7.!
0010   3d 7f 9f 4d 51 58                                 =..MQX
""",
}


def read(text: str) -> bytes:
    """Return the bytes, from lines as a file has them."""
    return b"".join(read_hexadecimal(text.splitlines(keepends=True)))


@pytest.mark.parametrize("dump", DUMPS)
def test_hexadecimal_is_known_however_it_is_written(dump: str) -> None:
    assert is_hexadecimal(DUMPS[dump].encode())
    assert read(DUMPS[dump]) == DATA


def test_frames_and_heads_are_not_hexadecimal() -> None:
    for data in (DATA, b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 101 Switching Protocols\r\n", b"\n"):
        assert not is_hexadecimal(data)


def test_hexadecimal_may_be_long_and_without_lines(size: Callable[[int, int], int]) -> None:
    data = encode_frame(Opcode.BINARY, bytes(range(256)) * size(100, 1000))
    escaped = "".join(f"\\x{byte:02x}" for byte in data)
    for text in (
        data.hex(),
        data.hex(" "),
        ",".join(f"0x{byte:x}" for byte in data),
        escaped,
        f'"{escaped}"',
    ):
        for step in (len(text), 4096, 997):  # a long line comes in pieces
            pieces = (text[start : start + step] for start in range(0, len(text), step))
            assert b"".join(read_hexadecimal(pieces)) == data


def test_text_beside_hexadecimal_is_looked_for_in_linear_time(size: Callable[[int, int], int]) -> None:
    for junk in (" |", " >", " <", "|", "  ", " \t", ">  <", "| "):
        for end in ("", "|", "<", "x"):
            line = f"00000000: 8100 {junk * 30_000}{end}\n"
            for _ in range(size(20, 100)):
                assert is_hexadecimal(line.encode())
                with suppress(ValueError):  # not all of the junk is text
                    assert read(line) == b"\x81\x00"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("81 8", "line 1: '8' is not bytes in hexadecimal"),
        ("8100\n8g", "line 2: '8g' is not bytes in hexadecimal"),
        ("8" * 99 + "g", f"line 1: '{'8' * 40}...' is not bytes in hexadecimal"),
        ("00000000: 8100\n00000003: 8100", "line 2 has the offset 3, where 2 was expected"),
        ("00000000: 8100\n*\n00000010: 8100", "line 2 stands for lines that were left out"),
        ("00000000: 8100\nnothing", "line 2 does not begin with an offset"),
        ("00000000: 81zz", "line 1: '81zz' is not bytes in hexadecimal"),
    ],
)
def test_what_is_not_hexadecimal_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        read(text)


def test_nothing_is_nothing() -> None:
    assert read("") == read("\n") == b""
