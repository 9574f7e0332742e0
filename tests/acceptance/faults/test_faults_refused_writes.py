"""Redis answers and refuses every write: health, status and doctor say so, and call no living node dead."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keepline.room import keys
from tests.helpers.cluster import inherited_environment
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with running_fleet(nodes=1) as fleet:
        yield fleet


async def keepline(fleet: Fleet, *arguments: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keepline.cli.main", *arguments, "--json"),
        env=inherited_environment()
        | {
            "REDIS_URL": fleet.redis_url,
            "DATABASE_URL": fleet.database_url,
            "KEEPLINE_SERVICE_KEY": fleet.line["service_key"],
        },
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return json.loads(said)


async def health(fleet: Fleet) -> Any:
    async with fleet.http.get(f"{fleet.nodes[0].http}/healthz") as answer:
        return await answer.json()


async def test_a_node_that_cannot_write_is_not_ready_and_not_dead(fleet: Fleet) -> None:
    name = fleet.nodes[0].id
    await fleet.redis.config_set("maxmemory", 1)
    try:

        async def silent() -> bool:
            return not await fleet.redis.exists(keys.node(name)) and not await fleet.is_ready(0)

        await eventually(silent, timeout=20.0, what="its heartbeat has expired")
        found = await health(fleet)
        assert "maxmemory" in found["reasons"]["heartbeat"]
        assert found["dependencies"]["redis"]["status"] != "ok"
        assert "maxmemory" in found["dependencies"]["heartbeat"]["error"]
        status = await keepline(fleet, "status")
        assert [(node["node"], node["state"]) for node in status["nodes"]] == [(name, "not ready")]
        assert any("nothing can be written to Redis" in problem for problem in status["problems"])
        assert not any("dead" in problem.split(": ")[0] for problem in status["problems"])
        doctor = await keepline(fleet, "doctor")
        assert [one["where"] for one in doctor["found"] if one["kind"] == "cut-off"] == [name]
        assert not any(one["fixable"] for one in doctor["found"])
    finally:
        await fleet.redis.config_set("maxmemory", 0)
    await fleet.until_ready()
