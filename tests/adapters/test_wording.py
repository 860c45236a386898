"""wsframe.adapter.wording: a response in one line, and whose time limit has passed."""

from __future__ import annotations

import errno

import pytest

from wsframe import Response
from wsframe.adapter.wording import describe, is_own_timeout


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (Response(404), "status 404 Not Found"),
        (Response(499), "status 499"),
        (Response(404, body=b"Not Found"), "status 404 Not Found"),
        (Response(404, body=b"\r\n no\tsuch\n\nroom "), "status 404 Not Found: no such room"),
        (Response(200), "status 200 OK, so there is no WebSocket at this address"),
        # Nothing in it is written to a terminal that means something to it
        (Response(499, body="\x1b[2J\x07\x9b\u202e\u2028\ufffe\xe9".encode()), "status 499: [2J \xe9"),
        (Response(499, body=b"\xff"), "status 499: \ufffd"),
        (Response(499, body=b"x" * 100), "status 499: " + "x" * 100),
        (Response(499, body=b"x" * 101), "status 499: " + "x" * 100 + "..."),
        (Response(499, [("content-type", "image/png")], b"PNG"), "status 499"),
        (Response(499, [("content-type", "Text/Plain; charset=x")], b"text"), "status 499: text"),
        (Response(499, [("content-type", "application/json")], b"{}"), "status 499: {}"),
        (
            Response(499, [("content-type", "text/html")], b"<b>a</b>&lt;<script>b</script>c"),
            "status 499: a &lt; c",
        ),
        (Response(499, [("content-type", "text/html")], b"<STYLE a=b>\nb</style\n"), "status 499: b</style"),
    ],
)
def test_a_response_in_a_line(response, text):
    assert describe(response) == text


def test_a_time_limit_of_the_system_has_a_number():
    assert is_own_timeout(TimeoutError())
    assert is_own_timeout(TimeoutError("timed out"))
    assert not is_own_timeout(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
    assert not is_own_timeout(ConnectionResetError())
