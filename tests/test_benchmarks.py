"""The benchmarks run, and write what their README promises. No test asks how fast anything is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wsframe
from benchmarks import codec, compare, footprint, native, network
from tests.support.tiers import full

ROOT = Path(__file__).parents[1]
CAN_COUNT = native.count_library() is not None
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="they read the clocks of Linux"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="they need two cores"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="they need a C compiler"),
]


def run(*arguments: str, module: str = "benchmarks", root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "WSFRAME_EXTENSION": "no"}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


def check_report(tmp_path: Path, names: list[str], *options: str) -> None:
    file = tmp_path / "run.json"
    only = [part for name in names for part in ("--only", f"^{re.escape(name)}$")]
    result = run("--quick", "--turns", "2", *only, *options, "--json", str(file))
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(file.read_text())
    about = report["environment"]
    assert about["build"] == ("compiled" if wsframe.compiled else "pure")
    assert bool(about["compiled_modules"]) is wsframe.compiled
    assert about["quick"] is True
    assert about["peers"]["websockets"]
    assert [row["name"] for row in report["rows"]] == names
    for row in report["rows"]:
        assert row["name"] in result.stdout
        assert row["turns"] == 2
        ours = row["peers"]["wsframe"]
        assert ours["ratio"] == 1
        assert len(ours["figures"]) == 2
        assert min(ours["figures"]) > 0
        assert all(values["ratio"] > 0 and values["median"] > 0 for values in row["peers"].values())
        # A peer has figures, or a reason why it has none: it is not installed, and nothing else.
        assert not row["peers"].keys() & row["missing"].keys()
        assert set(row["missing"].values()) <= {"not installed"}, row["missing"]
        assert all(target["target"] > 0 for target in row["targets"])
        is_counted = CAN_COUNT and "--no-instructions" not in options and row["unit"].startswith("ns/")
        assert bool(ours["instructions"]) is is_counted


def test_a_row_in_memory(tmp_path: Path) -> None:
    check_report(tmp_path, ["decode 16 fragments of 32"], "--no-instructions")


def test_a_row_on_the_network(tmp_path: Path) -> None:
    check_report(tmp_path, ["100 connections, callbacks"])


@full
def test_rows_of_each_kind_in_memory(tmp_path: Path) -> None:
    names = ["mask 125 bytes", "encode client text 32", "deflate, compress JSON 200", "import"]
    check_report(tmp_path, names, "--no-instructions")


# The cheapest row: under valgrind, the peers of other rows take up to a minute.
@full
def test_a_row_with_its_instructions(tmp_path: Path) -> None:
    check_report(tmp_path, ["handshake server, in memory"])


@full
@pytest.mark.parametrize(
    "names",
    [
        ["64 in flight", "TLS, 64 KiB", "opening and closing handshake"],
        ["ASGI under uvicorn", "broadcast to 1,000"],
        ["blocking server", "blocking client", "blocking client, round trip"],
        ["round trip, 64 KiB", "round trip, 64 KiB, compressed, TLS"],
    ],
    ids=["aio", "many", "blocking", "large"],
)
def test_a_row_of_each_kind_on_the_network(tmp_path: Path, names: list[str]) -> None:
    check_report(tmp_path, names)


def test_every_row_has_a_name_of_its_own_and_wsframe_in_it() -> None:
    rows = [*codec.rows(), *network.rows(), *footprint.rows()]
    names = run("--list").stdout.splitlines()
    assert names == [row.name for row in rows]
    assert len(names) == len(set(names)) > 40
    for row in rows:
        assert "wsframe" in row.peers, row.name
        assert {target.peer for target in row.targets} <= {"", *row.peers}, row.name


def test_a_name_that_no_row_has_is_an_error() -> None:
    nothing = run("--only", "no such row")
    assert nothing.returncode == 2
    assert "--list" in nothing.stderr


# Two versions


def test_the_interval_leaves_out_as_many_rounds_as_95_percent_allow() -> None:
    for rounds, left_out in ((6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (20, 5)):
        ratios = [1 + number / 100 for number in range(rounds)]
        assert compare.interval(ratios[::-1]) == (ratios[left_out], ratios[-1 - left_out]), rounds


def test_a_verdict_needs_an_interval_without_zero() -> None:
    def word(change: float, low: float, high: float) -> str:
        return compare.Verdict("row", "ns", 1, 1, change, low, high).word

    assert word(0.03, 0.01, 0.04) == "SLOWER"
    assert word(-0.03, -0.04, -0.01) == "faster"
    assert word(0.03, -0.01, 0.07) == word(0, 0, 0) == "within the noise"
    assert compare.Verdict("row", "ns", 1, 1, 0.009, 0.008, 0.01, 0.01).word == "within the noise"
    assert compare.Verdict("row", "ns", reason="not installed").word == "not installed"


@full
@pytest.mark.skipif(not CAN_COUNT, reason="valgrind is not installed")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_a_slower_codec_is_found(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    source = checkout / "src/wsframe/frames.py"
    text, start = source.read_text(), "    def advance(self) -> bool:\n"
    assert start in text
    source.write_text(text.replace(start, f"{start}        sum(())\n"))
    for row, status, verdict in (
        ("decode text 32", 1, "SLOWER"),
        ("handshake client, in memory", 0, "within the noise"),
    ):
        comparison = run("HEAD", "--only", f"^{row}$", module="benchmarks.compare", root=checkout)
        assert comparison.returncode == status, comparison.stdout + comparison.stderr
        assert any(line.endswith(verdict) for line in comparison.stdout.splitlines()), comparison.stdout
