"""Reports and referrals on their way through the stream into their tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.referrals import Referral, encode_referral
from keepline.room.reports import Report, encode_report, report_id
from persister.database import Database
from persister.fold import change_of, fold
from signal_node.rooms.archive import Archive
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import Rig, dead_letters
from tests.unit.persister.calls import call, encoded

T0 = 1_790_000_000_000
ROOM, ALICE, BOB = uuid4(), uuid4(), uuid4()
SESSION = {"room": {"room_id": str(ROOM), "messages": [{"seq": 1, "text": 'a "quoted" {line} \\ ü'}]}}


def report(reason: str = "rude", reporter: UUID = ALICE, reported: UUID = BOB) -> Report:
    return Report(report_id(ROOM, reporter, reason), ROOM, reporter, reported, reason, T0, SESSION)


def referral(code: str = "Wq3-x_9", target: UUID = ALICE) -> Referral:
    return Referral(code, target, BOB, "Alice", None, T0)


async def append(client: Client, *events: bytes) -> None:
    for event in events:
        await client.xadd(keys.events(3), {"event": event})


async def reports(pool: Pool) -> list[asyncpg.Record]:
    return await pool.fetch("SELECT * FROM reports WHERE keepline_id IS NOT NULL ORDER BY reason")


async def drain(rig: Rig) -> None:
    """Have the worker see to all that is there."""
    await rig.streams.prepare()

    async def done() -> bool:
        backlog = await rig.streams.backlog()
        return backlog.unread == backlog.unacknowledged == 0

    async with rig.running():
        await eventually(done)


async def count(pool: Pool, table: str) -> Any:
    return await pool.fetchval(f"SELECT count(*) FROM {table}")


async def test_a_report_is_one_row_however_often_it_comes(client: Client, pool: Pool) -> None:
    first = report()
    later = replace(first, reported_at=T0 + 5_000, session_data={})
    await Database(pool, create_users=True).write(fold([first]))
    await Database(pool, create_users=True).write(fold([later, first, report("loud")]))
    loud, rude = await reports(pool)
    assert (loud["reason"], rude["reason"]) == ("loud", "rude")
    assert (rude["room_id"], rude["reporter_id"], rude["reported_id"]) == (ROOM, ALICE, BOB)
    assert rude["reported_at"] == datetime.fromtimestamp(T0 / 1_000, UTC)
    assert rude["session_data"] == SESSION


async def test_a_referral_is_one_row_however_often_it_comes(client: Client, pool: Pool) -> None:
    database = Database(pool, create_users=True)
    await database.write(fold([referral()]))
    before = await pool.fetch("SELECT xmin::text, * FROM referral_mappings")
    await database.write(fold([referral(), replace(referral(), target_name="Bob")]))
    assert await pool.fetch("SELECT xmin::text, * FROM referral_mappings") == before
    (row,) = before
    assert (row["referral_code"], row["target_user_id"], row["created_by_user_id"]) == ("Wq3-x_9", ALICE, BOB)
    assert (row["target_name"], row["created_by_name"]) == ("Alice", None)
    assert row["created_at"] == datetime.fromtimestamp(T0 / 1_000, UTC)


async def test_nodes_find_a_referral_until_it_expires(pool: Pool) -> None:
    seconds = await pool.fetchval("SELECT extract(epoch FROM now())::bigint")
    fresh = replace(referral("fresh"), created_at=seconds * 1_000)
    old = replace(referral("old"), created_at=(seconds - 61) * 1_000)
    await Database(pool, create_users=True).write(fold([fresh, old]))
    archive = Archive(pool)
    assert await archive.referral("fresh", 60) == fresh
    assert await archive.referral("old", 60) is None
    assert await archive.referral("old", 120) == old
    assert await archive.referral("nobody", 60) is None


async def test_they_come_through_the_stream_among_rooms(client: Client, pool: Pool) -> None:
    events = encoded(call())
    await append(client, *events[:3], encode_report(report()), *events[3:], encode_referral(referral()))
    await drain(Rig(client, pool, "one"))
    assert [await count(pool, table) for table in ("active_rooms", "reports", "referral_mappings")] == [
        1,
        1,
        1,
    ]
    assert await dead_letters(client) == []


async def test_unknown_users_go_to_the_dead_letters_and_hold_up_nothing(client: Client, pool: Pool) -> None:
    await pool.execute("INSERT INTO users (user_id) VALUES ($1), ($2)", ALICE, BOB)
    await append(
        client,
        encode_report(report("by a stranger", reporter=uuid4())),
        encode_report(report()),
        encode_referral(referral("to-a-stranger", uuid4())),
        encode_referral(referral()),
        encode_report(report()).replace(b'"reason":"rude"', b'"reason":null'),
    )
    await drain(Rig(client, pool, "one", create_users=False))
    assert [await count(pool, table) for table in ("reports", "referral_mappings")] == [1, 1]
    letters = [letter[b"event"] for letter in await dead_letters(client)]
    assert len(letters) == 3
    assert any(b"by a stranger" in letter for letter in letters)
    assert any(b"to-a-stranger" in letter for letter in letters)


async def test_reports_of_the_app_that_refuse_ours_hold_up_nothing_and_a_replay_adds_them(
    client: Client, pool: Pool
) -> None:
    await pool.execute("ALTER TABLE reports ADD COLUMN mood TEXT NOT NULL DEFAULT 'bad'")
    await pool.execute("ALTER TABLE reports ALTER COLUMN mood DROP DEFAULT")
    await append(client, encode_report(report()), encode_referral(referral()))
    await drain(Rig(client, pool, "one"))
    (letter,) = await dead_letters(client)
    assert b"mood" in letter[b"reason"]
    assert await count(pool, "referral_mappings") == 1
    await pool.execute("ALTER TABLE reports ALTER COLUMN mood DROP NOT NULL")
    await Database(pool, create_users=True).write(fold([change_of(letter[b"event"])]))
    assert await count(pool, "reports") == 1


async def test_a_report_of_a_user_who_is_removed_stays(pool: Pool) -> None:
    await Database(pool, create_users=True).write(fold([report()]))
    await pool.execute("DELETE FROM users WHERE user_id = $1", BOB)
    (row,) = await reports(pool)
    assert (row["reporter_id"], row["reported_id"]) == (ALICE, None)
