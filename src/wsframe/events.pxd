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


# str and bytes refer to nothing: so the garbage collector need not know of these two.
cdef class Text(_Event):
    cdef public str data
    cdef public bint final


cdef class Binary(_Event):
    cdef public bytes data
    cdef public bint final


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
