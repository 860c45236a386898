"""``wsframe asgi``, as a process of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.adapters import TIMEOUT
from tests.support.extras import needs
from tests.support.tiers import full
from wsframe import ConnectionClosed
from wsframe.sync import connect

pytest.importorskip("click")
pytest.importorskip("dpkt")
pytest.importorskip("rich")
needs_uvicorn = needs("uvicorn")

APPLICATION = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    print("over:", event["code"], flush=True)
"""


def run(
    *arguments: str, code: str = "import wsframe.cli; wsframe.cli.main()"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, "asgi", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)


@contextlib.contextmanager
def serving(
    directory: Path, *arguments: str, pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[str]]:
    (directory / "application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "wsframe", "asgi", "application:app", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=directory, stdout=pipe, stderr=pipe, text=True, pass_fds=pass_fds
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if port := re.search(r"running on http://127\.0\.0\.1:(\d+) ", line):
            return int(port[1])
    pytest.fail("it did not start")


@needs_uvicorn
def test_it_serves_an_application_and_its_options_are_those_of_uvicorn(tmp_path):
    with serving(tmp_path, "--port", "0", "--root-path", "/below", "--header", "X-Name: value") as process:
        with connect(f"ws://127.0.0.1:{port_of(process)}/") as websocket:
            assert websocket.response is not None
            assert websocket.response.headers.get("x-name") == "value"
            assert websocket.response.headers.get("server") == "uvicorn"
            assert websocket.recv() == str(process.pid)
            websocket.send("text")
            websocket.send(b"bytes")
            assert [websocket.recv(), websocket.recv()] == ["text", b"bytes"]
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(TIMEOUT)
            assert closed.value.code == 1012
        output, errors = process.communicate(timeout=TIMEOUT)
    assert output == "over: 1012\n"
    assert '"WebSocket /below/" [accepted]' in errors
    assert process.returncode == -signal.SIGTERM


@full
@needs_uvicorn
def test_several_workers(tmp_path):
    # A socket that listens already: the workers may begin when they like.
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serving(
            tmp_path, "--workers", "2", "--fd", str(listener.fileno()), pass_fds=[listener.fileno()]
        ) as process,
    ):
        port = listener.getsockname()[1]
        pids = set()
        while len(pids) < 2:
            with connect(f"ws://127.0.0.1:{port}/") as websocket:
                pids.add(websocket.recv(TIMEOUT))
        assert str(process.pid) not in pids
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)


@full
@needs_uvicorn
def test_what_uvicorn_says_of_wrong_arguments_is_what_it_says():
    missing = run()
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "Usage: wsframe asgi [OPTIONS] APP" in missing.stderr
    unknown = run("module:app", "--no-such-option")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "--no-such-option" in unknown.stderr
    module = run("no_such_module:app")
    assert module.returncode > 0
    assert "no_such_module" in module.stderr


@full
@needs_uvicorn
def test_its_help_and_that_of_uvicorn():
    own, uvicorns = run("--help"), run("--", "--help")
    assert (own.returncode, uvicorns.returncode) == (0, 0)
    assert "wsframe asgi module:app --port 80 --workers 4" in own.stdout
    assert "--ws-max-queue" in uvicorns.stdout


def test_without_uvicorn_it_says_what_is_missing():
    code = "import sys; sys.modules['uvicorn'] = None; import wsframe.cli; wsframe.cli.main()"
    missing = run("module:app", code=code)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.rstrip().endswith("this command needs uvicorn: pip install 'wsframe[uvicorn]'")
