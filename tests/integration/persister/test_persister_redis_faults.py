"""A real Valkey that crashes, or loses everything, while a worker has a batch in hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from keepline.cli.local.servers import Valkey
from keepline.ops import redis
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import (
    Rig,
    all_acknowledged,
    dead_letters,
    publish,
    publish_together,
    written,
)
from tests.unit.persister.calls import call


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[Client]:
    async with connected(valkey) as opened:
        yield opened


@asynccontextmanager
async def connected(valkey: Valkey) -> AsyncIterator[Client]:
    opened = redis.connect(valkey.url)
    try:
        yield opened
    finally:
        await opened.aclose()


async def in_hand(rig: Rig) -> None:
    """Wait until a worker has read events, seven of a stream at the most, and is refused by the database."""
    await eventually(lambda: rig.value("retries_total", cause="refused") > 0)


async def test_a_crash_with_a_batch_in_hand_loses_and_doubles_nothing(
    valkey: Valkey, client: Client, pool: Pool
) -> None:
    rig = Rig(client, pool, "one", claim_idle_seconds=0.2)
    before, after = call(lines=3), call(lines=6)
    await pool.execute("ALTER TABLE active_rooms RENAME TO elsewhere")
    async with rig.running():
        await publish_together(client, [before])
        await in_hand(rig)
        await valkey.kill()
        await pool.execute("ALTER TABLE elsewhere RENAME TO active_rooms")
        await written(pool, before[-1])  # of that nobody can be told yet
        await valkey.start()
        async with connected(valkey) as anew:
            await publish(anew, after)
            await written(pool, after[-1])
            await all_acknowledged(anew)
            assert await dead_letters(anew) == []
    assert await pool.fetchval("SELECT count(*) FROM chat_history") == 2
    assert rig.value("retries_total", cause="redis") > 0


async def test_a_flush_with_a_batch_in_hand_makes_the_groups_anew(client: Client, pool: Pool) -> None:
    rig = Rig(client, pool, "one", claim_idle_seconds=0.2)
    before, after = call(lines=3), call(lines=6)
    await pool.execute("ALTER TABLE active_rooms RENAME TO elsewhere")
    async with rig.running():
        await publish_together(client, [before])
        await in_hand(rig)
        await client.flushall()
        await pool.execute("ALTER TABLE elsewhere RENAME TO active_rooms")
        await written(pool, before[-1])
        await publish(client, after)
        await written(pool, after[-1])
        await all_acknowledged(client)
        await rig.chores.tidy(prune=True)
    assert rig.value("lag_entries") == rig.value("pending_entries") == 0
