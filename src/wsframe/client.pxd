"""Types for client.py, for when it is compiled. They change what it costs, not what it does."""

from wsframe.connection cimport Connection


cdef class ClientConnection(Connection):
    cdef public object uri
    cdef public object response
    cdef object _body
    cdef object _head_reader
    cdef object _informational
    cdef object _key
    cdef object _offered
    cdef object _parser
    cdef object _start
    cdef object _subprotocols
