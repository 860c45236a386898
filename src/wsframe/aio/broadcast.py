"""``broadcast``: one message to many clients, encoded once, without waiting for slow ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ..prepared import Prepared, prepare
from .websocket import WebSocket

__all__ = ["broadcast"]


def broadcast(
    websockets: Iterable[WebSocket],
    message: str | bytes | bytearray | memoryview | Prepared,
    *,
    compress: bool | None = None,
    max_buffered: int = 2**20,
    slow: Literal["drop", "close"] = "drop",
) -> list[WebSocket]:
    """Send a message to many connections, without waiting for any of them.

    It is encoded once, and compressed at most once for each set of parameters that was agreed on. Those that
    are closing or closed are passed over. Where a fragmented message is being sent, it goes out after that.

    Args:
        websockets: the connections.
        message: ``str`` goes out as text, a bytes-like object as binary, what ``prepare`` returned as it is.
        compress: whether to compress it where that is agreed on; None: if it reaches the threshold.
        max_buffered: how many bytes may wait in a connection before it counts as slow. So what waits for a
            peer that does not read is bounded by this and one more message. Each message that waits counts
            16 bytes besides its payload, and 512 while a fragmented message is being sent: so empty ones
            count as well.
        slow: what happens to slow ones. "drop": they miss this message. "close": they are closed with 1008.

    Returns:
        The slow ones.

    Raises:
        LocalProtocolError: the text contains a lone surrogate.
        TypeError: the message is none of these.
        ValueError: ``slow`` is neither "drop" nor "close".
    """
    if slow not in ("drop", "close"):
        raise ValueError(f'slow must be "drop" or "close", not {slow!r}')
    if not isinstance(message, Prepared):
        message = prepare(message, compress=compress)
    dropped = [websocket for websocket in websockets if not websocket.post(message, max_buffered)]
    if slow == "close":
        for websocket in dropped:
            websocket.start_close(1008, "too slow")
    return dropped
