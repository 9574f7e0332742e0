"""What may be assumed of the count of open connections by address, on each server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keepline.ops.redis.client import Client, connect
from keepline.room import keys
from signal_node.limits.open_connections import LEASE_MS, OpenConnections
from tests.contract.addresses import ADDRESS, PARTITIONS, Clock
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

MOST = 4


class Process:
    """The connections of one process of a node; `run` runs until the test is over."""

    def __init__(self, client: Client, clock: Clock, name: str, live: set[str]) -> None:
        self.refused: list[str] = []
        self.name = name
        self.connections = OpenConnections(
            client,
            PARTITIONS,
            lambda: name,
            MOST,
            others=lambda: live - {name},
            now=clock,
            refuse=self.refused.append,
        )

    async def open(self, *sessions: str) -> None:
        """Open connections at once and wait until they are settled."""
        for session in sessions:
            if not self.connections.opened(ADDRESS, session):
                self.refused.append(session)
        async with asyncio.timeout(10):
            for session in sessions:
                await self.connections.answered(ADDRESS, session)

    def close(self, *sessions: str) -> None:
        for session in sessions:
            self.connections.closed(ADDRESS, session)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live() -> set[str]:
    """The processes that live."""
    return {"a@1", "b@1"}


@pytest.fixture
async def processes(client: Client, clock: Clock, live: set[str]) -> AsyncIterator[list[Process]]:
    """Those of two nodes."""
    processes = [Process(client, clock, name, live) for name in sorted(live)]
    tasks = [asyncio.create_task(process.connections.run()) for process in processes]
    yield processes
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def shares(client: Client) -> dict[bytes, int]:
    key = keys.open_connections(keys.partition_of(ADDRESS, PARTITIONS), ADDRESS)
    found: Any = await client.hgetall(key)
    return {name: int(value.split()[0]) for name, value in found.items()}


async def test_two_nodes_together_take_so_many_connections(processes: list[Process], client: Client) -> None:
    a, b = processes
    await a.open("a1", "a2", "a3")
    await b.open("b1", "b2")
    assert (a.refused, b.refused) == ([], ["b2"])
    b.close("b2")
    await a.open("a4")
    assert a.refused == ["a4"]
    a.close("a1")

    async def a_has_two() -> bool:
        return (await shares(client)) == {b"a@1": 2, b"b@1": 1}

    await eventually(a_has_two)
    await b.open("b3")
    assert b.refused == ["b2"]


async def test_of_many_at_once_the_first_are_taken(processes: list[Process]) -> None:
    a, b = processes
    await b.open("b1", "b2")
    await a.open(*(f"a{number}" for number in range(10)))
    assert sorted(a.refused) == [f"a{number}" for number in range(2, 10)]


async def test_a_process_that_lives_no_more_does_not_count(processes: list[Process], live: set[str]) -> None:
    a, b = processes
    await a.open("a1", "a2", "a3", "a4")
    await b.open("b1")
    assert b.refused == ["b1"]
    live.remove("a@1")
    live.add("a@2")
    await b.open("b2")
    assert b.refused == ["b1"]


async def test_a_lease_that_nobody_renews_runs_out(
    processes: list[Process], clock: Clock, client: Client
) -> None:
    a, b = processes
    await a.open("a1", "a2")
    clock.now += LEASE_MS
    await b.open("b1", "b2", "b3", "b4")
    assert b.refused == []
    assert await shares(client) == {b"b@1": 4}


async def test_counts_are_renewed_and_put_back(
    processes: list[Process], clock: Clock, client: Client
) -> None:
    a, _ = processes
    await a.open("a1")
    await client.flushall()
    clock.now += LEASE_MS

    async def is_there() -> bool:
        return await shares(client) == {b"a@1": 1}

    await eventually(is_there, what="the count is renewed")
    await client.flushall()
    a.connections.put_back()
    await eventually(is_there, what="the count is put back")


async def test_nothing_is_left_of_an_address_without_connections(
    processes: list[Process], client: Client
) -> None:
    a, _ = processes
    await a.open("a1", "a2")
    a.close("a1", "a2")

    async def is_empty() -> bool:
        return not await shares(client)

    await eventually(is_empty)
    await a.open("a3")
    key = keys.open_connections(keys.partition_of(ADDRESS, PARTITIONS), ADDRESS)
    assert 0 < await client.pttl(key) <= LEASE_MS


async def test_without_a_server_each_process_counts_alone(clock: Clock, live: set[str]) -> None:
    nowhere = connect(f"redis://127.0.0.1:{free_port()}")
    alone = Process(nowhere, clock, "a@1", live)
    task = asyncio.create_task(alone.connections.run())
    try:
        await alone.open("a1", "a2")
        await alone.open("a3", "a4", "a5")
        assert alone.refused == ["a5"]
        alone.close("a1", "a5")
        await alone.open("a6")
        assert alone.refused == ["a5"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await nowhere.aclose()
