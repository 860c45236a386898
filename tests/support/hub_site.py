"""What the tests of the hub share: a server whose connections stay open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.support.adapters import TIMEOUT
from wsframe.aio import WebSocket, connect, serve


class Site:
    """A server whose connections stay open, and the clients' ends of them."""

    def __init__(self) -> None:
        self.port = 0
        self.clients: list[WebSocket] = []
        self.websockets: asyncio.Queue[WebSocket] = asyncio.Queue()
        self.is_over = asyncio.Event()

    async def handler(self, websocket: WebSocket) -> None:
        self.websockets.put_nowait(websocket)
        await self.is_over.wait()

    async def open(self, count: int = 1, **options: object) -> list[tuple[WebSocket, WebSocket]]:
        """Open connections; return both ends of each, the server's first."""
        ends = []
        for _ in range(count):
            client = await connect(f"ws://127.0.0.1:{self.port}/", **options)
            self.clients.append(client)
            ends.append((await self.websockets.get(), client))
        return ends


@contextlib.asynccontextmanager
async def site(**options: object) -> AsyncIterator[Site]:
    here = Site()
    async with serve(here.handler, "127.0.0.1", 0, **options) as server:
        here.port = server.port
        yield here
        here.is_over.set()
        for client in here.clients:
            await client.close()


async def received(client: WebSocket, *messages: str | bytes) -> bool:
    """Tell whether these are the next messages."""
    return [await client.recv(TIMEOUT) for _ in messages] == list(messages)


async def settled(condition: Callable[[], object]) -> None:
    """Wait until Redis or a peer has done what nobody tells us of."""
    async with asyncio.timeout(TIMEOUT):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)
