"""Clients whose socket was accepted elsewhere, and transports that neither adapter has made."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.adapters import TIMEOUT, asynchronous
from wsframe import HandshakeRejected, Response, aio, redirect, sync
from wsframe.adapter.options import ServerOptions, Timing

pytestmark = pytest.mark.usefixtures("leaks")


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


def echo_sync(websocket):
    for message in websocket:
        websocket.send(message)


def tcp_pair():
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


@pytest.mark.parametrize("pair", [tcp_pair, socket.socketpair])
def test_a_server_serves_an_accepted_socket(adapter, maybe_tls, pair):
    server, client = maybe_tls or (None, None)
    with adapter.serve(ssl=server) as running:
        ours, theirs = pair()
        running.server.serve_socket(theirs)
        uri = f"{'wss' if client else 'ws'}://localhost/"
        with sync.connect(uri, sock=ours, ssl=client) as websocket:
            websocket.send("a")
            assert websocket.recv(TIMEOUT) == "a"
            assert len(running.server.connections) == 1


def test_a_closed_server_closes_an_accepted_socket(adapter):
    with adapter.serve() as running:
        adapter.connect(running.uri).close()  # so it serves already
        running.close()
        ours, theirs = tcp_pair()
        running.server.serve_socket(theirs)
        with ours:
            ours.settimeout(TIMEOUT)
            assert ours.recv(1) == b""


def test_a_server_on_threads_that_does_not_listen():
    with sync.Server(echo_sync, ServerOptions()) as server:
        assert server.sockets == ()
        ours, theirs = tcp_pair()
        server.serve_socket(theirs)
        with sync.connect("ws://localhost/", sock=ours) as websocket:
            websocket.send("a")
            assert websocket.recv(TIMEOUT) == "a"


def test_a_server_on_threads_says_whether_it_is_full():
    with sync.Server(echo_sync, ServerOptions(max_connections=1)) as server:
        assert not server.is_full
        ours, theirs = tcp_pair()
        server.serve_socket(theirs)
        assert server.is_full
        sync.connect("ws://localhost/", sock=ours).close()


@asynchronous
async def test_a_server_on_asyncio_that_does_not_listen():
    async with aio.Server(echo, ServerOptions()) as server:
        assert server.sockets == ()
        ours, theirs = tcp_pair()
        server.serve_socket(theirs)
        async with aio.connect("ws://localhost/", sock=ours) as websocket:
            await websocket.send("a")
            assert await websocket.recv() == "a"


def create_connection(port):
    """Return what opens a connection to a port, as an event loop does it."""
    loop = asyncio.get_running_loop()
    return lambda factory: loop.create_connection(factory, "127.0.0.1", port)


@asynchronous
async def test_transports_of_ones_own():
    async with aio.Server(echo, ServerOptions()) as server:
        listening = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
        create = create_connection(listening.sockets[0].getsockname()[1])
        connecting = aio.connect("ws://localhost/", proxy=None)
        async with await connecting.over(create) as websocket:
            await websocket.send("a")
            assert await websocket.recv() == "a"
        with pytest.raises(RuntimeError, match="used already"):
            await connecting.over(create)
        listening.close()


@asynchronous
async def test_a_transport_of_ones_own_leads_to_one_server():
    answers = iter([Response(403, body=b"no"), redirect("ws://127.0.0.1:1/")])
    async with aio.serve(echo, "127.0.0.1", 0, process_request=lambda request: next(answers)) as server:
        for status in (403, 302):
            with pytest.raises(HandshakeRejected) as caught:
                await aio.connect("ws://localhost/").over(create_connection(server.port))
            assert caught.value.status == status


@asynchronous
async def test_opening_over_a_transport_of_ones_own_has_the_same_time_limit():
    async with aio.Server(echo, ServerOptions(timing=Timing(open_timeout=None))) as server:

        async def create(factory):
            factory()  # and it is connected to nothing

        with pytest.raises(TimeoutError, match=r"localhost:80 timed out after 0\.01 s"):
            await aio.connect("ws://localhost/", open_timeout=0.01).over(create)
        assert server.connections == set()
