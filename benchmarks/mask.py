"""Masking (RFC 6455, section 5.3): calls of ``apply_mask(data, key)``.

The data is ``bytes`` and the result is a copy. ``websockets (Python)`` is what websockets runs where its C
extension is not compiled. aiohttp masks a bytearray in place: the copy into one is measured with it.
"""

from __future__ import annotations

from collections.abc import Callable

from . import samples
from .codec import Case, Make
from .rows import WSFRAME, targets

Mask = Callable[[bytes, bytes], bytes | bytearray]
SIZES = {"16 bytes": 16, "125 bytes": 125, "16 KiB": 2**14, "64 KiB": 2**16, "1 MiB": 2**20}
WANTED = {"16 bytes": 1.7, "125 bytes": 1.7, "16 KiB": 1.4, "64 KiB": 1.0, "1 MiB": 1.0}
CALLS = 100
KEY = b"\x37\xfa\x21\x3d"


def wsframe_mask() -> Mask:
    from wsframe.masking import apply_mask

    return apply_mask


def wsframe_pure_mask() -> Mask:
    from wsframe._mask_py import apply_mask

    return apply_mask


def websockets_mask() -> Mask:
    from websockets.speedups import apply_mask

    return apply_mask


def websockets_python_mask() -> Mask:
    from websockets.utils import apply_mask

    return apply_mask


def aiohttp_mask() -> Mask:
    from aiohttp._websocket.mask import _websocket_mask_cython

    def mask(data: bytes, key: bytes) -> bytearray:
        raw = bytearray(data)
        _websocket_mask_cython(key, raw)
        return raw

    return mask


def wsproto_mask() -> Mask:
    from wsproto.frame_protocol import XorMaskerSimple

    return lambda data, key: XorMaskerSimple(key).process(data)  # type: ignore[arg-type]


PEERS: dict[str, Callable[[], Mask]] = {
    WSFRAME: wsframe_mask,
    "wsframe (Python)": wsframe_pure_mask,
    "websockets": websockets_mask,
    "websockets (Python)": websockets_python_mask,
    "aiohttp": aiohttp_mask,
    "wsproto": wsproto_mask,
}


def checked(peer: str, size: int) -> tuple[Mask, bytes]:
    """Return a peer's function and what it is given, after a look at what it makes of it."""
    mask, data = PEERS[peer](), samples.binary(size)
    assert mask(data, KEY) == bytes(byte ^ KEY[i % 4] for i, byte in enumerate(data))
    return mask, data


def case(name: str, size: int) -> Case:
    def make(peer: str) -> Make:
        def ready() -> Callable[[], object]:
            mask, data = checked(peer, size)
            calls = range(CALLS if size < 4096 else 1)

            def run() -> None:
                for _ in calls:
                    mask(data, KEY)

            return run

        return ready

    wanted = targets("websockets (Python)", 1.5, None) + targets("websockets", None, WANTED[name])
    return Case(
        f"mask {name}",
        "call",
        CALLS if size < 4096 else 1,
        {peer: make(peer) for peer in PEERS},
        wanted,
        is_memory_bound=size > 4096,
    )


def cases() -> list[Case]:
    return [case(name, size) for name, size in SIZES.items()]
