"""RFC 6455, section 5.6, for many receivers: a message that is encoded once.

    prepare(message) --> Prepared --> Connection.send_prepared(), any number of times

A server's frames are not masked, so every client gets the same bytes. What differs is compression: a
message is compressed at most once for each set of parameters that connections have agreed on.
"""

from __future__ import annotations

from . import masking
from .deflate import Compressor
from .errors import LocalProtocolError
from .frames import BINARY, FIN, RSV1, TEXT, as_bytes

__all__ = ["Prepared", "prepare"]


class Prepared:
    """A message that ``prepare`` encoded, for ``send`` and ``send_prepared``.

    A compressed one refers to no message before it, so it is right for every peer, with context takeover
    as without: section 7.2.3.2 of RFC 7692 leaves it to the sender what to refer to. The peer's window
    moves on by it, though, and so the connection's own compressor, which has not seen it, starts afresh.

    Attributes:
        opcode: TEXT or BINARY.
        payload: the bytes of the message.
    """

    __slots__ = ("_compress", "_encoded", "opcode", "payload")

    def __init__(self, opcode: int, payload: bytes, compress: bool | None) -> None:
        self.opcode = opcode
        self.payload = payload
        self._compress = compress
        self._encoded: dict[object, tuple[int, bytes, tuple[bytes, ...]]] = {}

    def __repr__(self) -> str:
        return f"<Prepared {'text' if self.opcode == TEXT else 'binary'}, {len(self.payload)} bytes>"

    def __len__(self) -> int:
        return len(self.payload)

    def encode(self, compressor: Compressor | None) -> tuple[int, bytes, tuple[bytes, ...]]:
        """Return the first byte and the payload of the one frame, and all of it as a server sends it.

        Args:
            compressor: that of the connection, or None.
        """
        if compressor is None or not compressor.is_wanted(len(self.payload), self._compress):
            key = None
        else:
            key = compressor.key
        encoded = self._encoded.get(key)
        if encoded is None:
            first, payload = FIN | self.opcode, self.payload
            if key is not None:
                assert compressor is not None
                first, payload = first | RSV1, compressor.compress_alone(payload)
            chunks: list[bytes] = []
            masking.append_frame(chunks, first, payload, False)
            encoded = self._encoded[key] = first, payload, tuple(chunks)
        return encoded


def prepare(message: str | bytes | bytearray | memoryview, *, compress: bool | None = None) -> Prepared:
    """Encode a message once, to send it to any number of connections (RFC 6455, section 5.6).

    Args:
        message: ``str`` for text, a bytes-like object for binary.
        compress: whether to compress it where that is agreed on; None: if it reaches the threshold.

    Raises:
        LocalProtocolError: the text contains a lone surrogate.
        TypeError: the message is neither a string nor bytes-like.
    """
    if not isinstance(message, str):
        return Prepared(BINARY, as_bytes(message), compress)
    try:
        return Prepared(TEXT, str.encode(message), compress)
    except UnicodeEncodeError:
        raise LocalProtocolError("text contains a lone surrogate") from None
