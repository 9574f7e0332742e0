"""Failed logins on their way through the stream into `rate_limits`."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.attempts import Attempts, encode_attempts
from persister.database import Database
from persister.fold import change_of, fold
from signal_node.rooms.archive import Archive
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import Rig, all_acknowledged, dead_letters
from tests.unit.persister.calls import call, encoded

NOW = 4_000_000_000_000
"""In a far future: Postgres' own clock tells what has expired."""

FIRST = Attempts("198.51.100.7", 2, NOW, NOW + 1_000, NOW + 601_000)
SECOND = replace(FIRST, attempts=3, last_at=NOW + 2_000, expires_at=NOW + 602_000)
THIRD = replace(FIRST, attempts=4, last_at=NOW + 2_000, expires_at=NOW + 602_000)
NETWORK = Attempts("2001:db8:1:2::/64", 6, NOW, NOW, NOW + 600_000)


async def stored(pool: Pool) -> list[Attempts]:
    """What nodes would bring back into Redis."""
    return sorted(
        [one async for batch in Archive(pool).limited() for one in batch], key=lambda one: one.address
    )


async def append(client: Client, data: bytes) -> None:
    await client.xadd(keys.events(3), {"event": data})


@pytest.mark.parametrize("order", list(permutations([FIRST, SECOND, THIRD])))
async def test_the_last_count_stays_in_whatever_order_batches_come(
    pool: Pool, order: tuple[Attempts, ...]
) -> None:
    database = Database(pool, create_users=True)
    for attempts in (*order, *order):
        await database.write(fold([attempts]))
    assert await stored(pool) == [THIRD]


async def test_a_batch_brings_one_row_for_each_address_and_rooms_beside_them(pool: Pool) -> None:
    changes = [change_of(data) for data in encoded(call())]
    batch = fold([THIRD, *changes, FIRST, NETWORK, SECOND])
    assert batch.attempts == (THIRD, NETWORK)
    await Database(pool, create_users=True).write(batch)
    assert await stored(pool) == [THIRD, NETWORK]
    assert await pool.fetchval("SELECT count(*) FROM active_rooms") == 1


async def test_what_has_expired_is_not_brought_back(pool: Pool) -> None:
    old = Attempts("198.51.100.9", 6, 1_000, 2_000, 602_000)
    await Database(pool, create_users=True).write(fold([old, FIRST]))
    assert await stored(pool) == [FIRST]


async def test_an_address_that_is_none_goes_to_the_dead_letters_and_holds_up_nothing(
    client: Client, pool: Pool
) -> None:
    rig = Rig(client, pool, "a")
    await append(client, encode_attempts(replace(FIRST, address="nowhere")))
    await append(client, encode_attempts(FIRST).replace(b'"attempts":2', b'"attempts":null'))
    await append(client, encode_attempts(SECOND))
    async with rig.running():

        async def written() -> bool:
            return await stored(pool) == [SECOND]

        await eventually(written)
        await all_acknowledged(client)
    letters = await dead_letters(client)
    assert len(letters) == 2
    assert {bool(b"nowhere" in letter[b"event"]) for letter in letters} == {True, False}
