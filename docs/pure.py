"""Let the reference show functions in Python where a compiled module may take their place.

Griffe reads the sources. Where masking.py imports what ``_mask.pyx`` has, under the names of its own
functions, it would see the names of a module that it cannot read.
"""

from typing import Any

import griffe


class Pure(griffe.Extension):
    """Put the functions and classes back that an import from ``_mask`` replaced."""

    def __init__(self) -> None:
        self._replaced: dict[str, griffe.Object] = {}

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Keep what masking.py defines."""
        if obj.path.startswith("wsframe.masking."):
            self._replaced[obj.path] = obj

    def on_alias_instance(self, *, alias: griffe.Alias, **_: Any) -> None:
        """Undo the import."""
        if alias.target_path.startswith("wsframe._mask."):
            assert alias.parent is not None
            alias.parent.set_member(alias.name, self._replaced[alias.path])
