"""The Autobahn testsuite, strict: both roles, both adapters. NON-STRICT counts as failed.

pytest runs the short sections where `wstest` is found: in $WSTEST, on the PATH, or in .venv-autobahn/bin. By
hand, with any sections:

    python tests/autobahn/test_autobahn.py 1 2 3 4 5 6 7 9 10
    python tests/autobahn/test_autobahn.py --side "aio servers"

It prints a row for each side; `make autobahn` prints the table of both builds.

`wstest` runs on Python 2.7: `virtualenv .venv-autobahn`, `.venv-autobahn/bin/pip install autobahntestsuite`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wsframe import ConnectionClosed, Deflate, aio, compiled, sync

ALL = ("1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13")
SHORT = ("1", "2", "3", "4", "5", "6", "7", "10")
# Of the long sections on compression, the shortest messages.
COMPRESSED = ("12.1.1", "12.2.2", "13.1.1", "13.2.2", "13.3.1", "13.4.2", "13.5.1", "13.6.2", "13.7.1")
# Section 9 sends 16 MiB; sections 12 and 13 are about compression, of short messages as well.
OPTIONS = {"max_message_size": 2**24, "compression": Deflate(threshold=0)}
BUILD = "compiled" if compiled else "pure"
HOME = Path(__file__).parents[2] / ".venv-autobahn/bin/wstest"
WSTEST = os.environ.get("WSTEST") or shutil.which("wstest") or (str(HOME) if HOME.exists() else None)

pytestmark = [
    pytest.mark.skipif(WSTEST is None, reason="wstest, the Autobahn testsuite, is not installed"),
    pytest.mark.timeout(300),
]


# Our servers


@contextlib.contextmanager
def aio_server() -> Iterator[int]:
    async def echo(websocket: aio.WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    port: list[int] = []
    listening = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        async with aio.serve(echo, "127.0.0.1", 0, **OPTIONS) as server:
            port.append(server.port)
            listening.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    listening.wait()
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextlib.contextmanager
def sync_server() -> Iterator[int]:
    def echo(websocket: sync.WebSocket) -> None:
        for message in websocket:
            websocket.send(message)

    with sync.serve(echo, "127.0.0.1", 0, **OPTIONS) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.port
        finally:
            server.close()
            thread.join()


# Our clients


def aio_client(uri: str) -> str | None:
    async def run() -> str | None:
        message = None
        async with aio.connect(uri, **OPTIONS) as websocket:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = await websocket.recv()
                    if "/runCase" in uri:
                        await websocket.send(message)
        return message if isinstance(message, str) else None

    return asyncio.run(run())


def sync_client(uri: str) -> str | None:
    message = None
    with (
        sync.connect(uri, **OPTIONS) as websocket,
        contextlib.suppress(ConnectionClosed),
    ):
        while True:
            message = websocket.recv()
            if "/runCase" in uri:
                websocket.send(message)
    return message if isinstance(message, str) else None


SERVERS = {"aio": aio_server, "sync": sync_server}
CLIENTS = {"aio": aio_client, "sync": sync_client}


# The testsuite


def spec(directory: Path, sections: tuple[str, ...], **more: object) -> tuple[str, str, str]:
    path = directory / "spec.json"
    cases = [section if section.count(".") == 2 else f"{section}.*" for section in sections]
    options = {"outdir": str(directory / "reports"), "cases": cases, "exclude-cases": [], **more}
    path.write_text(json.dumps(options))
    assert WSTEST is not None
    return WSTEST, "-s", str(path)


def run_fuzzing_client(directory: Path, name: str, sections: tuple[str, ...]) -> None:
    with SERVERS[name]() as port:
        servers = [{"agent": name, "url": f"ws://127.0.0.1:{port}/"}]
        command = [*spec(directory, sections, servers=servers), "-m", "fuzzingclient"]
        subprocess.run(command, check=True, capture_output=True, cwd=directory)


def run_fuzzing_server(directory: Path, name: str, sections: tuple[str, ...]) -> None:
    client: Callable[[str], str | None] = CLIENTS[name]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"ws://127.0.0.1:{port}"
    # It has no web server, which would want a port of its own.
    command = [*spec(directory, sections, url=uri), "-m", "fuzzingserver", "--webport", "0"]
    with (directory / "wstest.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        wait_until_listening(port, process)
        count = client(f"{uri}/getCaseCount")
        for case in range(1, int(count or 0) + 1):
            client(f"{uri}/runCase?case={case}&agent={name}")
        client(f"{uri}/updateReports?agent={name}")
    finally:
        process.terminate()
        process.wait()


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            raise RuntimeError("wstest ended before it listened")
    raise TimeoutError("wstest does not listen")


RUNNERS = {"servers": run_fuzzing_client, "clients": run_fuzzing_server}


def results(role: str, name: str, sections: tuple[str, ...], directory: Path) -> dict[str, tuple[str, str]]:
    """Run sections, and return the two verdicts on each case: on what was said, and on the closing."""
    RUNNERS[role](directory, name, sections)
    (index,) = json.loads((directory / "reports/index.json").read_text()).values()
    return {case: (result["behavior"], result["behaviorClose"]) for case, result in index.items()}


def failures(verdicts: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return {case: both for case, both in verdicts.items() if not {"OK", "INFORMATIONAL"}.issuperset(both)}


@pytest.mark.parametrize("name", ["aio", "sync"])
@pytest.mark.parametrize("role", ["servers", "clients"])
def test_every_case_of_the_short_sections_is_ok(role: str, name: str, tmp_path: Path) -> None:
    verdicts = results(role, name, SHORT + COMPRESSED, tmp_path)
    assert len(verdicts) > 240 + len(COMPRESSED)
    assert failures(verdicts) == {}


# By hand


def row(side: str, verdicts: dict[str, tuple[str, str]]) -> str:
    """Return a row of the table: how many cases of each section were OK."""
    failed = failures(verdicts)
    cells = []
    for section in ALL:
        cases = [case for case in verdicts if case.partition(".")[0] == section]
        bad = sum(case in failed for case in cases)
        cells.append(f"{len(cases) - bad} of {len(cases)}" if bad else str(len(cases) or "-"))
    return f"| {BUILD} | {side} | {' | '.join(cells)} | {len(verdicts) - len(failed)} of {len(verdicts)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", default=ALL, help="sections or cases; by default all")
    sides = [f"{name} {role}" for role in RUNNERS for name in SERVERS]
    parser.add_argument("--side", action="append", choices=sides, help="by default all four")
    parser.add_argument("--head", action="store_true", help="print the head of the table as well")
    arguments = parser.parse_args()
    if arguments.head:
        print(f"| build | side | {' | '.join(ALL)} | all OK |\n|{'---|' * (len(ALL) + 3)}")
    status = 0
    for side in arguments.side or sides:
        name, role = side.split()
        with tempfile.TemporaryDirectory() as directory:
            verdicts = results(role, name, tuple(arguments.sections), Path(directory))
        print(row(side, verdicts), flush=True)
        for case, both in failures(verdicts).items():
            status = 1
            print(f"{BUILD} {side}, case {case}: {', '.join(both)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
