"""Measure permessage-deflate (RFC 7692): ``python -m benchmarks.deflate`` for what its defaults rest on.

    throughput  a message of JSON through two Connections, sans-IO: send_binary on a server, next_event on a
                client, for each zlib module, with context takeover, 12 window bits, memory level 5
    threshold   what compressing short messages costs and saves, with and without context takeover
    no takeover a fresh zlib object for each message, beside one that Z_FULL_FLUSH clears

Its rows in the table of ``python -m benchmarks`` are a server that sends, and a server that receives, JSON,
beside the peers: messages a second. Context takeover, 12 window bits, and zlib's default level both ways;
memory level 5 for those who compress. Only wsframe and websockets can be told so; aiohttp and wsproto cannot,
and decompress only, where there is nothing to choose. What memory it takes is in ``footprint``.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import wsframe
from wsframe import Binary, Connection, Deflate, Role

from .codec import Case
from .decode import Feed, Message, event_loop
from .samples import documents

TURNS = 9
MODULES = ("zlib", "zlib_ng.zlib_ng", "isal.isal_zlib")


def agreed(module: str = "zlib", **options: Any) -> Deflate:
    """Return what a server agrees on with a browser: windows of 12 bits both ways."""
    return Deflate(
        server_max_window_bits=12,
        client_max_window_bits=12,
        zlib=importlib.import_module(module),
        **options,
    )


# The rows of the table

Encode = Callable[[list[bytes]], list[bytes]]
SIZES = {"200": (200, 200), "2 KiB": (2048, 50)}  # bytes of a message, messages


def wsframe_encode(module: str) -> Encode:
    connection = Connection(Role.SERVER, compression=agreed(module))

    def encode(messages: list[bytes]) -> list[bytes]:
        frames = []
        for message in messages:
            connection.send_binary(message)
            frames.append(connection.data_to_send())
        return frames

    return encode


def websockets_encode() -> Encode:
    from websockets.protocol import Protocol, Side

    protocol = Protocol(Side.SERVER)
    protocol.extensions = [websockets_deflate()]

    def encode(messages: list[bytes]) -> list[bytes]:
        frames = []
        for message in messages:
            protocol.send_binary(message)
            frames += protocol.data_to_send()
        return frames

    return encode


def websockets_deflate() -> Any:
    from websockets.extensions.permessage_deflate import PerMessageDeflate

    return PerMessageDeflate(False, False, 12, 12, {"memLevel": 5})


# Each of these returns a decoder that has seen nothing yet.


def wsframe_feed(module: str) -> Feed:
    connection = Connection(Role.SERVER, compression=agreed(module))

    def feed(read: bytes) -> list[Message]:
        messages: list[Message] = []
        connection.receive_data(read)
        while event := connection.next_event():
            messages.append(event.data)  # type: ignore[union-attr]
        return messages

    return feed


def websockets_feed() -> Feed:
    from websockets.protocol import Protocol, Side

    protocol = Protocol(Side.SERVER)
    protocol.extensions = [websockets_deflate()]

    def feed(read: bytes) -> list[Message]:
        protocol.receive_data(read)
        frames: list[Any] = protocol.events_received()
        return [frame.data for frame in frames]

    return feed


def wsproto_feed() -> Feed:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.extensions import PerMessageDeflate

    extension = PerMessageDeflate()
    extension.accept("permessage-deflate; client_max_window_bits=12; server_max_window_bits=12")
    connection = Connection(ConnectionType.SERVER, extensions=[extension])

    def feed(read: bytes) -> list[Message]:
        connection.receive_data(read)
        return [bytes(event.data) for event in connection.events()]  # type: ignore[attr-defined]

    return feed


def aiohttp_feed() -> Feed:
    from aiohttp._websocket.reader_c import WebSocketDataQueue, WebSocketReader

    queue = WebSocketDataQueue(None, 2**31 - 1, loop=LOOP)  # see decode.aiohttp_feed
    reader = WebSocketReader(queue, 4 * 2**20, True, True)
    buffer = queue._buffer

    def feed(read: bytes) -> list[Message]:
        reader.feed_data(read)
        messages: list[Message] = [message.data for message, _ in buffer]
        buffer.clear()
        return messages

    return feed


LOOP = event_loop()
ENCODE: dict[str, Callable[[], Encode]] = {
    "wsframe": lambda: wsframe_encode("zlib"),
    "wsframe (zlib-ng)": lambda: wsframe_encode("zlib_ng.zlib_ng"),
    "wsframe (isal)": lambda: wsframe_encode("isal.isal_zlib"),
    "websockets": websockets_encode,
}
DECODE: dict[str, Callable[[], Feed]] = {
    "wsframe": lambda: wsframe_feed("zlib"),
    "wsframe (zlib-ng)": lambda: wsframe_feed("zlib_ng.zlib_ng"),
    "wsframe (isal)": lambda: wsframe_feed("isal.isal_zlib"),
    "websockets": websockets_feed,
    "wsproto": wsproto_feed,
    "aiohttp": aiohttp_feed,
}


def checked(peer: str, direction: str, size: str) -> Callable[[], object]:
    """Return a function that does the whole case once, after a look at what the peer makes of it."""
    data, count = SIZES[size]
    messages = documents(data, count)
    if direction == "compress":
        encode = ENCODE[peer]()
        client = Connection(Role.CLIENT, compression=agreed())
        client.receive_data(b"".join(encode(messages)))
        assert [client.next_event() for _ in messages] == [Binary(message) for message in messages]
        return lambda: encode(messages)
    make, client = DECODE[peer], Connection(Role.CLIENT, compression=agreed())
    for message in messages:
        client.send_binary(message)
    stream = client.data_to_send()
    assert len(stream) < sum(map(len, messages)) / 2  # it is compressed
    assert make()(stream) == messages

    def decode() -> None:
        # What refers to what came before can be read once only, so the decoder is a new one.
        assert len(make()(stream)) == count

    return decode


def cases() -> list[Case]:
    def case(direction: str, size: str, names: Iterable[str]) -> Case:
        peers = {peer: functools.partial(checked, peer, direction, size) for peer in names}
        return Case(f"deflate, {direction} JSON {size}", "message", SIZES[size][1], peers)

    return [
        case(direction, size, names)
        for direction, names in (("compress", ENCODE), ("decompress", DECODE))
        for size in SIZES
    ]


# What the defaults rest on


def microseconds(call: Callable[[bytes], object], inputs: list[bytes]) -> float:
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        for data in inputs:
            call(data)
        times.append((time.perf_counter() - start) / len(inputs) * 1e6)
    return statistics.median(times)


def measure_throughput() -> None:
    print(f"\n{'throughput':34}{'compress':>16}{'decompress':>18}{'size':>10}")
    for size, count in ((200, 400), (2048, 200), (65536, 12)):
        for name in MODULES:
            deflate = agreed(name, threshold=0)
            server = Connection(Role.SERVER, compression=deflate)
            inputs = documents(size, count)
            frames: list[bytes] = []

            def send(message: bytes, server: Connection = server, frames: list[bytes] = frames) -> None:
                server.send_binary(message)
                frames.append(server.data_to_send())

            compressing = microseconds(send, inputs)
            client = Connection(Role.CLIENT, compression=deflate)

            def receive(frame: bytes, client: Connection = client) -> None:
                client.receive_data(frame)
                assert type(client.next_event()) is Binary

            decompressing = []
            for turn in range(TURNS):  # a frame can be read once only
                turn_frames = frames[turn * count : (turn + 1) * count]
                start = time.perf_counter()
                for frame in turn_frames:
                    receive(frame)
                decompressing.append((time.perf_counter() - start) / count * 1e6)
            took = statistics.median(decompressing)
            ratio = sum(map(len, frames)) / len(frames) / size
            print(
                f"{size:7} bytes  {name:18}{compressing:8.1f} us {size / compressing:4.0f} MB/s"
                f"{took:8.1f} us {size / took:5.0f} MB/s{ratio:8.1%}"
            )


def measure_threshold() -> None:
    print(f"\n{'threshold':20}{'plain':>10}{'with takeover':>24}{'without':>22}")
    for size in (16, 32, 64, 96, 128, 192, 256, 512):
        row = f"{size:7} bytes     "
        inputs = documents(size, 400)
        for deflate in (None, agreed(threshold=0), agreed(threshold=0, server_no_context_takeover=True)):
            server = Connection(Role.SERVER, compression=deflate)
            client = Connection(Role.CLIENT, compression=deflate)
            lengths: list[int] = []

            def both(
                message: bytes,
                server: Connection = server,
                client: Connection = client,
                lengths: list[int] = lengths,
            ) -> None:
                server.send_binary(message)
                frame = server.data_to_send()
                lengths.append(len(frame))
                client.receive_data(frame)
                client.next_event()

            row += f"{microseconds(both, inputs):8.1f} us {statistics.mean(lengths):6.1f} bytes"
        print(row)


def measure_no_takeover() -> None:
    print(f"\n{'without takeover':24}{'fresh object':>14}{'Z_FULL_FLUSH':>14}")
    for size, name in itertools.product((64, 200, 2048, 65536), MODULES):
        module: Any = importlib.import_module(name)
        inputs = documents(size, 400 if size < 65536 else 10)
        kept = module.compressobj(module.Z_DEFAULT_COMPRESSION, module.DEFLATED, -12, 5)

        def fresh(data: bytes, module: Any = module) -> None:
            compressor = module.compressobj(module.Z_DEFAULT_COMPRESSION, module.DEFLATED, -12, 5)
            compressor.compress(data) + compressor.flush(module.Z_SYNC_FLUSH)

        def cleared(data: bytes, kept: Any = kept, module: Any = module) -> None:
            kept.compress(data) + kept.flush(module.Z_FULL_FLUSH)

        a, b = microseconds(fresh, inputs), microseconds(cleared, inputs)
        print(f"{size:6} {name:16}{a:11.1f} us{b:11.1f} us")


def main() -> None:
    build = "compiled mask" if wsframe.compiled else "pure Python"
    print(f"wsframe {build}, zlib {zlib.ZLIB_RUNTIME_VERSION}, Python {sys.version.split()[0]}")
    measure_throughput()
    measure_threshold()
    measure_no_takeover()


if __name__ == "__main__":
    main()
