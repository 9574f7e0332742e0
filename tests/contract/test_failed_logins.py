"""What may be assumed of the count of failed logins by address, on each server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
import pytest

from keepline.ops.redis.client import Client, connect
from keepline.room import keys
from keepline.room.attempts import Attempts, decode_attempts
from signal_node.limits import failed_logins
from signal_node.limits.failed_logins import FailedLogins
from tests.contract.addresses import ADDRESS, OTHER, PARTITIONS, T0, Clock
from tests.contract.conftest import RedisServer
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

ALL = frozenset(range(PARTITIONS))
LIMIT = 3
WINDOW_MS = 60_000


@pytest.fixture(autouse=True)
def whole_server(redis_server: RedisServer) -> None:
    """Clients of the simulation have no address, so its Redis has none of the commands that are used here."""
    if redis_server.name == "simulated":
        pytest.skip("nothing has an address in the simulation")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_node(client: Client, clock: Clock) -> Callable[[], FailedLogins]:
    """Another node, or the same one started again."""
    return lambda: FailedLogins(client, PARTITIONS, LIMIT, WINDOW_MS, clock)


@pytest.fixture
def here(new_node: Callable[[], FailedLogins]) -> FailedLogins:
    return new_node()


@pytest.fixture
def there(new_node: Callable[[], FailedLogins]) -> FailedLogins:
    return new_node()


async def fail(node: FailedLogins, clock: Clock, *attempts: str, every_ms: int = 1_000) -> None:
    for attempt in attempts:
        await node.failed(ADDRESS, attempt)
        clock.now += every_ms


@asynccontextmanager
async def running(node: FailedLogins) -> AsyncIterator[None]:
    task = asyncio.create_task(node.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def events(client: Client, address: str = ADDRESS) -> list[Attempts]:
    found: Any = await client.xrange(keys.events(keys.partition_of(address, PARTITIONS)))
    return [decode_attempts(fields[b"event"]) for _, fields in found]


async def test_failures_on_two_nodes_block_an_address_on_both_until_the_first_leaves_the_window(
    here: FailedLogins, there: FailedLogins, clock: Clock
) -> None:
    await fail(here, clock, "a")
    await fail(there, clock, "b")
    assert await here.wait_ms(ADDRESS) == await there.wait_ms(ADDRESS) == 0
    await fail(here, clock, "c")
    assert await here.wait_ms(ADDRESS) == await there.wait_ms(ADDRESS) == WINDOW_MS - 3_000
    assert await here.wait_ms(OTHER) == 0
    clock.now = T0 + WINDOW_MS - 1
    assert await here.wait_ms(ADDRESS) == await there.wait_ms(ADDRESS) == 1
    clock.now = T0 + WINDOW_MS
    assert await here.wait_ms(ADDRESS) == await there.wait_ms(ADDRESS) == 0


async def test_the_window_slides(here: FailedLogins, there: FailedLogins, clock: Clock) -> None:
    await fail(here, clock, "a", "b", every_ms=40_000)
    await fail(here, clock, "c", every_ms=0)
    assert await there.wait_ms(ADDRESS) == 0, "the first has left the window"
    await fail(here, clock, "d", every_ms=0)
    assert await there.wait_ms(ADDRESS) == 20_000


async def test_a_node_that_starts_again_finds_the_block(
    here: FailedLogins, new_node: Callable[[], FailedLogins], clock: Clock
) -> None:
    await fail(here, clock, "a", "b", "c", every_ms=0)
    assert await new_node().wait_ms(ADDRESS) == WINDOW_MS


async def test_keys_expire_with_the_window(here: FailedLogins, clock: Clock, client: Client) -> None:
    await fail(here, clock, "a")
    key = keys.failed_logins(keys.partition_of(ADDRESS, PARTITIONS), ADDRESS)
    assert 0 < await client.pttl(key) <= WINDOW_MS
    assert await here.wait_ms(OTHER) == 0
    assert not await client.exists(keys.failed_logins(keys.partition_of(OTHER, PARTITIONS), OTHER))


async def test_no_more_than_the_limit_is_kept(
    here: FailedLogins, there: FailedLogins, clock: Clock, client: Client
) -> None:
    for attempt in range(5 * LIMIT):
        await (here, there)[attempt % 2].failed(ADDRESS, f"{attempt}")
    assert await client.zcard(keys.failed_logins(keys.partition_of(ADDRESS, PARTITIONS), ADDRESS)) == LIMIT


async def test_what_redis_has_lost_is_put_back_by_those_who_saw_it(
    here: FailedLogins,
    there: FailedLogins,
    new_node: Callable[[], FailedLogins],
    clock: Clock,
    client: Client,
) -> None:
    await fail(here, clock, "a", "b")
    await fail(there, clock, "c")
    await client.flushall()
    assert await new_node().wait_ms(ADDRESS) == 0
    for node in (here, there, here):  # once too often
        await node.put_back()
    assert await new_node().wait_ms(ADDRESS) == WINDOW_MS - 3_000


async def test_the_persister_is_told_of_a_block_at_once(
    here: FailedLogins, there: FailedLogins, clock: Clock, client: Client
) -> None:
    await fail(here, clock, "a", "b")
    assert await events(client) == []
    await fail(there, clock, "c")
    assert await events(client) == [Attempts(ADDRESS, 3, T0, T0 + 2_000, T0 + 2_000 + WINDOW_MS)]


async def test_what_postgres_knows_blocks_again_and_no_longer_than_before(
    here: FailedLogins, new_node: Callable[[], FailedLogins], clock: Clock, client: Client
) -> None:
    await fail(here, clock, "a", "b", "c")
    (known,) = await events(client)
    await client.flushall()
    restored = new_node()
    await restored.restore([known], ALL)
    assert await restored.wait_ms(ADDRESS) == WINDOW_MS - 3_000
    clock.now = T0 + WINDOW_MS
    assert await new_node().wait_ms(ADDRESS) == 0


async def test_what_nodes_have_put_back_is_not_counted_again(
    here: FailedLogins, there: FailedLogins, clock: Clock, client: Client
) -> None:
    await fail(here, clock, "a", "b")
    known = Attempts(ADDRESS, 2, T0, T0 + 1_000, T0 + 1_000 + WINDOW_MS)
    await there.restore([known], ALL)
    await there.restore([known], ALL)
    assert await there.wait_ms(ADDRESS) == 0
    await there.failed(ADDRESS, "c")
    assert await here.wait_ms(ADDRESS) == WINDOW_MS - 2_000


async def test_what_other_nodes_had_seen_is_added(
    here: FailedLogins, there: FailedLogins, clock: Clock, client: Client
) -> None:
    clock.now += 500
    await here.failed(ADDRESS, "b")
    known = Attempts(ADDRESS, 3, T0, T0 + 500, T0 + 500 + WINDOW_MS)
    await there.restore([known], ALL)
    assert await there.wait_ms(ADDRESS) == WINDOW_MS - 500


async def test_only_what_still_counts_and_belongs_to_lost_partitions_is_restored(
    here: FailedLogins, clock: Clock
) -> None:
    partition = keys.partition_of(ADDRESS, PARTITIONS)
    known = Attempts(ADDRESS, 3, T0, T0, T0 + WINDOW_MS)
    await here.restore([known], ALL - {partition})
    clock.now = T0 + WINDOW_MS
    await here.restore([known], ALL)
    clock.now = T0
    assert await here.wait_ms(ADDRESS) == 0
    await here.restore([known], frozenset({partition}))
    assert await here.wait_ms(ADDRESS) == WINDOW_MS


async def test_attempts_leave_the_stream_half_empty(
    here: FailedLogins, clock: Clock, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_logins, "_MAX_EVENTS", 2)
    stream = keys.events(keys.partition_of(ADDRESS, PARTITIONS))
    await client.xadd(stream, {"event": "of a room"})
    await client.xadd(stream, {"event": "of a room"})
    await fail(here, clock, "a", "b", "c")
    assert await client.xlen(stream) == 2
    assert await here.wait_ms(ADDRESS) > 0


async def test_less_than_a_block_reaches_the_persister_after_a_while(
    here: FailedLogins, clock: Clock, client: Client
) -> None:
    await fail(here, clock, "a", "b")
    async with running(here):

        async def told() -> bool:
            return await events(client) == [Attempts(ADDRESS, 2, T0, T0 + 1_000, T0 + 1_000 + WINDOW_MS)]

        await eventually(told, what="the two are told of together")


async def test_a_server_that_forgot_the_scripts_is_told_again(
    here: FailedLogins, clock: Clock, client: Client
) -> None:
    await client.script_flush()
    await fail(here, clock, "a", "b", "c", every_ms=0)
    assert await here.wait_ms(ADDRESS) == WINDOW_MS


async def test_without_a_server_a_node_counts_alone(clock: Clock) -> None:
    nowhere = connect(f"redis://127.0.0.1:{free_port()}")
    alone = FailedLogins(nowhere, PARTITIONS, LIMIT, WINDOW_MS, clock)
    try:
        await fail(alone, clock, "a", "b", "c", every_ms=0)
        assert await alone.wait_ms(ADDRESS) == WINDOW_MS
        assert await alone.wait_ms(OTHER) == 0
    finally:
        await nowhere.aclose()


async def test_what_a_node_has_counted_alone_it_tells_when_the_server_is_back(clock: Clock) -> None:
    server = fakeredis.FakeServer()
    async with fakeredis.FakeAsyncRedis(server=server) as client:
        here, there = [FailedLogins(client, PARTITIONS, LIMIT, WINDOW_MS, clock) for _ in range(2)]
        server.connected = False
        await fail(here, clock, "a", "b", "c", every_ms=0)
        server.connected = True
        assert await there.wait_ms(ADDRESS) == 0
        async with running(here):

            async def told() -> bool:
                return await there.wait_ms(ADDRESS) == WINDOW_MS and len(await events(client)) == 1

            await eventually(told)
