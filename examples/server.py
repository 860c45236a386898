"""A server as it runs in production: it obeys signals and systemd, and tells how it is.

python examples/server.py               listen on localhost, port 8001
python examples/server.py 0.0.0.0 80    listen somewhere else
systemctl start echo.socket             listen where systemd does: docs/server.md has the units

SIGTERM, SIGINT    take no new clients, close with 1001, and give the handlers 10 seconds; a second one
                   ends it at once
SIGUSR1            log who is connected
GET /healthz       200: it is there
GET /connections   who is connected, for whom ADMIN=name:password in the environment lets through
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys

from wsframe import Request, Response, basic_auth
from wsframe.aio import WebSocket, serve

GRACE = 10  # seconds
logger = logging.getLogger("echo")


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def inherited_sockets() -> list[socket.socket]:
    """Take the sockets that systemd has made for this process: they begin at file descriptor 3."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    return [socket.socket(fileno=fd) for fd in range(3, 3 + int(os.environ["LISTEN_FDS"]))]


def address() -> dict[str, object]:
    if sockets := inherited_sockets():
        return {"sock": sockets}
    host, port = sys.argv[1:] or ("localhost", os.environ.get("PORT", "8001"))
    return {"host": host, "port": int(port)}


class Pages:
    """What there is beside the WebSocket."""

    def __init__(self) -> None:
        name, _, password = os.environ.get("ADMIN", "").partition(":")
        self.administrators = {name: password} if password else {}
        self.for_administrators = basic_auth(
            self.administrators, realm="connections", process_request=lambda _: self.connections()
        )

    def process_request(self, request: Request) -> Response | None:
        if request.path == "/healthz":
            return Response(200, body=b"ok\n")
        if request.path == "/connections":
            return self.for_administrators(request)
        return None  # a WebSocket is accepted, and any other request gets 426

    def connections(self) -> Response:
        lines = [f"{ws.remote_address} {ws.path}\n" for ws in self.server.connections]
        return Response(200, body="".join(lines).encode())

    def log_connections(self) -> None:
        logger.info("%d connections", len(self.server.connections))
        for ws in self.server.connections:
            logger.info("%s %s", ws.remote_address, ws.path)


async def main() -> None:
    pages, loop, stop = Pages(), asyncio.get_running_loop(), asyncio.Event()
    server = pages.server = await serve(
        echo, **address(), process_request=pages.process_request, max_connections=10_000
    )
    loop.add_signal_handler(signal.SIGUSR1, pages.log_connections)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for sock in server.sockets:
        logger.info("listening on %s", sock.getsockname())
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)  # who is in a hurry signals again
    logger.info("closing %d connections", len(server.connections))
    await server.close(1001, "the server restarts", grace=GRACE)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("wsframe").setLevel(logging.WARNING)  # at INFO it logs who comes and goes
    asyncio.run(main())
