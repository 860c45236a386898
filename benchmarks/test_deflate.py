"""Compression, under pytest-benchmark: each round does all messages of a case."""

from __future__ import annotations

from typing import Any

import pytest

from . import deflate

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize(
    ("direction", "size", "peer"),
    [(direction, size, peer) for direction, size, peers in deflate.CASES for peer in peers],
)
def test_deflate(benchmark: Any, direction: str, size: str, peer: str) -> None:
    try:
        function = deflate.checked(peer, direction, size)
    except ImportError as error:
        pytest.skip(str(error))
    benchmark.group = f"{direction} JSON {size}, {deflate.SIZES[size][1]} messages"
    benchmark(function)
