"""Let the reference show functions in Python where a compiled module may take their place.

Griffe reads the sources. Where masking.py imports what ``_mask.pyx`` has in place of ``_mask_py.py``, it
would see the names of a module that it cannot read.
"""

from typing import Any

import griffe


class Pure(griffe.Extension):
    """Take what an import from ``_mask`` names from ``_mask_py``."""

    def on_alias_instance(self, *, alias: griffe.Alias, **_: Any) -> None:
        """Undo the import."""
        if alias.target_path.startswith("wsframe._mask."):
            assert alias.parent is not None
            alias.parent.set_member(alias.name, griffe.Alias(alias.name, f"wsframe._mask_py.{alias.name}"))
