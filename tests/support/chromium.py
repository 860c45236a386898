"""Headless Chromium, driven by Selenium: Debian's, with a profile and a home of its own.

with chromium(authority) as browser:
    browser.open(url)
    assert browser.run("return 6 * number", number=7) == 42
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.adapters import TIMEOUT

if TYPE_CHECKING:
    import trustme

try:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService
    from selenium.webdriver.support.wait import WebDriverWait
except ImportError:
    Chrome = None

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
CERTUTIL = shutil.which("certutil")

needs_chromium = pytest.mark.skipif(
    Chrome is None or CHROMIUM is None or CHROMEDRIVER is None,
    reason="Selenium or Chromium is not installed (Debian: chromium, chromium-driver)",
)
needs_certutil = pytest.mark.skipif(
    CERTUTIL is None, reason="certutil is not installed (Debian: libnss3-tools), so Chromium trusts nobody"
)

# Nothing but what the test asks for: no sandbox, for root; no GPU; no word to its maker.
OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


class Browser:
    """A browser with a window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        driver.set_script_timeout(TIMEOUT)
        driver.set_page_load_timeout(TIMEOUT)

    def open(self, url: str) -> None:
        """Go to a page."""
        self.driver.get(url)

    def open_window(self, url: str) -> str:
        """Go to a page in a new window, and return its handle for ``look_at``."""
        self.driver.switch_to.new_window("window")
        self.open(url)
        return self.driver.current_window_handle

    def look_at(self, window: str) -> None:
        self.driver.switch_to.window(window)

    def close_window(self) -> None:
        """Close the window that is looked at, and look at the first one."""
        self.driver.close()
        self.look_at(self.driver.window_handles[0])

    def run(self, script: str, **names: Any) -> Any:
        """Run the body of an asynchronous function in the page, with these names, and return its result."""
        function = f"async ({', '.join(names)}) => {{ {script} }}"
        error, result = self.driver.execute_async_script(
            f"""
            const done = arguments[arguments.length - 1];
            ({function})(...Array.from(arguments).slice(0, -1))
                .then(result => done([null, result]), error => done([String(error), null]));
            """,
            *names.values(),
        )
        assert error is None, error
        return result

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """Return the text that one sees of an element, on one line."""
        return " ".join(self.find(selector).text.split())

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all such elements."""
        return [item.text for item in self.driver.find_elements("css selector", selector)]

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is true, and return it."""
        return WebDriverWait(self.driver, TIMEOUT, 0.02).until(lambda _: condition())


def trust(home: Path, authority: trustme.CA) -> None:
    """Make an authority one of those that a user of Chromium trusts, if certutil is there."""
    if CERTUTIL is None:
        return
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    authority.cert_pem.write_to_path(home / "authority.pem")
    add = ["-A", "-n", "wsframe's tests", "-t", "C,,", "-i", str(home / "authority.pem")]
    for arguments in ["-N", "--empty-password"], add:
        subprocess.run([CERTUTIL, *arguments, "-d", f"sql:{database}"], check=True, timeout=TIMEOUT)


@contextmanager
def chromium(authority: trustme.CA) -> Iterator[Browser]:
    """Run Chromium; no process of it is left at the end."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        trust(home, authority)
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for option in [*OPTIONS, f"--user-data-dir={home}/profile"]:
            options.add_argument(option)
        # By their session and their home its processes are told from others.
        environment = {**os.environ, "HOME": folder}
        service = ChromeService(CHROMEDRIVER, env=environment, popen_kw={"start_new_session": True})
        try:
            driver = Chrome(options, service)
            try:
                yield Browser(driver)
            finally:
                left = list(processes(service.process.pid, folder))
                driver.quit()
                driver.command_executor.close()
        finally:
            service.stop()
            if service.process is not None:
                service.process.wait(TIMEOUT)
                assert service.process.stdin is not None
                service.process.stdin.close()
        for process in left:
            try:
                assert select.select([process], [], [], TIMEOUT)[0], "Chromium does not end"
            finally:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                os.close(process)


def processes(leader: int, home: str) -> Iterator[int]:
    """Open Chromium's processes: those of its driver's session, and those that live in this home."""
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            is_ours = os.getsid(pid) == leader or home.encode() in Path(f"/proc/{pid}/environ").read_bytes()
            if is_ours and pid != leader:
                yield os.pidfd_open(pid)
