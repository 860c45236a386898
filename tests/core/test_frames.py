from __future__ import annotations

import copy
import itertools
import pickle
import sys
from array import array

import pytest

from tests.support.cases import case
from tests.support.core import READINGS, SAMPLE_MASK
from wsframe.errors import LocalProtocolError, RemoteProtocolError
from wsframe.frames import (
    BETWEEN_MESSAGES,
    WITHIN_MESSAGE,
    CloseCode,
    Frame,
    FrameDecoder,
    Opcode,
    encode_frame,
    legal_bytes,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
TRAILING = b"\xff\x00\x7f"  # no frame: a decoder that reads it fails


def unmask(data, key=SAMPLE_MASK):
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def read(decoder, sample, reading):
    """Return the frame that a sample is; its last byte completes it, or its error."""
    *first, last = reading.cut(sample)
    for data in first:
        decoder.feed(data)
        assert decoder.next_frame() is None
    decoder.feed(last + reading.trailing(TRAILING))
    frame = decoder.next_frame()
    assert decoder.unread == len(reading.trailing(TRAILING))
    assert decoder.drain() == reading.trailing(TRAILING)
    return frame


SAMPLES = [
    # RFC 6455, section 5.7
    pytest.param(b"\x81\x05\x48\x65\x6c\x6c\x6f", Frame(TEXT, b"Hello"), None, id="5.7 unmasked text"),
    pytest.param(
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        Frame(TEXT, b"Hello"),
        SAMPLE_MASK,
        id="5.7 masked text",
    ),
    pytest.param(b"\x01\x03\x48\x65\x6c", Frame(TEXT, b"Hel", fin=False), None, id="5.7 first fragment"),
    pytest.param(b"\x80\x02\x6c\x6f", Frame(CONTINUATION, b"lo"), None, id="5.7 last fragment"),
    pytest.param(b"\x89\x05\x48\x65\x6c\x6c\x6f", Frame(PING, b"Hello"), None, id="5.7 unmasked Ping"),
    pytest.param(
        b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        Frame(PONG, b"Hello"),
        SAMPLE_MASK,
        id="5.7 masked Pong",
    ),
    pytest.param(b"\x82\x7e\x01\x00" + bytes(256), Frame(BINARY, bytes(256)), None, id="5.7 256 bytes"),
    # Section 5.2, payload length
    pytest.param(b"\x82\x00", Frame(BINARY), None, id="5.2 0 bytes"),
    pytest.param(b"\x82\x80" + SAMPLE_MASK, Frame(BINARY), SAMPLE_MASK, id="5.2 0 bytes, masked"),
    pytest.param(b"\x82\x7d" + b"a" * 125, Frame(BINARY, b"a" * 125), None, id="5.2 125 bytes"),
    pytest.param(b"\x82\x7e\x00\x7e" + b"a" * 126, Frame(BINARY, b"a" * 126), None, id="5.2 126 bytes"),
    pytest.param(
        b"\x82\xfe\x00\x7e" + SAMPLE_MASK + unmask(b"a" * 126),
        Frame(BINARY, b"a" * 126),
        SAMPLE_MASK,
        id="5.2 126 bytes, masked",
    ),
    # Section 5.4
    pytest.param(b"\x00\x01a", Frame(CONTINUATION, b"a", fin=False), None, id="5.4 a fragment within"),
    pytest.param(b"\x02\x00", Frame(BINARY, fin=False), None, id="5.4 an empty fragment"),
    # Section 5.5
    pytest.param(b"\x88\x00", Frame(CLOSE), None, id="5.5.1 Close without a status code"),
    pytest.param(
        b"\x88\x82" + SAMPLE_MASK + unmask(b"\x03\xe8"),
        Frame(CLOSE, b"\x03\xe8"),
        SAMPLE_MASK,
        id="5.5.1 Close",
    ),
    pytest.param(b"\x89\x7d" + b"a" * 125, Frame(PING, b"a" * 125), None, id="5.5 the longest Ping"),
]
# Too long to be read byte by byte in each test
LONG_SAMPLES = [
    pytest.param(
        b"\x82\x7f\0\0\0\0\0\1\0\0" + bytes(65536), Frame(BINARY, bytes(65536)), None, id="5.7 64 KiB"
    ),
    pytest.param(b"\x82\x7e\xff\xff" + bytes(65535), Frame(BINARY, bytes(65535)), None, id="5.2 65535 bytes"),
    pytest.param(
        b"\x81\xff\0\0\0\0\0\1\0\0" + SAMPLE_MASK + unmask(b"a" * 65536),
        Frame(TEXT, b"a" * 65536),
        SAMPLE_MASK,
        id="5.2 65536 bytes, masked",
    ),
]


@pytest.mark.parametrize(("sample", "frame", "mask"), SAMPLES)
def test_a_frame_is_read(sample, frame, mask):
    for reading in READINGS:
        with case(reading=reading):
            assert read(FrameDecoder(masked=mask is not None), sample, reading) == frame


@pytest.mark.parametrize(("sample", "frame", "mask"), LONG_SAMPLES)
def test_a_long_frame_is_read_in_any_pieces(sample, frame, mask):
    for size in [1000, 4096, 100000]:
        with case(size=size):
            decoder = FrameDecoder(masked=mask is not None)
            assert decoder.next_frame() is None
            data = sample + TRAILING
            frames = []
            for i in range(0, len(data), size):
                decoder.feed(data[i : i + size])
                if not frames and (found := decoder.next_frame()):
                    frames.append(found)
            assert frames == [frame]
            assert decoder.drain() == TRAILING


@pytest.mark.parametrize(("sample", "frame", "mask"), SAMPLES + LONG_SAMPLES)
def test_a_frame_is_written(sample, frame, mask):
    assert encode_frame(frame.opcode, frame.payload, frame.fin, frame.rsv, mask) == sample


def test_frames_are_read_one_after_the_other(reading):
    frames = [values.values[1] for values in SAMPLES]
    stream = b"".join(
        encode_frame(*(getattr(frame, name) for name in frame.__match_args__)) for frame in frames
    )
    decoder = FrameDecoder(masked=False)
    found = []
    for data in reading.cut(stream):
        decoder.feed(data)
        while frame := decoder.next_frame():
            found.append(frame)
    assert found == frames
    assert decoder.unread == 0


# The first byte (section 5.2)


def problem_of(first, legal):
    """Say what the RFC has against a first byte; its sets are written out in the tests."""
    if first in legal:
        return None
    if first & 0b0111_0000:
        return "reserved bits must be zero"
    if first & 15 in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        return f"opcode {first & 15} is reserved"
    if first in (8, 9, 10):
        return "control frames must not be fragmented"
    if first in (0x00, 0x80):
        return "continuation frame without a message to continue"
    return "expected a continuation frame"


@pytest.mark.parametrize(
    ("legal", "data"),
    [
        (None, {0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A}),
        (BETWEEN_MESSAGES, {0x01, 0x02, 0x81, 0x82, 0x88, 0x89, 0x8A}),
        (WITHIN_MESSAGE, {0x00, 0x80, 0x88, 0x89, 0x8A}),
    ],
    ids=["anywhere", "between messages", "within a message"],
)
def test_a_first_byte_is_legal_or_refused_at_once_rfc6455_5_2(legal, data):
    for first in range(256):
        with case(first=f"{first:#04x}"):
            decoder = FrameDecoder(masked=False)
            if legal is not None:
                decoder.legal = legal
            decoder.feed(bytes([first]))
            problem = problem_of(first, data)
            if problem is None:
                assert decoder.next_frame() is None
                decoder.feed(b"\0")
                assert decoder.next_frame() == Frame(first & 15, fin=first >= 128)
            else:
                for _ in range(2):  # and it stays refused
                    with pytest.raises(RemoteProtocolError) as caught:
                        decoder.next_frame()
                    assert (caught.value.code, caught.value.reason) == (1002, problem)


def test_reserved_bits_are_read_where_they_are_legal():
    decoder = FrameDecoder(masked=False)
    decoder.legal = legal_bytes(0xC1, 0xF2)
    decoder.feed(b"\xc1\x01a\xf2\x00")
    assert decoder.next_frame() == Frame(TEXT, b"a", rsv=4)
    assert decoder.next_frame() == Frame(BINARY, rsv=7)


# The rest of the header. The last byte of each sample is the one that must not be.

HUGE = b"\x7f\xff\xff\xff\xff\xff\xff\xff"
UNMASKED, MASKED = "frames must be masked", "frames must not be masked"
LONG_CONTROL = "control frame payload exceeds 125 bytes"
NOT_MINIMAL = "payload length must be encoded minimally"
SIGN_BIT = "payload length must be below 2**63"
TOO_BIG = "message is too big"


@pytest.mark.parametrize(
    ("sample", "masked", "code", "reason"),
    [
        pytest.param(b"\x81\x05", True, 1002, UNMASKED, id="5.1 unmasked"),
        pytest.param(b"\x88\x00", True, 1002, UNMASKED, id="5.1 unmasked Close"),
        pytest.param(b"\x81\x85", False, 1002, MASKED, id="5.1 masked"),
        pytest.param(b"\x8a\x80", False, 1002, MASKED, id="5.1 masked Pong"),
        pytest.param(b"\x89\x7e", False, 1002, LONG_CONTROL, id="5.5 Ping"),
        pytest.param(b"\x88\xff", True, 1002, LONG_CONTROL, id="5.5 Close"),
        pytest.param(b"\x82\x7e\x00\x7d", False, 1002, NOT_MINIMAL, id="5.2 125 in 2"),
        pytest.param(b"\x82\xfe\x00\x00", True, 1002, NOT_MINIMAL, id="5.2 0 in 2"),
        pytest.param(b"\x82\x7f\0\0\0\0\0\0\xff\xff", False, 1002, NOT_MINIMAL, id="5.2 65535 in 8"),
        pytest.param(b"\x82\xff\0\0\0\0\0\0\0\x01", True, 1002, NOT_MINIMAL, id="5.2 1 in 8"),
        pytest.param(b"\x82\x7f\x80\0\0\0\0\0\0\0", False, 1002, SIGN_BIT, id="5.2 2**63"),
        pytest.param(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", True, 1002, SIGN_BIT, id="5.2 2**64 - 1"),
        pytest.param(b"\x82\xff" + HUGE, True, 1009, TOO_BIG, id="7.4.1 2**63 - 1 over the limit"),
        pytest.param(b"\x82\x7e\x03\xe9", False, 1009, TOO_BIG, id="7.4.1 1001 of 1000"),
        pytest.param(b"\x81\x7e\x03\xe9", False, 1009, TOO_BIG, id="7.4.1 1001 of 1000, text"),
        pytest.param(b"\x80\xfe\x03\xe9", True, 1009, TOO_BIG, id="7.4.1 1001 of 1000, continuation"),
    ],
)
def test_a_header_is_refused_as_soon_as_the_byte_is_there(sample, masked, code, reason):
    for reading in READINGS:
        with case(reading=reading):
            decoder = FrameDecoder(masked=masked, max_size=1000)
            with pytest.raises(RemoteProtocolError) as caught:
                read(decoder, sample, reading)
            assert (caught.value.code, caught.value.reason) == (code, reason)
            with pytest.raises(RemoteProtocolError):
                decoder.next_frame()


@pytest.mark.parametrize("mask", [None, SAMPLE_MASK])
def test_a_payload_of_exactly_the_limit_is_fine(mask, reading):
    sample = encode_frame(BINARY, b"a" * 200, mask=mask)
    decoder = FrameDecoder(masked=mask is not None, max_size=200)
    assert read(decoder, sample, reading) == Frame(BINARY, b"a" * 200)


def test_a_limit_of_0_leaves_empty_messages_and_control_frames():
    decoder = FrameDecoder(masked=False, max_size=0)
    decoder.feed(b"\x82\x00\x89\x01a\x82\x01")
    assert decoder.next_frame() == Frame(BINARY)
    assert decoder.next_frame() == Frame(PING, b"a")
    with pytest.raises(RemoteProtocolError, match="too big"):
        decoder.next_frame()


def test_a_limit_beyond_all_frames_is_no_limit():
    for limit in [2**63, 2**64, 2**100]:
        with case(limit=limit):
            decoder = FrameDecoder(masked=False, max_size=limit)
            decoder.feed(b"\x82\x01a\x82\x7f\x7f" + b"\xff" * 7)
            assert decoder.next_frame() == Frame(BINARY, b"a")
            assert decoder.next_frame() is None


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_decoder_cannot_be_copied(copier):
    decoder = FrameDecoder(masked=False)
    decoder.feed(b"\x82")
    decoder.feed(b"\x01")  # from here on, its buffer changes in place
    with pytest.raises(TypeError, match="a FrameDecoder cannot be copied"):
        copier(decoder)


def test_by_default_the_limit_is_2_to_the_63_minus_1():
    decoder = FrameDecoder(masked=False)
    decoder.feed(b"\x82\x7f" + HUGE)
    assert decoder.next_frame() is None


# Bytes in


@pytest.mark.parametrize(
    "buffer",
    [bytes, bytearray, memoryview, lambda data: array("B", data), lambda data: array("H", data)],
)
def test_every_contiguous_buffer_is_fed(buffer):
    decoder = FrameDecoder(masked=False)
    decoder.feed(buffer(b"\x81\x02He\x89\x00"))
    assert decoder.next_frame() == Frame(TEXT, b"He")
    assert decoder.next_frame() == Frame(PING)


def test_what_is_fed_is_copied_if_it_can_change():
    data = bytearray(b"\x82\x02ab")
    decoder = FrameDecoder(masked=False)
    decoder.feed(data)
    data[2:] = b"xy"
    assert decoder.next_frame() == Frame(BINARY, b"ab")


NOT_BYTES = [
    (None, "bytes-like, not NoneType"),
    (5, "bytes-like, not int"),
    ("text", "bytes-like, not str"),
    (memoryview(b"abcd")[::2], "contiguous"),
]


def test_what_is_not_bytes_like_is_not_fed():
    for data, problem in NOT_BYTES:
        with case(data=data, problem=problem), pytest.raises(TypeError, match=problem):
            FrameDecoder(masked=False).feed(data)


def read_by_turns(decoder, stream):
    """Return the payloads of a stream that is fed and read from a buffer by turns, now and then unread."""
    found = []
    position, turn = 0, 0
    while position < len(stream):
        data = stream[position : position + (1, 7, 300, 5000)[turn % 4]]
        position += len(data)
        buffer = bytearray(data + b"beyond")
        if turn % 3:
            decoder.read_from(buffer, len(data))
        else:
            decoder.feed(data)
        if turn % 2:
            while frame := decoder.next_frame():
                found.append(frame.payload)
        if turn % 5:
            decoder.release()
            buffer[:] = bytes(len(buffer))  # others receive into it
        turn += 1
    while frame := decoder.next_frame():
        found.append(frame.payload)
    return found


def test_frames_are_fed_and_read_from_a_buffer_by_turns():
    payloads = [bytes([i]) * size for i, size in enumerate([0, 1, 125, 126, 3000, 70000, 5, 2048, 2047])]
    for mask in [None, SAMPLE_MASK]:
        with case(mask=mask):
            decoder = FrameDecoder(masked=mask is not None)
            stream = b"".join(encode_frame(BINARY, payload, mask=mask) for payload in payloads)
            assert read_by_turns(decoder, stream) == payloads
            assert decoder.unread == 0


@pytest.mark.parametrize("receiving", [False, True])
def test_take_all_returns_what_was_not_read_and_forgets_it(receiving):
    decoder = FrameDecoder(masked=False)
    if receiving:
        decoder.read_from(bytearray(b"\x81\x01a\x81\x01bcd, and beyond"), 8)
    else:
        decoder.feed(b"\x81\x01a\x81\x01bcd")
    assert decoder.unread == 8
    assert decoder.next_frame() == Frame(TEXT, b"a")
    assert decoder.unread == 5
    assert decoder.drain() == b"\x81\x01bcd"
    assert (decoder.unread, decoder.drain()) == (0, b"")
    assert decoder.next_frame() is None
    decoder.feed(b"\x89\x00")
    assert decoder.next_frame() == Frame(PING)


def test_a_long_frame_in_small_pieces_is_read_in_linear_time():
    payload = bytes(2**23)
    sample = encode_frame(BINARY, payload)
    decoder = FrameDecoder(masked=False)
    for i in range(0, len(sample) - 1, 32):
        decoder.feed(sample[i : min(i + 32, len(sample) - 1)])
        assert decoder.next_frame() is None
    decoder.feed(sample[-1:])
    assert decoder.next_frame() == Frame(BINARY, payload)


# Frames in pieces


def test_a_data_frame_comes_in_pieces_and_the_masking_key_turns():
    for size, mask in itertools.product([1, 2, 3, 4, 5, 7, 64, 199, 200], [None, SAMPLE_MASK]):
        with case(size=size, mask=mask):
            payload = bytes(range(200))
            sample = encode_frame(BINARY, payload, fin=False, mask=mask)
            header = len(sample) - len(payload)
            decoder = FrameDecoder(masked=mask is not None)
            decoder.partial = True
            decoder.feed(sample[:header])
            assert not decoder.advance()
            pieces, found = [], []
            for i in range(header, len(sample), size):
                decoder.feed(sample[i : i + size])
                assert decoder.advance()
                found.append(decoder.is_end)
                assert (decoder.first, decoder.is_whole) == (BINARY, False)
                pieces.append(decoder.read_payload())
            assert found == [False] * (len(pieces) - 1) + [True]
            assert pieces == [payload[i : i + size] for i in range(0, 200, size)]
            assert not decoder.advance()


def test_the_first_piece_comes_with_the_header_and_the_last_with_the_next_frame():
    decoder = FrameDecoder(masked=False)
    decoder.partial = True
    decoder.feed(b"\x81\x05He")
    assert decoder.advance()
    assert (decoder.read_payload(), decoder.is_end, decoder.is_whole) == (b"He", False, False)
    assert not decoder.advance()
    decoder.feed(b"llo\x89\x01a")
    assert decoder.advance()
    assert (decoder.read_payload(), decoder.is_end, decoder.is_whole) == (b"llo", True, False)
    assert decoder.advance()
    assert (decoder.read_payload(), decoder.is_end, decoder.is_whole, decoder.first) == (
        b"a",
        True,
        True,
        0x80 | PING,
    )


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_never_comes_in_pieces(opcode, reading):
    decoder = FrameDecoder(masked=True)
    decoder.partial = True
    assert read(decoder, encode_frame(opcode, b"Hello", mask=SAMPLE_MASK), reading) == Frame(opcode, b"Hello")


# Frames out


FINS_AND_OPCODES = [(True, opcode) for opcode in Opcode] + [(False, opcode) for opcode in range(3)]


def test_what_is_written_is_read():
    for length, mask, rsv, (fin, opcode) in itertools.product(
        [0, 1, 125], [None, SAMPLE_MASK], range(8), FINS_AND_OPCODES
    ):
        with case(length=length, mask=mask, rsv=rsv, fin=fin, opcode=opcode):
            frame = Frame(opcode, bytes(range(length)), fin, rsv)
            decoder = FrameDecoder(masked=mask is not None)
            decoder.legal = legal_bytes(*range(256))
            decoder.feed(encode_frame(opcode, frame.payload, fin, rsv, mask))
            assert decoder.next_frame() == frame


PAYLOADS = [b"Hello!", bytearray(b"Hello!"), memoryview(b"Hello!"), array("H", b"Hello!")]


def test_payload_and_masking_key_are_any_bytes():
    for mask, payload in itertools.product(
        [SAMPLE_MASK, bytearray(SAMPLE_MASK), memoryview(SAMPLE_MASK)], PAYLOADS
    ):
        with case(mask=mask, payload=payload):
            assert encode_frame(TEXT, payload) == b"\x81\x06Hello!"
            assert encode_frame(TEXT, payload, mask=mask) == b"\x81\x86\x37\xfa\x21\x3d" + unmask(b"Hello!")


def test_a_reserved_opcode_is_not_written_rfc6455_5_2():
    for opcode in [-1, 3, 7, 11, 15, 16, 129]:
        problem = f"opcode {opcode} is reserved"
        with case(opcode=opcode), pytest.raises(LocalProtocolError, match=problem):
            encode_frame(opcode, b"")


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_not_written_rfc6455_5_5(opcode):
    with pytest.raises(LocalProtocolError, match="control frames cannot be fragmented"):
        encode_frame(opcode, b"", fin=False)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_large_control_frame_is_not_written_rfc6455_5_5(opcode):
    with pytest.raises(LocalProtocolError, match="a control frame has at most 125 bytes, not 126"):
        encode_frame(opcode, bytes(126))


def test_reserved_bits_are_three():
    for rsv in [-1, 8]:
        with case(rsv=rsv), pytest.raises(ValueError, match=f"rsv must be 0 to 7, not {rsv}"):
            encode_frame(TEXT, b"", rsv=rsv)


def test_a_masking_key_is_4_bytes_long():
    for mask in [b"", b"abc", b"abcde"]:
        with case(mask=mask), pytest.raises(ValueError, match="masking key must be 4 bytes long"):
            encode_frame(TEXT, b"Hello", mask=mask)


@pytest.mark.parametrize("mask", ["abcd", 4])
def test_a_masking_key_is_bytes_like(mask):
    with pytest.raises(TypeError):
        encode_frame(TEXT, b"Hello", mask=mask)


def test_a_payload_is_bytes_like_and_contiguous():
    for payload, problem in NOT_BYTES:
        with case(payload=payload, problem=problem), pytest.raises(TypeError, match=problem):
            encode_frame(BINARY, payload)


# Frame, Opcode and CloseCode


def test_frames_compare_by_value():
    frames = [
        Frame(TEXT, b"a"),
        Frame(BINARY, b"a"),
        Frame(TEXT),
        Frame(TEXT, b"a", False),
        Frame(TEXT, b"a", True, 4),
    ]
    assert len({*frames, *[Frame(1, b"a"), Frame(2, b"a")]}) == 5
    for frame in frames:
        assert [frame == other for other in frames].count(True) == 1
    assert Frame(TEXT) != (TEXT, b"", True, 0)


def test_frames_match_by_position():
    match Frame(1, b"a"):
        case Frame(Opcode.TEXT, payload, fin, rsv):
            assert (payload, fin, rsv) == (b"a", True, 0)
        case _:
            pytest.fail("no match")


def test_a_frame_has_no_reserved_opcode():
    with pytest.raises(ValueError, match="3 is not a valid Opcode"):
        Frame(3)


def test_repr_of_a_frame_names_the_opcode_and_shortens_the_payload():
    assert repr(Frame(9, b"a", rsv=1)) == "Frame(PING, b'a', fin=True, rsv=1)"
    assert repr(Frame(2, bytes(65))) == f"Frame(BINARY, {bytes(64)!r}...<65>, fin=True, rsv=0)"
    assert repr(Frame(2, bytes(64))) == f"Frame(BINARY, {bytes(64)!r}, fin=True, rsv=0)"


def test_status_codes_have_the_names_of_the_iana_registry_rfc6455_7_4_1():
    assert [int(code) for code in CloseCode] == [*range(1000, 1004), *range(1005, 1016)]
    assert CloseCode(1006).name == "ABNORMAL_CLOSURE"


@pytest.mark.parametrize("size", [10, 2**16, 2**20])
def test_what_was_read_is_not_held(size):
    decoder = FrameDecoder(masked=False)
    data = encode_frame(Opcode.BINARY, bytes(size))
    decoder.feed(data[:1])
    decoder.feed(data[1:])
    assert decoder.next_frame().payload == bytes(size)
    assert decoder.next_frame() is None
    names = [name for name in FrameDecoder.__slots__ if name != "legal"]
    held = [getattr(decoder, name) for name in names if hasattr(decoder, name)]
    assert all(len(value) <= 4 for value in held if isinstance(value, (bytes, bytearray)))


@pytest.mark.parametrize("is_drained", [False, True])
def test_a_buffer_is_let_go_as_soon_as_all_of_it_was_read(is_drained):
    decoder = FrameDecoder(masked=False)
    buffer = bytearray(encode_frame(Opcode.BINARY, b"ab") + b"beyond")
    decoder.read_from(buffer, 4)
    if is_drained:
        assert decoder.drain() == buffer[:4]
    else:
        assert decoder.next_frame() == Frame(BINARY, b"ab")
        assert decoder.next_frame() is None
    buffer.clear()  # which fails while somebody holds a view of it
    decoder.release()
    assert decoder.unread == 0


# A buffer that is borrowed


def test_what_is_not_read_of_a_borrowed_buffer_is_kept():
    for cut, masked in itertools.product([0, 1, 5, 7, 12, 20], [True, False]):
        with case(cut=cut, masked=masked):
            mask = SAMPLE_MASK if masked else None
            data = b"".join(encode_frame(Opcode.BINARY, bytes([i]) * 6, mask=mask) for i in range(4))
            decoder = FrameDecoder(masked=masked)
            buffer = bytearray(64)
            payloads = []
            for part in (data[:cut], data[cut:-1], data[-1:]):
                buffer[: len(part)] = part
                decoder.read_from(buffer, len(part))
                frame = decoder.next_frame()
                if frame is not None:
                    payloads.append(frame.payload)
                decoder.release()
                decoder.release()  # does nothing
                buffer[:] = bytes(64)  # the next one receives into it
            while frame := decoder.next_frame():
                payloads.append(frame.payload)
            assert payloads == [bytes([i]) * 6 for i in range(4)]
            assert decoder.unread == 0


def test_a_borrowed_buffer_is_let_go():
    decoder = FrameDecoder(masked=False)
    buffer = bytearray(encode_frame(Opcode.TEXT, b"Hello"))
    references = sys.getrefcount(buffer)
    decoder.read_from(buffer, len(buffer))
    assert decoder.next_frame().payload == b"Hello"
    decoder.release()
    assert sys.getrefcount(buffer) == references
    assert decoder.next_frame() is None


@pytest.mark.parametrize(
    ("buffer", "count", "error"),
    [
        (b"\x81\x00", 2, TypeError),
        (bytearray(2), 3, ValueError),
        (bytearray(2), -1, ValueError),
        (None, 0, TypeError),
    ],
)
def test_what_cannot_be_borrowed(buffer, count, error):
    decoder = FrameDecoder(masked=False)
    with pytest.raises(error):
        decoder.read_from(buffer, count)
    assert decoder.unread == 0


def test_a_buffer_that_was_not_released_is_kept_when_the_next_one_comes():
    decoder = FrameDecoder(masked=False)
    data = encode_frame(Opcode.BINARY, b"Hello") * 2
    for part in (data[:3], data[3:9], data[9:]):
        decoder.read_from(bytearray(part), len(part))
    assert decoder.next_frame() == decoder.next_frame() == Frame(BINARY, b"Hello")


def test_a_borrowed_buffer_cannot_be_resized():
    decoder = FrameDecoder(masked=False)
    buffer = bytearray(10)
    decoder.read_from(buffer, 2)
    with pytest.raises(BufferError):
        buffer.clear()
    decoder.release()
    buffer.clear()
    assert decoder.unread == 2
