"""What the adapters log of a connection: its number, and at DEBUG a line for each frame (RFC 6455, 5.2).

    < GET /chat HTTP/1.1                  a head: its first line, without the query
    > HTTP/1.1 101 Switching Protocols
    < TEXT 5 bytes                       <: the peer's, >: ours
    > BINARY 65536 bytes, compressed, more follows
    < CLOSE 1000 'bye'

Payloads, headers and queries may hold passwords. They are not logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from ..errors import ConnectionClosed, RemoteProtocolError
from ..frames import CLOSE, FIN, FrameDecoder, Opcode

__all__ = ["ConnectionLogger", "FrameLog"]

_LONGEST_HEAD = 16384  # bytes


class ConnectionLogger(logging.LoggerAdapter[logging.Logger]):
    """Log what happens on a connection under its number.

    Args:
        logger: the adapter's logger.
        number: the connection's.
    """

    def __init__(self, logger: logging.Logger, number: int) -> None:
        super().__init__(logger, {"connection": number})
        self._prefix = f"[{number}] "

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the number in front of a message; records have it as ``connection``."""
        return super().process(self._prefix + str(msg), kwargs)

    def opened(self, resource_name: str, peer: object) -> None:
        """Log that the connection is open.

        Args:
            resource_name: path and query; the query, which may hold a password, is left out.
            peer: its address.
        """
        self.info("opened: %s with %s", resource_name.partition("?")[0], peer)

    def closed(self, closed: ConnectionClosed) -> None:
        """Log how it ended.

        Args:
            closed: what ``recv`` raises now.
        """
        how = "closed" if closed.clean else "lost or failed"
        self.info("%s: %d %a", how, closed.code, closed.reason)


class FrameLog:
    """Say what passes on a connection, in both directions.

    Args:
        log: takes a line.
        is_client: whether this is the client's end.
    """

    def __init__(self, log: Callable[[str], object], *, is_client: bool) -> None:
        self._received = _Direction("<", log, masked=not is_client)
        self._sent = _Direction(">", log, masked=is_client)

    def received(self, data: bytes) -> None:
        """Take bytes that came off the network.

        Args:
            data: the bytes.
        """
        self._received.read(data)

    def sent(self, data: bytes) -> None:
        """Take bytes that are put on the network.

        Args:
            data: the bytes.
        """
        self._sent.read(data)


class _Direction:
    def __init__(self, arrow: str, log: Callable[[str], object], *, masked: bool) -> None:
        self._arrow = arrow
        self._log = log
        self._head: bytes | None = b""
        self._decoder = FrameDecoder(masked=masked, rsv1=True)
        self._decoder.partial = True
        self._is_within = False  # a frame that was logged already
        self._is_over = False

    def read(self, data: bytes) -> None:
        if self._head is not None and not self._is_over:
            data = self._read_head(data)
        if self._is_over or not data:
            return
        self._decoder.feed(data)
        try:
            while self._decoder.advance():
                if not self._is_within:
                    self._log(f"{self._arrow} {self._describe()}")
                self._is_within = not self._decoder.is_end
        except RemoteProtocolError as error:
            self._log(f"{self._arrow} violation: {error}")
            self._is_over = True

    def _read_head(self, data: bytes) -> bytes:
        """Read the head of the opening handshake, and return what follows it."""
        assert self._head is not None
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            self._is_over = len(head) > _LONGEST_HEAD
            return b""
        self._head = None
        # An empty line may stand before a request.
        line = head.removeprefix(b"\r\n").partition(b"\r\n")[0].decode("latin-1")
        path, question, query = line.partition("?")
        if question:
            line = f"{path}?... {query.rpartition(' ')[2]}"
        self._log(f"{self._arrow} {line if line.isprintable() else repr(line)}")
        # The body of any other answer is not logged either.
        self._is_over = line.startswith("HTTP/") and " 101 " not in line
        return rest

    def _describe(self) -> str:
        decoder = self._decoder
        opcode = Opcode(decoder.first & 0x0F)
        if opcode == CLOSE:
            payload = decoder.read_payload()
            if len(payload) < 2:
                return "CLOSE"
            reason = payload[2:].decode("utf-8", "replace")
            return f"CLOSE {int.from_bytes(payload[:2], 'big')} {reason!a}"
        line = f"{opcode.name} {decoder.payload_size() + decoder.remaining} bytes"
        if decoder.first & 0x40:
            line += ", compressed"
        if decoder.first < FIN:
            line += ", more follows"
        return line
