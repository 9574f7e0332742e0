"""What a node puts back of the chat when Redis has lost it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from keepline.room.codec import Event
from keepline.room.commands import Post
from keepline.room.record import Message, Room
from signal_node.reconcile import Reconciler
from signal_node.rooms import Audience, Rooms
from signal_node.store import RoomStore
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, RULES, T0, USER_1, after, met

MINE = Message(1, USER_1, "mine", T0)


class OneRoom:
    """A cache of one room that has stored one line, and a store that has the record and some of the lines."""

    def __init__(self, room: Room | None, stored: Sequence[int]) -> None:
        self.room = room
        self.stored = set(stored)
        self.events: list[Event] = []

    def at_rest(self, room_id: str) -> Room | None:
        return self.room if room_id == ROOM else None

    def lines(self, room_id: str) -> list[Message]:
        return [MINE]

    async def merge_chat(self, room_id: str, messages: Sequence[Message]) -> int:
        added = {message.seq for message in messages} - self.stored
        self.stored |= added
        return len(added)

    async def add_events(self, events: Sequence[Event]) -> None:
        self.events += events


async def put_back(one: OneRoom) -> None:
    reconciler = Reconciler("here", cast(RoomStore, one), cast(Audience, None), RULES, lambda: T0)
    reconciler.rooms = cast(Rooms, one)
    await reconciler.put_back_chat([ROOM, OTHER_ROOM])


async def test_lines_of_this_node_are_put_back_although_another_has_put_back_the_record() -> None:
    room = after(met("here", "there"), Post(1, "mine"))
    one = OneRoom(room, stored=[2])
    await put_back(one)
    assert one.stored == {1, 2}
    assert one.events == [Event("restore", room, MINE)], "nor has Postgres them, perhaps"


async def test_lines_that_are_there_are_left_alone() -> None:
    one = OneRoom(after(met("here", "there"), Post(1, "mine")), stored=[1, 2])
    await put_back(one)
    assert one.events == []


async def test_a_room_that_is_being_changed_is_left_to_its_commit() -> None:
    one = OneRoom(None, stored=[])
    await put_back(one)
    assert (one.stored, one.events) == (set(), [])
