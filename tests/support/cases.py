"""Cases: many of them in one test, where a test for each would cost more and show no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(**values: object) -> Iterator[None]:
    """Add the case of a loop to the error that it raises, so that pytest shows which case failed."""
    try:
        yield
    except BaseException as error:
        shown = ((name, repr(value)) for name, value in values.items())
        error.add_note(
            "in the case "
            + ", ".join(f"{name}={text if len(text) <= 200 else text[:200] + '...'}" for name, text in shown)
        )
        raise
