"""Many cases in one test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(case: object) -> Iterator[None]:
    """Name the case of a loop in the report of whatever fails within this block."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {case!r}")
        raise
