"""What a row of the table is, and how its peers are measured: in turns.

All figures are costs: less is better. A row has a loader for each peer. A loader gets the peer ready, checks
that it gives the same output as the others, and returns a function that measures once. Then the peers take
turns, and each turn begins with another peer. A ratio is the median of the ratios of the turns. A peer that
cannot be loaded, or fails, is missing, and the others go on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .subject import Cpu, Tree, Worker

WSFRAME = "wsframe"

Turn = Callable[[], float]


class Settings:
    """What the command line asks for, and the workers that do the codec rows.

    Args:
        stack: ends the workers.
        tree: the copy of wsframe that is measured.
        quick: take an eighth of the time.
        turns: how many turns each peer has in each row.
        loop: the event loop of the servers, where a row does not say another one.
    """

    def __init__(
        self,
        stack: ExitStack,
        tree: Tree | None = None,
        *,
        quick: bool = False,
        turns: int | None = None,
        loop: str = "asyncio",
    ) -> None:
        self.tree = tree or Tree()
        self.quick = quick
        self.turns = turns
        self.loop = loop
        self._stack = stack
        self._workers: dict[tuple[str, bool], Worker] = {}

    def scaled(self, count: int) -> int:
        """Return how many repetitions a turn takes: an eighth of them if it has to be quick."""
        return max(1, count // 8) if self.quick else count

    def worker(self, peer: str, *, counts: bool = False) -> Worker:
        """Return the worker of a peer, which is started when it is first needed."""
        worker = self._workers.get((peer, counts))
        if worker is None:
            worker = self._workers[peer, counts] = Worker(self._stack, self.tree, counts=counts)
        return worker


Loader = Callable[[ExitStack, Settings], Turn]


@dataclass(frozen=True)
class Target:
    """What wsframe is to reach.

    Args:
        build: "pure" or "compiled".
        peer: the peer that it is compared with; "" for a figure of its own.
        ratio: how many times better it is to be than the peer; or the largest figure.
    """

    build: str
    peer: str
    ratio: float


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: what is measured.
        unit: the unit of its figures.
        peers: a loader for each peer; wsframe is one of them.
        targets: what wsframe is to reach.
        turns: how many by default.
        counters: for each peer, a function that counts its instructions.
        is_counted: whether instructions, and not time, tell two versions of wsframe apart.
    """

    name: str
    unit: str
    peers: dict[str, Loader]
    targets: tuple[Target, ...] = ()
    turns: int = 9
    counters: dict[str, Callable[[Settings], float]] = field(default_factory=dict)
    is_counted: bool = False


@dataclass
class Result:
    """What came of a row: the figures of each peer, and why the others have none."""

    row: Row
    figures: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)
    system_shares: dict[str, float] = field(default_factory=dict)

    def median(self, peer: str) -> float | None:
        figures = self.figures.get(peer)
        return statistics.median(figures) if figures else None

    def spread(self, peer: str) -> float | None:
        """Return the distance between the quartiles, as a part of the median."""
        return spread(self.figures.get(peer, []))

    def ratios(self, peer: str) -> list[float]:
        """Return how many times better wsframe is than the peer, in each turn.

        In a turn the two are measured within a second or so, and other programs slow both.
        """
        pairs = zip(self.figures.get(WSFRAME, []), self.figures.get(peer, []), strict=False)
        return [theirs / ours for ours, theirs in pairs]

    def ratio(self, peer: str) -> float | None:
        """Return the median of the ratios."""
        ratios = self.ratios(peer)
        return statistics.median(ratios) if ratios else None

    def instruction_ratio(self, peer: str) -> float | None:
        ours, theirs = self.instructions.get(WSFRAME), self.instructions.get(peer)
        return theirs / ours if ours and theirs else None

    def targets(self, build: str) -> list[dict[str, Any]]:
        """Return what this build is to reach, and what it has reached."""
        found = []
        for target in self.row.targets:
            if target.build == build:
                measured = self.ratio(target.peer) if target.peer else self.median(WSFRAME)
                is_met = None
                if measured is not None:
                    is_met = measured >= target.ratio if target.peer else measured <= target.ratio
                entry = {"peer": target.peer, "target": target.ratio, "measured": measured, "is_met": is_met}
                found.append(entry)
        return found

    def as_json(self, build: str) -> dict[str, Any]:
        peers = {
            peer: {
                "median": self.median(peer),
                "spread": self.spread(peer),
                "ratio": self.ratio(peer),
                "ratio_spread": spread(self.ratios(peer)),
                "ratios": self.ratios(peer),
                "figures": figures,
                "system_share": self.system_shares.get(peer),
                "instructions": self.instructions.get(peer),
                "instruction_ratio": self.instruction_ratio(peer),
            }
            for peer, figures in self.figures.items()
        }
        return {
            "name": self.row.name,
            "unit": self.row.unit,
            "turns": max((len(figures) for figures in self.figures.values()), default=0),
            "peers": peers,
            "missing": self.missing,
            "targets": self.targets(build),
        }


def spread(figures: list[float]) -> float | None:
    """Return the distance between the quartiles, as a part of the median."""
    if len(figures) < 2:
        return None
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return (high - low) / middle if middle else None


def targets(peer: str, pure: float | None, compiled: float | None) -> tuple[Target, ...]:
    """Return the targets of the two builds, beside one peer."""
    both = (("pure", pure), ("compiled", compiled))
    return tuple(Target(build, peer, ratio) for build, ratio in both if ratio is not None)


def turns_of(row: Row, settings: Settings) -> int:
    return settings.turns or (3 if settings.quick else row.turns)


def measure(row: Row, settings: Settings, advance: Callable[[int], None] = lambda _: None) -> Result:
    """Measure a row: its peers take turns.

    Args:
        row: what to measure.
        settings: how.
        advance: called with the number of turns that are done.
    """
    result = Result(row)
    count = turns_of(row, settings)
    with ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for peer, load in row.peers.items():
            try:
                turns[peer] = load(stack, settings)
            except Exception as error:
                result.missing[peer] = describe(error)
                advance(count)
        for number in range(count):
            peers = list(turns)
            first = number % len(peers) if peers else 0
            for peer in peers[first:] + peers[:first]:
                try:
                    figure = turns[peer]()
                except Exception as error:
                    result.missing[peer] = describe(error)
                    del turns[peer]
                    advance(count - number)
                else:
                    result.figures.setdefault(peer, []).append(figure)
                    advance(1)
        for peer, turn in turns.items():
            if isinstance(turn, CpuTurn) and (share := turn.used.system_share) is not None:
                result.system_shares[peer] = share
    for peer in result.missing:
        result.figures.pop(peer, None)
    return result


def count_instructions(result: Result, settings: Settings) -> None:
    """Count the instructions of a row, for each peer that was measured."""
    for peer, count in result.row.counters.items():
        if peer in result.figures:
            try:
                result.instructions[peer] = count(settings)
            except Exception as error:
                result.missing[f"instructions of {peer}"] = describe(error)


class CpuTurn:
    """Measures the CPU of a process while work is done: microseconds for each unit of it.

    Attributes:
        used: what all turns took.
    """

    def __init__(self, cpu: Callable[[], Cpu], work: Callable[[], object], units: int) -> None:
        self._cpu = cpu
        self._work = work
        self._units = units
        work()
        self.used = Cpu(0, 0, 0)

    def __call__(self) -> float:
        before = self._cpu()
        self._work()
        used = self._cpu() - before
        self.used += used
        return used.seconds / self._units * 1e6


class WallTurn:
    """Measures the time from a message to its answer: microseconds for each."""

    def __init__(self, work: Callable[[], object], units: int) -> None:
        self._work = work
        self._units = units
        work()

    def __call__(self) -> float:
        start = time.perf_counter()
        self._work()
        return (time.perf_counter() - start) / self._units * 1e6


def describe(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "not installed"
    return f"{type(error).__name__}: {error}".splitlines()[0]
