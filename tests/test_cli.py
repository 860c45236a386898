"""The command, as a process of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from wsframe import HandshakeRejected
from wsframe.sync import connect


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "wsframe", *arguments]


@contextlib.contextmanager
def demo() -> Iterator[tuple[subprocess.Popen[str], str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command("serve", "--port", "0"), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://(localhost:\d+)/", process.stdout.readline())
            assert address
            yield process, address[1]
        finally:
            process.kill()


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
        process = subprocess.run(command("serve", "--port", port), capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    assert process.stderr.startswith(f"wsframe serve: cannot listen on localhost port {port}: ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["serve", "--port", "x"], "must be 0 to 65535, not x"),
        (["serve", "--port", "65536"], "must be 0 to 65535, not 65536"),
    ],
)
def test_wrong_arguments_exit_with_2_and_say_what_is_wrong(arguments: list[str], problem: str) -> None:
    process = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert problem in process.stderr
