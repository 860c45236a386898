"""RFC 6455, section 5.6, for many receivers: prepared messages."""

from __future__ import annotations

import array
import dataclasses
import itertools
import types
import zlib

import pytest

from tests.support.cases import case
from tests.support.core import CLIENT, OTHER, SERVER, events_of, sent
from wsframe import Prepared, prepare
from wsframe.connection import Connection, State
from wsframe.deflate import Deflate
from wsframe.errors import LocalProtocolError
from wsframe.events import Binary, Text
from wsframe.frames import Frame, Opcode

RSV1 = 4
MESSAGE = " ".join(str(number * number) for number in range(300))
ALONE = Deflate(server_no_context_takeover=True, client_no_context_takeover=True)
AGREEMENTS = [None, Deflate(), ALONE, Deflate(server_max_window_bits=15, client_max_window_bits=9, level=1)]


def ends(compression, role):
    return Connection(role, compression=compression), Connection(OTHER[role], compression=compression)


def heard(sender, receiver):
    receiver.receive_data(sender.data_to_send())
    return events_of(receiver)


def counting():
    """Return a module like zlib, and the list of the objects that it made."""
    made = []

    def compressobj(*args):
        made.append(args)
        return zlib.compressobj(*args)

    module = types.ModuleType("zlib_like")
    vars(module).update(vars(zlib), compressobj=compressobj)
    return module, made


@pytest.mark.parametrize(
    "message", ["", "text \N{SNOWMAN}", b"", b"bytes", bytearray(b"bytes"), memoryview(b"x")]
)
def test_a_prepared_message_is_that_message(message):
    prepared = prepare(message)
    assert isinstance(prepared, Prepared)
    assert prepared.opcode == (Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
    assert prepared.payload == (message.encode() if isinstance(message, str) else bytes(message))
    assert len(prepared) == len(prepared.payload)


def test_it_says_what_it_is():
    assert repr(prepare("text")) == "<Prepared text, 4 bytes>"
    assert repr(prepare(b"bytes")) == "<Prepared binary, 5 bytes>"


def test_items_of_several_bytes_count_as_that_many():
    assert prepare(array.array("I", [1, 2])).payload == array.array("I", [1, 2]).tobytes()


def test_what_is_changed_later_is_sent_as_it_was():
    message = bytearray(b"before")
    prepared = prepare(message)
    message[:] = b"after!"
    conn = Connection(SERVER)
    conn.send_prepared(prepared)
    assert sent(conn) == [Frame(Opcode.BINARY, b"before")]


@pytest.mark.parametrize("message", [None, 5, ["text"], {"a": 1}, memoryview(b"abcd")[::2]])
def test_what_is_no_message_is_refused(message):
    with pytest.raises(TypeError):
        prepare(message)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(LocalProtocolError, match=r"^text contains a lone surrogate$"):
        prepare("\ud800")


def test_it_is_right_for_every_peer(role):
    for message, compress, compression in itertools.product(
        [MESSAGE, MESSAGE.encode(), "short", "", "x" * 100_000], [None, True, False], AGREEMENTS
    ):
        with case(message=message, compress=compress, compression=compression):
            sender, receiver = ends(compression, role)
            kind = Text if isinstance(message, str) else Binary
            prepared = prepare(message, compress=compress)
            for _ in range(2):
                sender.send_message(message)
                sender.send_prepared(prepared)
                sender.send_message(prepared)
                sender.send_message(message)
            assert heard(sender, receiver) == [kind(message)] * 8


@pytest.mark.parametrize(
    ("message", "compress", "is_compressed"),
    [(MESSAGE, None, True), (MESSAGE, False, False), ("short", None, False), ("short", True, True)],
)
def test_what_is_compressed(message, compress, is_compressed):
    for compression in AGREEMENTS[1:]:
        with case(compression=compression):
            conn = Connection(SERVER, compression=compression)
            conn.send_prepared(prepare(message, compress=compress))
            (frame,) = sent(conn)
            assert (frame.opcode, frame.fin, frame.rsv) == (Opcode.TEXT, True, RSV1 if is_compressed else 0)
            assert is_compressed or frame.payload == message.encode()


def test_it_is_compressed_once_for_each_set_of_parameters():
    zlib_like, made = counting()
    compression = Deflate(zlib=zlib_like)
    narrow = dataclasses.replace(compression, server_max_window_bits=9)
    made.clear()  # of the check of the level
    prepared = prepare(MESSAGE)
    server = [
        Connection(SERVER, compression=agreed) for agreed in (compression, narrow, None) for _ in range(10)
    ]
    for conn in server:
        conn.send_prepared(prepared)
    assert [args[2] for args in made] == [-12, -9]
    # What goes out is the same object, not only the same bytes.
    chunks = [conn.chunks_to_send() for conn in server]
    for group in (chunks[:10], chunks[10:20], chunks[20:]):
        assert len({id(data) for (data,) in group}) == 1


def test_the_client_bits_do_not_matter_to_a_server():
    zlib_like, made = counting()
    agreements = [Deflate(zlib=zlib_like, client_max_window_bits=bits) for bits in (9, 15)]
    made.clear()
    prepared = prepare(MESSAGE)
    for compression in agreements:
        Connection(SERVER, compression=compression).send_prepared(prepared)
    assert len(made) == 1


def test_a_client_masks_it_with_a_fresh_key():
    conn = Connection(CLIENT)
    prepared = prepare(b"bytes")
    outputs = set()
    for _ in range(3):
        conn.send_prepared(prepared)
        outputs.add(conn.data_to_send())
    assert len(outputs) == 3
    assert all(len(data) == 2 + 4 + 5 for data in outputs)


def test_a_large_one_is_not_copied():
    payload = bytes(100_000)
    conn = Connection(SERVER)
    conn.send_prepared(prepare(payload))
    _, data = conn.chunks_to_send()
    assert data is payload


def test_the_next_message_refers_to_none_before_it():
    sender, receiver = ends(Deflate(), SERVER)
    sender.send_text(MESSAGE)
    first = sender.unsent
    sender.send_text(MESSAGE)
    assert sender.unsent - first < 40  # it refers to the first
    before = sender.unsent
    sender.send_prepared(prepare(MESSAGE, compress=False))
    after = sender.unsent
    sender.send_text(MESSAGE)
    assert sender.unsent - after < 40  # one that is not compressed does not matter
    sender.send_prepared(prepare(MESSAGE))
    after = sender.unsent
    sender.send_text(MESSAGE)
    assert sender.unsent - after > 40
    assert before < after
    assert heard(sender, receiver) == [Text(MESSAGE)] * 6


def test_it_is_not_sent_inside_another_message_or_when_closed():
    conn = Connection(SERVER)
    conn.send_text("a", False)
    for prepared in (prepare("text"), prepare(b"bytes")):
        with pytest.raises(LocalProtocolError, match=r"^a fragmented text message is being sent$"):
            conn.send_prepared(prepared)
    conn.send_text("b")
    conn.send_close()
    unsent = conn.unsent
    with pytest.raises(LocalProtocolError, match=r"^cannot send while the connection is CLOSING$"):
        conn.send_prepared(prepare("text"))
    assert conn.unsent == unsent
    assert conn.state is State.CLOSING


@pytest.mark.parametrize("message", ["text", b"bytes", None])
def test_only_a_prepared_message_is_sent_as_one(message):
    with pytest.raises(TypeError, match=r"^prepared must be a Prepared, not \w+$"):
        Connection(SERVER).send_prepared(message)
