"""Postgres away, or not there at all: nobody in a call notices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
import pytest_asyncio

from keepline.cli.local.postgres import Postgres
from tests.acceptance.faults.faults import agreed
from tests.acceptance.harness import Harness
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.rows import row_of_room
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """Two nodes, a persister and their servers; each test leaves all of them running."""
    async with running_fleet(nodes=2) as fleet:
        yield fleet


async def dies(postgres: Postgres) -> None:
    await postgres.kill()


async def is_stopped(postgres: Postgres) -> None:
    await postgres.stop()


@pytest.mark.parametrize("goes_away", [dies, is_stopped])
async def test_callers_notice_nothing_while_postgres_is_away_and_the_rows_arrive_after(
    fleet: Fleet,
    goes_away: Callable[[Postgres], Awaitable[None]],
) -> None:
    """Holds that nothing waits for Postgres, and that the persister keeps what it could not write."""
    async with Harness(fleet, (0, 1)) as harness:
        before = await harness.call()
        await before.alice.client.ask("chat", "ok", room=before.room, text="before")
        await before.bob.client.expect("chat", room=before.room)
        await agreed(fleet, before.room, 0, 1)
        await goes_away(fleet.postgres)

        await before.goes_on()
        await before.bob.client.ask("chat", "ok", room=before.room, text="meanwhile")
        await before.alice.client.expect("chat", room=before.room)
        meanwhile, over = await harness.call(), await harness.call()
        await meanwhile.alice.client.ask("chat", "ok", room=meanwhile.room, text="hello")
        await meanwhile.bob.client.expect("chat", room=meanwhile.room)
        await over.alice.client.ask("end", "ok", room=over.room)
        await over.bob.client.expect("ended", room=over.room, reason="hangup")
        before.bob.client.cut()
        await before.alice.client.expect("peer", room=before.room, state="reconnecting")
        before.bob = await harness.login(before.bob.user, 0, resume=before.bob.welcome["resume"])
        await before.alice.client.expect("peer", room=before.room, state="reconnected")
        stranger = await harness.login(uuid4(), 1)
        await stranger.client.refused("room_not_found", "join", room=str(uuid4()))
        assert [await fleet.is_ready(node) for node in range(2)] == [True, True]

        await fleet.postgres.start()
        rows = [await agreed(fleet, call.room, 0, 1) for call in (before, meanwhile, over)]
        assert [[line["text"] for line in row["messages"]] for row in rows] == [
            ["before", "meanwhile"],
            ["hello"],
            [],
        ]
        await before.goes_on()
        await meanwhile.goes_on()


async def test_nodes_without_a_database_do_all_but_keep() -> None:
    """Holds that a node needs no `DATABASE_URL`: calls go on, and are put back after Redis has lost all."""
    async with (
        running_fleet(nodes=2, persisters=0, nodes_use_postgres=False) as fleet,
        Harness(fleet, (0, 1)) as harness,
    ):
        call = await harness.call()
        lines = []
        for writer, reader in (call.clients, call.clients[::-1]):
            lines.append((await writer.ask("chat", "ok", room=call.room, text="hello"))["message"])
            await reader.expect("chat", room=call.room, message=lines[-1])
        await fleet.redis.flushall()
        await fleet.until_whole()
        await call.goes_on()

        async def has_its_chat_again() -> bool:
            return bool((await fleet.room(call.room))["messages"] == lines)

        await eventually(has_its_chat_again, what="each node has put back the lines that it stored")
        call.bob.client.cut()
        await call.alice.client.expect("peer", room=call.room, state="reconnecting")
        call.bob = await harness.login(call.bob.user, 1, resume=call.bob.welcome["resume"])
        assert call.bob.welcome["rooms"][0]["room"]["messages"] == lines
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        await call.alice.client.ask("end", "ok", room=call.room)
        await call.bob.client.expect("ended", room=call.room, reason="hangup")
        assert await row_of_room(fleet.database_url, call.room) is None
