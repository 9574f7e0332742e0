"""Rebases a room's journal onto a newer record. Pure.

No argument is changed, and no client is told anything here: `rebase` returns the cache's new content, the answers to
pending commands, and what to tell clients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from keepline.room.commands import Command, Join
from keepline.room.record import SIDES, Room, Status
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition, apply
from keepline.room.writes import written
from signal_node.rooms.fanout import Delivery, route
from signal_node.rooms.journal import CachedRoom, Done, OnDone, Outcome, Pending, ignore_outcome, message_of


@dataclass(frozen=True, slots=True)
class Here:
    """Where and when a change is made. `stays` is whether a session is open on this node and not closing."""

    node: str
    rules: Rules
    now: int
    new_write_id: Callable[[], str]
    stays: Callable[[str], bool]


@dataclass(slots=True)
class Rebased:
    """The room on its new record, and the consequences. `replaced` are sessions of this node that lost their sides."""

    entry: CachedRoom
    outcomes: list[tuple[OnDone, Outcome]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


def change(
    base: Room | None, command: Command, on_done: OnDone, asker: str | None, at: int | None, here: Here
) -> Pending | None:
    """The change that a command makes to a record; None if it has no effect. Raises IllegalTransition."""
    after, effects = apply(base, command, here.now if at is None else at, here.rules)
    if after is base:
        return None
    after = written(base, after, here.new_write_id())
    routes = route(base, after, effects, here.node, asker)
    return Pending(command, asker, on_done, at, after, message_of(effects), routes)


def rebase(entry: CachedRoom, record: Room | None, here: Here, *, told: bool) -> Rebased:
    """Rebase the journal of a room onto a record. Commands that the record does not allow get an error.

    `told`: clients have been told what led to the record.
    """
    expected = 0 if record is None else record.version
    journal = _retakes(entry, record, here)
    rebased = Rebased(replace(entry, stored=record, head=record, expected_version=expected, journal=journal))
    if journal:
        rebased.entry.head = journal[-1].after
    if told:
        _tell_all(rebased)
    for pending in entry.journal:
        _carry_over(pending, rebased, here)
    return rebased


def _carry_over(pending: Pending, rebased: Rebased, here: Here) -> None:
    """Apply a change of the old journal again, on top of the new journal so far."""
    entry = rebased.entry
    try:
        again = change(entry.head, pending.command, pending.on_done, pending.asker, pending.at, here)
    except IllegalTransition as error:
        rebased.outcomes.append((pending.on_done, error))
        return
    if again is None:
        assert entry.head is not None
        rebased.outcomes.append((pending.on_done, Done(entry.head)))
        return
    again = replace(again, told=pending.told)
    if again.after.status is Status.ENDED:
        again.routes.committed += _for_asker_without_side(pending, again)
    rebased.deliveries += again.news()
    rebased.replaced += again.routes.replaced
    entry.journal.append(again.as_told())
    entry.head = again.after


def _for_asker_without_side(pending: Pending, again: Pending) -> list[Delivery]:
    """What to tell a session that requested the end of the room, if its side was marked as lost meanwhile."""
    if any(delivery.session == pending.asker for delivery in again.routes.committed):
        return []
    return [delivery for delivery in pending.routes.committed if delivery.session == pending.asker]


def _retakes(entry: CachedRoom, record: Room | None, here: Here) -> deque[Pending]:
    """Joins for sessions whose sides were marked as lost by mistake: another node declared this one dead, and it is
    not.

    They come before all pending changes, so that these find the sides held.
    """
    known, head = entry.stored, entry.head
    journal: deque[Pending] = deque()
    if known is None or head is None or record is None or record.status is Status.ENDED:
        return journal
    base = record
    for number in SIDES:
        session = head.side(number).session
        if session is None or head.side(number).node != here.node or session != known.side(number).session:
            continue
        now = record.side(number)
        if now.connected or now.left or not here.stays(session):
            continue
        join = change(
            base, Join(number, here.node, session, only_if_free=True), ignore_outcome, None, None, here
        )
        assert join is not None, "a free side can be joined"
        base = join.after
        journal.append(join)
    if len(journal) == 2:
        # The side that was lost last has been told of the other's loss, and finds its side taken back before its own
        # is.
        news = journal[1].routes.at_once
        session_2 = head.side_2.session
        assert session_2 is not None
        news += [Delivery(session_2, delivery.data) for delivery in news]
    return journal


def _tell_all(rebased: Rebased) -> None:
    journal = rebased.entry.journal
    for at, pending in enumerate(journal):
        rebased.deliveries += pending.news()
        rebased.replaced += pending.routes.replaced
        journal[at] = pending.as_told()
