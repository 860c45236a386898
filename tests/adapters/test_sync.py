"""What wsframe.sync promises beyond what both adapters do: threads, its cap, its timeouts."""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import threading
from collections import Counter
from concurrent.futures import wait
from contextlib import ExitStack, suppress

import pytest

from tests.support.adapters import MIB, TIMEOUT, SyncAdapter, close_payload, each_role_and_transport, opened
from tests.support.tiers import full
from wsframe import (
    ClientConnection,
    Close,
    ConnectionClosed,
    LocalProtocolError,
    Opcode,
    ServerConnection,
    State,
)
from wsframe.adapter.options import Timing
from wsframe.sync import WebSocket, connect, driver, serve
from wsframe.sync.stream import SocketStream, deadline_after

pytestmark = pytest.mark.usefixtures("leaks")

adapter = SyncAdapter()


@pytest.fixture
def pair(role):
    with opened(adapter, role) as pair:
        yield pair


# Threads


def test_threads_share_what_comes(pair, spawn):
    websocket, peer = pair
    receiving = [spawn(websocket.recv) for _ in range(4)]
    peer.send(*(peer.text(str(number)) for number in range(4)))
    assert sorted(future.result(TIMEOUT) for future in receiving) == ["0", "1", "2", "3"]


def test_a_ping_is_written_although_other_threads_fail_to_send(spawn):
    """A thread that fails to send has kept the others from writing, so it writes what they queued."""
    is_over = threading.Event()

    def fail_to_send(websocket):
        while not is_over.is_set():
            with pytest.raises(LocalProtocolError):
                websocket.send("\ud800")

    with adapter.serve() as running, connect(running.uri, ping_interval=None) as websocket:
        failing = [spawn(fail_to_send, websocket) for _ in range(2)]
        try:
            for _ in range(300):
                websocket.ping(timeout=TIMEOUT)
        finally:
            is_over.set()
        for future in failing:
            future.result(TIMEOUT)


@pytest.fixture
def spare_buffers(monkeypatch):
    buffers = []
    monkeypatch.setattr(driver, "_spare_buffers", buffers)
    return buffers


def test_connections_share_the_buffers_that_they_read_into(spare_buffers, monkeypatch):
    """A connection has a buffer of 64 KiB only while it is read."""
    with ExitStack() as stack:
        for _ in range(3):
            websocket, peer = stack.enter_context(opened(adapter, "client"))
            with pytest.raises(TimeoutError):
                websocket.recv(0)
            assert len(spare_buffers) == 1
            peer.send(peer.text("Hello"))
            assert websocket.recv(TIMEOUT) == "Hello"
            assert len(spare_buffers) == 1
        monkeypatch.setattr(driver, "MAX_SPARE_BUFFERS", 0)
        peer.send(peer.text("Hello again"))
        assert websocket.recv(TIMEOUT) == "Hello again"
        assert spare_buffers == []


def test_a_closed_connection_leaves_no_buffer(spare_buffers):
    for _ in range(3):
        with opened(adapter, "client") as (websocket, peer):
            peer.send(peer.text("Hello"))
            assert websocket.recv(TIMEOUT) == "Hello"
            assert len(spare_buffers) == 1
            peer.sock.shutdown(socket.SHUT_RDWR)
            with pytest.raises(ConnectionClosed):
                websocket.recv(TIMEOUT)
            assert spare_buffers == []


@full
def test_threads_send_while_others_look_at_the_state(size, spawn):
    """Without a GIL, the compiled build crashed when a thread read an attribute that another replaced."""
    count, senders = size(500, 3000), 6
    received = []

    def handler(websocket):
        received.extend(websocket)

    def send(websocket, number):
        for _ in range(count):
            websocket.send(bytes([number]) * 40)

    def look(websocket, is_over):
        while not is_over.is_set():
            assert websocket.buffered_amount >= 0
            assert websocket.counters.messages_sent <= count * senders
            assert websocket.state in State
            assert websocket.latency is None or websocket.latency >= 0
            assert websocket.close_code in (None, 1000)

    with adapter.serve(handler) as running:
        is_over = threading.Event()
        with connect(running.uri, compression=None) as websocket:
            looking = [spawn(look, websocket, is_over) for _ in range(2)]
            sending = [spawn(send, websocket, number) for number in range(senders)]
            for future in sending:
                future.result(TIMEOUT)
        is_over.set()
        for future in looking:
            future.result(TIMEOUT)
    assert Counter(received) == {bytes([number]) * 40: count for number in range(senders)}


@full
def test_threads_open_use_and_close_connections_at_a_time(size, spawn):
    """What the connections of a process share is safe to use: masking keys, and their numbers."""

    def use(number):
        ids = set()
        for _ in range(size(20, 200)):
            with connect(running.uri) as websocket:
                ids.add(websocket.id)
                closing = spawn(websocket.close) if number % 2 else None
                with suppress(ConnectionClosed):
                    websocket.send("x" * 500)
                    assert websocket.recv() == "x" * 500
                    assert websocket.ping() >= 0
                if closing is not None:
                    closing.result(TIMEOUT)
        return ids

    with adapter.serve() as running:
        using = [spawn(use, number) for number in range(4)]
        ids = [future.result(TIMEOUT) for future in using]
    assert sum(map(len, ids)) == len(set.union(*ids))


def test_threads_that_receive_all_learn_of_the_end(pair, spawn):
    websocket, peer = pair
    receiving = [spawn(websocket.recv) for _ in range(4)]
    peer.send(peer.close(3000))
    peer.end()
    assert [future.exception(TIMEOUT).code for future in receiving] == [3000] * 4
    websocket.wait_closed(timeout=TIMEOUT)


def test_a_thread_times_out_while_another_receives(pair, spawn):
    websocket, peer = pair
    receiving = spawn(websocket.recv)
    waiting = spawn(websocket.recv, 0.05)
    # One of them reads from the socket, and the other one waits for it.
    assert isinstance(waiting.exception(TIMEOUT), TimeoutError)
    with pytest.raises(TimeoutError):
        websocket.wait_closed(timeout=0.05)
    with pytest.raises(TimeoutError):
        websocket.ping(timeout=0.05)
    peer.send(peer.text("x"))
    assert receiving.result(TIMEOUT) == "x"


def test_threads_that_send_do_not_mix_their_frames(pair, spawn):
    websocket, peer = pair

    def send(number: int) -> None:
        for size in (1, 200, 70_000, 1, 300_000):
            websocket.send(bytes([number]) * size)

    sending = [spawn(send, number) for number in range(8)]
    sizes = {number: [] for number in range(8)}
    for _ in range(8 * 5):
        payload = peer.next_frame().payload
        assert len(set(payload)) == 1
        sizes[payload[0]].append(len(payload))
    assert list(sizes.values()) == [[1, 200, 70_000, 1, 300_000]] * 8
    for future in sending:
        future.result(TIMEOUT)


def test_full_duplex(maybe_tls, spawn):
    """A thread that is stuck in send does not keep another one from receiving."""
    server, client = maybe_tls or (None, None)
    with adapter.serve(ssl=server) as running:
        sock = socket.socket()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 65536)
        sock.connect(("127.0.0.1", running.server.port))
        with connect(running.uri, sock=sock, ssl=client) as websocket:
            messages = [bytes([number]) * MIB for number in range(20)]
            sending = spawn(lambda: [websocket.send(message) for message in messages])
            assert [websocket.recv() for _ in messages] == messages
            sending.result(TIMEOUT)


def test_pings_are_answered_while_another_thread_is_stuck_in_send(pair, spawn):
    websocket, peer = pair
    sending = spawn(lambda: [websocket.send(bytes(MIB)) for _ in range(16)])
    assert not wait([sending], 0.2).done
    receiving = spawn(websocket.recv)
    peer.send(peer.encode(Opcode.PING, b"p"), peer.text("x"))
    assert receiving.result(TIMEOUT) == "x"
    frames = [peer.next_frame() for _ in range(17)]
    assert sorted(frame.opcode for frame in frames) == [Opcode.BINARY] * 16 + [Opcode.PONG]
    sending.result(TIMEOUT)


@each_role_and_transport
def test_a_pong_that_there_is_no_room_for_keeps_nobody_from_receiving(role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls, ping_interval=None) as (websocket, peer):
        send = websocket._stream.send
        is_room = threading.Event()
        looks = []

        def send_if_there_is_room(data, deadline):
            if deadline is None:
                is_room.wait(TIMEOUT)
            elif not is_room.is_set():
                raise TimeoutError("timed out")
            elif len(looks) < 3:  # there was room, but another look is needed
                looks.append(deadline)
                raise TimeoutError("timed out")
            return send(data, deadline)

        websocket._stream.send = send_if_there_is_room
        peer.send(peer.encode(Opcode.PING, b"p"), peer.text("x"))
        assert spawn(websocket.recv).result(TIMEOUT) == "x"
        is_room.set()
        # It is written while the thread that reads has nothing to read.
        receiving = spawn(websocket.recv)
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (Opcode.PONG, b"p")
        peer.send(peer.text("y"))
        assert receiving.result(TIMEOUT) == "y"
        peer.send(peer.close())


@each_role_and_transport
@pytest.mark.parametrize("how", ["we close", "it closes", "it breaks the protocol"])
def test_a_thread_that_is_stuck_in_send_wakes_up_at_the_end(role, maybe_tls, spawn, how):
    with opened(adapter, role, maybe_tls, close_timeout=0.1) as (websocket, peer):
        sending = spawn(lambda: [websocket.send(bytes(MIB)) for _ in range(16)])
        assert not wait([sending], 0.2).done
        if how == "we close":
            websocket.close()
        else:
            peer.send(peer.close(3000) if how == "it closes" else peer.violation)
            with pytest.raises(ConnectionClosed):
                websocket.recv()
        assert isinstance(sending.exception(TIMEOUT), ConnectionClosed)
        assert websocket.state is State.CLOSED


@each_role_and_transport
def test_a_close_wakes_a_thread_that_receives(role, maybe_tls, spawn):
    with opened(adapter, role, maybe_tls, close_timeout=0.1) as (websocket, peer):
        receiving = spawn(websocket.recv)
        websocket.close(3000)
        assert receiving.exception(TIMEOUT).code == 1006
        assert peer.read_close() == (3000, "")


# Pings


def test_a_ping_times_out(pair):
    websocket, peer = pair
    with pytest.raises(TimeoutError):
        websocket.ping(b"p", timeout=0.05)
    peer.send(peer.encode(Opcode.PONG, b"p"), peer.text("x"))
    assert websocket.recv() == "x"


def test_a_ping_does_not_keep_more_messages_than_the_receive_queue_holds(pair):
    websocket, peer = pair
    peer.send(*(peer.text(str(number)) for number in range(17)))
    with pytest.raises(RuntimeError, match="receive"):
        websocket.ping(timeout=TIMEOUT)
    assert [websocket.recv() for _ in range(17)] == [*map(str, range(17))]


def test_a_ping_and_a_recv_at_a_time(pair, spawn):
    websocket, peer = pair
    receiving = spawn(websocket.recv)
    pinging = spawn(websocket.ping, b"p")
    assert peer.next_frame().payload == b"p"
    peer.send(peer.encode(Opcode.PONG, b"p"))
    assert pinging.result(TIMEOUT) >= 0
    peer.send(peer.text("x"))
    assert receiving.result(TIMEOUT) == "x"


# The server


def test_more_clients_than_the_cap_wait(spawn):
    started, may_end = queue.SimpleQueue(), threading.Event()

    def handler(websocket) -> None:
        started.put(websocket)
        may_end.wait(TIMEOUT)

    with adapter.serve(handler, max_connections=2) as running:
        peers = [running.open(), running.open()]
        for _ in peers:
            started.get(timeout=TIMEOUT)
        waiting = spawn(connect, running.uri)
        assert not wait([waiting], 0.1).done
        assert len(running.server.connections) == 2
        may_end.set()
        for peer in peers:
            assert peer.next_frame().payload == close_payload(1000)
            peer.send(peer.close())
            assert peer.next_frame() is None
            peer.sock.close()
        with waiting.result(TIMEOUT) as websocket:
            assert list(websocket) == []


def test_serve_forever_is_called_once():
    with serve(print, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with connect(f"ws://localhost:{server.port}/"), pytest.raises(RuntimeError, match="already"):
            server.serve_forever()
        server.close()
        thread.join(TIMEOUT)
        with pytest.raises(RuntimeError, match="closed"):
            server.serve_forever()
        server.close()


def test_a_server_that_never_served():
    with serve(print, "127.0.0.1", 0) as server:
        peer = socket.create_connection(("127.0.0.1", server.port))
    # The client was not accepted, and is told so.
    assert select.select([peer], [], [], TIMEOUT)[0]
    peer.close()


def test_a_handler_closes_the_server():
    def handler(websocket) -> None:
        websocket.recv()
        running.server.close(1012, "restart")

    with adapter.serve(handler) as running, connect(running.uri) as websocket:
        websocket.send("stop")
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv()
        assert (caught.value.code, caught.value.reason) == (1012, "restart")


def test_localhost_is_every_address_of_it():
    with serve(print, "localhost", 0) as server:
        assert {sock.getsockname()[1] for sock in server.sockets} == {server.port}


def test_a_signal_handler_closes_the_server_while_a_client_is_accepted():
    class Threads(set):
        """Where a signal handler may run: in the thread of serve_forever(), which holds the lock."""

        def add(self, thread):
            super().add(thread)
            server.close(1012, "signal")

    def echo(websocket):
        for message in websocket:
            websocket.send(message)

    with serve(echo, "127.0.0.1", 0, close_timeout=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with connect(f"ws://localhost:{server.port}/") as websocket:
            websocket.send("opened")
            assert websocket.recv() == "opened"
            server._threads = Threads(server._threads)
            with socket.create_connection(("127.0.0.1", server.port)) as second:
                with pytest.raises(ConnectionClosed) as caught:
                    websocket.recv(TIMEOUT)
                assert (caught.value.code, caught.value.reason) == (1012, "signal")
                assert second.recv(1) == b""
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_a_server_is_closed_while_it_begins_to_serve(spawn):
    for _ in range(50):
        server = serve(print, "127.0.0.1", 0)
        serving = spawn(server.serve_forever)
        server.close()
        error = serving.exception(TIMEOUT)
        assert error is None or (type(error) is RuntimeError and "closed" in str(error))


def test_pings_are_answered_before_the_message_behind_them_is_returned():
    count = 12_000  # their Pongs are more than the output that may wait
    with opened(adapter, "client", ping_interval=None) as (websocket, peer):
        peer.send(peer.encode(Opcode.PING, b"") * count + peer.text("x"))
        assert websocket.recv(TIMEOUT) == "x"
        assert {peer.next_frame().opcode for _ in range(count)} == {Opcode.PONG}
        peer.send(peer.close())


def test_a_peer_is_given_up_although_nothing_can_be_written_any_more():
    with opened(adapter, "client", ping_interval=0.05, ping_timeout=0.05) as (websocket, _):

        def broken_send(data, deadline):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

        websocket._stream.send = broken_send
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(TIMEOUT)
        assert (caught.value.code, caught.value.clean) == (1011, False)


def test_close_reads_the_answer_that_is_there_although_its_time_is_over():
    with opened(adapter, "client", close_timeout=1e-9, ping_interval=None) as (websocket, peer):
        websocket.start_close(3000, "bye")
        assert peer.next_frame().opcode == Opcode.CLOSE
        peer.send(peer.close(3000))
        assert select.select([websocket._stream.sock], [], [], TIMEOUT)[0]
        websocket.close()
        assert (websocket.close_code, websocket.state) == (3000, State.CLOSED)


def test_close_drops_the_rest_of_a_large_message():
    with opened(adapter, "client", max_message_size=None, ping_interval=None, close_timeout=None) as (
        websocket,
        peer,
    ):
        frame = peer.encode(Opcode.BINARY, bytes(3 * MIB))
        peer.send(frame[: 2 * MIB])
        while websocket.session.connection.collected < MIB + 1:
            with pytest.raises(TimeoutError):
                websocket.recv(timeout=0)
        peer.send(frame[2 * MIB :] + peer.close(1001))
        peer.end()
        websocket.close()
        assert websocket.close_code == 1001


def test_a_close_before_the_answer_is_written_ends_the_opening_handshake():
    """Another thread that closes the server may send a Close before our answer is written."""
    near, far = socket.socketpair()
    with far:
        connection, client = ServerConnection(), ClientConnection("ws://localhost/")
        websocket = WebSocket(connection, SocketStream(near), Timing(close_timeout=TIMEOUT))

        def answer(request):
            connection.respond(None)
            websocket.start_close(1001, "restart")

        far.sendall(client.data_to_send())
        assert websocket.shake_hands(deadline_after(TIMEOUT), answer)
        assert websocket.state is State.CLOSING
        client.receive_data(far.recv(65536))
        assert client.next_event().status == 101
        assert client.next_event() == Close(1001, "restart")
        far.sendall(client.data_to_send())
        far.shutdown(socket.SHUT_WR)
        websocket.close()
        assert (websocket.close_code, websocket.state) == (1001, State.CLOSED)
