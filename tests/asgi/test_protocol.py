"""wsframe.asgi under uvicorn: what an application is told, what it may say, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct

import pytest

import wsframe.aio
import wsframe.sync
from tests.support.adapters import key_of, needs_ipv6, request
from tests.support.asgi_site import (
    ACCEPT,
    CLOSE,
    CONNECT,
    Site,
    close,
    disconnect,
    echo,
    hear,
    messages,
    nothing_goes,
    parsed,
    parsers,
    site_at,
    to_the_end,
)
from tests.support.cases import case
from wsframe import CloseCode, HandshakeRejected, Opcode
from wsframe.handshake import accept_key

pytest.importorskip("uvicorn")

# The scope


async def accept_and_close(scope, receive, send):
    assert await receive() == CONNECT
    await send(ACCEPT)
    await send(CLOSE)
    await receive()


def test_scope(site: Site):
    visit = site.visit(accept_and_close)
    with site.ask(
        visit,
        "X-Name: \xe4\xff",
        "x-name: 2",
        "Sec-WebSocket-Protocol: a, b",
        "Cookie: c=1;  d=2",
        "Sec-WebSocket-Protocol: c",
        "Empty:",
        more="/%C3%A4%20b%2Fc%FF/?q=%C3%A4&r=?",
    ) as peer:
        client = peer.sock.getsockname()
        key = key_of(request())
        scope = visit.scope
        websocket = scope["extensions"]["wsframe"].pop("websocket")
        assert isinstance(websocket, wsframe.aio.WebSocket)
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": site.address,
            "client": client,
            "root_path": "",
            "path": visit.path + "/\xe4 b/c\ufffd/",
            "raw_path": visit.path.encode() + b"/%C3%A4%20b%2Fc%FF/",
            "query_string": b"q=%C3%A4&r=?",
            "headers": [
                (b"host", b"localhost"),
                (b"upgrade", b"websocket"),
                (b"connection", b"Upgrade"),
                (b"sec-websocket-key", key.encode()),
                (b"sec-websocket-version", b"13"),
                (b"x-name", b"\xe4\xff"),
                (b"x-name", b"2"),
                (b"sec-websocket-protocol", b"a, b"),
                (b"cookie", b"c=1;  d=2"),
                (b"sec-websocket-protocol", b"c"),
                (b"empty", b""),
            ],
            "subprotocols": ["a", "b", "c"],
            "state": {},
            "extensions": {"websocket.http.response": {}, "wsframe": {}},
        }
        peer.read_head()
        assert peer.next_frame().opcode is Opcode.CLOSE
        assert websocket.state is not wsframe.State.OPEN


@needs_ipv6
def test_scope_of_ipv6(place, leaks):
    with site_at(place, host="::1") as site:
        visit = site.visit(accept_and_close)
        with site.ask(visit) as peer:
            assert visit.scope["server"] == site.address[:2]
            assert visit.scope["client"] == peer.sock.getsockname()[:2]
            peer.read_head()


def test_scope_of_a_unix_socket(place, leaks, tmp_path, caplog):
    caplog.set_level(logging.INFO, "uvicorn.error")
    with site_at(place, uds=str(tmp_path / "socket")) as site:
        visit = site.visit(accept_and_close)
        with site.ask(visit) as peer:
            assert visit.scope["server"] == (str(tmp_path / "socket"), None)
            assert visit.scope["client"] is None
            peer.read_head()
    assert f'- "WebSocket {visit.path}" [accepted]' in messages(caplog)


def test_scope_of_tls(place, leaks, tls):
    with site_at(place, tls=tls) as site:
        visit = site.visit(echo)
        with wsframe.sync.connect(site.uri(visit), ssl=tls.client) as websocket:
            assert visit.scope["scheme"] == "wss"
            assert visit.scope["server"] == site.address
            for message in ("a", b"b" * 2**20, "\xe4" * 100_000):
                websocket.send(message)
                assert websocket.recv() == message
        assert visit.heard()[-1] == disconnect(1000)


def test_scope_of_an_application_that_is_mounted(place, leaks):
    with site_at(place, root_path="/mounted at") as site:
        visit = site.visit(accept_and_close)
        with site.ask(visit, more="/%20a") as peer:
            assert visit.scope["root_path"] == "/mounted at"
            assert visit.scope["path"] == "/mounted at" + visit.path + "/ a"
            assert visit.scope["raw_path"] == b"/mounted at" + visit.path.encode() + b"/%20a"
            peer.read_head()


def test_absolute_form(site: Site):
    for form in ("http://localhost", "ws://localhost:80"):
        visit = site.visit(accept_and_close)
        with site.connect() as peer:
            peer.send(request(path=f"{form}{visit.path}?a", host="other"))
            assert (visit.scope["path"], visit.scope["query_string"]) == (visit.path, b"a")
            assert b" 101 " in peer.read_head()


def test_a_subprotocol_that_is_offered_twice_counts_once(site: Site):
    visit = site.visit(accept_and_close)
    with site.ask(visit, "Sec-WebSocket-Protocol: ocpp1.6, ocpp1.6") as peer:
        assert visit.scope["subprotocols"] == ["ocpp1.6"]
        peer.read_head()


def test_every_connection_has_its_copy_of_the_state(place, leaks):
    """A shallow one."""
    states = []

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(one=1, shared=[])
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        state = scope["state"]
        states.append(dict(state, shared=list(state["shared"])))
        state["one"] = 2
        state["shared"].append(3)
        await accept_and_close(scope, receive, send)

    with site_at(place, application, lifespan="on") as site:
        for _ in range(2):
            with site.connect() as peer:
                peer.send(request())
                assert b" 101 " in peer.read_head()
    assert states == [{"one": 1, "shared": []}, {"one": 1, "shared": [3]}]


# Accepting


def test_messages(site: Site):
    visit = site.visit(echo)
    with wsframe.sync.connect(site.uri(visit)) as websocket:
        sent = ["", b"", "\xe4\u20ac\U0001f600", bytes(range(256)), "a" * 100_000, b"\0" * 2**20]
        for message in sent:
            websocket.send(message)
            assert websocket.recv() == message
        websocket.close(4000, "bye")
    kinds = {str: "text", bytes: "bytes"}
    received = [{"type": "websocket.receive", kinds[type(message)]: message} for message in sent]
    assert visit.heard() == [*received, disconnect(4000, "bye")]


def test_the_client_of_websockets(site: Site):
    visit = site.visit(echo)
    client = pytest.importorskip("websockets.sync.client")
    with client.connect(site.uri(visit)) as websocket:
        websocket.send("a" * 1000)
        assert websocket.recv() == "a" * 1000
        assert "permessage-deflate" in websocket.response.headers["Sec-WebSocket-Extensions"]
    assert visit.heard()[-1] == disconnect(1000)


def test_an_asyncio_client(site: Site):
    visit = site.visit(echo)

    async def visiting():
        async with wsframe.aio.connect(site.uri(visit)) as websocket:
            await websocket.send("a")
            return await websocket.recv()

    assert asyncio.run(visiting()) == "a"
    assert visit.heard() == [{"type": "websocket.receive", "text": "a"}, disconnect(1000)]


CITY = b"Lw\xf3w, " + "Łódź 中文".encode()


@pytest.mark.parametrize("answer", ["accept", "response"])
def test_headers_in_utf8_go_out_as_they_are(site: Site, answer):
    async def application(scope, receive, send):
        await receive()
        headers = [(b"set-cookie", b"city=" + CITY)]
        if answer == "accept":
            await send({**ACCEPT, "headers": headers})
            await to_the_end(receive, send)
        else:
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"no"})

    visit = site.visit(application)
    with site.ask(visit) as peer:
        head = peer.read_head()
        assert head.startswith(b"HTTP/1.1 101 " if answer == "accept" else b"HTTP/1.1 401 ")
        assert b"\r\nset-cookie: city=" + CITY + b"\r\n" in head + b"\r\n"
        if answer == "accept":
            close(peer)
    visit.result()


def test_accept_with_headers_and_a_subprotocol(site: Site):
    async def application(scope, receive, send):
        await receive()
        headers = [(b"x-a", b"\xe4"), [b"set-cookie", b"a=1"], (b"set-cookie", b"b=2")]
        await send({**ACCEPT, "subprotocol": "b", "headers": headers})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit, "Sec-WebSocket-Protocol: a, b") as peer:
        lines = peer.head.decode("latin-1").split("\r\n")
        # uvicorn's default headers come first.
        assert [line.partition(":")[0] for line in lines] == [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Protocol",
            "date",
            "server",
            "x-a",
            "set-cookie",
            "set-cookie",
        ]
        assert f"Sec-WebSocket-Accept: {accept_key(key_of(request()))}" in lines
        assert {"Sec-WebSocket-Protocol: b", "x-a: \xe4", "set-cookie: a=1", "set-cookie: b=2"} < set(lines)
        peer.send(peer.close(None))
        assert peer.read_close() == (1005, "")
    assert visit.heard() == [disconnect(1005)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"subprotocol": "c"},
        {"headers": [(b"a b", b"c")]},
        {"headers": [(b"a", b"b\r\nc: d")]},
        {"headers": [(b"a", b"b\0")]},
        {"headers": [(b"sec-websocket-protocol", b"a")]},
        {"headers": [(b"sec-websocket-accept", b"a")]},
    ],
    ids=["not offered", "name", "new line", "NUL", "subprotocol", "key"],
)
def test_accept_with_what_cannot_be_sent(site: Site, caplog, wrong):
    """The application can still say something else; if it does not, that is a 500."""

    async def application(scope, receive, send):
        await receive()
        await send({**ACCEPT, **wrong})

    for retries in (False, True):

        async def another(scope, receive, send):
            with pytest.raises(wsframe.LocalProtocolError):
                await application(scope, receive, send)
            await send(ACCEPT)
            await to_the_end(receive, send)

        visit = site.visit(another if retries else application)
        with site.ask(visit, "Sec-WebSocket-Protocol: a, b") as peer:
            if retries:
                assert b" 101 " in peer.read_head()
                close(peer)
                visit.result()
                continue
            status, headers, body = parsed(peer.read_all())
            assert (status, headers["connection"], body) == (500, "close", b"Internal Server Error")
        with pytest.raises(wsframe.LocalProtocolError):
            visit.result()
        assert messages(caplog) == ["Exception in ASGI application"]


def test_the_client_sends_before_it_is_accepted(site: Site):
    """What it sends is kept."""

    async def application(scope, receive, send):
        await receive()
        message = asyncio.create_task(receive())
        await is_sent.wait()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": (await message)["text"]})
        await to_the_end(receive, send)

    is_sent = asyncio.Event()
    visit = site.visit(application)
    with site.ask(visit) as peer:
        assert visit.scope["path"] == visit.path
        peer.send(peer.text("early"))
        site.loop.run(is_sent.set)
        peer.read_head()
        assert peer.read_text() == "early"
        close(peer)
    assert visit.heard() == [{"type": "websocket.receive", "text": "early"}, disconnect(1000)]


@pytest.mark.parametrize("place", parsers)
def test_frames_in_the_same_packet_as_the_request(place, leaks):
    """h11 has them still; uvicorn drops what httptools has not parsed."""
    with site_at(place) as site:
        visit = site.visit(hear)
        with site.connect() as peer:
            data = peer.text("early") + peer.close(4000)
            peer.send(request(path=visit.path), data)
            assert b" 101 " in peer.read_head()
            if site.http != "h11":
                peer.send(peer.close(4001))
            assert peer.read_close()[0] == (4000 if site.http == "h11" else 4001)
        early = [{"type": "websocket.receive", "text": "early"}]
        assert visit.heard() == ([*early, disconnect(4000)] if site.http == "h11" else [disconnect(4001)])


# Denying

REFUSED = "handshake was refused with {}"


def test_deny(site: Site, caplog):
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def application(scope, receive, send):
        await receive()
        await send({**CLOSE, "code": 4000, "reason": "not seen"})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.ask(visit, more="/%C3%A4?a=%20") as peer:
        host, port = peer.sock.getsockname()
        status, headers, body = parsed(peer.read_all())
    assert (status, headers["connection"], headers["content-length"], body) == (403, "close", "0", b"")
    assert {"date", "server"} < headers.keys()
    assert visit.heard() == [disconnect(1006, REFUSED.format(403))]
    with pytest.raises(HandshakeRejected) as rejected:
        wsframe.sync.connect(site.uri(site.visit(application)))
    assert rejected.value.response.status == 403
    assert f'{host}:{port} - "WebSocket {visit.path}/%C3%A4?a=%20" 403' in messages(caplog)


def response_of(*events):
    async def application(scope, receive, send):
        await receive()
        for event in events:
            kind = "start" if "status" in event else "body"
            await send({"type": f"websocket.http.response.{kind}", **event})
        await to_the_end(receive, send)

    return application


@pytest.mark.parametrize(
    ("events", "status", "expected", "body"),
    [
        (
            [{"status": 401, "headers": [(b"www-authenticate", b"Basic")]}, {"body": b"who?"}],
            401,
            {"www-authenticate": "basic", "content-type": "text/plain; charset=utf-8"},
            b"who?",
        ),
        (
            [
                {"status": 404, "headers": [(b"content-type", b"text/html"), (b"content-length", b"6")]},
                {"body": b"ab", "more_body": True},
                {"body": b"", "more_body": True},
                {"more_body": True},
                {"body": b"cd", "more_body": True},
                {"body": b"\xff\0", "more_body": False},
            ],
            404,
            {"content-type": "text/html", "content-length": "6"},
            b"abcd\xff\0",
        ),
        ([{"status": 503, "headers": [(b"retry-after", b"3")]}, {}], 503, {"retry-after": "3"}, b""),
        (
            [{"status": 302, "headers": [(b"Location", b"/a"), (b"Transfer-Encoding", b"chunked")]}, {}],
            302,
            {"location": "/a"},
            b"",
        ),
        ([{"status": 200}, {"body": b"fine"}], 200, {}, b"fine"),
        ([{"status": 599, "headers": []}, {"body": b"a" * 2**20}], 599, {}, b"a" * 2**20),
    ],
    ids=["401", "several bodies", "empty", "redirect", "200", "large"],
)
def test_deny_with_a_response(site: Site, events, status, expected, body):
    visit = site.visit(response_of(*events))
    with site.ask(visit) as peer:
        answer = parsed(peer.read_all())
    assert (answer[0], answer[2]) == (status, body)
    assert answer[1].items() >= expected.items()
    assert answer[1]["connection"] == "close"
    assert "transfer-encoding" not in answer[1]
    assert visit.heard() == [disconnect(1006, REFUSED.format(status))]


def test_a_response_with_status_204(site: Site):
    visit = site.visit(response_of({"status": 204}, {}))
    with site.ask(visit) as peer:
        assert peer.read_head().startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in peer.head.lower()
        assert peer.read_all() == b""
    assert visit.heard() == [disconnect(1006, REFUSED.format(204))]


START = {"status": 401, "headers": []}


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([{"body": b"a"}], "may send websocket.accept or websocket.close or .*start now, not .*body"),
        ([START, START], "may send websocket.http.response.body now, not websocket.http.response.start"),
        ([{"status": 199}, {}], "200 to 599"),
        ([{"status": 700}, {}], "200 to 599"),
        ([{"status": "401"}, {}], "int"),
        ([{"status": 204}, {"body": b"a"}], "no body"),
        ([START, {"body": "a"}], "bytes"),
        ([{"status": 401, "headers": [(b"a", b"\n")]}, {}], "control"),
    ],
    ids=["body first", "start twice", "199", "700", "str", "204 with a body", "a body of str", "header"],
)
def test_a_wrong_response_is_a_500(site: Site, caplog, events, error):
    visit = site.visit(response_of(*events))
    with site.ask(visit) as peer:
        status, _, body = parsed(peer.read_all())
    assert (status, body) == (500, b"Internal Server Error")
    with pytest.raises(Exception, match=error):
        visit.result()
    assert messages(caplog) == ["Exception in ASGI application"]


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.close", "websocket.send"])
def test_a_response_that_is_begun_can_only_go_on(site: Site, kind):
    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401})
        with pytest.raises(RuntimeError, match=r"may send websocket\.http\.response\.body now"):
            await send({"type": kind})
        await send({"type": "websocket.http.response.body"})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.ask(visit) as peer:
        assert parsed(peer.read_all())[0] == 401
    visit.result()


# Endings: exactly one websocket.disconnect, with code and reason

KEEP = b""  # the client keeps silent

ENDINGS = {
    # what the client sends and does, what it gets, and what the application receives
    "1000": (lambda peer: peer.send(peer.close(1000)), (1000, ""), (1000, "")),
    "1001": (lambda peer: peer.send(peer.close(1001)), (1001, ""), (1001, "")),
    "4001 with a reason": (
        lambda peer: peer.send(peer.close(4001, "b\xffe")),
        (4001, "b\xffe"),
        (4001, "b\xffe"),
    ),
    "no code": (lambda peer: peer.send(peer.close(None)), (1005, ""), (1005, "")),
    "Close in two packets": (
        lambda peer: (peer.send(peer.close(3000)[:3]), peer.send(peer.close(3000)[3:])),
        (3000, ""),
        (3000, ""),
    ),
    "violation": (lambda peer: peer.send(peer.violation), (1002, ...), (1002, ...)),
    "a code that must not be sent": (lambda peer: peer.send(peer.close(1006)), (1002, ...), (1002, ...)),
    "UTF-8": (lambda peer: peer.send(peer.encode(Opcode.TEXT, b"\xff")), (1007, ...), (1007, ...)),
    "too large": (
        lambda peer: peer.send(bytes([0x82, 0xFF]) + struct.pack("!Q", 2**24 + 1) + bytes(4)),
        (1009, ...),
        (1009, ...),
    ),
    "end of the stream": (lambda peer: peer.end(), None, (1006, ...)),
    "end of the stream in a frame": (
        lambda peer: (peer.send(peer.text("abc")[:3]), peer.end()),
        None,
        (1006, ...),
    ),
    "reset": (lambda peer: peer.reset(), None, (1006, ...)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_client_ends_it(site: Site, ending):
    act, gets, heard = ENDINGS[ending]
    for early in (False, True):
        visit = site.visit(hear)
        with case(early=early), site.open(visit) as peer:
            if early:
                peer.send(peer.text("a"))
                if ending == "reset":
                    while not visit.events[1:]:  # it overtakes what was sent
                        pass
            act(peer)
            if gets is not None:
                code, reason = peer.read_close()
                assert code == gets[0]
                assert gets[1] in (..., reason)
            elif ending != "reset":
                assert peer.read_all() == b""
            *received, end = visit.heard()
            assert received == [{"type": "websocket.receive", "text": "a"}] * early
            assert (end["type"], end["code"], type(end["reason"])) == ("websocket.disconnect", heard[0], str)
            assert end.keys() == {"type", "code", "reason"}
            if heard[1] is ...:
                assert end["reason"]
            else:
                assert end["reason"] == heard[1]


@pytest.mark.parametrize("ending", ["end", "reset"])
@pytest.mark.parametrize("waits", [False, True])
def test_the_client_goes_before_it_is_accepted(site: Site, ending, waits):
    """One that has closed one direction will never send, nor hear of an error: it is gone."""

    async def application(scope, receive, send):
        await receive()
        if waits:
            await to_the_end(receive, send)
            return
        while scope["extensions"]["wsframe"]["websocket"].state is not wsframe.State.CLOSED:
            await asyncio.sleep(0)
        with pytest.raises(OSError, match="clos"):
            await send(ACCEPT)
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.ask(visit) as peer:
        assert visit.scope
        getattr(peer, ending)()
        if ending == "end":
            assert peer.read_all() == b""
    (end,) = visit.heard()
    assert (end["code"], bool(end["reason"])) == (1006, True)


ANSWERS = {
    "the same": lambda peer: peer.send(peer.close(4000, "bye")),
    "another": lambda peer: peer.send(peer.text("late"), peer.close(4001, "no")),
    "none, end": lambda peer: peer.end(),
    "none, reset": lambda peer: peer.reset(),
    "violation": lambda peer: peer.send(peer.violation),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_application_ends_it(site: Site, answer):
    """It receives its own code, at once, whatever the client answers."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({**CLOSE, "code": 4000, "reason": "bye"})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert visit.heard() == [disconnect(4000, "bye")]
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (Opcode.CLOSE, b"\x0f\xa0bye")
        ANSWERS[answer](peer)
        if answer != "none, reset":
            assert peer.read_all() == b""


def test_the_client_never_answers_a_close(place, leaks, monkeypatch):
    monkeypatch.setattr("wsframe.asgi._CLOSE_TIMEOUT", 0.1)
    with site_at(place) as site:
        visit = site.visit(accept_and_close)
        with site.open(visit) as peer:
            assert peer.read_close() == (1000, "")
        assert visit.heard() == [disconnect(1000)]


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ({}, (1000, "")),
        ({"code": None, "reason": None}, (1000, "")),
        ({"code": 3000}, (3000, "")),
        ({"code": 1005}, (1005, "")),
        ({"code": 1008, "reason": "\xe4"}, (1008, "\xe4")),
    ],
    ids=["nothing", "None", "code", "1005", "reason"],
)
def test_the_application_closes(site: Site, event, end):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "last"})
        await send({**CLOSE, **event})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert peer.read_text() == "last"
        peer.send(peer.close())
        assert peer.read_close() == end
    assert visit.heard() == [disconnect(*end)]


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"code": 999}, "999"),
        ({"code": 1006}, "1006"),
        ({"code": "1000"}, "int"),
        ({"reason": "a" * 124}, "123"),
        ({"code": 1000, "reason": b"a"}, "str"),
    ],
    ids=["999", "1006", "str", "long", "bytes"],
)
def test_a_close_that_cannot_be_sent(site: Site, event, error):
    """It changes nothing."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with pytest.raises((wsframe.LocalProtocolError, TypeError, ValueError), match=error):
            await send({**CLOSE, **event})
        await send({"type": "websocket.send", "text": "open"})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert peer.read_text() == "open"
        close(peer, 4000)
    assert visit.heard() == [disconnect(4000)]


def test_a_pending_receive_is_woken_by_the_close_of_another_task(site: Site):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        pending = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send({**CLOSE, "code": 4000})
        assert await pending == disconnect(4000)
        await nothing_goes(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        visit.result()
        peer.send(peer.close(4001))
        assert peer.read_close() == (4000, "")


def test_what_was_queued_before_the_application_closes(site: Site):
    """It is not received any more, and the connection closes."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        await send(CLOSE)
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        peer.send(*[peer.encode(Opcode.BINARY, bytes(60_000)) for _ in range(40)])
        assert peer.next_frame().opcode is Opcode.CLOSE
        peer.send(peer.close())
        assert peer.frames() == []
    assert [event["type"] for event in visit.heard()] == ["websocket.receive", "websocket.disconnect"]


# Receiving


def test_a_receive_that_is_cancelled_loses_nothing(site: Site):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0)
            pending = asyncio.create_task(receive())
            await asyncio.sleep(0)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
        await send({"type": "websocket.send", "text": "go"})
        received = []
        while len(received) < 100:
            pending = asyncio.create_task(receive())
            await asyncio.wait([pending], timeout=0.0001 * (len(received) % 3))
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                received.append((await pending)["text"])
        assert received == list(map(str, range(100)))
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert peer.read_text() == "go"
        for number in range(100):
            peer.send(peer.text(str(number)))
        close(peer)
    visit.result()


def test_two_tasks_receive(site: Site):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task is receiving"):
            await receive()
        await send({"type": "websocket.send", "text": "go"})
        assert await first == {"type": "websocket.receive", "text": "a"}
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        peer.read_text()
        peer.send(peer.text("a"), peer.close())
        assert peer.read_close() == (1000, "")
    visit.result()


def test_an_answer_goes_out_before_the_close_of_the_same_packet(site: Site):
    visit = site.visit(echo)
    with site.open(visit) as peer:
        peer.send(peer.text("a"), peer.text("b"), peer.close(4000))
        assert [peer.read_text(), peer.read_text()] == ["a", "b"]
        assert peer.read_close() == (4000, "")
    assert visit.heard()[-1] == disconnect(4000)


def test_pings_are_answered(site: Site):
    visit = site.visit(hear)
    with site.open(visit) as peer:
        peer.send(peer.encode(Opcode.PING, b"a"))
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (Opcode.PONG, b"a")
        peer.send(peer.close())
        peer.read_close()
    assert visit.heard() == [disconnect(1000)]


# Wrong events


class Text(str):
    """As Django's SafeString is one."""


@pytest.mark.parametrize(
    ("event", "opcode", "payload"),
    [
        ({"text": "a", "bytes": None}, Opcode.TEXT, b"a"),
        ({"text": None, "bytes": b"a"}, Opcode.BINARY, b"a"),
        ({"text": ""}, Opcode.TEXT, b""),
        ({"bytes": b""}, Opcode.BINARY, b""),
        ({"text": Text("<b>")}, Opcode.TEXT, b"<b>"),
        ({"bytes": bytearray(b"a")}, Opcode.BINARY, b"a"),
        ({"bytes": memoryview(b"abc")[::2]}, Opcode.BINARY, b"ac"),
    ],
    ids=["text", "bytes", "empty text", "empty bytes", "a subclass of str", "bytearray", "memoryview"],
)
def test_send(site: Site, event, opcode, payload):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        if event.get("bytes") is not None and len(event["bytes"]) == 2:
            with pytest.raises((ValueError, TypeError, BufferError), match="contiguous"):
                await send({"type": "websocket.send", **event})
            event["bytes"] = bytes(event["bytes"])
        await send({"type": "websocket.send", **event})
        await to_the_end(receive, send)

    event = dict(event)
    visit = site.visit(application)
    with site.open(visit) as peer:
        frame = peer.next_frame()
        assert (frame.opcode, frame.payload) == (opcode, payload)
        peer.send(peer.close())
        peer.read_close()
    visit.result()


MUST = "websocket.send must have text, a str, or bytes"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({}, MUST),
        ({"text": None, "bytes": None}, MUST),
        ({"text": "a", "bytes": b"a"}, MUST),
        ({"text": b"a"}, MUST + ", not text=bytes and bytes=NoneType"),
        ({"text": 1}, MUST),
        ({"bytes": "a"}, MUST),
        ({"bytes": [1, 2]}, MUST + ", not text=NoneType and bytes=list"),
        ({"bytes": 1}, MUST),
        ({"text": "\ud800"}, "surrogate"),
    ],
    ids=["neither", "both None", "both", "bytes as text", "int", "str as bytes", "list", "5", "surrogate"],
)
def test_an_event_with_wrong_values(site: Site, event, error):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with pytest.raises((TypeError, wsframe.LocalProtocolError), match=error):
            await send({"type": "websocket.send", **event})
        await send({"type": "websocket.send", "text": "open"})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert peer.read_text() == "open"
        peer.send(peer.close())
        peer.read_close()
    visit.result()


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start", "http.response.start"])
def test_an_event_that_is_wrong_now(site: Site, kind):
    async def application(scope, receive, send):
        await receive()
        with pytest.raises(RuntimeError, match=r"may send .* now, not websocket\.send"):
            await send({"type": "websocket.send", "text": "a"})
        await send(ACCEPT)
        with pytest.raises(RuntimeError, match=f"may send .* now, not {kind}"):
            await send({"type": kind, "status": 200})
        await to_the_end(receive, send)

    visit = site.visit(application)
    with site.open(visit) as peer:
        peer.send(peer.close())
        peer.read_close()
    visit.result()


# Applications that end


class Trouble(Exception):
    pass


def ending(*, accepts: bool = False, starts: bool = False, error: BaseException | None, value: object = None):
    async def application(scope, receive, send):
        await receive()
        if accepts:
            await send(ACCEPT)
            await send({"type": "websocket.send", "text": "last"})
        if starts:
            await send({"type": "websocket.http.response.start", "status": 401})
            await send({"type": "websocket.http.response.body", "body": b"a", "more_body": True})
        if error is not None:
            raise error
        return value

    return application


@pytest.mark.parametrize("starts", [False, True], ids=["", "in a response"])
@pytest.mark.parametrize(
    "error", [Trouble(), None, asyncio.CancelledError()], ids=["raise", "return", "cancel"]
)
def test_an_application_ends_before_it_accepts(site: Site, caplog, error, starts):
    visit = site.visit(ending(error=error, starts=starts))
    with site.ask(visit) as peer:
        status, headers, body = parsed(peer.read_all())
    assert (status, headers["connection"], body) == (500, "close", b"Internal Server Error")
    site.settle()
    if isinstance(error, Trouble):
        assert messages(caplog) == ["Exception in ASGI application"]
    elif error is None:
        assert messages(caplog) == ["ASGI callable returned without completing handshake."]


@pytest.mark.parametrize(
    ("error", "value", "end", "says"),
    [
        (Trouble(), None, (1011, "internal error"), ["Exception in ASGI application"]),
        (asyncio.CancelledError(), None, (1011, "internal error"), []),
        (None, None, (1000, ""), []),
        (None, 7, (1011, "internal error"), ["ASGI callable should return None, but returned 7."]),
    ],
    ids=["raise", "cancel", "return", "return a value"],
)
def test_an_application_ends_when_it_has_accepted(site: Site, caplog, error, value, end, says):
    visit = site.visit(ending(accepts=True, error=error, value=value))
    with site.open(visit) as peer:
        assert peer.read_text() == "last"
        peer.send(peer.text("late"), peer.close())
        assert peer.read_close() == end
    site.settle()
    assert messages(caplog) == says


def test_an_application_ends_and_messages_are_still_coming(site: Site):
    visit = site.visit(ending(accepts=True, error=None))
    with site.open(visit) as peer:
        assert peer.read_text() == "last"
        peer.send(peer.encode(Opcode.BINARY, bytes(2**22)), peer.encode(Opcode.BINARY, bytes(2**24)))
        close(peer)


def test_an_application_ends_and_the_client_was_faster(site: Site):
    """Its Close is answered with its own code."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        websocket = scope["extensions"]["wsframe"]["websocket"]
        while websocket.close_code is None:
            await asyncio.sleep(0)

    visit = site.visit(application)
    with site.open(visit) as peer:
        close(peer, 4000)
    visit.result()


def test_an_application_that_does_not_mind_the_end(site: Site):
    """What send raises is an OSError that ends it silently."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while True:
            await send({"type": "websocket.send", "bytes": bytes(1000)})

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert peer.next_frame().payload == bytes(1000)
        peer.send(peer.close(CloseCode.GOING_AWAY))
        assert peer.frames()[-1].payload == b"\x03\xe9"
    with pytest.raises(OSError, match="clos"):
        visit.result()


@pytest.mark.parametrize("has_bug", [False, True])
def test_the_task_group_of_an_application_meets_the_end(site: Site, caplog, has_bug):
    """A group that holds nothing but what send raised ends silently; another one is logged, all of it."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        try:
            async with asyncio.TaskGroup(), asyncio.TaskGroup() as nested:
                nested.create_task(to_the_end(receive, send))
                while True:
                    await send({"type": "websocket.send", "bytes": bytes(1000)})
        except ExceptionGroup as error:
            if has_bug:
                raise ExceptionGroup("mixed", [error, Trouble()]) from None
            raise

    visit = site.visit(application)
    with site.open(visit) as peer:
        assert peer.next_frame() is not None
        peer.send(peer.close())
        peer.frames()
    with pytest.raises(ExceptionGroup):
        visit.result()
    site.settle()
    assert messages(caplog) == (["Exception in ASGI application"] if has_bug else [])


def test_the_task_may_raise_what_the_event_loop_must_see(place, leaks, caplog):
    """An application that is cancelled ends as cancelled."""

    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        tasks.extend(task for task in asyncio.all_tasks() if task is asyncio.current_task())
        await receive()

    tasks: list[asyncio.Task] = []
    with site_at(place) as site:
        visit = site.visit(application)
        with site.open(visit) as peer:
            while not tasks:
                pass
            site.loop.run(tasks[0].cancel)
            peer.send(peer.close())
            assert peer.read_close() == (1011, "internal error")
        site.settle()
        assert tasks[0].cancelled()
