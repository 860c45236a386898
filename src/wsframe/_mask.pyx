# cython: language_level=3, boundscheck=True, wraparound=False, freethreading_compatible=True
"""RFC 6455, section 5.3: client-to-server masking, in C."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef void _xor(uint8_t* target, const uint8_t* source, Py_ssize_t length, const uint8_t* key) noexcept nogil:
    # memcpy of 8 octets is one unaligned load or store, and gcc -O3 vectorises the loop.
    cdef uint32_t half
    cdef uint64_t mask, word
    cdef Py_ssize_t i = 0
    memcpy(&half, key, 4)
    mask = (<uint64_t> half << 32) | half
    while i + 8 <= length:
        memcpy(&word, source + i, 8)
        word ^= mask
        memcpy(target + i, &word, 8)
        i += 8
    while i < length:
        target[i] = source[i] ^ key[i & 3]
        i += 1


def apply_mask(data, key):
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
    cdef Py_buffer view
    cdef bytes result
    if not PyBytes_CheckExact(key):
        key = bytes(memoryview(key))
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError(f"masking key must be 4 octets long, not {len(key)}")
    if PyBytes_CheckExact(data):
        result = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(data))
        _xor(
            <uint8_t*> PyBytes_AS_STRING(result), <const uint8_t*> PyBytes_AS_STRING(data),
            PyBytes_GET_SIZE(data), <const uint8_t*> PyBytes_AS_STRING(key),
        )
        return result
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except BufferError:
        raise TypeError("data must be contiguous") from None
    try:
        # view.len counts octets, whatever the size of the items.
        result = PyBytes_FromStringAndSize(NULL, view.len)
        _xor(
            <uint8_t*> PyBytes_AS_STRING(result), <const uint8_t*> view.buf,
            view.len, <const uint8_t*> PyBytes_AS_STRING(key),
        )
    finally:
        PyBuffer_Release(&view)
    return result
