"""examples/django_chat, and somebody who writes down what passes between it and the server.

    $ uvicorn channels_witness:application --ws wsframe.asgi:WebSocketProtocol

When a connection is over for the application, a line of JSON on stdout says what it has received there. Of
http://localhost:8000/tasks one gets the tasks that are left. tests/support/django_chat.py reads both.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from chat.asgi import application as chat

PATIENCE = 30  # seconds


def say(**what: object) -> None:
    print(json.dumps(what, default=repr), flush=True)


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await _witness(scope, receive, send)
    elif scope["path"] == "/tasks":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": "\n".join(await _tasks()).encode()})
    else:
        await chat(scope, receive, send)


async def _witness(scope: Any, receive: Any, send: Any) -> None:
    received: list[Any] = []
    # With ?late, the application has tried to send something before it receives that the client has gone.
    has_failed = asyncio.Event()
    if scope["query_string"] != b"late":
        has_failed.set()

    async def receive_it() -> Any:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            say(gone=scope["path"])
            await has_failed.wait()
        received.append(event)
        return event

    async def send_it(event: Any) -> None:
        try:
            await send(event)
        except OSError:
            has_failed.set()
            raise

    error = then = None
    try:
        await chat(scope, receive_it, send_it)
    except Exception as raised:
        error = repr(raised)
        raise
    finally:
        with suppress(RuntimeError):
            then = await receive()  # nothing follows websocket.disconnect
        say(path=scope["path"], received=received, then=then, error=error)


async def _tasks() -> list[str]:
    """Return the tasks that are left, beside the server's: those that do not end by themselves."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    tasks = {task for task in tasks if getattr(task.get_coro(), "__qualname__", "") != "Server.serve"}
    return [str(task) for task in (await asyncio.wait(tasks, timeout=PATIENCE))[1]] if tasks else []
