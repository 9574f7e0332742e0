"""A call over two nodes during which the Redis server that has its room is killed, and another takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from keepline.cli.local.servers import Valkey
from tests.acceptance.clients.bare_client import BareClient, Frame
from tests.acceptance.harness import ON_TWO_NODES, Harness
from tests.helpers.cluster import Deployment, running_cluster
from tests.helpers.waiting import eventually

FLOWS_SECONDS = 8.0
RECOVERS_SECONDS = 15.0
# What a persister had read when the server died, and never got, stays with it until it is claimed.
_ENVIRON = {"KEEPLINE_RETRY_CAP_SECONDS": "1", "KEEPLINE_CLAIM_IDLE_SECONDS": "2"}


class End:
    """One end of a call, which notes all that it is told."""

    def __init__(self, room: str, client: BareClient) -> None:
        self.frames: list[Frame] = []
        self._room = room
        self._client = client

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._listen())
        try:
            yield
            assert not task.done(), "the connection has to stay"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            self.frames.append(await self._client.receive())

    async def signal(self, mark: str) -> None:
        await self._client.send("signal", room=self._room, data={"app": mark})

    async def chat(self, text: str) -> None:
        await self._client.send("chat", id=text, room=self._room, text=text)

    @property
    def heard(self) -> set[str]:
        """The marks of the signals that have arrived."""
        return {frame["data"]["app"] for frame in self.frames if frame["type"] == "signal"}

    @property
    def told(self) -> list[str]:
        """The types of all other frames."""
        return [frame["type"] for frame in self.frames if frame["type"] != "signal"]


async def a_call_goes_on(redis_url: str, server_of: Callable[[str], Valkey]) -> None:
    """Kill `server_of(room)` in the middle of a call: the call stays, and all that was acknowledged in it."""
    async with (
        running_cluster(nodes=2, environ={"REDIS_URL": redis_url, **_ENVIRON}) as cluster,
        Harness(cluster, ON_TWO_NODES) as harness,
    ):
        call = await harness.call()
        alice, bob = (End(call.room, client) for client in call.clients)
        async with alice.listening(), bob.listening():
            await alice.chat("before")
            await eventually(lambda: (alice.told, bob.told) == (["ok"], ["chat"]), what="the first line")
            await server_of(call.room).kill()
            await alice.chat("after")
            await _signals_flow(alice, bob, "meanwhile")
            await eventually(
                lambda: (alice.told, bob.told) == (["ok", "ok"], ["chat", "chat"]),
                timeout=RECOVERS_SECONDS,
                what="the second line",
            )
            await eventually(lambda: _all_ready(cluster), timeout=RECOVERS_SECONDS, what="nodes are ready")
            await _signals_flow(alice, bob, "afterwards")
            stored = await harness.stored(
                call.room, status="active", user_1_connected=True, user_2_connected=True
            )
            assert [message["text"] for message in stored["messages"]] == ["before", "after"]
            assert (alice.told, bob.told) == (["ok", "ok"], ["chat", "chat"]), "nothing but the chat is told"


async def _signals_flow(alice: End, bob: End, mark: str) -> None:
    """Send signals both ways until one has arrived at each end."""

    async def flow() -> bool:
        await alice.signal(mark)
        await bob.signal(mark)
        return mark in alice.heard and mark in bob.heard

    await eventually(flow, timeout=FLOWS_SECONDS, interval=0.05, what="signals flow both ways")


async def _all_ready(cluster: Deployment) -> bool:
    return all([await cluster.is_ready(node) for node in range(len(cluster.nodes))])
