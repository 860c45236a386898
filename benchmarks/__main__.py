"""Run the benchmarks, and print one table of ratios: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from wsframe.cli.standard import guarded

from . import codec, footprint, network
from .machine import build, environment
from .rows import WSFRAME, Row, Settings, count_instructions, measure, turns_of

# The columns of the table. Other peers stand below their row.
COLUMNS = ("websockets", "picows", "picows.websockets", "aiohttp", "wsproto")


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status: 1 when wsframe itself could not be measured."""
    options = parse(arguments)
    rows = chosen_rows(options.only)
    if options.list:
        print(*(row.name for row in rows), sep="\n")
        return 0
    if not rows:
        print("no row has such a name; --list shows them", file=sys.stderr)
        return 2
    start = time.monotonic()
    with ExitStack() as stack:
        settings = Settings(stack, quick=options.quick, turns=options.turns, loop=options.loop)
        results = []
        total = sum(len(row.peers) * turns_of(row, settings) for row in rows)
        begin, advance = stack.enter_context(progress(total))
        for row in rows:
            begin(row.name)
            result = measure(row, settings, advance)
            if not options.no_instructions:
                count_instructions(result, settings)
            results.append(result)
    report = {
        "environment": environment(settings, time.monotonic() - start),
        "rows": [result.as_json(build()) for result in results],
    }
    print_report(report)
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    if options.chart:
        from .chart import draw

        draw(report, Path(options.chart))
    return 1 if any(WSFRAME in result.missing for result in results) else 0


def chosen_rows(patterns: list[str] | None) -> list[Row]:
    """Return the rows whose name has one of the patterns in it, or all."""
    rows = [*codec.rows(), *network.rows(), *footprint.rows()]
    return [row for row in rows if any(re.search(p, row.name, re.I) for p in patterns or [""])]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure wsframe beside its peers."
    )
    parser.add_argument("--quick", action="store_true", help="take an eighth of the time, and be less exact")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="run the rows whose name has this in it (a regex)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--chart", metavar="FILE", help="draw the ratios: .svg or .png; needs matplotlib")
    parser.add_argument("--turns", type=int, metavar="N", help="how many turns each peer has in each row")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="of the servers")
    parser.add_argument("--no-instructions", action="store_true", help="do not count instructions")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args(arguments)


@contextmanager
def progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Show a progress bar on a terminal, if rich is installed: on stderr, for stdout is for the table."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield (lambda name: print(name, file=sys.stderr, flush=True)), (lambda count: None)
        return
    columns = (TextColumn("{task.description:38}"), BarColumn(), TimeRemainingColumn())
    # Drawn between the turns: a thread that draws would take its share of what is measured.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)

        def begin(name: str) -> None:
            bar.update(task, description=name, refresh=True)

        def advance(count: int) -> None:
            bar.update(task, advance=count, refresh=True)

        yield begin, advance


def print_report(report: dict[str, Any]) -> None:
    print_environment(report["environment"])
    print("Figures are costs, ratios how many times less wsframe costs: above 1 it is ahead.")
    print("± is the spread between the quartiles of the ratios; in wsframe's column, of its figures.\n")
    width = max(len(row["name"]) for row in report["rows"]) + 2
    print(
        f"{'':{width}}{'wsframe':>20}{'±':>6}{'user + kernel':>16}"
        + "".join(f"{peer:>20}" for peer in COLUMNS)
    )
    for row in report["rows"]:
        ours = row["peers"].get(WSFRAME, {})
        line = f"{row['name']:{width}}{figure(ours.get('median'), row['unit']):>20}"
        line += f"{percent(ours.get('spread')):>6}{parts_of(ours):>16}"
        for peer in COLUMNS:
            line += f"{ratio_of(row['peers'].get(peer, {})):>20}"
        print(line)
        others = [
            f"{peer} {ratio_of(values)}"
            for peer, values in row["peers"].items()
            if peer not in (WSFRAME, *COLUMNS)
        ]
        if others:
            print(f"{'':{width}}{'':6}beside {', '.join(others)}")
    print_instructions(report, width)
    print_targets(report, width)
    missing = [(row["name"], *item) for row in report["rows"] for item in row["missing"].items()]
    if missing:
        print("\nmissing")
        for name, peer, why in missing:
            print(f"{name:{width}}{peer}: {why}")


def print_environment(about: dict[str, Any]) -> None:
    modules = ", ".join(about["compiled_modules"]) or "none"
    print(f"wsframe {about['wsframe']} at {about['commit']}, {about['build']} build (compiled: {modules})")
    print(
        f"{about['python']}, {about['system']}, {about['processor']}, {about['cores']} cores, {about['loop']}"
    )
    for line in (about["peers"], about["tools"]):
        print(", ".join(f"{name} {version}" for name, version in line.items() if version))
    print(f"{about['date']}, {about['seconds']:.0f} s\n")


def print_instructions(report: dict[str, Any], width: int) -> None:
    """Print how many times fewer instructions wsframe needs, of the rows in which they were counted."""
    rows = [row for row in report["rows"] if row["peers"].get(WSFRAME, {}).get("instructions")]
    if not rows:
        return
    print("\ninstructions, and how many times more of them the peers need")
    for row in rows:
        count = f"{row['peers'][WSFRAME]['instructions']:,.0f} {row['unit'].removeprefix('ns')}"
        line = f"{row['name']:{width}}{count:>34}"
        for peer in COLUMNS:
            ratio = row["peers"].get(peer, {}).get("instruction_ratio")
            line += f"{'-' if ratio is None else f'{ratio:.2f}':>20}"
        print(line)


def print_targets(report: dict[str, Any], width: int) -> None:
    if not any(row["targets"] for row in report["rows"]):
        return
    print(f"\ntargets of the {report['environment']['build']} build")
    for row in report["rows"]:
        for target in row["targets"]:
            unit = "x" if target["peer"] else f" {row['unit']}"
            beside = f"beside {target['peer']}" if target["peer"] else "at most"
            measured = "missing" if target["measured"] is None else f"{target['measured']:.2f}{unit}"
            verdict = {True: "met", False: "NOT MET", None: ""}[target["is_met"]]
            print(
                f"{row['name']:{width}}{beside:40}target {target['target']:6.2f}{unit}"
                f"   measured {measured:>10}   {verdict}"
            )


def ratio_of(values: dict[str, Any]) -> str:
    if values.get("ratio") is None:
        return "-"
    return f"{values['ratio']:.2f} ±{percent(values['ratio_spread']) or '?'}"


def parts_of(values: dict[str, Any]) -> str:
    """Return how much of a figure was used in user mode, and in the kernel."""
    share = values.get("system_share")
    if share is None:
        return ""
    return f"{values['median'] * (1 - share):.3g} + {values['median'] * share:.3g}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def figure(value: float | None, unit: str) -> str:
    if value is None:
        return "missing"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


if __name__ == "__main__":
    with guarded():
        sys.exit(main())
