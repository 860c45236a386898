"""Debian's redis-server, started by a test: in a folder of its own, on a port or Unix socket of its own.

    with redis_server() as redis:
        Hub(redis.url)
        redis.kill()       # kill -9
        redis.restart()    # on the same port

A test that uses it is marked with ``needs_redis``, or asks for the fixture ``redis``. A test of a hub over a
false Redis is marked with ``needs_redis_py``.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.extras import is_installed, needs
from tests.support.ports import reserved_port

if TYPE_CHECKING:
    import trustme
    from redis import Redis

REDIS_SERVER = shutil.which("redis-server")
if REDIS_SERVER is None:
    MISSING = "redis-server is not installed (Debian: redis-server)"
elif not is_installed("redis"):
    MISSING = "redis-py is not installed"
else:
    MISSING = ""
needs_redis = pytest.mark.skipif(bool(MISSING), reason=MISSING)
needs_redis_py = needs("redis")
TIMEOUT = 60


class RedisServer:
    """A redis-server that runs.

    Args:
        folder: where it keeps its files.
        port: the port on which it listens; 0 for a Unix socket in its folder.
        tls: the authority that certifies it; the URL says whom to trust.
        options: more of its options, ``["--requirepass", "x"]``.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        tls: trustme.CA | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port = port
        self._options = [*("--bind", "127.0.0.1", "--dir", str(folder), "--save", ""), *options]
        if port == 0:
            self.url = f"unix://{folder}/redis.sock"
            self._options += ["--port", "0", "--unixsocket", f"{folder}/redis.sock"]
        elif tls is not None:
            self.url = f"rediss://localhost:{self.port}?ssl_ca_certs={folder}/authority.pem"
            certificate = tls.issue_cert("localhost")
            tls.cert_pem.write_to_path(folder / "authority.pem")
            certificate.private_key_pem.write_to_path(folder / "key.pem")
            for pem in certificate.cert_chain_pems:
                pem.write_to_path(folder / "chain.pem", append=True)
            self._options += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for option, file in ("cert", "chain"), ("key", "key"), ("ca-cert", "authority"):
                self._options += [f"--tls-{option}-file", f"{folder}/{file}.pem"]
        else:
            self.url = f"redis://127.0.0.1:{self.port}"
            self._options += ["--port", str(self.port)]
        self.restart()

    def restart(self) -> None:
        """Start it, at the same address, and wait until it listens."""
        assert REDIS_SERVER is not None
        self._process = subprocess.Popen(
            [REDIS_SERVER, *self._options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "eady to accept connections" in line:
                # What it says later it says to nobody, and does not mind.
                self._process.stdout.close()
                return
        raise AssertionError("".join(said))

    def kill(self) -> None:
        """Kill it, as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it."""
        self.proceed()
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        try:
            self._process.wait(TIMEOUT)
        finally:
            self._process.kill()

    def hang(self) -> None:
        """Stop it, without closing its connections."""
        self._process.send_signal(signal.SIGSTOP)

    def proceed(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[Redis]:
        """Open redis-py's blocking client, whose answers are bytes."""
        from redis import Redis  # most tests need none

        with Redis.from_url(self.url) as client:
            yield client


@contextmanager
def redis_server(
    *, unix: bool = False, tls: trustme.CA | None = None, options: tuple[str, ...] = ()
) -> Iterator[RedisServer]:
    """Run a redis-server."""
    with (
        tempfile.TemporaryDirectory() as folder,
        nullcontext(0) if unix else reserved_port() as port,
    ):
        server = RedisServer(Path(folder), port, tls=tls, options=options)
        try:
            yield server
        finally:
            server.close()


@contextmanager
def redis_cluster(size: int = 3, *, has_replica: bool = False) -> Iterator[list[RedisServer]]:
    """Run a Redis Cluster, whose nodes have equal shares of the slots; one more is a replica of the first."""
    with ExitStack() as stack:
        nodes = []
        for _ in range(size + has_replica):
            bus = ("--cluster-port", str(stack.enter_context(reserved_port())))
            options = ("--cluster-enabled", "yes", *bus, "--cluster-require-full-coverage", "no")
            patience = ("--cluster-node-timeout", "1000")  # milliseconds
            nodes.append(stack.enter_context(redis_server(options=options + patience)))
        for number, node in enumerate(nodes):
            first, last = 16384 * number // size, 16384 * (number + 1) // size - 1
            with node.client() as client:
                if number < size:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if node is not nodes[0]:
                    meeting_port = nodes[0]._options[nodes[0]._options.index("--cluster-port") + 1]
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, meeting_port)
        deadline = time.monotonic() + TIMEOUT
        for node in nodes:
            with node.client() as client:
                # The nodes gossip, and tell nobody when they are done.
                while len(client.execute_command("CLUSTER", "SLOTS")) < size:
                    assert time.monotonic() < deadline
        if has_replica:
            with nodes[0].client() as first, nodes[-1].client() as replica:
                replica.execute_command("CLUSTER", "REPLICATE", first.execute_command("CLUSTER", "MYID"))
                while replica.info("replication").get("master_link_status") != "up":
                    assert time.monotonic() < deadline
        yield nodes


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A redis-server that the tests of a module share."""
    if MISSING:
        pytest.skip(MISSING)
    with redis_server() as server:
        yield server
