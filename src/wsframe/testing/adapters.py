"""A handler and its client, without a port: ``serve`` and ``connect``, joined in memory for tests.

    connected:       aio.WebSocket -- transport in memory -- aio.WebSocket -- handler
    connected_sync:  sync.WebSocket ----- socketpair ----- sync.WebSocket -- handler, in a thread

Both ends are those of ``wsframe.aio`` and ``wsframe.sync``, with the opening handshake, and the server does
what it does elsewhere: it closes with 1000 when the handler returns, and logs its error and closes with 1011
when it raises. Only TCP is missing.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

from .. import aio, sync
from ..adapter.auth import AsyncProcessRequest, ProcessRequest
from ..adapter.options import ServerOptions, Timing
from ..aio.server import Handler
from ..deflate import DEFAULT, Deflate
from ..handshake import HeaderList
from ..sync.server import Handler as SyncHandler

__all__ = ["MemoryTransport", "connected", "connected_sync"]


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory, between two ``asyncio.BufferedProtocol`` objects.

    What is written is delivered to the other end by ``loop.call_soon``, one read in a turn of the loop,
    unless that end has paused reading: then it stays here, and writing is paused as on a socket. The end
    of the stream comes after it. Closing and aborting do what they do on TCP, without its delays.

    Args:
        protocol: the protocol that reads the bytes of the other end.
        extra: the values of ``get_extra_info``: ``peername``, ``sockname``.
        read_size: the most bytes of one read; None: as many as the protocol has room for.
    """

    def __init__(
        self, protocol: asyncio.BufferedProtocol, extra: dict[str, Any], read_size: int | None = None
    ) -> None:
        super().__init__(extra)
        self.other: MemoryTransport
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._read_size = read_size
        # Bytes out, which the other end has not read, and whether the end of the stream follows
        self._unsent: deque[memoryview] = deque()
        self._size = 0
        self._is_eof_written = False
        self._low, self._high = 16384, 65536
        self._is_protocol_paused = False
        # Bytes in
        self._is_reading = True
        self._is_eof_read = False
        self._is_delivery_scheduled = False
        self._is_closing = False
        self._is_lost = False

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes.

        Args:
            data: any bytes-like object.

        Raises:
            RuntimeError: they come after ``write_eof``.
        """
        if self._is_eof_written:
            raise RuntimeError("cannot write after write_eof()")
        if self._is_closing or self.other._is_closing or not data:
            return
        raw = memoryview(bytes(data))
        self._unsent.append(raw)
        self._size += len(raw)
        self.other._schedule_delivery()
        if self._size > self._high and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Return True: one direction can be closed."""
        return True

    def write_eof(self) -> None:
        """Close this direction, after what was written."""
        self._is_eof_written = True
        self.other._schedule_delivery()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the other end has not read."""
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return when to go on writing, and when to pause it."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when to pause writing.

        Args:
            high: with more bytes unsent than these; by default 64 KiB, or four times ``low``.
            low: with no more than these it goes on; by default a quarter of ``high``.
        """
        if high is None:
            high = 65536 if low is None else 4 * low
        self._low, self._high = high // 4 if low is None else low, high

    def _take(self, size: int) -> memoryview:
        data = self._unsent.popleft()
        if len(data) > size:
            self._unsent.appendleft(data[size:])
            data = data[:size]
        self._size -= len(data)
        return data

    def _go_on(self) -> None:
        """Go on after the other end has read."""
        if self._is_protocol_paused and self._size <= self._low:
            self._is_protocol_paused = False
            self._protocol.resume_writing()
        if self._is_closing and not self._unsent:
            self._lose()

    # Reading

    def is_reading(self) -> bool:
        """Return whether the protocol gets the bytes that come."""
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        """Stop giving bytes to the protocol."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Give the protocol the bytes that come, again."""
        self._is_reading = True
        self._schedule_delivery()

    def _schedule_delivery(self) -> None:
        if not self._is_delivery_scheduled:
            self._is_delivery_scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Give the protocol the bytes of one read, as a socket would."""
        self._is_delivery_scheduled = False
        if not self.is_reading() or self._is_eof_read:
            return
        other = self.other
        if other._unsent:
            buffer = memoryview(self._protocol.get_buffer(-1))
            room = len(buffer) if self._read_size is None else min(len(buffer), self._read_size)
            count = 0
            while other._unsent and count < room:
                data = other._take(room - count)
                buffer[count : count + len(data)] = data
                count += len(data)
            self._schedule_delivery()
            self._protocol.buffer_updated(count)
            other._go_on()
        elif other._is_eof_written or other._is_closing:
            self._is_eof_read = True
            if not self._protocol.eof_received():
                self.close()

    # Closing

    def is_closing(self) -> bool:
        """Return whether it is closing or closed."""
        return self._is_closing

    def close(self) -> None:
        """Close when the other end has read what was written; read no more."""
        if self._is_closing:
            return
        self._is_closing = True
        # Bytes that come now have no reader.
        self.other._drop()
        self.other._schedule_delivery()
        if not self._unsent:
            self._lose()

    def abort(self) -> None:
        """Close at once: what the other end has not read is lost."""
        self._is_closing = True
        self._drop()
        self.other._drop()
        self.other._schedule_delivery()
        self._lose()

    def _drop(self) -> None:
        self._unsent.clear()
        self._size = 0
        # Writing is not resumed: on TCP as well, a protocol that waits for that is told of the end first.
        if self._is_closing:
            self._lose()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    # The protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol read.

        Args:
            protocol: an ``asyncio.BufferedProtocol``.
        """
        self._protocol = cast(asyncio.BufferedProtocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that reads."""
        return self._protocol


def _transports(
    client: asyncio.BufferedProtocol, server: asyncio.BufferedProtocol, *, read_size: int | None = None
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return two transports that are joined in memory."""
    if read_size is not None and read_size < 1:
        raise ValueError(f"read_size must be 1 or more, not {read_size}")
    names = ("client", 0), ("server", 0)  # like those of TCP
    first = MemoryTransport(client, {"sockname": names[0], "peername": names[1]}, read_size)
    second = MemoryTransport(server, {"sockname": names[1], "peername": names[0]}, read_size)
    first.other, second.other = second, first
    return first, second


@asynccontextmanager
async def connected(
    handler: Handler,
    *,
    path: str = "/",
    additional_headers: HeaderList = (),
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    offered_subprotocols: Sequence[str] | None = None,
    origins: Sequence[str | None] | None = None,
    process_request: AsyncProcessRequest | None = None,
    compression: Deflate | None = DEFAULT,
    max_message_size: int | None = 2**20,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    read_size: int | None = None,
) -> AsyncIterator[aio.WebSocket]:
    """Run a handler of ``wsframe.aio`` in memory, and give the client's end of its connection.

    At the end the client closes the connection, and the handler is waited for; one that has not returned
    after ``close_timeout`` is cancelled. An error of the handler is logged, to ``wsframe.aio``, and the
    client sees 1011.

    Args:
        handler: a coroutine function that is called with the server's ``WebSocket``.
        path: what the client asks for: path and query.
        additional_headers: more headers for the client's request.
        origin: the value of its Origin header.
        subprotocols: what the server speaks, its favourite first.
        offered_subprotocols: what the client offers; None: the same.
        origins: the origins whose pages may connect; by default all.
        process_request: as for ``aio.serve``.
        compression: the compression that both wish; None: none.
        max_message_size: the largest message that either receives, in bytes; None: no limit.
        open_timeout: how many seconds the opening handshake may take; None: no limit.
        close_timeout: how many seconds closing may take, before the connection is cut; None: no limit.
        read_size: the most bytes that either end reads at a time; None: 256 KiB.

    Raises:
        HandshakeRejected: the server refused the connection.
        InvalidURI: the path cannot be part of an address.
        LocalProtocolError: a subprotocol or header cannot be sent.
        TimeoutError: the opening handshake took too long.
        ValueError: ``read_size`` is less than 1.
    """
    options = ServerOptions(
        process_request=process_request,
        subprotocols=subprotocols,
        origins=origins,
        compression=compression,
        max_message_size=max_message_size,
        timing=Timing(open_timeout, close_timeout),
    )
    connecting = aio.connect(
        f"ws://localhost{path}",
        subprotocols=subprotocols if offered_subprotocols is None else offered_subprotocols,
        origin=origin,
        additional_headers=additional_headers,
        compression=compression,
        proxy=None,
        open_timeout=open_timeout,
        close_timeout=close_timeout,
        ping_interval=None,
        max_message_size=max_message_size,
    )
    async with aio.Server(handler, options) as server:

        async def join(factory: Callable[[], aio.WebSocket]) -> None:
            client, served = factory(), server.protocol()
            to_server, to_client = _transports(client, served, read_size=read_size)
            served.connection_made(to_client)
            client.connection_made(to_server)

        websocket = await connecting.over(join)
        try:
            yield websocket
        finally:
            await websocket.close()


@contextmanager
def connected_sync(
    handler: SyncHandler,
    *,
    path: str = "/",
    additional_headers: HeaderList = (),
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    offered_subprotocols: Sequence[str] | None = None,
    origins: Sequence[str | None] | None = None,
    process_request: ProcessRequest | None = None,
    compression: Deflate | None = DEFAULT,
    max_message_size: int | None = 2**20,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
) -> Iterator[sync.WebSocket]:
    """Run a handler of ``wsframe.sync`` in a thread, and give the client's end of its connection.

    At the end the client closes the connection, and the handler is waited for, up to ``close_timeout``. An
    error of the handler is logged, to ``wsframe.sync``, and the client sees 1011.

    Args:
        handler: a function that is called with the server's ``WebSocket``.
        path: what the client asks for: path and query.
        additional_headers: more headers for the client's request.
        origin: the value of its Origin header.
        subprotocols: what the server speaks, its favourite first.
        offered_subprotocols: what the client offers; None: the same.
        origins: the origins whose pages may connect; by default all.
        process_request: as for ``sync.serve``.
        compression: the compression that both wish; None: none.
        max_message_size: the largest message that either receives, in bytes; None: no limit.
        open_timeout: how many seconds the opening handshake may take; None: no limit.
        close_timeout: how many seconds closing may take, before the connection is cut; None: no limit.

    Raises:
        HandshakeRejected: the server refused the connection.
        InvalidURI: the path cannot be part of an address.
        LocalProtocolError: a subprotocol or header cannot be sent.
        TimeoutError: the opening handshake took too long.
    """
    options = ServerOptions(
        process_request=process_request,
        subprotocols=subprotocols,
        origins=origins,
        compression=compression,
        max_message_size=max_message_size,
        timing=Timing(open_timeout, close_timeout),
    )
    with sync.Server(handler, options) as server:
        ours, theirs = socket.socketpair()
        server.serve_socket(theirs)
        with ours:
            websocket = sync.connect(
                f"ws://localhost{path}",
                sock=ours,
                subprotocols=subprotocols if offered_subprotocols is None else offered_subprotocols,
                origin=origin,
                additional_headers=additional_headers,
                compression=compression,
                open_timeout=open_timeout,
                close_timeout=close_timeout,
                max_message_size=max_message_size,
            )
            with websocket:
                yield websocket
