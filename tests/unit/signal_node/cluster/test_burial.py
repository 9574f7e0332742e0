"""How nodes share the burial of a dead one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from keepline.room.commands import Command, Lose
from keepline.room.record import Room
from signal_node.cluster import burial
from signal_node.cluster.burial import Burial
from signal_node.cluster.clock import Clock
from signal_node.cluster.view import ClusterView
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, SESSION_1, SESSION_2, met, step

PARTITIONS = 2
LOST_1, LOST_2 = Lose(1, SESSION_1, with_node=True), Lose(2, SESSION_2, with_node=True)


class SharedRedis:
    """A registry whose `held` sets are kept, and a node whose commands change them as a commit would."""

    partitions = PARTITIONS

    def __init__(self, *rooms: Room) -> None:
        self.leased_by_others: set[int] = set()
        self.nodes_known = {"dead": 0}
        self.rooms = {room.room_id: room for room in rooms}
        self.sets = [{room.room_id} for room in rooms]
        self.lost: list[Command] = []
        self.retaken = False
        self.crowd = False
        self.lookups = self

    async def lease(self, partition: int, name: str, ttl_ms: int) -> bool:
        return partition not in self.leased_by_others

    async def held(self, partition: int, node: str, at_most: int) -> Sequence[str]:
        return sorted(self.sets[partition])

    async def remove_held(self, partition: int, node: str, room_id: str) -> None:
        self.sets[partition].discard(room_id)

    async def forget(self, node: str) -> None:
        del self.nodes_known[node]

    def ask_record(self, room_id: str) -> str:
        return room_id

    async def room_in(self, asked: str, room_id: str) -> Room:
        return self.rooms[room_id]

    def has(self, session: str) -> bool:
        return False

    async def execute(self, room: Room, room_id: str, command: Command) -> Room:
        self.lost.append(command)
        if self.retaken:
            return room
        after, _ = step(room, command)
        if "dead" not in {side.node for side in after.sides}:
            for held in self.sets:
                held.discard(room_id)
        self.rooms[room_id] = after
        return after


async def bury(redis: SharedRedis) -> None:
    """One look of a node that may bury."""
    fake = cast(Any, redis)
    one = Burial(
        "here",
        ClusterView("here"),
        fake,
        fake,
        Clock(),
        fake,
        fake,
        fake,
        fake,
        on_nodes=lambda nodes: None,
        crowd_waits=lambda: redis.crowd,
        cold_start_grace_ms=0,
    )
    await one.bury("dead")


async def test_the_sides_of_a_dead_node_are_lost_and_it_is_forgotten() -> None:
    redis = SharedRedis(met("here", "dead", ROOM), met("dead", "dead", OTHER_ROOM))
    await bury(redis)
    assert redis.lost == [LOST_2, LOST_1, LOST_2]
    assert redis.nodes_known == {}


async def test_a_node_is_not_forgotten_while_another_is_at_its_share() -> None:
    redis = SharedRedis(met("here", "dead", ROOM), met("here", "dead", OTHER_ROOM))
    redis.leased_by_others = {1}
    await bury(redis)
    assert redis.lost == [LOST_2]
    assert redis.nodes_known == {"dead": 0}
    redis.sets[1].clear()
    await bury(redis)
    assert redis.nodes_known == {}, "leases that others still have of work that is done hold up nobody"


async def test_a_node_that_takes_its_sides_again_is_not_fought_over_them() -> None:
    redis = SharedRedis(met("here", "dead", ROOM), met("here", "dead", OTHER_ROOM))
    redis.retaken = True
    await bury(redis)
    assert redis.lost == [LOST_2, LOST_2]
    assert redis.nodes_known == {"dead": 0}


async def test_while_clients_wait_to_come_in_it_is_interrupted_to_look_at_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(burial, "LOOK_SECONDS", -1)
    redis = SharedRedis(met("here", "dead", ROOM), met("here", "dead", OTHER_ROOM))
    redis.crowd = True
    await bury(redis)
    assert redis.lost == []
    redis.crowd = False
    await bury(redis)
    assert redis.nodes_known == {}
