"""The lines that ``wsframe connect`` reads, and the output that its messages go to.

    stdin   a terminal: prompt()   a pipe, a file, a dumb terminal: Lines
    stdout  a terminal: Screen     a pipe or a file: Pipe

None of them blocks the event loop, which has Pings to answer, and each can be cancelled.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import datetime
from typing import Any, Protocol

from ..inspector import visible
from .terminal import Printer, Unusable

__all__ = ["ENCODINGS", "LineSource", "Lines", "MessageSink", "Pipe", "Screen", "prompt"]

_READ_SIZE = 65536
_PIPE_BUF = 4096  # bytes that a writable pipe takes without waiting (POSIX: at least 512)

# How a binary message is written, and what ends it
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": lambda data: base64.b64encode(data) + b"\n",
    "hex": lambda data: data.hex().encode() + b"\n",
    "raw": lambda data: data,
}


class LineSource(Protocol):
    """A source of lines."""

    async def line(self) -> str | None:
        """Return the next line, without its end; None: there are no more."""

    async def end(self) -> None:
        """Ask for no more lines."""


class MessageSink(Protocol):
    """An output for messages, and for remarks to the user."""

    async def message(self, message: str | bytes) -> None:
        """Show a message that was received."""

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Tell the user something that is not a message."""


# Lines in


@asynccontextmanager
async def prompt() -> AsyncIterator[LineSource]:
    """Ask on a terminal, with history; what is printed meanwhile stands above what is being typed."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input import create_input
    from prompt_toolkit.patch_stdout import patch_stdout

    terminal = create_input()
    # While it prints, prompt_toolkit would have the terminal edit lines: a Ctrl-D would be lost there.
    terminal.cooked_mode = nullcontext  # type: ignore[method-assign]
    # raw: Screen has made visible what a peer said, and colours are our own.
    with _no_echo(), patch_stdout(raw=True):
        yield _Prompt(PromptSession("> ", input=terminal, interrupt_exception=EOFError))


@contextmanager
def _no_echo() -> Iterator[None]:
    """Keep what is typed between two prompts for the next one; Ctrl-C is a signal there."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield
        return
    fd = sys.stdin.fileno()
    attributes = termios.tcgetattr(fd)
    tty.setcbreak(fd, termios.TCSADRAIN)  # and lose nothing
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, attributes)


class _Prompt:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._asking: asyncio.Task[str] | None = None

    async def line(self) -> str | None:
        self._asking = asyncio.create_task(self._session.prompt_async())
        try:
            return await asyncio.shield(self._asking)
        except EOFError:  # Ctrl-D, Ctrl-C
            return None

    async def end(self) -> None:
        # Not by cancelling it: it may wait for an answer of the terminal, which must not end in its shell.
        asking = self._asking
        if asking is not None and not asking.done():
            if self._session.app.is_running:
                self._session.app.exit(exception=EOFError)
            else:  # it has not begun
                asking.cancel()
            await asyncio.wait((asking,))


class Lines:
    """The lines of UTF-8 that a file descriptor has.

    Args:
        fd: the descriptor of a pipe, a socket, a terminal or a file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()
        self._is_end = False
        self._number = 0

    async def line(self) -> str | None:
        """Return the next line, without its end; None: there are no more.

        Raises:
            Unusable: the line is not UTF-8.
        """
        while not self._lines and not self._is_end:
            self._feed(await _read(self._fd))
        if not self._lines:
            return None
        self._number += 1
        line = self._lines.popleft().removesuffix(b"\r")
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise Unusable(f"line {self._number} of standard input is not UTF-8") from None

    async def end(self) -> None:
        """Ask for no more lines."""

    def _feed(self, data: bytes) -> None:
        self._is_end = not data
        first, *others = data.split(b"\n")
        self._rest += first
        for other in others:
            self._lines.append(bytes(self._rest))
            self._rest = bytearray(other)
        if self._is_end and self._rest:  # the last line may have no end
            self._lines.append(bytes(self._rest))


async def _read(fd: int) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        await _ready(fd, loop.add_reader, loop.remove_reader)
    except (PermissionError, NotImplementedError):
        # epoll knows no files, which are always ready, and Windows no pipes.
        return await asyncio.to_thread(os.read, fd, _READ_SIZE)
    return os.read(fd, _READ_SIZE)


async def _write(fd: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            await _ready(fd, loop.add_writer, loop.remove_writer)
        except (PermissionError, NotImplementedError):
            size = await asyncio.to_thread(os.write, fd, view)
        else:
            size = os.write(fd, view[:_PIPE_BUF])
        view = view[size:]


async def _ready(
    fd: int, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]
) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(fd)


# Messages out


class Screen:
    """A terminal, on which messages are shown so that they do not act on it.

    Args:
        show: how many characters of a text message, or bytes of a binary one, to show.
    """

    def __init__(self, show: int) -> None:
        self._show = show
        self._printer = Printer()

    async def message(self, message: str | bytes) -> None:
        """Show a message with its time and size."""
        time = datetime.now().strftime("%H:%M:%S.%f")[:-3]
        if isinstance(message, str):
            size, kind, content = len(message.encode()), "text", visible(message[: self._show])
            left_out = len(message) - self._show
        else:
            size, kind, content = len(message), "binary", message[: self._show].hex(" ")
            left_out = size - self._show
        more = f"... ({left_out} more)" if left_out > 0 else ""
        self._printer.print(
            ("< ", "bold green"), (f"{time}  {kind} {size}  ", "dim"), (content, "default"), (more, "dim")
        )

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Tell the user something that is not a message."""
        self._printer.print(*parts)


class Pipe:
    """Standard output that is not a terminal: messages as they are, one a line. Remarks go to standard error.

    Args:
        encoding: how a binary message is written: base64, hex or raw, which adds no line end.
    """

    def __init__(self, encoding: str) -> None:
        self._encode = ENCODINGS[encoding]
        self._printer = None if sys.stderr is None else Printer(sys.stderr)

    async def message(self, message: str | bytes) -> None:
        """Write a message.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        data = message.encode() + b"\n" if isinstance(message, str) else self._encode(message)
        await _write(sys.stdout.fileno(), data)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Tell the user something that is not a message."""
        if self._printer is not None:  # else it is closed
            self._printer.print(*parts)
