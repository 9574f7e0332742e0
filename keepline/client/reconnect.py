"""Decides whether and when to reconnect. Pure: the clock and the jitter are arguments.

The table of states and waits is in docs/protocol.md, under "Reconnecting and resuming".
"""

from __future__ import annotations

from collections.abc import Callable

from keepline.client.close_codes import RATE_LIMITED, Close, ComeBack
from keepline.ops.backoff import Backoff

RATE_LIMITED_SECONDS = 1.0
"""Minimum wait after 4429: what the node refuses must not be sent again at once."""

LONGEST_TOLD_SECONDS = 600.0
"""The longest wait that a server may ask for, in case a proxy on the way asks for a day."""

SHORT_CONNECTIONS = 3
"""This many in a row are accidents. A client that is welcomed and disconnected again after that has to slow down."""


class ReconnectPlan:
    """One client's memory of its last attempts.

    A node's goodbye has the time to reconnect, so that the clients of a node do not return in one wave; that time is
    used as it is. A refusal may have a minimum wait. Everything else waits with capped full jitter. It is reset after a
    welcome, so that a grace period is not spent waiting, but not after several successive connections that ended within
    `stable_after` seconds.
    """

    def __init__(
        self, backoff: Backoff, clock: Callable[[], float], *, fresh_tokens: bool, stable_after: float
    ) -> None:
        """Take the waits, a monotonic clock in seconds, and whether each attempt can have a new token."""
        self._backoff = backoff
        self._clock = clock
        self._fresh_tokens = fresh_tokens
        self._stable_after = stable_after
        self._welcomed_at: float | None = None
        self._return_at: float | None = None
        self._refused = False
        self._short_connections = 0

    def welcomed(self) -> None:
        """The server answered `welcome`."""
        self._welcomed_at = self._clock()
        self._refused = False
        self._return_at = None

    def goodbye(self, reconnect_after_seconds: float) -> None:
        """The server asked to retry after this time, counted from now."""
        self._return_at = self._clock() + max(0.0, reconnect_after_seconds)

    def after_failure(self, retry_after: float | None = None) -> float:
        """Seconds to wait after an attempt without welcome; never less than the server asked for."""
        self._judge()
        return min(retry_after or 0.0, LONGEST_TOLD_SECONDS) + self._backoff.next()

    def after_close(self, close: Close) -> float | None:
        """Seconds to wait after a connection ended; None if reconnecting is not allowed."""
        if close.come_back is ComeBack.NEVER:
            return None
        if close.come_back is ComeBack.FRESH_TOKEN:
            return self._after_refusal()
        self._judge()
        if self._return_at is not None:
            delay = max(0.0, self._return_at - self._clock())
            self._return_at = None
            return delay
        return self._backoff.next() + (RATE_LIMITED_SECONDS if close.code == RATE_LIMITED else 0.0)

    def _judge(self) -> None:
        """Past failures no longer count after a welcome, or after a connection that lasted."""
        since, self._welcomed_at = self._welcomed_at, None
        if since is None:
            return
        stable = self._clock() - since >= self._stable_after
        self._short_connections = 0 if stable else self._short_connections + 1
        if self._short_connections <= SHORT_CONNECTIONS:
            self._backoff.reset()

    def _after_refusal(self) -> float | None:
        """A second refusal in a row would only bring the address closer to being blocked."""
        if not self._fresh_tokens or self._refused:
            return None
        self._refused = True
        return 0.0
