"""Which pages may connect: what operators list, and what clients send as Origin (RFC 6454).

Both are brought into the form in which browsers write origins. An entry that no client could ever match is refused at
start, rather than accepted and never matched.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

import idna

ANY = "*"
OPAQUE = "null"
"""What browsers send for pages without an origin of their own: files, sandboxed frames."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_WILDCARD = "*."


class Origins:
    """The origins that may connect. A client that sends none is no browser, and is not asked for one."""

    def __init__(self, listed: Iterable[str]) -> None:
        """Take entries as `normalised` returns them."""
        self._listed = frozenset(listed)

    def allow(self, origin: str | None) -> bool:
        """Whether a client that sends this Origin may connect."""
        if origin is None or ANY in self._listed:
            return True
        try:
            sent = normalised(origin)
        except ValueError:
            return False
        return "*" not in sent and bool({sent, _with_wildcard(sent)} & self._listed)


def normalised(origin: str) -> str:
    """An entry of the list as browsers write origins: lower case, no default port, IDN in its ASCII form.

    `*` is any origin; in front of a host, `*.` is one label. Any scheme will do, since apps and extensions have their
    own. Raises ValueError that says what is wrong.
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
        raise ValueError("an origin has no path, query or user: it ends with the host or its port")
    parts = urlsplit(origin)
    if parts.port == 0:
        raise ValueError("0 is no port")
    return parts


def _host(host: str) -> str:
    if host.startswith(_WILDCARD):
        return _WILDCARD + _host(host.removeprefix(_WILDCARD))
    if "*" in host:
        raise ValueError("a wildcard stands for the first label of a host, as in https://*.example.org")
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"the host is no domain name: {error}") from None
    if not _HOST.fullmatch(host):
        raise ValueError("the host is no domain name")
    return host


def _with_wildcard(origin: str) -> str:
    """The entry that stands for this origin and its siblings; the origin itself where there can be none."""
    scheme, separator, host = origin.partition("://")
    first, dot, rest = host.partition(".")
    return f"{scheme}{separator}{_WILDCARD}{rest}" if first and dot else origin
