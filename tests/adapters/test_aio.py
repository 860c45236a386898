"""What wsframe.aio promises beyond what both adapters do: order, coalescing, tasks and cancellation."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import weakref
from contextlib import asynccontextmanager

import pytest

from tests.support.adapters import (
    MIB,
    Held,
    Listener,
    asynchronous,
    connect_peer,
    in_thread,
    key_of,
    open_peer,
    request,
    response,
)
from tests.support.cases import case
from wsframe import ConnectionClosed, FrameDecoder, Opcode, State
from wsframe.aio import connect, serve

DEFLATE = ("Sec-WebSocket-Extensions: permessage-deflate",)

pytestmark = pytest.mark.usefixtures("leaks")


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


def receive(websocket, data):
    """Let a WebSocket receive bytes, as the event loop does it."""
    while data:
        buffer = websocket.get_buffer(-1)
        count = min(len(data), len(buffer))
        buffer[:count] = data[:count]
        websocket.buffer_updated(count)
        data = data[count:]


@asynccontextmanager
async def opened(headers=(), **options):
    """Open a connection between the WebSocket of a server and a peer. The peer closes it at the end.

    The peer's request has these headers.
    """
    held = Held()
    async with serve(held, "127.0.0.1", 0, **options) as server:
        with await in_thread(open_peer, server.port, headers=headers) as peer:
            peer._decoder.legal = FrameDecoder(masked=False, rsv1=True).legal
            websocket = await held.websockets.get()
            yield websocket, peer
            if websocket.state is State.OPEN:
                await in_thread(peer.send, peer.close())
            held.is_over.set()


async def connect_to(uri, **options):
    """Connect: ``connect`` itself is no coroutine, of which a task could be made."""
    return await connect(uri, **options)


# Order


@pytest.mark.parametrize("end", ["close", "violation"])
@pytest.mark.parametrize("when", ["with the request", "at once", "later"])
@asynchronous
async def test_answers_go_out_before_an_end_that_came_in_the_same_packet(end, when):
    async with serve(echo, "127.0.0.1", 0) as server:
        for _ in range(20):
            with await in_thread(talk, server.port, end, when) as peer:
                frames = await in_thread(peer.frames)
                assert [frame.payload for frame in frames[:-1]] == [b"a", b"b"]
                assert frames[-1].opcode == Opcode.CLOSE


def talk(port, end, when):
    peer = connect_peer(port)
    packet = peer.text("a") + peer.text("b") + (peer.close() if end == "close" else peer.violation)
    peer.send(request(), packet if when == "with the request" else b"")
    peer.read_head()
    if when == "later":
        peer.send(peer.encode(Opcode.PING))
        assert peer.next_frame().opcode == Opcode.PONG
    peer.send(b"" if when == "with the request" else packet)
    return peer


# Coalescing


class Spy:
    """A transport that counts its writes."""

    def __init__(self, transport) -> None:
        self.transport = transport
        self.writes = 0

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def write(self, data) -> None:
        self.writes += 1
        self.transport.write(data)

    def writelines(self, chunks) -> None:
        self.writes += 1
        self.transport.writelines(chunks)


@asynchronous
async def test_answers_to_a_batch_go_out_in_one_write():
    spies = []

    async def handler(websocket):
        spies.append(Spy(websocket.transport))
        websocket.transport = spies[0]
        await echo(websocket)

    async with serve(handler, "127.0.0.1", 0) as server:
        with await in_thread(open_peer, server.port) as peer:
            await in_thread(peer.send, b"".join(peer.text("x") for _ in range(100)))
            for _ in range(100):
                assert await in_thread(peer.read_text) == "x"
            # One for each packet that the bytes came in; it is one, or two if the system cuts it.
            assert 1 <= spies[0].writes <= 5
            await in_thread(peer.send, peer.close())
            assert await in_thread(peer.read_close) == (1000, "")


@asynchronous
async def test_a_send_with_nothing_to_read_is_written_at_once():
    async with opened() as (websocket, _):
        spy = websocket.transport = Spy(websocket.transport)
        for number in range(3):
            await websocket.send("x")
            assert spy.writes == number + 1


@asynchronous
async def test_what_is_collected_is_written_at_64_kib():
    spies = []

    async def handler(websocket):
        spy = websocket.transport = Spy(websocket.transport)
        spies.append(spy)
        assert await websocket.recv() == "a"
        await websocket.send(b"x" * 40_000)
        assert spy.writes == 0
        await websocket.send(b"x" * 40_000)
        assert spy.writes == 1
        assert await websocket.recv() == "b"

    async with serve(handler, "127.0.0.1", 0) as server:
        with await in_thread(open_peer, server.port) as peer:
            await in_thread(peer.send, peer.text("a") + peer.text("b") + peer.text("c") + peer.close())
            frames = await in_thread(peer.frames)
            assert [len(frame.payload) for frame in frames] == [40_000, 40_000, 2]


@pytest.mark.parametrize("size", [100_000, 1_000_000])
@asynchronous
async def test_what_64_kib_of_compressed_data_hold_goes_out_in_one_write(size):
    """A long message is compressed in slices, of which each used to be written by itself."""
    async with opened(headers=DEFLATE) as (websocket, peer):
        spy = websocket.transport = Spy(websocket.transport)
        await websocket.send("word " * (size // 5))
        assert spy.writes == 1
        assert websocket.counters.compressed < 65536
        frames = [await in_thread(peer.next_frame) for _ in range(-(-size // 65536))]
        assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]


@asynchronous
async def test_a_compressed_message_is_written_while_the_rest_of_it_is_compressed():
    async with opened(headers=DEFLATE) as (websocket, peer):
        spy = websocket.transport = Spy(websocket.transport)
        message = random.Random(0).randbytes(10 * 65536)  # does not get shorter
        frames, _ = await asyncio.gather(
            in_thread(lambda: [peer.next_frame() for _ in range(10)]),
            websocket.send(message, compress=True),
        )
        assert [frame.fin for frame in frames] == [False] * 9 + [True]
        assert spy.writes == 10


@asynchronous
async def test_small_messages_beside_a_large_one_go_out_in_one_write():
    """The large one is not copied, and so the small ones need a write before it and one after it."""
    spies = []

    async def handler(websocket):
        spies.append(Spy(websocket.transport))
        websocket.transport = spies[0]
        assert await websocket.recv() == "go"
        for size in [1] * 1000 + [MIB] + [1] * 1000:
            websocket.session.connection.send_binary(bytes(size))
        websocket.flush()
        assert spies[0].writes == 3
        await websocket.wait_closed()

    async with (
        serve(handler, "127.0.0.1", 0, compression=None) as server,
        connect(f"ws://127.0.0.1:{server.port}/", max_message_size=None) as websocket,
    ):
        await websocket.send("go")
        sizes = [len(await websocket.recv()) for _ in range(2001)]
        assert sizes == [1] * 1000 + [MIB] + [1] * 1000


# The receive queue


@asynchronous
async def test_the_receive_queue_counts_what_a_text_takes_in_memory():
    """One character beyond U+FFFF makes each of the others take four bytes."""
    for text, held in ("a" * 200_000, 6), ("é" * 100_000, 3), ("\U0001f600" + "a" * 199_999, 2):
        with case(character=text[0]):
            async with opened() as (websocket, peer):
                receive(websocket, peer.text(text) * 8)
                for _ in range(10):  # turns, in one of which it looks ahead
                    await asyncio.sleep(0)
                assert websocket.counters.messages_received == held
                assert [await websocket.recv() == text for _ in range(8)] == [True] * 8


# Tasks


@asynchronous
async def test_the_task_group_of_a_handler_meets_the_end():
    """The usual handler, whose reader and writer raise when a client leaves: nothing is logged."""

    async def handler(websocket):
        async def read():
            while True:
                await websocket.recv()

        async def write():
            while True:
                await websocket.send("tick")

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(write())

    async with serve(handler, "127.0.0.1", 0) as server:
        for code in 1000, 4000:
            async with connect(f"ws://127.0.0.1:{server.port}/") as websocket:
                assert await websocket.recv() == "tick"
                await websocket.close(code)
                assert websocket.close_code == code


@asynchronous
async def test_one_task_at_a_time_receives():
    async with serve(echo, "127.0.0.1", 0) as server, connect(f"ws://localhost:{server.port}/") as websocket:
        receiving = asyncio.create_task(websocket.recv())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="receiving"):
            await websocket.recv()
        await websocket.send("x")
        assert await receiving == "x"
        await websocket.send("y")
        assert await websocket.recv() == "y"


@asynchronous
async def test_many_tasks_send():
    async with serve(echo, "127.0.0.1", 0) as server, connect(f"ws://localhost:{server.port}/") as websocket:

        async def send(number):
            for _ in range(10):
                await websocket.send(bytes([number]) * 100_000)

        sending = asyncio.gather(*(send(number) for number in range(10)))
        messages = [await websocket.recv() for _ in range(100)]
        await sending
        assert sorted(messages) == [bytes([number]) * 100_000 for number in range(10) for _ in range(10)]


@asynchronous
async def test_connect_and_serve_can_be_awaited_and_used_once():
    serving = serve(echo, "127.0.0.1", 0)
    server = await serving
    connecting = connect(f"ws://localhost:{server.port}/")
    websocket = await connecting
    for again in (serving, connecting):
        with pytest.raises(RuntimeError, match="already"):
            await again
    async with websocket:
        await websocket.send("x")
        assert await websocket.recv() == "x"
    assert websocket.state is State.CLOSED
    forever = asyncio.create_task(server.serve_forever())
    async with server:
        pass
    await forever
    await server.wait_closed()


@asynchronous
async def test_a_handler_closes_the_server():
    async def handler(websocket):
        await websocket.recv()
        await server.close(1012, "restart")

    async with (
        serve(handler, "127.0.0.1", 0) as server,
        connect(f"ws://localhost:{server.port}/") as websocket,
    ):
        await websocket.send("stop")
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
        assert (caught.value.code, caught.value.reason) == (1012, "restart")


# At turn 0, asyncio of Python 3.11 has accepted the client, and loses it in an assertion of its own.
@asynchronous
async def test_a_server_closes_while_a_client_connects():
    for turns in range(1, 8):
        with case(turns=turns):
            await close_while_a_client_connects(turns)


async def close_while_a_client_connects(turns):
    started = []

    async def handler(websocket):
        started.append(websocket)
        with pytest.raises(ConnectionClosed):
            await websocket.recv()

    listening = socket.create_server(("127.0.0.1", 0))
    peer = connect_peer(listening.getsockname()[1])
    peer.send(request())
    server = await serve(handler, sock=listening)
    for _ in range(turns):
        await asyncio.sleep(0)
    closing = asyncio.create_task(server.close())

    def read_all() -> bytes:
        try:
            data = peer.sock.recv(65536)
            if b"\x88\x02\x03\xe9" not in data:
                data += peer.sock.recv(65536)
            peer.sock.sendall(peer.close(1001))
            return data + peer.read_all()
        except ConnectionResetError:
            return b""

    data = await in_thread(read_all)
    peer.sock.close()
    await closing
    # It is told why, or it was not accepted.
    assert data.endswith(b"\x88\x02\x03\xe9") or data == b""
    assert not server.connections


# Cancellation


@asynchronous
async def test_cancelling_recv_loses_no_message():
    async with opened() as (websocket, peer):
        received = []
        for number in range(50):
            receiving = asyncio.create_task(websocket.recv())
            await asyncio.sleep(0)
            await in_thread(peer.send, peer.text(str(number)))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            receiving.cancel()
            (result,) = await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(result, str):
                received.append(result)
        while len(received) < 50:
            received.append(await websocket.recv())
        assert received == [*map(str, range(50))]


@asynchronous
async def test_cancelling_a_recv_that_was_woken_loses_no_message():
    async with opened() as (websocket, peer):
        receiving = asyncio.create_task(websocket.recv())
        await asyncio.sleep(0)
        # The bytes come, and in the same turn of the loop the task is cancelled.
        receive(websocket, peer.text("a") + peer.text("b"))
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert [await websocket.recv(), await websocket.recv()] == ["a", "b"]


@asynchronous
async def test_recv_begins_while_most_of_a_large_message_is_there():
    """What came was looked at ahead of recv, as far as that goes: now recv wants the rest."""
    async with opened(max_message_size=None) as (websocket, peer):
        data = peer.encode(Opcode.BINARY, bytes(2 * MIB))
        receive(websocket, data[: MIB - 1000])
        await asyncio.sleep(0)
        receiving = asyncio.create_task(websocket.recv())
        receive(websocket, data[MIB - 1000 : MIB + 65536])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await in_thread(peer.send, data[MIB + 65536 :])
        assert await receiving == bytes(2 * MIB)


@asynchronous
async def test_cancelling_a_ping_loses_nothing():
    async with opened() as (websocket, peer):
        pinging = asyncio.create_task(websocket.ping(b"p"))
        assert (await in_thread(peer.next_frame)).payload == b"p"
        pinging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pinging
        await in_thread(peer.send, peer.encode(Opcode.PONG, b"p") + peer.text("x"))
        assert await websocket.recv() == "x"
        # The payload can be used again.
        pinging = asyncio.create_task(websocket.ping(b"p"))
        assert (await in_thread(peer.next_frame)).payload == b"p"
        await in_thread(peer.send, peer.encode(Opcode.PONG, b"p"))
        assert await pinging >= 0


@asynchronous
async def test_cancelling_a_send_keeps_frames_whole():
    async with opened() as (websocket, peer):
        sent = 0
        while True:
            sending = asyncio.create_task(websocket.send(bytes([sent % 256]) * MIB))
            sent += 1
            if not (await asyncio.wait([sending], timeout=0.2))[0]:
                break
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        after = asyncio.create_task(websocket.send("after"))
        payloads = []
        while not payloads or payloads[-1] != b"after":
            payloads.append((await in_thread(peer.next_frame)).payload)
        await after
        assert payloads[:-1] == [bytes([number % 256]) * MIB for number in range(sent)]


@asynchronous
async def test_cancelling_close_does_not_stop_it():
    async with opened() as (websocket, peer):
        closing = asyncio.create_task(websocket.close(3000))
        assert (await in_thread(peer.next_frame)).opcode == Opcode.CLOSE
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert websocket.state is State.CLOSING
        await in_thread(peer.send, peer.close(3000))
        assert await in_thread(peer.next_frame) is None
        peer.end()
        await websocket.wait_closed()
        assert websocket.close_code == 3000


@asynchronous
async def test_cancelling_connect_leaves_nothing_behind(tls):
    async def cancel(uri, turns, **options):
        connecting = asyncio.create_task(connect_to(uri, **options))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    for turns in range(12):
        with Listener() as listener, case(turns=turns):
            await cancel(listener.uri, turns)
            await cancel(listener.uri.replace("ws:", "wss:"), turns, ssl=tls.client)


@asynchronous
async def test_a_connection_that_was_lost_is_forgotten():
    listener = Listener()
    connecting = asyncio.create_task(in_thread(listener.open))
    websocket = await connect(listener.uri)
    peer = await connecting
    peer.reset()
    await websocket.wait_closed()
    with pytest.raises(ConnectionClosed):
        await websocket.recv()
    reference = weakref.ref(websocket)
    del websocket, connecting
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    # No timer holds it.
    assert reference() is None
    listener.sock.close()


# Close callbacks


@pytest.mark.parametrize("end", ["closing handshake", "abort"])
@asynchronous
async def test_a_close_callback_is_called_once_when_the_connection_is_closed(end):
    called = asyncio.Queue()
    async with opened() as (websocket, peer):
        websocket.add_close_callback(lambda closed: called.put_nowait((closed, closed.state)))
        await websocket.send("still open")
        assert called.empty()
        if end == "abort":
            peer.reset()
        else:
            await in_thread(peer.send, peer.close())
            peer.end()
        assert await called.get() == (websocket, State.CLOSED)
        await websocket.wait_closed()
        await asyncio.sleep(0)
        assert called.empty()


@asynchronous
async def test_a_close_callback_of_a_closed_connection_is_called_soon():
    called = []
    async with opened() as (websocket, peer):
        await in_thread(peer.send, peer.close())
        peer.end()
        await websocket.wait_closed()
        websocket.add_close_callback(called.append)
        assert called == []
        await asyncio.sleep(0)
        assert called == [websocket]
        await asyncio.sleep(0)
        assert called == [websocket]


@asynchronous
async def test_a_close_callback_that_was_removed_is_not_called():
    called = []
    async with opened() as (websocket, peer):
        websocket.remove_close_callback(called.append)  # it is not there
        for callback in called.append, called.append, called.extend:
            websocket.add_close_callback(callback)
        websocket.remove_close_callback(called.append)
        websocket.remove_close_callback(called.extend)
        websocket.add_close_callback(lambda _: called.append("kept"))
        await in_thread(peer.send, peer.close())
        peer.end()
        await websocket.wait_closed()
        await asyncio.sleep(0)
        assert called == ["kept"]
        websocket.remove_close_callback(called.append)


@asynchronous
async def test_a_close_callback_is_called_as_often_as_it_was_added():
    called = []
    async with opened() as (websocket, peer):
        websocket.add_close_callback(called.append)
        websocket.add_close_callback(called.append)
        await in_thread(peer.send, peer.close())
        peer.end()
        await websocket.wait_closed()
        await asyncio.sleep(0)
        assert called == [websocket, websocket]


@asynchronous
async def test_a_close_callback_that_raises_disturbs_no_other():
    def fail(websocket):
        raise ValueError("from a callback")

    called, errors = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    async with opened() as (websocket, peer):
        websocket.add_close_callback(fail)
        websocket.add_close_callback(called.append)
        await in_thread(peer.send, peer.close())
        peer.end()
        await websocket.wait_closed()
        websocket.add_close_callback(fail)
        await asyncio.sleep(0)
        assert called == [websocket]
        assert [str(error) for error in errors] == ["from a callback"] * 2


@asynchronous
async def test_a_closed_connection_holds_no_close_callback():
    async with opened() as (websocket, peer):
        holder = weakref.ref(called := set())
        websocket.add_close_callback(called.add)
        del called
        assert holder() is not None
        await in_thread(peer.send, peer.close())
        peer.end()
        await websocket.wait_closed()
        await asyncio.sleep(0)
        gc.collect()
        assert holder() is None


# The face of a protocol


@asynchronous
async def test_bytes_of_a_response_may_come_in_any_pieces():
    listener = Listener()
    connecting = asyncio.create_task(connect_to(listener.uri))
    with await in_thread(listener.accept) as peer:
        head = await in_thread(peer.read_head)
        data = response(key=key_of(head)) + b"\x81\x05Hello"
        for byte in data:
            await in_thread(peer.send, bytes([byte]))
        websocket = await connecting
        assert await websocket.recv() == "Hello"
        await in_thread(peer.send, peer.close())
        peer.end()
        assert [message async for message in websocket] == []
        await websocket.wait_closed()
    listener.sock.close()


@asynchronous
async def test_a_message_counts_once_in_however_many_pieces_it_comes():
    async with opened() as (websocket, peer):
        frames = [
            peer.encode(Opcode.TEXT, "a", False),
            *[peer.encode(0, "b", False)] * 3,
            peer.encode(0, "c"),
        ]
        for data in (*frames, peer.text("whole"), *frames):
            receive(websocket, data)
        assert [piece async for piece in websocket.recv_stream()] == ["a", "b", "b", "b", "c"]
        assert websocket.counters.messages_received == 1
        assert await websocket.recv() == "whole"
        assert await websocket.recv() == "abbbc"
        assert websocket.counters.messages_received == 3
