"""Types for connection.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe cimport _events as events
from wsframe cimport _mask as masking
from wsframe.frames cimport FrameDecoder


# Names of frames.py and of this module, as ints of C
cdef int BINARY
cdef int CLOSE
cdef int CONTINUATION
cdef int CONTROL
cdef int FIN
cdef int PING
cdef int PONG
cdef int RSV1
cdef int TEXT
cdef int _WHOLE_BINARY
cdef int _WHOLE_TEXT
cdef int _PIECE
cdef long long _MAX_FRAGMENTS
cdef long long _BYTES_PER_FRAGMENT
cdef object _CLIENT


cdef class _PartialMessage:
    cdef int opcode
    cdef bint is_compressed
    cdef bytes pending

    @cython.locals(text=str)
    cdef str decode(self, bytes data, bint final)


@cython.final
cdef class _IncomingMessage(_PartialMessage):
    cdef masking.MessageBuffer buffer
    cdef long long fragments
    cdef long long room

    cdef check_text(self, Py_ssize_t size, bint final)
    @cython.locals(opcode=cython.int)
    cdef take(self)
    @cython.locals(data=bytes)
    cdef take_piece(self)


cdef class Connection:
    cdef object __weakref__
    cdef public object role
    cdef public object state
    cdef public bint should_close
    cdef public object subprotocol
    cdef public object compression
    cdef public object close_sent
    cdef public object close_received
    cdef public object end
    cdef readonly long long uncompressed
    cdef readonly long long compressed
    # Bytes in
    cdef public FrameDecoder _decoder
    cdef public bint _eof
    cdef public bint _in_handshake
    cdef long long _max_message_size
    cdef bint _fragments
    cdef bint _as_pieces
    cdef _IncomingMessage _incoming
    cdef public object _decompressor
    # Bytes out
    cdef public list _output
    cdef _PartialMessage _outgoing
    cdef public object _compressor

    cpdef receive_data(self, data)
    cpdef read_from(self, buffer, Py_ssize_t count)
    cpdef release(self)
    @cython.locals(decoder=FrameDecoder, incoming=_IncomingMessage, first=cython.int, payload=bytes)
    cpdef next_event(self)
    cdef _receive_eof(self)
    cdef _end_of_stream(self)
    @cython.locals(
        decoder=FrameDecoder, incoming=_IncomingMessage, first=cython.int, final=cython.bint,
        fragments=cython.longlong,
    )
    cdef _receive_piece(self)
    @cython.locals(decoder=FrameDecoder, data=bytes, final=cython.bint, is_read=cython.bint)
    cdef _decompress(self, _IncomingMessage incoming)
    @cython.locals(opcode=cython.int)
    cdef _receive_bytes(self, _IncomingMessage incoming, bytes data, bint final)
    cdef _receive_control(self, int opcode, bytes payload)
    cdef _parse_close(self, bytes payload)
    cdef _conclude(self, end)
    cdef _check_open(self)
    @cython.locals(sent=cython.int)
    cdef _check_sending(self, int opcode)
    cpdef send_message(self, message, fin=*, compress=*)
    @cython.locals(outgoing=_PartialMessage, first=cython.int)
    cdef _send(self, int opcode, object data, bint fin, object compress)
    cdef _check_utf8(self, bytes data, bint fin)
    cdef _queue_frame(self, int first, object payload)
    cpdef bint has_unread(self)
    cpdef bint has_unsent(self)
    cpdef list chunks_to_send(self)
