"""A WebSocket on asyncio: the calls that wait. The event loop's calls, and the rules, are in protocol.py."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

from ..adapter.facts import Facts
from ..adapter.session import CLEAN_CODES, PieceReader
from ..connection import ABANDONED, Fragment, Message, as_plain, check_fragment, is_fragmented
from ..errors import ConnectionClosed
from ..events import Binary, Text
from ..prepared import Prepared, prepare
from .protocol import BURST, Protocol

__all__ = ["WebSocket"]

T = TypeVar("T")

# A message of more bytes is compressed in slices, between which others have a turn. Measured with 1 MiB of
# JSON: compressed at once it stops the loop for 8 ms, in slices for 0.5 ms, and takes as long; a thread
# would not be quicker for one connection, and is not needed for the others.
COMPRESSED_SLICE = 65536


class WebSocket(Facts, Protocol, asyncio.BufferedProtocol):
    """An open WebSocket, which ``connect`` returns and ``serve`` passes to its handler.

    Iterating over it gives its messages: text as ``str``, binary as ``bytes``. The iteration ends when the
    connection is closed with 1000, 1001 or no code, and raises ``ConnectionClosed`` when it is closed
    otherwise or lost. Any task may send; one at a time may receive.
    """

    __slots__ = ()

    # Receiving

    async def recv(self, timeout: float | None = None) -> str | bytes:
        """Receive the next message. Cancelling it loses none.

        Args:
            timeout: how many seconds to wait; None for no limit.

        Returns:
            Text as ``str``, binary as ``bytes``.

        Raises:
            ConnectionClosed: the connection ended, and all messages before its end were received.
            TimeoutError: no message came in time.
            RuntimeError: another task is receiving.
        """
        message = self._take()
        if message is None and timeout is None:
            message = await self._wait() or self._take() or await self._receive()
        elif message is None:
            message = await self._receive(None, timeout)
        return message.data

    def recv_stream(self, timeout: float | None = None) -> Pieces:
        """Receive the next message in pieces, as they arrive: ``async for piece in ws.recv_stream()``.

        It takes as much memory as the pieces that have arrived, not as much as the message. For a message of
        any size, open the connection with ``max_message_size=None``. Text comes in pieces of ``str``, binary
        in pieces of ``bytes``. An empty message is one empty piece. Cancelling it loses nothing: go on with
        the same iterator. The next ``recv`` or ``recv_stream`` drops the rest of a message that was not
        received to its end.

        The iterator raises what ``recv`` raises, also in the middle of a message that does not arrive whole.
        After a TimeoutError it goes on.

        Args:
            timeout: how many seconds to wait for each piece; None for no limit.
        """
        return Pieces(self, timeout)

    async def _receive(
        self, reader: PieceReader | None = None, timeout: float | None = None
    ) -> Text | Binary:
        """Receive the next message, or the next piece for a reader. It takes longer than ``_take``."""
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self._receive(reader)
        while (message := self._take(reader)) is None:
            await self._wait()
        return message

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            message = self._take() or await self._wait() or self._take() or await self._receive()
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
        self.session.check_sendable()
        if is_fragmented(message):
            await self._send_fragments(message, compress)  # type: ignore[arg-type]
            return
        if not isinstance(message, Prepared):
            message = as_plain(message)
        size = len(message)
        if size > COMPRESSED_SLICE and self._is_compressed_slowly(message, compress):
            await self._send_slices(prepare(message), compress)  # type: ignore[arg-type]
            return
        self.session.send(message, True, compress)
        self._burst += size
        self._cork(size)

    def _is_compressed_slowly(self, message: Message, compress: bool | None) -> bool:
        return type(message) is not Prepared and self.session.connection.compresses(len(message), compress)

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
                self.session.send(last, False, compress)
                self._cork(len(last))
                await self._yield()
            if last is not None:
                self.session.send(last[:0])
                self._cork(0)
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self._stop_sending()

    async def _send_slices(self, message: Prepared, compress: bool | None) -> None:
        """Send a message in fragments that each take little time to compress."""
        session, connection = self.session, self.session.connection
        data = memoryview(message.payload)
        compressed = connection.compressed
        self._start_sending()
        try:
            while data:
                session.send_slice(
                    message.opcode, data[:COMPRESSED_SLICE], len(data) <= COMPRESSED_SLICE, compress
                )
                data = data[COMPRESSED_SLICE:]
                # Not a write for each slice: they are smaller now.
                size, compressed = connection.compressed - compressed, connection.compressed
                if data:
                    self._collect(size)
                else:
                    self._cork(size)
                await self._yield()
        except asyncio.CancelledError:
            # The message is not lost by that.
            if data and session.is_sendable():
                session.send_slice(message.opcode, data, True, compress)
                self.flush()
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
        if self.session.connection.is_within_message and self.session.is_sendable():
            self.start_close(1011, ABANDONED)
            error.add_note(f"wsframe closed the connection with 1011: {ABANDONED}")

    async def _yield(self) -> None:
        """Let others have a turn, and the peer time to read."""
        if self._is_writing_paused:
            await self._drain()
        else:
            await asyncio.sleep(0)

    async def _drain(self) -> None:
        while self._is_writing_paused and not self.session.is_lost:
            waiter = self._loop.create_future()
            self._drain_waiters += (waiter,)
            try:
                await waiter
            finally:
                self._drain_waiters = _without(self._drain_waiters, waiter)

    async def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a Ping and wait for its Pong.

        The Pong is read when there is room for the messages before it: 16 of them, and 1 MiB. When more
        came, a task has to receive them.

        Args:
            payload: up to 125 bytes; by default 4 random ones.
            timeout: how many seconds to wait; None for no limit.

        Returns:
            The round trip, in seconds.

        Raises:
            ConnectionClosed: the connection is closing or closed, or ended before the Pong.
            LocalProtocolError: the payload is too long, or the same one is waited for already.
            TimeoutError: it did not come in time.
        """
        if payload is not None:
            payload = bytes(memoryview(payload))
        pong: asyncio.Future[float | None] = self._loop.create_future()

        def on_pong(seconds: float | None) -> None:
            if not pong.done():
                pong.set_result(seconds)

        payload = self.session.send_ping(payload, on_pong)
        self.flush()
        try:
            async with asyncio.timeout(timeout):
                seconds = await pong
        finally:
            self.session.forget_ping(payload, on_pong)
        if seconds is None:
            raise self.session.closed_error()
        return seconds

    # Closing

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until it is closed.

        Messages that still come are dropped, unless another task receives them.

        It does nothing more than wait when the connection is closing or closed already.

        Args:
            code: the status code: 1000 to 1003, 1007 to 1014, 3000 to 4999, or 1005 for none.
            reason: up to 123 bytes of UTF-8.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
            TypeError: the code is not an int, or the reason not a string.
        """
        self.start_close(code, reason)
        self.discard()
        await self.wait_closed()

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed. ``close``, or receiving up to its end, sees to that.

        Args:
            timeout: how many seconds to wait; None for no limit.

        Raises:
            TimeoutError: it is not closed in time.
        """
        if timeout is not None:
            async with asyncio.timeout(timeout):
                await self.wait_closed()
        elif not self.session.is_lost:
            waiter = self._loop.create_future()
            self._close_waiters += (waiter,)
            try:
                await waiter
            finally:
                self._close_waiters = _without(self._close_waiters, waiter)

    def add_close_callback(self, callback: Callable[[WebSocket], object]) -> None:
        """Schedule a call of ``callback(websocket)`` for when the connection is closed.

        The event loop calls it soon after TCP is closed; if TCP is closed already, soon after this returns.
        An exception that it raises goes to the event loop's exception handler. As with ``asyncio.Future``, a
        callback that is added twice is called twice.

        Args:
            callback: a function, not a coroutine function.
        """
        if self.session.is_lost:
            self._loop.call_soon(callback, self)
        else:
            self._close_callbacks += (callback,)

    def remove_close_callback(self, callback: Callable[[WebSocket], object]) -> None:
        """Remove a callback that ``add_close_callback`` added, however often. Do nothing if it is not there.

        Args:
            callback: the callback.
        """
        self._close_callbacks = _without(self._close_callbacks, callback)

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Pieces(PieceReader):
    """The iterator over the pieces of one message that ``recv_stream`` returns."""

    __slots__ = ("_timeout", "_websocket")

    def __init__(self, websocket: WebSocket, timeout: float | None) -> None:
        super().__init__()
        self._websocket = websocket
        self._timeout = timeout

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str | bytes:
        if self.is_over:
            raise StopAsyncIteration
        data = self.accept(await self._websocket._receive(self, self._timeout))
        if data is None:
            raise StopAsyncIteration
        return data


def _without(items: tuple[T, ...], item: T) -> tuple[T, ...]:
    # They stand in tuples because an empty tuple takes no memory, and most connections have no waiter.
    return tuple(other for other in items if other != item)


async def _iterate(fragments: Iterable[Fragment] | AsyncIterable[Fragment]) -> AsyncIterator[Fragment]:
    if isinstance(fragments, AsyncIterable):
        async for fragment in fragments:
            yield fragment
    else:
        for fragment in fragments:
            yield fragment
