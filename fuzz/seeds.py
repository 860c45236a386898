"""Write the seeds: what the RFCs show, what Autobahn asks, and what handshakes, offers and addresses hold.

    python -m fuzz.seeds

A seed for a stream is a plan, as targets.py has it, and the stream. What a fuzzer found stands beside
the seeds, named by its hash; this leaves it alone.
"""

from __future__ import annotations

import zlib

from wsframe import encode_frame

from .__main__ import CORPUS
from .targets import ACCEPT, BEGINNINGS, CALLS, KEY, Speaker

FIN, RSV1 = 0x80, 0x40
HALF = "Hällo, 世界! " * 3
RAW = {
    "reserved-bits": b"\x91\x00",
    "reserved-opcode": b"\x83\x00",
    "not-minimal-16": b"\x81\x7e\x00\x05Hello",
    "not-minimal-64": b"\x81\x7f\0\0\0\0\0\0\0\x7eHello",
    "sign-bit": b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
    "too-big": b"\x82\x7e\x03\xe9",
    "long-ping": b"\x89\x7e\x00\x7e" + bytes(126),
    "ping-in-fragments": b"\x09\x00",
    "nothing-to-continue": b"\x80\x00",
    "one-byte-close": b"\x88\x01\x03",
    "close-1005": b"\x88\x02\x03\xed",
    "close-without-utf-8": b"\x88\x04\x03\xe8\xed\xa0",
}


def deflated(data: bytes) -> bytes:
    """Return the payload of a compressed message (RFC 7692, section 7.2.1)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -9)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def frame(first: int, payload: bytes = b"", masked: bool = True) -> bytes:
    """Return a frame. The masking key is 0, so that a fuzzer sees the payload."""
    return encode_frame(first & 15, payload, first >= FIN, first >> 4 & 7, bytes(4) if masked else None)


def streams(masked: bool) -> dict[str, bytes]:
    """Return streams of frames that an endpoint reads, in one direction."""

    def frames(*pairs: tuple[int, bytes]) -> bytes:
        return b"".join(frame(first, payload, masked) for first, payload in pairs)

    text, close = HALF.encode(), frame(0x88, b"\x03\xe8bye", masked)
    return {
        "hello": frames((0x81, b"Hello"), (0x82, bytes(126))) + close,
        "empty": frames((0x81, b""), (0x82, b""), (0x89, b""), (0x8A, b""), (0x88, b"")),
        "fragments": frames((1, text[:2]), (0x89, b"now"), (0, text[2:16]), (0, b""), (0x80, text[16:]))
        + close,
        "largest": frames((0x82, bytes(1000)), (2, bytes(999)), (0x80, b"1")) + close,
        "too-big-in-fragments": frames((2, bytes(999)), (0x80, b"12")),
        "interleaved": frames((1, b"a"), (0x81, b"b")),
        "bad-text": frames((1, b"a\xf4"), (0x8A, b""), (0x80, b"\x90")),
        "surrogate": frames((0x81, b"\xed\xa0\x80")),
        "half-a-character": frames((0x81, b"\xe2\x82")),
        "deflated": frames((0xC1, deflated(b"Hello")), (0xC1, b"\xf2\0\x11\0\0"), (0xC2, b"\0")) + close,
        "deflated-in-fragments": frames((0x41, deflated(text)[:3]), (0x89, b""), (0x80, deflated(text)[3:])),
        "final-block": frames((0xC1, b"\xf3\x48\xcd\xc9\xc9\x07\0\0"), (0xC1, deflated(b"Hello"))),
        "bomb": frames((0xC2, deflated(bytes(1001)))),
        "corrupt": frames((0xC2, b"\xff\xff")),
    }


def head(*lines: str) -> bytes:
    """Return a head of these lines."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


REQUEST = (
    "GET /chat?a=b HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: other, chat",
    "Origin: http://localhost",
)
RESPONSE = (
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT}",
)
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
REQUESTS = {
    "request": head(*REQUEST),
    "request-to-deflate": head(*REQUEST, OFFER),
    "foreign": head(*REQUEST[:6], "Origin: http://elsewhere"),
    "upgrade": head(*REQUEST[:2], "X: a"),
    "page": head("GET / HTTP/1.1", "Host: localhost"),
    "post": head("POST / HTTP/1.1", "Host: localhost", "Content-Length: 5") + b"Hello",
    "version": head(*REQUEST[:5], "Sec-WebSocket-Version: 8"),
    "old": head("GET / HTTP/1.0", *REQUEST[1:]),
    "absolute": head("GET http://localhost/chat HTTP/1.1", *REQUEST[1:]),
    "folded": head(*REQUEST, "X: a", " b"),
    "bare-line-ends": head(*REQUEST).replace(b"\r", b""),
}
# Bits of the plan: reject, do not answer, check the origin
ANSWERS = {"page": 0x30, "absolute": 0x10, "request-to-deflate": 0x80, "foreign": 0x80}
RESPONSES = {
    "response": head(*RESPONSE, "Sec-WebSocket-Protocol: chat"),
    "response-to-deflate": head(*RESPONSE, OFFER.partition(";")[0]),
    "early-hints": head("HTTP/1.1 103 Early Hints", "Link: </a>") + head(*RESPONSE),
    "refusal": head("HTTP/1.1 403 Forbidden", "Content-Length: 5") + b"Hello",
    "chunked": head("HTTP/1.1 404 Not Found", "Transfer-Encoding: chunked") + b"5\r\nHello\r\n0\r\n\r\n",
    "until-the-end": head("HTTP/1.0 500 Oops") + b"Hello",
    "not-offered": head(*RESPONSE, "Sec-WebSocket-Protocol: soap", "Sec-WebSocket-Extensions: x"),
}
# Which grammar, which choice, and the text
HEADERS = {
    "offer": (
        0,
        0,
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits, permessage-deflate",
    ),
    "offer-quoted": (0, 1, 'x; a="b,\\"c", permessage-deflate; server_max_window_bits="\\10"'),
    "offer-takeover": (0, 0, "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
    "offers-declined": (0, 1, 'permessage-deflate; server_max_window_bits=8, permessage-deflate; x, y="'),
    "chosen": (1, 0, "permessage-deflate; server_max_window_bits=9; client_max_window_bits=15"),
    "chosen-twice": (1, 1, "permessage-deflate, permessage-deflate"),
    "chosen-strange": (1, 0, "permessage-deflate; server_no_context_takeover=1"),
    "request": (2, 0, "Origin=http://localhost\nSec-WebSocket-Protocol=chat, superchat\nCookie=a=b"),
    "request-repeats": (2, 0, "Sec-WebSocket-Protocol=chat\nSec-WebSocket-Protocol=chat"),
    "request-version": (2, 8, "Sec-WebSocket-Version=8"),
    "request-page": (2, 2, "Content-Length=0"),
    "request-extended": (2, 7, ":protocol=websocket\n:method=CONNECT\n:path=/chat"),
    "response": (3, 0, "Sec-WebSocket-Protocol=chat"),
    "response-upgrade": (3, 3, "Upgrade= WebSocket \nConnection=x, upgrade"),
    "head": (4, 7, head(*REQUEST).decode("latin-1") + "\x81\x85"),
    "head-response": (4, 0, head(*RESPONSE, "X:  a \t").decode("latin-1")),
    "head-illegal": (4, 1, "GET / HTTP/1.1\r\nA: \x00\r\n\r\n"),
}
ADDRESSES = {
    "plain": "ws://localhost:8001/chat?room=1",
    "secure": "wss://example.com",
    "userinfo": "ws://us%40er:p%3Ass@example.com:443/",
    "address-6": "ws://[::1]:80/a%20b",
    "zone": "ws://[fe80::1%25eth0]/",
    "international": "ws://bücher.example/é?ü=😀",
    "query": "wss://a.b:443?x=/?%zz&[]",
    "fragment": "ws://a/#b",
    "port": "ws://a:65536/",
    "case": "WSS://EXAMPLE.com:/",
}


def plan(flags: int, number: int) -> bytes:
    """Return a plan that cuts, delivers and calls in another way for each number."""
    calls = ((number % 5) << 5 | number % 32, (number % 3 + 1) << 5 | (number * 7 + 1) % 32)
    return bytes([flags, number * 5 % 17, number * 3 % 11, number % 3, *calls])


def seeds() -> dict[str, bytes]:
    """Return all seeds, by their path."""
    seeds = {}
    for masked in (False, True):
        side = "masked" if masked else "plain"
        for number, (name, stream) in enumerate(streams(masked).items()):
            seeds[f"frames/{side}-{name}"] = plan(masked | 2, number) + stream
            # Echo, and messages in pieces, a stream that ends and compression where there may be some
            flags = masked | 8 | (number & 1) << 2 | (number & 2) << 5 | ("a" <= name[0] <= "f") << 1
            seeds[f"connection/{side}-{name}"] = plan(flags | (number & 8) << 2, number) + stream
    for number, (name, stream) in enumerate(RAW.items()):
        seeds[f"frames/raw-{name}"] = plan(0, number) + stream
        seeds[f"connection/raw-{name}"] = plan(8, number) + stream
    parts = frame(2, b"some", masked=False) + frame(0x89, masked=False) + frame(0x80, b"more", masked=False)
    for number in range(len(CALLS)):
        # Compressed; each call, and finish() when a message has come in
        calls = bytes([1 << 5 | number, 2 << 5 | CALLS.index(Speaker.finish)])
        seeds[f"connection/call-{number:02}"] = bytes([2 | 8, 4, 4, 0]) + calls + parts
    for number, (name, data) in enumerate(REQUESTS.items()):
        flags = 1 | 2 | 8 | ANSWERS.get(name, 0)
        seeds[f"handshake/{name}"] = plan(flags, number) + data + streams(True)["hello"]
    for number, (name, data) in enumerate(RESPONSES.items()):
        frames = streams(False)["hello"] if data.startswith(b"HTTP/1.1 10") else b""
        seeds[f"handshake/{name}"] = plan(2 | 8 | (number > 3) << 6, number) + data + frames
    for name, (which, choice, text) in HEADERS.items():
        seeds[f"headers/{name}"] = bytes([which, choice]) + text.encode("latin-1")
    for name, text in ADDRESSES.items():
        beginning = BEGINNINGS.index("ws://") if text.startswith("ws://") else 0
        seeds[f"uri/{name}"] = bytes([beginning]) + text.removeprefix(BEGINNINGS[beginning]).encode()
    return seeds


if __name__ == "__main__":
    for path, data in seeds().items():
        file = CORPUS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
