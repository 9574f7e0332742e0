"""Addresses and a clock for the tests of what one address may do."""

from __future__ import annotations

T0 = 1_767_225_600_000
PARTITIONS = 16
ADDRESS = "198.51.100.7"
OTHER = "2001:db8:1:2::/64"


class Clock:
    """Stands still unless it is set."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now
