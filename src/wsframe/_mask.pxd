"""What other compiled modules call without Python in between; _mask_py.py has the same in Python."""

cpdef bytes unmask(object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key)
cpdef str unmask_text(object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key)
cpdef bytes take(object buffer, Py_ssize_t start, Py_ssize_t stop)
cpdef append_frame(list output, int first, object payload, bint masked)


cdef class MessageBuffer:
    cdef readonly Py_ssize_t size
    cdef bytes _bytes  # of which the first ``size`` are written

    cdef char* _room_for(self, Py_ssize_t length, long long more) except NULL
    cpdef append(self, bytes data, long long more)
    cpdef unmask(self, object buffer, Py_ssize_t start, Py_ssize_t stop, bytes key, long long more)
    cpdef bytes last(self, Py_ssize_t size)
    cpdef bint is_ascii(self, Py_ssize_t size) except -1
    cpdef bytes take(self)
    cpdef str take_text(self)
    cpdef clear(self)
