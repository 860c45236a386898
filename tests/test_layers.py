"""The layers of ARCHITECTURE.md: each module is a chapter, and imports only from the chapters before it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import h11
import pytest

import wsframe

PACKAGE = Path(wsframe.__file__).parent
SOURCES = Path(__file__).parents[1] / "src/wsframe"  # an installed package has no .pyx

# From bottom to top. Each module of adapter/ is a layer; any other package is one layer as a whole. __init__
# stands above what it gathers, and adapters may import the public names from it.
LAYERS = (
    "errors",
    "events",
    "_mask",
    "_mask_py",
    "uri",
    "masking",
    "frames",
    "deflate",
    "prepared",
    "handshake",
    "origins",
    "connection",
    "client",
    "server",
    "adapter",
    "adapter.auth",
    "__init__",
    "adapter.sockets",
    "adapter.wording",
    "adapter.proxy",
    "adapter.options",
    "adapter.counters",
    "adapter.keepalive",
    "adapter.log",
    "adapter.session",
    "adapter.facts",
    "adapter.connecting",
    "adapter.listeners",
    "sync",
    "aio",
    "asgi",
    "hub",
    "inspector",
    "testing",
    "cli",
    "__main__",
)
CORE = LAYERS[: LAYERS.index("adapter")]
# What stands above a module in the list, but is none of its business.
STRANGERS = {
    "events": {"errors"},
    "uri": {"events"},
    "_mask_py": {"errors", "events", "_mask"},
    "masking": {"errors", "events", "uri"},
    "frames": {"events", "uri"},
    "deflate": {"events", "uri", "masking", "frames"},
    "prepared": {"events", "uri"},
    "handshake": {"uri", "masking", "frames", "prepared"},
    "origins": set(LAYERS[: LAYERS.index("origins")]),
    "connection": {"uri", "handshake", "origins"},
    "client": {"origins"},
    "server": {"client"},
    "adapter.auth": set(CORE) - {"errors", "events", "handshake"},
    "adapter.wording": set(LAYERS[: LAYERS.index("adapter.wording")]) - {"events"},
    "adapter.sockets": set(LAYERS[: LAYERS.index("adapter.sockets")]),
    "adapter.options": {"adapter.wording"},
    "adapter.counters": set(LAYERS[: LAYERS.index("adapter.counters")]),
    "adapter.keepalive": set(LAYERS[: LAYERS.index("adapter.keepalive")]) - {"errors"},
    "adapter.log": set(LAYERS[: LAYERS.index("adapter.log")]) - {"errors", "frames"},
    "adapter.session": {"client", "server", "handshake", "deflate", "adapter.auth", "adapter.proxy"},
    "adapter.facts": {"client", "server", "handshake", "deflate", "adapter.auth", "adapter.proxy"},
    "adapter.connecting": {"adapter.counters", "adapter.keepalive", "adapter.log", "adapter.session"},
    "adapter.listeners": set(LAYERS) - {"adapter.sockets"},
    "aio": {"sync"},
    "asgi": {"adapter.proxy", "adapter.connecting", "sync", "client"},
    "hub": {"adapter.proxy", "adapter.connecting", "sync", "client", "server", "asgi"},
    "inspector": set(LAYERS[LAYERS.index("adapter") : LAYERS.index("inspector")]),
    "testing": {"asgi", "hub"},
}
NETWORK = {"_socket", "_ssl", "asyncio", "concurrent", "select", "selectors", "socket", "ssl", "threading"}


def layer_of(parts):
    """Return the layer of a module, from the parts of its name below ``wsframe``."""
    if parts and parts[0] == "adapter":
        return ".".join(parts[:2])
    return parts[0] if parts else "__init__"


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def is_typing_only(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(path):
    """Return the layers of wsframe, and the other packages, that a module imports, wherever in its text.

    What stands below ``if TYPE_CHECKING`` is never run: it may name what is above.
    """
    inside, outside = set(), set()
    # The package in which the module's relative imports begin, below wsframe
    package = path.relative_to(PACKAGE).parts[:-1]
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if is_typing_only(node):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        names = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = ("wsframe", *package[: len(package) - node.level + 1], *base)
            # "from . import handshake" is about a module, "from . import Text" about the package.
            names = [(*base, alias.name) if base == ("wsframe",) else base for alias in node.names]
        for name in names:
            if name[0] != "wsframe":
                outside.add(name[0])
            elif len(name) > 1 and name[1] in LAYERS:
                inside.add(layer_of(name[1:]))
            else:
                inside.add("__init__")
    return inside, outside


MODULES = {".".join(name_of(path)): path for path in sorted(PACKAGE.rglob("*.py"))}

# Private names of the standard library: those that it documents, and two that have no public counterpart
# (threading.RLock's, which Condition uses as well, and that of asyncio's TLS protocol)
STANDARD = {"_asdict", "_field_defaults", "_fields", "_make", "_replace", "_is_owned", "_transport"}
# A class and its base are two halves of one thing here: two files, since one of them is compiled or shared.
HALVES = {
    "client": "connection",
    "server": "connection",
    "aio.websocket": "aio.protocol",
    "sync.websocket": "sync.driver",
}
# These still use private names of other modules. A module that no longer does leaves the list.
STILL_PRIVATE = ("testing.adapters",)


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in STANDARD


def defined_in(tree):
    """Return the names that a module defines: its variables, functions and classes, and their attributes.

    An assignment to an attribute defines a name only on ``self`` or ``cls``.
    """
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                names.add(node.attr)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=slots):
                names |= {leaf.value for leaf in ast.walk(slots) if isinstance(leaf, ast.Constant)}
    return names


def foreign_private_names(source, half=""):
    """Return the private names of other modules that a module uses, once for each use.

    An attribute that neither the module nor its other half defines is one of another module; on ``self``, of
    a base class in another module. A name that both modules define is not seen.
    """
    tree = ast.parse(source)
    known = defined_in(tree) | defined_in(ast.parse(half))
    used = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            used += [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and node.attr not in known:
            used.append(node.attr)
    return sorted(filter(is_private, used))


def test_the_reader_of_imports_sees_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "sync").mkdir()
    module = tmp_path / "sync" / "client.py"
    module.write_text(
        "import socket, os.path as p\n"
        "import wsframe.hub\n"
        "from wsframe import asgi, Text\n"
        "from wsframe.uri import parse_uri\n"
        "from . import connection\n"
        "from .connection import WebSocket\n"
        "from .. import frames\n"
        "from ..handshake import accept_key\n"
        "from ..adapter.log import FrameLog\n"
        "if TYPE_CHECKING:\n"
        "    from ..testing import frames\n"
        "else:\n"
        "    from ..cli import main\n"
        "def f():\n"
        "    from ..aio import connect\n"
    )
    inside, outside = imports_of(module)
    assert inside == {
        "hub",
        "asgi",
        "__init__",
        "uri",
        "sync",
        "frames",
        "handshake",
        "adapter.log",
        "cli",
        "aio",
    }
    assert outside == {"socket", "os"}


def test_a_module_imports_only_from_modules_above_it_in_the_list():
    for module, path in MODULES.items():
        layer = layer_of(name_of(path))
        assert layer in LAYERS, module
        inside, _ = imports_of(path)
        allowed = set(LAYERS[: LAYERS.index(layer)]) | ({layer} if path.parent != PACKAGE else set())
        assert inside <= allowed, module
        assert not inside & STRANGERS.get(layer, set()), module


def test_the_reader_of_private_names_sees_them_all():
    source = (
        "from __future__ import annotations\n"
        "from .other import Base, _imported\n"
        "_mine = 1\n"
        "class Here(Base):\n"
        "    __slots__ = ('_slotted',)\n"
        "    _annotated: int\n"
        "    def __init__(self, other, pair):\n"
        "        self._assigned = self._of_base + other._of_other\n"
        "        other._changed = pair._replace(x=self.__dict__)\n"
        "        other._assigned += other._slotted + other._annotated + other._method()\n"
        "    def _method(self):\n"
        "        return _mine, other.public._inner, Base._method\n"
    )
    assert foreign_private_names(source) == ["_changed", "_imported", "_inner", "_of_base", "_of_other"]


def test_a_module_uses_only_public_names_of_other_modules():
    used = {}
    for module, path in MODULES.items():
        half = MODULES[HALVES[module]].read_text(encoding="utf-8") if module in HALVES else ""
        used[module] = foreign_private_names(path.read_text(encoding="utf-8"), half)
    assert {module: names for module, names in used.items() if names} == {}


@pytest.mark.parametrize("module", ["errors", "events"])
def test_the_ground_floor_imports_nothing(module):
    inside, outside = imports_of(MODULES[module])
    assert inside == set()
    assert outside <= {"__future__", "collections", "typing"}


def test_the_core_names_nothing_that_touches_the_network_a_clock_or_a_thread():
    modules = [module for module in MODULES if module in CORE]
    assert modules
    for module in modules:
        _, outside = imports_of(MODULES[module])
        assert not outside & (NETWORK | {"time", "sched", "queue", "multiprocessing", "signal"}), module
        assert outside - sys.stdlib_module_names <= {"h11"}, module


def test_only_the_opening_handshake_speaks_http():
    for module in CORE:
        if module in MODULES and module not in ("client", "server", "handshake"):
            assert "h11" not in imports_of(MODULES[module])[1]


def test_the_compiled_mask_imports_nothing_of_the_package():
    source = (SOURCES / "_mask.pyx").read_text(encoding="utf-8")
    imported = re.findall(r"^\s*(?:from|cimport|import)\s+(\S+)", source, re.MULTILINE)
    assert imported
    assert {name.split(".")[0] for name in imported} <= {"cpython", "cython", "libc", "os"}


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.pxd")), ids=lambda path: path.name)
def test_the_types_of_a_module_come_only_from_modules_above_it(path):
    layer = path.stem if path.stem in LAYERS else path.stem.removeprefix("_")
    allowed = {"_mask", "_events", *LAYERS[: LAYERS.index(layer)], layer}
    source = path.read_text(encoding="utf-8")
    for module, name in re.findall(r"^from (wsframe\S*) cimport (\w+)", source, re.MULTILINE):
        assert (name if module == "wsframe" else module.removeprefix("wsframe.")) in allowed - {path.stem}


def attributes_typed(pxd: str) -> dict[str, set[str]]:
    """Return the attributes that the classes of a .pxd declare."""
    classes = re.findall(r"^cdef class (\w+).*\n((?:(?: +.*)?\n)*)", pxd, re.MULTILINE)
    return {name: set(re.findall(r"^ +cdef [^(\n]*?(\w+)$", body, re.MULTILINE)) for name, body in classes}


def attributes_of(definition: ast.ClassDef) -> set[str]:
    """Return the ``__slots__`` of a class, or what its methods assign to ``self``."""
    for node in definition.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(each) == "__slots__" for each in node.targets):
            return set(ast.literal_eval(node.value))
    stored = [node for node in ast.walk(definition) if isinstance(getattr(node, "ctx", None), ast.Store)]
    return {
        node.attr for node in stored if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    }


@pytest.mark.parametrize(
    "path",
    sorted(path for path in SOURCES.rglob("*.pxd") if path.with_suffix(".py").exists()),
    ids=lambda path: str(path.relative_to(SOURCES)),
)
def test_the_types_of_a_module_name_the_attributes_of_its_classes(path):
    """One that is missing in the .pxd is an AttributeError, but only when it is compiled."""
    tree = ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    typed = attributes_typed(path.read_text(encoding="utf-8"))
    assert typed
    for name, attributes in typed.items():
        assert attributes - {"__weakref__"} == attributes_of(classes[name]) - {"__weakref__"}, name


def test_the_python_that_is_compiled_does_not_know_it():
    for path in SOURCES.rglob("*.py"):
        assert "cython" not in path.read_text(encoding="utf-8").lower(), path


def test_import_wsframe_loads_nothing_that_touches_the_network():
    # -I and -S: nothing else has been imported, not by the environment and not by site-packages.
    paths = [str(PACKAGE.parent), str(Path(h11.__file__).parent.parent)]
    program = (
        f"import sys; sys.path += {paths!r}; import wsframe; "
        "print(wsframe.__file__); print(*sorted(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    file, loaded = run.stdout.splitlines()
    assert Path(file).parent == PACKAGE
    loaded = {name.split(".")[0] for name in loaded.split()}
    assert "wsframe" in loaded
    assert not loaded & {"h11", "hypothesis"}  # they take long, and most programs need none of them
    assert not loaded & NETWORK


def test_only_testing_needs_hypothesis_and_only_who_asks_for_it_gets_it():
    for module, path in MODULES.items():
        if layer_of(name_of(path)) == "testing":
            continue
        inside, outside = imports_of(path)
        assert "hypothesis" not in outside, module
        assert "testing" not in inside, module
    # From bottom to top: what stands to the right may use what stands to the left.
    parts = ("strategies", "pair", "machine", "adapters", "__init__")
    assert {path.stem for path in (PACKAGE / "testing").glob("*.py")} == set(parts)
    for place, part in enumerate(parts):
        source = (PACKAGE / "testing" / f"{part}.py").read_text(encoding="utf-8")
        assert set(re.findall(r"^from \.(\w+) import", source, re.MULTILINE)) <= set(parts[:place])


def test_only_captures_need_dpkt():
    needing = [module for module, path in MODULES.items() if "dpkt" in imports_of(path)[1]]
    assert needing == ["inspector.capture"]
    # From bottom to top: what stands to the right may use what stands to the left.
    parts = ("findings", "text", "hexadecimal", "direction", "conversation", "__init__", "tcp", "capture")
    assert {path.stem for path in (PACKAGE / "inspector").glob("*.py")} == set(parts)
    for place, part in enumerate(parts):
        source = (PACKAGE / "inspector" / f"{part}.py").read_text(encoding="utf-8")
        assert set(re.findall(r"^from \.(\w+) import", source, re.MULTILINE)) <= set(parts[:place])


def test_a_helper_lives_with_its_only_user():
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"util", "utils", "helper", "helpers", "typing", "common", "misc"}
