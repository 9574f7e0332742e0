"""Access to a running cluster: its Redis, its Postgres if it has one, and the ops port of each node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from redis.exceptions import RedisError

from keepline.cli.base import command_logs, running
from keepline.cli.base.credentials import read_credentials
from keepline.cli.base.errors import CommandError, UsageError
from keepline.cli.cluster.ops_port import NoAnswer, OpsPorts
from keepline.ops import redis
from keepline.ops.redis import prefix
from keepline.ops.redis.adoption import is_unprefixed
from keepline.room import keys

if TYPE_CHECKING:
    from keepline.ops.postgres import Pool

DATA = Path(".keepline")

T = TypeVar("T")


class NodeSilent(Exception):
    """A node does not answer on its ops port. The message says why."""


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node as known from Redis. `beat` is the content of its heartbeat; None if the heartbeat has stopped.

    `cut_off` is the reason why a live node cannot write its heartbeat. `beat` then has only its address.
    """

    name: str
    beat: Mapping[str, Any] | None
    cut_off: str | None = None

    @property
    def url(self) -> str | None:
        """The address of its ops port; None if unknown."""
        return None if self.beat is None else self.beat.get("ops")


class Reach:
    """The parts of one cluster. Methods raise RedisError or OSError if Redis is away."""

    def __init__(
        self,
        client: redis.Client,
        pool: Pool | None,
        ops_ports: OpsPorts,
        environ: Mapping[str, str],
    ) -> None:
        self.environ = environ
        self.redis = client
        self.pool = pool
        self._ops_ports = ops_ports

    async def partitions(self) -> range:
        """Number of partitions of this Redis."""
        written = await self.redis.get(keys.partitions())
        return range(keys.DEFAULT_PARTITIONS if written is None else int(written))

    async def nodes(self) -> list[ListedNode]:
        """All nodes, including dead ones that are not cleaned up yet. Raises CommandError for another key prefix."""
        known: Any = await self.redis.zrange(keys.nodes(), 0, -1)
        names = sorted(name.decode() for name in known)
        if not names and keys.prefix() and await is_unprefixed(self.redis):
            raise CommandError(
                "the keys of the cluster in this Redis have no prefix: set KEEPLINE_REDIS_PREFIX=none"
            )
        beats = await self.pipelined([("GET", keys.node(name)) for name in names])
        addresses: Any = await self.redis.hgetall(keys.addresses())
        nodes = [
            ListedNode(name, None if beat is None else orjson.loads(beat))
            for name, beat in zip(names, beats, strict=True)
        ]
        return await asyncio.gather(
            *(self._alive_or_dead(node, addresses.get(node.name.encode(), b"").decode()) for node in nodes)
        )

    async def _alive_or_dead(self, node: ListedNode, address: str) -> ListedNode:
        """Ask a node without a heartbeat: it may be alive, but unable to write its heartbeat."""
        if node.beat is not None or not address:
            return node
        living = ListedNode(node.name, {"ops": address, "state": "ready"})
        try:
            why = (await self.ask(living, "/healthz"))["reasons"].get("heartbeat")
        except (NodeSilent, CommandError, KeyError, TypeError):
            return node
        return node if why is None else replace(living, cut_off=why)

    async def node(self, name: str) -> ListedNode:
        """A live node. Raises CommandError if none has that name."""
        nodes = await self.nodes()
        for node in nodes:
            if node.name == name and node.beat is not None:
                return node
        live = [node.name for node in nodes if node.beat is not None]
        raise CommandError(f"no node {name} is alive; there {'are' if live else 'is none'} {', '.join(live)}")

    async def pipelined(self, commands: list[tuple[Any, ...]], *, raise_on_error: bool = True) -> list[Any]:
        """Send commands in one go; their answers, errors among them if they are not raised."""
        if not commands:
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=raise_on_error))

    async def ask(self, node: ListedNode, path: str, *, method: str = "GET", body: Any = None) -> Any:
        """Send a request to a node's ops port, with the service key if there is one.

        Raises NodeSilent if it does not answer, UsageError if it refuses the key, and CommandError if it refuses the
        request.
        """
        if node.url is None:
            raise NodeSilent(
                "its heartbeat has stopped" if node.beat is None else "it has not published an ops address"
            )
        try:
            status, answer = await self._ops_ports.ask(method, node.url + path, body)
        except NoAnswer as error:
            raise NodeSilent(str(error)) from None
        if status == 401:
            raise UsageError(
                f"{node.name} refuses the service key: set KEEPLINE_SERVICE_KEY to the nodes' key"
            )
        if status >= 400:
            why = answer.get("error", {}).get("message", status) if isinstance(answer, dict) else status
            raise CommandError(f"{node.name} refuses {method} {path}: {why}")
        return answer

    async def ask_all(self, nodes: list[ListedNode], path: str) -> dict[str, Any]:
        """The answer of each node, by name, or NodeSilent for a node that does not answer."""
        answers = await asyncio.gather(*(_or_silence(self.ask(node, path)) for node in nodes))
        return {node.name: answer for node, answer in zip(nodes, answers, strict=True)}


async def _or_silence(asked: Awaitable[T]) -> T | NodeSilent:
    try:
        return await asked
    except NodeSilent as silence:
        return silence


@asynccontextmanager
async def reach(environ: Mapping[str, str], data: Path = DATA) -> AsyncIterator[Reach]:
    """Reach the cluster that REDIS_URL, DATABASE_URL and KEEPLINE_SERVICE_KEY name; nothing is asked yet.

    Without REDIS_URL it is the cluster that `keepline up` runs on `data`; without a service key, that one's. Raises
    UsageError for a URL that is none, and CommandError in the place of whatever Redis raises.
    """
    environ = running.surroundings(environ, data)
    url = redis_url(environ)
    async with AsyncExitStack() as stack:
        client = connect(url, environ, max_connections=8)
        stack.push_async_callback(client.aclose)
        pool = await _pool(environ.get("DATABASE_URL"))
        if pool is not None:
            stack.callback(pool.terminate)
        key = _service_key(environ, data)
        ops_ports = OpsPorts({} if key is None else {"Authorization": f"Bearer {key}"})
        stack.callback(ops_ports.close)
        try:
            yield Reach(client, pool, ops_ports, environ)
        except (RedisError, OSError) as error:
            raise CommandError(redis_is_away(error)) from error


def redis_url(environ: Mapping[str, str]) -> str:
    """The Redis of the cluster. Raises UsageError when none is named."""
    url = environ.get("REDIS_URL")
    if not url:
        raise UsageError("set REDIS_URL to the Redis of the cluster (no `keepline up` runs in this folder)")
    return url


def connect(url: str, environ: Mapping[str, str], *, max_connections: int) -> redis.Client:
    """A client for the cluster's keys, with the prefix from the environment. Raises UsageError."""
    command_logs.configure()
    try:
        keys.use_prefix(prefix.check(environ.get("KEEPLINE_REDIS_PREFIX") or keys.DEFAULT_PREFIX))
    except ValueError as error:
        raise UsageError(f"KEEPLINE_REDIS_PREFIX {error}") from None
    try:
        return redis.connect(url, max_connections=max_connections)
    except ValueError as error:
        raise UsageError(f"REDIS_URL {error}") from None


def redis_is_away(error: Exception) -> str:
    """The error if Redis does not answer. Errors of the library contain no password."""
    return (
        f"cannot reach Redis ({str(error) or type(error).__name__}): is it running, and is REDIS_URL right?"
    )


async def _pool(url: str | None) -> Pool | None:
    if not url:
        return None
    from keepline.ops import postgres  # slow to import, and not every cluster has a Postgres

    try:
        return await postgres.create_pool(url, application="keepline-cli", max_size=2)
    except ValueError as error:
        raise UsageError(f"DATABASE_URL {error}") from None


def _service_key(environ: Mapping[str, str], data: Path) -> str | None:
    try:
        return environ.get("KEEPLINE_SERVICE_KEY") or read_credentials(data).service_key
    except FileNotFoundError:
        return None
