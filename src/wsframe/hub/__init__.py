"""Publish and subscribe: in one process, or over Redis across many.

    publish("news", ...)                        subscribe(ws, "news")
          |                                             |
          v          PUBLISH            SUBSCRIBE       v
         Hub ------------------> Redis <-------------- Hub --> topic "news": ws, ws, ws
                                   |                    ^
                                   +------- message ----+        one message, encoded once, for all of them

The chapters, from bottom to top:

- pattern.py: the glob-style patterns of Redis.
- broker.py: the interface between the topics of a hub and a broker, and the broker of a single process.
- topics.py: which connection subscribes to which topic, and the delivery.
- redis/: the broker over Redis.
- hub.py: the public face.

A topic is a channel of Redis, and a message is its payload, as redis/payload.py says. So programs in any
language can publish. On a Redis Cluster the channels are sharded, and programs publish by SPUBLISH.
"""

from .hub import Hub, websocket_of
from .pattern import Pattern

__all__ = ["Hub", "Pattern", "websocket_of"]
