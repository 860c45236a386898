"""The benchmarks run, and write what they say they write. How fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import wsframe

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="they read the clocks of Linux")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)


def test_a_few_rows(tmp_path: Path) -> None:
    names = [
        "mask 125",
        "decode 16 fragments of 32",
        "encode client text 32",
        "handshake server, sans-IO",
        "echo 64, ping-pong",
        "sync server, 64, ping-pong",
    ]
    file = tmp_path / "run.json"
    only = [part for name in names for part in ("--only", f"^{name}$")]
    result = run("--quick", "--turns", "2", *only, "--json", str(file))
    assert result.returncode == 0, result.stderr
    report = json.loads(file.read_text())
    assert report["environment"]["build"] == ("compiled" if wsframe.compiled else "pure")
    assert report["environment"]["quick"] is True
    assert [row["name"] for row in report["rows"]] == names
    for row in report["rows"]:
        assert row["name"] in result.stdout
        ours = row["peers"]["wsframe"]
        assert ours["ratio"] == 1
        assert len(ours["figures"]) == 2
        assert min(ours["figures"]) > 0
        assert all(values["ratio"] > 0 and values["median"] > 0 for values in row["peers"].values())
        # A peer has figures, or a reason why it has none: it is not installed, and nothing else.
        assert not row["peers"].keys() & row["missing"].keys()
        assert set(row["missing"].values()) <= {"not installed"}
        assert all(target["target"] > 0 for target in row["targets"])


def test_names_of_rows() -> None:
    names = run("--list").stdout.splitlines()
    assert len(names) == len(set(names)) > 30
    nothing = run("--only", "no such row")
    assert nothing.returncode == 2
    assert "--list" in nothing.stderr
