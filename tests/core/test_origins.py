"""wsframe.origins: which Origin headers belong to a list of origins."""

from __future__ import annotations

import re

import pytest

from wsframe.origins import Origins
from wsframe.server import ServerConnection

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LOCAL = re.compile(r"https?://(\w+\.)?example\.com(:8080)?")


@pytest.mark.parametrize(
    ("origins", "origin", "is_allowed"),
    [
        (["https://Example.COM"], "https://example.com", True),
        (["https://example.com"], "HTTPS://EXAMPLE.com", True),
        (["https://example.com:443"], "https://example.com", True),
        (["https://example.com"], "https://example.com:443", True),
        (["http://example.com:80"], "http://example.com", True),
        (["http://[::1]"], "http://[::1]:80", True),
        (["http://[::1]:80"], "http://[::80]", False),
        (["http://[::1]:80"], "http://[::1]", True),
        (["http://[::1]"], "http://[::1]:80:80", False),
        (["http://example.com"], "http://example.com:80:80", False),
        (["http://example.com:8080"], "http://example.com:8080:80", False),
        (["https://example.com:8443"], "https://example.com:8443:443", False),
        (["http://example.com"], "http://a@example.com:80", False),
        (["http://example.com"], "http://example.com:", False),
        (["http://example.com"], "http://example.com:080", False),
        (["https://example.com"], "https://example.com:80", False),
        (["http://example.com"], "http://example.com:443", False),
        (["http://example.com"], "http://example.com:8080", False),
        (["http://example.com:8080"], "http://example.com:8080", True),
        (["http://example.com:8080"], "http://example.com", False),
        (["http://example.com"], "https://example.com", False),
        (["https://example.com"], "https://example.com/", False),
        (["null"], "null", True),
        (["chrome-extension://abc"], "chrome-extension://abc", True),
        (["file://"], "file://", True),
        ([LOCAL], "https://example.com", True),
        ([LOCAL], "HTTPS://Sub.Example.com:443", True),
        ([LOCAL], "http://sub.example.com:8080", True),
        ([LOCAL], "http://sub.example.com:8081", False),
        ([LOCAL], "https://example.com.evil", False),
        ([LOCAL], "https://evil/https://example.com", False),
        ([LOCAL], "null", False),
        ([LOCAL], None, False),
        ([LOCAL, None], None, True),
        ([re.compile(".*")], "", True),
        (["https://example.com"], "", False),
        ([re.compile("a"), "https://example.com"], "https://example.com", True),
    ],
)
def test_origins_are_compared_as_rfc6454_says(origins, origin, is_allowed):
    assert (origin in Origins(origins)) is is_allowed
    conn = ServerConnection(origins=Origins(origins))
    line = b"" if origin is None else f"Origin: {origin}\r\n".encode()
    conn.receive_data(REQUEST.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n"))
    assert (conn.next_event() is not None and conn.request is not None) is is_allowed


@pytest.mark.parametrize(
    ("origins", "error", "problem"),
    [
        (re.compile("https://a"), TypeError, "must be a list of str, not a Pattern"),
        ([re.compile(b"https://a")], TypeError, "not pattern of bytes"),
        ([5], TypeError, "not int"),
        (
            ["https://example.com/"],
            ValueError,
            "like https://example.com or null, not 'https://example.com/'",
        ),
        (["https://example.com/path"], ValueError, "not 'https://example.com/path'"),
        (["example.com"], ValueError, "not 'example.com'"),
        (["*"], ValueError, "not"),
        (["http://example.com:8080:80"], ValueError, "not 'http://example.com:8080:80'"),
        (["http://example.com:80:80"], ValueError, "not 'http://example.com:80:80'"),
        (["http://::1"], ValueError, "not 'http://::1'"),
        (["http://[::1]a"], ValueError, "not 'http://[::1]a'"),
        (["http://[example.com]"], ValueError, "not 'http://[example.com]'"),
        (["http://a@example.com"], ValueError, "not 'http://a@example.com'"),
        (["http://example.com:"], ValueError, "not 'http://example.com:'"),
        (["http://example.com:http"], ValueError, "not 'http://example.com:http'"),
        ([""], ValueError, "not ''"),
    ],
)
def test_what_cannot_be_an_origin(origins, error, problem):
    with pytest.raises(error, match=re.escape(problem)):
        ServerConnection(origins=origins)
