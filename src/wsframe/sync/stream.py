"""A connected socket, as the few things that a WebSocket asks of it.

``SocketStream`` is TCP or a Unix socket, which blocks. ``TLSStream`` never blocks inside OpenSSL, whose
objects must not be used by two threads at a time: it waits for the socket outside of its lock.

A signal handler may raise (Ctrl-C does), and no byte may be lost by that. The interpreter runs the handlers
after a call of a function in C, before it stores the result. It does not run them before it stores what an
iterator in C yields. So ``(count,) = map(receive, ...)`` either stores the count or has done nothing.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from ..adapter.sockets import set_nodelay

__all__ = ["SocketStream", "TLSStream", "deadline_after", "earlier", "remaining"]

T = TypeVar("T")

_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)


def deadline_after(seconds: float | None) -> float | None:
    """Return the deadline that is some seconds away.

    Args:
        seconds: how many; None: there is no deadline.
    """
    return None if seconds is None else monotonic() + seconds


def remaining(deadline: float | None) -> float | None:
    """Return how many seconds are left.

    Args:
        deadline: a value of ``time.monotonic``; None: there is none.

    Raises:
        TimeoutError: no time is left.
    """
    if deadline is None:
        return None
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def earlier(one: float | None, other: float | None) -> float | None:
    """Return the earlier of two deadlines, of which None is never.

    Args:
        one: a deadline.
        other: another one.
    """
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class SocketStream:
    """A connected socket without TLS.

    Args:
        sock: a connected socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        set_nodelay(sock)
        sock.settimeout(None)

    def do_handshake(self, deadline: float | None) -> None:
        """Do the TLS handshake, which there is none of here.

        Args:
            deadline: when to give up; None: never.

        Raises:
            TimeoutError: it took too long.
            OSError: it failed.
        """

    def receive_into(self, buffer: bytearray | memoryview, deadline: float | None) -> int:
        """Receive some bytes, and return how many; 0 is the end of the stream.

        Args:
            buffer: where they go.
            deadline: when to give up; None: never.

        Raises:
            TimeoutError: no byte came in time.
            OSError: the connection is broken.
        """
        if deadline is None:
            (count,) = map(self.sock.recv_into, (buffer,))
            return count
        while True:
            self._wait(deadline, write=False)
            try:
                (count,) = map(self.sock.recv_into, (buffer,), (0,), (_DONTWAIT,))
                return count
            except BlockingIOError:
                pass

    def send(self, data: memoryview, deadline: float | None) -> int:
        """Send some bytes, and return how many.

        Args:
            data: what to send, one byte or more.
            deadline: when to give up; None: never.

        Raises:
            TimeoutError: no byte could be sent in time.
            OSError: the connection is broken.
        """
        if deadline is None:
            (count,) = map(self.sock.send, (data,))
            return count
        # A short answer fits in long before the socket counts as ready, with a third of its buffer free.
        # Without MSG_DONTWAIT, a socket that is not ready blocks.
        is_tried = not _DONTWAIT
        while True:
            if is_tried:
                self._wait(deadline, write=True)
            is_tried = True
            try:
                (count,) = map(self.sock.send, (data,), (_DONTWAIT,))
                return count
            except BlockingIOError:
                pass

    def wait_for_either(self, deadline: float | None) -> bool:
        """Wait until there are bytes to receive or room to send, and tell whether to receive.

        Args:
            deadline: when to stop waiting, and try to receive; None: never.

        Raises:
            OSError: the socket is closed.
        """
        return self._select(deadline, read=True, write=True) != (False, True)

    def shut_down(self) -> None:
        """Close this end's direction: the peer reads what was sent, and then the end of the stream."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def drain(self, deadline: float | None) -> None:
        """Drop what comes, until the peer closes its direction.

        Closing a socket that has unread bytes resets the connection, and the reset destroys what the
        peer has not read yet.

        Args:
            deadline: when to give up; None: never.
        """
        scratch = memoryview(bytearray(65536))
        with suppress(OSError):  # TimeoutError is one
            while self.receive_into(scratch, deadline):
                remaining(deadline)

    def abort(self) -> None:
        """Break the connection: threads that wait for it wake up."""
        # Not SSLSocket.shutdown, after which the socket would be read as if there had been no TLS.
        with suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _wait(self, deadline: float | None, *, write: bool) -> None:
        if not any(self._select(deadline, read=not write, write=write)):
            raise TimeoutError("timed out")

    def _select(self, deadline: float | None, *, read: bool, write: bool) -> tuple[bool, bool]:
        """Wait for the socket, and return what it is ready for: to be read, and to be written."""
        # After the deadline, look once: recv(timeout=0) takes what is there.
        seconds = None if deadline is None else max(0, deadline - monotonic())
        if self.sock.fileno() < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        if not hasattr(select, "poll"):
            socks = [self.sock]
            readable, writable, _ = select.select(socks if read else [], socks if write else [], [], seconds)
            return bool(readable), bool(writable)
        poll = select.poll()
        poll.register(self.sock, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
        for _, events in poll.poll(None if seconds is None else seconds * 1000):
            # An error, or that the peer has hung up, is told by what is tried next.
            return bool(read and events & ~select.POLLOUT), bool(write and events & ~select.POLLIN)
        return False, False


class TLSStream(SocketStream):
    """A connected socket with TLS.

    Args:
        sock: a wrapped socket, whose handshake is still to come.
    """

    sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        sock.settimeout(0)
        # Reentrant, because a signal handler may send within a call that receives. Then that call is between
        # two functions of OpenSSL, not within one.
        self._lock = threading.RLock()
        self._is_torn = False  # whether a signal handler raised when OpenSSL had read or written something

    def do_handshake(self, deadline: float | None) -> None:
        """Do the TLS handshake."""
        self._retry(self.sock.do_handshake, deadline)

    def receive_into(self, buffer: bytearray | memoryview, deadline: float | None) -> int:
        """Receive some bytes, and return how many; 0 is the end of the stream."""
        return self._retry(lambda: self.sock.recv_into(buffer), deadline)

    def send(self, data: memoryview, deadline: float | None) -> int:
        """Send some bytes, and return how many."""
        return self._retry(lambda: self.sock.send(data), deadline)

    def wait_for_either(self, deadline: float | None) -> bool:
        """Wait until there are bytes to receive or room to send, and tell whether to receive."""
        with self._lock:
            if self.sock.pending():
                return True
        return super().wait_for_either(deadline)

    def shut_down(self) -> None:
        """Close this end's direction: say so in TLS, then in TCP."""
        with self._lock:
            # unwrap() sends the alert, and then fails because it does not wait for the peer's.
            with suppress(OSError, ValueError):
                self.sock.unwrap()
            # From here on the socket is read as TCP, so that drain() does not mind what TLS thinks of it.
            # And it is written as TCP: the lock is held until it is shut down, so that nothing leaks.
            super().shut_down()

    def _retry(self, operation: Callable[[], T], deadline: float | None) -> T:
        has_waited = False
        while True:
            if self._is_torn:
                raise ConnectionAbortedError(errno.ECONNABORTED, "TLS was interrupted")
            write = False
            try:
                with self._lock:
                    return operation()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                write = True
            except BlockingIOError:
                pass  # after shut_down(), when it is TCP
            except OSError:
                raise
            except BaseException:
                self._is_torn = True
                raise
            if has_waited:
                remaining(deadline)  # a peer may send records without data forever
            has_waited = True
            self._wait(deadline, write=write)
