from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from wsframe import masking
from wsframe.masking import new_masking_key

KEY = b"\x37\xfa\x21\x3d"
OCTETS = bytes((i * 7 + i // 256) & 255 for i in range(70000))


def naive(data, key):
    """RFC 6455, section 5.3: transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4)."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


MASKED = naive(OCTETS, KEY)


@pytest.fixture(params=["pure", "compiled"] if masking.compiled else ["pure"])
def apply_mask(request):
    return masking.pure_apply_mask if request.param == "pure" else masking.apply_mask


def test_the_sample_of_rfc6455_5_7(apply_mask):
    assert apply_mask(b"Hello", KEY) == b"\x7f\x9f\x4d\x51\x58"
    assert apply_mask(b"\x7f\x9f\x4d\x51\x58", KEY) == b"Hello"


@pytest.mark.parametrize(
    "lengths",
    [range(2100), range(4080, 4112), range(65520, 65552)],
    ids=["0..2099", "around 4096", "around 65536"],
)
def test_every_length_is_masked_as_octet_by_octet(apply_mask, lengths):
    for length in lengths:
        assert apply_mask(OCTETS[:length], KEY) == MASKED[:length]


@pytest.mark.parametrize(
    "key", [b"\0\0\0\0", b"\0\0\0\1", b"\1\0\0\0", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\0\xff\0\xff"]
)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 2047, 2048, 2049, 2050, 2051, 2052, 2053])
def test_every_octet_of_the_key_counts(apply_mask, key, length):
    assert apply_mask(OCTETS[:length], key) == naive(OCTETS[:length], key)


@pytest.mark.parametrize("length", [*range(20), 63, 64, 65, *range(2040, 2058), 4097])
def test_every_offset_into_a_buffer_is_masked_alike(apply_mask, length):
    buffer = bytearray(17 + length)
    for offset in range(17):
        buffer[offset : offset + length] = OCTETS[:length]
        view = memoryview(buffer)[offset : offset + length]
        assert apply_mask(view, KEY) == MASKED[:length]
        assert view == OCTETS[:length]


class Octets(bytes):
    pass


@pytest.mark.parametrize("length", [0, 8, 2048, 2056, 4096])
@pytest.mark.parametrize(
    "buffer",
    [
        bytes,
        bytearray,
        Octets,
        memoryview,
        lambda octets: memoryview(bytearray(octets)),
        lambda octets: memoryview(bytearray(octets)).toreadonly(),
        lambda octets: array("B", octets),
        lambda octets: array("I", octets),
        lambda octets: array("d", octets),
        lambda octets: memoryview(array("Q", octets)),
        lambda octets: memoryview(octets).cast("b"),
    ],
    ids=[
        "bytes",
        "bytearray",
        "subclass",
        "view",
        "writable",
        "read-only",
        "B",
        "I",
        "d",
        "view of Q",
        "signed",
    ],
)
def test_every_buffer_is_masked_into_new_bytes(apply_mask, buffer, length):
    data = buffer(OCTETS[:length])
    masked = apply_mask(data, KEY)
    assert type(masked) is bytes
    assert masked == MASKED[:length]
    assert bytes(memoryview(data)) == OCTETS[:length]


def test_a_buffer_of_several_dimensions_is_masked_as_it_lies_in_memory(apply_mask):
    assert apply_mask(memoryview(OCTETS[:24]).cast("B", (2, 3, 4)), KEY) == MASKED[:24]
    assert apply_mask(memoryview(OCTETS[:1]).cast("B", ()), KEY) == MASKED[:1]


@pytest.mark.parametrize("step", [2, -1])
@pytest.mark.parametrize("length", [10, 1000])
def test_a_buffer_that_is_not_contiguous_is_refused(apply_mask, length, step):
    with pytest.raises(TypeError, match="data must be contiguous"):
        apply_mask(memoryview(OCTETS[:length])[::step], KEY)


@pytest.mark.parametrize("data", [None, 5, "text", [1, 2], 1.5])
def test_data_that_is_not_bytes_like_is_refused(apply_mask, data):
    with pytest.raises(TypeError, match="bytes-like"):
        apply_mask(data, KEY)


@pytest.mark.parametrize(
    "key",
    [bytearray(KEY), memoryview(KEY), Octets(KEY), array("B", KEY), memoryview(b"\x3d\x21\xfa\x37")[::-1]],
)
@pytest.mark.parametrize("length", [5, 700])
def test_every_bytes_like_key_is_fine(apply_mask, key, length):
    assert apply_mask(OCTETS[:length], key) == MASKED[:length]


@pytest.mark.parametrize("length", [0, 5, 700])
@pytest.mark.parametrize("key", [b"", b"\0", b"\0" * 3, b"\0" * 5, b"\0" * 8, bytearray(3), memoryview(b"")])
def test_a_key_is_4_octets_long(apply_mask, key, length):
    with pytest.raises(ValueError, match=f"masking key must be 4 octets long, not {len(key)}"):
        apply_mask(OCTETS[:length], key)


@pytest.mark.parametrize("key", [None, 4, "abcd", [1, 2, 3, 4]])
def test_a_key_that_is_not_bytes_like_is_refused(apply_mask, key):
    with pytest.raises(TypeError, match="bytes-like"):
        apply_mask(b"Hello", key)


def load_masking():
    """Execute masking.py once more, as another module."""
    spec = importlib.util.spec_from_file_location("wsframe.another_masking", masking.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_compiled_function_is_used_where_there_is_one(monkeypatch):
    names = ("append_frame", "apply_mask", "new_masking_key", "take", "unmask")
    compiled = SimpleNamespace(**{name: object() for name in names})
    monkeypatch.setitem(sys.modules, "wsframe._mask", compiled)
    module = load_masking()
    assert module.compiled
    for name in names:
        assert getattr(module, name) is getattr(compiled, name)
    assert module.pure_apply_mask(b"Hello", KEY) == b"\x7f\x9f\x4d\x51\x58"


def test_the_python_function_is_used_elsewhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "wsframe._mask", None)
    module = load_masking()
    assert not module.compiled
    assert module.apply_mask is module.pure_apply_mask


def test_no_fork_is_needed(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    assert len(load_masking().new_masking_key()) == 4


@pytest.fixture
def entropy(monkeypatch):
    """Let os.urandom count 1, 2, 3, ... in words of 4 octets; return how many octets were asked for."""
    asked = []
    words = itertools.count(1)

    def urandom(size):
        asked.append(size)
        return b"".join(next(words).to_bytes(4, "big") for _ in range(size // 4))

    masking._keys.clear()
    monkeypatch.setattr(os, "urandom", urandom)
    yield asked
    masking._keys.clear()


def test_masking_keys_are_all_the_entropy_each_once_rfc6455_5_3(entropy):
    keys = [new_masking_key() for _ in range(1024)]
    assert entropy == [4096]
    keys += [new_masking_key() for _ in range(1024)]
    assert entropy == [4096, 4096]
    assert sorted(keys) == [i.to_bytes(4, "big") for i in range(1, 2049)]


def test_threads_never_get_the_same_key(entropy):
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_masking_key() for _ in range(2000)], range(8)))
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys) == 16000
    assert {len(key) for key in keys} == {4}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_gets_other_keys():
    masking._keys.clear()
    new_masking_key()  # and 1023 are left in the pool
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"".join(new_masking_key() for _ in range(16)))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 64
    assert theirs != b"".join(new_masking_key() for _ in range(16))
