"""Every program of docs/client.md runs, and says hello to an echo server."""

from __future__ import annotations

import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import trustme

from tests.support.paths import DOCS
from tests.support.programs import command, programs
from wsframe.sync import serve

PROGRAMS = programs(DOCS / "client.md")


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 6


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_says_hello(number: int, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def echo(ws):
        for message in ws:
            ws.send(message)

    program = PROGRAMS[number]
    tls = context if "wss://" in program else None
    with serve(echo, "localhost", 0, ssl=tls, subprotocols=["chat"]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        run = subprocess.run(
            command(program, server.port), cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        server.close()
        thread.join()
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["Hello!", *(["1000"] if "close_code" in program else [])]
