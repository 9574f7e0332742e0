"""A real Redis whose clock is set by an hour while calls go on, and an operator whose own clock is wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import ON_TWO_NODES, Call, Harness
from tests.helpers.cluster import inherited_environment
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.stepped_clock import SteppedValkey
from tests.helpers.waiting import eventually

HOUR = 3_600


async def steps(fleet: Fleet) -> float:
    """How many steps the nodes have noticed."""
    return sum([await fleet.metric(node, "keepline_clock_steps_total") for node in range(2)])


async def status(fleet: Fleet, more: dict[str, str]) -> Any:
    """What `keepline status` says, with more in its environment."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keepline.cli.main", "status", "--json"),
        env=inherited_environment()
        | {"REDIS_URL": fleet.redis_url, "KEEPLINE_SERVICE_KEY": fleet.line["service_key"]}
        | more,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return json.loads(said)


@pytest.mark.timeout(120)
async def test_clocks_that_are_wrong_or_set_are_not_noticed(tmp_path: Path) -> None:
    async with (
        running_fleet(persisters=1, valkey_type=SteppedValkey) as fleet,
        Harness(fleet, ON_TWO_NODES) as harness,
    ):
        redis = fleet.valkey
        assert isinstance(redis, SteppedValkey)
        call, left, over = [await harness.call(duration_seconds=600) for _ in range(3)]
        await fleet.end_room(over.room)
        await harness.stored(over.room, status="ended")
        ahead = tmp_path / "ahead"
        ahead.write_text(f"{HOUR:+020d}")
        with paused(fleet.persister_programs[0].pid):
            await say(call, "before")
            seen = await status(fleet, redis.preloaded(ahead))
        assert (seen["problems"], list(seen["persisters"])) == ([], ["persister-1"])
        assert seen["events"]["oldest_ms"] < HOUR * 1_000 / 2, "the operator's clock is no measure"
        for number, off in enumerate((HOUR, 0, -HOUR), start=1):
            await left.bob.client.aclose()
            await left.alice.client.expect("peer", room=left.room, state="reconnecting")
            redis.set_off(off)

            async def noticed(wanted: int = number) -> bool:
                return await steps(fleet) == wanted

            await eventually(noticed, timeout=10.0, what="a node notices the step")
            left.bob = await harness.login(left.bob.user, 1, resume=left.bob.welcome["resume"])
            await left.alice.client.expect("peer", room=left.room, state="reconnected")
            await call.goes_on()
            await say(call, "after")
            await harness.stored(call.room, status="active")
            assert (await fleet.room(over.room))["status"] == "ended"
            assert all([await fleet.is_ready(node) for node in range(2)])

            async def all_well() -> bool:
                # A persister counts as gone from the step until its next report, a few seconds later.
                seen = await status(fleet, {})
                return (seen["problems"], list(seen["persisters"])) == ([], ["persister-1"])

            await eventually(all_well, timeout=30.0, what="status sees nothing wrong")


async def say(call: Call, text: str) -> None:
    line = (await call.alice.client.ask("chat", "ok", room=call.room, text=text))["message"]
    await call.bob.client.expect("chat", room=call.room, message=line)
