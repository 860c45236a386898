"""The processes that are measured: workers, which compute, and servers; and the load on them.

Everything that is measured runs in a process of its own on the first core, and the load runs on the last one.
So a row costs the same whatever else was measured before, and two copies of wsframe can be compared.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import native

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
TIMEOUT = 90  # seconds in which anything must happen
CORES = sorted(os.sched_getaffinity(0))
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Tree:
    """A copy of wsframe, and of the benchmarks that know its API.

    Args:
        library: the directory in which wsframe is installed; None for the installed one.
        root: the directory that has the package ``benchmarks``.
    """

    library: Path | None = None
    root: Path = ROOT

    def environment(self) -> dict[str, str]:
        # With the same hashes, sets and dicts have the same order in each run.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": ""}
        if self.library:
            environment["PYTHONPATH"] = str(self.library)
        return environment


class Process:
    """A process that answers each line on its stdin with a line on its stdout."""

    def __init__(
        self,
        stack: ExitStack,
        command: list[str],
        *,
        core: int,
        tree: Tree | None = None,
        files: tuple[int, ...] = (),
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
        stack.callback(self._log.close)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=tree.root if tree else None,
            env=tree.environment() if tree else None,
            pass_fds=files,
            text=True,
            bufsize=1,
        )
        stack.callback(self._end)
        self.pid = self._process.pid
        os.sched_setaffinity(self.pid, {core})

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def answer(self) -> str:
        """Wait for a line."""
        assert self._process.stdout is not None
        poll = select.poll()  # select() knows no more than 1024 files
        poll.register(self._process.stdout, select.POLLIN)
        line = self._process.stdout.readline() if poll.poll(TIMEOUT * 1000) else ""
        if not line.strip():
            self._process.kill()
            self._process.wait()
            self._log.seek(0)
            raise failure(self._log.read().decode(errors="replace"))
        return line

    def tell(self, line: str) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # if it has ended, its log has the reason
            self._process.stdin.write(line + "\n")

    def ask(self, line: str) -> str:
        """Write a line, and wait for the answer."""
        self.tell(line)
        return self.answer()


def failure(stderr: str) -> Exception:
    """Return the error of a process that ended, from what it wrote last."""
    lines = stderr.strip().splitlines() or ["the process ended, or did not answer"]
    if lines[-1].startswith("ModuleNotFoundError"):
        return ModuleNotFoundError(lines[-1])
    return RuntimeError(lines[-1])


class Worker(Process):
    """A process that does the jobs of one peer in memory; see worker.py."""

    def __init__(self, stack: ExitStack, tree: Tree, *, counts: bool = False) -> None:
        command = [sys.executable, "-m", "benchmarks.worker"]
        if counts:
            output = stack.enter_context(tempfile.TemporaryDirectory()) + "/counts"
            library = native.count_library()
            if library is None:
                raise RuntimeError(
                    "instructions are counted by valgrind: it, or its header, is not installed"
                )
            options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
            command = ["valgrind", "-q", *options, *command, str(library), output]
        super().__init__(stack, command, core=CORES[0], tree=tree)

    def order(self, *words: Any) -> Any:
        reply = json.loads(self.ask(json.dumps(words)))
        if "missing" in reply:
            raise ModuleNotFoundError(reply["missing"])
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]


@dataclass
class Cpu:
    """What a process has used: seconds in all, and clock ticks in user mode and in the kernel."""

    seconds: float
    user: int
    system: int

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.seconds - other.seconds, self.user - other.user, self.system - other.system)

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.seconds + other.seconds, self.user + other.user, self.system + other.system)

    @property
    def system_share(self) -> float | None:
        ticks = self.user + self.system
        return self.system / ticks if ticks else None


class Program(Process):
    """A process whose CPU and memory are measured."""

    def cpu(self) -> Cpu:
        # The scheduler's own account in nanoseconds, the one that /proc/PID/schedstat shows for each thread,
        # with all threads, also those that ended: the clock of another process, see clock_getcpuclockid(3).
        seconds = time.clock_gettime((~self.pid << 3) | 2)
        # At each tick of 4 ms the kernel looks whether it interrupts user mode. Over a whole row that is
        # exact enough for the share of the kernel, and for nothing else.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return Cpu(seconds, int(fields[11]), int(fields[12]))

    def memory(self) -> float:
        """Return its resident memory, in KiB."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return float(line.split()[1])
        raise OSError("no Rss")


class Server(Program):
    """The server of a peer; see servers.py."""

    def __init__(self, stack: ExitStack, tree: Tree, peer: str, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.servers", peer, *options]
        super().__init__(stack, command, core=CORES[0], tree=tree)
        self.port = int(self.answer())


class Client(Program):
    """A blocking client of a peer; see clients.py."""

    def __init__(self, stack: ExitStack, tree: Tree, peer: str, port: int, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.clients", peer, str(port), *options]
        super().__init__(stack, command, core=CORES[0], tree=tree)


class Load(Process):
    """The client in C that all servers are measured by; see load.c."""

    def __init__(self, stack: ExitStack, *options: str, files: tuple[int, ...] = ()) -> None:
        if len(CORES) < 2:
            raise RuntimeError("the load needs a core of its own, and this machine has one core only")
        command = [str(native.load_program()), *options]
        super().__init__(stack, command, core=CORES[-1], files=files)

    def do(self, *words: str | int) -> None:
        answer = self.ask(" ".join(map(str, words)))
        if answer != "ok\n":
            raise RuntimeError(answer)


@contextmanager
def running(tree: Tree, peer: str, *options: str) -> Iterator[Server]:
    """Start a server, and end it."""
    with ExitStack() as stack:
        yield Server(stack, tree, peer, *options)
