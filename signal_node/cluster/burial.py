"""Cleans up after dead nodes: marks their sides as lost, so that their clients' peers are told.

A node that returns after losing contact with Redis finds all heartbeats expired, because no node could write any. So it
declares no node dead before it has been in contact without interruption for longer than a heartbeat lasts. If a live
node is declared dead all the same, it takes its sides back (see `Rooms`), and its clients see `reconnected`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.record import SIDES
from keepline.room.state import IllegalTransition
from signal_node.cluster.clock import Clock
from signal_node.cluster.heartbeat import Heartbeat
from signal_node.cluster.registry import Registry
from signal_node.cluster.view import ClusterView
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import JournalFull, NotStored
from signal_node.rooms.store import RoomStore
from signal_node.signaling.local_sessions import LocalSessions
from signal_node.signaling.room_commands import RoomCommands

LOOK_SECONDS = 0.5
LEASE_MS = 10_000
AT_MOST = 500

AT_ONCE = 16
"""Number of a dead node's rooms that are processed at a time, with signals and hellos in between."""

CROWD_SECONDS = 0.1
"""Pause after each batch while clients wait to log in: most clients of a dead node take their sides by themselves."""

OWN_SECONDS = 30.0
"""How often a node checks for sides that Redis assigns to it and that it does not hold."""

_log = structlog.get_logger(__name__)


class Burial:
    """Detects new and dead nodes, and cleans up after dead ones. Run `run` as a task."""

    def __init__(
        self,
        node: str,
        view: ClusterView,
        heartbeat: Heartbeat,
        registry: Registry,
        clock: Clock,
        rooms: Rooms,
        store: RoomStore,
        sessions: LocalSessions,
        room_commands: RoomCommands,
        *,
        on_nodes: Callable[[Sequence[str]], None],
        crowd_waits: Callable[[], bool],
        cold_start_grace_ms: int,
    ) -> None:
        """`on_nodes(live)` is called when the set of live nodes changes; `crowd_waits()` is whether clients wait here.

        `cold_start_grace_ms` is the grace period of sides that were lost with the whole cluster.
        """
        self.buried = 0
        self._node = node
        self._view = view
        self._heartbeat = heartbeat
        self._registry = registry
        self._clock = clock
        self._rooms = rooms
        self._store = store
        self._sessions = sessions
        self._room_commands = room_commands
        self._on_nodes = on_nodes
        self._crowd_waits = crowd_waits
        self._cold_start_grace_ms = cold_start_grace_ms
        self._own_at: float | None = None

    async def run(self) -> None:
        """Check twice a second, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                self._heartbeat.lost_touch()
                _log.warning("registry_unavailable", error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Update the set of live nodes, and clean up after dead ones. Raises StoreUnavailable."""
        nodes, dead = await self._registry.nodes(self._clock.now())
        now = asyncio.get_running_loop().time()
        if self._view.saw(nodes, now):
            self._on_nodes(self._view.live)
        if self._own_at is not None and now - self._own_at > OWN_SECONDS:
            await self._lose_own_ghosts()
            self._own_at = now
        if dead and self._heartbeat.in_touch():
            await self._heartbeat.keep_clock()  # was the clock set, so that all heartbeats expired at once?
        if dead and self._heartbeat.in_touch():
            for node in dead:
                await self.bury(node, self._grace_ms())

    async def bury_predecessor(self) -> None:
        """Mark the sides of a previous process with this node's name as lost. Call this before clients are accepted.

        Raises StoreUnavailable.
        """
        await self._heartbeat.beat()
        nodes, _ = await self._registry.nodes(self._clock.now())
        self._view.read(nodes)
        grace_ms = self._grace_ms()
        for partition in range(self._store.partitions):
            await self._bury_partition(self._node, partition, grace_ms)
        self._own_at = asyncio.get_running_loop().time()  # until then, its sides are its predecessor's

    async def bury(self, dead: str, grace_ms: int | None = None) -> None:
        """Mark all sides of a dead node as lost, under a lease per partition. Raises StoreUnavailable.

        The node is forgotten when it holds no side any more, whichever node did the work. While clients wait to log in,
        this runs slowly, and pauses after a while to check the other nodes.
        """
        look_at = asyncio.get_running_loop().time() + LOOK_SECONDS
        for partition in range(self._store.partitions):
            if self._crowd_waits() and asyncio.get_running_loop().time() > look_at:
                return
            if await self._registry.lease(partition, f"bury:{dead}", LEASE_MS):
                await self._bury_partition(dead, partition, grace_ms)
        for partition in range(self._store.partitions):
            if await self._registry.held(partition, dead, 1):
                return  # the holder of the lease is still working, or has died
        await self._registry.forget(dead)
        self.buried += 1
        _log.info("node_buried", dead=dead)

    def _grace_ms(self) -> int | None:
        """Longer than usual after a start of the whole cluster, because clients may have reduced their attempts."""
        cold = self._view.all_started_since(self._clock.now() - self._cold_start_grace_ms)
        return self._cold_start_grace_ms if cold else None

    async def _lose_own_ghosts(self) -> None:
        """Mark sides as lost that Redis assigns to this node, but no session here holds: a failover may restore such
        sides.
        """
        for partition in range(self._store.partitions):
            for room_id in await self._registry.all_held(partition, self._node):
                if self._rooms.get(room_id) is None:
                    await self._lose(self._node, partition, room_id, None)
                    if self._rooms.get(room_id) is not None:  # a client has joined meanwhile
                        await self._registry.hold(partition, self._node, room_id)

    async def _bury_partition(self, dead: str, partition: int, grace_ms: int | None) -> None:
        seen: set[str] = set()
        # A room that is listed again was taken back, by a node that is not dead.
        while room_ids := set(await self._registry.held(partition, dead, AT_MOST)) - seen:
            seen |= room_ids
            waiting = sorted(room_ids)
            for start in range(0, len(waiting), AT_ONCE):
                some = waiting[start : start + AT_ONCE]
                await asyncio.gather(*(self._lose(dead, partition, room_id, grace_ms) for room_id in some))
                if self._crowd_waits():
                    await asyncio.sleep(CROWD_SECONDS)

    async def _lose(self, dead: str, partition: int, room_id: str, grace_ms: int | None) -> None:
        """Mark a dead node's sides of one room as lost. The commit removes the room from its `held` set."""
        try:
            lookups = self._store.lookups
            room = await lookups.room_in(lookups.ask_record(room_id), room_id)
            held = [n for n in SIDES if room is not None and room.side(n).node == dead]
            for number in held:
                session = None if room is None else room.side(number).session
                if session is not None and not self._sessions.has(session):
                    lose = commands.Lose(number, session, grace_ms, with_node=True)
                    room = await self._room_commands.execute(room, room_id, lose)
            if not held:
                await self._registry.remove_held(partition, dead, room_id)
        except (BadRecord, IllegalTransition, JournalFull, NotStored) as error:
            _log.error("side_not_lost", room=room_id, dead=dead, error=str(error))
            await self._registry.remove_held(partition, dead, room_id)
