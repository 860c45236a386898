"""Every program of docs/hub.md does what its page says."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import wsframe.aio
from tests.support.adapters import TIMEOUT
from tests.support.extras import CLI, needs
from tests.support.paths import DOCS
from tests.support.ports import reserved_port
from tests.support.programs import programs
from tests.support.redis_server import RedisServer
from tests.support.tiers import full
from wsframe.sync import WebSocket, connect

ALONE, PATTERNS, OVER_REDIS, FOREIGN, ASGI = programs(DOCS / "hub.md")  # each is known here
[COMMAND] = re.findall(r"^\$ (redis-cli .*)$", (DOCS / "hub.md").read_text(), re.MULTILINE)
pytestmark = pytest.mark.usefixtures("leaks")


@contextmanager
def serving(source: str, redis: RedisServer | None = None) -> Iterator[Callable[[str], WebSocket]]:
    """Run a server, and give what connects to a path of it."""
    with reserved_port() as port:
        source = changed(source, '"localhost", 8001', f'"127.0.0.1", {port}')
        if redis is not None:
            source = changed(source, '"redis://localhost"', repr(redis.url))
        with subprocess.Popen([sys.executable, "-W", "error", "-c", source]) as process:

            def dial(path: str) -> WebSocket:
                deadline = time.monotonic() + TIMEOUT
                while time.monotonic() < deadline and process.poll() is None:
                    with suppress(ConnectionRefusedError):  # until it listens
                        return connect(f"ws://127.0.0.1:{port}{path}")
                raise AssertionError("it does not listen")

            try:
                yield dial
            finally:
                process.kill()


def changed(source: str, old: str, new: str) -> str:
    assert source.count(old) == 1, old
    return source.replace(old, new)


def subscribed(dial: Callable[[str], WebSocket], path: str) -> WebSocket:
    """Connect, and say something: who hears it is subscribed, and has heard nothing else."""
    websocket = dial(path)
    websocket.send("I am here")
    assert websocket.recv(TIMEOUT) == "I am here"
    return websocket


def test_people_chat_in_one_process() -> None:
    with serving(ALONE) as dial, ExitStack() as stack:
        one, two, three = (
            stack.enter_context(subscribed(dial, path)) for path in ("/lobby", "/lobby", "/cellar")
        )
        assert one.recv(TIMEOUT) == "I am here"  # two is
        one.send("Hello!")
        two.send(b"Hello to you!")
        assert {one.recv(TIMEOUT), one.recv(TIMEOUT)} == {"Hello!", b"Hello to you!"}
        assert {two.recv(TIMEOUT), two.recv(TIMEOUT)} == {"Hello!", b"Hello to you!"}
        three.send("the end")
        assert three.recv(TIMEOUT) == "the end"


@full
def test_people_chat_in_two_processes_until_redis_is_away(redis: RedisServer) -> None:
    foreign = changed(FOREIGN, 'host="localhost", port=6379', f'host="127.0.0.1", port={redis.port}')
    with ExitStack() as stack:
        people = []
        for _ in range(2):
            dial = stack.enter_context(serving(OVER_REDIS, redis))
            people.append(stack.enter_context(subscribed(dial, "/lobby")))
        one, two = people
        assert one.recv(TIMEOUT) == "I am here"  # two is
        one.send("Hello!")
        assert two.recv(TIMEOUT) == one.recv(TIMEOUT) == "Hello!"
        exec(foreign, {})
        for person in people:
            assert [person.recv(TIMEOUT), person.recv(TIMEOUT)] == ["Déjà vu", bytes([1, 2, 3])]
        command, *arguments = shlex.split(COMMAND)
        subprocess.run([command, "-p", str(redis.port), *arguments], check=True, stdout=subprocess.DEVNULL)
        assert one.recv(TIMEOUT) == two.recv(TIMEOUT) == "We close in ten minutes."
        redis.kill()
        try:
            for message in "lost", "again":
                one.send(message)
                answer = one.recv(TIMEOUT)
                assert re.match("nobody has heard that: (not published|it is not known whether)", answer)
        finally:
            redis.restart()


def test_a_dashboard_shows_what_matches() -> None:
    async def main() -> None:
        names: dict[str, Any] = {}
        exec(PATTERNS, names)
        async with (
            wsframe.hub.Hub() as names["hub"],
            wsframe.aio.serve(names["dashboard"], "127.0.0.1", 0) as server,
            wsframe.aio.connect(f"ws://127.0.0.1:{server.port}/") as client,
        ):
            while not names["hub"]._topics._patterns:
                await asyncio.sleep(0)
            for topic in "sensors.7.humidity", "sensors.7.temperature", "alarms", "alarms.7":
                await names["hub"].publish(topic, topic)
            assert [await client.recv(), await client.recv()] == ["sensors.7.temperature", "alarms"]

    asyncio.run(main())


@full
@needs("uvicorn", *CLI)
def test_an_asgi_application_publishes_and_subscribes(redis: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(changed(ASGI, '"redis://localhost"', repr(redis.url)))
    command = [sys.executable, "-m", "wsframe", "asgi", "module:app", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"127\.0\.0\.1:(\d+) ", line) for line in process.stderr)
            port = next(match[1] for match in found if match)

            def dial(path: str) -> WebSocket:
                return connect(f"ws://127.0.0.1:{port}{path}")

            with subscribed(dial, "/lobby") as one, subscribed(dial, "/lobby") as two:
                assert one.recv(TIMEOUT) == "I am here"  # two is
                for message in "", b"\0":
                    one.send(message)
                    assert one.recv(TIMEOUT) == two.recv(TIMEOUT) == message
            process.terminate()
            errors = process.stderr.read()
            assert "Application shutdown complete." in errors
            assert "Traceback" not in errors
        finally:
            process.kill()
