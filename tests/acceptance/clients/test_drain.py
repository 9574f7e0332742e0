"""Nodes that send their clients away: told to stop, told to be empty for a while, and told to hurry."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from keepline.client import Keepline, State
from tests.acceptance.clients.bare_client import BareClient
from tests.acceptance.harness import Harness
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.haproxy import PROGRAM, haproxy
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

WINDOW_SECONDS = 3.0
LINGER_SECONDS = 1.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_fleet() -> AsyncIterator[Fleet]:
    """Two nodes with a short drain window; the port of node 0 stays open for a part of it."""
    async with running_fleet(
        nodes=2,
        environ={"KEEPLINE_DRAIN_SECONDS": f"{WINDOW_SECONDS:g}"},
        environ_of={0: {"KEEPLINE_DRAIN_LINGER_SECONDS": f"{LINGER_SECONDS:g}"}},
    ) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared_fleet: Fleet) -> AsyncIterator[Fleet]:
    """The fleet; a test may do to node 1 what it likes."""
    yield shared_fleet
    await shared_fleet.restart_unless_ready(1)


async def drain_state(fleet: Fleet, node: int) -> str:
    """What a node says of its drain."""
    return str((await fleet.api("GET", "/v1/node/drain", node=node))["state"])


async def test_who_connects_elsewhere_before_the_close_misses_nothing(fleet: Fleet) -> None:
    """Holds that a connection works on after its goodbye (`Goodbyes.say`), and that the peer never sees it go."""
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        await fleet.api("POST", "/v1/node/drain", node=1, json={})
        goodbye = await call.bob.client.expect("goodbye", reason="draining")
        assert goodbye["reconnect_after_ms"] <= WINDOW_SECONDS * 100
        await call.goes_on("while leaving")
        before = call.bob.client
        call.bob = await harness.login(call.bob.user, 0, resume=call.bob.welcome["resume"])
        assert call.bob.welcome["resumed"] is True
        assert await before.closed() == 4409
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        await call.goes_on()

        async def drained() -> bool:
            return await drain_state(fleet, 1) == "drained"

        await eventually(drained, what="node 1 is empty")


async def test_a_drained_node_lives_takes_nobody_and_can_be_taken_back(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        begun = await fleet.api("POST", "/v1/node/drain", node=1, json={"seconds": WINDOW_SECONDS})
        assert (begun["state"], begun["sessions"]) == ("draining", 1)
        assert not await fleet.is_ready(1)
        with pytest.raises((OSError, InvalidMessage, ConnectionClosed)):
            await harness.connect(1)
        frames, code = await call.bob.client.rest()
        assert ([frame["type"] for frame in frames], code) == (["goodbye"], 4503)
        await call.alice.client.expect("peer", room=call.room, state="reconnecting", grace_ms=10_000)
        assert (await fleet.room(call.room, node=1))["status"] == "grace_period", (
            "the node still serves the API"
        )
        assert (await fleet.api("DELETE", "/v1/node/drain", node=1))["state"] == "ready"
        assert await fleet.is_ready(1)
        call.bob = await harness.login(call.bob.user, 1, resume=call.bob.welcome["resume"])
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        await call.goes_on()


async def test_sigterm_ends_in_time_and_with_0(fleet: Fleet) -> None:
    now = asyncio.get_running_loop().time
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        began = now()
        os.kill(fleet.programs[1].pid, signal.SIGTERM)

        async def not_ready() -> bool:
            return not await fleet.is_ready(1)

        await eventually(not_ready)
        frames, code = await call.bob.client.rest()
        assert ([frame["type"] for frame in frames], code) == (["goodbye"], 4503)
        async with asyncio.timeout(WINDOW_SECONDS + 5.0):
            assert await fleet.programs[1].wait() == 0
        assert now() - began < WINDOW_SECONDS + 2.0
        assert await fleet.redis.exists("node:node-2") == 0


async def test_a_second_signal_ends_it_at_once(fleet: Fleet) -> None:
    now = asyncio.get_running_loop().time
    async with Harness(fleet, (0, 1)) as harness:
        clients: list[BareClient] = [(await harness.call()).bob.client for _ in range(3)]
        os.kill(fleet.programs[1].pid, signal.SIGTERM)
        await clients[0].expect("goodbye")
        began = now()
        os.kill(fleet.programs[1].pid, signal.SIGTERM)
        async with asyncio.timeout(WINDOW_SECONDS + 5.0):
            assert await fleet.programs[1].wait() == 0
        assert now() - began < WINDOW_SECONDS


# --- while load balancers do not know yet ---


async def test_who_comes_early_in_a_drain_is_sent_elsewhere_and_shown_nothing(fleet: Fleet) -> None:
    await fleet.api("POST", "/v1/node/drain", node=0, json={})
    assert not await fleet.is_ready(0)
    with pytest.raises(InvalidStatus) as refused:
        await BareClient.connect(fleet.nodes[0].ws)
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"] == "1"
    states: list[State] = []
    urls = [node.ws for node in fleet.nodes]
    async with Keepline(urls, fleet.token(uuid.uuid4()), on_state=states.append) as client:
        assert client.node == fleet.nodes[1].id
        assert states == [State.CONNECTING, State.CONNECTED]
    assert await drain_state(fleet, 0) == "draining", "somebody may still come"
    assert (await fleet.api("DELETE", "/v1/node/drain", node=0))["state"] == "ready"
    await (await BareClient.connect(fleet.nodes[0].ws)).aclose()


async def test_the_port_is_shut_when_load_balancers_have_had_their_time(fleet: Fleet) -> None:
    now = asyncio.get_running_loop().time
    began = now()
    await fleet.api("POST", "/v1/node/drain", node=0, json={})

    async def shut() -> bool:
        try:
            await BareClient.connect(fleet.nodes[0].ws)
        except InvalidStatus:
            return False
        except ConnectionRefusedError:
            return True
        raise AssertionError("a draining node has taken a client")

    await eventually(shut)
    assert now() - began >= LINGER_SECONDS
    assert await drain_state(fleet, 0) == "drained"
    await fleet.api("DELETE", "/v1/node/drain", node=0)
    await (await BareClient.connect(fleet.nodes[0].ws)).aclose()


@pytest.mark.skipif(PROGRAM is None, reason="no haproxy on PATH")
async def test_haproxy_gives_those_who_were_refused_to_another_node(fleet: Fleet, tmp_path: Path) -> None:
    async with haproxy(fleet.nodes, tmp_path) as balancer:

        async def balanced() -> bool:
            return {await node_behind(fleet, balancer) for _ in range(8)} == {node.id for node in fleet.nodes}

        await eventually(balanced, what="HAProxy has found both nodes")
        before = await refused(fleet)
        await fleet.api("POST", "/v1/node/drain", node=0, json={})
        nodes = {await node_behind(fleet, balancer) for _ in range(16)}
        assert nodes == {fleet.nodes[1].id}
        assert await refused(fleet) > before, "HAProxy knew before the first of them"
    await fleet.api("DELETE", "/v1/node/drain", node=0)


async def refused(fleet: Fleet) -> float:
    """How many have come to node 0 and got no WebSocket."""
    return await fleet.metric(0, 'keepline_connections_closed_total{end="handshake"}')


async def node_behind(fleet: Fleet, balancer: str) -> str:
    """The node that a client of some room gets."""
    client = await BareClient.connect(balancer, room=str(uuid.uuid4()))
    welcome = await client.request("hello", token=fleet.token(uuid.uuid4()))
    await client.aclose()
    return str(welcome["node"])
