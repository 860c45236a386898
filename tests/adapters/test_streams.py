"""Messages in pieces, compressed messages and prepared ones, through both adapters."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.adapters import (
    MIB,
    TIMEOUT,
    Blocking,
    asynchronous,
    each_role,
    fill,
    key_of,
    opened,
    response,
)
from tests.support.tiers import full
from wsframe import (
    ConnectionClosed,
    Deflate,
    FrameDecoder,
    Opcode,
    Ping,
    Request,
    ServerConnection,
    aio,
    encode_frame,
    prepare,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "stream.py"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
DEFLATE = ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12",)
ABANDONED = "message could not be completed"
RSV1 = 4
JSON = json.dumps([{"id": i, "name": f"user {i}"} for i in range(3000)])


def next_piece(websocket, stream):
    """Return the next piece, or None after the last one."""
    if not isinstance(websocket, Blocking):
        return next(stream, None)
    try:
        return websocket._loop.run(stream.__anext__)
    except StopAsyncIteration:
        return None


def all_pieces(websocket):
    stream = websocket.recv_stream()
    return list(iter(lambda: next_piece(websocket, stream), None))


def iterable(websocket, items, gate=None):
    """Give items one by one; with a gate, each when something is put into it. An exception is raised."""
    if isinstance(websocket, Blocking):
        return asynchronous_iterable(items, gate)
    return blocking_iterable(items, gate)


def blocking_iterable(items, gate=None):
    for item in items:
        if gate is not None:
            gate.get(timeout=TIMEOUT)
        if isinstance(item, Exception):
            raise type(item)(*item.args)
        yield item


async def asynchronous_iterable(items, gate=None):
    for item in items:
        if gate is not None:
            await asyncio.to_thread(gate.get, True, TIMEOUT)
        if isinstance(item, Exception):
            raise type(item)(*item.args)
        yield item


def seen(frame):
    return frame.opcode, frame.fin, frame.payload


@contextmanager
def compressing(adapter, role, **options):
    """Open a connection that has agreed on permessage-deflate; the peer knows how to read it."""
    with opened(adapter, role, headers=DEFLATE, **options) as (websocket, peer):
        peer._decoder = FrameDecoder(masked=not peer.is_client, rsv1=True)
        yield websocket, peer


class Inflate:
    """Decompress what a peer reads, by RFC 7692, section 7.2.2, and with nothing of wsframe's."""

    def __init__(self, bits=15):
        self._object = zlib.decompressobj(-bits)

    def __call__(self, *frames):
        assert [frame.rsv for frame in frames] == [RSV1] + [0] * (len(frames) - 1)
        data = b"".join(frame.payload for frame in frames)
        return self._object.decompress(data + b"\0\0\xff\xff")


def deflated(payload, end=b"\0\0\xff\xff"):
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(end)


def next_message(peer):
    """Read the frames of a message, with no control frames between them."""
    frames = [peer.next_frame()]
    while not frames[-1].fin:
        frames.append(peer.next_frame())
    return frames


def compressed(peer, opcode, payload, fin=True):
    return encode_frame(opcode, payload, fin, rsv=RSV1, mask=b"abcd" if peer.is_client else None)


# Receiving a message in pieces


def test_a_piece_is_there_before_the_rest_of_its_message(pair):
    websocket, peer = pair
    peer.send(peer.encode(TEXT, "Hel", fin=False))
    stream = websocket.recv_stream()
    assert next_piece(websocket, stream) == "Hel"
    peer.send(peer.encode(CONTINUATION, "lo", fin=False))
    assert next_piece(websocket, stream) == "lo"
    peer.send(peer.encode(CONTINUATION, ""), peer.text("next"))
    assert next_piece(websocket, stream) is None
    assert next_piece(websocket, stream) is None
    assert websocket.recv() == "next"


def test_a_piece_of_a_frame_is_there_before_the_rest_of_it(pair):
    websocket, peer = pair
    data = peer.encode(BINARY, b"Hello")
    peer.send(data[:-3])
    stream = websocket.recv_stream()
    assert next_piece(websocket, stream) == b"He"
    peer.send(data[-3:])
    assert next_piece(websocket, stream) == b"llo"
    assert next_piece(websocket, stream) is None


def test_pieces_of_text_are_cut_between_characters(pair):
    websocket, peer = pair
    peer.send(peer.encode(TEXT, b"a\xc3", fin=False))
    stream = websocket.recv_stream()
    assert next_piece(websocket, stream) == "a"
    peer.send(peer.encode(CONTINUATION, b"\xa9"))
    assert next_piece(websocket, stream) == "é"
    assert next_piece(websocket, stream) is None


def test_a_message_that_is_there_whole_is_one_piece(pair):
    websocket, peer = pair
    peer.send(*map(peer.text, ["one", "", "three"]), peer.encode(BINARY))
    assert [all_pieces(websocket) for _ in range(4)] == [["one"], [""], ["three"], [b""]]


def test_messages_and_streams_take_turns(pair):
    websocket, peer = pair
    peer.send(*map(peer.text, "abcd"))
    assert websocket.recv() == "a"
    assert all_pieces(websocket) == ["b"]
    assert next(iter(websocket)) == "c"
    assert all_pieces(websocket) == ["d"]


def test_a_ping_within_a_message_is_answered(pair):
    websocket, peer = pair
    peer.send(peer.encode(TEXT, "a", fin=False), peer.encode(PING, b"?"), peer.encode(CONTINUATION, "b"))
    assert "".join(all_pieces(websocket)) == "ab"
    assert seen(peer.next_frame()) == (PONG, True, b"?")


@pytest.mark.parametrize("then", ["recv", "stream"])
def test_what_is_not_received_of_a_message_is_dropped(pair, then):
    websocket, peer = pair
    peer.send(peer.encode(TEXT, "a", fin=False))
    stream = websocket.recv_stream()
    assert next_piece(websocket, stream) == "a"
    peer.send(peer.encode(CONTINUATION, "b", fin=False), peer.encode(CONTINUATION, "c"), peer.text("next"))
    assert (websocket.recv() if then == "recv" else "".join(all_pieces(websocket))) == "next"
    with pytest.raises(RuntimeError, match="the rest of this message was dropped by another recv"):
        next_piece(websocket, stream)


@pytest.mark.parametrize(
    ("end", "code", "clean"),
    [
        (lambda peer: [peer.close(4000, "enough")], 4000, True),
        (lambda peer: [], 1006, False),
        (lambda peer: [peer.violation], 1002, False),
        (lambda peer: [peer.encode(CONTINUATION, b"\xff")], 1007, False),
    ],
    ids=["close", "loss", "violation", "not UTF-8"],
)
def test_the_end_comes_in_the_middle_of_a_message(pair, end, code, clean):
    websocket, peer = pair
    peer.send(peer.encode(TEXT, "a", fin=False))
    stream = websocket.recv_stream()
    assert next_piece(websocket, stream) == "a"
    peer.send(*end(peer))
    peer.end()
    with pytest.raises(ConnectionClosed) as closed:
        next_piece(websocket, stream)
    assert (closed.value.code, closed.value.clean) == (code, clean)


def test_the_limit_is_for_the_message_not_for_its_pieces(adapter, role):
    with opened(adapter, role, max_message_size=10) as (websocket, peer):
        peer.send(peer.encode(BINARY, bytes(6), fin=False))
        stream = websocket.recv_stream()
        assert next_piece(websocket, stream) == bytes(6)
        peer.send(peer.encode(CONTINUATION, bytes(4), fin=False))
        assert next_piece(websocket, stream) == bytes(4)
        peer.send(peer.encode(CONTINUATION, b"x"))
        peer.end()
        with pytest.raises(ConnectionClosed) as closed:
            next_piece(websocket, stream)
        assert closed.value.code == 1009
        assert peer.read_close() == (1009, "message is too big")


def test_a_compressed_message_comes_in_pieces_of_what_it_is(adapter, role):
    with compressing(adapter, role) as (websocket, peer):
        data = deflated(JSON.encode())
        half = len(data) // 2
        peer.send(compressed(peer, TEXT, data[:half], fin=False))
        stream = websocket.recv_stream()
        begun = next_piece(websocket, stream)
        assert JSON.startswith(begun)
        peer.send(peer.encode(CONTINUATION, data[half:]), peer.text("next"))
        pieces = list(iter(lambda: next_piece(websocket, stream), None))
        assert begun + "".join(pieces) == JSON
        assert websocket.recv() == "next"


@each_role
def test_a_bomb_gives_no_more_than_the_limit(adapter, role):
    with compressing(adapter, role, max_message_size=200_000) as (websocket, peer):
        peer.send(compressed(peer, BINARY, deflated(b"x", end=b""), fin=False))
        stream = websocket.recv_stream()
        sizes = [len(next_piece(websocket, stream))]
        peer.send(peer.encode(CONTINUATION, deflated(bytes(2**26))))
        peer.end()
        with pytest.raises(ConnectionClosed) as closed:
            sizes.extend(map(len, iter(lambda: next_piece(websocket, stream), None)))
        assert closed.value.code == 1009
        assert max(sizes) <= 65536
        assert 200_000 - 65536 < sum(sizes) <= 200_000
        assert peer.read_close() == (1009, "message is too big")


@each_role
def test_a_message_that_nobody_receives_is_not_collected_whole(adapter, role, spawn):
    with opened(adapter, role, max_message_size=None) as (websocket, peer):
        peer.send(peer.encode(BINARY, b"", fin=False))
        count = fill(peer, peer.encode(CONTINUATION, bytes(65536), fin=False))
        assert count < 16 * MIB / 65536
        sending = spawn(peer.send, peer.unsent, peer.encode(CONTINUATION, b"end"))
        assert sum(map(len, all_pieces(websocket))) == (count + 1) * 65536 + 3
        sending.result(TIMEOUT)


def test_a_message_that_comes_after_our_close_is_not_collected(adapter, role, spawn):
    with opened(adapter, role, max_message_size=None) as (websocket, peer):
        peer.send(peer.encode(TEXT, "a", fin=False))
        stream = websocket.recv_stream()
        assert next_piece(websocket, stream) == "a"
        closing = spawn(websocket.close)
        assert peer.next_frame().opcode == CLOSE
        fragment = peer.encode(CONTINUATION, bytes(65536), fin=False)
        peer.send(*[fragment] * 32, peer.encode(PING, b"?"))
        assert seen(peer.next_frame()) == (PONG, True, b"?")
        assert adapter.call(lambda: websocket.session.connection.collected) == 0
        peer.send(peer.close())
        peer.end()
        closing.result(TIMEOUT)


# Sending an iterable


@pytest.mark.parametrize(
    ("items", "opcode"),
    [(["Hel", "", "lo"], TEXT), ([b"\0", bytearray(b"\1"), memoryview(b"\2")], BINARY)],
    ids=["text", "binary"],
)
def test_an_iterable_goes_out_as_one_fragmented_message(pair, items, opcode):
    websocket, peer = pair
    websocket.send(iterable(websocket, items))
    websocket.send("next")
    payloads = [item.encode() if isinstance(item, str) else bytes(item) for item in items]
    assert seen(peer.next_frame()) == (opcode, False, payloads[0])
    for payload in payloads[1:]:
        assert seen(peer.next_frame()) == (CONTINUATION, False, payload)
    assert seen(peer.next_frame()) == (CONTINUATION, True, b"")
    assert peer.read_text() == "next"


def test_every_iterable_will_do(pair):
    websocket, peer = pair
    for kind in (list, tuple, iter):
        websocket.send(kind(["a", "b"]))
        assert b"".join(peer.next_frame().payload for _ in range(3)) == b"ab", kind


def test_an_iterable_without_items_sends_nothing(pair):
    websocket, peer = pair
    websocket.send(iterable(websocket, []))
    websocket.send("next")
    assert peer.read_text() == "next"


def test_a_first_item_of_a_wrong_type_changes_nothing(pair):
    websocket, peer = pair
    with pytest.raises(TypeError):
        websocket.send(iterable(websocket, [5]))
    websocket.send("next")
    assert peer.read_text() == "next"


@pytest.mark.parametrize(
    ("item", "kind", "problem"),
    [
        (b"b", TypeError, "all str or all bytes-like"),
        (prepare("b"), TypeError, "not Prepared"),
        (KeyError("half-way"), KeyError, "half-way"),
    ],
    ids=["bytes after str", "prepared", "raises"],
)
def test_a_message_that_cannot_be_completed_closes_with_1011_and_says_so(pair, item, kind, problem):
    websocket, peer = pair
    with pytest.raises(kind, match=problem) as raised:
        websocket.send(iterable(websocket, ["a", item]))
    assert raised.value.__notes__ == [f"wsframe closed the connection with 1011: {ABANDONED}"]
    assert seen(peer.next_frame()) == (TEXT, False, b"a")
    assert seen(peer.next_frame()) == (CLOSE, True, b"\x03\xf3" + ABANDONED.encode())
    with pytest.raises(ConnectionClosed):
        websocket.send("next")
    peer.send(peer.close(1011))
    peer.end()


def begin_to_send(websocket, peer, spawn):
    """Send the first of two fragments; the second goes out when something is put into the gate."""
    gate = queue.SimpleQueue()
    sending = spawn(websocket.send, iterable(websocket, ["a", "b"], gate))
    gate.put(None)
    assert seen(peer.next_frame()) == (TEXT, False, b"a")
    return gate, sending


def ping_and_answer(websocket, peer, spawn):
    pinging = spawn(websocket.ping, b"?")
    assert seen(peer.next_frame()) == (PING, True, b"?")
    peer.send(peer.encode(PONG, b"?"))
    assert pinging.result(TIMEOUT) >= 0


def test_what_an_iterable_gives_is_sent_before_it_gives_more_and_pings_go_between(pair, spawn):
    websocket, peer = pair
    gate, sending = begin_to_send(websocket, peer, spawn)
    ping_and_answer(websocket, peer, spawn)
    assert not sending.done()
    gate.put(None)
    assert seen(peer.next_frame()) == (CONTINUATION, False, b"b")
    assert seen(peer.next_frame()) == (CONTINUATION, True, b"")
    sending.result(TIMEOUT)


def test_other_messages_wait_until_a_fragmented_one_is_done(pair, spawn):
    websocket, peer = pair
    gate, sending = begin_to_send(websocket, peer, spawn)
    others = [spawn(websocket.send, message) for message in ("next", ["ne", "xt"], prepare("next"))]
    ping_and_answer(websocket, peer, spawn)  # by then the others have had their turns
    assert not any(other.done() for other in others)
    gate.put(None)
    rest = [peer.next_frame() for _ in range(7)]
    assert [frame.payload for frame in rest[:2]] == [b"b", b""]
    assert [frame.fin for frame in rest].count(True) == 4
    assert b"".join(frame.payload for frame in rest[2:]) == b"next" * 3
    for future in (sending, *others):
        future.result(TIMEOUT)


def test_a_message_inside_another_one_is_refused(pair):
    websocket, peer = pair

    def nested():
        yield "a"
        websocket.send("b")

    async def asynchronous_nested():
        yield "a"
        await websocket.websocket.send("b")

    items = asynchronous_nested() if isinstance(websocket, Blocking) else nested()
    with pytest.raises(RuntimeError, match="a message cannot be sent inside another one"):
        websocket.send(items)
    assert seen(peer.next_frame()) == (TEXT, False, b"a")
    assert peer.next_frame().opcode == CLOSE
    peer.end()


def test_an_iterable_is_not_read_ahead_of_a_peer_that_does_not_read(pair, spawn):
    websocket, peer = pair
    taken = []
    enough = threading.Event()

    def items():
        for i in range(1000):
            taken.append(i)
            if len(taken) == 20:
                enough.set()
            yield bytes(65536)

    async def asynchronous_items():
        for item in items():
            yield item

    sending = spawn(websocket.send, asynchronous_items() if isinstance(websocket, Blocking) else items())
    # Loopback takes a few MiB. A round trip of a frame behind them shows that sending goes on.
    received = sum(len(peer.next_frame().payload) for _ in range(200))
    assert received == 200 * 65536
    # What is on the way is a few MiB at most, of 62.
    assert len(taken) < 200 + 300
    for _ in range(801):
        peer.next_frame()
    sending.result(TIMEOUT)
    assert len(taken) == 1000


# asyncio


@asynchronous
async def test_cancelling_a_streaming_send_closes_with_1011():
    ends = asyncio.Queue()

    async def handler(websocket):
        pieces = []
        try:
            async for piece in websocket.recv_stream():
                pieces.append(piece)
                ends.put_nowait("begun")
        except ConnectionClosed as closed:
            ends.put_nowait((pieces, closed.code, closed.reason))

    async def endless():
        yield "a"
        await asyncio.Event().wait()

    async with (
        aio.serve(handler, "127.0.0.1", 0) as server,
        aio.connect(f"ws://127.0.0.1:{server.port}/") as websocket,
    ):
        sending = asyncio.create_task(websocket.send(endless()))
        assert await ends.get() == "begun"
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await ends.get() == (["a"], 1011, ABANDONED)


@asynchronous
async def test_cancelling_a_stream_loses_nothing():
    gate = asyncio.Event()

    async def handler(websocket):
        async def items():
            yield "a"
            await gate.wait()
            yield "b"

        await websocket.send(items())
        await websocket.wait_closed()

    async with (
        aio.serve(handler, "127.0.0.1", 0) as server,
        aio.connect(f"ws://127.0.0.1:{server.port}/") as websocket,
    ):
        stream = websocket.recv_stream()
        assert await anext(stream) == "a"
        receiving = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        gate.set()
        assert [piece async for piece in stream] == ["b"]


@pytest.mark.parametrize("receive", ["recv", "__anext__"])
@asynchronous
async def test_the_rest_of_a_message_is_dropped_in_its_order(receive):
    gate = asyncio.Event()

    async def serve(reader, writer):
        connection = ServerConnection(compression=None)
        while not isinstance(event := connection.next_event(), Ping):
            if isinstance(event, Request):
                connection.accept()
                connection.send_text("a", fin=False)
                connection.send_text("b", fin=False)
                writer.write(connection.data_to_send())
            elif event is None:
                connection.receive_data(await reader.read(65536))
        writer.write(connection.data_to_send())
        await gate.wait()
        connection.send_text("c")
        connection.send_text("next")
        writer.write(connection.data_to_send())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with aio.connect(f"ws://127.0.0.1:{port}/") as websocket:
            assert await anext(websocket.recv_stream()) == "a"
            await websocket.ping()  # the Pong comes behind "b"
            receiving = asyncio.create_task(getattr(websocket, receive)())
            await asyncio.sleep(0)
            gate.set()
            assert await receiving == "next"


@pytest.mark.parametrize("size", [1, 16])
@asynchronous
async def test_compressing_a_large_message_leaves_turns_to_others(size):
    """Each slice of 64 KiB leaves one: a loop that stands still for the whole message leaves two or three."""
    received = asyncio.Queue()
    turns = 0
    is_over = False

    async def handler(websocket):
        received.put_nowait(await websocket.recv())

    def turn():
        nonlocal turns
        turns += 1
        if not is_over:
            loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    message = JSON[:65536] * size
    async with (
        aio.serve(handler, "127.0.0.1", 0, max_message_size=None) as server,
        aio.connect(f"ws://127.0.0.1:{server.port}/") as websocket,
    ):
        assert websocket.session.connection.compression is not None
        loop.call_soon(turn)
        await asyncio.sleep(0)
        before = turns
        await websocket.send(message)
        assert turns - before >= size - 1
        is_over = True
        assert await received.get() == message


@asynchronous
async def test_cancelling_a_large_compressed_message_does_not_lose_it():
    received = asyncio.Queue()

    async def handler(websocket):
        async for message in websocket:
            received.put_nowait(message)

    message = JSON[:65536] * 8
    async with (
        aio.serve(handler, "127.0.0.1", 0) as server,
        aio.connect(f"ws://127.0.0.1:{server.port}/") as websocket,
    ):
        sending = asyncio.create_task(websocket.send(message))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await websocket.send("next")
        assert [await received.get(), await received.get()] == [message, "next"]


# Compression


def test_what_reaches_the_threshold_is_compressed_unless_its_sender_says_otherwise(adapter, role):
    with compressing(adapter, role) as (websocket, peer):
        inflate = Inflate()
        for message, compress, is_compressed in [
            ("x" * 128, None, True),
            ("x" * 127, None, False),
            ("x" * 1000, False, False),
            ("short", True, True),
            (b"x" * 128, None, True),
            ("", True, True),
            ("x" * 128, None, True),
        ]:
            websocket.send(message, compress=compress)
            frame = peer.next_frame()
            assert frame.rsv == (RSV1 if is_compressed else 0)
            payload = inflate(frame) if is_compressed else frame.payload
            assert payload == (message.encode() if isinstance(message, str) else message)


@pytest.mark.parametrize("compress", [None, True])
def test_an_iterable_is_compressed_as_one_message(adapter, role, compress):
    with compressing(adapter, role) as (websocket, peer):
        websocket.send(iterable(websocket, ["Hel", "lo"]), compress=compress)
        assert Inflate()(*(peer.next_frame() for _ in range(3))) == b"Hello"


def test_an_iterable_goes_out_plain_if_its_sender_says_so(adapter, role):
    with compressing(adapter, role) as (websocket, peer):
        websocket.send(iterable(websocket, ["x" * 500] * 2), compress=False)
        assert [peer.next_frame().rsv for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("headers", [(), DEFLATE])
def test_nothing_is_compressed_unless_both_ends_want_it(adapter, role, headers):
    options = {} if not headers else {"compression": None}
    if role == "client" and headers:
        headers = ()  # a server must not answer with what was not offered
    with opened(adapter, role, headers=headers, **options) as (websocket, peer):
        assert adapter.call(lambda: websocket.session.connection.compression) is None
        websocket.send("x" * 1000, compress=True)
        websocket.send(prepare("x" * 1000, compress=True))
        assert [peer.read_text() for _ in range(2)] == ["x" * 1000] * 2


@pytest.mark.parametrize("compression", [Deflate(), Deflate(client_no_context_takeover=True), None], ids=str)
def test_a_large_message_is_compressed_and_comes_back(adapter, compression):
    message = JSON * 5  # more than one slice
    with adapter.serve() as running:
        websocket = adapter.connect(running.uri, compression=compression)
        for _ in range(2):
            websocket.send(message)
            assert websocket.recv() == message
        websocket.close()


# Prepared messages


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("compress", [None, True, False])
def test_a_prepared_message_is_right_for_every_peer(adapter, opcode, compress):
    """Between messages of the connection's own, which must still be right as well."""
    message = JSON if opcode == TEXT else JSON.encode()
    prepared = prepare(message, compress=compress)
    offers = [
        None,
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    ]

    def handler(websocket):
        for _ in range(2):
            websocket.send(message)
            websocket.send(prepared)
        websocket.send(message)

    with adapter.serve(handler) as running:
        for offer in offers * 2:
            headers = (f"Sec-WebSocket-Extensions: {offer}",) if offer else ()
            with running.open(headers=headers) as peer:
                peer._decoder.legal = FrameDecoder(masked=False, rsv1=True).legal
                bits = 9 if "=9" in str(offer) else 12
                inflate = Inflate(bits)
                for i in range(5):
                    frames = next_message(peer)
                    is_compressed = offer is not None and (compress is not False or i % 2 == 0)
                    assert frames[0].rsv == (RSV1 if is_compressed else 0)
                    assert frames[0].opcode == opcode
                    if "no_context" in str(offer):
                        inflate = Inflate(bits)
                    data = b"".join(frame.payload for frame in frames)
                    assert (inflate(*frames) if is_compressed else data) == JSON.encode()
                peer.send(peer.close())
                assert peer.next_frame().opcode == CLOSE


def test_a_client_masks_a_prepared_message(adapter):
    prepared = prepare(JSON)
    with compressing(adapter, "client") as (websocket, peer):
        inflate = Inflate()
        for _ in range(2):
            websocket.send(prepared)
            websocket.send(JSON[:1000])
            assert inflate(peer.next_frame()) == JSON.encode()
            assert inflate(peer.next_frame()) == JSON[:1000].encode()


# Peers that agree on compression in a way of their own, each as it was seen on the wire


def offers_in(head):
    [line] = re.findall(r"^Sec-WebSocket-Extensions: (.*)\r?$", head.decode(), re.MULTILINE)
    return [offer.strip() for offer in line.split(",")]


def libsoup(offers):
    """Accept each offer, as libsoup 3.2.3 does."""
    return ", ".join(offer.replace("client_max_window_bits", "client_max_window_bits=15") for offer in offers)


def nhooyr(offers):
    """Refuse a client that asks for a window, as nhooyr.io/websocket 1.8.7 does."""
    return None if "server_max_window_bits" in offers[0] else "permessage-deflate"


def netty(offers):
    """Take the window that is asked for, as netty 4.1.48 does, which then cannot compress with it."""
    window = "; server_max_window_bits=12" if "server_max_window_bits" in offers[0] else ""
    return f"permessage-deflate{window}"


@pytest.mark.parametrize("server", [libsoup, nhooyr, netty])
def test_the_offer_of_our_clients_works_with_servers_that_fail_on_more(adapter, listener, spawn, server):
    connecting = spawn(adapter.connect, listener.uri)
    with listener.accept() as peer:
        offers = offers_in(peer.read_head())
        assert offers == ["permessage-deflate; client_max_window_bits"]
        answer = server(offers)
        peer.send(response(f"Sec-WebSocket-Extensions: {answer}", key=key_of(peer.head)))
        websocket = connecting.result(TIMEOUT)
        # Such a server compresses with 15 bits, and may refer to what is as far back as that.
        compressor = zlib.compressobj(9, wbits=-15)
        for message in (JSON[:1000], JSON[1000:33_000], JSON[:1000]):
            payload = compressor.compress(message.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
            peer.send(compressed(peer, TEXT, payload[:-4]))
            assert websocket.recv(TIMEOUT) == message
        peer._decoder = FrameDecoder(masked=True, rsv1=True)
        inflate = Inflate(12)  # it compresses with 12 bits, and need not say so
        for message in (JSON[:1000], JSON, JSON[:1000]):
            websocket.send(message)
            assert inflate(*next_message(peer)) == message.encode()
        peer.send(peer.close())
        peer.end()
        websocket.close()


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        # nhooyr.io/websocket 1.8.7
        (
            "; client_no_context_takeover; server_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover",
        ),
        # websocket-sharp
        (
            "; server_no_context_takeover; client_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover",
        ),
        # netty 4.1.48, and browsers
        ("; client_max_window_bits", "; client_max_window_bits=12"),
        # Mojolicious and Tomcat
        ("", ""),
    ],
)
def test_our_servers_answer_with_nothing_that_a_client_did_not_offer(adapter, offer, answer):
    headers = (f"Sec-WebSocket-Extensions: permessage-deflate{offer}",)
    with adapter.serve() as running, running.open(headers=headers) as peer:
        assert offers_in(peer.head) == [f"permessage-deflate{answer}"]
        peer._decoder = FrameDecoder(masked=False, rsv1=True)
        bits = 12 if "client_max_window_bits" in answer else 15
        is_alone = "no_context" in answer
        compressor, inflate = zlib.compressobj(9, wbits=-bits), Inflate(12)
        for message in (JSON[:1000], JSON, JSON[:1000]):
            if is_alone:
                compressor, inflate = zlib.compressobj(9, wbits=-bits), Inflate(12)
            payload = compressor.compress(message.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
            peer.send(compressed(peer, TEXT, payload[:-4]))
            assert inflate(*next_message(peer)) == message.encode()
        peer.send(peer.close())
        assert peer.next_frame().opcode == CLOSE


def test_a_server_that_says_8_bits_for_its_window_is_understood(adapter):
    headers = ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8",)
    with opened(adapter, "client", headers=headers) as (websocket, peer):
        peer.send(compressed(peer, TEXT, bytes.fromhex("f248cdc9c90700")))  # RFC 7692, section 7.2.3.1
        assert websocket.recv(TIMEOUT) == "Hello"
        peer.send(peer.close())
        peer.end()


@each_role
def test_a_compressed_message_without_any_bytes_is_empty(adapter, role):
    with compressing(adapter, role) as (websocket, peer):
        hello = compressed(peer, TEXT, bytes.fromhex("f248cdc9c90700"))
        again = compressed(peer, TEXT, bytes.fromhex("f200110000"))  # it refers to the one before it
        nothing = (
            compressed(peer, TEXT, b"") + compressed(peer, BINARY, b"", False) + peer.encode(CONTINUATION)
        )
        peer.send(nothing, hello, nothing, again)
        received = [websocket.recv(TIMEOUT) for _ in range(6)]
        assert received == ["", b"", "Hello", "", b"", "Hello"]
        peer.send(peer.close())
        peer.end()


@each_role
def test_a_message_full_of_blocks_with_bfinal_closes_with_1009(adapter, role):
    with compressing(adapter, role, close_timeout=0.1) as (websocket, peer):
        peer.send(compressed(peer, BINARY, b"\x03\0" * 2**17))
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(TIMEOUT)
        assert (closed.value.code, closed.value.reason) == (1009, "message has too many blocks with BFINAL")
        assert peer.next_frame().payload == b"\x03\xf1message has too many blocks with BFINAL"


# Memory


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("aio", "64"), marks=full),
        ("sync", "64"),
        ("aio", "8", "compressed"),
        pytest.param(("sync", "8", "compressed"), marks=full),
    ],
    ids=" ".join,
)
def test_a_message_of_any_size_takes_little_memory(arguments):
    command = [sys.executable, "-W", "error", str(EXAMPLE), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert run.stderr == ""
    found = re.fullmatch(
        rf"{arguments[0]}: {arguments[1]} MiB each way in .* s, (.*) MiB of memory\n", run.stdout
    )
    assert found, run.stdout
    assert float(found[1]) < 20
