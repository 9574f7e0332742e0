"""Postgres stopped for a while under load: callers notice nothing, then every row is there and Redis is as it was.

OUTAGE_SECONDS and OUTAGE_ROOMS (opened each second) make it longer and harder; `make outage` is the long form.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from keepline.room import keys
from tests.acceptance.faults.faults import agreed
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.load import loaded_calls, pause
from tests.helpers.waiting import eventually

SECONDS = float(os.environ.get("OUTAGE_SECONDS", "6"))
ROOMS_A_SECOND = float(os.environ.get("OUTAGE_ROOMS", "40"))
CALLS = 8
APPS = 4
"""So many loops of the app's backend open and end rooms."""

CAUGHT_UP_SECONDS = 60.0
EVENTS = [keys.events(partition) for partition in range(keys.DEFAULT_PARTITIONS)]
DEAD_LETTERS = [keys.dead_letters(partition) for partition in range(keys.DEFAULT_PARTITIONS)]
ENVIRON = {
    "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "10000",
    # How long a persister may sleep through Postgres' return.
    "KEEPLINE_RETRY_CAP_SECONDS": "1",
}


@dataclass(slots=True)
class Memory:
    """Bytes of Redis: in the event streams, in all else that is kept, and beside both."""

    streams: int
    kept: int
    rest: int


@dataclass(slots=True)
class App:
    """The app's backend: opens rooms and ends them, refers users. What it was answered has to become rows."""

    fleet: Fleet
    versions: dict[uuid.UUID, int] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)

    async def work(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            node = len(self.versions) % 2
            opened = await self.fleet.open_room(uuid.uuid4(), uuid.uuid4(), node=node)
            ended = await self.fleet.end_room(opened["room_id"], node=1 - node)
            self.versions[uuid.UUID(ended["room_id"])] = ended["version"]
            if len(self.versions) % 10 == 0:
                body = {"target_user_id": opened["user_1"], "created_by_user_id": opened["user_2"]}
                referral = await self.fleet.api("POST", "/v1/referrals", json=body)
                self.codes.add(referral["referral_code"])
            await pause(max(0.0, APPS / ROOMS_A_SECOND - (loop.time() - began)), stop)


@pytest.mark.timeout(2 * SECONDS + 240)
async def test_after_postgres_was_away_under_load_every_row_is_there_and_redis_as_it_was() -> None:
    seed = random.randrange(2**32)
    async with (
        running_fleet(nodes=2, environ=ENVIRON) as fleet,
        loaded_calls(fleet, CALLS, seed) as (calls, stop),
    ):
        apps = [App(fleet) for _ in range(APPS)]
        async with asyncio.TaskGroup() as backend:
            for app in apps:
                backend.create_task(app.work(stop))
            await eventually(lambda: all(len(app.versions) >= 5 for app in apps), what="the load runs")
            before = await memory(fleet)
            await fleet.postgres.stop()
            ended_before = len(ended(apps))
            await pause(SECONDS, asyncio.Event())
            ended_meanwhile = len(ended(apps)) - ended_before
            waiting = await length(fleet, EVENTS)
            peak = await memory(fleet)
            await fleet.postgres.start()
            back_at = time.monotonic()
            known = ended(apps)
            await eventually(
                lambda: are_written(fleet, known),
                timeout=CAUGHT_UP_SECONDS,
                what="rows come again under load",
            )
            stop.set()
        await eventually(
            lambda: streams_are_empty(fleet),
            timeout=CAUGHT_UP_SECONDS,
            interval=0.2,
            what="the streams are empty",
        )
        caught_up = time.monotonic() - back_at
        after = await memory(fleet)
        for call in calls:
            await agreed(fleet, call.room, 0, 1)
        rooms = ended(apps)
        codes = {code for app in apps for code in app.codes}
        print(  # noqa: T201 - for `make outage`
            f"{len(rooms)} rooms and {len(codes)} referrals with Postgres away for {SECONDS:g} s; streams"
            f" {before.streams} bytes before, {peak.streams} then with {waiting} events, {after.streams} after; other"
            f" memory grew by {after.kept - before.kept} bytes of rooms and {after.rest - before.rest} of nothing in"
            f" particular; {caught_up:.1f} s to catch up"
        )

        assert await versions(fleet, rooms) == rooms
        assert await codes_of(fleet) == codes
        members = [member for call in calls for member in call.members]
        assert [(member.unanswered, member.refused) for member in members] == [(0, [])] * len(members)
        assert await length(fleet, DEAD_LETTERS) == 0
        assert ended_meanwhile > SECONDS, "there was a load"
        assert waiting >= 2 * ended_meanwhile, "the streams have kept what Postgres could not take"
        assert after.streams <= before.streams < peak.streams
        # What is kept of rooms that have ended is not the outage's: it is there for an hour with Postgres as well.
        assert after.rest - before.rest < peak.streams / 2


async def memory(fleet: Fleet) -> Memory:
    """What Redis' memory is used for at this moment, about."""
    names = [name.decode() async for name in fleet.redis.scan_iter(count=1_000)]
    async with fleet.redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.memory_usage(name, samples=0)
        pipe.info("memory")
        *sizes, info = await pipe.execute()
    of = {name: size or 0 for name, size in zip(names, sizes, strict=True)}
    held = sum(size for name, size in of.items() if name in EVENTS)
    kept = sum(of.values()) - held
    return Memory(held, kept, info["used_memory"] - held - kept)


async def streams_are_empty(fleet: Fleet) -> bool:
    return await length(fleet, EVENTS) == 0


async def length(fleet: Fleet, streams: list[str]) -> int:
    """How many entries streams have together."""
    async with fleet.redis.pipeline(transaction=False) as pipe:
        for stream in streams:
            pipe.xlen(stream)
        lengths: list[int] = await pipe.execute()
    return sum(lengths)


async def fetch(fleet: Fleet, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(fleet.database_url, timeout=10)
    try:
        return await connection.fetch(query, *values)
    finally:
        await connection.close(timeout=10)


async def versions(fleet: Fleet, rooms: dict[uuid.UUID, int]) -> dict[uuid.UUID, int]:
    """The versions in which Postgres has rooms, if they have ended."""
    query = "SELECT room_id, version FROM active_rooms WHERE room_id = ANY($1) AND status = 'ended'"
    return {row["room_id"]: row["version"] for row in await fetch(fleet, query, list(rooms))}


async def codes_of(fleet: Fleet) -> set[str]:
    return {row["referral_code"] for row in await fetch(fleet, "SELECT referral_code FROM referral_mappings")}


async def are_written(fleet: Fleet, rooms: dict[uuid.UUID, int]) -> bool:
    return await versions(fleet, rooms) == rooms


def ended(apps: list[App]) -> dict[uuid.UUID, int]:
    """The rooms that have ended until now, with their last versions."""
    return {room: version for app in apps for room, version in app.versions.items()}
