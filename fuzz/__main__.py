"""Run targets over what a fuzzer makes, or over what it made once. README.md says how."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
DICTIONARY = HERE / "websocket.dict"
GROWN = Path("reports/fuzz")  # what a run finds: a corpus for each target, and the inputs that fail
NAMES = ("frames", "connection", "handshake", "headers", "uri")
MAX_LENGTH = 4096


def guide(name: str, options: list[str]) -> None:
    """Fuzz a target with atheris, which sees what pure Python runs."""
    import atheris  # type: ignore[import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["wsframe"]):
        import wsframe

        from .targets import TARGETS

    if wsframe.compiled:
        print("wsframe is compiled, so atheris sees nothing of it; --mutate does as well", file=sys.stderr)
    grown = GROWN / name
    grown.mkdir(parents=True, exist_ok=True)
    defaults = [
        f"-artifact_prefix={GROWN}/{name}-",
        f"-dict={DICTIONARY}",
        f"-max_len={MAX_LENGTH}",
        "-timeout=20",
        "-print_final_stats=1",
    ]
    # What comes later overrides what comes first; the first directory is where new inputs go.
    if all(option.startswith("-") for option in options):
        options = [*options, str(grown), str(CORPUS / name)]
    atheris.Setup([sys.argv[0], *defaults, *options], TARGETS[name])
    atheris.Fuzz()


def guide_all(seconds: int) -> int:
    """Fuzz each target for its share of the time, in a process of its own; return how many failed."""
    failed = 0
    for name in NAMES:
        command = [sys.executable, "-m", "fuzz", name, f"-max_total_time={max(1, seconds // len(NAMES))}"]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


def inputs(folders: list[Path], name: str) -> dict[Path, bytes]:
    """Return the inputs that stand in ``folder/name``, for each folder."""
    files = (file for folder in folders for file in sorted((folder / name).glob("*")))
    return {file: file.read_bytes() for file in files}


def replay(folders: list[Path]) -> None:
    """Run every target over its inputs."""
    from .targets import TARGETS

    for name, target in TARGETS.items():
        seeds = inputs(folders, name)
        for file, data in seeds.items():
            try:
                target(data)
            except BaseException as error:
                error.add_note(f"with {file}")
                raise
        print(f"{name}: {len(seeds)} inputs")


def words() -> list[bytes]:
    """Return the entries of the dictionary."""
    lines = DICTIONARY.read_text(encoding="ascii").splitlines()
    quoted = (line[1:-1] for line in lines if line.startswith('"'))
    return [text.encode("ascii").decode("unicode_escape").encode("latin-1") for text in quoted]


def mutate(rng: Random, seeds: list[bytes], dictionary: list[bytes]) -> bytes:
    """Return an input with one to five changes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 5)):
        place = rng.randint(0, len(data))
        end = min(len(data), place + rng.choice([1, 1, 2, 4, 8, 64]))
        match rng.randrange(7):
            case 0 if place < end:
                data[place] ^= 1 << rng.randrange(8)
            case 1 if place < end:
                data[place] = rng.choice([0, 1, 125, 126, 127, 128, 255, rng.randrange(256)])
            case 2:
                del data[place:end]
            case 3:
                data[place:place] = data[place:end] * rng.choice([1, 2, 30])
            case 4:
                data[place:place] = rng.choice(dictionary)
            case 5:
                data[place:end] = rng.randbytes(end - place)
            case 6:
                other = rng.choice(seeds)
                data[place:] = other[rng.randint(0, len(other)) :]
    return bytes(data[:MAX_LENGTH])


def mutate_all(folders: list[Path], count: int, seed: int) -> None:
    """Run every target over ``count`` mutations, for builds that atheris cannot guide.

    The input that runs stands in a file: when the process dies, it is the one that did it.
    """
    from .targets import TARGETS

    dictionary = words()
    GROWN.mkdir(parents=True, exist_ok=True)
    for name, target in TARGETS.items():
        rng, seeds = Random(f"{name} {seed}"), list(inputs(folders, name).values())
        running = GROWN / f"{name}-running"
        with running.open("wb", buffering=0) as file:
            for number in range(count):
                data = mutate(rng, seeds, dictionary)
                os.pwrite(file.fileno(), data, 0)
                os.ftruncate(file.fileno(), len(data))
                try:
                    target(data)
                except BaseException as error:
                    error.add_note(f"with {running}, which is number {number}")
                    raise
        running.unlink()
        print(f"{name}: {count} mutations of {len(seeds)} inputs", flush=True)


def arcs_of(target: Callable[[bytes], None], data: bytes, package: str) -> set[tuple[CodeType, int, int]]:
    """Return from which line of the package's code to which other one a target went."""
    arcs = set()

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(package):
            return None
        last = 0

        def trace_lines(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal last
            if event == "line":
                arcs.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return trace_lines

        return trace_lines

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return arcs


def keep() -> None:
    """Add to the corpus what was found and goes where nothing in there does: the shortest inputs first."""
    import wsframe

    from .targets import TARGETS

    package = str(Path(wsframe.__file__).parent)
    for name, target in TARGETS.items():
        seen = set()
        for data in inputs([CORPUS], name).values():
            seen |= arcs_of(target, data, package)
        before, kept = len(seen), 0
        for data in sorted(inputs([GROWN], name).values(), key=len):
            arcs = arcs_of(target, data, package)
            if not arcs <= seen:
                seen |= arcs
                kept += 1
                (CORPUS / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        print(f"{name}: {before} arcs, and {len(seen) - before} by {kept} more inputs")


def main() -> int:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("target", nargs="?", choices=NAMES, help="fuzz it; what follows is for libFuzzer")
    what.add_argument("--all", action="store_true", help="fuzz each target for its share of --seconds")
    what.add_argument(
        "--replay", nargs="+", type=Path, metavar="FOLDER", help="run the inputs of FOLDER/TARGET"
    )
    what.add_argument("--mutate", nargs="+", type=Path, metavar="FOLDER", help="run mutations of them")
    what.add_argument("--keep", action="store_true", help="add to the corpus what was found, where it is new")
    parser.add_argument("--seconds", type=int, default=300, help="for --all")
    parser.add_argument("--count", type=int, default=10000, help="for --mutate: how many of each target")
    parser.add_argument("--seed", type=int, default=0, help="for --mutate: others")
    options, more = parser.parse_known_args()
    if more and not options.target:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if options.target:
        guide(options.target, more)
    elif options.all:
        return guide_all(options.seconds)
    elif options.keep:
        keep()
    elif options.replay:
        replay(options.replay)
    else:
        mutate_all(options.mutate, options.count, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
