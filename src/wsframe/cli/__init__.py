"""The ``wsframe`` command.

Each subcommand is a module of its own: its function ``add_parser`` describes it, its ``run`` does it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``wsframe`` command.

    Args:
        arguments: its arguments; by default those of the process.

    Returns:
        The exit code: 0, or 1 when something went wrong. Wrong arguments exit with 2.
    """
    parser = argparse.ArgumentParser(prog="wsframe", description="The WebSocket protocol for Python.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    serve.add_parser(subparsers)
    options = parser.parse_args(arguments)
    return int(options.run(options))
