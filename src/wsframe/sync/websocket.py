"""A WebSocket on a blocking socket: the calls of an application. driver.py has what they rest on."""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from time import monotonic

from ..adapter.facts import Facts
from ..adapter.session import CLEAN_CODES, PieceReader
from ..errors import ConnectionClosed
from .driver import REFUSALS, SECOND, Driver
from .stream import deadline_after

__all__ = ["WebSocket"]


class WebSocket(Facts, Driver):
    """An open WebSocket, which ``connect`` returns and ``serve`` passes to its handler.

    Iterating over it gives its messages: text as ``str``, binary as ``bytes``. The iteration ends when the
    connection is closed with 1000, 1001 or no code, and raises ``ConnectionClosed`` when it is closed
    otherwise or lost. Any thread may call any method. Pings are answered, and sent, while a thread is in
    ``recv``.
    """

    def recv_stream(self, timeout: float | None = None) -> Pieces:
        """Receive the next message in pieces, as they arrive: ``for piece in ws.recv_stream()``.

        It takes as much memory as the pieces that have arrived, not as much as the message. For a message of
        any size, open the connection with ``max_message_size=None``. Text comes in pieces of ``str``, binary
        in pieces of ``bytes``. An empty message is one empty piece. The next ``recv`` or ``recv_stream``
        drops the rest of a message that was not received to its end.

        The iterator raises what ``recv`` raises, also in the middle of a message that does not arrive whole.
        After a TimeoutError it goes on.

        Args:
            timeout: how many seconds to wait for each piece; None for no limit.
        """
        return Pieces(self, timeout)

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        try:
            return self.recv()
        except ConnectionClosed as closed:
            if closed.clean and closed.code in CLEAN_CODES:
                raise StopIteration from None
            raise

    def ping(self, payload: bytes | None = None, timeout: float | None = None) -> float:
        """Send a Ping and wait for its Pong. Messages that come before it are kept for ``recv``.

        Args:
            payload: up to 125 bytes; by default 4 random ones.
            timeout: how many seconds to wait; None for no limit.

        Returns:
            The round trip, in seconds.

        Raises:
            ConnectionClosed: the connection is closing or closed, or ended before the Pong.
            LocalProtocolError: the payload is too long, or the same one is waited for already.
            TimeoutError: it did not come in time.
            RuntimeError: 16 messages or 1 MiB came before it, and no thread receives them. Or a signal
                handler calls it that has interrupted another call.
        """
        deadline = deadline_after(timeout)
        if payload is not None:
            payload = bytes(memoryview(payload))
        if self._is_inside():
            raise RuntimeError(
                "a signal handler cannot ping: it has interrupted a call that uses the connection"
            )
        thread = get_ident()
        answer: list[float | None] = []
        on_pong = answer.append
        is_late = False
        try:
            try:
                with self._lock:
                    payload = self.session.send_ping(payload, on_pong)
            except REFUSALS:
                raise
            except BaseException:
                self._give_up()
                raise
            self._flush(deadline)
            while True:
                try:
                    with self._lock:
                        while self._reader and not answer and self.session.end is None:
                            self._wait_for_reader(deadline)
                        if answer and answer[0] is not None:
                            return answer[0]
                        if self.session.end is not None:
                            raise self.session.closed_error()
                        if is_late:
                            raise TimeoutError("timed out")
                        is_late = deadline is not None and monotonic() >= deadline
                        self._reader = thread
                    is_full = self._look_ahead(deadline)
                    if not answer and self.session.end is None:
                        if is_full:
                            raise RuntimeError("the receive queue is full: receive its messages first")
                        self._read(deadline)
                finally:
                    if self._reader == thread:
                        self._reader = 0
                        self._stop_reading()
        finally:
            with self._lock:
                if payload is not None:
                    self.session.forget_ping(payload, on_pong)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until it is closed.

        Messages that still come are dropped, unless another thread receives them.

        It does nothing more than wait when the connection is closing or closed already. In a signal handler
        that has interrupted another call of this connection, it cannot wait: it sends the Close and returns.
        The interrupted call does the rest, and raises ``ConnectionClosed``.

        Args:
            code: the status code: 1000 to 1003, 1007 to 1014, 3000 to 4999, or 1005 for none.
            reason: up to 123 bytes of UTF-8.

        Raises:
            LocalProtocolError: the code or the reason cannot be sent.
            TypeError: the code is not an int, or the reason not a string.
        """
        if self._is_inside():
            if not self._lock._is_owned():
                with suppress(TimeoutError):
                    self.start_close(code, reason, monotonic())
            self._defer(self.close, code, reason)
            return
        thread = get_ident()
        try:
            try:
                self.start_close(code, reason)
                self.session.begin_closing()
                self._start_reading(thread, self.session.close_deadline)
            except TimeoutError:
                # Another thread reads, and the peer does not close: wake it, and take its place. If a signal
                # handler holds it up, go on all the same.
                self.abort()
                with suppress(TimeoutError):
                    self._start_reading(thread, monotonic() + SECOND)
            try:
                if self._reader == thread:
                    self._drop_messages(self.session.close_deadline)
            except TimeoutError:
                self.abort()
            finally:
                self.close_tcp(None)
        finally:
            if self._reader == thread:
                self._reader = 0
            self._stop_reading()

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed, which another thread sees to.

        Args:
            timeout: how many seconds to wait; None for no limit.

        Raises:
            TimeoutError: it is not closed in time.
            RuntimeError: a signal handler calls it that has interrupted a change of the connection.
        """
        deadline = deadline_after(timeout)
        if self._lock._is_owned():
            raise RuntimeError("a signal handler cannot wait here: it has interrupted a call")
        with self._lock:
            while not self.session.is_lost:
                self._wait(deadline)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pieces(PieceReader):
    """The iterator over the pieces of one message that ``recv_stream`` returns."""

    __slots__ = ("_timeout", "_websocket")

    def __init__(self, websocket: WebSocket, timeout: float | None) -> None:
        super().__init__()
        self._websocket = websocket
        self._timeout = timeout

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> str | bytes:
        if self.is_over:
            raise StopIteration
        data = self.accept(self._websocket._receive(self, self._timeout))
        if data is None:
            raise StopIteration
        return data
