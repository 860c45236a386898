"""What went wrong in other WebSocket implementations, and does not go wrong here.

Each test is named by the id of a published vulnerability, or by an issue where there is no such id, and says
in its first line which product it was, and why. The facts are those of the advisories (CVE, GHSA and OSV
records), of the issues, and where neither tells enough, of the product itself: aiohttp's news fragment 13415
and PYSEC-2026-4395; wsproto 1.3.2 (its pull request 205), uvicorn 0.54 (Streamlit's pull request 15492),
picows 2.3.1, websockets 17.4 and autobahn 26.10.2, as they were seen to behave when this was written.

    1  Length arithmetic                       7  Missing headers
    2  Limits checked late, or on the wrong    8  Buffers that are measured in items
       size                                    9  State that a control frame resets
    3  The number of fragments                10  Compression that was not agreed on, or not like this
    4  Quadratic parsing                      11  Keys that can be predicted, secrets that are compared
    5  Regular expressions                    12  The same on sockets
    6  Header injection                       13  The list

Nothing here is timed: what is not linear runs into the suite's timeout.
"""

from __future__ import annotations

import array
import ast
import base64
import ctypes
import ctypes.util
import functools
import hmac
import inspect
import itertools
import random
import re
import zlib
from contextlib import suppress
from pathlib import Path

import h11
import pytest

import wsframe.aio
import wsframe.sync
from tests.support.adapters import KEY, TIMEOUT, key_of, opened, request, response
from tests.support.cases import case
from tests.support.core import CLIENT, OTHER, SERVER, TOO_BIG, TOO_MANY, Memory, header, hear, hear_all, said
from wsframe import encode_frame, handshake, masking
from wsframe.client import ClientConnection
from wsframe.connection import Connection, State
from wsframe.deflate import Deflate
from wsframe.errors import HandshakeFailed, InvalidURI, LocalProtocolError, RemoteProtocolError
from wsframe.events import Binary, Close, Fail, Ping, Pong, Request, Response, Text
from wsframe.frames import FrameDecoder
from wsframe.handshake import check_request
from wsframe.server import ServerConnection

# Every id that this file is about. One that had no public text when this was written would stand in UNKNOWN,
# and a test of what it is likely to be about would be named by that, and not by the id.
IDS = re.findall(
    r"\S+",
    """
    CVE-2016-10518 CVE-2016-10542 GHSA-5v72-xg48-5rpm CVE-2018-1000518 CVE-2020-7662 CVE-2020-27813
    CVE-2020-35678 CVE-2020-13935 CVE-2021-32640 CVE-2021-33880 CVE-2023-43669 CVE-2024-37890
    GHSA-hxp9-w8x3-p566 CVE-2026-1526 CVE-2026-1527 CVE-2026-1528 CVE-2026-2229 CVE-2026-27889
    CVE-2026-43678 CVE-2026-44545 CVE-2026-44546 CVE-2026-45736 CVE-2026-48779 CVE-2026-54274
    CVE-2026-59881 CVE-2026-69243 websockets/ws#2331 aiohttp#13274 aiohttp#13415 picows/rand
    uvicorn/8-KiB-header wsproto/ping websockets/BFINAL
    """,
)
UNKNOWN: dict[str, str] = {}

MIB = 2**20
HEAD = 16_384  # bytes of a head, at most
CONSTANT = 256 * 1024  # bytes that a connection may hold beside what its limits allow
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def kinds(events):
    return [type(event) for event in events]


def deflated(*messages, bits=15):
    """Compress messages for one connection, each with what came before it as its context."""
    compressor = zlib.compressobj(wbits=-bits)
    return [(compressor.compress(m) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for m in messages]


def finished(message):
    """Compress a message into blocks of which the last has BFINAL."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(message) + compressor.flush(zlib.Z_FINISH)


def compressing(role, **options):
    return Connection(
        role, compression=Deflate(client_max_window_bits=15, server_max_window_bits=15), **options
    )


def client(*lines, **options):
    """Return a client, and the 101 that answers its request, with more header lines."""
    conn = ClientConnection("ws://localhost/", **options)
    return conn, response(*lines, key=key_of(conn.data_to_send()))


def status(data):
    """Return the status of a refusal, which must be complete and the only one."""
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert data.count(b"HTTP/1.1") == 1
    return int(head.split(b" ")[1])


# 1  Length arithmetic


@pytest.mark.parametrize("limit", [MIB, 2**63 - 1, None])
def test_cve_2020_27813(role, limit):
    """gorilla/websocket: the sum of the lengths of fragments overflowed 64 bits, and with it the limit."""
    conn = Connection(role, max_message_size=limit)
    with Memory() as memory:
        assert hear(conn, said(role, 2, bytes(10), False)) == []
        assert hear(conn, header(role, 0x80, 2**63 - 1), bytes(1000)) == [TOO_BIG]
    assert memory.peak < CONSTANT
    assert (conn.unread, conn.collected, conn.should_close) == (0, 0, True)


@pytest.mark.parametrize("first", [0x00, 0x80])
def test_aiohttp_13415(role, first):
    """aiohttp before 3.14.4: its C reader added a length to that of what it held in signed 64 bits."""
    for held, less in itertools.product((1, 2, 125, 126, 70_000), range(1, 12)):
        conn = Connection(role)
        assert hear(conn, said(role, 1, b"a" * held, False), said(role, 9)) == [Ping(b"")]
        assert hear(conn, header(role, first, 2**63 - less), b"a" * 100) == [TOO_BIG]
        assert hear(conn, b"a" * 1000) == []
        assert (conn.unread, conn.collected) == (0, 0)


def test_cve_2020_13935(role):
    """Apache Tomcat: a length with the most significant bit was taken as negative, in a loop without end."""
    for limit, length in itertools.product([0, MIB, None], [2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]):
        with case(limit=limit, length=length):
            data = header(role, 0x82, length) + bytes(100)
            for chunks in ([data], [bytes([byte]) for byte in data]):
                conn = Connection(role, max_message_size=limit)
                assert hear(conn, *chunks) == [Fail(1002, "payload length must be below 2**63")]
                assert (conn.unread, conn.next_event()) == (0, None)


@pytest.mark.parametrize("fragments", [False, True])
def test_cve_2026_1528(role, fragments):
    """undici's client: a length that its parser could not count to raised, and the process ended."""
    for length in [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1]:
        with case(length=length):
            assert hear(Connection(role, fragments=fragments), header(role, 0x82, length)) == [TOO_BIG]
            conn = Connection(role, fragments=fragments, max_message_size=None)
            with Memory() as memory:
                pieces = hear(conn, header(role, 0x82, length), bytes(1000))
                conn.read_from(bytearray(1000), 1000)
                while event := conn.next_event():
                    pieces.append(event)
                conn.release()
                assert [piece.final for piece in pieces] == [False] * len(pieces)
                assert sum(len(piece.data) for piece in pieces) == 2000 * fragments
            assert memory.peak < CONSTANT
            assert [event.code for event in hear(conn, b"")] == [1006]


def test_cve_2026_27889():
    """nats-server: a length near 2**63 overflowed its int before anybody had logged in, and it panicked."""
    lengths = [0, 1, 125, 126, 65_535, 65_536, 2**31, 2**63 - 1, 2**63 - 14, 2**63, 2**64 - 14, 2**64 - 1]
    for first, length in itertools.product(range(256), lengths):
        conn = ServerConnection()
        conn.receive_data(request() + header(SERVER, first, length) + bytes(200))
        assert isinstance(conn.next_event(), Request)
        conn.accept()
        events = list(iter(conn.next_event, None))
        # In eight bytes only what is 65536 or more may stand, and control frames have no such lengths.
        is_waiting = first in (0x01, 0x02, 0x81, 0x82) and length == 65_536
        assert kinds(events) == ([] if is_waiting else [Fail])
        assert all(event.code in (1002, 1009) for event in events)


def test_cve_2026_43678():
    """Apple's SwiftNIO: a length of 2**63 or more was made an Int, which trapped before any limit."""
    for length, limit in itertools.product((2**63, 2**64 - 1), (0, 1, MIB, 2**63 - 1)):
        decoder = FrameDecoder(masked=False, max_size=limit)
        decoder.feed(header(CLIENT, 0x82, length))
        with pytest.raises(RemoteProtocolError) as error:
            decoder.next_frame()
        assert error.value.code == 1002
    decoder = FrameDecoder(masked=False, max_size=2**63 - 2)
    decoder.feed(header(CLIENT, 0x82, 2**63 - 1))
    with pytest.raises(RemoteProtocolError) as error:
        decoder.next_frame()
    assert error.value.code == 1009


# 2  Limits checked late, or on the wrong size


def test_cve_2016_10542(role):
    """ws: nothing limited the size of a message, but the memory of the process."""
    conn = Connection(role)
    with Memory() as memory:
        assert hear(conn, header(role, 0x82, MIB + 1), *[bytes(65_536)] * 32) == [TOO_BIG]
    assert memory.peak < CONSTANT
    assert hear(Connection(role), said(role, 2, bytes(MIB))) == [Binary(bytes(MIB))]


def test_cve_2018_1000518(role):
    """websockets 4: the limit was not asked while a message was decompressed."""
    [bomb] = deflated(bytes(64 * MIB))
    assert len(bomb) < 70_000
    conn = compressing(role)
    data = said(role, 2, bomb, rsv=4)
    with Memory() as memory:
        assert hear(conn, data) == [TOO_BIG]
    assert memory.peak < 4 * MIB


def test_cve_2026_1526(role):
    """undici's client: what chunks decompressed to was collected, and its size was never asked."""
    [bomb] = deflated(bytes(64 * MIB))
    cut = [bomb[i : i + 100] for i in range(0, len(bomb), 100)]
    data = [said(role, 2 if i == 0 else 0, piece, False, 0 if i else 4) for i, piece in enumerate(cut)]
    for fragments in (False, True):
        conn = compressing(role, fragments=fragments)
        size, last = 0, None
        with Memory() as memory:
            for chunk in data:
                conn.receive_data(chunk)
                while event := conn.next_event():
                    last = event
                    size += len(event.data) if isinstance(event, Binary) else 0
        assert last == TOO_BIG
        assert size <= MIB * fragments
        assert memory.peak < 4 * MIB


def test_ghsa_hxp9_w8x3_p566(role):
    """Autobahn|Python before 26.7.1: the limit was compared with the size before decompression."""
    noise = random.Random(0).randbytes(20_000)  # compressed, it is larger
    for message in (b"a" * 20_000, noise):
        [payload] = deflated(message)
        frames = (
            said(role, 2, payload[:9], False, 4),
            said(role, 0, payload[9:20], False),
            said(role, 0, payload[20:]),
        )
        for data in (said(role, 2, payload, rsv=4), b"".join(frames)):
            assert hear(compressing(role, max_message_size=20_000), data) == [Binary(message)]
            assert hear(compressing(role, max_message_size=19_999), data) == [TOO_BIG]


def test_cve_2026_44545():
    """Daphne before 4.2.2: it did not hand a limit on to Autobahn, where the default is none."""
    for function in (wsframe.aio.connect, wsframe.aio.serve, wsframe.sync.connect, wsframe.sync.serve):
        assert inspect.signature(function).parameters["max_message_size"].default == MIB
    conn = ServerConnection()
    hear(conn, request())
    conn.accept()
    assert hear(conn, header(SERVER, 0x82, MIB + 1)) == [TOO_BIG]
    conn, data = client()
    assert hear(conn, data, header(CLIENT, 0x82, MIB + 1))[1:] == [TOO_BIG]


def test_cve_2026_54274(role):
    """aiohttp before 3.14.1: the payload of a frame that was not there whole did not count."""
    conn = Connection(role)
    assert hear(conn, said(role, 2, bytes(MIB - 100_000), False)) == []
    assert hear(conn, header(role, 0x80, 100_001)) == [TOO_BIG]
    # And each of many small reads costs its bytes only.
    conn = Connection(role)
    hear(conn, header(role, 0x82, MIB))
    with Memory() as memory:
        assert hear_all(conn, itertools.repeat(b"a", 20_000)) == []
    assert memory.peak < CONSTANT


# 3  The number of fragments


def test_cve_2026_48779(role):
    """ws before 8.21: each of any number of tiny fragments took an object, and only their bytes counted."""
    packet = said(role, 0, b"a", False) * 1000
    conn = Connection(role)
    with Memory() as memory:
        assert hear(conn, said(role, 2, b"a", False), *[packet] * 20) == []
    assert memory.peak < CONSTANT
    assert hear(conn, *[packet] * 50) == [TOO_MANY]


def test_websockets_ws_2331(role):
    """ws 8.21: below its limit on fragments, a message without end took 15 times what was sent."""
    conn = Connection(role)
    assert hear(conn, said(role, 2, b"a", False) + said(role, 0, b"a", False) * 45_534) == []
    packet = said(role, 0, b"a", False) * 20_000
    with Memory() as memory:
        assert hear(conn, packet) == []
    assert conn.collected == 65_535  # and the next one is too many
    # It holds less than was sent: a fragment of one byte is 3 bytes, or 7 with a masking key.
    assert memory.held < 3 * 65_535
    assert kinds(hear(conn, said(role, 0, b"a", False))) == [Fail]


# 4  Quadratic parsing


def test_cve_2023_43669(role, monkeypatch):
    """tungstenite before 0.20.1: a head without end was parsed from its beginning with each read."""
    parsed = []
    receive_data = h11.Connection.receive_data
    monkeypatch.setattr(h11.Connection, "receive_data", lambda *args: parsed.append(receive_data(*args)))
    if role is SERVER:
        conn, data = ServerConnection(), request("Content-Length: 0", f"X: {'x' * 15_000}")
    else:
        conn, data = client("Content-Length: 0", f"X: {'x' * 15_000}")
    events = hear(conn, *(data[i : i + 1] for i in range(len(data))))
    assert kinds(events) == [Request if role is SERVER else Response]
    assert len(parsed) == 1
    # One that does not end is not parsed at all, and not kept.
    conn = ServerConnection() if role is SERVER else client()[0]
    begin = b"GET / HTTP/1.1\r\nX: " if role is SERVER else b"HTTP/1.1 101 Yes\r\nX: "
    events = hear(conn, begin, *(b"x" for _ in range(100_000)))
    assert events == [Fail(1002, f"head exceeds {HEAD} bytes")]
    assert len(parsed) == 1


def test_uvicorn_8_kib_header():
    """uvicorn with websockets-sansio: a header line above 8 KiB, as of cookies, gets no answer at all."""
    for size in (8_191, 8_192, 8_193, 16_000):
        conn = ServerConnection()
        [event] = hear(conn, request(f"Cookie: a={'b' * size}"))
        assert event.headers.get("cookie") == f"a={'b' * size}"
    conn = ServerConnection()
    assert kinds(hear(conn, request(f"Cookie: a={'b' * HEAD}"))) == [Fail]
    assert status(conn.data_to_send()) == 431
    assert conn.should_close


# 5  Regular expressions


def test_cve_2020_7662():
    r"""faye's websocket-extensions: a quoted string of \c\c\c that never closes took exponential time."""
    for unclosed in (
        'a;b="' + r"\c" * 7_000,
        'a;b="' + "\\" * 14_000,
        'permessage-deflate;a="' + r"\c" * 7_000,
    ):
        conn = ServerConnection()
        assert kinds(hear(conn, request(f"Sec-WebSocket-Extensions: {unclosed}"))) == [Fail]
        assert status(conn.data_to_send()) == 400
        conn, data = client(f"Sec-WebSocket-Extensions: {unclosed}")
        assert [event.code for event in hear(conn, data)] == [1002]
    for pattern in (r"\c", '"', r"\"", ";a", ",", ", ", "a=", '"a",', ' "'):
        value = 'permessage-deflate; a="' + pattern * 100_000
        for judge in (Deflate().accept, Deflate().check_response):
            with pytest.raises(RemoteProtocolError):
                judge(value)


def test_cve_2021_32640():
    """ws: a list was split with an expression that takes quadratic time for a run of blanks."""
    headers = [line.split(": ", 1) for line in request().decode().strip().split("\r\n")[1:]]
    for value in ("b" + " " * MIB + "x", "b" + "\t " * MIB + "x", " " * MIB + "b", "b" + " ," * MIB):
        for name in ("Sec-WebSocket-Protocol", "Upgrade", "Connection", "Sec-WebSocket-Version"):
            pairs = [pair for pair in headers if pair[0] != name]
            with suppress(handshake.InvalidRequest):
                asked = check_request([*pairs, (name, value)])
                assert list(asked.subprotocols) == ["b"] * name.endswith("Protocol")
    conn = ServerConnection()
    assert kinds(hear(conn, request(f"Sec-WebSocket-Protocol: b{' ' * 15_000}x"))) == [Fail]
    assert status(conn.data_to_send()) == 400


# 6  Header injection, and names that are looked up


@pytest.mark.parametrize(
    "bad", ["\r\nSet-Cookie: a=b", "\n", "\r", "\0", "\x0b", "\x1c", "\u2028"], ids=ascii
)
def test_cve_2020_35678(bad):
    """Autobahn|Python before 20.12.3: where a redirect went to came from the client, with its line ends."""
    conn = ServerConnection()
    hear(conn, request())
    for headers in ([("Location", f"https://a/{bad}")], [(f"Location{bad}", "https://a/")]):
        with pytest.raises((LocalProtocolError, ValueError)):
            conn.reject(302, headers=headers)
        with pytest.raises((LocalProtocolError, ValueError)):
            conn.accept(headers=headers)
    assert conn.unsent == 0
    conn.reject(302, headers=[("Location", "https://a/")])
    assert [line.split(b": ")[0] for line in conn.data_to_send().split(b"\r\n")[1:]] == [
        b"Location",
        b"Connection",
        b"Content-Length",
        b"",
        b"",
    ]


def test_cve_2026_1527():
    """undici: its `upgrade` option went out as it was, and with CR LF it was more headers, or a request."""
    bad = "websocket\r\n\r\nGET /admin HTTP/1.1\r\nHost: a"
    for options in (
        {"additional_headers": [("Upgrade", bad)]},
        {"additional_headers": [("Upgrade", "websocket")]},  # it is the handshake's own
        {"additional_headers": {"X": bad}},
        {"additional_headers": {bad: "x"}},
        {"origin": bad},
        {"subprotocols": [bad]},
    ):
        with pytest.raises(LocalProtocolError):
            ClientConnection("ws://localhost/", **options)
        for connect in (wsframe.sync.connect, wsframe.aio.connect):
            with pytest.raises(LocalProtocolError):
                connect("ws://localhost:1/", **options)
    for uri in (
        f"ws://localhost/{bad}",
        f"ws://{bad}/",
        f"ws://a:{bad}@localhost/",
        f"ws://localhost/?{bad}",
    ):
        with pytest.raises(InvalidURI):
            ClientConnection(uri)


# Of str.splitlines(), and not of HTTP. So is 0x85, but there it is a byte of UTF-8 (RFC 9110, section 5.5).
LINE_ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


def test_cve_2026_44546(role):
    """Daphne before 4.2.2: one parser split lines at CR LF only, the next one with str.splitlines()."""
    for control in LINE_ENDS:
        with case(control=control):
            line = f"X: a{control}X-User: admin"
            conn, data = (ServerConnection(), request(line)) if role is SERVER else client(line)
            assert kinds(hear(conn, data)) == [Fail]
            assert status(conn.data_to_send()) == 400 if role is SERVER else conn.data_to_send() == b""
            # Nor is it taken from a server that has read the headers itself.
            with pytest.raises(handshake.InvalidRequest, match="control"):
                check_request([("Host", "a"), ("X", f"a{control}b")])
            with pytest.raises(RemoteProtocolError, match="control"):
                handshake.check_response([("X", f"a{control}b")], KEY)


SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
BODIES = [
    (f"Content-Length: {len(SMUGGLED)}", SMUGGLED),
    (f"Content-Length: 0{len(SMUGGLED)}", SMUGGLED),
    ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
]


@pytest.mark.parametrize(("line", "body"), BODIES)
def test_cve_2026_69243(line, body):
    """aiohttp before 3.14.2: a request to upgrade was acted on before its body was read, which came next."""
    conn = ServerConnection()
    assert kinds(hear(conn, request(line) + body, body)) == [Fail]
    assert status(conn.data_to_send()) == 400
    assert (conn.request, conn.unread, conn.should_close) == (None, 0, True)


def test_ghsa_5v72_xg48_5rpm():
    """ws before 3.3.1: an extension named as what all objects have, `constructor`, was found."""
    for name in ("constructor", "__proto__", "hasOwnProperty", "__class__", "__init__", "keys", "None"):
        lines = f"Sec-WebSocket-Protocol: {name}", f"{name}: {name}"
        offers = f"{name}, {name};{name}, permessage-deflate;{name}, permessage-deflate; {name}={name}"
        conn = ServerConnection(subprotocols=["chat"])
        assert kinds(hear(conn, request(f"Sec-WebSocket-Extensions: {offers}", *lines))) == [Request]
        conn.accept()
        assert (conn.state, conn.compression, conn.subprotocol) == (State.OPEN, None, None)
        for line in (f"Sec-WebSocket-Extensions: {name}", *lines[:1], f"{OFFER[:44]}; {name}"):
            conn, data = client(line, subprotocols=["chat"])
            assert [event.code for event in hear(conn, data)] == [1002]


# 7  Missing headers


def test_cve_2024_37890():
    """ws: with more headers than Node keeps, Upgrade was missing, and the server crashed."""
    conn = ServerConnection()
    data = request()
    many = b"".join(b"a%d: x\r\n" % i for i in range(1500))
    start = data.index(b"Host")
    assert len(many) < HEAD
    assert kinds(hear(conn, data[:start] + many + data[start:])) == [Fail]
    assert status(conn.data_to_send()) == 431
    first, *lines = data.strip().split(b"\r\n")
    for kept in itertools.chain.from_iterable(itertools.combinations(lines, n) for n in range(len(lines))):
        conn = ServerConnection()
        *asked, last = hear(conn, b"\r\n".join([first, *kept, b"", b""]))
        assert [event.is_upgrade for event in asked] in ([], [False])
        assert isinstance(last, Fail)
        assert status(conn.data_to_send()) in (400, 426)
    for missing in range(1, 4):
        conn, data = client()
        lines = data.split(b"\r\n")
        del lines[missing]
        assert [event.code for event in hear(conn, b"\r\n".join(lines))] == [1002]


# 8  Buffers that are measured in items


def test_cve_2016_10518(role):
    """ws before 1.0.1: a Ping of a number had as many bytes of memory that was never written."""
    for number in (0, 50, 125, 2**31, 1.5, True, None, [1, 2], {}):
        conn = Connection(role)
        for send in (conn.send_ping, conn.send_pong, conn.send_binary, conn.send_text, conn.send_message):
            with pytest.raises(TypeError):
                send(number)
        with pytest.raises(TypeError):
            encode_frame(9, number)
        with pytest.raises(TypeError):
            conn.receive_data(number)
        assert conn.unsent == 0


def test_cve_2026_45736(role):
    """ws before 8.20.1: the reason of a Close could be an array, of which items were counted, not bytes."""
    floats = array.array("f", [1.5] * 20)
    conn = Connection(role)
    for reason in (floats, memoryview(floats), b"bytes", bytearray(5), 20, None):
        with pytest.raises(TypeError):
            conn.send_close(1000, reason)
    for many in (array.array("f", range(32)), memoryview(array.array("d", range(16)))):
        with pytest.raises(LocalProtocolError, match="128"):
            conn.send_ping(many)
    with pytest.raises(TypeError):
        conn.send_binary(memoryview(bytes(8))[::2])
    assert (conn.unsent, conn.state) == (0, State.OPEN)
    conn.send_ping(floats)
    conn.send_binary(floats)
    peer = Connection(OTHER[role])
    assert hear(peer, conn.data_to_send()) == [Ping(floats.tobytes()), Binary(floats.tobytes())]


# 9  State that a control frame resets


@pytest.mark.parametrize("opcode", [9, 10])
def test_aiohttp_13274(role, opcode):
    """aiohttp 3.14.2: after a control frame, RSV1 on the message that came next was a violation."""
    payloads = deflated(b"Hello", b"Hello", b"Hello")
    control = said(role, opcode, b"p")
    heard = Ping(b"p") if opcode == 9 else Pong(b"p")
    data = b"".join(control + said(role, 1, payload, rsv=4) for payload in payloads)
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        assert hear(compressing(role), *chunks) == [heard, Text("Hello")] * 3


@pytest.mark.parametrize("opcode", [9, 10])
def test_wsproto_ping(role, opcode):
    """wsproto: a Ping between the fragments of a compressed message clears what it knows of it."""
    payloads = deflated(b"Hello, " * 10, b"Hello, " * 10)
    control = said(role, opcode, b"p")
    heard = Ping(b"p") if opcode == 9 else Pong(b"p")
    data = b"".join(
        control
        + said(role, 2, p[:3], False, 4)
        + control
        + said(role, 0, p[3:7], False)
        + control
        + said(role, 0, p[7:])
        for p in payloads
    )
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        conn = compressing(role)
        assert hear(conn, *chunks) == [heard, heard, heard, Binary(b"Hello, " * 10)] * 2
    # A Close ends it, of course.
    conn = compressing(role)
    assert hear(conn, said(role, 2, payloads[0][:3], False, 4), said(role, 8)) == [Close(1005)]
    assert conn.collected == 0


# 10  Compression that was not agreed on, or not like this


def test_cve_2026_59881(role):
    """aiohttp's client before 3.14.2: RSV1 was followed where compression had not been agreed on."""
    [bomb] = deflated(bytes(64 * MIB))
    fail = Fail(1002, "reserved bits must be zero")
    with Memory() as memory:
        assert hear(Connection(role), said(role, 2, bomb, rsv=4)) == [fail]
        for offered in (None, Deflate()):
            if role is SERVER:
                conn = ServerConnection(compression=offered)
                hear(conn, request(*[OFFER] * (offered is None)))
                conn.accept()
            else:
                conn, data = client(compression=offered)
                assert kinds(hear(conn, data)) == [Response]
            assert (conn.state, conn.compression) == (State.OPEN, None)
            assert hear(conn, said(role, 2, bomb, rsv=4)) == [fail]
    assert memory.peak < MIB
    # Where it was: not on continuations and control frames.
    [payload] = deflated(b"Hello")
    for data in (
        said(role, 1, payload[:3], False, 4) + said(role, 0, payload[3:], True, 4),
        said(role, 1, b"a", False) + said(role, 0, payload, True, 4),
        said(role, 9, b"p", True, 4),
        said(role, 1, payload, True, 2),
        said(role, 1, payload, True, 5),
    ):
        assert [event.code for event in hear(compressing(role), data)] == [1002]


WRONG_BITS = [
    "",
    "0",
    "1",
    "7",
    "16",
    "31",
    "47",
    "1000",
    "-9",
    "-15",
    "015",
    "9.0",
    '"16"',
    "ten",
    "9" * 5000,
]


def test_cve_2026_2229():
    """undici's client: window bits were not checked, and zlib refused them when the first message came."""
    for bits in WRONG_BITS:
        with case(bits=bits):
            value = f"={bits}" * bool(bits)
            for name in ("server_max_window_bits", "client_max_window_bits"):
                conn, data = client(f"{OFFER[:44]}; {name}{value}")
                events = hear(conn, data, said(CLIENT, 1, deflated(b"Hello")[0], rsv=4))
                assert [(type(event), event.code) for event in events] == [(Fail, 1002)]
                conn = ServerConnection()
                hear(conn, request(f"{OFFER[:44]}; {name}{value}"))
                conn.accept()
                # It is declined; but a client that only knows client_max_window_bits says so.
                assert (conn.compression is None) is (bits != "" or name.startswith("server"))
                conn.send_text("Hello" * 100)
                assert conn.state is State.OPEN


def test_websockets_bfinal(role):
    """websockets, picows, autobahn: what follows a block with BFINAL is lost, and so are later messages."""
    texts = [b"first, " * 9, b"second, " * 9, b"third, " * 9]
    after = deflated(texts[1])[0]
    [third] = deflated(texts[2])
    data = said(role, 1, finished(texts[0]) + after, rsv=4) + said(role, 1, third, rsv=4)
    data += said(role, 1, finished(texts[0]) + b"\0", rsv=4) + said(role, 1, third, rsv=4)
    heard = [(texts[0] + texts[1]).decode(), texts[2].decode(), texts[0].decode(), texts[2].decode()]
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        assert hear(compressing(role), *chunks) == [Text(text) for text in heard]


# 11  Keys that can be predicted, secrets that are compared


def test_picows_rand():
    """picows 2: masking keys come from rand(), which nobody seeds: they are the same in every process."""
    libc = ctypes.CDLL(None) if ctypes.util.find_library("c") else None
    runs = []
    for _ in range(2):
        random.seed(1)
        if hasattr(libc, "srand"):
            libc.srand(1)
        masking.forget_keys()
        conn = Connection(CLIENT)
        keys = []
        for _ in range(3000):  # more than the pool of keys has
            conn.send_binary(b"")
            keys.append(conn.data_to_send()[2:])
        requests = [ClientConnection("ws://localhost/").data_to_send() for _ in range(10)]
        runs.append((set(keys), {key_of(data) for data in requests}))
    (masks, nonces), (other_masks, other_nonces) = runs
    assert len(masks) > 2990
    assert len(masks & other_masks) < 10
    assert len(nonces | other_nonces) == 20
    # Every bit of them is random: rand() has 31 of 32.
    either, both = 0, 2**32 - 1
    for key in masks:
        either, both = either | int.from_bytes(key, "big"), both & int.from_bytes(key, "big")
    assert (either, both) == (2**32 - 1, 0)


def test_cve_2021_33880():
    """websockets before 9.1: the password of Basic credentials was compared with ==, which takes its time."""
    secret = re.compile("passw|secret|credential|authorization|token|cookie", re.IGNORECASE)
    source = Path(handshake.__file__).parent
    compared = []
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                compared.append(ast.unparse(node))
    assert compared
    # The name of a header is no secret.
    # A name, which is no secret, and how many credentials there are.
    known = {"name.lower() == 'authorization'", "len(credentials) == 2"}
    assert {c for c in compared if secret.search(c)} == known
    for serve in (wsframe.aio.serve, wsframe.sync.serve):
        assert not [name for name in inspect.signature(serve).parameters if secret.search(name)]


# 12  The same on sockets

HELLO = b"Hello, " * 10
EXTENSION = OFFER[:44]  # without parameters, as an answer


@functools.cache
def bomb():
    return deflated(bytes(64 * MIB))[0]


ATTACKS = {
    "CVE-2016-10542": (lambda role: header(role, 0x82, MIB + 1), 1009, False),
    "CVE-2018-1000518": (lambda role: said(role, 2, bomb(), rsv=4), 1009, True),
    "CVE-2020-13935": (lambda role: header(role, 0x82, 2**64 - 1), 1002, False),
    "CVE-2020-27813": (lambda role: said(role, 2, b"a", False) + header(role, 0x80, 2**63 - 1), 1009, False),
    "CVE-2026-1526": (
        lambda role: said(role, 2, bomb()[:900], False, 4) + said(role, 0, bomb()[900:], False),
        1009,
        True,
    ),
    "CVE-2026-1528": (lambda role: header(role, 0x82, 2**53), 1009, False),
    "CVE-2026-44545": (lambda role: said(role, 2, bytes(MIB), False) + said(role, 0, b"a"), 1009, False),
    "CVE-2026-48779": (
        lambda role: said(role, 2, b"", False) + said(role, 0, b"", False) * 65_535,
        1009,
        False,
    ),
    "CVE-2026-59881": (lambda role: said(role, 2, bomb(), rsv=4), 1002, False),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_followed_there_fails_the_connection(adapter, role, attack, spawn):
    data, code, is_compressed = ATTACKS[attack]
    headers = (OFFER if role is SERVER else EXTENSION,) * is_compressed
    with opened(adapter, role.value, headers=headers) as (websocket, peer):
        receiving = spawn(websocket.recv)
        sending = spawn(peer.send, data(role))
        assert peer.read_close()[0] == code
        sending.result(TIMEOUT)
        peer.end()
        assert receiving.exception(TIMEOUT).code == code


MESSAGES = {
    "aiohttp#13274": lambda role, a, b: [
        said(role, 10),
        said(role, 2, a, rsv=4),
        said(role, 10),
        said(role, 2, b, rsv=4),
    ],
    "wsproto/ping": lambda role, a, b: [
        said(role, 2, a[:3], False, 4),
        said(role, 9, b"p"),
        said(role, 0, a[3:]),
        said(role, 2, b, rsv=4),
    ],
    "websockets/BFINAL": lambda role, a, b: [
        said(role, 2, finished(HELLO) + b"\0", rsv=4),
        said(role, 2, a, rsv=4),
    ],
}


@pytest.mark.parametrize("message", MESSAGES)
def test_what_was_lost_there_arrives(adapter, role, message):
    payloads = deflated(HELLO, HELLO, bits=12)
    with opened(adapter, role.value, headers=(OFFER if role is SERVER else EXTENSION,)) as (websocket, peer):
        peer.send(*MESSAGES[message](role, *payloads))
        assert [websocket.recv(TIMEOUT), websocket.recv(TIMEOUT)] == [HELLO] * 2


REQUESTS = {
    "CVE-2024-37890": (request(*(f"a{i}: x" for i in range(1500))), 431),
    "CVE-2023-43669": (request(f"X: {'x' * MIB}"), 431),
    "CVE-2021-32640": (request(f"Sec-WebSocket-Protocol: b{' ' * 15_000}x"), 400),
    "CVE-2026-44546": (request("X: a\x1cX-User: admin"), 400),
    "CVE-2026-69243": (request(BODIES[0][0]) + BODIES[0][1], 400),
    "uvicorn/8-KiB-header": (request(f"Cookie: a={'b' * HEAD}"), 431),
}


@pytest.mark.parametrize("wrong", REQUESTS)
def test_what_was_taken_there_is_refused(adapter, wrong):
    data, expected = REQUESTS[wrong]
    asked = []
    with adapter.serve(process_request=asked.append) as running:
        with running.connect() as peer:
            peer.send(data)
            assert status(peer.read_all()) == expected
        assert asked == []
        with running.open(headers=(f"Cookie: a={'b' * 9000}",)) as peer:  # uvicorn/8-KiB-header
            peer.send(peer.text("still there?"))
            assert peer.read_text() == "still there?"
        assert len(asked) == 1


RESPONSES = {
    "CVE-2020-7662": 'Sec-WebSocket-Extensions: a;b="' + r"\c" * 7_000,
    "CVE-2026-2229": f"{EXTENSION}; server_max_window_bits=1000",
    "CVE-2026-44546": "X: a\x0bb",
    "GHSA-5v72-xg48-5rpm": "Sec-WebSocket-Extensions: constructor",
}


@pytest.mark.parametrize("wrong", RESPONSES)
def test_what_was_taken_from_a_server_there_is_refused(adapter, listener, spawn, wrong):
    connecting = spawn(adapter.connect, listener.uri)
    with listener.open(headers=(RESPONSES[wrong],)) as peer:
        assert isinstance(connecting.exception(TIMEOUT), HandshakeFailed)
        assert peer.read_all() == b""


def test_a_redirect_that_would_be_two_headers(adapter, caplog):
    """CVE-2020-35678, CVE-2026-1527."""
    redirect = Response(302, [("Location", "https://a/\r\nSet-Cookie: a=b")])
    with adapter.serve(process_request=lambda _: redirect) as running, running.connect() as peer:
        peer.send(request())
        answer = peer.read_all()
    assert status(answer) == 500
    assert b"Set-Cookie" not in answer
    assert "process_request failed" in caplog.text
    caplog.clear()


def test_what_is_no_payload_is_not_sent(adapter, role):
    """CVE-2016-10518, CVE-2026-45736."""
    with opened(adapter, role.value) as (websocket, peer):
        for call in (websocket.ping, websocket.send):
            with pytest.raises(TypeError):
                call(50)
        with pytest.raises(TypeError):
            websocket.close(1000, array.array("f", [1.5] * 20))
        with pytest.raises(LocalProtocolError):
            websocket.ping(array.array("f", range(32)))
        websocket.send(array.array("f", [1.5] * 20))
        frame = peer.next_frame()
        assert (frame.opcode, len(frame.payload)) == (2, 80)


def test_credentials_are_the_application_s(adapter):
    """CVE-2021-33880: whoever checks them has all that hmac.compare_digest needs."""
    basic = "Basic " + base64.b64encode(b"hello:world").decode()

    def process_request(asked):
        given = asked.headers.get("authorization").encode("latin-1")
        return None if hmac.compare_digest(given, basic.encode()) else Response(401)

    with adapter.serve(process_request=process_request) as running:
        with running.open(headers=(f"Authorization: {basic}",)) as peer:
            peer.send(peer.text("hello"))
            assert peer.read_text() == "hello"
        for wrong in ("", "Basic", basic[:-1], basic + "=", basic.lower(), basic + "\xe9"):
            with running.connect() as peer:
                peer.send(request(f"Authorization: {wrong}"))
                assert status(peer.read_all()) == 401


# 13  The list


def test_each_id_is_there_once():
    tree = ast.parse(Path(__file__).read_text())
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    documented = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)
    }
    assert len(IDS) == len(set(IDS)) == 33
    for name in IDS:
        test = "test_" + re.sub(r"[^a-z0-9]+", "_", name.lower())
        assert tests.count(test) + (name in UNKNOWN) == 1, name
        assert name in UNKNOWN or test in documented, name
    assert {*UNKNOWN, *ATTACKS, *MESSAGES, *REQUESTS, *RESPONSES} <= set(IDS)
