"""Do the jobs of the codec rows in memory, as often as it takes to time one, or to count its instructions.

It reads orders from stdin, one JSON array on a line, and answers each with a line:

    ["load", row, peer]   get a job ready, and compare its result with the expected one
    ["time", seconds]     do it for about so long; the answer is nanoseconds of CPU per unit
    ["count"]             do it once under valgrind; the answer is instructions per unit

The unit is a message, a call or a handshake. Under valgrind the arguments are the library of count.c, and the
file that valgrind writes to.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from itertools import count, repeat
from pathlib import Path
from typing import Any

from . import codec, samples

WARM_UPS = 3  # the interpreter adapts its code in the first calls


class Job:
    """A job that was loaded: a call, and how many units it does."""

    def __init__(self, row: str, peer: str) -> None:
        case = codec.case(row)
        self._call = case.peers[peer]()
        self._units = case.units
        for _ in range(WARM_UPS):
            self._call()
        self._times: dict[float, int] = {}

    def time(self, seconds: float) -> float:
        times = self._times.get(seconds)
        if times is None:
            # The clock of the CPU, not the clock on the wall: others use the machine as well.
            times, took = 1, self._run(1)
            while took < seconds / 4:
                times *= 4
                took = self._run(times)
            times = self._times[seconds] = max(1, round(times * seconds / took))
        gc.collect()
        return self._run(times) / times / self._units * 1e9

    def _run(self, times: int) -> float:
        call = self._call
        start = time.process_time()
        for _ in repeat(None, times):
            call()
        return time.process_time() - start

    def count(self, counter: Counter) -> float:
        gc.collect()
        gc.disable()  # it would come at another place in each run
        try:
            return counter.count(self._call) / self._units
        finally:
            gc.enable()


class Counter:
    """Counts instructions, by what valgrind writes at each end of a count."""

    def __init__(self, library: str, output: str) -> None:
        self._marks = ctypes.PyDLL(library)
        self._output = output
        self._numbers = count(1)

    def count(self, call: Callable[[], object]) -> int:
        self._marks.count_begin()
        call()
        self._marks.count_end()
        for line in Path(f"{self._output}.{next(self._numbers)}").read_text().splitlines():
            if line.startswith("totals:"):
                return int(line.split()[1])
        raise RuntimeError("valgrind wrote no total")


def main() -> None:
    counter = Counter(*sys.argv[1:3]) if len(sys.argv) > 2 else None
    job: Any = None
    samples.free_a_large_block()

    def carry_out(what: str, *arguments: Any) -> Any:
        nonlocal job
        if what == "load":
            job = None  # the memory of the last one
            job = Job(*arguments)
            return None
        if what == "time":
            return job.time(*arguments)
        assert counter is not None, "not under valgrind"
        return job.count(counter)

    for line in sys.stdin:
        try:
            reply = {"result": carry_out(*json.loads(line))}
        except ImportError as error:
            reply = {"missing": str(error)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
