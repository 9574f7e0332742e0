"""What the cache of rooms makes of what other nodes say, also while a commit of its own is under way."""

from __future__ import annotations

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.commands import End, Join, Lose, Post
from keepline.room.record import EndReason
from signal_node.rooms import cache as rooms_module
from signal_node.rooms.fanout import Delivery
from signal_node.rooms.store import Committed, Conflict, Failed
from tests.unit.signal_node.calls import (
    ROOM,
    SESSION_1,
    SESSION_2,
    met,
)
from tests.unit.signal_node.stores import Cache, elsewhere, heard, keep, running, text_room, version_of

HANGUP = End(EndReason.HANGUP)
AWAY = StoreUnavailable("away")
LINE = Delivery(SESSION_1, b'{"type":"chat"}')
RECONNECTING = Delivery(SESSION_1, b'{"type":"peer","state":"reconnecting"}')


async def test_a_notice_brings_the_record_and_frames_and_names_the_replaced() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        newer = elsewhere(kept, Post(2, "hi"))
        cache.rooms.absorb(heard(newer, LINE, replaced=("old",)))
        assert cache.rooms.get(ROOM) == newer
        assert cache.audience.told == [(SESSION_1, "chat")]
        assert cache.audience.replaced_ones == ["old"]
        assert cache.audience.changes[-1] == (4, 5)


async def test_news_with_a_gap_before_them_are_not_taken_but_looked_into() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.rooms.absorb(heard(elsewhere(kept, Post(2, "x"), Post(2, "y")), LINE))
        assert cache.gaps == [ROOM]
        assert cache.rooms.get(ROOM) == kept
        assert cache.audience.told == []


async def test_old_news_do_not_take_the_cache_back() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.rooms.absorb(heard(elsewhere(text_room("there"), Lose(2, SESSION_2))))
        assert cache.rooms.get(ROOM) == kept
        assert cache.audience.changes[-1] == (3, 4)


async def test_news_of_a_room_that_is_not_here_are_delivered_but_not_kept() -> None:
    cache = Cache()
    cache.rooms.absorb(heard(met("there", "there"), Delivery(SESSION_1, b'{"type":"ended"}')))
    assert len(cache.rooms) == 0
    assert cache.audience.told == [(SESSION_1, "ended")]


async def test_news_put_the_journal_onto_the_newer_record_while_it_waits() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        outcomes = cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        cache.rooms.absorb(heard(elsewhere(kept, Post(2, "theirs"))))
        change = await cache.store.commits()
        assert change.message is not None
        assert (change.expected_version, change.message.seq) == (5, 3)
        assert version_of(outcomes) == 6
        assert cache.rooms.counts.conflicts == 0


async def test_news_during_a_commit_wait_for_its_result() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        outcomes = cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        theirs = elsewhere(kept, Post(2, "theirs"))
        cache.rooms.absorb(heard(theirs, LINE))
        cache.rooms.absorb(heard(kept))
        room = cache.rooms.get(ROOM)
        assert room is not None
        assert room.side_2.last_message_at is None, "the journal still stands on what it was made from"
        assert cache.audience.told == [(SESSION_1, "chat")]
        await cache.store.answer(Conflict(theirs))
        change = await cache.store.commits()
        assert (change.expected_version, version_of(outcomes)) == (5, 6)


async def test_news_may_overtake_the_answer_to_the_commit_that_they_stand_on() -> None:
    """The other node has heard of our change and made its own, while Redis' answer to us is still on its way."""
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        outcomes = cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        (change,) = await cache.store.asked()
        newer = elsewhere(change.after, Post(2, "theirs"))
        cache.rooms.absorb(heard(newer, LINE))
        assert cache.audience.told == []
        await cache.store.answer(Committed())
        assert (version_of(outcomes), kept.version) == (5, 4)
        assert cache.rooms.get(ROOM) == newer
        assert cache.audience.told == [(SESSION_1, "chat")]
        assert cache.rooms.counts.gaps == 0


async def test_a_peer_who_comes_here_while_news_tell_of_its_loss_is_told_to_be_back_after_that() -> None:
    """A client leaves a node that stops: it is here before the other node's word of the loss of its old session is."""
    async with running() as cache:
        kept = await keep(cache, met("here", "there"))
        cache.audience.told.clear()
        cache.do(None, Join(2, "here", "new"), ROOM, "new")
        await cache.store.asked()
        lost = elsewhere(kept, Lose(2, SESSION_2))
        cache.rooms.absorb(heard(lost, RECONNECTING))
        await cache.store.answer(Conflict(lost))
        assert (await cache.store.commits()).expected_version == lost.version
        assert cache.audience.told == [
            (SESSION_1, "reconnected"),
            (SESSION_1, "reconnecting"),
            (SESSION_1, "reconnected"),
        ]


async def test_only_so_many_news_wait_for_a_commit() -> None:
    async with running() as cache:
        await keep(cache, text_room("there"))
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        (change,) = await cache.store.asked()
        room = change.after
        for _ in range(rooms_module.MAX_EARLY + 1):
            room = elsewhere(room, Post(2, "theirs"))
            cache.rooms.absorb(heard(room, LINE))
        assert cache.rooms.counts.gaps == 1
        await cache.store.answer(Committed())
        assert len(cache.audience.told) == rooms_module.MAX_EARLY


async def test_the_newest_record_counts_when_a_conflict_comes_with_news() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        newer = elsewhere(kept, Post(2, "x"))
        newest = elsewhere(newer, Post(2, "y"))
        cache.rooms.absorb(heard(newer))
        cache.rooms.absorb(heard(newest))
        await cache.store.answer(Conflict(newer))
        assert (await cache.store.commits()).expected_version == newest.version


async def test_after_a_refusal_the_news_that_came_meanwhile_count() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        newer = elsewhere(kept, Post(2, "x"))
        cache.rooms.absorb(heard(newer))
        await cache.store.answer(Failed("no"))
        assert cache.rooms.get(ROOM) == newer


async def test_news_that_are_overtaken_do_not_take_the_cache_back() -> None:
    """Heard during a commit that got no answer, they are old when the next one is refused."""
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        newer = elsewhere(kept, Post(2, "x"))
        cache.rooms.absorb(heard(newer))
        await cache.store.answer(AWAY)
        for text in "yz":
            newer = elsewhere(newer, Post(2, text))
            cache.rooms.absorb(heard(newer))
        await cache.store.asked()
        await cache.store.answer(Failed("no"))
        assert cache.rooms.get(ROOM) == newer


async def test_an_end_elsewhere_empties_the_cache() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.rooms.absorb(heard(elsewhere(kept, HANGUP)))
        assert len(cache.rooms) == 0
        assert cache.audience.changes[-1] == (4, 5)
