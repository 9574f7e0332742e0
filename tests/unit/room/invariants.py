"""What is true of every room that `apply` can make, and of every step from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from keepline.room.commands import (
    AcceptVideo,
    Command,
    Join,
    Leave,
    Lose,
    Open,
    Post,
    RequestVideo,
    Revive,
    Tick,
)
from keepline.room.deadlines import Deadline, due
from keepline.room.effects import Effect, Posted, RoomEnded
from keepline.room.record import ChatMode, Presence, Room, Side, Status, other
from keepline.room.rules import Rules

MOST_TICKS = 4
"""The longest way to the end through deadlines alone: ending, duration; or idle, inactivity; and a spare."""


def violations(room: Room) -> list[str]:
    """What is wrong with a record, in words; empty for a legal one."""
    return [*_of_the_status(room), *_of_the_end(room), *_of_the_clocks(room), *_of_video_and_text(room)] + [
        f"side {number}: {wrong}"
        for number, side in enumerate(room.sides, 1)
        for wrong in _of_a_side(room, side)
    ]


def _of_the_status(room: Room) -> Iterator[str]:
    running = [side.grace_until for side in room.sides if side.grace_until is not None]
    expected = Status.GRACE if running else Status.ACTIVE
    if room.ended_at is not None:
        expected = Status.ENDED
    if room.status is not expected:
        yield f"the status is {room.status}, its fields say {expected}"
    if room.grace_period_expires != min(running, default=None):
        yield "grace_period_expires is not the earliest of the sides"
    if room.side_1.user == room.side_2.user:
        yield "both sides are the same user"


def _of_the_end(room: Room) -> Iterator[str]:
    if (room.ended_at is None) is not (room.ended_reason is None):
        yield "ended without a reason, or a reason without an end"
    if room.ended_at is None:
        return
    if any(side.connected or side.grace_until is not None for side in room.sides):
        yield "ended, but a side is held or awaited"
    if room.mode_requested_by is not None or room.warning_started_at is not None:
        yield "ended, but a request or a warning stands"


def _of_the_clocks(room: Room) -> Iterator[str]:
    if room.version < 1 or room.last_seq < 0 or room.updated_at < room.opened_at:
        yield "a count or updated_at is below its start"
    if room.met_at is None and room.side_1.connected and room.side_2.connected:
        yield "both are there and have not met"
    if room.met_at is not None and not (room.side_1.came and room.side_2.came):
        yield "met without having come"
    if room.met_at is not None and None in (room.side_1.idle_from, room.side_2.idle_from):
        yield "met, but an idle clock stands still"
    if room.started_at != (room.opened_at if room.met_at is None else room.met_at):
        yield "started_at is neither the meeting nor the opening"
    if (room.timed_from is not None) is not (room.met_at is not None and room.chat_mode is ChatMode.VIDEO):
        yield "the clock of the call runs if and only if two have met in a video room"
    if room.ending_warned and (room.timed_from is None or room.duration_seconds == 0):
        yield "warned of the end of a call that has none"


def _of_video_and_text(room: Room) -> Iterator[str]:
    if room.chat_mode is ChatMode.TEXT and any(side.grace_until is not None for side in room.sides):
        yield "a grace period in a text room"
    if room.chat_mode is ChatMode.VIDEO and room.mode_requested_by is not None:
        yield "video is asked for in a video room"
    if room.mode_requested_by is not None and not (room.side_1.connected and room.side_2.connected):
        yield "a request stands although one of the two is not there"
    if room.warning_started_at is not None and (room.chat_mode is ChatMode.VIDEO or room.met_at is None):
        yield "an inactivity warning outside a text room of two"


def _of_a_side(room: Room, side: Side) -> Iterator[str]:
    if (side.node is None) is not (side.session is None):
        yield "a node without a session, or the other way round"
    if side.connected and not side.came:
        yield "connected without having come"
    if side.left and (side.connected or not side.came):
        yield "left, but there or never come"
    if side.connected and (side.absent_since is not None or side.grace_until is not None):
        yield "connected, but absent or awaited"
    if side.came and not side.connected and side.absent_since is None:
        yield "came and is gone, nobody knows since when"
    if side.lost_with_node and (side.connected or room.status is Status.ENDED):
        yield "lost with its node, but there, or of a room that has ended"
    if room.status is not Status.ENDED and side.came and not side.connected:
        if room.chat_mode is ChatMode.VIDEO and side.grace_until is None:
            yield "absent from a video room without a grace period"
        if room.chat_mode is ChatMode.TEXT and side.presence not in (Presence.AWAY, Presence.LEFT):
            yield "absent from a text room, but neither away nor left"


def step_violations(
    before: Room | None, command: Command, now: int, after: Room, told: Sequence[Effect]
) -> list[str]:
    """What is wrong with a step that `apply` allowed; empty for a right one."""
    if before is None:
        return (
            [] if isinstance(command, Open) and after.version == 1 and not told else ["a room out of nothing"]
        )
    if after is before:
        return ["nothing changed, but something is told"] if told else []
    return [
        *_of_the_version(before, command, after, told),
        *_of_what_may_change(before, command, now, after, told),
    ]


def _of_the_version(before: Room, command: Command, after: Room, told: Sequence[Effect]) -> Iterator[str]:
    # One tick may carry out several deadlines; each tells exactly one thing.
    transitions = len(told) if isinstance(command, Tick) else 1
    if after.version != before.version + transitions:
        yield f"version {before.version} became {after.version} in {transitions} transition(s)"
    stood_still = replace(after, version=before.version, updated_at=before.updated_at) == before
    if stood_still and not isinstance(command, Revive):  # always news: every copy in memory is gone
        yield "a new version in which nothing is new"
    if after.updated_at < before.updated_at:
        yield "updated_at went back"


def _of_what_may_change(
    before: Room, command: Command, now: int, after: Room, told: Sequence[Effect]
) -> Iterator[str]:
    if before.status is Status.ENDED:
        yield "an ended room changed"
    if (after.status is Status.ENDED) is not any(isinstance(effect, RoomEnded) for effect in told):
        yield "ended and nobody is told, or the other way round"
    if isinstance(command, Leave | Lose) and before.side(command.side).session != command.session:
        yield "a session stepped out of a side that it did not hold"
    if isinstance(command, Join) and after.side(command.side).session != command.session:
        yield "a session joined and does not hold its side"
    if isinstance(command, Join) and command.only_if_free and before.side(command.side).connected:
        yield "a session took a side that was not free"
    posted = [effect.message for effect in told if isinstance(effect, Posted)]
    if [message.seq for message in posted] != list(range(before.last_seq + 1, after.last_seq + 1)):
        yield "the messages do not count on without a gap"
    if bool(posted) is not isinstance(command, Post) or any(message.at != now for message in posted):
        yield "a message from nowhere, or from another time"
    if (before.met_at is not None and after.met_at != before.met_at) or after.opened_at != before.opened_at:
        yield "what happened once was moved in time"
    if before.met_at != after.met_at and not (after.side_1.connected and after.side_2.connected):
        yield "met without being there together"
    if before.chat_mode is not after.chat_mode and not _agreed_on_video(before, command):
        yield "the mode changed without consent"
    kept = ("room_id", "duration_seconds", "write_id", "extra")
    if any(getattr(before, name) != getattr(after, name) for name in kept):
        yield "a transition touched what it must only carry along"
    if any(
        old.user != new.user or (old.came and not new.came)
        for old, new in zip(before.sides, after.sides, strict=True)
    ):
        yield "a side changed its user or forgot that it had come"


def _agreed_on_video(before: Room, command: Command) -> bool:
    if not isinstance(command, AcceptVideo | RequestVideo):
        return False
    return before.mode_requested_by == other(command.side)


def deadline_violations(room: Room, rules: Rules) -> list[str]:
    """What is wrong with the deadline of a legal room."""
    deadline = due(room, rules)
    if room.status is Status.ENDED:
        return [] if deadline is None else ["an ended room waits for something"]
    call_without_limit = (
        room.met_at is not None and room.chat_mode is ChatMode.VIDEO and room.duration_seconds == 0
    )
    waits_for_nothing = call_without_limit and room.status is Status.ACTIVE
    if (deadline is None) is not waits_for_nothing:
        return [f"the deadline is {deadline}"]
    return list(_of_a_crowd(room, rules, deadline))


def _of_a_crowd(room: Room, rules: Rules, deadline: Deadline | None) -> Iterator[str]:
    crowded = due(room, rules, crowded=True)
    if (crowded is None) is not (deadline is None):
        yield f"in a crowd the deadline is {crowded}, else {deadline}"
    if crowded is None or deadline is None or crowded == deadline:
        return
    waiting = [side for side in room.sides if side.grace_until == deadline.at]
    if not any(side.lost_with_node for side in waiting):
        yield "a crowd moves a deadline that is not of a side that was lost with its node"
    latest = max(max(s.grace_until or 0, (s.absent_since or 0) + rules.crowd_grace_ms) for s in waiting)
    if not deadline.at < crowded.at <= latest:
        yield f"a crowd moves {deadline} to {crowded}, beyond {latest}"
