"""Everything dies at once and starts again: with an empty Redis, or with one that has kept its file."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import asyncpg
import pytest

from tests.acceptance.faults.faults import agreed, kill_everything, start_programs
from tests.acceptance.harness import Call, Harness
from tests.helpers.fleet import Fleet, running_fleet

GRACE_MS = 1_000
COLD_START_GRACE_MS = 8_000
ENVIRON = {
    "KEEPLINE_GRACE_SECONDS": f"{GRACE_MS // 1_000}",
    "KEEPLINE_COLD_START_GRACE_SECONDS": f"{COLD_START_GRACE_MS // 1_000}",
    # What a persister that was killed had read and not written is taken over after this time.
    "KEEPLINE_CLAIM_IDLE_SECONDS": "1",
}
ACTIVE = {"status": "active", "user_1_connected": True, "user_2_connected": True}


async def touched_11_minutes_ago(fleet: Fleet, rooms: Sequence[str]) -> None:
    """Make rows as old as that; the trigger that keeps `updated_at` does not count here."""
    connection = await asyncpg.connect(fleet.database_url, timeout=10)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "UPDATE active_rooms SET updated_at = now() - interval '11 minutes' WHERE room_id = ANY($1)",
            [uuid.UUID(room) for room in rooms],
        )
    finally:
        await connection.close(timeout=10)


async def made_unreadable(fleet: Fleet, room: str) -> None:
    """Let a row be as a later release, or an app, might write it."""
    connection = await asyncpg.connect(fleet.database_url, timeout=10)
    try:
        await connection.execute(
            """UPDATE active_rooms SET messages = '[{"seq": 1, "line": "?"}]' WHERE room_id = $1""",
            uuid.UUID(room),
        )
    finally:
        await connection.close(timeout=10)


async def chat(call: Call, text: str) -> None:
    line = (await call.alice.client.ask("chat", "ok", room=call.room, text=text))["message"]
    await call.bob.client.expect("chat", room=call.room, message=line)


async def test_with_an_empty_redis_fresh_rooms_come_back_from_postgres_and_old_ones_end() -> None:
    """Holds `Recovery._fill_in`: revival of what was touched lately, the end of the rest, tombstones."""
    async with running_fleet(nodes=2, environ=ENVIRON) as fleet, Harness(fleet, (0, 1)) as harness:
        video, text = await harness.call(), await harness.call(chat_mode="text")
        lonely, forgotten, old, over, broken = [await harness.call() for _ in range(5)]
        await chat(video, "before")
        await chat(text, "before")
        await over.alice.client.ask("end", "ok", room=over.room)
        for call in (video, text, lonely, forgotten, old, broken):
            await agreed(fleet, call.room, 0, 1, **ACTIVE)
        await agreed(fleet, over.room, 0, 1, status="ended")
        lonely.bob.client.cut()
        await agreed(fleet, lonely.room, 0, 1, status="grace_period")

        await kill_everything(fleet)
        await fleet.postgres.start()
        await touched_11_minutes_ago(fleet, [old.room])
        await made_unreadable(fleet, broken.room)
        await fleet.empty_redis()
        await start_programs(fleet)

        revived = await fleet.room(forgotten.room)
        assert (revived["status"], revived["user_1_connected"]) == ("grace_period", False)
        left_ms = revived["grace_period_expires"] - (await fleet.redis.time())[0] * 1_000
        assert GRACE_MS < left_ms <= COLD_START_GRACE_MS + 1_000, "TIME was cut to seconds"
        for call in (video, text, lonely):
            back = await harness.login(call.alice.user, 1, resume=call.alice.welcome["resume"])
            assert back.welcome["resumed"] is False, "who held it was forgotten with Redis"
            assert [held["room"]["room_id"] for held in back.welcome["rooms"]] == [call.room]
            joined = await back.client.ask("join", "joined", room=call.room)
            assert joined["peer"] == ("away" if call is text else "reconnecting")
            other = await harness.login(call.bob.user, 0)
            await other.client.ask("join", "joined", room=call.room)
            await back.client.expect("peer", room=call.room, state="reconnected")
            call.alice, call.bob = back, other
            await call.goes_on()
        await chat(video, "after")
        await chat(text, "after")
        for call, lines in ((video, ["before", "after"]), (text, ["before", "after"]), (lonely, [])):
            shown = await agreed(fleet, call.room, 0, 1, **ACTIVE)
            assert [line["text"] for line in shown["messages"]] == lines
        told = (await harness.login(broken.alice.user, 0)).welcome
        assert told["rooms"] == [], "one row that cannot be read keeps no other from coming back"
        unreadable = [await fleet.metric(node, "keepline_rows_unreadable_total") for node in (0, 1)]
        assert sum(unreadable) > 0
        for call in (old, over):
            late = await harness.login(call.alice.user, 0)
            await late.client.refused("room_ended", "join", room=call.room)
        await agreed(fleet, old.room, 0, 1, status="ended", ended_reason="grace_expired")
        await agreed(fleet, over.room, 0, 1, status="ended", ended_reason="hangup")
        await agreed(fleet, forgotten.room, 0, 1, status="ended", ended_reason="grace_expired")
        for call in (video, text, lonely):
            await call.goes_on()


@pytest.mark.parametrize("names_stay", [True, False], ids=["same names", "new names"])
async def test_with_what_redis_kept_clients_resume(names_stay: bool) -> None:
    """Holds that secrets and sides are kept, and that a node buries its own predecessor (`bury_predecessor`):
    who does not come back has the longer grace of a cold start, and no more.
    """
    async with running_fleet(nodes=2, environ=ENVIRON) as fleet, Harness(fleet, (0, 1)) as harness:
        calls = [await harness.call(), await harness.call(chat_mode="text")]
        over, gone = await harness.call(), await harness.call()
        for call in calls:
            await chat(call, "before")
        await over.alice.client.ask("end", "ok", room=over.room)
        await over.bob.client.expect("ended", room=over.room, reason="hangup")

        await kill_everything(fleet)
        await asyncio.gather(fleet.postgres.start(), fleet.valkey.start())
        if not names_stay:
            fleet.rename_nodes("again")
        await start_programs(fleet)
        if names_stay:
            lost = await fleet.room(gone.room)
            left_ms = lost["grace_period_expires"] - (await fleet.redis.time())[0] * 1_000
            assert GRACE_MS < left_ms <= COLD_START_GRACE_MS + 1_000
        for call in calls:
            for name, node in (("alice", 1), ("bob", 0)):
                before = call.alice if name == "alice" else call.bob
                back = await harness.login(before.user, node, resume=before.welcome["resume"])
                assert back.welcome["resumed"] is True
                (held,) = back.welcome["rooms"]
                assert [line["text"] for line in held["room"]["messages"]] == ["before"]
                setattr(call, name, back)
            await call.alice.client.expect("peer", room=call.room, state="reconnected")
            await call.goes_on()
            await chat(call, "after")
        if not names_stay:
            await fleet.until_reaping(0, 1)
        for call in calls:
            await call.goes_on()
            shown = await agreed(fleet, call.room, 0, 1, **ACTIVE)
            assert [line["text"] for line in shown["messages"]] == ["before", "after"]
        if names_stay:
            await agreed(fleet, gone.room, 0, 1, status="ended", ended_reason="grace_expired")
        await agreed(fleet, over.room, 0, 1, status="ended", ended_reason="hangup")
        late = await harness.login(over.bob.user, 0)
        await late.client.refused("room_ended", "join", room=over.room)
