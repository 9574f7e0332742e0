"""`keepline dead-letters` over letters that a persister has buried in a real Valkey."""

import json
from typing import Any
from uuid import UUID

import pytest

from keepline.cli.cluster.dead_letters import DeadLetters, LetterId
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.attempts import Attempts, encode_attempts
from keepline.room.codec import Event
from keepline.room.referrals import Referral, encode_referral
from keepline.room.reports import Report, encode_report
from tests.helpers.commands import keepline
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import (
    PARTITIONS,
    Rig,
    all_acknowledged,
    dead_letters,
    publish,
    written,
)
from tests.unit.persister.calls import call


async def bury(client: Client, pool: Pool, *calls: list[Event]) -> None:
    """Have a persister give up on calls whose users it does not know."""
    for events in calls:
        await publish(client, events)
    async with Rig(client, pool, "strict", create_users=False).running():

        async def all_buried() -> bool:
            return len(await dead_letters(client)) == sum(map(len, calls))

        await eventually(all_buried)
        await all_acknowledged(client)


async def add(client: Client, stream: str, fields: dict[Any, Any]) -> str:
    """Add an entry and return its id."""
    entry: Any = await client.xadd(stream, fields)
    return str(entry.decode())


async def events_in(client: Client, stream: str) -> list[bytes]:
    entries: Any = await client.xrange(stream)
    return [fields[b"event"] for _, fields in entries]


async def test_what_was_buried_is_listed_shown_and_written_after_a_replay(
    client: Client, pool: Pool, redis_url: str
) -> None:
    events = call(lines=1)
    room = events[0].room
    await bury(client, pool, events)

    listed = await keepline("dead-letters", "list", "--json", REDIS_URL=redis_url)
    found = json.loads(listed.stdout)
    assert (listed.code, found["total"], len(found["letters"])) == (0, len(events), len(events))
    assert {letter["room"] for letter in found["letters"]} == {room.room_id}
    assert {letter["version"] for letter in found["letters"]} == {event.room.version for event in events}
    assert all("foreign key" in letter["reason"] for letter in found["letters"])

    letter = found["letters"][0]["id"]
    shown = json.loads((await keepline("dead-letters", "show", letter, "--json", REDIS_URL=redis_url)).stdout)
    assert shown["event"]["room"]["room_id"] == room.room_id

    users = UUID(room.side_1.user), UUID(room.side_2.user)
    await pool.execute("INSERT INTO users (user_id) VALUES ($1), ($2)", *users)
    replayed = await keepline("dead-letters", "replay", "--all", "--json", REDIS_URL=redis_url)
    assert json.loads(replayed.stdout) == {"replayed": len(events), "missing": []}
    async with Rig(client, pool, "strict", create_users=False).running():
        await written(pool, events[-1])
    assert await dead_letters(client) == []


async def test_people_get_a_table_and_the_whole_event(client: Client, redis_url: str) -> None:
    fields: dict[Any, Any] = {"entry": "1-1", "reason": "not [JSON]", "event": "{brok"}
    letter = f"03:{await add(client, keys.dead_letters(3), fields)}"
    listed = await keepline("dead-letters", "list", REDIS_URL=redis_url, COLUMNS="200")
    assert listed.stdout.splitlines()[-1] == "1 dead letter"
    assert letter in listed.stdout
    assert "not [JSON]" in listed.stdout
    assert "unreadable" in listed.stdout
    shown = await keepline("dead-letters", "show", letter, REDIS_URL=redis_url)
    assert shown.stdout.splitlines()[-1] == "{brok"


async def test_a_letter_is_replayed_by_its_id_and_only_once(client: Client, redis_url: str) -> None:
    first_entry, _ = [await add(client, keys.dead_letters(0), {"event": text}) for text in ("one", "two")]
    letter = f"00:{first_entry}"
    first = await keepline("dead-letters", "replay", letter, REDIS_URL=redis_url)
    assert (first.code, first.stdout) == (0, "1 replayed\n")
    again = await keepline("dead-letters", "replay", letter, REDIS_URL=redis_url)
    assert again.code == 1
    assert f"no such dead letter: {letter}" in again.stderr
    assert await events_in(client, keys.events(0)) == [b"one"]
    assert await events_in(client, keys.dead_letters(0)) == [b"two"]


async def test_all_pages_are_replayed_once_though_letters_are_buried_meanwhile(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepline.cli.cluster.dead_letters.PAGE", 2)
    box = DeadLetters(client)
    for partition in range(PARTITIONS):
        for number in range(5):
            await client.xadd(keys.dead_letters(partition), {"event": f"{partition}-{number}"})
    put_back = box._put_back

    async def bury_again(letter: LetterId) -> bool:
        await client.xadd(keys.dead_letters(letter.partition), {"event": "again"})
        return await put_back(letter)

    monkeypatch.setattr(box, "_put_back", bury_again)
    assert await box.replay_all() == await box.count() == 5 * PARTITIONS
    assert await events_in(client, keys.events(7)) == [b"7-0", b"7-1", b"7-2", b"7-3", b"7-4"]


async def test_the_newest_come_first_and_a_limit_is_told(client: Client, redis_url: str) -> None:
    for partition, ms in ((1, 10), (2, 30), (3, 20)):
        await client.xadd(keys.dead_letters(partition), {"event": "x"}, id=f"{ms}-1")
    listed = await keepline("dead-letters", "list", "--limit", "2", "--json", REDIS_URL=redis_url)
    found = json.loads(listed.stdout)
    assert found["total"] == 3
    assert [letter["id"] for letter in found["letters"]] == ["02:30-1", "03:20-1"]
    told = await keepline("dead-letters", "list", "--limit", "2", REDIS_URL=redis_url)
    assert told.stdout.splitlines()[-1] == "3 dead letters, the newest 2 shown"


@pytest.mark.parametrize(
    ("arguments", "url", "code", "says"),
    [
        (["list"], "", 2, "set REDIS_URL"),
        (["list"], "http://somewhere", 2, "REDIS_URL"),
        (["list"], "redis://127.0.0.1:1/0", 1, "cannot reach Redis"),
        (["show", "5"], "redis://127.0.0.1:1/0", 2, "5 is not the id of a dead letter"),
        (["replay"], "redis://127.0.0.1:1/0", 2, "name the letters to replay, or use --all"),
        (["replay", "00:1-1", "--all"], "redis://127.0.0.1:1/0", 2, "or use --all"),
    ],
)
async def test_wrong_use_is_told_in_one_line(arguments: list[str], url: str, code: int, says: str) -> None:
    done = await keepline("dead-letters", *arguments, REDIS_URL=url)
    assert (done.code, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert says in line


async def test_a_letter_that_is_not_there_cannot_be_shown(redis_url: str) -> None:
    done = await keepline("dead-letters", "show", "00:1-1", REDIS_URL=redis_url)
    assert (done.code, done.stderr) == (1, "keepline: no such dead letter: 00:1-1\n")


async def test_reports_referrals_and_failed_logins_are_told_apart(client: Client, redis_url: str) -> None:
    room, alice, bob = UUID(int=1), UUID(int=2), UUID(int=3)
    for event in (
        encode_report(Report(room, room, alice, bob, "rude", 1, {})),
        encode_referral(Referral("code", alice, bob, None, None, 1)),
        encode_attempts(Attempts("nowhere", 1, 1, 1, 1)),
        encode_report(Report(room, room, alice, bob, "rude", 1, {})).replace(b"rude", b"\xff"),
    ):
        await add(client, keys.dead_letters(0), {"reason": "x", "entry": "1-1", "event": event})
    answer = json.loads((await keepline("dead-letters", "list", "--json", REDIS_URL=redis_url)).stdout)
    found = [(letter["kind"], letter["room"], letter["version"]) for letter in answer["letters"]]
    assert sorted(found, key=str) == sorted(
        [("report", str(room), None), ("referral", None, None), ("attempts", None, None), (None, None, None)],
        key=str,
    )
    listed = await keepline("dead-letters", "list", REDIS_URL=redis_url)
    assert "referral" in listed.stdout
    assert "unreadable" in listed.stdout
