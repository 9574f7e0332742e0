"""Counts and logs calls from the transitions that this node has committed.

Every transition is committed by one node, so the sums over all nodes count it once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import structlog

from keepline.ops.metrics import Timings
from keepline.room.commands import Command, Join, Leave, Lose, Open
from keepline.room.record import SIDES, EndReason, Room, Side, SideNumber

_BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class CallCounts:
    """Outcomes of calls and of absent sides."""

    opened: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    met: int = 0
    returned: int = 0
    expired: int = 0
    ended_meanwhile: int = 0
    meeting: Timings = field(default_factory=lambda: Timings(_BOUNDS))
    absence: Timings = field(default_factory=lambda: Timings(_BOUNDS))


class CallCounter:
    """Called for each transition once it is stored."""

    def __init__(self) -> None:
        self.counts = CallCounts()

    def committed(self, command: Command, before: Room | None, after: Room) -> None:
        """A command has changed `before` to `after`, and the change is stored."""
        match command:
            case Open():
                self.counts.opened[after.chat_mode.value] += 1
                _log.info("room_opened", room=after.room_id, mode=after.chat_mode.value)
            case Join(side=side) if before is not None:
                self._joined(side, before, after)
            case Lose(side=side) | Leave(side=side):
                _log.info(
                    "side_left" if isinstance(command, Leave) else "side_lost",
                    room=after.room_id,
                    side=side,
                    session=command.session,
                    version=after.version,
                )
        if after.ended_reason is not None and (before is None or before.ended_at is None):
            self._ended(after.ended_reason, before, after)

    def _joined(self, number: SideNumber, before: Room, after: Room) -> None:
        was, side = before.side(number), after.side(number)
        if before.met_at is None and after.met_at is not None:
            self.counts.met += 1
            # The last change was the first side's join, which has waited for this one since.
            self.counts.meeting.observe((after.met_at - before.updated_at) / 1_000)
        if _awaited(was) and was.absent_since is not None:
            self.counts.returned += 1
            self.counts.absence.observe((after.updated_at - was.absent_since) / 1_000)
        _log.info(
            "side_joined",
            room=after.room_id,
            side=number,
            session=side.session,
            before=was.presence.value,
            version=after.version,
        )

    def _ended(self, reason: EndReason, before: Room | None, after: Room) -> None:
        self.counts.ended[(reason.value, after.chat_mode.value)] += 1
        if before is not None:
            awaited = sum(_awaited(before.side(number)) for number in SIDES)
            if reason is EndReason.GRACE_EXPIRED:
                self.counts.expired += awaited
            else:
                self.counts.ended_meanwhile += awaited
        _log.info("room_ended", room=after.room_id, reason=reason.value, version=after.version)


def _awaited(side: Side) -> bool:
    """Whether a side was lost, not left, and may return."""
    return side.came and not side.left and not side.connected
