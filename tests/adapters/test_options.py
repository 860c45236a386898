"""wsframe.adapter.options; both adapters take the same options, and describe them in the same words."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import re
import socket
from collections.abc import Callable

import pytest

from tests.support.cases import case
from wsframe import InvalidURI, LocalProtocolError, Origins, aio, sync
from wsframe.adapter.options import ClientOptions, ServerOptions, Timing
from wsframe.adapter.sockets import check_unix, is_unix


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout"])
def test_keepalive_is_positive_or_none(name):
    for seconds in (0.1, 5, None):
        assert getattr(Timing(**{name: seconds}), name) == seconds
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be positive, or None to switch it off, not"):
            Timing(**{name: seconds})


@pytest.mark.parametrize("field", dataclasses.fields(Timing), ids=lambda field: field.name)
def test_a_time_limit_is_a_number(field):
    with pytest.raises(TypeError, match=rf"{field.name} must be a number of seconds or None, not str"):
        Timing(**{field.name: "10"})


def test_the_limits_of_tls_are_those_of_opening_and_closing():
    assert Timing(1, 2).of_tls == {"ssl_handshake_timeout": 1, "ssl_shutdown_timeout": 2}


def test_options_cannot_be_changed():
    for options in (Timing(), ClientOptions("ws://h/"), ServerOptions()):
        for field in dataclasses.fields(options):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(options, field.name, None)
    assert pickle.loads(pickle.dumps(Timing(1, 2, 3, 4))) == Timing(1, 2, 3, 4)


def test_options_of_a_client_that_exclude_each_other():
    with socket.socket() as sock:
        for options, problem in (
            ({"sock": sock, "unix": "path"}, "unix and sock exclude each other"),
            ({"sock": sock, "proxy": "http://localhost"}, "proxy and sock exclude each other"),
            ({"unix": "path", "proxy": "http://localhost"}, "proxy and unix exclude each other"),
            ({"server_hostname": "h"}, "ssl and server_hostname go with wss:// addresses"),
        ):
            with case(options=options), pytest.raises(ValueError, match=problem):
                ClientOptions("ws://h/", **options)
    with pytest.raises(InvalidURI):
        ClientOptions("http://h/", server_hostname="h")


def test_the_number_of_redirects():
    for number in (0, 10):
        assert ClientOptions("ws://h/", max_redirects=number).max_redirects == number
    with pytest.raises(ValueError, match="max_redirects must be 0 or more, not -1"):
        ClientOptions("ws://h/", max_redirects=-1)
    with pytest.raises(TypeError, match="max_redirects must be an int, not NoneType"):
        ClientOptions("ws://h/", max_redirects=None)


def test_what_takes_the_place_of_a_tcp_connection():
    with socket.socket() as sock:
        assert ClientOptions("ws://h/").shortcut is None
        assert ClientOptions("ws://h/", unix="path").shortcut == "unix"
        assert ClientOptions("ws://h/", sock=sock, proxy=None).shortcut == "sock"


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"max_connections": 0}, ValueError, "max_connections must be 1 or more, not 0"),
        ({"max_connections": "1"}, TypeError, "max_connections must be an int, not str"),
        ({"subprotocols": ["a b"]}, LocalProtocolError, "a b"),
        ({"origins": ["example.com"]}, ValueError, "origin must be like"),
        ({"origins": "https://example.com"}, TypeError, "origins must be a list"),
        ({"compression": "deflate"}, TypeError, "Deflate"),
        ({"max_message_size": -1}, ValueError, "max_message_size"),
    ],
)
def test_wrong_options_of_a_server(options, error, problem):
    with pytest.raises(error, match=problem):
        ServerOptions(**options)


def test_origins_are_read_once():
    options = ServerOptions(origins=iter(["https://example.com"]))
    assert isinstance(options.origins, Origins)
    assert "https://example.com" in options.origins
    assert ServerOptions(origins=options.origins).origins is options.origins


def test_a_system_without_unix_sockets(monkeypatch):
    check_unix()
    with socket.socket(socket.AF_UNIX) as sock, socket.socket() as other:
        assert is_unix(sock)
        assert not is_unix(other)
        monkeypatch.delattr(socket, "AF_UNIX")
        assert not is_unix(other)
    for function in (
        check_unix,
        lambda: sync.connect("ws://h/", unix="path"),
        lambda: aio.connect("ws://h/", unix="path"),
        lambda: sync.serve(print, unix="path"),
        lambda: aio.serve(print, unix="path"),
    ):
        with pytest.raises(ValueError, match="this system has no Unix sockets"):
            function()


# Descriptions


def entries(function: Callable[..., object]) -> dict[str, str]:
    """Return the entries of the section Args of a docstring, on one line each."""
    section = inspect.getdoc(function).partition("\nArgs:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


@pytest.mark.parametrize("function", [aio.connect, aio.serve, sync.connect, sync.serve])
def test_every_option_is_described_in_its_order(function):
    described = list(entries(function))
    timing = [field.name for field in dataclasses.fields(Timing)]
    assert sorted(described) == sorted(inspect.signature(function).parameters)
    assert [name for name in described if name in timing] == timing


# What one adapter has, or says, and the other does not
ONLY_AIO = {"backoff", "is_fatal"}
OTHER_TYPES = {"handler", "process_request"}
OTHER_DEFAULTS = {"max_connections"}
MORE_IN_SYNC = {"open_timeout", "ping_interval"}
MORE_IN_AIO = {"process_request"}


@pytest.mark.parametrize(("one", "other"), [(aio.connect, sync.connect), (aio.serve, sync.serve)])
def test_both_adapters_have_the_same_options(one, other):
    here, there = inspect.signature(one).parameters, inspect.signature(other).parameters
    assert set(here) - set(there) == ONLY_AIO & set(here)
    assert [name for name in here if name in there] == list(there)
    for name in there:
        assert here[name].kind is there[name].kind, name
        assert (here[name].default == there[name].default) == (name not in OTHER_DEFAULTS), name
        assert name in OTHER_TYPES | OTHER_DEFAULTS or here[name].annotation == there[name].annotation, name


@pytest.mark.parametrize(("one", "other"), [(aio.connect, sync.connect), (aio.serve, sync.serve)])
def test_both_adapters_describe_an_option_in_the_same_words(one, other):
    here, there = entries(one), entries(other)
    for name in there:
        if name == "handler":
            assert here[name].replace("a coroutine function", "a function") == there[name]
        elif name in OTHER_DEFAULTS:
            assert here[name].partition(". ")[0] == there[name].partition(". ")[0]
        elif name in MORE_IN_SYNC and there[name] != here[name]:
            assert there[name].startswith(f"{here[name]} ")
        elif name in MORE_IN_AIO:
            assert here[name].startswith(f"{there[name]} ")
        else:
            assert here[name] == there[name], name
