"""The blocking clients of all peers, each in a process of its own: ``-m benchmarks.clients PEER PORT``.

A client connects, prints a line, and then reads numbers from stdin: it sends as many messages, each after the
answer to the last one, and prints a line. Compression and keepalive are off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import samples

Send, Receive = Callable[[Any], Any], Callable[[], Any]


def wsframe(uri: str) -> tuple[Send, Receive]:
    from wsframe.sync import connect

    websocket = connect(uri, deflate=None, ping_interval=None)
    return websocket.send, websocket.recv


def websockets(uri: str) -> tuple[Send, Receive]:
    from websockets.sync.client import connect

    websocket = connect(uri, compression=None, ping_interval=None)
    return websocket.send, websocket.recv


def websocket_client(uri: str) -> tuple[Send, Receive]:
    from websocket import create_connection

    websocket = create_connection(uri, enable_multithread=False)
    return websocket.send_binary, websocket.recv


PEERS: dict[str, Callable[[str], tuple[Send, Receive]]] = {
    "wsframe.sync": wsframe,
    "websockets.sync": websockets,
    "websocket-client": websocket_client,
}


def main(peer: str, port: str) -> None:
    samples.free_a_large_block()
    send, receive = PEERS[peer](f"ws://127.0.0.1:{port}/")
    print("open", flush=True)
    message = samples.binary(64)
    for line in sys.stdin:
        answer: Any = None
        for _ in range(int(line)):
            send(message)
            answer = receive()
        print("ok" if answer == bytes(64) else f"answered {answer!r}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
