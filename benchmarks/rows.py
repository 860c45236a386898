"""What a row of the table is, and how it is measured: by all its peers in turns.

A row has a loader for each peer. A loader imports the peer, checks that it gives the same output as the
others, and returns a function that measures once. Then the peers take turns, each turn beginning with another
one. A ratio is the median of the ratios of the turns. A peer that cannot be loaded, or fails, is missing, and
the others go on.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

WSFRAME = "wsframe"
BEST_COMPILED = "the best compiled peer"
COMPILED_PEERS = ("aiohttp", "picows")

Turn = Callable[[], float]


@dataclass(frozen=True)
class Settings:
    """What was asked for on the command line."""

    quick: bool = False
    turns: int | None = None
    loop: str = "asyncio"

    def scaled(self, count: int) -> int:
        """As many repetitions as a turn takes: an eighth of them when it has to be quick."""
        return max(1, count // 8) if self.quick else count


Loader = Callable[[ExitStack, Settings], Turn]


@dataclass(frozen=True)
class Target:
    """What wsframe is to reach.

    Args:
        build: "pure" or "compiled".
        peer: whom it is compared with; "" for a figure of its own.
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
        is_cost: less is better.
        targets: what wsframe is to reach.
        turns: how many by default.
    """

    name: str
    unit: str
    peers: dict[str, Loader]
    is_cost: bool = False
    targets: tuple[Target, ...] = ()
    turns: int = 9


@dataclass
class Result:
    """What came of a row: the figures of each peer, and why the others have none."""

    row: Row
    figures: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, peer: str) -> float | None:
        figures = self.figures.get(peer)
        return statistics.median(figures) if figures else None

    def spread(self, peer: str) -> float | None:
        """The distance between the quartiles, as a part of the median."""
        figures = self.figures.get(peer)
        if not figures or len(figures) < 2:
            return None
        low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
        return (high - low) / middle if middle else None

    def ratios(self, peer: str) -> list[float]:
        """How many times better wsframe is than the peer, in each turn.

        In a turn the two are measured within a second or so, and whoever else uses the machine slows both.
        """
        pairs = zip(self.figures.get(WSFRAME, []), self.figures.get(peer, []), strict=False)
        return [theirs / ours if self.row.is_cost else ours / theirs for ours, theirs in pairs]

    def ratio(self, peer: str) -> float | None:
        """The median of the ratios."""
        if peer == BEST_COMPILED:
            found = [ratio for one in COMPILED_PEERS if (ratio := self.ratio(one)) is not None]
            return min(found) if found else None
        ratios = self.ratios(peer)
        return statistics.median(ratios) if ratios else None

    def targets(self, build: str) -> list[dict[str, Any]]:
        """What was to be reached by this build, and what was."""
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
                "ratios": self.ratios(peer),
                "figures": figures,
            }
            for peer, figures in self.figures.items()
        }
        return {
            "name": self.row.name,
            "unit": self.row.unit,
            "is_cost": self.row.is_cost,
            "peers": peers,
            "missing": self.missing,
            "targets": self.targets(build),
        }


def targets(peer: str, pure: float | None, compiled: float | None) -> tuple[Target, ...]:
    """The targets of the two builds, beside one peer."""
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
                gc.collect()
                try:
                    figure = turns[peer]()
                except Exception as error:
                    result.missing[peer] = describe(error)
                    del turns[peer]
                    advance(count - number)
                else:
                    result.figures.setdefault(peer, []).append(figure)
                    advance(1)
    for peer in result.missing:
        result.figures.pop(peer, None)
    return result


def describe(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "not installed"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def seconds_per_call(call: Callable[[], object], settings: Settings) -> Turn:
    """Return a function that calls repeatedly, and tells how many seconds of CPU a call took.

    CPU, and not the clock on the wall: others use the machine as well.
    """
    enough = 0.003 if settings.quick else 0.03
    number = 1
    while True:
        start = time.process_time()
        for _ in repeat(None, number):
            call()
        took = time.process_time() - start
        if took >= enough / 4:
            break
        number *= 4
    number = max(1, round(number * enough / took))

    def turn() -> float:
        start = time.process_time()
        for _ in repeat(None, number):
            call()
        return (time.process_time() - start) / number

    return turn
