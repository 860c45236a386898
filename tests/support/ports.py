"""Ports for programs that cannot listen on port 0."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

RANGE = range(20000, 30000)
# Processes that run at the same time begin at different ports.
_first = os.getpid() % len(RANGE)
_ports = itertools.cycle([*RANGE[_first:], *RANGE[:_first]])


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a TCP port of 127.0.0.1 for a program that a test starts.

    A program that can listen on port 0 and print its port needs no reservation. Some programs cannot: a
    program of the manual has its port in its source, and redis-server comes back at the port it had. No
    process can hold a port for another one, so another program might still take it first. Three rules make
    this as unlikely as possible:

    - The range lies below the ports that the system gives to clients and to listeners on port 0. These begin
      at 32768 on Linux, and at 49152 on macOS.
    - While a port is reserved, this process holds the UDP port with the same number. Other processes of these
      tests see this, and take another port.
    - A process takes a port again only after all others in the range. So a client that is late does not
      reach the program of the next test.
    """
    for port in itertools.islice(_ports, len(RANGE)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reservation:
            try:
                reservation.bind(("127.0.0.1", port))
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            yield port
            return
    raise AssertionError(f"no port is free in {RANGE}")
