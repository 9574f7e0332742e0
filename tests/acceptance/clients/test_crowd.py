"""Many clients at once, while letting in takes time: who waits is told so, who would wait in vain is told when."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from signal_node.signaling.admission import AT_ONCE
from tests.acceptance.clients.bare_client import BareClient, Frame
from tests.acceptance.harness import Harness
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEYOND = 20
ENVIRON = {"KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "1000"}
IMPATIENT = {"KEEPLINE_LIMIT_HELLO_WAIT_SECONDS": "0.1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """A node that lets clients wait, and one that does not."""
    async with running_fleet(nodes=2, environ=ENVIRON, environ_of={1: IMPATIENT}) as fleet:
        yield fleet


async def crowd(harness: Harness, node: int) -> list[BareClient]:
    """More connections than hellos may be under way."""
    return await asyncio.gather(*(harness.connect(node) for _ in range(AT_ONCE + BEYOND)))


async def say_hello(fleet: Fleet, clients: list[BareClient]) -> None:
    for client in clients:
        await client.send("hello", id="h", token=fleet.token(uuid.uuid4()))


async def readiness(fleet: Fleet, node: int) -> tuple[int, Frame]:
    async with fleet.http.get(f"{fleet.nodes[node].http}/readyz") as response:
        return response.status, await response.json()


async def test_who_waits_is_told_so_and_then_welcomed(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 0)) as harness:
        clients = await crowd(harness, 0)
        with paused(fleet.valkey.pid):
            await say_hello(fleet, clients)
            gone = clients.pop()
            told = [await client.receive() for client in clients[AT_ONCE:]]
            assert [frame["type"] for frame in told] == ["queued"] * (BEYOND - 1)
            assert [frame["ahead"] for frame in told] == list(range(BEYOND - 1))
            assert all(frame["wait_ms"] > 0 for frame in told)
            gone.cut()

            async def left() -> bool:
                return await fleet.metric(0, "keepline_hellos_waiting") == len(clients)

            await eventually(left, what="who has gone has left the queue")
        for client in clients:
            while (frame := await client.receive())["type"] == "queued":
                pass
            assert (frame["type"], frame["id"]) == ("welcome", "h")
        assert await fleet.metric(0, "keepline_hellos_waiting") == 0


async def test_who_cannot_be_served_in_time_is_told_at_once_and_served_later(fleet: Fleet) -> None:
    async with Harness(fleet, (1, 1)) as harness:
        clients = await crowd(harness, 1)
        with paused(fleet.valkey.pid):
            await say_hello(fleet, clients)
            refused = [await client.receive() for client in clients[AT_ONCE:]]
            assert {(frame["type"], frame["code"], frame["id"]) for frame in refused} == {
                ("error", "unavailable", "h")
            }
            waits = [frame["retry_after_ms"] for frame in refused]
            assert 0 < min(waits) < max(waits) < 10_000
            status, answer = await readiness(fleet, 1)
            assert (status, answer["ready"]) == (200, True)
            assert answer["warnings"] == {"hellos": "many clients are logging in"}
            assert await fleet.metric(1, "keepline_hellos_full") == 1
            assert await fleet.metric(1, "keepline_hellos_postponed_total") == BEYOND
        for client in clients[:AT_ONCE]:
            assert (await client.receive())["type"] == "welcome"
        for client in clients[AT_ONCE:]:
            await client.send("hello", id="again", token=fleet.token(uuid.uuid4()))
            assert (await client.receive())["type"] == "welcome"
        assert (await readiness(fleet, 1))[1]["warnings"] == {}


async def test_a_login_while_redis_is_away_counts_everywhere_when_it_is_back(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 0)) as harness:
        user = uuid.uuid4()
        with paused(fleet.valkey.pid):
            member = await harness.login(user, 0)
        path = f"/v1/users/{user}/disconnect"

        async def known() -> bool:
            answer: Frame = await fleet.api("POST", path, node=1)
            return bool(answer["disconnected"])

        await eventually(known, what="the other node knows who has the user")
        assert await member.client.closed() == 4409
