"""What a node puts back of the chat when Redis has lost it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from msgspec.structs import replace

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.codec import Event
from keepline.room.commands import Post
from keepline.room.record import Message, Room
from signal_node.rooms.cache import Audience, Rooms
from signal_node.rooms.evicted import KEPT_MS
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import RoomStore
from signal_node.rooms.suspicions import Suspicions
from tests.helpers.waiting import eventually
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, RULES, T0, USER_1, after, met

MINE = Message(1, USER_1, "mine", T0)


class OneRoom:
    """A cache of one room that has stored one line, and a store that has the record and some of the lines."""

    def __init__(self, room: Room | None, stored: Sequence[int]) -> None:
        self.room = room
        self.in_redis = set(stored)
        self.stored = self.at_rest
        self.there = room
        self.events: list[Event] = []
        self.away = False

    def at_rest(self, room_id: str) -> Room | None:
        return self.room if room_id == ROOM else None

    def catch_up(self, room: Room) -> None:
        self.room = room

    def untold(self, room_id: str) -> tuple[()]:
        return ()

    def lines(self, room_id: str) -> list[Message]:
        return [MINE]

    async def merge_chat(self, room_id: str, messages: Sequence[Message]) -> int:
        added = {message.seq for message in messages} - self.in_redis
        self.in_redis |= added
        return len(added)

    async def add_events(self, events: Sequence[Event]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.events += events

    async def compare(self, known: Sequence[Room]) -> list[Room | None]:
        return [self.there for _ in known]


def reconciler_of(one: OneRoom, now: int = T0) -> Reconciler:
    rooms, store, audience = cast(Rooms, one), cast(RoomStore, one), cast(Audience, None)
    return Reconciler("here", rooms, Suspicions(), store, audience, RULES, lambda: now)


async def put_back(one: OneRoom) -> None:
    await reconciler_of(one).put_back_chat([ROOM, OTHER_ROOM])


async def test_lines_of_this_node_are_put_back_although_another_has_put_back_the_record() -> None:
    room = after(met("here", "there"), Post(1, "mine"))
    one = OneRoom(room, stored=[2])
    await put_back(one)
    assert one.in_redis == {1, 2}
    assert one.events == [Event("restore", room, MINE)], "nor has Postgres them, perhaps"


async def test_lines_that_are_there_are_left_alone() -> None:
    one = OneRoom(after(met("here", "there"), Post(1, "mine")), stored=[1, 2])
    await put_back(one)
    assert one.events == []


async def test_a_room_that_is_being_changed_is_left_to_its_commit() -> None:
    one = OneRoom(None, stored=[])
    await put_back(one)
    assert (one.in_redis, one.events) == (set(), [])


# --- where another node has put back the record, and Redis passes for whole ---


def with_a_line() -> OneRoom:
    return OneRoom(after(met("here", "there"), Post(1, "mine")), stored=[])


async def test_lines_are_put_back_when_something_is_suspected() -> None:
    one = with_a_line()
    await reconciler_of(one).reconcile([ROOM], suspected=True)
    assert one.in_redis == {1}
    assert [event.message for event in one.events] == [MINE]


async def test_they_are_not_looked_for_otherwise() -> None:
    one = with_a_line()
    await reconciler_of(one).reconcile([ROOM])
    assert one.in_redis == set()


async def test_lines_of_long_ago_are_not_looked_for() -> None:
    one = with_a_line()
    await reconciler_of(one, T0 + KEPT_MS).reconcile([ROOM], suspected=True)
    assert one.in_redis == set()


async def test_lines_beyond_the_last_of_the_record_stay_out() -> None:
    """Their numbers are given out again."""
    one = with_a_line()
    one.there = met("here", "there")
    assert one.room is not None
    one.there = replace(one.there, version=one.room.version + 1)
    await reconciler_of(one).reconcile([ROOM], suspected=True)
    assert one.in_redis == set()


async def test_the_persister_hears_of_lines_that_were_put_back_although_redis_went_away_in_between() -> None:
    one = with_a_line()
    one.away = True
    reconciler = reconciler_of(one)
    with pytest.raises(StoreUnavailable):
        await reconciler.reconcile([ROOM], suspected=True)
    one.away = False
    task = asyncio.create_task(reconciler.run())
    await eventually(lambda: [event.message for event in one.events] == [MINE])
    task.cancel()
