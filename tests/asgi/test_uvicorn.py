"""uvicorn's own tests of its WebSockets, from its source on PyPI, of wsframe.asgi."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.support.asgi_site import HTTP, uvicorn
from tests.support.paths import DOCS
from tests.support.tiers import full

pytest.importorskip("uvicorn")
for module in ("httpx2", "anyio", "websockets", "wsproto"):
    pytest.importorskip(module, reason=f"uvicorn's tests need {module}")

HERE = Path(__file__).parent

SAYS_MORE = "every websocket.disconnect has a reason (as docs/asgi.md says): the test compares it whole"
NOT_CUT = "the connection is closed with {}, where uvicorn cuts it: the client sees {}, not 1006"
TOGETHER = (
    "the head goes out with the first body, as the specification has it: when none follows, it can still "
    "become a 500. uvicorn skips the test for its websockets-sansio, which does the same"
)
# The tests that fail, and why it is right to differ
DIFFERENT = {
    "test_duplicate_handshake": NOT_CUT.format(1011, 1011),
    "test_asgi_return_value": NOT_CUT.format(1011, 1011),
    "test_close_transport_on_asgi_return": NOT_CUT.format(1000, 1000),
    "test_connection_lost_before_handshake_complete": SAYS_MORE,
    "test_send_close_on_server_shutdown": SAYS_MORE,
    "test_server_reject_connection": SAYS_MORE,
    "test_server_reject_connection_with_response": SAYS_MORE,
    "test_server_reject_connection_with_multibody_response": SAYS_MORE,
    "test_server_reject_connection_with_invalid_msg": TOGETHER,
    "test_server_reject_connection_with_missing_body": TOGETHER,
    "test_server_multiple_websocket_http_response_start_events": TOGETHER,
    "test_server_keepalive_ping_timeout": "1011 it is, but the reason is 'no pong within 0.1 seconds'",
    "test_close_resumes_reads_paused_on_an_unconsumed_message": (
        "ws_max_queue messages wait before reading is paused: the test wants that after one"
    ),
    "test_shutdown_while_the_close_reply_is_pending": (
        "who is closing already has its 10 seconds for that, also when the server shuts down"
    ),
}


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """uvicorn's source, as it is on PyPI."""
    version = uvicorn.__version__
    cache = getattr(request.config, "cache", None)
    directory = tmp_path_factory.mktemp("sdist") if cache is None else cache.mkdir("uvicorn")
    archive = directory / f"uvicorn-{version}.tar.gz"
    if not archive.exists():
        command = f"-m pip download --quiet --no-deps --no-binary :all: uvicorn=={version}"
        download = subprocess.run(
            [sys.executable, *command.split(), "--dest", directory],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if not archive.exists():
            pytest.skip(f"uvicorn's source is not to be had: {download.stderr.strip()[-200:]}")
    unpacked = tmp_path_factory.mktemp("uvicorn")
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    return unpacked / f"uvicorn-{version}"


def outcomes(source: Path, report: Path) -> dict[str, str]:
    """Run uvicorn's tests of WebSockets, and return what came of each."""
    shutil.copy(HERE / "uvicorn_shim.py", source / "tests/protocols/conftest.py")
    options = f"-c {os.devnull} --rootdir=. -q -p no:cacheprovider --timeout 30 --junit-xml={report}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "tests/protocols/test_websocket.py"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert report.exists(), run.stdout + run.stderr
    return {
        case.attrib["name"]: next((child.tag for child in case if child.tag != "properties"), "passed")
        for case in ElementTree.parse(report).iter("testcase")
        if "[" in case.attrib["name"]
    }


@full
@pytest.mark.timeout(420)
def test_the_tests_of_uvicorn(source, tmp_path):
    results = outcomes(source, tmp_path / "report.xml")
    here = {name: outcome for name, outcome in results.items() if outcome != "skipped"}
    skipped = results.keys() - here.keys()
    assert all("zttp" in name for name in skipped), skipped  # a third parser, when it is not installed
    assert all(any(http in name for name in here) for http in HTTP)
    failed = {name for name, outcome in here.items() if outcome != "passed"}
    said = re.search(r"(\S+): (\d+) of its (\d+) tests", (DOCS / "asgi.md").read_text())
    assert said is not None
    if said[1] != uvicorn.__version__ and (news := {name.split("[")[0] for name in failed} ^ set(DIFFERENT)):
        pytest.xfail(f"these tests of uvicorn {uvicorn.__version__} are to be looked at: {sorted(news)}")
    assert {name.split("[")[0] for name in failed} == set(DIFFERENT)
    assert failed == {name for name in here if name.split("[")[0] in DIFFERENT}, "not with every parser"
    if said[1] == uvicorn.__version__:
        assert (len(here) - len(failed)) * int(said[3]) == len(here) * int(said[2])
