"""Every program of the README runs: each server with each client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.paths import ROOT
from tests.support.ports import reserved_port
from tests.support.programs import command, programs
from tests.support.tiers import full

PROGRAMS = programs(ROOT / "README.md")
AIO_SERVER, AIO_CLIENT, SYNC_SERVER, SYNC_CLIENT, SANS_IO_SERVER, SANS_IO_CLIENT = PROGRAMS[:6]
OPEN, STREAM, PREPARE, HUB = PROGRAMS[6:]

# The hub sends to everybody, and so to who has said it.
SERVERS = {"aio": AIO_SERVER, "sync": SYNC_SERVER, "sans-io": SANS_IO_SERVER, "hub": HUB}
CLIENTS = {"aio": AIO_CLIENT, "sync": SYNC_CLIENT, "sans-io": SANS_IO_CLIENT}
# The one client of each server in the quick tier
QUICK = {"aio": "aio", "sync": "sync", "sans-io": "sans-io", "hub": "aio"}


@contextmanager
def answers(server: str, client: str) -> Iterator[tuple[list[str], subprocess.Popen[bytes]]]:
    """Run a server and a client, and give what the client printed, and the server."""
    with reserved_port() as port:
        serving = subprocess.Popen(command(server, port))
        try:
            for _ in range(100):  # until the server listens
                asking = subprocess.run(command(client, port), capture_output=True, text=True, timeout=60)
                if "ConnectionRefusedError" not in asking.stderr:
                    break
            assert asking.stderr == ""
            yield asking.stdout.splitlines(), serving
        finally:
            serving.kill()
            serving.wait()


PAIRS = [
    pytest.param(server, client, marks=() if client == QUICK[server] else full)
    for server in SERVERS
    for client in CLIENTS
]


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_each_server_echoes_what_each_client_sends(server: str, client: str) -> None:
    with answers(SERVERS[server], CLIENTS[client]) as (lines, serving):
        assert lines[0] == "Hello!"
        if client == "sans-io":
            assert lines[1] == "closed with 1000"
        if server == "sans-io":
            assert serving.wait(60) == 0


def test_a_message_is_streamed() -> None:
    size = sum(len(f"line {number}\n") for number in range(50_000))
    with answers(AIO_SERVER, STREAM) as (lines, _):
        assert lines == [str(size)]


def test_a_message_is_prepared_for_many() -> None:
    with reserved_port() as port:
        process = subprocess.run(command(PREPARE, port), capture_output=True, text=True, timeout=60)
    assert process.stderr == ""
    assert process.stdout.splitlines() == [str(len('{"news": ""}') + 500)] * 3


def test_a_connection_can_start_at_open() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", OPEN], check=True)


def test_the_sans_io_server_has_at_most_15_lines() -> None:
    assert len([line for line in SANS_IO_SERVER.splitlines() if line.strip()]) <= 15
