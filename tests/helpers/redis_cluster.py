"""A Redis Cluster and a Sentinel set of real servers on loopback, small and quick to fail over.

async with running_cluster(folder) as cluster:
    client = connect(cluster.url)
    await cluster.master_of("{p07}").kill()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from keepline.cli.local.binaries import find_redis
from keepline.cli.local.process import Command
from keepline.cli.local.servers import LOOPBACK, Valkey
from keepline.ops.redis.cluster import Cluster
from keepline.ops.redis.urls import Address
from keepline.room.keys import DEFAULT_PARTITIONS, tag
from tests.helpers.ports import free_block
from tests.helpers.waiting import eventually

NODE_TIMEOUT_MS = 2_000
DOWN_AFTER_MS = 1_000
SERVICE = "keepline"
_NO_DISK = ("--appendonly", "no")
_QUICK_SYNC = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class RedisCluster:
    """Masters first, then a replica of each."""

    def __init__(self, servers: Sequence[Valkey], masters: int) -> None:
        self.servers = servers
        self.masters = servers[:masters]
        hosts = ",".join(f"{LOOPBACK}:{server.port}" for server in servers)
        self.url = f"redis+cluster://{hosts}"

    def master_of(self, key: str) -> Valkey:
        """The server that had a key at the start."""
        return self.masters[key_slot(key.encode()) * len(self.masters) // REDIS_CLUSTER_HASH_SLOTS]


class Move:
    """A slot on its way from one master to another."""

    def __init__(self, client: Cluster, slot: int, source: Address, target: Address) -> None:
        self._client = client
        self._slot = slot
        self.source, self.target = source, target

    @classmethod
    async def begin(cls, client: Cluster, name: str) -> Move:
        """Let the slot of a name be on its way."""
        source = await client.owner(name)
        masters = {await client.owner(tag(partition)) for partition in range(DEFAULT_PARTITIONS)}
        move = cls(client, key_slot(name.encode()), source, min(masters - {source}))
        await move._say(move.target, "IMPORTING", await move._id(source))
        await move._say(source, "MIGRATING", await move._id(move.target))
        return move

    async def carry(self, name: str) -> None:
        """Take a key along."""
        host, port = self.target
        await self._at(self.source).migrate(host, port, name, 0, 5_000)

    async def end(self) -> None:
        """Let both masters know that it has arrived."""
        target = await self._id(self.target)
        for address in (self.target, self.source):
            await self._say(address, "NODE", target)

    async def _say(self, address: Address, state: str, node: str) -> None:
        await self._at(address).execute_command("CLUSTER", "SETSLOT", self._slot, state, node)

    async def _id(self, address: Address) -> str:
        name: bytes = await self._at(address).execute_command("CLUSTER", "MYID")
        return name.decode()

    def _at(self, address: Address) -> Any:
        return self._client.at(address)


class SentinelSet:
    """A master, its replica, and who watches them."""

    def __init__(self, master: Valkey, replica: Valkey, sentinels: Sequence[_Sentinel]) -> None:
        self.master = master
        self.replica = replica
        self.sentinels = sentinels
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"


class _Sentinel(Valkey):
    name = "sentinel"

    def __init__(self, folder: Path, *, port: int, master: int) -> None:
        super().__init__(folder, port=port)
        self._master = master

    async def _prepare(self) -> Command:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = self.folder / "sentinel.conf"
        settings.write_text(
            f"bind {LOOPBACK}\n"
            f"port {self.port}\n"
            f"dir {self.folder}\n"
            f"sentinel monitor {SERVICE} {LOOPBACK} {self._master} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        return Command(self.name, (str(find_redis().server), str(settings), "--sentinel"), self.log)


@asynccontextmanager
async def running_cluster(
    folder: Path, *, masters: int = 3, replicas: bool = True
) -> AsyncIterator[RedisCluster]:
    """Run a cluster while the context is open, with one replica of each master or none."""
    count = 2 * masters if replicas else masters
    ports = free_block(2 * count)
    servers = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            options = (
                *("--cluster-enabled", "yes", "--cluster-port", str(ports + count + number)),
                *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                *(*_NO_DISK, *_QUICK_SYNC),
            )
            server = Valkey(folder / f"server-{number}", port=ports + number, options=options)
            servers.append(await stack.enter_async_context(server))
        cluster = RedisCluster(servers, masters)
        await _form(cluster)
        yield cluster


@asynccontextmanager
async def running_sentinels(folder: Path) -> AsyncIterator[SentinelSet]:
    """Run a master, a replica and three Sentinels while the context is open."""
    port = free_block(5)
    options = (*_NO_DISK, *_QUICK_SYNC)
    async with AsyncExitStack() as stack:
        master = Valkey(folder / "master", port=port, options=options)
        await stack.enter_async_context(master)
        following = (*options, "--replicaof", f"{LOOPBACK} {port}")
        replica = Valkey(folder / "replica", port=port + 1, options=following)
        await stack.enter_async_context(replica)
        sentinels = []
        for number in range(2, 5):
            sentinel = _Sentinel(folder / f"sentinel-{number}", port=port + number, master=port)
            sentinels.append(await stack.enter_async_context(sentinel))
        await eventually(lambda: _watched(sentinels), what="each Sentinel knows the replica and the others")
        yield SentinelSet(master, replica, sentinels)


async def _form(cluster: RedisCluster) -> None:
    """Give each master its slots and each other server a master."""
    async with AsyncExitStack() as stack:
        admins = [await stack.enter_async_context(_admin(server)) for server in cluster.servers]
        count = len(cluster.masters)
        first = cluster.servers[0].port
        for number, admin in enumerate(admins):
            await admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                await admin.execute_command("CLUSTER", "MEET", LOOPBACK, first, first + len(admins))
        for number, admin in enumerate(admins[:count]):
            start, stop = (REDIS_CLUSTER_HASH_SLOTS * edge // count for edge in (number, number + 1))
            await admin.execute_command("CLUSTER", "ADDSLOTSRANGE", start, stop - 1)
        await eventually(lambda: _agree(admins), what="all servers know each other and all slots")
        replicas = admins[count:]
        for master, replica in zip(admins, replicas, strict=False):
            name = await master.execute_command("CLUSTER", "MYID")
            await replica.execute_command("CLUSTER", "REPLICATE", name)
        if replicas:
            await eventually(lambda: _follow(admins, replicas), what="each replica follows its master")


async def _agree(admins: Sequence[Any]) -> bool:
    infos = [await admin.execute_command("CLUSTER", "INFO") for admin in admins]
    wanted = {"cluster_state:ok", f"cluster_known_nodes:{len(admins)}"}
    return all(wanted <= set(_text(info).split()) for info in infos)


async def _follow(admins: Sequence[Any], replicas: Sequence[Any]) -> bool:
    """Whether all replicas are in step, and every server knows of them."""
    links = [(await admin.info("replication")).get("master_link_status") for admin in replicas]
    maps = [await admin.execute_command("CLUSTER", "SLOTS") for admin in admins]
    return set(links) == {"up"} and all(len(shard) == 4 for shards in maps for shard in shards)


async def _watched(sentinels: Sequence[Valkey]) -> bool:
    """Whether the Sentinels could carry out a failover now."""
    for sentinel in sentinels:
        async with _admin(sentinel) as admin:
            state = await admin.sentinel_master(SERVICE)
            if (state["num-other-sentinels"], state["num-slaves"]) != (len(sentinels) - 1, 1):
                return False
            (replica,) = await admin.sentinel_slaves(SERVICE)
            if replica["master-link-status"] != "ok":
                return False
    return True


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@asynccontextmanager
async def _admin(server: Valkey) -> AsyncIterator[Any]:
    client = redis.asyncio.from_url(server.url, socket_timeout=5.0)
    try:
        yield client
    finally:
        await client.aclose()
