"""Attacks over real sockets, each beside an honest call over two nodes, from one connection and from twenty.

What does not depend on the machine is asserted: the call goes on, every signal arrives, nobody honest is closed, no
node is taken for dead, memory stays bounded, and the attack meets the defence that is meant for it. Latencies are
printed (`pytest -s`). Longer, with figures for docs/security.md: `make attack`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.harness import Call, Harness
from tests.helpers.cluster import Cluster, running_cluster
from tests.helpers.waiting import eventually
from tests.security.honest import Pair, resident_mb

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECONDS = float(os.environ.get("ATTACK_SECONDS", "1"))
CONNECTIONS = [int(n) for n in os.environ.get("ATTACK_CONNECTIONS", "20").split(",")]
BEFORE = int(20 * SECONDS)
MEMORY_MB = 120
"""What an attack may take of memory at most: buffers of 20 connections, and what the allocator keeps."""

FLOODS = {
    "pings": "4429",
    "pings of 125 bytes": "4429",
    "pongs": "4429",
    "empty fragments": "4429",
    "fragments of a byte": "4429",
    "empty texts": "4400",
    "pings after login": "4429",
    "texts after login": "4429",
    "pings after our close": "4400",
}
"""Attack, and the code with which its connections are closed; who goes on sending may find a reset instead."""

REFUSED = 'keepline_sockets_refused_total{reason="address"'
OPS = ["chunks of a byte", "slow requests", "garbage", "metrics"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Two nodes as they are by default."""
    async with running_cluster(nodes=2) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def harness(cluster: Cluster) -> AsyncIterator[Harness]:
    async with Harness(cluster, (0, 1)) as harness:
        yield harness


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def call(harness: Harness) -> Call:
    return await harness.call()


async def attack(cluster: Cluster, name: str, connections: int, **options: Any) -> dict[str, int]:
    """Run the attacker; what it has seen."""
    options = {
        "ws": [node.ws for node in cluster.nodes],
        "http": [node.http for node in cluster.nodes],
        "connections": connections,
        "seconds": SECONDS,
        **options,
    }
    program = (sys.executable, "-m", "tests.security.attacker", name, json.dumps(options))
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS + 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    seen: dict[str, int] = json.loads(output)
    return seen


async def under(cluster: Cluster, call: Call, name: str, connections: int, **options: Any) -> dict[str, int]:
    """Attack beside the call, which has to go on; prints what it noticed."""
    pair = Pair(call)
    memory, before = resident_mb(cluster), await pair.measure(BEFORE)
    async with pair.measured() as during:
        seen = await attack(cluster, name, connections, **options)
    after = resident_mb(cluster)
    grown = max(now - then for then, now in zip(memory, after, strict=True))
    print(  # noqa: T201 - the figures are for people
        f"\n{name} x{connections}: before {before}; during {during}; {grown:+.0f} MB; {seen}"
    )
    assert grown < MEMORY_MB
    assert await buried(cluster) == 0, "a node was taken for dead"
    return seen


async def buried(cluster: Cluster) -> int:
    """How many nodes were taken for dead, as all nodes count."""
    return sum([await metric(cluster, node, "keepline_nodes_buried_total") for node in range(2)])


async def metric(cluster: Cluster, node: int, name: str) -> int:
    """A counter of a node."""
    async with cluster.http.get(f"{cluster.nodes[node].http}/metrics") as response:
        lines = (await response.text()).splitlines()
    return round(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))


@pytest.mark.parametrize("connections", CONNECTIONS)
@pytest.mark.parametrize(("name", "code"), FLOODS.items())
async def test_a_flood_is_closed_and_nobody_else_notices(
    cluster: Cluster, call: Call, name: str, code: str, connections: int
) -> None:
    tokens = [cluster.token(uuid.uuid4()) for _ in range(connections)]
    seen = await under(cluster, call, name, connections, tokens=tokens)
    ended = sum(seen.get(end, 0) for end in ("ends", "BrokenPipeError", "ConnectionResetError"))
    assert ended == connections, seen
    assert code in seen or connections == 1, seen


async def test_who_comes_again_and_again_is_slowed_down(cluster: Cluster, call: Call) -> None:
    seen = await under(cluster, call, "pings, again and again", 20)
    assert seen["4429"] > 0


@pytest.mark.parametrize("name", ["headers without an end", "half-open", "before hello"])
async def test_an_address_holds_so_many_sockets_and_no_more(cluster: Cluster, call: Call, name: str) -> None:
    seen = await under(cluster, call, name, 600, source="127.0.0.10")
    if name != "headers without an end":
        refused = [await metric(cluster, node, REFUSED) for node in range(2)]
        assert sum(refused) > 300, seen
    else:
        assert seen["431"] > 0


async def test_good_tokens_have_a_rate(cluster: Cluster, call: Call) -> None:
    tokens = [cluster.token(uuid.uuid4()) for _ in range(5)]
    seen = await under(cluster, call, "logins", 40, tokens=tokens, source="127.0.0.11")
    assert seen["welcome"] <= 5 * (20 + 2 * (SECONDS + 2)) * 2, (
        "20 at once for each user and node, one a second then"
    )
    assert seen["4429"] > 0


async def test_joins_of_a_full_chat_are_served_by_and_by(
    cluster: Cluster, harness: Harness, call: Call
) -> None:
    alice, bob = uuid.uuid4(), uuid.uuid4()
    room = (await cluster.open_room(alice, bob, chat_mode="text"))["room_id"]
    member = await harness.login(alice)
    await member.client.ask("join", "joined", room=room)
    for _ in range(3):
        await asyncio.gather(
            *(member.client.send("chat", room=room, text="\U0001f600" * 500) for _ in range(40))
        )
        await asyncio.sleep(1)  # the rate of frames is the limit's, not the machine's
    await under(cluster, call, "joins of a full chat", 1, tokens=[cluster.token(bob)], rooms=[room])
    await member.client.aclose()


async def test_large_signals_within_the_limits_cost_no_other_call_a_signal(
    cluster: Cluster, harness: Harness, call: Call
) -> None:
    calls = [await harness.call() for _ in range(4)]
    tokens = [cluster.token(one.alice.user) for one in calls]
    for one in calls:
        await one.alice.client.aclose()
    await under(
        cluster,
        call,
        "large signals",
        4,
        tokens=tokens,
        rooms=[one.room for one in calls],
        ws=[cluster.nodes[0].ws],
        source="127.0.0.12",
    )
    assert await metric(cluster, 1, "keepline_inbox_gaps_total") == 0


@pytest.mark.parametrize("name", OPS)
async def test_the_ops_port_takes_nothing_from_calls(cluster: Cluster, call: Call, name: str) -> None:
    await under(cluster, call, name, 300 if name == "slow requests" else 20)
    async with cluster.http.get(f"{cluster.nodes[0].http}/livez") as response:
        assert response.status == 200
    assert "Traceback" not in cluster.node_log(0) + cluster.node_log(1)


async def test_everything_is_as_before(cluster: Cluster, call: Call) -> None:
    await call.goes_on(mark="still there")
    await eventually(lambda: cluster.is_ready(0), what="the first node is ready")
    await eventually(lambda: cluster.is_ready(1), what="the other node is ready")
