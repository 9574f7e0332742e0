"""A real TURN server: calls of two Chromium browsers go through it, and the cluster tells when it gives no relay."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.helpers.browsers import chromium, demo_page
from tests.helpers.cluster import running_cluster
from tests.helpers.commands import keepline
from tests.helpers.coturn import PROGRAM, coturn
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="turnserver is not on PATH (Debian, Ubuntu: apt-get install coturn)"
)

SECRET = "a-secret-that-the-turn-server-shares"
CHECKED_SECONDS = 20.0


async def up(fleet: Fleet, url: str) -> str | None:
    """What the metrics of the node say of a server: `1.0`, `0.0`, or nothing."""
    async with fleet.http.get(f"{fleet.nodes[0].http}/metrics") as response:
        text = await response.text()
    start = f'keepline_turn_up{{url="{url}"}} '
    found = [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]
    return found[0] if found else None


async def shows(fleet: Fleet, url: str, expected: str) -> None:
    async def does() -> bool:
        found = await up(fleet, url)
        assert found == expected, found
        return True

    await eventually(does, timeout=CHECKED_SECONDS, interval=0.1, what=f"{url} is at {expected}")


async def problems(fleet: Fleet) -> list[str]:
    """What is wrong, by `keepline status`."""
    done = await keepline("status", "--json", REDIS_URL=fleet.redis_url)
    found: list[str] = json.loads(done.stdout)["problems"]
    return found


async def test_a_turn_server_that_gives_no_relay_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    async with (
        coturn(tmp_path / "one", SECRET) as one,
        coturn(tmp_path / "other", "another-secret") as other,
    ):
        over_tcp = f"{one.url}?transport=tcp"
        environ = {
            "KEEPLINE_TURN_URLS": f"{one.url},{over_tcp},{other.url},turn:localhost:1",
            "KEEPLINE_TURN_SECRET": SECRET,
            "KEEPLINE_TURN_CHECK_SECONDS": "0.2",
        }
        async with running_fleet(nodes=1, persisters=0, environ=environ) as fleet:
            await asyncio.gather(
                shows(fleet, one.url, "1.0"), shows(fleet, over_tcp, "1.0"), shows(fleet, other.url, "0.0")
            )
            assert await up(fleet, "turn:localhost:1") is None

            async def told() -> list[str]:
                found = [problem for problem in await problems(fleet) if "cannot allocate a relay" in problem]
                assert found, found
                return found

            (problem,) = await eventually(
                told, timeout=CHECKED_SECONDS, what="status tells of the other secret"
            )
            assert problem.startswith(f"node-1 cannot allocate a relay on {other.url}: ")
            assert "401" in problem
            await one.kill()
            await asyncio.gather(shows(fleet, one.url, "0.0"), shows(fleet, over_tcp, "0.0"))
            await one.start()
            await asyncio.gather(shows(fleet, one.url, "1.0"), shows(fleet, over_tcp, "1.0"))


async def test_a_call_through_the_turn_server_with_the_credentials_of_the_welcome(tmp_path: Path) -> None:
    async with (
        coturn(tmp_path, SECRET, for_peers_here=True) as server,
        running_cluster(
            nodes=1, environ={"KEEPLINE_TURN_URLS": server.url, "KEEPLINE_TURN_SECRET": SECRET}
        ) as cluster,
        chromium() as browser,
        demo_page(browser, cluster.demo, relay_only=True) as alice,
    ):
        await alice.start_call()
        async with demo_page(browser, await alice.invitation(), relay_only=True) as bob:
            await bob.join()
            for page in (alice, bob):
                await page.sees_video()
                assert await page.candidates_in_use() == ("relay", "relay")
