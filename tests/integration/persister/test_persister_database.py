"""Batches in a real PostgreSQL: versions, messages, and which fault is whose."""

import asyncio
import random

import pytest

from keepline.ops import postgres
from keepline.ops.postgres import Pool
from keepline.room.codec import Event, encode_event
from keepline.room.record import Message
from persister.database import Database, NotNow, RowFault
from persister.fold import change_of, fold
from tests.integration.persister.persister_rig import (
    stored,
)
from tests.unit.persister.calls import call, encoded, said


async def test_a_batch_delivered_again_changes_nothing(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    batch = fold(map(change_of, encoded(call())))
    assert await database.write(batch) == 3  # the room, its activity and its messages
    before = await pool.fetch("SELECT xmin::text, * FROM active_rooms")
    assert await database.write(batch) == 0
    assert await pool.fetch("SELECT xmin::text, * FROM active_rooms") == before


async def test_an_older_batch_that_comes_late_still_adds_its_messages(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    events = call(lines=4)
    changes = [change_of(data) for data in encoded(events)]
    await database.write(fold(changes[5:]))
    await database.write(fold(changes[:5]))
    row = await stored(pool, events[0].room.room_id)
    assert row is not None
    assert row["version"] == events[-1].room.version
    assert [message["seq"] for message in row["messages"]] == [m.seq for m in said(events)]


async def test_batches_of_two_connections_in_any_order_agree(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    calls = [call(lines=6) for _ in range(5)]
    changes = [change_of(data) for events in calls for data in encoded(events)] * 2
    random.Random(7).shuffle(changes)
    batches = [fold(changes[start : start + 9]) for start in range(0, len(changes), 9)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(database.write(batch) for batch in batches))
    for events in calls:
        row = await stored(pool, events[0].room.room_id)
        assert row is not None
        assert (row["version"], len(row["messages"])) == (events[-1].room.version, 6)


async def test_only_the_last_thousand_messages_are_kept(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    event = call(lines=1)[-2]
    for start in range(1, 1300, 130):
        lines = [Message(seq, "u", "x", seq) for seq in range(start, start + 130)]
        data = [encode_event(Event("post", event.room, line)) for line in lines]
        await database.write(fold(map(change_of, data)))
    row = await stored(pool, event.room.room_id)
    assert row is not None
    assert [message["seq"] for message in row["messages"]] == list(range(301, 1301))


async def test_faults_are_told_apart(pool: Pool, database_url: str) -> None:
    batch = fold(map(change_of, encoded(call())))
    with pytest.raises(RowFault, match="foreign key"):
        await Database(pool, create_users=False).write(batch)
    await pool.execute("ALTER TABLE active_rooms RENAME TO elsewhere")
    with pytest.raises(NotNow) as missing:
        await Database(pool, create_users=True).write(batch)
    assert missing.value.cause == "refused"
    with pytest.raises(NotNow):
        await Database(pool, create_users=True).ping()
    await pool.execute(
        "ALTER DATABASE {} SET default_transaction_read_only = on".format(database_url.rpartition("/")[2])
    )
    read_only = await postgres.create_pool(database_url, application="tests")
    await pool.execute("ALTER TABLE elsewhere RENAME TO active_rooms")
    with pytest.raises(NotNow) as refused:
        await Database(read_only, create_users=True).write(batch)
    assert refused.value.cause == "read_only"
    with pytest.raises(NotNow, match="read-only"):
        await Database(read_only, create_users=True).ping()
    await read_only.close()


async def test_a_fault_names_the_rule_and_not_the_row(pool: Pool) -> None:
    (event,) = call(lines=0)[:1]
    first, second = (side.user.encode() for side in event.room.sides)
    batch = fold([change_of(encode_event(event).replace(second, first))])
    with pytest.raises(RowFault, match="check constraint") as fault:
        await Database(pool, create_users=True).write(batch)
    assert event.room.room_id not in str(fault.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?sslmode=verify-full"]
)
async def test_what_keeps_us_from_connecting_is_never_a_rows_fault(url: str) -> None:
    pool = await postgres.create_pool(url, application="tests")
    with pytest.raises(NotNow):
        await Database(pool, create_users=True).write(fold(map(change_of, encoded(call()))))
    pool.terminate()
