"""Allowed origins of pages: the entries of operators, and the Origin headers of clients (RFC 6454).

Both are converted to the form in which browsers write origins. An entry that no client can ever match is refused at
startup.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

import idna

ANY = "*"
OPAQUE = "null"
"""The origin that browsers send for pages without one of their own: files, sandboxed frames."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_WILDCARD = "*."


class Origins:
    """The allowed origins. A client without Origin is not a browser, and always allowed."""

    def __init__(self, listed: Iterable[str]) -> None:
        """Take entries as returned by `normalised`."""
        self._listed = frozenset(listed)

    def allow(self, origin: str | None) -> bool:
        """Whether a client with this Origin may connect."""
        if origin is None or ANY in self._listed:
            return True
        try:
            sent = normalised(origin)
        except ValueError:
            return False
        return "*" not in sent and bool({sent, _with_wildcard(sent)} & self._listed)


def normalised(origin: str) -> str:
    """An entry in the form in which browsers write origins: lower case, no default port, IDN in its ASCII form.

    `*` is any origin. Before a host, `*.` stands for one label. Any scheme is accepted, because apps and extensions
    have their own. Raises ValueError with the problem.
    """
    if origin in (ANY, OPAQUE):
        return origin
    parts = _split(origin)
    host = _host(parts.hostname or "")
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _split(origin: str) -> SplitResult:
    scheme, separator, rest = origin.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme.lower()):
        raise ValueError("it has no scheme such as https://")
    if scheme.lower() == "file":
        raise ValueError("browsers send null for files")
    if any(character in rest for character in "/?#\\@"):
        raise ValueError("an origin ends with the host or its port, without a path, query or user")
    parts = urlsplit(origin)
    if parts.port == 0:
        raise ValueError("0 is no port")
    return parts


def _host(host: str) -> str:
    if host.startswith(_WILDCARD):
        return _WILDCARD + _host(host.removeprefix(_WILDCARD))
    if "*" in host:
        raise ValueError("a wildcard must be the first label of a host, as in https://*.example.org")
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"the host is not a domain name: {error}") from None
    if not _HOST.fullmatch(host):
        raise ValueError("the host is not a domain name")
    return host


def _with_wildcard(origin: str) -> str:
    """The wildcard entry that includes this origin; the origin itself if there cannot be one."""
    scheme, separator, host = origin.partition("://")
    first, dot, rest = host.partition(".")
    return f"{scheme}{separator}{_WILDCARD}{rest}" if first and dot else origin
