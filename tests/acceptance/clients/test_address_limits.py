"""Limits per IP address hold over all nodes, and no restart is a way around them."""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.acceptance.clients.bare_client import FRAME_SECONDS, SUBPROTOCOL, BareClient, Frame
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAILURES = 6
WINDOW_SECONDS = 40
CONNECTIONS = 5
RESTART_SECONDS = 60.0
ENVIRON = {
    "KEEPLINE_TRUSTED_PROXIES": "127.0.0.0/8",
    "KEEPLINE_LIMIT_FAILED_LOGINS": f"{FAILURES}",
    "KEEPLINE_LIMIT_FAILED_LOGIN_WINDOW_SECONDS": f"{WINDOW_SECONDS}",
    "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": f"{CONNECTIONS}",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """Two nodes that take loopback for their proxy, so that each test can come from an address of its own."""
    async with running_fleet(nodes=2, environ=ENVIRON) as fleet:
        yield fleet


async def reach(fleet: Fleet, node: int, address: str) -> BareClient:
    """Connect to a node by way of a proxy that says who we are."""
    websocket = await connect(
        fleet.nodes[node].ws,
        subprotocols=[SUBPROTOCOL],
        additional_headers={"X-Forwarded-For": address},
        compression=None,
        proxy=None,
        ping_interval=None,
        open_timeout=FRAME_SECONDS,
        close_timeout=1.0,
    )
    return BareClient(websocket)


async def log_in(fleet: Fleet, node: int, address: str, token: str) -> tuple[Frame, int | None]:
    """Say hello; the answer, and the code of the close if it was refused."""
    client = await reach(fleet, node, address)
    answer = await client.request("hello", token=token)
    if answer["type"] == "welcome":
        await client.aclose()
        return answer, None
    return answer, await client.closed()


async def fails(fleet: Fleet, node: int, address: str) -> None:
    answer, code = await log_in(fleet, node, address, "not a token")
    assert (answer["code"], code) == ("unauthorized", 4401), answer


def good(fleet: Fleet) -> str:
    return fleet.token(uuid.uuid4())


async def is_blocked(fleet: Fleet, node: int, address: str) -> bool:
    """Whether also a good token is refused, and as documented."""
    answer, code = await log_in(fleet, node, address, good(fleet))
    if code is None:
        return False
    assert (answer["code"], code) == ("rate_limited", 4429), answer
    assert 0 < answer["retry_after_ms"] <= WINDOW_SECONDS * 1_000
    return True


async def has_too_many(fleet: Fleet, node: int, address: str) -> bool:
    """Whether a node refuses one more connection of an address, for that reason."""
    answer, code = await log_in(fleet, node, address, good(fleet))
    return code == 4429 and "too many connections" in answer["message"]


async def rows(fleet: Fleet, address: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(fleet.database_url, timeout=10)
    try:
        return await connection.fetch("SELECT * FROM rate_limits WHERE ip_address = $1::text::inet", address)
    finally:
        await connection.close(timeout=10)


@pytest.mark.timeout(240)
async def test_the_seventh_failed_login_is_refused_on_both_nodes_and_after_all_has_restarted(
    fleet: Fleet,
) -> None:
    began = time.monotonic()
    address = "198.51.100.7"
    for attempt in range(FAILURES):
        await fails(fleet, attempt % 2, address)
    for node in (0, 1):
        assert await is_blocked(fleet, node, address)
        assert not await is_blocked(fleet, node, "198.51.100.8")
        assert await is_blocked(fleet, node, f"203.0.113.1, {address}")

    async def stored() -> bool:
        return [row["attempts"] for row in await rows(fleet, address)] == [FAILURES]

    await eventually(stored, what="the attempts reach Postgres")

    await asyncio.gather(*(program.kill() for program in fleet.programs))
    await fleet.empty_redis()
    await fleet.start(0, 1)
    await fleet.until_whole()
    assert time.monotonic() - began < WINDOW_SECONDS, "this machine is too slow for the window of this test"
    for node in (0, 1):
        assert await is_blocked(fleet, node, address)

    async def free() -> bool:
        return not await is_blocked(fleet, 1, address)

    await eventually(free, timeout=WINDOW_SECONDS + 10, interval=0.2, what="the block ends")
    assert time.monotonic() - began >= WINDOW_SECONDS - 0.1
    assert not await is_blocked(fleet, 0, address)


async def test_tokens_that_have_expired_block_nobody(fleet: Fleet) -> None:
    address = "198.51.100.60"
    for at in range(2 * FAILURES):
        answer, code = await log_in(fleet, at % 2, address, fleet.token(uuid.uuid4(), ttl=-60))
        assert (answer["code"], answer["message"], code) == ("unauthorized", "the token has expired", 4401)
    assert not await is_blocked(fleet, 0, address)


async def test_a_member_with_a_good_token_and_a_good_secret_comes_in_while_others_guess(fleet: Fleet) -> None:
    address, user, other = "198.51.100.70", uuid.uuid4(), uuid.uuid4()
    held = await reach(fleet, 0, "198.51.100.71")
    secret = (await held.ask("hello", "welcome", token=fleet.token(user)))["resume"]
    for at in range(FAILURES):
        await fails(fleet, at % 2, address)
    assert await is_blocked(fleet, 1, address)
    tries = [(fleet.token(other), secret), (fleet.token(user), "wrong"), ("not a token", secret)]
    for token, presented in tries:
        client = await reach(fleet, 1, address)
        refused = await client.request("hello", token=token, resume=presented)
        assert (refused["code"], await client.closed()) == ("rate_limited", 4429)
    await held.ask("ping", "pong")

    back = await reach(fleet, 1, address)
    welcome = await back.ask("hello", "welcome", token=fleet.token(user), resume=secret)
    assert welcome["resumed"]
    assert await held.closed() == 4409


async def test_a_network_of_ipv6_counts_as_one_address(fleet: Fleet) -> None:
    for attempt in range(FAILURES):
        await fails(fleet, attempt % 2, f"2001:db8:1:2::{attempt:x}")
    assert await is_blocked(fleet, 0, "2001:db8:1:2:ffff::1")
    assert not await is_blocked(fleet, 0, "2001:db8:1:3::1")

    async def stored() -> bool:
        return bool(await rows(fleet, "2001:db8:1:2::/64"))

    await eventually(stored, what="the attempts reach Postgres")


async def test_without_redis_each_node_counts_alone_and_tells_the_others_later(fleet: Fleet) -> None:
    address = "198.51.100.20"
    await fleet.valkey.kill()
    for _ in range(FAILURES):
        await fails(fleet, 0, address)
    assert await is_blocked(fleet, 0, address)
    assert not await is_blocked(fleet, 1, address)
    await fleet.valkey.start()

    async def told() -> bool:
        return await is_blocked(fleet, 1, address)

    await eventually(told, timeout=30, what="the other node has learned of it")
    await fleet.until_ready()


async def test_connections_over_the_limit_are_refused_on_every_node(fleet: Fleet) -> None:
    address = "198.51.100.30"
    clients = [await reach(fleet, at % 2, address) for at in range(CONNECTIONS)]
    for client in clients:
        await client.ask("hello", "welcome", token=good(fleet))
    for node in (0, 1):
        # A node that was without Redis counts alone for a moment longer.
        counted = functools.partial(has_too_many, fleet, node, address)
        await eventually(counted, what=f"node {node} knows of all connections")
        frames, code = await (await reach(fleet, node, address)).rest()
        assert ([frame["code"] for frame in frames], code) == (["rate_limited"], 4429)
        assert frames[0]["retry_after_ms"] > 0
    await clients[0].aclose()

    async def gets_in() -> bool:
        return not await is_blocked(fleet, 1, address)

    await eventually(gets_in, what="there is room for one more")
    for client in clients[1:]:
        await client.aclose()


async def test_the_connections_of_a_node_that_was_killed_count_no_more(fleet: Fleet) -> None:
    address = "198.51.100.40"
    for _ in range(CONNECTIONS):
        client = await reach(fleet, 0, address)
        await client.ask("hello", "welcome", token=good(fleet))
    assert await is_blocked(fleet, 1, address)
    await fleet.programs[0].kill()

    async def gets_in() -> bool:
        return not await is_blocked(fleet, 1, address)

    await eventually(gets_in, timeout=15, interval=0.1, what="the dead node's connections are forgotten")
    await fleet.start(0)


async def test_a_node_that_starts_again_does_not_count_what_it_held_before(fleet: Fleet) -> None:
    address = "198.51.100.50"
    elsewhere = await reach(fleet, 1, address)
    await elsewhere.ask("hello", "welcome", token=good(fleet))
    for _ in range(CONNECTIONS - 1):
        client = await reach(fleet, 0, address)
        await client.ask("hello", "welcome", token=good(fleet))
    assert await is_blocked(fleet, 0, address)
    await fleet.programs[0].kill()
    await fleet.start(0)
    back = [await reach(fleet, 0, address) for _ in range(CONNECTIONS - 1)]
    for client in back:
        await client.ask("hello", "welcome", token=good(fleet))
    assert await is_blocked(fleet, 0, address), "what the other node has counts from the first moment on"
    for client in (*back, elsewhere):
        await client.aclose()
