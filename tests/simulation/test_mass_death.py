"""A full node dies, and the other one's loop takes its time: everybody has to come in before anybody gives a call up.

On the virtual clock each callback of the node takes as long as this says, so that the crowd stands in line for several
grace periods, on whatever machine this runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from keepline.room import commands
from keepline.room.record import ChatMode, Status
from signal_node.signaling import admission
from tests.simulation.devices import Device, Request
from tests.simulation.nodes import SimulatedNode
from tests.simulation.run import clear_away
from tests.simulation.wire_link import Wire
from tests.simulation.world import World, patched

ROOMS = 150
CALLBACK_SECONDS = 0.004
AT_ONCE = 8
"""Few, as the crowd is small: all others wait for their turn."""

START_SECONDS = 8.0
"""A node buries others only when it has been in touch with Redis for some time."""

COME_SECONDS = 20.0
HELLO_SECONDS = 10.0
"""How long an SDK waits for the answer to its hello, unless it is told that it is in the queue."""

MOST_SECONDS = 80.0
GRACE_SECONDS = 10.0


class SdkDevice(Device):
    """A device that waits as the SDKs do: for the answer to its hello, and before it comes again."""

    given_up = 0
    _retry_after = 0.0

    def _connect(self) -> None:
        super()._connect()
        if self.wire is not None:
            self._wait(self.wire)

    def _wait(self, wire: Wire) -> None:
        self._timer = self._out.loop.call_later(HELLO_SECONDS, self._give_up, wire)

    def _give_up(self, wire: Wire) -> None:
        if wire is self.wire and self.session is None:
            SdkDevice.given_up += 1
            self.drop(noticed=True)

    def _later(self, work: Callable[[], None]) -> None:
        backoff = self._out.random.uniform(0.0, 0.25)
        self._out.loop.call_later(max(backoff, self._retry_after), work)
        self._retry_after = 0.0

    def _on_error(self, frame: dict[str, Any], request: Request | None) -> None:
        self._retry_after = frame.get("retry_after_ms", 0) / 1_000 * self._out.random.uniform(1.0, 1.25)
        super()._on_error(frame, request)

    def _on_queued(self, frame: dict[str, Any], request: Request | None) -> None:
        assert self.wire is not None
        self._timer.cancel()
        self._wait(self.wire)


class Crowd:
    """Calls whose members are all on one node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.target: SimulatedNode
        self.rooms: list[str] = []
        self.devices: list[SdkDevice] = []
        world._outside = replace(world._outside, pick_node=lambda: self.target)

    async def come(self) -> None:
        for _ in range(ROOMS):
            room_id, users = self.world.uuid(), (self.world.uuid(), self.world.uuid())
            opening = commands.Open(room_id, *users, ChatMode.VIDEO, 0)
            assert await self.target.spawn(self.world._opened(self.target, room_id, opening))
            self.rooms.append(room_id)
            for number, user in enumerate(users, 1):
                device = SdkDevice(
                    user, f"{room_id[:4]}/{number}", f"192.0.2.{len(self.devices)}", self.world._outside
                )
                self.devices.append(device)
                device.want(room_id)
                device.start()
        await self.inside(COME_SECONDS)

    async def inside(self, seconds: float) -> float:
        """Wait until everybody is in; how long that took."""
        loop = self.world.loop
        began = loop.time()
        while loop.time() - began < seconds:
            await asyncio.sleep(0.05)
            if all(device.is_in(room_id) for device, room_id in self.members()):
                break
        return loop.time() - began

    def members(self) -> list[tuple[SdkDevice, str]]:
        return [(device, self.rooms[at // 2]) for at, device in enumerate(self.devices)]

    def ended(self) -> int:
        records = [self.world.record(room_id) for room_id in self.rooms]
        return sum(room is None or room.status is Status.ENDED for room in records)


async def mass_death(world: World) -> tuple[float, Crowd]:
    """Kill the node that everybody is on; how long it takes until all are on the other."""
    first, second = world.start_node(), world.start_node()
    await asyncio.sleep(START_SECONDS)
    crowd = Crowd(world)
    crowd.target = first
    await crowd.come()
    crowd.target = second
    second.process.cost = CALLBACK_SECONDS
    world.kill_node(first)
    return await crowd.inside(MOST_SECONDS), crowd


def play(seed: int) -> tuple[float, int, int]:
    """Seconds until all were back, calls that ended, hellos that were given up."""
    SdkDevice.given_up = 0
    world = World(seed, verbose=False)
    world.shape = replace(world.shape, nodes=2, text_idle_seconds=600.0, clock_off_by=0.0)
    with patched(world, verbose=False), mock.patch.object(admission, "AT_ONCE", AT_ONCE):
        asyncio.events.set_event_loop(world.loop)
        try:
            seconds, crowd = world.loop.run_until_complete(mass_death(world))
            assert world.trace.violations == []
            return seconds, crowd.ended(), SdkDevice.given_up
        finally:
            clear_away(world)
            asyncio.events.set_event_loop(None)


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_gives_a_call_up_while_a_crowd_comes_in(seed: int) -> None:
    seconds, ended, given_up = play(seed)
    assert seconds > 2 * GRACE_SECONDS, "this is about a crowd that takes longer than a grace period"
    assert (ended, given_up) == (0, 0)
    assert seconds < MOST_SECONDS
