"""The plugins that all test modules share."""

from __future__ import annotations

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
