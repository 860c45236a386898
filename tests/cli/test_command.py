"""The command, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trustme

import wsframe
from tests.support.adapters import TIMEOUT
from tests.support.cases import case
from tests.support.paths import ROOT
from tests.support.tiers import full
from wsframe import HandshakeRejected
from wsframe.sync import connect

pytest.importorskip("click")
pytest.importorskip("dpkt")
pytest.importorskip("rich")

from click.testing import CliRunner, Result

from wsframe.cli.command import wsframe as group


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "wsframe", *arguments]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=TIMEOUT, **options)


def invoke(*arguments: str) -> Result:
    """Run the command in this process, which is much faster than a process of its own."""
    return CliRunner().invoke(group, arguments, prog_name="wsframe")


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server, and give the process and what it says where it is."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command("serve", *arguments), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"is serving at (\S+) ", process.stdout.readline())
            assert address
            yield process, address[1]
        finally:
            process.kill()


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with serving("--port", "0", *arguments) as (process, address):
        match = re.fullmatch(r"https?://(localhost:\d+)/", address)
        assert match
        yield process, match[1]


def test_the_demo_serves_its_page_an_echo_and_a_chat() -> None:
    with demo() as (_, address):
        with urllib.request.urlopen(f"http://{address}/?query", timeout=30) as response:
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            assert b"new WebSocket(" in response.read()
        for path, status in {"/echo": 426, "/nothing": 404}.items():
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(f"http://{address}{path}", timeout=30)
            assert error.value.code == status
            error.value.close()
        with connect(f"ws://{address}/echo") as websocket:
            for message in ("Hellö", b"\x00\xff"):
                websocket.send(message)
                assert websocket.recv(30) == message
        with connect(f"ws://{address}/chat") as one, connect(f"ws://{address}/chat") as other:
            other.ping(timeout=30)  # both are there when it has answered
            one.send("hello")
            assert one.recv(30) == other.recv(30) == "hello"
        with pytest.raises(HandshakeRejected) as rejected:
            connect(f"ws://{address}/nothing")
        assert rejected.value.response is not None
        assert rejected.value.response.status == 404


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=full)])
def test_a_signal_stops_the_server_and_closes_its_connections(number: signal.Signals) -> None:
    with demo() as (process, address), connect(f"ws://{address}/echo") as websocket:
        websocket.ping(timeout=30)
        process.send_signal(number)
        assert list(websocket) == []
        assert websocket.close_code == 1001
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_an_address_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        port = str(listener.getsockname()[1])
        process = run("serve", "--port", port)
    assert process.returncode == 1
    assert process.stderr.startswith(f"wsframe serve: cannot listen on localhost port {port}: ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [pytest.param("--echo", marks=full), "--chat"])
def test_every_path_may_be_the_echo_or_the_chat(option: str) -> None:
    with demo(option) as (_, address):
        one, other = (connect(f"ws://{address}{path}") for path in ("/echo", "/somewhere/else?x=1"))
        with one, other:
            other.ping(timeout=30)
            for said in ("hello", "again"):
                one.send(said)
                assert one.recv(30) == said
            if option == "--chat":
                assert [other.recv(30), other.recv(30)] == ["hello", "again"]


def test_it_serves_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    apart = ["--certificate", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    for options in (apart, ["--certificate", str(tmp_path / "both.pem")]):
        with demo(*options) as (_, address), connect(f"wss://{address}/echo", ssl=context) as websocket:
            websocket.send("hello")
            assert websocket.recv(30) == "hello"
    process = run("serve", "--port", "0", "--certificate", str(tmp_path / "cert.pem"))
    assert process.returncode == 1
    assert process.stderr.startswith(f"wsframe serve: cannot use {tmp_path / 'cert.pem'} as certificate")
    assert process.stderr.count("\n") == 1


@full
def test_it_serves_on_a_unix_socket_and_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving("--unix", str(path)) as (process, address):
        assert address == str(path)
        with connect("ws://localhost/echo", unix=str(path)) as websocket:
            websocket.send("hello")
            assert websocket.recv(30) == "hello"
        other = run("serve", "--unix", str(path))
        assert (other.returncode, other.stdout) == (1, "")
        assert other.stderr == f"wsframe serve: cannot listen on {path}: another process does\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not path.exists()
    path.write_text("precious")
    other = run("serve", "--unix", str(path))
    assert other.returncode == 1
    assert other.stderr == f"wsframe serve: cannot listen on {path}: there is a file that is no socket\n"
    assert path.read_text() == "precious"


@full
def test_its_unix_socket_has_the_mode_and_the_owner_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    owner = f"{os.geteuid()}:{os.getegid()}"
    with serving("--unix", str(path), "--unix-mode", "604", "--unix-owner", owner) as (process, address):
        assert address == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@full
@pytest.mark.skipif(os.geteuid() == 0, reason="root may give it to anybody")
def test_an_owner_that_it_may_not_be_given_to_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    process = run("serve", "--unix", str(path), "--unix-owner", "0")
    assert process.returncode == 1
    assert process.stderr == f"wsframe serve: cannot listen on {path}: only root may give it to this owner\n"
    assert not path.exists()


@full
def test_a_host_that_does_not_exist_is_told_in_one_line() -> None:
    process = run("serve", "--host", "nowhere.invalid", "--port", "0")
    assert process.returncode == 1
    assert process.stderr.startswith("wsframe serve: cannot listen on nowhere.invalid port 0: ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["serve", "--port", "x"], "'x' is not a valid integer"),
        (["serve", "--port", "65536"], "65536 is not in the range 0<=x<=65535"),
        (["serve", "--certificate", "/nowhere"], "'/nowhere' does not exist"),
        (["serve", "--key", __file__], "--key goes with --certificate"),
        (["serve", "--unix", "/tmp/x", "--port", "1"], "--unix goes without --host and --port"),
        (["serve", "--unix-mode", "660"], "--unix-mode and --unix-owner go with --unix"),
        (["serve", "--unix", "/tmp/x", "--unix-mode", "rw"], "'rw' is not octal, as 660 is"),
        (["serve", "--unix", "/tmp/x", "--unix-mode", "1660"], "unix_mode must be from 0 to 0o777"),
        (["serve", "--unix", "/tmp/x", "--unix-owner", "no such"], "there is no user 'no such'"),
    ],
)
def test_wrong_arguments_exit_with_2_and_say_what_is_wrong(arguments: list[str], problem: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_process_exits_with_2_when_its_arguments_are_wrong() -> None:
    process = run("dance")
    assert process.returncode == 2
    assert "dance" in process.stderr


def test_help_teaches_by_examples() -> None:
    manual = invoke("--help").stdout
    assert invoke("-h").stdout == manual
    assert "  serve " in run("--help").stdout
    for subcommand in ("serve", "connect", "decode", "bench"):
        assert f"  {subcommand} " in manual
        result = invoke(subcommand, "--help")
        assert result.exit_code == 0
        examples = re.findall(rf"^ .*\bwsframe {subcommand}.*$", result.stdout, re.MULTILINE)
        assert len(examples) > 2
        assert "exit" in result.stdout.lower()


def test_the_version_says_which_build_it_is() -> None:
    build = "compiled" if wsframe.compiled else "pure Python"
    assert run("--version").stdout.startswith(f"wsframe {version('wsframe')} ({build}, ")


@pytest.mark.parametrize(
    "missing", ["click", pytest.param("rich", marks=full), pytest.param("dpkt", marks=full)]
)
def test_without_its_extra_it_says_what_to_install(missing: str) -> None:
    # None in sys.modules stands for what cannot be imported.
    program = f"import sys; sys.modules[{missing!r}] = None; from wsframe.cli import main; sys.exit(main())"
    arguments = [sys.executable, "-W", "error", "-c", program, "--version"]
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT)
    assert (process.returncode, process.stdout) == (2, "")
    needs = f"wsframe: this command needs {missing}, which is not installed"
    assert process.stderr == f"{needs}: pip install 'wsframe[cli]'\n"


@full
def test_the_benchmarks_are_found_in_the_repository() -> None:
    process = run("bench", "--list", cwd=ROOT)
    assert process.returncode == 0, process.stderr
    assert "decode" in process.stdout
    assert run("bench", "--only", "no such row", cwd=ROOT).returncode == 2  # as python -m benchmarks says


@full
def test_without_the_benchmarks_it_says_how_to_get_them(tmp_path: Path) -> None:
    # An installed copy, in a project that has benchmarks of its own
    shutil.copytree(Path(wsframe.__file__).parent, tmp_path / "installed" / "wsframe")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit('not these')")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    process = run("bench", "--list", cwd=tmp_path, env=environment)
    assert (process.returncode, process.stdout) == (1, "")
    assert "run this in a copy of the repository" in process.stderr
    assert process.stderr.count("\n") == 1


# Standard output and standard error that cannot be written to


FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def run_with(*arguments: str, **streams: Any) -> tuple[int, str]:
    """Run the command, and return its exit status and what it says on the stream that is not given."""
    pipe = subprocess.PIPE
    streams = {"stdout": pipe, "stderr": pipe} | streams
    process = subprocess.run(
        command(*arguments), stdin=subprocess.DEVNULL, text=True, timeout=TIMEOUT, **streams
    )
    return process.returncode, (process.stdout or "") + (process.stderr or "")


@needs_full
def test_a_full_disk_is_blamed_for_what_cannot_be_written(tmp_path: Path, size: Any) -> None:
    frame, many = tmp_path / "frame", tmp_path / "many"
    frame.write_bytes(bytes.fromhex("8100"))
    many.write_bytes(bytes.fromhex("8100") * 1000)  # more than a buffer holds
    cases = [
        ("wsframe", 1, ["--version"]),
        ("wsframe decode", 2, ["decode", str(frame)]),
        ("wsframe decode", 2, ["decode", str(many)]),
        ("wsframe decode", 2, ["decode", "--json", str(many)]),
        ("wsframe serve", 1, ["serve", "--port", "0"]),
    ]
    more = [
        ("wsframe", 1, ["--help"]),
        ("wsframe", 1, ["connect", "--help"]),
        ("wsframe", 1, ["asgi", "--", "--help"]),
    ]
    for name, status, arguments in cases + size([], more):
        with FULL.open("w") as full_disk, case(arguments=arguments):
            told = f"{name}: cannot write to standard output: No space left on device\n"
            assert run_with(*arguments, stdout=full_disk) == (status, told)
            if size(False, True):
                assert run_with(*arguments, stdout=full_disk, stderr=full_disk) == (status, "")


def test_a_reader_that_has_gone_is_blamed_or_ends_it_silently(tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(bytes.fromhex("8100"))
    for status, told, arguments in (
        (1, "", ["--help"]),
        (-signal.SIGPIPE, "", ["decode", str(tmp_path / "frame")]),
        (1, "wsframe serve: cannot write to standard output: Broken pipe\n", ["serve", "--port", "0"]),
    ):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe, case(arguments=arguments):
            assert run_with(*arguments, stdout=pipe) == (status, told)


@needs_full
def test_what_cannot_be_told_on_standard_error_is_told_by_the_exit_status(tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(bytes.fromhex("8100"))
    for status, said, arguments in (
        (2, "", ["dance"]),
        (2, "", ["decode", str(tmp_path / "nothing")]),
        (1, "", ["connect", "ws://localhost:1/", "--unix", str(tmp_path / "nothing")]),
        (
            0,
            '       0  server  F---  TEXT          -              0  ""\n',
            ["decode", str(tmp_path / "frame")],
        ),
    ):
        with FULL.open("w") as full_disk, case(arguments=arguments):
            assert run_with(*arguments, stderr=full_disk) == (status, said)


@pytest.mark.skipif(os.name != "posix", reason="it needs a shell that closes its streams")
def test_nothing_goes_to_another_stream_than_the_one_that_is_closed(tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(bytes.fromhex("8100"))
    decode = ["decode", str(tmp_path / "frame")]
    connecting = ["connect", "ws://localhost:1/", "--unix", str(tmp_path / "nothing")]
    for closed, status, said, arguments in (
        (">&-", 2, "wsframe decode: standard output must be open\n", decode),
        (">&- 2>&-", 2, "", decode),
        ("2>&-", 1, "", connecting),
    ):
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(*arguments)]
        process = subprocess.run(shell, capture_output=True, text=True, timeout=TIMEOUT)
        assert (process.returncode, process.stdout + process.stderr) == (status, said), (closed, arguments)


@full
@needs_full
def test_the_benchmarks_blame_a_full_disk_too() -> None:
    with FULL.open("w") as full_disk:
        status, told = run_with("bench", "--list", stdout=full_disk, cwd=ROOT)
    assert (status, told) == (1, "wsframe: cannot write to standard output: No space left on device\n")
