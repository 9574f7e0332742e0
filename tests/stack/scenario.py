"""The stack of deploy/ in a real engine, with calls on it all the time, while everything that operators do to it, and
everything that happens to them, is done: scaled out and in, each container killed, a new release rolled.

Not among the tests that `make test` runs: `make stack` does, in some ten minutes. STACK_CALLS and STACK_SEED change it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aioice import turn
from websockets.asyncio.client import connect

from keepline.client import Keepline
from tests.acceptance.clients.bare_client import SUBPROTOCOL
from tests.helpers import load
from tests.helpers.load import LoadedCall, loaded_calls, pause
from tests.helpers.waiting import eventually
from tests.stack.engine import Engine, running_engine
from tests.stack.stack import VERSION, Stack, build, images, running_stack

PAIRS = 20
CALLS = int(os.environ.get("STACK_CALLS", "100"))
NEXT_VERSION = "0.0.2-test"
SETTLED_SECONDS = 60.0
BACK_SECONDS = 90.0
TURN_SECONDS = 5.0
SAMPLE_SECONDS = 0.05


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        engine.fetch(*images())
        began = time.monotonic()
        build(engine)
        print(f"built our image in {time.monotonic() - began:.0f} s")
        yield engine


class Calls:
    """The calls under load. What has to be true of them after each step."""

    def __init__(self, calls: list[LoadedCall]) -> None:
        self.calls = calls
        self.members = [member for call in calls for member in call.members]
        self._began = time.monotonic()
        self._apart_since: dict[str, float] = {}
        self._apart: list[float] = []

    async def watch(self) -> None:
        """Note for how long members are away from their calls, or see the other one away, until cancelled."""
        never = asyncio.Event()
        while True:
            now = time.monotonic()
            for member in self.members:
                if not member.settled:
                    self._apart_since.setdefault(member.name, now)
                elif member.name in self._apart_since:
                    self._apart.append(now - self._apart_since.pop(member.name))
            await pause(SAMPLE_SECONDS, never)

    def _apart_meanwhile(self) -> str:
        apart, self._apart = sorted(self._apart), []
        if not apart:
            return "nobody was apart"
        middle, longest = apart[len(apart) // 2], apart[-1]
        return f"{len(apart)} times a member was apart, {middle:.1f} s in the median, {longest:.1f} s at most"

    async def are_up(self, step: str) -> None:
        """Wait until everybody is there and knows it; no call may have ended, and every one goes on."""
        heard = [self._heard(call) for call in self.calls]
        await eventually(self._all_settled, timeout=SETTLED_SECONDS, what=f"all are back: {step}")
        assert not [member.ends for member in self.members if member.ends], step
        await eventually(
            lambda: all(self._heard(call) > before for call, before in zip(self.calls, heard, strict=True)),
            timeout=SETTLED_SECONDS,
            what=f"signals arrive in every call: {step}",
        )
        lines = sum(len(lines) for call in self.calls for lines in call.ledger.acknowledged.values())
        print(
            f"{time.monotonic() - self._began:6.1f} s  {step}: {len(self.calls)} calls up, {lines} lines; "
            + self._apart_meanwhile()
        )

    def _all_settled(self) -> bool:
        apart = [
            (call.room, [(member.client.state.name, member.call.peer) for member in call.members])
            for call in self.calls
            if not all(member.settled for member in call.members)
        ]
        assert not apart, apart
        return True

    def _heard(self, call: LoadedCall) -> int:
        return sum(len(numbers) for numbers in call.ledger.signals.values())


@asynccontextmanager
async def watched(calls: Calls) -> AsyncIterator[Calls]:
    """The calls, watched while the context is open."""
    task = asyncio.create_task(calls.watch())
    try:
        yield calls
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.timeout(1_500)
async def test_calls_outlive_whatever_is_done_to_the_stack(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("STACK_SEED", random.randrange(2**32)))
    print(f"STACK_SEED={seed} STACK_CALLS={CALLS}")
    monkeypatch.setattr(load, "PAUSE_SECONDS", (1.0, 4.0))
    async with (
        running_stack(engine, nodes=2) as stack,
        loaded_calls(stack, CALLS, seed) as (loaded, stop),
        watched(Calls(loaded)) as calls,
    ):
        await calls.are_up("two nodes")
        await rooms_stay_together(stack)
        await addresses_are_true(stack)
        nodes = stack.containers("node")
        await scaled(stack, calls, 4)
        # All clients are on the first two nodes. Those killed, they are on the two that go when the stack is scaled in.
        for node in nodes:
            await node_killed(stack, calls, node)
        await scaled(stack, calls, 2)
        await persister_killed(stack, calls)
        await postgres_killed(stack, calls)
        await redis_killed(stack, calls)
        await coturn_killed(stack, calls)
        await balancer_killed(stack, calls)
        await everything_crashes(stack, calls)
        await release_rolled(stack, calls)
        stop.set()
        await nothing_is_lost(stack, calls)
        await balancer_is_missed(stack)


async def rooms_stay_together(stack: Stack) -> None:
    """With the hint most pairs are on one node; bounded load may part a few of them."""
    together = 0
    for _ in range(PAIRS):
        url = f"{stack.plain}?room={uuid.uuid4()}"
        async with (
            Keepline(url, stack.token(uuid.uuid4())) as one,
            Keepline(url, stack.token(uuid.uuid4())) as other,
        ):
            together += one.node == other.node
    print(f"{together} of {PAIRS} pairs met on one node")
    assert together >= PAIRS * 0.8


async def addresses_are_true(stack: Stack) -> None:
    """A failed login counts for the address that the load balancer saw, whatever the client says about it."""
    forged = "203.0.113.9"
    async with connect(
        stack.nodes[0].ws, subprotocols=[SUBPROTOCOL], additional_headers={"X-Forwarded-For": forged}
    ) as client:
        await client.send('{"type": "hello", "token": "none"}')
        await client.wait_closed()
        assert client.close_code == 4401
    rows = await eventually(
        lambda: asyncio.to_thread(stack.sql, "SELECT host(ip_address) AS address FROM rate_limits"),
        timeout=BACK_SECONDS,
        interval=0.5,
        what="the failed login is in Postgres",
    )
    # From this machine clients come through the engine's end of the network, the first address of it.
    edge = ipaddress.ip_network(stack.inspected_network("edge")["IPAM"]["Config"][0]["Subnet"])
    assert rows == [{"address": str(edge[1])}]


async def scaled(stack: Stack, calls: Calls, count: int) -> None:
    await stack.scale(count)
    await stack.scraped("node", count)
    await calls.are_up(f"scaled to {count} nodes")


@asynccontextmanager
async def killed(stack: Stack, container: str) -> AsyncIterator[None]:
    """Keep a container dead while the context is open; then it is started, and healthy."""
    await asyncio.to_thread(stack.engine.docker, "kill", container)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.engine.docker, "start", container)
    await eventually(
        lambda: asyncio.to_thread(stack.healthy, container),
        timeout=BACK_SECONDS,
        interval=0.5,
        what="it is healthy again",
    )


async def node_killed(stack: Stack, calls: Calls, node: str) -> None:
    before = len(stack.containers("node"))
    async with killed(stack, node):
        await stack.balances(before - 1)
        await status_tells(stack, before - 1)
        await stack.measures("sum(increase(keepline_nodes_buried_total[20s])) > 0")
        await stack.alerts("KeeplineNodeDied", "firing")
        await calls.are_up("a node is dead")
    await stack.balances(before)
    await stack.scraped("node", before)


async def persister_killed(stack: Stack, calls: Calls) -> None:
    (persister,) = stack.containers("persister")
    async with killed(stack, persister):
        await status_tells(stack, 2, "is a persister running?")
        await stack.alerts("KeeplinePersisterAbsent", "firing")
        await calls.are_up("the persister is dead")
    await shows(stack, persister, "ok")


async def postgres_killed(stack: Stack, calls: Calls) -> None:
    (postgres,) = stack.containers("postgres")
    persister, *nodes = [*stack.containers("persister"), *stack.containers("node")]
    async with killed(stack, postgres):
        for container in (persister, *nodes):
            await shows(stack, container, "degraded", "postgres")
        await status_tells(stack, 0, "has a problem with postgres")
        await stack.alerts("KeeplinePostgresUnreachable", "firing")
        await calls.are_up("Postgres is dead")
        assert await stack.balanced() == 2, "callers notice nothing of it"
    for container in (persister, *nodes):
        await shows(stack, container, "ok")


async def redis_killed(stack: Stack, calls: Calls) -> None:
    (redis,) = stack.containers("redis")
    programs = [*stack.containers("persister"), *stack.containers("node")]
    async with killed(stack, redis):
        for container in programs:
            await shows(stack, container, "degraded", "redis")
        await status_tells(stack, 0, "Redis")
        await stack.alerts("KeeplineRedisUnreachable", "firing")
    for container in programs:
        await shows(stack, container, "ok")
    await stack.balances(2)
    await calls.are_up("Redis was dead")


async def coturn_killed(stack: Stack, calls: Calls) -> None:
    (coturn,) = stack.containers("coturn")
    await relays(stack, calls)
    async with killed(stack, coturn):
        await status_tells(stack, 2, "cannot allocate a relay on turn:")
        await stack.alerts("KeeplineTurnUnreachable", "firing")
        await calls.are_up("the TURN server is dead")
    await relays(stack, calls)


async def balancer_killed(stack: Stack, calls: Calls) -> None:
    (haproxy,) = stack.containers("haproxy")
    async with killed(stack, haproxy):
        await eventually(
            lambda: all(member.client.state.name != "CONNECTED" for member in calls.members),
            what="everybody notices",
        )
    await calls.are_up("the load balancer was dead")


async def balancer_is_missed(stack: Stack) -> None:
    """Without a load balancer for so long calls end, so this comes when they are over."""
    (haproxy,) = stack.containers("haproxy")
    async with killed(stack, haproxy):
        await stack.alerts("KeeplineLoadBalancerDown", "firing")


async def everything_crashes(stack: Stack, calls: Calls) -> None:
    """The engine starts again by itself what dies."""
    for service in ("node", "persister", "redis", "postgres", "coturn", "prometheus", "haproxy"):
        container = stack.containers(service)[0]
        before = stack.inspected(container)["RestartCount"]
        stack.crash(container)
        await eventually(
            lambda: stack.inspected(container)["RestartCount"] > before and stack.healthy(container),  # noqa: B023
            timeout=BACK_SECONDS,
            interval=0.5,
            what=f"{service} is back",
        )
        await calls.are_up(f"{service} crashed")


async def release_rolled(stack: Stack, calls: Calls) -> None:
    await asyncio.to_thread(build, stack.engine, NEXT_VERSION)
    print(await stack.roll(NEXT_VERSION), end="")
    for service in ("node", "persister"):
        for container in stack.containers(service):
            assert stack.inspected(container)["Config"]["Image"] == f"keepline:{NEXT_VERSION}"
    assert len(stack.containers("node")) == 2
    await calls.are_up(f"rolled from {VERSION} to {NEXT_VERSION}")


async def relays(stack: Stack, calls: Calls) -> None:
    """The credentials of a `welcome` open a relay on the TURN server."""
    (server,) = calls.members[0].client.ice_servers
    assert server.username is not None
    assert server.credential is not None

    async def allocated() -> bool:
        async with asyncio.timeout(TURN_SECONDS):
            transport, _ = await turn.create_turn_endpoint(
                asyncio.DatagramProtocol, stack.turn, server.username, server.credential
            )
        address = transport.get_extra_info("sockname")
        transport.close()
        return address is not None

    await eventually(allocated, timeout=BACK_SECONDS, interval=0.5, what="a relay is allocated")


async def shows(stack: Stack, container: str, status: str, *dependencies: str) -> None:
    """Wait until `/healthz` of a program says so, and of which dependencies, and its metrics can be read."""

    async def does() -> bool:
        health: dict[str, Any] = await asyncio.to_thread(stack.ask, container, "/healthz")
        assert health["status"] == status, health
        for name in dependencies:
            assert health["dependencies"][name]["status"] != "ok", health
        return True

    await eventually(does, timeout=BACK_SECONDS, interval=0.5, what=f"{container[:12]} is {status}")


async def status_tells(stack: Stack, ready: int, problem: str | None = None) -> None:
    """Wait until `keepline status` shows so many nodes as ready, and names the problem."""

    async def does() -> bool:
        found = await asyncio.to_thread(stack.status)
        assert [node["state"] for node in found["nodes"]].count("ready") == ready, found
        assert problem is None or any(problem in said for said in found["problems"]), found
        return True

    await eventually(does, timeout=BACK_SECONDS, interval=0.5, what=f"status shows {ready} nodes, {problem}")


async def nothing_is_lost(stack: Stack, calls: Calls) -> None:
    """Hang up everywhere. Postgres has every room, over, every line that was acknowledged, and every call's history."""
    await eventually(
        lambda: all(member.settled for member in calls.members),
        timeout=SETTLED_SECONDS,
        what="all are settled",
    )
    for call in calls.calls:
        await stack.end_room(call.room)
    query = "SELECT room_id, status, ended_reason, messages FROM active_rooms"

    async def all_ended() -> list[dict[str, Any]]:
        rows = await asyncio.to_thread(stack.sql, query)
        assert [row["status"] for row in rows] == ["ended"] * CALLS
        return rows

    found = await eventually(
        all_ended, timeout=BACK_SECONDS, interval=0.5, what="every room has ended in Postgres"
    )
    rows = {row["room_id"]: row for row in found}
    assert rows.keys() == {call.room for call in calls.calls}
    for call in calls.calls:
        assert rows[call.room]["ended_reason"] == "deleted"
        assert call.ledger.problems(rows[call.room]["messages"]) == []
    history = await asyncio.to_thread(stack.sql, "SELECT count(*) FROM chat_history")
    assert history == [{"count": 2 * CALLS}]
    lines = sum(len(row["messages"]) for row in found)
    unanswered = sum(member.unanswered for member in calls.members)
    refused = sum(len(member.refused) for member in calls.members)
    print(
        f"{len(rows)} rooms and {lines} lines in Postgres; {unanswered} lines unanswered, {refused} refused"
    )
