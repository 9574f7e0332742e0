"""Postgres URLs in the forms that hosts and tools give: understood, or refused in words that show no password."""

import re

import pytest

from keepline.ops.postgres.urls import parse

BASE = "postgresql://u:secret@db.example"


@pytest.mark.parametrize(
    ("url", "passed_on"),
    [
        (f"{BASE}/app", f"{BASE}/app"),
        (f"{BASE}/app?sslmode=require", f"{BASE}/app?sslmode=require"),
        (f"{BASE}/app?sslmode=require&channel_binding=prefer", f"{BASE}/app?sslmode=require"),
        (f"{BASE}:6543/app?pgbouncer=true&connection_limit=1", f"{BASE}:6543/app"),
        (f"{BASE}/app?schema=calls&connect_timeout=10", f"{BASE}/app"),
        ("postgres://u@a:1,b:2/app?target_session_attrs=read-write",) * 2,
        ("postgresql:///app?host=/var/run/postgresql", "postgresql:///app?host=%2Fvar%2Frun%2Fpostgresql"),
        (f"{BASE}/app?application_name=x&options=-csearch_path%3Dcalls", f"{BASE}/app"),
        ("postgresql://u@[fd00::1]:5432/app", "postgresql://u@[fd00::1]:5432/app"),
    ],
)
def test_what_the_client_library_gets(url: str, passed_on: str) -> None:
    assert parse(url).url == passed_on


def test_what_is_read_here() -> None:
    url = parse(f"{BASE}/app?pgbouncer=true&connection_limit=3&connect_timeout=7&schema=calls")
    assert (url.pooled, url.connection_limit, url.connect_seconds, url.search_path) == (
        True,
        3,
        7.0,
        ("calls",),
    )
    assert (url.user, url.hosts) == ("u", "db.example")
    assert parse(f"{BASE}/app?options=-c%20search_path%3Dcalls,auth").search_path == ("calls", "auth")
    assert parse(f"{BASE}/app?options=endpoint%3Dep-1").startup_options == "endpoint=ep-1"
    assert parse(f"{BASE}/app").pooled is None


@pytest.mark.parametrize("given", ["0", "3600"])
def test_nothing_waits_for_ever_to_connect(given: str) -> None:
    assert parse(f"{BASE}/app?connect_timeout={given}").connect_seconds == 30


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://h/app", "starts with postgres:// or postgresql://"),
        ("postgresql+asyncpg://h/app", "starts with postgres:// or postgresql://"),
        (f"{BASE}/app?sslmode=odd", "one of disable, allow, prefer, require, verify-ca, verify-full"),
        (f"{BASE}/app?ssl_mode=require", "not known here, ?ssl_mode=: leave it out; did you mean sslmode?"),
        (f"{BASE}/app?channel_binding=require", "leave it out, and have sslmode=verify-full"),
        (f"{BASE}/app?target_session_attrs=master", "should have one of any, primary"),
        (f"{BASE}/app?connect_timeout=soon", "whole number from 0"),
        (f"{BASE}/app?pgbouncer=yes", "true or false as ?pgbouncer="),
        (f"{BASE}/app?schema=", "name of a schema"),
        (f'{BASE}/app?schema=a"b', "name of a schema"),
        (f"{BASE}:port/app", "a number as port"),
        ("postgresql://u:sec/ret@db.example/app", "percent-encoded"),
        ("postgresql://u:sec#ret@db.example/app", "percent-encoded"),
        ("postgresql://u:sec?ret@db.example/app", "percent-encoded"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        parse(url)
    assert "ret" not in str(refused.value).replace("secret", "")
