"""A WebSocket on asyncio: what waits. protocol.py has what the event loop calls, and the rules of both."""

from __future__ import annotations

import asyncio
import logging
from asyncio import current_task
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from time import perf_counter
from typing import Any, NoReturn

from ..connection import (
    ABANDONED,
    Fragment,
    Message,
    State,
    as_plain,
    check_fragment,
    is_fragmented,
    join_pieces,
)
from ..errors import ConnectionClosed
from ..events import Binary, Request, Response, Text
from ..frames import TEXT
from ..keepalive import Pings
from ..prepared import Prepared, prepare
from .protocol import BURST, CONNECTING, OPEN, Protocol, logger

__all__ = ["CLEAN_CODES", "CONNECTING", "OPEN", "WebSocket"]

# A message of more octets is compressed in slices, between which others have a turn. Measured with 1 MiB of
# JSON: compressed at once it stops the loop for 8 ms, in slices for 0.5 ms, and takes as long; a thread
# would not be quicker for one connection, and is not needed for the others.
COMPRESSED_SLICE = 65536
# Iteration ends silently after these: normal closure, going away, and a Close without a code.
CLEAN_CODES = (1000, 1001, 1005)


class WebSocket(Protocol, asyncio.BufferedProtocol):
    """Be an open WebSocket: what ``connect`` returns and what ``serve`` gives to its handler.

    Iterating over it gives its messages: text as ``str``, binary as ``bytes``. The iteration ends when the
    connection is closed with 1000, 1001 or no code, and raises ``ConnectionClosed`` when it is closed
    otherwise or lost. Any task may send; one at a time may receive.
    """

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a WebSocket cannot be copied or pickled")

    def __repr__(self) -> str:
        return f"<WebSocket {self.state.name} {self.remote_address}>"

    # What it is

    @property
    def state(self) -> State:
        """State.CONNECTING, OPEN, CLOSING or CLOSED."""
        return State.CLOSED if self._is_lost else self._connection.state

    @property
    def request(self) -> Request | None:
        """The client's request, on a server."""
        return getattr(self._connection, "request", None)

    @property
    def response(self) -> Response | None:
        """The server's response, on a client."""
        return getattr(self._connection, "response", None)

    @property
    def path(self) -> str:
        """The resource name: path and query."""
        request = self.request
        return self._connection.uri.resource_name if request is None else request.path  # type: ignore[attr-defined]

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol in use, or None."""
        return self._connection.subprotocol

    @property
    def remote_address(self) -> Any:
        """The peer's address, as ``socket.getpeername`` returns it."""
        return self._remote_address

    @property
    def local_address(self) -> Any:
        """This end's address, as ``socket.getsockname`` returns it."""
        return self._local_address

    @property
    def close_code(self) -> int | None:
        """The status code that the connection ended with; None before that (RFC 6455, 7.1.5)."""
        return None if self._end is None else self._end.code

    @property
    def close_reason(self) -> str | None:
        """The reason that the connection ended with; None before that (RFC 6455, 7.1.6)."""
        return None if self._end is None else self._end.reason

    @property
    def latency(self) -> float | None:
        """The last round trip of a Ping, in seconds; None before the first."""
        return None if self._pings is None else self._pings.latency

    def _opened(self) -> None:
        """Begin what there is to do on an open connection."""
        if logger.isEnabledFor(logging.INFO):
            self.logger.opened(self.path, self.remote_address)
        if self._ping_interval is not None:
            self._pings = Pings(self._ping_interval, self._ping_timeout, perf_counter())
            self._ping_timer = self._loop.call_later(self._ping_interval, self._keep_alive)

    # Receiving

    async def recv(self, timeout: float | None = None) -> str | bytes:
        """Receive the next message. Cancelling it loses none.

        Args:
            timeout: how many seconds to wait; None: for ever.

        Returns:
            Text as ``str``, binary as ``bytes``.

        Raises:
            ConnectionClosed: the connection ended, and all messages before its end were received.
            TimeoutError: no message came in time.
            RuntimeError: another task is receiving.
        """
        message = self._next_whole()
        if message is None and timeout is None and not self._messages:
            await self._wait()  # and then it is there, usually: the rest is for what comes in pieces
            message = self._next_whole()
        if message is None:
            async with asyncio.timeout(timeout):
                message = await self._receive()
        return message.data

    def recv_stream(self) -> Pieces:
        """Receive the next message in pieces, as they arrive: ``async for piece in ws.recv_stream()``.

        The memory that it takes is bounded by what is on the way, not by the message: for a message of any
        size, open the connection with ``max_message_size=None``. Text comes in pieces of ``str``, binary of
        ``bytes``; an empty message is one empty piece. Cancelling it loses nothing: go on with the same
        iterator. What is not received of a message is dropped by the next ``recv`` or ``recv_stream``.

        Its iterator raises what ``recv`` does, also in the middle of a message that does not arrive whole.
        """
        return Pieces(self)

    async def _receive(self) -> Text | Binary:
        """Wait for a message, and put it together when it comes in pieces."""
        pieces: list[Any] = []
        try:
            while True:
                message = self._next_message()
                if message is None:
                    await self._wait()
                elif self._pieces is not None:
                    # Somebody has received the beginning of it, and does not want the rest.
                    if message.final:
                        self._pieces = None
                elif message.final and not pieces:
                    return message
                else:
                    pieces.append(message.data)
                    if message.final:
                        whole = join_pieces(pieces, True)
                        pieces.clear()
                        return whole
        finally:
            if pieces:  # it was cancelled
                self._put_back(join_pieces(pieces, False))

    async def _receive_piece(self, pieces: Pieces) -> Text | Binary:
        self._check_reader()
        while True:
            if self._pieces is None and not self._messages:
                self._connection.stream_next()
            piece = self._next_message()
            if piece is None:
                await self._wait()
                continue
            if self._pieces is None or self._pieces is pieces:
                self._pieces = None if piece.final else pieces
                return piece
            if piece.final:  # of one that nobody wants any more
                self._pieces = None

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            message = self._next_whole()
            if message is None and not self._messages:
                await self._wait()  # as in recv
                message = self._next_whole()
            if message is None:
                message = await self._receive()
        except ConnectionClosed as closed:
            if closed.clean and closed.code in CLEAN_CODES:
                raise StopAsyncIteration from None
            raise
        return message.data

    # Sending

    async def send(
        self,
        message: Message | Iterable[Fragment] | AsyncIterable[Fragment],
        *,
        compress: bool | None = None,
    ) -> None:
        """Send a message; waits while more than 64 KiB are unsent.

        An iterable, or asynchronous iterable, goes out as one fragmented message: each of its items as soon
        as it is there. Pings go out in between; other messages wait until it is done. When it raises
        half-way, or this call is cancelled then, the connection is closed with 1011, because the message
        cannot be completed. One without items sends nothing.

        Args:
            message: ``str`` goes out as text, a bytes-like object as binary, an iterable of either as one
                fragmented message, and what ``prepare`` returned as it is.
            compress: whether to compress it, if that is agreed on; None: if it reaches the threshold.

        Raises:
            ConnectionClosed: the connection is closing or closed.
            LocalProtocolError: the text contains a lone surrogate.
            TypeError: the message is none of these, or its items are not all text or all binary.
            RuntimeError: an iterable sends on the connection that it is being sent on.
        """
        if not self._send_at_once(message, compress):
            await self._send_slowly(message, compress)
        if self._is_writing_paused or self._burst >= BURST:
            await self._pause()

    async def _pause(self) -> None:
        if self._is_writing_paused:
            await self._drain()
        else:
            # What is sent without ever waiting would keep everybody else from it.
            self._burst = 0
            await asyncio.sleep(0)

    async def _send_slowly(
        self, message: Message | Iterable[Fragment] | AsyncIterable[Fragment], compress: bool | None
    ) -> None:
        if self._is_writing_paused:
            await self._drain()
        if self._sending is not None:
            await self._wait_to_send()
        self._check_open()
        if is_fragmented(message):
            await self._send_fragments(message, compress)  # type: ignore[arg-type]
            return
        if not isinstance(message, Prepared):
            message = as_plain(message)
        size = len(message)
        if size > COMPRESSED_SLICE and self._is_compressed_slowly(message, compress):
            await self._send_slices(prepare(message), compress)  # type: ignore[arg-type]
            return
        self._connection.send_message(message, True, compress)
        self._messages_sent += 1
        self._burst += size
        self._cork(size)

    def _is_compressed_slowly(self, message: Message, compress: bool | None) -> bool:
        return type(message) is not Prepared and self._connection.compresses(len(message), compress)

    async def _wait_to_send(self) -> None:
        while self._sending is not None:
            if self._sender is current_task():
                raise RuntimeError("a message cannot be sent inside another one")
            await asyncio.shield(self._sending)

    async def _send_fragments(
        self, fragments: Iterable[Fragment] | AsyncIterable[Fragment], compress: bool | None
    ) -> None:
        last: str | bytes | None = None
        self._start_sending()
        try:
            async for fragment in _iterate(fragments):
                last = check_fragment(fragment, last)
                self._check_open()
                self._connection.send_message(last, False, compress)
                self._cork(len(last))
                await self._yield()
            if last is not None:
                self._check_open()
                self._connection.send_message(last[:0])
                self._messages_sent += 1
                self._cork(0)
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self._stop_sending()

    async def _send_slices(self, message: Prepared, compress: bool | None) -> None:
        """Send a message in fragments that each take little time to compress."""
        connection = self._connection
        send = connection.send_text if message.opcode == TEXT else connection.send_binary
        compressed = connection.compressed
        octets = memoryview(message.payload)
        self._start_sending()
        self._messages_sent += 1
        try:
            while octets:
                self._check_open()
                send(octets[:COMPRESSED_SLICE], len(octets) <= COMPRESSED_SLICE, compress=compress)
                octets = octets[COMPRESSED_SLICE:]
                # Not a write for each slice: they are smaller now.
                size, compressed = connection.compressed - compressed, connection.compressed
                if octets:
                    self._collect(size)
                else:
                    self._cork(size)
                await self._yield()
        except asyncio.CancelledError:
            # The message is not lost by that.
            if octets and self.state is OPEN:
                send(octets, compress=compress)
                self._flush_now()
            raise
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self._stop_sending()

    def _start_sending(self) -> None:
        self._sending = self._loop.create_future()
        self._sender = current_task()

    def _stop_sending(self) -> None:
        assert self._sending is not None
        self._sending.set_result(None)
        self._sending = self._sender = None
        self._post_outbox()

    def _abandon(self, error: BaseException) -> None:
        """Close the connection, if some of a message was sent that cannot be completed."""
        connection = self._connection
        if connection.is_within_message and connection.state is OPEN and not self._is_lost:
            self._start_close(1011, ABANDONED)
            error.add_note(f"wsframe closed the connection with 1011: {ABANDONED}")

    async def _yield(self) -> None:
        """Let others have a turn, and the peer time to read."""
        if self._is_writing_paused:
            await self._drain()
        else:
            await asyncio.sleep(0)

    async def _drain(self) -> None:
        while self._is_writing_paused and not self._is_lost:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                self._drained.remove(waiter)

    async def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a Ping and wait for its Pong.

        The Pong is read when there is room for the messages before it: 16 of them, and 1 MiB. When more
        came, somebody has to receive them.

        Args:
            payload: up to 125 octets; by default 4 random ones.
            timeout: how many seconds to wait; None: for ever.

        Returns:
            The round trip, in seconds.

        Raises:
            ConnectionClosed: the connection is closing or closed, or ended before the Pong.
            LocalProtocolError: the payload is too long, or the same one is waited for already.
            TimeoutError: it did not come in time.
        """
        self._check_open()
        if payload is not None:
            payload = bytes(memoryview(payload))
        if self._pings is None:
            self._pings = Pings(None, None, 0)
        payload = self._pings.send(payload, perf_counter())
        if self._round_trips is None:
            self._round_trips = {}
        pong: asyncio.Future[float] = self._loop.create_future()
        self._round_trips[payload] = pong
        try:
            self._send_ping(payload)
            async with asyncio.timeout(timeout):
                return await pong
        finally:
            self._pings.forget(payload)
            if self._round_trips is not None:
                self._round_trips.pop(payload, None)

    # Closing

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until it is closed.

        Messages that still come are dropped, unless another task receives them.

        It does nothing more than wait when the connection is closing or closed already.

        Args:
            code: the status code: 1000 to 1003, 1007 to 1014, 3000 to 4999, or 1005 for none.
            reason: up to 123 octets of UTF-8.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
            TypeError: the code is not an int, or the reason not a string.
        """
        self._start_close(code, reason)
        self._discard()
        await self.wait_closed()

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed, which ``close`` or receiving up to its end sees to.

        Args:
            timeout: how many seconds to wait; None: for ever.

        Raises:
            TimeoutError: it is not closed in time.
        """
        if timeout is not None:
            async with asyncio.timeout(timeout):
                await self.wait_closed()
        elif not self._is_lost:
            closer = self._loop.create_future()
            self._closers.append(closer)
            try:
                await closer
            finally:
                self._closers.remove(closer)

    def add_close_callback(self, callback: Callable[[WebSocket], object]) -> None:
        """Schedule a call of ``callback(websocket)`` for when the connection is closed.

        The event loop calls it soon after TCP is closed; if TCP is closed already, soon after this returns.
        An exception that it raises goes to the event loop's exception handler. As with ``asyncio.Future``, a
        callback that is added twice is called twice.

        Args:
            callback: a function, not a coroutine function.
        """
        if self._is_lost:
            self._loop.call_soon(callback, self)
        else:
            self._close_callbacks += (callback,)

    def remove_close_callback(self, callback: Callable[[WebSocket], object]) -> None:
        """Remove a callback that ``add_close_callback`` added, however often. Do nothing if it is not there.

        Args:
            callback: the callback.
        """
        self._close_callbacks = tuple(other for other in self._close_callbacks if other != callback)

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Pieces:
    """Iterate over the pieces of one message: what ``recv_stream`` returns."""

    __slots__ = ("_is_begun", "_is_over", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._is_begun = False
        self._is_over = False

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str | bytes:
        if self._is_over:
            raise StopAsyncIteration
        if self._is_begun and self._websocket._pieces is not self:
            raise RuntimeError("the rest of this message was dropped by another recv, or by close")
        piece = await self._websocket._receive_piece(self)
        self._is_over = piece.final
        if self._is_begun and not piece.data:
            raise StopAsyncIteration  # the last fragment was empty
        self._is_begun = True
        return piece.data


async def _iterate(fragments: Iterable[Fragment] | AsyncIterable[Fragment]) -> AsyncIterator[Fragment]:
    if isinstance(fragments, AsyncIterable):
        async for fragment in fragments:
            yield fragment
    else:
        for fragment in fragments:
            yield fragment
