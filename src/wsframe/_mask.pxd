"""What other compiled modules call without Python in between; masking.py has the same in Python."""

cpdef bytes unmask(object buffer, Py_ssize_t start, Py_ssize_t stop)
cpdef bytes take(object buffer, Py_ssize_t start, Py_ssize_t stop)
cpdef append_frame(list output, int first, bytes payload, bint masked)


cdef class Collector:
    cdef readonly Py_ssize_t size
    cdef bytes _octets  # of which the first ``size`` are written

    cpdef append(self, bytes octets, long long more)
    cpdef bytes take(self)
    cpdef clear(self)
