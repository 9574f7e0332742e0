"""This node among the others: its heartbeat, and the burial of those that have died.

A node that cannot reach Redis for a while finds all heartbeats expired when it can again, for nobody could write any.
So it buries nobody before it has been in touch without a gap for longer than a heartbeat lives. Should a node be buried
alive all the same, it takes its sides again (see `Rooms`), and its clients notice `reconnected`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.record import SIDES
from keepline.room.state import IllegalTransition
from signal_node.cluster.claim import claim, taken
from signal_node.cluster.clock import Clock
from signal_node.cluster.clock_sync import ClockSync
from signal_node.cluster.registry import HEARTBEAT_SECONDS, HEARTBEAT_TTL_MS, Namesake, Registry
from signal_node.rooms.journal import JournalFull, NotStored
from signal_node.signaling.node import Node

IN_TOUCH_SECONDS = HEARTBEAT_TTL_MS / 1_000 + 1.0
LOOK_SECONDS = 0.5

ANSWER_SECONDS = 1.5
"""How long a heartbeat waits for Redis: a connection that has died unnoticed must not cost it its life."""

LEASE_MS = 10_000
AT_MOST = 500

OWN_SECONDS = 30.0
"""How often a node looks for sides that it is said to hold and does not."""

_log = structlog.get_logger(__name__)


def process_name(node: str, started_at: int) -> str:
    """What a process of a node is called where its end matters at once."""
    return f"{node}@{started_at}"


class ClusterMembership:
    """Heartbeat and reaper. `run_heartbeat` and `run_reaper` are to be run as tasks."""

    def __init__(
        self,
        node: Node,
        registry: Registry,
        clock: Clock,
        partitions: int,
        *,
        status: Callable[[], Mapping[str, Any]],
        on_nodes: Callable[[Sequence[str]], None],
        on_clock_step: Callable[[], None],
        cold_start_grace_ms: int,
    ) -> None:
        """Take `status()`, what the heartbeat says of this node, and `on_nodes(live)`, called when they change,
        and `on_clock_step()`, called when Redis' clock was set and may have let go of what has a time to live.

        `crowded` is whether any node says that it is taking in a crowd.

        `cold_start_grace_ms` is how long sides have to come back that were lost with the whole cluster.
        """
        self._cold_start_grace_ms = cold_start_grace_ms
        self._node = node
        self._registry = registry
        self._clock = clock
        self._partitions = partitions
        self._status = status
        self._on_nodes = on_nodes
        self._on_clock_step = on_clock_step
        self._live: list[str] = []
        self._seen_at: dict[str, float] = {}
        self._processes: set[str] = set()
        self.crowded = False
        self._started_at: int | None = None
        self._in_touch_since: float | None = None
        self._own_at: float | None = None
        self._touched_at = 0.0
        self.clock_sync = ClockSync(registry, clock)
        self.problem: str | None = None
        self.buried = 0

    async def claim_name(self) -> None:
        """Have this node's name for this process alone. Before all else. Raises StoreUnavailable, CannotRun."""
        await claim(self._node.id, self._try_beat)

    async def beat(self) -> None:
        """Look at Redis' clock and say that this node lives. Raises StoreUnavailable, CannotRun."""
        namesake = await self._try_beat()
        if namesake is not None:
            raise taken(self._node.id, namesake)

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
        await self._keep_clock()
        if self._started_at is None:
            self._started_at = self._clock.now()
        status = {"started_at": self._started_at, **self._status()}
        namesake = await self._registry.beat(status, self._clock.now(), replaces)
        if namesake is None:
            self._touched()
        return namesake

    async def _keep_clock(self) -> None:
        if await self.clock_sync.look():
            self._in_touch_since = None  # what expires has expired all at once: that is nobody's death
            self._on_clock_step()

    def _touched(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._in_touch_since is None or now - self._touched_at > HEARTBEAT_TTL_MS / 1_000:
            self._in_touch_since = now
        self._touched_at = now

    @property
    def live(self) -> int:
        """How many nodes live, by the last look."""
        return len(self._live)

    def beat_age(self) -> float | None:
        """Seconds since the last heartbeat was written; None before the first one."""
        return asyncio.get_running_loop().time() - self._touched_at if self._touched_at else None

    def why_not_written(self) -> str | None:
        """Why nothing can be written to Redis for longer than a heartbeat lives; None when it can."""
        return self._why_silent_for(HEARTBEAT_TTL_MS / 1_000)

    def why_writes_wait(self) -> str | None:
        """Why the last heartbeat could not be written, or is late; None when it is not."""
        return self.problem or self._why_silent_for(HEARTBEAT_SECONDS + ANSWER_SECONDS)

    def _why_silent_for(self, seconds: float) -> str | None:
        age = self.beat_age()
        if age is not None and age <= seconds:
            return None
        return f"nothing can be written to Redis: {self.problem or 'no heartbeat yet'}"

    def recently_live(self) -> set[str]:
        """The nodes that lived a moment ago, also if Redis has forgotten them since."""
        return {self._node.id, *self._seen_at}

    def process(self) -> str:
        """What this process is called; it has its name for good with the first heartbeat, which knows Redis' time."""
        return process_name(self._node.id, self._started_at or 0)

    def other_processes(self) -> set[str]:
        """The processes of other nodes that live, by `process_name`: a node that starts again is another process."""
        return self._processes

    async def run_heartbeat(self) -> None:
        """Beat every second, until cancelled."""
        await self._repeat(self.beat, HEARTBEAT_SECONDS)

    async def run_reaper(self) -> None:
        """Look twice a second for nodes that came or died, until cancelled."""
        await self._repeat(self._bury_dead, LOOK_SECONDS)

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await work()
            except StoreUnavailable as error:
                self._in_touch_since = None
                _log.warning("registry_unavailable", error=str(error))
            await asyncio.sleep(seconds)

    async def _bury_dead(self) -> None:
        nodes, dead = await self._registry.nodes(self._clock.now())
        live = list(nodes)
        self._meet(nodes)
        now = asyncio.get_running_loop().time()
        self._seen_at |= dict.fromkeys(live, now)
        self._seen_at = {name: at for name, at in self._seen_at.items() if now - at < IN_TOUCH_SECONDS}
        if live != self._live:
            self._live = live
            self._on_nodes(live)
        if self._own_at is not None and now - self._own_at > OWN_SECONDS:
            await self._lose_own_ghosts()
            self._own_at = now
        if dead and self._may_bury():
            await self._keep_clock()  # was it set, and all heartbeats have expired at once?
        if dead and self._may_bury():
            for node in dead:
                await self.bury(node, self._grace_ms(nodes))

    def _meet(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self.crowded = any(status.get("crowded") for status in nodes.values())
        self._processes = {
            process_name(name, status.get("started_at", 0))
            for name, status in nodes.items()
            if name != self._node.id
        }

    def _may_bury(self) -> bool:
        now = asyncio.get_running_loop().time()
        since = self._in_touch_since
        return (
            since is not None and now - since > IN_TOUCH_SECONDS and now - self._touched_at < IN_TOUCH_SECONDS
        )

    async def bury_predecessor(self) -> None:
        """Lose what a process that had this node's name held: its clients are gone. Before clients are accepted.

        Raises StoreUnavailable.
        """
        await self.beat()
        nodes, _ = await self._registry.nodes(self._clock.now())
        self._meet(nodes)
        grace_ms = self._grace_ms(nodes)
        for partition in range(self._partitions):
            await self._bury_partition(self._node.id, partition, grace_ms)
        self._own_at = asyncio.get_running_loop().time()  # before, its sides are the predecessor's

    async def _lose_own_ghosts(self) -> None:
        """Lose what Redis says that this node holds and no session here does: a failover may bring such sides back."""
        for partition in range(self._partitions):
            for room_id in await self._registry.all_held(partition, self._node.id):
                if self._node.rooms.get(room_id) is None:
                    await self._lose(self._node.id, partition, room_id, None)
                    if self._node.rooms.get(room_id) is not None:  # a client has come meanwhile
                        await self._registry.hold(partition, self._node.id, room_id)

    def _grace_ms(self, nodes: Mapping[str, Mapping[str, Any]]) -> int | None:
        """More than usual when the whole cluster has just started: clients may have given up trying often."""
        since = self._clock.now() - self._cold_start_grace_ms
        cold = all(status.get("started_at", 0) > since for status in nodes.values())
        return self._cold_start_grace_ms if cold else None

    async def bury(self, dead: str, grace_ms: int | None = None) -> None:
        """Lose all sides that a dead node held; nodes share the partitions by leases. Raises StoreUnavailable.

        It is forgotten when none is left, whoever has done the work.
        """
        for partition in range(self._partitions):
            if await self._registry.lease(partition, f"bury:{dead}", LEASE_MS):
                await self._bury_partition(dead, partition, grace_ms)
        for partition in range(self._partitions):
            if await self._registry.held(partition, dead, 1):
                return  # whoever has the lease is still at it, or died over it
        await self._registry.forget(dead)
        self.buried += 1
        _log.info("node_buried", dead=dead)

    async def _bury_partition(self, dead: str, partition: int, grace_ms: int | None) -> None:
        seen: set[str] = set()
        # A room that is there again was taken again, by a node that is not dead at all.
        while room_ids := set(await self._registry.held(partition, dead, AT_MOST)) - seen:
            seen |= room_ids
            await asyncio.gather(
                *(self._lose(dead, partition, room_id, grace_ms) for room_id in sorted(room_ids))
            )

    async def _lose(self, dead: str, partition: int, room_id: str, grace_ms: int | None) -> None:
        """Take the sides of one room from a dead node. The commit takes the room out of its `held` set."""
        try:
            room, _ = await self._node.store.load(room_id)
            held = [n for n in SIDES if room is not None and room.side(n).node == dead]
            for number in held:
                session = None if room is None else room.side(number).session
                if session is not None and not self._node.has(session):
                    room = await self._node.execute(
                        room, room_id, commands.Lose(number, session, grace_ms, with_node=True)
                    )
            if not held:
                await self._registry.remove_held(partition, dead, room_id)
        except (BadRecord, IllegalTransition, JournalFull, NotStored) as error:
            _log.error("side_not_lost", room=room_id, dead=dead, error=str(error))
            await self._registry.remove_held(partition, dead, room_id)
