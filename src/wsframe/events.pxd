"""Types for events.py, for when it is compiled. They change what it costs, not what it does."""

cdef class _Event:
    pass


cdef class Request(_Event):
    cdef public object path
    cdef public object headers
    cdef public object subprotocols
    cdef public object origin
    cdef public object is_upgrade
    cdef public object method
    cdef public object http_version


cdef class Response(_Event):
    cdef public object status
    cdef public object headers
    cdef public object body
    cdef public object subprotocol


# These refer to a str or bytes at most, which refer to nothing. So the garbage collector need not know of them.
cdef class _Message(_Event):
    cdef public bint final


cdef class Text(_Message):
    cdef public str data


cdef class Binary(_Message):
    cdef public bytes data


cdef class Ping(_Event):
    cdef public object payload


cdef class Pong(_Event):
    cdef public object payload


cdef class Close(_Event):
    cdef public object code
    cdef public object reason


cdef class Fail(_Event):
    cdef public object code
    cdef public object reason


cpdef Py_ssize_t size_in_memory(data) except -1
