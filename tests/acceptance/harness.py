"""Calls between bare clients on a whole cluster, the two ends on one node or on two."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.clients.bare_client import BareClient, Frame
from tests.acceptance.clients.raw_client import RawClient
from tests.helpers.cluster import Deployment
from tests.helpers.rows import row_of_room
from tests.helpers.waiting import eventually

Placement = tuple[int, int]
ON_ONE_NODE, ON_TWO_NODES = (0, 0), (0, 1)
PLACEMENTS = [pytest.param(ON_ONE_NODE, id="one node"), pytest.param(ON_TWO_NODES, id="two nodes")]

STORED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Member:
    """A user with the connection that it has now, the node of that, and what it was welcomed with."""

    user: uuid.UUID
    node: int
    client: BareClient
    welcome: Frame


@dataclass(slots=True)
class Call:
    """A room that both its members have joined. Alice is side 1, Bob side 2."""

    room: str
    alice: Member
    bob: Member

    @property
    def clients(self) -> tuple[BareClient, BareClient]:
        """Alice's and Bob's connections."""
        return self.alice.client, self.bob.client

    async def goes_on(self, mark: str = "still there") -> None:
        """Each gets the other's signal, and nothing else before it."""
        for sender, receiver in (self.clients, self.clients[::-1]):
            await sender.send("signal", room=self.room, data={"app": mark})
            await receiver.expect("signal", room=self.room, data={"app": mark})


class Harness:
    """Connects clients to a cluster and closes them all in the end. `nodes` are Alice's and Bob's."""

    def __init__(self, cluster: Deployment, nodes: Placement) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self._clients = AsyncExitStack()

    async def __aenter__(self) -> Harness:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()

    async def connect(self, node: int = 0, **options: Any) -> BareClient:
        """A connection to a node that has done the handshake, no more. Options are `BareClient.connect`'s."""
        client = await BareClient.connect(self.cluster.nodes[node].ws, **options)
        self._clients.push_async_callback(client.aclose)
        return client

    async def connect_raw(self, node: int = 0, **options: Any) -> RawClient:
        """A TCP connection to a node's client port. Options are `RawClient.connect`'s."""
        client = await RawClient.connect(self.cluster.nodes[node].ws, **options)
        self._clients.push_async_callback(client.aclose)
        return client

    async def login(
        self, user: uuid.UUID, node: int = 0, *, resume: str | None = None, **options: Any
    ) -> Member:
        """Connect a user to a node, resumed by the secret of the last welcome if one is given."""
        client = await self.connect(node, **options)
        secret = {} if resume is None else {"resume": resume}
        welcome = await client.ask("hello", "welcome", token=self.cluster.token(user), **secret)
        assert (welcome["user"], welcome["node"]) == (str(user), self.cluster.nodes[node].id)
        return Member(user, node, client, welcome)

    async def call(self, *, chat_mode: str = "video", duration_seconds: int = 0) -> Call:
        """Open a room and bring both members into it."""
        alice, bob = uuid.uuid4(), uuid.uuid4()
        opened = await self.cluster.open_room(
            alice, bob, chat_mode=chat_mode, duration_seconds=duration_seconds
        )
        room = opened["room_id"]
        call = Call(room, await self.login(alice, self.nodes[0]), await self.login(bob, self.nodes[1]))
        await call.alice.client.ask("join", "joined", room=room)
        await call.bob.client.ask("join", "joined", room=room)
        await call.alice.client.expect("peer", room=room, state="joined")
        return call

    async def stored(self, room: str, **expected: Any) -> dict[str, Any]:
        """Wait until all nodes show the room with the expected values and its row in Postgres is equal."""

        async def agreed() -> dict[str, Any]:
            shown = [await self.cluster.room(room, node=node) for node in range(len(self.cluster.nodes))]
            assert shown[0] == shown[0] | expected, shown[0]
            assert all(snapshot == shown[0] for snapshot in shown), shown
            row = await row_of_room(self.cluster.database_url, room)
            assert row == shown[0], f"in Postgres {row}, shown {shown[0]}"
            return shown[0]

        return await eventually(agreed, timeout=STORED_SECONDS, interval=0.05, what="Postgres agrees")
