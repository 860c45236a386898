"""A chat in several processes, which exchange their messages over Redis. run.sh starts them.

python chat.py SOCKET        listen on a Unix socket; REDIS_URL in the environment says where Redis is
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from urllib.parse import unquote

from wsframe.aio import serve
from wsframe.hub import Hub

hub = Hub(os.environ.get("REDIS_URL", "redis://localhost"), slow="close")


async def chat(ws):
    name = unquote(ws.path.removeprefix("/chat/"))
    if not 0 < len(name) <= 20:
        await ws.close(4000, "choose another name")
        return
    await hub.subscribe(ws, "chat")
    try:
        await hub.publish("chat", f"{name} is here, in process {os.getpid()}")
        async for message in ws:
            try:
                await hub.publish("chat", f"{name}: {message}")
            except ConnectionError:  # Redis is away; the hub connects again by itself
                await ws.send("nobody has heard that")
    finally:
        with suppress(ConnectionError):
            await hub.publish("chat", f"{name} has left")


async def main():
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with hub, serve(chat, unix=sys.argv[1], max_message_size=1000):
        print("process", os.getpid(), "listens on", sys.argv[1], flush=True)
        await stop.wait()


asyncio.run(main())
