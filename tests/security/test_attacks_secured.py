"""Attacks where nodes speak TLS themselves and Redis is a cluster, and a node that stalls.

What is asserted, and what `make attack` prints, is as in test_attacks.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.acceptance.clients.bare_client import BareClient, Frame
from tests.acceptance.harness import Harness
from tests.helpers import redis_cluster
from tests.helpers.certificates import self_signed
from tests.helpers.cluster import Cluster, running_cluster
from tests.helpers.fleet import paused
from tests.security.attacks import Attacked
from tests.security.scenery import own_rooms, tokens_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

BACKLOG = 300
"""More signals than a burst, fewer than a burst and the rate of the four seconds that a heartbeat lives at least."""

BURIED_SECONDS = 60.0
"""Within this time even a busy machine notices a dead node."""

GRACE_SECONDS = "120"
"""No room ends before a busy machine has found its sides again."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Two nodes whose clients come over TLS, on a Redis Cluster."""
    folder: Path = tmp_path_factory.mktemp("secured")
    certificate = folder / "node.pem"
    certificate.write_bytes(self_signed("127.0.0.1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SSL_CERT_FILE", str(certificate))  # whom our own clients trust
        async with redis_cluster.running_cluster(folder / "redis", replicas=False) as redis:
            environ = {
                "REDIS_URL": redis.url,
                "KEEPLINE_TLS_CERTIFICATE": str(certificate),
                "KEEPLINE_GRACE_SECONDS": GRACE_SECONDS,
                "KEEPLINE_COLD_START_GRACE_SECONDS": GRACE_SECONDS,
            }
            async with running_cluster(nodes=2, environ=environ) as cluster:
                cluster.nodes = [
                    replace(node, ws=node.ws.replace("ws://", "wss://")) for node in cluster.nodes
                ]
                yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def harness(cluster: Cluster) -> AsyncIterator[Harness]:
    async with Harness(cluster, (0, 1)) as harness:
        yield harness


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacked(cluster: Cluster, harness: Harness) -> AsyncIterator[Attacked]:
    attacked = Attacked(cluster, await harness.call())
    yield attacked
    print(attacked.report())  # noqa: T201 - the table for docs/security.md


@pytest.mark.parametrize("name", ["pings", "pings, again and again"])
async def test_a_flood_is_closed_over_tls_as_well(cluster: Cluster, attacked: Attacked, name: str) -> None:
    seen = await attacked.by(name, 20)
    assert seen["101"] > 0
    assert seen.get("4429", 0) + seen.get("ConnectionResetError", 0) + seen.get("BrokenPipeError", 0) > 0


@pytest.mark.parametrize("name", ["half a handshake of TLS", "no TLS", "before hello"])
async def test_handshakes_of_tls_that_lead_nowhere(attacked: Attacked, name: str) -> None:
    refused = await attacked.metric('keepline_sockets_refused_total{reason="address"')
    await attacked.by(name, 600, source="127.0.0.10")
    assert await attacked.metric('keepline_sockets_refused_total{reason="address"') > refused


async def test_good_tokens_have_a_rate(cluster: Cluster, attacked: Attacked) -> None:
    seen = await attacked.by("logins", 20, tokens=tokens_of(cluster, 5), source="127.0.0.11")
    assert seen["welcome"] > 0


@pytest.mark.parametrize("name", ["joins and leaves", "chat"])
async def test_changes_of_rooms_have_a_rate(cluster: Cluster, attacked: Attacked, name: str) -> None:
    rooms, tokens = await own_rooms(cluster, 20)
    await attacked.by(name, 20, rooms=rooms, tokens=tokens, source="127.0.0.16")


async def next_frame(client: BareClient) -> Frame:
    """The next frame, however long a node takes to notice another one's death."""
    async with asyncio.timeout(BURIED_SECONDS):
        while (frame := await client.receive_within(1.0)) is None:
            pass
    return frame


async def test_a_node_that_stalls_is_buried_and_finds_its_sides_again(
    cluster: Cluster, harness: Harness
) -> None:
    """Nobody is closed or refused for what piled up meanwhile, and the call goes on."""
    call = await harness.call()
    alice, bob = call.clients
    with paused(cluster.nodes[0].pid):
        for number in range(BACKLOG):
            await alice.send("signal", room=call.room, data={"app": number})
        told = await next_frame(bob)
        assert told == told | {"type": "peer", "room": call.room, "state": "reconnecting"}
    while (frame := await next_frame(bob))["type"] == "signal":
        pass
    assert frame == frame | {"type": "peer", "room": call.room, "state": "reconnected"}
    for sender, receiver, mark in ((alice, bob, "there"), (bob, alice, "and back")):
        await sender.send("signal", room=call.room, data={"app": mark})
        while (frame := await next_frame(receiver)).get("data") != {"app": mark}:
            assert frame["type"] == "signal", frame
    assert (await cluster.room(call.room))["status"] == "active"
