"""How the command speaks to a user. Nothing that a peer sends acts on the terminal."""

from __future__ import annotations

import sys
from typing import IO, Any

import click
import rich.text
from rich.console import Console

from ..inspector import visible

__all__ = ["Failure", "Printer", "Unusable", "shorten"]


class Failure(click.ClickException):
    """An error that ends the command with 1, after one line that says why.

    Args:
        message: what went wrong, and what would help. Text from a peer in it is made visible.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))
        self._command = click.get_current_context().command_path

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002
        """Print it (called by click)."""
        click.echo(f"{self._command}: {self.message}", err=True)


class Unusable(Failure):
    """An error that ends the command with 2: the user's input is the problem."""

    exit_code = 2


def shorten(text: str, length: int) -> str:
    """Return the first characters of a text, and say how many were left out.

    Args:
        text: any text.
        length: how many characters to show.
    """
    return text if len(text) <= length else f"{text[:length]}... ({len(text) - length} more)"


class Printer:
    """A printer of lines: in colour on a terminal, elsewhere as plain text.

    Args:
        file: where it prints; None: to standard output.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        # Characters that the terminal's encoding lacks are escaped, too.
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
            self._console.print(rich.text.Text.assemble(*parts), soft_wrap=True, highlight=False, emoji=False)
        else:
            line = "".join(part if isinstance(part, str) else part[0] for part in parts)
            print(line.rstrip(), file=self._console.file)

    def flush(self) -> None:
        """Write what was printed."""
        self._console.file.flush()
