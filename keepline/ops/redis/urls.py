"""Parses Redis URLs: the servers, and whether they are a single one, a Sentinel set or a cluster.

    redis://[[user]:password@]host[:port][/db][?options]
    unix://path[?db=…]
    redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/service[/db][?options]
    redis+cluster://[[user]:password@]host[:port][,host[:port]…][?options]

`rediss` instead of `redis` means TLS. User, password, database and options are those of the Redis servers. Only the
options in `OPTIONS` are allowed; others of the client library would change the meaning of its answers. If the Sentinels
need their own password, set the options `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

Kind = Literal["server", "sentinel", "cluster"]
Address = tuple[str, int]

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_DEFAULT_PORTS: dict[Kind, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_OF_SENTINELS = "sentinel_"


def _is_whole(value: str) -> bool:
    return value.isascii() and value.isdecimal()


def _is_text(value: str) -> bool:
    return bool(value)


def _is_switch(value: str) -> bool:
    return value.lower() in ("true", "false", "yes", "no", "1", "0")


OPTIONS: Mapping[str, Callable[[str], bool]] = {
    "db": _is_whole,
    "username": _is_text,
    "password": _is_text,
    "client_name": _is_text,
    "health_check_interval": _is_whole,
    "sentinel_username": _is_text,
    "sentinel_password": _is_text,
    "ssl_ca_certs": _is_text,
    "ssl_certfile": _is_text,
    "ssl_keyfile": _is_text,
    "ssl_password": _is_text,
    "ssl_cert_reqs": lambda value: value in ("none", "optional", "required"),
    "ssl_check_hostname": _is_switch,
    "ssl_min_version": _is_whole,
}
"""The allowed options, and their allowed values."""


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl:
    """A parsed URL. `addresses` are those in it: of Sentinels, or of some servers of the cluster."""

    kind: Kind
    addresses: tuple[Address, ...]
    service: str
    _scheme: str
    _user: str
    _database: str
    _options: tuple[tuple[str, str], ...]

    def of_server(self, address: Address) -> str:
        """The URL of one Redis server of a set or cluster."""
        options = [(name, value) for name, value in self._options if not name.startswith(_OF_SENTINELS)]
        return self._url_of(address, self._user, self._database, options)

    def of_sentinel(self, address: Address) -> str:
        """The URL of one Sentinel: with the servers' TLS and its options, without their user and password."""
        options = [
            (name.removeprefix(_OF_SENTINELS), value)
            for name, value in self._options
            if name.startswith((_OF_SENTINELS, "ssl_"))
        ]
        return self._url_of(address, "", "", options)

    def _url_of(self, address: Address, user: str, database: str, options: list[tuple[str, str]]) -> str:
        host, port = address
        host = f"[{host}]" if ":" in host else host
        query = f"?{urlencode(options)}" if options else ""
        return f"{self._scheme}://{user}{host}:{port}/{database}{query}"


def parse(url: str) -> RedisUrl:
    """Parse a URL. Raises ValueError, whose message never contains the URL, because it may contain a password."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("should be a URL that starts with " + " or ".join(f"{s}://" for s in SCHEMES))
    _check_password(parts)
    scheme, _, kind_word = parts.scheme.partition("+")
    kind: Kind = "sentinel" if kind_word == "sentinel" else "cluster" if kind_word else "server"
    user, at, hosts = parts.netloc.rpartition("@")
    path = [part for part in parts.path.split("/") if part]
    service = ""
    if kind == "sentinel":
        service, *path = path or [""]
        if not service:
            raise ValueError("should name the service after the Sentinels, as in …:26379/service")
    _check_database(kind, path, parts.query, is_socket=scheme == "unix")
    _check_options(parts.query, secure=scheme == "rediss")
    return RedisUrl(
        kind,
        () if scheme == "unix" else tuple(_addresses(hosts, kind)),
        service,
        scheme,
        user + at,
        "".join(path),
        tuple(parse_qsl(parts.query)),
    )


def _addresses(hosts: str, kind: Kind) -> list[Address]:
    found = []
    for host in hosts.split(",") if kind != "server" else [hosts]:
        parts = urlsplit(f"//{host.strip()}")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("should be a URL with a number as port") from None
        if kind != "server" and not parts.hostname:
            raise ValueError("should be a URL with host:port, or several separated by commas")
        found.append((parts.hostname or "localhost", port or _DEFAULT_PORTS[kind]))
    return found


def _check_password(parts: SplitResult) -> None:
    if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "should have /, ?, # and @ in its password percent-encoded, as %2F, %3F, %23 and %40"
        )


def _check_options(query: str, *, secure: bool) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"should have no option {name!r}; there are {', '.join(OPTIONS)}")
        if not OPTIONS[name](value):
            raise ValueError(f"should have another value of its option {name}")
        if name.startswith("ssl_") and not secure:
            raise ValueError(f"should start with rediss for its option {name}: without it there is no TLS")


def _check_database(kind: Kind, path: list[str], query: str, *, is_socket: bool) -> None:
    if kind == "server" and not is_socket and path and not (len(path) == 1 and _is_whole(path[0])):
        raise ValueError("should have only a database number after the host")
    if kind == "sentinel" and path and not (len(path) == 1 and path[0].isdecimal()):
        raise ValueError("should have only a database number after the service")
    if kind == "cluster" and (path not in ([], ["0"]) or dict(parse_qsl(query)).get("db", "0") != "0"):
        raise ValueError("should not name a database: a cluster has only database 0")
