"""Load and faults on running servers, in small: ``python -m tests.load`` does the same with thousands."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.load.phases import Results, Settings, check_churn, check_end, check_many, check_vanishing
from tests.support.adapters import asynchronous, connect_peer, loop_names, request
from tests.support.tiers import full
from wsframe import ConnectionClosed
from wsframe.aio import serve

pytestmark = [
    pytest.mark.usefixtures("leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc"),
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="objects go when the collector likes"),
]


@pytest.fixture(params=["sync", *loop_names])
def settings(request: pytest.FixtureRequest) -> Settings:
    is_sync = request.param == "sync"
    return Settings(
        adapter="sync" if is_sync else "aio",
        loop="asyncio" if is_sync else request.param,
        connections=200,
        messages=5,
        opens=500,
        vanishing=3,
        bystanders=5,
        terminated=20,
        timeout=0.2,
        grace=2,
        every=0.02,
    )


@pytest.fixture
def results() -> Results:
    return Results(is_quiet=True)


@full
def test_many_connections(settings, results):
    check_many(settings, results)
    assert results.broken == []


@full
def test_clients_that_vanish(settings, results):
    check_vanishing(settings, results)
    assert results.broken == []


@full
def test_opens_and_closes(settings, results):
    check_churn(settings, results)
    assert results.broken == []


@full
@pytest.mark.parametrize("with_faults", [False, True], ids=["", "others hang"])
def test_sigterm(settings, results, with_faults):
    check_end(settings, results, with_faults=with_faults)
    assert results.broken == []


@asynchronous
async def test_a_handler_that_only_sends_is_told_of_a_reset():
    """Otherwise it sends for ever, and nobody else has a turn of the loop."""
    told = asyncio.get_running_loop().create_future()

    async def handler(websocket):
        peer.reset()  # the loop has not read that yet
        try:
            for _ in range(1000):
                await websocket.send(b"x")
            told.set_result(None)
        except ConnectionClosed as closed:
            told.set_result(closed.code)

    async with serve(handler, "127.0.0.1", 0) as server:
        peer = connect_peer(server.port)
        peer.send(request())
        assert await told == 1006
