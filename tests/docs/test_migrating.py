"""Every name in the tables of docs/migrating.md is there, in the libraries that it belongs to."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import wsframe.handshake  # noqa: F401  # an attribute of wsframe, so
from tests.support.paths import DOCS

PAGE = (DOCS / "migrating.md").read_text()
NAME = re.compile(r"(?P<path>[\w.]+)(?:\((?P<parameter>\w+)=\))?")


def modules(*names: str, **others: str) -> list[object]:
    """Return where names are looked up: in modules, and under others, which are classes in them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # websockets.legacy
        found: list[Any] = [importlib.import_module(name) for name in names]
    return [SimpleNamespace(**{word: look_up(path, found) for word, path in others.items()}), *found]


def look_up(path: str, places: list[Any]) -> object:
    first, *rest = path.split(".")
    found = next((getattr(place, first) for place in places if hasattr(place, first)), None)
    assert found is not None, f"there is no {first}"
    for name in rest:
        if hasattr(found, name):
            found = getattr(found, name)
        else:  # an attribute of its objects
            assert isinstance(found, type), path
            sources = "".join(source(each) for each in found.__mro__ if each.__module__ != "builtins")
            assert re.search(rf"\bself\.{name}(?::[^=\n]+)? = |^    {name}: ", sources, re.MULTILINE), path
            found = None
    return found


def source(cls: type) -> str:
    """Return the text of a class; of a compiled one, that of its module, which stands beside it."""
    try:
        return inspect.getsource(cls)
    except OSError:
        file = Path(str(sys.modules[cls.__module__].__file__))
        return file.with_name(file.name.partition(".")[0] + ".py").read_text()


def check(span: str, places: list[Any]) -> None:
    match = NAME.fullmatch(span)
    assert match, f"`{span}` is not a name"
    function = look_up(match["path"], places)
    if parameter := match["parameter"]:
        try:
            parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
        except ValueError:  # of a compiled class
            assert isinstance(function, type)
            assert f"        {parameter}: " in source(function), span
            return
        if parameter not in parameters:
            # What they take by **kwargs is asyncio's.
            kinds = [each.kind for each in parameters.values()]
            assert inspect.Parameter.VAR_KEYWORD in kinds, span
            loop = asyncio.AbstractEventLoop
            passed_on = [loop.create_connection, loop.create_server]
            assert any(parameter in inspect.signature(each).parameters for each in passed_on), span


CORE = ["wsframe"]
Places = Callable[[], list[object]]
# Where the names of each section's two columns are looked up
SECTIONS: dict[str, tuple[Places, Places]] = {
    "From websockets on asyncio": (
        partial(
            modules,
            "websockets.asyncio.client",
            "websockets.asyncio.router",
            "websockets.asyncio.server",
            "websockets.exceptions",
            "websockets.http11",
            "websockets.frames",
            "websockets.protocol",
            "websockets.datastructures",
            ws="ServerConnection",
            server="Server",
        ),
        partial(modules, "wsframe.aio", "wsframe", "builtins", ws="WebSocket", server="Server"),
    ),
    "From websockets on threads": (
        partial(
            modules,
            "websockets.sync.client",
            "websockets.sync.server",
            ws="ServerConnection",
            server="Server",
        ),
        partial(modules, "wsframe.sync", "wsframe", ws="WebSocket", server="Server"),
    ),
    "From the legacy websockets": (
        partial(
            modules,
            "websockets.legacy.client",
            "websockets.legacy.server",
            "websockets.legacy.protocol",
            "websockets.legacy.exceptions",
            ws="WebSocketServerProtocol",
        ),
        partial(modules, "wsframe.aio", "wsframe", ws="WebSocket"),
    ),
    "From the sans-IO layer of websockets": (
        partial(
            modules,
            "websockets.client",
            "websockets.server",
            "websockets.protocol",
            "websockets.uri",
            "websockets.frames",
            "websockets.extensions.permessage_deflate",
        ),
        partial(modules, *CORE),
    ),
    "From wsproto": (partial(modules, "wsproto", "wsproto.connection"), partial(modules, *CORE)),
}


def rows(section: str) -> list[tuple[str, str]]:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = [tuple(line.strip("|").split(" | ")[:2]) for line in text.splitlines() if line.startswith("| `")]
    assert found, section
    return found  # type: ignore[return-value]


def skip_without_library(section: str) -> None:
    pytest.importorskip("wsproto" if section == "From wsproto" else "websockets")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_name_is_there(section: str) -> None:
    skip_without_library(section)
    theirs, ours = (find() for find in SECTIONS[section])
    for left, right in rows(section):
        for text, places in (left, theirs), (right, ours):
            same = left if text == "the same" else text
            spans = re.findall(r"`([^`]+)`", same)
            assert spans or text == "-", text
            for span in spans:
                check(span, places)


def test_every_section_with_a_table_is_looked_up() -> None:
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("span", ["connect(unknown=)", "ws.unknown", "unknown", "ConnectionClosed.unknown"])
def test_a_name_that_is_not_there_is_told(span: str) -> None:
    for section in "From websockets on asyncio", "From websockets on threads":
        skip_without_library(section)
        for find in SECTIONS[section]:
            places = find()
            with pytest.raises(AssertionError):
                check(span, places)
