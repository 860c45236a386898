"""Nothing is left over after a test: no thread, no file, no complaint in a log."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.support.peers import TIMEOUT


def open_files() -> set[tuple[str, str]]:
    files = set()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):
            files.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return files


@pytest.fixture(scope="session")
def frozen() -> Iterator[None]:
    """Keep the collector from looking through the imported modules after each test.

    That takes longer than most tests.
    """
    gc.collect()
    if sys.implementation.name == "cpython":  # PyPy has no freeze()
        gc.freeze()
    yield
    if sys.implementation.name == "cpython":
        gc.unfreeze()


@pytest.fixture
def leaks(frozen: None, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that a test leaves no thread, no file and no complaint behind. Expected ones it clears."""
    files, threads = open_files(), set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), thread
    gc.collect()
    assert not open_files() - files
    assert [record.getMessage() for record in caplog.get_records("call")] == []


@pytest.fixture
def spawn(leaks: None) -> Iterator[Callable[..., Future[Any]]]:
    """Run functions in threads: ``spawn(function, *args)`` returns a Future."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit
