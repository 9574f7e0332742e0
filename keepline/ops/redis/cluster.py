"""A client for a Redis Cluster with the interface of a client for a single Redis.

The library's cluster client has other rules than we need. It detects a failover only by repeating commands, including
pipelines, whether or not they may run twice. It raises if all connections are busy, where ours waits. Refreshing its
map cuts every connection. And one unreachable shard fails a pipeline for all. So this is a minimal layer on top of
plain clients, one per server, with their usual options:

- A command goes to the server of its first key. All keys of a command must be in one slot.
- A pipeline is split by server, and the parts leave at once. Commands on one slot stay in order. With
  `raise_on_error=False`, the answers of an unreachable shard are errors, and those of the others are answers.
- Redirections (MOVED, ASK) are followed, because the command was not carried out. The caller gets any other error.
- A server on which a command timed out gets no more until it has answered, so only the first command waits for it.
- Any sign of a change (a redirection, an unreachable server, CLUSTERDOWN) makes the client ask all servers for
  the map in the background, and adopt the majority's. Only the very first command waits for that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import redis.asyncio
import structlog
from redis.asyncio.client import Pipeline
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisError,
)
from redis.exceptions import TimeoutError as AnswerTimeout

from keepline.ops.redis.slots import ON_EVERY_SERVER, Ranges, SlotView, slot_of, view_in
from keepline.ops.redis.urls import Address

Server = redis.asyncio.Redis
OpenServer = Callable[[Address], Server]
_Command = tuple[tuple[Any, ...], Mapping[str, Any]]

REFRESH_SECONDS = 0.25
"""Minimum time between two refreshes of the map."""

ANSWER_SECONDS = 2.0
"""Timeout for servers that do not answer a refresh."""

_REDIRECTIONS = 5

_log = structlog.get_logger(__name__)


class Cluster(redis.asyncio.Redis):
    """A cluster. Commands without a key go to every primary, `TIME` to one."""

    def __init__(self, addresses: Sequence[Address], open_server: OpenServer) -> None:
        """Take some servers of the cluster.

        `open(address)` creates another client of a server, which the caller closes.
        """
        self.open = open_server
        self._named = tuple(addresses)
        self._servers: dict[Address, Server] = {}
        self._owners: list[Address | None] = []
        self._known: frozenset[Address] = frozenset()
        self._silent: set[Address] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = float("-inf")
        self._problem = ""
        super().__init__(connection_pool=self.at(self._named[0]).connection_pool)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        servers, self._servers = list(self._servers.values()), {}
        await asyncio.gather(*(server.aclose(close_connection_pool) for server in servers))

    # --- commands ---

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command. Raises RedisError."""
        if args[0] in ON_EVERY_SERVER:
            return await self._execute_everywhere(*args, **options)
        (answer,) = await self.execute_all([(args, options)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _execute_everywhere(self, *args: Any, **options: Any) -> Any:
        masters: list[Any] = await self.masters()
        try:
            answers = await asyncio.gather(*(master.execute_command(*args, **options) for master in masters))
        except RedisError as error:
            self._learn(error)
            raise
        return answers[0]

    async def execute_all(self, commands: Sequence[_Command]) -> list[Any]:
        """Carry out commands, those of one slot in order. Answers may be errors. Raises ConnectionError."""
        await self._located()
        answers: list[Any] = [None] * len(commands)
        left: Sequence[int] = range(len(commands))
        for _ in range(_REDIRECTIONS):
            groups: dict[Address, list[int]] = {}
            for at in left:
                slot = slot_of(commands[at][0])
                owner = self._owners[slot]
                if owner is None:
                    answers[at] = ClusterDownError(f"no server of the cluster serves slot {slot}")
                else:
                    groups.setdefault(owner, []).append(at)
            parts = [self._execute_part(owner, part, commands, answers) for owner, part in groups.items()]
            if len(parts) == 1:
                await parts[0]
            else:
                await asyncio.gather(*parts)
            left = [at for at in left if isinstance(answers[at], MovedError)]
            if not left:
                break
        return answers

    async def _execute_part(
        self, address: Address, part: Sequence[int], commands: Sequence[_Command], answers: list[Any]
    ) -> None:
        """Carry out the commands for one server."""
        server: Any = self.at(address)
        try:
            if address in self._silent:
                raise ConnectionError(f"{address[0]}:{address[1]} does not answer")
            if len(part) == 1:
                args, options = commands[part[0]]
                found = [await server.execute_command(*args, **options)]
            else:
                async with server.pipeline(transaction=False) as pipe:
                    pipe.command_stack = [commands[at] for at in part]
                    found = await pipe.execute(raise_on_error=False)
        except RedisError as error:
            found = [error] * len(part)
        for at, answer in zip(part, found, strict=True):
            answers[at] = answer
            if isinstance(answer, RedisError):
                self._learn(answer, address)
                if isinstance(answer, AskError) and not isinstance(answer, MovedError):
                    answers[at] = await self._ask(answer, address, commands[at])

    async def _ask(self, error: AskError, asked: Address, command: _Command) -> Any:
        """Carry out a command on the server that is taking over its slot."""
        args, options = command
        async with self.at(_address(error, asked)).pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*args, **options)
            try:
                return (await pipe.execute(raise_on_error=False))[1]
            except RedisError as failure:
                return failure

    async def execute_transaction(self, commands: Sequence[_Command]) -> list[Any]:
        """Carry out commands on keys of one slot as a transaction. Raises RedisError."""
        await self._located()
        slot = slot_of(commands[0][0])
        for attempt in range(_REDIRECTIONS):
            owner = self._owners[slot]
            if owner is None:
                raise ClusterDownError(f"no server of the cluster serves slot {slot}")
            async with self.at(owner).pipeline(transaction=True) as pipe:
                pipe.command_stack = list(commands)
                try:
                    return await pipe.execute()
                except RedisError as error:
                    self._learn(error, owner)
                    if not isinstance(error, MovedError) or attempt + 1 == _REDIRECTIONS:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Commands to be carried out together. With `transaction`, all their keys must be in one slot."""
        return _ClusterPipeline(self, transaction)

    def pubsub(self, **kwargs: Any) -> NoReturn:
        """Not supported on a cluster, only on one of its servers: see `owner` and `at`."""
        raise NotImplementedError("on a cluster, subscribe on the server that has the channel's slot")

    # --- servers ---

    async def masters(self) -> list[Server]:
        """A client of each primary. Raises ConnectionError if no server of the cluster can be reached."""
        await self._located()
        return [self.at(address) for address in dict.fromkeys(self._owners) if address is not None]

    def server_of(self, command: Sequence[Any]) -> Address | None:
        """The primary that has the key of a command; None while unknown."""
        return self._owners[slot_of(command)] if self._owners else None

    async def owner(self, name: str) -> Address:
        """The primary that has a key or shard channel. Raises ConnectionError, ClusterDownError."""
        await self._located()
        slot = key_slot(name.encode())
        address = self._owners[slot]
        if address is None:
            raise ClusterDownError(f"no server of the cluster serves slot {slot}")
        return address

    def at(self, address: Address) -> Server:
        """The client of one server."""
        server = self._servers.get(address)
        if server is None:
            server = self._servers[address] = self.open(address)
        return server

    # --- the map ---

    def _learn(self, error: RedisError, asked: Address | None = None) -> None:
        """Learn from an error about the map."""
        if isinstance(error, MovedError) and asked is not None:
            self._owners[error.slot_id] = _address(error, asked)
        if isinstance(error, AnswerTimeout) and asked is not None:
            self._silent.add(asked)
        if isinstance(error, MovedError | ClusterDownError | ConnectionError | AnswerTimeout):
            self._refresh()

    async def _located(self) -> None:
        if not self._owners:
            await asyncio.wait([self._refresh()])  # it continues if this task is cancelled
            if not self._owners:
                raise ConnectionError(f"no server of the cluster answered CLUSTER SLOTS: {self._problem}")

    def _refresh(self) -> asyncio.Task[None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._fetch_map())
        return self._refreshing

    async def _fetch_map(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._refreshed_at + REFRESH_SECONDS - loop.time())
        asked = self._known.union(self._named, self._servers)
        views = await asyncio.gather(*(self._view_of(address) for address in asked))
        self._refreshed_at = loop.time()
        self._silent -= {address for address, view in zip(asked, views, strict=True) if view is not None}
        answered = [view for view in views if view is not None]
        if not answered:
            _log.warning("cluster_unavailable", servers=len(asked), error=self._problem)
            return
        self._use(Counter(view.masters for view in answered).most_common(1)[0][0])
        self._known = frozenset().union(*(view.servers for view in answered))
        gone = self._servers.keys() - self._known.union(self._named)
        await asyncio.gather(*(self._servers.pop(address).aclose() for address in gone))

    async def _view_of(self, address: Address) -> SlotView | None:
        """The map according to one server; None if it does not answer."""
        server: Any = self.at(address)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                slots = await server.execute_command("CLUSTER", "SLOTS")
        except (RedisError, OSError, TimeoutError) as error:
            self._problem = f"{type(error).__name__}: {error}"
            return None
        return view_in(slots, address)

    def _use(self, ranges: Ranges) -> None:
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, address in ranges:
            owners[first : last + 1] = [address] * (last + 1 - first)
        if owners != self._owners:
            masters = sorted({f"{host}:{port}" for _, _, (host, port) in ranges})
            _log.info("cluster_map", masters=masters)
        self._owners = owners


class _ClusterPipeline(Pipeline):
    def __init__(self, cluster: Cluster, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self.command_stack = self.command_stack, []
        if not commands:
            return []
        if self.is_transaction:
            return await self._cluster.execute_transaction(commands)
        answers = await self._cluster.execute_all(commands)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers


def _address(error: AskError, asked: Address) -> Address:
    """The target of a redirection. A server that does not know its own host omits it."""
    return error.host or asked[0], error.port
