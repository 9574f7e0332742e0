"""Attacks over real sockets, each beside an honest call over two nodes, from one connection and from twenty.

What does not depend on the machine is asserted: the call goes on, every signal arrives, nobody honest is closed, no
node is taken for dead, memory comes back, and the attack meets the defence that is meant for it. `make attack` prints
how long signals took before, during and after each, and asserts that as well (ATTACK_FACTOR).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.acceptance.harness import Harness
from tests.helpers.cluster import Cluster, running_cluster
from tests.helpers.waiting import eventually
from tests.security.attacks import CONNECTIONS, SECONDS, Attacked
from tests.security.scenery import FLOODS, full_chat, own_rooms, tokens_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROXY = "127.0.0.13"
REFUSED = 'keepline_sockets_refused_total{reason="address"'
LIMITED = 'keepline_limited_total{limit="connections"'
OPS = ["chunks of a byte", "slow requests", "garbage", "metrics", "wrong keys"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Two nodes as they are by default, but for a proxy that they trust."""
    async with running_cluster(nodes=2, environ={"KEEPLINE_TRUSTED_PROXIES": PROXY}) as cluster:
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


@pytest.mark.parametrize("connections", CONNECTIONS)
@pytest.mark.parametrize(("name", "code"), FLOODS.items())
async def test_a_flood_is_closed_and_nobody_else_notices(
    cluster: Cluster, attacked: Attacked, name: str, code: str, connections: int
) -> None:
    seen = await attacked.by(name, connections, tokens=tokens_of(cluster, connections))
    ended = sum(seen.get(end, 0) for end in ("ends", "BrokenPipeError", "ConnectionResetError"))
    assert ended == connections, seen
    assert code in seen or connections == 1, seen


@pytest.mark.parametrize("connections", CONNECTIONS)
async def test_who_comes_again_and_again_is_slowed_down(attacked: Attacked, connections: int) -> None:
    seen = await attacked.by("pings, again and again", connections)
    assert seen["4429"] > 0


@pytest.mark.parametrize(
    "name", ["headers without an end", "half-open", "half-closed", "before hello", "closes without an end"]
)
async def test_an_address_holds_so_many_sockets_and_no_more(attacked: Attacked, name: str) -> None:
    refused = await attacked.metric(REFUSED)
    seen = await attacked.by(name, 600, source="127.0.0.10")
    if name != "headers without an end":
        assert await attacked.metric(REFUSED) - refused > 300, seen
    else:
        assert seen["431"] > 0


async def test_compression_is_not_offered_and_costs_nothing(attacked: Attacked) -> None:
    seen = await attacked.by("offers of compression", 20)
    assert seen["101"] > 0
    assert "welcome" not in seen


@pytest.mark.parametrize("source", ["127.0.0.14", PROXY])
async def test_headers_of_proxies_that_make_no_sense(attacked: Attacked, source: str) -> None:
    seen = await attacked.by("headers of proxies", 20, source=source)
    assert "101" not in seen


async def test_good_tokens_have_a_rate(cluster: Cluster, attacked: Attacked) -> None:
    seen = await attacked.by("logins", 40, tokens=tokens_of(cluster, 5), source="127.0.0.11")
    assert seen["welcome"] <= 5 * (20 + 2 * (SECONDS + 2)) * 2, (
        "20 at once for each user and node, one a second then"
    )
    assert seen["4429"] > 0


async def test_bad_tokens_are_counted_over_all_nodes(attacked: Attacked) -> None:
    seen = await attacked.by("bad tokens", 20, source="127.0.0.15")
    assert 0 < seen["4401"] < 60
    assert seen["4429"] > 0


async def test_a_network_of_ipv6_cannot_rotate_through_its_addresses(attacked: Attacked) -> None:
    limited = await attacked.metric(LIMITED)
    await attacked.by("rotating networks", 2_000, source=PROXY)
    assert await attacked.metric(LIMITED) - limited > 0


async def test_bad_tokens_of_a_network_of_ipv6_are_counted_together(attacked: Attacked) -> None:
    seen = await attacked.by("bad tokens of rotating networks", 40, source=PROXY)
    assert seen["4401"] < 6 * 16 + 40, seen
    assert seen["4429"] > 0, seen


@pytest.mark.parametrize("name", ["joins of a full chat", "joins that nobody reads", "reports"])
async def test_a_full_chat_is_not_fetched_faster_than_it_may_be(
    cluster: Cluster, harness: Harness, attacked: Attacked, name: str
) -> None:
    room, member = await full_chat(cluster)
    try:
        await attacked.by(name, 1, tokens=[cluster.token(member)], rooms=[room])
    finally:
        await cluster.end_room(room)


@pytest.mark.parametrize("name", ["joins and leaves", "chat"])
async def test_changes_of_rooms_have_a_rate(cluster: Cluster, attacked: Attacked, name: str) -> None:
    rooms, tokens = await own_rooms(cluster, 20)
    await attacked.by(name, 20, rooms=rooms, tokens=tokens, source="127.0.0.16")


async def test_large_signals_within_the_limits_cost_no_other_call_a_signal(
    cluster: Cluster, harness: Harness, attacked: Attacked
) -> None:
    calls = [await harness.call() for _ in range(4)]
    for one in calls:
        await one.alice.client.aclose()
    await attacked.by(
        "large signals",
        4,
        tokens=[cluster.token(one.alice.user) for one in calls],
        rooms=[one.room for one in calls],
        ws=[cluster.nodes[0].ws],
        source="127.0.0.12",
    )
    assert await attacked.metric("keepline_inbox_gaps_total", 1) == 0


@pytest.mark.parametrize("connections", CONNECTIONS)
@pytest.mark.parametrize("name", OPS)
async def test_the_ops_port_takes_nothing_from_calls(
    cluster: Cluster, attacked: Attacked, name: str, connections: int
) -> None:
    await attacked.by(name, 1_000 if name == "slow requests" and connections > 1 else connections)
    async with cluster.http.get(f"{cluster.nodes[0].http}/livez") as response:
        assert response.status == 200
    assert "Traceback" not in cluster.node_log(0) + cluster.node_log(1)


async def test_everything_is_as_before(cluster: Cluster, attacked: Attacked) -> None:
    await attacked.call.goes_on(mark="still there")
    await eventually(lambda: cluster.is_ready(0), what="the first node is ready")
    await eventually(lambda: cluster.is_ready(1), what="the other node is ready")

    async def only_clients() -> bool:
        return await attacked.metric("keepline_connections_before_hello") == 0

    await eventually(only_clients, what="no connection is left that has not said hello")
