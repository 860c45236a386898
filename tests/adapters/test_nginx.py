"""nginx with TLS in front of both servers, as docs/server.md has it."""

from __future__ import annotations

import grp
import os
import pwd
import queue
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.adapters import MIB, TIMEOUT, new_authority
from tests.support.cases import case
from tests.support.tiers import full
from wsframe import ConnectionClosed, HandshakeRejected, Response
from wsframe.sync import connect

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = [
    full,
    pytest.mark.usefixtures("leaks"),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
]

DOCS = Path(__file__).parents[2] / "docs/server.md"
CONFIGURATION = re.search(r"```nginx\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]


def configure(folder: Path, port: int, upstream: str, workers: tuple[int, int] | None = None) -> str:
    """Return the configuration of the page, with what differs on this machine.

    Args:
        folder: where its files are.
        port: where it listens.
        upstream: the server behind it.
        workers: the user and group of its workers; None: who we are, so that they may use the sockets here.
    """
    text = CONFIGURATION
    for old, new in {
        "server unix:/run/echo.sock;": f"server {upstream};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/example.com.pem": f"{folder}/chain.pem",
        "/etc/ssl/example.com.key": f"{folder}/key.pem",
        "example.com": "localhost",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    # It keeps to its folder.
    places = "".join(
        f"    {name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\n    access_log off;\n{places}", 1)
    user = ""
    if os.geteuid() == 0:
        uid, gid = workers or (0, 0)
        user = f"user {pwd.getpwuid(uid).pw_name} {grp.getgrgid(gid).gr_name};\n"
    return f"daemon off;\nworker_processes 1;\n{user}pid {folder}/nginx.pid;\nerror_log stderr warn;\n{text}"


class Proxy:
    """An nginx that runs."""

    def __init__(self, port: int, client: ssl.SSLContext) -> None:
        self._port = port
        self._client = client

    def connect(self, path: str = "/", **options):
        return connect(f"wss://localhost:{self._port}{path}", ssl=self._client, **options)

    def open_tls(self) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        return self._client.wrap_socket(sock, server_hostname="localhost")


@contextmanager
def nginx(upstream: str, folder: Path, workers: tuple[int, int] | None = None):
    authority = new_authority()
    certificate = authority.issue_cert("localhost")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(folder / "chain.pem", append=bool(number))
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    # It inherits its socket, as when it is upgraded: so nobody else can take the port before it does.
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port, fd = sock.getsockname()[1], sock.fileno()
        file = folder / "nginx.conf"
        file.write_text(configure(folder, port, upstream, workers))
        arguments = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(file)]
        options = {"env": {**os.environ, "NGINX": f"{fd};"}, "pass_fds": [fd]}
        check = subprocess.run([*arguments, "-t"], capture_output=True, text=True, timeout=TIMEOUT, **options)
        assert check.returncode == 0, check.stderr
        errors = folder / "errors.txt"
        with errors.open("w") as stderr:
            process = subprocess.Popen(arguments, stderr=stderr, **options)
    with process:
        try:
            yield Proxy(port, client)
        finally:
            process.terminate()
    assert process.returncode == 0, errors.read_text()


class Backend:
    """A handler that echoes, closes when told to, and remembers requests and ends."""

    def __init__(self) -> None:
        self.requests = queue.SimpleQueue()
        self.ends = queue.SimpleQueue()
        self.pings = queue.SimpleQueue()

    def __call__(self, websocket) -> None:
        self.requests.put(websocket.request)
        try:
            while True:
                message = websocket.recv()
                if message == "close":
                    websocket.close(3001, "as you wish")
                elif message == "ping":
                    self.pings.put(websocket.ping())
                else:
                    websocket.send(message)
        except ConnectionClosed as closed:
            self.ends.put((closed.code, closed.reason, closed.clean))


def page_beside(request):
    return None if request.is_upgrade else Response(200, body=b"page\n")


@pytest.fixture(params=["tcp", "unix"])
def proxied(request, adapter, tmp_path):
    backend = Backend()
    options = {"unix": str(tmp_path / "backend.sock")} if request.param == "unix" else {}
    with adapter.serve(backend, process_request=page_beside, **options) as running:
        upstream = f"unix:{options['unix']}" if options else f"127.0.0.1:{running.server.port}"
        with nginx(upstream, tmp_path) as proxy:
            yield proxy, backend, running


def test_a_websocket_through_nginx(proxied, spawn):
    proxy, backend, running = proxied
    with proxy.connect("/chat?room=1", additional_headers={"X-Forwarded-For": "192.0.2.1"}) as websocket:
        # Compression is agreed on from end to end.
        assert "permessage-deflate" in websocket.response.headers.get("Sec-WebSocket-Extensions")
        request = backend.requests.get(timeout=TIMEOUT)
        assert request.path == "/chat?room=1"
        assert request.headers.get("Host") == "localhost"
        assert request.headers.get("X-Forwarded-Proto") == "https"
        assert request.headers.get("X-Forwarded-For") == "192.0.2.1, 127.0.0.1"
        for message in ("Hellö", "x" * 10_000, "", b"\x00\xff", os.urandom(MIB), b""):
            websocket.send(message)
            assert websocket.recv(TIMEOUT) == message
        assert websocket.ping(timeout=TIMEOUT) > 0
        websocket.send("ping")
        websocket.send("after it")
        assert websocket.recv(TIMEOUT) == "after it"
        assert backend.pings.get(timeout=TIMEOUT) > 0
        websocket.close(3000, "enough")
        assert (websocket.close_code, websocket.close_reason) == (3000, "enough")
        assert backend.ends.get(timeout=TIMEOUT) == (3000, "enough", True)
    # The server closes.
    with proxy.connect() as websocket:
        websocket.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(TIMEOUT)
        assert (caught.value.code, caught.value.reason, caught.value.clean) == (3001, "as you wish", True)
        assert backend.ends.get(timeout=TIMEOUT) == (3001, "as you wish", True)
    # A page beside the socket
    with proxy.open_tls() as sock:
        sock.sendall(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = b"".join(iter(lambda: sock.recv(4096), b""))
    assert page.startswith(b"HTTP/1.1 200 OK\r\n")
    assert page.endswith(b"\r\n\r\npage\n")
    # The server ends.
    with proxy.connect() as websocket:
        websocket.send("last words")
        assert websocket.recv(TIMEOUT) == "last words"
        ending = spawn(running.close, 1001, "restart", TIMEOUT)
        assert list(websocket) == []
        assert (websocket.close_code, websocket.close_reason) == (1001, "restart")
        websocket.close()
        ending.result(TIMEOUT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have workers of another user")
def test_workers_of_another_user_open_the_unix_socket_that_is_for_them(adapter):
    """A server that runs as root, and nginx as distributions have it: its workers are www-data or nobody."""
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid).gr_name
    workers = nobody.pw_uid, nobody.pw_gid
    for options, opens in (
        ({}, False),  # the umask leaves 0755, and nobody but root may write
        ({"unix_mode": 0o660, "unix_owner": "nobody"}, True),
        ({"unix_mode": 0o660, "unix_owner": f":{group}"}, True),
        ({"unix_mode": 0o660, "unix_owner": "root:root"}, False),
        ({"unix_mode": 0o666}, True),
    ):
        # Not tmp_path, whose parents are for root alone
        with case(options=options), tempfile.TemporaryDirectory() as name:
            folder, path = Path(name), f"{name}/backend.sock"
            folder.chmod(0o755)
            with (
                adapter.serve(unix=path, **options) as running,
                nginx(f"unix:{path}", folder, workers) as proxy,
            ):
                assert talks_to(connect("ws://localhost/", unix=path))
                if opens:
                    assert talks_to(proxy.connect())
                else:
                    with pytest.raises(HandshakeRejected, match="status 502 Bad Gateway"):
                        proxy.connect()
                running.close()


def talks_to(connecting) -> bool:
    with connecting as websocket:
        websocket.send("hello")
        return websocket.recv(TIMEOUT) == "hello"
