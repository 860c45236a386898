"""What the tests of the core run with: both roles, and the three ways to read a sample."""

from __future__ import annotations

import pytest

from tests.support.core import READINGS, Reading
from wsframe import Role


@pytest.fixture(params=Role, ids=lambda role: role.value)
def role(request: pytest.FixtureRequest) -> Role:
    return request.param


@pytest.fixture(params=READINGS, ids=lambda reading: reading.way)
def reading(request: pytest.FixtureRequest) -> Reading:
    return request.param
