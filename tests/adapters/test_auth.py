"""redirect and basic_auth: what a server answers instead of opening the connection."""

from __future__ import annotations

import base64
import inspect

import pytest

from wsframe import LocalProtocolError, Request, Response, ServerConnection, basic_auth, redirect

CHALLENGE = ("WWW-Authenticate", 'Basic realm="WebSocket", charset="UTF-8"')
REFUSED = Response(401, [CHALLENGE], b"name and password are required\n")


def basic(pair: str | bytes, scheme: str = "Basic ") -> str:
    data = pair if isinstance(pair, bytes) else pair.encode()
    return scheme + base64.b64encode(data).decode()


def asks(*authorizations: str) -> Request:
    return Request("/", [("host", "x"), *(("authorization", value) for value in authorizations)])


def finish(awaitable):
    """Run a coroutine that never waits: nothing here knows of an event loop."""
    assert inspect.isawaitable(awaitable)
    with pytest.raises(StopIteration) as caught:
        awaitable.send(None)
    return caught.value.value


# redirect


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_response(status):
    response = redirect("wss://example.com/%C3%A4?x=1", status, {"X-A": "b"})
    assert response == Response(status, [("Location", "wss://example.com/%C3%A4?x=1"), ("X-A", "b")])
    conn = ServerConnection()
    conn.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    conn.next_event()
    conn.reject(response.status, response.headers, response.body)
    assert b"\r\nLocation: wss://example.com/%C3%A4?x=1\r\nX-A: b\r\n" in conn.data_to_send()


def test_a_redirect_is_temporary():
    assert redirect("/v2").status == 302


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        (("/a\r\nSet-Cookie: x=y",), LocalProtocolError, "percent-encoded"),
        (("/a\n",), LocalProtocolError, "percent-encoded"),
        (("/\x85",), LocalProtocolError, "percent-encoded"),
        (("/Ł",), LocalProtocolError, "percent-encoded"),
        (("/a b",), LocalProtocolError, "percent-encoded"),
        (("/a\tb",), LocalProtocolError, "percent-encoded"),
        (("/é",), LocalProtocolError, "percent-encoded"),
        (("",), LocalProtocolError, "percent-encoded"),
        ((b"/a",), TypeError, "location must be a str, not bytes"),
        (("/a", 200), ValueError, "301, 302, 303, 307 or 308, not 200"),
        (("/a", 304), ValueError, "not 304"),
        (("/a", 302, [("X", "a\nb")]), LocalProtocolError, "control"),
        (("/a", 302, [("X", "Ł")]), ValueError, "outside latin-1"),
        (("/a", 302, [("Content-Length", "5")]), LocalProtocolError, "set by the handshake"),
    ],
)
def test_a_redirect_that_cannot_be_sent(arguments, error, problem):
    with pytest.raises(error, match=problem):
        redirect(*arguments)


# basic_auth: who is let through


@pytest.mark.parametrize("credentials", [{"ada": "s:ä", "bob": ""}, ("ada", "s:ä")])
@pytest.mark.parametrize("scheme", ["Basic ", "basic ", "BASIC   "])
def test_who_is_known_is_let_through_rfc7617(credentials, scheme):
    assert basic_auth(credentials)(asks(basic("ada:s:ä", scheme))) is None


def test_a_password_may_be_empty_but_is_not_any():
    process = basic_auth({"ada": "x", "bob": ""})
    assert process(asks(basic("bob:"))) is None
    assert process(asks(basic("bob:x"))) == REFUSED
    assert process(asks(basic("ada:"))) == REFUSED


@pytest.mark.parametrize(
    "pair", ["ada:wrong", "ada:secre", "ada:secrets", "eve:secret", "bob:secret", ":secret", ":", "ada:"]
)
def test_who_is_not_known_gets_401(pair):
    assert basic_auth({"ada": "secret", "bob": "other"})(asks(basic(pair))) == REFUSED


@pytest.mark.parametrize(
    "authorizations",
    [
        (),
        ("",),
        ("Basic",),
        ("Basic ",),
        ("Bearer abc",),
        (basic("ada:secret", "Basic"),),  # no space
        (basic("ada:secret", "Digest "),),
        ("Basic !!!!",),
        ("Basic YWRhOnNlY3JldA",),  # no padding
        (basic("ada:secret") + " x",),
        (basic("ada:secret") + "é",),
        (basic("ada"),),  # no colon
        (basic(b"ada:\xff"),),
        (basic("ada:sec\nret"),),
        (basic("a\x7fda:secret"),),
        (basic("ada:secret"), basic("ada:secret")),
        ("Basic " + "A" * 10000,),
    ],
)
def test_malformed_credentials_get_401_and_reach_nobody(authorizations):
    def check(name, password):
        raise AssertionError("it was asked")

    assert basic_auth({"ada": "secret"})(asks(*authorizations)) == REFUSED
    assert basic_auth(check)(asks(*authorizations)) == REFUSED


def test_everybody_is_compared_with_whoever_asks(monkeypatch):
    compared = []

    def compare_digest(a, b):
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("wsframe.adapter.auth.compare_digest", compare_digest)
    process = basic_auth({"ada": "secret", "bob": "other"})
    for pair in ("ada:secret", "bob:other", "ada:wrong", "eve:secret"):
        compared.clear()
        process(asks(basic(pair)))
        name, _, password = pair.encode().partition(b":")
        assert compared == [(b"ada", name), (b"secret", password), (b"bob", name), (b"other", password)]


# basic_auth: what it is made of


def test_a_function_that_knows():
    process = basic_auth(lambda name, password: (name, password) == ("ä", "b:c"))
    assert process(asks(basic("ä:b:c"))) is None
    assert process(asks(basic("ä:b"))) == REFUSED
    assert not inspect.iscoroutinefunction(process)


def test_a_coroutine_function_that_knows():
    async def check(name, password):
        return name == "ada"

    process = basic_auth(check)
    assert inspect.iscoroutinefunction(process)
    assert finish(process(asks(basic("ada:")))) is None
    assert finish(process(asks(basic("bob:")))) == REFUSED
    assert finish(process(asks())) == REFUSED


def test_a_function_that_returns_what_knows():
    async def check(name, password):
        return name == "ada"

    process = basic_auth(lambda name, password: check(name, password))
    assert finish(process(asks(basic("ada:")))) is None
    assert finish(process(asks(basic("bob:")))) == REFUSED
    assert process(asks()) == REFUSED


def test_headers_and_a_realm_in_utf8_go_out_as_they_are():
    city = "Łódź".encode()
    for response, line in [
        (redirect("/", headers={"X-City": city}), b"X-City: " + city),
        (
            basic_auth({}, realm=city)(asks()),
            b'WWW-Authenticate: Basic realm="' + city + b'", charset="UTF-8"',
        ),
        (Response(403, [("X-City", city)]), b"X-City: " + city),
    ]:
        assert all(type(value) is str for _, value in response.headers)
        conn = ServerConnection()
        conn.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        conn.next_event()
        conn.reject(response.status, response.headers, response.body)
        assert b"\r\n" + line + b"\r\n" in conn.data_to_send()


def test_it_goes_on_with_another_one():
    process = basic_auth(("ada", ""), process_request=lambda request: redirect(request.path + "x"))
    assert process(asks(basic("ada:"))) == redirect("/x")
    assert process(asks(basic("bob:"))) == REFUSED


@pytest.mark.parametrize("is_known", ["mapping", "function", "coroutine function"])
def test_it_goes_on_with_another_one_that_waits(is_known):
    async def check(name, password):
        return name == "ada"

    async def process_request(request):
        return redirect(request.path + "x")

    credentials = {"mapping": {"ada": ""}, "function": lambda name, password: name == "ada"}
    process = basic_auth(credentials.get(is_known, check), process_request=process_request)
    assert inspect.iscoroutinefunction(process)
    assert finish(process(asks(basic("ada:")))) == redirect("/x")
    assert finish(process(asks(basic("bob:")))) == REFUSED


def test_they_can_be_nested():
    process = basic_auth(("ada", ""), process_request=basic_auth(lambda name, password: not password))
    assert process(asks(basic("ada:"))) is None


def test_the_realm_is_quoted():
    process = basic_auth({}, realm='a "b" \\ é')
    assert process(asks()).headers == (
        ("WWW-Authenticate", 'Basic realm="a \\"b\\" \\\\ é", charset="UTF-8"'),
    )


@pytest.mark.parametrize(
    ("arguments", "options", "error", "problem"),
    [
        (({},), {"realm": 'x"\r\nSet-Cookie: a=b'}, LocalProtocolError, "control"),
        (({},), {"realm": b"x\n"}, LocalProtocolError, "control"),
        (({},), {"realm": "€"}, ValueError, "outside latin-1"),
        (({},), {"realm": None}, TypeError, "realm must be a str or bytes, not NoneType"),
        (({"a:b": "c"},), {}, ValueError, "colon"),
        (({"a": "b\n"},), {}, ValueError, "password must not have control"),
        (({"a\0": "b"},), {}, ValueError, "name must not have control"),
        (({"a": "\ud800"},), {}, ValueError, "surrogates"),
        (({"a": b"secret"},), {}, TypeError, "password must be str, not bytes"),
        (("ada:secret",), {}, TypeError, "not str"),
        ((("a", "b", "c"),), {}, TypeError, "not tuple"),
        ((None,), {}, TypeError, "not NoneType"),
    ],
)
def test_what_it_cannot_be_made_of(arguments, options, error, problem):
    with pytest.raises(error, match=problem) as caught:
        basic_auth(*arguments, **options)
    assert "secret" not in str(caught.value)
