"""RFC 7692: permessage-deflate. Each sample is read three ways: whole, byte by byte, and followed by a
byte that is not part of it."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import itertools
import pickle
import types
import zlib
from dataclasses import replace

import pytest

from tests.support.cases import case
from tests.support.core import BAD_TEXT, READINGS, SERVER, TOO_BIG, Memory, events_of, hear, said, sent
from wsframe.client import ClientConnection
from wsframe.connection import Connection, State
from wsframe.deflate import Compressor, Decompressor, Deflate, parse_extensions
from wsframe.errors import RemoteProtocolError
from wsframe.events import Binary, Close, Fail, Ping, Pong, Text
from wsframe.frames import Frame, Opcode
from wsframe.server import ServerConnection
from wsframe.testing import joined

RSV1 = 4
# A Ping may come after any frame, so its first byte may.
TRAILING = b"\x89"

NAME = "permessage-deflate"
WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
ALONE = Deflate(server_no_context_takeover=True, client_no_context_takeover=True)

CORRUPT = Fail(1007, "compressed data is corrupt")
CUT_SHORT = Fail(1007, "compressed message is cut short")
RESERVED = Fail(1002, "reserved bits must be zero")

MODULES = []
for name in ("zlib", "zlib_ng.zlib_ng", "isal.isal_zlib"):
    try:
        MODULES.append(importlib.import_module(name))
    except ImportError:
        MODULES.append(pytest.param(None, marks=pytest.mark.skip(reason=f"{name} is not installed"), id=name))
modules = pytest.mark.parametrize("module", MODULES, ids=lambda module: module and module.__name__)


def deflated(data, bits=15, *, end=zlib.Z_SYNC_FLUSH, level=-1):
    """Return a message, compressed by zlib alone."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    raw = compressor.compress(data) + compressor.flush(end)
    return raw.removesuffix(b"\0\0\xff\xff")


def inflated(payload, bits=15):
    return zlib.decompressobj(-bits).decompress(payload + b"\0\0\xff\xff")


# What an endpoint wishes


def test_the_defaults():
    assert Deflate() == Deflate(
        level=None,
        mem_level=5,
        server_max_window_bits=None,
        client_max_window_bits=None,
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        threshold=128,
        zlib=zlib,
    )
    assert repr(Deflate(level=1)) == (
        "Deflate(level=1, mem_level=5, server_max_window_bits=None, client_max_window_bits=None, "
        "server_no_context_takeover=False, client_no_context_takeover=False, threshold=128)"
    )
    assert hash(Deflate()) == hash(Deflate())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Deflate().level = 3


@modules
def test_a_deflate_survives_pickling_and_copying(module):
    compression = Deflate(level=1, server_max_window_bits=9, client_no_context_takeover=True, zlib=module)
    copies = [
        pickle.loads(pickle.dumps(compression, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in (*copies, copy.copy(compression), copy.deepcopy([compression])[0], replace(compression)):
        assert type(twin) is Deflate
        assert twin == compression
        assert hash(twin) == hash(compression)
        assert twin.zlib is module
    assert replace(compression, level=2) == replace(copies[0], level=2)


class ZlibLike:
    """Do what zlib does, without being a module."""

    compressobj, decompressobj, error = zlib.compressobj, zlib.decompressobj, zlib.error
    DEFLATED, Z_DEFAULT_COMPRESSION = zlib.DEFLATED, zlib.Z_DEFAULT_COMPRESSION
    __name__ = "zlib-like"

    def __eq__(self, other):
        return isinstance(other, ZlibLike)

    def __hash__(self):
        return 1


def test_a_deflate_with_something_like_a_module_is_copied_with_it():
    compression = Deflate(zlib=ZlibLike())
    for twin in (pickle.loads(pickle.dumps(compression)), copy.copy(compression), copy.deepcopy(compression)):
        assert twin == compression
        assert type(twin.zlib) is ZlibLike


@pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
def test_windows_have_9_to_15_bits(name):
    for bits in [-15, 0, 8, 16]:
        problem = f"^{name} must be 9 to 15, not {bits}$"
        with case(bits=bits), pytest.raises(ValueError, match=problem):
            Deflate(**{name: bits})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mem_level": 0}, "mem_level must be 1 to 9, not 0"),
        ({"mem_level": 10}, "mem_level must be 1 to 9, not 10"),
        ({"threshold": -1}, "threshold must be 0 to 9223372036854775807, not -1"),
        ({"level": 10}, "zlib has no level 10"),
        ({"level": -2}, "zlib has no level -2"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Deflate(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "9"}, "level must be an int, not str"),
        ({"level": True}, "level must be an int, not bool"),
        ({"mem_level": None}, "mem_level must be an int, not NoneType"),
        ({"server_max_window_bits": "12"}, "server_max_window_bits must be an int, not str"),
        ({"client_max_window_bits": True}, "client_max_window_bits must be an int, not bool"),
        ({"threshold": 1.5}, "threshold must be an int, not float"),
        ({"server_no_context_takeover": 1}, "server_no_context_takeover must be a bool, not int"),
        ({"client_no_context_takeover": None}, "client_no_context_takeover must be a bool, not NoneType"),
        ({"zlib": "zlib"}, "zlib must be a module like zlib, not 'zlib'"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(options, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        Deflate(**options)


@pytest.mark.parametrize("make", [ServerConnection, lambda **options: ClientConnection("ws://a/", **options)])
@pytest.mark.parametrize("compression", [True, "permessage-deflate", {}])
def test_a_connection_wants_a_deflate_or_none(make, compression):
    with pytest.raises(TypeError, match=r"^compression must be a Deflate or None, not \w+$"):
        make(compression=compression)
    with pytest.raises(TypeError, match=r"^compression must be a Deflate or None, not \w+$"):
        Connection(SERVER, compression=compression)


# What a client offers (section 7.1)


@pytest.mark.parametrize(
    ("compression", "offer"),
    [
        (WIDE, f"{NAME}; client_max_window_bits"),
        (Deflate(), f"{NAME}; client_max_window_bits"),
        (
            Deflate(server_max_window_bits=12),
            f"{NAME}; server_max_window_bits=12; client_max_window_bits, {NAME}; client_max_window_bits",
        ),
        (
            Deflate(client_max_window_bits=12),
            f"{NAME}; client_max_window_bits=12, {NAME}; client_max_window_bits",
        ),
        (
            Deflate(server_max_window_bits=12, client_max_window_bits=12),
            f"{NAME}; server_max_window_bits=12; client_max_window_bits=12, {NAME}; client_max_window_bits",
        ),
        (
            Deflate(server_max_window_bits=15, client_max_window_bits=9, client_no_context_takeover=True),
            f"{NAME}; client_no_context_takeover; client_max_window_bits=9, {NAME}; client_max_window_bits",
        ),
        (
            Deflate(server_max_window_bits=15, client_max_window_bits=15, server_no_context_takeover=True),
            f"{NAME}; server_no_context_takeover; client_max_window_bits, {NAME}; client_max_window_bits",
        ),
    ],
)
def test_what_a_client_offers(compression, offer):
    assert compression.offer() == offer


# What a server accepts (sections 5.1 and 7.1)

PLAIN = (15, 15, False, False)


def four(compression):
    return (
        compression.server_max_window_bits,
        compression.client_max_window_bits,
        compression.server_no_context_takeover,
        compression.client_no_context_takeover,
    )


@pytest.mark.parametrize(
    ("offers", "response", "agreed"),
    [
        # What browsers say
        ("", "", PLAIN),
        ("; client_max_window_bits", "; client_max_window_bits=15", PLAIN),
        # Section 7.1.3
        (
            "; client_max_window_bits; server_max_window_bits=10",
            "; server_max_window_bits=10; client_max_window_bits=15",
            (10, 15, False, False),
        ),
        (
            f"; client_max_window_bits; server_max_window_bits=10, {NAME}; client_max_window_bits",
            "; server_max_window_bits=10; client_max_window_bits=15",
            (10, 15, False, False),
        ),
        # Each parameter
        ("; server_no_context_takeover", "; server_no_context_takeover", (15, 15, True, False)),
        ("; client_no_context_takeover", "; client_no_context_takeover", (15, 15, False, True)),
        ("; server_max_window_bits=15", "; server_max_window_bits=15", PLAIN),
        ("; server_max_window_bits=9", "; server_max_window_bits=9", (9, 15, False, False)),
        ("; client_max_window_bits=9", "; client_max_window_bits=9", (15, 9, False, False)),
        # A server decompresses with 9 bits what a client compresses with 8.
        ("; client_max_window_bits=8", "; client_max_window_bits=8", (15, 9, False, False)),
        # RFC 6455, section 9.1: a value may be quoted, and what is quoted escaped
        ('; server_max_window_bits="10"', "; server_max_window_bits=10", (10, 15, False, False)),
        ('; server_max_window_bits="\\1\\0"', "; server_max_window_bits=10", (10, 15, False, False)),
        # White space and empty elements
        (";server_no_context_takeover", "; server_no_context_takeover", (15, 15, True, False)),
        ("\t ;\t server_max_window_bits \t= 11 \t", "; server_max_window_bits=11", (11, 15, False, False)),
        (" , ,, ", "", PLAIN),
    ],
)
def test_a_server_accepts_an_offer(offers, response, agreed):
    accepted, compression = WIDE.accept(NAME + offers)
    assert accepted == NAME + response
    assert four(compression) == agreed


DECLINED = [
    "x-webkit-deflate-frame",
    "permessage-bzip2; server_max_window_bits=15",
    "Permessage-Deflate",  # section 5: extension tokens are compared as they are
    # Out of range, or not "a decimal integer value without leading zeroes"
    *(
        f"{NAME}; {parameter}={value}"
        for parameter in ("server_max_window_bits", "client_max_window_bits")
        for value in ("16", "7", "0", "010", "+10", "1_0", "-1", "10.0", "0x0a", "x", '"16"')
    ),
    f"{NAME}; server_max_window_bits=8",  # zlib cannot compress with that
    f"{NAME}; server_max_window_bits=8; client_max_window_bits=8",
    f"{NAME}; server_max_window_bits",
    # With a value that does not belong there
    f"{NAME}; server_no_context_takeover=1",
    f'{NAME}; client_no_context_takeover="1"',
    # Twice
    f"{NAME}; server_no_context_takeover; server_no_context_takeover",
    f"{NAME}; client_max_window_bits; client_max_window_bits=10",
    f"{NAME}; server_max_window_bits=10; server_max_window_bits=10",
    # Unknown
    f"{NAME}; server_window_bits=10",
    f"{NAME}; Server_No_Context_Takeover",
]
MALFORMED = [
    f"{NAME};",
    f"{NAME}; ;",
    f"{NAME} server_no_context_takeover",
    f"{NAME}; server max=10",
    f'{NAME}; server_max_window_bits="10"0',
    f'"{NAME}"',
    f"{NAME}=1",
    f"{NAME}; server_max_window_bits=",
    f"{NAME}; client_max_window_bits=",
    f"{NAME}; server_max_window_bits=\u00b2",
    f"{NAME}; a=b=c",
    f"{NAME}; a\xff",
    "@",
    ";",
    "a b",
    ", a b",
    "a;",
    "a=b",
    "\\",
    '"',
    ",;=",
    "; server_no_context_takeover",
    # Not a token after unescaping
    *(f"x; y={value}" for value in ('""', '"a b"', '"a,b"', '"a;b"', '"a=b"', '"\\""', '"\\\\"', '"\xff"')),
    # A quote that is not closed
    f'{NAME}; x="',
    f'{NAME}; server_max_window_bits="10',
    f'{NAME}; a="\\"',
    f'{NAME}; a="b\\',
    f'x; y="a, {NAME}"',
]


def test_what_cannot_be_honoured_is_declined_and_the_next_offer_is_taken():
    for declined in DECLINED:
        with case(declined=declined):
            assert WIDE.accept(declined) is None
            assert WIDE.accept(f"{declined}, {declined}") is None
            assert WIDE.accept(f"{declined}, {NAME}; server_max_window_bits=13, {NAME}")[0] == (
                f"{NAME}; server_max_window_bits=13"
            )
            assert WIDE.accept(f"{NAME}; server_max_window_bits=13, {declined}")[0] == (
                f"{NAME}; server_max_window_bits=13"
            )


def test_what_is_malformed_fails_the_connection_rfc6455_9_1():
    """However good the extensions beside it are, and whatever this end has offered or wishes."""
    reason = "Sec-WebSocket-Extensions is malformed"
    for malformed in MALFORMED:
        for value in (malformed, f"{NAME}, {malformed}", f"{malformed}, {NAME}", f"x, {malformed},"):
            with case(value=value):
                for call in (parse_extensions, WIDE.accept, WIDE.check_response):
                    with pytest.raises(RemoteProtocolError) as caught:
                        call(value)
                    assert (caught.value.code, caught.value.reason) == (1002, reason)
                for compression in (WIDE, None):
                    client = ClientConnection("ws://localhost/", compression=None)
                    request = client.data_to_send().removesuffix(b"\r\n")
                    server = ServerConnection(compression=compression)
                    line = f"Sec-WebSocket-Extensions: {value}\r\n\r\n".encode("latin-1")
                    assert hear(server, request + line) == [Fail(1002, reason)]
                    assert server.data_to_send().startswith(b"HTTP/1.1 400 ")
                    client = ClientConnection("ws://localhost/", compression=compression)
                    assert hear(client, answer_to(client.data_to_send(), value)) == [Fail(1002, reason)]
                    assert client.state is State.CLOSED


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("", []),
        (" , ,\t", []),
        ("a", [("a", [])]),
        ("a;b", [("a", [("b", "")])]),
        (" a ;\tb = c ; d,, e", [("a", [("b", "c"), ("d", "")]), ("e", [])]),
        ('a; b="c"; d="\\e\\f"', [("a", [("b", "c"), ("d", "ef")])]),
        ("!#$%&'*+-.^_`|~; 1=2", [("!#$%&'*+-.^_`|~", [("1", "2")])]),
    ],
)
def test_extensions_are_parsed_rfc6455_9_1(value, extensions):
    assert parse_extensions(value) == extensions


@pytest.mark.parametrize("offers", ["", " ", ",", ", ,\t"])
def test_no_offer_is_no_agreement(offers):
    assert WIDE.accept(offers) is None
    assert WIDE.check_response(offers) is None


def test_a_server_wishes_as_well():
    compression = Deflate(
        level=9,
        mem_level=9,
        server_max_window_bits=11,
        client_max_window_bits=10,
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        threshold=7,
    )
    alone = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
    # Section 7.1.2.2: without the client's parameter, no window can be asked of it.
    assert compression.accept(NAME) == (alone, dataclasses.replace(compression, client_max_window_bits=15))
    # Section 7.1.2.1 lets the server announce its window unasked, but real clients fail on that.
    assert compression.accept(f"{NAME}; client_max_window_bits") == (
        f"{alone}; client_max_window_bits=10",
        compression,
    )
    assert compression.accept(f"{NAME}; client_max_window_bits; server_max_window_bits=15") == (
        f"{alone}; server_max_window_bits=11; client_max_window_bits=10",
        compression,
    )
    assert compression.accept(f"{NAME}; client_max_window_bits=9; server_max_window_bits=9") == (
        f"{alone}; server_max_window_bits=9; client_max_window_bits=9",
        dataclasses.replace(compression, server_max_window_bits=9, client_max_window_bits=9),
    )


@pytest.mark.parametrize(
    ("offers", "response", "agreed"),
    [
        # Browsers
        ("; client_max_window_bits", "; client_max_window_bits=12", (12, 12, False, False)),
        # nhooyr.io/websocket 1.8, websocket-sharp, and Mojolicious
        (
            "; client_no_context_takeover; server_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover",
            (12, 15, True, True),
        ),
        ("", "", (12, 15, False, False)),
        # What the offer has is answered.
        ("; server_max_window_bits=15", "; server_max_window_bits=12", (12, 15, False, False)),
        ("; server_max_window_bits=10", "; server_max_window_bits=10", (10, 15, False, False)),
        ("; client_max_window_bits=10", "; client_max_window_bits=10", (12, 10, False, False)),
        ("; client_max_window_bits=15", "; client_max_window_bits=12", (12, 12, False, False)),
    ],
)
def test_a_server_by_default_compresses_with_12_bits_and_announces_nothing_that_was_not_asked(
    offers, response, agreed
):
    accepted, compression = Deflate().accept(NAME + offers)
    assert accepted == NAME + response
    assert four(compression) == agreed


@pytest.mark.parametrize("compression", [Deflate(), Deflate(server_max_window_bits=9), WIDE])
@pytest.mark.parametrize(
    "offer",
    [
        "",
        "; client_no_context_takeover; server_no_context_takeover",
        "; server_no_context_takeover; client_no_context_takeover",
        "; client_max_window_bits",
    ],
)
def test_no_response_has_a_server_window_that_the_offer_lacks(compression, offer):
    server, (client, _) = ServerConnection(compression=compression), head_of_a_client(NAME + offer)
    server.receive_data(client)
    assert server.next_event() is server.request
    server.accept()
    assert b"permessage-deflate" in (head := server.data_to_send())
    assert b"server_max_window_bits" not in head


# What a client takes for an answer


@pytest.mark.parametrize(
    ("wish", "response", "agreed"),
    [
        (WIDE, "", PLAIN),
        (WIDE, "; server_max_window_bits=15; client_max_window_bits=15", PLAIN),
        (WIDE, '; server_max_window_bits="10"', (10, 15, False, False)),
        (WIDE, "; client_max_window_bits=9", (15, 9, False, False)),
        (WIDE, "; server_no_context_takeover", (15, 15, True, False)),
        (WIDE, "; client_no_context_takeover", (15, 15, False, True)),
        # It may do what it said even if the server does not say it (section 7.1.1.2).
        (ALONE, "", (15, 12, False, True)),
        (ALONE, "; server_no_context_takeover; client_no_context_takeover", (15, 12, True, True)),
        # The server did not limit itself, but the client does.
        (Deflate(), "", (15, 12, False, False)),
        (Deflate(), "; server_max_window_bits=9; client_max_window_bits=15", (9, 12, False, False)),
        (Deflate(), "; server_max_window_bits=12; client_max_window_bits=10", (12, 10, False, False)),
        (Deflate(client_max_window_bits=14), "; client_max_window_bits=15", (15, 14, False, False)),
        # "the same or smaller value as the offer": what was compressed with 8 bits is decompressed with 9.
        (Deflate(), "; server_max_window_bits=8", (9, 12, False, False)),
        (Deflate(server_max_window_bits=12), "; server_max_window_bits=8", (9, 12, False, False)),
    ],
)
def test_a_client_agrees(wish, response, agreed):
    assert four(wish.check_response(NAME + response)) == agreed


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        *(
            (f"{NAME}; {parameter}={value}", f"parameters of {NAME} are wrong")
            for parameter in ("server_max_window_bits", "client_max_window_bits")
            for value in ("16", "7", "010", "+10", "1_0", '"16"')
        ),
        (
            f"{NAME}; client_max_window_bits=8",
            "client_max_window_bits=8 is too small: zlib compresses with 9 or more",
        ),
        (f"{NAME}; server_max_window_bits", f"parameters of {NAME} are wrong"),
        (f"{NAME}; client_max_window_bits", f"parameters of {NAME} are wrong"),
        (f"{NAME}; server_no_context_takeover=true", f"parameters of {NAME} are wrong"),
        (
            f"{NAME}; client_no_context_takeover; client_no_context_takeover",
            f"parameters of {NAME} are wrong",
        ),
        (
            f"{NAME}; server_max_window_bits=10; server_max_window_bits=10",
            f"parameters of {NAME} are wrong",
        ),
        (f"{NAME}; level=9", f"parameters of {NAME} are wrong"),
        (f"{NAME}; server_max_window_bits=", "Sec-WebSocket-Extensions is malformed"),
        (f"{NAME}; client_max_window_bits=\u00b9", "Sec-WebSocket-Extensions is malformed"),
        (f"{NAME};", "Sec-WebSocket-Extensions is malformed"),
        (f'{NAME}; "', "Sec-WebSocket-Extensions is malformed"),
        (f"{NAME}, ;", "Sec-WebSocket-Extensions is malformed"),
        ("x-webkit-deflate-frame", "server uses an extension that was not offered"),
        (f"{NAME}, foo", "server uses an extension that was not offered"),
        (f"foo, {NAME}", "server uses an extension that was not offered"),
        (f"{NAME}, {NAME}", f"server accepts more than one {NAME}"),
        (f"{NAME}; server_max_window_bits=10, {NAME}", f"server accepts more than one {NAME}"),
    ],
)
def test_a_client_fails_what_a_server_must_not_answer(response, reason):
    with pytest.raises(RemoteProtocolError) as caught:
        Deflate().check_response(response)
    assert (caught.value.code, caught.value.reason) == (1002, reason)

    conn = ClientConnection("ws://localhost/")
    assert hear(conn, answer_to(conn.data_to_send(), response)) == [Fail(1002, reason)]
    assert conn.state is State.CLOSED
    assert conn.should_close


def test_a_server_that_compresses_with_8_bits_is_understood():
    conn = ClientConnection("ws://localhost/")
    answer = answer_to(conn.data_to_send(), f"{NAME}; server_max_window_bits=8")
    # Each refers to the one before it, which such a window holds.
    compressor = zlib.compressobj(9, zlib.DEFLATED, -9)
    messages = [bytes(range(200))] * 3
    payloads = [compressor.compress(each) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4] for each in messages]
    assert len(payloads[1]) < 20
    response, *events = hear(
        conn, answer, *[said(conn.role, Opcode.BINARY, payload, rsv=RSV1) for payload in payloads]
    )
    assert response is conn.response
    assert events == [Binary(message) for message in messages]


def head_of_a_client(extensions):
    """Return a request with these offers, and the connection that made the rest of it."""
    client = ClientConnection("ws://localhost/", compression=None)
    head = client.data_to_send().removesuffix(b"\r\n")
    return head + f"Sec-WebSocket-Extensions: {extensions}\r\n\r\n".encode("latin-1"), client


def answer_to(request, extensions):
    server = ServerConnection(compression=None)
    server.receive_data(request)
    assert server.next_event() is server.request
    server.accept()
    head = server.data_to_send().removesuffix(b"\r\n")
    return head + f"Sec-WebSocket-Extensions: {extensions}\r\n\r\n".encode("latin-1")


def test_a_client_that_offers_nothing_is_answered_nothing():
    conn = ClientConnection("ws://localhost/", compression=None)
    request = conn.data_to_send()
    assert b"Extensions" not in request
    assert hear(conn, answer_to(request, NAME)) == [
        Fail(1002, "server uses an extension that was not offered")
    ]


# The opening handshake


def shake_hands(client, server):
    """Return both ends after the opening handshake."""
    ours = ClientConnection("ws://localhost/", compression=client)
    theirs = ServerConnection(compression=server)
    theirs.receive_data(ours.data_to_send())
    assert theirs.next_event() is theirs.request
    theirs.accept()
    ours.receive_data(theirs.data_to_send())
    assert ours.next_event() is ours.response
    assert ours.state is theirs.state is State.OPEN
    return ours, theirs


def test_two_ends_agree_and_talk():
    for client, server in itertools.product([Deflate(), WIDE, ALONE, None], [Deflate(), WIDE, ALONE, None]):
        with case(client=client, server=server):
            ends = shake_hands(client, server)
            if client is None or server is None:
                assert [end.compression for end in ends] == [None, None]
            else:
                at_client, at_server = four(ends[0].compression), four(ends[1].compression)
                # Each may use a smaller window than the other is ready for.
                assert at_server[0] <= at_client[0]
                assert at_client[1] <= at_server[1]
                assert at_server[2:] == at_client[2:]
            for sender, receiver in (ends, ends[::-1]):
                for message in ("Hello " * 100, "Hello " * 100, "", "x" * 100_000):
                    sender.send_text(message)
                    receiver.receive_data(sender.data_to_send())
                    assert events_of(receiver) == [Text(message)]


def test_two_ends_that_wish_the_same_share_it():
    compression = Deflate(level=3, server_max_window_bits=12, client_max_window_bits=12)
    assert [end.compression for end in shake_hands(compression, compression)] == [compression, compression]
    assert shake_hands(compression, compression)[1].compression is compression


def test_the_connections_of_a_server_share_what_they_agreed_on():
    compression = Deflate(level=3)
    agreed = shake_hands(Deflate(), compression)[1].compression
    assert four(agreed) == (12, 12, False, False)
    assert shake_hands(Deflate(), compression)[1].compression is agreed


@pytest.mark.parametrize("message", [bytes(range(256)) * 400, b"a"])
def test_a_client_is_ready_for_the_window_that_it_did_not_limit(message):
    conn = ClientConnection("ws://localhost/")
    hear(conn, answer_to(conn.data_to_send(), NAME))
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    apart = bytes(index * index % 251 for index in range(1, 65_000, 2))[: 2**15 - 300]
    for each in (message[:256], apart, message[:256], message):
        payload = compressor.compress(each) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
        assert hear(conn, said(conn.role, Opcode.BINARY, payload, rsv=RSV1)) == [Binary(each)]


def test_each_end_compresses_by_default_with_12_bits(role):
    conn = Connection(role, compression=Deflate(level=9))
    decompressor = zlib.decompressobj(-12)
    noise = bytes(index * index % 251 for index in range(1, 70_000, 7))
    for message in (noise[:300], noise, noise[:300], b"", noise[::-1]):
        conn.send_binary(message, compress=True)
        (frame,) = sent(conn)
        assert decompressor.decompress(frame.payload + b"\0\0\xff\xff") == message


def test_an_end_keeps_its_own_level_and_threshold():
    client, server = shake_hands(Deflate(level=1, threshold=0), Deflate(level=9, threshold=5))
    assert (client.compression.level, client.compression.threshold) == (1, 0)
    assert (server.compression.level, server.compression.threshold) == (9, 5)


@pytest.mark.parametrize("header", ["permessage-deflate; x", "permessage-deflate; a=b, x; y"])
def test_offers_that_are_declined_do_not_refuse_the_client(header):
    client, server = ClientConnection("ws://localhost/", compression=None), ServerConnection()
    request = client.data_to_send().removesuffix(b"\r\n")
    server.receive_data(request + f"Sec-WebSocket-Extensions: {header}\r\n\r\n".encode())
    assert server.next_event() is server.request
    server.accept()
    assert b"Extensions" not in server.data_to_send()
    assert server.compression is None


def test_several_headers_are_one_list():
    client, server = ClientConnection("ws://localhost/", compression=None), ServerConnection(compression=WIDE)
    request = client.data_to_send().removesuffix(b"\r\n")
    lines = b"Sec-WebSocket-Extensions: foo\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    server.receive_data(request + lines)
    assert server.next_event() is server.request
    server.accept()
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" in server.data_to_send()


# Messages that come in: the examples of section 7.2.3

HELLO = bytes.fromhex("f248cdc9c90700")
AGAIN = bytes.fromhex("f200110000")


@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        # 7.2.3.1, in one frame and in two
        ([(1, "f248cdc9c90700", 1)], ["Hello"]),
        ([(1, "f248cd", 0), (0, "c9c90700", 1)], ["Hello"]),
        # 7.2.3.2: the second message refers to the first
        ([(1, "f248cdc9c90700", 1), (1, "f200110000", 1)], ["Hello", "Hello"]),
        # 7.2.3.3: a block without compression
        ([(1, "000500faff48656c6c6f00", 1)], ["Hello"]),
        # 7.2.3.4: a block with BFINAL
        ([(1, "f348cdc9c9070000", 1)], ["Hello"]),
        # 7.2.3.5: two blocks
        ([(1, "f248050000 00ffffcac9c90700", 1)], ["Hello"]),
        # 7.2.3.6: an empty message
        ([(1, "00", 1)], [""]),
    ],
)
def test_the_examples_of_the_rfc(role, frames, messages):
    for reading in READINGS:
        with case(reading=reading):
            conn = Connection(role, compression=WIDE)
            data = b"".join(
                said(role, opcode, bytes.fromhex(payload), fin, RSV1 if opcode else 0)
                for opcode, payload, fin in frames
            )
            assert hear(conn, *reading.chunks(data, TRAILING)) == [Text(message) for message in messages]
            assert conn.unread == len(reading.trailing(TRAILING))
            assert conn.state is State.OPEN


def test_we_say_it_as_the_rfc_does():
    conn = Connection(SERVER, compression=dataclasses.replace(WIDE, threshold=0))
    conn.send_text("Hello")
    conn.send_text("Hello")
    conn.send_text("")
    assert conn.data_to_send() == b"\xc1\x07" + HELLO + b"\xc1\x05" + AGAIN + b"\xc1\x01\0"


@modules
def test_every_window_and_module_is_read_by_zlib(role, module):
    for bits in range(9, 16):
        with case(bits=bits):
            level = 1 if module.__name__ == "isal.isal_zlib" else 9
            compression = Deflate(
                level=level,
                mem_level=9,
                server_max_window_bits=bits,
                client_max_window_bits=bits,
                zlib=module,
            )
            conn = Connection(role, compression=compression)
            decompressor = zlib.decompressobj(-bits)
            noise = bytes(index * index % 251 for index in range(1, 70_000, 7))
            for message in (noise, noise, b"", noise[:300] * 100, noise[::-1]):
                conn.send_binary(message, compress=True)
                (frame,) = sent(conn)
                assert (frame.opcode, frame.fin, frame.rsv) == (Opcode.BINARY, True, RSV1)
                assert decompressor.decompress(frame.payload + b"\0\0\xff\xff") == message


@modules
def test_every_module_reads_every_other(module):
    for other in MODULES:
        if not hasattr(other, "compressobj"):
            continue
        compression = Deflate(zlib=other, threshold=0)
        client, server = shake_hands(compression, dataclasses.replace(compression, zlib=module))
        for sender, receiver in ((client, server), (server, client)):
            for message in ("some text " * 50, "some text " * 51, "", "\N{SNOWMAN}" * 70_000):
                sender.send_text(message)
                receiver.receive_data(sender.data_to_send())
                assert events_of(receiver) == [Text(message)]


def test_a_module_without_such_a_level_is_refused():
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    with pytest.raises(ValueError, match=r"^isal\.isal_zlib has no level 9$"):
        Deflate(level=9, zlib=isal_zlib)
    assert Deflate(level=3, zlib=isal_zlib).level == 3


# BFINAL (section 7.2.3.4)

FINAL = deflated(b"first", end=zlib.Z_FINISH)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (FINAL + b"\0", b"first"),
        # Section 7.2.1: "The next DEFLATE block follows the padded data if any."
        (FINAL + deflated(b" second"), b"first second"),
        (FINAL + FINAL + FINAL + b"\0", b"firstfirstfirst"),
        (FINAL + deflated(b"x" * 200_000), b"first" + b"x" * 200_000),
        # Without an empty block at the end, the peer has forgotten the 0x00, but nothing is lost.
        (FINAL, b"first"),
        (FINAL * 8 + b"\0", b"first" * 8),
    ],
)
def test_blocks_that_follow_one_with_bfinal_are_read(role, payload, message):
    for reading in READINGS:
        with case(reading=reading):
            conn = Connection(role, compression=WIDE)
            data = said(role, Opcode.BINARY, payload, rsv=RSV1) + said(role, Opcode.TEXT, HELLO, rsv=RSV1)
            assert hear(conn, *reading.chunks(data, TRAILING)) == [Binary(message), Text("Hello")]


@modules
def test_what_follows_bfinal_is_read_once_also_when_there_was_no_room_for_all_before_it(role, module):
    large = deflated(bytes(499_000), end=zlib.Z_FINISH)
    data = said(role, Opcode.BINARY, large * 2 + deflated(b"more"), rsv=RSV1)
    compression = replace(WIDE, zlib=module)
    whole = hear(Connection(role, compression=compression), data)
    assert whole == [Binary(bytes(998_000) + b"more")]
    pieces = hear(Connection(role, compression=compression, max_message_size=None, fragments=True), data)
    assert b"".join(piece.data for piece in pieces) == whole[0].data


# An empty block, one with BFINAL, and what a message with too many of the latter comes to
EMPTY, LAST = b"\0\0\0\xff\xff", b"\x03\0"
TOO_MANY_STREAMS = Fail(1009, "message has too many blocks with BFINAL")


def message_in_frames(role, *payloads):
    """Return a binary message, each of whose fragments has one of these payloads."""
    first, *others = payloads
    data = said(role, Opcode.BINARY, first, not others, RSV1)
    for index, payload in enumerate(others, 2):
        data += said(role, Opcode.CONTINUATION, payload, index == len(payloads))
    return data


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize(
    ("payloads", "is_allowed"),
    [
        # Eight are free.
        ([LAST * 8], True),
        ([LAST * 8 + b"\0"], True),
        ([LAST * 9], False),
        # One more is allowed for each 64 bytes of the message, with those of the block itself.
        ([EMPTY * 9 + LAST * 9], False),
        ([EMPTY * 10 + LAST * 9], True),
        ([EMPTY * 10 + LAST * 10], False),
        ([(EMPTY * 13 + LAST) * 50], True),
        ([(EMPTY * 6 + LAST) * 50], False),
        # One more is allowed for each fragment: a peer may finish a stream with each.
        ([LAST] * 50, True),
        ([LAST * 2] * 7, True),
        ([LAST * 2] * 8, False),
        # Neither counts before it has come.
        ([LAST * 9 + EMPTY * 100], False),
        ([LAST * 9, EMPTY * 100], False),
    ],
)
def test_blocks_with_bfinal_are_limited(role, payloads, is_allowed, fragments):
    for reading in READINGS:
        with case(reading=reading):
            conn = Connection(role, compression=WIDE, fragments=fragments)
            data = message_in_frames(role, *payloads) + message_in_frames(role, LAST * 8)
            events = hear(conn, *reading.chunks(data, TRAILING))
            # Each message has its own limit.
            assert events == ([Binary(b""), Binary(b"")] if is_allowed else [TOO_MANY_STREAMS])


def counting(module):
    """Return a module like this one, and a list of the objects that it makes and the calls of these."""
    calls = []

    class Counted:
        def __init__(self, *args, **options):
            calls.append("object")
            self._object = module.decompressobj(*args, **options)

        def decompress(self, *args):
            calls.append("call")
            return self._object.decompress(*args)

        def __getattr__(self, name):
            return getattr(self._object, name)

    counted = types.ModuleType(module.__name__)
    vars(counted).update(vars(module), decompressobj=Counted)
    return counted, calls


@modules
@pytest.mark.parametrize("fragments", [False, True])
def test_work_is_bounded_by_the_bytes_that_came_whatever_their_blocks_are(role, module, fragments):
    size = 2**18
    payloads = [
        LAST * (size // 2),
        b"\x4b\x04\0" * (size // 3),  # one byte, in a block with BFINAL
        (EMPTY * 13 + LAST) * (size // 67),
        EMPTY * (size // 5) + b"\0",
        LAST + EMPTY * (size // 5) + b"\0",
    ]
    for payload in payloads:
        with case(payload=payload[:10]):
            counted, calls = counting(module)
            conn = Connection(role, compression=replace(WIDE, zlib=counted), fragments=fragments)
            (event,) = hear(conn, said(role, Opcode.BINARY, payload, rsv=RSV1))[-1:]
            assert event in (Binary(b""), TOO_MANY_STREAMS)
            assert calls.count("object") <= 10 + size // 64
            assert calls.count("call") <= 20 + 2 * size // 64


def test_fragments_without_bytes_are_not_given_to_zlib(role):
    counted, calls = counting(zlib)
    conn = Connection(role, compression=replace(WIDE, zlib=counted))
    assert hear(conn, message_in_frames(role, *[b""] * 1000, HELLO, *[b""] * 1000)) == [Binary(b"Hello")]
    assert calls == ["object", "call", "call"]  # the last one ends it


def test_a_peer_that_forgets_the_0x00_after_bfinal_may_end_its_message_with_an_empty_fragment(role):
    conn = Connection(role, compression=WIDE)
    data = [said(role, Opcode.BINARY, FINAL, False, RSV1), said(role, Opcode.CONTINUATION)]
    assert hear(conn, *data) == [Binary(b"first")]


def test_a_message_refers_to_what_came_before_bfinal(role):
    conn = Connection(role, compression=WIDE)
    first = bytes(range(256)) * 4
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=first)
    second = compressor.compress(first) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(second) < 30
    data = said(role, Opcode.BINARY, deflated(first, end=zlib.Z_FINISH) + b"\0", rsv=RSV1)
    assert hear(conn, data, said(role, Opcode.BINARY, second, rsv=RSV1)) == [Binary(first)] * 2


# Empty messages without bytes (section 7.2.3.6 wants 0x00 in them)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_compressed_message_without_any_bytes_is_empty(role, opcode, frames, fragments, takeover):
    """Mojolicious and Haskell's websockets send it, when two flushes of zlib follow each other."""
    kind, empty = (Text, "") if opcode == Opcode.TEXT else (Binary, b"")
    nothing = said(role, opcode, b"", frames == 1, RSV1)
    for number in range(2, frames + 1):
        nothing += said(role, Opcode.PING) + said(role, Opcode.CONTINUATION, b"", number == frames)
    pings = [Ping(b"")] * (frames - 1)
    # The second "Hello" refers to the first, unless each message stands alone.
    again = AGAIN if takeover else HELLO
    data = nothing + said(role, Opcode.TEXT, HELLO, rsv=RSV1) + nothing * 2
    data += said(role, Opcode.TEXT, again, rsv=RSV1) + nothing + said(role, Opcode.TEXT, b"plain")
    for reading in READINGS:
        with case(reading=reading):
            conn = Connection(role, compression=WIDE if takeover else ALONE, fragments=fragments)
            assert joined(hear(conn, *reading.chunks(data, TRAILING))) == [
                *[*pings, kind(empty)],
                Text("Hello"),
                *[*pings, kind(empty)] * 2,
                Text("Hello"),
                *[*pings, kind(empty)],
                Text("plain"),
            ]
            assert conn.state is State.OPEN


def test_a_message_without_any_bytes_takes_no_zlib_object(role):
    counted, calls = counting(zlib)
    conn = Connection(role, compression=replace(WIDE, zlib=counted))
    assert hear(conn, said(role, Opcode.TEXT, b"", rsv=RSV1)) == [Text("")]
    assert hear(conn, message_in_frames(role, b"", b"")) == [Binary(b"")]
    assert calls == []


# Context takeover (section 7.1.1)


@pytest.mark.parametrize("takeover", [True, False])
def test_a_message_refers_to_the_one_before_it_if_it_may(role, takeover):
    compression = WIDE if takeover else ALONE
    conn = Connection(role, compression=compression)
    message = bytes(range(256)) * 4
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=message)
    referring = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    events = hear(
        conn,
        said(role, Opcode.BINARY, deflated(message, 12), rsv=RSV1),
        said(role, Opcode.BINARY, referring, rsv=RSV1),
    )
    assert events == [Binary(message), Binary(message) if takeover else CORRUPT]

    conn = Connection(role, compression=compression)
    conn.send_binary(message)
    conn.send_binary(message)
    first, second = sent(conn)
    assert (first == second) is not takeover
    assert (len(second.payload) < 30) is takeover


def test_the_window_reaches_over_small_messages_and_no_further(role):
    for bits in range(9, 16):
        with case(bits=bits):
            compression = Deflate(server_max_window_bits=bits, client_max_window_bits=bits)
            conn = Connection(role, compression=compression)
            compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
            marked = b"a remarkable beginning " + bytes(range(128, 256))
            apart = (1 << bits) - len(marked)  # the whole of it is in the window still
            noise = zlib.compress(bytes(index * index % 65_521 % 256 for index in range(40_000)))
            noise = (noise * 40)[:apart] if apart < len(noise) * 40 else noise
            messages = [marked, *(noise[index : index + 100] for index in range(0, apart, 100)), marked]
            for message in messages:
                payload = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
                assert hear(conn, said(role, Opcode.BINARY, payload, rsv=RSV1)) == [Binary(message)]


def test_nothing_is_made_before_it_is_needed(role):
    conn = Connection(role, compression=Deflate())
    conn.send_text("short")
    assert hear(conn, said(role, Opcode.TEXT, b"short")) == [Text("short")]
    assert conn._compressor._object is conn._decompressor._object is None


@pytest.mark.parametrize("takeover", [True, False])
def test_without_takeover_nothing_stays_in_memory(role, takeover):
    conn = Connection(role, compression=WIDE if takeover else ALONE)
    conn.send_text("some text " * 100)
    assert len(hear(conn, said(role, Opcode.TEXT, deflated(b"some text" * 100), rsv=RSV1))) == 1
    assert (conn._compressor._object is not None) is takeover
    assert bool(conn._decompressor._window) is takeover


# What is wrong


CORRUPT_PAYLOADS = [
    b"\x06",  # block type 3
    b"\x07",
    b"\x00\x05\x00\xfa\xfeHello\x00",  # the length of a stored block is not that
    b"\xff\xff\xff\xff",
    b"Hello",
    deflated(b"first", end=zlib.Z_FINISH) + b"\xff",
    # A distance that reaches behind the beginning
    AGAIN,
]


@pytest.mark.parametrize("fragments", [False, True])
def test_corrupt_data_fails_the_connection(role, fragments):
    for reading, payload in itertools.product(READINGS, CORRUPT_PAYLOADS):
        with case(reading=reading, payload=payload):
            conn = Connection(role, compression=WIDE, fragments=fragments)
            data = said(role, Opcode.BINARY, payload, rsv=RSV1)
            *pieces, end = hear(conn, *reading.chunks(data, TRAILING))
            assert end in (CORRUPT, CUT_SHORT)
            assert b"".join(piece.data for piece in pieces) in (b"", b"first", b"H", b"Hello")
            assert all(not piece.final for piece in pieces)
            assert not pieces or fragments
            (close,) = sent(conn)
            assert close == Frame(Opcode.CLOSE, (1007).to_bytes(2, "big") + end.reason.encode())


MESSAGE = (
    b"a message that is long enough to have a block with a tree of its own, " * 3 + bytes(range(97, 123)) * 2
)


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("is_fragmented", [False, True])
def test_a_message_that_is_cut_short_fails_the_connection(role, level, is_fragmented):
    payload = deflated(MESSAGE, level=level)
    for length in range(len(payload)):
        conn = Connection(role, compression=WIDE)
        if is_fragmented:
            data = said(role, Opcode.BINARY, payload[:length], fin=False, rsv=RSV1)
            data += said(role, Opcode.CONTINUATION)
        else:
            data = said(role, Opcode.BINARY, payload[:length], rsv=RSV1)
        # 0x00 is a message as well: an empty one (7.2.3.6). So is nothing.
        assert hear(conn, data) == [Binary(b"") if payload[:length] in (b"", b"\0") else CUT_SHORT], length


def test_a_message_that_ends_inside_an_empty_block_is_cut_short(role):
    for tail in (b"\0\0\0", b"\0\0\0\xff", b"\0\0\0\xff\xff\0"):
        conn = Connection(role, compression=WIDE)
        events = hear(conn, said(role, Opcode.BINARY, HELLO[:-1] + tail, rsv=RSV1))
        # The last one is whole: it has an empty block more.
        assert events == ([Binary(b"Hello")] if tail.endswith(b"\xff\xff\0") else [CUT_SHORT])


@pytest.mark.parametrize(
    ("opcode", "rsv"),
    [
        *((Opcode.TEXT, rsv) for rsv in (1, 2, 3, 5, 6, 7)),
        *((opcode, RSV1) for opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE, Opcode.CONTINUATION)),
    ],
)
def test_reserved_bits_where_they_may_not_be(role, opcode, rsv):
    for reading in READINGS:
        with case(reading=reading):
            conn = Connection(role, compression=WIDE)
            data = said(role, opcode, HELLO, rsv=rsv)
            assert hear(conn, *reading.chunks(data, TRAILING)) == [RESERVED]


@pytest.mark.parametrize("first", [0, RSV1])
def test_rsv1_on_a_continuation(role, first):
    for reading in READINGS:
        with case(reading=reading):
            conn = Connection(role, compression=WIDE)
            data = (
                said(role, Opcode.TEXT, HELLO[:3], fin=False, rsv=first)
                if first
                else said(role, 1, b"", False)
            )
            data += said(role, Opcode.CONTINUATION, HELLO[3:], rsv=RSV1)
            assert hear(conn, *reading.chunks(data, TRAILING)) == [RESERVED]


def test_rsv1_without_an_agreement(role, reading):
    conn = Connection(role)
    data = said(role, Opcode.TEXT, HELLO, rsv=RSV1)
    assert hear(conn, *reading.cut(data)) == [RESERVED]


def test_plain_and_compressed_messages_in_turn(role, reading):
    conn = Connection(role, compression=WIDE)
    data = (
        said(role, Opcode.TEXT, HELLO, rsv=RSV1)
        + said(role, Opcode.TEXT, b"plain")
        + said(role, Opcode.TEXT, b"pla", fin=False)
        + said(role, Opcode.CONTINUATION, b"in")
        + said(role, Opcode.TEXT, AGAIN, rsv=RSV1)
    )
    assert hear(conn, *reading.chunks(data, TRAILING)) == [
        Text("Hello"),
        Text("plain"),
        Text("plain"),
        Text("Hello"),
    ]


@pytest.mark.parametrize("fragments", [False, True])
def test_control_frames_between_fragments_are_answered_at_once(role, fragments):
    conn = Connection(role, compression=WIDE, fragments=fragments)
    payload = deflated(b"text that is said with interruptions, " * 20)
    text = ""
    for index in range(len(payload)):
        opcode = Opcode.CONTINUATION if index else Opcode.TEXT
        frame = said(role, opcode, payload[index : index + 1], False, 0 if index else RSV1)
        text += "".join(event.data for event in hear(conn, frame))
        assert hear(conn, said(role, Opcode.PING, b"%d" % index)) == [Ping(b"%d" % index)]
        assert sent(conn) == [Frame(Opcode.PONG, b"%d" % index)]
        assert hear(conn, said(role, Opcode.PONG)) == [Pong(b"")]
    events = hear(conn, said(role, Opcode.CONTINUATION))
    text += "".join(event.data for event in events)
    assert text == "text that is said with interruptions, " * 20
    assert events[-1].final
    assert hear(conn, said(role, Opcode.TEXT, HELLO, rsv=RSV1), said(role, Opcode.CLOSE)) == [
        Text("Hello"),
        Close(1005),
    ]


def test_a_close_inside_a_compressed_message_ends_it(role):
    conn = Connection(role, compression=WIDE)
    data = said(role, Opcode.TEXT, HELLO[:3], fin=False, rsv=RSV1) + said(role, Opcode.CLOSE)
    assert hear(conn, data) == [Close(1005)]
    assert conn._decompressor is conn._compressor is None  # they hold memory


# Text


@pytest.mark.parametrize("fragments", [False, True])
def test_text_is_checked_as_it_is_decompressed(role, fragments):
    text = b"good " * 20 + b"\xed\xa0\x80"
    compressor = zlib.compressobj(wbits=-15)
    for index in range(len(text)):
        conn = Connection(role, compression=WIDE, fragments=fragments)
        compressor = zlib.compressobj(wbits=-15)
        payload = compressor.compress(text[: index + 1]) + compressor.flush(zlib.Z_SYNC_FLUSH)
        *pieces, last = hear(conn, said(role, Opcode.TEXT, payload, fin=False, rsv=RSV1)) or [None]
        # The second byte of a surrogate cannot be completed; a text that is not whole may yet be.
        if index > text.index(0xED):
            assert last == BAD_TEXT
        else:
            assert last != BAD_TEXT
        assert fragments or not pieces


def test_text_that_is_not_utf8_fails_the_connection(role):
    for payload in (deflated(b"\xff"), deflated(b"\xe2\x82"), deflated(b"a" * 100_000 + b"\x80")):
        conn = Connection(role, compression=WIDE)
        assert hear(conn, said(role, Opcode.TEXT, payload, rsv=RSV1)) == [BAD_TEXT]
        conn = Connection(role, compression=WIDE)
        data = said(role, 1, payload[:2], False, RSV1) + said(role, 0, payload[2:])
        assert hear(conn, data) == [BAD_TEXT]


# Limits


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("is_fragmented", [False, True])
def test_the_limit_is_for_what_it_decompresses_to(role, is_fragmented, fragments):
    def hear_zeros(count, limit):
        conn = Connection(role, compression=WIDE, max_message_size=limit, fragments=fragments)
        payload = deflated(bytes(count))
        if is_fragmented:
            data = said(role, 2, payload[:2], False, RSV1) + said(role, 0, payload[2:])
        else:
            data = said(role, 2, payload, rsv=RSV1)
        return hear(conn, data)

    for limit in [0, 1, 1000, 65_535, 65_536, 65_537, 200_000]:
        with case(limit=limit):
            pieces = hear_zeros(limit, limit)
            assert b"".join(piece.data for piece in pieces) == bytes(limit)
            assert pieces[-1].final
            *pieces, end = hear_zeros(limit + 1, limit)
            assert end == TOO_BIG
            assert fragments or not pieces
            assert sum(len(piece.data) for piece in pieces) <= limit


def test_what_does_not_compress_may_be_as_large_as_the_limit(role):
    limit = 10_000
    noise = zlib.compress(bytes(index * index % 65_521 % 251 for index in range(60_000)))[:limit]
    assert len(noise) == limit
    # The worst that a compressor says: blocks of few bytes each, not compressed.
    payload = b"".join(
        b"\0" + len(block).to_bytes(2, "little") + (len(block) ^ 0xFFFF).to_bytes(2, "little") + block
        for block in (noise[index : index + 40] for index in range(0, limit, 40))
    )
    conn = Connection(role, compression=WIDE, max_message_size=limit)
    assert hear(conn, said(role, 2, payload + b"\0", rsv=RSV1)) == [Binary(noise)]


@pytest.mark.parametrize("is_fragmented", [False, True])
def test_a_frame_that_is_too_big_in_any_case_is_refused_by_its_header(role, is_fragmented):
    limit = 1000
    conn = Connection(role, compression=WIDE, max_message_size=limit)
    data = said(role, 2, b"\0", False, RSV1) if is_fragmented else b""
    length = limit + limit // 4 + 1024 + 1
    header = (b"\x80" if is_fragmented else b"\xc2") + bytes([0xFE if role is SERVER else 0x7E])
    assert hear(conn, data + header + length.to_bytes(2, "big")) == [TOO_BIG]


def test_a_plain_frame_may_not_be_larger_than_the_limit_though_a_compressed_one_may(role):
    conn = Connection(role, compression=WIDE, max_message_size=1000)
    assert hear(conn, said(role, 2, bytes(1001))) == [TOO_BIG]


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("is_fragmented", [False, True])
@modules
def test_a_bomb_costs_no_more_than_the_limit(role, module, fragments, is_fragmented, size):
    bomb = deflated(bytes(size(2**23, 2**26)), level=9)
    assert len(bomb) < 70_000
    if is_fragmented:
        data = said(role, 2, bomb[:100], False, RSV1) + said(role, 0, bomb[100:])
    else:
        data = said(role, 2, bomb, rsv=RSV1)
    compression = dataclasses.replace(WIDE, zlib=module)
    conn = Connection(role, compression=compression, fragments=fragments)
    conn.receive_data(data)
    total = 0
    with Memory() as memory:
        while (event := conn.next_event()) and event != TOO_BIG:
            total += len(event.data)
    assert event == TOO_BIG
    assert total <= 2**20
    # One message of 1 MiB, and that of the buffers in which it grows
    assert memory.peak < (2**20 if fragments else 3 * 2**20)


def test_with_fragments_a_piece_is_small_whatever_it_decompresses_to(role, size):
    length = size(2**21, 2**24)
    conn = Connection(role, compression=WIDE, max_message_size=None, fragments=True)
    conn.receive_data(said(role, 2, deflated(bytes(length)), rsv=RSV1))
    total, final = 0, False
    with Memory() as memory:
        while not final:
            event = conn.next_event()
            total, final = total + len(event.data), event.final
            assert len(event.data) <= 65_536
    assert total == length
    assert memory.peak < 2**19


def test_a_fragment_that_fills_a_piece_leaves_nothing(role):
    conn = Connection(role, compression=WIDE, fragments=True)
    conn.receive_data(said(role, 2, deflated(bytes(65_536)) + b"\0\0\xff\xff", False, RSV1))
    assert events_of(conn) == [Binary(bytes(65_536), False)]
    conn.receive_data(said(role, 0, b"\0"))
    assert events_of(conn) == [Binary(b"")]


def test_fragments_that_decompress_to_nothing_are_counted(role):
    conn = Connection(role, compression=WIDE)
    empty = said(role, 0, b"\0\0\0\xff\xff", False)
    conn.receive_data(said(role, 2, b"", False, RSV1) + empty * 65_535)
    assert events_of(conn) == [Fail(1009, "message has too many fragments")]


# Pieces


def test_stream_next_gives_one_compressed_message_in_pieces(role):
    conn = Connection(role, compression=WIDE)
    text = "0123456789" * 20_000
    data = said(role, 1, deflated(text.encode()), rsv=RSV1)
    conn.stream_next()
    *pieces, last = hear(conn, data)
    assert all(not piece.final for piece in pieces)
    assert last.final
    assert "".join(piece.data for piece in (*pieces, last)) == text
    assert hear(conn, data) == [Text(text)]


def test_stream_next_inside_a_compressed_message(role):
    conn = Connection(role, compression=WIDE)
    text = "\N{SNOWMAN}" * 1000
    compressor = zlib.compressobj(wbits=-15)
    first = compressor.compress(text.encode()[:1000]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    rest = compressor.compress(text.encode()[1000:]) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert hear(conn, said(role, 1, first, False, RSV1)) == []
    conn.stream_next()
    pieces = hear(conn, said(role, 0, rest))
    assert "".join(piece.data for piece in pieces) == text
    assert pieces[-1].final


def test_an_empty_message_is_one_empty_piece(role):
    conn = Connection(role, compression=WIDE, fragments=True)
    assert hear(conn, said(role, 2, b"\0", rsv=RSV1)) == [Binary(b"", True)]


# Messages that go out


@pytest.mark.parametrize(
    ("length", "compress", "is_compressed"),
    [
        (127, None, False),
        (128, None, True),
        (0, True, True),
        (5000, False, False),
    ],
)
def test_what_is_compressed(role, length, compress, is_compressed):
    conn = Connection(role, compression=Deflate())
    assert conn.compresses(length, compress) is is_compressed
    for send, message, opcode in (
        (conn.send_binary, b"x" * length, Opcode.BINARY),
        (conn.send_text, "x" * length, Opcode.TEXT),
        (conn.send_message, "x" * length, Opcode.TEXT),
        (conn.send_message, b"x" * length, Opcode.BINARY),
    ):
        send(message, compress=compress)
        (frame,) = sent(conn)
        assert (frame.opcode, frame.fin, frame.rsv) == (opcode, True, RSV1 if is_compressed else 0)
        assert is_compressed or frame.payload == b"x" * length


def test_without_an_agreement_nothing_is_compressed(role):
    conn = Connection(role)
    assert not conn.compresses(1000, True)
    conn.send_text("x" * 1000, compress=True)
    assert sent(conn) == [Frame(Opcode.TEXT, b"x" * 1000)]


@pytest.mark.parametrize(
    ("first", "compress", "is_compressed"),
    [(1, None, True), (1000, None, True), (1, False, False), (1, True, True)],
)
def test_the_first_fragment_decides(role, first, compress, is_compressed):
    conn = Connection(role, compression=Deflate())
    conn.send_text("x" * first, False, compress=compress)
    conn.send_text("y" * 1000, False)
    conn.send_ping(b"between")
    conn.send_text("", False, compress=True)
    conn.send_text("z", compress=not is_compressed)
    frames = sent(conn)
    data = [frame for frame in frames if frame.opcode != Opcode.PING]
    assert [frame.opcode for frame in frames] == [1, 0, Opcode.PING, 0, 0]
    assert [frame.fin for frame in data] == [False, False, False, True]
    # Section 6: "the RSV1 bit [...] on the first frame"
    assert [frame.rsv for frame in data] == [RSV1 if is_compressed else 0, 0, 0, 0]
    payload = b"".join(frame.payload for frame in data)
    assert (inflated(payload) if is_compressed else payload) == b"x" * first + b"y" * 1000 + b"z"


def test_control_frames_are_not_compressed(role):
    conn = Connection(role, compression=Deflate(threshold=0))
    conn.send_ping(b"x" * 125)
    conn.send_pong(b"x" * 125)
    conn.send_close(1000, "x" * 100)
    assert [frame.rsv for frame in sent(conn)] == [0, 0, 0]


# By themselves


def test_a_compressor_and_a_decompressor_of_their_own():
    compressor = Compressor(Deflate(), is_server=True)
    decompressor = Decompressor(Deflate(), is_server=False)
    payloads = [compressor.compress(b"some bytes" * 20) for _ in range(3)]
    assert [decompressor.decompress(payload, 200) for payload in payloads] == [b"some bytes" * 20] * 3
    with pytest.raises(RemoteProtocolError, match="message is too big"):
        decompressor.decompress(compressor.compress(b"some bytes" * 20), 199)
