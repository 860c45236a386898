"""How the command speaks to a user: what a peer says never speaks to the terminal."""

from __future__ import annotations

import sys
from typing import IO, Any

import click
from rich.console import Console
from rich.text import Text

from ..frames import CloseCode

__all__ = ["Failure", "Printer", "Unusable", "close_name", "shorten", "visible"]


class Failure(click.ClickException):
    """End the command with 1, and one line that says why.

    Args:
        message: what went wrong, and what would help. What a peer said in it is made visible.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))
        self._command = click.get_current_context().command_path

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002
        """Print it (called by click)."""
        click.echo(f"{self._command}: {self.message}", err=True)


class Unusable(Failure):
    """End it with 2: what the user gave is the problem."""

    exit_code = 2


def visible(text: str) -> str:
    r"""Return text in which nothing is left that a terminal acts on, or that hides what is there.

    Control characters of both sets, line ends, marks that turn the direction of writing, invisible and
    unassigned characters and lone surrogates become escapes: ``\\n``, ``\\x1b``, ``\\u202e``.

    Args:
        text: what a peer said.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, length: int) -> str:
    """Return the first characters of a text, and say how many were left out.

    Args:
        text: any text.
        length: how many characters to show.
    """
    return text if len(text) <= length else f"{text[:length]}... ({len(text) - length} more)"


def close_name(code: int) -> str:
    """Name a status code (RFC 6455, section 7.4).

    Args:
        code: any number.
    """
    try:
        return CloseCode(code).name
    except ValueError:
        if 3000 <= code < 4000:
            return "registered by a library"
        return "private use" if 4000 <= code < 5000 else "not a status code"


class Printer:
    """Print lines: in colour on a terminal, elsewhere as plain text.

    Args:
        file: where to; None: to standard output.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        # Characters that the terminal's encoding has not are escaped, too.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # it is closed
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        self._console = Console(file=file)
        self.is_terminal = self._console.is_terminal

    def print(self, *parts: str | tuple[str, str]) -> None:
        """Print a line.

        Args:
            parts: texts, or pairs of a text and its style. None of them is markup.
        """
        if self.is_terminal:
            # Not Console.print(), which looks for markup, emojis and things to highlight.
            self._console.print(Text.assemble(*parts), soft_wrap=True, highlight=False, emoji=False)
        else:
            line = "".join(part if isinstance(part, str) else part[0] for part in parts)
            print(line.rstrip(), file=self._console.file)

    def flush(self) -> None:
        """Write what was printed."""
        self._console.file.flush()
