"""What masking.py offers, in Python; ``_mask.pyx`` has the same in C."""

from __future__ import annotations

import os
from functools import cache, lru_cache

# A payload of this size or more goes out apart from its header, so that it is not copied.
_LARGE = 16384
_MAX_PIECES = 64  # of a message; then they are put together, for small ones take more memory than they hold

# Up to this many bytes one XOR of two big integers is faster than four strided translations.
_LONGEST_INTEGER = 2048
_number = int.from_bytes


class _Repunits(dict[int, int]):
    """Numbers that a masking key is multiplied by to be as long as a payload: 1, 1 << 32 | 1, and so on.

    There is one for each length, and four lengths share one: at most 0.5 MiB of them.
    """

    def __missing__(self, length: int) -> int:
        words = (length + 3) >> 2
        repunit = _number(b"\1\0\0\0" * words, "little")
        for each in range(max(0, 4 * words - 3), 4 * words + 1):
            self[each] = repunit
        return repunit


_repunits = _Repunits()


@cache
def _xor_table(byte: int) -> bytes:
    return bytes(byte ^ other for other in range(256))


def apply_mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Mask or unmask bytes: the two are the same (RFC 6455, section 5.3).

    Args:
        data: any contiguous bytes-like object; it is not changed.
        key: the masking key, 4 bytes.

    Returns:
        As many bytes as ``data`` has.

    Raises:
        TypeError: an argument is not bytes-like, or ``data`` is not contiguous.
        ValueError: the key is not 4 bytes long.
    """
    if type(data) is not bytes and type(data) is not bytearray:
        view = memoryview(data)
        if not view.c_contiguous:
            raise TypeError("data must be contiguous")
        data = view.tobytes()
    if type(key) is not bytes:
        key = bytes(memoryview(key))
    if len(key) != 4:
        raise ValueError(f"masking key must be 4 bytes long, not {len(key)}")
    length = len(data)
    if length <= _LONGEST_INTEGER:
        number = _number(data, "little") ^ _number(key, "little") * _repunits[length]
        if length & 3:
            return number.to_bytes((length | 3) + 1, "little")[:length]
        return number.to_bytes(length, "little")
    raw = bytearray(data)
    for i in range(4):
        raw[i::4] = raw[i::4].translate(_xor_table(key[i]))
    return bytes(raw)


def take(buffer: bytes | bytearray, start: int, stop: int) -> bytes:
    """Return some bytes of a buffer.

    Args:
        buffer: ``bytes`` or a ``bytearray``.
        start: where they begin.
        stop: where they end.
    """
    return bytes(memoryview(buffer)[start:stop])


def unmask(buffer: bytes | bytearray, start: int, stop: int, key: bytes | None) -> bytes:
    """Return some bytes of a buffer, unmasked (RFC 6455, section 5.2).

    Args:
        buffer: ``bytes`` or a ``bytearray``.
        start: where they begin.
        stop: where they end.
        key: the masking key; None: the 4 bytes before ``start``; ``b""``: they are not masked.
    """
    if key == b"":
        return bytes(memoryview(buffer)[start:stop])
    return apply_mask(buffer[start:stop], bytes(buffer[start - 4 : start]) if key is None else key)


def unmask_text(buffer: bytes | bytearray, start: int, stop: int, key: bytes | None) -> str:
    """Return what ``unmask`` does, as text.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return unmask(buffer, start, stop, key).decode("utf-8")


@lru_cache(1024)
def encode_header(first: int, length: int, mask_bit: int) -> bytes:
    """Return the header of a frame, up to its masking key (RFC 6455, section 5.2).

    Args:
        first: the first byte: FIN, RSV1-3 and the opcode.
        length: the length of the payload, in bytes.
        mask_bit: 0x80, or 0 for a frame without a masking key.
    """
    # "the minimal number of bytes MUST be used to encode the length"
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return bytes((first, mask_bit | 126, length >> 8, length & 255))
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")


def append_frame(output: list[bytes], first: int, payload: str | bytes, masked: bool) -> None:
    """Append the bytes of a frame to a list, in one or two pieces (RFC 6455, section 5.2).

    Args:
        output: the list.
        first: the first byte: FIN, RSV1-3 and the opcode.
        payload: the payload; text goes out as UTF-8.
        masked: whether to mask it, with a fresh key.

    Raises:
        UnicodeEncodeError: the text contains a lone surrogate.
    """
    if isinstance(payload, str):
        payload = payload.encode("utf-8")
    length = len(payload)
    if masked:
        key = new_masking_key()
        header = encode_header(first, length, 0x80) + key
        payload = apply_mask(payload, key)
    else:
        header = encode_header(first, length, 0)
    if length < _LARGE:
        output.append(header + payload)
    else:
        output += (header, payload)


class MessageBuffer:
    """The message that its pieces make, one after the other.

    Attributes:
        size: how many bytes it holds.
    """

    __slots__ = ("_bytes", "_pieces", "size")

    def __init__(self) -> None:
        self.size = 0
        self._bytes = bytearray()
        self._pieces: list[bytes] = []  # what comes after that

    def append(self, data: bytes, more: int) -> None:  # noqa: ARG002
        """Take the next piece.

        Args:
            data: the piece.
            more: how many bytes the peer says will follow in this frame. It need not keep to that.
        """
        if len(self._pieces) == _MAX_PIECES:
            self._bytes += b"".join(self._pieces)
            self._pieces.clear()
        self.size += len(data)
        self._pieces.append(data)

    def unmask(self, buffer: bytes | bytearray, start: int, stop: int, key: bytes | None, more: int) -> None:
        """Take the next piece from a buffer, and unmask it.

        Args:
            buffer: as for the function ``unmask``.
            start: the same.
            stop: the same.
            key: the same.
            more: as for ``append``.
        """
        self.append(unmask(buffer, start, stop, key), more)

    def last(self, size: int) -> bytes:
        """Return the last piece.

        Args:
            size: its length, in bytes.
        """
        return self._pieces[-1] if size else b""

    def is_ascii(self, size: int) -> bool:
        """Tell whether the last piece is ASCII.

        Args:
            size: its length, in bytes.
        """
        return self.last(size).isascii()

    def take(self) -> bytes:
        """Return what came, and forget it."""
        data = b"".join(self._pieces)
        if self._bytes:
            self._bytes += data
            data = bytes(self._bytes)
        self.clear()
        return data

    def take_text(self) -> str:
        """Return what came as text, and forget it.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        return self.take().decode("utf-8")

    def clear(self) -> None:
        """Forget what came."""
        self.size = 0
        self._bytes = bytearray()
        self._pieces.clear()


# Section 5.3: "The masking key needs to be unpredictable; thus, the masking key MUST be derived from a
# strong source of entropy". The pool costs a quarter of a system call for each key. Popping from a list
# is atomic, so threads need no lock; a fork must not share what is left.
_keys: list[bytes] = []
_POOL = 4096


def forget_keys() -> None:
    """Forget the masking keys that are left in the pool."""
    _keys.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_keys)


def new_masking_key() -> bytes:
    """Return a fresh masking key: 4 bytes from ``os.urandom`` (RFC 6455, section 5.3)."""
    try:
        return _keys.pop()
    except IndexError:
        data = os.urandom(_POOL)
        _keys.extend([data[i : i + 4] for i in range(4, _POOL, 4)])
        return data[:4]
