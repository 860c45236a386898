"""Publish and subscribe: in one process, or over Redis across many.

    publish("news", ...)                        subscribe(ws, "news")
          |                                             |
          v          PUBLISH            SUBSCRIBE       v
         Hub ------------------> Redis <-------------- Hub --> Room "news": ws, ws, ws
                                   |                    ^
                                   +------- message ----+        one message, encoded once, for all of them

hub.py is the face. rooms.py knows who is subscribed to what, and delivers. redis.py knows which Redis, or
which node of a Redis Cluster, has a topic, and links.py speaks to it. pattern.py is Redis' glob.

A topic is a channel of Redis, and a message is its payload there, as payload.py says: so programs in any
language can publish. On a Redis Cluster the channels are sharded ones: programs publish by SPUBLISH there.
"""

from .hub import Hub, websocket_of
from .pattern import Pattern

__all__ = ["Hub", "Pattern", "websocket_of"]
