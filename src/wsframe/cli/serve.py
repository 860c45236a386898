"""``wsframe serve``: an echo and chat server, with a page to try it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import compiled
from ..adapter.listeners import Address
from ..aio import WebSocket, broadcast
from ..aio import serve as aio_serve
from ..events import Request, Response
from .standard import Unwritable
from .terminal import Failure, Printer, Unusable

__all__ = ["Demo", "serve"]


class Demo:
    """The demo server: a page, an echo and a chat.

    Args:
        everywhere: ``/echo`` or ``/chat``, for a WebSocket on any path to be that; None: each has its path.
    """

    def __init__(self, everywhere: str | None = None) -> None:
        self._everywhere = everywhere
        self._page = files(__package__).joinpath("demo.html").read_bytes()
        self._chatters: set[WebSocket] = set()

    def process_request(self, request: Request) -> Response | None:
        """Serve the page at ``/``, and let WebSockets through to ``/echo`` and ``/chat``."""
        path = request.path.partition("?")[0]
        if request.is_upgrade:
            return (
                None
                if self._everywhere or path in ("/echo", "/chat")
                else Response(404, body=b"try /echo or /chat\n")
            )
        if path == "/":
            return Response(200, [("Content-Type", "text/html; charset=utf-8")], self._page)
        if path in ("/echo", "/chat"):
            return None  # which answers 426
        return Response(404, body=b"not found\n")

    async def handle(self, websocket: WebSocket) -> None:
        """Serve an open WebSocket."""
        if (self._everywhere or websocket.path).startswith("/echo"):
            await self._echo(websocket)
        else:
            await self._chat(websocket)

    async def _echo(self, websocket: WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def _chat(self, websocket: WebSocket) -> None:
        self._chatters.add(websocket)
        try:
            async for message in websocket:
                broadcast(self._chatters, message, slow="close")
        finally:
            self._chatters.discard(websocket)


class _Mode(click.ParamType):  # type: ignore[type-arg]
    name = "MODE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return int(value, 8)
        except ValueError:
            self.fail(f"{value!r} is not octal, as 660 is", param, ctx)


@click.command
@click.option("--echo", "everywhere", flag_value="/echo", help="Every path echoes.")
@click.option("--chat", "everywhere", flag_value="/chat", help="Every path is the chat.")
@click.option(
    "--host",
    metavar="HOST",
    default="localhost",
    show_default=True,
    help="Where to listen; 0.0.0.0: everywhere.",
)
@click.option(
    "--port",
    default=8001,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The TCP port; 0: any free one.",
)
@click.option(
    "--certificate",
    type=click.Path(exists=True, dir_okay=False),
    help="Serve https:// and wss:// with this certificate: a PEM file, with its chain.",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False),
    help="The certificate's key, if it stands in another PEM file.",
)
@click.option("--unix", type=click.Path(path_type=Path), help="Listen on a Unix socket at this path instead.")
@click.option(
    "--unix-mode",
    type=_Mode(),
    help="The permissions of the Unix socket, such as 660; by default what the umask leaves.",
)
@click.option("--unix-owner", metavar="USER[:GROUP]", help="The owner of the Unix socket.")
@click.pass_context
def serve(
    context: click.Context,
    everywhere: str | None,
    host: str,
    port: int,
    certificate: str | None,
    key: str | None,
    unix: Path | None,
    unix_mode: int | None,
    unix_owner: str | None,
) -> None:
    """Run an echo and a chat, with a page to try them.

    \b
    http://localhost:8001/       the page
    ws://localhost:8001/echo     sends back what it gets
    ws://localhost:8001/chat     sends what it gets to everybody there

    \b
    wsframe serve
    wsframe serve --echo --port 9000
    wsframe serve --host 0.0.0.0 --certificate cert.pem --key key.pem
    wsframe serve --unix /tmp/wsframe.sock
    wsframe serve --unix /run/wsframe.sock --unix-mode 660 --unix-owner :www-data

    Ctrl-C or SIGTERM ends it: it closes its connections, and exits with 0. It exits with 1 if it cannot
    listen, or cannot write to standard output, and with 2 if an option is wrong.
    """
    if key and not certificate:
        raise click.UsageError("--key goes with --certificate")
    if unix and any(
        context.get_parameter_source(name) is not ParameterSource.DEFAULT for name in ("host", "port")
    ):
        raise click.UsageError("--unix goes without --host and --port")
    if not unix and (unix_mode is not None or unix_owner is not None):
        raise click.UsageError("--unix-mode and --unix-owner go with --unix")
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            tls.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error.strerror
            raise Failure(f"cannot use {certificate} as certificate with its key: {reason}") from None
    address: dict[str, Any] = {"host": host, "port": port}
    where = f"{host} port {port}"
    if unix:
        address = {"unix": str(unix), "unix_mode": unix_mode, "unix_owner": unix_owner}
        where = str(unix)
    try:
        Address(**address)
    except ValueError as error:
        raise Unusable(str(error)) from None
    try:
        asyncio.run(_serve(Demo(everywhere), address, tls))
    except Unwritable as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot listen on {where}: {_explain(error, unix)}") from None


def _explain(error: OSError, unix: Path | None) -> str:
    if error.errno == errno.EADDRINUSE:
        if unix:
            return "another process does" if unix.is_socket() else "there is a file that is no socket"
        return "the port is in use; --port chooses another"
    if unix and error.errno == errno.EPERM:
        return "only root may give it to this owner"
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error)
    return os.strerror(error.errno)


async def _serve(demo: Demo, address: dict[str, Any], tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)  # a second one ends it at once

    for number in signals:
        with suppress(NotImplementedError):  # on Windows, where Ctrl-C still interrupts
            loop.add_signal_handler(number, interrupt)
    async with aio_serve(demo.handle, process_request=demo.process_request, ssl=tls, **address) as server:
        build = "compiled" if compiled else "pure Python"
        if "unix" in address:
            where = address["unix"]
        else:
            host = f"[{address['host']}]" if ":" in address["host"] else address["host"]
            where = f"{'https' if tls else 'http'}://{host}:{server.port}/"
        printer = Printer()
        printer.print(f"wsframe ({build}) is serving at ", (where, "bold"), "  Stop it with Ctrl-C.")
        printer.flush()
        await stop.wait()
