"""RFC 6455, section 4.2.2, item 4: answers of a server that does not open the connection.

    redirect("/v2/chat")                      a Response: 302, Location
    basic_auth({"ada": "secret"})             a process_request: 401 for unknown users

A ``process_request`` decides how a server answers a request. ``redirect`` makes a response for it to return,
and ``basic_auth`` makes such a function. Both also fit a program that answers a ``ServerConnection`` itself.
"""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from typing import TypeAlias, overload

from ..errors import LocalProtocolError
from ..events import Request, Response
from ..handshake import HeaderList, check_header, check_headers

__all__ = ["AsyncCheck", "AsyncProcessRequest", "Check", "ProcessRequest", "basic_auth", "redirect"]

ProcessRequest: TypeAlias = Callable[[Request], Response | None]
"""A function that decides how a server answers a request.

It returns None to accept the request, ``Response(101, headers, subprotocol=...)`` to accept it with more
headers and a subprotocol of your choice, or any other ``Response`` to reject it.
"""

AsyncProcessRequest: TypeAlias = Callable[[Request], "Response | Awaitable[Response | None] | None"]
"""A ``ProcessRequest`` for ``wsframe.aio``: it may be a coroutine function."""

Check: TypeAlias = Callable[[str, str], bool]
"""A function that is called with a name and a password, and returns whether they are right."""

AsyncCheck: TypeAlias = Callable[[str, str], "bool | Awaitable[bool]"]
"""A ``Check`` for ``wsframe.aio``: it may be a coroutine function."""


def redirect(location: str, status: int = 302, headers: HeaderList = ()) -> Response:
    """Return a response that sends the client elsewhere (RFC 9110, section 15.4).

    Args:
        location: an absolute or relative reference, such as ``wss://example.com/chat`` or ``/v2/chat``;
            what is not ASCII is percent-encoded already.
        status: 301, 302, 303, 307 or 308.
        headers: more headers for the response. A value in ``bytes`` goes out as it is, a ``str`` in
            ISO 8859-1.

    Raises:
        LocalProtocolError: the location is empty, or has a space, a control character or one that is not
            ASCII; or a header cannot be sent.
        ValueError: the status is another one, or the value of a header has a character outside ISO 8859-1.
        TypeError: an argument has a wrong type.
    """
    if status not in (301, 302, 303, 307, 308):
        raise ValueError(f"status of a redirect must be 301, 302, 303, 307 or 308, not {status}")
    if not isinstance(location, str):
        raise TypeError(f"location must be a str, not {type(location).__name__}")
    if not location or not location.isascii() or not location.isprintable() or " " in location:
        raise LocalProtocolError(
            f"location must be visible ASCII, with everything else percent-encoded, not {location!r}"
        )
    return Response(status, [("Location", location), *check_headers(headers)])


@overload
def basic_auth(
    credentials: Mapping[str, str] | tuple[str, str] | Check,
    *,
    realm: str | bytes = "WebSocket",
    process_request: ProcessRequest | None = None,
) -> ProcessRequest: ...


@overload
def basic_auth(
    credentials: Mapping[str, str] | tuple[str, str] | AsyncCheck,
    *,
    realm: str | bytes = "WebSocket",
    process_request: AsyncProcessRequest | None = None,
) -> AsyncProcessRequest: ...


def basic_auth(
    credentials: Mapping[str, str] | tuple[str, str] | AsyncCheck,
    *,
    realm: str | bytes = "WebSocket",
    process_request: AsyncProcessRequest | None = None,
) -> AsyncProcessRequest:
    """Return a ``process_request`` that lets clients with a name and a password through (RFC 7617).

    Others get a 401, and so do credentials that are malformed. The time that the check takes depends only on
    what the client sent: not on whether there is such a name, nor on how much of a password is right.

    Args:
        credentials: a mapping of names to passwords, one pair of them, or a function that is called with both
            and returns whether they are right; for ``wsframe.aio`` it may be a coroutine function.
        realm: the name that the server gives to what it protects. It goes out as the value of a header does:
            ``bytes`` as they are, a ``str`` in ISO 8859-1.
        process_request: decides how to answer a request that was let through; None: accept it.

    Raises:
        LocalProtocolError: the realm has a control character.
        ValueError: the realm has a character outside ISO 8859-1; a name has a colon, or a name or password a
            control character or lone surrogate.
        TypeError: the credentials are none of these.
    """
    from inspect import iscoroutinefunction  # which takes as long to import as all of wsframe

    if not isinstance(realm, (str, bytes)):
        raise TypeError(f"realm must be a str or bytes, not {type(realm).__name__}")
    name = "WWW-Authenticate"
    quoted = check_header(name, realm).replace("\\", "\\\\").replace('"', '\\"')
    challenge = (name, f'Basic realm="{quoted}", charset="UTF-8"')
    refusal = Response(401, [challenge], b"name and password are required\n")
    check = credentials if callable(credentials) else _known(credentials)

    def go_on(request: Request, is_right: bool) -> Response | Awaitable[Response | None] | None:
        if not is_right:
            return refusal
        return None if process_request is None else process_request(request)

    async def go_on_later(request: Request, verdict: bool | Awaitable[bool]) -> Response | None:
        response = go_on(request, await verdict if isinstance(verdict, Awaitable) else verdict)
        return await response if isinstance(response, Awaitable) else response

    def process(request: Request) -> Response | Awaitable[Response | None] | None:
        pair = _read_credentials(request)
        verdict = pair is not None and check(*pair)
        if isinstance(verdict, Awaitable):
            return go_on_later(request, verdict)
        return go_on(request, bool(verdict))

    async def process_later(request: Request) -> Response | None:
        pair = _read_credentials(request)
        return await go_on_later(request, pair is not None and check(*pair))

    # Where one must be awaited, the result is a coroutine function: wsframe.sync refuses it at once.
    return process_later if iscoroutinefunction(check) or iscoroutinefunction(process_request) else process


def _known(credentials: Mapping[str, str] | tuple[str, str]) -> Callable[[str, str], bool]:
    if isinstance(credentials, Mapping):
        pairs = list(credentials.items())
    elif isinstance(credentials, tuple) and len(credentials) == 2:
        pairs = [credentials]
    else:
        kind = type(credentials).__name__  # and not what they are: they are secret
        raise TypeError(f"credentials must be a mapping, a pair (tuple) or a function, not {kind}")
    known = [(_encode(name, "name"), _encode(password, "password")) for name, password in pairs]
    if any(b":" in name for name, _ in known):
        raise ValueError("a name must not have a colon: RFC 7617 ends it there")

    def is_known(name: str, password: str) -> bool:
        given = name.encode(), password.encode()
        is_right = False
        for right in known:
            # All of them, and both halves of each: an unknown name takes as long as a known one.
            is_right |= compare_digest(right[0], given[0]) & compare_digest(right[1], given[1])
        return is_right

    return is_known


def _encode(text: str, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a {what} must be str, not {type(text).__name__}")
    data = text.encode()
    if _has_controls(data):
        raise ValueError(f"a {what} must not have control characters")
    return data


def _has_controls(data: bytes) -> bool:
    return any(byte < 0x20 or byte == 0x7F for byte in data)


def _read_credentials(request: Request) -> tuple[str, str] | None:
    """Return the name and the password of a request, or None (RFC 7617, section 2)."""
    # 1. One Authorization header: of two, a proxy may have looked at the other one.
    values = request.headers.get_all("authorization")
    if len(values) != 1:
        return None
    # 2. "credentials = auth-scheme [ 1*SP ( token68 / #auth-param ) ]", the scheme in any case
    scheme, _, token = values[0].strip(" \t").partition(" ")
    if scheme.lower() != "basic":
        return None
    # 3. token68 is base64 of what is UTF-8, as our challenge says.
    try:
        data = binascii.a2b_base64(token.lstrip(" "), strict_mode=True)
        name, colon, password = data.decode().partition(":")
    except ValueError:
        return None
    # 4. "The user-id and password MUST NOT contain any control characters"
    return (name, password) if colon and not _has_controls(data) else None
