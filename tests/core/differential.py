"""The same streams through either build, to see whether both do the same.

    python tests/core/differential.py 0 1000000 > compiled       streams number 0 to 999999
    python tests/core/differential.py 0 1000000 --pure > pure
    diff compiled pure
    python tests/core/differential.py 4711 4712 --show           all that happened in one stream

A process has one build: the compiled one, where there is one, or the pure one, whose sources lie beside it.
So a stream is made from its number: whose end it comes in at, with what settings, what the peer sends, how
that is cut, and which calls are made meanwhile. What can be seen of it goes into a digest for each 1000
streams; the last line counts what was seen.
"""

from __future__ import annotations

import argparse
import array
import base64
import hashlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import zlib
from collections import Counter
from random import Random

BATCH = 1000
FIN, RSV1 = 0x80, 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class PureFinder(importlib.abc.MetaPathFinder):
    """Find the modules of wsframe in their sources, as if nothing had been compiled."""

    def find_spec(self, name, path=None, target=None):
        if not name.startswith("wsframe."):
            return None
        source = importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES
        for entry in path:
            if spec := importlib.machinery.FileFinder(entry, source).find_spec(name):
                return spec
        raise ModuleNotFoundError(f"No module named {name!r} without the compiled ones", name=name)


if "--pure" in sys.argv[1:]:
    sys.meta_path.insert(0, PureFinder())

import wsframe  # noqa: E402
from wsframe import (  # noqa: E402
    ClientConnection,
    Connection,
    Deflate,
    FrameDecoder,
    RemoteProtocolError,
    Request,
    Role,
    ServerConnection,
    encode_frame,
    parse_uri,
    prepare,
)

# What the peer sends

CHARACTERS = ["a", "b", " ", "\0", "\x7f", "\x80", "é", "\u07ff", "\u0800", "€", "\uffff", "\U00010000", "😀"]
BAD_TEXT = [
    bytes.fromhex(data) for data in ["80", "c080", "e09f", "eda080", "edbf", "f08f", "f490", "f5", "e2"]
]
GOOD_CODES = [1000, 1001, 1003, 1011, 1014, 3000, 4999]
CODES = [*GOOD_CODES, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535]
SIZES = [0, 1, 2, 3, 7, 8, 9, 20, 60, 124, 125, 126, 127, 300]
LARGE = [1000, 1001, 2048, 2049, 5000, 16383, 16384, 65535, 65536, 70000]
LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 2**20, 2**20 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def size(rng):
    return rng.choice(LARGE if rng.random() < 0.01 else SIZES)


def text(rng):
    return "".join(rng.choices(CHARACTERS, k=size(rng)))


def data(rng, most=2**20):
    return rng.randbytes(min(size(rng), most))


def unmask(payload, key):
    mask = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(payload), "big")


def frame(rng, masks, first, payload, length=None, bits=None):
    """Return a frame; its header may lie."""
    length = len(payload) if length is None else length
    if bits is None:
        bits = 7 if length < 126 else 16 if length < 65536 else 64
    mask = 0x80 if masks else 0
    if bits == 7:
        header = bytes((first, mask | length & 0x7F))
    else:
        marker = 126 if bits == 16 else 127
        header = bytes((first, mask | marker)) + (length & 2**bits - 1).to_bytes(bits // 8, "big")
    if not masks:
        return header + payload
    key = rng.randbytes(4)
    return header + key + unmask(payload, key)


class Peer:
    """Make what the peer sends.

    Args:
        rng: where chance comes from.
        masks: whether the peer is the client.
        compression: what is agreed on about compression, or None.
    """

    def __init__(self, rng: Random, masks: bool, compression: Deflate | None) -> None:
        self.rng = rng
        self.masks = masks
        self.is_good = rng.random() < 0.5
        self.compresses = compression is not None if self.is_good else rng.random() < 0.3
        takeover = compression is not None and not compression.client_no_context_takeover
        self.compressor = self.new_compressor() if takeover and rng.random() < 0.5 else None

    def new_compressor(self):
        return zlib.compressobj(6, zlib.DEFLATED, -9, 1)

    def frame(self, first, payload):
        return frame(self.rng, self.masks, first, payload)

    def compress(self, payload):
        compressor = self.compressor or self.new_compressor()
        payload = compressor.compress(payload)
        if self.compressor is None and self.rng.random() < 0.1:  # a block with BFINAL
            return payload + compressor.flush() + b"\0"
        payload += compressor.flush(zlib.Z_SYNC_FLUSH)
        return payload if self.rng.random() < 0.05 else payload[:-4]

    def message(self):
        rng = self.rng
        opcode = rng.choice((TEXT, BINARY))
        payload = text(rng).encode() if opcode == TEXT else data(rng)
        if not self.is_good and rng.random() < 0.1:
            cut = rng.randrange(len(payload) + 1)
            payload = payload[:cut] + rng.choice(BAD_TEXT) + payload[cut:]
        if self.compresses and rng.random() < 0.7:
            payload = self.compress(payload)
            opcode |= RSV1
        frames = []
        for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
            cut = rng.randrange(len(payload) + 1)
            frames.append(self.frame(opcode, payload[:cut]))
            opcode, payload = CONTINUATION, payload[cut:]
            if rng.random() < 0.2:
                frames.append(self.control())
        if self.is_good or rng.random() < 0.97:
            opcode |= FIN
        return b"".join([*frames, self.frame(opcode, payload)])

    def many_fragments(self):
        """Return a message of more fragments than are kept apart."""
        frames = [self.frame(BINARY, b"")]
        frames += [self.frame(CONTINUATION, b"ab") for _ in range(self.rng.randrange(150))]
        return b"".join([*frames, self.frame(FIN | CONTINUATION, b"c")])

    def control(self):
        return self.frame(FIN | self.rng.choice((PING, PONG)), data(self.rng, 125))

    def close(self):
        rng = self.rng
        code = rng.choice(GOOD_CODES if self.is_good else CODES)
        payload = code.to_bytes(2, "big") + "".join(rng.choices(CHARACTERS, k=rng.randrange(30))).encode()
        return self.frame(FIN | CLOSE, rng.choice((b"", payload[:2], payload, payload[: rng.randrange(9)])))

    def hostile(self):
        rng = self.rng
        first = rng.choice((rng.randrange(256), 0x82, 0xC1, 0x02, 0x80, 0x88))
        masks = self.masks is (rng.random() < 0.8)
        length, bits = rng.choice((None, *LENGTHS)), rng.choice((None, 7, 16, 64))
        return frame(rng, masks, first, data(rng), length, bits)

    def noise(self):
        return data(self.rng)

    def stream(self):
        """Return some frames, or almost."""
        rng = self.rng
        parts = self.message, self.control, self.many_fragments, self.close, self.hostile, self.noise
        weights = (75, 18, 1, 4, 0, 0) if self.is_good else (55, 15, 1, 8, 15, 3)
        data = b"".join([part() for part in rng.choices(parts, weights, k=rng.randrange(1, 8))])
        return data if self.is_good or rng.random() < 0.7 else mutated(rng, data)


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        i, j = rng.randrange(len(data) + 1), rng.randrange(12)
        match rng.randrange(5):
            case 0:
                data[i : i + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[i : i + j]
            case 2:
                data[i:i] = data[i : i + j]
            case 3:
                data[i:i] = rng.randbytes(j)
            case 4 if i < len(data):
                data[i] ^= 1 << rng.randrange(8)
    return bytes(data)


def pieces(rng, data):
    """Cut bytes as a network might."""
    how = rng.random()
    if how < 0.35 or not data:
        return [data]
    if how < 0.5 and len(data) < 100:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 7)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


EXTENSIONS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "x-other, permessage-deflate; foo, permessage-deflate",
    'permessage-deflate; client_max_window_bits="10"',
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate;;",
]
VALUES = ["", "websocket", "Upgrade", "upgrade, x", "13", "8", "chat", "chat, chat", "a b", "é", "x" * 200]
HEADERS = [
    ("Connection", "keep-alive"),
    ("Content-Length", "0"),
    ("Content-Length", "5"),
    ("Cookie", "a=b"),
    ("Origin", "https://example.com"),
    ("Origin", "null"),
    ("Sec-WebSocket-Protocol", "chat, x"),
    ("Sec-WebSocket-Protocol", "chat"),
    ("Transfer-Encoding", "chunked"),
    ("X", "x" * 17000),
    *(("Sec-WebSocket-Extensions", extensions) for extensions in EXTENSIONS),
]


def head(rng, first_lines, headers):
    """Return a head, right or almost."""
    headers = list(headers)
    if rng.random() < 0.3:
        headers.append(("Sec-WebSocket-Extensions", rng.choice(EXTENSIONS)))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        headers.insert(rng.randrange(len(headers) + 1), rng.choice(HEADERS))
    if rng.random() < 0.2:
        i = rng.randrange(len(headers))
        match rng.randrange(4):
            case 0:
                del headers[i]
            case 1:
                headers.append(headers[i])
            case 2:
                headers[i] = headers[i][0], rng.choice(VALUES)
            case 3:
                headers *= rng.choice((2, 30))
    first_line = first_lines[0] if rng.random() < 0.9 else rng.choice(first_lines)
    lines = [first_line, *(f"{name}: {value}" for name, value in headers)]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return mutated(rng, data) if rng.random() < 0.15 else data


def request(rng):
    key = base64.b64encode(rng.randbytes(16)).decode()
    targets = "GET /chat?x=1", "POST /", "GET http://host/", "GET x", "GET /\x80", ""
    lines = [f"{target} HTTP/1.1" for target in targets] + ["GET / HTTP/1.0", ""]
    headers = [
        ("Host", "example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    if rng.random() < 0.05:
        headers = headers[:1]  # a GET that wants a page
    return head(rng, lines, headers)


def response(rng, sent):
    key = re.search(rb"Sec-WebSocket-Key: (.*)\r\n", sent)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    if rng.random() < 0.15:
        lines = ["HTTP/1.1 404 Not Found", "HTTP/1.0 200 OK", "HTTP/1.1 204 No", "HTTP/1.1 103 Hints"]
        body = rng.choice((data(rng), data(rng) * 400, b"3\r\nabc\r\n0\r\n\r\n"))
        headers = (
            ("Content-Length", str(len(body))),
            ("Content-Length", "9"),
            ("Transfer-Encoding", "chunked"),
        )
        return head(rng, lines, [rng.choice(headers)]) + body
    lines = ["HTTP/1.1 101 Switching Protocols", "HTTP/1.0 101 OK", "HTTP/1.1 99 X", "HTTP/2 101"]
    first = b"HTTP/1.1 100 Continue\r\n\r\n" * rng.choice((*[0] * 20, 1, 10, 11))
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    return first + head(rng, lines, headers)


# What the user does


class Str(str):
    pass


class Bytes(bytes):
    pass


class Int(int):
    pass


ODD = [
    None,
    5,
    1.5,
    "lone \ud800",
    [1],
    b"\xff",
    Str("subclass"),
    Bytes(b"subclass"),
    bytearray(b"bytearray"),
    memoryview(b"view"),
    memoryview(b"not contiguous")[::2],
    array.array("I", [1, 2, 3]),
    memoryview(bytes(24)).cast("B", (2, 3, 4)),
    b"x" * 126,
    "€" * 42,
    prepare("prepared"),
    prepare(b"prepared" * 100),
]
ODD_CODES = [*CODES, -1, 2**70, True, None, "1000", 1000.0, Int(1000), wsframe.CloseCode.GOING_AWAY]
COMPRESS = (None, None, None, True, False)


def calls(rng):
    """Return a call: its method and its arguments."""
    fin, compress = rng.random() < 0.7, {"compress": rng.choice(COMPRESS)}
    kind = rng.randrange(40)
    if kind < 9:
        return "send_text", (text(rng), fin), compress
    if kind < 12:
        return "send_text", (text(rng).encode()[: size(rng)], fin), compress
    if kind < 19:
        return "send_binary", (data(rng), fin), compress
    if kind < 23:
        return "send_message", (rng.choice((text(rng), data(rng))), fin), compress
    if kind < 25:
        return "send_prepared", (prepare(rng.choice((text(rng), data(rng))), **compress),), {}
    if kind < 29:
        return rng.choice(("send_ping", "send_pong")), (data(rng),), {}
    if kind < 32:
        return "stream_next", (), {}
    if kind == 32:
        return "send_close", (rng.choice(ODD_CODES), rng.choice(("", text(rng), *ODD))), {}
    if kind == 33:
        return "send_close", (rng.choice(GOOD_CODES), rng.choice(("", "x" * 123, "x" * 124, *ODD))), {}
    if kind == 34 and rng.random() < 0.5:
        return "send_close", (), {}
    if kind == 34:
        return "read_from", (rng.choice((bytearray(9), b"bytes", None)), rng.choice((-1, 2**40))), {}
    if kind == 35:
        return "receive_data", (rng.choice((None, 5, "text", memoryview(b"1234")[::2])),), {}
    methods = "send_text", "send_binary", "send_message", "send_ping", "send_pong", "send_prepared"
    return rng.choice(methods), (rng.choice(ODD),), {}


def answers(rng):
    """Return a call that answers a request, or tries to."""
    if rng.random() < 0.7:
        return "accept", (), {}
    if rng.random() < 0.5:
        headers = rng.choice(((), {"X": "y"}, {"a b": "c"}, [("Upgrade", "x")], [("X", "\n")], [("X", 5)]))
        return "accept", (rng.choice((None, "chat", "x", ...)), headers), {}
    status = rng.choice((*[200, 404, 426, 204] * 3, 100, 600, "403", None, 2**70))
    headers = rng.choice(((), (), (), {"X": "y"}, {"Content-Type": "x"}, [("Content-Length", "1")]))
    return "reject", (status, headers, rng.choice((b"", b"x", b"x", "x"))), {}


# Both at once

KINDS = "server", "client", "request", "response", "decoder"
ROLES = {"server": Role.SERVER, "client": Role.CLIENT}
DEFLATES = [
    None,
    None,
    Deflate(),
    Deflate(threshold=0),
    Deflate(server_max_window_bits=9, client_max_window_bits=9, mem_level=1, level=1),
    Deflate(server_no_context_takeover=True, client_no_context_takeover=True, threshold=0),
]
LIMITS = [*[2**20] * 6, None, 2**63 - 1, 70000, 1000, 300, 125, 60, 0]
ODD_LIMITS = [2**63, 2**64, 2**70, -1, -(2**70), True, 1.5, "1000"]
ORIGINS = [["https://example.com"], ["https://example.com", "null"], [None], "x"]
SUBPROTOCOLS = [(), ["chat"], ["x", "y"], "chat", ["a b"], [5], ["chat", "chat"]]
URIS = ["ws://host/chat?x=1", "wss://user:secret@[::1]:8443", "ws://host:99999/", "http://host/", "ws://é/"]


class Stream:
    """Run one stream, and write down what can be seen of it."""

    def __init__(self, number: int) -> None:
        self.rng = Random(number)
        self.seen: list[object] = []
        self.conn = None

    def attempt(self, name, function, *args, **kwargs):
        """Call something; return what it returns, or None when it raises."""
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.seen.append((name, type(error).__name__, str(error)))
            return None
        self.seen.append((name, "ok"))
        return result

    def run(self):
        kind = self.rng.choices(KINDS, (36, 36, 12, 12, 4))[0]
        rng, data = self.rng, b""
        if kind == "decoder":
            self.decode()
            return
        settings = {"max_message_size": rng.choice(LIMITS), "fragments": rng.random() < 0.4}
        if rng.random() < 0.02:
            settings["max_message_size"] = rng.choice(ODD_LIMITS)
        if rng.random() < 0.5 or kind in ROLES:
            settings["compression"] = rng.choice(DEFLATES)
        self.masked = kind in ("client", "response")
        if kind in ROLES:
            role = "odd" if rng.random() < 0.002 else ROLES[kind]
            self.conn = self.attempt("Connection", Connection, role, **settings)
        elif kind == "request":
            origins = rng.choice(ORIGINS) if rng.random() < 0.3 else None
            subprotocols = rng.choice(SUBPROTOCOLS) if rng.random() < 0.1 else ["y", "chat"]
            self.conn = self.attempt(
                "ServerConnection", ServerConnection, origins=origins, subprotocols=subprotocols, **settings
            )
            data = request(rng)
        else:
            data = self.connect(settings)
        if self.conn is not None:
            self.peer = Peer(rng, not self.masked, settings.get("compression"))
            self.talk(data + self.peer.stream())

    def connect(self, settings):
        rng = self.rng
        uri = URIS[0] if rng.random() < 0.9 else rng.choice(URIS)
        self.attempt("parse_uri", parse_uri, uri)
        urandom, os.urandom = os.urandom, rng.randbytes  # for the key
        try:
            self.conn = self.attempt(
                "ClientConnection",
                ClientConnection,
                uri,
                subprotocols=rng.choice(SUBPROTOCOLS) if rng.random() < 0.1 else ["y", "chat"],
                origin=rng.choice(("null", "\n")) if rng.random() < 0.1 else None,
                additional_headers=rng.choice(({"X": "y"}, [("Host", "x")])) if rng.random() < 0.1 else (),
                **settings,
            )
        finally:
            os.urandom = urandom
        if self.conn is None:
            return b""
        sent = self.conn.data_to_send()
        self.seen.append(sent)
        return response(rng, sent)

    def talk(self, data):
        rng = self.rng
        for piece in pieces(rng, data):
            self.receive(piece)
            while rng.random() < 0.12:
                self.call(calls)
            if rng.random() < 0.8:
                self.listen(2000)
        if rng.random() < 0.5:
            if rng.random() < 0.7:
                self.attempt("end", self.conn.receive_data, b"")
            else:
                self.attempt("end", self.conn.read_from, bytearray(9), 0)
        self.listen(2000)
        self.call(calls)
        if rng.random() < 0.1:
            self.receive(self.peer.stream())
            self.listen(3)
        self.send()

    def receive(self, piece):
        rng, conn = self.rng, self.conn
        if not piece:
            return
        if rng.random() < 0.6:
            kind = bytes if rng.random() < 0.7 else rng.choice((bytearray, memoryview, Bytes))
            self.attempt("receive_data", conn.receive_data, kind(piece))
            return
        buffer = bytearray(piece + b"beyond")
        self.attempt("read_from", conn.read_from, buffer, len(piece))
        self.listen(rng.choice((0, 1, 2000)))
        if rng.random() < 0.8:
            self.attempt("release", conn.release)
            buffer[:] = bytes(len(buffer))

    def listen(self, most):
        rng, conn = self.rng, self.conn
        for _ in range(most):
            event = conn.next_event()
            self.look(event)
            if event is None:
                break
            if isinstance(event, Request):
                self.call(answers)
            elif rng.random() < 0.1:
                self.call(calls)
            if rng.random() < 0.05:
                self.send()
                break

    def look(self, event):
        conn = self.conn
        names = event.__match_args__ if event else ()
        fields = [(getattr(event, name), type(getattr(event, name)).__name__) for name in names]
        end = conn.state.name, conn.should_close, conn.close_sent, conn.close_received
        data = conn.unread, conn.has_unread(), conn.collected, conn.unsent, conn.has_unsent()
        self.seen.append((type(event).__name__, fields, end, data, conn.subprotocol, conn.compression))

    def call(self, choose):
        method, args, kwargs = choose(self.rng)
        function = getattr(self.conn, method, None)
        if function is not None:
            self.attempt(method, function, *args, **kwargs)

    def send(self):
        sent = self.conn.data_to_send() if self.rng.random() < 0.5 else b"".join(self.conn.chunks_to_send())
        if not self.masked:
            self.seen.append(sent)
        while self.masked and sent:
            # The keys are random.
            start = 2 + {126: 2, 127: 8}.get(sent[1] & 0x7F, 0)
            length = int.from_bytes(sent[2:start], "big") if start > 2 else sent[1] & 0x7F
            key, stop = sent[start : start + 4], start + 4 + length
            self.seen.append((sent[:start], unmask(sent[start + 4 : stop], key)))
            sent = sent[stop:]

    def decode(self):
        rng = self.rng
        masked = rng.random() < 0.5
        limit = rng.choice((*[2**63 - 1] * 9, 2**20, 300, 0, -1, 2**63, 2**70))
        decoder = FrameDecoder(masked=masked, max_size=limit, rsv1=rng.random() < 0.5)
        decoder.partial = rng.random() < 0.5
        mask = rng.randbytes(rng.choice((4, 4, 4, 4, 3))) if masked else None
        mine = self.attempt(
            "encode_frame",
            encode_frame,
            rng.choice((1, 2, 8, 9, 0, 3, 16)),
            rng.choice((data(rng), *ODD)),
            rng.random() < 0.8,
            rng.choice((0, 0, 0, 4, 1, 8)),
            mask,
        )
        for piece in pieces(rng, (mine or b"") + Peer(rng, masked, None).stream()):
            decoder.feed(piece)
            try:
                while result := decoder.next_frame() if rng.random() < 0.8 else decoder.advance():
                    found = decoder.first, decoder.read_payload(), decoder.is_whole, decoder.is_end
                    self.seen.append((result, found))
            except RemoteProtocolError as error:
                self.seen.append((error.code, error.reason))
            except ValueError as error:
                self.seen.append(str(error))
            self.seen.append((decoder.unread, decoder.has_unread()))
        self.seen.append(decoder.drain())


def main() -> None:
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("start", type=int)
    parser.add_argument("stop", type=int)
    parser.add_argument("--pure", action="store_true", help="take the pure build")
    parser.add_argument("--show", action="store_true", help="print what is seen, too")
    options = parser.parse_args()
    print("compiled" if wsframe.compiled else "pure", file=sys.stderr)
    tally = Counter()
    digest = hashlib.sha256()
    for number in range(options.start, options.stop):
        stream = Stream(number)
        stream.run()
        for seen in stream.seen:
            if options.show:
                print(number, ascii(seen))
            if isinstance(seen, tuple) and isinstance(seen[0], str):
                tally[seen[0]] += 1
        digest.update(ascii(stream.seen).encode())
        if (number + 1) % BATCH == 0 or number + 1 == options.stop:
            print(number // BATCH * BATCH, digest.hexdigest()[:16], flush=True)
            digest = hashlib.sha256()
    print(*(f"{name}={count}" for name, count in sorted(tally.items())))


if __name__ == "__main__":
    main()
