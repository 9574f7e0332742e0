"""A primary behind a name that becomes a replica, lives on and cuts nobody; and servers that cut what is idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from keepline.cli.local.servers import LOOPBACK, Valkey
from keepline.ops.redis.client import connect, subscribed
from signal_node.bus.publisher import RedisPublisher
from tests.acceptance.harness import ON_TWO_NODES, Harness
from tests.helpers.cluster import running_cluster
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.integration.redis.failovers import End

IDLE_SECONDS = 1
_NO_FILE = ("--appendonly", "no", "--save", "")


@dataclass
class Named:
    """Two servers, and a name that leads to the one that is the primary."""

    servers: list[Valkey]
    name: FaultProxy

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.name.port}/0"

    async def fail_over(self) -> None:
        """The replica becomes the primary, the old one follows it; the name leads new connections to the new one."""
        old, new = self.servers
        async with _admin(old) as old_one, _admin(new) as new_one:
            await eventually(lambda: _in_step(old_one), what="the replica has all")
            await new_one.execute_command("REPLICAOF", "NO", "ONE")
            await old_one.execute_command("REPLICAOF", LOOPBACK, new.port)
        self.name.lead_to(LOOPBACK, new.port)


async def _in_step(primary: Any) -> bool:
    found = await primary.info("replication")
    replica = found.get("slave0")
    return bool(replica and replica["state"] == "online" and replica["offset"] == found["master_repl_offset"])


@asynccontextmanager
async def _admin(server: Valkey) -> AsyncIterator[Any]:
    client = redis.asyncio.from_url(server.url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def named(folder: Path) -> AsyncIterator[Named]:
    async with AsyncExitStack() as stack:
        options = (*_NO_FILE, "--repl-diskless-sync-delay", "0")
        primary = Valkey(folder / "primary", port=free_port(), options=options)
        await stack.enter_async_context(primary)
        following = ("--replicaof", f"{LOOPBACK} {primary.port}")
        replica = Valkey(folder / "replica", port=free_port(), options=(*options, *following))
        await stack.enter_async_context(replica)
        name = await stack.enter_async_context(FaultProxy(LOOPBACK, primary.port))
        yield Named([primary, replica], name)


async def test_the_first_refused_write_moves_all_connections(tmp_path: Path) -> None:
    async with named(tmp_path) as servers:
        client = connect(servers.url)
        publisher = RedisPublisher(client)
        try:
            await asyncio.gather(*(client.set(f"key-{number}", 1) for number in range(8)))
            await publisher.publish_all([("channel", b"before")])
            async with subscribed(client, "channel") as old:
                assert await old.receive(5.0) is not None
                await servers.fail_over()
                refused = 0
                while True:
                    try:
                        await client.set("key", 2)
                        break
                    except RedisError:
                        refused += 1
                assert refused == 1, "the next one finds the new primary"
                try:
                    while await old.receive(5.0):
                        pass
                    raise AssertionError("the old subscription goes on")
                except RedisError:
                    pass
            async with subscribed(client, "channel") as new:
                assert await new.receive(5.0) is not None
                await publisher.publish_all([("channel", b"after")])
                message = await new.receive(5.0)
                assert message is not None
                assert message[1] == b"after"
        finally:
            await publisher.aclose()
            await client.aclose()


async def test_a_call_goes_on_and_is_stored_when_the_primary_is_demoted(tmp_path: Path) -> None:
    async with (
        named(tmp_path) as servers,
        running_cluster(nodes=2, environ={"REDIS_URL": servers.url}) as cluster,
        Harness(cluster, ON_TWO_NODES) as harness,
    ):
        call = await harness.call()
        alice, bob = (End(call.room, client) for client in call.clients)
        async with alice.listening(), bob.listening():
            await alice.chat("before")
            await eventually(lambda: (alice.told, bob.told) == (["ok"], ["chat"]), what="the first line")
            await servers.fail_over()
            await alice.chat("after")
            await eventually(
                lambda: (alice.told, bob.told) == (["ok"] * 2, ["chat"] * 2),
                timeout=5.0,
                what="the second line",
            )
            stored = await harness.stored(
                call.room, status="active", user_1_connected=True, user_2_connected=True
            )
            assert [message["text"] for message in stored["messages"]] == ["before", "after"]
        for node in range(2):
            await eventually(lambda: cluster.is_ready(node), what="the node is ready")  # noqa: B023
            await eventually(lambda: "redis_demoted" in cluster.node_log(node), what="it says so")  # noqa: B023
        async with _admin(servers.servers[1]) as primary:
            await primary.config_set("timeout", IDLE_SECONDS)
            await eventually(
                lambda: _kept_open(primary), timeout=30.0, what="nodes keep their publishers in use"
            )
        await call.goes_on("after a silence for which Redis closes connections")


async def _kept_open(server: Any) -> bool:
    """Whether both nodes' connections for signals are older than the server lets them be idle."""
    ages = [int(one["age"]) for one in await server.client_list() if one["cmd"] == "publish"]
    return sum(age > 3 * IDLE_SECONDS for age in ages) == 2
