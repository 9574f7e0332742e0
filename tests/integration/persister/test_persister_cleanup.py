"""What a sweep removes from a real PostgreSQL, and that late events bring no removed room back."""

import asyncio
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from keepline.ops.health import Health, Probe
from keepline.ops.postgres import Pool
from keepline.room.codec import Event
from persister import cleanup
from persister.cleanup import Cleanup, Periods
from persister.database import Database, NotNow
from persister.fold import change_of, fold
from persister.metrics import Metrics
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import stored
from tests.unit.persister.calls import call, encoded

PERIODS = Periods(ended=3600, removed=7 * 86_400, referrals=90 * 86_400, interval=0.02)
ALL_ARE_LATE = -1e9  # whatever day the made-up calls are on
AT_ONCE = Periods(ended=0, removed=7 * 86_400, referrals=90 * 86_400, interval=0.02)


class Sweeper:
    """A cleanup with its own metrics and health."""

    def __init__(self, pool: Pool, periods: Periods = PERIODS) -> None:
        self.registry = CollectorRegistry()
        self.postgres: Probe = Health(lambda: 0.0).probe("postgres")
        database = Database(pool, create_users=True)
        self.cleanup = Cleanup(database, Metrics(self.registry), periods, postgres=self.postgres)

    def removed(self, table: str) -> float:
        return (
            self.registry.get_sample_value("keepline_persister_rows_removed_total", {"table": table}) or 0.0
        )


async def write(pool: Pool, *batches: list[Event]) -> None:
    for batch in batches:
        database = Database(pool, create_users=True, late_seconds=ALL_ARE_LATE)
        await database.write(fold(map(change_of, encoded(batch))))


async def age(pool: Pool, events: list[Event], interval: str) -> None:
    """Make the row of a room look as if it had been written so long ago."""
    async with pool.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")  # or the trigger says now
        await connection.execute(
            f"UPDATE active_rooms SET updated_at = now() - interval '{interval}' WHERE room_id = $1",
            UUID(events[0].room.room_id),
        )


async def test_rooms_go_an_hour_after_their_end_was_written(pool: Pool) -> None:
    old, young, live = call(lines=6), call(lines=6), call(lines=6, end=False)
    await write(pool, old, young, live)
    await age(pool, old, "61 minutes")
    await age(pool, young, "59 minutes")
    await age(pool, live, "3 days")
    sweeper = Sweeper(pool)
    assert await sweeper.cleanup.sweep() == 1
    assert sweeper.removed("active_rooms") == 1
    assert await stored(pool, old[0].room.room_id) is None
    assert await stored(pool, young[0].room.room_id) is not None
    assert await stored(pool, live[0].room.room_id) is not None
    assert await pool.fetchval("SELECT count(*) FROM text_room_activity") == 2
    assert await pool.fetchval("SELECT count(*) FROM chat_history") == 4


async def test_referrals_limits_and_remembered_ids_go_when_they_are_due(pool: Pool) -> None:
    await pool.execute(
        """
        INSERT INTO users (user_id) VALUES ('00000000-0000-4000-8000-000000000001');
        INSERT INTO referral_mappings (referral_code, target_user_id, created_by_user_id, created_at)
        SELECT code, user_id, user_id, r.created_at FROM users,
            (VALUES ('old', now() - interval '91 days'), ('young', now() - interval '89 days'))
                AS r (code, created_at);
        INSERT INTO rate_limits (ip_address, expires_at)
        VALUES ('192.0.2.1', now() - interval '1 second'), ('2001:db8::/64', now() + interval '1 minute');
        INSERT INTO removed_rooms
        SELECT gen_random_uuid(), now() - age FROM (VALUES (interval '8 days'), (interval '6 days')) AS r (age);
        """
    )
    sweeper = Sweeper(pool)
    assert await sweeper.cleanup.sweep() == 3
    tables = ("referral_mappings", "rate_limits", "removed_rooms")
    assert [sweeper.removed(table) for table in tables] == [1, 1, 1]
    assert await pool.fetchval("SELECT referral_code FROM referral_mappings") == "young"
    assert await pool.fetchval("SELECT ip_address::text FROM rate_limits") == "2001:db8::/64"
    assert await sweeper.cleanup.sweep() == 0


async def test_much_is_removed_in_batches(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "BATCH_ROWS", 3)
    await write(pool, *(call(lines=0) for _ in range(7)))
    assert await Sweeper(pool, AT_ONCE).cleanup.sweep() == 7


async def test_one_worker_sweeps_and_a_locked_row_holds_it_up_not(pool: Pool) -> None:
    held, free = call(lines=0), call(lines=0)
    await write(pool, held, free)
    sweeper = Sweeper(pool, AT_ONCE)
    async with pool.transaction() as other:
        await other.execute("SELECT pg_advisory_xact_lock($1)", cleanup._LOCK)
        assert await sweeper.cleanup.sweep() == 0
    async with pool.transaction() as other:
        await other.execute(
            "SELECT FROM active_rooms WHERE room_id = $1 FOR UPDATE", UUID(held[0].room.room_id)
        )
        assert await sweeper.cleanup.sweep() == 1
    assert await sweeper.cleanup.sweep() == 1


async def test_no_event_that_comes_late_brings_a_removed_room_back(pool: Pool) -> None:
    events, other = call(lines=6), call(lines=6)
    await write(pool, events)
    history = await pool.fetch("SELECT xmin::text, * FROM chat_history")
    assert await Sweeper(pool, AT_ONCE).cleanup.sweep() == 1
    await write(pool, events[:4] + other, events[4:], events)
    assert await stored(pool, events[0].room.room_id) is None
    assert await stored(pool, other[0].room.room_id) is not None
    assert await pool.fetchval("SELECT count(*) FROM text_room_activity") == 1
    assert [row for row in await pool.fetch("SELECT xmin::text, * FROM chat_history") if row in history]
    assert await pool.fetchval("SELECT count(*) FROM chat_history") == 4


async def test_a_late_event_of_a_room_that_was_never_written_is_not_refused(pool: Pool) -> None:
    """As after hours in which Postgres was away."""
    events = call(lines=6)
    await write(pool, events[:4], events[4:])
    row = await stored(pool, events[0].room.room_id)
    assert row is not None
    assert len(row["messages"]) == 6


async def test_only_what_may_have_been_removed_is_looked_up(pool: Pool) -> None:
    young = Database(pool, create_users=True, late_seconds=1e12)
    events = call(lines=0)
    await pool.execute("INSERT INTO removed_rooms VALUES ($1)", UUID(events[0].room.room_id))
    assert await young.write(fold(map(change_of, encoded(events)))) == 2
    assert await stored(pool, events[0].room.room_id) is not None


async def test_a_late_event_and_the_removal_at_once_leave_nothing(pool: Pool) -> None:
    for _ in range(10):
        events = call(lines=0)
        await write(pool, events)
        await asyncio.gather(
            write(pool, events[:1]), Sweeper(pool, AT_ONCE).cleanup.sweep(), write(pool, events[:2])
        )
        await Sweeper(pool, AT_ONCE).cleanup.sweep()
        assert await stored(pool, events[0].room.room_id) is None


async def test_it_sweeps_again_and_again_and_waits_while_postgres_is_away(pool: Pool) -> None:
    sweeper = Sweeper(pool, AT_ONCE)
    await pool.execute("ALTER TABLE removed_rooms RENAME TO elsewhere")
    with pytest.raises(NotNow):
        await sweeper.cleanup.sweep()
    task = asyncio.create_task(sweeper.cleanup.run())
    try:
        await eventually(lambda: sweeper.postgres.status == "down")
        await pool.execute("ALTER TABLE elsewhere RENAME TO removed_rooms")
        await write(pool, call(lines=0))
        await eventually(lambda: sweeper.removed("active_rooms") == 1)
        await write(pool, call(lines=0))
        await eventually(lambda: sweeper.removed("active_rooms") == 2)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
