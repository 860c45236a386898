"""The sockets that a server listens on: made for an address, or inherited from whoever has made them.

Address(host, port, unix, sock)  -- resolved by the adapter, which may not block -->  listen()  -->  Listeners
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

__all__ = ["BACKLOG", "Address", "Listeners"]

Found: TypeAlias = Iterable[tuple[int, int, int, str, Any]]  # what getaddrinfo returns

# How many clients may wait to be accepted, where the system allows it: as many as Python's own listen() lets.
BACKLOG = 128
_ATTEMPTS = 16  # at a port that is free on every address


class Address:
    """Say where a server is to listen.

    Args:
        host: one or more names or addresses; None or "": on all interfaces.
        port: the TCP port; 0 or None: any free one, the same on every address.
        unix: one or more paths of Unix sockets. One that begins with NUL is a name in Linux's abstract
            namespace.
        sock: one or more bound sockets, which may listen already.
        reuse_port: whether other processes may listen on the same port, and share its clients.

    Raises:
        ValueError: the arguments exclude each other, or a socket is no stream.
    """

    def __init__(
        self,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        unix: str | Sequence[str] | None = None,
        sock: socket.socket | Sequence[socket.socket] | None = None,
        *,
        reuse_port: bool = False,
    ) -> None:
        if [host is not None or port is not None, unix is not None, sock is not None].count(True) != 1:
            raise ValueError("give one of: host and port, unix, sock")
        self.hosts: list[str | None] = []
        self.port = port or 0
        self._paths: list[str] = []
        self._sockets: list[socket.socket] = []
        self._reuse_port = reuse_port
        if unix is not None and not hasattr(socket, "AF_UNIX"):
            raise ValueError("this system has no Unix sockets")
        if unix is not None:
            self._paths = [unix] if isinstance(unix, (str, os.PathLike)) else list(unix)
        elif sock is not None:
            self._sockets = [sock] if isinstance(sock, socket.socket) else list(sock)
            for listener in self._sockets:
                if listener.type != socket.SOCK_STREAM:
                    raise ValueError(f"sock must be a stream socket, not {listener!r}")
        else:
            self.hosts = [host or None] if host is None or isinstance(host, str) else list(host)
        if not (self.hosts or self._paths or self._sockets):
            raise ValueError("there is nothing to listen on: the list is empty")
        if reuse_port and not self.hosts:
            raise ValueError("reuse_port goes with host and port")
        if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("this system has no reuse_port")

    @property
    def is_inherited(self) -> bool:
        """Whether somebody else has made the sockets."""
        return bool(self._sockets)

    def listen(self, found: Iterable[Found] = ()) -> Listeners:
        """Listen.

        Args:
            found: what ``getaddrinfo`` returned for each of ``hosts`` and ``port``, for stream sockets and
                with AI_PASSIVE.

        Raises:
            OSError: an address cannot be listened on.
        """
        listeners = Listeners()
        try:
            for sock in self._sockets:
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    sock.listen(BACKLOG)  # else it keeps the backlog that it has
                listeners.sockets.append(sock)
            for path in self._paths:
                listeners.add_unix(os.fspath(path))
            if self.hosts:
                places = dict.fromkeys(
                    (family, address) for each in found for family, _, _, _, address in each
                )
                listeners.add_tcp(list(places), self.port, self._reuse_port)
                if not listeners.sockets:
                    raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {self.hosts}: no such address here")
        except BaseException:
            listeners.close()
            raise
        return listeners


class Listeners:
    """Hold the sockets that a server listens on.

    Attributes:
        sockets: these sockets; none when they are closed.
    """

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        self.sockets = list(sockets)
        self._files: dict[str, tuple[int, int]] = {}  # path -> device and inode of our socket

    @property
    def port(self) -> int:
        """The TCP port that they listen on; a Unix socket has none, and raises a ValueError."""
        for sock in self.sockets:
            name = sock.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
        raise ValueError("a Unix socket has no port" if self.sockets else "the server does not listen")

    def add_tcp(self, places: Sequence[tuple[int, Any]], port: int, reuse_port: bool) -> None:
        """Listen on TCP addresses, on the same port.

        Args:
            places: their families and socket addresses.
            port: the port; 0: any that is free on all of them.
            reuse_port: whether to share it with other processes.

        Raises:
            OSError: an address cannot be listened on.
        """
        for attempt in range(_ATTEMPTS):
            free = port
            try:
                for family, address in places:
                    sock = _listen_on(family, (address[0], free, *address[2:]), reuse_port)
                    if sock is not None:
                        self.sockets.append(sock)
                        free = sock.getsockname()[1]
                return
            except OSError as error:
                # The port that was free on the first address is taken on another one.
                if error.errno != errno.EADDRINUSE or port or attempt == _ATTEMPTS - 1:
                    raise
                self.close()

    def add_unix(self, path: str) -> None:
        """Listen on a Unix socket, in the place of one that nobody listens on any more.

        Args:
            path: its path.

        Raises:
            OSError: it cannot be listened on; somebody else may listen there.
        """
        is_file = not path.startswith("\0")
        if is_file:
            _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX)
        _listen(sock, path)
        self.sockets.append(sock)
        if is_file:
            self._files[path] = _identity(path)

    def close(self) -> None:
        """Close the sockets, and remove the files of those that were made here."""
        for path, identity in self._files.items():
            with suppress(OSError):  # it is gone already
                if _identity(path) == identity:  # else somebody else listens there by now
                    os.unlink(path)
        self._files.clear()
        while self.sockets:
            self.sockets.pop().close()


def _listen_on(family: int, address: Any, reuse_port: bool) -> socket.socket | None:
    """Listen on a TCP address; None: this machine has no IPv6, although it knows the name."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    if os.name == "posix":  # elsewhere it would share the port with whoever has it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        _listen(sock, address)
    except OSError as error:
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return sock


def _listen(sock: socket.socket, address: Any) -> None:
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address!r}: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on: its server has ended without removing it."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # and bind() says that it is in the way
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            if client.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)
