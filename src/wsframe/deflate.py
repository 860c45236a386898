"""RFC 7692: permessage-deflate, the compression extension.

client                                                                 server
  | Sec-WebSocket-Extensions: permessage-deflate;                  -->   |   Deflate.offer()
  |     client_max_window_bits                                           |   Deflate.accept(offers)
  |   <-- Sec-WebSocket-Extensions: permessage-deflate;                  |
  |     client_max_window_bits=12                                        |   Deflate.check_response(response)

``Deflate`` is what an endpoint wishes, and what two endpoints agreed on: negotiation turns one into the
other. ``Compressor`` and ``Decompressor`` are the two directions of a connection that uses it. A Connection
gets them from the ``Deflate`` that was agreed on, and knows only their methods.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from .errors import RemoteProtocolError

__all__ = ["DEFAULT", "Compressor", "Decompressor", "Deflate", "check_extensions", "parse_extensions"]

_NAME = "permessage-deflate"

_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_NUMBERS = ("server_max_window_bits", "client_max_window_bits")
# Section 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive"
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}
# zlib cannot compress with a window of 8 bits. It decompresses what was compressed with a smaller window.
_MIN_BITS, _MAX_BITS = 9, 15
# What a compressor uses where its user asked for nothing. A smaller window than the peer expects needs no
# announcement, and takes less memory: 12 and a mem_level of 5 make 32 KiB, 15 and 8 would make 256.
_OWN_BITS = 12
_MAX_THRESHOLD = 2**63 - 1

# RFC 6455, section 9.1: a list of names with parameters, by the token and quoted-string of RFC 7230,
# section 3.2.6. "the value after quoted-string unescaping MUST conform to the 'token' ABNF": so there is no
# separator within quotes. The quantifiers are possessive: a header is read in one way, in linear time.
_CHARACTER = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_SPACE = r"[ \t]*+"
_VALUE = rf'(?:{_CHARACTER}++|"(?:\\?{_CHARACTER})++")'
_PARAMETER = rf"{_SPACE};{_SPACE}{_CHARACTER}++(?:{_SPACE}={_SPACE}{_VALUE})?+"
_ELEMENT = rf"{_SPACE}(?:{_CHARACTER}++(?:{_PARAMETER})*+{_SPACE})?+"
_EXTENSIONS = re.compile(rf"{_ELEMENT}(?:,{_ELEMENT})*+")

# Section 7.2.1: an empty block without compression, which every message ends with, less its first byte.
_TAIL = b"\x00\x00\xff\xff"
# An empty block with fixed Huffman codes and BFINAL.
_END = b"\x03\x00"
_STEP = 65536  # bytes that zlib is given at a time
_SMALL_STEP = 1024
# Each block with BFINAL costs a zlib object, about 1 us. So a message may have this many of them, one more
# for each of its fragments, and one more for so many bytes of it.
_FREE_STREAMS = 8
_BYTES_PER_STREAM = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """How to compress messages: what an endpoint wishes, or what two have agreed on (RFC 7692).

    By default an endpoint asks its peer for nothing, and compresses with a small window without saying so:
    some peers fail on more than that. Objects are immutable; they compare by value, and can be pickled.

    Args:
        level: how hard to compress, by the scale of the zlib module; None: the module's default.
        mem_level: how much memory to compress with: 1 to 9, which is 2**(mem_level + 9) bytes.
        server_max_window_bits: the base 2 logarithm of the largest window that the server compresses with, 9
            to 15 (section 7.1.2.1). A client with a number below 15 asks the server for it, and takes what it
            gets. A server keeps to it, and announces it only where the client's offer has this parameter.
            None: a server uses 12, and a client asks for nothing; its peer may use 15.
        client_max_window_bits: the same for the client (section 7.1.2.2). A client keeps to it, and a number
            below 15 stands in its offer. A server can ask for it only where the client's offer has this
            parameter; otherwise the client may use 15. None: a client uses 12 and does not say so; a server
            asks for 12.
        server_no_context_takeover: whether the server compresses each message by itself, which takes less
            memory and more bytes (section 7.1.1.1). A client asks the server for it.
        client_no_context_takeover: the same for the client (section 7.1.1.2).
        threshold: messages of fewer bytes go out plain.
        zlib: the module that compresses: ``zlib``, ``zlib_ng.zlib_ng`` or ``isal.isal_zlib``.

    Raises:
        ValueError: a number is out of range.
        TypeError: an argument has a wrong type.
    """

    level: int | None = None
    mem_level: int = 5
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    threshold: int = 128
    zlib: Any = field(default=zlib, repr=False)

    def __post_init__(self) -> None:
        _check_int("mem_level", self.mem_level, 1, 9)
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), _MIN_BITS, _MAX_BITS)
        _check_int("threshold", self.threshold, 0, _MAX_THRESHOLD)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, not {type(getattr(self, name)).__name__}")
        if not all(hasattr(self.zlib, name) for name in ("compressobj", "decompressobj", "error")):
            raise TypeError(f"zlib must be a module like zlib, not {self.zlib!r}")
        if self.level is not None and (not isinstance(self.level, int) or isinstance(self.level, bool)):
            raise TypeError(f"level must be an int, not {type(self.level).__name__}")
        try:
            self._compressobj(_OWN_BITS)
        except (ValueError, self.zlib.error):
            raise ValueError(f"{self.zlib.__name__} has no level {self.level}") from None

    def _compressobj(self, bits: int) -> Any:
        level = self.zlib.Z_DEFAULT_COMPRESSION if self.level is None else self.level
        return self.zlib.compressobj(level, self.zlib.DEFLATED, -bits, self.mem_level)

    def compressor(self, *, is_server: bool) -> Compressor:
        """Return what compresses the messages that go out on one connection.

        Args:
            is_server: whether this is the server's end.
        """
        return Compressor(self, is_server=is_server)

    def decompressor(self, *, is_server: bool) -> Decompressor:
        """Return what decompresses the messages that come in on one connection.

        Args:
            is_server: whether this is the server's end.
        """
        return Decompressor(self, is_server=is_server)

    def __reduce__(self) -> tuple[Any, ...]:
        # A module cannot be pickled, nor copied; its name can.
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if isinstance(self.zlib, ModuleType):
            values["zlib"] = self.zlib.__name__
        return _restore, (type(self), values)

    # Negotiation (section 5)

    def offer(self) -> str:
        """Return what a client offers: the value of its Sec-WebSocket-Extensions (RFC 7692, section 5.1).

        By default it is one offer, that of browsers. Real servers fail on more: libsoup 3.2 accepts each of
        two offers, nhooyr.io/websocket 1.8 refuses a client that asks for a window, and netty 4.1 agrees to
        one and then cannot compress.

        A client that wishes for more makes two offers. Its wishes stand in the first one only. The second,
        which is that of browsers, is for servers that cannot grant them, as in the examples of section
        7.1.3. The client keeps to its own limits all the same.
        """
        wished = _NAME
        if self.server_no_context_takeover:
            wished += "; server_no_context_takeover"
        if (self.server_max_window_bits or _MAX_BITS) < _MAX_BITS:
            wished += f"; server_max_window_bits={self.server_max_window_bits}"
        if self.client_no_context_takeover:
            wished += "; client_no_context_takeover"
        wished += "; client_max_window_bits"
        if (self.client_max_window_bits or _MAX_BITS) < _MAX_BITS:
            wished += f"={self.client_max_window_bits}"
        plain = f"{_NAME}; client_max_window_bits"
        return plain if wished == plain else f"{wished}, {plain}"

    def accept(self, offers: str) -> tuple[str, Deflate] | None:
        """Choose from a client's offers, for a server (RFC 7692, sections 5.1 and 7.1).

        The first offer that can be honoured is taken. Others are declined: of unknown extensions, with
        unknown, repeated or wrong parameters, or with a window of 8 bits for the server.

        Args:
            offers: the value of the client's Sec-WebSocket-Extensions; of several, joined by commas.

        Returns:
            The value of the server's Sec-WebSocket-Extensions and what is agreed on; None when there is no
            acceptable offer.

        Raises:
            RemoteProtocolError: the value is malformed. ``handshake.check_request`` has refused it already.
        """
        for extension in parse_extensions(offers):
            if extension[0] != _NAME:
                continue
            parameters = _parse_parameters(extension[1])
            # Section 7.1.2.1: in an offer as well, server_max_window_bits has a value.
            if parameters is None or parameters.get("server_max_window_bits", _MAX_BITS) is None:
                continue
            if parameters.get("server_max_window_bits") == 8:  # zlib cannot compress with that
                continue
            offered = parameters.get("server_max_window_bits") or _MAX_BITS
            # "A server accepts an extension negotiation offer with this parameter by including the
            # "server_max_window_bits" extension parameter in the extension negotiation response [...] with
            # the same or smaller value as the offer."
            server_bits = min(self.server_max_window_bits or _OWN_BITS, offered)
            # "If a received extension negotiation offer doesn't have the "client_max_window_bits"
            # extension parameter, the corresponding extension negotiation response to the offer MUST NOT
            # include the "client_max_window_bits" extension parameter."
            client_bits = _MAX_BITS
            if "client_max_window_bits" in parameters:
                limit = parameters["client_max_window_bits"] or _MAX_BITS
                client_bits = min(self.client_max_window_bits or _OWN_BITS, limit)
            server_alone = self.server_no_context_takeover or "server_no_context_takeover" in parameters
            client_alone = self.client_no_context_takeover or "client_no_context_takeover" in parameters
            response = _NAME
            if server_alone:
                response += "; server_no_context_takeover"
            if client_alone:
                response += "; client_no_context_takeover"
            # Section 7.1.2.1 lets a server announce its window "even if the extension negotiation offer [...]
            # didn't include" this parameter. But the clients of websocket-sharp, nhooyr.io/websocket 1.8 and
            # netty 4.1 fail on that, and a smaller window needs no announcement.
            if "server_max_window_bits" in parameters:
                response += f"; server_max_window_bits={server_bits}"
            if "client_max_window_bits" in parameters:
                response += f"; client_max_window_bits={client_bits}"
            # What was compressed with 8 bits is decompressed with 9.
            client_bits = max(client_bits, _MIN_BITS)
            return response, self._agree(server_bits, client_bits, server_alone, client_alone)
        return None

    def check_response(self, response: str) -> Deflate | None:
        """Judge what a server chose, for a client (RFC 7692, sections 5.1 and 7.1).

        Args:
            response: the value of the server's Sec-WebSocket-Extensions; of several, joined by commas.

        Returns:
            What is agreed on; None when the server uses no extension.

        Raises:
            RemoteProtocolError: "the client MUST _Fail the WebSocket Connection_": the server uses
                something that was not offered, or says something that cannot be.
        """
        extensions = parse_extensions(response)
        if not extensions:
            return None
        if any(extension[0] != _NAME for extension in extensions):
            raise RemoteProtocolError(1002, "server uses an extension that was not offered")
        if len(extensions) > 1:
            raise RemoteProtocolError(1002, f"server accepts more than one {_NAME}")
        parameters = _parse_parameters(extensions[0][1])
        if parameters is None or None in parameters.values():
            raise RemoteProtocolError(1002, f"parameters of {_NAME} are wrong")
        # Section 7.1.2.1: where the server was not asked to limit its window, as in the second offer, it may.
        # It may limit it to 8 bits, too: what was compressed so is decompressed with 9.
        server_bits = max(parameters.get("server_max_window_bits") or _MAX_BITS, _MIN_BITS)
        # A larger window than the client offered is an answer that some servers give to its name alone. It
        # does no harm: it is the client that keeps to the smaller one.
        asked = parameters.get("client_max_window_bits") or _MAX_BITS
        if asked < _MIN_BITS:
            raise RemoteProtocolError(
                1002, "client_max_window_bits=8 is too small: zlib compresses with 9 or more"
            )
        client_bits = min(asked, self.client_max_window_bits or _OWN_BITS)
        return self._agree(
            server_bits,
            client_bits,
            "server_no_context_takeover" in parameters,
            self.client_no_context_takeover or "client_no_context_takeover" in parameters,
        )

    def _agree(self, server_bits: int, client_bits: int, server_alone: bool, client_alone: bool) -> Deflate:
        # Most connections of a server share one.
        agreed = _agreement(self, server_bits, client_bits, server_alone, client_alone)
        return self if agreed == self else agreed


@lru_cache(256)
def _agreement(
    wish: Deflate, server_bits: int, client_bits: int, server_alone: bool, client_alone: bool
) -> Deflate:
    return replace(
        wish,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
        server_no_context_takeover=server_alone,
        client_no_context_takeover=client_alone,
    )


def _restore(kind: type[Deflate], values: dict[str, Any]) -> Deflate:
    """Return the ``Deflate`` that ``__reduce__`` has described."""
    if isinstance(values["zlib"], str):
        values = {**values, "zlib": import_module(values["zlib"])}
    return kind(**values)


def _check_int(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")


def check_extensions(value: str) -> None:
    """Check the grammar of Sec-WebSocket-Extensions (RFC 6455, section 9.1).

    Args:
        value: the header's value; of several, joined by commas.

    Raises:
        RemoteProtocolError: the value is malformed.
    """
    if not _EXTENSIONS.fullmatch(value):
        # "If a value is received by either the client or the server during negotiation that does not conform
        # to the ABNF below, the recipient of such malformed data MUST immediately _Fail the WebSocket
        # Connection_."
        raise RemoteProtocolError(1002, "Sec-WebSocket-Extensions is malformed")


def parse_extensions(value: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Split Sec-WebSocket-Extensions (RFC 6455, section 9.1).

    Args:
        value: the header's value; of several, joined by commas.

    Returns:
        The names of the extensions, with the names and values of their parameters. A value has no quotes; it
        is empty when there is none.

    Raises:
        RemoteProtocolError: the value is malformed.
    """
    check_extensions(value)
    extensions = []
    for element in value.replace("\\", "").replace('"', "").split(","):
        name, *parameters = element.split(";")
        if name := name.strip(" \t"):  # RFC 7230, section 7: empty elements are ignored
            extensions.append((name, [_parse_parameter(parameter) for parameter in parameters]))
    return extensions


def _parse_parameter(parameter: str) -> tuple[str, str]:
    name, _, value = parameter.partition("=")
    return name.strip(" \t"), value.strip(" \t")


def _parse_parameters(pairs: list[tuple[str, str]]) -> dict[str, int | None] | None:
    """Return the parameters of permessage-deflate (section 7.1), or None if one is wrong or comes twice.

    Flags have the value 0, and window bits without a value, which an offer may have, None.
    """
    parameters: dict[str, int | None] = {}
    for name, value in pairs:
        if name in parameters:
            return None
        if name in _FLAGS and not value:
            parameters[name] = 0
        elif name in _NUMBERS and (not value or value in _WINDOW_BITS):
            parameters[name] = _WINDOW_BITS.get(value)
        else:
            return None
    return parameters


class Compressor:
    """The compression of the messages that go out on one connection (RFC 7692, section 7.2.1).

    A zlib object is made for the first message, and kept if the next one may refer to it. Without context
    takeover each message has a fresh one: that takes 0.5 us longer than Z_FULL_FLUSH, and leaves nothing
    in memory.

    Args:
        deflate: what is agreed on.
        is_server: whether this is the server's end.

    """

    __slots__ = ("_bits", "_deflate", "_keeps_context", "_object")

    def __init__(self, deflate: Deflate, *, is_server: bool) -> None:
        self._deflate = deflate
        if is_server:
            self._bits = deflate.server_max_window_bits or _OWN_BITS
            self._keeps_context = not deflate.server_no_context_takeover
        else:
            self._bits = deflate.client_max_window_bits or _OWN_BITS
            self._keeps_context = not deflate.client_no_context_takeover
        self._object: Any = None

    def is_wanted(self, length: int, compress: bool | None) -> bool:
        """Tell whether to compress a message.

        Args:
            length: its length, in bytes.
            compress: what its sender says; None: what its length says.
        """
        return length >= self._deflate.threshold if compress is None else compress

    def compress(self, payload: bytes, fin: bool = True) -> bytes:
        """Return a message, or the next fragment of one, compressed.

        Args:
            payload: the bytes.
            fin: whether the message ends here.
        """
        compressor = self._object or self._deflate._compressobj(self._bits)
        # If it fails, the peer never gets the bytes that it has taken. Nothing may refer to them.
        self._object = None
        data: bytes = compressor.compress(payload) + compressor.flush(self._deflate.zlib.Z_SYNC_FLUSH)
        if not fin:
            self._object = compressor
            return data
        if self._keeps_context:
            self._object = compressor
        # "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end." Nothing is there when nothing
        # came since the last flush; section 7.2.3.6: then "0x00" stands for the empty block.
        return data[:-4] or b"\x00"

    @property
    def key(self) -> tuple[object, ...]:
        """What ``compress_alone`` depends on: where it is equal, so are the bytes."""
        deflate = self._deflate
        return deflate.zlib, deflate.level, deflate.mem_level, self._bits

    def compress_alone(self, payload: bytes) -> bytes:
        """Return a message compressed without a reference to those before it.

        Args:
            payload: all of its bytes.
        """
        compressor = self._deflate._compressobj(self._bits)
        data: bytes = compressor.compress(payload) + compressor.flush(self._deflate.zlib.Z_SYNC_FLUSH)
        return data[:-4] or b"\x00"

    def forget(self) -> None:
        """Forget the messages so far: the next one does not refer to them."""
        self._object = None


class Decompressor:
    """The decompression of the messages that come in on one connection (RFC 7692, section 7.2.2).

    Each message has a zlib object of its own, which is given the window: the last bytes before it. So a
    connection holds no more than that between messages, a block with BFINAL is nothing special, and the
    end of a message can be checked: a block that ends the stream is read after it.

    Args:
        deflate: what is agreed on.
        is_server: whether this is the server's end.

    Attributes:
        has_more: whether ``read`` has more to return of what was fed.
    """

    __slots__ = (
        "_bits",
        "_consumed",
        "_fragments",
        "_input",
        "_keeps_context",
        "_object",
        "_position",
        "_streams",
        "_window",
        "_zlib",
        "has_more",
    )

    def __init__(self, deflate: Deflate, *, is_server: bool) -> None:
        self._zlib = deflate.zlib
        if is_server:
            self._bits = deflate.client_max_window_bits or _MAX_BITS
            self._keeps_context = not deflate.client_no_context_takeover
        else:
            self._bits = deflate.server_max_window_bits or _MAX_BITS
            self._keeps_context = not deflate.server_no_context_takeover
        self._window = bytearray()
        self._object: Any = None
        self._input = b""
        self._position = 0  # in the input
        self._consumed = 0  # how many bytes of the message came before the input
        self._fragments = 0
        self._streams = 0  # how many blocks with BFINAL the message has had
        self.has_more = False

    def feed(self, payload: bytes, fragments: int = 0) -> None:
        """Take some of a message, when all that came before was read.

        Args:
            payload: the bytes.
            fragments: how many fragments of the message came before the one that they belong to.
        """
        self._consumed += self._position
        self._input = payload
        self._position = 0
        self._fragments = fragments
        self.has_more = bool(payload)

    def read(self, max_length: int) -> bytes:
        """Return some of what was fed, decompressed; it may be empty while ``has_more`` is true.

        Args:
            max_length: the most bytes to return; 1 or more.

        Raises:
            RemoteProtocolError: it is corrupt, or has too many blocks with BFINAL.
        """
        if not self.has_more:
            return b""
        decompressor = self._object
        if decompressor is None:
            decompressor = self._object = self._zlib.decompressobj(-self._bits, zdict=self._window)
        # What follows a block with BFINAL is copied for each such block, so from the first one on little is
        # given at a time.
        step = _SMALL_STEP if self._streams else _STEP
        chunk = self._input[self._position : self._position + step]
        try:
            data: bytes = decompressor.decompress(chunk, max_length)
        except self._zlib.error:
            raise RemoteProtocolError(1007, "compressed data is corrupt") from None
        self._position += len(chunk) - len(decompressor.unconsumed_tail)
        self.has_more = len(data) == max_length or self._position < len(self._input)
        if decompressor.eof:
            # Section 7.2.1: "The next DEFLATE block follows the padded data if any."
            # (zlib has it in both of these when there was no room.)
            self._position += len(decompressor.unconsumed_tail) - len(decompressor.unused_data)
            self._object = None
            self.has_more = self._position < len(self._input)
            self._streams += 1
            read = self._consumed + self._position
            if self._streams > _FREE_STREAMS + self._fragments + read // _BYTES_PER_STREAM:
                raise RemoteProtocolError(1009, "message has too many blocks with BFINAL")
        if not self.has_more:
            self._input = b""
        size = 1 << self._bits
        self._window += data[-size:]
        if len(self._window) > size:
            del self._window[:-size]
        return data

    def finish(self) -> None:
        """End the message.

        Raises:
            RemoteProtocolError: it is cut short.
        """
        # Without an object, nothing followed a block with BFINAL, or the message had no bytes at all. The
        # latter breaks a rule for senders: by section 7.2.3.6 an empty message is one byte, 0x00. But
        # Mojolicious and Haskell's websockets send it, and it can only mean an empty message.
        decompressor = self._object
        if decompressor is not None:
            # "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload". If the payload ends
            # where it should they complete an empty block, and the next block is read as what it is.
            try:
                is_whole = not decompressor.decompress(_TAIL + _END) and decompressor.eof
            except self._zlib.error:
                is_whole = False
            if not is_whole:
                raise RemoteProtocolError(1007, "compressed message is cut short")
        self._object = None
        self._position = self._consumed = self._streams = 0
        if not self._keeps_context:
            self._window.clear()

    def decompress(self, payload: bytes, max_size: int) -> bytes:
        """Return a whole message, decompressed.

        Args:
            payload: all of its bytes.
            max_size: its limit, in bytes.

        Raises:
            RemoteProtocolError: it is corrupt, cut short, larger than its limit, or has too many blocks with
                BFINAL.
        """
        self.feed(payload)
        message = self.read(min(max_size + 1, _STEP))
        if self.has_more:
            rest = bytearray(message)
            while self.has_more and len(rest) <= max_size:
                rest += self.read(min(max_size + 1 - len(rest), 16 * _STEP))
            message = bytes(rest)
        if len(message) > max_size:
            raise RemoteProtocolError(1009, "message is too big")
        self.finish()
        return message


DEFAULT = Deflate()
"""What connections wish by default."""
