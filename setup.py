"""Compile what may be compiled. Everything else about the package stands in pyproject.toml.

WSFRAME_EXTENSION=auto (the default): compile if a compiler is there, else install pure Python, and say so.
WSFRAME_EXTENSION=yes: fail if it does not compile.    WSFRAME_EXTENSION=no: do not compile.
"""

import os

from setuptools import Extension, setup

wanted = os.environ.get("WSFRAME_EXTENSION", "auto")
if wanted not in ("auto", "yes", "no"):
    raise SystemExit(f"WSFRAME_EXTENSION must be auto, yes or no, not {wanted!r}")

# The .pyx is C for what touches every byte; the .py files are the same that run without a compiler, and the
# .pxd beside each says what is an int. The annotations of the .py are for mypy, not for Cython.
SOURCES = (
    "_mask.pyx",
    "events.py",
    "frames.py",
    "handshake.py",
    "connection.py",
    "aio/protocol.py",
    "adapter/session.py",
    "sync/driver.py",
)
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    "nonecheck": True,  # a subclass whose __init__ forgets ours gets an AttributeError
    "freethreading_compatible": True,
}


def extensions() -> list[Extension]:
    """Translate the sources to C. The C files are compiled later, as many at once as there are cores."""
    from Cython.Build import cythonize

    found = [
        Extension(
            f"wsframe.{source.partition('.')[0].replace('/', '.')}",
            [f"src/wsframe/{source}"],
            extra_compile_args=["-O3"] if os.name == "posix" else [],
        )
        for source in SOURCES
    ]
    translated = cythonize(found, compiler_directives=DIRECTIVES)
    for extension in translated:
        extension.optional = wanted == "auto"
    return translated


setup(
    ext_modules=[] if wanted == "no" else extensions(),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
