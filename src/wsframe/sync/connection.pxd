"""Types for connection.py, for when it is compiled. They change what it costs, not what it does."""

from wsframe.connection cimport Connection


cdef class WebSocket:
    cdef object __weakref__
    cdef public Connection _connection
    cdef public object _stream
    cdef object _close_timeout
    cdef object _lock
    cdef object _changed
    cdef int _waiting
    cdef object _writing
    cdef bint _is_writing
    cdef bint _is_left
    cdef long long _reader
    cdef bint _is_late
    cdef object _deferred
    cdef Py_ssize_t _arrived
    cdef bytearray _buffer
    cdef object _unwritten
    cdef Py_ssize_t _unwritten_size
    cdef public bint _is_broken
    cdef public object _lost
    cdef public bint _is_closed
    cdef public object _end
    cdef object _messages
    cdef Py_ssize_t _queued
    cdef public object _pieces
    cdef object _sender
    cdef readonly long long id
    cdef object _pings
    cdef dict _round_trips
    cdef long long _bytes_received
    cdef long long _bytes_sent
    cdef long long _messages_received
    cdef long long _messages_sent
    cdef long long _pings_received
    cdef long long _pings_sent
    cdef object _frame_log
    cdef object _remote_address
    cdef object _local_address

    cdef _next_message(self, deadline)
    cdef _wait(self, deadline)
    cdef _notify(self)
    cdef _put_back(self, message)
    cdef long long _check_not_reading(self) except -1
    cdef _start_reading(self, long long thread, deadline)
    cdef _wait_for_reader(self, deadline)
    cdef _stop_reading(self)
    cpdef _next_event(self, deadline=*)
    cpdef _receive(self, deadline)
    cdef _answer(self, deadline)
    cdef _give_up(self)
    cdef bint _write_rest(self, deadline) except -1
    cdef _keep_alive(self)
    cdef bint _send(self, message, bint fin, compress, sender) except -1
    cdef _wait_to_send(self)
    cdef _send_fragments(self, fragments, compress)
    cdef _check_open(self)
    cdef _closed(self)
    cpdef _flush(self, deadline)
    cdef _start_writing(self, deadline)
    cdef _write(self, deadline)
