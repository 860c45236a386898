"""The opening handshake, under pytest-benchmark."""

from __future__ import annotations

from typing import Any

import pytest

from . import handshake

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize("peer", handshake.PEERS)
@pytest.mark.parametrize("side", handshake.SIDES)
def test_handshake(benchmark: Any, side: str, peer: str) -> None:
    try:
        function = handshake.checked(peer, side)
    except ImportError as error:
        pytest.skip(str(error))
    benchmark.group = f"handshake {side}"
    benchmark(function)
