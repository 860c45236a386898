"""Run the benchmarks, and print one table of ratios: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import wsframe

from . import decode, deflate, encode, footprint, handshake, mask, network, servers
from .rows import WSFRAME, Row, Settings, measure, turns_of

MODULES = (mask, decode, encode, deflate, handshake, network, footprint)
PEERS = ("websockets", "wsproto", "aiohttp", "picows", "websocket-client", "uvloop")
# The columns of the table. Other peers stand below their row.
COLUMNS = ("websockets", "picows", "picows.websockets", "aiohttp", "wsproto")


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status: 1 when wsframe itself could not be measured."""
    options = parse(arguments)
    rows = [row for row in all_rows() if any(re.search(p, row.name, re.I) for p in options.only or [""])]
    if options.list:
        print(*(row.name for row in rows), sep="\n")
        return 0
    if not rows:
        print("no row has such a name; --list shows them", file=sys.stderr)
        return 2
    servers.allow_many_files()
    settings = Settings(options.quick, options.turns, options.loop)
    start = time.monotonic()
    with progress(sum(len(row.peers) * turns_of(row, settings) for row in rows)) as (begin, advance):
        results = []
        for row in rows:
            begin(row.name)
            results.append(measure(row, settings, advance))
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
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args(arguments)


def all_rows() -> list[Row]:
    return [row for module in MODULES for row in module.rows()]


def build() -> str:
    return "compiled" if wsframe.compiled else "pure"


def environment(settings: Settings, seconds: float) -> dict[str, Any]:
    """What one has to know about a run to read its figures."""
    versions: dict[str, str | None] = {}
    for package in PEERS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    names = ("_mask", "events", "frames", "handshake", "connection", "client", "server", "aio.protocol")
    names = (*names, "sync.connection") if build() == "compiled" else ()
    modules = [(name, importlib.import_module(f"wsframe.{name}")) for name in names]
    return {
        "wsframe": version("wsframe"),
        "build": build(),
        "compiled_modules": [name for name, module in modules if not str(module.__file__).endswith(".py")],
        "peers": versions,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "loop": settings.loop,
        "quick": settings.quick,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
    }


def processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


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
    about = report["environment"]
    modules = ", ".join(about["compiled_modules"]) or "none"
    peers = ", ".join(f"{peer} {number}" for peer, number in about["peers"].items() if number)
    print(f"wsframe {about['wsframe']}, {about['build']} build (compiled modules: {modules})")
    print(
        f"{about['python']}, {about['system']}, {about['processor']}, {about['cores']} cores, {about['loop']}"
    )
    print(f"{peers}; {about['date']}, {about['seconds']:.0f} s\n")
    print(
        "How many times better wsframe is: with more than 1, it is ahead. ± is the spread of its figures.\n"
    )
    width = max(len(row["name"]) for row in report["rows"]) + 2
    print(f"{'':{width}}{'wsframe':>24}{'±':>6}" + "".join(f"{peer:>19}" for peer in COLUMNS))
    for row in report["rows"]:
        ours = row["peers"].get(WSFRAME, {})
        line = f"{row['name']:{width}}{figure(ours.get('median'), row['unit']):>24}"
        line += f"{format(ours['spread'], '.0%') if ours.get('spread') is not None else '':>6}"
        for peer in COLUMNS:
            ratio = row["peers"].get(peer, {}).get("ratio")
            line += f"{'-' if ratio is None else f'{ratio:.2f}':>19}"
        print(line)
        others = [
            f"{peer} {values['ratio']:.2f}"
            for peer, values in row["peers"].items()
            if peer not in (WSFRAME, *COLUMNS) and values["ratio"] is not None
        ]
        if others:
            print(f"{'':{width}}{'':6}beside {', '.join(others)}")
    print_targets(report, width)
    missing = [(row["name"], *item) for row in report["rows"] for item in row["missing"].items()]
    if missing:
        print("\nmissing")
        for name, peer, why in missing:
            print(f"{name:{width}}{peer}: {why}")


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
                f"{row['name']:{width}}{beside:34}target {target['target']:6.2f}{unit}"
                f"   measured {measured:>10}   {verdict}"
            )


def figure(value: float | None, unit: str) -> str:
    if value is None:
        return "missing"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


if __name__ == "__main__":
    sys.exit(main())
