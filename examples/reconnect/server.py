"""Serve the page, echo what it sends, and close as it says: see README.md."""

import asyncio
import sys
from pathlib import Path

from wsframe import Response
from wsframe.aio import serve

PAGE = Path(__file__).with_name("page.html").read_bytes()


def page(request):
    is_page = not request.is_upgrade
    return Response(200, [("Content-Type", "text/html; charset=utf-8")], PAGE) if is_page else None


async def echo(ws):
    await ws.send("welcome")
    async for message in ws:
        match message.split(maxsplit=2):
            case ["close", code, *reason]:
                await ws.close(int(code), *reason)
            case _:
                await ws.send(message)


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8001
    async with serve(echo, "localhost", port, process_request=page) as server:
        print(f"http://localhost:{server.port}/", flush=True)
        await server.serve_forever()


asyncio.run(main())
