"""What the worker of deadlines does about rooms that wait for the clients of a dead node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from keepline.room.commands import Command, Lose
from keepline.room.record import Room, Status
from keepline.room.rules import Rules
from keepline.room.state import apply
from signal_node.cluster.deadlines import LEASE_MS, DeadlineWorker
from tests.unit.signal_node.calls import ROOM, SESSION_2, T0, after, met

RULES = Rules()


class DueRooms:
    """A store that gives out one room whenever it is asked, and a node that carries out commands on it."""

    partitions = 1

    def __init__(self, room: Room) -> None:
        self.room = room
        self.now = T0
        self.taken = True
        self.crowded = True

    async def pop_due(self, by: Sequence[int], leased_until: int, at_most: int) -> list[str]:
        return [ROOM] if self.taken else []

    async def find(self, room_id: str) -> Room:
        return self.room

    async def execute(self, room: Room, room_id: str, command: Command, now: int) -> Room:
        self.room, _ = apply(room, command, now, RULES)
        return self.room


def worker_of(rooms: DueRooms) -> DeadlineWorker:
    fake = cast(Any, rooms)
    return DeadlineWorker("here", fake, fake, fake, RULES, lambda: rooms.crowded, lambda: rooms.now)


def lost(*, with_node: bool) -> DueRooms:
    return DueRooms(after(met(), Lose(2, SESSION_2, with_node=with_node), now=T0))


async def test_a_room_waits_for_the_client_of_a_dead_node_and_is_counted() -> None:
    rooms = lost(with_node=True)
    worker, before = worker_of(rooms), rooms.room
    rooms.now = T0 + RULES.grace_ms
    await worker.carry_out_due()
    assert (rooms.room is before, worker.extended) == (True, 1)
    rooms.now += LEASE_MS
    await worker.carry_out_due()
    assert worker.extended == 1


async def test_it_ends_when_the_cluster_is_crowded_no_longer() -> None:
    rooms = lost(with_node=True)
    worker = worker_of(rooms)
    rooms.now = T0 + RULES.grace_ms
    await worker.carry_out_due()
    rooms.crowded = False
    rooms.now += LEASE_MS
    await worker.carry_out_due()
    assert (rooms.room.status, worker.extended) == (Status.ENDED, 0)


async def test_a_room_that_is_not_taken_again_is_not_counted_for_ever() -> None:
    rooms = lost(with_node=True)
    worker = worker_of(rooms)
    rooms.now = T0 + RULES.grace_ms
    await worker.carry_out_due()
    rooms.taken = False
    rooms.now += 2 * LEASE_MS
    await worker.carry_out_due()
    assert worker.extended == 0


async def test_it_ends_when_its_client_has_been_awaited_for_long_enough() -> None:
    rooms = lost(with_node=True)
    rooms.now = T0 + RULES.crowd_grace_ms
    await worker_of(rooms).carry_out_due()
    assert rooms.room.status is Status.ENDED


async def test_a_side_that_was_lost_by_itself_is_not_awaited_for_longer() -> None:
    rooms = lost(with_node=False)
    worker = worker_of(rooms)
    rooms.now = T0 + RULES.grace_ms
    await worker.carry_out_due()
    assert (rooms.room.status, worker.extended) == (Status.ENDED, 0)
