"""FastAPI: an echo, and rooms for users with a token. A plain POST speaks to a room as well.

With REDIS_URL in the environment all processes share the rooms: then run it with --workers 4.
"""

import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, Depends, FastAPI, HTTPException, WebSocket
from fastapi.requests import HTTPConnection

from wsframe.hub import Hub, websocket_of

USERS = {"secret-of-ada": "Ada", "secret-of-bob": "Bob"}


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with Hub(os.environ.get("REDIS_URL")) as hub:
        yield {"hub": hub}


app = FastAPI(lifespan=lifespan)


def the_hub(connection: HTTPConnection) -> Hub:
    return connection.state.hub


def the_user(token: str = "") -> str:
    if token not in USERS:
        raise HTTPException(401, "who are you?")  # before accept: the handshake is answered with it
    return USERS[token]


SharedHub = Annotated[Hub, Depends(the_hub)]
User = Annotated[str, Depends(the_user)]


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@app.websocket("/rooms/{room}")
async def enter(websocket: WebSocket, room: str, user: User, hub: SharedHub) -> None:
    await websocket.accept()
    await hub.subscribe(websocket_of(websocket.scope), room)  # until it is closed
    async for text in websocket.iter_text():
        await hub.publish(room, f"{user}: {text}")


@app.post("/rooms/{room}", status_code=202)
async def announce(room: str, user: User, hub: SharedHub, text: Annotated[str, Body(embed=True)]) -> None:
    await hub.publish(room, f"{user} announces: {text}")
