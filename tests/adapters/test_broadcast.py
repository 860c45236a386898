"""broadcast: one message to many, encoded once, and nobody waits for the slow."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.support.adapters import MIB, TIMEOUT, Held, asynchronous, in_thread, open_peer
from wsframe import ConnectionClosed, Deflate, LocalProtocolError, Opcode, Prepared, State, prepare
from wsframe.aio import broadcast, connect, serve

pytestmark = pytest.mark.usefixtures("leaks")


@asynchronous
async def test_everybody_gets_it():
    room = Held()
    async with serve(room, "127.0.0.1", 0) as server:
        clients = [await connect(f"ws://127.0.0.1:{server.port}/", compression=None) for _ in range(3)]
        clients += [await connect(f"ws://127.0.0.1:{server.port}/") for _ in range(3)]
        websockets = [await room.websockets.get() for _ in clients]
        messages = ["é" * 1000, b"\x00\xff" * 1000, "", bytearray(b"abc"), memoryview(b"def"), prepare("p")]
        for message in messages:
            assert broadcast(websockets, message) == []
        for client in clients:
            received = [await client.recv() for _ in messages]
            assert received == ["é" * 1000, b"\x00\xff" * 1000, "", b"abc", b"def", "p"]
            # And the other way: theirs are masked.
            assert broadcast([client], "back") == []
        for websocket in websockets:
            assert await websocket.recv() == "back"
            assert websocket.counters.messages_sent == len(messages)
        room.is_over.set()
        for client in clients:
            await client.close()


@asynchronous
async def test_it_is_compressed_where_that_is_agreed_on():
    room = Held()
    async with serve(room, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        takeover, window = {"server_no_context_takeover": True}, {"server_max_window_bits": 9}
        options = [None, Deflate(), Deflate(**takeover), Deflate(**window)]
        clients = [await connect(uri, compression=compression) for compression in options]
        websockets = [await room.websockets.get() for _ in clients]
        for compress in None, True, False:
            assert broadcast(websockets, "abc" * 1000, compress=compress) == []
        assert [await client.recv() for client in clients for _ in range(3)] == ["abc" * 1000] * 12
        sent = [websocket.counters.bytes_sent for websocket in websockets]
        assert sent[0] > 9000
        assert all(3000 < data < 4000 for data in sent[1:])
        room.is_over.set()
        for client in clients:
            await client.close()


@asynchronous
async def test_who_is_gone_is_passed_over():
    room = Held()
    async with serve(room, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        closed, closing, there = [await connect(uri) for _ in range(3)]
        websockets = [await room.websockets.get() for _ in range(3)]
        await closed.close()
        await websockets[0].wait_closed()
        ending = asyncio.create_task(websockets[1].close())
        await asyncio.sleep(0)
        assert [websocket.state for websocket in websockets] == [State.CLOSED, State.CLOSING, State.OPEN]
        assert broadcast(websockets, "hello") == []
        assert await there.recv() == "hello"
        assert [message async for message in closing] == []
        await ending
        room.is_over.set()
        await there.close()


@asynccontextmanager
async def half_sent(rest):
    """Open a connection on which the server has sent the first fragment of a message.

    When the event ``go_on`` is set, it sends the rest, or raises it.
    """
    room, go_on = Held(), asyncio.Event()

    async def fragments():
        yield "one, "
        await go_on.wait()
        if isinstance(rest, Exception):
            raise rest
        yield rest

    async with serve(room, "127.0.0.1", 0) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/", compression=None)
        websocket = await room.websockets.get()
        sending = asyncio.create_task(websocket.send(fragments()))
        while not websocket.counters.bytes_sent > 130:
            await asyncio.sleep(0)
        yield client, websocket, sending, go_on
        room.is_over.set()
        await client.close()


@asynchronous
async def test_a_fragmented_message_is_finished_first():
    async with half_sent("two") as (client, websocket, sending, go_on):
        before = websocket.buffered_amount
        assert broadcast([websocket], "first") == []
        assert broadcast([websocket], b"second") == []
        assert websocket.buffered_amount - before == len("first") + len("second")
        assert broadcast([websocket], "third", max_buffered=11) == [websocket]
        assert broadcast([websocket], "third", max_buffered=2 * 512 + 11) == [websocket]
        go_on.set()
        await sending
        assert [await client.recv() for _ in range(3)] == ["one, two", "first", b"second"]
        assert websocket.buffered_amount == 0


@asynchronous
async def test_what_waits_for_a_fragmented_message_is_dropped_with_the_connection():
    async with half_sent(OSError("the source is broken")) as (client, websocket, sending, go_on):
        assert broadcast([websocket], "first") == []
        go_on.set()
        with pytest.raises(OSError, match="the source is broken"):
            await sending
        assert websocket.buffered_amount == 0
        with pytest.raises(ConnectionClosed, match="1011"):
            await client.recv()


class Counted(Prepared):
    """A message that counts how often it is asked for its length."""

    def __len__(self):
        self.counts = getattr(self, "counts", 0) + 1
        return super().__len__()


@asynchronous
async def test_what_waits_for_a_fragmented_message_is_not_added_up_for_each_message():
    """It was, and 40,000 messages of one byte kept the event loop for 41 seconds."""
    async with half_sent("two") as (client, websocket, sending, go_on):
        messages = [Counted(Opcode.TEXT, b"a", None) for _ in range(1000)]
        for message in messages:
            assert broadcast([websocket], message) == []
        assert websocket.buffered_amount == 1000
        assert sum(message.counts for message in messages) <= 2 * 1000
        go_on.set()
        await sending
        assert [await client.recv() for _ in range(1001)] == ["one, two"] + ["a"] * 1000


@pytest.mark.parametrize("slow", ["drop", "close"])
@asynchronous
async def test_empty_messages_that_wait_for_a_fragmented_message_are_bounded(slow):
    async with half_sent("two") as (client, websocket, sending, go_on):
        sent = 0
        while not broadcast([websocket], "", slow=slow):
            sent += 1
        assert sent == MIB // 512
        go_on.set()
        if slow == "drop":
            await sending
            assert [await client.recv() for _ in range(sent + 1)] == ["one, two"] + [""] * sent
        else:
            with pytest.raises(ConnectionClosed, match="1008 too slow"):
                await client.recv()
            with pytest.raises(ConnectionClosed, match="1008 too slow"):
                await sending


class Transport:
    """A transport that counts its writes, and how often it is asked what it holds."""

    def __init__(self, transport) -> None:
        self.transport = transport
        self.writes = self.questions = 0

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def write(self, data) -> None:
        self.writes += 1
        self.transport.write(data)

    def get_write_buffer_size(self) -> int:
        self.questions += 1
        return self.transport.get_write_buffer_size()


@pytest.mark.parametrize("closes", [False, True])
@asynchronous
async def test_what_is_broadcast_while_writing_is_paused_goes_out_in_few_writes(closes):
    """A transport of asyncio adds up all that it holds for each write (since Python 3.12)."""
    room = Held()
    async with serve(room, "127.0.0.1", 0) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/", compression=None)
        websocket = await room.websockets.get()
        transport = websocket.transport = Transport(websocket.transport)
        websocket.pause_writing()  # as the event loop does
        for _ in range(10_000):
            assert broadcast([websocket], "") == []
        assert transport.writes == 10_000 * 16 // 65536
        assert websocket.buffered_amount == 10_000 % 4096 * 2  # what is not written: headers of two bytes
        before = websocket.counters.bytes_sent
        sending = asyncio.create_task(websocket.send("last"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(websocket.close(4000)) if closes else None
        await asyncio.sleep(0)
        assert websocket.counters.bytes_sent == before
        websocket.resume_writing()
        assert transport.writes == 10_000 * 16 // 65536 + 1
        received = [await client.recv() for _ in range(10_000)]
        assert received == [""] * 10_000
        if closes:
            with pytest.raises(ConnectionClosed, match="4000"):
                await client.recv()
            with pytest.raises(ConnectionClosed, match="4000"):
                await sending
            await closing
        else:
            assert await client.recv() == "last"
            await sending
        room.is_over.set()
        await client.close()


@asynchronous
async def test_empty_messages_are_bounded_while_nothing_is_written():
    """A handler that has messages to read collects what it sends."""
    ends = asyncio.Queue()

    async def handler(websocket):
        transport = websocket.transport = Transport(websocket.transport)
        assert await websocket.recv() == "a"
        for _ in range(10_000):
            assert broadcast([websocket], "") == []
            assert websocket.buffered_amount < 65536
        ends.put_nowait(transport.writes)
        slow = [broadcast([websocket], "", max_buffered=1) for _ in range(3)]
        assert slow == [[websocket]] * 3  # some are not written yet
        assert await websocket.recv() == "b"

    async with serve(handler, "127.0.0.1", 0) as server:
        with await in_thread(open_peer, server.port) as peer:
            await in_thread(peer.send, peer.text("a") + peer.text("b") + peer.close())
            frames = await in_thread(peer.frames)
            assert [frame.payload for frame in frames] == [b""] * 10_000 + [b"\x03\xe8"]
    assert await ends.get() == 10_000 * 16 // 65536


@pytest.mark.parametrize("slow", ["drop", "close"])
@asynchronous
async def test_a_slow_client_misses_messages_or_is_closed(slow):
    room = Held()
    message = bytes(MIB)
    async with serve(room, "127.0.0.1", 0, close_timeout=TIMEOUT, ping_interval=None) as server:
        peer = await in_thread(open_peer, server.port, receive_buffer=4096)
        lazy = await room.websockets.get()
        client = await connect(f"ws://127.0.0.1:{server.port}/", max_message_size=None)
        quick = await room.websockets.get()
        sent = 0
        # The system takes a few MiB, and then what waits grows up to the limit.
        while not (dropped := broadcast([lazy, quick], message, max_buffered=2 * MIB, slow=slow)):
            assert lazy.buffered_amount < 3 * MIB + 20
            sent += 1
            assert await client.recv() == message
        assert dropped == [lazy]
        assert await client.recv() == message
        assert 2 * MIB <= lazy.buffered_amount < 3 * MIB + 20
        # It is dropped as long as nothing moves.
        assert broadcast([lazy, quick], b"again", max_buffered=2 * MIB, slow=slow) == (
            [lazy] if slow == "drop" else []
        )
        assert await client.recv() == b"again"
        frames = [await in_thread(peer.next_frame) for _ in range(sent)]
        assert {(frame.opcode, frame.payload) for frame in frames} == {(Opcode.BINARY, message)}
        if slow == "close":
            assert (await in_thread(peer.next_frame)).payload == b"\x03\xf0too slow"
        else:
            assert lazy.buffered_amount < 2 * MIB
            assert broadcast([lazy], b"back", max_buffered=2 * MIB) == []
            assert (await in_thread(peer.next_frame)).payload == b"back"
        await in_thread(peer.send, peer.close())
        peer.sock.close()
        room.is_over.set()
        await client.close()


@asynchronous
async def test_one_message_may_be_larger_than_the_limit():
    room = Held()
    async with serve(room, "127.0.0.1", 0) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/", max_message_size=None)
        websocket = await room.websockets.get()
        assert broadcast([websocket], bytes(4 * MIB), max_buffered=1) == []
        assert await client.recv() == bytes(4 * MIB)
        room.is_over.set()
        await client.close()


@asynchronous
async def test_wrong_arguments():
    with pytest.raises(LocalProtocolError, match="lone surrogate"):
        broadcast([], "\ud800")
    with pytest.raises(TypeError):
        broadcast([], 5)
    with pytest.raises(ValueError, match='slow must be "drop" or "close", not \'wait\''):
        broadcast([], "a", slow="wait")


@asynchronous
async def test_who_sends_and_sends_lets_others_have_a_turn():
    """Nothing that it does waits: its peer reads, and the system takes what it sends."""
    room = Held()
    async with serve(room, "127.0.0.1", 0) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/")
        websocket = await room.websockets.get()
        turns = 0

        async def take_turns():
            nonlocal turns
            while not room.is_over.is_set():
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(take_turns())
        for _ in range(1000):
            await websocket.send("a")
        assert turns >= 5
        room.is_over.set()
        await others
        await client.close()
