"""The sockets that a server listens on: made for an address, or inherited from another process.

Address(host, port, unix, sock)  -- resolved by the adapter, which may not block -->  listen()  -->  Listeners
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from .sockets import check_unix

__all__ = ["BACKLOG", "Address", "Listeners"]

Found: TypeAlias = Iterable[tuple[int, int, int, str, Any]]  # what getaddrinfo returns

_NO_NUMBER = 2**32 - 1  # of a user or group: chown() takes it for "unchanged"
# How many clients may wait to be accepted, where the system allows it: as many as Python's own listen() lets.
BACKLOG = 128
_ATTEMPTS = 16  # at a port that is free on every address


class Address:
    """An address for a server to listen on.

    Args:
        host: one or more names or addresses; None or "": on all interfaces.
        port: the TCP port; 0 or None: any free one, the same on every address.
        unix: one or more paths of Unix sockets. One that begins with NUL is a name in Linux's abstract
            namespace.
        sock: one or more bound sockets, which may listen already.
        reuse_port: whether other processes may listen on the same port, and share its clients.
        unix_mode: the permission bits of the Unix sockets, such as 0o660; None: what the umask leaves.
        unix_owner: their owner: ``"user"``, ``"user:group"`` or ``":group"``, by name or number; None: the
            user and group of this process.

    Raises:
        ValueError: the arguments exclude each other, a socket is no stream, or there is no such owner.
        TypeError: an argument has a wrong type.
    """

    def __init__(
        self,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        unix: str | Sequence[str] | None = None,
        sock: socket.socket | Sequence[socket.socket] | None = None,
        *,
        reuse_port: bool = False,
        unix_mode: int | None = None,
        unix_owner: str | None = None,
    ) -> None:
        if [host is not None or port is not None, unix is not None, sock is not None].count(True) != 1:
            raise ValueError("give one of: host and port, unix, sock")
        self.hosts: list[str | None] = []
        self.port = port or 0
        self._paths: list[str] = []
        self._sockets: list[socket.socket] = []
        self._reuse_port = reuse_port
        self._mode = None if unix_mode is None else _check_mode(unix_mode)
        self._owner = None if unix_owner is None else _find_owner(unix_owner)
        if unix is not None:
            check_unix()
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
        if not (unix_mode is None and unix_owner is None):
            if not self._paths:
                raise ValueError("unix_mode and unix_owner go with unix")
            if any(os.fspath(path).startswith("\0") for path in self._paths):
                raise ValueError("an abstract Unix socket has neither unix_mode nor unix_owner")
        if reuse_port and not self.hosts:
            raise ValueError("reuse_port goes with host and port")
        if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("this system has no reuse_port")

    @property
    def is_inherited(self) -> bool:
        """Whether the sockets were made elsewhere."""
        return bool(self._sockets)

    def listen(self, found: Iterable[Found] = ()) -> Listeners:
        """Listen.

        Args:
            found: the results of ``getaddrinfo`` for each of ``hosts`` and ``port``, for stream sockets and
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
                listeners.add_unix(os.fspath(path), self._mode, self._owner)
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
    """The sockets that a server listens on.

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

    def add_unix(self, path: str, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
        """Listen on a Unix socket, in the place of one whose server has ended.

        Args:
            path: its path.
            mode: its permission bits; None: what the umask leaves.
            owner: the numbers of its user and group, -1 for the one that it has; None: both.

        Raises:
            OSError: it cannot be listened on, because another server may listen there; or it cannot be given
                to this owner.
        """
        is_file = not path.startswith("\0")
        if is_file:
            _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX)
        self.sockets.append(sock)
        with _explained(f"listen on {path!r}"):
            sock.bind(path)
        if is_file:
            self._files[path] = _identity(path)
        # Nobody can connect before listen(), whatever the mode is until then.
        if owner is not None:
            with _explained(f"set the owner of {path!r}"):
                os.chown(path, *owner, follow_symlinks=False)
        if mode is not None:
            with _explained(f"set the mode of {path!r}"):
                os.chmod(path, mode)
        with _explained(f"listen on {path!r}"):
            sock.listen(BACKLOG)

    def close(self) -> None:
        """Close the sockets, and remove the files of those that were made here."""
        for path, identity in self._files.items():
            with suppress(OSError):  # it is gone already
                if _identity(path) == identity:  # else another server listens there by now
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
    if os.name == "posix":  # elsewhere it would share the port with another server
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        with _explained(f"listen on {address!r}"):
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot {what}: {error.strerror or error}") from None


def _check_mode(mode: int) -> int:
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise TypeError(f"unix_mode must be an int such as 0o660, not {type(mode).__name__}")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"unix_mode must be from 0 to 0o777, such as 0o660, not {mode} ({mode:#o})")
    return mode


def _find_owner(owner: str) -> tuple[int, int]:
    """Return the numbers of a user and a group; -1: it is left as it is."""
    if not isinstance(owner, str):
        raise TypeError(f'unix_owner must be a str such as "www-data", not {type(owner).__name__}')
    user, colon, group = owner.partition(":")
    if not (group if colon else user):
        raise ValueError(f'unix_owner must be "user", "user:group" or ":group", not {owner!r}')
    import grp  # Windows has neither
    import pwd

    return (
        _find(user, "user", lambda name: pwd.getpwnam(name).pw_uid),
        _find(group, "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _find(name: str, kind: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    try:
        return look_up(name)
    except (KeyError, ValueError):  # ValueError: it has a NUL, or a lone surrogate
        # chown(1) takes numbers, too: a container may have no names.
        if name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) < _NO_NUMBER:
            return int(name)
        raise ValueError(f"unix_owner: there is no {kind} {name!r}") from None


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    """Remove a socket whose server has ended without removing it."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # and bind() says that it is in the way
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            if client.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)
