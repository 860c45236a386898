r"""Hypothesis strategies: what a peer may say, and what it must not.

    payloads -- messages -- events
         \         \
          frames --- streams -- chunked          handshakes      deflate_offers

Everything is legal by default: an endpoint that fails on it is too strict. With ``hostile=True`` it is
almost legal: an endpoint may fail on it, but as the RFC says, and in no other way. ``role`` is the role of
the endpoint under test, which is the one that reads what is generated.

What is simple comes first, so that examples shrink to short payloads, zero masking keys and whole messages.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar, overload

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ..connection import Role
from ..deflate import Compressor, Deflate
from ..events import Binary, Close, Event, Fail, Ping, Pong, Request, Response, Text
from ..frames import Frame, Opcode, encode_frame
from ..handshake import accept_key
from ..masking import apply_mask

__all__ = [
    "SAMPLE_KEY",
    "Stream",
    "chunked",
    "deflate_offers",
    "events",
    "frames",
    "handshakes",
    "key_of",
    "messages",
    "payloads",
    "streams",
]

T = TypeVar("T")

SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of section 1.3, which ``handshakes`` has in its requests."""

_MAX_SIZE = 1000  # bytes: more find nothing more, and take longer
_BOUNDARIES = (124, 125, 126, 127, 128, 255, 256, 65535, 65536)  # where the length changes its form
CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
_BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
_BAD_TEXTS = (
    b"\x80",  # begins in the middle of a character
    b"\xe2\x82",  # ends in the middle of one
    b"\xc0\x80",  # longer than it need be
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",  # surrogates
    b"\xed\xbf",
    b"\xf0\x8f",
    b"\xf4\x90",  # beyond U+10FFFF
    b"\xf5",
)


def _sizes(max_size: int) -> SearchStrategy[int]:
    return st.sampled_from([size for size in (0, *_BOUNDARIES, max_size) if size <= max_size])


def _texts(max_size: int) -> SearchStrategy[str]:
    """Text of up to so many bytes."""
    ascii_texts = st.builds(lambda size, byte: chr(byte) * size, _sizes(max_size), st.integers(97, 122))
    return st.one_of(st.text(max_size=min(max_size // 4, 20)), ascii_texts)


# Section 5.5.1: a control frame has at most 125 bytes, of which 2 are the status code.
REASONS = st.one_of(st.text(max_size=30), st.sampled_from(["a" * 123, "é" * 61]))
_CLOSES = st.one_of(st.just(Close()), st.builds(Close, st.sampled_from(CODES), REASONS))
_MASKING_KEYS = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))


def payloads(*, max_size: int = _MAX_SIZE) -> SearchStrategy[bytes]:
    """Generate payloads: bytes, of few or of as many as where the length in the header changes its form.

    Args:
        max_size: the most bytes; by default 1000.
    """
    one_byte_again = st.builds(lambda size, byte: bytes([byte]) * size, _sizes(max_size), st.integers(0, 255))
    return st.one_of(st.binary(max_size=min(max_size, 20)), one_byte_again)


def messages(*, max_size: int = _MAX_SIZE) -> SearchStrategy[Text | Binary]:
    """Generate messages, as the events ``Text`` and ``Binary``.

    Args:
        max_size: the most bytes in a message; by default 1000.
    """
    return st.one_of(st.builds(Text, _texts(max_size)), st.builds(Binary, payloads(max_size=max_size)))


def controls() -> SearchStrategy[Ping | Pong]:
    """Generate Pings and Pongs."""
    return st.one_of(st.builds(Ping, payloads(max_size=125)), st.builds(Pong, payloads(max_size=125)))


def events(role: Role | None = None, *, max_size: int = _MAX_SIZE) -> SearchStrategy[Event]:
    """Generate events: anything that ``next_event()`` may return.

    They are for code that acts on events; they come one by one, in no order that makes sense.

    Args:
        role: with a role, also what opens its connection: a ``Request`` or a ``Response``; by default not.
        max_size: the most bytes in a message; by default 1000.
    """
    opened: list[SearchStrategy[Event]] = [
        messages(max_size=max_size),
        controls(),
        _CLOSES,
        st.builds(Fail, st.sampled_from((1006, 1002, 1007, 1009)), st.just("reason")),
    ]
    headers = st.lists(
        st.tuples(st.sampled_from(["x-a", "cookie"]), st.sampled_from(["", "a=b"])), max_size=2
    )
    subprotocol = st.sampled_from([None, "chat"])
    if role is Role.SERVER:
        opened.append(
            st.builds(
                Request,
                st.sampled_from(["/", "/chat?room=1"]),
                headers,
                st.lists(st.sampled_from(["chat", "superchat"]), unique=True),
                st.sampled_from([None, "http://localhost"]),
                st.sampled_from([True, False]),
            )
        )
    elif role is Role.CLIENT:
        opened.append(st.builds(Response, st.just(101), headers, st.just(b""), subprotocol))
        opened.append(st.builds(Response, st.sampled_from([200, 403, 426, 503]), headers, payloads()))
    return st.one_of(*opened)


# Frames


def _close_payload(close: Close) -> bytes:
    return b"" if close.code == 1005 else close.code.to_bytes(2, "big") + close.reason.encode()


def _encode(draw: DrawFn, role: Role, frame: Frame) -> bytes:
    mask = draw(_MASKING_KEYS) if role is Role.SERVER else None
    return encode_frame(frame.opcode, frame.payload, frame.fin, frame.rsv, mask)


@st.composite
def _legal_frames(draw: DrawFn, opcodes: Sequence[Opcode], max_size: int) -> Frame:
    opcode = draw(st.sampled_from(opcodes))
    if opcode is Opcode.CLOSE:
        return Frame(opcode, _close_payload(draw(_CLOSES)))
    if opcode >= Opcode.CLOSE:
        return Frame(opcode, draw(payloads(max_size=min(125, max_size))))
    fin = draw(st.sampled_from([True, False]))
    if opcode is Opcode.TEXT:
        return Frame(opcode, draw(_texts(max_size)).encode(), fin)
    return Frame(opcode, draw(payloads(max_size=max_size)), fin)


# Of a Close, or of text
_BAD_PAYLOADS = st.one_of(
    st.sampled_from(_BAD_TEXTS),
    st.binary(min_size=1, max_size=1),  # too short for a status code
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason,
        st.sampled_from(CODES + _BAD_CODES),
        st.sampled_from([b"", b"why", *_BAD_TEXTS]),
    ),
)


@st.composite
def _hostile_frames(draw: DrawFn, role: Role, opcodes: Sequence[Opcode], max_size: int) -> bytes:
    """One frame of which something is not as it should be, and more by chance."""
    broken = draw(st.sampled_from(["first byte", "control frame", "payload", "length", "form", "masking"]))
    first = 0x80 | draw(st.sampled_from(opcodes))
    payload = draw(payloads(max_size=max_size))
    if broken == "first byte":
        first = draw(st.integers(0, 255))
    elif broken == "control frame":
        first = draw(st.sampled_from([0x08, 0x09, 0x0A, 0x88, 0x89, 0x8A]))
        payload = draw(st.binary(min_size=126, max_size=130))
    elif broken == "payload":
        payload = draw(_BAD_PAYLOADS)
    announced = len(payload)
    if broken == "length":
        announced = draw(st.sampled_from([1, 126, 65536, 2**32, 2**63 - 1, 2**63, 2**64 - 1]))
    is_masked = (role is Role.SERVER) is (broken != "masking")
    needed = 0 if announced < 126 else 2 if announced < 65536 else 8
    # Bytes of extended payload length
    form = max(needed, draw(st.sampled_from([2, 8]))) if broken == "form" else needed
    second = {0: announced, 2: 126, 8: 127}[form] | is_masked << 7
    header = bytes([first, second]) + (announced.to_bytes(form, "big") if form else b"")
    if not is_masked:
        return header + payload
    key = draw(_MASKING_KEYS)
    return header + key + apply_mask(payload, key)


@overload
def frames(
    role: Role = ..., *, hostile: Literal[False] = ..., opcodes: Sequence[Opcode] = ..., max_size: int = ...
) -> SearchStrategy[Frame]: ...


@overload
def frames(
    role: Role = ..., *, hostile: Literal[True], opcodes: Sequence[Opcode] = ..., max_size: int = ...
) -> SearchStrategy[bytes]: ...


def frames(
    role: Role = Role.SERVER,
    *,
    hostile: bool = False,
    opcodes: Sequence[Opcode] = tuple(Opcode),
    max_size: int = _MAX_SIZE,
) -> SearchStrategy[Frame] | SearchStrategy[bytes]:
    """Generate frames, each of them legal by itself: not every one may follow on every other.

    Args:
        role: who reads hostile ones, which decides whether they must be masked; by default the server.
        hostile: generate bytes of almost a frame instead: reserved bits and opcodes, wrong masking,
            lengths that are not minimal or not true, status codes and text that are none.
        opcodes: which opcodes to choose from, the simplest first; by default all six.
        max_size: the most bytes in a payload; by default 1000.
    """
    if hostile:
        return _hostile_frames(role, opcodes, max_size)
    return _legal_frames(opcodes, max_size)


# Streams


class Stream(bytes):
    """The bytes of a stream, with what they mean.

    Attributes:
        events: what an open ``Connection`` hears in them, up to their end and without it.
    """

    events: tuple[Event, ...]


class _Plan(NamedTuple):
    """A message, and how it goes out."""

    message: Text | Binary
    places: list[int]  # where it is cut into fragments
    controls: list[tuple[int, Ping | Pong]]  # with the number of the fragment that each comes after
    is_compressed: bool


def _plans(max_size: int, compression: Deflate | None) -> SearchStrategy[_Plan]:
    return st.builds(
        _Plan,
        messages(max_size=max_size),
        st.lists(st.integers(0, max_size), max_size=4),
        st.lists(st.tuples(st.integers(0, 3), controls()), max_size=2),
        st.just(False) if compression is None else st.booleans(),
    )


def _control_frame(event: Ping | Pong | Close) -> tuple[Frame, Event]:
    if isinstance(event, Close):
        return Frame(Opcode.CLOSE, _close_payload(event)), event
    opcode = Opcode.PING if isinstance(event, Ping) else Opcode.PONG
    return Frame(opcode, event.payload), event


def _frames_of(plan: _Plan, compressor: Compressor | None) -> list[tuple[Frame, Event | None]]:
    """The frames of a message, each with the event that is heard when it is there."""
    message = plan.message
    opcode, data = (
        (Opcode.TEXT, message.data.encode()) if isinstance(message, Text) else (Opcode.BINARY, message.data)
    )
    rsv = 0
    if plan.is_compressed and compressor is not None:
        data, rsv = compressor.compress(data), 4
    said: list[tuple[Frame, Event | None]] = []
    places = sorted(min(place, len(data)) for place in plan.places)
    for number, (start, stop) in enumerate(itertools.pairwise([0, *places, len(data)])):
        fin = number == len(places)
        said.append((Frame(opcode, data[start:stop], fin, rsv), message if fin else None))
        opcode, rsv = Opcode.CONTINUATION, 0
        said += [_control_frame(control) for after, control in plan.controls if after == number]
    return said


@st.composite
def _said(
    draw: DrawFn,
    role: Role,
    max_messages: int,
    max_size: int,
    close: bool | None,
    compression: Deflate | None,
) -> list[tuple[Frame, Event | None]]:
    compressor = None if compression is None else Compressor(compression, is_server=role is Role.CLIENT)
    parts = draw(st.lists(st.one_of(_plans(max_size, compression), controls()), max_size=max_messages))
    said: list[tuple[Frame, Event | None]] = []
    for part in parts:
        said += _frames_of(part, compressor) if isinstance(part, _Plan) else [_control_frame(part)]
    # Both a Close and the end may come in the middle of a message.
    said = said[: len(said) - draw(st.integers(0, min(3, len(said))))]
    if draw(st.booleans()) if close is None else close:
        said.append(_control_frame(draw(_CLOSES)))
    return said


@st.composite
def _legal_streams(
    draw: DrawFn,
    role: Role,
    max_messages: int,
    max_size: int,
    close: bool | None,
    compression: Deflate | None,
) -> Stream:
    said = draw(_said(role, max_messages, max_size, close, compression))
    stream = Stream(b"".join(_encode(draw, role, frame) for frame, _ in said))
    stream.events = tuple(event for _, event in said if event is not None)
    return stream


@st.composite
def _hostile_streams(
    draw: DrawFn,
    role: Role,
    max_messages: int,
    max_size: int,
    close: bool | None,
    compression: Deflate | None,
) -> bytes:
    said = draw(_said(role, max_messages, max_size, close, compression))
    pieces = [_encode(draw, role, frame) for frame, _ in said]
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(pieces)))
        strange = draw(_hostile_frames(role, tuple(Opcode), max_size))
        pieces[place : place + draw(st.integers(0, 1))] = [strange]
    data = b"".join(pieces)
    return draw(_mutated(data)) if draw(st.booleans()) else data


@st.composite
def _mutated(draw: DrawFn, data: bytes) -> bytes:
    """Bytes of which some are changed, lost, or come twice, or that end too soon."""
    mutated = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(mutated)))
        stop = min(len(mutated), start + draw(st.integers(0, 4)))
        again = bytes(mutated[start:stop] * 2)
        mutated[start:stop] = draw(st.one_of(st.binary(max_size=4), st.just(again)))
    return bytes(mutated[: draw(st.integers(0, len(mutated)))] if draw(st.booleans()) else mutated)


@overload
def streams(
    role: Role,
    *,
    hostile: Literal[False] = ...,
    max_messages: int = ...,
    max_size: int = ...,
    close: bool | None = ...,
    compression: Deflate | None = ...,
) -> SearchStrategy[Stream]: ...


@overload
def streams(
    role: Role,
    *,
    hostile: Literal[True],
    max_messages: int = ...,
    max_size: int = ...,
    close: bool | None = ...,
    compression: Deflate | None = ...,
) -> SearchStrategy[bytes]: ...


def streams(
    role: Role,
    *,
    hostile: bool = False,
    max_messages: int = 5,
    max_size: int = _MAX_SIZE,
    close: bool | None = None,
    compression: Deflate | None = None,
) -> SearchStrategy[Stream] | SearchStrategy[bytes]:
    """Generate what the peer of an endpoint sends once the connection is open.

    That is messages, whole or in fragments with Pings and Pongs between them, up to a Close or not so far.
    A legal one is a ``Stream``, whose ``events`` are what has to be heard in it.

    Args:
        role: the role of the endpoint that reads it.
        hostile: let some frames be strange ones (see ``frames``), and some bytes change, get lost, or
            come twice.
        max_messages: the most messages, and Pings and Pongs between two of them; by default 5.
        max_size: the most bytes in a message, before it is compressed; by default 1000.
        close: whether it ends with a Close; None: some do. It may come in the middle of a message.
        compression: what was agreed on about compression: some messages are compressed; None: nothing was.
    """
    if hostile:
        return _hostile_streams(role, max_messages, max_size, close, compression)
    return _legal_streams(role, max_messages, max_size, close, compression)


@st.composite
def _cut(draw: DrawFn, data: bytes | SearchStrategy[bytes], max_pieces: int) -> list[bytes]:
    if isinstance(data, SearchStrategy):
        data = draw(data)
    if len(data) < 2:
        return [bytes(data)] if data else []
    near = st.integers(1, min(20, len(data) - 1))  # in the header
    places = draw(
        st.lists(st.one_of(near, st.integers(1, len(data) - 1)), max_size=max_pieces - 1, unique=True)
    )
    # Asked last: what is drawn after fewer choices is simpler to Hypothesis.
    if draw(st.integers(0, 7)) == 7 and len(data) <= max_pieces:
        places = list(range(1, len(data)))
    return [data[start:stop] for start, stop in itertools.pairwise([0, *sorted(places), len(data)])]


def chunked(data: bytes | SearchStrategy[bytes], *, max_pieces: int = 1000) -> SearchStrategy[list[bytes]]:
    """Generate the pieces in which the network may deliver bytes: joined, they are the bytes again.

    No piece is empty. Examples shrink to one piece; some have a byte in each.

    Args:
        data: what to cut, or a strategy for it.
        max_pieces: into how many pieces at most; by default 1000.
    """
    return _cut(data, max_pieces)


# Opening handshakes


def key_of(request: bytes) -> str:
    """Return the key of a client's opening handshake, to answer it with ``handshakes(Role.CLIENT, key=...)``.

    Args:
        request: bytes with its head, as ``ClientConnection.data_to_send()`` returns them.

    Raises:
        ValueError: there is no key.
    """
    found = re.search(rb"^sec-websocket-key:[ \t]*(\S+)", request, re.IGNORECASE | re.MULTILINE)
    if found is None:
        raise ValueError("request has no Sec-WebSocket-Key")
    return found[1].decode("latin-1")


_PATHS = st.one_of(
    st.sampled_from(["/", "/chat", "/?", "/chat?room=1&name=%C3%A9", "//", "/" + "a" * 200]),
    st.text("abcXYZ019-._~!$&'()*+,;=:@/?", max_size=20).map("/".__add__),
)
_REQUEST_HEADERS = (
    "Origin: http://localhost",
    "User-Agent: wsframe.testing",
    "Cookie: a=b; c=d",
    "Cookie: name=" + "Łukasz 中文".encode().decode("latin-1"),
    "Pragma: no-cache",
    "X-Empty:",
)
_RESPONSE_HEADERS = (
    "Server: wsframe.testing",
    "Date: Sun, 06 Nov 1994 08:49:37 GMT",
    "Set-Cookie: a=b",
    "X-City: " + "Łódź".encode().decode("latin-1"),
    "X-Empty:",
)
_RESPONSE_DEFLATES = (
    "permessage-deflate",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
)
_FIRST_LINES = (
    "GET / HTTP/1.0",
    "HEAD / HTTP/1.1",
    "OPTIONS * HTTP/1.0",
    "\r\nGET / HTTP/1.1",
    "POST / HTTP/1.1",
    "GET ws://localhost/ HTTP/1.1",
    "GET http://localhost/ HTTP/1.1",
    "GET /#fragment HTTP/1.1",
    "GET  / HTTP/1.1",
    "GET / HTTP/1.1 ",
    "PRI * HTTP/2.0",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 101",
    "HTTP/1.0 101 Switching Protocols",
    "HTTP/1.1 403 Forbidden",
    "HTTP/1.1 103 Early Hints",
    "HTTP/1.1 99 No",
    "",
)
_HOSTILE_LINES = (
    "Host: elsewhere",
    "Upgrade: h2c",
    "Connection: close",
    "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Key: c2hvcnQ=",
    "Sec-WebSocket-Key: " + SAMPLE_KEY,
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "Sec-WebSocket-Accept: no",
    "Sec-WebSocket-Protocol: never-offered",
    "Sec-WebSocket-Protocol: a, a",
    "Sec-WebSocket-Protocol: ,;",
    "Sec-WebSocket-Extensions: x-never-offered",
    'Sec-WebSocket-Extensions: permessage-deflate; a="',
    "Content-Length: 5",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "X: " + "x" * 16_300,
    "X: a\x0bb",
    "X: a\x85b\x9b",
    "X\xc5\x81: a",
    "X: a\rInjected: b",
    "X: \x00",
    " folded",
    "no colon",
    ": no name",
    "space : before the colon",
)


def _head(lines: Sequence[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@st.composite
def _lines(
    draw: DrawFn, role: Role, key: str, subprotocols: Sequence[str], compression: bool, max_headers: int
) -> list[str]:
    connection = draw(st.sampled_from(["Upgrade", "upgrade", "keep-alive, Upgrade"]))
    lines = [f"Connection: {connection}", f"Upgrade: {draw(st.sampled_from(['websocket', 'WebSocket']))}"]
    if role is Role.SERVER:
        first = f"GET {draw(_PATHS)} HTTP/1.1"
        lines += ["Host: localhost", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        more: Sequence[str] = _REQUEST_HEADERS
        chosen = draw(st.lists(st.sampled_from(subprotocols), unique=True)) if subprotocols else []
        extensions = deflate_offers()
    else:
        first = draw(st.sampled_from(["HTTP/1.1 101 Switching Protocols", "HTTP/1.1 101 Yes"]))
        lines.append(f"Sec-WebSocket-Accept: {accept_key(key)}")
        more = _RESPONSE_HEADERS
        chosen = draw(st.lists(st.sampled_from(subprotocols), max_size=1)) if subprotocols else []
        extensions = st.sampled_from(_RESPONSE_DEFLATES)
    if chosen:
        lines.append(f"Sec-WebSocket-Protocol: {', '.join(chosen)}")
    if compression and draw(st.booleans()):
        lines.append(f"Sec-WebSocket-Extensions: {draw(extensions)}")
    lines += draw(st.lists(st.sampled_from(more), unique=True, max_size=max_headers))
    return [first, *draw(st.permutations(lines))]


@st.composite
def _hostile_heads(draw: DrawFn, legal: SearchStrategy[list[str]]) -> bytes:
    lines = list(draw(legal))
    if draw(st.integers(0, 3)) == 3:
        lines[0] = draw(st.sampled_from(_FIRST_LINES))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(1, len(lines)))
        more = draw(st.lists(st.sampled_from(_HOSTILE_LINES), max_size=1))
        lines[place : place + draw(st.integers(0, 1))] = more
    data = _head(lines)
    return draw(_mutated(data)) if draw(st.integers(0, 3)) == 3 else data


def handshakes(
    role: Role,
    *,
    hostile: bool = False,
    key: str = SAMPLE_KEY,
    subprotocols: Sequence[str] = (),
    compression: bool = False,
    max_headers: int = 3,
) -> SearchStrategy[bytes]:
    """Generate the head with which the peer of an endpoint opens the connection.

    For a server that is a request, for a client a response with status 101.

    Args:
        role: the role of the endpoint that reads it.
        hostile: let lines be missing, come twice, be others, or be none at all.
        key: the Sec-WebSocket-Key, of the request or that the response answers (see ``key_of``); by default
            the one that stands in the RFC.
        subprotocols: what a request offers some of, or a response one of; by default none.
        compression: whether permessage-deflate may be offered, or accepted.
        max_headers: how many headers more there may be, which mean nothing; by default 3.
    """
    lines = _lines(role, key, subprotocols, compression, max_headers)
    return _hostile_heads(lines) if hostile else lines.map(_head)


# Extensions

_WINDOW_BITS = st.one_of(st.sampled_from([15, 9, 12, 8]), st.integers(8, 15)).map(str)
_QUOTED_BITS = st.one_of(_WINDOW_BITS, _WINDOW_BITS.map('"{}"'.format))
_PARAMETERS = (
    st.just("client_max_window_bits"),
    st.just("server_no_context_takeover"),
    st.just("client_no_context_takeover"),
    _QUOTED_BITS.map("client_max_window_bits={}".format),
    _QUOTED_BITS.map("server_max_window_bits={}".format),
)
_HOSTILE_PARAMETERS = st.sampled_from(
    [
        "server_max_window_bits",
        "server_max_window_bits=0",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=+9",
        "server_max_window_bits=" + "9" * 1000,
        "client_max_window_bits=",
        'client_max_window_bits=""',
        'client_max_window_bits="1\\5"',
        'client_max_window_bits="15',
        "client_max_window_bits=\u0661\u0665",
        "server_no_context_takeover=1",
        "Server_No_Context_Takeover",
        "unknown",
        "unknown=1",
        "",
        "=",
        '"',
        ",",
        ", ,",
    ]
)
_NAMES = st.sampled_from(
    ["permessage-deflate", "x-webkit-deflate-frame", "permessage-bzip2", "Permessage-Deflate", "", "a b"]
)


@st.composite
def _legal_offers(draw: DrawFn) -> str:
    parameters = draw(
        st.lists(st.one_of(*_PARAMETERS), max_size=4, unique_by=lambda text: text.partition("=")[0])
    )
    separator = draw(st.sampled_from(["; ", ";", " ;\t"]))
    return separator.join(["permessage-deflate", *parameters])


@st.composite
def _hostile_offers(draw: DrawFn) -> str:
    parameters = draw(st.lists(st.one_of(*_PARAMETERS, _HOSTILE_PARAMETERS), max_size=4))
    return "; ".join([draw(_NAMES), *parameters])


def deflate_offers(*, hostile: bool = False, max_offers: int = 3) -> SearchStrategy[str]:
    """Generate values of a client's Sec-WebSocket-Extensions that offer permessage-deflate (RFC 7692, 5.1).

    Args:
        hostile: let names be other ones, parameters come twice or be none, values be wrong, quotes be left
            open, or all of it be any text.
        max_offers: the most offers in a value; by default 3. A hostile one may have none.
    """
    one = st.one_of(_legal_offers(), _hostile_offers()) if hostile else _legal_offers()
    offers = st.lists(one, min_size=1, max_size=max_offers).map(", ".join)
    return st.one_of(offers, st.text(max_size=50)) if hostile else offers
