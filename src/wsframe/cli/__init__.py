"""The ``wsframe`` command, which the extra ``cli`` is for: ``pip install 'wsframe[cli]'``.

Each subcommand is a chapter of its own: ``serve``, ``connect``, ``decode``, ``asgi`` and ``bench``.
``command`` binds them together, ``terminal`` has how they all speak to a user, and ``standard`` what happens
when standard output or standard error cannot be written to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .standard import guarded

__all__ = ["main"]

_EXTRA = ("click", "dpkt", "prompt_toolkit", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``wsframe`` command, and exit.

    Args:
        arguments: its arguments; by default those of the process.

    Returns:
        2, if what the command needs is not installed; else it exits with what the subcommand says.
    """
    with guarded():
        try:
            from .command import wsframe

            return int(wsframe.main(arguments, prog_name="wsframe"))
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in _EXTRA:
                raise
            problem = f"wsframe: this command needs {missing}, which is not installed"
            print(f"{problem}: pip install 'wsframe[cli]'", file=sys.stderr)
            return 2
