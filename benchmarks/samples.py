"""What is sent: payloads, and frames encoded before anything is measured."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from typing import Any

from wsframe import Opcode, encode_frame

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEYS = random.Random(1)


def free_a_large_block() -> None:
    """Bring malloc into the state that it has in every program that has run for a while.

    glibc maps memory anew for each block of 128 KiB or more, until the first such block is freed. asyncio
    receives into blocks of 256 KiB. A server that has never had anything large, which is rare outside of
    benchmarks, takes 13 microseconds more for each read.
    """
    bytes(2**19)


def respond(request: bytes) -> bytes:
    """Return a server's response to a client's request."""
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key + GUID).digest()) + b"\r\n\r\n"
    )


def text(size: int) -> str:
    return ("All that is gold does not glitter, not all those who wander are lost. " * (size // 70 + 1))[
        :size
    ]


def binary(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def masked(payload: str | bytes, fin: bool = True, is_first: bool = True) -> bytes:
    """Return a client's frame."""
    opcode = Opcode.TEXT if isinstance(payload, str) else Opcode.BINARY
    data = payload.encode() if isinstance(payload, str) else payload
    return encode_frame(opcode if is_first else Opcode.CONTINUATION, data, fin, mask=KEYS.randbytes(4))


def fragmented(payload: str | bytes, count: int) -> bytes:
    """Return a client's message in as many frames of the same length."""
    size = len(payload) // count
    return b"".join(
        masked(payload[i * size : (i + 1) * size], fin=i == count - 1, is_first=i == 0) for i in range(count)
    )


def documents(size: int, count: int) -> list[bytes]:
    """JSON as a dashboard or a chat sends it: alike, but no two the same."""
    rng = random.Random(1)

    def entry() -> dict[str, Any]:
        return {
            "id": rng.randrange(10**6),
            "user": rng.choice(["alice", "bob", "carol", "dave"]),
            "price": round(rng.random() * 100, 2),
            "tags": rng.sample(["red", "green", "blue", "large", "small"], 2),
        }

    data = json.dumps([entry() for _ in range(count * size // 60)]).encode()
    return [data[i * size : (i + 1) * size] for i in range(count)]


DOCUMENTS = documents(2048, 32)  # 64 KiB, for the rows of memory
