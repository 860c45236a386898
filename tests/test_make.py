"""The Makefile: what is compiled is compiled again when it was changed."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = next(
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "setup.py").read_text()).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SOURCES"
)
LONG_AGO, NOW, LATER = 1_000_000_000, 1_100_000_000, 1_200_000_000

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the repository in which ``make test`` has just run."""
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "*.c", "*.pyc"))
    for path in tmp_path.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    (tmp_path / ".venv").mkdir()
    for stamp in ("serve", "test"):
        (tmp_path / ".venv" / stamp).touch()
        os.utime(tmp_path / ".venv" / stamp, (NOW, NOW))
    return tmp_path


def is_rebuilt(checkout: Path) -> bool:
    command = ["make", "--dry-run", "test"]
    run = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    assert "pytest" in run.stdout
    return "--editable" in run.stdout


def test_every_compiled_source_that_changes_is_compiled_again(checkout):
    assert not is_rebuilt(checkout)
    declarations = [path.relative_to(checkout) for path in (checkout / "src").rglob("*.pxd")]
    assert declarations
    for source in [*(f"src/wsframe/{name}" for name in SOURCES), *declarations, "setup.py"]:
        file = checkout / source
        os.utime(file, (LATER, LATER))
        assert is_rebuilt(checkout), source
        os.utime(file, (LONG_AGO, LONG_AGO))
    assert not is_rebuilt(checkout)


def test_a_source_that_is_not_compiled_is_not_built_again(checkout):
    os.utime(checkout / "src/wsframe/deflate.py", (LATER, LATER))
    assert not is_rebuilt(checkout)


def test_every_source_of_a_type_declaration_or_of_cython_is_compiled():
    package = ROOT / "src/wsframe"
    for path in [*package.rglob("*.pxd"), *package.rglob("*.pyx")]:
        # _events.pxd declares names of events.py for other modules.
        stem = path.relative_to(package).with_suffix("").as_posix().removeprefix("_")
        names = {name.partition(".")[0].removeprefix("_") for name in SOURCES}
        assert stem in names, path
