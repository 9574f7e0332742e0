"""Every table is written by what people do, and has it when all processes have died and Redis has lost everything."""

from __future__ import annotations

import json
import uuid
from typing import Any

import asyncpg
import pytest

from tests.acceptance.faults.faults import agreed, kill_everything, start_programs
from tests.acceptance.harness import Call, Harness
from tests.helpers.cluster import HttpFailed
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

ENVIRON = {
    "KEEPLINE_COLD_START_GRACE_SECONDS": "20",
    # What a persister that was killed had read and not written is taken over after this time.
    "KEEPLINE_CLAIM_IDLE_SECONDS": "1",
}
LASTING_MS = 5_000
"""Shorter calls leave nothing in the history."""

TABLES = """
SELECT
    (SELECT count(*) FROM active_rooms) AS active_rooms,
    (SELECT count(*) FROM text_room_activity
     WHERE user_1_last_message_at IS NOT NULL AND user_2_last_message_at IS NOT NULL) AS text_room_activity,
    (SELECT count(*) FROM chat_history) AS chat_history,
    (SELECT count(*) FROM reports) AS reports,
    (SELECT count(*) FROM referral_mappings) AS referral_mappings,
    (SELECT sum(attempts) FROM rate_limits) AS failed_logins,
    (SELECT count(*) FROM users) AS users
"""


async def counts(fleet: Fleet) -> dict[str, int]:
    connection = await asyncpg.connect(fleet.database_url, timeout=10)
    try:
        row = await connection.fetchrow(TABLES)
        assert row is not None
        return dict(row)
    finally:
        await connection.close(timeout=10)


async def rows(fleet: Fleet, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(fleet.database_url, timeout=10)
    try:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        return await connection.fetch(query, *values)
    finally:
        await connection.close(timeout=10)


async def write(call: Call, text: str) -> None:
    line = (await call.alice.client.ask("chat", "ok", room=call.room, text=text))["message"]
    await call.bob.client.expect("chat", room=call.room, message=line)
    line = (await call.bob.client.ask("chat", "ok", room=call.room, text=f"not {text}"))["message"]
    await call.alice.client.expect("chat", room=call.room, message=line)


async def fails_to_log_in(harness: Harness, node: int) -> None:
    client = await harness.connect(node)
    answer = await client.ask("hello", "error", token="not a token")
    assert answer["code"] == "unauthorized"


async def has_lasted(fleet: Fleet, call: Call) -> None:
    """Wait until the call is long enough for the history."""
    started_at = (await fleet.room(call.room))["started_at"]

    async def lasted() -> bool:
        seconds, micros = await fleet.redis.time()
        return bool(seconds * 1_000 + micros // 1_000 - started_at > LASTING_MS)

    await eventually(lasted, what="the call has lasted")


async def test_every_table_is_written_by_what_people_do_and_outlives_all_else() -> None:
    async with running_fleet(nodes=2, environ=ENVIRON) as fleet, Harness(fleet, (0, 1)) as harness:
        over, texts = await harness.call(), await harness.call(chat_mode="text")
        await write(texts, "so")
        await write(over, "rude")
        for node in (0, 1):
            await fails_to_log_in(harness, node)
        referral = await fleet.api(
            "POST",
            "/v1/referrals",
            json={
                "target_user_id": str(texts.alice.user),
                "created_by_user_id": str(over.bob.user),
                "target_name": "Alice",
            },
        )
        await has_lasted(fleet, over)
        await over.bob.client.ask("end", "ok", room=over.room)
        for client in over.clients:
            await client.expect("ended", room=over.room, reason="hangup")
        await over.alice.client.ask("report", "ok", room=over.room, reason="was rude")
        await over.alice.client.ask("report", "ok", room=over.room, reason="was rude")
        await texts.alice.client.refused("not_a_member", "report", room=over.room, reason="heard of it")
        await texts.alice.client.refused("room_not_found", "report", room=str(uuid.uuid4()), reason="guessed")

        expected = {
            "active_rooms": 2,
            "text_room_activity": 1,
            "chat_history": 2,
            "reports": 1,
            "referral_mappings": 1,
            "failed_logins": 2,
            "users": 4,
        }

        async def all_written() -> bool:
            found = await counts(fleet)
            assert found == expected, found
            return True

        await eventually(all_written, what="every table has its rows")
        await agreed(fleet, texts.room, 0, 1, status="active")

        await kill_everything(fleet)
        await fleet.postgres.start()
        await fleet.empty_redis()
        await start_programs(fleet)

        await the_rows_say_what_happened(fleet, over, texts, referral)
        await the_cluster_knows_it_too(harness, over, texts, referral)
        expected |= {"failed_logins": 3, "reports": 2}
        await eventually(all_written, what="the tables go on from there")


async def the_rows_say_what_happened(fleet: Fleet, over: Call, texts: Call, referral: dict[str, Any]) -> None:
    (ended,) = await rows(fleet, "SELECT * FROM active_rooms WHERE room_id = $1", uuid.UUID(over.room))
    assert (ended["status"], ended["ended_reason"]) == ("ended", "hangup")
    (activity,) = await rows(fleet, "SELECT * FROM text_room_activity")
    assert str(activity["room_id"]) == texts.room
    history = await rows(fleet, "SELECT * FROM chat_history ORDER BY user_id = $1 DESC", over.alice.user)
    users = (over.alice.user, over.bob.user)
    assert [(row["user_id"], row["partner_id"]) for row in history] == [users, users[::-1]]
    assert {(str(row["room_id"]), row["chat_mode"]) for row in history} == {(over.room, "video")}
    assert min(row["duration_seconds"] for row in history) >= LASTING_MS // 1_000
    (mapping,) = await rows(fleet, "SELECT * FROM referral_mappings")
    assert (mapping["referral_code"], mapping["target_name"]) == (referral["referral_code"], "Alice")
    (report,) = await rows(fleet, "SELECT * FROM reports")
    assert (report["reporter_id"], report["reported_id"]) == users
    assert (str(report["room_id"]), report["reason"]) == (over.room, "was rude")
    session = report["session_data"]
    assert [line["text"] for line in session["room"]["messages"]] == ["rude", "not rude"]
    assert (session["reporter"]["role"], session["reported"]["role"]) == ("initiator", "receiver")
    assert session["durations"]["call"] >= LASTING_MS // 1_000


async def the_cluster_knows_it_too(
    harness: Harness, over: Call, texts: Call, referral: dict[str, Any]
) -> None:
    fleet = harness.cluster
    assert await fleet.api("GET", f"/v1/referrals/{referral['referral_code']}", node=1) == referral
    with pytest.raises(HttpFailed) as refused:
        await fleet.api("GET", "/v1/referrals/nobody")
    assert refused.value.status == 404
    alice = await harness.login(texts.alice.user, 1)
    joined = await alice.client.ask("join", "joined", room=texts.room)
    assert [line["text"] for line in joined["room"]["messages"]] == ["so", "not so"]
    reporter = await harness.login(over.alice.user, 0)
    await reporter.client.refused("room_ended", "join", room=over.room)
    await reporter.client.ask("report", "ok", room=over.room, reason="was rude")
    await reporter.client.ask("report", "ok", room=over.room, reason="was loud")
    await fails_to_log_in(harness, 1)
