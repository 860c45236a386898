"""Strange objects given to ``send``: each is sent as what it holds, or refused before any of it is sent."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.adapters import Blocking, Held, asynchronous, each_role, in_thread, open_peer, opened
from tests.support.cases import case
from tests.support.objects import FailingIterable, FullMemory, sendable, unsendable
from wsframe import ConnectionClosed, Deflate, FrameDecoder, Opcode, aio, prepare

pytestmark = pytest.mark.usefixtures("leaks")


DEFLATE = ("Sec-WebSocket-Extensions: permessage-deflate",)
ABANDONED = "message could not be completed"


class Asynchronous:
    """Give items one by one, as an asynchronous iterable. An exception is raised."""

    def __init__(self, items):
        self.items = items

    async def __aiter__(self):
        for item in blocking(self.items):
            yield item


def blocking(items):
    """Give items one by one. An exception is raised."""
    for item in items:
        if isinstance(item, Exception):
            raise type(item)(*item.args)
        yield item


def kinds(websocket):
    """Return functions that make an iterable of items which ``send`` of an adapter takes."""
    return [blocking, Asynchronous] if isinstance(websocket, Blocking) else [blocking]


def read_message(peer):
    """Read a message, in however many fragments, as what the object should have held."""
    frames = [peer.next_frame()]
    while not frames[-1].fin:
        frames.append(peer.next_frame())
    payload = b"".join(frame.payload for frame in frames)
    assert frames[0].opcode in (Opcode.TEXT, Opcode.BINARY)
    return payload.decode() if frames[0].opcode == Opcode.TEXT else payload


@each_role
@pytest.mark.parametrize("headers", [(), DEFLATE], ids=len)
def test_an_object_is_sent_as_what_it_holds_alone_and_as_a_fragment(adapter, role, headers):
    if role == "client":
        headers = ()  # a server must not answer with what was not offered
    with opened(adapter, role, headers=headers) as (websocket, peer):
        for name, thing, held in sendable():
            with case(name=name):
                websocket.send(thing, compress=False)
                assert read_message(peer) == held
                for kind in [list, *kinds(websocket)]:
                    websocket.send(kind([thing, thing]), compress=False)
                    assert read_message(peer) == held + held
                websocket.send(prepare(thing, compress=False))
                assert read_message(peer) == held


def test_an_object_that_is_refused_leaves_the_connection_as_it_was(pair):
    websocket, peer = pair
    for name, thing, error in [*unsendable(), ("an iterable that fails", FailingIterable(), KeyError)]:
        with case(name=name):
            with pytest.raises(error):
                websocket.send(thing)
            for kind in [list, *kinds(websocket)]:
                with pytest.raises((error, TypeError)):
                    websocket.send(kind([thing]))
            websocket.send(b"next")
            assert read_message(peer) == b"next"


@each_role
@pytest.mark.parametrize("count", [1, 3])
def test_an_object_that_is_refused_within_a_message_closes_with_1011(adapter, role, count):
    for name, thing, error in [*unsendable(), ("an error", KeyError("of its own"), KeyError)]:
        for number in range(2 if adapter.name == "aio" else 1):
            with case(name=name, number=number), opened(adapter, role) as (websocket, peer):
                items = kinds(websocket)[number]([b"good"] * count + [thing])
                with pytest.raises(error) as raised:
                    websocket.send(items)
                assert raised.value.__notes__ == [f"wsframe closed the connection with 1011: {ABANDONED}"]
                frames = [peer.next_frame() for _ in range(count + 1)]
                assert [frame.payload for frame in frames[:-1]] == [b"good"] * count
                assert frames[-1].payload == b"\x03\xf3" + ABANDONED.encode()
                with pytest.raises(ConnectionClosed):
                    websocket.send(b"next")
                peer.send(peer.close(1011))
                peer.end()


@asynchronous
async def test_an_object_is_broadcast_as_what_it_holds_or_refused():
    async def handler(websocket):
        for _, thing, _ in sendable():
            assert aio.broadcast([websocket], thing) == []
        for name, thing, error in unsendable():
            with case(name=name), pytest.raises(error):
                aio.broadcast([websocket], thing)

    async with (
        aio.serve(handler, "127.0.0.1", 0) as server,
        aio.connect(f"ws://127.0.0.1:{server.port}/") as websocket,
    ):
        assert [message async for message in websocket] == [held for _, _, held in sendable()]


@asynchronous
async def test_an_error_while_a_long_message_is_compressed_closes_with_1011():
    """Some slices of it are out, and the next message would be glued to them."""
    held, module = Held(), FullMemory()
    message = "word " * 40_000
    async with aio.serve(held, "127.0.0.1", 0, compression=Deflate(zlib=module)) as server:
        peer = await in_thread(open_peer, server.port, headers=DEFLATE)
        websocket = await held.websockets.get()
        sending = asyncio.create_task(websocket.send(message))
        await asyncio.sleep(0)  # the first slice
        assert websocket.session.connection.is_within_message
        module.is_full = True
        with pytest.raises(MemoryError) as raised:
            await sending
        assert raised.value.__notes__ == [f"wsframe closed the connection with 1011: {ABANDONED}"]
        peer._decoder.legal = FrameDecoder(masked=False, rsv1=True).legal
        frames = await in_thread(lambda: [peer.next_frame() for _ in range(2)])
        assert [(frame.opcode, frame.fin) for frame in frames] == [(Opcode.TEXT, False), (Opcode.CLOSE, True)]
        await in_thread(peer.send, peer.close(1011))
        peer.sock.close()
        held.is_over.set()
