"""The oracles of fuzz/ hold for its seeds, on this build as well, and they catch what breaks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import wsframe
from fuzz import __main__ as runner
from fuzz import seeds, targets
from wsframe import Close, Connection, Deflate, Fail, FrameDecoder, Opcode, Ping, Role, Text, encode_frame

ROOT = Path(__file__).parents[2]
CORPUS = runner.CORPUS


def replay(name):
    for data in runner.inputs([CORPUS], name).values():
        targets.TARGETS[name](data)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_must_hold_holds_for_the_corpus(name):
    assert len(list((CORPUS / name).glob("*"))) >= 10
    replay(name)


def test_the_seeds_are_those_of_the_script():
    for path, data in seeds.seeds().items():
        assert (CORPUS / path).read_bytes() == data


def test_mutations_run_on_any_build(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner.mutate_all([CORPUS], count=200, seed=1)
    assert list((tmp_path / runner.GROWN).iterdir()) == []


def test_the_command_line():
    command = [sys.executable, "-m", "fuzz", "--replay", str(CORPUS)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == list(targets.TARGETS)


# Endpoints with a fault


class LosesAnByte:
    """Forget a byte where the network cuts. (A compiled FrameDecoder cannot be subclassed.)"""

    def __init__(self, **options):
        self.__dict__["decoder"] = FrameDecoder(**options)

    def __getattr__(self, name):
        return getattr(self.decoder, name)

    def __setattr__(self, name, value):
        setattr(self.decoder, name, value)

    def feed(self, data):
        self.decoder.feed(data[1:] if self.decoder.unread else data)


class Confuses(Connection):
    """Change what comes in, once it is an event."""

    def next_event(self):
        event = super().next_event()
        return self.change(event) if event else None

    def say(self, opcode, **options):
        mask = b"mask" if self.role is Role.CLIENT else None
        self._output.append(encode_frame(opcode, b"", mask=mask, **options))


class HidesPings(Confuses):
    def change(self, event):
        return self.next_event() if isinstance(event, Ping) else event


class SpeaksAfterTheEnd(Confuses):
    has_spoken = False

    def next_event(self):
        if self.close_received and not self.has_spoken:
            self.has_spoken = True
            return Text("more")
        return super(Confuses, self).next_event()


class Raises(Confuses):
    def change(self, event):
        if isinstance(event, Fail):
            raise ValueError(event.reason)
        return event


class ClosesTwice(Confuses):
    def change(self, event):
        if isinstance(event, Close):
            self.say(Opcode.CLOSE)
        return event


class SendsReservedBits(Confuses):
    def change(self, event):
        if isinstance(event, Ping):
            self.say(Opcode.TEXT, rsv=3)
        return event


class ForgetsToClose(Confuses):
    def change(self, event):
        if isinstance(event, Fail):
            self.should_close = False
        return event


class HasNoLimit(Connection):
    def __init__(self, role, *, max_message_size, **options):
        super().__init__(role, max_message_size=None, **options)


class SendsLess(Connection):
    def send_text(self, data, *args, **options):
        super().send_text(data[:-1], *args, **options)


class AgreesOnMore(Deflate):
    def accept(self, offers):
        accepted = super().accept(offers)
        return accepted and (accepted[0].replace("=12", "=11"), accepted[1])


def address_in_lower_case(uri):
    return wsframe.parse_uri(uri.lower() if uri.endswith("/") else uri + "/")


FAULTS = [
    ("frames", "FrameDecoder", LosesAnByte),
    ("connection", "Connection", HidesPings),
    ("connection", "Connection", SpeaksAfterTheEnd),
    ("connection", "Connection", Raises),
    ("connection", "Connection", ClosesTwice),
    ("connection", "Connection", SendsReservedBits),
    ("connection", "Connection", ForgetsToClose),
    ("connection", "Connection", HasNoLimit),
    ("connection", "Connection", SendsLess),
    ("headers", "WIDE", AgreesOnMore(server_max_window_bits=15, client_max_window_bits=15)),
    ("uri", "parse_uri", address_in_lower_case),
]


@pytest.mark.parametrize(
    ("name", "part", "fault"),
    FAULTS,
    ids=[getattr(fault, "__name__", "AgreesOnMore") for *_, fault in FAULTS],
)
def test_a_fault_is_found(monkeypatch, name, part, fault):
    monkeypatch.setattr(targets, part, fault)
    with pytest.raises((AssertionError, ValueError, wsframe.RemoteProtocolError)):
        replay(name)
