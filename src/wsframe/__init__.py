"""wsframe: the WebSocket protocol for Python (RFC 6455, RFC 7692)."""

from .adapter.auth import basic_auth, redirect
from .client import ClientConnection
from .connection import Connection, Role, State
from .deflate import Deflate
from .errors import (
    ConnectionClosed,
    HandshakeFailed,
    HandshakeRejected,
    InvalidRequest,
    InvalidURI,
    LocalProtocolError,
    RemoteProtocolError,
    WebSocketError,
)
from .events import Binary, Close, Event, Fail, Headers, Ping, Pong, Request, Response, Text
from .frames import CloseCode, Frame, FrameDecoder, Opcode, encode_frame
from .masking import apply_mask, compiled
from .origins import Origins
from .prepared import Prepared, prepare
from .server import ServerConnection
from .uri import URI, parse_uri

__all__ = [
    "URI",
    "Binary",
    "ClientConnection",
    "Close",
    "CloseCode",
    "Connection",
    "ConnectionClosed",
    "Deflate",
    "Event",
    "Fail",
    "Frame",
    "FrameDecoder",
    "HandshakeFailed",
    "HandshakeRejected",
    "Headers",
    "InvalidRequest",
    "InvalidURI",
    "LocalProtocolError",
    "Opcode",
    "Origins",
    "Ping",
    "Pong",
    "Prepared",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Role",
    "ServerConnection",
    "State",
    "Text",
    "WebSocketError",
    "apply_mask",
    "basic_auth",
    "compiled",
    "encode_frame",
    "parse_uri",
    "prepare",
    "redirect",
]
