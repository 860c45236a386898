"""Types for protocol.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe.connection cimport Connection

cdef Py_ssize_t FRAME_COST
cdef Py_ssize_t POSTED_COST


@cython.final
cdef class Input:
    cdef public bytearray octets
    cdef public object buffer
    cdef public bint is_borrowed

    cpdef renew(self, Py_ssize_t size)


@cython.final
cdef class Wakeup:
    cdef public bint _asyncio_future_blocking
    cdef object _callback
    cdef object _context
    cdef bint _is_awaited
    cdef bint _is_cancelled
    cdef object _loop
    cdef readonly bint is_waiting
    cdef readonly bint is_woken

    cpdef wake(self)


cdef class Protocol:
    cdef object __weakref__
    cdef public Connection _connection
    cdef readonly long long id
    cdef public object _close_timeout
    cdef public object _loop
    cdef public object _transport
    cdef public object _remote_address
    cdef public object _local_address
    cdef public list _closers
    cdef public tuple _close_callbacks
    cdef public bint _is_lost
    cdef public object _end
    cdef bint _eof
    cdef object _close_timer
    # Octets in
    cdef Input _input
    cdef Wakeup _reader
    cdef public Py_ssize_t _max_queued_messages
    cdef public list _messages
    cdef public Py_ssize_t _queued
    cdef public object _pieces
    cdef bint _is_looking_ahead
    cdef bint _is_reading_paused
    cdef bint _is_discarding
    cdef long long _octets_received
    cdef long long _messages_received
    cdef long long _pings_received
    cdef object _frame_log
    # Keepalive
    cdef public object _ping_interval
    cdef public object _ping_timeout
    cdef public object _ping_timer
    cdef public object _pings
    cdef public object _round_trips
    # Octets out
    cdef Py_ssize_t _corked
    cdef public Py_ssize_t _burst
    cdef long long _octets_sent
    cdef public long long _messages_sent
    cdef long long _pings_sent
    cdef public list _outbox
    cdef Py_ssize_t _outbox_size
    cdef public object _sending
    cdef public object _sender
    cdef Py_ssize_t _pongs
    cdef bint _is_flush_scheduled
    cdef bint _is_half_closed
    cdef object _duplicate
    cdef public bint _is_writing_paused
    cdef public list _drained

    # What connection.py, client.py and server.py call is visible to Python as well. The rest is not.
    cpdef _next_whole(self)
    cpdef _next_message(self)
    cpdef _put_back(self, message)
    cpdef _wait(self)
    cpdef _check_reader(self)
    cdef _pull(self)
    cdef _schedule_look_ahead(self)
    cdef _drop(self, message)
    cpdef _pause_reading(self)
    cdef _resume_reading(self)
    cpdef _send_ping(self, bytes payload)
    cdef _receive_pong(self, payload)
    cdef _fail_pings(self)
    cdef _fail(self, int code, reason)
    cpdef _finish(self, end)
    @cython.locals(reader=Wakeup)
    cdef _read_on(self)
    cpdef bint _send_at_once(self, message, compress) except -1
    cpdef bint _post(self, message, Py_ssize_t max_buffered) except -1
    cpdef _post_outbox(self)
    cpdef _check_open(self)
    cpdef _closed(self)
    cpdef _cork(self, Py_ssize_t size)
    cpdef _collect(self, Py_ssize_t size)
    cdef _schedule_flush(self)
    cpdef _forget_pongs(self)
    @cython.locals(connection=Connection, chunks=list, size=Py_ssize_t)
    cdef _flush(self)
    cdef _close_transport(self)
    cdef _shut_down_later(self)
    cdef bint _has_written_all(self) except -1
    cdef _forget_duplicate(self)
    cpdef _start_close(self, code, reason)
    cpdef _start_close_timer(self)
