"""Compare two versions of wsframe, row by row: ``python -m benchmarks.compare BASE``.

BASE is a commit, and what it is compared with is the working tree (or another commit, by ``--head``). Each is
built below ``build/compare``, which leaves the checkout alone. Each is driven by its own benchmarks, which
know its API.

A row whose instructions are counted is decided by them: they are the same in each run. The other rows are
decided by time. In each of some rounds both versions start anew, and take turns. The figure of a round is the
median of the ratios of its turns. The versions differ if 1 is outside of the interval in which the median of
all rounds is with 95 % confidence, and if that median is more than 1 % away from it. One row in 25 is outside
of its interval by chance, but then by less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import WSFRAME, Row, Settings, describe
from .subject import ROOT, Tree

BUILD = ROOT / "build" / "compare"
ROUNDS = 9
FEWEST_ROUNDS = 6
TURNS = 7
CONFIDENCE = 0.95
# Counts of the same code differ by about a thousandth, as addresses differ.
COUNT_NOISE = 0.005
SMALLEST = 0.01  # change of a time


@dataclass(frozen=True)
class Verdict:
    """How a row of the head compares with that of the base.

    Args:
        row: its name.
        unit: the unit of both figures.
        base: the figure of the base; None if it has none.
        head: the figure of the head.
        change: by how much the head costs more, as a part of the base.
        low: the lower end of the interval in which the change is.
        high: the upper end.
        smallest: the smallest change that counts.
        reason: why there are no figures.
    """

    row: str
    unit: str
    base: float | None = None
    head: float | None = None
    change: float = 0.0
    low: float = 0.0
    high: float = 0.0
    smallest: float = 0.0
    reason: str = ""

    @property
    def word(self) -> str:
        if self.reason:
            return self.reason
        if self.low <= 0 <= self.high or abs(self.change) < self.smallest:
            return "within the noise"
        return "SLOWER" if self.change > 0 else "faster"


# Building


def git(*arguments: str, index: str = "") -> str:
    environment = {**os.environ, "GIT_INDEX_FILE": index} if index else None
    run = subprocess.run(
        ["git", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {run.stderr.strip()}")
    return run.stdout.strip()


def tree_of(revision: str | None) -> str:
    """Return the git tree of a commit, or of the working tree."""
    if revision is not None:
        return git("rev-parse", "--verify", f"{revision}^{{tree}}")
    with tempfile.TemporaryDirectory() as directory:
        index = f"{directory}/index"
        git("read-tree", "HEAD", index=index)
        git("add", "--all", index=index)
        return git("write-tree", index=index)


def built(revision: str | None) -> Tree:
    """Return a version, installed in a directory of its own. What was built before is used again."""
    tree = tree_of(revision)
    home = BUILD / f"{tree[:12]}-{os.environ.get('WSFRAME_EXTENSION', 'yes')}"
    library = home / "library"
    if not library.exists():
        print(f"building {revision or 'the working tree'} in {home.relative_to(ROOT)}", file=sys.stderr)
        home.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", tree], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x"], input=archive.stdout, cwd=home, check=True)
        environment = {"WSFRAME_EXTENSION": "yes", **os.environ}
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run(
            [*command, "--no-deps", "--target", "unfinished", "."], cwd=home, env=environment, check=True
        )
        (home / "unfinished").rename(library)
    has_worker = (home / "benchmarks" / "worker.py").exists()
    return Tree(library, home if has_worker else ROOT)


# Measuring


def compare(row: Row, base: Settings, head: Settings, rounds: int, turns: int) -> Verdict:
    both = (base, head)
    try:
        if row.is_counted:
            counts = [row.counters[WSFRAME](settings) for settings in both]
            change = counts[1] / counts[0] - 1
            low, high = change - COUNT_NOISE, change + COUNT_NOISE
            return Verdict(row.name, "instructions", *counts, change, low, high)
        ratios, figures = [], []
        for number in range(rounds):
            pairs = measure_pairs(row, both, min(turns, row.turns), number)
            ratios.append(statistics.median(head / base for base, head in pairs))
            figures += pairs
    except Exception as error:
        return Verdict(row.name, row.unit, reason=describe(error))
    medians = [statistics.median(side) for side in zip(*figures, strict=True)]
    low, high = interval(ratios)
    change = statistics.median(ratios) - 1
    return Verdict(row.name, row.unit, *medians, change, low - 1, high - 1, SMALLEST)


def measure_pairs(
    row: Row, both: tuple[Settings, Settings], turns: int, number: int
) -> list[tuple[float, float]]:
    """Start both versions, and let them take turns. The one that begins is another one each time."""
    pairs = []
    with ExitStack() as stack:
        order = (0, 1) if number % 2 == 0 else (1, 0)
        ready: list[Callable[[], float]] = [lambda: 0.0] * 2
        for side in order:
            ready[side] = row.peers[WSFRAME](stack, both[side])
        for turn in range(turns):
            pair = [0.0, 0.0]
            for side in order if turn % 2 == 0 else reversed(order):
                pair[side] = ready[side]()
            pairs.append((pair[0], pair[1]))
    return pairs


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return the ends of the interval in which the median of the distribution is.

    From the k-th smallest of n to the k-th largest, it misses the median if fewer than k of n fair coins show
    the same side. That holds whatever the distribution is.
    """
    ordered, count, k = sorted(ratios), len(ratios), 1
    while 2 * sum(math.comb(count, heads) for heads in range(k + 1)) / 2**count <= 1 - CONFIDENCE:
        k += 1
    return ordered[k - 1], ordered[-k]


# Reporting


def line_of(verdict: Verdict, width: int) -> str:
    line = f"{verdict.row:{width}}"
    if verdict.base is None or verdict.head is None:
        return f"{line}{verdict.word}"
    figures = f"{verdict.base:,.4g} -> {verdict.head:,.4g} {verdict.unit}"
    limits = f"{verdict.low:+.1%} to {verdict.high:+.1%}"
    return f"{line}{figures:>44}{verdict.change:>+9.1%}{limits:>20}   {verdict.word}"


def main(arguments: list[str] | None = None) -> int:
    """Compare two versions; return 1 if a row became slower or could not be measured."""
    from .__main__ import chosen_rows

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=str(__doc__).partition("\n\n")[0]
    )
    parser.add_argument("base", help="a commit")
    parser.add_argument("--head", metavar="COMMIT", help="compare this commit, not the working tree")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="the rows whose name has this in it"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often both versions start anew")
    parser.add_argument("--turns", type=int, default=TURNS, help="how many turns each has in a round")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="of the servers")
    parser.add_argument("--json", metavar="FILE", help="write the verdicts to this file")
    options = parser.parse_args(arguments)
    if options.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds must be at least {FEWEST_ROUNDS}: fewer cannot give 95 % confidence")
    rows = chosen_rows(options.only)
    trees = [built(options.base), built(options.head)]
    width = max(len(row.name) for row in rows) + 2
    print(f"{options.base} -> {options.head or 'the working tree'}")
    print(f"{'':{width}}{'':44}{'change':>9}{'is between':>20}")
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        base, head = (Settings(stack, tree, loop=options.loop) for tree in trees)
        for row in rows:
            verdicts.append(compare(row, base, head, options.rounds, options.turns))
            print(line_of(verdicts[-1], width), flush=True)
    if options.json:
        found: list[dict[str, Any]] = [{**vars(verdict), "verdict": verdict.word} for verdict in verdicts]
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(verdict.reason or verdict.word == "SLOWER" for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
