"""``wsframe bench``: how many frames a second.

The benchmarks are no part of the package: they need the peers that they compare with, and they stand in the
repository. This finds them there, in the directory below which the package runs, or where the user is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import click

import wsframe

from .terminal import Failure

__all__ = ["bench"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure wsframe beside other libraries, by the benchmarks in its repository.

    What stands behind 'bench' is passed on to 'python -m benchmarks'; it exits with what that exits with, or
    with 1 when the benchmarks are not there.

    \b
    wsframe bench --list                      what can be measured
    wsframe bench --quick --only decode       some of it, quickly
    wsframe bench --json run.json             everything, which takes long
    wsframe bench -- --help                   all options
    """
    root = _find()
    if root is None:
        raise Failure(
            "the benchmarks stand in wsframe's repository and are not installed with it:"
            " run this in a copy of the repository, or 'make bench' there"
        )
    # They start processes of their own, which must find them as well: but nothing else where the user is.
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    run = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], env=environment)  # noqa: S603
    raise SystemExit(run.returncode)


def _find() -> Path | None:
    """Return the root of the repository."""
    for root in (Path.cwd(), Path(wsframe.__file__).parents[2]):
        project, program = root / "pyproject.toml", root / "benchmarks" / "__main__.py"
        if project.is_file() and program.is_file():
            # Other projects have benchmarks, too.
            with suppress(tomllib.TOMLDecodeError, OSError):
                if tomllib.loads(project.read_text("utf-8")).get("project", {}).get("name") == "wsframe":
                    return root
    return None
