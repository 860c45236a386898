"""``wsframe connect``, as a process of its own: in pipes, and on terminals."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.adapters import TIMEOUT, AioAdapter, Listener, Running, SyncAdapter
from tests.support.tiers import full

pytest.importorskip("click")
pytest.importorskip("dpkt")
pytest.importorskip("prompt_toolkit")
pytest.importorskip("pyte")
pytest.importorskip("rich")

import pyte
from click.testing import CliRunner

from wsframe.cli.command import wsframe

pytestmark = pytest.mark.usefixtures("leaks")
Spawn = Callable[..., "Future[Any]"]
Size = Callable[[int, int], int]

# What a peer may say to a terminal: to clear it, to turn the writing round, to name it, to move up; and what
# rich takes for markup and for an emoji.
HOSTILE = "a\x1b[2Jb\u202ec\x9b31md\ne\rf\x07g\u2028h\x00i [bold]j[/bold] :smile: \x1b]0;title\x07 \u200bk"
VISIBLE = r"a\x1b[2Jb\u202ec\x9b31md\ne\rf\x07g\u2028h\x00i [bold]j[/bold] :smile: \x1b]0;title\x07 \u200bk"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "wsframe", "connect", *arguments]


def run(*arguments: str, said: str | bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    data = said.encode() if isinstance(said, str) else said
    if "stdin" not in options:
        options["input"] = data
    process = subprocess.run(command(*arguments), capture_output=True, timeout=TIMEOUT, **options)
    assert b"Traceback" not in process.stderr, process.stderr.decode()
    return process


@pytest.fixture
def echo() -> Iterator[str]:
    with SyncAdapter().serve() as running:
        yield running.uri


@contextmanager
def serving(handler: Callable[[Any], None], **options: Any) -> Iterator[str]:
    with SyncAdapter().serve(handler, **options) as running:
        yield running.uri


# Pipes


def test_a_line_goes_out_and_its_answer_comes_in(echo: str) -> None:
    process = run(echo, said="hello\n")
    assert (process.returncode, process.stdout) == (0, b"hello\n")
    assert process.stderr.decode().splitlines() == [
        f"connected to {echo} (compressed)",
        "closed: 1000 NORMAL_CLOSURE",
    ]


@full
def test_each_line_is_a_message(echo: str) -> None:
    process = run(echo, said="one\r\n\ntwö\n  three\t\nfour")
    assert process.stdout.decode() == "one\n\ntwö\n  three\t\nfour\n"


def test_many_lines_from_a_file_come_back_in_order(echo: str, tmp_path: Path, size: Size) -> None:
    text = "".join(f"{number} {'x' * (number % 300)}\n" for number in range(size(1000, 5000)))
    (tmp_path / "lines").write_text(text)
    with (tmp_path / "lines").open() as lines:
        process = run(echo, stdin=lines)
    assert process.returncode == 0
    assert process.stdout.decode() == text


@full
def test_a_slow_reader_gets_all_that_came(echo: str) -> None:
    # Nobody reads standard output for longer than the peer is quiet, and more than a pipe holds comes.
    pipe = subprocess.PIPE
    lines = [f"{number} {'x' * 1000}" for number in range(300)]
    with subprocess.Popen(command(echo, "--wait", "60"), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert process.stdout.read().decode().splitlines() == lines
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize(
    "encoding", ["base64", pytest.param("hex", marks=full), pytest.param("raw", marks=full)]
)
def test_binary_messages_are_written_as_told(encoding: str) -> None:
    messages = [bytes(range(256)), b"", b"\n"]

    def say(websocket: Any) -> None:
        for message in messages:
            websocket.send(message)

    with serving(say) as uri:
        options = () if encoding == "base64" else ("--binary", encoding)
        written = run(uri, "--wait", "inf", *options).stdout
    if encoding == "raw":
        assert written == b"".join(messages)
    else:
        decode = base64.b64decode if encoding == "base64" else bytes.fromhex
        assert [decode(line.decode()) for line in written.split(b"\n")[:-1]] == messages


@pytest.fixture
def chatter() -> Iterator[Running]:
    """Say something for ever; and hear a Close, which the blocking adapter does when it receives."""

    def say(websocket: Any) -> None:
        while True:
            websocket.send("tick")

    adapter = AioAdapter("asyncio")
    with adapter.serve(say) as running:
        yield running
    adapter.close()


@full
def test_a_peer_that_never_stops_does_not_keep_it(chatter: Running) -> None:
    process = run(chatter.uri, "--wait", "0.2")
    assert process.returncode == 0
    assert set(process.stdout.splitlines()) == {b"tick"}
    process = run(chatter.uri, "--count", "3", "--wait", "inf")
    assert (process.returncode, process.stdout) == (0, b"tick\n" * 3)


def test_it_stops_when_nobody_reads_any_more(chatter: Running) -> None:
    pipe, arguments = subprocess.PIPE, command(chatter.uri, "--wait", "inf")
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"tick\n"
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read().decode().splitlines()[1:] == ["closed: 1000 NORMAL_CLOSURE"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_what_cannot_be_written_is_told(echo: str) -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            command(echo), input=b"hello\n", stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT
        )
    assert process.returncode == 3
    told = process.stderr.decode().splitlines()
    assert told[1:] == [
        "closed: 1000 NORMAL_CLOSURE",
        "cannot write to standard output: No space left on device",
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_messages_are_written_though_nothing_else_can_be_told(echo: str) -> None:
    for closed in ("2>/dev/full", "2>&-"):
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(echo)]
        process = subprocess.run(shell, input=b"hello\n", stdout=subprocess.PIPE, timeout=TIMEOUT)
        assert (process.returncode, process.stdout) == (0, b"hello\n"), closed


@pytest.mark.parametrize(
    ("close", "code", "told"),
    [
        ((1000, ""), 0, "closed: 1000 NORMAL_CLOSURE"),
        pytest.param((1001, "bye"), 0, "closed: 1001 GOING_AWAY: bye", marks=full),
        pytest.param((1005, ""), 0, "closed: 1005 NO_STATUS_RECEIVED", marks=full),
        ((1008, "no \x1b[2J"), 3, r"closed: 1008 POLICY_VIOLATION: no \x1b[2J"),
        pytest.param((4000, "x"), 3, "closed: 4000 private use: x", marks=full),
        (None, 3, "lost or failed: 1006 ABNORMAL_CLOSURE: connection was lost"),
    ],
)
def test_the_exit_code_tells_how_the_peer_ended_it(
    listener: Listener, spawn: Spawn, close: tuple[int, str] | None, code: int, told: str
) -> None:
    running = spawn(run, listener.uri, "--wait", "inf")
    with listener.open() as peer:
        peer.send(peer.text("last"))
        if close is not None:
            peer.send(peer.close(None if close[0] == 1005 else close[0], close[1]))
            assert peer.next_frame() is not None
    process = running.result(TIMEOUT)
    assert process.returncode == code
    assert process.stdout == b"last\n"
    assert process.stderr.decode().splitlines()[-1].startswith(told)


def test_it_ends_with_the_peer_though_standard_input_is_open() -> None:
    def say_goodbye(websocket: Any) -> None:
        websocket.close(4001, "enough")

    pipe = subprocess.PIPE
    with (
        serving(say_goodbye) as uri,
        subprocess.Popen(command(uri), stdin=pipe, stdout=pipe, stderr=pipe) as process,
    ):
        assert process.wait(TIMEOUT) == 3
        assert process.stderr is not None
        assert b"closed: 4001 private use: enough\n" in process.stderr.read()


def test_input_that_is_not_utf_8_is_told_with_its_line(echo: str) -> None:
    process = run(echo, said=b"good\n\xff\n")
    assert process.returncode == 2
    assert process.stderr.decode().splitlines()[-1] == (
        "wsframe connect: line 2 of standard input is not UTF-8"
    )


@full
def test_a_message_that_is_too_large_fails_the_connection() -> None:
    with serving(lambda websocket: websocket.send("x" * 101)) as uri:
        process = run(uri, "--max-size", "100", "--wait", "inf")
        assert process.returncode == 3
        assert "lost or failed: 1009 MESSAGE_TOO_BIG" in process.stderr.decode()
        assert run(uri, "--max-size", "101", "--wait", "inf").stdout == b"x" * 101 + b"\n"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=full)])
def test_a_signal_closes_the_connection(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with SyncAdapter().serve() as running:
        with subprocess.Popen(command(running.uri), stdin=pipe, stdout=pipe, stderr=pipe) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"hello\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"hello\n"  # flushed, though it goes on
            process.send_signal(number)
            assert process.wait(TIMEOUT) == 0
        assert running.end() == (1000, True)


def test_a_second_signal_does_not_wait_for_the_peer(listener: Listener) -> None:
    pipe = subprocess.PIPE
    # Without -W error: it does not clean up either.
    arguments = [sys.executable, "-m", "wsframe", "connect", listener.uri]
    process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe)
    with process, listener.open() as peer:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"connected to ")
        process.send_signal(signal.SIGINT)
        assert peer.next_frame() is not None  # the Close, which is not answered
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 3
        assert process.stderr.read() == b""


# Opening


def test_its_options_are_in_the_request(listener: Listener, spawn: Spawn) -> None:
    arguments = (
        *("--header", "X-One: 1", "--header", "X-Two:a:b", "--origin", "https://example.com"),
        *("--header", "Cookie: name=Łukasz"),
        *("--subprotocol", "v2", "--subprotocol", "v1", "--no-compression", "--wait", "inf"),
    )
    running = spawn(run, listener.uri, *arguments)
    with listener.open(headers=("Sec-WebSocket-Protocol: v1",)) as peer:
        lines = peer.head.decode().split("\r\n")
        peer.send(peer.close())
        assert peer.next_frame() is not None
    assert {"X-One: 1", "X-Two: a:b", "Origin: https://example.com", "Cookie: name=Łukasz"} <= set(lines)
    assert "Sec-WebSocket-Protocol: v2, v1" in lines
    assert not any(line.startswith("Sec-WebSocket-Extensions") for line in lines)
    process = running.result(TIMEOUT)
    assert process.returncode == 0
    assert f"connected to {listener.uri} (subprotocol v1)\n" in process.stderr.decode()


@full
def test_it_connects_to_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with SyncAdapter().serve(unix=path):
        assert run("ws://localhost/", "--unix", path, said="hello\n").stdout == b"hello\n"


@full
def test_a_certificate_is_checked_unless_it_is_not_to_be(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with SyncAdapter().serve(ssl=context) as running:
        process = run(running.uri, said="hello\n")
        assert (process.returncode, process.stdout) == (1, b"")
        assert "its certificate is not trusted: " in process.stderr.decode()
        assert process.stderr.count(b"\n") == 1
        for options in (["--insecure"], ["--cacert", str(tmp_path / "ca.pem")]):
            assert run(running.uri, *options, said="hello\n").stdout == b"hello\n"
        (tmp_path / "ca.pem").write_text("nothing")
        process = run(running.uri, "--cacert", str(tmp_path / "ca.pem"))
        assert process.returncode == 2
        assert f"cannot read the CAs in {tmp_path / 'ca.pem'}" in process.stderr.decode()


def failure(process: subprocess.CompletedProcess[bytes], code: int) -> str:
    """Return the one line that says why it failed."""
    assert process.returncode == code
    assert process.stdout == b""
    lines = process.stderr.decode().splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("wsframe connect: ")


@full
def test_what_is_wrong_with_a_server_is_told_in_one_line(listener: Listener, spawn: Spawn) -> None:
    with socket.socket() as closed:  # bound, but it does not listen
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        told = failure(run(f"ws://user:secret@127.0.0.1:{port}/x"), 1)
    assert re.fullmatch(rf"cannot connect to ws://127\.0\.0\.1:{port}/x: (.*: )?Connection refused", told)
    told = failure(run("ws://nowhere.invalid/"), 1)
    assert told.startswith("cannot connect to ws://nowhere.invalid/: no such host (")
    answers = {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno\x1b[2J\nx": (
            r"the server answered 404 Not Found: no\x1b[2J"
        ),
        b"HTTP/1.1 403 Forbidden\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n": (
            "the server answered 403 Forbidden: see https://x/"
        ),
        b"HTTP/1.1 403 \x9b\r\nLocation: \x85/\xc5\x9b[2J\r\nContent-Length: 0\r\n\r\n": (
            r"the server answered 403 Forbidden: see \x85/Å\x9b[2J"
        ),
        b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n": "the server answered 599",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n": "the server does not speak WebSocket: ",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n": "Upgrade header must be websocket",
        b"": "the server does not speak WebSocket: ",
    }
    for data, expected in answers.items():
        running = spawn(run, listener.uri)
        with listener.accept() as peer:
            peer.read_head()
            peer.send(data)
        assert expected in failure(running.result(TIMEOUT), 1)
    running = spawn(run, listener.uri.replace("ws:", "wss:"))
    with listener.accept() as peer:
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert "perhaps it is a ws:// address" in failure(running.result(TIMEOUT), 1)


def test_it_does_not_wait_for_a_server_for_ever(listener: Listener, spawn: Spawn) -> None:
    running = spawn(run, listener.uri, "--timeout", "0.2")
    with listener.accept():
        assert "it took too long (--timeout" in failure(running.result(TIMEOUT), 1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "Missing argument 'URI'"),
        (("http://localhost/",), "scheme must be ws or wss"),
        (("ws://localhost/", "--header", "colonless"), "'colonless' has no colon"),
        (("ws://localhost/", "--header", "Host: x"), "header Host is set by the handshake"),
        (("ws://localhost/", "--header", "X: a\x1bb"), "value of header X has a control"),
        (("ws://localhost/", "--subprotocol", "a b"), "subprotocol 'a b' is not a token"),
        (("ws://localhost/", "--insecure"), "go with wss:// addresses"),
        (("ws://localhost/", "--wait", "nan"), "'nan' is not a number of seconds"),
        (("ws://localhost/", "--timeout", "0"), "0"),
        (("ws://localhost/", "--binary", "rot13"), "'rot13' is not one of"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], problem: str) -> None:
    result = CliRunner().invoke(wsframe, ["connect", *arguments], prog_name="wsframe")
    assert result.exit_code == 2
    assert problem in result.output


# Terminals


class Terminal:
    """A terminal in which the command runs, and what a user sees of it."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.data = b""
        self._fd = fd
        self._screen = pyte.Screen(200, 30)
        self._screen.write_process_input = self.type
        self._stream = pyte.ByteStream(self._screen)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def read(self) -> bool:
        """Wait for something to happen; False: the other end is closed."""
        ready, _, _ = select.select([self._fd], [], [], TIMEOUT)
        assert ready, self.text
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux says so
            return False
        self.data += data
        self._stream.feed(data)
        return bool(data)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def expect(self, pattern: str) -> None:
        """Wait until a line looks like this."""
        deadline = time.monotonic() + TIMEOUT
        while not any(re.fullmatch(pattern, line) for line in self.lines):
            assert time.monotonic() < deadline, self.text
            assert self.read(), self.text

    def echoes(self) -> bool:
        """Tell whether the terminal shows what is typed by itself."""
        local: int = termios.tcgetattr(self._fd)[3]
        return bool(local & termios.ECHO and local & termios.ICANON)

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        while self.read():
            pass
        return self.process.wait(TIMEOUT)


@contextmanager
def terminal(*arguments: str, kind: str = "xterm-256color", **streams: Any) -> Iterator[Terminal]:
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
        ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs, **streams}
        environment = {**os.environ, "TERM": kind}
        process = subprocess.Popen(command(*arguments), env=environment, start_new_session=True, **ends)
        os.close(theirs)
        with process:
            try:
                yield Terminal(process, ours)
            finally:
                process.kill()
    finally:
        os.close(ours)


XTERM = "xterm-256color"
TIME = r"\d\d:\d\d:\d\d\.\d\d\d"


@pytest.mark.parametrize("kind", [pytest.param(XTERM, marks=full), "dumb"])
def test_a_conversation(echo: str, kind: str) -> None:
    with terminal(echo, kind=kind) as screen:
        screen.expect(rf"connected to {echo} \(compressed\); /help shows what you can type")
        screen.type("hello\r")
        screen.expect(rf"< {TIME}  text 5  hello")
        screen.type("/binary 00 ff1b\r")
        screen.expect(rf"< {TIME}  binary 3  00 ff 1b")
        screen.type("//text\r")
        screen.expect(rf"< {TIME}  text 5  /text")
        screen.type("/ping\r")
        screen.expect(r"pong after \d+\.\d{3} ms")
        for typed, told in {
            "/dance": "there is no /dance; /help shows what there is, //dance sends it",
            "/binary 0": "'0' is not hexadecimal; write /binary 00 ff",
            "/close x": "'x' is not a status code; write /close 1000 reason",
            "/close 1006": "status code 1006 must not be sent",
            "/help": r"/binary HEX +sends bytes: /binary 00 ff",
        }.items():
            screen.type(f"{typed}\r")
            screen.expect(told)
        screen.type("\r/close 4000 that is all\r")
        screen.expect("closed: 4000 private use: that is all")
        assert screen.end() == 0


# On a dumb terminal Ctrl-C is a signal, which other tests send.
@pytest.mark.parametrize(
    ("kind", "key"),
    [(XTERM, "\x04"), pytest.param(XTERM, "\x03", marks=full), pytest.param("dumb", "\x04", marks=full)],
)
def test_keys_that_end_it(kind: str, key: str) -> None:
    with SyncAdapter().serve() as running, terminal(running.uri, kind=kind) as screen:
        screen.type("hello\r")
        screen.expect(rf"< {TIME}  text 5  hello")
        screen.type(key)
        screen.expect("closed: 1000 NORMAL_CLOSURE")
        assert screen.end() == 0
        assert screen.echoes()  # as it did before
        assert running.end() == (1000, True)


@pytest.mark.parametrize("kind", [XTERM, pytest.param("dumb", marks=full)])
def test_nothing_that_a_peer_says_acts_on_the_terminal(listener: Listener, kind: str) -> None:
    with terminal(listener.uri, kind=kind) as screen, listener.open() as peer:
        screen.expect("connected to .*")
        peer.send(peer.text(HOSTILE))
        size = len(HOSTILE.encode())
        screen.expect(rf"< {TIME}  text {size}  {re.escape(VISIBLE)}")
        peer.send(peer.close(1008, HOSTILE[:40]))
        assert peer.next_frame() is not None
        peer.sock.close()
        screen.expect(rf"closed: 1008 POLICY_VIOLATION: {re.escape(VISIBLE[:30])}.*")
        assert screen.end() == 3
    assert b"\x1b[2J" not in screen.data
    assert b"\x1b]0;title" not in screen.data
    assert not set("\u202e\u2028\x9b\u200b") & set(screen.data.decode())
    if kind == "dumb":
        assert b"\x1b" not in screen.data


@full
def test_a_long_message_is_shortened() -> None:
    def say(websocket: Any) -> None:
        websocket.send("é" * 50)
        websocket.send(bytes(50))
        websocket.send("é" * 8)

    with serving(say) as uri, terminal(uri, "--show", "8") as screen:
        screen.expect(rf"< {TIME}  text 100  é{{8}}\.\.\. \(42 more\)")
        screen.expect(rf"< {TIME}  binary 50  00( 00){{7}}\.\.\. \(42 more\)")
        screen.expect(rf"< {TIME}  text 16  é{{8}}")
        assert screen.end() == 0


@full
def test_what_is_being_typed_is_not_destroyed_by_what_comes(listener: Listener) -> None:
    with terminal(listener.uri) as screen, listener.open() as peer:
        screen.type("first\r")
        assert peer.read_text() == "first"
        screen.type("half-ty")
        screen.expect("> half-ty")
        for number in range(3):
            peer.send(peer.text(f"news {number}"))
            screen.expect(rf"< {TIME}  text 6  news {number}")
        screen.expect("> half-ty")
        assert screen.lines[-1] == "> half-ty"
        assert not screen.echoes()
        screen.type("ped\r")
        assert peer.read_text() == "half-typed"
        screen.type("\x1b[A\x1b[A\r")  # twice up, in history
        assert peer.read_text() == "first"
        peer.send(peer.close())
        assert peer.next_frame() is not None
        peer.sock.close()
        screen.expect("closed: 1000 NORMAL_CLOSURE")
        assert screen.end() == 0


@full
def test_pings_that_nobody_answers_stop_nothing(listener: Listener) -> None:
    with terminal(listener.uri, "--timeout", "0.1", kind="dumb") as screen, listener.open() as peer:
        screen.type("/ping\rgo on\r")
        ping = peer.next_frame()
        assert ping is not None
        assert ping.opcode == 9
        assert peer.read_text() == "go on"
        screen.type("\x04")
        screen.expect(r"lost or failed: 1006 ABNORMAL_CLOSURE.*")
        assert screen.end() == 3


@full
def test_lines_from_a_pipe_are_shown_on_a_terminal(echo: str) -> None:
    with terminal(echo, stdin=subprocess.PIPE) as screen:
        assert screen.process.stdin is not None
        screen.process.stdin.write(b"/help\n")
        screen.process.stdin.close()
        screen.expect(rf"< {TIME}  text 5  /help")
        assert screen.end() == 0


@full
def test_what_is_typed_on_a_terminal_may_go_to_a_pipe(echo: str) -> None:
    with terminal(echo, stdout=subprocess.PIPE) as screen:
        screen.expect("connected to .*")
        screen.type("hello\r/close\r")
        screen.expect("closed: 1000 NORMAL_CLOSURE")
        assert screen.process.stdout is not None
        assert screen.process.stdout.read() == b"hello\n"
        assert screen.end() == 0
