"""wsframe.adapter.connecting, without sockets: routes, fatal errors, and delays between attempts."""

from __future__ import annotations

import errno
import ssl
import time
from itertools import islice

import pytest

from tests.support.cases import case
from wsframe import (
    ConnectionClosed,
    Fail,
    HandshakeFailed,
    HandshakeRejected,
    InvalidURI,
    LocalProtocolError,
    Response,
    parse_uri,
)
from wsframe.adapter.connecting import (
    Backoff,
    Route,
    handshake_failure,
    interleave,
    is_fatal,
    retry_after,
    unreachable,
)
from wsframe.adapter.options import ClientOptions, Timing
from wsframe.adapter.proxy import Tunnel, parse_proxy


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FATAL = [
    (OSError("down"), False),
    (ConnectionRefusedError(111, "refused"), False),
    (TimeoutError("late"), False),
    (ssl.SSLError(1, "handshake failure"), False),
    (ssl.SSLCertVerificationError(1, "expired"), True),
    *((HandshakeRejected("no", Response(status)), False) for status in (408, 425, 429, *range(500, 600))),
    *(
        (HandshakeRejected("no", Response(status)), True)
        for status in (101, 200, 302, 401, 404, 407, 499, 600)
    ),
    (HandshakeFailed("malformed"), True),
    (HandshakeFailed("malformed", Response(101)), True),
    (caused(HandshakeFailed("lost"), EOFError()), False),
    (caused(HandshakeFailed("lost"), ConnectionResetError()), False),
    (caused(HandshakeRejected("no", Response(404)), ConnectionResetError()), True),
    (InvalidURI("scheme"), True),
    (LocalProtocolError("header"), True),
    (ConnectionClosed(1006), True),
    (ImportError("python-socks"), True),
    (ValueError("proxy"), True),
]


def test_what_is_fatal():
    for error, fatal in FATAL:
        assert is_fatal(error) is fatal, repr(error)


NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110, section 5.6.7
RETRY_AFTER = [
    ("7", 7),
    ("0", 0),
    (" 7\t", 7),
    ("090", 90),
    ("91", 90),
    ("Sun, 06 Nov 1994 08:49:57 GMT", 20),
    ("Sunday, 06-Nov-94 08:49:57 GMT", 20),
    ("Sun Nov  6 08:49:57 1994", 20),
    ("Sun, 06 Nov 1994 08:49:57 -0000", 20),
    ("Sun, 06 Nov 1994 09:49:57 +0100", 20),
    ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
    ("Sun, 06 Nov 1994 08:49:36 GMT", 0),
    ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
]
HOSTILE_RETRY_AFTER = [
    ("999999999999999", 90),
    ("9" * 10_000, 90),
    ("Fri, 31 Dec 9999 23:59:59 GMT", 90),
    ("Fri, 31 Dec 9999 23:59:59 -9999", 0),
    ("Fri, 31 Dec 10000 23:59:59 GMT", 0),
    (f"Fri, 31 Dec {10**30} 23:59:59 GMT", 0),
    (f"Sun, 06 Nov 1994 08:49:57 +{10**30}", 0),
    ("Sun, 31 Feb 2094 08:49:57 GMT", 0),
    ("-1", 0),
    ("1.5", 0),
    ("1e9", 0),
    ("inf", 0),
    ("nan", 0),
    ("7, 8", 0),
    ("\u0663", 0),
    ("\xb2", 0),
    ("(" * 10_000, 0),
    ("", 0),
]


def test_a_server_says_when_to_try_again_rfc9110_10_2_3(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    for status in (429, 503):
        for value, seconds in RETRY_AFTER + HOSTILE_RETRY_AFTER:
            with case(status=status, value=value):
                rejected = HandshakeRejected("no", Response(status, [("Retry-After", value)]))
                assert retry_after(rejected) == seconds


def test_with_another_status_it_says_nothing():
    for status in (101, 302, 404, 408, 425, 500, 502, 504, 521):
        assert retry_after(HandshakeRejected("no", Response(status, [("Retry-After", "7")]))) == 0, status


def test_a_proxy_is_tried_again_like_a_server():
    """What refuses the tunnel is the response of the error, whoever it comes from."""
    for status, is_temporary in ((407, False), (403, False), (429, True), (502, True), (503, True)):
        tunnel = Tunnel(parse_proxy("http://proxy:3128"), parse_uri("ws://h/"))
        with case(status=status):
            with pytest.raises(HandshakeRejected) as caught:
                tunnel.receive(b"HTTP/1.1 %d \r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n" % status)
            assert is_fatal(caught.value) is not is_temporary
            assert retry_after(caught.value) == (7 if status in (429, 503) else 0)


def test_nobody_says_when():
    assert retry_after(HandshakeRejected("no", Response(503))) == 0
    assert retry_after(HandshakeFailed("no")) == 0
    assert retry_after(OSError()) == 0


def test_delays_are_random_and_grow_rfc6455_7_2_3():
    delays = [list(islice(Backoff(), 20)) for _ in range(500)]
    limits = [min(5 * 1.6**number, 90) for number in range(20)]
    for number, limit in enumerate(limits):
        drawn = [run[number] for run in delays]
        assert 0 <= min(drawn) < limit * 0.1
        assert limit * 0.9 < max(drawn) <= limit


def test_delays_are_what_they_are_told_to_be():
    backoff = Backoff(first=0, factor=1, longest=0)
    assert list(islice(backoff, 3)) == [0, 0, 0]
    assert repr(Backoff()) == "Backoff(5, 1.6, 90)"


@pytest.mark.parametrize("options", [{"first": -1}, {"first": 91}, {"factor": 0.9}, {"longest": 1}])
def test_delays_that_cannot_be(options):
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**options)


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        ([], []),
        ([(6, "a"), (6, "b"), (6, "c"), (4, "d"), (4, "e")], "adbec"),
        ([(4, "a"), (6, "b"), (6, "c")], "abc"),
        ([(4, "a"), (4, "b")], "ab"),
    ],
)
def test_families_alternate_rfc8305_4(addresses, order):
    assert [address for _, address in interleave(addresses)] == list(order)


@pytest.mark.parametrize(
    ("failures", "error", "text"),
    [
        ([(("::1", 9), errno.ECONNREFUSED)], ConnectionRefusedError, "Connection refused"),
        (
            [(("::1", 9), errno.ECONNREFUSED), (("127.0.0.1", 9), errno.ECONNREFUSED)],
            ConnectionRefusedError,
            "Connection refused",
        ),
        (
            [(("::1", 9), errno.ENETUNREACH), (("127.0.0.1", 9), errno.ECONNREFUSED)],
            ConnectionRefusedError,
            "Network is unreachable (::1), Connection refused (127.0.0.1)",
        ),
    ],
)
def test_no_address_answers(failures, error, text):
    unreached = unreachable([(address, OSError(code, "Connect call failed")) for address, code in failures])
    assert type(unreached) is error
    assert unreached.strerror == text


def rejected(route: Route, location: str) -> HandshakeRejected:
    route.connection.response = response = Response(302, [("Location", location)])
    return HandshakeRejected("status 302", response)


def test_a_route_begins_again():
    route = Route(ClientOptions("ws://u:p@h/a", additional_headers={"Cookie": "a=b"}, proxy=None))
    first = route.connection.data_to_send()
    assert b"Cookie: a=b" in first
    route.follow(rejected(route, "wss://i/b"))
    second = route.connection.data_to_send()
    assert second.startswith(b"GET /b HTTP/1.1\r\nHost: i\r\n")
    assert b"Cookie" not in second
    assert b"Authorization" not in second
    assert route.server_hostname == "i"
    route.restart()
    assert route.server_hostname == "h"
    third = route.connection.data_to_send()
    assert (third.split(b"\r\n")[0], b"Cookie: a=b" in third, b"Authorization" in third) == (
        b"GET /a HTTP/1.1",
        True,
        True,
    )


def test_a_redirect_of_a_proxy_is_not_followed():
    route = Route(ClientOptions("ws://h/", proxy=None))
    error = HandshakeRejected("a proxy's", Response(302, [("Location", "/b")]))
    with pytest.raises(HandshakeRejected) as caught:
        route.follow(error)
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "[Errno 104] connection to h:80 failed: Connection reset by peer",
        ),
        (ConnectionResetError(), "connection to h:80 failed: server closed the connection"),
        (ConnectionAbortedError("aborted"), "connection to h:80 failed: aborted"),
        (
            TimeoutError(110, "Connection timed out"),
            "[Errno 110] connection to h:80 failed: Connection timed out",
        ),
        (TimeoutError(), "connection to h:80 timed out after 2.5 s"),
        (TimeoutError("timed out"), "connection to h:80 timed out after 2.5 s"),
        (ssl.SSLEOFError(8, "EOF"), "connection to h:80 failed: server closed the connection"),
        (ssl.SSLError(1, "[SSL] what"), "connection to h:80 failed: [SSL] what"),
    ],
)
def test_errors_stay_what_they_are(error, text):
    route = Route(ClientOptions("ws://h/", proxy=None, timing=Timing(open_timeout=2.5)))
    with pytest.raises(type(error)) as caught, route.explained():
        raise error
    assert type(caught.value) is type(error)
    assert str(caught.value) == text
    assert caught.value.errno == error.errno


def test_what_is_no_error_of_the_network_is_left_alone():
    error = ValueError("x")
    with (
        pytest.raises(ValueError, match="x") as caught,
        Route(ClientOptions("ws://h/", proxy=None)).explained(),
    ):
        raise error
    assert caught.value is error


def test_an_answer_is_a_rejection_and_all_else_a_failure():
    connection = Route(ClientOptions("ws://h/", proxy=None)).connection
    answered = Fail(1006, "server answered with status 404")
    for status, fail, kind in (
        (None, Fail(1006, "connection was lost"), HandshakeFailed),
        (None, Fail(1002, "malformed HTTP response"), HandshakeFailed),
        (101, Fail(1002, "Upgrade header is missing"), HandshakeFailed),
        (103, Fail(1002, "too many informational responses"), HandshakeFailed),
        (404, answered, HandshakeRejected),
    ):
        connection.response = status and Response(status)
        error = handshake_failure(connection, fail)
        assert type(error) is kind, fail
        assert error.response is connection.response


def test_a_failure_says_what_the_network_said():
    connection = Route(ClientOptions("ws://h/", proxy=None)).connection
    lost = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert")
    lost.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    error = handshake_failure(connection, Fail(1006, "connection was lost"), lost)
    problem = "connection was lost before the server answered: tlsv13 alert certificate required"
    assert str(error) == f"opening handshake with h:80 failed: {problem}"
    assert error.__cause__ is lost
