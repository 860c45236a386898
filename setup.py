"""Compile what may be compiled. Everything else about the package stands in pyproject.toml.

WSFRAME_EXTENSION=auto (the default): compile if a compiler is there, else install pure Python, and say so.
WSFRAME_EXTENSION=yes: fail if it does not compile.    WSFRAME_EXTENSION=no: do not compile.
"""

import os

from setuptools import Extension, setup

wanted = os.environ.get("WSFRAME_EXTENSION", "auto")
if wanted not in ("auto", "yes", "no"):
    raise SystemExit(f"WSFRAME_EXTENSION must be auto, yes or no, not {wanted!r}")

extensions = [
    Extension(
        "wsframe._mask",
        ["src/wsframe/_mask.pyx"],
        extra_compile_args=["-O3"] if os.name == "posix" else [],
        optional=wanted == "auto",
    )
]
setup(ext_modules=[] if wanted == "no" else extensions)
