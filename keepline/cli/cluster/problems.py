"""Finds the problems in a survey. Pure. Each check is for one kind of problem and its repair."""

from __future__ import annotations

from collections.abc import Iterator

from keepline.cli.base.time_text import age
from keepline.cli.cluster.findings import Finding
from keepline.cli.cluster.ops_port import HTTP_SECONDS
from keepline.cli.cluster.persisters import nobody_writes, problems_of_persisters, who_is_late
from keepline.cli.cluster.survey import STUCK_MS, Survey
from keepline.room.deadlines import due
from keepline.room.record import Room, Side, Status
from keepline.room.rules import Rules

OVERDUE_MS = 15_000
"""A deadline that is overdue by this much is not just late."""

SKEW_MS = 1_000
PUBSUB_BYTES = 8 * 1024 * 1024
"""Minimum output buffer that Redis should allow for a node that is slow to read its inbox."""

_ANY_RULES = Rules()
"""Any rules will do: whether a room waits for a deadline does not depend on the durations."""


def disorders(survey: Survey) -> list[Finding]:
    """All problems, most urgent first."""
    checks = (_nodes, _redis, _ghosts, _users, _caches, _held, _deadlines, _indexes, _postgres, _events)
    return [finding for check in checks for finding in check(survey)]


def _nodes(survey: Survey) -> Iterator[Finding]:
    if not survey.live:
        advice = "start a node: nothing can be repaired without one"
        yield Finding("no-node", "cluster", "no node is running", advice=advice)
    for name, why in survey.silent.items():
        yield Finding("silent-node", name, f"is alive, but its ops port does not answer: {why}", advice=_OPS)
    for node in survey.nodes:
        if node.cut_off is not None:
            yield Finding("cut-off", node.name, f"is alive, but {node.cut_off}", advice=_WRITES)
    for name, ahead in survey.nodes_ahead.items():
        if not -SKEW_MS < ahead < SKEW_MS + HTTP_SECONDS * 1_000:
            what = f"its time differs from that of Redis by {ahead / 1_000:+.1f} s"
            yield Finding("clock", name, what, advice="synchronise its clock (NTP)")
    if survey.correction:
        what = f"its clock was set; the cluster's time differs by {survey.correction / 1_000:+.1f} s and is catching up"
        yield Finding("clock", "Redis", what, advice="synchronise its clock (NTP)")
    if abs(survey.own_ahead) > SKEW_MS:
        what = f"the clocks of this host and of Redis differ by {survey.own_ahead / 1_000:+.1f} s"
        yield Finding(
            "clock", "Redis", what, advice="synchronise both clocks (NTP): tokens and TURN depend on them"
        )


_WRITES = "see why Redis refuses writes: KeeplineRedisUnreachable in docs/operations/alerts.md"
_OPS = (
    "check KEEPLINE_OPS_HOST and KEEPLINE_OPS_ADVERTISE: this command cannot see what the node has in memory"
)


def _redis(survey: Survey) -> Iterator[Finding]:
    for partition in survey.lost_partitions:
        what = "has lost its data and has not been recovered"
        yield Finding("lost-partition", f"partition {partition:02d}", what, advice="see the nodes' logs")
    for settings in survey.servers:
        yield from _settings(settings)
    for room_id, why in survey.unreadable.items():
        what = f"its record cannot be read: {why}"
        yield Finding("unreadable", room_id, what, advice="finish upgrading the nodes")


def _settings(settings: dict[str, str]) -> Iterator[Finding]:
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy noeviction"
        yield Finding(
            "redis-setting", "Redis", f"may evict rooms: maxmemory-policy is {policy}", advice=advice
        )
    if settings.get("appendonly", "yes") != "yes":
        advice = "CONFIG SET appendonly yes"
        yield Finding(
            "redis-setting",
            "Redis",
            "loses what is not yet in Postgres when it restarts: the append-only file is off",
            advice=advice,
        )
    words = settings.get("client-output-buffer-limit", "").split()
    hard = int(words[words.index("pubsub") + 1]) if "pubsub" in words else 0
    if 0 < hard < PUBSUB_BYTES:
        what = f"may disconnect nodes that are slow for a moment: client-output-buffer-limit pubsub is {hard} bytes"
        advice = "CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60'"
        yield Finding("redis-setting", "Redis", what, advice=advice)


def _ghosts(survey: Survey) -> Iterator[Finding]:
    """Sides that are held by sessions that do not exist."""
    for room in survey.rooms.values():
        for number, side in enumerate(room.sides, start=1):
            if side.session is None or side.node is None:
                continue
            why = _why_gone(survey, side.node, side.session)
            if why is not None:
                yield Finding(
                    "ghost",
                    room.room_id,
                    f"side {number} is held by session {side.session}, {why}",
                    (side.session,),
                    {"type": "side", "room": room.room_id, "side": number, "session": side.session},
                    _asked(survey, side),
                )


def _asked(survey: Survey, side: Side) -> str | None:
    """The node to ask about a side: the one that holds it while that is alive, because only it knows."""
    return side.node if side.node in survey.live else None


def _why_gone(survey: Survey, node: str, session: str) -> str | None:
    if node not in survey.live:
        return f"and its node {node} is dead"
    look = survey.looks.get(node)
    return None if look is None or session in look["sessions"] else f"which {node} does not have"


def _users(survey: Survey) -> Iterator[Finding]:
    for user, (node, session) in survey.holders.items():
        why = _why_gone(survey, node, session)
        if why is not None:
            yield Finding(
                "ghost-user",
                f"user {user}",
                f"is held by session {session}, {why}",
                (session,),
                {"type": "user", "user": user, "node": node, "session": session},
                node if node in survey.live else None,
            )


def _caches(survey: Survey) -> Iterator[Finding]:
    """Rooms whose version on a node differs from that in Redis, although the node has no pending change."""
    for node, look in survey.looks.items():
        for room_id, cached in look["rooms"].items():
            room = survey.rooms.get(room_id)
            version = None if room is None else room.version
            if cached["settled"] and cached["version"] != version and room_id not in survey.unreadable:
                there = "Redis does not have it" if version is None else f"Redis version {version}"
                yield Finding(
                    "split-cache",
                    room_id,
                    f"{node} has version {cached['version']}, {there}",
                    (node, cached["version"], version),
                    {"type": "cache", "room": room_id},
                    node,
                )


def _held(survey: Survey) -> Iterator[Finding]:
    """Wrong entries in the index of each node's rooms, on which the cleanup after its death relies."""
    wanted = {
        (side.node, room.room_id) for room in _live(survey) for side in room.sides if side.node is not None
    }
    for node, room_id in survey.held - wanted:
        if room_id not in survey.unreadable:
            what = f"is in the held set of {node}, and is not"
            yield Finding(
                "orphan-held", room_id, what, (node,), {"type": "held", "room": room_id, "node": node}
            )
    for node, room_id in wanted - survey.held:
        what = f"is held by {node}, but is missing from its held set: if the node died, the side would not be released"
        yield Finding("missing-held", room_id, what, (node,), {"type": "held", "room": room_id, "node": node})


def _deadlines(survey: Survey) -> Iterator[Finding]:
    waiting = {room.room_id: room for room in _live(survey) if due(room, _ANY_RULES) is not None}
    for room_id in waiting.keys() - survey.deadlines.keys():
        what = f"waits for something but has no deadline, in version {waiting[room_id].version}"
        proof = (waiting[room_id].version,)
        yield Finding("missing-deadline", room_id, what, proof, {"type": "deadline", "room": room_id})
    for room_id, at in survey.deadlines.items():
        if room_id in survey.unreadable:
            continue
        if room_id not in waiting:
            what = "has a deadline but waits for nothing"
            yield Finding("orphan-deadline", room_id, what, (), {"type": "deadline", "room": room_id})
        elif survey.redis_now - at > OVERDUE_MS:
            what = "has a deadline that no node carries out: is any node ready?"
            yield Finding("overdue", room_id, what, advice="see the nodes' logs for deadline_not_met")


def _indexes(survey: Survey) -> Iterator[Finding]:
    live = {room.room_id for room in _live(survey)} | survey.unreadable.keys()
    for user, room_ids in survey.indexes.items():
        gone = [room_id for room_id in room_ids if room_id not in live]
        if gone:
            what = f"has {len(gone)} rooms in the index that are gone"
            yield Finding("orphan-index", f"user {user}", what, tuple(gone), {"type": "index", "user": user})


def _postgres(survey: Survey) -> Iterator[Finding]:
    """Rooms on which Redis and Postgres disagree, unless events about them are on their way."""
    if survey.postgres_problem is not None:
        what = f"cannot be asked: {survey.postgres_problem}"
        yield Finding(
            "postgres", "Postgres", what, advice="calls go on without it; start it, or check DATABASE_URL"
        )
    if survey.rows is None or survey.lag.unread or survey.lag.pending:
        return
    for room_id, room in survey.rooms.items():
        row = survey.rows.get(room_id)
        behind = row is not None and row.version < room.version
        if behind or (row is None and room.status is not Status.ENDED):
            kind = "ended-in-redis-only" if room.status is Status.ENDED else "split-postgres"
            has = "does not have it" if row is None else f"has version {row.version}, {row.status}"
            what = f"Redis has version {room.version}, {room.status.value}; Postgres {has}"
            yield Finding(kind, room_id, what, (room.version,), {"type": "row", "room": room_id})
    for room_id, row in survey.rows.items():
        held = survey.rooms.get(room_id)
        missing = held is None and row.status != "ended" and room_id not in survey.unreadable
        if missing or (held is not None and held.version < row.version):
            has = "does not have it" if held is None else f"has version {held.version}"
            what = f"Postgres has version {row.version}, {row.status}; Redis {has}"
            yield Finding("lost-in-redis", room_id, what, (row.version,), {"type": "lost", "room": room_id})


def _events(survey: Survey) -> Iterator[Finding]:
    for name, entries in survey.stuck.items():
        what = f"has read {entries} events and written none of them for {age(STUCK_MS)}"
        advice = "start a persister: it claims the entries of a dead one"
        yield Finding("stuck-events", f"persister {name}", what, advice=advice)
    if survey.lag.oldest_ms > STUCK_MS:
        what = f"Postgres is {age(survey.lag.oldest_ms)} behind"
        yield Finding(
            "lag",
            "events",
            what,
            (),
            advice=f"{who_is_late(survey.persisters)} see docs/operations/failures.md",
        )
    absent = nobody_writes(survey.persisters, survey.lag.unread + survey.lag.pending)
    if absent is not None:
        yield Finding("no-persister", "persisters", absent, advice="start a persister")
    for problem in problems_of_persisters(survey.persisters):
        yield Finding("persister", "persisters", problem, advice="see docs/operations/failures.md")
    if survey.lag.dead_letters:
        what = f"{survey.lag.dead_letters} events could not be written"
        yield Finding("dead-letters", "events", what, advice="keepline dead-letters list")


def _live(survey: Survey) -> Iterator[Room]:
    return (room for room in survey.rooms.values() if room.status is not Status.ENDED)
