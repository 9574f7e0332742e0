"""A subscription that has gone deaf: it stays open, and nothing comes through it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.acceptance.faults.faults import talk_for
from tests.acceptance.harness import Harness
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SILENT_SECONDS = 4.0
BUSY_SECONDS = 1.5
SILENT_METRIC = "keepline_inbox_silent_seconds_total"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """Two nodes that reach Redis through proxies of their own."""
    async with running_fleet(nodes=2, proxied=True) as fleet:
        yield fleet


async def test_a_deaf_node_says_so_listens_anew_and_tells_what_its_clients_missed(fleet: Fleet) -> None:
    """Holds the probes of the own inbox (`InboxHealth.silent`), the new subscription, and `Reconciler` after it.

    Signals from the other node are lost meanwhile; what rooms have been through is not.
    """
    now = asyncio.get_running_loop().time
    async with Harness(fleet, (0, 1)) as harness, Harness(fleet, (0, 0)) as within:
        said, lost, back, over = [await harness.call() for _ in range(4)]
        same = await within.call()
        back.bob.client.cut()
        await back.alice.client.expect("peer", room=back.room, state="reconnecting")
        fleet.proxies[0].deafening = True
        deaf_since = now()

        lines = [
            (await said.bob.client.ask("chat", "ok", room=said.room, text=text))["message"]
            for text in ("one", "two")
        ]
        lost.bob.client.cut()
        await over.bob.client.ask("end", "ok", room=over.room)
        back.bob = await harness.login(back.bob.user, 1, resume=back.bob.welcome["resume"])

        async def not_ready() -> bool:
            return not await fleet.is_ready(0)

        await eventually(not_ready, timeout=SILENT_SECONDS + BUSY_SECONDS, what="the deaf node is not ready")
        assert now() - deaf_since > 2.0, "a moment of silence is not yet deafness"
        async with fleet.http.get(f"{fleet.nodes[0].http}/healthz") as response:
            assert "inbox" in (await response.json())["reasons"]
        before = await fleet.metric(0, SILENT_METRIC)
        await talk_for(0.5, same)
        assert await fleet.metric(0, SILENT_METRIC) > before
        assert fleet.proxies[0].swallowed > 0

        fleet.proxies[0].deafening = False
        await eventually(lambda: fleet.is_ready(0), timeout=10.0, what="the node is ready again")
        for line in lines:
            await said.alice.client.expect("chat", room=said.room, message=line)
        missed = await lost.alice.client.expect("peer", room=lost.room, state="reconnecting")
        assert 0 < missed["grace_ms"] < 10_000
        await back.alice.client.expect("peer", room=back.room, state="reconnected")
        await over.alice.client.expect("ended", room=over.room, reason="hangup")
        for call in (said, back, same):
            await call.goes_on()
