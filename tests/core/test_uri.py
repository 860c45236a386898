from __future__ import annotations

import pytest

from tests.support.cases import case
from wsframe.errors import InvalidURI
from wsframe.uri import URI, join_uri, parse_uri


@pytest.mark.parametrize(
    ("uri", "parts", "host_header"),
    [
        # RFC 6455, section 3: default ports and path, scheme and host in any case
        ("ws://localhost", (False, "localhost", 80, "/"), "localhost"),
        ("wss://localhost", (True, "localhost", 443, "/"), "localhost"),
        ("WSS://Example.COM/Chat", (True, "example.com", 443, "/Chat"), "example.com"),
        ("ws://localhost:8001/chat?room=1", (False, "localhost", 8001, "/chat?room=1"), "localhost:8001"),
        ("ws://h:443/", (False, "h", 443, "/"), "h:443"),
        ("wss://h:443/", (True, "h", 443, "/"), "h"),
        ("ws://h:080/", (False, "h", 80, "/"), "h"),
        ("ws://h:/", (False, "h", 80, "/"), "h"),
        ("ws://h?q", (False, "h", 80, "/?q"), "h"),
        ("ws://h/?", (False, "h", 80, "/?"), "h"),
        ("ws://h//a?b?c", (False, "h", 80, "//a?b?c"), "h"),
        # Hosts: RFC 3986, section 3.2.2; IDNA; RFC 6874, section 4: the zone stays at home
        ("ws://127.0.0.1:99/", (False, "127.0.0.1", 99, "/"), "127.0.0.1:99"),
        ("ws://[::1]/", (False, "::1", 80, "/"), "[::1]"),
        ("ws://[2001:DB8::1]:99/", (False, "2001:db8::1", 99, "/"), "[2001:db8::1]:99"),
        ("ws://[fe80::1%25Eth0]:99/", (False, "fe80::1%Eth0", 99, "/"), "[fe80::1]:99"),
        ("ws://a_b-c~%41.(d)!/", (False, "a_b-c~%41.(d)!", 80, "/"), "a_b-c~%41.(d)!"),
        ("ws://Bücher.example/", (False, "xn--bcher-kva.example", 80, "/"), "xn--bcher-kva.example"),
        # Path and query are percent-encoded once
        ("ws://h/ü?ü", (False, "h", 80, "/%C3%BC?%C3%BC"), "h"),
        ("ws://h/%C3%BC%2f?%20", (False, "h", 80, "/%C3%BC%2f?%20"), "h"),
        ("ws://h/\u3000", (False, "h", 80, "/%E3%80%80"), "h"),
        ('ws://h/<>"[]', (False, "h", 80, "/%3C%3E%22%5B%5D"), "h"),
        ('ws://h/?<>"[]', (False, "h", 80, "/?%3C%3E%22[]"), "h"),
        ("ws://h/!$&'()*+,;=:@-._~", (False, "h", 80, "/!$&'()*+,;=:@-._~"), "h"),
        # User information
        ("ws://user@h/", (False, "h", 80, "/", "user"), "h"),
        ("ws://user:pass@h:99/", (False, "h", 99, "/", "user", "pass"), "h:99"),
        ("ws://us%40er:p%3Ass%C3%BC@h/", (False, "h", 80, "/", "us@er", "p:ssü"), "h"),
        ("ws://user:@h/", (False, "h", 80, "/", "user", ""), "h"),
        ("ws://user:p@ss@[::1]:99/", (False, "::1", 99, "/", "user", "p@ss"), "[::1]:99"),
    ],
)
def test_an_address_is_taken_apart_rfc6455_3(uri, parts, host_header):
    assert parse_uri(uri) == URI(*parts)
    assert parse_uri(uri).host_header == host_header


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", "scheme"),
        ("localhost", "scheme"),
        ("//h/", "scheme"),
        ("http://h/", "scheme"),
        ("wsx://h/", "scheme"),
        # "Fragment identifiers [...] MUST NOT be used on these URIs"
        ("ws://h/#a", "fragment"),
        ("ws://h/#", "fragment"),
        ("ws://h?#", "fragment"),
        ("ws:h", "host"),
        ("ws:/h", "host"),
        ("ws:///a", "host"),
        ("ws://:80/", "host"),
        ("ws://user@/", "host"),
        ("ws://@/", "host"),
        ("ws://h:0/", "port"),
        ("ws://h:65536/", "(?i)port"),
        ("ws://h:-1/", "(?i)port"),
        ("ws://h:+1/", "(?i)port"),
        ("ws://h:a/", "(?i)port"),
        ("ws://h:\uff18\uff10/", "(?i)port"),
        ("ws://a:1:2/", "(?i)port"),
        ("ws://::1/", "(?i)port"),
        ("ws://[::1/", "malformed"),
        ("ws://[::1]x/", "host"),
        ("ws://[::1].example/", "host"),
        ("ws://[fe80::1%eth0]/", "host"),
        ("ws://[fe80::1%25]/", "host"),
        ("ws://[v1.a]/", "host"),
        ("ws://[v1.a:b]/", "host"),
        ("ws://a%4/", "host"),
        ("ws://a^b/", "host"),
        ('ws://a"b/', "host"),
        ("ws://\u2100/", "malformed"),
        ("ws://é" + "a" * 63 + "/", "host"),
        # A browser reads this as host a, others as host b.
        ("ws://a\\@b/", "host"),
        ("ws://h/" + "a" * 8186, "8192"),
    ],
)
def test_what_is_no_address_is_refused_rfc6455_3(uri, problem):
    with pytest.raises(InvalidURI, match=problem):
        parse_uri(uri)


NOT_FOR_A_URI = [chr(i) for i in (*range(0x21), *range(0x7F, 0xA1), 0x2028, 0x2029, 0xD800, 0xDFFF)]


@pytest.mark.parametrize(
    "template", ["{}ws://h/", "w{}s://h/", "ws://{}@h/", "ws://h{}/", "ws://h/{}", "ws://h/?{}"]
)
def test_spaces_control_characters_and_surrogates_are_refused(template):
    for character in NOT_FOR_A_URI:
        with case(character=character), pytest.raises(InvalidURI, match="space"):
            parse_uri(template.format(character))


def test_the_longest_address_is_fine():
    uri = "ws://h/" + "a" * 8185
    assert len(parse_uri(uri).resource_name) == 8186


def test_an_address_is_a_str():
    for uri in [None, b"ws://h/", 1]:
        with case(uri=uri), pytest.raises(TypeError, match="uri must be a str"):
            parse_uri(uri)


@pytest.mark.parametrize(
    "uri", ["http://me:secret@x/", "ws://me:secret@x:99999/", "ws://me:secret@a\u2100b/"]
)
def test_an_error_does_not_tell_the_password(uri):
    with pytest.raises(InvalidURI) as error:
        parse_uri(uri)
    assert "secret" not in str(error.value)
    assert "//...@" in str(error.value)


@pytest.mark.parametrize(
    "secret",
    [
        "ws://user:sec#ret@h/",
        "ws://user:sec/ret@h:x/",
        "http://a:sec?ret@b@h/",
        "ws://user:sec\nret@h/",
        "user:sec//ret@h/",
        "ws://user:a\nsec@h/",
        "user:sec@h",
    ],
)
def test_a_password_is_not_shown_even_when_it_should_have_been_encoded(secret):
    with pytest.raises(InvalidURI) as caught:
        parse_uri(secret)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "ws:", "http:", "ws://["])
def test_a_malformed_location_is_refused_in_linear_time(scheme):
    """A server chooses what stands in it."""
    for junk in ("/", "//", "@", "/@", "[", "?", "\n", "://"):
        with case(junk=junk), pytest.raises(InvalidURI):
            join_uri("ws://user:password@h/", scheme + junk * 500_000)


@pytest.mark.parametrize(
    ("uri", "location", "target"),
    [
        # RFC 3986, section 5.4: relative to the address
        ("ws://h/a/b?q", "c", "ws://h/a/c"),
        ("ws://h/a/b?q", "/c?r", "ws://h/c?r"),
        ("ws://h/a/b?q", "?r", "ws://h/a/b?r"),
        ("ws://h/a/b?q", "../c", "ws://h/c"),
        ("ws://h/a/b?q", "", "ws://h/a/b?q"),
        ("wss://h/a", "//i:9/b", "wss://i:9/b"),
        # Another address
        ("ws://h/", "wss://i/b", "wss://i/b"),
        ("ws://h/", "http://h/b", "ws://h/b"),
        ("ws://h/", "HTTPS://h/b", "wss://h/b"),
        ("ws://h/", "https://[::1]:9/b", "wss://[::1]:9/b"),
        # A fragment is for who shows a page
        ("ws://h/", "http://h/b#top", "ws://h/b"),
        ("ws://h/", "#top", "ws://h/"),
        # Bytes that should have been encoded
        ("ws://h/", "/\xc3\xbc b", "ws://h/%C3%BC%20b"),
        ("ws://h/", "/%C3%BC%2f", "ws://h/%C3%BC%2f"),
        # User name and password are for the same scheme, host and port
        ("ws://u%40:p@h/a", "b", "ws://u%40:p@h/b"),
        ("ws://u:p@h/a", "/http://x@y/", "ws://u:p@h/http://x@y/"),
        ("ws://u:p@h/a", "//H:80/b", "ws://u:p@H:80/b"),
        ("ws://u:p@h/a", "http://h/b", "ws://u:p@h/b"),
        ("ws://u:p@h/a", "https://h/b", "wss://h/b"),
        ("ws://u:p@h/a", "//h:81/b", "ws://h:81/b"),
        ("ws://u:p@h/a", "//i/b", "ws://i/b"),
    ],
)
def test_where_a_redirect_leads_to_rfc9110_10_2_2(uri, location, target):
    assert join_uri(uri, location) == target


@pytest.mark.parametrize(
    "location",
    [
        "ftp://h/",
        "http://v:w@h/",
        "//v@h/",
        "http://@h/",
        "mailto:a@b",
        "http://",
        "http://h:x/",
        "http://[::1",
        "http://h\u20ac/",
        "x" * 9000,
    ],
)
def test_where_no_redirect_leads_to(location):
    with pytest.raises(InvalidURI):
        join_uri("ws://h/", location)


@pytest.mark.parametrize(
    ("uri", "authority"),
    [("ws://h/", "h:80"), ("wss://h/", "h:443"), ("ws://[::1]:9/", "[::1]:9")],
)
def test_host_and_port(uri, authority):
    assert parse_uri(uri).authority == authority
