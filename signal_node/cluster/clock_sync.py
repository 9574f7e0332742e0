"""Synchronises this node's clock with Redis', without the steps of Redis' clock.

The monotonic clock predicts Redis' time. If Redis' time deviates by seconds, either its clock was set, or this machine
was suspended. The other nodes show which: the times in their last heartbeats agree with one of the two. The first node
to notice that Redis' clock was set corrects it for all nodes.
"""

from __future__ import annotations

import structlog

from keepline.ops.redis.cluster_time import Correction, decode_correction
from signal_node.cluster.clock import Clock
from signal_node.cluster.registry import HEARTBEAT_TTL_MS, Registry

_log = structlog.get_logger(__name__)


class ClockSync:
    """Synchronises a clock. Call `look` about once a second."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.steps = 0
        self._registry = registry
        self._clock = clock
        self._correction: bytes | None = None

    async def look(self) -> bool:
        """Compare the clock with Redis'. Returns whether either has jumped since. Raises StoreUnavailable."""
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
        """Whether another node's last heartbeat agrees with `there`, so that this machine jumped.

        Heartbeats of nodes that died long ago say nothing about the time.
        """
        lives = HEARTBEAT_TTL_MS / 1_000
        beats = [at / 1_000 for at in await self._registry.last_beats()]
        return any(abs(at - there) < min(lives, abs(at - here)) for at in beats)

    async def _correct(self, redis_seconds: float, now: float, step: float) -> None:
        correction = Correction(round((now - redis_seconds) * 1_000), round(redis_seconds * 1_000)).encode()
        # Otherwise another node was faster, and the next reading uses its correction.
        if await self._registry.correct_clock(self._correction, correction):
            self._correction = correction
            self.steps += 1
            _log.warning("clock_stepped", step_seconds=round(step, 3))
