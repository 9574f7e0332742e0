"""How often an address, and a user, may log in with a good token; and what a new connection does not renew.

In memory, and for each node: this is about the work of this one. Who was seen longest ago is forgotten first, when
there are 10,000 others; by then their buckets are full again.
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
"""A page that is loaded again and again, and SDKs that lose every connection at once, stay below that."""

T = TypeVar("T")


class Recent(Generic[T]):
    """Things of those that were seen last, by name."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Take what makes a thing for somebody new."""
        self._make = make
        self._known: OrderedDict[str, T] = OrderedDict()

    def of(self, name: str) -> T:
        """The thing of `name`."""
        thing = self._known.pop(name, None)
        if thing is None:
            thing = self._make()
            if len(self._known) >= MAX_KNOWN:
                self._known.popitem(last=False)
        self._known[name] = thing
        return thing


class Rates:
    """What is counted of addresses and users beyond the life of a connection."""

    def __init__(
        self,
        work: Allowances,
        frames: Callable[[], Bucket],
        logins_per_second: float,
        logins_burst: int,
        user_logins_per_second: float = USER_LOGINS_PER_SECOND,
    ) -> None:
        """Take what `frames()` makes: the bucket of frames of a user. An address, and a user, may log in so often."""
        self._budgets = Recent(partial(Budget, work.address, work.address_burst))
        self._frames = Recent(frames)
        user_burst = max(1, round(user_logins_per_second * USER_BURST_SECONDS))
        self._users = Recent(partial(Bucket, user_logins_per_second, user_burst))
        self._networks = [
            Recent(partial(Bucket, times * logins_per_second, times * logins_burst)) for times in WIDER
        ]

    def budget_of(self, address: str) -> Budget:
        """What all connections of an address may cost together."""
        return self._budgets.of(address)

    def frames_of(self, user: str) -> Bucket:
        """The frames that a user may send, over which connection ever: a new one renews nothing."""
        return self._frames.of(user)

    def login_wait_ms(self, user: str, host: str | None, now: float) -> int:
        """Count a login with a good token; how long until it may be tried again if it is one too many."""
        buckets = [self._users.of(user)]
        buckets += [recent.of(name) for recent, name in zip(self._networks, networks_of(host), strict=False)]
        return max(0 if bucket.take(now) else max(1, bucket.wait_ms()) for bucket in buckets)
