"""An echo server: what a client sends comes back."""

import asyncio
import os

from wsframe.aio import serve


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def main():
    async with serve(echo, "localhost", int(os.environ.get("PORT", 8001))) as server:
        print(f"ws://localhost:{server.port}/", flush=True)
        await server.serve_forever()


asyncio.run(main())
