"""What a newer record makes of a room's journal, without a cache around it."""

from __future__ import annotations

import itertools
from collections import deque

from keepline.room.commands import Command, End, Join, Leave, Lose, Post
from keepline.room.record import EndReason, Room
from keepline.room.state import IllegalTransition
from signal_node.rooms.fanout import Delivery
from signal_node.rooms.journal import CachedRoom, Done, Outcome, Pending
from signal_node.rooms.rebase import Here, Rebased, change, rebase
from tests.unit.signal_node.calls import ROOM, RULES, SESSION_1, SESSION_2, T0, met
from tests.unit.signal_node.stores import elsewhere, text_room


def here(*staying: str) -> Here:
    count = itertools.count(1)
    return Here("here", RULES, T0, lambda: f"again-{next(count)}", lambda session: session in staying)


def with_journal(
    stored: Room, *commands: Command, asker: str | None = None
) -> tuple[CachedRoom, list[Outcome]]:
    """A room of the cache with these changes, all told; the list gets their outcomes."""
    outcomes: list[Outcome] = []
    entry = CachedRoom(ROOM, stored, stored, stored.version)
    for command in commands:
        pending = change(entry.head, command, outcomes.append, asker, None, here())
        assert pending is not None
        entry.journal.append(pending.as_told())
        entry.head = pending.after
    return entry, outcomes


def kinds(rebased: Rebased) -> list[type[Command]]:
    return [type(pending.command) for pending in rebased.entry.journal]


def test_the_entry_that_is_given_stays_as_it_is() -> None:
    stored = text_room("there")
    entry, outcomes = with_journal(stored, Post(1, "a"), Post(1, "b"))
    before: tuple[Room | None, deque[Pending]] = entry.head, deque(entry.journal)
    newer = elsewhere(stored, Post(2, "c"))
    rebased = rebase(entry, newer, here(), told=True)
    assert (entry.stored, entry.head, entry.journal) == (stored, *before)
    assert outcomes == []
    assert (rebased.entry.stored, rebased.entry.expected_version) == (newer, newer.version)
    messages = [pending.message for pending in rebased.entry.journal]
    assert [(line.seq, line.text) for line in messages if line] == [(2, "a"), (3, "b")]


def test_what_the_record_forbids_or_has_already_is_answered_and_leaves_the_journal() -> None:
    stored = text_room("there")
    entry, _ = with_journal(stored, Post(1, "a"), Lose(1, SESSION_1))
    over = elsewhere(stored, End(EndReason.HANGUP))
    rebased = rebase(entry, over, here(), told=True)
    refused, lost = [outcome for _, outcome in rebased.outcomes]
    assert isinstance(refused, IllegalTransition)
    assert lost == Done(over)
    assert (len(rebased.entry.journal), rebased.entry.head) == (0, over)


def test_news_that_were_told_are_not_told_again() -> None:
    entry, _ = with_journal(met(), Lose(1, SESSION_1))
    rebased = rebase(entry, elsewhere(met(), Leave(2, SESSION_2), Join(2, "here", "new")), here(), told=True)
    assert [delivery.session for delivery in rebased.deliveries] == ["new"], "and nobody told it"
    entry = rebased.entry
    assert rebase(entry, entry.stored, here(), told=True).deliveries == []


def test_a_side_that_was_lost_by_mistake_is_taken_again_before_all_that_waits() -> None:
    entry, _ = with_journal(met(), End(EndReason.HANGUP))
    entry.head = entry.stored
    lost = elsewhere(met(), Lose(2, SESSION_2))
    rebased = rebase(entry, lost, here(SESSION_2), told=False)
    assert kinds(rebased) == [Join, End]
    assert all(b"reconnected" not in delivery.data for delivery in rebased.deliveries)


def test_who_asked_for_the_end_is_told_of_it_once_also_if_its_side_was_taken_for_lost_meanwhile() -> None:
    entry, _ = with_journal(met(), End(EndReason.HANGUP), asker=SESSION_2)
    ended = [Delivery(SESSION_2, b'{"type":"ended","room":"%s","reason":"hangup"}' % ROOM.encode())]
    lost = elsewhere(met(), Lose(1, SESSION_1), Lose(2, SESSION_2))
    for record in (lost, elsewhere(lost, Join(1, "there", "new"))):
        rebased = rebase(entry, record, here(), told=False)
        (again,) = rebased.entry.journal
        assert again.routes.committed == ended
        entry = rebased.entry
    still_there = rebase(entry, elsewhere(met(), Lose(1, SESSION_1)), here(), told=False)
    assert still_there.entry.journal[0].routes.committed == ended
