"""``wsframe asgi``: an ASGI application under uvicorn, whose WebSockets are wsframe's."""

from __future__ import annotations

import click

from .terminal import Failure

__all__ = ["asgi"]

_PROTOCOL = "wsframe.asgi:WebSocketProtocol"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="APPLICATION [OPTIONS OF UVICORN]")
def asgi(arguments: tuple[str, ...]) -> None:
    """Serve an ASGI application: by uvicorn, and its WebSockets by wsframe.

    It is 'uvicorn --ws wsframe.asgi:WebSocketProtocol', and everything else is passed on to uvicorn; it exits
    with what that exits with.

    \b
    wsframe asgi module:app                              at http://127.0.0.1:8000/
    wsframe asgi module:app --port 80 --workers 4
    wsframe asgi project.asgi:application --reload       a Django project
    wsframe asgi -- --help                               all options
    """
    try:
        from uvicorn.main import main
    except ModuleNotFoundError:
        raise Failure("this command needs uvicorn: pip install 'wsframe[uvicorn]'") from None
    main.main(["--ws", _PROTOCOL, *arguments], prog_name="wsframe asgi")
