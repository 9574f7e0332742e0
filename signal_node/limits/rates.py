"""Rate limits on valid logins per address and user, and budgets that survive a reconnect.

In memory and per node, because they protect the node itself. Above 10,000 entries the least recently used ones are
dropped; their buckets are full again by then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from keepline.ops.budget import Budget
from signal_node.limits.addresses import WIDER, networks_of
from signal_node.protocol.token_bucket import Bucket
from signal_node.transport.budget import Allowances

MAX_KNOWN = 10_000

USER_LOGINS_PER_SECOND = 1.0
USER_BURST_SECONDS = 20
"""Enough for a page that is reloaded again and again, and for SDKs that lose every connection at once."""

T = TypeVar("T")


class Recent(Generic[T]):
    """An LRU map that creates missing values."""

    def __init__(self, make: Callable[[], T]) -> None:
        """`make` creates the value of a new name."""
        self._make = make
        self._known: OrderedDict[str, T] = OrderedDict()

    def of(self, name: str) -> T:
        """The value of `name`."""
        thing = self._known.pop(name, None)
        if thing is None:
            thing = self._make()
            if len(self._known) >= MAX_KNOWN:
                self._known.popitem(last=False)
        self._known[name] = thing
        return thing


class Rates:
    """Budgets and buckets per address and user, which outlive connections."""

    def __init__(
        self,
        work: Allowances,
        frames: Callable[[], Bucket],
        logins_per_second: float,
        logins_burst: int,
        user_logins_per_second: float = USER_LOGINS_PER_SECOND,
    ) -> None:
        """`frames()` creates a user's bucket of frames. The other arguments limit work and logins."""
        self._budgets = Recent(partial(Budget, work.address, work.address_burst))
        self._frames = Recent(frames)
        user_burst = max(1, round(user_logins_per_second * USER_BURST_SECONDS))
        self._users = Recent(partial(Bucket, user_logins_per_second, user_burst))
        self._networks = [
            Recent(partial(Bucket, times * logins_per_second, times * logins_burst)) for times in WIDER
        ]

    def budget_of(self, address: str) -> Budget:
        """The work budget shared by all connections of an address."""
        return self._budgets.of(address)

    def frames_of(self, user: str) -> Bucket:
        """A user's bucket of frames, shared by successive connections."""
        return self._frames.of(user)

    def login_wait_ms(self, user: str, host: str | None, now: float) -> int:
        """Count a login with a valid token. Returns the ms to wait if it exceeds a rate; 0 if not."""
        buckets = [self._users.of(user)]
        buckets += [recent.of(name) for recent, name in zip(self._networks, networks_of(host), strict=False)]
        return max(0 if bucket.take(now) else max(1, bucket.wait_ms()) for bucket in buckets)
