"""Findings as lines and as objects of JSON."""

from __future__ import annotations

import json
from typing import Any

from tests.support.core import MASK
from tests.support.inspection import findings_of, inspect, line_of
from wsframe import Opcode, encode_frame
from wsframe.inspector import InspectedHead, Note, close_name, to_json, to_spans, visible


def test_what_a_terminal_would_act_on_is_made_visible() -> None:
    text = "a\x1b[2J\n\u202e\x9b\x00é"
    escaped = r"a\x1b[2J\n\u202e\x9b\x00é"
    assert visible(text) == escaped
    data = encode_frame(Opcode.TEXT, text.encode()) + encode_frame(Opcode.CLOSE, b"\x03\xe8" + text.encode())
    for line in inspect(data):
        assert line.endswith(f'"{escaped}"')
    for finding in (InspectedHead(True, 0, text, []), InspectedHead(True, 0, "", [("Origin", text)])):
        assert line_of(finding).endswith(escaped)
    assert line_of(Note(None, 0, text)) == f"#      0  -       {escaped}"


def test_status_codes_have_names() -> None:
    codes = {
        1000: "NORMAL_CLOSURE",
        999: "not a status code",
        3000: "registered by a library",
        4999: "private use",
    }
    for code, name in codes.items():
        assert close_name(code) == name


def test_each_part_of_a_line_has_a_kind() -> None:
    data = bytes.fromhex("8100 8201ff 8800 8900 8300 81ff8000000000000000 01020304")
    kinds = [[span.kind for span in to_spans(finding)] for finding in findings_of([data])]
    assert kinds == [
        ["plain", "plain", "text"],
        ["message"],
        ["plain", "plain", "binary"],
        ["message"],
        ["plain", "plain", "close"],
        ["plain", "plain", "data"],
        ["plain", "plain", "data"],
        ["violation"],
        ["plain", "plain", "text"],
        ["violation"],
        ["note"],
    ]


def test_json_says_the_same() -> None:
    data = b"".join(
        [
            encode_frame(Opcode.TEXT, "é\x1b".encode(), mask=MASK),
            encode_frame(Opcode.BINARY, b"\x00\xff", mask=MASK),
            encode_frame(Opcode.CLOSE, b"\x03\xf0no", mask=MASK),
            b"\x83\x00",
        ]
    )
    items: list[dict[str, Any]] = [json.loads(json.dumps(to_json(f))) for f in findings_of([data])]
    place = {"from": "client", "offset": 0}
    flags = {"fin": True, "rsv": 0, "opcode": 1, "name": "TEXT", "key": MASK.hex(), "length": 3}
    payload = {"text": "é\x1b", "hex": "c3a91b"}
    assert items[0] == {"kind": "frame", **place, **flags, **payload}
    assert items[1] == {"kind": "message", **place, "name": "TEXT", "frames": 1, "length": 3, **payload}
    assert (items[4]["code"], items[4]["reason"]) == (1008, "no")
    assert items[5]["name"] == "reserved 3"
    assert items[6] == {
        "kind": "violation",
        "from": "client",
        "offset": 27,
        "code": 1002,
        "reason": "opcode 3 is reserved",
    }


def test_a_finding_may_be_one_of_a_numbered_connection() -> None:
    note = Note(False, 12, "a remark")
    assert line_of(note, 3, 1.5) == "#  3    1.500000     12  server  a remark"
    assert to_json(note, 3, 1.5) == {
        "kind": "note",
        "stream": 3,
        "time": 1.5,
        "from": "server",
        "offset": 12,
        "text": "a remark",
    }
