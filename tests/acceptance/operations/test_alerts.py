"""The alerts on a real Prometheus that reads real programs: silent while all is well, and then those that should fire.

The rules are those of deploy/, without their patience (`for`), which has tests of its own there.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from tests.acceptance.harness import ON_TWO_NODES, Harness
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

RULES = Path(__file__).resolve().parents[3] / "deploy" / "prometheus" / "rules"

EXPECTED_OF_A_FLEET = {"KeeplineTurnMissing", "KeeplineRedisLostData"}
"""There is no TURN server here, and the first node to start finds an empty Redis."""


class Prometheus:
    """A Prometheus that is running."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def firing(self) -> set[str]:
        """The alerts that fire now."""
        async with self._http.get(f"{self._url}/api/v1/alerts") as response:
            alerts = (await response.json())["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def value(self, expression: str) -> float:
        """The sum of what an expression says now."""
        async with self._http.get(f"{self._url}/api/v1/query", params={"query": expression}) as response:
            assert response.status == 200, "it may still be starting"
            results = (await response.json())["data"]["result"]
        return sum(float(result["value"][1]) for result in results)

    async def silent(self) -> bool:
        """Whether nothing fires that should not."""
        found = await self.firing()
        assert found <= EXPECTED_OF_A_FLEET, found
        return True

    def fires(self, *names: str) -> Callable[[], Awaitable[bool]]:
        """Whether these alerts fire, and perhaps others."""

        async def all_of_them() -> bool:
            found = await self.firing()
            assert set(names) <= found, found
            return True

        return all_of_them


@asynccontextmanager
async def watching(fleet: Fleet, folder: Path) -> AsyncIterator[Prometheus]:
    """Run Prometheus on the programs of a fleet, once a second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH (Debian, Ubuntu: apt-get install prometheus)")
    for rules in RULES.glob("*.yml"):
        (folder / rules.name).write_text(re.sub(r"^ +for: .*\n", "", rules.read_text(), flags=re.MULTILINE))
    urls = {"node": [node.http for node in fleet.nodes], "persister": [p["http"] for p in fleet.persisters]}
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [urlsplit(url).netloc for url in found]}]}
        for job, found in urls.items()
    ]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump({"global": every, "rule_files": [f"{folder}/*.yml"], "scrape_configs": jobs})
    )
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}", fleet.http)

        async def sees_all() -> bool:
            return await prometheus.value("count(up == 1)") == len(fleet.nodes) + len(fleet.persisters)

        await eventually(sees_all, timeout=20.0, what="Prometheus reads all programs")
        yield prometheus
    finally:
        process.kill()
        await process.wait()


async def test_alerts_are_silent_while_all_is_well_and_fire_when_something_dies(tmp_path: Path) -> None:
    async with running_fleet(nodes=2) as fleet, watching(fleet, tmp_path) as prometheus:
        async with Harness(fleet, ON_TWO_NODES) as harness:
            call = await harness.call()
            await call.goes_on()
            await harness.stored(call.room)

            async def counted() -> bool:
                return await prometheus.value("sum(keepline_calls_met_total)") == 1

            await eventually(counted, what="Prometheus has read of the call")
            await eventually(prometheus.silent, what="nothing unexpected fires")

        await asyncio.gather(fleet.programs[1].kill(), fleet.persister_programs[0].kill())
        fires = prometheus.fires("KeeplineNodeDown", "KeeplineNodeDied", "KeeplinePersisterAbsent")
        await eventually(fires, timeout=20.0, what="alerts of the dead")
