"""What a Redis URL says: where the servers are, and whether they are one, a Sentinel set or a cluster.

    redis://[[user]:password@]host[:port][/db][?options]
    unix://path[?db=…]
    redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/service[/db][?options]
    redis+cluster://[[user]:password@]host[:port][,host[:port]…][?options]

`rediss` in the place of `redis` is the same over TLS. User, password, database and options are those of the Redis
servers; options are the client library's, such as `ssl_ca_certs`. Where the Sentinels ask for a password of their own,
it is the options `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

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


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl:
    """A URL in its parts. `addresses` are those it names: of Sentinels, or of some servers of the cluster."""

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
        """The URL of one Sentinel; TLS and its options are those of the servers, user and password are not."""
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
    """Take a URL apart. Raises ValueError, whose text never shows the URL, for it may carry a password."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("should be a URL that starts with " + " or ".join(f"{s}://" for s in SCHEMES))
    scheme, _, kind_word = parts.scheme.partition("+")
    kind: Kind = "sentinel" if kind_word == "sentinel" else "cluster" if kind_word else "server"
    user, at, hosts = parts.netloc.rpartition("@")
    path = [part for part in parts.path.split("/") if part]
    service = ""
    if kind == "sentinel":
        service, *path = path or [""]
        if not service:
            raise ValueError("should name the service after the Sentinels, as in …:26379/service")
    _check_database(kind, path, parts.query)
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


def _check_database(kind: Kind, path: list[str], query: str) -> None:
    if kind == "sentinel" and path and not (len(path) == 1 and path[0].isdecimal()):
        raise ValueError("should have only a database number after the service")
    if kind == "cluster" and (path not in ([], ["0"]) or dict(parse_qsl(query)).get("db", "0") != "0"):
        raise ValueError("should not name a database: a cluster has only database 0")
