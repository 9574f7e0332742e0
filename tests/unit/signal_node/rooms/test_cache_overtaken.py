"""What a node makes of records that came before the news of them: sides lost by mistake, and clients not told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from msgspec.structs import replace

from keepline.room.commands import Command, Join, Leave, Lose, Post
from keepline.room.record import Message, Room
from signal_node.rooms.evicted import Untold
from signal_node.rooms.fanout import Delivery
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import Committed, Conflict, RoomStore
from signal_node.rooms.suspicions import Suspicions
from tests.unit.signal_node.calls import ROOM, RULES, SESSION_1, SESSION_2, T0, USER_2, after, met
from tests.unit.signal_node.stores import Cache, elsewhere, heard, keep, running, text_room

LOST_1, LOST_2 = Lose(1, SESSION_1), Lose(2, SESSION_2)
RECONNECTING = Delivery(SESSION_2, b'{"type":"peer","state":"reconnecting"}')
LINE = Delivery(SESSION_1, b'{"type":"chat"}')
HI = Message(2, USER_2, "hi", T0)

# --- sides that were lost to nobody ---


async def test_a_session_that_lost_its_side_to_nobody_takes_it_again() -> None:
    async with running() as cache:
        cache.audience.staying = {SESSION_1}
        kept = await keep(cache, text_room("there"))
        cache.rooms.absorb(heard(elsewhere(kept, LOST_1)))
        change = await cache.store.commits()
        assert (change.kind, change.after.side_1.session) == ("join", SESSION_1)


async def test_its_peer_on_the_same_node_hears_of_the_loss_before_it_hears_of_the_return() -> None:
    async with running() as cache:
        cache.audience.staying = {SESSION_1, SESSION_2}
        kept = await keep(cache, met())
        cache.rooms.absorb(heard(elsewhere(kept, LOST_1), RECONNECTING))
        assert cache.audience.told == [(SESSION_2, "reconnecting"), (SESSION_2, "reconnected")]


async def test_who_had_not_heard_of_a_loss_hears_of_no_return() -> None:
    async with running() as cache:
        cache.audience.staying = {SESSION_1, SESSION_2}
        kept = await keep(cache, met())
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        await cache.store.answer(Conflict(elsewhere(kept, LOST_1, LOST_2)))
        room = cache.rooms.get(ROOM)
        assert room is not None
        assert [side.session for side in room.sides] == [SESSION_1, SESSION_2]
        assert cache.audience.told == []


async def test_two_sessions_that_take_their_sides_again_at_once_both_hear_of_it() -> None:
    """News of both losses come while a commit is on its way: one session has heard of the other's."""
    async with running() as cache:
        cache.audience.staying = {SESSION_1, SESSION_2}
        kept = await keep(cache, met())
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        first = elsewhere(kept, LOST_1)
        both = elsewhere(first, LOST_2)
        cache.rooms.absorb(heard(first, RECONNECTING))
        cache.rooms.absorb(heard(both))
        await cache.store.answer(Conflict(both))
        news = cache.audience.told
        assert news[0] == (SESSION_2, "reconnecting")
        assert set(news[1:]) == {(SESSION_1, "reconnected"), (SESSION_2, "reconnected")}


async def test_what_waits_finds_the_sides_held_again() -> None:
    """A line on its way to a peer who lost its side by mistake would be stored, and shown to nobody."""
    async with running() as cache:
        cache.audience.staying = {SESSION_2}
        kept = await keep(cache, text_room())
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        await cache.store.answer(Conflict(elsewhere(kept, LOST_2)))
        kinds = [(await cache.store.commits()).kind for _ in range(2)]
        assert kinds == ["join", "post"]
        assert cache.audience.told == [(SESSION_2, "chat")]


@pytest.mark.parametrize(
    ("staying", "commands"),
    [
        ({SESSION_1}, (Join(1, "there", "newer"),)),
        ({SESSION_1}, (Leave(1, SESSION_1),)),
        (set[str](), (LOST_1,)),
    ],
    ids=["another session has it", "it has left", "its connection is gone"],
)
async def test_otherwise_a_side_stays_lost(staying: set[str], commands: Sequence[Command]) -> None:
    async with running() as cache:
        cache.audience.staying = staying
        kept = await keep(cache, text_room())
        newer = elsewhere(kept, *commands)
        cache.rooms.absorb(heard(newer))
        assert cache.rooms.get(ROOM) == newer


async def test_a_join_that_waits_is_no_side_that_was_lost() -> None:
    async with running() as cache:
        cache.audience.staying = {"new"}
        away = after(text_room("there"), LOST_1)
        outcomes = cache.do(away, Join(1, "here", "new"), ROOM, "new")
        await cache.store.asked()
        await cache.store.answer(Conflict(elsewhere(away, Post(2, "hi"))))
        assert outcomes == []
        change = await cache.store.commits()
        assert (change.kind, len(outcomes)) == ("join", 1)


# --- clients that were not told ---


class Redis:
    """The room as Redis has it, and the chat."""

    def __init__(self, room: Room, lines: Sequence[Message] = ()) -> None:
        self.room = room
        self.lines = lines

    async def load_many(self, room_ids: Sequence[str]) -> list[Room]:
        return [self.room for _ in room_ids]

    async def compare(self, known: Sequence[Room]) -> list[Room]:
        return [self.room for _ in known]

    async def lines_after(self, room_id: str, seq: int) -> list[Message]:
        return [line for line in self.lines if line.seq > seq]


async def compare(cache: Cache, redis: Redis) -> None:
    reconciler = Reconciler(
        "here", cache.rooms, Suspicions(), cast(RoomStore, redis), cache.audience, RULES, lambda: T0
    )
    await reconciler.reconcile(cache.rooms.ids())


async def overtaken(cache: Cache, *commands: Command) -> Room:
    """A conflict brings what another node did, before its notice."""
    kept = await keep(cache, text_room("there"))
    cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
    await cache.store.asked()
    newer = elsewhere(kept, *commands)
    await cache.store.answer(Conflict(newer))
    return newer


async def test_what_a_conflict_brought_is_told_by_comparing_and_once() -> None:
    async with running() as cache:
        newer = await overtaken(cache, Post(2, "hi"))
        assert cache.gaps == [ROOM]
        cache.rooms.absorb(heard(newer, LINE))
        assert cache.audience.told == [], "the notice is late"
        for _ in range(2):
            await compare(cache, Redis(newer, [HI]))
        assert cache.audience.told == [(SESSION_1, "chat")]


async def test_news_wait_until_clients_know_what_came_before() -> None:
    async with running() as cache:
        newer = await overtaken(cache, Post(2, "hi"))
        change = await cache.store.commits()
        newest = elsewhere(change.after, Post(2, "there"))
        cache.rooms.absorb(heard(newest, LINE))
        assert cache.audience.told == []
        assert cache.gaps == [ROOM, ROOM]
        await compare(cache, Redis(newest, [HI, Message(4, USER_2, "there", T0)]))
        assert cache.audience.told == [(SESSION_1, "chat"), (SESSION_1, "chat")]
        assert newer.version < newest.version


async def test_what_is_no_longer_so_is_not_told() -> None:
    async with running() as cache:
        await overtaken(cache, LOST_2)
        change = await cache.store.commits()
        cache.do(None, Join(2, "here", "back"), ROOM, "back")
        cache.audience.told.clear()
        await compare(cache, Redis(change.after))
        assert cache.audience.told == []


async def test_it_is_told_also_when_the_room_has_left_the_cache_and_come_back() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        cache.do(None, Post(1, "mine"), ROOM, SESSION_1)
        await cache.store.asked()
        newer = elsewhere(kept, Post(2, "hi"), Join(1, "there", "newer"))
        await cache.store.answer(Conflict(newer))
        await cache.store.commits()
        assert len(cache.rooms) == 0
        (untold,) = cache.rooms.untold(ROOM)
        cache.do(newer, Join(1, "here", "newest"), ROOM, "newest")
        assert list(cache.rooms.untold(ROOM)) == [untold]
        await cache.store.asked()
        await cache.store.answer(Committed())
        assert cache.rooms.take_untold(untold)
        assert not cache.rooms.take_untold(untold)


async def test_a_room_that_has_left_the_cache_forgets_what_was_told() -> None:
    async with running() as cache:
        await overtaken(cache, Post(2, "hi"), Join(1, "there", "newer"))
        await cache.store.commits()
        (untold,) = cache.rooms.untold(ROOM)
        assert cache.rooms.take_untold(untold)
        assert list(cache.rooms.untold(ROOM)) == []
        assert not cache.rooms.take_untold(Untold(untold.known, untold.there))


async def test_a_room_is_known_for_a_while_after_it_has_left_the_cache() -> None:
    async with running() as cache:
        kept = await keep(cache, text_room("there"))
        assert cache.rooms.known(ROOM) == kept
        gone = elsewhere(kept, LOST_1)
        cache.rooms.absorb(heard(gone))
        assert (cache.rooms.get(ROOM), cache.rooms.known(ROOM)) == (None, gone)


async def test_a_room_from_postgres_is_compared_with_what_redis_has_before_anything_is_stored() -> None:
    """Its row does not tell who holds the sides, so the same version may be another record."""
    async with running() as cache:
        in_redis = text_room("there")
        row = replace(in_redis, side_1=replace(in_redis.side_1, node=None, session=None))
        cache.rooms.execute(row, ROOM, Join(1, "here", "new"), lambda _: None, from_redis=False)
        (change,) = await cache.store.asked()
        assert change.expected_version < 0
        await cache.store.answer(Conflict(in_redis))
        change = await cache.store.commits()
        assert (change.expected_version, change.before) == (in_redis.version, in_redis)


async def test_a_room_from_postgres_that_redis_has_not_is_stored() -> None:
    async with running() as cache:
        row = after(text_room("there"), LOST_1)
        cache.rooms.execute(row, ROOM, Join(1, "here", "new"), lambda _: None, from_redis=False)
        await cache.store.asked()
        await cache.store.answer(Conflict(None))
        assert (await cache.store.commits()).expected_version == 0
