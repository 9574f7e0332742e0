"""`keepline status`: the nodes with their load, the rooms, the persisters' backlog, and all problems."""

import time
from dataclasses import asdict
from typing import Any

from redis.exceptions import RedisError
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from keepline.cli.base.time_text import age
from keepline.cli.cluster.access import ListedNode, NodeSilent, Reach, redis_is_away
from keepline.cli.cluster.persisters import (
    living_persisters,
    nobody_writes,
    problems_of_persisters,
    who_is_late,
)
from keepline.cli.cluster.streams import lag
from keepline.room.presence import Presence

_ROOMS = "SELECT status, chat_mode, count(*) AS rooms FROM active_rooms WHERE status <> 'ended' GROUP BY 1, 2"
SLOW_MS = 10_000
"""An event that is older than this and not in Postgres is a problem."""


async def status(reach: Reach) -> dict[str, Any]:
    """The current state of the cluster as JSON types. Never raises: whatever cannot be read is listed as a problem."""
    problems: list[str] = []
    nodes: list[dict[str, Any]] = []
    events: dict[str, Any] | None = None
    persisters: dict[str, Presence] = {}
    try:
        found = await reach.nodes()
        health = await reach.ask_all(found, "/healthz")
        nodes = [_node(node, health[node.name]) for node in found]
        events = asdict(await lag(reach))
        persisters = await living_persisters(reach)
    except (RedisError, OSError) as error:
        problems.append(redis_is_away(error))
    rooms = await _rooms(reach, problems)
    problems += _problems(nodes, events, persisters) + problems_of_persisters(persisters)
    return {
        "at": round(time.time() * 1_000),
        "nodes": nodes,
        "rooms": rooms,
        "events": events,
        "persisters": {name: {"error": one.error} for name, one in sorted(persisters.items())},
        "problems": problems,
    }


def _node(node: ListedNode, health: Any) -> dict[str, Any]:
    beat = node.beat or {}
    silent = isinstance(health, NodeSilent)
    return {
        "node": node.name,
        "state": _state(node, health),
        "sessions": beat.get("sessions"),
        "rooms": beat.get("rooms"),
        "journal": beat.get("journal"),
        "started_at": beat.get("started_at"),
        "turn_down": beat.get("turn_down", {}),
        "crowded": beat.get("crowded", False),
        "graces_extended": beat.get("graces_extended", 0),
        "ops": node.url,
        "reasons": {"ops": str(health)} if silent else health["reasons"],
        "dependencies": {}
        if silent
        else {name: found["status"] for name, found in health["dependencies"].items()},
    }


def _state(node: ListedNode, health: Any) -> str:
    """The state of a node in one word, the worst that applies."""
    if node.beat is None:
        return "dead"
    if node.beat["state"] != "ready":
        return str(node.beat["state"])
    if isinstance(health, NodeSilent):
        return "silent"
    if not health["ready"]:
        return "not ready"
    return "ready" if health["status"] == "ok" else "degraded"


async def _rooms(reach: Reach, problems: list[str]) -> list[dict[str, Any]] | None:
    """Number of rooms by status and mode, from Postgres; None if it does not answer."""
    if reach.pool is None:
        return None
    from keepline.ops import postgres

    try:
        return [dict(row) for row in await reach.pool.fetch(_ROOMS)]
    except postgres.ERRORS as error:
        problems.append(f"cannot reach Postgres: {reach.pool.in_words(error)}")
        return None


def _problems(
    nodes: list[dict[str, Any]], events: dict[str, Any] | None, persisters: dict[str, Presence]
) -> list[str]:
    problems = []
    for node in nodes:
        why = "; ".join(node["reasons"].values())
        down = [name for name, found in node["dependencies"].items() if found != "ok"]
        if node["state"] == "dead":
            problems.append(f"{node['node']} is dead: the other nodes are releasing its sides")
        elif why:
            problems.append(f"{node['node']}: {why}")
        if down:
            problems.append(f"{node['node']} has a problem with {', '.join(down)}")
        if node["crowded"]:
            problems.append(f"{node['node']} is crowded: many clients are waiting to log in")
        if node["graces_extended"]:
            problems.append(
                f"{node['graces_extended']} calls wait longer than usual for clients of a node that died"
            )
        problems += [
            f"{node['node']} cannot allocate a relay on {url}: {why}"
            for url, why in node["turn_down"].items()
        ]
    if events is not None:
        if not nodes:
            problems.append("no node is running")
        absent = nobody_writes(persisters, events["unread"] + events["pending"])
        if absent is not None:
            problems.append(absent)
        elif events["oldest_ms"] > SLOW_MS:
            problems.append(f"Postgres is {age(events['oldest_ms'])} behind: {who_is_late(persisters)}")
        if events["dead_letters"]:
            problems.append(f"{events['dead_letters']} dead letters: keepline dead-letters list")
    return problems


def render(found: dict[str, Any]) -> RenderableType:
    """The status in a form for people."""
    parts: list[RenderableType] = [_table(found)]
    if found["rooms"] is not None:
        counts = [f"{row['rooms']} {row['chat_mode']} {row['status']}" for row in found["rooms"]]
        parts.append("Rooms    " + (", ".join(counts) or "none"))
    if found["events"] is not None:
        events = found["events"]
        waiting = events["unread"] + events["pending"]
        oldest = f", the oldest for {age(events['oldest_ms'])}" if waiting else ""
        parts.append(f"Events   {waiting} wait for Postgres{oldest}; {events['dead_letters']} dead letters")
    parts += [f"[bold red]![/] {escape(problem)}" for problem in found["problems"]]
    return Group(*parts)


_STYLES = {"ready": "green", "dead": "red", "silent": "red", "not ready": "red"}


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("node", "state", "sessions", "rooms", "waiting", "up for", "ops"):
        table.add_column(name, justify="right" if name in ("sessions", "rooms", "waiting") else "left")
    for node in found["nodes"]:
        up = None if node["started_at"] is None else found["at"] - node["started_at"]
        table.add_row(
            escape(node["node"]),
            f"[{_STYLES.get(node['state'], 'yellow')}]{node['state']}[/]",
            *("" if node[name] is None else str(node[name]) for name in ("sessions", "rooms", "journal")),
            "" if up is None else age(up),
            escape(node["ops"] or ""),
        )
    return table
