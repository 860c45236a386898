"""Encoding, under pytest-benchmark: each round encodes all messages of a case."""

from __future__ import annotations

from typing import Any

import pytest

from . import encode

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize("peer", encode.PEERS)
@pytest.mark.parametrize("case", encode.CASES)
@pytest.mark.parametrize("side", encode.SIDES)
def test_encode(benchmark: Any, side: str, case: str, peer: str) -> None:
    try:
        function = encode.checked(peer, side, case)
    except ImportError as error:
        pytest.skip(str(error))
    benchmark.group = f"encode {side} {case}, {encode.CASES[case][1]} messages"
    benchmark(function)
