"""``connect``: open a WebSocket on a blocking socket (RFC 6455, section 4.1)."""

from __future__ import annotations

import selectors
import socket
import ssl as tls
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from ..adapter.connecting import ATTEMPT_DELAY, Route, handshake_failure, interleave, unreachable
from ..adapter.options import ClientOptions, Timing
from ..adapter.proxy import Proxy, Tunnel, socks
from ..deflate import DEFAULT, Deflate
from ..errors import HandshakeRejected
from ..events import Fail
from ..handshake import HeaderList
from .stream import SocketStream, TLSStream, deadline_after, remaining
from .websocket import WebSocket

__all__ = ["connect"]


def connect(
    uri: str,
    *,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    additional_headers: HeaderList = (),
    compression: Deflate | None = DEFAULT,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    unix: str | None = None,
    sock: socket.socket | None = None,
    proxy: str | bool | None = True,
    max_redirects: int = 10,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    max_message_size: int | None = 2**20,
) -> WebSocket:
    """Open a WebSocket connection.

    ``with connect(uri) as websocket`` closes it at the end.

    Args:
        uri: the address, ``ws://`` or ``wss://``.
        subprotocols: the subprotocols to offer, the favourite first.
        origin: the value of an Origin header.
        additional_headers: more headers for the request; a value is a ``str`` in ISO 8859-1, or ``bytes``.
        compression: the compression to offer; None to disable it. By default it is the offer of browsers.
        ssl: the TLS context for ``wss://``; by default one that verifies the server.
        server_hostname: the name that the server's certificate must have; by default the host.
        unix: connect to the Unix socket at this path.
        sock: use this connected socket.
        proxy: the proxy to go through: ``http://``, ``socks4://``, ``socks4a://``, ``socks5://`` or
            ``socks5h://user:password@host:port``; True: the proxy of the environment; None: no proxy.
            Not with ``unix`` or ``sock``. SOCKS needs ``pip install 'wsframe[proxy]'``.
        max_redirects: how many redirects to follow; 0 for no redirects. They never lead from TLS to TCP.
            To another scheme, host or port they take no user name, password, Authorization or Cookie along.
        open_timeout: how many seconds opening may take, with all redirects; None: no limit.
            It does not interrupt the system when that looks up a name.
        close_timeout: how many seconds closing may take before the connection is cut; None: no limit.
        ping_interval: how many seconds pass between Pings that keep the connection alive; None: send none.
            They are sent while a thread is in ``recv``.
        ping_timeout: how many seconds a Pong may take before the connection fails with 1011; None: any time.
        max_message_size: the largest message to receive, in bytes; None: no limit.

    Raises:
        InvalidURI: the address is not one.
        HandshakeRejected: the server, or the proxy, refused the connection; the error has its response.
        HandshakeFailed: the opening handshake did not succeed for another reason.
        OSError: the TCP connection or TLS failed.
        TimeoutError: opening took longer than ``open_timeout``.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: arguments exclude each other, a number is out of range, or the proxy is not one.
        TypeError: an argument has a wrong type.
        ImportError: python-socks is not installed.
    """
    options = ClientOptions(
        uri,
        subprotocols=subprotocols,
        origin=origin,
        additional_headers=additional_headers,
        compression=compression,
        max_message_size=max_message_size,
        ssl=ssl,
        server_hostname=server_hostname,
        unix=unix,
        sock=sock,
        proxy=proxy,
        max_redirects=max_redirects,
        timing=Timing(open_timeout, close_timeout, ping_interval, ping_timeout),
    )
    route = Route(options)
    deadline = deadline_after(open_timeout)
    with route.explained():
        while True:
            connected = sock or _dial(route, deadline)
            try:
                return _open(route, connected, deadline)
            except HandshakeRejected as rejected:
                route.follow(rejected)


def _open(route: Route, sock: socket.socket, deadline: float | None) -> WebSocket:
    """Do the TLS and opening handshakes on a socket that leads to the server."""
    connection, timing = route.connection, route.options.timing
    try:
        if (context := route.tls_context()) is not None:
            route.enter("TLS handshake")
            sock = context.wrap_socket(
                sock, server_hostname=route.server_hostname, do_handshake_on_connect=False
            )
        stream = TLSStream(sock) if isinstance(sock, tls.SSLSocket) else SocketStream(sock)
        stream.do_handshake(deadline)
        route.enter("opening handshake")
        websocket = WebSocket(connection, stream, timing)
        if not websocket.shake_hands(deadline):
            assert isinstance(websocket.session.end, Fail)
            raise handshake_failure(connection, websocket.session.end, websocket.lost)
    except BaseException:
        sock.close()
        raise
    return websocket


def _dial(route: Route, deadline: float | None) -> socket.socket:
    """Connect to the server, or to the proxy and through it."""
    if (unix := route.options.unix) is not None:
        route.enter("connection")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(remaining(deadline))
            sock.connect(unix)
        except BaseException:
            sock.close()
            raise
        return sock
    route.enter("lookup")
    found = socket.getaddrinfo(*route.next_hop, type=socket.SOCK_STREAM)
    route.enter("connection")
    sock = race([(family, address) for family, _, _, _, address in found], deadline)
    try:
        if route.proxy is not None:
            route.enter("tunnel")
            _pass(route, route.proxy, sock, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _pass(route: Route, proxy: Proxy, sock: socket.socket, deadline: float | None) -> None:
    """Have a proxy connect to the server."""
    uri = route.connection.uri
    if proxy.scheme == "http":
        stream, tunnel = SocketStream(sock), Tunnel(proxy, uri)
        data, buffer = memoryview(tunnel.request), memoryview(bytearray(65536))
        while data:
            data = data[stream.send(data, deadline) :]
        while not tunnel.receive(bytes(buffer[: stream.receive_into(buffer, deadline)])):
            remaining(deadline)
        return
    with socks(proxy, uri) as options:
        from python_socks.sync import Proxy as SOCKSProxy

        # "The proxy before the proxy" is that we have connected to it.
        forward: Any = SimpleNamespace(connect=lambda **_: sock)
        sock.settimeout(remaining(deadline))
        SOCKSProxy(**options, forward=forward).connect(uri.host, uri.port)


def race(addresses: Iterable[tuple[Any, Any]], deadline: float | None) -> socket.socket:
    """Connect to the first address that answers: each has a moment before the next joins (RFC 8305).

    Args:
        addresses: pairs of an address family and an address, the best first.
        deadline: when to give up; None: never.

    Raises:
        OSError: no address answers.
        TimeoutError: no address answers in time.
    """
    waiting = interleave(addresses)
    attempts = selectors.DefaultSelector()
    failures: list[tuple[Any, OSError]] = []
    try:
        while waiting or attempts.get_map():
            if waiting:
                family, address = waiting.pop(0)
                try:
                    attempts.register(_begin(family, address), selectors.EVENT_WRITE, address)
                except OSError as error:
                    failures.append((address, error))
                    continue
            delay = remaining(deadline)
            if waiting:
                delay = ATTEMPT_DELAY if delay is None else min(delay, ATTEMPT_DELAY)
            for attempt, _ in attempts.select(delay):
                sock = cast(socket.socket, attempt.fileobj)
                attempts.unregister(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return sock
                sock.close()
                failures.append((attempt.data, OSError(code, "")))
    finally:
        for attempt in list(attempts.get_map().values()):
            cast(socket.socket, attempt.fileobj).close()
        attempts.close()
    raise unreachable(failures)


def _begin(family: int, address: Any) -> socket.socket:
    """Begin to connect to an address."""
    sock = socket.socket(family, socket.SOCK_STREAM)  # or this machine lacks the family
    try:
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
