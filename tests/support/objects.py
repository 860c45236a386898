"""Strange objects that a program may give to ``send``: each is sent as what it holds, or refused."""

from __future__ import annotations

import array
import ctypes
import zlib
from types import SimpleNamespace
from typing import Any, NoReturn


def _fail(*_: object) -> NoReturn:
    raise KeyError("of its own")


class StrangeText(str):
    """Text whose methods all fail."""

    __slots__ = ()
    __len__ = __getitem__ = __iter__ = __str__ = encode = isascii = _fail


class StrangeBytes(bytes):
    """Bytes whose methods all fail."""

    __slots__ = ()
    __len__ = __getitem__ = __iter__ = __bytes__ = _fail


class FailingIterable:
    __iter__ = _fail


class FailingClass:
    __class__ = property(_fail)


def _released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def sendable() -> list[tuple[str, Any, str | bytes]]:
    """Return objects with their names and what they hold."""
    numbers = memoryview(array.array("H", range(6)))
    return [
        ("a ctypes scalar", ctypes.c_int16(0x0101), b"\1\1"),
        ("a ctypes array", (ctypes.c_char * 3)(*b"abc"), b"abc"),
        ("no dimension", memoryview(ctypes.c_int16(0x0202)), b"\2\2"),
        ("two dimensions", memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
        ("items of two bytes", numbers, numbers.tobytes()),
        ("an array of items", array.array("H", [1]), array.array("H", [1]).tobytes()),
        ("no items", memoryview(b"").cast("B"), b""),
        ("strange text", StrangeText("text"), "text"),
        ("strange bytes", StrangeBytes(b"bytes"), b"bytes"),
    ]


def unsendable() -> list[tuple[str, Any, type[Exception]]]:
    """Return objects with their names and what sending them raises, alone and as a fragment."""
    return [
        ("None", None, TypeError),
        ("a number", 5, TypeError),
        ("a mapping", {"a": "b"}, TypeError),
        ("every other byte", memoryview(b"abcdef")[::2], TypeError),
        ("a view that was released", _released(), ValueError),
        ("a class that fails", FailingClass(), KeyError),
    ]


class FullMemory:
    """A module like zlib whose compressors take what they are given, and then fail when told to."""

    __name__ = "zlib of full memory"
    DEFLATED = zlib.DEFLATED
    Z_DEFAULT_COMPRESSION = zlib.Z_DEFAULT_COMPRESSION
    Z_SYNC_FLUSH = zlib.Z_SYNC_FLUSH
    error = zlib.error
    decompressobj = zlib.decompressobj

    def __init__(self) -> None:
        self.is_full = False

    def compressobj(self, *args: Any) -> SimpleNamespace:
        compressor = zlib.compressobj(*args)

        def flush(mode: int) -> bytes:
            if self.is_full:
                raise MemoryError
            return compressor.flush(mode)

        return SimpleNamespace(compress=compressor.compress, flush=flush)
