"""The cache of rooms and its journal, over a store that answers when and what the test says."""

from __future__ import annotations

import asyncio

import pytest

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.commands import End, Join, Leave, Lose, Post, RequestVideo
from keepline.room.record import EndReason, Status
from keepline.room.state import IllegalTransition
from signal_node.rooms import cache as rooms_module
from signal_node.rooms import committer
from signal_node.rooms.fanout import Delivery
from signal_node.rooms.journal import Done, JournalFull, NotStored
from signal_node.rooms.store import Committed, Conflict, Failed, Unavailable
from tests.unit.signal_node.calls import (
    OTHER_ROOM,
    ROOM,
    SESSION_1,
    SESSION_2,
    T0,
    after,
    met,
    opened,
    opening,
)
from tests.unit.signal_node.stores import Cache, elsewhere, keep, running, text_room, turns, version_of

HANGUP = End(EndReason.HANGUP)
AWAY = StoreUnavailable("away")
LINE = Delivery(SESSION_1, b'{"type":"chat"}')


# --- a command that is committed ---


async def test_a_command_is_told_at_once_and_answered_when_it_is_stored() -> None:
    async with running() as cache:
        outcomes = cache.do(met(), Lose(1, SESSION_1), ROOM)
        assert cache.audience.told == [(SESSION_2, "reconnecting")]
        assert cache.audience.changes == [(3, 4)]
        (change,) = await cache.store.asked()
        assert outcomes == []
        assert (change.kind, change.expected_version, change.after.version) == ("lose", 3, 4)
        assert (change.before, change.due_at) == (met(), T0 + 10_000)
        assert change.after.write_id == "write-1"
        await cache.store.answer(Committed())
        assert version_of(outcomes) == 4
        assert cache.rooms.waiting == 0


async def test_a_new_room_expects_nothing_to_be_there_and_is_not_kept() -> None:
    async with running() as cache:
        outcomes = cache.do(None, opening(), ROOM)
        (change,) = await cache.store.asked()
        assert (change.kind, change.expected_version, change.before) == ("open", 0, None)
        assert cache.rooms.get(ROOM) is not None
        await cache.store.answer(Committed())
        assert version_of(outcomes) == 1
        assert len(cache.rooms) == 0, "no side of it is held here"


async def test_changes_of_one_room_are_stored_one_after_the_other() -> None:
    async with running() as cache:
        outcomes = [cache.do(text_room(), Post(1, text), ROOM, SESSION_1) for text in "abc"]
        for number in (1, 2, 3):
            (change,) = await cache.store.asked()
            assert change.expected_version == 2 + number
            assert change.message is not None
            assert (change.message.seq, change.message.text) == (number, "abc"[number - 1])
            assert cache.store.idle
            assert [len(each) for each in outcomes] == [1] * (number - 1) + [0] * (4 - number)
            await cache.store.answer(Committed())
        assert [version_of(each) for each in outcomes] == [4, 5, 6]


async def test_who_asked_gets_the_answer_first_then_all_are_told_the_line() -> None:
    async with running() as cache:
        cache.do(text_room(), Post(1, "hi"), ROOM, SESSION_1)
        await cache.store.asked()
        assert cache.log == []
        await cache.store.answer(Committed())
        assert cache.log == ["done Post", f"tell {SESSION_2} chat"]


async def test_changes_of_many_rooms_go_in_one_write() -> None:
    async with running() as cache:
        names = [f"{number:036d}" for number in range(committer.MAX_BATCH + 1)]
        for name in names:
            cache.do(None, opening(name), name)
        first = await cache.store.asked()
        assert [change.after.room_id for change in first] == names[:-1]
        await cache.store.answer(*[Committed()] * len(first))
        assert [change.after.room_id for change in await cache.store.asked()] == names[-1:]


async def test_one_rooms_failure_is_not_anothers() -> None:
    async with running() as cache:
        lost = cache.do(met(), HANGUP, ROOM)
        stored = cache.do(met(room_id=OTHER_ROOM), HANGUP, OTHER_ROOM)
        await cache.store.asked()
        await cache.store.answer(Failed("no"), Committed())
        assert isinstance(lost[0], NotStored)
        assert version_of(stored) == 4


async def test_a_command_that_changes_nothing_is_answered_at_once() -> None:
    async with running() as cache:
        assert version_of(cache.do(met(), Lose(1, "long-gone"), ROOM)) == 3
        assert cache.rooms.waiting == 0
        assert cache.store.idle


async def test_a_command_that_changes_nothing_waits_for_what_it_follows() -> None:
    async with running() as cache:
        first = cache.do(met(), Lose(1, SESSION_1), ROOM)
        second = cache.do(met(), Lose(1, SESSION_1), ROOM)
        third = cache.do(met(), Lose(1, SESSION_1), ROOM)
        await cache.store.asked()
        assert (second, third) == ([], [])
        await cache.store.answer(Committed())
        assert [version_of(each) for each in (first, second, third)] == [4, 4, 4]


async def test_what_follows_a_change_that_fails_fails_with_it() -> None:
    async with running() as cache:
        cache.do(met(), Lose(1, SESSION_1), ROOM)
        second = cache.do(met(), Lose(1, SESSION_1), ROOM)
        await cache.store.asked()
        await cache.store.answer(Failed("no"))
        assert isinstance(second[0], NotStored)


def test_an_illegal_command_leaves_nothing_behind() -> None:
    cache = Cache()
    with pytest.raises(IllegalTransition):
        cache.do(None, HANGUP, ROOM)
    with pytest.raises(IllegalTransition):
        cache.do(met(), RequestVideo(1), ROOM)
    assert len(cache.rooms) == 0
    assert cache.rooms.waiting == 0
    assert cache.audience.told == []


# --- conflicts ---


async def test_after_a_conflict_the_command_is_carried_out_on_the_newer_record() -> None:
    newer = elsewhere(text_room("there"), Post(2, "first"))
    async with running() as cache:
        outcomes = cache.do(text_room("there"), Post(1, "second"), ROOM, SESSION_1)
        await cache.store.asked()
        await cache.store.answer(Conflict(newer))
        change = await cache.store.commits()
        assert (change.expected_version, change.before) == (4, newer)
        assert change.message is not None
        assert change.message.seq == 2
        assert change.after.write_id == "write-2", "it is another change now"
        (outcome,) = outcomes
        assert isinstance(outcome, Done)
        assert outcome.message == change.message
        assert (cache.rooms.counts.conflicts, cache.rooms.counts.commits) == (1, 1)


async def test_what_was_told_is_not_told_again_after_a_conflict() -> None:
    async with running() as cache:
        cache.do(text_room(), Lose(1, SESSION_1), ROOM)
        assert cache.audience.told == [(SESSION_2, "away")]
        await cache.store.asked()
        await cache.store.answer(Conflict(elsewhere(text_room(), Post(2, "hi"))))
        await cache.store.commits()
        assert cache.audience.told == [(SESSION_2, "away")]


async def test_what_a_conflict_changes_is_told() -> None:
    """Alone on version 3, the peer was told of a loss with grace; on the newer record there is something else."""
    async with running() as cache:
        before = after(met(), Lose(2, SESSION_2))
        cache.do(before, Join(2, "here", "back"), ROOM, "back")
        assert cache.audience.told == [(SESSION_1, "reconnected")]
        await cache.store.asked()
        await cache.store.answer(Conflict(elsewhere(before, Leave(1, SESSION_1), Join(1, "here", "new"))))
        await cache.store.commits()
        assert cache.audience.told == [(SESSION_1, "reconnected"), ("new", "reconnected")]


async def test_a_command_that_the_newer_record_forbids_is_answered_so() -> None:
    over = elsewhere(text_room(), HANGUP)
    async with running() as cache:
        posted = cache.do(text_room(), Post(1, "too late"), ROOM, SESSION_1)
        lost = cache.do(text_room(), Lose(2, SESSION_2), ROOM)
        await cache.store.asked()
        await cache.store.answer(Conflict(over))
        (refusal,) = posted
        assert isinstance(refusal, IllegalTransition)
        assert refusal.status is Status.ENDED
        assert version_of(lost) == over.version
        assert cache.rooms.waiting == 0
        assert len(cache.rooms) == 0
        async with asyncio.timeout(5):
            await cache.rooms.all_stored()


async def test_the_whole_journal_moves_onto_the_newer_record() -> None:
    newer = elsewhere(text_room("there"), Post(2, "x"), Post(2, "y"))
    async with running() as cache:
        outcomes = [cache.do(text_room("there"), Post(1, text), ROOM, SESSION_1) for text in "ab"]
        await cache.store.asked()
        await cache.store.answer(Conflict(newer))
        for seq, version in ((3, 5), (4, 6)):
            change = await cache.store.commits()
            assert change.message is not None
            assert (change.expected_version, change.message.seq) == (version, seq)
        assert [version_of(each) for each in outcomes] == [6, 7]


async def test_the_audience_learns_of_sides_that_changed_hands() -> None:
    async with running() as cache:
        cache.do(text_room(), Post(1, "hi"), ROOM, SESSION_1)
        await cache.store.asked()
        taken = elsewhere(text_room(), Join(1, "there", "elsewhere"))
        await cache.store.answer(Conflict(taken))
        assert cache.audience.changes[-1] == (4, 5)


async def test_a_record_that_redis_has_lost_is_written_again() -> None:
    async with running() as cache:
        outcomes = cache.do(met(), Lose(1, SESSION_1), ROOM)
        await cache.store.asked()
        await cache.store.answer(Conflict(None))
        change = await cache.store.commits()
        assert (change.expected_version, change.after.version) == (0, 4)
        assert version_of(outcomes) == 4
        cache.do(None, HANGUP, ROOM)
        assert (await cache.store.commits()).expected_version == 4


# --- refusals and absence of Redis ---


async def test_a_change_that_redis_refuses_is_undone_here() -> None:
    async with running() as cache:
        outcomes = cache.do(text_room(), Lose(1, SESSION_1), ROOM)
        later = cache.do(text_room(), Post(2, "hi"), ROOM, SESSION_2)
        await cache.store.asked()
        await cache.store.answer(Failed("no"))
        assert isinstance(outcomes[0], NotStored)
        room = cache.rooms.get(ROOM)
        assert room is not None
        assert room.side_1.session == SESSION_1
        assert cache.audience.changes[-1][1] == 4, (
            "the sides are as they were, plus what is left of the journal"
        )
        change = await cache.store.commits()
        assert change.expected_version == 3
        assert version_of(later) == 4
        assert cache.rooms.counts.refused == 1


async def test_a_new_room_that_redis_refuses_is_forgotten() -> None:
    async with running() as cache:
        outcomes = cache.do(None, opening(), ROOM)
        await cache.store.asked()
        await cache.store.answer(Failed("no"))
        assert isinstance(outcomes[0], NotStored)
        assert cache.rooms.get(ROOM) is None
        assert len(cache.rooms) == 0


async def test_while_redis_is_away_the_same_write_is_tried_again() -> None:
    async with running() as cache:
        outcomes = cache.do(text_room(), Post(1, "a"), ROOM, SESSION_1)
        (first,) = await cache.store.asked()
        await cache.store.answer(AWAY)
        later = cache.do(None, Post(1, "b"), ROOM, SESSION_1)
        (second,) = await cache.store.asked()
        assert second == first
        assert second.after.write_id == "write-1"
        await cache.store.answer(AWAY)
        assert (outcomes, cache.rooms.waiting) == ([], 2)
        await cache.store.commits()
        await cache.store.commits()
        assert [version_of(outcomes), version_of(later)] == [4, 5]
        assert cache.rooms.counts.unavailable == 2


async def test_a_change_whose_answer_was_lost_is_not_made_again_when_others_came_after_it() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        outcomes = cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        (change,) = await cache.store.asked()
        await cache.store.answer(AWAY)
        await cache.store.asked()
        theirs = elsewhere(elsewhere(change.after, Post(2, "theirs")), Post(2, "more"))
        await cache.store.answer(Conflict(theirs))
        (outcome,) = outcomes
        assert isinstance(outcome, Done), outcome
        assert outcome.message == change.message
        assert version_of(outcomes) == kept.version + 1
        assert (cache.rooms.waiting, cache.store.idle) == (0, True), "nothing is stored a second time"
        assert (cache.rooms.counts.commits, cache.rooms.counts.conflicts) == (2, 0)
        assert cache.gaps == [ROOM], "and what came after it is looked into"


async def test_a_room_that_was_opened_unheard_is_open_although_somebody_has_joined_it() -> None:
    async with running() as cache:
        outcomes = cache.do(None, opening(), ROOM)
        (change,) = await cache.store.asked()
        await cache.store.answer(AWAY)
        await cache.store.asked()
        await cache.store.answer(Conflict(elsewhere(change.after, Join(1, "there", "new"))))
        assert version_of(outcomes) == 1


async def test_a_server_that_is_away_does_not_hold_up_the_rooms_of_others() -> None:
    away = Unavailable("its server is away")
    async with running() as cache:
        here = cache.do(text_room(), Post(1, "a"), ROOM, SESSION_1)
        there = cache.do(text_room(room_id=OTHER_ROOM), Post(1, "b"), OTHER_ROOM, SESSION_1)
        first, _ = await cache.store.asked()
        cache.do(None, Post(1, "c"), OTHER_ROOM, SESSION_1)
        await cache.store.answer(away, Committed())
        assert (here, version_of(there)) == ([], 4)
        again, second = await cache.store.asked()
        assert second.message is not None
        assert (again, second.message.text) == (first, "c")
        await cache.store.answer(away, Committed())
        assert await cache.store.asked() == [first]
        await cache.store.answer(away)
        assert await cache.store.asked() == [first]
        await cache.store.answer(Committed())
        assert version_of(here) == 4


async def test_a_server_that_does_not_answer_does_not_hold_up_the_rooms_of_others() -> None:
    """On a cluster each partition has a lane: neither the wait for an answer nor the one after it is shared."""
    slow_room, room = ROOM[:-1] + "0", ROOM[:-1] + "1"
    async with running(lanes=2) as cache:
        slow = cache.do(text_room(room_id=slow_room), Post(1, "a"), slow_room, SESSION_1)
        (change,) = await cache.store.asked()
        unanswered = cache.store.unanswered()
        assert change.after.room_id == slow_room
        others = [cache.do(text_room(room_id=room), Post(1, text), room, SESSION_1) for text in "bc"]
        for each in others:
            await cache.store.commits()
            assert len(each) == 1
        assert slow == []
        unanswered.set_exception(AWAY)
        await turns()
        later = cache.do(None, Post(1, "d"), room, SESSION_1)
        await cache.store.commits()
        assert (len(later), slow) == (1, [])
        assert await cache.store.asked() == [change]
        await cache.store.answer(Committed())
        assert len(slow) == 1


async def test_only_so_much_waits_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_module, "MAX_JOURNAL", 2)
    async with running() as cache:
        cache.do(text_room(), Post(1, "a"), ROOM, SESSION_1)
        cache.do(text_room(room_id=OTHER_ROOM), Post(1, "b"), OTHER_ROOM, SESSION_1)
        with pytest.raises(JournalFull):
            cache.do(None, Post(1, "c"), ROOM, SESSION_1)
        room = cache.rooms.get(ROOM)
        assert room is not None
        assert room.version == 4, "what could not be kept was not done"
        await cache.store.asked()
        await cache.store.answer(Committed(), Committed())
        assert cache.rooms.waiting == 0
        assert cache.do(None, Post(1, "c"), ROOM, SESSION_1) == []


async def test_settled_when_nothing_waits_any_more() -> None:
    async with running() as cache:
        async with asyncio.timeout(5):
            await cache.rooms.all_stored()
        cache.do(text_room(), Post(1, "a"), ROOM, SESSION_1)
        cache.do(text_room(), Post(1, "b"), ROOM, SESSION_1)
        settled = asyncio.create_task(cache.rooms.all_stored())
        await cache.store.commits()
        assert not settled.done()
        await cache.store.commits()
        async with asyncio.timeout(5):
            await settled


# --- what is kept ---


async def test_a_room_stays_while_a_side_of_it_is_here() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        assert len(cache.rooms) == 1
        cache.do(None, Leave(1, SESSION_1), ROOM, SESSION_1)
        assert len(cache.rooms) == 1, "not before it is stored"
        await cache.store.commits()
        assert len(cache.rooms) == 0
        assert kept.version == 4


async def test_what_is_found_in_redis_is_not_kept_for_a_look() -> None:
    cache = Cache()
    cache.store.rooms[ROOM] = opened()
    assert await cache.rooms.find(ROOM) == opened()
    assert await cache.rooms.find(OTHER_ROOM) is None
    assert len(cache.rooms) == 0


async def test_the_cache_knows_better_than_what_was_found() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.store.rooms[ROOM] = text_room("there")
        assert await cache.rooms.find(ROOM) == kept
        cache.do(text_room("there"), Post(1, "b"), ROOM, SESSION_1)
        assert (await cache.store.commits()).expected_version == 4


async def test_a_replaced_session_is_named_at_once() -> None:
    async with running() as cache:
        cache.do(met(), Join(1, "here", "new"), ROOM, "new")
        assert cache.audience.replaced_ones == [SESSION_1]
        await cache.store.commits()
        assert cache.audience.told == [(SESSION_2, "reconnected")]


async def test_other_nodes_are_told_by_the_commit() -> None:
    async with running() as cache:
        cache.do(text_room("there"), Post(1, "hi"), ROOM, SESSION_1)
        (change,) = await cache.store.asked()
        assert set(change.notices) == {"there"}
        assert change.notices["there"].startswith(b"N{")
        await cache.store.answer(Committed())
        await turns()
        assert cache.audience.told == []
