"""Keeps this node's clock by that of Redis, and takes out the steps of that one.

The monotonic clock says how late it should be. Where Redis says otherwise by seconds, either its clock was set, or this
machine stood still. The other nodes show which: what they wrote with their last heartbeats is nearer to the one time or
to the other. A clock that was set is corrected for all nodes at once, by whichever is the first to notice it.
"""

from __future__ import annotations

import structlog

from keepline.ops.redis.cluster_time import Correction, decode_correction
from signal_node.cluster.clock import Clock
from signal_node.cluster.registry import HEARTBEAT_TTL_MS, Registry

_log = structlog.get_logger(__name__)


class ClockSync:
    """Keeps a clock. `look` is to be called about once a second."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.steps = 0
        self._registry = registry
        self._clock = clock
        self._correction: bytes | None = None

    async def look(self) -> bool:
        """Compare the clock with Redis'; whether one of the two has jumped since. Raises StoreUnavailable."""
        redis_seconds, asked, answered, found = await self._registry.time(self._clock.monotonic)
        if found is None and self._correction is not None:  # Redis has lost it
            await self._registry.correct_clock(None, self._correction)
            found = self._correction
        agreed_anew, self._correction = found != self._correction, found
        now = redis_seconds + decode_correction(found).seconds(redis_seconds)
        step = self._clock.step_to(now, asked, answered)
        if step and not agreed_anew and not await self._others_are_there(now, now - step):
            await self._correct(redis_seconds, now - step, step)
            return True
        if step:
            self._clock.forget()
        self._clock.learn(now, asked, answered)
        return bool(step) or agreed_anew

    async def _others_are_there(self, there: float, here: float) -> bool:
        """Whether another node's time of its last heartbeat is nearer to `there`: it is this machine that jumped.

        What a node that died long ago has left says nothing of the time.
        """
        lives = HEARTBEAT_TTL_MS / 1_000
        beats = [at / 1_000 for at in await self._registry.last_beats()]
        return any(abs(at - there) < min(lives, abs(at - here)) for at in beats)

    async def _correct(self, redis_seconds: float, now: float, step: float) -> None:
        correction = Correction(round((now - redis_seconds) * 1_000), round(redis_seconds * 1_000)).encode()
        # Else another node was quicker; the next look takes what it wrote.
        if await self._registry.correct_clock(self._correction, correction):
            self._correction = correction
            self.steps += 1
            _log.warning("clock_stepped", step_seconds=round(step, 3))
