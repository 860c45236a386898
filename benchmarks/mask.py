"""Measure masking (RFC 6455, section 5.3): nanoseconds for each call of ``apply_mask(data, key)``.

The data is ``bytes`` and the result is a copy. ``websockets (Python)`` is what websockets runs where its C
extension is not compiled. aiohttp masks a bytearray in place: the copy into one is measured with it.
``bytes(bytearray)`` is no masking at all: one copy of the octets, and the least that any of them can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from timeit import Timer

from . import samples
from .rows import WSFRAME, Loader, Row, Settings, Turn, targets

Mask = Callable[[bytes, bytes], bytes | bytearray]
SIZES = {"16": 16, "125": 125, "4 KiB": 4096, "64 KiB": 65536, "1 MiB": 2**20}
KEY = b"\x37\xfa\x21\x3d"


def wsframe_mask() -> Mask:
    from wsframe.masking import apply_mask

    return apply_mask


def wsframe_pure_mask() -> Mask:
    from wsframe.masking import pure_apply_mask

    return pure_apply_mask


def websockets_mask() -> Mask:
    from websockets.speedups import apply_mask

    return apply_mask


def websockets_python_mask() -> Mask:
    from websockets.utils import apply_mask

    return apply_mask


def aiohttp_mask() -> Mask:
    from aiohttp._websocket.mask import _websocket_mask_cython

    def mask(data: bytes, key: bytes) -> bytearray:
        octets = bytearray(data)
        _websocket_mask_cython(key, octets)
        return octets

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
    assert mask(data, KEY) == bytes(octet ^ KEY[i % 4] for i, octet in enumerate(data))
    return mask, data


def load(peer: str, size: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        mask, data = checked(peer, size)
        return nanoseconds("mask(data, KEY)", {"mask": mask, "data": data, "KEY": KEY}, settings)

    return loader


def load_copy(size: int) -> Loader:
    def loader(stack: ExitStack, settings: Settings) -> Turn:
        return nanoseconds("bytes(data)", {"data": bytearray(samples.binary(size))}, settings)

    return loader


def nanoseconds(statement: str, names: dict[str, object], settings: Settings) -> Turn:
    """Return a function that tells how many nanoseconds of CPU a call took, in timeit's loop."""
    timer = Timer(statement, timer=time.process_time, globals=names)
    number, took = timer.autorange() if not settings.quick else (1000, timer.timeit(1000))
    number = max(1, round(number * (0.003 if settings.quick else 0.03) / took))
    return lambda: timer.timeit(number) / number * 1e9


def rows() -> list[Row]:
    found = []
    for name, size in SIZES.items():
        peers = {peer: load(peer, size) for peer in PEERS} | {"bytes(bytearray)": load_copy(size)}
        if size < 4096:
            wanted = targets("websockets (Python)", 1.5, None) + targets("websockets", None, 1.7)
        else:
            pure = 3.0 if size == 2**20 else 1.5
            wanted = targets("websockets (Python)", pure, None) + targets("websockets", None, 1.0)
            wanted += targets("bytes(bytearray)", None, 1.0)
        found.append(Row(f"mask {name}", "ns", peers, is_cost=True, targets=wanted))
    return found
