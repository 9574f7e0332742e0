"""Parses Postgres URLs, in the forms that hosting providers and other tools use.

    postgresql://[user[:password]@][host[:port][,host[:port]…]]/[database][?options]

Some of the options are libpq's and go to the client library; the others are interpreted here. Unknown options are
refused: the server would take them for its own settings, and its error would not help.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES = ("postgres", "postgresql")
CONNECT_SECONDS = 5.0
MAX_CONNECT_SECONDS = 30.0

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSIONS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_PASSED_ON = (
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "passfile",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
)
_READ_HERE = (
    "schema",
    "pgbouncer",
    "connect_timeout",
    "connection_limit",
    "application_name",
    "channel_binding",
    "options",
)
_NOT_ENCODED = "has a / ? # or @ in its user or password that is not percent-encoded"
_SEARCH_PATH = re.compile(r"-c\s*search_path=(\S+)")
_PLAIN_NAME = re.compile(r"[^\x00-\x1f\"]{1,63}")


@dataclass(frozen=True, slots=True, repr=False)
class PostgresUrl:
    """A parsed URL. `url` is the one for the client library; it may contain a password."""

    url: str
    hosts: str
    user: str | None
    search_path: tuple[str, ...] = ()
    pooled: bool | None = None  # None: detect
    connect_seconds: float = CONNECT_SECONDS
    connection_limit: int | None = None
    startup_options: str | None = None


def parse(url: str) -> PostgresUrl:
    """Parse a URL. Raises ValueError, whose message never contains the URL, because it may contain a password."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("should be a URL that starts with " + " or ".join(f"{s}://" for s in SCHEMES))
    if "@" in parts.path or parts.fragment:
        raise ValueError(_NOT_ENCODED)
    options = _options(parts.query)
    user, _, hosts = parts.netloc.rpartition("@")
    _check_hosts(hosts)
    _check_choice(options, "sslmode", _SSL_MODES)
    _check_choice(options, "target_session_attrs", _SESSIONS)
    _check_choice(options, "channel_binding", ("disable", "prefer"))
    search_path, startup = _startup_options(options.get("options", ""))
    schema = options.get("schema")
    if schema is not None and not _PLAIN_NAME.fullmatch(schema):
        raise ValueError("should have the name of a schema as ?schema=")
    passed_on = [(name, value) for name, value in options.items() if name in _PASSED_ON]
    query = f"?{urlencode(passed_on, quote_via=quote)}" if passed_on else ""
    return PostgresUrl(
        url=f"{parts.scheme}://{parts.netloc}{parts.path}{query}",
        hosts=options.get("host") or hosts or "the local socket",
        user=unquote(user.partition(":")[0]) or options.get("user"),
        search_path=(schema,) if schema else search_path,
        pooled=_switch(options, "pgbouncer"),
        connect_seconds=_connect_seconds(options),
        connection_limit=_number(options, "connection_limit", 1, 1000),
        startup_options=startup,
    )


def _options(query: str) -> Mapping[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if not name.isidentifier():
            raise ValueError(_NOT_ENCODED)
        if name not in _PASSED_ON + _READ_HERE:
            nearest = difflib.get_close_matches(name, _PASSED_ON + _READ_HERE, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"has an option that is not known here, ?{name[:40]}=: leave it out{hint}")
    return options


def _check_hosts(hosts: str) -> None:
    for host in hosts.split(","):
        try:
            urlsplit(f"//{host}").port  # noqa: B018 - reading it is the check
        except ValueError:
            raise ValueError(
                "should be a URL with a number as port; a / ? # or @ in a password has to be percent-encoded"
            ) from None


def _check_choice(options: Mapping[str, str], name: str, choices: tuple[str, ...]) -> None:
    value = options.get(name)
    if value is None or value in choices:
        return
    if (name, value) == ("channel_binding", "require"):
        raise ValueError(
            "asks for ?channel_binding=require, which the client library cannot do: leave it out, and have"
            " sslmode=verify-full with sslrootcert prove whom you talk to"
        )
    raise ValueError(f"should have one of {', '.join(choices)} as ?{name}=")


def _startup_options(text: str) -> tuple[tuple[str, ...], str | None]:
    """Extract `options=-c search_path=a,b`, which a pooler refuses at the start of a connection."""
    found = _SEARCH_PATH.search(text)
    names = tuple(name.strip(' "') for name in found[1].split(",")) if found else ()
    if not all(map(_PLAIN_NAME.fullmatch, names)):
        raise ValueError("should name schemas as ?options=-csearch_path=")
    rest = _SEARCH_PATH.sub("", text).strip()
    return names, rest or None


def _switch(options: Mapping[str, str], name: str) -> bool | None:
    value = options.get(name)
    if value not in (None, "true", "false"):
        raise ValueError(f"should have true or false as ?{name}=")
    return None if value is None else value == "true"


def _number(options: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if not value.isdecimal() or not least <= int(value) <= most:
        raise ValueError(f"should have a whole number from {least} to {most} as ?{name}=")
    return int(value)


def _connect_seconds(options: Mapping[str, str]) -> float:
    """In libpq, 0 means no limit. Here every wait has one."""
    seconds = _number(options, "connect_timeout", 0, 86_400)
    return CONNECT_SECONDS if seconds is None else min(seconds or MAX_CONNECT_SECONDS, MAX_CONNECT_SECONDS)
