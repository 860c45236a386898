"""The compiled build does what the pure one does; differential.py says how that is seen."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from wsframe import compiled

DIFFERENTIAL = Path(__file__).with_name("differential.py")
STREAMS = 4000


@functools.cache
def run(streams, *options):
    """Run streams in another process; return its build, the digests, and how often each thing was seen."""
    command = [sys.executable, DIFFERENTIAL, "0", str(streams), *options]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    *digests, tally = process.stdout.splitlines()
    return process.stderr.strip(), digests, dict(pair.split("=") for pair in tally.split())


@pytest.mark.skipif(not compiled, reason="there is one build only")
def test_both_builds_do_the_same_with_the_same_streams():
    build, digests, tally = run(STREAMS)
    assert build == "compiled"
    assert len(digests) == STREAMS // 1000
    assert run(STREAMS, "--pure") == ("pure", digests, tally)


def test_the_streams_show_what_can_be_seen():
    _, _, tally = run(STREAMS, "--pure")
    events = "Request", "Response", "Text", "Binary", "Ping", "Pong", "Close", "Fail"
    assert all(int(tally[name]) > 100 for name in events)
