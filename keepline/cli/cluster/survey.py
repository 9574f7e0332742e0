"""The data that `keepline doctor` compares. Read once, from a running cluster, so parts of it differ by a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis.exceptions import RedisError

from keepline.cli.cluster.access import ListedNode, NodeSilent, Reach
from keepline.cli.cluster.persisters import living_persisters
from keepline.cli.cluster.rooms import pages, records_of
from keepline.cli.cluster.streams import Lag, lag, stuck
from keepline.ops import postgres, redis
from keepline.ops.redis.cluster_time import decode_correction, read_time
from keepline.room import keys
from keepline.room.codec import BadRecord, decode_record
from keepline.room.presence import Presence
from keepline.room.record import Room

_ROWS = "SELECT room_id::text, version, status FROM active_rooms"

STUCK_MS = 120_000
"""Events that a persister read this long ago and has not written belong to a dead persister."""


@dataclass(frozen=True, slots=True)
class RowVersion:
    """A room as Postgres has it."""

    version: int
    status: str


@dataclass(slots=True)
class Survey:
    """One snapshot of everything. `rows` is None if there is no Postgres, or if it does not answer."""

    partitions: int = 0
    nodes: list[ListedNode] = field(default_factory=list)
    looks: dict[str, Any] = field(default_factory=dict)  # by node: its memory
    silent: dict[str, str] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    held: set[tuple[str, str]] = field(default_factory=set)  # node and room, from the held sets
    deadlines: dict[str, int] = field(default_factory=dict)
    indexes: dict[str, list[str]] = field(default_factory=dict)  # by user: rooms
    holders: dict[str, tuple[str, str]] = field(default_factory=dict)  # by user: node and session
    rows: dict[str, RowVersion] | None = None
    postgres_problem: str | None = None
    lost_partitions: list[int] = field(default_factory=list)
    lag: Lag = field(default_factory=Lag)
    stuck: dict[str, int] = field(default_factory=dict)  # by persister: number of events read long ago
    persisters: dict[str, Presence] = field(default_factory=dict)  # the live ones
    servers: list[dict[str, str]] = field(default_factory=list)
    redis_now: float = 0.0  # the cluster's time
    correction: float = 0.0  # how far the cluster's time is ahead of Redis' clock, in ms, after a step
    own_ahead: float = 0.0  # how far this host's clock is ahead of Redis', in ms
    nodes_ahead: dict[str, float] = field(default_factory=dict)  # the same for each node's time

    @property
    def live(self) -> set[str]:
        """The nodes with a heartbeat."""
        return {node.name for node in self.nodes if node.beat is not None}


async def survey(reach: Reach, on_progress: Callable[[int], None]) -> Survey:
    """Read everything. `on_progress` gets the number of rooms read. Raises RedisError, OSError."""
    found = Survey()
    found.partitions = len(await reach.partitions())
    seconds, kept = await read_time(reach.redis)
    found.own_ahead = (time.time() - seconds) * 1_000
    found.correction = decode_correction(kept).seconds(seconds) * 1_000
    found.redis_now = seconds * 1_000 + found.correction
    found.nodes = await reach.nodes()
    await _look_at_nodes(reach, found)
    async for records in records_of(reach):
        for room_id, record in records:
            try:
                found.rooms[room_id] = decode_record(record)
            except BadRecord as error:
                found.unreadable[room_id] = str(error)
        on_progress(len(found.rooms))
    await _look_at_partitions(reach, found)
    await _look_at_users(reach, found)
    await _look_at_postgres(reach, found)
    found.persisters = await living_persisters(reach)
    found.lag, found.stuck = await lag(reach), await stuck(reach, STUCK_MS)
    await _look_at_servers(reach, found)
    return found


async def _look_at_nodes(reach: Reach, found: Survey) -> None:
    live = [node for node in found.nodes if node.beat is not None]
    asked = time.time() * 1_000
    for name, answer in (await reach.ask_all(live, "/v1/node")).items():
        if isinstance(answer, NodeSilent):
            found.silent[name] = str(answer)
        else:
            found.looks[name] = answer
            found.nodes_ahead[name] = answer["now"] - (asked - found.own_ahead + found.correction)


async def _look_at_partitions(reach: Reach, found: Survey) -> None:
    for partition in range(found.partitions):
        due: Any = await reach.redis.zrange(keys.deadlines(partition), 0, -1, withscores=True)
        found.deadlines |= {room_id.decode(): round(float(at)) for room_id, at in due}
        if not await reach.redis.exists(keys.epoch(partition)):
            found.lost_partitions.append(partition)
    for server in await redis.servers(reach.redis):
        async for names in pages(server, keys.all_held()):
            for name, members in zip(
                names, await reach.pipelined([("SMEMBERS", name) for name in names]), strict=True
            ):
                node = name.split(b":held:", 1)[1].decode()
                found.held |= {(node, room_id.decode()) for room_id in members}


async def _look_at_users(reach: Reach, found: Survey) -> None:
    """Read the keys of users. Without a prefix, an app may have keys with such names; those are ignored."""
    for server in await redis.servers(reach.redis):
        async for names in pages(server, keys.all_users()):
            asked = [("SMEMBERS" if name.endswith(b":rooms") else "GET", name) for name in names]
            answers = await reach.pipelined(asked, raise_on_error=False)
            for name, answer in zip(names, answers, strict=True):
                user = keys.user_in(name.decode(errors="replace"))
                if isinstance(answer, set):
                    found.indexes[user] = sorted(_text(member) for member in answer)
                elif isinstance(answer, bytes) and (holder := _holder(answer)) is not None:
                    found.holders[user] = holder


def _holder(value: bytes) -> tuple[str, str] | None:
    """The node and session that hold a user; None if there are none, or if the key is the app's."""
    try:
        held = orjson.loads(value)
        node, session = held["node"], held["session"]
    except (ValueError, TypeError, KeyError):
        return None
    return (node, session) if session else None


async def _look_at_postgres(reach: Reach, found: Survey) -> None:
    if reach.pool is None:
        return
    try:
        found.rows = {
            row["room_id"]: RowVersion(row["version"], row["status"]) for row in await reach.pool.fetch(_ROWS)
        }
    except postgres.ERRORS as error:
        found.postgres_problem = reach.pool.in_words(error)


async def _look_at_servers(reach: Reach, found: Survey) -> None:
    for server in await redis.servers(reach.redis):
        try:
            settings: Any = {}
            for name in ("maxmemory-policy", "appendonly", "client-output-buffer-limit"):
                settings |= await server.config_get(name)
            found.servers.append({_text(name): _text(value) for name, value in settings.items()})
        except RedisError:
            found.servers.append(await _settings_by_info(server))


async def _settings_by_info(server: redis.Client) -> dict[str, str]:
    """Settings that INFO also shows, for services that refuse CONFIG; empty if INFO is refused as well."""
    try:
        info: Any = await server.info("all")
    except RedisError:
        return {}
    found = {"maxmemory-policy": str(info.get("maxmemory_policy", "noeviction"))}
    if "aof_enabled" in info:
        found["appendonly"] = "yes" if info["aof_enabled"] else "no"
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
