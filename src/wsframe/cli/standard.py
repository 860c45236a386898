"""Standard output and standard error, and what happens when they cannot be written to.

standard output   an error is an ``Unwritable``: no command takes it for an error of its network or file
standard error    an error is ignored: there is nobody left to tell, and the exit status still tells it
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Unwritable", "guarded"]


class Unwritable(OSError):
    """An error of standard output: the disk is full, or its reader has gone."""

    def __str__(self) -> str:
        return f"cannot write to standard output: {self.strerror}"


class _Output(io.FileIO):
    has_failed = False
    is_over = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.is_over:
                return len(data)
            self.has_failed = True
            raise Unwritable(error.errno, error.strerror) from error


class _Errors(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


@contextmanager
def guarded() -> Iterator[None]:
    """Replace standard output and standard error within the block.

    An ``Unwritable`` that leaves the block ends the process with 1. Terminals are not replaced.
    """
    streams = sys.stdout, sys.stderr
    output: _Output | None = None
    if _is_file(sys.stdout):
        output = _Output(sys.stdout.fileno(), "w", closefd=False)
        sys.stdout = _open(output, sys.stdout)
    if _is_file(sys.stderr):
        sys.stderr = _open(_Errors(sys.stderr.fileno(), "w", closefd=False), sys.stderr)
    try:
        try:
            yield
        finally:
            if output is not None and not output.has_failed:
                sys.stdout.flush()
    except Unwritable as error:
        print(f"wsframe: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        if output is not None:
            output.is_over = True  # Python writes what is left when it deletes the stream
        sys.stdout, sys.stderr = streams


def _is_file(stream: Any) -> bool:
    """Tell whether a standard stream has a file descriptor, and is not a terminal."""
    try:
        return stream is not None and stream.fileno() >= 0 and not stream.isatty()
    except OSError:  # it is in memory
        return False


def _open(raw: io.FileIO, stream: Any) -> io.TextIOWrapper:
    """Return a text stream for a file, with the settings of another one."""
    stream.flush()
    buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)  # python -u writes through
    return io.TextIOWrapper(
        buffer,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
