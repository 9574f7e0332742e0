"""A client of a Redis Cluster that looks like a client of one Redis.

The library has a cluster client, but it goes by other rules than ours. What it learns of a failover it learns only by
repeating commands, pipelines included, whether or not they may run twice; it raises when all connections are busy where
ours waits; a refresh of its map cuts every connection; and one shard that is away fails a pipeline for all of them. So
this is the least that we need over plain clients, one for each server, with the options they always have:

- A command goes to the server of its first key. All keys of one command have to be in one slot.
- A pipeline is split by server, and the parts leave at once. What goes to one slot stays in order. With
  `raise_on_error=False` the answers of a shard that is away are errors, those of the others are answers.
- A redirection (MOVED, ASK) is followed: the command was not carried out. Any other error is the caller's.
- A server that let a command wait for too long gets no more until it has answered: only the first waits for it.
- Whatever hints at a change (a redirection, a server that is away, CLUSTERDOWN) makes the client ask all servers for
  the map in the background, and take what most of them say. No command waits for that but the first ever.
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
"""The least time between two looks at the map."""

ANSWER_SECONDS = 2.0
"""How long a look waits for servers that do not answer."""

_REDIRECTIONS = 5

_log = structlog.get_logger(__name__)


class Cluster(redis.asyncio.Redis):
    """A cluster. Commands without a key go to every master, `TIME` to one."""

    def __init__(self, addresses: Sequence[Address], open_server: OpenServer) -> None:
        """Take some servers of the cluster, and how to make a client of one.

        `open(address)` makes another client of a server, to be closed by the caller.
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
        """Carry out commands, those of one slot in order; errors are among the answers. Raises ConnectionError."""
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
        """Carry out what goes to one server."""
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
        """Carry out a command on the server to which its slot is just being moved."""
        args, options = command
        async with self.at(_address(error, asked)).pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.execute_command(*args, **options)
            try:
                return (await pipe.execute(raise_on_error=False))[1]
            except RedisError as failure:
                return failure

    async def execute_transaction(self, commands: Sequence[_Command]) -> list[Any]:
        """Carry out commands on keys of one slot as one transaction. Raises RedisError."""
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
        """Commands to be carried out together; with `transaction` all their keys have to be in one slot."""
        return _ClusterPipeline(self, transaction)

    def pubsub(self, **kwargs: Any) -> NoReturn:
        """Not of a cluster, only of one of its servers: see `owner` and `at`."""
        raise NotImplementedError("on a cluster, subscribe on the server that has the channel's slot")

    # --- servers ---

    async def masters(self) -> list[Server]:
        """A client of each master. Raises ConnectionError when no server of the cluster can be reached."""
        await self._located()
        return [self.at(address) for address in dict.fromkeys(self._owners) if address is not None]

    def server_of(self, command: Sequence[Any]) -> Address | None:
        """The master that has the key of a command, None while that is not known."""
        return self._owners[slot_of(command)] if self._owners else None

    async def owner(self, name: str) -> Address:
        """The master that has a key or shard channel. Raises ConnectionError, ClusterDownError."""
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
        """Take from an error what it says of the map."""
        if isinstance(error, MovedError) and asked is not None:
            self._owners[error.slot_id] = _address(error, asked)
        if isinstance(error, AnswerTimeout) and asked is not None:
            self._silent.add(asked)
        if isinstance(error, MovedError | ClusterDownError | ConnectionError | AnswerTimeout):
            self._refresh()

    async def _located(self) -> None:
        if not self._owners:
            await asyncio.wait([self._refresh()])  # it goes on, should we be cancelled
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
        """The map as one server has it; None when it does not say."""
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
    """Where a redirection leads; a server that does not know its own host leaves it out."""
    return error.host or asked[0], error.port
