"""The types of settings, with the checks of their values. Errors complete the sentence "VARIABLE: should …"."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import string
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from keepline.ops import ice_url, origins
from keepline.ops.postgres import urls as postgres_urls
from keepline.ops.postgres.users_table import DEFAULT_COLUMN, DEFAULT_TABLE, users_table
from keepline.ops.redis import prefix, urls

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _split(value: object) -> object:
    """Split `a, b` into a list, the form of lists in an environment variable."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def url_of(*schemes: str) -> AfterValidator:
    """Accept URLs with one of these schemes."""

    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError("should be a URL that starts with " + " or ".join(f"{s}://" for s in schemes))
        try:
            parts.port  # noqa: B018 - reading it is the check
        except ValueError:
            raise ValueError("should be a URL with a number as port") from None
        return url

    return AfterValidator(check)


def _check_redis_url(url: str) -> str:
    urls.parse(url)
    return url


def _check_users_table(name: str) -> str:
    users_table(name, DEFAULT_COLUMN)
    return name


def _check_users_column(name: str) -> str:
    users_table(DEFAULT_TABLE, name)
    return name


def _check_database_url(url: str) -> str:
    postgres_urls.parse(url)
    return url


def _check_origin(origin: str) -> str:
    """Accept entries that can match an Origin, and return them as browsers write it."""
    try:
        return origins.normalised(origin)
    except ValueError as error:
        raise ValueError(
            f"should list origins such as https://app.example, https://*.app.example or null, or be *: {error}"
        ) from None


def _check_turn_url(url: str) -> str:
    try:
        ice_url.parse_turn(url)
    except ValueError:
        raise ValueError(
            "should list URLs such as turn:host:port or turns:host:port, optionally with ?transport=tcp or =udp"
        ) from None
    return url


def _check_stun_url(url: str) -> str:
    scheme, _, host = url.partition(":")
    if scheme not in ("stun", "stuns") or not host.strip("/"):
        raise ValueError("should list URLs such as stun:host:port or stuns:host:port")
    return url


def _to_network(value: object) -> object:
    try:
        return ipaddress.ip_network(value, strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("should list networks such as 10.0.0.0/8 or fd00::/8") from None


def _check_advertised(address: str) -> str:
    """Accept `host`, `host:port` or `[v6]:port`, without a scheme or a path."""
    parts = urlsplit(f"//{address}")
    try:
        plain = parts.hostname is not None and parts.netloc == address and parts.port != 0
    except ValueError:
        plain = False
    if not plain or "@" in address:
        raise ValueError("should be a host, or host:port, without a scheme")
    return address


def _check_name(name: str) -> str:
    if not 1 <= len(name) <= 64 or not _NAME_CHARACTERS.issuperset(name):
        raise ValueError("should be 1 to 64 characters of A-Z, a-z, 0-9, dot, underscore and hyphen")
    return name


def at_least(size: int) -> AfterValidator:
    """Accept secrets of at least `size` bytes."""

    def check(secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value().encode()) < size:
            raise ValueError(f"should be at least {size} bytes long")
        return secret

    return AfterValidator(check)


def own_name() -> str:
    """A name for this process: the host name, and a random part because a host may run several."""
    host = "".join(c if c in _NAME_CHARACTERS else "-" for c in socket.gethostname())[:48]
    return f"{host or 'host'}-{secrets.token_hex(3)}"


Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, AfterValidator(_check_name)]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, BeforeValidator(_split)
]
Networks = Annotated[
    tuple[Annotated[Network, BeforeValidator(_to_network)], ...], NoDecode, BeforeValidator(_split)
]
TurnUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_check_turn_url)], ...], NoDecode, BeforeValidator(_split)
]
StunUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_check_stun_url)], ...], NoDecode, BeforeValidator(_split)
]
RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]
DatabaseUrl = Annotated[str, AfterValidator(_check_database_url)]
Prefix = Annotated[str, AfterValidator(prefix.check)]
Advertised = Annotated[str, AfterValidator(_check_advertised)]
UsersTable = Annotated[str, AfterValidator(_check_users_table)]
UsersColumn = Annotated[str, AfterValidator(_check_users_column)]
