"""Types for session.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe cimport events
from wsframe.connection cimport Connection
from wsframe.events cimport _Message


cdef class PieceReader:
    cdef public bint is_begun
    cdef public bint is_over


cdef class Session:
    cdef object __weakref__
    cdef readonly Connection connection
    cdef readonly long long id
    cdef public object end
    cdef public bint is_lost
    cdef public bint is_broken
    cdef readonly bint is_at_eof
    cdef readonly bint is_discarding
    cdef readonly object close_deadline
    cdef readonly list messages
    cdef public long long pong_bytes
    cdef public bint stops_at_pings
    cdef public object remote_address
    cdef public object local_address
    cdef object _logger
    cdef object _clock
    cdef public object _timing
    cdef Py_ssize_t _max_queue
    cdef Py_ssize_t _max_queue_size
    cdef Py_ssize_t _queue_size
    cdef object _reader
    cdef list _pieces
    cdef object _keepalive
    cdef long long _bytes_received
    cdef long long _bytes_sent
    cdef long long _messages_received
    cdef long long _messages_sent
    cdef long long _pings_received
    cdef long long _pings_sent
    cdef object _frame_log

    cpdef read_from(self, buffer, Py_ssize_t count)
    cpdef receive_eof(self)
    @cython.locals(connection=Connection, message=_Message)
    cpdef _Message pull(self)
    @cython.locals(message=_Message)
    cdef _Message take_queued(self)
    cpdef put_back(self, message)
    @cython.locals(message=_Message)
    cpdef _Message take_message(self)
    cpdef take_piece(self, reader)
    cdef _join_pieces(self, bint final)
    cpdef bint look_ahead(self) except -1
    cdef _drop(self, message)
    cpdef bint is_sendable(self) except -1
    cpdef check_sendable(self)
    cpdef send(self, message, bint fin=*, compress=*)
    cpdef send_prepared(self, message)
    cpdef note_sent(self, chunks, Py_ssize_t size)
    cpdef begin_closing(self)
    cpdef conclude(self, end)
