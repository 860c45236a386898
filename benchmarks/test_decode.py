"""Decoding, under pytest-benchmark: each round decodes all messages of a case."""

from __future__ import annotations

from typing import Any

import pytest

from . import decode

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize("peer", decode.PEERS)
@pytest.mark.parametrize("case", decode.CASES)
def test_decode(benchmark: Any, case: str, peer: str) -> None:
    try:
        function = decode.checked(peer, case)
    except ImportError as error:
        pytest.skip(str(error))
    benchmark.group = f"decode {case}, {decode.CASES[case][2]} messages"
    benchmark(function)
