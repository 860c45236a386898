"""``wsframe serve``: an echo and chat server, with a page to try it.

http://localhost:8001/       the page
ws://localhost:8001/echo     sends back what it gets
ws://localhost:8001/chat     sends what it gets to everybody there
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING

from .. import compiled
from ..aio import WebSocket
from ..aio import serve as aio_serve
from ..events import Request, Response

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["Demo", "add_parser", "run"]

_OUTBOX = 64  # messages that may wait for a slow client of the chat


class Demo:
    """Be the demo server: a page, an echo and a chat."""

    def __init__(self) -> None:
        self._page = files(__package__).joinpath("demo.html").read_bytes()
        self._outboxes: set[asyncio.Queue[str | bytes | None]] = set()

    def process_request(self, request: Request) -> Response | None:
        """Serve the page at ``/``, and let WebSockets through to ``/echo`` and ``/chat``."""
        path = request.path.partition("?")[0]
        if request.is_upgrade:
            return None if path in ("/echo", "/chat") else Response(404, body=b"try /echo or /chat\n")
        if path == "/":
            return Response(200, [("Content-Type", "text/html; charset=utf-8")], self._page)
        if path in ("/echo", "/chat"):
            return None  # which answers 426
        return Response(404, body=b"not found\n")

    async def handle(self, websocket: WebSocket) -> None:
        """Serve an open WebSocket."""
        if websocket.path.startswith("/echo"):
            await self._echo(websocket)
        else:
            await self._chat(websocket)

    async def _echo(self, websocket: WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def _chat(self, websocket: WebSocket) -> None:
        # Each client has an outbox, so that a slow one holds up nobody else.
        outbox: asyncio.Queue[str | bytes | None] = asyncio.Queue(_OUTBOX)
        writer = asyncio.create_task(self._write(websocket, outbox))
        self._outboxes.add(outbox)
        try:
            async for message in websocket:
                for other in list(self._outboxes):
                    self._post(other, message)
        finally:
            self._outboxes.discard(outbox)
            writer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await writer

    def _post(self, outbox: asyncio.Queue[str | bytes | None], message: str | bytes) -> None:
        try:
            outbox.put_nowait(message)
        except asyncio.QueueFull:
            self._outboxes.discard(outbox)
            outbox.get_nowait()
            outbox.put_nowait(None)

    async def _write(self, websocket: WebSocket, outbox: asyncio.Queue[str | bytes | None]) -> None:
        while (message := await outbox.get()) is not None:
            await websocket.send(message)
        await websocket.close(1008, "too slow")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the subcommand."""
    parser = subparsers.add_parser(
        "serve",
        help="run an echo and chat server with a page to try it",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="localhost", help="where to listen (default: %(default)s)")
    parser.add_argument(
        "--port", default=8001, type=_port, help="the TCP port; 0: any free one (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, not {text}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Run the server until it is interrupted or terminated, and return the exit code."""
    try:
        asyncio.run(_serve(options.host, options.port))
    except OSError as error:
        print(f"wsframe serve: cannot listen on {options.host} port {options.port}: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(host: str, port: int) -> None:
    demo = Demo()
    async with aio_serve(demo.handle, host, port, process_request=demo.process_request) as server:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # on Windows, where Ctrl-C still interrupts
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        speed = "compiled" if compiled else "pure Python"
        print(
            f"wsframe ({speed}) is serving at http://{host}:{server.port}/  Stop it with Ctrl-C.", flush=True
        )
        await stop.wait()
