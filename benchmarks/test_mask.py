"""Masking, under pytest-benchmark."""

from __future__ import annotations

from typing import Any

import pytest

from . import mask

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize("peer", mask.PEERS)
@pytest.mark.parametrize("size", mask.SIZES)
def test_mask(benchmark: Any, size: str, peer: str) -> None:
    try:
        function, data = mask.checked(peer, mask.SIZES[size])
    except ImportError as error:
        pytest.skip(str(error))
    benchmark.group = f"mask {size}"
    benchmark(function, data, mask.KEY)
