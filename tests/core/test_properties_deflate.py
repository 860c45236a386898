"""What holds for every agreement on compression, every offer of it, and whatever claims to be compressed.

tests/support/streams.py has the strategies of streams that are not compressed.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import random
import types
import zlib
from typing import NamedTuple

import pytest
from hypothesis import event as seen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cases import case
from tests.support.core import CLIENT, OTHER, SERVER, Raw, frames_of
from tests.support.streams import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PONG,
    REQUEST,
    RESPONSE,
    TEXT,
    a_client,
    close_payloads,
    controls,
    converse,
    cut,
    cuts,
    encode,
    head,
    keys,
    messages,
    mutated,
    roles,
    short_payloads,
    strange_frames,
)
from wsframe import prepare
from wsframe.connection import Connection, State
from wsframe.deflate import Deflate, parse_extensions
from wsframe.errors import RemoteProtocolError
from wsframe.events import Binary, Close, Fail, Ping, Pong, Request, Response, Text
from wsframe.server import ServerConnection
from wsframe.testing import check_grammar, joined

NAME = "permessage-deflate"
RSV1 = 0x40
TAIL = b"\0\0\xff\xff"
WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
MODULES = [zlib]
for name in ("zlib_ng.zlib_ng", "isal.isal_zlib"):
    with contextlib.suppress(ImportError):
        MODULES.append(importlib.import_module(name))

# Agreements

window_bits = st.integers(9, 15)
modules = st.sampled_from(MODULES)
PARAMETERS = (
    "server_max_window_bits",
    "client_max_window_bits",
    "server_no_context_takeover",
    "client_no_context_takeover",
)


def four(compression):
    return tuple(getattr(compression, name) for name in PARAMETERS)


agreements = st.tuples(window_bits, window_bits, st.booleans(), st.booleans())
some_bits = st.one_of(st.none(), window_bits)
wishes = st.tuples(some_bits, some_bits, st.booleans(), st.booleans())


@st.composite
def deflates(draw, agreement=None, module=None):
    """What one end wishes, or how it does what is agreed on."""
    agreement = agreement or draw(wishes)
    module = module or draw(modules)
    most = 3 if module.__name__ == "isal.isal_zlib" else 9
    return Deflate(
        **dict(zip(PARAMETERS, agreement, strict=True)),
        level=draw(st.one_of(st.none(), st.integers(0, most))),
        mem_level=draw(st.integers(1, 9)),
        threshold=draw(st.sampled_from([0, 1, 100, 128, 1000])),
        zlib=module,
    )


# Messages that are worth it: what repeats does so at all distances up to those of the windows, and beyond.


def noise(seed, size):
    return random.Random(seed).randbytes(size)


noises = st.builds(
    noise,
    st.integers(0, 2),
    st.one_of(
        st.integers(0, 300),
        st.sampled_from([127, 128, 255, 257, 500, 511, 512, 513, 1000, 1024, 4095, 4096, 4097, 9000]),
        st.sampled_from([2**bits - less for bits in range(9, 16) for less in (262, 200, 3, 0)]),
    ),
)
runs = st.builds(lambda size, byte: bytes([byte]) * size, st.integers(0, 1000), st.integers(0, 255))
repetitive = st.one_of(
    st.binary(max_size=20), noises, runs, st.lists(st.one_of(noises, runs), max_size=4).map(b"".join)
)


def bytes_of(event):
    return event.data.encode() if isinstance(event, Text) else event.data


class Said(NamedTuple):
    """A message, and how it is to be sent: at once, in fragments, or prepared."""

    is_text: bool
    data: bytes  # of a text: its characters in ISO 8859-1, so that half of them take two bytes
    places: tuple = ()  # where it is cut
    between: tuple = ()  # the payloads of the Pings between its fragments
    as_bytes: bool = False  # whether a text is cut anywhere, inside characters too
    is_prepared: bool = False
    compress: bool | None = None

    @property
    def message(self):
        return self.data.decode("latin-1") if self.is_text else self.data

    @property
    def event(self):
        return Text(self.message) if self.is_text else Binary(self.message)

    def say(self, conn, prepared):
        """Say it, and return the events that the peer must hear, and where RSV1 must stand.

        ``prepared`` holds the messages that connections share.
        """
        message = self.message.encode() if self.is_text and self.as_bytes else self.message
        places = [] if self.is_prepared else sorted(min(place, len(message)) for place in self.places)
        is_compressed = self.compress
        if is_compressed is None:
            is_compressed = bool(places) or len(bytes_of(self.event)) >= conn.compression.threshold
        events, marks = [], [is_compressed]
        if self.is_prepared:
            key = self.is_text, self.data, self.compress
            conn.send_prepared(prepared.setdefault(key, prepare(self.message, compress=self.compress)))
            return [self.event], marks
        send = conn.send_text if self.is_text else conn.send_binary
        send(message[: places[0]] if places else message, not places, compress=self.compress)
        for index, (start, stop) in enumerate(itertools.pairwise([*places, len(message)])):
            if index < len(self.between):
                conn.send_ping(self.between[index])
                events.append(Ping(self.between[index]))
                marks.append(False)
            # What is said with a later fragment does not matter.
            send(message[start:stop], index == len(places) - 1, compress=not self.compress)
            marks.append(False)
        return [*events, self.event], marks


class SaidControl(NamedTuple):
    event: Ping | Pong

    def say(self, conn, prepared):
        send = conn.send_ping if isinstance(self.event, Ping) else conn.send_pong
        send(self.event.payload)
        return [self.event], [False]


said = st.one_of(
    st.builds(
        Said,
        is_text=st.booleans(),
        data=repetitive,
        places=st.lists(st.one_of(st.integers(0, 50), st.integers(0, 40_000)), max_size=4).map(tuple),
        between=st.lists(short_payloads, max_size=3).map(tuple),
        as_bytes=st.booleans(),
        is_prepared=st.integers(0, 3).map(lambda number: number == 0),
        compress=st.sampled_from([None, None, True, True, False]),
    ),
    st.builds(SaidControl, st.one_of(st.builds(Ping, short_payloads), st.builds(Pong, short_payloads))),
)


some_cuts = st.one_of(st.just([2**20]), cuts)


def in_some_chunks(data, sizes):
    """Return bytes in pieces of these sizes, or of a multiple of them when that would be thousands."""
    scale = 1 + len(data) // 2000
    return cut(data, [size * scale for size in sizes])


def compressed_messages_of(frames):
    """Return the payload of each message whose first frame has RSV1."""
    payload, is_compressed, payloads = b"", False, []
    for frame in frames:
        if frame.opcode < CLOSE:
            is_compressed = bool(frame.rsv) if frame.opcode else is_compressed
            payload += frame.payload
            if frame.fin:
                if is_compressed:
                    payloads.append(payload)
                payload = b""
    return payloads


def inflate_exactly(decompressor, payload):
    """Decompress a message with zlib alone, so that it looks no further back than its window.

    It would, in what it returns at once; so that is a few bytes.
    """
    message = bytearray()
    for start in range(0, len(payload), 256):
        rest, data = payload[start : start + 256], b"?"
        while rest or data:
            data = decompressor.decompress(rest, 1 + len(message) // 2000)
            rest = decompressor.unconsumed_tail
            message += data
    return bytes(message)


def streaming(conn, chunks, calls):
    """Give the chunks to come, and call ``stream_next()`` before some of them."""
    for chunk, is_called in zip(chunks, itertools.cycle(calls), strict=False):
        if is_called:
            conn.stream_next()
        yield chunk


def check_pieces(pieces, starts):
    """Check that no piece is empty but the last of a message, and that none of compressed messages is large.

    Nothing limits the pieces of a message that is not compressed but how much of it arrives at once.
    """
    number = 0
    for piece in pieces:
        assert piece.data or piece.final
        assert len(piece.data) <= 65536 or not starts[number]
        number += piece.final


def check_conversation(agreement, compression, said, sizes, fragments=False, calls=(False,)):
    """Let both ends say all that they have to say, and compare with what the other one hears."""
    ends = {
        role: Connection(role, compression=compression[role], max_message_size=None, fragments=fragments)
        for role in (CLIENT, SERVER)
    }
    data, events, marks, prepared = {}, {}, {}, {}
    for role, conn in ends.items():
        events[role], marks[role] = [], []
        for thing in said[role]:
            heard, marked = thing.say(conn, prepared)
            events[role] += heard
            marks[role] += marked
        data[role] = conn.data_to_send()
    for role, conn in ends.items():
        peer = OTHER[role]
        heard = converse(conn, streaming(conn, in_some_chunks(data[peer], sizes), calls), echo=False)
        assert joined(heard.events) == events[peer]
        assert fragments or any(calls) or heard.events == events[peer]
        assert conn.state is State.OPEN
        pings = [event.payload for event in events[peer] if isinstance(event, Ping)]
        assert heard.frames == [(PONG, True, payload) for payload in pings]

        # RFC 7692, section 6: RSV1 stands on the first frame of a compressed message, and on no other.
        frames = frames_of(peer, data[peer])
        assert [bool(frame.rsv) for frame in frames] == marks[peer]
        # Section 7.1: neither do the bytes refer to what is further back than the window, nor to another
        # message without context takeover.
        which = 0 if peer is SERVER else 1
        bits, is_alone = agreement[which], agreement[which + 2]
        decompressor = zlib.decompressobj(-bits)
        inflated = []
        for payload in compressed_messages_of(frames):
            if is_alone:
                decompressor = zlib.decompressobj(-bits)
            inflated.append(inflate_exactly(decompressor, payload + TAIL))
        messages = [bytes_of(event) for event in events[peer] if isinstance(event, (Text, Binary))]
        starts = [frame.rsv for frame in frames if frame.opcode in (TEXT, BINARY)]
        if fragments:
            check_pieces([event for event in heard.events if isinstance(event, (Text, Binary))], starts)
        assert inflated == [data for data, rsv in zip(messages, starts, strict=True) if rsv]


@given(
    data=st.data(),
    agreement=agreements,
    to_server=st.lists(said, max_size=5),
    to_client=st.lists(said, max_size=5),
    sizes=some_cuts,
    fragments=st.booleans(),
    calls=st.one_of(st.just([False]), st.lists(st.booleans(), min_size=1, max_size=5)),
)
def test_what_one_end_says_the_other_hears(data, agreement, to_server, to_client, sizes, fragments, calls):
    compression = {role: data.draw(deflates(agreement)) for role in (CLIENT, SERVER)}
    said = {CLIENT: to_server, SERVER: to_client}
    check_conversation(agreement, compression, said, sizes, fragments, calls)
    seen(f"{compression[CLIENT].zlib.__name__} and {compression[SERVER].zlib.__name__}")


CONVERSATION = [
    Said(False, noise(1, 700) * 2, compress=True),
    Said(True, noise(1, 700), (300, 901), (b"between",), as_bytes=True),
    Said(True, noise(1, 700) * 2, is_prepared=True),
    Said(False, b"", (0,), compress=True),
    Said(False, noise(1, 700), compress=False),
    Said(False, noise(2, 5000) + noise(1, 700) + noise(2, 5000)),
]


def test_every_agreement_and_every_pair_of_modules():
    pairs = itertools.cycle(itertools.product(MODULES, MODULES))
    for agreement in itertools.product(range(9, 16), range(9, 16), (False, True), (False, True)):
        parameters = dict(zip(PARAMETERS, agreement, strict=True))
        ours, theirs = next(pairs)
        compression = {CLIENT: Deflate(**parameters, zlib=ours), SERVER: Deflate(**parameters, zlib=theirs)}
        said = {CLIENT: CONVERSATION, SERVER: CONVERSATION[::-1]}
        with case(agreement=agreement, ours=ours, theirs=theirs):
            check_conversation(agreement, compression, said, [1, 2000, 7])


def test_only_compression_limits_the_size_of_a_piece():
    large = noise(1, 70_000)
    said = [Said(False, large, compress=compress) for compress in (False, True, False)]
    agreement, compression = four(WIDE), {CLIENT: WIDE, SERVER: WIDE}
    check_conversation(agreement, compression, {CLIENT: said, SERVER: said}, [2**20], fragments=True)


# Negotiation, by a grammar and a parser of their own
#
# RFC 6455, section 9.1: extension-list = 1#extension, extension = extension-token *( ";" extension-param ),
# extension-param = token [ "=" ( token | quoted-string ) ]; RFC 7230, section 7: #element is a list with
# optional whitespace, in which empty elements are ignored.

TOKEN_CHARACTERS = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Malformed(Exception):
    pass


def is_token(text):
    return bool(text) and set(text) <= TOKEN_CHARACTERS


class Scanner:
    """Read an extension, character by character."""

    def __init__(self, text):
        self.text = text
        self.position = 0

    def peek(self):
        return self.text[self.position : self.position + 1]

    def skip(self, characters):
        start = self.position
        while self.peek() and self.peek() in characters:
            self.position += 1
        return self.text[start : self.position]

    def space(self):
        self.skip(" \t")

    def take(self, character):
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def token(self):
        token = self.skip(TOKEN_CHARACTERS)
        if not token:
            raise Malformed
        return token

    def value(self):
        if not self.take('"'):
            return self.token()
        value = ""
        while not self.take('"'):
            self.take("\\")
            if not self.peek():
                raise Malformed
            value += self.peek()
            self.position += 1
        if not is_token(value):
            raise Malformed
        return value

    def extension(self):
        self.space()
        name, parameters = self.token(), []
        self.space()
        while self.take(";"):
            self.space()
            parameter, value = self.token(), None
            self.space()
            if self.take("="):
                self.space()
                value = self.value()
                self.space()
            parameters.append((parameter, value))
        if self.peek():
            raise Malformed
        return name, parameters


def parsed(text):
    """Return the extensions of a list: a name and parameters, or None for what is none."""
    elements, is_quoted, is_escaped = [""], False, False
    for character in text:
        if character == "," and not is_quoted:
            elements.append("")
            continue
        elements[-1] += character
        if is_escaped:
            is_escaped = False
        elif character == '"':
            is_quoted = not is_quoted
        elif character == "\\":
            is_escaped = is_quoted
    extensions = []
    for element in elements:
        if element.strip(" \t"):
            try:
                extensions.append(Scanner(element).extension())
            except Malformed:
                extensions.append(None)
    return extensions


def meaning(parameters):
    """Return the parameters of section 7.1 as a dict, with True for no value; None if one is wrong."""
    values = {}
    for name, value in parameters:
        if name not in PARAMETERS or name in values:
            return None
        if name.endswith("_takeover"):
            if value is not None:
                return None
        elif value is not None and (value not in {"8", "9", "10", "11", "12", "13", "14", "15"}):
            return None
        values[name] = True if value is None else int(value)
    return values


def the_server_should(wish, offers):
    """Return a server's answer and what is agreed on; None if it declines, 1002 if it must fail."""
    if None in offers:
        return 1002
    for extension in offers:
        if extension[0] != NAME:
            continue
        offer = meaning(extension[1])
        # zlib does not compress with a window of 8 bits.
        if offer is None or offer.get("server_max_window_bits") in (True, 8):
            continue
        answer = {}
        server_bits, client_bits, server_alone, client_alone = four(wish)
        server_bits, client_bits = server_bits or 12, client_bits or 12
        # Nothing is announced that the offer does not have.
        if "server_max_window_bits" in offer:
            server_bits = min(server_bits, offer["server_max_window_bits"])
            answer["server_max_window_bits"] = server_bits
        if "client_max_window_bits" in offer:
            asked = offer["client_max_window_bits"]
            client_bits = client_bits if asked is True else min(client_bits, asked)
            answer["client_max_window_bits"] = client_bits
        else:
            client_bits = 15
        server_alone = server_alone or "server_no_context_takeover" in offer
        client_alone = client_alone or "client_no_context_takeover" in offer
        if server_alone:
            answer["server_no_context_takeover"] = True
        if client_alone:
            answer["client_no_context_takeover"] = True
        # It decompresses with 9 bits what was compressed with 8.
        return answer, (server_bits, max(client_bits, 9), server_alone, client_alone)
    return None


def the_client_should(wish, extensions):
    """Return what a client with this wish has agreed on, 1002 if it must fail, or None."""
    if not extensions:
        return None
    if len(extensions) > 1 or extensions[0] is None or extensions[0][0] != NAME:
        return 1002
    answer = meaning(extensions[0][1])
    if answer is None:
        return 1002
    server_bits, client_bits = (
        answer.get(name, 15) for name in ("server_max_window_bits", "client_max_window_bits")
    )
    if server_bits is True or client_bits in (True, 8):
        return 1002
    # A window that is larger than what was wished for is an answer to the offer that does not ask for any.
    return (
        max(server_bits, 9),
        min(client_bits, wish.client_max_window_bits or 12),
        "server_no_context_takeover" in answer,
        wish.client_no_context_takeover or "client_no_context_takeover" in answer,
    )


def response_outcome(wish, text):
    """Return what ``check_response`` makes of a text, in the same terms; it raises nothing else."""
    try:
        agreed = wish.check_response(text)
    except RemoteProtocolError as error:
        return error.code
    return agreed and four(agreed)


def accepted_by(wish, text):
    """Return what ``accept`` returns, or the code with which it fails; it raises nothing else."""
    try:
        return wish.accept(text)
    except RemoteProtocolError as error:
        return error.code


spaces = st.sampled_from(["", "", " ", "\t", " \t "])


@st.composite
def as_values(draw, value):
    """The same value, as a token or as a quoted-string with any of its characters escaped."""
    if value and set(value) <= TOKEN_CHARACTERS and draw(st.booleans()):
        return value
    escaped = [("\\" if char in '"\\' or draw(st.booleans()) else "") + char for char in value]
    return f'"{"".join(escaped)}"'


names = st.text(st.sampled_from("abz-_.!~09AZ"), min_size=1, max_size=6)
values = st.one_of(
    st.none(),
    st.integers(8, 16).map(str),
    st.sampled_from(["9", "15", "12", "09", "015", "8", "16", "+9", "-9", "1_0", "9.0", "", " 9", "x", "٩"]),
    st.text(st.sampled_from('ab ,;="\\\t'), max_size=5),
)
right_parameters = st.one_of(
    st.tuples(st.sampled_from(PARAMETERS[:2]), st.integers(9, 15).map(str)),
    st.just(("client_max_window_bits", None)),
    st.tuples(st.sampled_from(PARAMETERS[2:]), st.none()),
)
parameters = st.one_of(
    right_parameters,
    right_parameters,
    right_parameters,
    st.tuples(st.one_of(st.sampled_from(PARAMETERS), names), values),
)
extensions = st.one_of(
    st.tuples(
        st.just(NAME),
        st.lists(right_parameters, max_size=4, unique_by=lambda parameter: parameter[0]),
    ),
    st.tuples(
        st.one_of(st.just(NAME), st.just(NAME), names, st.just(NAME.title())),
        st.lists(parameters, max_size=4),
    ),
)


@st.composite
def as_text(draw, extensions):
    """A list of extensions, as one of the texts that the grammar has for it."""

    def space():
        return draw(spaces)

    text = ",".join(draw(st.lists(spaces, max_size=1))) + ("," if draw(st.booleans()) else "")
    for index, (name, parameters) in enumerate(extensions):
        if index:
            text += "," + "".join(space() + "," for _ in range(draw(st.integers(0, 2))))
        text += space() + name + space()
        for parameter, value in parameters:
            text += ";" + space() + parameter + space()
            if value is not None:
                text += "=" + space() + draw(as_values(value)) + space()
    return text + draw(st.sampled_from(["", ",", " , ,"]))


# Words of the grammar in an order that is not its own
jumbles = st.lists(
    st.sampled_from(
        [
            NAME,
            *PARAMETERS,
            "9",
            "15",
            "16",
            "x",
            ";",
            ";",
            "=",
            ",",
            ",",
            " ",
            "\t",
            '"',
            '"',
            "\\",
            "\xe9",
            "@",
        ]
    ),
    max_size=16,
).map("".join)


@st.composite
def texts(draw):
    """Text for Sec-WebSocket-Extensions, of the grammar or almost."""
    parts = draw(
        st.lists(
            st.one_of(
                st.lists(extensions, min_size=1, max_size=3).flatmap(as_text),
                jumbles,
            ),
            min_size=1,
            max_size=3,
        )
    )
    text = ",".join(parts)
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(['"', "\\", ",", ";", "=", "", "\0"])) + text[place + 1 :]
    return text


@given(client=deflates(), server=deflates())
def test_two_wishes_become_one_agreement(client, server):
    """Each end gets what it asked for, or better; and is ready for what the other does."""
    response, at_server = server.accept(client.offer())
    at_client = client.check_response(response)
    server_bits, ready_for, server_alone, client_alone = four(at_server)
    assert four(at_client)[2:] == (server_alone, client_alone)
    assert four(at_client)[0] >= server_bits
    client_bits = four(at_client)[1]
    assert ready_for >= client_bits
    # Each compresses with 12 bits unless its user says another number, or its peer a smaller one.
    assert server_bits <= (server.server_max_window_bits or 12)
    assert client_bits <= (client.client_max_window_bits or 12)
    assert server_bits <= (client.server_max_window_bits or 15)
    assert ready_for <= (server.client_max_window_bits or 12)
    for wish in (client, server):
        assert server_alone >= wish.server_no_context_takeover
        assert client_alone >= wish.client_no_context_takeover
    assert server_alone <= (client.server_no_context_takeover or server.server_no_context_takeover)
    assert client_alone <= (client.client_no_context_takeover or server.client_no_context_takeover)
    assert ("server_max_window_bits" in response) <= ("server_max_window_bits" in client.offer())
    for wish, agreed in ((client, at_client), (server, at_server)):
        kept = (wish.level, wish.mem_level, wish.threshold, wish.zlib)
        assert (agreed.level, agreed.mem_level, agreed.threshold, agreed.zlib) == kept
        assert (agreed is wish) is (four(agreed) == four(wish))


@given(client=deflates(), server=deflates(), data=st.data())
def test_what_is_said_is_of_the_grammar(client, server, data):
    """An offer or a response, taken apart, and put together in another way, is the same."""
    offers = parsed(client.offer())
    assert offers
    assert None not in offers
    assert all(name == NAME and meaning(parameters) is not None for name, parameters in offers)
    response, agreed = server.accept(data.draw(as_text(offers)))
    assert (response, agreed) == server.accept(client.offer())
    ((name, parameters),) = parsed(response)
    heard = client.check_response(response)
    assert (name, four(agreed)[2:]) == (NAME, four(heard)[2:])
    again = data.draw(as_text([(name, data.draw(st.permutations(parameters)))]))
    assert four(client.check_response(again)) == four(heard)


@given(offered=st.lists(extensions, max_size=4), data=st.data())
def test_what_the_grammar_allows_is_read_as_it_was_meant(offered, data):
    text = data.draw(as_text(offered))
    expected = [
        (name, parameters) if all(value is None or is_token(value) for _, value in parameters) else None
        for name, parameters in offered
    ]
    assert parsed(text) == expected
    if None in expected:
        with pytest.raises(RemoteProtocolError, match="malformed"):
            parse_extensions(text)
    else:
        assert parse_extensions(text) == [
            (name, [(parameter, value or "") for parameter, value in parameters])
            for name, parameters in expected
        ]


@settings(max_examples=2 * settings().max_examples)
@given(wish=deflates(), text=texts())
@example(WIDE, f'{NAME}; server_max_window_bits="1\\0", {NAME}')
@example(WIDE, f'x; y="\\", {NAME}')
@example(WIDE, f'x; y="\\\\", {NAME}')
def test_offers_and_responses_are_read_as_an_independent_parser_reads_them(wish, text):
    expected = the_server_should(wish, parsed(text))
    accepted = accepted_by(wish, text)
    if expected in (None, 1002):
        assert accepted == expected
    else:
        response, agreed = accepted
        ((name, parameters),) = parsed(response)
        assert (name, meaning(parameters), four(agreed)) == (NAME, *expected)
    outcome = response_outcome(wish, text)
    assert outcome == the_client_should(wish, parsed(text))
    verdict = {None: "declined", 1002: "malformed"}.get(
        expected if expected in (None, 1002) else 0, "accepted"
    )
    seen(f"{verdict}, {type(outcome).__name__}")


headers = st.one_of(
    texts().map(lambda text: text.encode("latin-1", "replace")),
    st.binary(max_size=100),
    jumbles.map(str.encode),
)


@given(
    text=st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1")), jumbles),
    wish=deflates(),
)
def test_any_text_is_an_offer_that_may_be_declined_and_a_response_that_may_be_failed(text, wish):
    accepted = accepted_by(wish, text)
    assert accepted in (None, 1002) or accepted[0].startswith(NAME)
    match response_outcome(wish, text):
        case (server_bits, client_bits, _, _):
            assert server_bits in range(9, 16)
            assert client_bits in range(9, (wish.client_max_window_bits or 12) + 1)
        case other:
            assert other in (None, 1002)


@given(lines=st.lists(headers, max_size=3), wish=st.one_of(st.none(), deflates()))
def test_any_bytes_may_stand_in_the_header(lines, wish):
    """They are a bad request or a bad offer, a response that is no good or one that is; nothing raises."""
    more = b"".join(b"Sec-WebSocket-Extensions: " + line + b"\r\n" for line in lines) + b"\r\n"

    conn = ServerConnection(compression=wish)
    conn.receive_data(head(REQUEST).removesuffix(b"\r\n") + more)
    match conn.next_event():
        case Request(headers=fields):
            assert None not in parsed(fields.get("Sec-WebSocket-Extensions", ""))
            conn.accept()
            assert conn.state is State.OPEN
            accepted = wish and wish.accept(fields.get("Sec-WebSocket-Extensions", ""))
            assert conn.compression == (accepted and accepted[1])
            data = conn.data_to_send()
            assert data.startswith(b"HTTP/1.1 101 ")
            assert data.count(b"\r\nSec-WebSocket-Extensions: ") == (accepted is not None)
        case Fail() as fail:
            assert fail.code == 1002
            assert conn.data_to_send().startswith(b"HTTP/1.1 4")
            assert conn.should_close
        case other:
            raise AssertionError(other)

    conn = a_client(compression=wish)
    conn.receive_data(head(RESPONSE).removesuffix(b"\r\n") + more)
    match conn.next_event():
        case Response(status=101, headers=fields):
            assert None not in parsed(fields.get("Sec-WebSocket-Extensions", ""))
            assert conn.state is State.OPEN
            expected = wish and the_client_should(wish, parsed(fields.get("Sec-WebSocket-Extensions", "")))
            assert (conn.compression and four(conn.compression)) == expected
        case Fail(code=1002):
            assert conn.state is State.CLOSED
            assert conn.should_close
        case other:
            raise AssertionError(other)


# Time that grows with the square of the length is not seen in 16 KiB, the limit of a head: that is a second
# or so, and how long a test takes depends on who else uses the machine. This is 16 times as long: each header
# takes a fraction of a second in linear time, and minutes otherwise, which pytest-timeout does not wait for.
LENGTH = 2**18


LONG_HEADERS = [
    ("", ","),
    ("", ", "),
    ("", " \t"),
    ("", ";"),
    ("", "="),
    ("", '"'),
    ("", '""'),
    ("", "\\"),
    ("", '"\\'),
    ("", "a"),
    ("", "a,"),
    ("", "a;"),
    ("", f"{NAME},"),
    ("", f"{NAME}; x,"),
    (NAME, " \t"),
    (NAME, ";"),
    (NAME, "; "),
    (NAME, "; a"),
    (NAME, " ; a = b "),
    (NAME, '; a="b"'),
    (NAME, '; a="\\b"'),
    (NAME, "; a=b=c"),
    (NAME, "; server_max_window_bits=10"),
    (f"{NAME}; ", "a"),
    (f"{NAME}; a", " "),
    (f"{NAME}; a=", "b"),
    (f"{NAME}; a=", " "),
    (f'{NAME}; server_max_window_bits="', "1"),
    (f'{NAME}; server_max_window_bits="', "\\1"),
    (f'{NAME}; server_max_window_bits="', "\\"),
    (f'{NAME}; server_max_window_bits="', " "),
    (f'{NAME}; server_max_window_bits="9"', " "),
]


@pytest.mark.timeout(60)
def test_a_header_is_read_in_linear_time():
    for (begin, again), end in itertools.product(LONG_HEADERS, ["", "@", '"']):
        with case(begin=begin, again=again, end=end):
            text = begin + again * (LENGTH // len(again)) + end
            accepted_by(WIDE, text)
            response_outcome(WIDE, text)


# Bytes that claim to be compressed

# What ends a message is decompressed without a limit: 6 bytes, of which a corrupt one may make that many.
BLOCK = 6 * 8 // 2 * 258
SMALL = 1000
LIMITS = [0, 1, SMALL, 70_000]
FLUSHES = [zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK, zlib.Z_FINISH]
STRATEGIES = [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]
short_parts = st.one_of(
    st.binary(max_size=20),
    runs,
    noises.map(lambda raw: raw[:600]),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b"", bytes(999), bytes(1001), "é".encode() * 500]),
)


class Peer:
    """Compress as zlib can and our own compressor does not: with any kind of block, and with BFINAL."""

    def __init__(self, bits=15, takeover=True):
        self.bits = bits
        self.takeover = takeover
        self.history = b""
        self.object = None

    def say(self, parts, level, strategy, at_end):
        """Return a message, made of parts and of what flushes them, as the payload of its frames."""
        payload = b""
        for part, flush in parts:
            if self.object is None:
                dictionary = {"zdict": self.history[-(1 << self.bits) :]} if self.history else {}
                self.object = zlib.compressobj(level, zlib.DEFLATED, -self.bits, 8, strategy, **dictionary)
            payload += self.object.compress(part)
            self.history += part
            if flush != zlib.Z_NO_FLUSH:
                payload += self.object.flush(flush)
            if flush == zlib.Z_FINISH:
                self.object = None
        if self.object is not None:
            # In a block of its own, so that there is one whatever came before.
            payload = (payload + self.object.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL) or b"\0"
        elif at_end:
            # Section 7.2.3.4: 'append 0x00'
            payload += b"\0"
        if not self.takeover:
            self.object, self.history = None, b""
        return payload


@st.composite
def said_by_zlib(draw, peer, parts=short_parts):
    """A message, and its payload."""
    parts = draw(st.lists(st.tuples(parts, st.sampled_from(FLUSHES)), min_size=1, max_size=4))
    payload = peer.say(
        parts,
        draw(st.sampled_from([-1, 0, 1, 9])),
        draw(st.sampled_from(STRATEGIES)),
        at_end=draw(st.booleans()),
    )
    return b"".join(part for part, _ in parts), payload


@st.composite
def as_frames(draw, opcode, payload, controls=controls):
    """A compressed message in frames, with control frames between them."""
    places = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    raws, first = [], opcode | RSV1
    for start, stop in itertools.pairwise([0, *places, len(payload)]):
        if raws:
            raws += draw(st.lists(controls, max_size=2))
            first = CONTINUATION
        raws.append(Raw(first, payload[start:stop], key=draw(keys)))
    return [*raws[:-1], raws[-1]._replace(first=raws[-1].first | FIN)]


@given(
    role=roles,
    data=st.data(),
    bits=window_bits,
    takeover=st.booleans(),
    module=modules,
    sizes=some_cuts,
    fragments=st.booleans(),
)
def test_whatever_blocks_zlib_makes_are_read(role, data, bits, takeover, module, sizes, fragments):
    """Also when BFINAL stands in the middle or at the end, and what follows refers to what came before it."""
    compression = Deflate(
        server_max_window_bits=bits,
        client_max_window_bits=bits,
        server_no_context_takeover=not takeover,
        client_no_context_takeover=not takeover,
        zlib=module,
    )
    peer, pongs = Peer(bits, takeover), st.just(Raw(FIN | PONG, b"between"))
    raws, expected = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        message, payload = data.draw(said_by_zlib(peer, repetitive))
        raws += data.draw(as_frames(BINARY, payload, pongs))
        expected.append(Binary(message))
    conn = Connection(role, compression=compression, fragments=fragments)
    heard = converse(conn, in_some_chunks(encode(role, raws), sizes), echo=False).events
    assert [event for event in joined(heard) if event != Pong(b"between")] == expected
    assert len(joined(heard)) == len(expected) + sum(raw.opcode == PONG for raw in raws)


@st.composite
def compressed_streams(draw, most=5):
    """Frames of compressed messages, of which some are corrupt, among plain messages and control frames."""
    peer, raws = Peer(), []
    for _ in range(draw(st.integers(1, most))):
        match draw(st.integers(0, 7)):
            case 0:
                raws += draw(messages())
            case 1:
                raws += draw(as_frames(draw(st.sampled_from([TEXT, BINARY])), draw(st.binary(max_size=30))))
            case 2:
                raws.append(draw(strange_frames()))
            case 3:
                # A bomb: 1000 bytes for each
                size = draw(st.sampled_from([SMALL, SMALL + 1, 70_000, 70_001, 300_000]))
                payload = peer.say([(bytes(size), zlib.Z_SYNC_FLUSH)], 9, zlib.Z_DEFAULT_STRATEGY, False)
                raws += draw(as_frames(draw(st.sampled_from([TEXT, BINARY])), payload))
            case number:
                _, payload = draw(said_by_zlib(peer))
                if number > 5:
                    payload = draw(mutated(payload))
                raws += draw(as_frames(draw(st.sampled_from([TEXT, BINARY])), payload))
    if draw(st.booleans()):
        raws.insert(draw(st.integers(0, len(raws))), Raw(FIN | CLOSE, draw(close_payloads)))
    return raws


@st.composite
def compressed_bytes(draw, role):
    data = encode(role, draw(compressed_streams()))
    return draw(mutated(data)) if draw(st.integers(0, 3)) == 0 else data


def measuring(module):
    """Return a module like this one, and a list of how many bytes each call of it has returned."""
    made = []

    class Measured:
        def __init__(self, *args, **options):
            self._object = module.decompressobj(*args, **options)

        def decompress(self, *args):
            data = self._object.decompress(*args)
            made.append(len(data))
            return data

        def __getattr__(self, name):
            return getattr(self._object, name)

    measured = types.ModuleType(module.__name__)
    vars(measured).update(vars(module), decompressobj=Measured)
    return measured, made


def negotiated(takeover, module):
    return Deflate(
        server_max_window_bits=15,
        client_max_window_bits=15,
        server_no_context_takeover=not takeover,
        client_no_context_takeover=not takeover,
        zlib=module,
    )


@given(
    role=roles,
    data=st.data(),
    limit=st.sampled_from(LIMITS),
    takeover=st.booleans(),
    fragments=st.booleans(),
    sizes=some_cuts,
    ends=st.booleans(),
)
def test_whatever_claims_to_be_compressed_fits_the_grammar(
    role, data, limit, takeover, fragments, sizes, ends
):
    """Only documented events; at most one Close out; and little is decompressed past the limit."""
    stream = data.draw(compressed_bytes(role))
    module, made = measuring(data.draw(modules))
    conn = Connection(
        role, compression=negotiated(takeover, module), max_message_size=limit, fragments=fragments
    )
    heard = converse(conn, in_some_chunks(stream, sizes) + [b""] * ends)
    check_grammar(heard.events, conn)
    last = heard.events[-1] if heard.events else None
    if isinstance(last, Fail):
        assert last.code in ((1002, 1006, 1007, 1009) if ends else (1002, 1007, 1009))
        assert conn.close_sent == (None if last.code == 1006 else Close(last.code, last.reason))
        assert conn.should_close
    assert [opcode for opcode, _, _ in heard.frames].count(CLOSE) == (conn.close_sent is not None)
    said = [bytes_of(event) for event in joined(heard.events) if isinstance(event, (Text, Binary))]
    assert all(len(raw) <= limit for raw in said)
    told = sum(len(bytes_of(event)) for event in heard.events if isinstance(event, (Text, Binary)))
    assert sum(made) - told <= limit + 1 + BLOCK
    seen(type(last).__name__ + (f" {last.code}" if isinstance(last, Fail) else ""))


def inflated(payload):
    """Return what zlib makes of a message.

    None: it is corrupt, cut short, or has too many blocks with BFINAL: eight, and one for each 64 bytes.
    """
    message, rest = b"", payload
    try:
        for streams in itertools.count(1):
            if not payload:
                return b""  # RFC 7692, section 7.2.3.6 forbids it, but some peers send it
            decompressor = zlib.decompressobj(-15, zdict=message[-(2**15) :])
            message += decompressor.decompress(rest)
            rest = decompressor.unused_data
            if not decompressor.eof:
                # The last block must end here, or in the empty block: one more with BFINAL ends the stream.
                is_whole = not decompressor.decompress(TAIL + b"\3\0") and decompressor.eof
                return message if is_whole else None
            if streams > 8 + (len(payload) - len(rest)) // 64:
                return None
            if not rest:
                return message
    except zlib.error:
        return None


# A block with BFINAL that is longer than what is read at once, and one that follows it.
BFINAL_AND_MORE = Peer().say([(bytes(70_000), zlib.Z_FINISH), (b"more", zlib.Z_SYNC_FLUSH)], 9, 0, False)
long_parts = st.sampled_from([65_535, 65_536, 65_537, 200_000]).map(bytes)


@given(
    role=roles,
    payload=st.one_of(
        st.binary(max_size=20),
        st.builds(Peer).flatmap(said_by_zlib).map(lambda said: said[1]).flatmap(mutated),
        st.builds(Peer)
        .flatmap(lambda peer: said_by_zlib(peer, st.one_of(short_parts, long_parts)))
        .map(lambda said: said[1]),
    ),
    room=st.sampled_from([-100_000, -1, 0, 1, 2**20]),
    module=modules,
    sizes=some_cuts,
)
@example(role=CLIENT, payload=BFINAL_AND_MORE, room=0, module=zlib, sizes=[2**20])
@example(role=CLIENT, payload=b"\3\0" * 8, room=0, module=zlib, sizes=[1])
@example(role=CLIENT, payload=b"\3\0" * 9, room=0, module=zlib, sizes=[1])
@example(role=CLIENT, payload=b"\0\0\0\xff\xff" * 10 + b"\3\0" * 9, room=0, module=zlib, sizes=[1])
@example(role=CLIENT, payload=b"\0\0\0\xff\xff" * 10 + b"\3\0" * 10, room=0, module=zlib, sizes=[1])
def test_what_is_taken_for_a_message_is_one(role, payload, room, module, sizes):
    """Whole, not corrupt, and not larger than the limit; and every such message is taken."""
    message = inflated(payload)
    limit = max(0, len(message or b"") + room)
    measured, made = measuring(module)
    conn = Connection(role, compression=negotiated(True, measured), max_message_size=limit)
    data = Raw(FIN | RSV1 | BINARY, payload).encode(role)
    heard = converse(conn, in_some_chunks(data, sizes), echo=False).events
    if message is None:
        assert [(event.code, event.reason) in EITHER_FAULT for event in heard] == [True]
    elif len(message) > limit:
        assert heard == [Fail(1009, "message is too big")]
    else:
        assert heard == [Binary(message)]
    assert sum(made) <= limit + 1 + BLOCK
    seen("corrupt" if message is None else "too big" if len(message) > limit else "whole")


# Of a message with two faults, the one that is found first is told. Which one that is depends on how much of
# it is there; and when there is no room for more, one module stops, and another reads on.
EITHER_FAULT = {
    (1007, "text is not UTF-8"),
    (1007, "compressed data is corrupt"),
    (1007, "compressed message is cut short"),
    (1009, "message is too big"),
    (1009, "message has too many blocks with BFINAL"),
}


def told(heard):
    """Return the events, the states with them and the last one, and the Pongs; not which fault it was."""
    events = [
        Fail(0) if isinstance(event, Fail) and (event.code, event.reason) in EITHER_FAULT else event
        for event in heard.events
    ]
    pongs = [payload for opcode, _, payload in heard.frames if opcode == PONG]
    return events, heard.states, pongs, heard.end[:2], heard.end[3:]


@given(role=roles, data=st.data(), limit=st.sampled_from(LIMITS), takeover=st.booleans(), sizes=some_cuts)
def test_chunks_and_modules_do_not_matter(role, data, limit, takeover, sizes):
    """The same events, answers and states; and whether messages come whole or in pieces is all the same."""
    stream = data.draw(compressed_bytes(role))
    chunks = in_some_chunks(stream, sizes)
    heard = []
    for module in MODULES:

        def hear(chunks, module=module, **options):
            conn = Connection(
                role, compression=negotiated(takeover, module), max_message_size=limit, **options
            )
            return converse(conn, chunks, echo=False)

        in_chunks, pieces = hear(chunks), hear(chunks, fragments=True)
        assert told(in_chunks) == told(hear([stream] if stream else []))
        # There are more states when there are more events.
        pieces = pieces._replace(events=joined(pieces.events), states=in_chunks.states)
        assert told(pieces) == told(in_chunks)
        heard.append(told(in_chunks)[0])
    # isal may wait for more bytes before it finds a fault. Then it is the control frames between them that
    # come first, or what is wrong with those, but never a message.
    for others in heard[1:]:
        first, second = sorted((heard[0], others), key=len)
        if first != second:
            common = first[:-1] if first[-1:] == [Fail(0)] else first
            assert second[: len(common)] == common
            assert Fail(0) in first[-1:] + second[-1:]
            assert not any(isinstance(event, (Text, Binary)) for event in second[len(common) :])
