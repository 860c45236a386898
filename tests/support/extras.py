"""Optional packages. A test that needs a package is skipped where the package is missing.

A module whose tests all need it calls ``pytest.importorskip``. Other tests take the mark ``needs``.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

# What the command ``wsframe`` needs, whichever its subcommand. uvicorn's command needs click, too.
CLI = ("click", "dpkt", "rich")


def is_installed(module: str) -> bool:
    """Tell whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is missing
        return False


def needs(*modules: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test unless all of these modules are installed."""
    missing = [module for module in modules if not is_installed(module)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
