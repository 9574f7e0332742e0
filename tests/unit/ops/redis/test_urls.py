"""Redis URLs: one server, a Sentinel set, a cluster."""

from typing import Any

import pytest
from redis.asyncio import SSLConnection

from keepline.ops import redis
from keepline.ops.redis.urls import OPTIONS, parse


def test_one_server() -> None:
    url = parse("redis://:secret@redis.example/3?health_check_interval=5")
    assert (url.kind, url.addresses) == ("server", (("redis.example", 6379),))


def test_a_socket_has_no_address() -> None:
    assert parse("unix:///run/redis.sock").addresses == ()


def test_a_sentinel_set() -> None:
    url = parse("rediss+sentinel://user:p%40ss@one,two:26380,[::1]:7000/calls/2?ssl_ca_certs=ca.pem")
    assert (url.kind, url.service) == ("sentinel", "calls")
    assert url.addresses == (("one", 26379), ("two", 26380), ("::1", 7000))
    assert url.of_server(("::1", 6379)) == "rediss://user:p%40ss@[::1]:6379/2?ssl_ca_certs=ca.pem"
    assert url.of_sentinel(("one", 26379)) == "rediss://one:26379/?ssl_ca_certs=ca.pem"


def test_sentinels_may_have_a_password_of_their_own() -> None:
    url = parse("redis+sentinel://:secret@one/calls?sentinel_username=watch&sentinel_password=er&db=1")
    assert url.of_sentinel(("one", 1)) == "redis://one:1/?username=watch&password=er"
    assert url.of_server(("one", 1)) == "redis://:secret@one:1/?db=1"


def test_a_cluster() -> None:
    url = parse("redis+cluster://:secret@one:7000, two/0")
    assert (url.kind, url.addresses) == ("cluster", (("one", 7000), ("two", 6379)))
    assert url.of_server(("two", 6379)) == "redis://:secret@two:6379/0"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://:pass-word@host", "starts with redis:// or"),
        ("redis+sentry://host/service", "starts with redis:// or"),
        ("redis://:pass-word@host:port", "a number as port"),
        ("redis+cluster://one:7000,two:port", "a number as port"),
        ("redis+cluster://", "host:port"),
        ("redis+cluster://:pass-word@one,,two", "host:port"),
        ("redis+cluster://one/1", "not name a database"),
        ("redis+cluster://one?db=1", "not name a database"),
        ("redis+sentinel://:pass-word@one", "name the service"),
        ("redis+sentinel://one/service/two", "only a database number"),
        ("redis+sentinel://one/service/1/2", "only a database number"),
        ("redis://host/name", "only a database number"),
        ("redis://host/1/2", "only a database number"),
        ("redis://:pass-word/more@host", "percent-encoded"),
        ("redis://:pass-word?more@host", "percent-encoded"),
        ("redis://:pass-word#more@host", "percent-encoded"),
        ("redis://:pass-word@host?decode_responses=true", "no option 'decode_responses'"),
        ("redis+cluster://host?socket_timeout=1", "no option 'socket_timeout'"),
        ("redis://host?db=one", "another value of its option db"),
        ("rediss://host?ssl_cert_reqs=never", "another value of its option ssl_cert_reqs"),
        ("rediss://host?ssl_check_hostname=maybe", "another value of its option ssl_check_hostname"),
        ("redis://host?ssl_ca_certs=ca.pem", "start with rediss"),
        ("unix:///run/redis.sock?protocol=2", "no option 'protocol'"),
    ],
)
def test_what_is_wrong_is_told_without_the_password(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse(url)
    assert "pass-word" not in str(caught.value)


def test_the_parts_are_not_shown() -> None:
    assert "pass-word" not in repr(parse("redis+cluster://:pass-word@host"))


def test_the_master_behind_sentinels_is_logged_in_to_as_the_url_says() -> None:
    client = redis.connect("rediss+sentinel://user:pw@one,two/calls/2?ssl_cert_reqs=none", max_connections=3)
    pool = client.connection_pool
    options = pool.connection_kwargs
    assert pool.max_connections == 3
    assert (options["username"], options["password"], options["db"]) == ("user", "pw", 2)
    assert (options["ssl_cert_reqs"], options["retry"].get_retries()) == ("none", 0)
    assert issubclass(pool.connection_class, SSLConnection)
    assert not redis.is_cluster(client)


def test_servers_of_a_cluster_are_connected_to_as_the_url_says() -> None:
    client = redis.connect("rediss+cluster://user:pw@one,two", max_connections=3)
    assert redis.is_cluster(client)
    pool = client.connection_pool
    options = pool.connection_kwargs
    assert pool.max_connections == 3
    assert (options["host"], options["username"], options["password"]) == ("one", "user", "pw")
    assert options["retry"].get_retries() == 0
    assert issubclass(pool.connection_class, SSLConnection)


def test_a_password_may_have_any_character_and_a_socket_any_path() -> None:
    client = redis.connect("redis://:p%2Fa%3Fs%23s%40@host/3?db=4")
    options = client.connection_pool.connection_kwargs
    assert (options["password"], options["host"], options["db"]) == ("p/a?s#s@", "host", 4)
    assert parse("unix:///run/a@b/redis.sock?db=1&password=x").kind == "server"


@pytest.mark.parametrize("name", [name for name in OPTIONS if not name.startswith("sentinel_")])
def test_every_option_is_one_that_a_connection_takes(name: str) -> None:
    value = {"ssl_cert_reqs": "none", "ssl_check_hostname": "no", "ssl_min_version": "771", "db": "1"}.get(
        name, "7"
    )
    pool: Any = redis.connect(f"rediss://host?{name}={value}").connection_pool
    pool.make_connection()
