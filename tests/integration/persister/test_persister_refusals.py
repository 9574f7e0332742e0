"""What one row meets holds up no other: a trigger of the app, row-level security, a lock that the app keeps."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from keepline.ops import postgres
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room.codec import Event
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import (
    Rig,
    all_acknowledged,
    dead_letters,
    pending,
    publish_together,
    stored,
    written,
)
from tests.unit.persister.calls import call, encoded

TRIGGER = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.user_id = '{user}' THEN {statement}; END IF;
        RETURN NEW;
    END $$;
    CREATE {kind} TRIGGER refuse {when} ON chat_history {deferred} FOR EACH ROW EXECUTE FUNCTION refuse();
"""
AT_ONCE = {"kind": "", "when": "BEFORE INSERT", "deferred": ""}
AT_COMMIT = {"kind": "CONSTRAINT", "when": "AFTER INSERT", "deferred": "DEFERRABLE INITIALLY DEFERRED"}
REFUSALS = {
    "raises": ("RAISE EXCEPTION 'not for this one'", AT_ONCE, "not for this one"),
    "raises a code of its own": ("RAISE EXCEPTION 'own code' USING ERRCODE = 'KL001'", AT_ONCE, "own code"),
    "fails": ("PERFORM * FROM table_of_the_app", AT_ONCE, "table_of_the_app"),
    "raises at the commit": ("RAISE EXCEPTION 'too late'", AT_COMMIT, "too late"),
}


def user_of(events: list[Event]) -> str:
    return events[0].room.sides[0].user


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_trigger_of_the_app_that_refuses_one_user(client: Client, pool: Pool, refusal: str) -> None:
    statement, how, reason = REFUSALS[refusal]
    refused, *others = [call(lines=6) for _ in range(21)]
    await pool.execute(TRIGGER.format(user=user_of(refused), statement=statement, **how))
    await publish_together(client, [refused, *others])
    async with Rig(client, pool, "one").running():
        for events in [refused, *others]:
            await written(pool, events[-1])
        await all_acknowledged(client)
    assert await pool.fetchval("SELECT count(DISTINCT room_id) FROM chat_history") == 20
    (letter,) = await dead_letters(client)
    assert letter[b"event"] == encoded(refused)[-1]
    assert reason in letter[b"reason"].decode()


@pytest.fixture
async def role_pool(pool: Pool, database_url: str) -> AsyncIterator[Pool]:
    """Connections of a role that owns nothing, for which row-level security counts."""
    role = f"persister_{UUID(call()[0].room.room_id).hex}"
    await pool.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    await pool.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    await pool.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    opened = await postgres.create_pool(
        f"postgresql://{role}:secret@{database_url.rpartition('@')[2]}", application="t"
    )
    yield opened
    await opened.close()
    await pool.execute(f"DROP OWNED BY {role}")
    await pool.execute(f"DROP ROLE {role}")


async def test_row_level_security_that_refuses_one_user(client: Client, pool: Pool, role_pool: Pool) -> None:
    refused, *others = [call(lines=6) for _ in range(21)]
    await pool.execute("ALTER TABLE chat_history ENABLE ROW LEVEL SECURITY")
    await pool.execute(
        f"CREATE POLICY most ON chat_history USING (true) WITH CHECK (user_id <> '{user_of(refused)}')"
    )
    await publish_together(client, [refused, *others])
    async with Rig(client, role_pool, "one").running():
        for events in [refused, *others]:
            await written(pool, events[-1])
        await all_acknowledged(client)
    (letter,) = await dead_letters(client)
    assert b"row-level security" in letter[b"reason"]


async def test_a_right_that_is_missing_buries_nothing_shows_in_health_and_names_the_statement(
    client: Client, pool: Pool, role_pool: Pool
) -> None:
    """All rows are refused, so no row is at fault. `ping` succeeds all the while."""
    role = role_pool.connector.url.user
    await pool.execute(f"REVOKE INSERT ON chat_history FROM {role}")
    events = call(lines=6)
    await publish_together(client, [events])
    rig = Rig(client, role_pool, "one")

    def status() -> str:
        return rig.health.dependencies["writes"].status

    async with rig.running():
        await eventually(lambda: rig.value("retries_total", cause="refused") > 1)
        await rig.chores.look_at_postgres()
        assert status() == "degraded"
        error = rig.health.dependencies["writes"].report()["error"]
        assert error.startswith("permission denied for table chat_history (GRANT SELECT, INSERT")
        assert error.endswith(f'ON chat_history TO "{role}")')
        assert rig.health.status == "degraded"
        await pool.execute(f"GRANT INSERT ON chat_history TO {role}")
        await written(pool, events[-1])
        await eventually(lambda: status() == "ok")
    assert await dead_letters(client) == []


async def test_a_lock_that_the_app_keeps_holds_up_only_the_room_of_its_user(
    client: Client, pool: Pool, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr("keepline.ops.postgres.pool.LOCK_SECONDS", 0.1)
    impatient = await postgres.create_pool(database_url, application="tests")
    locked, *others = [call(lines=6) for _ in range(9)]
    await pool.execute("INSERT INTO users VALUES ($1)", UUID(user_of(locked)))
    rig = Rig(client, impatient, "one", claim_idle_seconds=1)
    try:
        async with rig.running():
            async with pool.transaction() as app:
                await app.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", UUID(user_of(locked)))
                await publish_together(client, [locked, *others])
                for events in others:
                    await written(pool, events[-1])
                await eventually(lambda: rig.value("entries_postponed_total") > 0)
                assert await stored(pool, locked[0].room.room_id) is None
                assert await pending(client) > 0
            await written(pool, locked[-1])
            await all_acknowledged(client)
    finally:
        await impatient.close()
    assert await dead_letters(client) == []


async def test_persisters_that_write_to_different_databases_say_so(
    client: Client, pool: Pool, empty_database_url: str
) -> None:
    other = await postgres.create_pool(empty_database_url, application="tests")
    one, same, two = Rig(client, pool, "one"), Rig(client, pool, "same"), Rig(client, other, "two")
    try:
        await asyncio.gather(one.presences.tell(None), same.presences.tell(None))
        await one.presences.tell(None)
        assert one.health.dependencies["one_database"].status == "ok"
        await two.presences.tell(None)
        await one.presences.tell(None)
        for rig, elsewhere in ((one, "two"), (two, "one, same")):
            report = rig.health.dependencies["one_database"].report()
            assert report["status"] == "degraded"
            assert report["error"] == f"{elsewhere} read the same Redis and write to another database"
        await two.presences.leave()
        await one.presences.tell(None)
        assert one.health.dependencies["one_database"].status == "ok"
    finally:
        await other.close()
