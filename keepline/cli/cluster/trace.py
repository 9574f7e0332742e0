"""`keepline trace ROOM`: one timeline of a call over all nodes, including dead ones.

Transitions come from the trace that every commit writes to Redis. Offers, answers and candidates come from the memory
of the nodes that relayed them, as far back as it goes. It never contains session descriptions or chat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keepline.cli.cluster.access import NodeSilent, Reach
from keepline.room import keys
from keepline.room.codec import BadRecord
from keepline.room.steps import SHORT, STEP_FIELD, SideStep, Step, decode_step


@dataclass(frozen=True, slots=True)
class Line:
    """One event. `at` is ms since 1970. `side` is None if it concerns the whole room."""

    at: int
    node: str
    side: int | None
    what: str
    detail: str
    version: int | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lines, oldest first, and the nodes whose memory is missing or incomplete, with the reason."""

    lines: list[Line]
    missing: dict[str, str]


async def timeline(reach: Reach, room_id: str) -> Timeline:
    """The history of a room. Raises RedisError, OSError."""
    partition = keys.partition_of(room_id, len(await reach.partitions()))
    entries: Any = await reach.redis.xrange(keys.trace(partition, room_id))
    lines = list(_steps(entries))
    nodes = await reach.nodes()
    answers = await reach.ask_all(nodes, f"/v1/node/rooms/{room_id}")
    missing = {name: str(answer) for name, answer in answers.items() if isinstance(answer, NodeSilent)}
    began = lines[0].at if lines else 0
    missing |= {
        node.name: "it started later" for node in nodes if node.beat and node.beat["started_at"] > began
    }
    known = {node.name for node in nodes}
    missing |= {line.node: "it is gone" for line in lines if line.node and line.node not in known}
    for name, answer in answers.items():
        if not isinstance(answer, NodeSilent):
            lines += [_moment(name, moment) for moment in answer["moments"]]
    return Timeline(sorted(lines, key=lambda line: line.at), missing)


def _steps(entries: list[Any]) -> Iterator[Line]:
    before: Step | None = None
    for entry_id, fields in entries:
        at = int(entry_id.partition(b"-")[0])
        try:
            step = decode_step(fields.get(STEP_FIELD, b""))
        except BadRecord as error:
            yield Line(at, "", None, "unreadable", str(error))
            continue
        side = _who(before, step)
        detail = "" if side is None else _side(step.sides[side - 1])
        if step.reason is not None:
            detail = step.reason
        elif before is None or before.mode != step.mode:
            detail = f"{step.mode} {detail}".strip()
        yield Line(at, step.by, side, step.kind, detail, step.version, step.status)
        before = step


def _who(before: Step | None, step: Step) -> int | None:
    """The side that a step changed; None for both or neither."""
    if before is None or step.reason is not None:
        return None
    changed = [number for number in (1, 2) if before.sides[number - 1] != step.sides[number - 1]]
    return changed[0] if len(changed) == 1 else None


def _side(side: SideStep) -> str:
    where = "" if side.node is None else f" on {side.node} by {side.session}"
    return side.presence + where


def _moment(node: str, moment: dict[str, Any]) -> Line:
    detail = f"by {moment['session'][:SHORT]}"
    if moment["count"] > 1:
        detail += f", {moment['count']} within {moment['until'] - moment['at']} ms"
    return Line(moment["at"], node, moment["side"], moment["what"], detail)
