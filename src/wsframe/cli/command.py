"""The command as a whole: what it is called, its version, and its subcommands."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from .. import compiled
from .asgi import asgi
from .bench import bench
from .connect import connect
from .decode import decode
from .serve import serve

__all__ = ["wsframe"]

_BUILD = "compiled" if compiled else "pure Python"
_PYTHON = f"{platform.python_implementation()} {platform.python_version()}"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="'wsframe COMMAND --help' has examples, and the exit codes for scripts.",
)
@click.version_option(
    version("wsframe"),
    message=f"%(prog)s %(version)s ({_BUILD}, {_PYTHON})",
)
def wsframe() -> None:
    """The WebSocket protocol (RFC 6455), by hand: serve it, speak it, read it, measure it.

    \b
    wsframe serve                                 a demo server, with a page
    wsframe connect ws://localhost:8001/echo      talk to a server
    echo hello | wsframe connect ws://localhost:8001/echo
    wsframe asgi module:app                       an application, under uvicorn
    wsframe decode capture.pcap                   what two endpoints said
    echo 818537fa213d7f9f4d5158 | wsframe decode
    """


for subcommand in (serve, connect, decode, asgi, bench):
    wsframe.add_command(subcommand)
