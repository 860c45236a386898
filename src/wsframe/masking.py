"""RFC 6455, section 5.3: client-to-server masking, in Python.

    j                   = i MOD 4
    transformed-octet-i = original-octet-i XOR masking-key-octet-j

``apply_mask`` is the one function that exists twice: here, and in C in ``_mask.pyx``, which is used when
it was compiled. Masking keys are made here as well.
"""

from __future__ import annotations

import os
from functools import cache

__all__ = ["apply_mask", "compiled", "new_masking_key"]

# Up to this many octets one XOR of two big integers is faster than four strided translations.
_LONGEST_INTEGER = 2048


@cache
def _xor_table(octet: int) -> bytes:
    return bytes(octet ^ other for other in range(256))


def apply_mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Mask or unmask octets: the two are the same (RFC 6455, section 5.3).

    Args:
        data: any contiguous bytes-like object; it is not changed.
        key: the masking key, 4 octets.

    Returns:
        As many octets as ``data`` has.

    Raises:
        TypeError: an argument is not bytes-like, or ``data`` is not contiguous.
        ValueError: the key is not 4 octets long.
    """
    if type(data) is not bytes and type(data) is not bytearray:
        view = memoryview(data)
        if not view.c_contiguous:
            raise TypeError("data must be contiguous")
        data = view.tobytes()
    if type(key) is not bytes:
        key = bytes(memoryview(key))
    if len(key) != 4:
        raise ValueError(f"masking key must be 4 octets long, not {len(key)}")
    length = len(data)
    if length <= _LONGEST_INTEGER:
        mask = (key * ((length >> 2) + 1))[:length]
        return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")
    octets = bytearray(data)
    for i in range(4):
        octets[i::4] = octets[i::4].translate(_xor_table(key[i]))
    return bytes(octets)


pure_apply_mask = apply_mask
try:
    from ._mask import apply_mask  # type: ignore[no-redef]
except ImportError:
    compiled = False
else:
    compiled = True


# Section 5.3: "The masking key needs to be unpredictable; thus, the masking key MUST be derived from a
# strong source of entropy". The pool costs a quarter of a system call for each key. Popping from a list
# is atomic, so threads need no lock; a fork must not share what is left.
_keys: list[bytes] = []
_POOL = 4096
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keys.clear)


def new_masking_key() -> bytes:
    """Return a fresh masking key: 4 octets from ``os.urandom`` (RFC 6455, section 5.3)."""
    try:
        return _keys.pop()
    except IndexError:
        octets = os.urandom(_POOL)
        _keys.extend([octets[i : i + 4] for i in range(4, _POOL, 4)])
        return octets[:4]
