"""The event streams of a real Valkey as one queue."""

from typing import Any

import pytest

from keepline.ops.errors import CannotRun
from keepline.ops.redis.client import Client
from keepline.ops.redis.partitions import agree_on_partitions
from keepline.room import keys
from persister.stream import GROUP, EventStreams
from tests.integration.persister.persister_rig import dead_letters


async def test_two_workers_that_give_up_on_an_entry_bury_it_once(client: Client) -> None:
    one, two = EventStreams(client, "one"), EventStreams(client, "two")
    await one.prepare()
    await two.prepare()
    await client.xadd(keys.events(3), {"event": b"{broken"})
    (entry,) = await one.read(10, 100)
    assert await two.claim(10, 0) == ([entry], 0)
    await one.bury(entry, "broken")
    await two.bury(entry, "broken")
    assert [letter[b"reason"] for letter in await dead_letters(client)] == [b"broken"]


async def test_what_was_read_and_not_acknowledged_can_be_read_again_under_the_same_name(
    client: Client,
) -> None:
    streams, other = EventStreams(client, "one"), EventStreams(client, "other")
    await streams.prepare()
    await other.prepare()
    for partition in (2, 7):
        await client.xadd(keys.events(partition), {"event": b"x"})
    gone: Any = await client.xadd(keys.events(9), {"event": b"gone"})
    read = await streams.read(100, 100)
    assert await streams.read(100, 10) == []
    await client.xdel(keys.events(9), gone)
    again = await streams.read_own(100)
    assert again == [entry for entry in read if entry.partition != 9]
    assert await other.read_own(100) == []
    await streams.acknowledge(again)
    assert await streams.read_own(100) == []


async def age(client: Client, entry_id: bytes) -> float:
    seconds, _ = await client.time()
    return float(seconds) - int(entry_id.split(b"-")[0]) / 1_000


async def test_only_acknowledged_entries_are_trimmed(client: Client) -> None:
    streams = EventStreams(client, "one")
    await streams.prepare()
    stream = keys.events(5)
    ids: list[Any] = [await client.xadd(stream, {"event": b"%d" % number}) for number in range(6)]
    assert await streams.trim() == 0
    entries = await streams.read(64, 100)  # four a partition
    assert [entry.id for entry in entries] == ids[:4]
    await streams.acknowledge([entries[0], entries[2]])
    assert await streams.trim() == 1
    backlog = await streams.backlog()
    assert (backlog.unread, backlog.unacknowledged) == (2, 2)
    assert backlog.oldest_seconds == pytest.approx(await age(client, ids[1]), abs=1.0)
    await streams.acknowledge([entries[1], entries[3]])
    assert await streams.trim() == 3
    assert await client.xlen(stream) == 2
    backlog = await streams.backlog()
    assert (backlog.unread, backlog.unacknowledged) == (2, 0)
    assert backlog.oldest_seconds == pytest.approx(await age(client, ids[4]), abs=1.0)
    await streams.acknowledge(await streams.read(64, 100))
    assert await streams.trim() == 2
    assert (await streams.backlog()).oldest_seconds == 0.0


async def test_entries_that_redis_takes_for_new_as_its_clock_was_set_back_are_claimed_all_the_same(
    client: Client,
) -> None:
    """Their ids, and the times at which they were read, may be ahead of Redis."""
    now = 1_000.0
    dead, living = EventStreams(client, "dead"), EventStreams(client, "living", lambda: now)
    await dead.prepare()
    await living.prepare()
    seconds, _ = await client.time()
    ahead = (int(seconds) + 3_600) * 1_000
    await client.xadd(keys.events(3), {"event": b"x"}, id=f"{ahead}-0")
    (entry,) = await dead.read(10, 100)
    assert (await living.backlog()).oldest_seconds == 0.0
    assert await living.claim(10, 30_000) == ([], 0)
    now += 60.0
    assert await living.claim(10, 30_000) == ([], 0)
    now += 1.0
    backlog = await living.backlog()
    assert (backlog.oldest_seconds, backlog.oldest_pending_seconds) == (61.0, 61.0)
    assert await living.claim(10, 30_000) == ([entry], 0)
    await living.acknowledge([entry])
    assert (await living.backlog()).oldest_seconds == 0.0


async def test_the_count_of_partitions_is_decided_once(client: Client) -> None:
    assert await agree_on_partitions(client) == keys.DEFAULT_PARTITIONS
    assert await agree_on_partitions(client, 4) == keys.DEFAULT_PARTITIONS
    await client.set(keys.partitions(), 4)
    assert await agree_on_partitions(client) == 4
    await client.set(keys.partitions(), 0)
    with pytest.raises(CannotRun, match="keepline:partitions"):
        await agree_on_partitions(client)


async def test_consumers_are_forgotten_only_when_they_are_silent_and_own_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persister.stream._GONE_MS", -1)
    stream = keys.events(0)
    await client.xadd(stream, {"event": b"x"})
    owner, idler = EventStreams(client, "owner"), EventStreams(client, "idler")
    await owner.prepare()
    await idler.prepare()
    await owner.read(10, 10)
    await idler.read(10, 10)
    await idler.remove_gone_consumers()
    names = [consumer["name"] for consumer in await client.xinfo_consumers(stream, GROUP)]
    assert names == [b"owner"]
