# cython: language_level=3, boundscheck=True, wraparound=False, freethreading_compatible=True
"""RFC 6455, sections 5.2 and 5.3, in C: what touches every byte of a payload."""

import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    str PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    bint PyUnicode_CheckExact(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bytes PyUnicode_AsUTF8String(object text)
    void* PyUnicode_DATA(object text)


# As _mask_py.py has it: a payload of this size or more goes out apart from its header.
cdef enum:
    LARGE = 16384


cdef void _xor(uint8_t* target, const uint8_t* source, Py_ssize_t length, const uint8_t* key) noexcept nogil:
    # memcpy of 8 bytes is one unaligned load or store, and gcc -O3 makes vectors of four of them. With one
    # word in each round, the loop takes twice as long where it crosses a cache line of the code.
    cdef uint32_t half
    cdef uint64_t mask, a, b, c, d
    cdef Py_ssize_t i = 0
    memcpy(&half, key, 4)
    mask = (<uint64_t> half << 32) | half
    while i + 32 <= length:
        memcpy(&a, source + i, 8)
        memcpy(&b, source + i + 8, 8)
        memcpy(&c, source + i + 16, 8)
        memcpy(&d, source + i + 24, 8)
        a ^= mask
        b ^= mask
        c ^= mask
        d ^= mask
        memcpy(target + i, &a, 8)
        memcpy(target + i + 8, &b, 8)
        memcpy(target + i + 16, &c, 8)
        memcpy(target + i + 24, &d, 8)
        i += 32
    while i + 8 <= length:
        memcpy(&a, source + i, 8)
        a ^= mask
        memcpy(target + i, &a, 8)
        i += 8
    while i < length:
        target[i] = source[i] ^ key[i & 3]
        i += 1


def apply_mask(data, key):
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
    cdef Py_buffer view
    cdef bytes result
    if not PyBytes_CheckExact(key):
        key = bytes(memoryview(key))
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError(f"masking key must be 4 bytes long, not {len(key)}")
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
        # view.len counts bytes, whatever the size of the items.
        result = PyBytes_FromStringAndSize(NULL, view.len)
        _xor(
            <uint8_t*> PyBytes_AS_STRING(result), <const uint8_t*> view.buf,
            view.len, <const uint8_t*> PyBytes_AS_STRING(key),
        )
    finally:
        PyBuffer_Release(&view)
    return result


cdef bint _is_ascii(const uint8_t* data, Py_ssize_t length) noexcept nogil:
    cdef uint64_t word, seen = 0
    cdef uint8_t last = 0
    cdef Py_ssize_t i = 0
    while i + 8 <= length:
        memcpy(&word, data + i, 8)
        seen |= word
        i += 8
    while i < length:
        last |= data[i]
        i += 1
    return seen & 0x8080808080808080ULL == 0 and last < 0x80


cdef inline const uint8_t* _pointer(object buffer, Py_ssize_t start, Py_ssize_t stop) except NULL:
    """Return where the bytes of ``bytes`` or a ``bytearray`` begin, if it has as many as will be read."""
    cdef Py_ssize_t size
    cdef const uint8_t* data
    if PyBytes_CheckExact(buffer):
        data, size = <const uint8_t*> PyBytes_AS_STRING(buffer), PyBytes_GET_SIZE(buffer)
    elif PyByteArray_CheckExact(buffer):
        data, size = <const uint8_t*> PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer)
    else:
        raise TypeError(f"buffer must be bytes or bytearray, not {type(buffer).__name__}")
    if not 0 <= start <= stop <= size:
        raise IndexError("slice is out of range")
    return data


cpdef bytes take(object buffer, Py_ssize_t start, Py_ssize_t stop):
    """Return some bytes of a buffer.

    Args:
        buffer: ``bytes`` or a ``bytearray``.
        start: where they begin.
        stop: where they end.
    """
    return PyBytes_FromStringAndSize(<const char*> _pointer(buffer, start, stop) + start, stop - start)


cdef inline const uint8_t* _masked(object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key) except NULL:
    """Return where the bytes that ``_unmask`` reads begin, if they and the key are there."""
    if key is None:
        if not 4 <= start <= stop:
            raise IndexError("slice is out of range")
        return _pointer(buffer, start - 4, stop) + start
    if PyBytes_GET_SIZE(key) != 0 and PyBytes_GET_SIZE(key) != 4:
        raise ValueError(f"masking key must be 4 bytes long, not {len(key)}")
    return _pointer(buffer, start, stop) + start


cdef inline void _unmask(void* target, const uint8_t* source, Py_ssize_t length, bytes key) noexcept:
    if key is None:
        _xor(<uint8_t*> target, source, length, source - 4)
    elif PyBytes_GET_SIZE(key) == 0:
        memcpy(target, source, length)
    else:
        _xor(<uint8_t*> target, source, length, <const uint8_t*> PyBytes_AS_STRING(key))


cpdef bytes unmask(object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key):
    """Return some bytes of a buffer, unmasked (RFC 6455, section 5.2).

    Args:
        buffer: ``bytes`` or a ``bytearray``.
        start: where they begin.
        stop: where they end.
        key: the masking key; None: the 4 bytes before ``start``; ``b""``: they are not masked.
    """
    cdef const uint8_t* source = _masked(buffer, start, stop, key)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, stop - start)
    _unmask(PyBytes_AS_STRING(result), source, stop - start, key)
    return result


cpdef str unmask_text(object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key):
    """Return what ``unmask`` does, as text.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    cdef const uint8_t* source = _masked(buffer, start, stop, key)
    cdef Py_ssize_t length = stop - start
    if length == 0:
        return ""
    # Most text is ASCII, and is written where it stays. Nobody else sees it before that is known.
    cdef str text = PyUnicode_New(length, 127)
    cdef char* data = <char*> PyUnicode_DATA(text)
    _unmask(data, source, length, key)
    if _is_ascii(<const uint8_t*> data, length):
        return text
    return PyUnicode_DecodeUTF8(data, length, NULL)


cdef inline Py_ssize_t _header_size(Py_ssize_t length) noexcept nogil:
    return 2 if length < 126 else 4 if length < 65536 else 10


cdef void _write_header(uint8_t* target, int first, Py_ssize_t length, int mask_bit) noexcept nogil:
    cdef int i
    target[0] = <uint8_t> first
    # "the minimal number of bytes MUST be used to encode the length"
    if length < 126:
        target[1] = <uint8_t> (mask_bit | length)
    elif length < 65536:
        target[1] = <uint8_t> (mask_bit | 126)
        target[2] = <uint8_t> (length >> 8)
        target[3] = <uint8_t> (length & 255)
    else:
        target[1] = <uint8_t> (mask_bit | 127)
        for i in range(8):
            target[2 + i] = <uint8_t> ((<uint64_t> length >> (56 - 8 * i)) & 255)


cpdef append_frame(list output, int first, object payload, bint masked):
    """Append the bytes of a frame to a list, in one or two pieces (RFC 6455, section 5.2).

    Args:
        output: the list.
        first: the first byte: FIN, RSV1-3 and the opcode.
        payload: the payload; text goes out as UTF-8.
        masked: whether to mask it, with a fresh key.

    Raises:
        UnicodeEncodeError: the text contains a lone surrogate.
    """
    cdef Py_ssize_t length, size
    cdef const uint8_t* data
    if PyUnicode_CheckExact(payload):
        # ASCII is UTF-8 as it is.
        if not PyUnicode_IS_COMPACT_ASCII(payload) or not masked and PyUnicode_GET_LENGTH(payload) >= LARGE:
            payload = PyUnicode_AsUTF8String(payload)
    if PyBytes_CheckExact(payload):
        data, length = <const uint8_t*> PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload)
    elif PyUnicode_CheckExact(payload):
        data, length = <const uint8_t*> PyUnicode_DATA(payload), PyUnicode_GET_LENGTH(payload)
    else:
        raise TypeError(f"payload must be bytes or str, not {type(payload).__name__}")
    size = _header_size(length)
    cdef bytes frame
    cdef uint8_t* target
    cdef uint32_t key
    if masked:
        key = _pool.next_key()
        frame = PyBytes_FromStringAndSize(NULL, size + 4 + length)
        target = <uint8_t*> PyBytes_AS_STRING(frame)
        _write_header(target, first, length, 0x80)
        memcpy(target + size, &key, 4)
        _xor(target + size + 4, data, length, target + size)
    elif length < LARGE:
        frame = PyBytes_FromStringAndSize(NULL, size + length)
        target = <uint8_t*> PyBytes_AS_STRING(frame)
        _write_header(target, first, length, 0)
        memcpy(target + size, data, length)
    else:
        frame = PyBytes_FromStringAndSize(NULL, size)
        _write_header(<uint8_t*> PyBytes_AS_STRING(frame), first, length, 0)
        output.append(frame)
        frame = payload
    output.append(frame)


@cython.final
cdef class MessageBuffer:
    """The message that its pieces make, one after the other.

    Attributes:
        size: how many bytes it holds.
    """

    def __cinit__(self):
        self.size = 0
        self._bytes = b""

    cdef char* _room_for(self, Py_ssize_t length, long long more) except NULL:
        """Return where the next piece goes. Nobody else has seen these bytes yet."""
        cdef Py_ssize_t size = self.size + length
        cdef Py_ssize_t room
        cdef bytes grown
        if size > PyBytes_GET_SIZE(self._bytes):
            # Room for all that is announced, so that it is written where it stays: but not for much more than
            # has come, because it may never come.
            room = max(16 * size, 65536) if more > 0 else size + size // 4 + 256
            if 0 < more < room - size:
                room = size + <Py_ssize_t> more
            grown = PyBytes_FromStringAndSize(NULL, room)
            memcpy(PyBytes_AS_STRING(grown), PyBytes_AS_STRING(self._bytes), self.size)
            self._bytes = grown
        return PyBytes_AS_STRING(self._bytes) + self.size

    cpdef append(self, bytes data, long long more):
        """Take the next piece.

        Args:
            data: the piece.
            more: how many bytes the peer says will follow in this frame. It need not keep to that.
        """
        if data is None:
            raise TypeError("data must be bytes, not None")
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        memcpy(self._room_for(length, more), PyBytes_AS_STRING(data), length)
        self.size += length

    cpdef unmask(self, object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key, long long more):
        """Take the next piece from a buffer, and unmask it.

        Args:
            buffer: as for the function ``unmask``.
            start: the same.
            stop: the same.
            key: the same.
            more: as for ``append``.
        """
        cdef const uint8_t* source = _masked(buffer, start, stop, key)
        _unmask(self._room_for(stop - start, more), source, stop - start, key)
        self.size += stop - start

    cpdef bytes last(self, Py_ssize_t size):
        """Return the last piece.

        Args:
            size: its length, in bytes.
        """
        return take(self._bytes, self.size - size, self.size)

    cpdef bint is_ascii(self, Py_ssize_t size) except -1:
        """Tell whether the last piece is ASCII.

        Args:
            size: its length, in bytes.
        """
        return _is_ascii(_pointer(self._bytes, self.size - size, self.size) + self.size - size, size)

    cpdef bytes take(self):
        """Return what came, and forget it."""
        cdef bytes data = self._bytes
        if PyBytes_GET_SIZE(data) != self.size:
            data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), self.size)
        self.clear()
        return data

    cpdef str take_text(self):
        """Return what came as text, and forget it.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        cdef str text = unmask_text(self._bytes, 0, self.size, b"")
        self.clear()
        return text

    cpdef clear(self):
        """Forget what came."""
        self.size = 0
        self._bytes = b""


@cython.final
cdef class _Pool:
    """Masking keys from ``os.urandom``, a page at a time; _mask_py.py says why."""

    cdef bytes data
    cdef Py_ssize_t position

    def __cinit__(self):
        self.data = b""
        self.position = 0

    cdef uint32_t next_key(self) except? 0:
        cdef uint32_t key
        cdef bytes data
        # Without a GIL two threads must not take the same key: this is a lock there, and nothing elsewhere.
        with cython.critical_section(self):
            if self.position + 4 > len(self.data):
                data = os.urandom(4096)
                if len(data) < 4:  # from somebody's stand-in: then there is nothing to read
                    raise ValueError("os.urandom returned too few bytes")
                self.data = data
                self.position = 0
            memcpy(&key, PyBytes_AS_STRING(self.data) + self.position, 4)
            self.position += 4
        return key

    cdef void clear(self) noexcept:
        with cython.critical_section(self):
            self.data = b""
            self.position = 0


cdef _Pool _pool = _Pool()


def forget_keys():
    """Forget the masking keys that are left in the pool."""
    _pool.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_keys)


def new_masking_key():
    """Return a fresh masking key: 4 bytes from ``os.urandom`` (RFC 6455, section 5.3)."""
    cdef uint32_t key = _pool.next_key()
    return PyBytes_FromStringAndSize(<const char*> &key, 4)
