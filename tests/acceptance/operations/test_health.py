"""What the programs say of themselves while a server is away: degraded, and why, but alive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.harness import ON_ONE_NODE, Harness
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE, PERSISTER = "node", "persister"
Failing = dict[str, set[str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """One node, one persister and their servers; each test leaves all of them running."""
    async with running_fleet(nodes=1) as fleet:
        yield fleet


@asynccontextmanager
async def redis_hangs(fleet: Fleet) -> AsyncIterator[None]:
    with paused(fleet.valkey.pid):
        yield


@asynccontextmanager
async def redis_takes_no_writes(fleet: Fleet) -> AsyncIterator[None]:
    """As a master does that has lost its replicas. It answers a ping all the same."""
    await fleet.redis.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        await fleet.redis.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def postgres_is_down(fleet: Fleet) -> AsyncIterator[None]:
    await fleet.postgres.kill()
    try:
        yield
    finally:
        await fleet.postgres.start()


async def ask(fleet: Fleet, program: str, path: str) -> tuple[int, Any]:
    url = fleet.nodes[0].http if program == NODE else fleet.persisters[0]["http"]
    async with fleet.http.get(url + path) as response:
        return response.status, await response.json()


async def failing(fleet: Fleet) -> Failing:
    """The dependencies of each program that are not proved to work."""
    found: Failing = {}
    for program in (NODE, PERSISTER):
        assert (await ask(fleet, program, "/livez"))[0] == 200
        status, report = await ask(fleet, program, "/healthz")
        assert status == 200
        found[program] = {
            name for name, dependency in report["dependencies"].items() if dependency["status"] != "ok"
        }
        assert (report["status"] == "ok") is (not found[program])
    return found


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        pytest.param(
            redis_hangs, {NODE: {"redis", "inbox", "heartbeat"}, PERSISTER: {"redis"}}, id="Redis hangs"
        ),
        pytest.param(
            redis_takes_no_writes,
            {NODE: {"heartbeat", "redis"}, PERSISTER: {"redis"}},
            id="Redis takes no writes",
        ),
        pytest.param(postgres_is_down, {NODE: {"postgres"}, PERSISTER: {"postgres"}}, id="Postgres is down"),
    ],
)
async def test_programs_say_what_fails_and_live_on(
    fleet: Fleet, away: Callable[[Fleet], AbstractAsyncContextManager[None]], expected: Failing
) -> None:
    def reported(wanted: Failing) -> Callable[[], Awaitable[bool]]:
        async def compare() -> bool:
            found = await failing(fleet)
            assert found == wanted, found
            return True

        return compare

    await eventually(reported({NODE: set(), PERSISTER: set()}), timeout=20.0, what="all is well")
    async with away(fleet):
        await eventually(reported(expected), timeout=20.0, what="what fails is reported")
    await eventually(reported({NODE: set(), PERSISTER: set()}), timeout=20.0, what="all is well again")


async def test_what_redis_does_not_take_now_is_stored_when_it_does(fleet: Fleet) -> None:
    """A line of chat is answered when it is stored, and not refused meanwhile."""
    async with Harness(fleet, ON_ONE_NODE) as harness:
        call = await harness.call()
        async with redis_takes_no_writes(fleet):
            await call.alice.client.send("chat", id="late", room=call.room, text="hello")

            async def waits() -> bool:
                async with fleet.http.get(f"{fleet.nodes[0].http}/metrics") as response:
                    return "\nkeepline_journal_length 1.0\n" in await response.text()

            await eventually(waits, what="the line waits in the journal")
        answer = await call.alice.client.expect("ok", id="late")
        assert answer["message"]["text"] == "hello"
        await call.bob.client.expect("chat", room=call.room)
