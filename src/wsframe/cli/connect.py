"""``wsframe connect``: talk to a server, by hand on a terminal or by pipes in a script."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import socket
import ssl
import sys
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from http import HTTPStatus
from typing import Any

import click

from ..adapter.session import CLEAN_CODES
from ..aio import WebSocket
from ..aio import connect as aio_connect
from ..connection import Connection, Role, State
from ..deflate import DEFAULT
from ..errors import ConnectionClosed, HandshakeFailed, HandshakeRejected, LocalProtocolError
from ..events import Close
from ..inspector import close_name, visible
from ..uri import parse_uri
from .streams import ENCODINGS, Lines, LineSource, MessageSink, Pipe, Screen, prompt
from .terminal import Failure, Unusable, shorten

__all__ = ["connect"]

_NORMAL = Close(1000)
_QUIET = 0.5  # seconds without a message, after an answer: then it is all that comes
_HELP = """\
what you type goes out as text
/binary HEX             sends bytes: /binary 00 ff
/ping                   shows how long a round trip takes
/close [CODE] [REASON]  closes the connection; so do Ctrl-D and Ctrl-C, with 1000
//text                  sends "/text"
/help                   shows this"""
_TRIED = re.compile(r"\[Errno (\d+)\] Connect call failed")


def _split(_: click.Context, __: click.Parameter, headers: tuple[str, ...]) -> list[tuple[str, bytes]]:
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.BadParameter(f"{header!r} has no colon")
        pairs.append((name.strip(), os.fsencode(value.strip())))  # the bytes that were typed
    return pairs


class _Seconds(click.FloatRange):
    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


@click.command
@click.argument("uri")
@click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    callback=_split,
    multiple=True,
    help="Send this header; repeatable.",
)
@click.option("--origin", help="Send this Origin, as a browser would.")
@click.option("--subprotocol", "subprotocols", multiple=True, help="Offer this subprotocol; repeatable.")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@click.option(
    "--cacert", type=click.Path(exists=True, dir_okay=False), help="Trust the CAs in this PEM file."
)
@click.option("--insecure", is_flag=True, help="Do not check the server's certificate.")
@click.option(
    "--unix", type=click.Path(), metavar="PATH", help="Connect to this Unix socket; URI has the path."
)
@click.option(
    "--timeout",
    type=_Seconds(min=0, min_open=True),
    default=10,
    show_default=True,
    help="How long opening may take, and closing.",
)
@click.option(
    "--max-size",
    type=click.IntRange(min=0),
    metavar="BYTES",
    default=2**24,
    show_default=True,
    help="The largest message to receive.",
)
@click.option(
    "--wait",
    type=_Seconds(min=0),
    default=5,
    show_default=True,
    help="How long to receive after the end of standard input, at most; inf: until the server closes.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Close after N messages came.")
@click.option(
    "--binary",
    type=click.Choice(list(ENCODINGS)),
    default="base64",
    show_default=True,
    help="How a pipe gets binary messages; raw: without line ends.",
)
@click.option(
    "--show",
    type=click.IntRange(min=1),
    metavar="N",
    default=1000,
    show_default=True,
    help="How much of a message a terminal shows: characters, or bytes.",
)
def connect(
    uri: str,
    headers: list[tuple[str, bytes]],
    origin: str | None,
    subprotocols: list[str],
    no_compression: bool,
    cacert: str | None,
    insecure: bool,
    unix: str | None,
    timeout: float,
    max_size: int,
    wait: float,
    count: int | None,
    binary: str,
    show: int,
) -> None:
    """Talk to the server at URI: ws://host:port/path, or wss:// for TLS.

    On a terminal, what you type goes out, and what comes in is shown with its time and size; /help shows what
    else you can type. Nothing that a server sends acts on your terminal: control characters are shown.

    \b
    wsframe connect ws://localhost:8001/chat
    wsframe connect wss://example.com/feed --header 'Authorization: Bearer 1234' --subprotocol v2.feed

    In a pipe, each line of standard input goes out as a text message, and each message goes to standard
    output as a line; all else goes to standard error.

    \b
    echo hello | wsframe connect ws://localhost:8001/echo
    wsframe connect wss://example.com/feed --wait inf < /dev/null | jq .price
    generate | wsframe connect ws://localhost:8001/echo --count 100 > answers

    After the end of standard input it waits for an answer, and closes when nothing more has come for half a
    second; or after N messages (--count), or when the time is up (--wait), whichever is first.

    \b
    Exit codes
      0  closed cleanly: with 1000, 1001 or no code, or as you asked
      1  could not connect
      2  wrong usage, or input that is not UTF-8
      3  closed with another code, failed, or lost; or messages could not be written
    """
    options: dict[str, Any] = {
        "additional_headers": headers,
        "origin": origin,
        "subprotocols": subprotocols,
        "unix": unix,
        "open_timeout": timeout,
        "close_timeout": timeout,
        "max_message_size": max_size,
        "compression": None if no_compression else DEFAULT,
    }
    try:
        address = parse_uri(uri)
        if address.secure:
            options["ssl"] = _tls(cacert, insecure)
        elif cacert or insecure:
            raise click.UsageError("--cacert and --insecure go with wss:// addresses")
        connecting = aio_connect(uri, **options)
    except (LocalProtocolError, ValueError) as error:
        raise Unusable(str(error)) from None
    if sys.stdin is None or sys.stdout is None:
        raise Unusable("standard input and output must be open; < /dev/null says nothing")
    # Without the password that may stand in it
    where = f"{'wss' if address.secure else 'ws'}://{address.host_header}{address.resource_name}"
    dialogue = _Dialogue(where, Screen(show) if sys.stdout.isatty() else Pipe(binary), wait, count)
    try:
        code = asyncio.run(_run(where, connecting, dialogue))
    except KeyboardInterrupt:  # before it is open, or for the second time
        code = 3 if dialogue.is_open else 1
    raise SystemExit(code)


def _tls(cacert: str | None, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError as error:
        raise Unusable(f"cannot read the CAs in {cacert}: {error.reason or error}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _run(where: str, connecting: Any, dialogue: _Dialogue) -> int:
    try:
        websocket: WebSocket = await connecting
    except HandshakeFailed as error:
        raise Failure(_explain_handshake(error)) from None
    except OSError as error:  # TimeoutError is one, and so are ssl.SSLError and socket.gaierror
        raise Failure(f"cannot connect to {where}: {_explain(error)}") from None
    except ImportError as error:  # what a proxy needs, which says what to install
        raise Failure(str(error)) from None
    return await dialogue.run(websocket)


# What can go wrong


def _explain_handshake(error: HandshakeFailed) -> str:
    if not isinstance(error, HandshakeRejected):
        return f"the server does not speak WebSocket: {error}"
    response = error.response
    with suppress(ValueError):
        phrase = HTTPStatus(response.status).phrase
        location = response.headers.get("location")
        body = response.body.decode("utf-8", "replace").strip().partition("\n")[0]
        more = f"see {location}" if location else shorten(body, 200)
        return f"the server answered {response.status} {phrase}" + (f": {more}" if more else "")
    return f"the server answered {response.status}"


def _explain(error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted: {error.verify_message}"
                " (--cacert FILE trusts a CA, --insecure does not check)"
            )
        case ssl.SSLError() if re.search("wrong.version.number|http.request", str(error), re.IGNORECASE):
            return "the server does not speak TLS; perhaps it is a ws:// address"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case socket.gaierror():
            return f"no such host ({error.strerror})"
        case TimeoutError(errno=None):
            return "it took too long (--timeout SECONDS waits longer)"
    # asyncio tells of each address that it has tried, but not why.
    numbers = set(_TRIED.findall(str(error)))
    if numbers:
        return ", ".join(os.strerror(int(number)) for number in sorted(numbers))
    return str(error.strerror or error)


# The dialogue


class _Dialogue:
    """A dialogue of the user, who sends lines, and a peer, which sends messages, until one of them ends it.

    Args:
        where: the address.
        output: the output for messages.
        wait: how many seconds to receive after the end of a pipe.
        count: how many messages to receive; None: any number.
    """

    def __init__(self, where: str, output: MessageSink, wait: float, count: int | None) -> None:
        self._where = where
        self._output = output
        self._wait = wait
        self._count = count
        self.is_open = False
        self._heard = asyncio.Event()  # a message came, since the last line went out
        self._is_showing = False  # and is on its way to the user
        self._pings: set[asyncio.Task[None]] = set()
        self._websocket: WebSocket

    async def run(self, websocket: WebSocket) -> int:
        """Return the exit code."""
        self._websocket = websocket
        self.is_open = True
        is_terminal = sys.stdin.isatty()
        is_dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
        source: AbstractAsyncContextManager[LineSource] = nullcontext(Lines(sys.stdin.fileno()))
        if is_terminal and isinstance(self._output, Screen) and not is_dumb:
            source = prompt()
        stop = self._catch_signals()
        self._greet(is_terminal)
        async with source as lines:
            receiving = asyncio.create_task(self._receive())
            talking = asyncio.create_task(self._type(lines) if is_terminal else self._pipe(lines))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((receiving, talking, stopping), return_when=asyncio.FIRST_COMPLETED)
            await lines.end()
            try:
                close = await _result(talking) or _NORMAL
            except Unusable:
                await websocket.close()
                raise
            return await self._end(close, receiving, stopping)

    def _greet(self, is_terminal: bool) -> None:
        websocket = self._websocket
        agreed = [f"subprotocol {websocket.subprotocol}"] if websocket.subprotocol else []
        assert websocket.response is not None
        if websocket.response.headers.get("sec-websocket-extensions"):
            agreed.append("compressed")
        more = f" ({', '.join(agreed)})" if agreed else ""
        if is_terminal:
            more += "; /help shows what you can type"
        self._output.say((f"connected to {self._where}{visible(more)}", "dim"))

    def _catch_signals(self) -> asyncio.Event:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        signals = (signal.SIGINT, signal.SIGTERM)

        def interrupt() -> None:
            stop.set()
            for number in signals:
                loop.remove_signal_handler(number)  # a second one ends it at once

        for number in signals:
            with suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, interrupt)
        return stop

    async def _end(self, close: Close, receiving: asyncio.Task[None], stopping: asyncio.Task[Any]) -> int:
        """Close the connection, if it is open, and return the exit code."""
        websocket = self._websocket
        is_ours = websocket.state is State.OPEN
        await websocket.close(close.code, close.reason)
        # What came before the end is still for the user, unless he does not want to wait for it.
        await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (receiving, stopping, *self._pings):
            task.cancel()
        problem = ""
        try:
            await receiving
        except (asyncio.CancelledError, BrokenPipeError):
            pass  # that nobody reads any more is no error
        except OSError as error:
            problem = f"cannot write to standard output: {error.strerror}"
        try:
            while True:
                await websocket.recv()
        except ConnectionClosed as closed:
            ending = closed
        is_expected = ending.code in CLEAN_CODES or (is_ours and ending.code == close.code)
        is_fine = ending.clean and is_expected
        how = "closed" if ending.clean else "lost or failed"
        reason = f": {visible(ending.reason)}" if ending.reason else ""
        self._output.say(
            (f"{how}: {ending.code} {close_name(ending.code)}{reason}", "dim" if is_fine else "bold red")
        )
        if problem:
            self._complain(problem)
        return 0 if is_fine and not problem else 3

    # Messages in

    async def _receive(self) -> None:
        received = 0
        with suppress(ConnectionClosed):
            while self._count is None or received < self._count:
                message = await self._websocket.recv()
                received += 1
                self._heard.set()
                self._is_showing = True
                await self._output.message(message)
                self._is_showing = False

    # Lines out

    async def _pipe(self, lines: LineSource) -> None:
        """Send each line, and wait for the peer's answers."""
        while (line := await lines.line()) is not None:
            self._heard.clear()
            await self._websocket.send(line)
        if math.isinf(self._wait):
            await asyncio.Event().wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                await self._heard.wait()
                while self._heard.is_set() or self._is_showing:
                    self._heard.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_QUIET):
                            await self._heard.wait()

    async def _type(self, lines: LineSource) -> Close | None:
        """Send each line, or do what it says, and return how the user wants it to end."""
        while (line := await lines.line()) is not None:
            try:
                if line.startswith("/") and not line.startswith("//"):
                    if close := await self._command(line):
                        return close
                elif line:
                    await self._websocket.send(line[1:] if line.startswith("//") else line)
            except (LocalProtocolError, ValueError) as problem:
                self._complain(str(problem))
        return None

    async def _command(self, line: str) -> Close | None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/help":
                self._output.say((_HELP, "dim"))
            case "/binary":
                await self._websocket.send(_parse_hex(rest))
            case "/ping":
                task = asyncio.create_task(self._ping())  # the user can type on meanwhile
                self._pings.add(task)
                task.add_done_callback(self._pings.discard)
            case "/close":
                return _close(rest)
            case _:
                self._complain(f"there is no {name}; /help shows what there is, /{line} sends it")
        return None

    async def _ping(self) -> None:
        with suppress(ConnectionClosed):
            seconds = await self._websocket.ping()
            self._output.say((f"pong after {1000 * seconds:.3f} ms", "dim"))

    def _complain(self, problem: str) -> None:
        self._output.say((visible(problem), "red"))


def _parse_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r} is not hexadecimal; write /binary 00 ff") from None


def _close(text: str) -> Close:
    """Return what ``/close`` asks for, if it can be sent."""
    code, _, reason = text.partition(" ")
    if code and not code.isdecimal():
        raise ValueError(f"{code!r} is not a status code; write /close 1000 reason")
    close = Close(int(code), reason.strip()) if code else Close(1000)
    Connection(Role.CLIENT).send_close(close.code, close.reason)
    return close


async def _result(task: asyncio.Task[Close | None]) -> Close | None:
    """Return what a task returned, after ending it; a connection that ended under it is no news."""
    task.cancel()
    with suppress(asyncio.CancelledError, ConnectionClosed):
        return await task
    return None
