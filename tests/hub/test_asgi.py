"""hub: what ASGI applications subscribe is the connection below them, whatever is in between."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.adapters import TIMEOUT
from tests.support.extras import CLI, needs
from wsframe.sync import connect

pytestmark = [
    pytest.mark.usefixtures("leaks"),
    needs("uvicorn", "starlette", "channels", "django"),
]

APPLICATION = """
import contextlib

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from wsframe.hub import Hub, websocket_of

settings.configure()
hub = Hub()


class Consumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await hub.subscribe(websocket_of(self.scope), "chat")
        await self.send("subscribed")

    async def receive(self, text_data=None, bytes_data=None):
        await hub.publish("chat", text_data or bytes_data)


async def endpoint(websocket):
    await websocket.accept()
    await hub.subscribe(websocket_of(websocket.scope), "chat")
    await websocket.send_text("subscribed")
    async for text in websocket.iter_text():
        await hub.publish("chat", text)


async def subscribers(request):
    return PlainTextResponse(str(len(hub._topics._names)))


@contextlib.asynccontextmanager
async def lifespan(app):
    async with hub:
        yield


routes = [
    WebSocketRoute("/starlette", endpoint),
    Mount("/channels", Consumer.as_asgi()),
    Route("/subscribers", subscribers),
]
app = Starlette(routes=routes, lifespan=lifespan)
"""


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(["wsframe", "asgi"], id="wsframe asgi", marks=needs(*CLI)),
        pytest.param(
            ["uvicorn", "--ws", "wsframe.asgi:WebSocketProtocol"], id="uvicorn", marks=needs("click")
        ),
    ],
)
def test_starlette_and_channels_share_a_hub(server: list[str], tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", *server, "application:app", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr)
            port = next(found[1] for line in lines if (found := re.search(r"127\.0\.0\.1:(\d+) ", line)))
            uri = f"ws://127.0.0.1:{port}"
            with connect(f"{uri}/starlette") as one, connect(f"{uri}/channels/") as other:
                assert [one.recv(TIMEOUT), other.recv(TIMEOUT)] == ["subscribed"] * 2
                one.send("from Starlette")
                assert one.recv(TIMEOUT) == other.recv(TIMEOUT) == "from Starlette"
                other.send(b"from Channels")
                assert one.recv(TIMEOUT) == other.recv(TIMEOUT) == b"from Channels"
                assert subscribers(port) == "2"
            while subscribers(port) != "0":  # the server hears of the end on another connection
                pass
        finally:
            process.kill()


def subscribers(port: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/subscribers", timeout=TIMEOUT) as response:
        return str(response.read().decode())
