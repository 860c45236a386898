"""Cases: many of them in one test, where a test for each would cost more and say no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(name: object) -> Iterator[None]:
    """Name the case in the message of a failure."""
    try:
        yield
    except BaseException as failure:  # pytest.raises() fails with one that is no Exception
        failure.add_note(f"in the case {name!s}")
        raise
