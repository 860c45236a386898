"""Every program of docs/fuzzing.md is a file of tests, and they pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PROGRAMS = re.findall(r"```python\n(.*?)```", (DOCS / "fuzzing.md").read_text(), re.DOTALL)


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 4


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_passes_its_own_tests(number: int, tmp_path: Path) -> None:
    file = tmp_path / "test_program.py"
    file.write_text(PROGRAMS[number])
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr
