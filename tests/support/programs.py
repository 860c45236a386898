"""The Python programs of a page, and how a test runs one at another port than its page names."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path


def programs(page: Path) -> list[str]:
    """Return the programs of a page in their order, also those within a list or an admonition."""
    found = re.findall(r"^( *)```python\n(.*?)^\1```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(program) for _, program in found]


def command(program: str, port: int) -> list[str]:
    """Return the command that runs a program with this port instead of 8001. A warning is an error."""
    assert "8001" in program, program
    return [sys.executable, "-W", "error", "-c", program.replace("8001", str(port))]
