"""The opening handshake in memory, on a server's side and on a client's.

A server reads a browser's request and accepts it; a client makes its request and reads the response to it. No
compression, no subprotocol. The accept key of the response that a client reads is worked out here, for all
clients alike. aiohttp and picows cannot do it without a network: they are in "opening and closing handshake",
among the rows with a network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from .codec import Case
from .rows import WSFRAME
from .samples import respond

URI = "ws://localhost:8001/chat?room=1"
REQUEST = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: localhost:8001\r\n"
    b"Connection: Upgrade\r\n"
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Upgrade: websocket\r\n"
    b"Origin: http://localhost:8001\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Accept-Encoding: gzip, deflate\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"\r\n"
)
Accept = Callable[[bytes], bytes]  # a request to the response
Connect = Callable[[Callable[[bytes], bytes]], bool]  # told how a server responds; whether it is open


def wsframe_accept() -> Accept:
    from wsframe import Request, ServerConnection

    def accept(request: bytes) -> bytes:
        connection = ServerConnection(compression=None)
        connection.receive_data(request)
        assert type(connection.next_event()) is Request
        connection.accept()
        return connection.data_to_send()

    return accept


def websockets_accept() -> Accept:
    from websockets.server import ServerProtocol

    def accept(data: bytes) -> bytes:
        protocol = ServerProtocol()
        protocol.receive_data(data)
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
        return b"".join(protocol.data_to_send())

    return accept


def wsproto_accept() -> Accept:
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, Request

    def accept(request: bytes) -> bytes:
        connection = WSConnection(ConnectionType.SERVER)
        connection.receive_data(request)
        assert type(next(connection.events())) is Request
        return connection.send(AcceptConnection())

    return accept


def wsframe_connect() -> Connect:
    from wsframe import ClientConnection, Response, State

    def connect(respond: Callable[[bytes], bytes]) -> bool:
        connection = ClientConnection(URI, compression=None)
        connection.receive_data(respond(connection.data_to_send()))
        assert type(connection.next_event()) is Response
        return connection.state is State.OPEN

    return connect


def websockets_connect() -> Connect:
    from websockets.client import ClientProtocol
    from websockets.protocol import State
    from websockets.uri import parse_uri

    def connect(respond: Callable[[bytes], bytes]) -> bool:
        protocol = ClientProtocol(parse_uri(URI))
        protocol.send_request(protocol.connect())
        protocol.receive_data(respond(b"".join(protocol.data_to_send())))
        (_,) = protocol.events_received()
        return protocol.state is State.OPEN

    return connect


def wsproto_connect() -> Connect:
    from wsproto import ConnectionType, WSConnection
    from wsproto.connection import ConnectionState
    from wsproto.events import AcceptConnection, Request

    def connect(respond: Callable[[bytes], bytes]) -> bool:
        connection = WSConnection(ConnectionType.CLIENT)
        request = connection.send(Request(host="localhost:8001", target="/chat?room=1"))
        connection.receive_data(respond(request))
        assert type(next(connection.events())) is AcceptConnection
        return connection.state is ConnectionState.OPEN

    return connect


ACCEPT: dict[str, Callable[[], Accept]] = {
    WSFRAME: wsframe_accept,
    "websockets": websockets_accept,
    "wsproto": wsproto_accept,
}
CONNECT: dict[str, Callable[[], Connect]] = {
    WSFRAME: wsframe_connect,
    "websockets": websockets_connect,
    "wsproto": wsproto_connect,
}
SIDES = ("server", "client")
PEERS = tuple(ACCEPT)


def checked(peer: str, side: str) -> Callable[[], object]:
    """Return a function that makes one handshake, after a look at what the peer makes of it."""
    if side == "server":
        accept = ACCEPT[peer]()
        response = accept(REQUEST).lower()
        assert response.startswith(b"http/1.1 101 ")
        assert response.endswith(b"\r\n\r\n")
        assert b"\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n" in response
        return lambda: accept(REQUEST)
    connect = CONNECT[peer]()
    assert connect(respond)
    return lambda: connect(respond)


def cases() -> list[Case]:
    return [
        Case(
            f"handshake {side}, in memory",
            "handshake",
            1,
            {peer: functools.partial(checked, peer, side) for peer in PEERS},
        )
        for side in SIDES
    ]
