"""Every program of the README runs: each server with each client."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
AIO_SERVER, AIO_CLIENT, SYNC_SERVER, SYNC_CLIENT, SANS_IO_SERVER, SANS_IO_CLIENT, OPEN = PROGRAMS

SERVERS = {"aio": AIO_SERVER, "sync": SYNC_SERVER, "sans-io": SANS_IO_SERVER}
CLIENTS = {"aio": AIO_CLIENT, "sync": SYNC_CLIENT, "sans-io": SANS_IO_CLIENT}


def program(source: str, port: int) -> list[str]:
    assert source.count("8001") or source is OPEN
    return [sys.executable, "-W", "error", "-c", source.replace("8001", str(port))]


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", SERVERS)
def test_each_server_echoes_what_each_client_sends(server: str, client: str) -> None:
    port = free_port()
    serving = subprocess.Popen(program(SERVERS[server], port))
    try:
        for _ in range(100):  # until the server listens
            asking = subprocess.run(
                program(CLIENTS[client], port), capture_output=True, text=True, timeout=60
            )
            if "ConnectionRefusedError" not in asking.stderr:
                break
        assert asking.stderr == ""
        assert asking.stdout.splitlines()[0] == "Hello!"
        if client == "sans-io":
            assert asking.stdout.splitlines()[1] == "closed with 1000"
        if server == "sans-io":
            assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.wait()


def test_a_connection_can_start_at_open() -> None:
    subprocess.run(program(OPEN, 0), check=True)


def test_the_sans_io_server_has_at_most_15_lines() -> None:
    assert len([line for line in SANS_IO_SERVER.splitlines() if line.strip()]) <= 15
