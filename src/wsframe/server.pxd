"""Types for server.py, for when it is compiled. They change what it costs, not what it does."""

from wsframe.connection cimport Connection


cdef class ServerConnection(Connection):
    cdef public object request
    cdef object _head_reader
    cdef object _origins
    cdef object _refusal
    cdef object _subprotocols
    cdef object _wished
