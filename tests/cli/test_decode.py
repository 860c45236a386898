"""``wsframe decode``: its options, its output and its exit codes. tests/inspector has what it explains."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.adapters import TIMEOUT
from tests.support.core import MASK
from tests.support.inspection import HELLO, HELLO_LINE, compressed
from tests.support.paths import DOCS
from tests.support.peers import request
from wsframe import Deflate, Opcode, encode_frame

pytest.importorskip("click")
pytest.importorskip("dpkt")
pytest.importorskip("rich")

import dpkt
from click.testing import CliRunner

from tests.support.captures import TALK, Wire, pcap, talk, without_places
from wsframe.cli.command import wsframe

CONNECTS = "# 1: 10.0.0.1:50000 connects to 10.0.0.2:8001"


@pytest.fixture(autouse=True)
def sigpipe() -> Iterator[None]:
    """Restore what the command changes, since most tests run it in this process."""
    handler = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, handler)


def decode(data: bytes, *options: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(wsframe, ["decode", *options], input=data, prog_name="wsframe")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output.splitlines()


# Bytes


def test_the_exit_code_tells_whether_there_were_violations() -> None:
    for digits, code in {"8100": 0, "8300": 1, "0100": 1, "81": 1, "8105": 1}.items():
        assert decode(bytes.fromhex(digits), "--format", "raw")[0] == code


def test_messages_are_shown_when_asked_for() -> None:
    frames = bytes.fromhex("0103e282ac 8900 80036c6c6f 8202ff00")
    code, lines = decode(frames, "--format", "raw", "--messages")
    assert code == 0
    assert [line for line in lines if line.startswith("=")] == [
        '=      0  server  TEXT of 2 frames, 6 bytes  "€llo"',
        "=     12  server  BINARY of 1 frame, 2 bytes  ff 00",
    ]
    assert decode(frames, "--format", "raw") == (0, [line for line in lines if not line.startswith("=")])


def test_a_payload_is_shown_up_to_a_limit() -> None:
    for option, shown in {"3": '"Hel"...', "0": '""...', "5": '"Hello"'}.items():
        assert decode(HELLO, "--show", option)[1][0].endswith(f"  5  {shown}")


def test_what_a_terminal_would_act_on_is_made_visible() -> None:
    text = "a\x1b[2J\n\u202e\x9b\x00é"
    frames = encode_frame(Opcode.TEXT, text.encode()) + encode_frame(
        Opcode.CLOSE, b"\x03\xe8" + text.encode()
    )
    _, lines = decode(frames)
    assert len(lines) == 2
    for line in lines:
        assert line.endswith(r'"a\x1b[2J\n\u202e\x9b\x00é"')


def test_the_direction_is_as_told_or_as_the_first_frame_has_it() -> None:
    assert decode(HELLO) == (0, [HELLO_LINE])
    assert decode(HELLO, "--masked") == (0, [HELLO_LINE])
    code, lines = decode(HELLO, "--unmasked")
    assert code == 1
    assert lines[0] == HELLO_LINE.replace("client", "server")
    assert lines[1] == "!      0  server  1002 frames must not be masked"


def test_compressed_messages_are_read_when_told() -> None:
    data = compressed(Deflate(), b"Hello" * 10, b"Hello" * 10)
    code, lines = decode(data, "--deflate")
    assert code == 0
    assert all(line.endswith(f'  inflates to 50  "{"Hello" * 10}"') for line in lines)
    code, lines = decode(data)
    assert code == 1
    assert "1002 reserved bits must be zero" in lines[1]
    assert lines[2] == "#      0  server  RSV1 marks what is compressed: --deflate reads it"
    _, lines = decode(data, "--json")
    assert json.loads(lines[2])["text"] == "RSV1 marks what is compressed: --deflate reads it"


def test_window_and_context_are_as_told() -> None:
    alone = compressed(Deflate(server_no_context_takeover=True), b"Hello" * 10, b"Hello" * 10)
    assert decode(alone, "--deflate", "--no-context-takeover")[0] == 0
    together = compressed(Deflate(), b"Hello" * 10, b"Hello" * 10)
    code, lines = decode(together, "--deflate", "--no-context-takeover")
    assert code == 1
    assert "1007 compressed data is corrupt" in lines[2]
    noise = os.urandom(3000).hex().encode()  # which only a window of 15 bits can refer to
    wide = compressed(Deflate(server_max_window_bits=15, level=9), noise, noise, noise)
    assert decode(wide, "--deflate")[0] == 0
    assert decode(wide, "--deflate", "--window-bits", "9")[0] == 1


def test_json_is_an_object_a_line() -> None:
    data = encode_frame(Opcode.TEXT, "é\x1b".encode(), mask=MASK) + b"\x83\x00"
    code, lines = decode(data, "--json", "--messages")
    assert code == 1
    assert all(line.isascii() for line in lines)
    kinds = ["frame", "message", "frame", "violation"]
    assert [json.loads(line)["kind"] for line in lines] == kinds
    assert json.loads(lines[0])["text"] == "é\x1b"


def test_bytes_may_begin_with_a_head() -> None:
    code, lines = decode(request("Origin: https://example.com", path="/chat") + HELLO)
    assert code == 0
    assert lines[0] == "       0  client  GET /chat  Origin: https://example.com"
    assert lines[1].endswith('  client  F---  TEXT          37fa213d       5  "Hello"')


# The format


def test_the_format_is_known_or_told() -> None:
    expected = 0, [HELLO_LINE]
    dump = b"00000000: 8185 37fa 213d 7f9f 4d51 58              ..7.!=..MQX\n"
    for name, data in (("raw", HELLO), ("hex", HELLO.hex().encode()), ("hex", dump)):
        assert decode(data) == decode(data, "--format", name) == expected
    assert decode(pcap(talk().packets)) == decode(pcap(talk().packets), "--format", "pcap")
    assert decode(HELLO.hex().encode(), "--format", "raw") != expected


def test_a_long_line_of_hexadecimal_comes_in_pieces() -> None:
    frame = encode_frame(Opcode.BINARY, bytes(range(256)) * 1000)
    expected = decode(frame, "--format", "raw")
    for text in (frame.hex(), frame.hex(" "), "".join(f"\\x{byte:02x}" for byte in frame)):
        assert decode(text.encode()) == expected


def test_what_is_not_hexadecimal_is_told_with_its_line() -> None:
    for text, problem in {
        "8100\n8g": "line 2: '8g' is not bytes in hexadecimal",
        "81é": "it is not hexadecimal: it has other characters than ASCII",
    }.items():
        code, lines = decode(text.encode(), "--format", "hex")
        assert code == 2
        assert lines[-1] == f"wsframe decode: cannot read standard input: {problem}"


def test_nothing_is_nothing() -> None:
    for options in ((), ("--format", "raw"), ("--format", "hex")):
        assert decode(b"", *options) == (0, [])
        assert decode(b"\n", "--format", "hex") == (0, [])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--format", "pcap"), "it is neither pcap nor pcapng"),
        (("--window-bits", "12"), "--no-context-takeover and --window-bits go with --deflate"),
        (("--window-bits", "8", "--deflate"), "8 is not in the range 9<=x<=15"),
        (("/nowhere",), "/nowhere"),
    ],
)
def test_wrong_usage_exits_with_2(options: tuple[str, ...], problem: str) -> None:
    code, lines = decode(HELLO, *options)
    assert code == 2
    assert problem in "\n".join(lines)


# Captures


def test_a_capture_shows_both_directions() -> None:
    code, lines = decode(pcap(talk().packets))
    assert code == 0
    assert lines[0] == CONNECTS
    assert without_places(lines[1:]) == TALK
    head = len(request(path="/chat"))
    assert lines[3] == (
        f"   1    1.000000{head:>7}" + '  client  F---  TEXT          01020304       5  "Hello"'
    )


def test_other_traffic_is_counted_at_the_end() -> None:
    tls, http, web = (Wire(client=("10.0.0.1", port)) for port in (50001, 50002, 50003))
    tls.open().send("client", b"\x16\x03\x01\x00\x05hello").end()
    http.open().send("client", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").end()
    web.open().send("client", request()).send("server", b"HTTP/1.1 403 Forbidden\r\n\r\n").end()
    code, lines = decode(pcap([*tls.packets, *http.packets, *talk().packets, *web.packets]))
    assert code == 0
    assert without_places(lines) == [
        CONNECTS,
        *TALK,
        "# 2: 10.0.0.1:50003 connects to 10.0.0.2:8001",
        " client  GET /",
        " server  403",
        "# 2 other TCP connections, 1 of them TLS",
    ]
    assert decode(pcap(tls.packets))[1][-1].startswith("# no WebSocket")
    _, lines = decode(pcap(tls.packets), "--json")
    assert [json.loads(line)["kind"] for line in lines] == ["note", "note"]


def test_packets_of_an_unknown_link_type_are_counted_at_the_end() -> None:
    data = bytearray(pcap(talk().packets))
    data[20:24] = (147).to_bytes(4, sys.byteorder)
    assert decode(bytes(data))[1][-1] == "# 11 packets of a link type that is not known"


def test_ipv6_and_json() -> None:
    data = pcap(Wire(("2001:db8::1", 50000), ("::1", 8001)).shake_hands().packets, "raw")
    assert decode(data)[1][0] == "# 1: [2001:db8::1]:50000 connects to [::1]:8001"
    items = [json.loads(line) for line in decode(data, "--json")[1]]
    assert items[0] == {
        "kind": "stream",
        "stream": 1,
        "client": ["2001:db8::1", 50000],
        "server": ["::1", 8001],
    }
    assert items[1] == {
        "kind": "head",
        "stream": 1,
        "time": 0.5,
        "from": "client",
        "offset": 0,
        "line": "GET /chat",
        "headers": {},
    }


def test_a_capture_may_begin_in_the_middle_when_the_port_is_told() -> None:
    data = pcap(talk().packets[4:])
    assert decode(data)[1] == [
        "# 1 other TCP connections",
        "# no WebSocket; --port reads one whose handshake is not in the capture",
    ]
    code, lines = decode(data, "--port", "8001")
    assert code == 0
    assert without_places(lines) == [CONNECTS, *TALK[2:]]


def test_the_end_of_a_stream_within_a_frame_is_a_violation_and_that_of_the_capture_is_not() -> None:
    wire = Wire().shake_hands().send("client", HELLO[:8])
    assert decode(pcap(wire.packets))[0] == 0
    assert decode(pcap(wire.send("client", flags=dpkt.tcp.TH_RST).packets))[0] == 1


def test_a_capture_that_is_cut_is_shown_as_far_as_it_goes() -> None:
    code, lines = decode(pcap(talk().packets)[:-3])
    assert code == 2
    assert without_places(lines[1:-1]) == TALK
    assert lines[-1] == "wsframe decode: cannot read standard input: the capture is cut short"


# As a process of its own


def command(*options: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "wsframe", "decode", *options]


def test_frames_are_shown_as_they_come() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(command("-"), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(HELLO)
            process.stdin.flush()
            assert b'"Hello"' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_it_ends_when_its_reader_ends(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(HELLO * 10_000)
    pipe = subprocess.PIPE
    with subprocess.Popen(command(str(tmp_path / "frames")), stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().decode().rstrip() == HELLO_LINE
        process.stdout.close()
        assert process.wait(TIMEOUT) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_there_is_colour_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(HELLO + b"\x83\x00")
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.run(
        command(str(tmp_path / "frames")), stdout=theirs, env=environment, timeout=TIMEOUT
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 1
    assert "\x1b[" in shown
    assert "# 2 frames, 1 violation" in shown
    assert "\x1b" not in "\n".join(decode(HELLO + b"\x83\x00")[1])


# The manual

SESSIONS = re.findall(
    r"^\$ (echo .*wsframe decode.*)\n((?:[^`$].*\n)+)",
    (DOCS / "cli.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("typed", "shown"), SESSIONS)
def test_the_manual_shows_what_is_so(typed: str, shown: str) -> None:
    digits, options = re.fullmatch(r"echo (.*) \| wsframe decode(.*)", typed).groups()
    assert decode(f"{digits}\n".encode(), *options.split())[1] == shown.splitlines()


def test_the_manual_shows_a_capture() -> None:
    assert len(SESSIONS) == 3
    manual = (DOCS / "cli.md").read_text()
    assert "\n".join(decode(pcap(talk().packets))[1]) in manual
