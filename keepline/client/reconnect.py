"""Decides whether and when to connect again. Pure: the clock and the jitter are given."""

from __future__ import annotations

from collections.abc import Callable

from keepline.client.closes import Close, ComeBack
from keepline.ops.backoff import Backoff


class ReconnectPlan:
    """One client's memory of its last attempts.

    A node that says goodbye names the time to come back, so that the clients of a node do not return in one
    wave: that time is obeyed as it is. Everything else waits with capped full jitter.
    """

    def __init__(self, backoff: Backoff, clock: Callable[[], float], *, fresh_tokens: bool) -> None:
        """Take the waits, a monotonic clock in seconds, and whether each attempt can have a new token."""
        self._backoff = backoff
        self._clock = clock
        self._fresh_tokens = fresh_tokens
        self._return_at: float | None = None
        self._refused = False

    def welcomed(self) -> None:
        """The server answered `welcome`: past failures no longer count."""
        self._backoff.reset()
        self._refused = False
        self._return_at = None

    def goodbye(self, reconnect_after_seconds: float) -> None:
        """The server asked to come back after this time, counted from now."""
        self._return_at = self._clock() + max(0.0, reconnect_after_seconds)

    def after_failure(self) -> float:
        """Seconds to wait after an attempt that reached no server."""
        return self._backoff.next()

    def after_close(self, close: Close) -> float | None:
        """Seconds to wait after a connection ended, or None where coming back is not allowed."""
        if close.come_back is ComeBack.NEVER:
            return None
        if close.come_back is ComeBack.FRESH_TOKEN:
            return self._after_refusal()
        if self._return_at is not None:
            delay = max(0.0, self._return_at - self._clock())
            self._return_at = None
            return delay
        return self._backoff.next()

    def _after_refusal(self) -> float | None:
        """A second refusal in a row would only bring the address nearer to being locked out."""
        if not self._fresh_tokens or self._refused:
            return None
        self._refused = True
        return 0.0
