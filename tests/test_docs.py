"""Every program of docs/fuzzing.md is a file of tests, and they pass; those of docs/server.md are servers."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wsframe.sync import connect

DOCS = Path(__file__).parents[1] / "docs"
PROGRAMS = re.findall(r"```python\n(.*?)```", (DOCS / "fuzzing.md").read_text(), re.DOTALL)


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 4


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_passes_its_own_tests(number: int, tmp_path: Path) -> None:
    file = tmp_path / "test_program.py"
    file.write_text(PROGRAMS[number])
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr


SERVERS = re.findall(r"```python\n(.*?)```", (DOCS / "server.md").read_text(), re.DOTALL)


def test_there_are_servers() -> None:
    assert len(SERVERS) == 2


@pytest.mark.parametrize("number", range(len(SERVERS)))
def test_a_server_serves_and_ends_when_it_is_told(number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert SERVERS[number].count("8001") == 1
    source = SERVERS[number].replace('"localhost", 8001', f'"127.0.0.1", {port}')
    with subprocess.Popen([sys.executable, "-W", "error", "-c", source]) as process:
        try:
            with connect_as_soon_as_it_listens(port, process) as websocket:
                websocket.send("x")
                assert websocket.recv(60) == "x"
                process.send_signal(signal.SIGTERM)
                assert list(websocket) == []
                assert (websocket.close_code, websocket.close_reason) == (1001, "the server restarts")
            assert process.wait(60) == 0
        finally:
            process.kill()


def connect_as_soon_as_it_listens(port: int, process: subprocess.Popen[bytes]):
    while process.poll() is None:
        try:
            return connect(f"ws://127.0.0.1:{port}/")
        except ConnectionRefusedError:
            continue
    raise AssertionError("the server has ended")
