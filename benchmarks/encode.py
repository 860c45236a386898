"""Encoding, on a client's side, which masks, and on a server's.

Every peer is given messages, text as ``str`` and binary as ``bytes``, and gives what is to be written, as the
chunks that it would write. A client's masking keys are each peer's own: wsframe and websockets take them from
the system's CSPRNG, as RFC 6455 wants; aiohttp and picows from a generator that is faster and predictable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from wsframe import FrameDecoder

from . import samples
from .codec import Case
from .decode import FakeTransport, Message, event_loop, picows_protocol
from .rows import WSFRAME, targets

Encode = Callable[[list[Any]], list[bytes]]
CASES: dict[str, tuple[Message, int]] = {  # payload, messages
    "text 32": (samples.text(32), 1000),
    "text 1 KiB": (samples.text(1024), 500),
    "binary 16 KiB": (samples.binary(16384), 100),
}
SIDES = ("client", "server")


def wsframe_encode(is_client: bool, is_text: bool) -> Encode:
    from wsframe import Connection, Role

    connection = Connection(Role.CLIENT if is_client else Role.SERVER)
    send = connection.send_text if is_text else connection.send_binary
    chunks_to_send = connection.chunks_to_send

    def encode(messages: list[Any]) -> list[bytes]:
        chunks: list[bytes] = []
        for message in messages:
            send(message)
            chunks += chunks_to_send()
        return chunks

    return encode


def websockets_encode(is_client: bool, is_text: bool) -> Encode:
    from websockets.protocol import Protocol, Side

    protocol = Protocol(Side.CLIENT if is_client else Side.SERVER)
    send_text, send_binary, data_to_send = protocol.send_text, protocol.send_binary, protocol.data_to_send

    def encode(messages: list[Any]) -> list[bytes]:
        chunks: list[bytes] = []
        for message in messages:
            if is_text:
                send_text(message.encode())
            else:
                send_binary(message)
            chunks += data_to_send()
        return chunks

    return encode


def wsproto_encode(is_client: bool, is_text: bool) -> Encode:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage, TextMessage

    connection = Connection(ConnectionType.CLIENT if is_client else ConnectionType.SERVER)
    kind: Any = TextMessage if is_text else BytesMessage

    def encode(messages: list[Any]) -> list[bytes]:
        return [connection.send(kind(data=message)) for message in messages]

    return encode


class AiohttpProtocol:
    """As much of a protocol as aiohttp's writer asks for."""

    _paused = False


class AiohttpTransport(FakeTransport):
    def is_closing(self) -> bool:
        return False


def aiohttp_encode(is_client: bool, is_text: bool) -> Encode:
    """The writer: Python, with the mask in C. It is awaited as by ``send_str`` and ``send_bytes``."""
    from aiohttp import WSMsgType
    from aiohttp._websocket.writer import WebSocketWriter

    loop, transport = event_loop(), AiohttpTransport()

    async def make() -> WebSocketWriter:
        return WebSocketWriter(AiohttpProtocol(), transport, use_mask=is_client)  # type: ignore[arg-type]

    send_frame = loop.run_until_complete(make()).send_frame
    text, binary = WSMsgType.TEXT, WSMsgType.BINARY

    async def send_all(messages: list[Any]) -> None:
        for message in messages:
            if is_text:
                await send_frame(message.encode(), text)
            else:
                await send_frame(message, binary)

    def encode(messages: list[Any]) -> list[bytes]:
        transport.written.clear()
        loop.run_until_complete(send_all(messages))
        return transport.written

    return encode


def picows_encode(is_client: bool, is_text: bool) -> Encode:
    """What it encodes goes to the transport's ``write`` (on a real socket it calls ``send`` by itself)."""
    from picows import WSListener, WSMsgType

    protocol, transport = picows_protocol(WSListener(), is_client)
    send, text, binary = protocol.transport.send, WSMsgType.TEXT, WSMsgType.BINARY

    def encode(messages: list[Any]) -> list[bytes]:
        transport.written.clear()
        for message in messages:
            if is_text:
                send(text, message.encode())
            else:
                send(binary, message)
        return transport.written

    return encode


PEERS: dict[str, Callable[[bool, bool], Encode]] = {
    WSFRAME: wsframe_encode,
    "websockets": websockets_encode,
    "wsproto": wsproto_encode,
    "aiohttp": aiohttp_encode,
    "picows": picows_encode,
}


def checked(peer: str, side: str, case: str) -> Callable[[], list[bytes]]:
    """Return a function that encodes the whole case once, after a look at what the peer makes of it."""
    payload, count = CASES[case]
    is_client, is_text = side == "client", isinstance(payload, str)
    encode, messages = PEERS[peer](is_client, is_text), [payload] * count
    decoder = FrameDecoder(masked=is_client)
    decoder.feed(b"".join(encode(messages)))
    data = payload.encode() if isinstance(payload, str) else payload
    for _ in range(count):
        frame = decoder.next_frame()
        assert frame is not None
        assert (frame.opcode, frame.payload, frame.fin) == (1 if is_text else 2, data, True)
    assert decoder.next_frame() is None
    return lambda: encode(messages)


def cases() -> list[Case]:
    wanted = {
        ("client", "text 32"): targets("websockets", 1.9, 16),
        ("client", "binary 16 KiB"): targets("websockets", None, 6),
        ("server", "text 32"): targets("websockets", 2.0, 10),
    }

    def case(side: str, name: str) -> Case:
        peers = {peer: functools.partial(checked, peer, side, name) for peer in PEERS}
        is_memory_bound = len(CASES[name][0]) > 4096
        return Case(
            f"encode {side} {name}",
            "message",
            CASES[name][1],
            peers,
            wanted.get((side, name), ()),
            is_memory_bound,
        )

    return [case(side, name) for side in SIDES for name in CASES]
