"""Every program of docs/server.md serves, and ends when it is told."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wsframe.sync import connect

DOCS = Path(__file__).parents[2] / "docs"
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
