"""The wording of errors: the text of the system, TLS or the server, in a line."""

from __future__ import annotations

import os
import re
import socket
import ssl
from http import HTTPStatus

from ..events import Response

__all__ = ["describe", "is_own_timeout", "reason_of", "strerror"]

_EXCERPT = 100  # characters of a response's body


def strerror(code: int) -> str:
    """Return the text of an error number.

    Args:
        code: the ``errno``.
    """
    # The event loops have texts of their own. Windows has its in the table.
    return str(getattr(socket, "errorTab", {}).get(code) or os.strerror(code))


def is_own_timeout(error: BaseException) -> bool:
    """Return whether an error says that one of our own time limits has passed.

    The system gives up, too: after its own time, with a TimeoutError that has an ``errno``.

    Args:
        error: the error.
    """
    return isinstance(error, TimeoutError) and error.errno is None


def reason_of(error: OSError) -> str:
    """Return why a network operation failed, in a few words.

    Args:
        error: the error that it raised.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError) or not str(error):
        return "server closed the connection"
    if isinstance(error, ssl.SSLError) and (reason := getattr(error, "reason", None)):
        return str(reason).replace("_", " ").lower()
    return error.strerror or str(error)


def describe(response: Response) -> str:
    """Describe a response in a line: its status, and the beginning of its body when that is text.

    Args:
        response: the response.
    """
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = ""
    text = f"status {response.status} {phrase}".rstrip()
    if 200 <= response.status < 300:
        text += ", so there is no WebSocket at this address"
    excerpt = _excerpt(response)
    return text if excerpt in ("", phrase) else f"{text}: {excerpt}"


def _excerpt(response: Response) -> str:
    kind = response.headers.get("content-type", "text/plain").lower()
    if not kind.startswith(("text/", "application/json", "application/problem+json")):
        return ""
    text = response.body[: _EXCERPT * 40].decode("utf-8", "replace")
    if "html" in kind:
        text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "..."
