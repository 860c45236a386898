"""Decoding: masked messages in reads of 64 KiB, as a server gets them.

Every peer is given the same ``bytes``, and gives a list of the messages in them: text as ``str``, binary as
``bytes``, fragments joined. What a peer leaves to its user is done here, as its own adapter does it.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

from . import samples
from .codec import Case
from .rows import WSFRAME, targets

READ = 65536
Message = str | bytes
Feed = Callable[[bytes], list[Message]]
CASES: dict[str, tuple[Message, int, int]] = {  # payload, frames of a message, messages
    "text 32": (samples.text(32), 1, 10000),
    "binary 125": (samples.binary(125), 1, 6000),
    "text 1 KiB": (samples.text(1024), 1, 2000),
    "binary 16 KiB": (samples.binary(16384), 1, 200),
    "binary 1 MiB": (samples.binary(2**20), 1, 4),
    "16 fragments of 32": (samples.text(512), 16, 500),
}


def wsframe_feed() -> Feed:
    from wsframe import Connection, Role

    connection = Connection(Role.SERVER)
    receive_data, next_event = connection.receive_data, connection.next_event

    def feed(read: bytes) -> list[Message]:
        messages: list[Message] = []
        receive_data(read)
        while event := next_event():
            messages.append(event.data)  # type: ignore[union-attr]
        return messages

    return feed


def websockets_feed() -> Feed:
    from websockets.frames import Opcode
    from websockets.protocol import Protocol, Side

    protocol = Protocol(Side.SERVER)
    cont, text = Opcode.CONT, Opcode.TEXT
    fragments: list[bytes] = []
    is_text = False

    def feed(read: bytes) -> list[Message]:
        nonlocal is_text
        messages: list[Message] = []
        protocol.receive_data(read)
        frames: list[Any] = protocol.events_received()
        for frame in frames:
            data = frame.data
            if frame.opcode is not cont:
                is_text = frame.opcode is text
            if not frame.fin:
                fragments.append(data)
                continue
            if fragments:
                fragments.append(data)
                data = b"".join(fragments)
                fragments.clear()
            messages.append(data.decode() if is_text else data)
        return messages

    return feed


def websockets_python_feed() -> Feed:
    """The same with the mask that websockets has where its C extension is not compiled."""
    from websockets.utils import apply_mask

    feed, frames = websockets_feed(), importlib.import_module("websockets.frames")

    def feed_with_python_mask(read: bytes) -> list[Message]:
        compiled = frames.apply_mask
        frames.apply_mask = apply_mask
        try:
            return feed(read)
        finally:
            frames.apply_mask = compiled

    return feed_with_python_mask


def wsproto_feed() -> Feed:
    from wsproto.connection import Connection, ConnectionType

    connection = Connection(ConnectionType.SERVER)
    fragments: list[Any] = []

    def feed(read: bytes) -> list[Message]:
        messages: list[Message] = []
        connection.receive_data(read)
        event: Any
        for event in connection.events():
            data = event.data
            if not event.message_finished:
                fragments.append(data)
                continue
            if fragments:
                fragments.append(data)
                data = ("" if isinstance(data, str) else b"").join(fragments)
                fragments.clear()
            messages.append(data if isinstance(data, str) else bytes(data))
        return messages

    return feed


def event_loop() -> asyncio.AbstractEventLoop:
    """A loop that does not run: some peers cannot be made without one."""
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def aiohttp_feed() -> Feed:
    """The reader in C, and the queue that it fills.

    The queue is emptied without ``await queue.read()``, which costs aiohttp's users more for each message.
    It then does not learn that it is empty: hence the limit, which it never exceeds (it counts in 32 bits).
    """
    from aiohttp._websocket.reader_c import WebSocketDataQueue, WebSocketReader

    queue = WebSocketDataQueue(None, 2**31 - 1, loop=event_loop())
    reader = WebSocketReader(queue, 4 * 2**20, False, True)  # messages up to 4 MiB, the default; text as str
    feed_data, buffer, popleft = reader.feed_data, queue._buffer, queue._buffer.popleft

    def feed(read: bytes) -> list[Message]:
        messages: list[Message] = []
        feed_data(read)
        while buffer:
            messages.append(popleft()[0].data)
        return messages

    return feed


class FakeSocket:
    """As much of a socket as picows asks for."""

    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> int:
        return 0

    def fileno(self) -> int:
        return -1


class FakeTransport:
    """As much of a transport as picows asks for. It is never idle, so all goes to ``write``."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def writelines(self, chunks: list[Any]) -> None:
        self.written += [bytes(chunk) for chunk in chunks]  # the header is a view of the peer's own buffer

    def get_extra_info(self, name: str) -> FakeSocket | None:
        return FakeSocket() if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 1


def picows_protocol(listener: Any, is_client: bool = False) -> tuple[Any, FakeTransport]:
    """picows without a network.

    Its parser has no public name: it is part of the protocol, an extension class, which an event loop gives
    its bytes to by ``get_buffer`` and ``buffer_updated``. So does this. The arguments are the defaults of
    ``ws_create_server``, but for the read buffer: "You may set this to the actual expected maximum frame
    size". Here a read of 64 KiB fits in.
    """
    from picows import WSAutoPingStrategy
    from picows.picows import WSProtocol

    async def make() -> Any:
        factory = (lambda: listener) if is_client else (lambda _: listener)
        logger, when = logging.getLogger("picows"), WSAutoPingStrategy.PING_WHEN_IDLE
        host, size = "127.0.0.1" if is_client else None, 10 * 2**20
        return WSProtocol(
            host, None, is_client, factory, logger, True, None, False, 20, 20, when, True, size, None, 2**18
        )

    loop = event_loop()
    protocol, transport = loop.run_until_complete(make()), FakeTransport()
    protocol.connection_made(transport)
    return protocol, transport


def picows_write(protocol: Any, data: bytes) -> None:
    """Do what the loop does with the bytes of a read: one copy into picows' own buffer."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        protocol.buffer_updated(count)
        view = view[count:]


def picows_feed() -> Feed:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport

    text, cont = WSMsgType.TEXT, WSMsgType.CONTINUATION

    class Listener(WSListener):
        def __init__(self) -> None:
            self.messages: list[Message] = []
            self.fragments: list[bytes] = []
            self.is_text = False

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            kind = frame.msg_type
            if frame.fin and kind != cont:
                if kind == text:
                    self.messages.append(frame.get_payload_as_utf8_text())
                else:
                    self.messages.append(frame.get_payload_as_bytes())
                return
            if kind != cont:
                self.is_text = kind == text
            self.fragments.append(frame.get_payload_as_bytes())
            if frame.fin:
                whole = b"".join(self.fragments)
                self.fragments.clear()
                self.messages.append(whole.decode() if self.is_text else whole)

    listener = Listener()
    protocol, transport = picows_protocol(listener)
    picows_write(protocol, samples.REQUEST)
    assert b" 101 " in transport.written[0]

    def feed(read: bytes) -> list[Message]:
        listener.messages = []
        picows_write(protocol, read)
        return listener.messages

    return feed


PEERS: dict[str, Callable[[], Feed]] = {
    WSFRAME: wsframe_feed,
    "websockets": websockets_feed,
    "websockets (Python)": websockets_python_feed,
    "wsproto": wsproto_feed,
    "aiohttp": aiohttp_feed,
    "picows": picows_feed,
}


def reads_of(payload: Message, frames: int, count: int) -> list[bytes]:
    make = samples.masked if frames == 1 else lambda payload: samples.fragmented(payload, frames)
    stream = b"".join(make(payload) for _ in range(count))
    return [stream[i : i + READ] for i in range(0, len(stream), READ)]


def checked(peer: str, case: str) -> Callable[[], None]:
    """Return a function that decodes the whole case once, after a look at what the peer makes of it."""
    payload, frames, count = CASES[case]
    feed, reads = PEERS[peer](), reads_of(payload, frames, count)
    messages = [message for read in reads for message in feed(read)]
    assert len(messages) == count
    assert all(type(message) is type(payload) and message == payload for message in messages)

    def decode() -> None:
        decoded = 0
        for read in reads:
            decoded += len(feed(read))
        assert decoded == count

    return decode


def cases() -> list[Case]:
    small = targets("aiohttp", None, 4) + targets("picows", None, 4)
    wanted = {
        "text 32": targets("websockets", 2.5, 28) + small,
        "binary 125": targets("websockets", 2.5, 27) + small,
        "text 1 KiB": targets("websockets", 0.9, 14),
        "binary 16 KiB": targets("websockets", None, 7),
        "binary 1 MiB": targets("websockets", None, 2),
        "16 fragments of 32": targets("websockets", 2.5, 50),
    }

    def case(name: str) -> Case:
        peers = {peer: functools.partial(checked, peer, name) for peer in PEERS}
        is_memory_bound = len(CASES[name][0]) > 4096
        return Case(f"decode {name}", "message", CASES[name][2], peers, wanted[name], is_memory_bound)

    return [case(name) for name in CASES]
