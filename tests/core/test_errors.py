from __future__ import annotations

import pickle

import pytest

from wsframe import errors
from wsframe.errors import (
    ConnectionClosed,
    HandshakeFailed,
    HandshakeRejected,
    InvalidRequest,
    InvalidURI,
    LocalProtocolError,
    RemoteProtocolError,
    WebSocketError,
    is_only,
)
from wsframe.events import Response

SAMPLES = [
    (LocalProtocolError("text is not UTF-8"), "text is not UTF-8"),
    (RemoteProtocolError(1002, "reserved bits must be zero"), "reserved bits must be zero (1002)"),
    (InvalidRequest(405, "method must be GET", (("Allow", "GET"),)), "method must be GET (1002)"),
    (InvalidURI("uri has no host"), "uri has no host"),
    (HandshakeFailed("no"), "no"),
    (HandshakeFailed("Upgrade header is missing", Response(101)), "Upgrade header is missing"),
    (HandshakeRejected("server answered with status 404", Response(404)), "server answered with status 404"),
    (ConnectionClosed(1000, clean=True), "connection closed: 1000"),
    (ConnectionClosed(1001, "going away", True), "connection closed: 1001 going away"),
    (ConnectionClosed(1006), "connection lost or failed: 1006"),
]


@pytest.mark.parametrize(("error", "text"), SAMPLES)
def test_str_says_what_went_wrong(error, text):
    assert str(error) == text


@pytest.mark.parametrize("error", [error for error, _ in SAMPLES])
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("name", sorted({*errors.__all__} - {"is_only"}))
def test_every_error_is_a_websocket_error(name):
    assert issubclass(getattr(errors, name), WebSocketError)


def test_a_group_is_of_a_kind_when_all_that_it_holds_is():
    closed, bug = ConnectionClosed(1000), ValueError("bug")

    def group(*exceptions):
        return ExceptionGroup("group", exceptions)

    for error in closed, group(closed), group(closed, closed), group(group(closed), closed):
        assert is_only(error, ConnectionClosed)
        assert is_only(error, WebSocketError)
        assert not is_only(error, ValueError)
    for error in bug, group(bug), group(closed, bug), group(group(bug), closed), group(group(closed, bug)):
        assert not is_only(error, ConnectionClosed)


def test_an_invalid_uri_is_a_value_error():
    assert issubclass(InvalidURI, ValueError)


def test_an_invalid_request_is_a_protocol_error_of_the_peer():
    error = InvalidRequest(405, "method must be GET", (("Allow", "GET"),))
    assert isinstance(error, RemoteProtocolError)
    assert (error.code, error.reason) == (1002, "method must be GET")
    assert (error.status, error.headers) == (405, (("Allow", "GET"),))
    assert InvalidRequest(400, "no").headers == ()


def test_a_handshake_that_failed_may_have_a_response():
    assert HandshakeFailed("no").response is None
    assert HandshakeFailed("no", Response(101)).response == Response(101)


def test_a_handshake_that_was_rejected_has_a_response():
    error = HandshakeRejected("no", Response(404))
    assert isinstance(error, HandshakeFailed)
    assert (error.status, error.response) == (404, Response(404))
    with pytest.raises(TypeError):
        HandshakeRejected("no")


def test_connection_closed_carries_code_reason_and_clean():
    error = ConnectionClosed(1001, "going away", True)
    assert (error.code, error.reason, error.clean) == (1001, "going away", True)
    assert (ConnectionClosed(1006).reason, ConnectionClosed(1006).clean) == ("", False)
