"""Plays one seed: a busy time with faults, then calm, then the reckoning."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.devices import Device
from tests.simulation.faults import BESIDE, FAULTS, Fault
from tests.simulation.invariants import Watch, at_rest
from tests.simulation.trace import Violation
from tests.simulation.world import World, patched

START_SECONDS = 3.0
BUSY_SECONDS = 25.0
SETTLED_SECONDS = 18.0
"""After this much calm, what is wrong has to go within `PASSING_SECONDS`: sooner than by a comparison of everything."""

PASSING_SECONDS = 2.0
CALM_SECONDS = 45.0
LOOK_SECONDS = 0.25
SIGNAL_SECONDS = 1.0


@dataclass(frozen=True)
class Result:
    """What became of a seed."""

    seed: int
    digest: str
    steps: int
    violations: tuple[str, ...]


def play(seed: int, *, verbose: bool = False) -> Result:
    """Play a seed from its start to its end."""
    world = World(seed, verbose=verbose)
    with patched(world, verbose=verbose):
        asyncio.events.set_event_loop(world.loop)
        try:
            world.loop.set_exception_handler(
                lambda _, context: world.trace.violate(
                    f"{context['message']}: {context.get('exception') or context.get('task')!r}"
                )
            )
            world.loop.run_until_complete(_Play(world).run())
        except Violation:
            pass
        finally:
            digest, steps, violations = world.trace.digest, world.loop.steps, tuple(world.trace.violations)
            clear_away(world)
            asyncio.events.set_event_loop(None)
    return Result(seed, digest, steps, violations)


def clear_away(world: World) -> None:
    """End all that runs, also what was killed or is frozen."""
    world.loop.set_exception_handler(lambda *_: None)
    world.redis.stop()
    for node in [*world.nodes, *world.buried]:
        world.loop.thaw(node.process)
    for process, _ in world.persisters:
        world.loop.thaw(process)
    tasks = asyncio.all_tasks(world.loop)
    for _ in range(20):
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        world.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        tasks = {task for task in tasks if not task.done()}
    world.loop.run_until_complete(world.loop.shutdown_asyncgens())
    world.loop.close()


class _Play:
    def __init__(self, world: World) -> None:
        self._world = world
        self._watch = Watch(world)
        self._calm_since: float | None = None
        self._faults = 0

    async def run(self) -> None:
        world = self._world
        random = world.random
        for _ in range(world.shape.nodes):
            world.start_node()
        for _ in range(world.shape.persisters):
            world.start_persister()
        await self._pass(START_SECONDS)
        for _ in range(world.shape.rooms):
            world.loop.call_later(random.uniform(0.0, 10.0), world.open_room)
        faults = [random.choice(FAULTS) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4)))]
        pending = [
            world.loop.create_task(self._fault(fault, random.uniform(0.0, BUSY_SECONDS))) for fault in faults
        ]
        beside = world.dice_beside
        for fault, share in BESIDE:
            if beside.random() < share:
                pending.append(world.loop.create_task(self._fault(fault, beside.uniform(0.0, BUSY_SECONDS))))
        acting = world.loop.create_task(self._act())
        await self._pass(BUSY_SECONDS)
        acting.cancel()
        while not all(task.done() for task in pending):
            await self._pass(LOOK_SECONDS)
        for task in pending:
            task.result()
        self._calm_since = world.loop.time()
        world.trace.note("world", "is calm")
        world.sweep_up()
        while len(world.nodes) < world.shape.nodes:
            world.start_node()
        await self._pass(SETTLED_SECONDS)
        found = set(at_rest(world))
        await self._pass(PASSING_SECONDS)
        for problem in at_rest(world):
            if problem in found:
                world.trace.violate(problem)
        await self._pass(CALM_SECONDS - SETTLED_SECONDS - PASSING_SECONDS)
        for problem in at_rest(world):
            world.trace.violate(problem)
        await self._signals()
        self._check()

    async def _pass(self, seconds: float) -> None:
        """Let time pass, and look at the world."""
        ends_at = self._world.loop.time() + seconds
        while self._world.loop.time() < ends_at:
            await asyncio.sleep(LOOK_SECONDS)
            self._watch.look(self._calm_since)
            self._check()

    def _check(self) -> None:
        if self._world.trace.violations:
            raise Violation

    async def _fault(self, fault: Fault, after: float) -> None:
        await asyncio.sleep(after)
        await fault(self._world)

    # --- what people do ---

    async def _act(self) -> None:
        world = self._world
        while True:
            await asyncio.sleep(world.random.expovariate(2.0))
            devices = [device for device in world.devices.values() if not device.gone]
            if devices:
                self._act_once(world.random.choice(devices))

    def _act_once(self, device: Device) -> None:
        world = self._world
        random = world.random
        rooms = [view.room_id for view in device.views.values() if view.joined]
        room_id = random.choice(rooms) if rooms else None
        chance = random.random()
        if chance < 0.12:
            device.drop(noticed=random.random() < 0.7)
        elif chance < 0.16:
            world.take_over(device)
        elif chance < 0.175:
            world.trace.note(device.name, "is switched off")
            device.stop()
        elif room_id is None:
            return
        elif chance < 0.7:
            device.write(room_id)
        elif chance < 0.8:
            device.signal(room_id, "in passing")
        elif chance < 0.9:
            device.act(room_id, "mode", action=random.choice(("request", "accept", "decline")))
        elif chance < 0.94:
            device.act(room_id, "leave")
        elif chance < 0.97:
            device.act(room_id, "end")
        elif chance < 0.98:
            world.delete_room(room_id)
        else:
            for view in device.views.values():
                device.want(view.room_id)

    async def _signals(self) -> None:
        """In the end every pair that is together must hear each other."""
        world = self._world
        for device, room_id, _ in self._pairs():
            device.signal(room_id, f"from {device.user}")
        await asyncio.sleep(SIGNAL_SECONDS)
        for device, room_id, peer in self._pairs():
            if f"from {peer.user}" not in device.views[room_id].signals:
                world.trace.violate(f"{device.name} does not hear {peer.name}")

    def _pairs(self) -> Iterator[tuple[Device, str, Device]]:
        for room_id, promise in self._world.knowledge.rooms.items():
            one, other = (self._world.devices.get(user) for user in promise.users)
            for device, peer in ((one, other), (other, one)):
                if device is not None and peer is not None and device.is_in(room_id) and peer.is_in(room_id):
                    yield device, room_id, peer
