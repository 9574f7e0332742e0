"""This node's heartbeat: it shows other nodes that this one is alive, and this one whether it can write to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from signal_node.cluster.claim import claim, taken
from signal_node.cluster.clock import Clock
from signal_node.cluster.clock_sync import ClockSync
from signal_node.cluster.registry import HEARTBEAT_SECONDS, HEARTBEAT_TTL_MS, Namesake, Registry
from signal_node.cluster.view import process_name

IN_TOUCH_SECONDS = HEARTBEAT_TTL_MS / 1_000 + 1.0

ANSWER_SECONDS = 1.5
"""Timeout of a heartbeat's write, so that a silently broken connection does not let the heartbeat expire."""

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats every second. Run `run` as a task."""

    def __init__(
        self, node: str, registry: Registry, clock: Clock, status: Callable[[], Mapping[str, Any]]
    ) -> None:
        """`status()` is the content of the heartbeat."""
        self.clock_sync = ClockSync(registry, clock)
        self.clock_changes = 0
        """How often Redis' clock or this machine's has jumped, after which keys with a TTL may be gone."""
        self.problem: str | None = None
        self._node = node
        self._registry = registry
        self._clock = clock
        self._status = status
        self._started_at: int | None = None
        self._in_touch_since: float | None = None
        self._touched_at = 0.0

    async def run(self) -> None:
        """Beat every second, until cancelled."""
        while True:
            try:
                await self.beat()
            except StoreUnavailable as error:
                self.lost_touch()
                _log.warning("registry_unavailable", error=str(error))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def claim_name(self) -> None:
        """Claim this node's name for this process, before anything else. Raises StoreUnavailable, CannotRun."""
        await claim(self._node, self._try_beat)

    async def beat(self) -> None:
        """Read Redis' clock and write the heartbeat. Raises StoreUnavailable, CannotRun."""
        namesake = await self._try_beat()
        if namesake is not None:
            raise taken(self._node, namesake)

    async def keep_clock(self) -> None:
        """Read Redis' clock. Raises StoreUnavailable."""
        if await self.clock_sync.look():
            self.lost_touch()  # a clock step expires all heartbeats at once, and means no node's death
            self.clock_changes += 1

    def lost_touch(self) -> None:
        """Redis was unreachable, or its clock was set: all heartbeats may have expired although no node is dead."""
        self._in_touch_since = None

    def in_touch(self) -> bool:
        """Whether writes to Redis have succeeded without interruption for longer than a heartbeat lasts."""
        now = asyncio.get_running_loop().time()
        since = self._in_touch_since
        return (
            since is not None and now - since > IN_TOUCH_SECONDS and now - self._touched_at < IN_TOUCH_SECONDS
        )

    def process(self) -> str:
        """The name of this process. It is final after the first heartbeat, which knows Redis' time."""
        return process_name(self._node, self._started_at or 0)

    def age(self) -> float | None:
        """Seconds since the last heartbeat was written; None before the first one."""
        return asyncio.get_running_loop().time() - self._touched_at if self._touched_at else None

    def why_not_written(self) -> str | None:
        """Why writes to Redis have failed for longer than a heartbeat lasts; None if they have not."""
        return self._why_silent_for(HEARTBEAT_TTL_MS / 1_000)

    def why_writes_wait(self) -> str | None:
        """Why the last heartbeat failed or is late; None if it is not."""
        return self.problem or self._why_silent_for(HEARTBEAT_SECONDS + ANSWER_SECONDS)

    def _why_silent_for(self, seconds: float) -> str | None:
        age = self.age()
        if age is not None and age <= seconds:
            return None
        return f"nothing can be written to Redis: {self.problem or 'no heartbeat yet'}"

    async def _try_beat(self, replaces: bytes = b"") -> Namesake | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                namesake = await self._beat(replaces)
        except TimeoutError:
            self.problem = f"no answer to the heartbeat within {ANSWER_SECONDS} s"
            raise StoreUnavailable(self.problem) from None
        except StoreUnavailable as error:
            self.problem = str(error)
            raise
        self.problem = None
        return namesake

    async def _beat(self, replaces: bytes) -> Namesake | None:
        await self.keep_clock()
        if self._started_at is None:
            self._started_at = self._clock.now()
        status = {"started_at": self._started_at, **self._status()}
        namesake = await self._registry.beat(status, self._clock.now(), replaces)
        if namesake is None:
            self._touched()
        return namesake

    def _touched(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._in_touch_since is None or now - self._touched_at > HEARTBEAT_TTL_MS / 1_000:
            self._in_touch_since = now
        self._touched_at = now
