"""Origins: what operators list and what clients send, in the form in which browsers write them."""

from __future__ import annotations

import pytest

from keepline.ops.origins import Origins, normalised

AS_BROWSERS_WRITE_IT = {
    "*": "*",
    "null": "null",
    "https://app.example": "https://app.example",
    "HTTPS://App.Example:443": "https://app.example",
    "http://app.example:80": "http://app.example",
    "https://app.example:80": "https://app.example:80",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://*.Bücher.example:8443": "https://*.xn--bcher-kva.example:8443",
    "https://[::0001]:8080": "https://[::1]:8080",
    "http://10.0.2.2:8081": "http://10.0.2.2:8081",
    "http://my_host:3000": "http://my_host:3000",
    "capacitor://localhost": "capacitor://localhost",
    "chrome-extension://mfaihlgmnbdhhcjkdgjjgpcchcbnnfae": "chrome-extension://mfaihlgmnbdhhcjkdgjjgpcchcbnnfae",
}
NEVER_MATCHES = {
    "app.example": "no scheme",
    "//app.example": "no scheme",
    "https://": "not a domain name",
    "https://app.example/": "without a path",
    "https://app.example?": "without a path",
    "https://user@app.example": "without a path, query or user",
    "https://*": "first label",
    "https://a.*.example": "first label",
    "https://*app.example": "first label",
    "https://app.example:0": "0 is no port",
    "https://app.example:99999": "range",
    "https://app example": "not a domain name",
    "https://[::1": "IPv6",
    "https://-\N{SNOWMAN}-.example": "not a domain name",
    "file:///home": "null for files",
}


@pytest.mark.parametrize(("listed", "written"), AS_BROWSERS_WRITE_IT.items())
def test_what_is_listed_is_written_as_browsers_do(listed: str, written: str) -> None:
    assert normalised(listed) == written


@pytest.mark.parametrize(("listed", "why"), NEVER_MATCHES.items())
def test_what_would_never_match_is_refused(listed: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalised(listed)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://app.example", True),
        ("https://app.example:443", True),
        ("https://APP.EXAMPLE", True),
        ("http://app.example", False),
        ("https://app.example:8443", False),
        ("https://app.example.evil.example", False),
        ("https://one.preview.example", True),
        ("https://one.two.preview.example", False),
        ("https://preview.example", False),
        ("https://.preview.example", False),
        ("https://*.preview.example", False),
        ("https://one.preview.example:8443", False),
        ("capacitor://localhost", True),
        ("https://localhost", False),
        ("null", False),
        ("", False),
        ("junk", False),
        ("*", False),
    ],
)
def test_who_may_connect(origin: str | None, *, allowed: bool) -> None:
    listed = ("https://app.example", "https://*.preview.example", "capacitor://localhost")
    assert Origins(listed).allow(origin) is allowed


@pytest.mark.parametrize("origin", ["https://any.example", "null", "junk"])
def test_a_star_is_any_origin(origin: str) -> None:
    assert Origins(["*"]).allow(origin)


def test_null_is_allowed_where_it_is_listed() -> None:
    assert Origins(["null"]).allow("null")
    assert not Origins(["null"]).allow("https://app.example")
