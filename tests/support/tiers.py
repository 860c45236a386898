"""The three tiers of the tests, and the knob that chooses between them.

    make test       the tests without the marker ``full``, at small sizes
    make test-all   ``pytest --all``: every test, at the sizes that found bugs
    make verify     what takes hours: Autobahn's cases on every side, fuzzing, load

A test that is slow, or that repeats another test in a second environment, takes the marker ``full``. So does
a single value of a parameter: ``pytest.param("uvloop", marks=full)``. A test that is worth running with less
data takes the fixture ``size``. Nothing else may ask which tier is running.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

full = pytest.mark.full
T = TypeVar("T")

EXAMPLES = {"quick": 40, "all": 200}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run every test, also those that take long")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs only with --all, or when its name is given")
    common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    for tier, examples in EXAMPLES.items():
        settings.register_profile(tier, max_examples=examples, derandomize=True, **common)
    examples = int(os.environ.get("HYPOTHESIS_EXAMPLES", "5000"))
    settings.register_profile("deep", max_examples=examples, print_blob=True, **common)
    # make fuzz asks for "deep": other examples in every run, and as many as it has time for.
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("all" if config.option.all else "quick"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.all or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Callable[[T, T], T]:
    """Return a function that chooses: ``size(small, large)`` is the large one with ``--all``."""
    is_large = request.config.option.all
    return lambda small, large: large if is_large else small
