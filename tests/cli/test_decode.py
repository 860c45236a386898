"""``wsframe decode``: octets, hexadecimal and captures, right and wrong."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.adapters import TIMEOUT, request, response
from tests.support.core import MASK, Memory
from tests.support.paths import DOCS
from tests.support.tiers import full
from wsframe import (
    Binary,
    ClientConnection,
    Connection,
    Deflate,
    Fail,
    Opcode,
    Role,
    ServerConnection,
    Text,
    encode_frame,
)
from wsframe.deflate import Compressor
from wsframe.testing import Stream, chunked, streams

pytest.importorskip("click")
pytest.importorskip("dpkt")
pytest.importorskip("rich")

import dpkt
from click.testing import CliRunner

from wsframe.cli.command import wsframe
from wsframe.cli.decode.inspector import Frame, Inspector, Message, Violation

HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # RFC 6455, section 5.7
HELLO_LINE = '       0  client  F---  TEXT          37fa213d       5  "Hello"'


@pytest.fixture(autouse=True)
def sigpipe() -> Iterator[None]:
    """The command is not run in a process of its own here, mostly."""
    handler = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, handler)


def decode(octets: bytes, *options: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(wsframe, ["decode", *options], input=octets, prog_name="wsframe")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output.splitlines()


def decode_hex(digits: str, *options: str) -> tuple[int, list[str]]:
    return decode(bytes.fromhex(digits), "--format", "raw", *options)


# Frames


def test_frames_are_shown_one_a_line() -> None:
    # RFC 6455, section 5.7
    samples = {
        "818537fa213d7f9f4d5158": '       0  client  F---  TEXT          37fa213d       5  "Hello"',
        "810548656c6c6f": '       0  server  F---  TEXT          -              5  "Hello"',
        "010348656c": '       0  server  ----  TEXT          -              3  "Hel"',
        "890548656c6c6f": "       0  server  F---  PING          -              5  48 65 6c 6c 6f",
        "8a8537fa213d7f9f4d5158": "       0  client  F---  PONG          37fa213d       5  48 65 6c 6c 6f",
        "8800": "       0  server  F---  CLOSE         -              0  no code",
        "880403e86279": '       0  server  F---  CLOSE         -              4  1000 NORMAL_CLOSURE  "by"',
        "88020fa0": "       0  server  F---  CLOSE         -              2  4000 private use",
        "8100": '       0  server  F---  TEXT          -              0  ""',
        "8202ff00": "       0  server  F---  BINARY        -              2  ff 00",
        "827e0100"
        + 256 * "ab": f"       0  server  F---  BINARY        -            256  {64 * 'ab '}".rstrip()
        + "...",
    }
    for digits, line in samples.items():
        code, lines = decode_hex(digits)
        assert lines[0] == line
        assert code == (digits == "010348656c")  # its message does not end


def test_messages_are_put_together() -> None:
    code, lines = decode_hex("0103e282ac 8900 80036c6c6f 8202ff00".replace(" ", ""), "--messages")
    assert code == 0
    assert [line for line in lines if line.startswith("=")] == [
        '=      0  server  TEXT of 2 frames, 6 octets  "€llo"',
        "=     12  server  BINARY of 1 frame, 2 octets  ff 00",
    ]
    assert len(lines) == 6


def test_a_character_that_is_cut_is_not_shown() -> None:
    _, lines = decode_hex("0102e282 8001ac".replace(" ", ""), "--messages")
    assert lines[0].endswith('  2  ""...') or lines[0].endswith('  2  ""')
    assert lines[2] == '=      0  server  TEXT of 2 frames, 3 octets  "€"'


def test_what_a_terminal_would_act_on_is_made_visible() -> None:
    text = "a\x1b[2J\n\u202e\x9b\x00é"
    frames = encode_frame(Opcode.TEXT, text.encode()) + encode_frame(
        Opcode.CLOSE, b"\x03\xe8" + text.encode()
    )
    _, lines = decode(frames)
    assert len(lines) == 2
    for line in lines:
        assert line.endswith(r'"a\x1b[2J\n\u202e\x9b\x00é"')


@pytest.mark.parametrize(
    ("digits", "violations"),
    [
        ("9105 68656c6c6f", ["0 1002 reserved bits must be zero"]),
        ("8300", ["0 1002 opcode 3 is reserved"]),
        ("8b00", ["0 1002 opcode 11 is reserved"]),
        ("0900", ["0 1002 control frames must not be fragmented"]),
        ("8000", ["0 1002 continuation frame without a message to continue"]),
        ("0100 8101 61", ["2 1002 expected a continuation frame"]),
        ("817e007d" + 125 * "61", ["0 1002 payload length must be encoded minimally"]),
        ("817f000000000000fffe" + 65534 * "61", ["0 1002 payload length must be encoded minimally"]),
        ("897e007e" + 126 * "00", ["0 1002 control frame payload exceeds 125 octets"]),
        ("8100 8180 01020304", ["2 1002 frames must not be masked"]),
        ("8180 01020304 8100", ["6 1002 frames must be masked"]),
        ("8101 ff", ["0 1007 text is not UTF-8"]),
        ("0101 e2 8001 41", ["3 1007 text is not UTF-8"]),
        ("0101 e2 8000", ["3 1007 text is not UTF-8"]),
        ("8801 03", ["0 1002 close payload must not be 1 octet long"]),
        ("8802 03ed", ["0 1002 status code 1005 must not be sent"]),
        ("8803 03e8 ff", ["0 1007 text is not UTF-8"]),
        ("8800 8100", ["2 1002 data frame after a Close"]),
        ("9100 8300 8101ff", ["0 1002 reserved", "2 1002 opcode 3", "4 1007 text"]),
        ("81", ["1 1006 the stream ends within a header, after 1 octets of it"]),
        ("8105 6162", ["4 1006 the stream ends within a frame: 3 of 5 octets of its payload are missing"]),
        ("0100", ["2 1006 the stream ends within a fragmented message"]),
    ],
)
def test_violations_are_marked_where_they_stand(digits: str, violations: list[str]) -> None:
    octets = bytes.fromhex(digits)
    code, lines = decode(octets, "--format", "raw")
    assert code == 1
    marked = [re.sub(r"^! +(\d+)  \S+ +", r"\1 ", line) for line in lines if line.startswith("!")]
    assert len(marked) == len(violations), lines
    for line, expected in zip(marked, violations, strict=True):
        assert line.startswith(expected)
    if "ends within" not in violations[-1]:
        # What follows is read as if nothing was.
        closing = "" if "Close" in violations[-1] else "8902 6869"
        mask = "" if octets[1] < 0x80 else None
        if closing and mask is not None:
            _, more = decode(octets + bytes.fromhex(closing), "--format", "raw")
            assert more[:-1] == lines
            assert more[-1] == f"{len(octets):8}  server  F---  PING          -              2  68 69"


def test_a_length_that_cannot_be_ends_it() -> None:
    code, lines = decode_hex("8900 81ff8000000000000000 01020304 8900".replace(" ", ""))
    assert code == 1
    assert lines[1:] == [
        '       2  server  F---  TEXT          01020304  9223372036854775808  ""...',
        "!      2  server  1002 frames must not be masked",
        "#      2  server  no frame can be that long: nothing behind it can be read",
    ]


def test_the_direction_is_as_told_or_as_the_first_frame_has_it() -> None:
    assert decode(HELLO) == (0, [HELLO_LINE])
    assert decode(HELLO, "--masked") == (0, [HELLO_LINE])
    code, lines = decode(HELLO, "--unmasked")
    assert code == 1
    assert lines[0] == HELLO_LINE.replace("client", "server")
    assert lines[1] == "!      0  server  1002 frames must not be masked"


# What the core says, of whatever octets


def records_of(chunks: list[bytes], **options: Any) -> list[Any]:
    inspector = Inspector(**options)
    return [record for chunk in chunks for record in inspector.feed(chunk)] + list(inspector.finish(True))


def fail_of(octets: bytes, role: Role, deflate: Deflate | None) -> tuple[int, str] | None:
    connection = Connection(role, deflate=deflate, max_message_size=2**24)
    if octets:
        connection.receive_data(octets)
    while event := connection.next_event():
        if isinstance(event, Fail):
            return event.code, event.reason
    return None


def violations_of(records: list[Any]) -> list[tuple[int, str]]:
    """Return what is wrong with the first frame with which something is wrong, up to a Close."""
    frames: list[tuple[bool, list[tuple[int, str]]]] = []
    for record in records:
        if isinstance(record, Frame):
            frames.append((record.opcode == Opcode.CLOSE, []))
        elif isinstance(record, Violation) and record.code != 1006:
            if not any(isinstance(frame, Frame) and frame.offset == record.offset for frame in records):
                frames.append((False, []))  # of a header that is cut short
            frames[-1][1].append((record.code, record.reason))
    return next((found for is_close, found in frames if found or is_close), [])


NO_TAKEOVER = Deflate(client_no_context_takeover=True)


@pytest.mark.parametrize(
    ("role", "deflate"),
    [
        pytest.param(Role.CLIENT, None, id="client"),
        pytest.param(Role.SERVER, None, id="server", marks=full),
        pytest.param(Role.CLIENT, Deflate(), id="client, deflate", marks=full),
        pytest.param(Role.SERVER, Deflate(), id="server, deflate"),
        pytest.param(Role.CLIENT, NO_TAKEOVER, id="client, no takeover", marks=full),
        pytest.param(Role.SERVER, NO_TAKEOVER, id="server, no takeover", marks=full),
    ],
)
@given(data=st.data())
def test_the_first_violation_is_what_an_endpoint_fails_with(
    role: Role, deflate: Deflate | None, data: st.DataObject
) -> None:
    hostile = streams(role, hostile=True, deflate=deflate)
    octets = data.draw(st.one_of(hostile, st.binary(max_size=200)))
    options = {"is_client": role is Role.SERVER, "deflate": deflate}
    records = records_of([octets], **options)
    expected = fail_of(octets, role, deflate)
    assume(expected is None or expected[0] != 1009)  # that is the endpoint's limit
    found = violations_of(records)
    assert expected in found if expected else not found
    for chunks in (data.draw(chunked(octets)), [octets[i : i + 1] for i in range(len(octets))]):
        assert records_of(chunks, **options) == records


@given(stream=streams(Role.SERVER, deflate=Deflate()))
def test_in_what_is_right_nothing_is_wrong(stream: Stream) -> None:
    records = records_of([bytes(stream)], is_client=True, deflate=Deflate(), show=2**20)
    assert not [record for record in records if isinstance(record, Violation) and record.code != 1006]
    messages = [event.data for event in stream.events if isinstance(event, (Text, Binary))]
    read = [record for record in records if isinstance(record, Message)]
    texts = [bytes(m.payload).decode() if m.opcode == Opcode.TEXT else bytes(m.payload) for m in read]
    assert texts == messages


def test_a_large_frame_takes_little_memory() -> None:
    inspector = Inspector(is_client=True)
    header = bytes([0x82, 0xFF]) + (2**26).to_bytes(8, "big") + MASK
    chunk = bytes(65536)
    with Memory() as memory:
        assert list(inspector.feed(header)) == []
        for _ in range(2**10):
            records = list(inspector.feed(chunk))
    assert [type(record) for record in records] == [Frame, Message]
    assert records[1].length == 2**26
    assert memory.peak < 2**20


# Compression


def compressed(deflate: Deflate, *messages: bytes) -> bytes:
    compressor = Compressor(deflate, is_server=True)
    return b"".join(encode_frame(Opcode.TEXT, compressor.compress(message), rsv=4) for message in messages)


def test_compressed_messages_are_read_when_told() -> None:
    octets = compressed(Deflate(), b"Hello" * 10, b"Hello" * 10)
    code, lines = decode(octets, "--deflate", "--messages")
    assert code == 0
    assert re.fullmatch(rf' +0  server  F1--  TEXT +- +\d+  inflates to 50  "{"Hello" * 10}"', lines[0])
    assert [line for line in lines if line.startswith("=")] == [
        f'=      0  server  TEXT of 1 frame, 50 octets  "{"Hello" * 10}"',
        f'=     {lines[2].split()[0]:>2}  server  TEXT of 1 frame, 50 octets  "{"Hello" * 10}"',
    ]
    code, lines = decode(octets, "--messages")
    assert code == 1
    assert "1002 reserved bits must be zero" in lines[1]
    assert lines[2] == "#      0  server  RSV1 marks what is compressed: --deflate reads it"
    assert len(lines) == 5  # the hint is given once


def test_window_and_context_are_as_told() -> None:
    alone = compressed(Deflate(server_no_context_takeover=True), b"Hello" * 10, b"Hello" * 10)
    assert decode(alone, "--deflate", "--no-context-takeover")[0] == 0
    together = compressed(Deflate(), b"Hello" * 10, b"Hello" * 10)
    code, lines = decode(together, "--deflate", "--no-context-takeover")
    assert code == 1
    assert "1007 compressed data is corrupt" in lines[2]
    noise = os.urandom(3000).hex().encode()  # which only a window of 15 bits can refer to
    wide = compressed(Deflate(server_max_window_bits=15, level=9), noise, noise, noise)
    assert decode(wide, "--deflate")[0] == 0
    assert decode(wide, "--deflate", "--window-bits", "9")[0] == 1


def test_what_cannot_be_decompressed_is_said_once_and_read_as_frames() -> None:
    first, second = compressed(Deflate(), b"Hello" * 10), compressed(Deflate(), b"again" * 10)
    broken = encode_frame(Opcode.TEXT, b"\xff\xff\xff", rsv=4)
    code, lines = decode(
        first + broken + second + HELLO[:0] + encode_frame(Opcode.TEXT, b"plain"), "--deflate"
    )
    assert code == 1
    assert [line[0] for line in lines] == [" ", " ", "!", "#", " ", " "]
    assert "1007 compressed data is corrupt" in lines[2]
    assert lines[3].endswith("from here on they cannot be read")
    assert "inflates" not in lines[1]
    assert "inflates" not in lines[4]
    assert lines[5].endswith('"plain"')
    # Alone, each message can be read.
    code, lines = decode(first + broken + second, "--deflate", "--no-context-takeover")
    assert [line[0] for line in lines] == [" ", " ", "!", " "]
    assert lines[3].endswith(f'"{"again" * 10}"')


def test_what_is_shown_of_corrupt_octets_depends_on_no_pieces() -> None:
    octets = bytes.fromhex("c103 0c0011")  # the first two decompress to something
    options = {"is_client": False, "deflate": Deflate()}
    assert records_of([octets[i : i + 1] for i in range(len(octets))], **options) == records_of(
        [octets], **options
    )


def test_a_bomb_is_not_let_off() -> None:
    bomb = compressed(Deflate(level=9), bytes(2**25))
    assert len(bomb) < 2**16
    with Memory() as memory:
        code, lines = decode(bomb + encode_frame(Opcode.PING, b""), "--deflate", "--format", "raw")
    assert code == 0
    assert "the message decompresses to more than 16777216 octets: not read on" in lines[1]
    assert " PING " in lines[-1]
    assert memory.peak < 2**22


# JSON


def test_json_says_the_same() -> None:
    octets = b"".join(
        [
            encode_frame(Opcode.TEXT, "é\x1b".encode(), mask=MASK),
            encode_frame(Opcode.BINARY, b"\x00\xff", mask=MASK),
            encode_frame(Opcode.CLOSE, b"\x03\xf0no", mask=MASK),
            b"\x83\x00",
        ]
    )
    code, lines = decode(octets, "--json", "--messages")
    assert code == 1
    assert all(line.isascii() for line in lines)
    items = [json.loads(line) for line in lines]
    place = {"from": "client", "offset": 0}
    flags = {"fin": True, "rsv": 0, "opcode": 1, "name": "TEXT", "key": MASK.hex(), "length": 3}
    payload = {"text": "é\x1b", "hex": "c3a91b"}
    assert items[0] == {"kind": "frame", **place, **flags, **payload}
    assert items[1] == {"kind": "message", **place, "name": "TEXT", "frames": 1, "length": 3, **payload}
    assert (items[4]["code"], items[4]["reason"]) == (1008, "no")
    assert items[5]["name"] == "reserved 3"
    assert items[6] == {
        "kind": "violation",
        "from": "client",
        "offset": 27,
        "code": 1002,
        "reason": "opcode 3 is reserved",
    }


# Hexadecimal

OCTETS = HELLO + bytes.fromhex("8a8537fa213d7f9f4d5158")
DUMPS = {
    "digits": OCTETS.hex(),
    "upper case": OCTETS.hex().upper(),
    "octets": OCTETS.hex(" "),
    "words": OCTETS.hex(" ", 4),
    "lines": OCTETS.hex("\n", 3),
    "colons": OCTETS.hex(":"),
    "C": "{" + ", ".join(f"0x{octet:x}" for octet in OCTETS) + "};",
    "Python": '"' + "".join(f"\\x{octet:02x}" for octet in OCTETS) + '"',
    "0x": f"0x{OCTETS.hex()}",
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


@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.parametrize("options", [(), ("--format", "hex")])
def test_hexadecimal_is_known_however_it_is_written(dump: str, options: tuple[str, ...]) -> None:
    assert decode(DUMPS[dump].encode(), *options) == decode(OCTETS, "--format", "raw")


def test_hexadecimal_may_be_long_and_without_lines(size: Callable[[int, int], int]) -> None:
    octets = encode_frame(Opcode.BINARY, bytes(range(256)) * size(100, 1000))
    expected = decode(octets, "--format", "raw")
    escaped = "".join(f"\\x{octet:02x}" for octet in octets)
    for text in (
        octets.hex(),
        octets.hex(" "),
        ",".join(f"0x{octet:x}" for octet in octets),
        escaped,
        f'"{escaped}"',
    ):
        assert decode(text.encode()) == expected


def test_text_beside_hexadecimal_is_looked_for_in_linear_time(size: Callable[[int, int], int]) -> None:
    for junk in (" |", " >", " <", "|", "  ", " \t", ">  <", "| "):
        for end in ("", "|", "<", "x"):
            line = f"00000000: 8100 {junk * 30_000}{end}\n"
            code, _ = decode((line * size(20, 100)).encode(), "--format", "hex")
            assert code in (0, 2), (junk, end)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("81 8", "line 1: '8' is not octets in hexadecimal"),
        ("8100\n8g", "line 2: '8g' is not octets in hexadecimal"),
        ("8" * 99 + "g", f"line 1: '{'8' * 40}...' is not octets in hexadecimal"),
        ("00000000: 8100\n00000003: 8100", "line 2 has the offset 3, where 2 was expected"),
        ("00000000: 8100\n*\n00000010: 8100", "line 2 stands for lines that were left out"),
        ("00000000: 8100\nnothing", "line 2 does not begin with an offset"),
        ("00000000: 81zz", "line 1: '81zz' is not octets in hexadecimal"),
        ("81é", "it has other characters than ASCII"),
    ],
)
def test_what_is_not_hexadecimal_is_told_with_its_line(text: str, problem: str) -> None:
    code, lines = decode(text.encode(), "--format", "hex")
    assert code == 2
    assert lines[-1].startswith("wsframe decode: cannot read standard input: ")
    assert problem in lines[-1]


def test_nothing_is_nothing() -> None:
    for options in ((), ("--format", "raw"), ("--format", "hex")):
        assert decode(b"", *options) == (0, [])
        assert decode(b"\n", "--format", "hex") == (0, [])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--format", "pcap"), "it is neither pcap nor pcapng"),
        (("--window-bits", "12"), "--no-context-takeover and --window-bits go with --deflate"),
        (("--window-bits", "8", "--deflate"), "8 is not in the range 9<=x<=15"),
        (("/nowhere",), "/nowhere"),
    ],
)
def test_wrong_usage_exits_with_2(options: tuple[str, ...], problem: str) -> None:
    code, lines = decode(HELLO, *options)
    assert code == 2
    assert problem in "\n".join(lines)


# The opening handshake


def test_a_stream_may_begin_with_its_head() -> None:
    code, lines = decode(request("Origin: https://example.com", path="/chat\u00a0"[:5]) + HELLO)
    assert code == 0
    assert lines[0] == "       0  client  GET /chat  Origin: https://example.com"
    assert lines[1].endswith('  client  F---  TEXT          37fa213d       5  "Hello"')
    extension = "permessage-deflate; server_no_context_takeover"
    octets = compressed(Deflate(server_no_context_takeover=True), b"Hello", b"Hello")
    code, lines = decode(response(f"Sec-WebSocket-Extensions: {extension}") + octets)
    assert code == 0
    assert lines[0] == f"       0  server  101  Sec-WebSocket-Extensions: {extension}"
    assert lines[2].endswith('inflates to 5  "Hello"')


def test_control_characters_of_iso_8859_1_in_a_head_are_made_visible() -> None:
    code, lines = decode(request("Origin: a\x9b[2J\x85b", "Cookie: \x9b") + HELLO)
    assert code == 0
    assert lines[0] == r"       0  client  GET /  Origin: a\x9b[2J\x85b"


def test_what_is_wrong_with_a_head_is_marked() -> None:
    code, lines = decode(request().replace(b"13", b"12") + HELLO)
    assert code == 1
    assert lines == ["!      0  client  1002 Sec-WebSocket-Version must be 13"]
    code, lines = decode(response("Sec-WebSocket-Extensions: x-unknown") + encode_frame(Opcode.PING, b""))
    assert code == 1
    assert lines[1] == "!      0  server  1002 server uses an extension that was not offered"
    assert " PING " in lines[2]
    code, lines = decode(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    assert (code, lines) == (0, ["       0  server  404"])


# Captures

CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 8001)


class Wire:
    """Write down a TCP connection as packets."""

    def __init__(self, client: tuple[str, int] = CLIENT, server: tuple[str, int] = SERVER) -> None:
        self.ends = {"client": client, "server": server}
        self.sequence = {"client": 2**32 - 5, "server": 1000}  # one of them wraps around
        self.packets: list[bytes] = []

    def send(self, who: str, octets: bytes = b"", flags: int = dpkt.tcp.TH_ACK) -> Wire:
        other = "server" if who == "client" else "client"
        (source, sport), (target, dport) = self.ends[who], self.ends[other]
        segment = dpkt.tcp.TCP(
            sport=sport,
            dport=dport,
            seq=self.sequence[who],
            ack=self.sequence[other],
            flags=flags,
            data=octets,
        )
        is_six = ":" in source
        family = socket.AF_INET6 if is_six else socket.AF_INET
        ends = {"src": socket.inet_pton(family, source), "dst": socket.inet_pton(family, target)}
        if is_six:
            packet = dpkt.ip6.IP6(nxt=6, hlim=64, plen=len(segment), data=segment, **ends)
            packet.extension_hdrs = {}
        else:
            packet = dpkt.ip.IP(p=6, len=20 + len(segment), data=segment, **ends)
        self.packets.append(bytes(packet))
        fin_or_syn = bool(flags & (dpkt.tcp.TH_SYN | dpkt.tcp.TH_FIN))
        self.sequence[who] = (self.sequence[who] + len(octets) + fin_or_syn) % 2**32
        return self

    def open(self) -> Wire:
        return self.send("client", flags=dpkt.tcp.TH_SYN).send(
            "server", flags=dpkt.tcp.TH_SYN | dpkt.tcp.TH_ACK
        )

    def shake_hands(self, *headers: str) -> Wire:
        return self.open().send("client", request(path="/chat")).send("server", response(*headers))

    def end(self) -> Wire:
        for who in ("client", "server"):
            self.send(who, flags=dpkt.tcp.TH_FIN | dpkt.tcp.TH_ACK)
        return self


LINKS = {
    "ethernet": (1, bytes(12) + b"\x08\x00"),
    "vlan": (1, bytes(12) + b"\x81\x00\x00\x05\x08\x00"),
    "raw": (101, b""),
    "cooked": (113, b"\x00\x00\x03\x04\x00\x06" + bytes(8) + b"\x08\x00"),
    "cooked v2": (276, b"\x08\x00\x00\x00\x00\x00\x00\x01\x03\x04\x00\x06" + bytes(8)),
    "loopback": (0, b"\x02\x00\x00\x00"),
}


def pcap(packets: list[bytes], link: str = "ethernet", module: Any = dpkt.pcap) -> bytes:
    number, header = LINKS[link]
    file = io.BytesIO()
    options = {} if module is dpkt.pcap else {"idb": None}
    if module is dpkt.pcapng:
        little = sys.byteorder == "little"
        block = dpkt.pcapng.InterfaceDescriptionBlockLE if little else dpkt.pcapng.InterfaceDescriptionBlock
        options = {"idb": block(linktype=number)}
    else:
        options = {"linktype": number}
    writer = module.Writer(file, **options)
    for index, packet in enumerate(packets):
        writer.writepkt(header + packet, 1000 + index / 4)
    return file.getvalue()


def talk() -> Wire:
    wire = Wire().shake_hands()
    wire.send("client", encode_frame(Opcode.TEXT, b"Hello", mask=MASK))
    wire.send("server", encode_frame(Opcode.TEXT, b"World")[:3])
    wire.send("server", encode_frame(Opcode.TEXT, b"World")[3:])
    wire.send("client", encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=MASK))
    wire.send("server", encode_frame(Opcode.CLOSE, b"\x03\xe8"))
    return wire.end()


def offsets(lines: list[str]) -> list[str]:
    """Return what was said, without number, time and offset."""
    return [re.sub(r"^([ !=#]) +\d+ +[\d.]+ +\d+  ", r"\1", line) for line in lines]


TALK = [
    "# 1: 10.0.0.1:50000 connects to 10.0.0.2:8001",
    " client  GET /chat",
    " server  101",
    ' client  F---  TEXT          01020304       5  "Hello"',
    ' server  F---  TEXT          -              5  "World"',
    " client  F---  CLOSE         01020304       2  1000 NORMAL_CLOSURE",
    " server  F---  CLOSE         -              2  1000 NORMAL_CLOSURE",
]


@pytest.mark.parametrize("module", [dpkt.pcap, dpkt.pcapng], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("link", LINKS)
def test_a_capture_shows_both_directions(link: str, module: Any) -> None:
    code, lines = decode(pcap(talk().packets, link, module))
    assert code == 0
    assert offsets(lines) == TALK
    head = len(request(path="/chat"))
    assert lines[3] == (
        f"   1    1.000000{head:>7}" + '  client  F---  TEXT          01020304       5  "Hello"'
    )
    assert lines[4].split()[1] == "1.500000"  # when the last of it came


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_capture_may_be_of_several_interfaces(order: str) -> None:
    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack(order + "I", len(body) + 12)
        return struct.pack(order + "I", kind) + size + body + size

    octets = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    links = ("ethernet", "cooked v2", "raw")
    for link in links:  # their times are in units of 2 ** -2 seconds
        option = struct.pack(order + "HHB3xHH", 9, 1, 0x82, 0, 0)
        octets += block(1, struct.pack(order + "HHI", LINKS[link][0], 0, 0) + option)
    for index, packet in enumerate(talk().packets):
        captured = LINKS[links[index % 3]][1] + packet
        header = struct.pack(order + "IIIII", index % 3, 0, index, len(captured), len(captured))
        octets += block(6, header + captured + bytes(-len(captured) % 4))
        octets += block(5, bytes(8))  # of a kind that is of no interest
    assert decode(octets) == decode(pcap(talk().packets))


def test_segments_are_put_in_order() -> None:
    packets = talk().packets
    assert offsets(decode(pcap([packet for packet in packets for _ in range(2)]))[1]) == TALK
    swapped = [*packets[:5], packets[6], packets[5], *packets[7:]]
    assert offsets(decode(pcap(swapped))[1]) == TALK
    # All of it once more, at the end, and the end of the handshake after the beginning of the frames
    assert offsets(decode(pcap(packets + packets[2:]))[1]) == TALK
    early = [*packets[:3], packets[4], packets[3], *packets[5:]]
    assert offsets(decode(pcap(early))[1]) == TALK


def test_segments_that_overlap_count_once() -> None:
    wire = Wire().shake_hands()
    frame = encode_frame(Opcode.TEXT, b"0123456789", mask=MASK)
    start = wire.sequence["client"]
    for first, last in ((0, 6), (3, 9), (0, 2), (8, 16)):
        wire.sequence["client"] = (start + first) % 2**32
        wire.send("client", frame[first:last])
    _, lines = decode(pcap(wire.packets))
    assert lines[3].endswith('"0123456789"')


def test_what_is_missing_ends_a_direction_and_not_the_other() -> None:
    wire = Wire().shake_hands()
    for number in range(4):
        wire.send("client", encode_frame(Opcode.TEXT, b"%d" % number, mask=MASK))
        wire.send("server", encode_frame(Opcode.TEXT, b"%d" % number))
    del wire.packets[6]  # the client's second
    code, lines = decode(pcap(wire.packets))
    assert code == 0
    assert [line[-3:] for line in offsets(lines)[3:8]] == ['"0"', '"0"', '"1"', '"2"', '"3"']
    assert offsets(lines)[8] == (
        "#client  7 octets are missing in the capture: nothing behind them can be read"
    )


def test_what_waits_for_what_is_missing_is_limited() -> None:
    wire = Wire().shake_hands()
    wire.sequence["client"] = (wire.sequence["client"] + 100) % 2**32
    for _ in range(1100):
        wire.send("client", b"x")
    _, lines = decode(pcap(wire.packets))
    assert "100 octets are missing in the capture" in lines[3]
    assert len(lines) == 4


def test_compression_is_as_the_handshake_has_it() -> None:
    deflate = Deflate(threshold=0, server_max_window_bits=10, client_no_context_takeover=True)
    client, server = ClientConnection("ws://localhost/", deflate=deflate), ServerConnection()
    wire = Wire().open()

    def pump(connection: Any, other: Any, who: str) -> None:
        octets = connection.data_to_send()
        wire.send(who, octets)
        other.receive_data(octets)
        while other.next_event():
            pass

    octets = client.data_to_send()
    wire.send("client", octets)
    server.receive_data(octets)
    server.next_event()
    server.accept()
    pump(server, client, "server")
    for number in range(3):
        client.send_text(f"Hello {number}, hello")
        pump(client, server, "client")
        server.send_text(f"World {number}, world", compress=True)
        pump(server, client, "server")
    # The client speaks before the capture knows the answer.
    wire.packets[3], wire.packets[4] = wire.packets[4], wire.packets[3]
    code, lines = decode(pcap(wire.packets))
    assert code == 0
    assert re.sub(r".*  server  101  ", "", lines[2]).startswith("Sec-WebSocket-Extensions: permessage-")
    said = [re.search(r"(client|server)  F1--.*inflates to 14  \"(.*)\"$", line) for line in lines[3:]]
    assert [match and match[2] for match in said] == [
        f"{word}" for number in range(3) for word in (f"Hello {number}, hello", f"World {number}, world")
    ]


def test_other_traffic_is_left_out_and_counted() -> None:
    tls, http, web = (Wire(client=("10.0.0.1", port)) for port in (50001, 50002, 50003))
    tls.open().send("client", b"\x16\x03\x01\x00\x05hello").end()
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    http.open().send("client", get).send("server", b"HTTP/1.1 200 OK\r\n\r\nhello").end()
    web.open().send("client", request()).send("server", b"HTTP/1.1 403 Forbidden\r\n\r\n").end()
    mixed = [packet for some in zip(tls.packets, http.packets, strict=False) for packet in some]
    itself = Wire(CLIENT, CLIENT).send("client", get)
    packets = [*mixed, *itself.packets, *talk().packets, b"\x45", b"", b"E" * 20, *web.packets]
    code, lines = decode(pcap(packets))
    assert code == 0
    assert offsets(lines)[:7] == TALK
    assert offsets(lines)[7:] == [
        "# 2: 10.0.0.1:50003 connects to 10.0.0.2:8001",
        " client  GET /",
        " server  403",
        "# 2 other TCP connections, 1 of them TLS",
    ]
    assert decode(pcap(tls.packets))[1][-1].startswith("# no WebSocket")


def test_ipv6_and_json() -> None:
    wire = Wire(("2001:db8::1", 50000), ("::1", 8001)).shake_hands()
    assert decode(pcap(wire.packets, "raw"))[1][0] == "# 1: [2001:db8::1]:50000 connects to [::1]:8001"
    items = [json.loads(line) for line in decode(pcap(wire.packets, "raw"), "--json")[1]]
    assert items[0]["server"] == ["::1", 8001]
    assert items[1] == {
        "kind": "head",
        "stream": 1,
        "time": 0.5,
        "from": "client",
        "offset": 0,
        "line": "GET /chat",
        "headers": {},
    }


def test_ports_may_be_used_again() -> None:
    _, lines = decode(pcap([*talk().packets, *talk().packets[2:]]))  # that is the same once more
    assert offsets(lines) == TALK
    again = Wire()
    again.sequence = {"client": 77, "server": 78}
    again.shake_hands().send("client", HELLO)
    _, lines = decode(pcap([*talk().packets, *again.packets]))
    assert offsets(lines)[:7] == TALK
    assert lines[7].startswith("# 2: ")
    assert lines[10].endswith('"Hello"')


def test_a_capture_may_begin_in_the_middle_when_the_port_is_told() -> None:
    packets = talk().packets[4:]
    assert decode(pcap(packets))[1] == [
        "# 1 other TCP connections",
        "# no WebSocket; --port reads one whose handshake is not in the capture",
    ]
    code, lines = decode(pcap(packets), "--port", "8001")
    assert code == 0
    assert offsets(lines) == [TALK[0], *TALK[3:]]


def test_the_end_of_a_stream_within_a_frame_is_a_violation_and_that_of_the_capture_is_not() -> None:
    wire = Wire().shake_hands().send("client", HELLO[:8])
    code, lines = decode(pcap(wire.packets))
    assert code == 0
    assert "the capture ends within a frame: 3 of 5 octets" in lines[-1]
    for flags in (dpkt.tcp.TH_FIN, dpkt.tcp.TH_RST):
        cut = Wire().shake_hands().send("client", HELLO[:8]).send("client", flags=flags)
        code, lines = decode(pcap(cut.packets))
        assert code == 1
        assert "1006 the stream ends within a frame: 3 of 5 octets" in lines[4]


@pytest.mark.parametrize("module", [dpkt.pcap, dpkt.pcapng], ids=["pcap", "pcapng"])
def test_a_capture_that_is_cut_or_damaged_is_read_as_far_as_it_goes(module: Any) -> None:
    octets = pcap(talk().packets, module=module)
    code, lines = decode(octets[:-3])
    assert code == 2
    assert offsets(lines)[:7] == TALK
    assert lines[-1] == "wsframe decode: cannot read standard input: the capture is cut short"
    for size in (4, 20, 30):
        assert decode(octets[:size])[0] == 2
    huge = octets + b"\xff" * 64
    code, lines = decode(huge)
    assert code == 2
    assert "the capture is damaged: it has a block of " in lines[-1]


@given(data=st.data())
def test_a_damaged_capture_is_no_reason_to_crash(data: st.DataObject) -> None:
    octets = bytearray(pcap(talk().packets, module=data.draw(st.sampled_from([dpkt.pcap, dpkt.pcapng]))))
    for _ in range(data.draw(st.integers(1, 8))):
        octets[data.draw(st.integers(4, len(octets) - 1))] = data.draw(st.integers(0, 255))
    code, _ = decode(bytes(octets))
    assert code in (0, 1, 2)


# As a process of its own


def command(*options: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "wsframe", "decode", *options]


def test_frames_are_shown_as_they_come() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(command("-"), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(HELLO)
            process.stdin.flush()
            assert b'"Hello"' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_it_ends_with_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(HELLO * 10_000)
    pipe = subprocess.PIPE
    with subprocess.Popen(command(str(tmp_path / "frames")), stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().decode().rstrip() == HELLO_LINE
        process.stdout.close()
        assert process.wait(TIMEOUT) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_there_is_colour_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(HELLO + b"\x83\x00")
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.run(
        command(str(tmp_path / "frames")), stdout=theirs, env=environment, timeout=TIMEOUT
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 1
    assert "\x1b[" in shown
    assert "# 2 frames, 1 violation" in shown
    assert "\x1b" not in "\n".join(decode(HELLO + b"\x83\x00")[1])


# The manual

SESSIONS = re.findall(
    r"^\$ (echo .*wsframe decode.*)\n((?:[^`$].*\n)+)",
    (DOCS / "cli.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("typed", "shown"), SESSIONS)
def test_the_manual_shows_what_is_so(typed: str, shown: str) -> None:
    digits, options = re.fullmatch(r"echo (.*) \| wsframe decode(.*)", typed).groups()
    assert decode(f"{digits}\n".encode(), *options.split())[1] == shown.splitlines()


def test_the_manual_shows_a_capture() -> None:
    assert len(SESSIONS) == 3
    manual = (DOCS / "cli.md").read_text()
    assert "\n".join(decode(pcap(talk().packets))[1]) in manual
