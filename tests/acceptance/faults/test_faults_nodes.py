"""Nodes that die, and nodes that were only slow. Nobody starts a node again here but the tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from keepline.cli.local.process import Child
from keepline.room import keys
from tests.acceptance.faults.faults import agreed, hear, holders, nothing_left_of
from tests.acceptance.harness import Call, Harness
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.ports import free_block
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRACE_MS = 2_000

BACKLOG = 300
"""More signals than a burst, fewer than a burst and the rate of the four seconds that a heartbeat lives at least."""

NOTICED_SECONDS = 6.0
BUSY_SECONDS = 1.5
"""What a machine that has other things to do may add to a limit."""

REFUSED_SECONDS = 60.0

ACTIVE = {"status": "active", "user_1_connected": True, "user_2_connected": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_fleet() -> AsyncIterator[Fleet]:
    """Two nodes; each test leaves both of them running."""
    environ = {"KEEPLINE_GRACE_SECONDS": "2", "KEEPLINE_COLD_START_GRACE_SECONDS": "2"}
    async with running_fleet(nodes=2, environ=environ) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared_fleet: Fleet) -> AsyncIterator[Fleet]:
    """The fleet, in which node 0 may bury others; a test may kill node 1."""
    await shared_fleet.until_reaping(0)
    yield shared_fleet
    await shared_fleet.restart_unless_ready(1)


async def comes_back(harness: Harness, call: Call, node: int) -> None:
    """Bob resumes on a node, and Alice hears so."""
    call.bob = await harness.login(call.bob.user, node, resume=call.bob.welcome["resume"])
    assert call.bob.welcome["resumed"] is True
    await call.alice.client.expect("peer", room=call.room, state="reconnected")


async def test_a_second_process_under_a_nodes_name_refuses_to_start(fleet: Fleet, tmp_path: Path) -> None:
    """As when a file of settings is copied: on ports of its own, but as a node that lives. Its calls go on."""
    first, port = fleet.programs[0].command, free_block(2)
    ports = {"KEEPLINE_PORT": f"{port}", "KEEPLINE_OPS_PORT": f"{port + 1}"}
    log = tmp_path / "copy.log"
    copied = replace(first, name="copy", log=log, environment={**first.environment, **ports})
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        copy = await Child.start(copied)
        try:
            async with asyncio.timeout(REFUSED_SECONDS):
                assert await copy.wait() == 2, log.read_text()
        finally:
            await copy.kill()
        assert "KEEPLINE_NODE_ID" in log.read_text()
        await call.goes_on()


async def test_a_killed_node_takes_no_call_with_it(fleet: Fleet) -> None:
    """Holds the reaper (`Membership.run_reaper`)."""
    now = asyncio.get_running_loop().time
    async with Harness(fleet, (0, 1)) as harness, Harness(fleet, (1, 1)) as within:
        gone, late, early = [await harness.call() for _ in range(3)]
        both = await within.call()
        await fleet.programs[1].kill()
        killed_at = now()
        await comes_back(harness, early, 0)
        both.alice = await within.login(both.alice.user, 0, resume=both.alice.welcome["resume"])
        await comes_back(within, both, 0)

        await hear((gone, late), "peer", state="reconnecting", grace_ms=GRACE_MS)
        assert now() - killed_at < NOTICED_SECONDS + BUSY_SECONDS
        await comes_back(harness, late, 0)
        await hear((gone,), "ended", reason="grace_expired")

        await nothing_left_of(fleet, 1)
        for call in (late, early, both):
            await call.goes_on()
            await agreed(fleet, call.room, 0, **ACTIVE)
        await agreed(fleet, gone.room, 0, status="ended", ended_reason="grace_expired")


async def test_a_node_that_was_only_slow_undoes_nothing_and_takes_back_what_nobody_has(fleet: Fleet) -> None:
    """Holds that only a side which nobody holds is taken again (`Rooms._retakes`), and that it is."""
    async with Harness(fleet, (0, 1)) as harness:
        moved, stayed = [await harness.call() for _ in range(2)]
        left_behind = moved.bob.client
        with paused(fleet.programs[1].pid):
            await hear((moved, stayed), "peer", state="reconnecting", grace_ms=GRACE_MS)
            await comes_back(harness, moved, 0)
        await hear((stayed,), "peer", state="reconnected")
        assert await left_behind.closed() == 4409
        for call in (moved, stayed):
            await call.goes_on()
            await agreed(fleet, call.room, 0, 1, **ACTIVE)
            sessions = [member.welcome["session"] for member in (call.alice, call.bob)]
            nodes = [member.welcome["node"] for member in (call.alice, call.bob)]
            assert await holders(fleet, call.room) == list(zip(nodes, sessions, strict=True))


async def test_what_piled_up_during_a_stall_is_no_flood(fleet: Fleet) -> None:
    """Bob sends no more than his burst and his rate allow, but his node reads it all at one moment."""
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        alice, bob = call.clients
        with paused(fleet.programs[1].pid):
            for number in range(BACKLOG):
                await bob.send("signal", room=call.room, data={"app": number})
            await hear((call,), "peer", state="reconnecting", grace_ms=GRACE_MS)
        frames = [await alice.receive() for _ in range(BACKLOG + 1)]
        told = [frame for frame in frames if frame["type"] != "signal"]
        assert [frame["state"] for frame in told] == ["reconnected"]
        assert [f["data"]["app"] for f in frames if f["type"] == "signal"] == list(range(BACKLOG))
        await call.goes_on()


async def test_deadlines_outlive_the_node_that_set_them(fleet: Fleet) -> None:
    """Holds the stand-in of `Timekeeper`: the other node acts before it knows that one has died.

    Which partitions are whose is a matter of their names, so there are several rooms.
    """
    now = asyncio.get_running_loop().time
    async with Harness(fleet, (0, 1)) as harness:
        calls = [await harness.call() for _ in range(8)]
        for call in calls:
            call.bob.client.cut()
        await hear(calls, "peer", state="reconnecting", grace_ms=GRACE_MS)
        await fleet.programs[1].kill()
        killed_at = now()
        await hear(calls, "ended", reason="grace_expired")
        # Not by way of the burial: a heartbeat lives for at least four seconds after the last breath.
        assert now() - killed_at < 4.0 < NOTICED_SECONDS
        for call in calls:
            await agreed(fleet, call.room, 0, status="ended", ended_reason="grace_expired")


async def test_what_is_due_is_kept_in_redis_and_nowhere_else(fleet: Fleet) -> None:
    """Holds the deadlines' sorted set: without its entry no timer of a node ends the room."""
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        call.bob.client.cut()
        await hear((call,), "peer", state="reconnecting")
        expires = (await fleet.room(call.room))["grace_period_expires"]
        deadlines = keys.deadlines(keys.partition_of(call.room, keys.DEFAULT_PARTITIONS))
        assert await fleet.redis.zscore(deadlines, call.room) == expires
        await fleet.redis.zrem(deadlines, call.room)

        async def overdue() -> bool:
            seconds, _ = await fleet.redis.time()
            return bool(seconds * 1_000 > expires + 1_000)

        await eventually(overdue, timeout=10.0, interval=0.1, what="the grace period is over")
        assert (await fleet.room(call.room))["status"] == "grace_period"
        await fleet.redis.zadd(deadlines, {call.room: expires})
        await hear((call,), "ended", reason="grace_expired")


async def test_wrong_clocks_of_nodes_do_no_harm(tmp_path: Path) -> None:
    """Holds that rooms are decided by Redis' time (`Clock.learn`): one node is ahead, the other one behind."""
    environ_of = {node: with_clock_off(tmp_path, seconds) for node, seconds in enumerate((300, -300))}
    environ = {"KEEPLINE_GRACE_SECONDS": "3", "KEEPLINE_COLD_START_GRACE_SECONDS": "3"}
    async with (
        running_fleet(nodes=2, environ=environ, environ_of=environ_of) as fleet,
        Harness(fleet, (0, 1)) as harness,
    ):
        calls = [await harness.call(), await harness.call()]
        first, second = calls
        for call, member, left in (
            (first, first.alice, first.bob),
            (second, second.bob, second.alice),
        ):
            seconds, _ = await fleet.redis.time()
            member.client.cut()
            await left.client.expect("peer", room=call.room, state="reconnecting", grace_ms=3_000)
            shown = await fleet.room(call.room)
            assert abs(shown["started_at"] / 1_000 - seconds) < 10
            assert 2 < shown["grace_period_expires"] / 1_000 - seconds < 5
            back = await harness.login(member.user, member.node, resume=member.welcome["resume"])
            await left.client.expect("peer", room=call.room, state="reconnected")
            back.client.cut()
            await left.client.expect("peer", room=call.room, state="reconnecting", grace_ms=3_000)
            await left.client.expect("ended", room=call.room, reason="grace_expired")


def with_clock_off(folder: Path, seconds: int) -> dict[str, str]:
    """Environment of a Python program whose time of day is off by so much."""
    own = folder / f"off-by-{seconds}"
    own.mkdir()
    wrong = f"import time\nright = time.time\ntime.time = lambda: right() + {seconds}\n"
    (own / "sitecustomize.py").write_text(wrong)
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(own), *([inherited] if inherited else [])])}
