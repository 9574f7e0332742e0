"""Redis away for a while, Redis that has lost its data, and another Redis in its place."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from tests.acceptance.faults.faults import agreed, hear, signals_arrive, talk_for
from tests.acceptance.harness import Harness
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.rows import row_becomes
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

AWAY_SECONDS = 7.0
BURIED_BY_THEN_SECONDS = 3.0
ACTIVE = {"status": "active", "user_1_connected": True, "user_2_connected": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_fleet() -> AsyncIterator[Fleet]:
    """Two nodes, a persister and their servers; each test leaves all of them running."""
    async with running_fleet(nodes=2) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared_fleet: Fleet) -> Fleet:
    """The fleet, both nodes ready."""
    await shared_fleet.until_ready()
    return shared_fleet


@asynccontextmanager
async def hung(fleet: Fleet) -> AsyncIterator[None]:
    """Redis takes connections and answers nothing."""
    with paused(fleet.valkey.pid):
        yield


@asynccontextmanager
async def gone(fleet: Fleet) -> AsyncIterator[None]:
    """Redis is killed; it comes back with what it had written to its file."""
    await fleet.valkey.kill()
    try:
        yield
    finally:
        await fleet.valkey.start()


@pytest.mark.parametrize("away", [hung, gone])
async def test_while_redis_is_away_what_fits_on_one_node_goes_on(
    fleet: Fleet, away: Callable[[Fleet], AbstractAsyncContextManager[None]]
) -> None:
    """Holds the journal of `Rooms`, joins without Redis (`Requests._join_without_redis`) and that `Membership`
    buries nobody before it has been in touch for long enough: node 1 is kept from writing its heartbeat when
    Redis is back.
    """
    async with Harness(fleet, (0, 0)) as here, Harness(fleet, (0, 1)) as across:
        call, over, apart = await here.call(), await here.call(), await across.call()
        users = [uuid.uuid4() for _ in range(6)]
        cached, stored, split = [
            (await fleet.open_room(one, other))["room_id"]
            for one, other in zip(users[::2], users[1::2], strict=True)
        ]
        members = [await here.login(user, 0) for user in users[:5]] + [await across.login(users[5], 1)]
        await members[0].client.ask("join", "joined", room=cached)
        await members[5].client.ask("join", "joined", room=split)
        for room in (cached, stored, split):
            await row_becomes(fleet.database_url, await fleet.room(room))

        with paused(fleet.programs[1].pid):
            async with away(fleet):
                for text in ("one", "two"):
                    await call.alice.client.send("chat", id=text, room=call.room, text=text)
                await over.bob.client.send("end", id="end", room=over.room)
                await over.alice.client.expect("ended", room=over.room, reason="hangup")
                joins = [
                    asyncio.create_task(members[1].client.ask("join", "joined", room=cached)),
                    asyncio.create_task(members[2].client.ask("join", "joined", room=stored)),
                    asyncio.create_task(members[4].client.refused("unavailable", "join", room=split)),
                ]
                await talk_for(AWAY_SECONDS, call)
                joined, first, refused = await asyncio.gather(*joins)
                assert (joined["side"], joined["peer"]) == (2, "joined")
                assert (first["side"], first["peer"]) == (1, "absent")
                assert refused["retry_after_ms"] > 0
                await members[0].client.expect("peer", room=cached, state="joined")
                await members[3].client.ask("join", "joined", room=stored)
                await members[2].client.expect("peer", room=stored, state="joined")
            answers = [await call.alice.client.expect("ok", id=text) for text in ("one", "two")]
            assert [answer["message"]["seq"] for answer in answers] == [1, 2]
            for answer in answers:
                await call.bob.client.expect("chat", room=call.room, message=answer["message"])
            await over.bob.client.expect("ok", id="end")
            await over.bob.client.expect("ended", room=over.room, reason="hangup")
            await talk_for(BURIED_BY_THEN_SECONDS, call)
        await fleet.until_ready()
        await call.goes_on()
        await signals_arrive(apart)
        await agreed(fleet, over.room, 0, 1, status="ended", ended_reason="hangup")
        for room in (call.room, apart.room, cached, stored):
            await agreed(fleet, room, 0, 1, **ACTIVE)
        await members[4].client.ask("join", "joined", room=split)
        await agreed(fleet, split, 0, 1, **ACTIVE)


async def flushed(fleet: Fleet) -> None:
    await fleet.redis.flushall()


async def replaced_by_an_empty_one(fleet: Fleet) -> None:
    await fleet.empty_redis()


@pytest.mark.parametrize("loses_all", [flushed, replaced_by_an_empty_one])
async def test_calls_go_on_when_redis_has_lost_everything(
    fleet: Fleet, loses_all: Callable[[Fleet], Awaitable[None]]
) -> None:
    """Holds `Recovery`: what nodes put back, what comes from Postgres, and what has ended and stays so."""
    async with Harness(fleet, (0, 0)) as here, Harness(fleet, (0, 1)) as across:
        calls = [await here.call(), await across.call(), await across.call(chat_mode="text")]
        over = await across.call()
        for call in calls:
            for writer, reader in (call.clients, call.clients[::-1]):
                line = (await writer.ask("chat", "ok", room=call.room, text="before"))["message"]
                await reader.expect("chat", room=call.room, message=line)
        await over.alice.client.ask("end", "ok", room=over.room)
        await over.bob.client.expect("ended", room=over.room, reason="hangup")
        nobody = [uuid.uuid4(), uuid.uuid4()]
        waiting = (await fleet.open_room(nobody[0], nobody[1]))["room_id"]
        for room in (*(call.room for call in calls), over.room, waiting):
            await agreed(fleet, room, 0, 1)

        async with versions_watched(fleet):
            await loses_all(fleet)
            await calls[0].goes_on()
            await signals_arrive(*calls)
            await fleet.until_whole()
            for call in calls:
                line = (await call.alice.client.ask("chat", "ok", room=call.room, text="after"))["message"]
                assert line["seq"] == 3
                await call.bob.client.expect("chat", room=call.room, message=line)
                shown = await agreed(fleet, call.room, 0, 1, **ACTIVE)
                assert [line["text"] for line in shown["messages"]] == ["before", "before", "after"]
            await over.alice.client.refused("room_ended", "join", room=over.room)
            await agreed(fleet, over.room, 0, 1, status="ended", ended_reason="hangup")
            late = [await across.login(user, node) for node, user in enumerate(nobody)]
            for member in late:
                assert [held["room"]["room_id"] for held in member.welcome["rooms"]] == [waiting]
                await member.client.ask("join", "joined", room=waiting)
            await agreed(fleet, waiting, 0, 1, **ACTIVE)
            moving = calls[1]
            moving.bob.client.cut()
            await hear((moving,), "peer", state="reconnecting")
            moving.bob = await across.login(moving.bob.user, 0, resume=moving.bob.welcome["resume"])
            assert moving.bob.welcome["resumed"] is True
            await hear((moving,), "peer", state="reconnected")
            await moving.goes_on()
            await agreed(fleet, moving.room, 0, 1, **ACTIVE)


@asynccontextmanager
async def versions_watched(fleet: Fleet) -> AsyncIterator[None]:
    """Look at all rows of Postgres all the time; fails when a version went back or an ended room came back."""
    seen: dict[uuid.UUID, tuple[int, str]] = {}
    looks = 0
    connection = await asyncpg.connect(fleet.database_url, timeout=10)

    async def look() -> bool:
        nonlocal looks
        for row in await connection.fetch("SELECT room_id, version, status FROM active_rooms"):
            version, status = seen.get(row["room_id"], (0, ""))
            if row["version"] < version or (status == "ended" and row["status"] != "ended"):
                raise RuntimeError(f"was {version} {status}, and then {row}")
            seen[row["room_id"]] = (row["version"], row["status"])
        looks += 1
        return False

    watching = asyncio.create_task(eventually(look, timeout=600.0, interval=0.03))
    try:
        yield
        assert not watching.done(), watching.exception()
        assert looks > 5
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await connection.close(timeout=10)
