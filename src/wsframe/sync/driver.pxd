"""Types for driver.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe.adapter.session cimport Session


cdef class Driver:
    cdef object __weakref__
    cdef readonly Session session
    cdef public object _stream
    cdef public object _lock
    cdef public object _changed
    cdef int _waiting
    cdef object _deferred
    # In
    cdef public long long _reader
    cdef bytearray _buffer
    cdef Py_ssize_t _arrived
    cdef readonly object lost
    # Out
    cdef public object _writing
    cdef bint _is_writing
    cdef bint _is_left
    cdef object _unwritten
    cdef Py_ssize_t _unwritten_size
    cdef object _sender

    @cython.locals(session=Session, thread=cython.longlong, is_late=cython.bint)
    cpdef _receive(self, reader, timeout)
    @cython.locals(session=Session)
    cdef _take(self, reader)
    cdef _hand_over(self)
    cdef _release_buffer(self)
    cpdef bint _look_ahead(self, deadline) except -1
    cpdef _wait(self, deadline)
    cdef _notify(self)
    cpdef _start_reading(self, long long thread, deadline)
    cpdef _wait_for_reader(self, deadline)
    cpdef _stop_reading(self)
    @cython.locals(session=Session)
    cpdef _read(self, deadline)
    cdef _answer(self, deadline)
    cdef bint _write_rest(self, deadline) except -1
    cdef _poll(self)
    cpdef _give_up(self)
    @cython.locals(session=Session)
    cdef bint _send(self, message, bint fin, compress, sender) except -1
    cdef _wait_to_send(self)
    cdef _send_fragments(self, fragments, compress)
    cdef bint _take_output(self) except -1
    cpdef _flush(self, deadline)
    cdef _start_writing(self, deadline)
    cdef _write(self, deadline)
    cpdef bint _is_inside(self) except -1
