"""Both directions of a connection, from the opening handshake on."""

from __future__ import annotations

from tests.support.core import MASK
from tests.support.inspection import HELLO, compressed, lines_of
from tests.support.peers import request, response
from wsframe import Deflate, Opcode, encode_frame
from wsframe.inspector import ConversationInspector, Finding


def inspect(data: bytes) -> list[str]:
    """Return the lines for one direction, whichever it is."""
    conversation = ConversationInspector(has_both_directions=False, may_skip_handshake=True)
    return lines_of([*conversation.feed(None, data), *conversation.finish(None, True)])


def test_a_direction_may_begin_with_its_head() -> None:
    lines = inspect(request("Origin: https://example.com", path="/chat") + HELLO)
    assert lines[0] == "       0  client  GET /chat  Origin: https://example.com"
    assert lines[1].endswith('  client  F---  TEXT          37fa213d       5  "Hello"')
    extension = "permessage-deflate; server_no_context_takeover"
    data = compressed(Deflate(server_no_context_takeover=True), b"Hello", b"Hello")
    lines = inspect(response(f"Sec-WebSocket-Extensions: {extension}") + data)
    assert lines[0] == f"       0  server  101  Sec-WebSocket-Extensions: {extension}"
    assert lines[2].endswith('inflates to 5  "Hello"')


def test_control_characters_of_iso_8859_1_in_a_head_are_made_visible() -> None:
    lines = inspect(request("Origin: a\x9b[2J\x85b", "Cookie: \x9b") + HELLO)
    assert lines[0] == r"       0  client  GET /  Origin: a\x9b[2J\x85b"


def test_what_is_wrong_with_a_head_is_marked() -> None:
    lines = inspect(request().replace(b"13", b"12") + HELLO)
    assert lines == ["!      0  client  1002 Sec-WebSocket-Version must be 13"]
    lines = inspect(response("Sec-WebSocket-Extensions: x-unknown") + encode_frame(Opcode.PING, b""))
    assert lines[1] == "!      0  server  1002 server uses an extension that was not offered"
    assert " PING " in lines[2]
    lines = inspect(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    assert lines == ["       0  server  404"]


def test_frames_of_a_client_wait_for_the_answer() -> None:
    conversation = ConversationInspector()
    assert conversation.is_websocket is None
    found: list[Finding] = list(conversation.feed(True, request() + HELLO))
    assert conversation.is_websocket
    assert [line.split()[1:] for line in lines_of(found)] == [["client", "GET", "/"]]
    found = list(conversation.feed(False, response() + encode_frame(Opcode.PING, b"")))
    lines = lines_of(found)
    assert "101" in lines[0]
    assert lines[1].endswith('"Hello"')
    assert " PING " in lines[2]
    close = encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=MASK)
    assert "NORMAL_CLOSURE" in lines_of(conversation.feed(True, close))[0]
    assert [*conversation.finish(True, True), *conversation.finish(False, True)] == []


def test_bytes_that_are_missing_end_a_direction() -> None:
    conversation = ConversationInspector()
    list(conversation.feed(True, request()))
    list(conversation.feed(False, response()))
    [line] = lines_of(conversation.lose(True, 7))
    assert line.endswith("client  7 bytes are missing in the capture: nothing behind them can be read")
    assert list(conversation.feed(True, HELLO)) == []
    assert len(list(conversation.feed(False, encode_frame(Opcode.PING, b"")))) == 1


def test_what_is_no_websocket_is_known_as_such() -> None:
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for data in (get, b"\x16\x03\x01\x00\x05hello", HELLO):
        conversation = ConversationInspector()
        found = list(conversation.feed(True, data))
        assert (conversation.is_websocket, found) == (False, [])
    conversation = ConversationInspector(may_skip_handshake=True)
    assert len(list(conversation.feed(True, HELLO))) == 2
    assert conversation.is_websocket
