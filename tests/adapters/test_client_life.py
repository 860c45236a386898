"""How a client gets to a server: redirects, proxies, several addresses, trying again; and its errors."""

from __future__ import annotations

import asyncio
import datetime
import gc
import importlib.util
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress

import pytest

import wsframe.aio.client
import wsframe.sync.client
from tests.support.adapters import (
    TIMEOUT,
    Listener,
    Peer,
    SyncAdapter,
    asynchronous,
    key_of,
    new_authority,
    response,
)
from tests.support.cases import case
from wsframe import HandshakeFailed, HandshakeRejected, Opcode, Response, State
from wsframe.aio import connect, serve

pytestmark = pytest.mark.usefixtures("leaks", "no_proxies")


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ws", "wss", "socks", "http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


def redirect(location: str, status: int = 302) -> Response:
    return Response(status, [("Location", location)], b"this way")


class Redirecting:
    """A server's ``process_request`` that redirects, and keeps the requests."""

    def __init__(self, **locations: str) -> None:
        self.locations = locations
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        location = self.locations.get(request.path.strip("/") or "start")
        return None if location is None else redirect(location)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


def refusal(adapter, uri, **options) -> HandshakeRejected:
    with pytest.raises(HandshakeRejected) as caught:
        adapter.connect(uri, **options)
    return caught.value


# Redirects


def test_a_redirect_is_followed(adapter):
    def process(request):
        return redirect("/there?room=1", status) if request.path == "/" else None

    with adapter.serve(process_request=process) as running:
        for status in (301, 302, 303, 307, 308):
            with case(status=status), adapter.connect(running.uri) as websocket:
                assert websocket.path == "/there?room=1"
                assert websocket.response.status == 101
                websocket.send("Hello!")
                assert websocket.recv() == "Hello!"


def test_where_a_redirect_leads_to(adapter):
    def process(request):
        requests.append(request)
        return redirect(location.format(running.server.port)) if request.path == "/a/" else None

    with adapter.serve(process_request=process) as running:
        for location, path in {
            "b": "/a/b",
            "/a/b": "/a/b",
            "?b": "/a/?b",
            "//localhost:{}/b": "/b",
            "ws://localhost:{}/b": "/b",
            "HTTP://localhost:{}/b#c": "/b",
        }.items():
            requests = []
            with case(location=location):
                adapter.connect(f"{running.uri}a/").close()
                assert [request.path for request in requests] == ["/a/", path]


def test_a_redirect_to_tls_is_followed(adapter, monkeypatch, tmp_path):
    authority = new_authority()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    # What an SSLContext trusts by default
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    process = Redirecting()
    with adapter.serve(ssl=server) as secure, adapter.serve(process_request=process) as running:
        process.locations["start"] = f"https://localhost:{secure.server.port}/there"
        with adapter.connect(running.uri) as websocket:
            assert websocket.path == "/there"
            assert websocket.remote_address[1] == secure.server.port


def test_a_redirect_from_tls_to_none_is_not_followed(adapter, tls):
    def process(request):
        return redirect(location)

    with adapter.serve(process_request=process, ssl=tls.server) as running:
        port = running.server.port
        for location in ("ws://localhost:1/", "http://localhost:1/"):
            error = refusal(adapter, running.uri, ssl=tls.client)
            assert str(error) == (
                f"redirect from wss://localhost:{port} to ws://localhost:1 is not followed: "
                "it leads from TLS to none"
            ), location
            assert error.response.body == b"this way"


SECRETS = {
    "Authorization": "Basic eDp5",
    "Cookie": "a=b",
    "Proxy-Authorization": "Basic eg==",
    "X-Other": "kept",
}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_credentials_stay_with_their_origin(adapter, host):
    with adapter.serve(process_request=(there := Redirecting())) as other:
        here = Redirecting(start="/same", same=f"ws://{host}:{other.server.port}/other")
        with adapter.serve(process_request=here) as running:
            adapter.connect(running.uri, additional_headers=SECRETS).close()
    for request in here.requests:
        assert {name: request.headers.get(name) for name in SECRETS} == SECRETS
    (request,) = there.requests
    assert [name for name in SECRETS if request.headers.get(name)] == ["X-Other"]


def test_credentials_do_not_come_back(adapter):
    with adapter.serve(process_request=(there := Redirecting())) as other:
        here = Redirecting(start=f"ws://localhost:{other.server.port}/")
        with adapter.serve(process_request=here) as running:
            there.locations = {"start": f"{running.uri}back"}
            adapter.connect(running.uri, additional_headers=SECRETS).close()
    first, back = here.requests
    assert first.headers.get("Cookie") == "a=b"
    assert back.path == "/back"
    assert back.headers.get("Cookie") is back.headers.get("Authorization") is None


def test_user_and_password_stay_with_their_origin(adapter):
    with adapter.serve(process_request=(there := Redirecting())) as other:
        here = Redirecting(start="/same", absolute=f"ws://localhost:{other.server.port}/")
        with adapter.serve(process_request=here) as running:
            here.locations["same"] = f"{running.uri}absolute"
            adapter.connect(running.uri.replace("//", "//us%40er:p%3Aass@")).close()
    assert here.paths == ["/", "/same", "/absolute"]
    assert {request.headers.get("Authorization") for request in here.requests} == {"Basic dXNAZXI6cDphc3M="}
    assert there.requests[0].headers.get("Authorization") is None


@pytest.mark.parametrize(("options", "count"), [({}, 11), ({"max_redirects": 2}, 3)])
def test_a_chain_of_redirects_ends(adapter, options, count):
    process = Redirecting(
        start="/",
    )
    with adapter.serve(process_request=process) as running:
        error = refusal(adapter, running.uri, **options)
    assert len(process.requests) == count
    assert f"there were {count - 1} redirects before it, which is the limit" in str(error)
    assert (error.response.status, error.response.headers.get("location")) == (302, "/")


LEADING_NOWHERE = [
    ([("Location", "/x")], {"max_redirects": 0}, "server answered with status 302 Found: this way"),
    ([], {}, "server answered with status 302 Found: this way"),
    ([("Location", "/x"), ("Location", "/y")], {}, "server answered with status 302 Found: this way"),
    (
        [("Location", "ftp://localhost/")],
        {},
        "is not followed: scheme must be ws or wss: 'ftp://localhost/'",
    ),
    ([("Location", "ws://u:p@[::1")], {}, "is not followed: location is malformed: 'ws://...@[::1'"),
]


def test_a_redirect_that_leads_nowhere(adapter):
    def process(request):
        return Response(302, headers, b"this way")

    with adapter.serve(process_request=process) as running:
        for headers, options, message in LEADING_NOWHERE:
            with case(headers=headers, options=options):
                error = refusal(adapter, running.uri, **options)
                assert message in str(error)
                assert error.response.status == 302


def test_redirects_on_a_unix_socket_stay_there(adapter, tmp_path):
    path = str(tmp_path / "socket")
    process = Redirecting(start="/same", other="ws://localhost:1/")
    with adapter.serve(unix=path, process_request=process):
        with adapter.connect("ws://localhost/", unix=path) as websocket:
            assert websocket.path == "/same"
        error = refusal(adapter, "ws://localhost/other", unix=path)
    assert str(error).endswith("to ws://localhost:1 is not followed: unix leads to one server only")


def test_redirects_on_a_socket_of_ones_own_are_not_followed(adapter):
    with adapter.serve(process_request=Redirecting(start="/same")) as running:
        sock = socket.create_connection(("127.0.0.1", running.server.port))
        error = refusal(adapter, running.uri, sock=sock)
        assert "sock leads to one server only" in str(error)


def test_open_timeout_is_for_all_redirects_together(adapter):
    with adapter.serve(process_request=lambda _: redirect("/again")) as running:
        message = failure(adapter, running.uri, TimeoutError, max_redirects=10**9, open_timeout=0.2)
    assert message.endswith(" timed out after 0.2 s")


def test_a_redirect_leaves_the_name_of_the_certificate(adapter):
    authority = new_authority()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    first, second = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("first.example").configure_cert(first)
    authority.issue_cert("localhost").configure_cert(second)
    process = Redirecting()
    with adapter.serve(ssl=second) as there, adapter.serve(ssl=first, process_request=process) as running:
        process.locations["start"] = there.uri
        options = {"ssl": client, "server_hostname": "first.example"}
        assert echoes(adapter.connect(running.uri, **options)) == there.server.port


# Proxies

# Each prints its port, and ends with its input.
HTTP_PROXY = """
import sys, proxy
with proxy.Proxy(sys.argv[1:]) as running:
    print(running.flags.port, flush=True)
    sys.stdin.read()
"""
SOCKS_PROXY = """
import asyncio, sys, pproxy
async def main():
    options = {"rserver": [pproxy.Connection("direct")], "verbose": lambda *_: None}
    server = await pproxy.Server(sys.argv[1]).start_server(options)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@contextmanager
def program(source: str, *args: str) -> Iterator[int]:
    command = [sys.executable, "-c", source, *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())


def http_proxy_program(*more: str):
    pytest.importorskip("proxy", reason="proxy.py is not installed")
    one = ["--num-acceptors", "1", "--num-workers", "1", "--threadless"]
    return program(
        HTTP_PROXY, "--hostname", "127.0.0.1", "--port", "0", *one, "--log-level", "CRITICAL", *more
    )


@pytest.fixture(scope="module")
def http_proxy() -> Iterator[int]:
    """The port of proxy.py."""
    with http_proxy_program() as port:
        yield port


@pytest.fixture(scope="module")
def strict_http_proxy() -> Iterator[int]:
    """The port of proxy.py that asks for a password."""
    with http_proxy_program("--basic-auth", "us@er:pa:ss") as port:
        yield port


@pytest.fixture(scope="module")
def socks_proxy() -> Iterator[int]:
    """The port of pproxy, which speaks SOCKS 4, 4a and 5."""
    pytest.importorskip("pproxy", reason="pproxy is not installed")
    pytest.importorskip("python_socks", reason="python-socks is not installed")
    with program(SOCKS_PROXY, "socks4+socks5://127.0.0.1:0") as port:
        yield port


@pytest.fixture(scope="module")
def strict_socks_proxy() -> Iterator[int]:
    """The port of pproxy that asks for a password."""
    pytest.importorskip("pproxy", reason="pproxy is not installed")
    pytest.importorskip("python_socks", reason="python-socks is not installed")
    with program(SOCKS_PROXY, "socks5://127.0.0.1:0#user:pass") as port:
        yield port


def echoes(websocket) -> int:
    """Check that it works, close it, and return the port that it is connected to."""
    websocket.send("x" * 100_000)
    assert websocket.recv() == "x" * 100_000
    websocket.close()
    assert websocket.close_code == 1000
    return websocket.remote_address[1]


def test_through_an_http_proxy(adapter, maybe_tls, http_proxy):
    server, client = maybe_tls or (None, None)
    with adapter.serve(ssl=server) as running:
        proxy = f"http://127.0.0.1:{http_proxy}"
        assert echoes(adapter.connect(running.uri, proxy=proxy, ssl=client)) == http_proxy
        assert echoes(adapter.connect(running.uri, proxy=f"localhost:{http_proxy}", ssl=client)) == http_proxy


def test_an_http_proxy_asks_for_a_password(adapter, strict_http_proxy):
    with adapter.serve() as running:
        proxy = f"http://us%40er:pa%3Ass@127.0.0.1:{strict_http_proxy}"
        assert echoes(adapter.connect(running.uri, proxy=proxy)) == strict_http_proxy
        for userinfo in ("", "us%40er:secret@", "us%40er@"):
            error = refusal(adapter, running.uri, proxy=f"http://{userinfo}127.0.0.1:{strict_http_proxy}")
            assert error.response.status == 407
            assert "proxy answered with status 407 Proxy Authentication Required" in str(error)
            assert "secret" not in repr(error)


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h"])
def test_through_a_socks_proxy(adapter, tls, socks_proxy, scheme):
    with adapter.serve(ssl=tls.server) as running:
        proxy = f"{scheme}://127.0.0.1:{socks_proxy}"
        assert echoes(adapter.connect(running.uri, proxy=proxy, ssl=tls.client)) == socks_proxy


def test_a_socks_proxy_asks_for_a_password(adapter, strict_socks_proxy):
    with adapter.serve() as running:
        proxy = f"socks5h://user:pass@127.0.0.1:{strict_socks_proxy}"
        assert echoes(adapter.connect(running.uri, proxy=proxy)) == strict_socks_proxy


def environment(monkeypatch, **proxies: str) -> None:
    for name, proxy in proxies.items():
        monkeypatch.setenv(name, proxy)


def test_the_proxy_of_the_environment(adapter, maybe_tls, http_proxy, monkeypatch):
    server, client = maybe_tls or (None, None)
    mine, other = ("https_proxy", "http_proxy") if maybe_tls else ("http_proxy", "https_proxy")
    environment(monkeypatch, **{mine: f"http://127.0.0.1:{http_proxy}", other: "http://127.0.0.1:1"})
    with adapter.serve(ssl=server) as running:
        assert echoes(adapter.connect(running.uri, ssl=client)) == http_proxy
        assert echoes(adapter.connect(running.uri, ssl=client, proxy=None)) == running.server.port
        environment(monkeypatch, no_proxy="example.com,localhost")
        assert echoes(adapter.connect(running.uri, ssl=client)) == running.server.port


def test_redirects_choose_the_proxy_anew(adapter, http_proxy, monkeypatch):
    environment(monkeypatch, http_proxy=f"http://127.0.0.1:{http_proxy}", no_proxy="127.0.0.1")
    process = Redirecting()
    with adapter.serve(process_request=process) as running:
        port = running.server.port
        process.locations["start"] = f"ws://127.0.0.1:{port}/direct"
        process.locations["back"] = f"ws://localhost:{port}/"
        assert echoes(adapter.connect(running.uri)) == port
        process.locations = {"back": f"ws://localhost:{port}/end"}
        assert echoes(adapter.connect(f"ws://127.0.0.1:{port}/back")) == http_proxy


def answered(adapter, spawn, data: bytes, **options) -> tuple[bytes, Exception | None]:
    """Return what a proxy was asked that answers with these bytes, one by one, and how it ended."""

    def answer() -> bytes:
        with listener.accept() as peer:
            head = peer.read_head()
            with suppress(OSError):
                for byte in data:
                    peer.send(bytes([byte]))
                peer.end()
                peer.read_all()
            return head

    with Listener() as listener:
        answering = spawn(answer)
        proxy = f"http://user:secret@127.0.0.1:{listener.port}"
        error = spawn(adapter.connect, "ws://nowhere.invalid:99/", proxy=proxy, **options).exception(TIMEOUT)
        return answering.result(TIMEOUT), str(error).replace(str(listener.port), "PORT"), error


REFUSALS = [
    (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nno way",
        "proxy answered with status 403 Forbidden: no way",
        403,
    ),
    (b"HTTP/1.0 502 Bad\r\n\r\n", "proxy answered with status 502 Bad Gateway", 502),
    (b"", "proxy closed the connection", None),
    (b"HTTP/1.1 200", "proxy closed the connection", None),
    (b"SSH-2.0-x\r\n\r\n", "malformed HTTP response: illegal status line: bytearray(b'SSH-2.0-x')", None),
]


def test_a_proxy_that_refuses(adapter, spawn):
    for data, problem, status in REFUSALS:
        with case(data=data):
            asked, message, error = answered(adapter, spawn, data)
            assert asked.split(b"\r\n")[0] == b"CONNECT nowhere.invalid:99 HTTP/1.1"
            assert b"\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in asked
            assert type(error) is (HandshakeFailed if status is None else HandshakeRejected)
            assert message == f"tunnel through proxy 127.0.0.1:PORT to nowhere.invalid:99 failed: {problem}"
            assert (error.response and error.response.status) == status
            assert "secret" not in repr(error)


def test_a_proxy_that_answers_in_pieces(adapter, spawn):
    established = b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n"
    _, message, error = answered(adapter, spawn, established)
    assert type(error) is HandshakeFailed
    assert (
        message
        == "opening handshake with nowhere.invalid:99 failed: connection was lost before the server answered"
    )


SOCKS_REFUSALS = [
    (b"\5\0" + b"\5\5\0\1\0\0\0\0\0\0", ConnectionError, "Connection refused by destination host"),
    (b"\5\0" + b"\5\2\0\1\0\0\0\0\0\0", HandshakeFailed, "Connection not allowed by ruleset"),
    (b"\5\xff", HandshakeFailed, "No acceptable authentication methods were offered"),
    (b"\5\2\1\1", HandshakeFailed, "Username and password authentication failure"),
    (b"\5", ConnectionError, "Connection closed unexpectedly"),
    (b"HTTP/1.1 400 Bad\r\n\r\n", HandshakeFailed, "Unexpected SOCKS version number: 72"),
]


def test_a_socks_proxy_that_refuses(adapter, listener, spawn):
    pytest.importorskip("python_socks", reason="python-socks is not installed")

    def answer(data: bytes) -> None:
        with listener.accept() as peer:
            peer.sock.recv(1)
            with suppress(OSError):  # it has read enough, and is gone
                peer.send(data)
                peer.end()
                peer.read_all()

    proxy = f"127.0.0.1:{listener.port}"
    for data, error, problem in SOCKS_REFUSALS:
        with case(data=data):
            answering = spawn(answer, data)
            with pytest.raises(error) as caught:
                adapter.connect("ws://localhost:9/", proxy=f"socks5h://user:secret@{proxy}")
            answering.result(TIMEOUT)
            assert type(caught.value) is error
            assert str(caught.value) == f"tunnel through proxy {proxy} to localhost:9 failed: {problem}"


@pytest.mark.parametrize(
    ("scheme", "said", "asked"),
    [
        ("socks4", [], b"\4\1\0\x09\x7f\0\0\1user\0"),
        ("socks4a", [], b"\4\1\0\x09\0\0\0\1user\0localhost\0"),
        ("socks5", [b"\5\2", b"\1\0"], b"\5\1\0\1\x7f\0\0\1\0\x09"),
        ("socks5h", [b"\5\2", b"\1\0"], b"\5\1\0\3\x09localhost\0\x09"),
    ],
)
def test_what_a_socks_proxy_is_asked(adapter, listener, spawn, scheme, said, asked):
    """It looks up the name itself for socks4a and socks5h."""
    pytest.importorskip("python_socks", reason="python-socks is not installed")

    def answer() -> bytes:
        with listener.accept() as peer:
            for data in said:
                peer.sock.recv(65536)
                peer.send(data)
            request = peer.sock.recv(65536)
            # It failed.
            peer.send(b"\5\1\0" if said else b"\0\x5b\0\0\0\0\0\0")
            return request

    answering = spawn(answer)
    with pytest.raises(ConnectionError, match="tunnel through proxy"):
        adapter.connect("ws://localhost:9/", proxy=f"{scheme}://user:pass@127.0.0.1:{listener.port}")
    assert answering.result(TIMEOUT) == asked


def test_socks_needs_python_socks(adapter, listener, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"pip install 'wsframe\[proxy\]'"):
        adapter.connect("ws://localhost:9/", proxy=f"socks5://127.0.0.1:{listener.port}")


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_is_not_there(adapter, scheme):
    if scheme == "socks5h":
        pytest.importorskip("python_socks", reason="python-socks is not installed")
    with Listener() as listener:
        port = listener.port
    with pytest.raises(ConnectionRefusedError) as caught:
        adapter.connect("ws://localhost:9/", proxy=f"{scheme}://user:secret@127.0.0.1:{port}")
    assert str(caught.value) == f"[Errno 111] connection to proxy 127.0.0.1:{port} failed: Connection refused"


WRONG_OPTIONS = [
    ({"proxy": "https://user:secret@localhost"}, ValueError),
    ({"proxy": "http://user:sec#ret@localhost"}, ValueError),
    ({"proxy": "user:secret@:1"}, ValueError),
    ({"proxy": ""}, ValueError),
    ({"proxy": 3128}, TypeError),
    ({"proxy": "http://localhost", "unix": "x"}, ValueError),
    ({"proxy": "http://localhost", "sock": 1}, ValueError),
    ({"sock": 1, "unix": "x"}, ValueError),
]


def test_wrong_options(adapter):
    for options, error in WRONG_OPTIONS:
        with case(options=options):
            with pytest.raises(error) as caught:
                adapter.connect("ws://localhost:1/", **options)
            assert "sec" not in str(caught.value)


def test_a_wrong_proxy_of_the_environment(adapter, monkeypatch):
    environment(monkeypatch, all_proxy="ftp://user:secret@localhost")
    with pytest.raises(
        ValueError, match=r"^in the environment, all_proxy is wrong: proxy must be one of http://"
    ) as caught:
        adapter.connect("ws://localhost:1/")
    assert "secret" not in str(caught.value)


# What failed


def failure(adapter, uri, error, **options) -> str:
    with pytest.raises(error) as caught:
        adapter.connect(uri, **options)
    assert type(caught.value) is error
    return str(caught.value)


def test_a_host_that_is_not_there(adapter):
    host = "x" * 64 + ".invalid"  # labels have at most 63 bytes: no server is asked for it
    assert f"] lookup of {host} failed: " in failure(adapter, f"ws://{host}:9/", socket.gaierror)


def test_a_server_that_is_not_there(adapter):
    with Listener() as listener:
        pass
    message = failure(adapter, listener.uri, ConnectionRefusedError)
    assert message == f"[Errno 111] connection to localhost:{listener.port} failed: Connection refused"


def test_a_unix_socket_that_is_not_there(adapter, tmp_path):
    path = str(tmp_path / "socket")
    message = failure(adapter, "ws://localhost/", FileNotFoundError, unix=path)
    assert message == f"[Errno 2] connection to {path} failed: No such file or directory"


class Certificates:
    """A server's contexts whose certificates are wrong, and a client's that trusts who issued them."""

    def __init__(self) -> None:
        authority = new_authority()
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client)
        then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        certificates = {
            "untrusted": new_authority().issue_cert("localhost"),
            "another name": authority.issue_cert("other.example"),
            "expired": authority.issue_cert("localhost", not_before=then, not_after=then.replace(year=2021)),
        }
        self.server = {}
        for name, certificate in certificates.items():
            self.server[name] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("untrusted", "unable to get local issuer certificate"),
        ("another name", "Hostname mismatch, certificate is not valid for 'localhost'."),
        ("expired", "certificate has expired"),
    ],
)
def test_a_certificate_that_is_wrong(adapter, certificates, wrong, problem):
    with adapter.serve(ssl=certificates.server[wrong]) as running:
        message = failure(adapter, running.uri, ssl.SSLCertVerificationError, ssl=certificates.client)
        place = f"localhost:{running.server.port}"
    assert message == f"TLS handshake with {place} failed: certificate verify failed: {problem}"


def test_another_name_for_a_certificate(adapter, certificates):
    with adapter.serve(ssl=certificates.server["another name"]) as running:
        options = {"ssl": certificates.client, "server_hostname": "other.example"}
        echoes(adapter.connect(running.uri, **options))


@pytest.mark.parametrize(
    ("data", "errors", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ssl.SSLError, "wrong version number"),
        (b"", OSError, "server closed the connection"),
    ],
)
def test_a_server_without_tls(adapter, tls, listener, spawn, data, errors, problem):
    def answer() -> None:
        with listener.accept() as peer:
            peer.sock.recv(65536)
            peer.send(data)

    answering = spawn(answer)
    with pytest.raises(errors) as caught:
        adapter.connect(listener.uri.replace("ws", "wss"), ssl=tls.client)
    answering.result(TIMEOUT)
    assert str(caught.value) == f"TLS handshake with localhost:{listener.port} failed: {problem}"


HTML = b"<html><head><title>It works!</title><style>p {color: red}</style></head>\n<body><p>\x1b[31mWelcome"


REFUSALS_OF_SERVERS = [
    (Response(401, [("WWW-Authenticate", "Basic")], b"who?"), "status 401 Unauthorized: who?"),
    (Response(404), "status 404 Not Found"),
    (Response(404, [], b"\0\xff\x1b[2J"), "status 404 Not Found: \ufffd [2J"),
    (Response(404, [("Content-Type", "image/png")], b"png"), "status 404 Not Found"),
    (Response(500, [], b"x" * 9999), f"status 500 Internal Server Error: {'x' * 100}..."),
    (Response(599, [("Content-Type", "application/json")], b'{"a":\n1}'), 'status 599: {"a": 1}'),
    (
        Response(200, [("Content-Type", "text/html")], HTML),
        "status 200 OK, so there is no WebSocket at this address: It works! [31mWelcome",
    ),
]


def test_a_server_that_refuses(adapter):
    with adapter.serve(process_request=lambda _: refused) as running:
        place = f"localhost:{running.server.port}"
        for refused, problem in REFUSALS_OF_SERVERS:
            with case(problem=problem):
                error = refusal(adapter, running.uri)
                assert str(error) == f"opening handshake with {place} failed: server answered with {problem}"
                assert (error.response.status, error.response.body) == (refused.status, refused.body)
                assert set(refused.headers) <= {
                    (name.title().replace("Www", "WWW"), value) for name, value in error.response.headers
                }


SOMETHING_ELSE = [
    (b"SSH-2.0-OpenSSH_9.0\r\n", "server does not speak HTTP, but says b'SSH-2.0-OpenSSH_9.0'"),
    (b"220 x\r\n", "server does not speak HTTP, but says b'220 x'"),
    (b"\x15\3\3\0\2\2\n", "server speaks TLS, as for a wss address"),
    (response(), "Sec-WebSocket-Accept does not answer the key"),
]


def test_a_server_that_speaks_something_else(adapter, listener, spawn):
    """It stays, and waits for us."""

    def answer(data: bytes) -> None:
        with listener.accept() as peer:
            peer.send(data)
            with suppress(OSError):
                peer.read_all()

    for data, problem in SOMETHING_ELSE:
        with case(data=data):
            answering = spawn(answer, data)
            message = failure(adapter, listener.uri, HandshakeFailed)
            answering.result(TIMEOUT)
            assert message == f"opening handshake with localhost:{listener.port} failed: {problem}"


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_server_that_says_nothing(adapter, listener, spawn, how):
    def answer() -> None:
        with listener.accept() as peer:
            peer.read_head()
            getattr(peer, how)()

    answering = spawn(answer)
    with pytest.raises(HandshakeFailed) as caught:
        adapter.connect(listener.uri)
    error = caught.value
    assert type(error) is HandshakeFailed
    answering.result(TIMEOUT)
    problem = "connection was lost before the server answered"
    message = f"opening handshake with localhost:{listener.port} failed: {problem}"
    assert str(error) == message + (": Connection reset by peer" if how == "reset" else "")
    assert isinstance(error.__cause__, ConnectionResetError if how == "reset" else EOFError)
    assert not wsframe.aio.is_fatal(error)


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a server whose backlog is full: it does not answer, and does not refuse."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.1)
            try:
                sock.connect(full.getsockname())
            except TimeoutError:
                break
        else:
            pytest.skip("a full backlog answers on this system")
        yield full.getsockname()[1]


def test_a_connection_that_takes_too_long(adapter):
    with black_hole() as port:
        message = failure(adapter, f"ws://127.0.0.1:{port}/", TimeoutError, open_timeout=0.1)
    assert message == f"connection to 127.0.0.1:{port} timed out after 0.1 s"


def test_a_peer_that_says_nothing(adapter, listener, spawn):
    place = f"127.0.0.1:{listener.port}"
    tunnel = f"tunnel through proxy {place} to x.invalid:9"
    failing = [
        (phase, spawn(failure, adapter, uri, TimeoutError, open_timeout=0.3, proxy=proxy))
        for uri, proxy, phase in [
            (f"wss://{place}/", None, f"TLS handshake with {place}"),
            (f"ws://{place}/", None, f"opening handshake with {place}"),
            ("ws://x.invalid:9/", f"http://{place}", tunnel),
            *([("ws://x.invalid:9/", f"socks5h://{place}", tunnel)] if has_socks() else []),
        ]
    ]
    for phase, message in failing:
        assert message.result(TIMEOUT) == f"{phase} timed out after 0.3 s"


def has_socks() -> bool:
    return importlib.util.find_spec("python_socks") is not None


# Several addresses (RFC 8305)


def refused() -> int:
    with Listener() as listener:
        return listener.port


class Races:
    """``race`` of both adapters."""

    def __init__(self, adapter) -> None:
        self._adapter = adapter

    def __call__(self, *ports: int, family: int = socket.AF_INET) -> int:
        """Return which port was connected to."""
        addresses = [(family, ("127.0.0.1", port)) for port in ports]
        if isinstance(self._adapter, SyncAdapter):
            sock = wsframe.sync.client.race(addresses, None)
        else:
            sock = self._adapter.loop.run(wsframe.aio.client.race, addresses)
        with sock:
            return sock.getpeername()[1]


@pytest.fixture
def race(adapter) -> Races:
    return Races(adapter)


def test_the_first_address_that_answers_is_taken(race, listener):
    with Listener() as other:
        assert race(listener.port, other.port) == listener.port
        assert race(refused(), other.port, listener.port) == other.port


def test_an_address_that_does_not_answer_holds_nobody_up(race, listener):
    with black_hole() as port:
        assert race(port, listener.port) == listener.port
        assert race(port, refused(), listener.port, port) == listener.port


def test_no_address_answers(race):
    with pytest.raises(ConnectionRefusedError, match=r"^\[Errno 111\] Connection refused$"):
        race(refused(), refused())


def test_a_family_that_is_not_there(race, listener):
    with pytest.raises(OSError, match="not supported") as caught:
        race(1, family=socket.AF_APPLETALK if hasattr(socket, "AF_APPLETALK") else 5)
    assert caught.value.errno


# Trying again


class Server:
    """Accept or refuse clients as it is told; say their number to them."""

    def __init__(self, *answers: Response | None) -> None:
        self.answers = list(answers)
        self.ends: asyncio.Queue[int] = asyncio.Queue()
        self.count = 0

    def process(self, _: object) -> Response | None:
        return self.answers.pop(0) if self.answers else None

    async def handle(self, websocket) -> None:
        self.count += 1
        await websocket.send(str(self.count))
        await websocket.wait_closed()
        self.ends.put_nowait(websocket.close_code)

    async def __aenter__(self) -> Server:
        self._server = await serve(self.handle, "127.0.0.1", 0, process_request=self.process)
        self.uri = f"ws://localhost:{self._server.port}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()


class Delays:
    """A backoff that takes no time, and remembers what it was asked for."""

    def __init__(self, count: int = 100) -> None:
        self.count = count
        self.taken: list[int] = []

    def __iter__(self) -> Iterator[float]:
        for number in range(self.count):
            self.taken.append(number)
            yield 0.0


@asynchronous
async def test_connections_follow_each_other():
    async with Server() as server:
        delays = Delays()
        heard = []
        async for websocket in connect(server.uri, backoff=delays):
            heard.append(await websocket.recv())
            if len(heard) == 3:
                break
        assert heard == ["1", "2", "3"]
        # Who goes on closes the connection, and does not wait; who leaves closes it, too.
        gc.collect()
        assert [await server.ends.get() for _ in range(3)] == [1000, 1000, 1000]
        assert delays.taken == []


@asynchronous
async def test_a_connection_that_ended_is_followed_after_a_delay():
    async def handle(websocket):
        await websocket.send("x")

    async with serve(handle, "127.0.0.1", 0) as server:
        delays, heard = Delays(), 0
        async for websocket in connect(f"ws://localhost:{server.port}/", backoff=delays):
            heard += len([message async for message in websocket])
            if heard == 3:
                break
        assert delays.taken == [0, 0]  # it begins anew each time


@asynchronous
async def test_what_may_pass_is_tried_again():
    at_once = [("Retry-After", "0")]
    # 520 to 530 are Cloudflare's, for a server that does not answer it.
    statuses = (408, 425, 429, 500, 501, 502, 503, 504, 520, 521, 522, 530, 599)
    refusals = [Response(status, at_once) for status in statuses]
    async with Server(*refusals, None, refusals[0]) as server:
        delays, heard = Delays(), []
        async for websocket in connect(server.uri, backoff=delays):
            heard.append(await websocket.recv())
            if len(heard) == 2:
                break
        assert heard == ["1", "2"]
        assert delays.taken == [*range(len(statuses)), 0]


@asynchronous
async def test_a_proxy_that_may_let_us_through_later_is_tried_again():
    statuses = iter((503, 429, 502, 407))

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d \r\nContent-Length: 0\r\n\r\n" % next(statuses))
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        delays = Delays()
        with pytest.raises(HandshakeRejected, match="407"):
            async for _ in connect("ws://localhost/", proxy=proxy, backoff=delays):
                pass
        assert delays.taken == [0, 1, 2]


@asynchronous
async def test_a_server_that_comes_up_is_connected_to(spawn):
    def answer() -> None:
        with Peer(sock.accept()[0], is_client=False) as peer:
            peer.send(response(key=key_of(peer.read_head())))
            assert peer.next_frame().opcode == Opcode.CLOSE
            peer.send(peer.close())

    def delays() -> Iterator[float]:
        yield 0
        sock.listen()  # until now it was refused
        answering.append(spawn(answer))
        yield 0

    answering = []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        async for websocket in connect(f"ws://localhost:{sock.getsockname()[1]}/", backoff=delays()):
            assert websocket.state is State.OPEN
            await websocket.close()
            break
        answering[0].result(TIMEOUT)


@pytest.mark.parametrize("status", [429, 503])
@asynchronous
async def test_a_server_says_when_to_come_back(caplog, status):
    async def connect_again() -> None:
        async for _ in connect(server.uri, backoff=Delays()):
            pass

    # The last two would stop a client for years.
    for value, delay in (
        ("20", "20.0"),
        ("999999999999999", "90.0"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "90.0"),
    ):
        async with Server(Response(status, [("Retry-After", value)])) as server:
            with case(value=value), caplog.at_level("INFO", "wsframe.aio"):
                connecting = asyncio.create_task(connect_again())
                while not caplog.records:
                    await asyncio.sleep(0)
                connecting.cancel()
                with suppress(asyncio.CancelledError):
                    await connecting
                assert f"status {status} " in caplog.text
                assert f"; connecting again in {delay} s" in caplog.text
        caplog.clear()


@asynchronous
async def test_what_does_not_pass_is_raised():
    for status in (401, 404, 407, 499):
        async with Server(Response(status)) as server:
            with pytest.raises(HandshakeRejected, match=str(status)):
                async for _ in connect(server.uri, backoff=Delays()):
                    pass
            assert server.count == 0, status


@asynchronous
async def test_who_decides_what_is_fatal():
    asked = []

    def is_fatal(error: Exception) -> bool:
        asked.append(error.response.status)
        return error.response.status == 503

    async with Server(Response(404), Response(503)) as server:
        with pytest.raises(HandshakeRejected, match="503"):
            async for _ in connect(server.uri, backoff=Delays(), is_fatal=is_fatal):
                pass
    assert asked == [404, 503]


@asynchronous
async def test_trying_ends_with_the_delays():
    delays = Delays(3)
    uri = f"ws://localhost:{refused()}/"
    with pytest.raises(ConnectionRefusedError, match="connection to localhost"):
        async for _ in connect(uri, backoff=delays):
            pass
    assert delays.taken == [0, 1, 2]


@asynchronous
async def test_a_body_that_raises_closes_the_connection():
    async with Server() as server:
        with suppress(ZeroDivisionError):
            async for websocket in connect(server.uri):
                await websocket.recv()
                raise ZeroDivisionError
        gc.collect()
        assert await server.ends.get() == 1000


@asynchronous
async def test_who_closes_the_iterator_closes_the_connection():
    async with Server() as server:
        async with aclosing(aiter(connect(server.uri))) as websockets:
            async for websocket in websockets:
                await websocket.recv()
                break
        assert websocket.close_code == 1000
        assert await server.ends.get() == 1000


@asynchronous
async def test_it_is_used_once():
    async with Server() as server:
        connecting = connect(server.uri)
        async with connecting:
            pass
        with pytest.raises(RuntimeError, match="used already"):
            await connecting
        with pytest.raises(RuntimeError, match="used already"):
            async for _ in connecting:
                pass


@asynchronous
async def test_a_socket_of_ones_own_connects_once():
    with socket.socket() as sock, pytest.raises(ValueError, match="once"):
        async for _ in connect("ws://localhost/", sock=sock):
            pass
