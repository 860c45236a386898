"""Explains bytes: which frames and messages they are, and where they break RFC 6455 or RFC 7692.

hexadecimal    bytes from a dump                                  read_hexadecimal()
capture, tcp   bytes from pcap and pcapng files                   Capture, CaptureInspector
direction      bytes --> findings, of one direction               FrameInspector
conversation   bytes --> findings, from the handshake on          ConversationInspector
findings       what is found: plain data                          InspectedFrame, Violation, ...
text           findings --> lines and objects of JSON             to_spans(), to_json()

Only a ``Capture`` does I/O: it reads a file. ``wsframe.inspector.capture`` is imported by name, since it
needs dpkt, which ``wsframe[cli]`` installs.
"""

from .conversation import ConversationInspector
from .direction import UNAGREED_COMPRESSION, FrameInspector
from .findings import Finding, InspectedFrame, InspectedHead, InspectedMessage, Note, Violation
from .hexadecimal import is_hexadecimal, read_hexadecimal
from .text import HEADING, Span, SpanKind, close_name, to_json, to_spans, visible

__all__ = [
    "HEADING",
    "UNAGREED_COMPRESSION",
    "ConversationInspector",
    "Finding",
    "FrameInspector",
    "InspectedFrame",
    "InspectedHead",
    "InspectedMessage",
    "Note",
    "Span",
    "SpanKind",
    "Violation",
    "close_name",
    "is_hexadecimal",
    "read_hexadecimal",
    "to_json",
    "to_spans",
    "visible",
]
