"""What is fuzzed, and what must hold of it whatever comes in.

A target is a function of bytes. It raises nothing, or an AssertionError where something does not hold, or
whatever else wsframe should not have raised. The targets that read a stream share a form:

    flags  sizes (2)  way  calls (2)  stream ...

``flags`` choose what reads it; ``sizes`` and ``way``, how the network cuts it and how it is handed over; and
``calls``, what the application does after which event. All of it is read twice: in one piece, and cut.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import h11

from wsframe import (
    URI,
    Binary,
    ClientConnection,
    Close,
    Connection,
    Deflate,
    Event,
    Fail,
    FrameDecoder,
    InvalidRequest,
    InvalidURI,
    LocalProtocolError,
    Ping,
    Pong,
    RemoteProtocolError,
    Request,
    Response,
    Role,
    ServerConnection,
    State,
    Text,
    encode_frame,
    handshake,
    parse_uri,
    prepare,
    testing,
)
from wsframe.connection import join_pieces

T = TypeVar("T")

LIMIT = 1000  # bytes of a message
PREFIX = 6  # bytes before the stream
CLOSE, PONG = 8, 10
# An incomplete header, or a control frame that is not there whole: nothing else stays unread.
MOST_UNREAD = 14 + 125
MAX_BODY = 65536
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15, threshold=16)
NARROW = Deflate(
    server_max_window_bits=9,
    client_max_window_bits=10,
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    threshold=0,
)

# How a stream comes in


class Plan(NamedTuple):
    """What the first bytes choose."""

    flags: int
    sizes: tuple[int, int]
    way: int
    calls: tuple[tuple[int, int], ...]  # after which event comes which of CALLS

    def has(self, bit: int) -> bool:
        """Tell whether a flag is set."""
        return bool(self.flags >> bit & 1)


def read_plan(data: bytes) -> tuple[Plan, bytes]:
    """Split bytes into the plan and the stream."""
    flags, first, second, way, *calls = data[:PREFIX].ljust(PREFIX, b"\0")
    plan = Plan(flags, (first + 1, second + 1), way % 3, tuple((call >> 5, call & 31) for call in calls))
    return plan, data[PREFIX:]


def cut(stream: bytes, sizes: tuple[int, int]) -> list[bytes]:
    """Return the stream in pieces of these sizes, over and over."""
    pieces = []
    for size in itertools.cycle(sizes):
        if not stream:
            break
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def deliver(reader: Any, take: Callable[[bytes], None], chunks: list[bytes], way: int) -> Iterator[None]:
    """Hand chunks over in one of three ways; what is there is to be read at each turn.

    They are copied, or lent until the next one comes, or lent for one turn.
    """
    for chunk in chunks:
        if way == 0:
            take(chunk)
            yield
            continue
        lent = bytearray(chunk)
        reader.read_from(lent, len(chunk))
        yield
        if way == 2:
            reader.release()
            lent[:] = b"\xaa" * len(chunk)  # a reader that still looks there reads that


# 1. FrameDecoder and encode_frame


def read_frames(
    decoder: FrameDecoder, chunks: list[bytes], way: int
) -> tuple[list[tuple[int, bytes]], object, int]:
    """Return first bytes with their payloads, the fault that came after them, and what was left unread."""
    frames, payload = [], b""
    try:
        for _ in deliver(decoder, decoder.feed, chunks, way):
            if not decoder.partial:
                while frame := decoder.next_frame():
                    frames.append((frame.fin << 7 | frame.rsv << 4 | frame.opcode, frame.payload))
                assert decoder.unread < LIMIT + 14
                continue
            while decoder.advance():
                payload += decoder.read_payload()
                if decoder.is_end:
                    frames.append((decoder.first, payload))
                    payload = b""
            assert decoder.unread < MOST_UNREAD
    except RemoteProtocolError as error:
        assert error.code in (1002, 1009)
        return frames, (error.code, error.reason), 0
    return frames, None, decoder.unread


def check_encoding(frames: list[tuple[int, bytes]], stream: bytes, masked: bool) -> None:
    """Check that the frames are what stands in the stream: there is one way to encode one."""
    position = 0
    for first, payload in frames:
        opcode, fin, rsv = first & 15, first >= 0x80, first >> 4 & 7
        data = encode_frame(opcode, payload, fin, rsv)
        if masked:
            place = position + len(data) - len(payload)
            data = encode_frame(opcode, payload, fin, rsv, stream[place : place + 4])
        assert stream.startswith(data, position)
        assert len(payload) <= (LIMIT if opcode < CLOSE else 125)
        position += len(data)


def frames(data: bytes) -> None:
    """Read frames: the same ones whatever the chunks, whole or in part, and as they stand on the wire."""
    plan, stream = read_plan(data)
    masked = plan.has(0)

    def read(chunks: list[bytes], way: int, partial: bool = False) -> tuple[object, ...]:
        decoder = FrameDecoder(masked=masked, max_size=LIMIT, rsv1=plan.has(1))
        decoder.partial = partial
        return read_frames(decoder, chunks, way)

    whole = read_frames(FrameDecoder(masked=masked, max_size=LIMIT, rsv1=plan.has(1)), [stream], 0)
    chunks = cut(stream, plan.sizes)
    assert read(chunks, plan.way) == whole
    assert read(chunks, plan.way, partial=True)[:2] == whole[:2]
    check_encoding(whole[0], stream, masked)


# 2. Connection

# Of a compressed message with two faults, the one that is found first is told: that depends on the chunks.
EITHER_FAULT = {
    (1007, "text is not UTF-8"),
    (1007, "compressed data is corrupt"),
    (1007, "compressed message is cut short"),
    (1009, "message is too big"),
}


class Speaker:
    """Send over a connection, and know what is allowed, and what its peer is to hear."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.kind: type[Text | Binary] | None = None  # of the message that is going out in fragments
        self.pieces: list[Any] = []
        self.sent: list[Event] = []
        self.has_closed = False

    def attempt(self, allowed: bool, call: Callable[..., object], *args: Any, **options: Any) -> bool:
        """Call, and check that what the RFC forbids is refused, changes nothing, and nothing else is."""
        before = self.conn.unsent, self.conn.state
        try:
            call(*args, **options)
        except LocalProtocolError:
            assert not allowed
            assert (self.conn.unsent, self.conn.state) == before
        else:
            assert allowed
        return allowed

    @property
    def is_open(self) -> bool:
        """Tell whether anything may be sent."""
        return self.conn.state is State.OPEN

    def message(self, kind: type[Text | Binary], data: Any, fin: bool = True, **options: bool) -> None:
        """Send a message, or a fragment of one."""
        send: Callable[..., None] = self.conn.send_text if kind is Text else self.conn.send_binary
        if self.attempt(self.is_open and self.kind in (None, kind), send, data, fin, **options):
            self.pieces.append(data)
            self.kind = kind
            if fin:
                self.finish_pieces(kind)

    def data(self, text: str, fin: bool = True) -> None:
        """Send text as bytes, of which the last character's may come in two fragments."""
        data = text.encode()
        if self.attempt(self.is_open and self.kind in (None, Text), self.conn.send_text, data[:-1], False):
            self.conn.send_text(data[-1:], fin)
            self.pieces.append(text)
            self.kind = Text
            if fin:
                self.finish_pieces(Text)

    def finish_pieces(self, kind: type[Text | Binary]) -> None:
        """Note that a message has gone out."""
        self.sent.append(kind(self.pieces[0][:0].join(self.pieces)))
        self.kind, self.pieces = None, []

    def finish(self) -> None:
        """Send the last fragment, if there are any."""
        kind = self.kind or Text
        self.message(kind, "" if kind is Text else b"")

    def prepared(self) -> None:
        """Send a message that was encoded before."""
        message = "a message for many, " * 10
        if self.attempt(self.is_open and self.kind is None, self.conn.send_prepared, prepare(message)):
            self.sent.append(Text(message))

    def ping(self, payload: bytes) -> None:
        """Send a Ping."""
        if self.attempt(self.is_open and len(payload) <= 125, self.conn.send_ping, payload):
            self.sent.append(Ping(payload))

    def pong(self, payload: bytes) -> None:
        """Send a Pong."""
        if self.attempt(self.is_open, self.conn.send_pong, payload):
            self.sent.append(Pong(payload))

    def close(self, code: int, reason: str = "", legal: bool = True) -> None:
        """Send a Close."""
        self.attempt(self.is_open and legal, self.conn.send_close, code, reason)
        self.note_close()

    def note_close(self) -> None:
        """Note that a Close has gone out, whoever sent it."""
        if self.conn.close_sent is not None and not self.has_closed:
            self.has_closed = True
            self.sent.append(self.conn.close_sent)


CALLS: tuple[Callable[[Speaker], object], ...] = (
    lambda _: None,
    lambda speaker: speaker.message(Text, "é€😀"),
    lambda speaker: speaker.message(Text, "a part", False),
    lambda speaker: speaker.data("é€😀"),
    lambda speaker: speaker.data("é", False),
    lambda speaker: speaker.attempt(False, speaker.conn.send_text, "a lone \ud800"),
    lambda speaker: speaker.attempt(False, speaker.conn.send_text, b"\xed\xa0\x80"),
    lambda speaker: speaker.message(Binary, bytes(200), compress=True),
    lambda speaker: speaker.message(Binary, b"a part", False, compress=False),
    Speaker.finish,
    Speaker.prepared,
    lambda speaker: speaker.ping(b""),
    lambda speaker: speaker.ping(bytes(126)),
    lambda speaker: speaker.pong(bytes(125)),
    lambda speaker: speaker.close(1000, "bye"),
    lambda speaker: speaker.close(1005),
    lambda speaker: speaker.close(4999, "é" * 61),
    lambda speaker: speaker.close(1006, legal=False),
    lambda speaker: speaker.close(1000, "é" * 62, legal=False),
    lambda speaker: speaker.conn.stream_next(),
)


class Heard(NamedTuple):
    """What happened, without what may depend on the chunks."""

    events: list[object]  # whole ones, each with the state that it left
    sent: list[object]
    head: bytes
    end: tuple[object, ...]


def check_grammar(events: list[Event], conn: Connection) -> None:
    """Check the grammar, and the limits."""
    testing.check_grammar(events, conn)
    size = 0
    for event in events:
        if isinstance(event, (Text, Binary)):
            assert event.data or event.final
            size += len(event.data.encode() if isinstance(event, Text) else event.data)
            assert size <= LIMIT
            size = 0 if event.final else size
        elif isinstance(event, (Ping, Pong)):
            assert len(event.payload) <= 125
        elif isinstance(event, Response):
            assert len(event.body) <= MAX_BODY


def check_fail(event: Fail, conn: Connection, had_closed: bool, in_handshake: bool) -> None:
    """Check what section 7.1.7 asks for, and the state table in connection.py."""
    assert event.code in (1002, 1006, 1007, 1009)
    assert conn.should_close
    if in_handshake or event.code == 1006:
        assert conn.state is State.CLOSED
    elif not had_closed:
        assert conn.close_sent == Close(event.code, event.reason)


def check_output(conn: Connection, speaker: Speaker, data: bytes, received: bytes) -> bytes:
    """Check that the peer reads what was sent, and return the head that came before its frames."""
    head = b""
    if isinstance(conn, ServerConnection) and data:
        parts = handshake.HeadReader().feed(data)
        assert parts is not None
        head, data = parts
        assert head.startswith(b"HTTP/1.1 ")
        if not head.startswith(b"HTTP/1.1 101 "):
            if received.removeprefix(b"\r\n").startswith(b"HEAD "):
                assert b"\r\nContent-Length: " in head
                assert data == b""  # RFC 9110, section 9.3.2
            else:
                assert b"\r\nContent-Length: %d\r\n" % len(data) in head
            assert (conn.state, conn.should_close, speaker.sent) == (State.CLOSED, True, [])
            return head + data
    decoder = FrameDecoder(masked=conn.role is Role.CLIENT, rsv1=conn.compression is not None)
    decoder.feed(data)
    opcodes = []
    while frame := decoder.next_frame():
        opcodes.append(int(frame.opcode))
    assert (decoder.unread, decoder.remaining) == (0, 0)
    assert opcodes.count(CLOSE) == (conn.close_sent is not None)
    if CLOSE in opcodes:
        # Section 5.5.2 asks for Pongs until a Close was received; else nothing follows ours.
        assert set(opcodes[opcodes.index(CLOSE) + 1 :]) <= {PONG}
    other = Role.SERVER if conn.role is Role.CLIENT else Role.CLIENT
    peer = Connection(other, max_message_size=None, compression=conn.compression)
    if data:
        peer.receive_data(data)
    heard: list[Event] = []
    while (event := peer.next_event()) is not None:
        heard.append(event)
    # To the peer, our Close is the last event.
    ends = [place for place, event in enumerate(speaker.sent) if isinstance(event, Close)]
    assert heard == speaker.sent[: ends[0] + 1 if ends else None]
    return head


def check_end(conn: Connection, speaker: Speaker, last: object, ended: bool) -> None:
    """Nothing follows a Close or a Fail, and the end of the stream is the end."""
    if ended:
        assert isinstance(last, (Close, Fail))
        assert (conn.state, conn.should_close) == (State.CLOSED, True)
    if not isinstance(last, (Close, Fail)):
        return
    before = (conn.state, conn.should_close, conn.close_sent, conn.close_received)
    if not ended:
        conn.receive_data(b"\x81\x05Hello\x88\0")
    for call in CALLS:
        call(speaker)
    assert conn.next_event() is None
    assert (conn.state, conn.should_close, conn.close_sent, conn.close_received) == before
    assert (conn.data_to_send(), conn.unread, conn.collected) == (b"", 0, 0)
    assert conn.state in (State.CLOSING, State.CLOSED)
    assert conn.should_close or (conn.role is Role.CLIENT and isinstance(last, Close))


def listen(conn: Connection, plan: Plan, chunks: list[bytes], way: int) -> Heard:
    """Read everything, as an application does, and check what happens."""
    speaker = Speaker(conn)
    events: list[Event] = []
    whole: list[object] = []
    pieces: list[Any] = []
    is_open = conn.state is State.OPEN
    for _ in deliver(conn, conn.receive_data, chunks, way):
        while (event := conn.next_event()) is not None:
            events.append(event)
            if isinstance(event, (Text, Binary)):
                pieces.append(event.data)
                if not event.final:
                    continue
                event = join_pieces(pieces, final=True)
                pieces = []
            whole += [event, conn.state, conn.should_close]
            had_closed = speaker.has_closed
            match event:
                case Ping(payload):
                    speaker.sent.append(Pong(payload))
                case Request(is_upgrade=is_upgrade):
                    is_open = answer(conn, plan) and is_upgrade
                case Response(status):
                    is_open = status == 101
                case Close():
                    assert conn.close_received == event
                    assert had_closed or conn.close_sent == event
                case Fail():
                    check_fail(event, conn, had_closed, in_handshake=not is_open and not had_closed)
                case Text(data) | Binary(data) if plan.has(3):
                    speaker.message(type(event), data)
            speaker.note_close()
            is_open = is_open and not speaker.has_closed and not isinstance(event, Fail)
            assert (conn.state is State.OPEN) is is_open
            for number, call in plan.calls:
                if number == len(whole) // 3:
                    CALLS[call % len(CALLS)](speaker)
                    is_open = is_open and not speaker.has_closed
        # What comes behind a request waits until the application answers.
        assert conn.unread < MOST_UNREAD or conn.state is State.CONNECTING
        assert conn.collected <= LIMIT
    check_grammar(events, conn)
    unsent, raw = conn.unsent, conn.data_to_send()
    assert unsent == len(raw)
    head = check_output(conn, speaker, raw, b"".join(chunks))
    end = (conn.state, conn.should_close, conn.close_sent, conn.close_received, conn.subprotocol, conn.unread)
    check_end(conn, speaker, events[-1] if events else None, ended=chunks[-1:] == [b""])

    def told(values: Any) -> list[object]:
        if conn.compression is None:
            return list(values)
        return [
            Fail(0)
            if isinstance(value, (Close, Fail)) and (value.code, value.reason) in EITHER_FAULT
            else value
            for value in values
        ]

    return Heard(told(whole), told(speaker.sent), head, tuple(told(end)))


def answer(conn: Connection, plan: Plan) -> bool:
    """Answer a Request, and return whether it is accepted."""
    assert isinstance(conn, ServerConnection)
    if plan.has(4):
        if plan.has(5):
            conn.reject(403, [("X-Why", "no")], b"no")
        return False
    conn.accept(headers=[("X-Server", "fuzz")])
    return True


def read_twice(make: Callable[[bool], Connection], plan: Plan, stream: bytes) -> None:
    """Check that neither chunks matter, nor whether messages come in pieces."""
    end = [b""] if plan.has(6) else []
    whole = listen(make(False), plan, [stream][: len(stream)] + end, 0)
    parts = listen(make(plan.has(2)), plan, cut(stream, plan.sizes) + end, plan.way)
    assert parts == whole


def connection(data: bytes) -> None:
    """Be either endpoint of a connection that is open."""
    plan, stream = read_plan(data)
    role = Role.SERVER if plan.has(0) else Role.CLIENT
    compression = (WIDE, NARROW)[plan.has(5)] if plan.has(1) else None
    read_twice(
        lambda fragments: Connection(
            role, max_message_size=LIMIT, compression=compression, fragments=fragments
        ),
        plan,
        stream,
    )


# 3. ServerConnection and ClientConnection


def new_client(uri: str, **options: Any) -> ClientConnection:
    """Return a client whose key is known."""
    new_key, handshake.new_key = handshake.new_key, lambda: KEY
    try:
        return ClientConnection(uri, **options)
    finally:
        handshake.new_key = new_key


def handshakes(data: bytes) -> None:
    """Be either endpoint from the opening handshake on."""
    plan, stream = read_plan(data)
    options: dict[str, Any] = {
        "max_message_size": LIMIT,
        "subprotocols": ["chat", "superchat"],
        "compression": WIDE if plan.has(1) else None,
    }

    def make(fragments: bool) -> Connection:
        if plan.has(0):
            origins = ["http://localhost", None] if plan.has(7) else None
            return ServerConnection(origins=origins, fragments=fragments, **options)
        client = new_client("ws://localhost/chat", fragments=fragments, **options)
        client.data_to_send()
        return client

    read_twice(make, plan, stream)


# 4. Headers and their grammar

PARAMETERS = (
    "server_max_window_bits",
    "client_max_window_bits",
    "server_no_context_takeover",
    "client_no_context_takeover",
)
REQUEST = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
)
RESPONSE = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT))
SUBPROTOCOLS = ("chat", "superchat")


def four(compression: Deflate) -> list[object]:
    """Return what two endpoints agree on."""
    return [getattr(compression, name) for name in PARAMETERS]


def judged(judge: Callable[[str], T], text: str) -> T | str:
    """Return what is said of some extensions, or why they are refused."""

    def say(text: str) -> T | str:
        try:
            return judge(text)
        except RemoteProtocolError as error:
            assert error.code == 1002
            return error.reason

    verdict = say(text)
    assert say(f" ,\t,{text}") == verdict  # RFC 7230, section 7: empty elements are ignored
    return verdict


def offers(text: str, choice: int) -> None:
    """Choose from offers, and have the client that made them hear of it."""
    wish = (WIDE, NARROW)[choice & 1]
    accepted = judged(wish.accept, text)
    if not isinstance(accepted, tuple):
        return
    response, agreed = accepted
    handshake.check_header("Sec-WebSocket-Extensions", response)
    if "client_max_window_bits=8" not in response:  # a client of ours cannot do that, and does not offer it
        heard = WIDE.check_response(response)
        assert heard is not None
        assert four(heard)[1:] == four(agreed)[1:]
        assert heard.server_max_window_bits >= agreed.server_max_window_bits  # which it need not announce
    assert 9 <= agreed.server_max_window_bits <= wish.server_max_window_bits
    assert 9 <= agreed.client_max_window_bits <= 15
    assert agreed.server_no_context_takeover >= wish.server_no_context_takeover
    assert agreed.client_no_context_takeover >= wish.client_no_context_takeover
    for name in PARAMETERS[:2]:
        assert (name in response) <= (name in text)


def chosen(text: str, choice: int) -> None:
    """Judge what a server chose."""
    wish = (WIDE, NARROW)[choice & 1]
    verdict = judged(wish.check_response, text)
    if isinstance(verdict, Deflate):
        assert 9 <= verdict.server_max_window_bits <= 15
        assert 9 <= verdict.client_max_window_bits <= wish.client_max_window_bits


def header_lines(text: str, base: tuple[tuple[str, str], ...], choice: int) -> list[tuple[str, str]]:
    """Return those headers of a good handshake that are chosen, and others, one in each line."""
    lines = [line.partition("=")[::2] for line in text.split("\n") if line]
    return [header for place, header in enumerate(base) if not choice >> place & 1] + lines


def requests(text: str, choice: int) -> None:
    """Judge a request; what is accepted is a response that a client takes."""
    try:
        request = handshake.check_request(header_lines(text, REQUEST, choice))
    except InvalidRequest as error:
        assert error.status in (400, 426, 501)
        handshake.encode_response(error.status, error.headers, error.reason.encode())
        return
    check_grammar([request], ServerConnection())
    assert len(set(request.subprotocols)) == len(request.subprotocols)
    if not request.is_upgrade:
        Speaker(ServerConnection()).attempt(False, handshake.accept, request)
        return
    subprotocol = handshake.choose_subprotocol(request, SUBPROTOCOLS)
    response = handshake.accept(request, subprotocol=subprotocol)
    if not request.headers.get_all(":protocol"):
        key = request.headers.get("sec-websocket-key", "").strip(" \t")
        assert len(base64.b64decode(key, validate=True)) == 16
        assert handshake.check_response(response, key, SUBPROTOCOLS) == subprotocol


def responses(text: str, choice: int) -> None:
    """Judge the headers of a response."""
    try:
        subprotocol = handshake.check_response(header_lines(text, RESPONSE, choice), KEY, SUBPROTOCOLS)
    except RemoteProtocolError as error:
        assert error.code == 1002
    else:
        assert subprotocol in (None, *SUBPROTOCOLS)


def heads(text: str, choice: int) -> None:
    """Collect a head whatever the chunks; what is plain, h11 reads as we do."""

    def collect(chunks: list[bytes]) -> object:
        reader, rest = handshake.HeadReader(), b""
        head = None
        try:
            for chunk in chunks:
                if head is None and (parts := reader.feed(chunk)):
                    head, rest = parts
                elif head is not None:
                    rest += chunk
        except InvalidRequest as error:
            return error.status, str(error)
        return head and (head, rest)

    data = text.encode("latin-1")
    whole = collect([data])
    assert collect(cut(data, (choice + 1, 3))) == whole
    if whole is None or not isinstance(whole, tuple) or not isinstance(whole[0], bytes):
        return
    head = whole[0]
    assert data == head + whole[1]
    try:
        plain = handshake.read_plain_head(head)
    except InvalidRequest as error:
        assert error.status == 431
        return
    if plain is None:
        return
    target, headers = plain
    is_request = head.startswith(b"GET ")
    parser = h11.Connection(h11.SERVER if is_request else h11.CLIENT)
    if not is_request:
        asked = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        parser.send(h11.Request(method="GET", target="/", headers=asked))
        parser.send(h11.EndOfMessage())
    parser.receive_data(head)
    event: Any = parser.next_event()
    assert handshake.decode_headers(event.headers) == headers
    if is_request:
        assert (event.method, event.target.decode(), event.http_version) == (b"GET", target, b"1.1")
    else:
        assert (event.status_code, target) == (101, "")


GRAMMARS = (offers, chosen, requests, responses, heads)


def headers(data: bytes) -> None:
    """Read extensions, subprotocols and all else that stands in headers: which of them, the first byte says.

    The second byte chooses between wishes, or which headers of a good handshake are missing.
    """
    which, choice = data[:2].ljust(2, b"\0")
    GRAMMARS[which % len(GRAMMARS)](data[2:].decode("latin-1"), choice)


# 5. Addresses


def write_uri(parts: URI) -> str:
    """Return the address that has these parts."""
    userinfo = ""
    if parts.username is not None:
        userinfo = quote(parts.username, safe="")
        if parts.password is not None:
            userinfo += ":" + quote(parts.password, safe="")
        userinfo += "@"
    host = "[{}]".format(parts.host.replace("%", "%25")) if ":" in parts.host else parts.host
    scheme = "wss" if parts.secure else "ws"
    return f"{scheme}://{userinfo}{host}:{parts.port}{parts.resource_name}"


# What the first byte puts in front, so that not every change makes it something else than an address
BEGINNINGS = ("", "ws://", "wss://", "ws://h/", "ws://u:p@h", "ws://[::1", "ws://h:8")


def uri(data: bytes) -> None:
    """Take an address apart: written anew it has the same parts, and a server hears them."""
    beginning = BEGINNINGS[data[0] % len(BEGINNINGS)] if data else ""
    try:
        parts = parse_uri(beginning + data[1:].decode("utf-8", "surrogateescape"))
    except InvalidURI:
        return
    written = write_uri(parts)
    assert written.isascii()
    assert parse_uri(written) == parts
    assert 1 <= parts.port <= 65535
    try:
        client = new_client(written)
    except LocalProtocolError:
        assert ":" in (parts.username or "")
        return
    server = ServerConnection()
    server.receive_data(client.data_to_send())
    event = server.next_event()
    if isinstance(event, Fail):
        # What a client may ask for is longer than what a server reads.
        assert event.reason.startswith("head exceeds")
        return
    assert isinstance(event, Request)
    assert (event.path, event.headers.get("host")) == (parts.resource_name, parts.host_header)
    if parts.username is not None:
        scheme, _, credentials = event.headers.get("authorization", "").partition(" ")
        assert scheme == "Basic"
        assert base64.b64decode(credentials).decode() == f"{parts.username}:{parts.password or ''}"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "connection": connection,
    "handshake": handshakes,
    "headers": headers,
    "uri": uri,
}
