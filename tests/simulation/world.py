"""One run: a cluster, its clients and what befalls them, all from one seed."""

from __future__ import annotations

import asyncio
import random as global_random
import secrets
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from unittest import mock
from uuid import UUID

import jwt
import structlog
from pydantic import SecretStr
from redis.exceptions import RedisError

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.ops.settings import NodeSettings
from keepline.room import commands, keys
from keepline.room.codec import BadRecord, decode_message, decode_record
from keepline.room.record import ChatMode, EndReason, Room
from signal_node.rooms.journal import NotStored
from signal_node.rooms.timely import NoSuchRoom
from tests.simulation.copies import copies_of
from tests.simulation.devices import Device, Outside
from tests.simulation.knowledge import Knowledge
from tests.simulation.loop import Process, SimulationLoop
from tests.simulation.network import WALL_AT_START, Redis
from tests.simulation.nodes import SimulatedNode, Surroundings
from tests.simulation.postgres import Persister, Postgres, SimulatedArchive, replay
from tests.simulation.trace import Trace
from tests.simulation.values import Stream

HEALING_SECONDS = 10.0
"""For how long after a loss of data Redis may show what is older than what was promised."""

SECRET = "the secret of the simulation, 32 characters or more"


@dataclass(frozen=True)
class Shape:
    """How large a run is, and which rules it has. Drawn from the seed."""

    nodes: int
    partitions: int
    rooms: int
    persisters: int
    text_idle_seconds: float
    clock_off_by: float

    @classmethod
    def drawn(cls, random: Random) -> Shape:
        return cls(
            nodes=random.choice((1, 2, 2, 3, 3)),
            partitions=random.choice((1, 2, 4)),
            rooms=random.randint(1, 4),
            persisters=random.randint(1, 2),
            text_idle_seconds=random.choice((6.0, 600.0, 600.0)),
            clock_off_by=random.choice((0.0, 0.0, 2.0, 60.0)),
        )


class World:
    """The cluster and its surroundings."""

    def __init__(self, seed: int, *, verbose: bool) -> None:
        self.random = Random(seed)
        self.dice_beside = Random(f"beside {seed}")
        self.loop = SimulationLoop(self.random)
        self.trace = Trace(self.loop.time, verbose=verbose)
        self.shape = Shape.drawn(self.random)
        self.redis = Redis(self.loop, self.random)
        self.knowledge = Knowledge(self.trace, partial(copies_of, self))
        self.postgres = Postgres(self.now_ms, self.knowledge.lives_again)
        self.nodes: list[SimulatedNode] = []
        self.buried: list[SimulatedNode] = []
        self.persisters: list[tuple[Process, Persister]] = []
        self._remains: list[set[asyncio.Task[Any]]] = []  # of what was killed; else it would be collected
        self.devices: dict[str, Device] = {}
        self.former: dict[str, list[Device]] = {}
        self.members: dict[str, tuple[str, str]] = {}
        self._tokens: dict[str, str] = {}
        self._names = 0
        self.redis.server.on_set = self._stored
        self._last_stored: dict[bytes, Room] = {}
        self._healing_until = 0.0
        self._writes: dict[tuple[str, int], str] = {}
        self._refused: dict[str, float] = {}  # rooms, and by how much Redis' clock was off then
        self._lossy = False
        self._around = Surroundings(
            self.loop,
            self.random,
            self.redis,
            SimulatedArchive(self.postgres, self.random),
            self.trace,
            self.shape.partitions,
            self._settings,
        )
        self._outside = Outside(
            self.loop,
            self.random,
            self.trace,
            self.knowledge,
            self._pick_node,
            self._token_of,
            self._has_all,
        )
        self.redis.server.execute([b"SET", keys.partitions().encode(), b"%d" % self.shape.partitions])

    def now_ms(self) -> int:
        """The true time."""
        return int((WALL_AT_START + self.loop.time()) * 1_000)

    def _has_all(self, room_id: str) -> bool:
        """Whether a client is shown all of a room's chat: Redis has it, or Postgres can be asked for it."""
        partition = keys.partition_of(room_id, self.shape.partitions)
        whole = self.redis.server.value(keys.epoch(partition).encode()) is not None
        return whole or not self.postgres.away

    def cluster_ms(self) -> int:
        """The time that deadlines go by. It is Redis', less its steps, unless nobody is left who knows of those."""
        clocks = [node.app.around.clock for node in self.nodes if node.accepting and not node.doubted]
        return clocks[0].now() if clocks else self.now_ms()

    def uuid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def _settings(self, name: str) -> NodeSettings:
        return NodeSettings(
            redis_url="redis://nowhere",
            node_id=name,
            auth_secret=SecretStr(SECRET),
            no_show_seconds=12,
            text_idle_seconds=self.shape.text_idle_seconds,
            text_warning_seconds=4,
            ending_seconds=3,
            limit_ping_seconds=4,
            limit_pong_seconds=4,
            limit_frames_per_second=1_000,
            limit_frames_burst=1_000,
        )

    def _token_of(self, user: str) -> str:
        token = self._tokens.get(user)
        if token is None:
            token = self._tokens[user] = jwt.encode({"sub": user, "exp": 4_000_000_000}, SECRET, "HS256")
        return token

    def _pick_node(self) -> SimulatedNode | None:
        """The load balancer: mostly a node that is ready, sometimes one that no longer is."""
        late = self.random.random() < 0.05
        found = [node for node in self.nodes if (node.reachable if late else node.ready)]
        return self.random.choice(found) if found else None

    # --- programs ---

    def start_node(self, name: str | None = None) -> SimulatedNode:
        """Start a node, under a new name or an old one."""
        if name is None:
            self._names += 1
            name = f"node-{self._names}"
        self.trace.note(name, "starts")
        off_by = self.random.choice((0.0, 1.0, -1.0)) * self.shape.clock_off_by
        node = SimulatedNode(name, self._around, clock_off_by=off_by)
        self.nodes.append(node)
        return node

    def kill_node(self, node: SimulatedNode) -> None:
        """End a node with SIGKILL."""
        if node.alive:
            self.trace.note(node.name, "is killed")
            self._remains.append(asyncio.all_tasks(self.loop))
            node.kill()
        self._retire(node)

    def _retire(self, node: SimulatedNode) -> None:
        if node in self.nodes:
            self.nodes.remove(node)
            self.buried.append(node)
            self.knowledge.count_copies()

    def sweep_up(self) -> None:
        """Notice nodes that have ended by themselves."""
        for node in [node for node in self.nodes if not node.alive]:
            self._retire(node)

    def start_persister(self) -> None:
        self._names += 1
        name = f"persister-{self._names}"
        process = Process(name)
        persister = Persister(
            name, self.postgres, self.redis.link(name), self.shape.partitions, self.random, self.trace
        )
        self.loop.spawn(process, persister.run())
        self.persisters.append((process, persister))

    async def replay_dead_letters(self) -> None:
        """An operator replays what persisters have put aside, as soon as Redis answers."""
        link = self.redis.link("operator")
        while True:
            try:
                await link.perform(lambda server: replay(server, self.shape.partitions))
            except RedisError:
                await asyncio.sleep(0.5)
            else:
                self.redis.drop_link(link)
                return

    def kill_persister(self) -> None:
        """End a persister with SIGKILL: what it has read stays unacknowledged."""
        process, persister = self.persisters.pop(0)
        self.trace.note(persister.name, "is killed")
        self.loop.freeze(process)
        self._remains.append(asyncio.all_tasks(self.loop))

    # --- people ---

    def open_room(self) -> None:
        """The app's backend opens a room for two new users, who then come."""
        room_id, users = self.uuid(), (self.uuid(), self.uuid())
        text = self.random.random() < 0.5
        mode = ChatMode.TEXT if text else ChatMode.VIDEO
        duration = self.random.choice((0, 0, 0, 15))
        self.members[room_id] = users
        self.loop.create_task(self._open(room_id, users, commands.Open(room_id, *users, mode, duration)))

    async def _open(self, room_id: str, users: tuple[str, str], command: commands.Open) -> None:
        for _ in range(20):
            node = self._pick_node()
            if node is not None:
                opening = node.spawn(self._opened(node, room_id, command))
                done, _ = await asyncio.wait([opening], timeout=3.0)
                if done and opening.result():
                    break
                self._refused[room_id] = self.redis.clock_off
            await asyncio.sleep(self.random.uniform(0.2, 1.0))
            room_id = self.uuid()
            command = commands.Open(room_id, *users, command.chat_mode, command.duration_seconds)
        else:
            return
        self.trace.note("backend", f"opened {room_id[:8]} {command.chat_mode} {command.duration_seconds} s")
        self.knowledge.opened(room_id, users)
        for number, user in enumerate(users, start=1):
            if self.random.random() < 0.93:
                self.loop.call_later(self.random.uniform(0.0, 3.0), self._come, user, room_id, number)

    async def _opened(self, node: SimulatedNode, room_id: str, command: commands.Open) -> bool:
        try:
            await node.app.rooms.timely.open(command, lambda: room_id in self._refused)
        except (NotStored, StoreUnavailable):
            return False
        return True

    def _come(self, user: str, room_id: str, number: int) -> None:
        host = f"192.0.2.{len(self.devices) + 1}"
        device = Device(user, f"{room_id[:4]}/{number}", host, self._outside)
        self.devices[user] = device
        device.want(room_id)
        device.start()

    def take_over(self, device: Device) -> None:
        """The user comes with another device, which knows nothing of the first one's session."""
        other = Device(device.user, device.name + "+", device.host, self._outside)
        for view in device.views.values():
            if view.wanted and not view.ended:
                other.want(view.room_id)
        self.devices[device.user] = other
        self.former.setdefault(device.user, []).append(device)
        device.gone = True
        self.trace.note(other.name, "takes over")
        other.start()

    def delete_room(self, room_id: str) -> None:
        """The app's backend ends a room."""
        node = self._pick_node()
        if node is not None:
            self.trace.note("backend", f"deletes {room_id[:8]}")
            node.spawn(self._delete(node, room_id))

    async def _delete(self, node: SimulatedNode, room_id: str) -> None:
        try:
            await node.app.rooms.timely.end(room_id, EndReason.DELETED, lambda: False)
        except (NoSuchRoom, NotStored, StoreUnavailable):
            return

    def write_lines(self) -> None:
        """Everybody who is in a room writes a line."""
        for device in self.devices.values():
            for room_id in [view.room_id for view in device.views.values() if view.joined]:
                device.write(room_id)

    # --- what there is ---

    def record(self, room_id: str) -> Room | None:
        """The record in Redis."""
        partition = keys.partition_of(room_id, self.shape.partitions)
        value = self.redis.server.value(keys.room(partition, room_id).encode())
        return decode_record(value) if isinstance(value, bytes) else None

    def lines(self, room_id: str) -> dict[int, str]:
        """The chat in Redis: texts by number."""
        partition = keys.partition_of(room_id, self.shape.partitions)
        stream = self.redis.server.value(keys.chat(partition, room_id).encode())
        if not isinstance(stream, Stream):
            return {}
        found = [decode_message(fields[b"message"]) for _, fields in stream.entries]
        return {message.seq: message.text for message in found}

    def _stored(self, key: bytes, value: bytes) -> None:
        if b":room:" not in key:
            return
        try:
            room = decode_record(value)
        except BadRecord as error:
            self.trace.violate(f"a record that cannot be read was stored: {error}")
            return
        if (
            self._writes.setdefault((room.room_id, room.version), room.write_id) != room.write_id
            and self._lossy
        ):
            self.knowledge.forked(room.room_id)
        before = self._last_stored.get(key)
        if before is None and self._refused.get(room.room_id) == self.redis.clock_off:
            self.trace.violate(f"{room.room_id[:8]} is opened after the backend was refused it")
        self._last_stored[key] = room
        sides = " ".join(f"{side.presence}@{side.node}" for side in room.sides)
        self.trace.note(
            "redis", f"{room.room_id[:8]} v{room.version} {room.status} {sides} lines={room.last_seq}"
        )
        if not self._lossy:
            self.knowledge.chat_stored(room.room_id, self.lines(room.room_id))
        healing = self.loop.time() < self._healing_until
        self.knowledge.stored(before, room, healing=healing)
        if before is not None and room.ended_at is None and not healing:
            self._check_sides(before, room)

    def _check_sides(self, before: Room, after: Room) -> None:
        """Nobody loses a side to nobody while its connection is open, but for a node that seemed dead."""
        for held, now in zip(before.sides, after.sides, strict=True):
            if held.session is None or now.connected or now.left:
                continue
            sure = [node for node in self.nodes if node.name == held.node and not node.doubted]
            if any(node.accepting and node.app.rooms.sessions.stays(held.session) for node in sure):
                self.trace.violate(f"{held.session}@{held.node} loses its side of {after.room_id[:8]}")

    def data_lost(self) -> None:
        """Redis has lost data: what it stores next does not follow from what it stored last.

        From then on a room's history may fork: a node that had missed the last change commits its own on what it knew.
        """
        self._lossy = True
        self._healing_until = self.loop.time() + HEALING_SECONDS
        self.knowledge.count_copies()
        self._last_stored = {
            key: decode_record(value)
            for key, value in self.redis.server.data.values.items()
            if b":room:" in key and isinstance(value, bytes)
        }


@contextmanager
def patched(world: World, *, verbose: bool) -> Iterator[None]:
    """Make all chance come from the seed, and the programs' log a part of the trace."""
    random = Random(world.random.getrandbits(64))
    state = global_random.getstate()
    global_random.seed(random.getrandbits(64))

    def token_hex(size: int | None = None) -> str:
        return random.randbytes(size or 32).hex()

    def log(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        _log_entry(world.trace, method, event)
        raise structlog.DropEvent

    level = 20 if verbose else 40
    structlog.configure(
        processors=[log],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        with (
            mock.patch.object(secrets, "token_hex", token_hex),
            mock.patch.object(secrets, "token_urlsafe", token_hex),
        ):
            yield
    finally:
        structlog.reset_defaults()
        global_random.setstate(state)


_FAULTS_OF_OURS = (
    "task_failed",
    "request_failed",
    "hello_failed",
    "join_failed",
    "commit_refused",
    "side_not_lost",
)


def _log_entry(trace: Trace, method: str, event: MutableMapping[str, Any]) -> None:
    name = event.pop("event")
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exception()
    what = f"{name} {event or ''} {'' if error is None else repr(error)}"
    if name in _FAULTS_OF_OURS:
        trace.violate(f"the log says {what}")
        trace.remark("".join(traceback.format_exception(error)))
    else:
        trace.remark(what)
