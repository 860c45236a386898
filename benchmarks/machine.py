"""What one has to know about a run to read its figures: versions, machine, build, commit."""

from __future__ import annotations

import importlib
import os
import platform
import re
import ssl
import subprocess
import sysconfig
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import wsframe

from .rows import Settings
from .subject import ROOT

PEERS = (
    "websockets",
    "wsproto",
    "aiohttp",
    "picows",
    "aiofastnet",
    "websocket-client",
    "uvicorn",
    "httptools",
    "uvloop",
)


def build() -> str:
    return "compiled" if wsframe.compiled else "pure"


def environment(settings: Settings, seconds: float) -> dict[str, Any]:
    return {
        "wsframe": version("wsframe"),
        "commit": commit(),
        "build": build(),
        "compiled_modules": compiled_modules(),
        "peers": {package: installed_version(package) for package in PEERS},
        "tools": {
            "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
            "cc": first_line("cc", "--version"),
            "valgrind": first_line("valgrind", "--version").removeprefix("valgrind-"),
        },
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "loop": settings.loop,
        "quick": settings.quick,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
    }


def compiled_modules() -> list[str]:
    """Return the modules of wsframe that are compiled, by their files."""
    package = Path(wsframe.__file__).parent
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    names = (path.relative_to(package).as_posix() for path in package.rglob(f"*{suffix}"))
    found = sorted(name.removesuffix(suffix).replace("/", ".") for name in names)
    return [
        name for name in found if str(importlib.import_module(f"wsframe.{name}").__file__).endswith(suffix)
    ]


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit of this checkout, with a + if files differ from it."""
    revision = first_line("git", "rev-parse", "--short", "HEAD") or "?"
    return revision + ("+" if first_line("git", "status", "--porcelain", "--untracked-files=no") else "")


def first_line(*command: str) -> str:
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return run.stdout.partition("\n")[0].strip() if run.returncode == 0 else ""


def processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()
