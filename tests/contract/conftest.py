"""The servers that every test of this folder runs on: fakeredis, a real Valkey and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import fakeredis
import pytest
import pytest_asyncio

from keepline.cli.binaries import redis_binaries
from keepline.cli.servers import Valkey
from keepline.ops.redis import Client, connect
from tests.helpers.ports import free_port

PROGRAMS = {"valkey": "valkey-server", "redis": "redis-server"}


class RedisServer:
    """One of the three. `url` is None for fakeredis, which lives in this process."""

    def __init__(self, name: str, url: str | None) -> None:
        self.name = name
        self.url = url
        self._fake = fakeredis.FakeServer()

    def connect(self) -> Client:
        """A new client, to be closed by the caller."""
        if self.url is not None:
            return connect(self.url)
        client: Client = fakeredis.FakeAsyncRedis(server=self._fake)
        return client


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["fakeredis", *PROGRAMS])
async def redis_server(request: pytest.FixtureRequest, server_folder: Path) -> AsyncIterator[RedisServer]:
    """Each server in turn; one that is not on this machine is skipped."""
    name = request.param
    if name == "fakeredis":
        yield RedisServer(name, None)
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
