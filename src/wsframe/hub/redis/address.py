"""The address of a Redis server, and how to connect to it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import RedisError, ResponseError

from ...aio import Backoff

__all__ = ["BACKOFF", "ConnectionLost", "RedisAddress", "describe", "disconnect"]

# All hubs of a Redis that restarts come back within seconds, but not at once.
BACKOFF = Backoff(0.25, 1.6, 5.0)
HEALTH_CHECK_INTERVAL = 10.0  # seconds
DISCONNECT_TIMEOUT = 1.0  # seconds


class ConnectionLost(Exception):
    """A connection to Redis was lost, or could not be made."""


class RedisAddress:
    """The address of a Redis server, and the options of the connections to it.

    Addresses are equal when they name the same host and port, or the same path. One hub has the same options
    for all its addresses.

    Args:
        connection_class: redis-py's class for the connections.
        options: the arguments of this class.

    Attributes:
        health_check_interval: seconds after which a server that sends nothing is given up.
    """

    def __init__(self, connection_class: type[AbstractConnection], options: dict[str, Any]) -> None:
        self._connection_class = connection_class
        self._options = options
        self._text = str(
            options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        )
        self.health_check_interval = float(options.get("health_check_interval") or HEALTH_CHECK_INTERVAL)

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Return the address of a URL.

        Raises:
            RedisError, TypeError, ValueError: redis-py makes no connection of it.
        """
        options: dict[str, Any] = dict(parse_url(url))
        for pool_option in ("max_connections", "timeout"):
            options.pop(pool_option, None)
        connection_class = options.pop("connection_class", Connection)
        if issubclass(connection_class, UnixDomainSocketConnection) and not options.get("path"):
            raise ValueError("unix:// needs a path")
        address = cls(connection_class, options)
        address._new_connection()
        return address

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedisAddress) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def at(self, host: str, port: int) -> RedisAddress:
        """Return the address of another server, with the same options."""
        options = {name: value for name, value in self._options.items() if name != "path"}
        is_unix = issubclass(self._connection_class, UnixDomainSocketConnection)
        connection_class = Connection if is_unix else self._connection_class
        return RedisAddress(connection_class, {**options, "host": host, "port": port})

    def _new_connection(self) -> AbstractConnection:
        """Return a connection that is not connected yet, and checks nothing by itself: a Link does.

        Nothing here needs RESP3.
        """
        ours = {"protocol": 2, "decode_responses": False, "socket_timeout": None, "health_check_interval": 0}
        return self._connection_class(**{**self._options, **ours})

    async def connect(self) -> AbstractConnection:
        """Connect to the server.

        Raises:
            ConnectionLost: there is no connection.
        """
        connection = self._new_connection()
        try:
            async with asyncio.timeout(self.health_check_interval):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await disconnect(connection)
            if isinstance(error, Exception):
                raise ConnectionLost(describe(error)) from error
            raise
        return connection

    async def execute(self, *command: str) -> Any:
        """Send one command, on a connection of its own, and return the reply.

        Raises:
            ConnectionLost: there is no connection, or no reply.
            ResponseError: the server refuses the command.
        """
        connection = await self.connect()
        try:
            async with asyncio.timeout(self.health_check_interval):
                await connection.send_command(*command, check_health=False)
                return await connection.read_response()
        except ResponseError:
            raise
        except Exception as error:
            raise ConnectionLost(describe(error)) from error
        finally:
            await disconnect(connection)


def describe(error: Exception) -> str:
    """Return the reason that an error gives for a lost connection."""
    if isinstance(error, TimeoutError) and not str(error):
        return "it does not answer"
    if not isinstance(error, (ConnectionLost, RedisError, OSError)):
        # A server that is no Redis makes redis-py, and the code here, raise any error.
        return f"what it says is not understood: {error!r}"
    return str(error) or type(error).__name__


async def disconnect(connection: AbstractConnection) -> None:
    """Disconnect, without waiting long for the server."""
    with suppress(RedisError, OSError):
        async with asyncio.timeout(DISCONNECT_TIMEOUT):
            await connection.disconnect()
