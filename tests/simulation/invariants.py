"""What must hold at every moment, and what must hold when the faults are over and time has passed."""

from __future__ import annotations

from collections.abc import Iterator

from keepline.room import keys
from keepline.room.deadlines import due
from keepline.room.record import Room, SideNumber, Status, other
from keepline.room.rules import Rules
from signal_node.wiring.settings import rules_of
from tests.simulation.devices import Device
from tests.simulation.knowledge import Promise
from tests.simulation.nodes import SimulatedNode
from tests.simulation.values import SortedSet
from tests.simulation.world import World

OVERDUE_MS = 9_000
"""How late a deadline may be while all is well: the lease of who took it and died, and a second for each stand-in."""

UNTAKEN_MS = 4_000
"""For how long one that is due may be there and nobody take it while a node is well: that stands in for all others."""

TWICE_SECONDS = 12.0
"""For how long two sessions may take themselves for the holder of one side while all is well."""

SIDES: tuple[SideNumber, ...] = (1, 2)


class Watch:
    """Looks at the whole world now and then. `calm_since` is since when nothing is wrong with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rules: Rules = rules_of(world._settings("any"))
        self._twice: dict[tuple[str, int], float] = {}
        self._waiting: dict[tuple[bytes, float], int] = {}
        self._crowded_at = float("-inf")

    def look(self, calm_since: float | None) -> None:
        """Check what must hold at every moment."""
        self._deadlines(calm_since)
        self._untaken()
        self._sides(calm_since)

    def _deadlines(self, calm_since: float | None) -> None:
        world = self._world
        now = world.cluster_ms()
        crowded = self._crowded()
        if calm_since is None or world.loop.time() - calm_since < OVERDUE_MS / 1_000:
            return
        for room_id in world.knowledge.rooms:
            room = world.record(room_id)
            deadline = None if room is None else due(room, self._rules, crowded=crowded)
            if deadline is not None and now - deadline.at > OVERDUE_MS:
                late = (now - deadline.at) / 1_000
                world.trace.violate(f"{deadline.kind} of {room_id[:8]} is {late:.1f} s late")

    def _crowded(self) -> bool:
        """Whether a node took itself for crowded so lately that rooms may have waited for it until now."""
        now = self._world.loop.time()
        if any(node.accepting and node.app.cluster.view.crowded() for node in self._world.nodes):
            self._crowded_at = now
        return now - self._crowded_at < OVERDUE_MS / 1_000

    def _untaken(self) -> None:
        world = self._world
        now = world.now_ms()
        well = any(node.accepting and not node.doubted for node in world.nodes)
        # After a cold start a deadline may be long past when it is set.
        self._waiting = (
            {one: self._waiting.get(one, now) for one in self._due(world.cluster_ms())} if well else {}
        )
        for (room_id, _), since in self._waiting.items():
            if now - since > UNTAKEN_MS:
                world.trace.violate(f"nobody takes what is due in {room_id.decode()[:8]}")

    def _due(self, now: int) -> Iterator[tuple[bytes, float]]:
        """The rooms in which something is due, and since when, as Redis has it."""
        for partition in range(self._world.shape.partitions):
            found = self._world.redis.server.value(keys.deadlines(partition).encode())
            if isinstance(found, SortedSet):
                yield from ((room_id, at) for room_id, at in found.items() if at <= now)

    def _sides(self, calm_since: float | None) -> None:
        """Two sessions may both believe to hold a side only until the news has come round."""
        world = self._world
        now = world.loop.time()
        believed: dict[tuple[str, int], int] = {}
        for node in world.nodes:
            if node.accepting:
                for connection in node.app.connections:
                    if not connection.session.closed():
                        for room_id, held in connection.session.rooms.held.items():
                            believed[room_id, held] = believed.get((room_id, held), 0) + 1
        twice = {place for place, count in believed.items() if count > 1}
        self._twice = {place: self._twice.get(place, now) for place in twice}
        for (room_id, number), since in self._twice.items():
            if calm_since is not None and now - max(since, calm_since) > TWICE_SECONDS:
                world.trace.violate(f"side {number} of {room_id[:8]} is held twice")


def at_rest(world: World) -> Iterator[str]:
    """What is wrong although there has been no fault for long."""
    for promise in world.knowledge.rooms.values():
        if not promise.written_off:
            yield from _room(world, promise)
    for node in world.nodes:
        yield from _node(world, node)
    yield from _leftovers(world)


def _room(world: World, promise: Promise) -> Iterator[str]:
    short = promise.room_id[:8]
    room = world.record(promise.room_id)
    row = world.postgres.rows.get(promise.room_id)
    if room is None:
        yield f"{short} is not in Redis"
        return
    if row is None:
        yield f"{short} is not in Postgres"
        return
    ended = room.status is Status.ENDED
    if promise.ended and not ended:
        yield f"{short} has ended and is live in Redis"
    if (row.room.version, row.room.status) != (room.version, room.status):
        yield (
            f"{short} is v{room.version} {room.status} in Redis, "
            f"v{row.room.version} {row.room.status} in Postgres"
        )
    in_redis, in_postgres = (
        world.lines(promise.room_id),
        {seq: line["text"] for seq, line in row.messages.items()},
    )
    for seq, text in promise.lines.items():
        if seq in promise.contested:
            continue
        for where, found in (("Redis", in_redis), ("Postgres", in_postgres)):
            if where == "Redis" and seq in promise.in_postgres_only:
                continue
            if found.get(seq) != text:
                yield f"line {seq} of {short} is {found.get(seq)!r} in {where}"
    yield from _holders(world, room)
    for number, user in zip(SIDES, promise.users, strict=True):
        device = world.devices.get(user)
        if device is not None:
            yield from _view(world, device, room, number)
            yield from _chat(device, promise)


def _holders(world: World, room: Room) -> Iterator[str]:
    """Caches and sessions agree with the record."""
    short = room.room_id[:8]
    for number in SIDES:
        side = room.side(number)
        believers = [
            f"{connection.session.id}@{node.name}"
            for node in world.nodes
            for connection in node.app.connections
            if not connection.session.closed() and connection.session.rooms.held.get(room.room_id) == number
        ]
        expected = [] if side.session is None else [f"{side.session}@{side.node}"]
        if believers != expected:
            yield f"side {number} of {short} is held by {expected} in Redis, by {believers} in sessions"
    for node in world.nodes:
        cached = node.cached().get(room.room_id)
        if cached is not None and cached != room:
            yield f"{short} is v{cached.version} in the cache of {node.name}, v{room.version} in Redis"
        holds = any(side.node == node.name for side in room.sides)
        if holds is not (cached is not None):
            yield f"{short} is {'not ' if holds else ''}in the cache of {node.name}"


def _view(world: World, device: Device, room: Room, number: SideNumber) -> Iterator[str]:
    view = device.views.get(room.room_id)
    if view is None or device.gone or device.wire is None:
        others = world.former.get(device.user, [])
        if room.side(number).connected and all(room.side(number).session != one.session for one in others):
            yield f"{device.name} is not there and holds side {number}"
        return
    if room.status is Status.ENDED:
        if view.wanted and not view.ended:
            yield f"{device.name} does not know that the room has ended"
        return
    if view.ended:
        yield f"{device.name} was told that the room has ended"
    if view.wanted and (not view.joined or room.side(number).session != device.session):
        yield f"{device.name} ({device.session}) wants to be in, Redis has {room.side(number).session}"
    presence = room.side(other(number)).presence
    if view.joined and view.peer != presence:
        yield f"{device.name} takes its peer for {view.peer}, which is {presence}"


def _chat(device: Device, promise: Promise) -> Iterator[str]:
    """Who is in a room has been shown all of its chat."""
    view = device.views.get(promise.room_id)
    if view is not None and view.joined and not view.in_part:
        missing = set(promise.lines) - promise.contested - promise.in_postgres_only - view.shown
        if missing:
            yield f"{device.name} was not shown lines {sorted(missing)} of {promise.room_id[:8]}"


def _node(world: World, node: SimulatedNode) -> Iterator[str]:
    """Nothing is left over in a node."""
    app = node.app
    if not node.ready:
        yield f"{node.name} is not ready"
    left = {
        "waiting changes": app.rooms.cache.waiting,
        "dirty rooms": len(app.rooms.cache.committer),
        "requests": len(app.work),
        "frames to send": app.signals.outbox.queued,
        "rooms to compare": len(app.rooms.reconciler.suspicions),
    }
    for what, count in left.items():
        if count:
            yield f"{node.name} has {count} {what}"
    users = {connection.session.user for connection in app.connections}
    if strangers := set(app.users._held) - users:
        yield f"{node.name} holds users who are not there: {sorted(strangers)}"


def _leftovers(world: World) -> Iterator[str]:
    """Nothing is left over in Redis."""
    names = {node.name.encode() for node in world.nodes}
    data = world.redis.server.data.values
    known = data.get(keys.nodes().encode())
    if isinstance(known, SortedSet) and set(known) != names:
        yield f"Redis knows the nodes {sorted(known)}, there are {sorted(names)}"
    for partition in range(world.shape.partitions):
        yield from _held(world, partition, names)
        deadlines = data.get(keys.deadlines(partition).encode())
        for room_id in deadlines if isinstance(deadlines, SortedSet) else ():
            room = world.record(room_id.decode())
            if room is None or room.status is Status.ENDED:
                yield f"a deadline of {room_id.decode()[:8]} is left over"


def _held(world: World, partition: int, names: set[bytes]) -> Iterator[str]:
    prefix = keys.held(partition, "").encode()
    for key, members in world.redis.server.data.values.items():
        if not key.startswith(prefix) or not isinstance(members, set):
            continue
        name = key.removeprefix(prefix)
        if name not in names:
            yield f"{key.decode()} is of a node that is gone"
        for room_id in members:
            room = world.record(room_id.decode())
            if room is None or all(side.node != name.decode() for side in room.sides):
                yield f"{key.decode()} has {room_id.decode()[:8]}, which is not held there"
