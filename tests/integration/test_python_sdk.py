"""The Python SDK against real nodes: calls on one node and across two, and what happens when nodes go."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from keepline.client import (
    Call,
    ChatReceived,
    ConnectionClosed,
    Ended,
    Event,
    Keepline,
    ModeChanged,
    PeerChanged,
    Rejoined,
    RequestFailed,
    SignalReceived,
    State,
    Typing,
)
from tests.helpers.cluster import Cluster, running_cluster
from tests.helpers.rows import reports_become
from tests.helpers.waiting import eventually

TIMEOUT = 30.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """Two nodes, for the tests that leave them as they are."""
    async with running_cluster(nodes=2) as running:
        yield running


@dataclass(slots=True)
class Member:
    """A user in a call."""

    client: Keepline
    call: Call
    events: AsyncIterator[Event]

    async def next(self) -> Event:
        """The next event of the call."""
        async with asyncio.timeout(TIMEOUT):
            return await anext(self.events)


@asynccontextmanager
async def in_call(
    cluster: Cluster, *, nodes: int = 2, chat_mode: str = "video"
) -> AsyncIterator[tuple[Member, Member]]:
    """Alice on the first of so many nodes and Bob on the last; each has the others to fall back on."""
    users = uuid.uuid4(), uuid.uuid4()
    room = await cluster.open_room(*users, chat_mode=chat_mode)
    urls = [node.ws for node in cluster.nodes[:nodes]]
    async with AsyncExitStack() as stack:
        members = []
        for user, addresses in zip(users, (urls, urls[::-1]), strict=True):
            client = await stack.enter_async_context(Keepline(addresses, cluster.token(user)))
            call = await client.join(room["room_id"])
            members.append(Member(client, call, call.events()))
        alice, bob = members
        assert [await alice.next(), await bob.next()] == [PeerChanged("joined")] * 2
        yield alice, bob


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_call_from_beginning_to_end(cluster: Cluster, nodes: int) -> None:
    async with in_call(cluster, nodes=nodes) as (alice, bob):
        assert (alice.call.side, alice.call.polite) == (1, False)
        assert (bob.call.side, bob.call.polite, bob.call.peer) == (2, True, "joined")

        offer = {"type": "offer", "sdp": "v=0\r\n"}
        await alice.call.signal(description=offer)
        for n in range(100):
            await alice.call.send(n)
        await alice.call.typing()
        assert await bob.next() == SignalReceived({"description": offer})
        assert [await bob.next() for _ in range(100)] == [SignalReceived(n) for n in range(100)]
        assert await bob.next() == Typing()

        line = await bob.call.chat("Can you hear me?")
        assert line.seq == 1
        assert await alice.next() == ChatReceived(line)
        assert alice.call.room.messages == bob.call.room.messages == (line,)

        await alice.call.end()
        assert await bob.next() == Ended("hangup")
        assert await alice.next() == Ended("hangup")
        with pytest.raises(RequestFailed) as refused:
            await bob.client.join(bob.call.room_id)
        assert refused.value.code == "room_ended"
        await bob.call.report("rude")
        await bob.call.report("rude")
        await alice.client.report(alice.call.room_id, "rude as well")
        reports = ((bob.client.user, "rude"), (alice.client.user, "rude as well"))
        await reports_become(cluster.database_url, bob.call.room_id, *reports)


async def test_a_text_call_turns_to_video_and_is_left(cluster: Cluster) -> None:
    async with in_call(cluster, chat_mode="text") as (alice, bob):
        await alice.call.request_video()
        assert await bob.next() == ModeChanged("request")
        await bob.call.decline_video()
        assert await alice.next() == ModeChanged("decline")
        await alice.call.request_video()
        assert await bob.next() == ModeChanged("request")
        await bob.call.accept_video()
        assert await alice.next() == ModeChanged("accept")
        assert alice.call.room.chat_mode == bob.call.room.chat_mode == "video"

        await bob.call.leave()
        assert await alice.next() == PeerChanged("left", grace_seconds=10.0)
        again = await bob.client.join(bob.call.room_id)
        assert again.peer == "joined"
        assert await alice.next() == PeerChanged("joined")


async def test_who_may_not_enter(cluster: Cluster) -> None:
    url = cluster.nodes[0].ws
    room = await cluster.open_room(uuid.uuid4(), uuid.uuid4())
    with pytest.raises(ConnectionClosed) as closed:
        await Keepline(url, "no token").__aenter__()
    assert closed.value.code == 4401
    async with Keepline(url, cluster.token(uuid.uuid4())) as stranger:
        with pytest.raises(RequestFailed) as refused:
            await stranger.join(room["room_id"])
        assert refused.value.code == "not_a_member"
        with pytest.raises(RequestFailed) as refused:
            await stranger.join(str(uuid.uuid4()))
        assert refused.value.code == "room_not_found"


async def test_a_second_connection_takes_over(cluster: Cluster) -> None:
    async with in_call(cluster) as (alice, bob):
        token = cluster.token(uuid.UUID(bob.client.user))
        async with Keepline(cluster.nodes[0].ws, token) as second:
            call = await second.join(bob.call.room_id)
            with pytest.raises(ConnectionClosed) as closed:
                await bob.next()
            assert closed.value.code == 4409
            assert await alice.next() == PeerChanged("reconnected")
            await call.send("from the second")
            assert await alice.next() == SignalReceived("from the second")


async def test_a_full_queue_leaves_in_order_on_one_connection(cluster: Cluster) -> None:
    """More than the node's burst of 200, which it would answer with 4429."""
    async with in_call(cluster) as (alice, bob):
        connection = bob.client._connector._connection
        assert connection is not None
        connection.abort()
        await eventually(lambda: bob.client.state is State.RECONNECTING, interval=0.001)
        for n in range(256):
            await bob.call.send(n)
        signals: list[Event] = []
        while len(signals) < 256:
            event = await alice.next()
            signals += [event] if isinstance(event, SignalReceived) else []
        assert signals == [SignalReceived(n) for n in range(256)]
        line = await alice.call.chat("all there")
        assert [await bob.next(), await bob.next()] == [Rejoined(resumed=True), ChatReceived(line)]


async def test_a_call_is_joined_at_once_after_it_was_left(cluster: Cluster) -> None:
    async with in_call(cluster) as (alice, bob):
        leaving = asyncio.create_task(bob.call.leave())
        await asyncio.sleep(0)
        again = await bob.client.join(bob.call.room_id.upper())
        await leaving
        assert [
            event.state
            for event in [await alice.next(), await alice.next()]
            if isinstance(event, PeerChanged)
        ] == [
            "left",
            "joined",
        ]
        await again.send("of the new call")
        assert await alice.next() == SignalReceived("of the new call")


async def test_ten_mistakes_end_no_call(cluster: Cluster) -> None:
    async with in_call(cluster) as (alice, bob):
        for text in ["x" * 501, "cut \ud83d"] * 10:
            with pytest.raises(RequestFailed, match="bad_request"):
                await bob.call.chat(text)
        with pytest.raises(RequestFailed, match="too_large"):
            await bob.call.send("x" * 65_536)
        line = await bob.call.chat("sorry")
        assert await alice.next() == ChatReceived(line)


async def test_the_call_outlives_a_node_that_is_killed() -> None:
    async with running_cluster(nodes=2) as own, in_call(own) as (alice, bob):
        os.kill(own.nodes[1].pid, signal.SIGKILL)
        assert isinstance(await bob.next(), Rejoined)
        await bob.call.send("still here")
        seen = [await alice.next()]
        while seen[-1] != SignalReceived("still here"):
            seen.append(await alice.next())
        assert PeerChanged("left") not in seen
        assert PeerChanged("reconnected") in seen
        assert bob.client.state is State.CONNECTED


async def test_a_drained_node_sends_its_clients_elsewhere() -> None:
    environ = {"KEEPLINE_DRAIN_SECONDS": "2"}
    async with running_cluster(nodes=2, environ=environ) as own, in_call(own) as (alice, bob):
        os.kill(own.nodes[1].pid, signal.SIGTERM)
        assert await bob.next() == Rejoined(resumed=True)
        line = await bob.call.chat("moved")
        seen = [await alice.next()]
        while seen[-1] != ChatReceived(line):
            seen.append(await alice.next())
        assert PeerChanged("reconnected") in seen
        assert not any(isinstance(event, Ended) for event in seen)
