from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.support.cases import case
from tests.support.core import SAMPLE_MASK, Memory
from wsframe import FrameDecoder, _mask_py, masking

BYTES = bytes((i * 7 + i // 256) & 255 for i in range(70000))


def naive(data, key):
    """RFC 6455, section 5.3: transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4)."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


MASKED = naive(BYTES, SAMPLE_MASK)


NAMES = (
    "MessageBuffer",
    "append_frame",
    "apply_mask",
    "forget_keys",
    "new_masking_key",
    "take",
    "unmask",
    "unmask_text",
)


METHODS = ("append", "clear", "is_ascii", "last", "take", "take_text", "unmask")


@pytest.fixture(params=["pure", "compiled"] if masking.compiled else ["pure"])
def functions(request):
    return _mask_py if request.param == "pure" else masking


@pytest.fixture
def apply_mask(functions):
    return functions.apply_mask


def test_the_sample_of_rfc6455_5_7(apply_mask):
    assert apply_mask(b"Hello", SAMPLE_MASK) == b"\x7f\x9f\x4d\x51\x58"
    assert apply_mask(b"\x7f\x9f\x4d\x51\x58", SAMPLE_MASK) == b"Hello"


@pytest.mark.parametrize(
    "lengths",
    [range(2100), range(4080, 4112), range(65520, 65552)],
    ids=["0..2099", "around 4096", "around 65536"],
)
def test_every_length_is_masked_as_byte_by_byte(apply_mask, lengths):
    for length in lengths:
        assert apply_mask(BYTES[:length], SAMPLE_MASK) == MASKED[:length], f"length {length}"


def test_every_byte_of_the_key_counts(apply_mask):
    for length, key in itertools.product(
        [0, 1, 2, 3, 4, 5, 2047, 2048, 2049, 2050, 2051, 2052, 2053],
        [b"\0\0\0\0", b"\0\0\0\1", b"\1\0\0\0", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\0\xff\0\xff"],
    ):
        with case(length=length, key=key):
            assert apply_mask(BYTES[:length], key) == naive(BYTES[:length], key)


def test_every_offset_into_a_buffer_is_masked_alike(apply_mask):
    for length in [*range(20), 63, 64, 65, *range(2040, 2058), 4097]:
        with case(length=length):
            buffer = bytearray(17 + length)
            for offset in range(17):
                buffer[offset : offset + length] = BYTES[:length]
                view = memoryview(buffer)[offset : offset + length]
                assert apply_mask(view, SAMPLE_MASK) == MASKED[:length]
                assert view == BYTES[:length]


class Bytes(bytes):
    pass


BUFFERS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "subclass": Bytes,
    "view": memoryview,
    "writable": lambda data: memoryview(bytearray(data)),
    "read-only": lambda data: memoryview(bytearray(data)).toreadonly(),
    "B": lambda data: array("B", data),
    "I": lambda data: array("I", data),
    "d": lambda data: array("d", data),
    "view of Q": lambda data: memoryview(array("Q", data)),
    "signed": lambda data: memoryview(data).cast("b"),
}


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
def test_every_buffer_is_masked_into_new_bytes(apply_mask, buffer):
    for length in [0, 8, 2048, 2056, 4096]:
        with case(length=length):
            data = buffer(BYTES[:length])
            masked = apply_mask(data, SAMPLE_MASK)
            assert type(masked) is bytes
            assert masked == MASKED[:length]
            assert bytes(memoryview(data)) == BYTES[:length]


def test_a_buffer_of_several_dimensions_is_masked_as_it_lies_in_memory(apply_mask):
    assert apply_mask(memoryview(BYTES[:24]).cast("B", (2, 3, 4)), SAMPLE_MASK) == MASKED[:24]
    assert apply_mask(memoryview(BYTES[:1]).cast("B", ()), SAMPLE_MASK) == MASKED[:1]


def test_a_buffer_that_is_not_contiguous_is_refused(apply_mask):
    for length, step in itertools.product([10, 1000], [2, -1]):
        view = memoryview(BYTES[:length])[::step]
        with case(length=length, step=step), pytest.raises(TypeError, match="data must be contiguous"):
            apply_mask(view, SAMPLE_MASK)


def test_data_that_is_not_bytes_like_is_refused(apply_mask):
    for data in [None, 5, "text", [1, 2], 1.5]:
        with case(data=data), pytest.raises(TypeError, match="bytes-like"):
            apply_mask(data, SAMPLE_MASK)


def test_every_bytes_like_key_is_fine(apply_mask):
    for length, key in itertools.product(
        [5, 700],
        [
            bytearray(SAMPLE_MASK),
            memoryview(SAMPLE_MASK),
            Bytes(SAMPLE_MASK),
            array("B", SAMPLE_MASK),
            memoryview(b"\x3d\x21\xfa\x37")[::-1],
        ],
    ):
        with case(key=(type(key), bytes(key)), length=length):
            assert apply_mask(BYTES[:length], key) == MASKED[:length]


def test_a_key_is_4_bytes_long(apply_mask):
    for key, length in itertools.product(
        [b"", b"\0", b"\0" * 3, b"\0" * 5, b"\0" * 8, bytearray(3), memoryview(b"")], [0, 5, 700]
    ):
        problem = f"masking key must be 4 bytes long, not {len(key)}"
        with case(key=key, length=length), pytest.raises(ValueError, match=problem):
            apply_mask(BYTES[:length], key)


def test_a_key_that_is_not_bytes_like_is_refused(apply_mask):
    for key in [None, 4, "abcd", [1, 2, 3, 4]]:
        with case(key=key), pytest.raises(TypeError, match="bytes-like"):
            apply_mask(b"Hello", key)


# Parts of a buffer


def test_a_part_of_a_buffer_is_unmasked_with_the_key_before_it(functions):
    for start, length, kind in itertools.product(
        [4, 5, 6, 7, 11, 12], [0, 1, 2, 3, 4, 5, 7, 8, 9, 125, 2047, 2048, 2049, 65536], [bytes, bytearray]
    ):
        with case(kind=kind, length=length, start=start):
            before, after = b"\xa5" * (start - 4), b"\x5a" * 9
            buffer = kind(before + SAMPLE_MASK + MASKED[:length] + after)
            part = buffer, start, start + length
            for data, expected in (
                (functions.unmask(*part, None), BYTES[:length]),
                (functions.unmask(*part, SAMPLE_MASK), BYTES[:length]),
                (functions.unmask(*part, b""), MASKED[:length]),
                (functions.take(*part), MASKED[:length]),
            ):
                assert type(data) is bytes
                assert data == expected
            for key in (None, SAMPLE_MASK, b""):
                collector = functions.MessageBuffer()
                collector.append(b"before", 0)
                collector.unmask(*part, key, 5)
                assert collector.size == 6 + length
                assert collector.take() == b"before" + functions.unmask(*part, key)
            assert buffer == before + SAMPLE_MASK + MASKED[:length] + after


TEXTS = [
    "",
    "a",
    "seven 7",
    "eight 8.",
    "nine 9 9.",
    "a" * 2049,
    "\x7f\0",
    "\x80",
    "ü" * 9,
    "a" * 64 + "€",
    "\U0010ffff",
]


def test_a_part_of_a_buffer_is_unmasked_to_text(functions):
    for text, kind in itertools.product(TEXTS, [bytes, bytearray]):
        with case(text=text, kind=kind):
            data = text.encode()
            for key, before, payload in (
                (None, SAMPLE_MASK, naive(data, SAMPLE_MASK)),
                (SAMPLE_MASK, b"none", naive(data, SAMPLE_MASK)),
                (b"", b"none", data),
            ):
                buffer = kind(before + payload + b"\xff")
                unmasked = functions.unmask_text(buffer, 4, 4 + len(data), key)
                assert type(unmasked) is str
                assert unmasked == text
                assert unmasked.isascii() == text.isascii()
                assert buffer == before + payload + b"\xff"


def test_text_that_is_not_utf8_is_refused_wherever_it_is_wrong(functions):
    for byte, position in itertools.product([b"\x80", b"\xc0", b"\xff"], range(17)):
        with case(byte=byte, position=position):
            data = b"a" * position + byte + b"b" * (16 - position)
            with pytest.raises(UnicodeDecodeError):
                functions.unmask_text(data, 0, 17, b"")
            with pytest.raises(UnicodeDecodeError):
                functions.unmask_text(SAMPLE_MASK + naive(data, SAMPLE_MASK), 4, 21, None)


PARTS_OUTSIDE_OF_8 = [
    (4, 9),
    (9, 9),
    (5, 4),
    (-1, 4),
    (4, -1),
    (3, 2**62),
    (-(2**63), 4),
    (2**63 - 1, 2**63 - 1),
]


@pytest.mark.skipif(not masking.compiled, reason="Python's own slices need no check")
def test_nothing_outside_of_a_buffer_is_read():
    for part, buffer in itertools.product(PARTS_OUTSIDE_OF_8, [b"12345678", bytearray(b"12345678")]):
        with case(part=part, buffer=buffer):
            for key in (None, b"", SAMPLE_MASK):
                with pytest.raises(IndexError):
                    masking.unmask(buffer, *part, key)
                with pytest.raises(IndexError):
                    masking.unmask_text(buffer, *part, key)
                with pytest.raises(IndexError):
                    masking.MessageBuffer().unmask(buffer, *part, key, 0)
            with pytest.raises(IndexError):
                masking.take(buffer, *part)


@pytest.mark.skipif(not masking.compiled, reason="Python's own slices need no check")
def test_a_key_begins_inside_of_the_buffer():
    for start in range(4):
        with case(start=start), pytest.raises(IndexError):
            masking.unmask(b"12345678", start, 8, None)


@pytest.mark.skipif(not masking.compiled, reason="Python's own slices need no check")
def test_a_part_of_a_buffer_is_unmasked_with_a_whole_key():
    for key in [b"1", b"123", b"12345"]:
        with case(key=key), pytest.raises(ValueError, match="must be 4 bytes long"):
            masking.unmask(b"12345678", 4, 8, key)


@pytest.mark.skipif(not masking.compiled, reason="Python takes what it can")
def test_a_buffer_is_bytes_or_a_bytearray():
    for buffer in [None, 5, "12345678", memoryview(b"12345678"), array("I", [1, 2])]:
        with case(buffer=buffer):
            with pytest.raises(TypeError, match="buffer must be bytes or bytearray"):
                masking.unmask(buffer, 4, 8, None)
            with pytest.raises(TypeError, match="buffer must be bytes or bytearray"):
                masking.take(buffer, 4, 8)


# Frames


LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 70000]


def test_a_frame_is_appended(functions):
    for masked, first, length in itertools.product([True, False], [0x00, 0x81, 0x82, 0xC1], LENGTHS):
        with case(masked=masked, first=first, length=length):
            output = [b"before"]
            assert functions.append_frame(output, first, BYTES[:length], masked) is None
            header = masking.encode_header(first, length, 0x80 if masked else 0)
            frame = b"".join(output[1:])
            assert frame.startswith(header)
            assert len(frame) == len(header) + 4 * masked + length
            decoder = FrameDecoder(masked=masked)
            decoder.legal = bytes([1]) * 256
            decoder.feed(frame)
            assert decoder.advance()
            assert (decoder.first, decoder.read_payload(), decoder.unread) == (first, BYTES[:length], 0)


def test_text_is_appended_as_utf8(functions):
    for masked, text in itertools.product(
        [True, False], ["", "text", "ü" * 100, "a" * 16383, "a" * 16384, "a" * 70000, "€" * 70000]
    ):
        with case(masked=masked, text=text):
            output = []
            functions.append_frame(output, 0x81, text, masked)
            assert all(type(data) is bytes for data in output)
            decoder = FrameDecoder(masked=masked)
            decoder.feed(b"".join(output))
            assert decoder.next_frame().payload == text.encode()
            assert decoder.unread == 0


def test_text_that_cannot_be_encoded_is_not_appended(functions):
    output = []
    with pytest.raises(UnicodeEncodeError):
        functions.append_frame(output, 0x81, "a\ud800", True)
    assert output == []


@pytest.mark.parametrize(("length", "is_apart"), [(16383, False), (16384, True)])
def test_a_large_payload_that_is_not_masked_is_not_copied(functions, length, is_apart):
    output = []
    payload = BYTES[:length]
    functions.append_frame(output, 0x82, payload, False)
    assert (output[-1] is payload) is is_apart
    assert len(output) == 1 + is_apart


@pytest.mark.skipif(not masking.compiled, reason="Python needs no types")
def test_a_payload_is_bytes_or_text():
    for payload in [None, 5, bytearray(b"bytes"), memoryview(b"bytes")]:
        with case(payload=payload), pytest.raises(TypeError):
            masking.append_frame([], 0x82, payload, False)


# Messages that come in pieces


def test_a_message_is_put_together(functions):
    for more, length, count in itertools.product(
        [0, 1, 300, 2**20, 2**62], [0, 1, 100, 5000], [0, 1, 2, 63, 64, 65, 200]
    ):
        with case(more=more, length=length, count=count):
            collector = functions.MessageBuffer()
            for _ in range(2):  # it can be used again
                pieces = [BYTES[i : i + length] for i in range(count)]
                for i, piece in enumerate(pieces):
                    assert collector.append(piece, more) is None
                    assert collector.size == (i + 1) * length
                    assert collector.last(length) == piece
                    assert collector.is_ascii(length) == piece.isascii()
                message = collector.take()
                assert type(message) is bytes
                assert message == b"".join(pieces)
                assert collector.size == 0
            assert collector.take() == b""


def test_a_text_is_put_together(functions):
    collector = functions.MessageBuffer()
    for text in ("", "a", "abc ü €", "a" * 5000):
        for byte in text.encode():
            collector.append(bytes([byte]), 1)
        assert collector.take_text() == text
        assert collector.size == 0
    collector.append(b"\x80", 0)
    with pytest.raises(UnicodeDecodeError):
        collector.take_text()


def test_a_message_that_was_taken_does_not_change(functions):
    collector = functions.MessageBuffer()
    collector.append(b"abc", 3)
    collector.append(b"def", 0)
    message = collector.take()
    collector.append(b"xyz", 3)
    assert message == b"abcdef"


def test_what_is_cleared_is_forgotten(functions):
    collector = functions.MessageBuffer()
    collector.append(b"abc", 0)
    collector.clear()
    collector.append(b"def", 0)
    assert collector.take() == b"def"


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_what_is_announced_takes_no_memory_until_it_comes(functions, size):
    collector = functions.MessageBuffer()
    with Memory() as memory:
        collector.append(bytes(size), 2**40)
    assert memory.peak < 18 * size + 70_000
    assert collector.take() == bytes(size)


@pytest.mark.skipif(not masking.compiled, reason="Python needs no types")
def test_a_piece_is_bytes():
    for data in [None, "text", bytearray(b"bytes"), memoryview(b"bytes")]:
        with case(data=data), pytest.raises(TypeError):
            masking.MessageBuffer().append(data, 0)


# Which ones are used


def execute(module):
    """Execute a module once more, as another one of the package."""
    spec = importlib.util.spec_from_file_location(f"wsframe.another{module.__name__[8:]}", module.__file__)
    another = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(another)
    return another


def test_the_compiled_functions_are_used_where_there_are_any(monkeypatch):
    compiled = SimpleNamespace(**{name: object() for name in NAMES})
    monkeypatch.setitem(sys.modules, "wsframe._mask", compiled)
    module = execute(masking)
    assert module.compiled
    for name in NAMES:
        assert getattr(module, name) is getattr(compiled, name)


def test_the_python_functions_are_used_elsewhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "wsframe._mask", None)
    module = execute(masking)
    assert not module.compiled
    for name in NAMES:
        assert getattr(module, name) is getattr(_mask_py, name)


def test_both_builds_have_the_same_docstrings():
    for name in NAMES:
        ours, pythons = getattr(masking, name), getattr(_mask_py, name)
        assert ours.__doc__ == pythons.__doc__
        for method in METHODS if name == "MessageBuffer" else ():
            assert getattr(ours, method).__doc__ == getattr(pythons, method).__doc__


def test_no_fork_is_needed(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    assert len(execute(_mask_py).new_masking_key()) == 4


@pytest.fixture
def entropy(monkeypatch, functions):
    """Let os.urandom count 1, 2, 3, ... in words of 4 bytes; return how many bytes were asked for."""
    asked = []
    words = itertools.count(1)

    def urandom(size):
        asked.append(size)
        return b"".join(next(words).to_bytes(4, "big") for _ in range(size // 4))

    functions.forget_keys()
    monkeypatch.setattr(os, "urandom", urandom)
    yield asked
    functions.forget_keys()


def test_masking_keys_are_all_the_entropy_each_once_rfc6455_5_3(functions, entropy):
    keys = [functions.new_masking_key() for _ in range(1024)]
    assert entropy == [4096]
    keys += [functions.new_masking_key() for _ in range(1024)]
    assert entropy == [4096, 4096]
    assert sorted(keys) == [i.to_bytes(4, "big") for i in range(1, 2049)]


def test_frames_and_keys_share_the_entropy(functions, entropy):
    output = []
    functions.append_frame(output, 0x82, bytes(4), True)
    key = functions.new_masking_key()
    assert entropy == [4096]
    assert len({output[0][2:6], output[0][6:], key}) == 2  # zeros show the key


@pytest.mark.skipif(not masking.compiled, reason="Python's own slices need no check")
@pytest.mark.parametrize(("data", "error"), [(b"", ValueError), (b"abc", ValueError), (None, TypeError)])
def test_nothing_but_entropy_is_a_key(monkeypatch, data, error):
    masking.forget_keys()
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: data)
        for _ in range(2):
            with pytest.raises(error):
                masking.new_masking_key()
    assert len(masking.new_masking_key()) == 4


def test_threads_never_get_the_same_key(functions, entropy):
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [functions.new_masking_key() for _ in range(2000)], range(8)))
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys) == 16000
    assert {len(key) for key in keys} == {4}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_gets_other_keys(functions):
    functions.forget_keys()
    functions.new_masking_key()  # and 1023 are left in the pool
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"".join(functions.new_masking_key() for _ in range(16)))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 64
    assert theirs != b"".join(functions.new_masking_key() for _ in range(16))
