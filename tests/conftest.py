"""What the test modules share."""

from __future__ import annotations

from typing import NamedTuple

import pytest

# A module stands before those that import it.
pytest_plugins = [
    "tests.support.tiers",
    "tests.support.adapters",
    "tests.support.asgi_site",
    "tests.support.redis_server",
]


class Reading(NamedTuple):
    """A way to read a sample: whole, octet by octet, or with trailing octets that must be left alone."""

    way: str

    def cut(self, sample: bytes) -> list[bytes]:
        if self.way == "octet by octet":
            return [sample[i : i + 1] for i in range(len(sample))]
        return [sample]

    def trailing(self, octets: bytes) -> bytes:
        return octets if self.way == "with trailing octets" else b""


@pytest.fixture(params=["whole", "octet by octet", "with trailing octets"])
def reading(request: pytest.FixtureRequest) -> Reading:
    return Reading(request.param)
