"""Types for protocol.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe.adapter.session cimport Session
from wsframe.connection cimport Connection

cdef Py_ssize_t FRAME_COST
cdef Py_ssize_t POSTED_COST


@cython.final
cdef class ReadBuffer:
    cdef public bytearray data
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
    cdef readonly Session session
    cdef public object transport
    cdef public object _loop
    cdef public object _timer
    cdef object _timer_due
    cdef public tuple _close_callbacks
    cdef public tuple _close_waiters
    # In
    cdef ReadBuffer _read_buffer
    cdef Wakeup _waiter
    cdef bint _is_looking_ahead
    cdef bint _is_reading_paused
    # Out
    cdef Py_ssize_t _corked
    cdef public Py_ssize_t _burst
    cdef public list _outbox
    cdef Py_ssize_t _outbox_size
    cdef public object _sending
    cdef public object _sender
    cdef bint _is_flush_scheduled
    cdef public bint _is_writing_paused
    cdef public tuple _drain_waiters
    cdef bint _is_closing
    cdef object _duplicate

    # What websocket.py, client.py, server.py and asgi.py call is visible to Python as well. The rest is not.
    @cython.locals(session=Session)
    cpdef _take(self, reader=*)
    cpdef _wait(self)
    cdef _schedule_look_ahead(self)
    cpdef pause_reading(self)
    cdef _resume_reading(self)
    @cython.locals(session=Session, connection=Connection, waiter=Wakeup)
    cdef _read_on(self)
    cpdef bint _send_at_once(self, message, compress) except -1
    cpdef bint post(self, message, Py_ssize_t max_buffered) except -1
    cpdef _post_outbox(self)
    cpdef _cork(self, Py_ssize_t size)
    cpdef _collect(self, Py_ssize_t size)
    cpdef _forget_pongs(self)
    @cython.locals(session=Session, connection=Connection)
    cpdef flush(self)
    @cython.locals(size=Py_ssize_t)
    cdef _write(self, list chunks)
    cdef _set_timer(self)
    cdef _cancel_timer(self)
    cdef _wake(self)
    cpdef start_close(self, code, reason)
    cpdef conclude(self, end)
    cdef _close_transport(self)
    cdef _shut_down_later(self)
    cdef bint _has_written_all(self) except -1
    cdef _forget_duplicate(self)
