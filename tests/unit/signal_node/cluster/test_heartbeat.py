"""What a heartbeat says of when this process started, where the machine's own clock is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from signal_node.cluster.burial import Burial
from signal_node.cluster.clock import Clock
from signal_node.cluster.heartbeat import Heartbeat
from signal_node.cluster.registry import HEARTBEAT_SECONDS, HEARTBEAT_TTL_MS
from signal_node.cluster.view import ClusterView, process_name
from tests.helpers.virtual_time import run_virtual
from tests.helpers.waiting import eventually

REDIS_SECONDS = 1_800_000_000.0
AN_HOUR = 3_600.0


class Nodes:
    """A registry that knows the time and notes the heartbeats; and the node."""

    partitions = 1

    def __init__(self) -> None:
        self.monotonic = 5.0
        self.statuses: list[Mapping[str, Any]] = []
        self.looked_for_ghosts = 0
        self.silent = 0
        self.redis_off = 0.0

    async def time(self, monotonic: Callable[[], float]) -> tuple[float, float, float, None]:
        return REDIS_SECONDS + self.redis_off + monotonic(), monotonic(), monotonic(), None

    async def last_beats(self) -> list[float]:
        return []

    async def correct_clock(self, expected: bytes | None, correction: bytes) -> bool:
        return True

    async def beat(self, status: Mapping[str, Any], now: int, replaces: bytes) -> None:
        if self.silent:
            self.silent -= 1
            await asyncio.get_running_loop().create_future()
        self.statuses.append(status)

    async def all_held(self, partition: int, node: str) -> list[str]:
        self.looked_for_ghosts += 1
        return []

    async def nodes(self, now: int) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
        return {"here": self.statuses[-1]}, []

    async def held(self, partition: int, node: str, at_most: int) -> list[str]:
        return []


class Member:
    """A node whose own time of day is an hour fast."""

    def __init__(self, nodes: Nodes) -> None:
        fake = cast(Any, nodes)
        clock = Clock(lambda: nodes.monotonic, lambda: REDIS_SECONDS + AN_HOUR)
        self.view = ClusterView("here")
        self.heartbeat = Heartbeat("here", fake, clock, lambda: {"state": "ready"})
        self.burial = Burial(
            "here",
            self.view,
            self.heartbeat,
            fake,
            clock,
            fake,
            fake,
            fake,
            fake,
            on_nodes=lambda nodes: None,
            crowd_waits=lambda: False,
            cold_start_grace_ms=0,
        )


async def test_a_process_started_when_its_first_heartbeat_was_by_the_time_of_redis() -> None:
    nodes = Nodes()
    member = Member(nodes)
    await member.heartbeat.beat()
    nodes.monotonic += 7.0
    await member.heartbeat.beat()
    first = round((REDIS_SECONDS + 5.0) * 1_000)
    assert nodes.statuses == [{"state": "ready", "started_at": first}] * 2
    assert member.heartbeat.process() == process_name("here", first)


async def test_a_step_of_the_clock_of_redis_is_told_once() -> None:
    nodes = Nodes()
    member = Member(nodes)
    await member.heartbeat.beat()
    assert member.heartbeat.clock_changes == 0
    nodes.redis_off = AN_HOUR
    await member.heartbeat.beat()
    assert member.heartbeat.clock_changes == 1


async def test_it_has_its_name_before_clients_are_accepted() -> None:
    nodes = Nodes()
    member = Member(nodes)
    await member.burial.bury_predecessor()
    assert member.heartbeat.process() == process_name("here", nodes.statuses[0]["started_at"])


async def test_sides_of_the_predecessor_are_left_to_its_burial_which_knows_of_a_cold_start() -> None:
    nodes = Nodes()
    member = Member(nodes)
    await member.heartbeat.beat()
    reaper = asyncio.create_task(member.burial.run())
    await eventually(lambda: member.view.live)
    await member.burial.bury_predecessor()
    assert nodes.looked_for_ghosts == 0
    reaper.cancel()


def test_a_connection_that_has_died_unnoticed_costs_less_than_the_life_of_a_heartbeat() -> None:
    async def beats() -> float:
        nodes = Nodes()
        nodes.silent = 1
        heartbeat = asyncio.create_task(Member(nodes).heartbeat.run())
        loop = asyncio.get_running_loop()
        while not nodes.statuses:
            await asyncio.sleep(0.1)
        heartbeat.cancel()
        return loop.time()

    assert run_virtual(beats()) < HEARTBEAT_TTL_MS / 1_000 - HEARTBEAT_SECONDS


async def test_one_crowded_node_makes_a_crowded_cluster() -> None:
    nodes = Nodes()
    member = Member(nodes)
    await member.heartbeat.beat()
    seen = []
    for status in ({"crowded": False}, {"crowded": True}, {"state": "ready"}):
        nodes.statuses.append(status)
        await member.burial.look()
        seen.append(member.view.crowded())
    assert seen == [False, True, False], "nodes of before this release say nothing about it"
