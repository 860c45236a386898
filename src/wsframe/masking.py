"""RFC 6455, section 5.3: client-to-server masking, and all else that touches every byte of a payload.

    j                   = i MOD 4
    transformed-octet-i = original-octet-i XOR masking-key-octet-j

It exists twice: in C in ``_mask.pyx``, and in Python in ``_mask_py.py``, which is used where the other was
not compiled. Modules call it as ``masking.unmask(...)``, which their .pxd files turn into calls of C.
"""

from __future__ import annotations

from ._mask_py import (
    MessageBuffer,
    append_frame,
    apply_mask,
    encode_header,
    forget_keys,
    new_masking_key,
    take,
    unmask,
    unmask_text,
)

__all__ = [
    "MessageBuffer",
    "append_frame",
    "apply_mask",
    "compiled",
    "encode_header",
    "forget_keys",
    "new_masking_key",
    "take",
    "unmask",
    "unmask_text",
]

try:
    from ._mask import (  # type: ignore[no-redef]
        MessageBuffer,
        append_frame,
        apply_mask,
        forget_keys,
        new_masking_key,
        take,
        unmask,
        unmask_text,
    )
except ImportError:
    compiled = False
else:
    compiled = True
"""Whether what touches every byte runs in C."""
