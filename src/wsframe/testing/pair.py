"""Two Connections that are joined in memory.

    client -- data_to_send --> [ in pieces, until it is cut ] -- receive_data --> server
    client <-- receive_data -- [ in pieces, until it is cut ] <-- data_to_send -- server

Nothing runs in the background: bytes move in ``pump()``, always in the same order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..adapter.auth import ProcessRequest
from ..client import ClientConnection
from ..connection import Connection, Role, check_compression
from ..deflate import Deflate
from ..events import Event, Request
from ..handshake import HeaderList
from ..server import ServerConnection

__all__ = ["Heard", "Pair", "pair"]


class Heard(NamedTuple):
    """The events that each side has heard.

    Attributes:
        client: the events of the client.
        server: the events of the server.
    """

    client: list[Event]
    server: list[Event]


class Pair:
    """A client and a server, and the wire between them.

    Args:
        client: the client's Connection.
        server: the server's Connection.
        sizes: of how many bytes the pieces are that come in, over and over; by default all that is there.
        cut_after: how many bytes the wire carries, both ways together, before it is cut: then both ends
            get the end of the stream. None: it is not cut.
        process_request: what to answer to the client's request, as for ``aio.serve``: None to accept,
            ``Response(101, headers)``, or a ``Response`` that refuses it. By default it is accepted.

    Raises:
        ValueError: a size is less than 1, or ``cut_after`` less than 0.
    """

    def __init__(
        self,
        client: Connection,
        server: Connection,
        *,
        sizes: Sequence[int] | None = None,
        cut_after: int | None = None,
        process_request: ProcessRequest | None = None,
    ) -> None:
        if sizes is not None and (not sizes or min(sizes) < 1):
            raise ValueError("sizes must be one byte or more")
        if cut_after is not None and cut_after < 0:
            raise ValueError(f"cut_after must not be negative: {cut_after}")
        self.client = client
        self.server = server
        self._sizes: Iterator[int | None] = itertools.cycle(sizes or [None])
        self._left = cut_after
        self._process_request = process_request
        self._has_ended = {Role.CLIENT: False, Role.SERVER: False}  # the stream to each

    @property
    def is_cut(self) -> bool:
        """Whether the wire has been cut."""
        return self._left == 0

    def cut(self) -> None:
        """Cut the wire: what is not delivered is lost, and with ``pump()`` both ends get its end."""
        self._left = 0

    def pump(self) -> Heard:
        """Move bytes both ways until nothing moves, and return the events that each side heard.

        Pings and Closes are answered by the core, requests as ``process_request`` says. A side that should
        close the TCP connection does so.

        Raises:
            LocalProtocolError: what ``process_request`` returned cannot be sent.
        """
        heard = Heard([], [])
        while self._move(self.client, self.server, heard.server) | self._move(
            self.server, self.client, heard.client
        ):
            pass
        return heard

    def _move(self, sender: Connection, receiver: Connection, heard: list[Event]) -> bool:
        """Move the bytes that one side has to send, and return whether there were any."""
        data = sender.data_to_send()
        moved = bool(data)
        if not self._has_ended[receiver.role]:
            while data and self._left != 0:
                piece = data[: next(self._sizes)][: self._left]
                data = data[len(piece) :]
                if self._left is not None:
                    self._left -= len(piece)
                receiver.receive_data(piece)
                self._read(receiver, heard)
            # A side that closes TCP is read to the end, and gets the end when its peer has closed as well.
            if self._left == 0 or sender.should_close:
                self._has_ended[receiver.role] = moved = True
                receiver.receive_data(b"")
        self._read(receiver, heard)
        return moved

    def _read(self, conn: Connection, heard: list[Event]) -> None:
        while event := conn.next_event():
            heard.append(event)
            if isinstance(event, Request) and isinstance(conn, ServerConnection):
                conn.respond(self._process_request and self._process_request(event))


def pair(
    *,
    handshake: bool = False,
    uri: str = "ws://localhost/",
    subprotocols: Sequence[str] = (),
    additional_headers: HeaderList = (),
    process_request: ProcessRequest | None = None,
    compression: Deflate | None = None,
    max_message_size: int | None = 2**20,
    fragments: bool = False,
    sizes: Sequence[int] | None = None,
    cut_after: int | None = None,
) -> Pair:
    """Join a client and a server in memory.

    Args:
        handshake: whether the opening handshake is still to come, in the first ``pump()``: then they are a
            ``ClientConnection`` and a ``ServerConnection``. By default they are open.
        uri: the address that the client asks for. This and the next three are for the handshake.
        subprotocols: what the client offers and the server speaks.
        additional_headers: more headers for the request.
        process_request: what to answer to the request; by default it is accepted. See ``Pair``.
        compression: what they have agreed on about compression, or wish in the handshake; None: nothing.
        max_message_size: the largest message that either receives, in bytes; by default 1 MiB.
        fragments: whether messages arrive piece by piece, on both sides.
        sizes: of how many bytes the pieces are that come in, over and over; by default all that is there.
        cut_after: how many bytes the wire carries before it is cut; None: it is not. See ``Pair``.

    Raises:
        InvalidURI: the address is not one.
        LocalProtocolError: a subprotocol or header cannot be sent.
        ValueError: an option is out of range.
        TypeError: an option has a wrong type.
    """
    options: dict[str, Any] = {
        "compression": check_compression(compression),
        "max_message_size": max_message_size,
        "fragments": fragments,
    }
    client: Connection
    server: Connection
    if handshake:
        client = ClientConnection(
            uri, subprotocols=subprotocols, additional_headers=additional_headers, **options
        )
        server = ServerConnection(subprotocols=subprotocols, **options)
    else:
        client, server = Connection(Role.CLIENT, **options), Connection(Role.SERVER, **options)
    return Pair(client, server, sizes=sizes, cut_after=cut_after, process_request=process_request)
