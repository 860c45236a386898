"""Signal handlers, and peers that never pause: no call of wsframe.sync waits beyond its deadline.

A signal handler runs where the interpreter lets it: when a function begins, and when one in C has returned.
A profile function is called in just these places. It stands for the signal handler, in each in turn.
In the compiled build the places are those in the Python code that it calls.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import wsframe
from tests.support.adapters import MIB, TIMEOUT, SyncAdapter, opened
from tests.support.cases import case
from wsframe import ConnectionClosed, Opcode, State, encode_frame
from wsframe.sync import connect

pytestmark = pytest.mark.usefixtures("leaks")

adapter = SyncAdapter()

# Where the places are
CODE = (str(Path(wsframe.__file__).parent), threading.__file__)
# What waits in C is interrupted before it has done anything, too.
WAITING = {"acquire", "poll", "recv_into", "send"}


@contextmanager
def interrupted(place, function):
    """Call a function at this place of the thread, and tell whether there was one."""
    seen = [0]

    def profile(frame, event, argument):
        is_place = event in ("call", "c_return") or (event == "c_call" and argument.__name__ in WAITING)
        if is_place and frame.f_code.co_filename.startswith(CODE):
            seen[0] += 1
            if seen[0] == place:
                sys.setprofile(None)
                function()

    try:
        sys.setprofile(profile)
        yield lambda: seen[0] >= place
    finally:
        sys.setprofile(None)


class Script:
    """A handler that keeps what it receives, and answers it: with a Ping and two fragments, say."""

    def __init__(self):
        self.ends = queue.SimpleQueue()

    def __call__(self, websocket):
        received = []
        try:
            for message in websocket:
                received.append(message)
                if message == "pieces":
                    with suppress(TimeoutError):
                        websocket.ping(timeout=0)
                    websocket.send(["pie", "ces"])
                elif message == "close":
                    websocket.close(3000)
                else:
                    websocket.send(message)
            self.ends.put((websocket.close_code, received))
        except ConnectionClosed as closed:
            self.ends.put((closed.code, received))
            raise

    def end(self):
        return self.ends.get(timeout=TIMEOUT)


def receive(websocket):
    return websocket.recv()


def receive_after_a_timeout(websocket):
    try:
        return websocket.recv(timeout=0)
    except TimeoutError:
        return websocket.recv(TIMEOUT)


def receive_pieces(websocket):
    with suppress(RuntimeError):  # a signal handler has gone on to the next message
        return "".join(websocket.recv_stream(TIMEOUT))


def iterate(websocket):
    return next(iter(websocket))


def send(websocket):
    websocket.send("outer")


def send_fragments(websocket):
    websocket.send(["ou", "ter"])


def ping(websocket):
    return websocket.ping(timeout=TIMEOUT)


def close(websocket):
    websocket.close()


# What the peer is asked for before each of them
CALLS = {
    receive: "echo",
    receive_after_a_timeout: "pieces",
    receive_pieces: "pieces",
    iterate: "close",
    send: None,
    send_fragments: None,
    ping: "echo",
    close: "echo",
}
each_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
CODES = (1000, 1006, 1011, 3000)  # the third for a fragmented message that is cut short
WHOLE = {"echo", "pieces", "outer", "inner", "close", "after"}


class Interruption(BaseException):
    """What Ctrl-C raises, but for one test only."""


def raise_it():
    raise Interruption


@contextmanager
def in_every_place(call, step, function, compression=None):
    """Yield what has opened a connection and makes the call, while ``function(websocket)`` interrupts it."""
    script = Script()
    with adapter.serve(script) as running:

        def run(place):
            websocket = connect(running.uri, compression=compression, close_timeout=5, ping_interval=None)
            if CALLS[call]:
                websocket.send(CALLS[call])
            result, error = None, None
            with interrupted(place, lambda: function(websocket)) as is_reached:
                try:
                    result = call(websocket)
                except (Interruption, ConnectionClosed, TimeoutError) as caught:
                    error = caught
            return websocket, result, error, is_reached()

        def runs():
            place = 1
            is_reached = True
            while is_reached:
                with case(place=place):
                    websocket, result, error, is_reached = run(place)
                    yield websocket, result, error
                    websocket.close()
                    assert websocket.state is State.CLOSED
                place += step

        yield runs(), script


def is_usable(websocket):
    """Check that each call works, or says that the connection is closed."""
    try:
        websocket.send("after")
        for message in websocket:
            assert message in WHOLE
            if message == "after":
                break
        else:
            return False
        assert websocket.ping(timeout=TIMEOUT) >= 0
    except ConnectionClosed:
        return False
    return True


@each_call
def test_ctrl_c_in_any_place_leaves_a_connection_that_works_or_is_closed(call, spawn):
    def check():
        usable = 0
        with in_every_place(call, 1, lambda _: raise_it()) as (runs, script):
            for websocket, _, error in runs:
                assert isinstance(error, (Interruption, ConnectionClosed, type(None)))
                usable += is_usable(websocket)
                websocket.close()
                assert websocket.close_code in CODES
                code, received = script.end()
                assert code in CODES
                assert set(received) <= WHOLE
        return usable

    usable = spawn(check).result(TIMEOUT)
    assert usable > 0 or call in (iterate, close)


@each_call
def test_close_in_a_signal_handler_in_any_place(call, spawn):
    def check():
        with in_every_place(call, 1, lambda websocket: websocket.close()) as (runs, script):
            for websocket, _, _ in runs:
                websocket.close()
                assert websocket.close_code in (1000, 3000)
                code, received = script.end()
                assert code in (1000, 3000)
                assert set(received) <= WHOLE
                with pytest.raises(ConnectionClosed):
                    websocket.recv()

    spawn(check).result(TIMEOUT)


@each_call
def test_send_in_a_signal_handler_in_any_place(call, spawn):
    def check():
        def interrupt(websocket):
            with suppress(ConnectionClosed, RuntimeError):  # the latter within a fragmented message
                websocket.send("inner")

        with in_every_place(call, 1, interrupt) as (runs, script):
            for websocket, _, _ in runs:
                is_usable(websocket)
                websocket.close()
                code, received = script.end()
                assert code in (1000, 3000)
                assert set(received) <= WHOLE
                assert received.count("inner") <= 1
                assert received.count("outer") == (call in (send, send_fragments))

    spawn(check).result(TIMEOUT)


@each_call
@pytest.mark.parametrize(
    "interrupt",
    [
        lambda websocket: websocket.recv(timeout=0),
        lambda websocket: next(websocket.recv_stream(timeout=0)),
        lambda websocket: websocket.ping(timeout=TIMEOUT),
        lambda websocket: websocket.wait_closed(timeout=0),
        lambda websocket: websocket.buffered_amount,
    ],
    ids=["recv", "recv_stream", "ping", "wait_closed", "buffered_amount"],
)
def test_any_call_in_a_signal_handler_in_any_place_returns(call, interrupt, size, spawn):
    def check():
        def try_it(websocket):
            with suppress(ConnectionClosed, RuntimeError, TimeoutError, StopIteration):
                if type(interrupt(websocket)) is str:
                    websocket.send("inner")  # so that there is a message for the interrupted call

        with in_every_place(call, size(7, 1), try_it) as (runs, script):
            for websocket, _, _ in runs:
                websocket.close()
                code, received = script.end()
                assert code in (1000, 3000)
                assert set(received) <= WHOLE

    spawn(check).result(TIMEOUT)


# Signals

SIGNALLED = """
import faulthandler, signal, sys, threading
from wsframe import ConnectionClosed
from wsframe.sync import connect, serve

faulthandler.dump_traceback_later(50, exit=True)  # ends a hang
is_over = threading.Event()
calls = {
    "recv": lambda ws: ws.recv(),
    "recv_stream": lambda ws: next(ws.recv_stream()),
    "iterate": lambda ws: next(ws, "the end"),
    "ping": lambda ws: [ws.ping() for _ in iter(int, 1)],
    "send": lambda ws: [ws.send(bytes(2**20)) for _ in iter(int, 1)],
    "send fragments": lambda ws: ws.send(bytes(2**20) for _ in iter(int, 1)),
    "close": lambda ws: ws.close(),
}
name, reads = sys.argv[1], sys.argv[2] == "reads"

def handler(ws):
    if reads:
        for _ in ws:
            pass
    is_over.wait()  # so that nobody reads, and nobody answers a Close

with serve(handler, "127.0.0.1", 0, close_timeout=0.1, max_message_size=None) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ws = connect(f"ws://127.0.0.1:{server.port}/", close_timeout=0.5, ping_interval=None)
    signal.signal(signal.SIGALRM, lambda *_: ws.close())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        print(calls[name](ws))
    except ConnectionClosed as closed:
        print(closed.code)
    while signal.getitimer(signal.ITIMER_REAL)[0]:
        pass
    ws.close()
    print(ws.state.name, ws.close_code)
    is_over.set()
"""


def run_program(program, *arguments):
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recv", ["1000", "CLOSED 1000"]),
        ("recv_stream", ["1000", "CLOSED 1000"]),
        ("iterate", ["the end", "CLOSED 1000"]),
        ("ping", ["1000", "CLOSED 1000"]),
        ("send", ["1000", "CLOSED 1000"]),
        ("send fragments", ["1000", "CLOSED 1000"]),
        ("close", ["None", "CLOSED 1000"]),
    ],
)
def test_a_signal_handler_closes_what_its_own_thread_uses(name, said):
    assert run_program(SIGNALLED, name, "reads") == said


@pytest.mark.parametrize("name", ["recv", "ping", "send", "send fragments", "close"])
def test_a_signal_handler_closes_although_the_peer_does_not_read(name):
    code, closed = run_program(SIGNALLED, name, "does not")
    assert closed == "CLOSED 1006"
    # 1000 if the signal came before the peer's buffers were full
    sent = ("1000", "1006")
    assert code in {"send": sent, "send fragments": sent, "close": ("None",)}.get(name, ("1006",))


CTRL_C = """
import faulthandler, signal, threading
from wsframe.sync import connect, serve

faulthandler.dump_traceback_later(50, exit=True)  # ends a hang
ended = []

def handler(ws):
    for _ in ws:
        pass
    ended.append(ws.close_code)

with serve(handler, "127.0.0.1", 0) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            ws.recv()
    except KeyboardInterrupt:
        print("interrupted")
print(ended)
"""


def test_ctrl_c_while_a_call_waits_leaves_a_connection_that_is_closed_with_1000():
    assert run_program(CTRL_C) == ["interrupted", "[1000]"]


@pytest.mark.parametrize("role", ["client", "server"])
def test_close_does_not_wait_for_a_thread_that_a_signal_handler_holds_up(role, spawn):
    """The handler waits for another thread, which closes the connection that it has interrupted."""
    with opened(adapter, role, close_timeout=0.1) as (websocket, _):
        receive_into = websocket._stream.receive_into

        def interrupted_receive_into(buffer, deadline):
            websocket._stream.receive_into = receive_into
            spawn(websocket.close).result(TIMEOUT)
            return receive_into(buffer, deadline)

        websocket._stream.receive_into = interrupted_receive_into
        with pytest.raises(ConnectionClosed):
            spawn(websocket.recv).result(TIMEOUT)
        assert websocket._stream.sock.fileno() == -1


@pytest.mark.parametrize("ping_interval", [None, 60])
def test_what_a_signal_handler_raises_is_not_taken_for_the_end_of_a_deadline(ping_interval):
    """The handler of SIGALRM raises TimeoutError in many programs."""
    with opened(adapter, "client", ping_interval=ping_interval) as (websocket, peer):
        receive_into = websocket._stream.receive_into

        def alarmed_receive_into(buffer, deadline):
            websocket._stream.receive_into = receive_into
            raise TimeoutError("alarm")

        for timeout in (None, TIMEOUT):
            websocket._stream.receive_into = alarmed_receive_into
            with pytest.raises(TimeoutError, match="alarm"):
                websocket.recv(timeout)
        peer.send(peer.text("x"))
        assert websocket.recv() == "x"
        peer.send(peer.close())


def test_a_connection_that_the_system_gives_up_is_lost_and_did_not_only_time_out():
    with opened(adapter, "client", ping_interval=None) as (websocket, _):

        def lost_receive_into(buffer, deadline):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

        websocket._stream.receive_into = lost_receive_into
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv()
        assert caught.value.code == 1006


# Peers that never pause


@contextmanager
def endless(websocket, *frames):
    """Let there be bytes always: these frames, the last of them again and again."""
    left = list(frames)

    def receive_into(buffer, deadline):
        frame = left.pop(0) if len(left) > 1 else left[0]
        buffer[: len(frame)] = frame
        return len(frame)

    websocket._stream.receive_into = receive_into
    try:
        yield
    finally:
        del websocket._stream.receive_into


@pytest.mark.parametrize("timeout", [-1, 0, 0.1])
@pytest.mark.parametrize(
    "call",
    [
        lambda websocket, timeout: websocket.recv(timeout),
        lambda websocket, timeout: list(websocket.recv_stream(timeout)),
        lambda websocket, timeout: websocket.ping(timeout=timeout),
    ],
    ids=["recv", "recv_stream", "ping"],
)
@pytest.mark.parametrize("what", ["fragments", "pongs", "dropped"])
def test_a_call_returns_in_time_while_bytes_keep_coming(call, timeout, what, spawn):
    with opened(adapter, "client", max_message_size=None, close_timeout=0.1) as (websocket, peer):
        frames = (
            encode_frame(Opcode.BINARY, b"", fin=False),
            encode_frame(Opcode.CONTINUATION, b"", fin=False),
        )
        if what == "pongs":
            frames = (encode_frame(Opcode.PONG, b"p"),)
        elif what == "dropped":  # a message whose beginning was received, and whose rest is dropped
            frames = (encode_frame(Opcode.CONTINUATION, b"x", fin=False),)
            peer.send(encode_frame(Opcode.BINARY, b"x", fin=False))
            assert next(websocket.recv_stream(TIMEOUT)) == b"x"
        with endless(websocket, *frames):
            error = spawn(call, websocket, timeout).exception(TIMEOUT)
            assert isinstance(error, (TimeoutError, RuntimeError)), error  # the latter: the queue is full


def test_a_timeout_of_zero_takes_the_message_behind_a_ping():
    with opened(adapter, "client") as (websocket, peer):
        peer.send(peer.encode(Opcode.PING, b"p") + peer.text("x"))
        assert select.select([websocket._stream.sock], [], [], TIMEOUT)[0]
        assert websocket.recv(timeout=0) == "x"
        peer.send(peer.close())


def test_recv_returns_in_time_although_the_peer_does_not_close_tcp(spawn):
    with opened(adapter, "client", close_timeout=None) as (websocket, peer):
        peer.send(peer.close(3000))
        error = spawn(websocket.recv, 0.1).exception(TIMEOUT)
        assert isinstance(error, ConnectionClosed)
        assert error.code == 3000


def test_keepalive_gives_up_a_peer_that_floods_pings_and_reads_nothing(spawn):
    timing = {"ping_interval": 0.1, "ping_timeout": 0.1, "close_timeout": 0.1}
    with adapter.serve(**timing) as running, running.open(receive_buffer=4096) as peer:
        pings = peer.encode(Opcode.PING, bytes(125)) * 1000

        def flood():
            with suppress(OSError):
                while True:
                    peer.sock.sendall(pings)

        flooding = spawn(flood)
        assert running.end() == (1011, False)
        flooding.result(TIMEOUT)


def test_the_receive_queue_counts_what_a_text_takes_in_memory():
    """A character outside ASCII may take four bytes."""
    with opened(adapter, "client") as (websocket, peer):
        text = "\u20ac" * (MIB // 4)
        peer.send(peer.text(text))
        with pytest.raises(RuntimeError, match="receive"):
            websocket.ping(timeout=TIMEOUT)
        assert websocket.recv() == text
        peer.send(peer.close())
