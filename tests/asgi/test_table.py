"""The table of docs/asgi.md: one application and the same endings on each implementation under uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.adapters import TIMEOUT, request
from tests.support.asgi_site import ACCEPT, OURS, Site, site_at
from tests.support.paths import DOCS
from tests.support.tiers import full
from wsframe import Opcode

for module in ("uvicorn", "websockets", "wsproto"):
    pytest.importorskip(module)

PAGE = DOCS / "asgi.md"
PLACE = "h11-asyncio"
IMPLEMENTATIONS = {
    "websockets-sansio": "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
    "wsproto": "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
    "wsframe": OURS,
}

CLOSE = {"type": "websocket.close", "code": 4000, "reason": "ours"}


# The scope


async def look(scope, receive, send):
    await receive()
    await send(ACCEPT)
    await receive()


def scope_of(site: Site) -> dict[str, Any]:
    visit = site.visit(look)
    headers = ["X-A: \xe4", "x-a: 2", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c"]
    with site.ask(visit, *headers, more="/%C3%A4%20b?q=%20") as peer:
        scope = dict(visit.scope)
        peer.read_head()
        peer.send(peer.close())
        peer.read_all()
    visit.result()
    scope["path"] = scope["path"].removeprefix(visit.path)
    scope["raw_path"] = scope["raw_path"].removeprefix(visit.path.encode())
    for end in ("server", "client"):
        host, port = scope[end]
        scope[end] = (host, type(port).__name__)
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] == b"x-a"]
    scope["extensions"] = sorted(scope["extensions"])
    return scope


SCOPE = {
    "type": "`'websocket'`",
    "asgi": "`version`, and `spec_version`: the newest is 2.5",
    "http_version": "optional, `'1.1'` if it is missing",
    "scheme": "`'ws'` or `'wss'`, of this connection",
    "server": "host and port, or a path and `None`, or `None`",
    "client": "host and port, or `None`",
    "root_path": "optional, `''`",
    "path": "decoded, of `/%C3%A4%20b`",
    "raw_path": "optional; bytes as they came",
    "query_string": "bytes, percent-encoded",
    "headers": "bytes, names in lower case, each header by itself: here `X-A`, twice",
    "subprotocols": "a list, here of two headers",
    "state": "optional; a shallow copy of the lifespan's",
    "extensions": "optional; here its keys",
}


# How it ends: what the application receives


def quiet(application):
    """Keep what an application returns for the test: uvicorn wants it to be None."""

    async def run(scope, receive, send):
        results.append(await application(scope, receive, send))

    results: list[Any] = []
    run.results = results
    return run


async def disconnects(receive) -> str:
    """Describe every websocket.disconnect, and what comes after it."""
    seen = []
    while True:
        try:
            event = await asyncio.wait_for(receive(), 2 if not seen else 0.2)
        except TimeoutError:
            break
        except RuntimeError:
            break
        if event["type"] == "websocket.disconnect":
            reason = event.get("reason", ...)
            says = "no reason" if reason is ... else f"`{reason!r}`" if reason != "" else "`''`"
            seen.append(f"{event['code']}, {says}")
    return " and then ".join(seen) or "nothing"


def result_of(site: Site, application, act: Callable[[Any], object], *, opens: bool = True) -> str:
    run = quiet(application)
    visit = site.visit(run)
    with (site.open if opens else site.ask)(visit) as peer:
        assert visit.scope
        act(peer)
        try:
            peer.sock.settimeout(TIMEOUT)
            peer.read_all()
        except OSError:
            pass
    visit.result()
    return run.results[0]


def by_client(act):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        return await disconnects(receive)

    return lambda site: result_of(site, application, act)


def by_application(act):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send(CLOSE)
        return await disconnects(receive)

    return lambda site: result_of(site, application, act)


def by_denial(*events):
    async def application(scope, receive, send):
        await receive()
        for event in events:
            await send(event)
        return await disconnects(receive)

    return lambda site: result_of(site, application, lambda peer: None, opens=False)


def before_accept(site: Site) -> str:
    async def application(scope, receive, send):
        await receive()
        return await disconnects(receive)

    return result_of(site, application, lambda peer: peer.reset(), opens=False)


def shutdown(site: Site) -> str:
    def act(peer):
        # As uvicorn does to each of its connections
        connections = site.server.server_state.connections
        site.loop.run(lambda: [connection.shutdown() for connection in list(connections)])
        peer.next_frame()
        peer.send(peer.close(1012))

    return by_client(act)(site)


LARGE = bytes([0x82, 0xFF]) + (2**24 + 1).to_bytes(8, "big") + bytes(4)
START = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY = {"type": "websocket.http.response.body", "body": b"no"}

ENDINGS = {
    "client closes, 4001 `'bye'`": (
        "its code and reason",
        by_client(lambda peer: peer.send(peer.close(4001, "bye"))),
    ),
    "client closes, no code": ("1005", by_client(lambda peer: peer.send(peer.close(None)))),
    "client is gone, end of the stream": ("1006", by_client(lambda peer: peer.end())),
    "client is gone, reset": ("1006", by_client(lambda peer: peer.reset())),
    "client is gone before accept": ("1006", before_accept),
    "client breaks the protocol": ("", by_client(lambda peer: peer.send(peer.violation))),
    "client sends text that is not UTF-8": (
        "",
        by_client(lambda peer: peer.send(peer.encode(Opcode.TEXT, b"\xff"))),
    ),
    "client sends more than `ws_max_size`": ("", by_client(lambda peer: peer.send(LARGE))),
    "application closes, 4000 `'ours'`": (
        "\u201cthe server closing the connection\u201d",
        by_application(lambda peer: (peer.next_frame(), peer.send(peer.close(4000, "ours")))),
    ),
    "the same, and the client answers 4001": (
        "",
        by_application(lambda peer: (peer.next_frame(), peer.send(peer.close(4001, "its")))),
    ),
    "application denies by `websocket.close`": ("1006", by_denial({"type": "websocket.close"})),
    "application denies by a response": ("1006", by_denial(START, BODY)),
    "server shuts down": ("", shutdown),
}


# What the client gets


def client_gets(*events, error: Exception | None = None, headers: tuple[str, ...] = ()):
    async def application(scope, receive, send):
        await receive()
        for event in events:
            await send(event)
        if error is not None:
            raise error

    def measure(site: Site) -> str:
        visit = site.visit(application)
        with site.ask(visit, *headers) as peer:
            peer.read_head()
            status = peer.head.split()[1].decode() if peer.head else "cut"
            if status != "101":
                return status
            if events[-1].get("subprotocol"):
                return "101"
            frame = peer.next_frame()
            return "cut" if frame is None else f"Close {int.from_bytes(frame.payload[:2], 'big')}"

    return measure


def after(act, first, opens=True):
    """Return what measures what send raises after the end."""

    async def application(scope, receive, send):
        await receive()
        for event in first:
            await send(event)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "a"})
        except OSError:
            return "OSError"
        except Exception as error:
            return type(error).__name__
        return "nothing"

    return lambda site: result_of(site, application, act, opens=opens)


def second_receive(site: Site) -> str:
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        try:
            await asyncio.wait_for(receive(), 0.3)
        except TimeoutError:
            return "it waits for ever"
        except RuntimeError:
            return "RuntimeError"
        return "another event"

    return result_of(site, application, lambda peer: peer.send(peer.close()))


def keys_of(data: Callable[[Any], bytes]):
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        return repr(await receive())

    def act(peer):
        peer.send(data(peer))
        peer.send(peer.close())

    return lambda site: f"`{result_of(site, application, act)}`"


def early(site: Site) -> str:
    async def application(scope, receive, send):
        await receive()
        await send(ACCEPT)
        return (await receive())["type"]

    run = quiet(application)
    visit = site.visit(run)
    with site.connect() as peer:
        peer.send(request(path=visit.path), peer.text("early"))
        peer.read_head()
        peer.send(peer.close())
        peer.read_all()
        visit.result()
    return "kept" if run.results == ["websocket.receive"] else "lost"


OTHERS = {
    "receives text": ("`text` or `bytes`, the other missing or None", keys_of(lambda peer: peer.text("a"))),
    "receives bytes": ("", keys_of(lambda peer: peer.encode(Opcode.BINARY, b"a"))),
    "frames that come with the request (h11)": ("", early),
    "receives again after the disconnect": ("", second_receive),
    "sends after the client has closed": (
        "an OSError",
        after(lambda peer: peer.send(peer.close()), [ACCEPT]),
    ),
    "sends after it has closed": (
        "an OSError",
        after(lambda peer: (peer.next_frame(), peer.send(peer.close())), [ACCEPT, CLOSE]),
    ),
    "sends after it has denied": (
        "an OSError",
        after(lambda peer: None, [{"type": "websocket.close"}], opens=False),
    ),
    "denies: the client gets": ("403", client_gets({"type": "websocket.close"})),
    "begins a response, and ends": (
        "nothing is sent before the first body",
        client_gets(START),
    ),
    "raises before accept: the client gets": ("", client_gets(error=ValueError("expected"))),
    "raises after accept: the client gets": ("", client_gets(ACCEPT, error=ValueError("expected"))),
    "returns after accept: the client gets": ("", client_gets(ACCEPT)),
    "accepts a subprotocol that was not offered": (
        "",
        client_gets({**ACCEPT, "subprotocol": "z"}, headers=("Sec-WebSocket-Protocol: a",)),
    ),
}


def cell(value: object) -> str:
    return f"`{value!r}`".replace("|", "\\|")


def measured() -> list[str]:
    """Return the lines of the table."""
    columns: list[dict[str, str]] = []
    for implementation in IMPLEMENTATIONS.values():
        with site_at(PLACE, ws=implementation) as site:
            scope = scope_of(site)
            assert scope.keys() == SCOPE.keys()
            column = {f'`scope["{key}"]`': cell(scope[key]) for key in SCOPE}
            for name, (_, measure) in {**ENDINGS, **OTHERS}.items():
                column[name] = measure(site)
            columns.append(column)
            site.settle()
    specification = {f'`scope["{key}"]`': text for key, text in SCOPE.items()}
    specification |= {name: text for name, (text, _) in {**ENDINGS, **OTHERS}.items()}
    return [
        "| " + " | ".join([name, text or "-", *(column[name] for column in columns)]) + " |"
        for name, text in specification.items()
    ]


@full
def test_the_table_says_what_is(caplog):
    lines = measured()
    said = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [line for line in lines if line not in said] == []


if __name__ == "__main__":
    print("\n".join(measured()))
