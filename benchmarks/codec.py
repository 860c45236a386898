"""The codec rows: jobs that a peer does in memory, without a network.

Each is timed, and its instructions are counted. Instructions are the same in each run, whatever else the
machine does, so they decide whether a change made a row faster or slower. Time is what users wait for, so it
decides how a row compares with other libraries. Jobs on much memory wait for memory, which instructions do
not show: for these, time decides both.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from .rows import Row, Settings, Target, Turn

MODULES = ("mask", "decode", "encode", "deflate", "handshake", "adapters")

# Return a function that does the job once, after a look at its result.
Make = Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """A job that each peer can do.

    Args:
        name: the name of its row.
        unit: what is done: "message", "call" or "handshake".
        units: how many of these a call does.
        peers: how to get each peer ready.
        targets: how far ahead of which peer wsframe is to be.
        is_memory_bound: whether it waits for memory most of the time.
    """

    name: str
    unit: str
    units: int
    peers: dict[str, Make]
    targets: tuple[Target, ...] = ()
    is_memory_bound: bool = False


def cases() -> Iterator[Case]:
    for name in MODULES:
        yield from importlib.import_module(f".{name}", __package__).cases()


def case(name: str) -> Case:
    for found in cases():
        if found.name == name:
            return found
    raise LookupError(f"this version has no row {name!r}")


def row(case: Case) -> Row:
    """Return the row of the table in which a job stands."""

    def load(peer: str) -> Callable[[ExitStack, Settings], Turn]:
        def loader(stack: ExitStack, settings: Settings) -> Turn:
            worker = settings.worker(peer)
            worker.order("load", case.name, peer)
            seconds = 0.004 if settings.quick else 0.03
            return lambda: float(worker.order("time", seconds))

        return loader

    def count(peer: str) -> Callable[[Settings], float]:
        def counter(settings: Settings) -> float:
            worker = settings.worker(peer, counts=True)
            worker.order("load", case.name, peer)
            return float(worker.order("count"))

        return counter

    return Row(
        case.name,
        f"ns/{case.unit}",
        {peer: load(peer) for peer in case.peers},
        targets=case.targets,
        counters={peer: count(peer) for peer in case.peers},
        is_counted=not case.is_memory_bound,
    )


def rows() -> list[Row]:
    return [row(case) for case in cases()]
