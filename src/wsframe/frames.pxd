"""Types for frames.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe cimport _mask as masking


cdef int _RSV1
cdef int _MASK
cdef int _CONTROL


@cython.final
cdef class FrameDecoder:
    # Which first bytes may come now
    cdef public bytes legal
    cdef public long long max_size
    cdef public long long max_compressed_size
    cdef public bint partial
    # What advance() found. Positions depend on it, so nobody else may write it.
    cdef readonly int first
    cdef readonly bint is_whole
    cdef readonly bint is_end
    cdef Py_ssize_t _start
    cdef bytes _key
    # What is not read yet
    cdef object _buffer
    cdef Py_ssize_t _position
    cdef Py_ssize_t _end
    cdef object _borrowed
    cdef int _mask_bit
    # The frame of which some is still to come
    cdef readonly long long remaining
    cdef int _turn

    cpdef feed(self, data)
    @cython.locals(
        position=Py_ssize_t, end=Py_ssize_t, data="const unsigned char*",
        first=cython.int, second=cython.int, size=cython.int, length=cython.longlong, limit=cython.longlong,
    )
    cpdef bint advance(self) except -1
    @cython.locals(data="const unsigned char*", length=cython.longlong)
    cdef long long _read_length(self, Py_ssize_t position, int size) except *
    @cython.locals(start=Py_ssize_t, length=Py_ssize_t, turn=cython.int)
    cdef bint _advance_payload(self) except -1
    cpdef Py_ssize_t payload_size(self)
    cpdef bytes read_payload(self)
    cpdef str read_text(self)
    @cython.locals(message=masking.MessageBuffer)
    cpdef collect(self, message)
    cpdef read_from(self, buffer, Py_ssize_t count)
    cpdef release(self)
    cdef _append(self, data)
    cpdef bint has_unread(self)
    cpdef bytes drain(self)
    cdef _forget(self)
    cdef _illegal(self, int first)
