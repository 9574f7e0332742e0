"""The deadlines of a room: what happens in it without a command from a client.

Deadlines are derived from the record, so a lost timer can always be restored from it. `due` returns the next one, and
`state.apply` with a `Tick` carries it out.

When a node dies, all its clients reconnect to the others at once, and the last of them may be let in long after a grace
period. While the cluster is *crowded*, the grace period of sides that were lost with their node is therefore
`crowd_grace_ms`. The record does not store this, because the crowd comes and goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from keepline.room.record import ChatMode, Room, Side, Status
from keepline.room.rules import Rules

Kind = Literal["no_show", "grace", "ending", "duration", "idle", "inactivity"]


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """`kind` is due at `at`, in ms since 1970."""

    at: int
    kind: Kind


def due(room: Room, rules: Rules, *, crowded: bool = False) -> Deadline | None:
    """The earliest deadline of a room; None if it has ended or waits for nothing."""
    if room.status is Status.ENDED:
        return None
    return min(_all(room, rules, crowded), default=None)


def _all(room: Room, rules: Rules, crowded: bool) -> Iterator[Deadline]:
    for side in room.sides:
        if side.grace_until is not None:
            yield Deadline(_grace_end(side, side.grace_until, rules, crowded), "grace")
    if room.met_at is None:
        yield Deadline(room.waiting_from + rules.no_show_ms, "no_show")
    elif room.chat_mode is ChatMode.TEXT:
        yield _inactivity(room, room.met_at, rules)
    elif room.timed_from is not None:
        yield from _duration(room, room.timed_from, rules)


def _grace_end(side: Side, grace_until: int, rules: Rules, crowded: bool) -> int:
    if not (crowded and side.lost_with_node) or side.absent_since is None:
        return grace_until
    return max(grace_until, side.absent_since + rules.crowd_grace_ms)


def _inactivity(room: Room, met_at: int, rules: Rules) -> Deadline:
    if room.warning_started_at is not None:
        return Deadline(room.warning_started_at + rules.text_warning_ms, "inactivity")
    quiet_since = min(side.idle_from or met_at for side in room.sides)
    return Deadline(quiet_since + rules.text_idle_ms, "idle")


def _duration(room: Room, timed_from: int, rules: Rules) -> Iterator[Deadline]:
    if room.duration_seconds == 0:
        return
    ends_at = timed_from + room.duration_seconds * 1_000
    yield Deadline(ends_at, "duration")
    if not room.ending_warned:
        yield Deadline(ends_at - rules.ending_warning_ms, "ending")
