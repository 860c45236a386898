"""The broker over Redis, on the connections of redis-py.

The chapters, from bottom to top:

- address.py: RedisAddress, which makes connections to a server.
- link.py: Link, one connection on which commands go out and replies come in at the same time.
- payload.py: a message as the payload of a channel.
- publisher.py: Publisher, the Link on which the hub publishes to a server.
- subscriber.py: Subscriber, the Link on which it subscribes.
- cluster.py: RedisBroker, which has a Publisher and a Subscriber for each server: one, or a cluster's nodes.

redis-py's own PubSub reconnects and subscribes again by itself, in whichever call notices that its connection
was lost. Here a lost connection is an error. A call that publishes fails. The Subscriber, which alone knows
the subscriptions of that moment, connects and subscribes again.
"""

from .cluster import RedisBroker

__all__ = ["RedisBroker"]
