"""Determines the client's address, by which limits count.

Anyone can send `X-Forwarded-For`; each proxy appends the address that it was reached from. So it is read from the
right, and only as far as the proxies that wrote it are trusted: the first address that is not a trusted proxy's is the
client's. If there is a PROXY protocol header, its address takes the place of the socket's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from keepline.ops.setting_values import Network

IPAddress = IPv4Address | IPv6Address

MAX_HOPS = 16
MAX_FORWARDED = 1_024
"""Maximum characters of the header that are read, from its end."""

_CLIENT_PREFIX = 64
_WIDER_PREFIXES = (_CLIENT_PREFIX, 56, 48)
WIDER = (1, 4, 16)
"""The limits of these networks, as multiples of the limit of one address."""

_TIMES = {str(prefix): times for prefix, times in zip(_WIDER_PREFIXES, WIDER, strict=True)}

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address of the client."""


def is_trusted(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Whether an IP address may report another client address; None may not."""
    address = _parsed(peer or "")
    return address is not None and _is_in(address, trusted)


def client_address(peer: str | None, forwarded: str, trusted: Sequence[Network]) -> str | None:
    """The address to count for a connection from `peer` with its `X-Forwarded-For`; None if it is unknown.

    IPv4 addresses count individually, IPv6 addresses by their /64, which is what one customer gets (RFC 6177).
    """
    address = _parsed(peer or "")
    if address is None:
        return None
    if forwarded and _is_in(address, trusted):
        address = _forwarded(address, forwarded, trusted)
    return _counted_as(address)


@lru_cache(4_096)
def networks_of(host: str | None) -> tuple[str, ...]:
    """The networks that count for a client: for IPv6 also the /56 and the /48, which a customer may have.

    Takes an IP address, or a network in the form of `client_address`, which is the first result.
    """
    address = _parsed((host or "").partition("/")[0])
    if address is None:
        return ()
    if isinstance(address, IPv4Address):
        return (str(address),)
    return tuple(str(IPv6Network((address, prefix), strict=False)) for prefix in _WIDER_PREFIXES)


def limit_of(network: str, limit: int) -> int:
    """What of `limit` for an address one of its networks has, by its name in `networks_of`."""
    return limit * _TIMES.get(network.rpartition("/")[2], 1)


def _forwarded(proxy: IPAddress, forwarded: str, trusted: Sequence[Network]) -> IPAddress:
    """The client's address according to trusted proxies; the last proxy's if it reports no valid address."""
    address = proxy
    entries = forwarded[-MAX_FORWARDED:].split(",")
    if len(forwarded) > MAX_FORWARDED:
        entries[0] = ""  # cut in the middle
    for entry in reversed(entries[-MAX_HOPS:]):
        client = _parsed(_without_port(entry.strip()))
        if client is None:
            break
        address = client
        if not _is_in(address, trusted):
            break
    return address


def _without_port(entry: str) -> str:
    """Some proxies write `192.0.2.1:4711` and `[2001:db8::1]:4711`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


@lru_cache(4_096)
def _parsed(text: str) -> IPAddress | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped or address
    return address


def _is_in(address: IPAddress, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _counted_as(address: IPAddress) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _CLIENT_PREFIX), strict=False))


def address_hash(address: str) -> str:
    """The hash of an address in the log: `printf %s ADDRESS | sha256sum | cut -c -12`."""
    return sha256(address.encode()).hexdigest()[:12]
