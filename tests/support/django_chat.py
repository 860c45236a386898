"""examples/django_chat under uvicorn, as a process, and its visitors.

with site(REDIS_URL=redis.url) as chat:
    cookie = chat.enter("Ada")
    with chat.connect("/rooms/lobby/", cookie) as websocket: ...
    chat.ended("/rooms/lobby/")     # what the application has received on that connection, up to its end
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

from tests.support.adapters import TIMEOUT, Peer, request
from tests.support.paths import EXAMPLES
from wsframe import sync

HERE = Path(__file__).parent
EXAMPLE = EXAMPLES / "django_chat"


class Site:
    """The process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if running := re.search(r"Uvicorn running on http://127\.0\.0\.1:(\d+) ", line):
                self.port = int(running[1])
                return
        raise AssertionError("".join(self.said))

    # What the application has to say

    def hear(self, what: str) -> dict[str, Any]:
        """Read up to what has this in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if what in said:
                return said
        raise AssertionError(f"the server ended, and never said {what}")

    def ended(self, path: str) -> list[dict[str, Any]]:
        """Wait until a connection to this path is over for the application; return what it has received."""
        while (said := self.hear("path"))["path"] != path:
            pass
        assert said["then"] is None  # nothing follows websocket.disconnect
        assert said["error"] is None
        return said["received"]

    def tasks(self) -> str:
        """Return the tasks that are left."""
        with urlopen(f"http://localhost:{self.port}/tasks", timeout=TIMEOUT) as response:
            return response.read().decode()

    # Visitors

    def enter(self, name: str) -> str:
        """Enter a name on the page, as a browser does, and return the cookies."""
        opener = build_opener(cookies := HTTPCookieProcessor())
        url = f"http://localhost:{self.port}/"
        with opener.open(url, timeout=TIMEOUT) as page:
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
        assert token is not None
        form = {"name": name, "room": "lobby", "csrfmiddlewaretoken": token[1]}
        with opener.open(url, urlencode(form).encode(), timeout=TIMEOUT) as page:
            assert page.url == url + "rooms/lobby/"
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies.cookiejar)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def connect(self, path: str, cookie: str = "", **options: Any) -> sync.WebSocket:
        """Open a WebSocket, as one of the site's pages does."""
        headers = [("Cookie", cookie)] if cookie else []
        uri = f"ws://localhost:{self.port}{path}"
        return sync.connect(uri, additional_headers=headers, **{"origin": self.origin, **options})

    def open(self, path: str, cookie: str) -> Peer:
        """Open a connection that says what it is told."""
        peer = Peer(socket.create_connection(("127.0.0.1", self.port)), is_client=True)
        peer.send(request(f"Cookie: {cookie}", f"Origin: {self.origin}", path=path))
        assert peer.read_head().startswith(b"HTTP/1.1 101 "), peer.head
        return peer


@contextmanager
def site(*options: str, app: str = "channels_witness:application", **environment: str) -> Iterator[Site]:
    """Run uvicorn with these options and environment; it must end well, and without a complaint."""
    command = [sys.executable, "-W", "error", "-m", "uvicorn", app, "--ws", "wsframe.asgi:WebSocketProtocol"]
    variables = {name: os.environ[name] for name in os.environ if name not in ("REDIS_URL", "ALLOWED_HOSTS")}
    variables["PYTHONPATH"] = f"{EXAMPLE}{os.pathsep}{HERE}"
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-access-log", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**variables, "SECRET_KEY": "of all processes", **environment},
    )
    with process:
        try:
            chat = Site(process)
            yield chat
            process.terminate()
            _, complaints = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert re.findall("^(?!INFO: ).+", complaints, re.MULTILINE) == []
