"""Starlette: an echo, and rooms: what a client says is sent to all clients in its room.

With REDIS_URL in the environment all processes share the rooms: then run it with --workers 4.
"""

import os
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from wsframe.hub import Hub, websocket_of


@asynccontextmanager
async def lifespan(app):
    async with Hub(os.environ.get("REDIS_URL")) as hub:
        yield {"hub": hub}


async def home(request):
    return PlainTextResponse("WebSockets are at /echo and /rooms/{room}\n")


async def echo(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def room(websocket):
    name, hub = websocket.path_params["room"], websocket.state.hub
    if name == "secret":
        await websocket.send_denial_response(PlainTextResponse("you are not invited\n", 403))
        return
    await websocket.accept()
    await hub.subscribe(websocket_of(websocket.scope), name)  # until it is closed
    async for text in websocket.iter_text():
        await hub.publish(name, text)


app = Starlette(
    routes=[Route("/", home), WebSocketRoute("/echo", echo), WebSocketRoute("/rooms/{room}", room)],
    lifespan=lifespan,
)
