"""One direction of a connection: frames, messages and violations, right and wrong."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.core import MASK, Memory
from tests.support.inspection import HELLO, HELLO_LINE, compressed, findings_of, inspect
from tests.support.tiers import full
from wsframe import Binary, Connection, Deflate, Fail, Opcode, Role, Text, encode_frame
from wsframe.inspector import (
    UNAGREED_COMPRESSION,
    Finding,
    FrameInspector,
    InspectedFrame,
    InspectedMessage,
    Violation,
)
from wsframe.testing import Stream, chunked, streams

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
        lines = inspect(bytes.fromhex(digits))
        assert lines[0] == line
        assert (len(lines) > 1) == (digits == "010348656c")  # its message does not end


def test_messages_are_put_together() -> None:
    lines = inspect(bytes.fromhex("0103e282ac 8900 80036c6c6f 8202ff00"), messages=True)
    assert [line for line in lines if line.startswith("=")] == [
        '=      0  server  TEXT of 2 frames, 6 bytes  "€llo"',
        "=     12  server  BINARY of 1 frame, 2 bytes  ff 00",
    ]
    assert len(lines) == 6


def test_a_character_that_is_cut_is_not_shown() -> None:
    lines = inspect(bytes.fromhex("0102e282 8001ac"), messages=True)
    assert lines[0].endswith('  2  ""')
    assert lines[2] == '=      0  server  TEXT of 2 frames, 3 bytes  "€"'


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
        ("897e007e" + 126 * "00", ["0 1002 control frame payload exceeds 125 bytes"]),
        ("8100 8180 01020304", ["2 1002 frames must not be masked"]),
        ("8180 01020304 8100", ["6 1002 frames must be masked"]),
        ("8101 ff", ["0 1007 text is not UTF-8"]),
        ("0101 e2 8001 41", ["3 1007 text is not UTF-8"]),
        ("0101 e2 8000", ["3 1007 text is not UTF-8"]),
        ("8801 03", ["0 1002 close payload must not be 1 byte long"]),
        ("8802 03ed", ["0 1002 status code 1005 must not be sent"]),
        ("8803 03e8 ff", ["0 1007 text is not UTF-8"]),
        ("8800 8100", ["2 1002 data frame after a Close"]),
        ("9100 8300 8101ff", ["0 1002 reserved", "2 1002 opcode 3", "4 1007 text"]),
        ("81", ["1 1006 the stream ends within a header, after 1 bytes of it"]),
        ("8105 6162", ["4 1006 the stream ends within a frame: 3 of 5 bytes of its payload are missing"]),
        ("0100", ["2 1006 the stream ends within a fragmented message"]),
    ],
)
def test_violations_are_marked_where_they_stand(digits: str, violations: list[str]) -> None:
    data = bytes.fromhex(digits)
    lines = inspect(data)
    marked = [re.sub(r"^! +(\d+)  \S+ +", r"\1 ", line) for line in lines if line.startswith("!")]
    assert len(marked) == len(violations), lines
    for line, expected in zip(marked, violations, strict=True):
        assert line.startswith(expected)
    is_last = "ends within" in violations[-1] or "Close" in violations[-1]
    if not is_last and data[1] < 0x80:
        # What follows is read as if the violation had not been.
        more = inspect(data + bytes.fromhex("89026869"))
        assert more[:-1] == lines
        assert more[-1] == f"{len(data):8}  server  F---  PING          -              2  68 69"


def test_a_length_that_cannot_be_ends_it() -> None:
    assert inspect(bytes.fromhex("8900 81ff8000000000000000 01020304 8900"))[1:] == [
        '       2  server  F---  TEXT          01020304  9223372036854775808  ""...',
        "!      2  server  1002 frames must not be masked",
        "#      2  server  no frame can be that long: nothing behind it can be read",
    ]


def test_the_first_frame_decides_who_sends_unless_it_is_told() -> None:
    assert inspect(HELLO) == inspect(HELLO, is_client=True) == [HELLO_LINE]
    assert inspect(HELLO, is_client=False) == [
        HELLO_LINE.replace("client", "server"),
        "!      0  server  1002 frames must not be masked",
    ]


def test_the_end_of_what_was_captured_is_no_violation() -> None:
    for is_end, text in ((True, "the stream"), (False, "the capture")):
        inspector = FrameInspector(is_client=None)
        assert list(inspector.feed(HELLO[:8])) == []
        frame, remark = inspector.finish(is_end)
        assert isinstance(frame, InspectedFrame)
        assert isinstance(remark, Violation) == is_end
        said = remark.reason if isinstance(remark, Violation) else getattr(remark, "text", "")
        assert said == f"{text} ends within a frame: 3 of 5 bytes of its payload are missing"


def test_a_large_frame_takes_little_memory() -> None:
    inspector = FrameInspector(is_client=True)
    header = bytes([0x82, 0xFF]) + (2**26).to_bytes(8, "big") + MASK
    chunk = bytes(65536)
    with Memory() as memory:
        assert list(inspector.feed(header)) == []
        for _ in range(2**10):
            findings = list(inspector.feed(chunk))
    frame, message = findings
    assert isinstance(frame, InspectedFrame)
    assert isinstance(message, InspectedMessage)
    assert message.length == 2**26
    assert memory.peak < 2**20


# The same judgement as the core's, whatever the bytes


def fail_of(data: bytes, role: Role, compression: Deflate | None) -> tuple[int, str] | None:
    connection = Connection(role, compression=compression, max_message_size=2**24)
    if data:
        connection.receive_data(data)
    while event := connection.next_event():
        if isinstance(event, Fail):
            return event.code, event.reason
    return None


def violations_of(findings: list[Finding]) -> list[tuple[int, str]]:
    """Return the violations of the first frame that has some, up to a Close."""
    frames: list[tuple[bool, list[tuple[int, str]]]] = []
    for finding in findings:
        if isinstance(finding, InspectedFrame):
            frames.append((finding.opcode == Opcode.CLOSE, []))
        elif isinstance(finding, Violation) and finding.code != 1006:
            if not any(isinstance(f, InspectedFrame) and f.offset == finding.offset for f in findings):
                frames.append((False, []))  # of a header that is cut short
            frames[-1][1].append((finding.code, finding.reason))
    return next((found for is_close, found in frames if found or is_close), [])


NO_TAKEOVER = Deflate(client_no_context_takeover=True)


@pytest.mark.parametrize(
    ("role", "compression"),
    [
        pytest.param(Role.CLIENT, None, id="client"),
        pytest.param(Role.SERVER, None, id="server", marks=full),
        pytest.param(Role.CLIENT, Deflate(), id="client, compression", marks=full),
        pytest.param(Role.SERVER, Deflate(), id="server, compression"),
        pytest.param(Role.CLIENT, NO_TAKEOVER, id="client, no takeover", marks=full),
        pytest.param(Role.SERVER, NO_TAKEOVER, id="server, no takeover", marks=full),
    ],
)
@given(data=st.data())
def test_the_first_violation_is_what_an_endpoint_fails_with(
    role: Role, compression: Deflate | None, data: st.DataObject
) -> None:
    hostile = streams(role, hostile=True, compression=compression)
    stream = data.draw(st.one_of(hostile, st.binary(max_size=200)))
    options: dict[str, Any] = {"is_client": role is Role.SERVER, "compression": compression}
    findings = findings_of([stream], **options)
    expected = fail_of(stream, role, compression)
    assume(expected is None or expected[0] != 1009)  # that is the endpoint's limit
    found = violations_of(findings)
    assert expected in found if expected else not found
    for chunks in (data.draw(chunked(stream)), [stream[i : i + 1] for i in range(len(stream))]):
        assert findings_of(chunks, **options) == findings


@given(stream=streams(Role.SERVER, compression=Deflate()))
def test_in_what_is_right_nothing_is_wrong(stream: Stream) -> None:
    findings = findings_of([bytes(stream)], is_client=True, compression=Deflate(), payload_limit=2**20)
    assert not [finding for finding in findings if isinstance(finding, Violation) and finding.code != 1006]
    messages = [event.data for event in stream.events if isinstance(event, (Text, Binary))]
    read = [finding for finding in findings if isinstance(finding, InspectedMessage)]
    texts = [bytes(m.payload).decode() if m.opcode == Opcode.TEXT else bytes(m.payload) for m in read]
    assert texts == messages


# Compression


def test_compressed_messages_are_read_when_told() -> None:
    data = compressed(Deflate(), b"Hello" * 10, b"Hello" * 10)
    lines = inspect(data, messages=True, compression=Deflate())
    assert re.fullmatch(rf' +0  server  F1--  TEXT +- +\d+  inflates to 50  "{"Hello" * 10}"', lines[0])
    assert [line for line in lines if line[0] != " "] == [
        f'=      0  server  TEXT of 1 frame, 50 bytes  "{"Hello" * 10}"',
        f'=     {lines[2].split()[0]:>2}  server  TEXT of 1 frame, 50 bytes  "{"Hello" * 10}"',
    ]
    lines = inspect(data, messages=True)
    assert "1002 reserved bits must be zero" in lines[1]
    assert lines[2] == f"#      0  server  {UNAGREED_COMPRESSION}"
    assert len(lines) == 5  # the note is given once


def test_window_and_context_are_as_told() -> None:
    def has_violation(data: bytes, compression: Deflate) -> bool:
        return any(isinstance(finding, Violation) for finding in findings_of([data], compression=compression))

    no_takeover = Deflate(server_no_context_takeover=True)
    assert not has_violation(compressed(no_takeover, b"Hello" * 10, b"Hello" * 10), no_takeover)
    lines = inspect(compressed(Deflate(), b"Hello" * 10, b"Hello" * 10), compression=no_takeover)
    assert "1007 compressed data is corrupt" in lines[2]
    noise = os.urandom(3000).hex().encode()  # which only a window of 15 bits can refer to
    wide = Deflate(server_max_window_bits=15, level=9)
    assert not has_violation(compressed(wide, noise, noise, noise), wide)
    assert has_violation(compressed(wide, noise, noise, noise), Deflate(server_max_window_bits=9))


def test_what_cannot_be_decompressed_is_said_once_and_read_as_frames() -> None:
    first, second = compressed(Deflate(), b"Hello" * 10), compressed(Deflate(), b"again" * 10)
    broken = encode_frame(Opcode.TEXT, b"\xff\xff\xff", rsv=4)
    lines = inspect(first + broken + second + encode_frame(Opcode.TEXT, b"plain"), compression=Deflate())
    assert [line[0] for line in lines] == [" ", " ", "!", "#", " ", " "]
    assert "1007 compressed data is corrupt" in lines[2]
    assert lines[3].endswith("from here on they cannot be read")
    assert "inflates" not in lines[1]
    assert "inflates" not in lines[4]
    assert lines[5].endswith('"plain"')
    # Alone, each message can be read.
    lines = inspect(first + broken + second, compression=Deflate(server_no_context_takeover=True))
    assert [line[0] for line in lines] == [" ", " ", "!", " "]
    assert lines[3].endswith(f'"{"again" * 10}"')


def test_what_is_shown_of_corrupt_bytes_depends_on_no_pieces() -> None:
    data = bytes.fromhex("c103 0c0011")  # the first two decompress to something
    options: dict[str, Any] = {"is_client": False, "compression": Deflate()}
    pieces = [data[i : i + 1] for i in range(len(data))]
    assert findings_of(pieces, **options) == findings_of([data], **options)


def test_a_bomb_is_not_let_off() -> None:
    bomb = compressed(Deflate(level=9), bytes(2**25))
    assert len(bomb) < 2**16
    with Memory() as memory:
        lines = inspect(bomb + encode_frame(Opcode.PING, b""), compression=Deflate())
    assert "the message decompresses to more than 16777216 bytes: not read on" in lines[1]
    assert " PING " in lines[-1]
    assert not [line for line in lines if line.startswith("!")]
    assert memory.peak < 2**22
