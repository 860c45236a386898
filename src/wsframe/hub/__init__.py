"""Publish and subscribe: in one process, or over Redis across many.

    publish("news", ...)                        subscribe(ws, "news")
          |                                             |
          v          PUBLISH            SUBSCRIBE       v
         Hub ------------------> Redis <-------------- Hub --> Room "news": ws, ws, ws
                                   |                    ^
                                   +------- message ----+        one message, encoded once, for all of them

hub.py is the face. rooms.py knows who is subscribed to what, and delivers. redis.py speaks to Redis, or to
the nodes of a Redis Cluster, by redis-py. pattern.py is Redis' glob.

A topic is a channel of Redis, and a message is its payload there, so programs in any language can publish:

- Text is its UTF-8: ``redis-cli PUBLISH room hello`` reaches everybody in the room as the text "hello".
- Binary is the octet 0xFF, with which no UTF-8 begins, and then the octets of the message.
- Anything else that is not UTF-8 is a binary message as it stands.

On a Redis Cluster the channels are sharded ones: programs publish by SPUBLISH there.
"""

from .hub import Hub, websocket_of
from .pattern import Pattern

__all__ = ["Hub", "Pattern", "websocket_of"]
