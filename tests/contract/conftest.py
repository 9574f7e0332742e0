"""What every test of this folder runs on: fakeredis, a real Valkey, a real Redis, a cluster of three Valkeys, and the
Redis of the simulation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import fakeredis
import pytest
import pytest_asyncio
from redis.asyncio.client import PubSub

from keepline.cli.local.binaries import redis_binaries
from keepline.cli.local.servers import Valkey
from keepline.ops.redis.client import Client, connect
from keepline.ops.redis.cluster import Cluster
from keepline.room import keys
from tests.helpers.ports import free_port
from tests.helpers.redis_cluster import running_cluster
from tests.simulation.direct import DirectServer

PROGRAMS = {"valkey": "valkey-server", "redis": "redis-server"}


class RedisServer:
    """One of the five. `url` is None for those that live in this process."""

    def __init__(self, name: str, url: str | None) -> None:
        self.name = name
        self.url = url
        self._fake = fakeredis.FakeServer()
        self._simulated = DirectServer()

    def connect(self) -> Client:
        """A new client, to be closed by the caller."""
        if self.url is not None:
            return connect(self.url)
        if self.name == "simulated":
            return self._simulated.connect()
        client: Client = fakeredis.FakeAsyncRedis(server=self._fake)
        return client

    @asynccontextmanager
    async def listening(self, node: str, partition: int) -> AsyncIterator[PubSub]:
        """Listen to the channel on which a node is told of a partition's rooms."""
        async with AsyncExitStack() as stack:
            client = self.connect()
            stack.push_async_callback(client.aclose)
            if isinstance(client, Cluster):
                channel = keys.inbox(node, partition)
                server = await stack.enter_async_context(client.open(await client.owner(channel)))
                pubsub = await stack.enter_async_context(server.pubsub())
                await pubsub.ssubscribe(channel)
            else:
                pubsub = await stack.enter_async_context(client.pubsub())
                await pubsub.subscribe(keys.inbox(node))
            yield pubsub


@pytest_asyncio.fixture(
    scope="session", loop_scope="session", params=["fakeredis", "simulated", *PROGRAMS, "cluster"]
)
async def redis_server(request: pytest.FixtureRequest, server_folder: Path) -> AsyncIterator[RedisServer]:
    """Each server in turn; one that is not on this machine is skipped."""
    name = request.param
    if name in ("fakeredis", "simulated"):
        yield RedisServer(name, None)
        return
    if name == "cluster":
        async with running_cluster(server_folder / "contract-cluster", replicas=False) as cluster:
            yield RedisServer(name, cluster.url)
        return
    binary = next((found for found in redis_binaries() if found.server.name == PROGRAMS[name]), None)
    if binary is None:
        pytest.skip(f"no {PROGRAMS[name]} of a version that is supported is on this machine")
    folder = server_folder / f"contract-{name}"
    async with Valkey(folder, port=free_port(), binary=binary, options=("--appendonly", "no")) as server:
        yield RedisServer(name, server.url)


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Client]:
    """A client of an empty server."""
    client = redis_server.connect()
    try:
        await client.flushall()
        yield client
    finally:
        await client.aclose()
