"""Test what speaks WebSocket: strategies for Hypothesis, and two ends in memory. Needs ``wsframe[testing]``.

strategies   what a peer may say, and what it must not     streams(), frames(), handshakes(), ...
pair         two Connections that are joined in memory     pair()
machine      two endpoints that say anything at any time   TwoEndpoints
adapters     a handler and its client, without a port      connected(), connected_sync()
"""

from .adapters import connected, connected_sync
from .machine import TwoEndpoints, check_grammar, joined
from .pair import Heard, Pair, pair
from .strategies import (
    SAMPLE_KEY,
    Stream,
    chunked,
    deflate_offers,
    events,
    frames,
    handshakes,
    key_of,
    messages,
    payloads,
    streams,
)

__all__ = [
    "SAMPLE_KEY",
    "Heard",
    "Pair",
    "Stream",
    "TwoEndpoints",
    "check_grammar",
    "chunked",
    "connected",
    "connected_sync",
    "deflate_offers",
    "events",
    "frames",
    "handshakes",
    "joined",
    "key_of",
    "messages",
    "pair",
    "payloads",
    "streams",
]
