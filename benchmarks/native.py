"""Build the C programs of the benchmarks: the load, and the marks that valgrind counts between."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "benchmarks"


@functools.cache
def load_program() -> Path:
    """Return the path of the load. It speaks TLS if OpenSSL's headers are installed."""
    return build("load.c", ["-O2", "-DTLS"], ["-lssl", "-lcrypto"]) or required("load.c", ["-O2"])


@functools.cache
def count_library() -> Path | None:
    """Return the path of the marks, or None if instructions cannot be counted here."""
    return build("count.c", ["-O2", "-shared", "-fPIC"]) if shutil.which("valgrind") else None


def required(source: str, flags: list[str]) -> Path:
    program = build(source, flags)
    if program is None:
        raise RuntimeError(f"benchmarks/{source} does not compile: is there a C compiler?")
    return program


def build(source: str, flags: list[str], libraries: list[str] | None = None) -> Path | None:
    """Compile a file, unless it was compiled before; return None if that fails."""
    text = (HERE / source).read_bytes()
    command = [os.environ.get("CC", "cc"), *flags, str(HERE / source), *(libraries or [])]
    digest = hashlib.sha256(text + repr(command).encode()).hexdigest()[:12]
    target = BUILD / f"{source.partition('.')[0]}-{digest}"
    if target.exists():
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    try:
        done = subprocess.run([*command, "-o", str(unfinished)], capture_output=True)
    except OSError:
        return None
    if done.returncode:
        return None
    unfinished.rename(target)
    return target
