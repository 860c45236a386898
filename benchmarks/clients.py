"""The blocking clients of all peers, each in a process of its own: ``-m benchmarks.clients PEER PORT``.

A client connects, prints a line, and then reads numbers from stdin: it sends as many messages, each after the
answer to the last one, and prints a line. Compression and keepalive are off.

With --compressed it reads numbers, opens as many connections, sends the messages of the rows of memory on
each, and keeps them open.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import samples

Send, Receive = Callable[[Any], Any], Callable[[], Any]


def wsframe(uri: str, compressed: bool = False) -> tuple[Send, Receive]:
    from wsframe.deflate import DEFAULT
    from wsframe.sync import connect

    websocket = connect(uri, compression=DEFAULT if compressed else None, ping_interval=None)
    return websocket.send, websocket.recv


def websockets(uri: str, compressed: bool = False) -> tuple[Send, Receive]:
    from websockets.sync.client import connect

    websocket = connect(uri, compression="deflate" if compressed else None, ping_interval=None)
    return websocket.send, websocket.recv


def websocket_client(uri: str, compressed: bool = False) -> tuple[Send, Receive]:
    from websocket import create_connection

    assert not compressed, "it cannot"
    websocket = create_connection(uri, enable_multithread=False)
    return websocket.send_binary, websocket.recv


PEERS: dict[str, Callable[..., tuple[Send, Receive]]] = {
    "wsframe.sync": wsframe,
    "websockets.sync": websockets,
    "websocket-client": websocket_client,
}


def main(peer: str, port: str, option: str = "") -> None:
    samples.free_a_large_block()
    uri = f"ws://127.0.0.1:{port}/"
    if option == "--compressed":
        open_many(lambda: PEERS[peer](uri, compressed=True))
        return
    send, receive = PEERS[peer](uri)
    print("open", flush=True)
    message = samples.binary(64)
    for line in sys.stdin:
        answer: Any = None
        for _ in range(int(line)):
            send(message)
            answer = receive()
        print("ok" if answer == bytes(64) else f"answered {answer!r}", flush=True)


def open_many(connect: Callable[[], tuple[Send, Receive]]) -> None:
    opened = []
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            send, receive = connect()
            opened.append((send, receive))
            for message in samples.DOCUMENTS:
                send(message)
                assert receive() == message
        print("ok", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
