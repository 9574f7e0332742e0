"""A signal node as a process of the simulation: all its real parts, without sockets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from keepline.ops.backoff import Backoff
from keepline.ops.errors import CannotRun
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.ops.settings import NodeSettings
from keepline.ops.tasks import Tasks
from keepline.room.record import Room
from signal_node.app import App
from signal_node.cluster.clock import Clock
from signal_node.rooms.archive import Archive
from tests.simulation.loop import Process, SimulationLoop
from tests.simulation.network import WALL_AT_START, Redis
from tests.simulation.redis_client import as_client
from tests.simulation.trace import Trace
from tests.simulation.wire_link import Wire

DRAIN_SECONDS = 2.0
DOUBTED_SECONDS = 15.0
"""Longer than it takes until a node that seems dead is buried, and until that is undone."""

TROUBLED_SECONDS = 5.0
"""Longer than a join waits for Redis and then for Postgres before it is answered."""


@dataclass(frozen=True)
class Surroundings:
    """What all nodes of a run share."""

    loop: SimulationLoop
    random: Random
    redis: Redis
    archive: Archive
    trace: Trace
    partitions: int
    settings: Callable[[str], NodeSettings]


class SimulatedNode:
    """One life of a node, from its start to its end."""

    def __init__(self, name: str, around: Surroundings, *, clock_off_by: float) -> None:
        """`clock_off_by` is by how many seconds this machine's time of day is wrong."""
        self.name = name
        self.process = Process(name)
        self.link = around.redis.link(name)
        self.accepting = False
        self.alive = True
        self.wires: dict[Wire, None] = {}
        self._around = around
        self._context = self.process.context()
        self.thawed_at = -math.inf
        self._stopping = False
        self.refused = False
        self._tasks: Tasks
        self.app: App
        wall = WALL_AT_START + clock_off_by
        self._clock = Clock(around.loop.time, lambda: wall + around.loop.time())
        self.main = around.loop.spawn(self.process, self._run())

    async def _run(self) -> None:
        """As the program does it: start all tasks, bury the predecessor, then accept clients."""
        around = self._around
        self._tasks = Tasks(self._failed, new_backoff=lambda: Backoff(uniform=around.random.uniform))
        self.app = App(
            around.settings(self.name),
            around.loop,
            as_client(self.link),
            around.partitions,
            around.archive,
            lambda: self._stopping,
            self._clock,
            around.random.random,
        )
        try:
            await self._once_redis_answers(self.app.cluster.heartbeat.claim_name)
        except CannotRun as error:
            self._end(str(error))
            return
        self.app.start(self._tasks)
        await self._once_redis_answers(self.app.cluster.burial.bury_predecessor)
        self.accepting = True
        around.trace.note(self.name, "accepts")

    async def _once_redis_answers(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                return
            except StoreUnavailable as error:  # the program ends, and whoever runs it starts it again
                self._around.trace.note(self.name, f"cannot start: {error}")
                await asyncio.sleep(self._around.random.uniform(0.2, 1.0))

    def _end(self, why: str) -> None:
        self.refused = True
        self._around.trace.note(self.name, f"ends: {why}")
        self._around.loop.call_soon(self.kill, context=Process("end").context())

    def _failed(self, task: str, error: BaseException) -> None:
        if isinstance(error, CannotRun):
            self._end(str(error))
            return
        self._around.trace.violate(f"task {task} of {self.name} failed: {error!r}")

    @property
    def ready(self) -> bool:
        """What the load balancer is told."""
        return (
            self.alive
            and self.accepting
            and not self._stopping
            and not self.app.signals.inbox.health.silent
            and self.app.recovery.open
        )

    @property
    def troubled(self) -> bool:
        """Whether Redis left it without an answer lately, so that a join may have been answered without."""
        return self._around.loop.time() - self.link.troubled_at < TROUBLED_SECONDS

    @property
    def doubted(self) -> bool:
        """Whether others may take it for dead, or have done so lately."""
        silent_until = max(self.thawed_at, self.link.troubled_at)
        return self.process.frozen or self._around.loop.time() - silent_until < DOUBTED_SECONDS

    @property
    def reachable(self) -> bool:
        """Whether the load balancer may still send clients: it learns late, and of a frozen node nothing."""
        return self.alive and self.accepting and not self._stopping

    def connect(
        self, host: str, on_frame: Callable[[dict[str, Any]], None], on_close: Callable[[int], None]
    ) -> Wire:
        """A client connects from an IP address."""
        around = self._around
        connection = self.app.clients.handler.accept()
        wire = Wire(around.loop, around.random, connection, self._context, host, on_frame, on_close)
        self.wires[wire] = None
        return wire

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine in this node's process."""
        return self._around.loop.spawn(self.process, work)

    def kill(self) -> None:
        """The process is gone, from one moment to the next."""
        self.alive = self.accepting = False
        self._around.loop.freeze(self.process)
        self._around.redis.drop_link(self.link)
        for wire in self.wires:
            wire.node_died()

    async def drain(self) -> None:
        """As on SIGTERM; in the node's own process."""
        self._stopping = True
        await self.app.drain.run(DRAIN_SECONDS, asyncio.Event())
        try:
            await self.app.cluster.registry.leave()
        except StoreUnavailable as error:
            self._around.trace.note(self.name, f"could not leave: {error}")
        self._around.trace.note(self.name, "has drained")
        await self._tasks.aclose()
        await self.app.work.aclose()
        self._around.loop.call_soon(self.kill, context=Process("end").context())

    def cached(self) -> dict[str, Room]:
        """The rooms of the cache."""
        rooms = self.app.rooms.cache
        return {room_id: room for room_id in rooms.ids() if (room := rooms.get(room_id)) is not None}

    def remembered(self, room_id: str) -> Room | None:
        """What the node knows to have been stored of a room."""
        return self.app.rooms.cache.stored(room_id) if self.accepting else None

    def lines(self, room_id: str) -> dict[int, str]:
        """The lines of a room that the node could put back: texts by number."""
        return {line.seq: line.text for line in self.app.rooms.cache.lines(room_id)} if self.accepting else {}
