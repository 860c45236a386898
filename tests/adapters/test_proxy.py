"""wsframe.adapter.proxy: addresses of proxies, the environment, and tunnels; without sockets."""

from __future__ import annotations

import pytest

from tests.support.cases import case
from wsframe import HandshakeFailed, HandshakeRejected, Response, parse_uri
from wsframe.adapter.proxy import Proxy, Tunnel, environment_proxy, parse_proxy

ADDRESSES = [
    ("http://localhost:3128", Proxy("http", "localhost", 3128)),
    ("HTTP://Localhost/", Proxy("http", "localhost", 80)),
    ("localhost:3128", Proxy("http", "localhost", 3128)),
    ("localhost", Proxy("http", "localhost", 80)),
    ("us%40er:p%3Ass%23@[::1]:9", Proxy("http", "::1", 9, "us@er", "p:ss#")),
    ("socks4://h", Proxy("socks4", "h", 1080)),
    ("socks4a://user@h", Proxy("socks4a", "h", 1080, "user")),
    ("socks5://a%3Ab:@h:1", Proxy("socks5", "h", 1, "a:b", "")),
    ("socks5h://a:b@c@h:1", Proxy("socks5h", "h", 1, "a", "b@c")),
    # As curl and Go read http_proxy, there is nothing behind the port.
    ("http://h:3128/path", Proxy("http", "h", 3128)),
    ("h:3128/proxy.pac?a=b#c", Proxy("http", "h", 3128)),
    ("http://u:p@h?query", Proxy("http", "h", 80, "u", "p")),
    ("socks5://[::1]:9#fragment", Proxy("socks5", "::1", 9)),
]


def test_an_address_is_taken_apart():
    for address, proxy in ADDRESSES:
        assert parse_proxy(address) == proxy, address


WRONG_ADDRESSES = [
    "",
    "http://",
    "https://u:secret@h",
    "socks://u:secret@h",
    "ws://u:secret@h",
    "http://u:secret@:1",
    "http://u:secret@h:x",
    "http://u:secret@h:65536",
    "http://u:secret@[::1",
    "http://u:sec#secret@h",
    "http://u:sec/secret@h:1",
    "u:sec?secret@h:1",
    # What looks like host and port is a user name and the beginning of its password.
    "http://u:123/secret@h:1",
    "http://u:123?secret@h:1",
    "http://u:123#secret@h:1",
    "u:1/secret@h/path",
    "https://u:123\nsecret@h:1",
    "http://u:secret\n/secret@h:1",
    "u:secret://secret@h:1",
    "http://a%3Ab:secret@h",
]


def test_what_is_not_an_address_is_refused_without_its_password():
    for address in WRONG_ADDRESSES:
        with case(address=address):
            with pytest.raises(ValueError, match=r"proxy must") as caught:
                parse_proxy(address)
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize("junk", ["a", "@", "/", "//", "://", "[", "]:", "?", "#", "%", "a@", "\n"])
def test_what_is_not_an_address_is_refused_in_linear_time(junk):
    for scheme in ("", "http://", "ftp://"):
        with pytest.raises(ValueError, match=r"proxy must be"):
            parse_proxy(f"{scheme}{junk * 500_000}:x")


@pytest.mark.parametrize("address", [b"http://h", 3128])
def test_an_address_is_a_str(address):
    with pytest.raises(TypeError, match="must be a str"):
        parse_proxy(address)


def test_a_password_is_not_shown():
    proxy = Proxy("http", "h", 1, "user", "secret")
    assert "secret" not in f"{proxy} {proxy!r}"


ENVIRONMENTS = [
    ("ws://h/", {}, None),
    ("ws://h/", {"http_proxy": "http://p"}, "p"),
    ("ws://h/", {"HTTP_PROXY": "p:3128"}, "p"),
    ("ws://h/", {"https_proxy": "http://p"}, None),
    ("wss://h/", {"https_proxy": "http://p"}, "p"),
    ("wss://h/", {"http_proxy": "http://p"}, None),
    ("ws://h/", {"all_proxy": "socks5://p"}, "p"),
    ("wss://h/", {"all_proxy": "socks5://p", "https_proxy": "http://q"}, "q"),
    ("ws://h/", {"http_proxy": "http://p", "socks_proxy": "q"}, "q"),
    ("ws://h/", {"http_proxy": "http://p", "socks_proxy": "q", "ws_proxy": "r"}, "r"),
    ("wss://h/", {"https_proxy": "http://p", "socks_proxy": "q", "wss_proxy": "r"}, "r"),
    ("ws://h/", {"http_proxy": "http://p", "no_proxy": "h"}, None),
    ("ws://h:9/", {"http_proxy": "http://p", "no_proxy": "h:9"}, None),
    ("ws://h:8/", {"http_proxy": "http://p", "no_proxy": "h:9"}, "p"),
    ("ws://a.b.example/", {"http_proxy": "http://p", "no_proxy": "x, .b.example"}, None),
    ("ws://h/", {"http_proxy": "http://p", "no_proxy": "*"}, None),
    ("ws://h/", {"http_proxy": ""}, None),
    ("ws://h/", {"http_proxy": "http://p:3128/path?query"}, "p"),
]

# no_proxy, addresses that it has, and others
NETWORKS = [
    ("127.0.0.0/8", ["127.0.0.1", "127.255.0.1:8001"], ["128.0.0.1", "localhost", "[::1]"]),
    ("x, 10.0.0.0/8 ,192.168.1.0/24", ["10.1.2.3", "192.168.1.9"], ["192.168.2.9", "110.0.0.0"]),
    ("10.1.2.3/8", ["10.9.9.9"], ["11.1.2.3"]),
    ("10.1.2.3", ["10.1.2.3", "10.1.2.3:8001"], ["10.1.2.4"]),
    ("10.1.2.3:8001", ["10.1.2.3:8001"], ["10.1.2.3:8002"]),
    ("0.0.0.0/0", ["192.0.2.1"], ["[2001:db8::1]", "example.com"]),
    ("::/0", ["[2001:db8::1]"], ["192.0.2.1"]),
    ("[fd00::]/8", ["[fd00::1]", "[fdff::1]:8001"], ["[fe00::1]"]),
    ("fd00::/8", ["[fd00::1]"], ["[fe00::1]"]),
    ("fe80::/10", ["[fe80::1]", "[fe80::1%25eth0]"], ["[::1]"]),
    ("::1/128", ["[::1]", "[0:0:0:0:0:0:0:1]:8001"], ["[::2]"]),
    ("::1", ["[::1]", "[::1]:8001"], ["[::2]"]),
    ("[0::1]", ["[::1]", "[::1]:8001"], ["[::2]"]),
    ("[::1]:9", ["[::1]:9"], ["[::1]:8", "[::1]", "[::1:9]"]),
    # None of these is a network.
    (
        "10.0.0.0/33,10/8,10.0.0.0/,/8,[10.0.0.0/8,fd00::/129,[fd00::]:/8,10.0.0.0/8/8",
        [],
        ["10.0.0.1", "[fd00::1]"],
    ),
    (",,/,[],[,]", [], ["10.0.0.1", "[::1]", "h"]),
    ("9" * 100_000 + "/" + "9" * 100_000, [], ["10.0.0.1", "[::1]"]),
    ("10.0.0.0/33," * 20_000 + "10.0.0.0/8", ["10.0.0.1"], ["11.0.0.1"]),
]


def test_the_proxy_of_the_environment(monkeypatch):
    for name in ("ws", "wss", "socks", "http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    for uri, environment, expected in ENVIRONMENTS:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            proxy = environment_proxy(parse_uri(uri))
            assert (proxy and proxy.host) == expected, (uri, environment)


def test_no_proxy_has_addresses_and_networks(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://p")
    for networks, direct, others in NETWORKS:
        monkeypatch.setenv("no_proxy", networks)
        for host in direct + others:
            with case(no_proxy=networks, host=host):
                proxy = environment_proxy(parse_uri(f"ws://{host}/"))
                assert (proxy is None) == (host in direct)


@pytest.mark.parametrize(
    ("name", "address", "scheme"),
    [
        ("socks_proxy", "http://h:1", "socks5h"),  # as macOS has it
        ("socks_proxy", "h:1", "socks5h"),
        ("socks_proxy", "socks4://h:1", "socks4"),
        ("all_proxy", "socks://h:1/", "socks5h"),  # as GNOME has it
        ("all_proxy", "http://h:1", "http"),
    ],
)
def test_what_the_environment_does_not_say_is_socks_5(monkeypatch, name, address, scheme):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(name, address)
    assert environment_proxy(parse_uri("wss://example.com/")) == Proxy(scheme, "h", 1)


def test_the_environment_is_wrong(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("wss_proxy", "https://user:secret@h")
    with pytest.raises(
        ValueError, match=r"^in the environment, wss_proxy is wrong: proxy must be one of"
    ) as caught:
        environment_proxy(parse_uri("wss://example.com/"))
    assert "secret" not in str(caught.value)


# Tunnels (RFC 9110, section 9.3.6)

URI = parse_uri("wss://[::1]/chat")
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def tunnel() -> Tunnel:
    return Tunnel(Proxy("http", "proxy", 3128, "user", "pass"), URI)


def test_what_is_asked():
    head = b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n"
    assert tunnel().request == head + b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    assert Tunnel(Proxy("http", "proxy", 3128), URI).request == head + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        ESTABLISHED,
        b"HTTP/1.0 200 \r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" + ESTABLISHED,
        b"HTTP/1.1 299 Fine\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_it_is_open(answer, size):
    *pieces, last = [answer[start : start + size] for start in range(0, len(answer), size)]
    asking = tunnel()
    assert [asking.receive(piece) for piece in pieces] == [False] * len(pieces)
    assert asking.receive(last)


@pytest.mark.parametrize(
    ("answer", "problem", "response"),
    [
        (
            b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno",
            "proxy answered with status 403 Forbidden: no",
            Response(403, [("content-length", "2")], b"no"),
        ),
        (
            b"HTTP/1.1 407 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "proxy answered with status 407 Proxy Authentication Required: no",
            Response(407, [("transfer-encoding", "chunked")], b"no"),
        ),
        (b"HTTP/1.0 200\r\n\r\n220 mail\r\n", "server speaks first", Response(200)),
        (
            b"HTTP/1.1 403 \xc5\x81\r\nX-City: " + "Łódź".encode() + b"\r\nContent-Length: 0\r\n\r\n",
            "proxy answered with status 403 Forbidden",
            Response(403, [("x-city", "Łódź".encode()), ("content-length", "0")]),
        ),
        # h11 lets control characters through; we do not.
        *(
            (
                b"HTTP/1.1 %d \r\nX: a" % status + control + b"b\r\n\r\n",
                "a header value has a control or non-latin-1 character",
                None,
            )
            for status in (200, 403)
            for control in (b"\x1b", b"\x01", b"\x7f")
        ),
        (b"HTTP/1.1 200 \r\n" + b"a: b\r\n" * 101 + b"\r\n", "head has more than 100 headers", None),
        (b"SSH-2.0-x\r\n\r\n", "malformed HTTP response: illegal status line: bytearray(b'SSH-2.0-x')", None),
    ],
)
def test_it_is_refused(answer, problem, response):
    with pytest.raises(HandshakeFailed) as caught:
        tunnel().receive(answer)
    assert isinstance(caught.value, HandshakeRejected) == problem.startswith("proxy answered")
    assert str(caught.value) == f"tunnel through proxy proxy:3128 to [::1]:443 failed: {problem}"
    assert caught.value.response == response


@pytest.mark.parametrize(
    ("answer", "problem", "body"),
    [
        (b"", "proxy closed the connection", None),
        (b"HTTP/1.1 40", "proxy closed the connection", None),
        (b"HTTP/1.1 502 \r\n\r\nbad", "proxy answered with status 502 Bad Gateway: bad", b"bad"),
        (
            b"HTTP/1.1 502 \r\nContent-Length: 9\r\n\r\nbad",
            "proxy answered with status 502 Bad Gateway: bad",
            b"bad",
        ),
    ],
)
def test_the_stream_ends(answer, problem, body):
    asking = tunnel()
    if answer:
        assert not asking.receive(answer)
    with pytest.raises(HandshakeFailed) as caught:
        asking.receive(b"")
    assert isinstance(caught.value, HandshakeRejected) == problem.startswith("proxy answered")
    assert str(caught.value).endswith(f" failed: {problem}")
    assert (caught.value.response and caught.value.response.body) == body
    assert isinstance(caught.value.__cause__, EOFError) == (body is None)


def test_a_body_is_not_waited_for_for_ever():
    asking = tunnel()
    assert not asking.receive(b"HTTP/1.1 502 \r\n\r\n")
    for _ in range(63):
        assert not asking.receive(bytes(1024))
    with pytest.raises(HandshakeRejected):
        asking.receive(bytes(1024))
