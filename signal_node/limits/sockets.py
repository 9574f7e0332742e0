"""Sockets by address, from `accept` on. Refusing one before it is read costs nothing.

This counts only sockets of this process. The limit over all nodes is `open_connections`; this one lets a few more
sockets through, so that their clients can be told why they are refused. For IPv6, larger blocks are counted too, with
higher limits, because a customer may have a whole /48 and use another /64 each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from keepline.ops.setting_values import Network
from signal_node.limits.addresses import WIDER, is_trusted, networks_of

TOLD = 20
"""Sockets over the limit of an address that are accepted, so that their clients can be told."""


class Sockets:
    """Counts the sockets of this process."""

    def __init__(self, limit: int, per_address: int, trusted_proxies: Sequence[Network]) -> None:
        """Take the limits in total and per address. Trusted proxies are not limited per address."""
        self.limit = limit
        self.count = 0
        self.refused: Counter[str] = Counter()
        self._per_address = per_address
        self._trusted = trusted_proxies
        self._by_network: Counter[str] = Counter()

    def admits(self, host: str | None) -> bool:
        """Whether a socket from an IP address may stay. If so, it counts until `gone`."""
        if self.count >= self.limit:
            self.refused["full"] += 1
            return False
        networks = self._networks(host)
        for network, times in zip(networks, WIDER, strict=False):
            if self._by_network[network] >= times * self._per_address + TOLD:
                self.refused["address"] += 1
                return False
        self.count += 1
        self._by_network.update(networks)
        return True

    def gone(self, host: str | None) -> None:
        """An admitted socket has closed."""
        self.count -= 1
        for network in self._networks(host):
            self._by_network[network] -= 1
            if self._by_network[network] <= 0:
                del self._by_network[network]

    def _networks(self, host: str | None) -> tuple[str, ...]:
        return () if is_trusted(host, self._trusted) else networks_of(host)
