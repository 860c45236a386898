"""The plugins that all test modules share."""

from __future__ import annotations

import signal

# A module stands before those that import it.
pytest_plugins = [
    "tests.support.tiers",
    "tests.support.core",
    "tests.support.peers",
    "tests.support.loops",
    "tests.support.leaks",
    "tests.support.adapters",
    "tests.support.asgi_site",
    "tests.support.redis_server",
]


def pytest_configure() -> None:
    # A shell that starts pytest in the background has SIGINT ignored, and so would the processes that tests
    # start: those that send it would wait until they time out.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
