"""Types for connection.py, for when it is compiled. They change what it costs, not what it does."""

cimport cython

from wsframe cimport _events as events
from wsframe cimport _mask as masking
from wsframe.frames cimport FrameDecoder


@cython.final
cdef class _TextDecoder:
    cdef public bytes pending
    @cython.locals(text=str)
    cdef str decode(self, bytes data, bint final)


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
    cdef bytes _between_messages
    cdef long long _max_message_size
    cdef long long _max_fragments
    cdef bint _fragments
    cdef bint _as_pieces
    cdef int _message_opcode
    cdef masking.MessageBuffer _message
    cdef long long _message_fragments
    cdef _TextDecoder _utf8
    cdef public object _decompressor
    cdef bint _is_compressed
    cdef long long _room
    cdef bint _is_last
    # Bytes out
    cdef bint _masks
    cdef public list _output
    cdef int _sent_opcode
    cdef _TextDecoder _sent_utf8
    cdef public object _compressor
    cdef bint _is_compressing

    cpdef receive_data(self, data)
    cpdef read_from(self, buffer, Py_ssize_t count)
    cpdef release(self)
    @cython.locals(decoder=FrameDecoder, first=cython.int, payload=bytes)
    cpdef next_event(self)
    cdef _receive_eof(self)
    cdef _end_of_stream(self)
    @cython.locals(decoder=FrameDecoder, first=cython.int, final=cython.bint, fragments=cython.longlong)
    cdef _receive_piece(self)
    cdef _decompress(self)
    @cython.locals(opcode=cython.int)
    cdef _receive_bytes(self, bytes data, bint final)
    cdef _check_text(self, Py_ssize_t size, bint final)
    @cython.locals(opcode=cython.int)
    cdef _take_message(self)
    cdef _take_collected(self)
    cdef _receive_control(self, int opcode, bytes payload)
    cdef _parse_close(self, bytes payload)
    cdef _conclude(self, end)
    cdef _check_open(self)
    cdef _check_sending(self, int opcode)
    cpdef send_message(self, message, fin=*, compress=*)
    cdef _send_text(self, text, bint fin, compress)
    cdef _send_binary(self, data, bint fin, compress)
    cpdef bint has_unread(self)
    cpdef bint has_unsent(self)
    @cython.locals(first=cython.int)
    cdef _queue_message(self, int opcode, object payload, bint fin, object compress)
    cdef _queue_frame(self, int first, object payload)
    cpdef list chunks_to_send(self)
