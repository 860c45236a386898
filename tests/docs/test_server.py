"""Every program of docs/server.md serves, and ends when it is told."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.support.paths import DOCS
from tests.support.ports import reserved_port
from tests.support.programs import command, programs
from wsframe.sync import connect

SERVERS = programs(DOCS / "server.md")


def test_there_are_servers() -> None:
    assert len(SERVERS) == 2


@pytest.mark.parametrize("number", range(len(SERVERS)))
def test_a_server_serves_and_ends_when_it_is_told(number: int) -> None:
    assert SERVERS[number].count("8001") == 1
    source = SERVERS[number].replace('"localhost", 8001', '"127.0.0.1", 8001')
    with reserved_port() as port, subprocess.Popen(command(source, port)) as process:
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
