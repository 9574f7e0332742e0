"""A change that Redis has stored, and whose answer was lost, is made once, whoever came after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import pytest

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.commands import Command, Join, Post
from keepline.room.record import ChatMode, Room
from keepline.room.writes import write_ids
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import Done, Outcome
from signal_node.rooms.store import Change, CommitResult, Committed, RoomStore
from tests.contract.changes import change
from tests.unit.signal_node.calls import ROOM, RULES, SESSION_1, SESSION_2, T0, opening
from tests.unit.signal_node.stores import Audience

PARTITIONS = 16
OTHERS = 20


class LosesAnswers(RoomStore):
    """Loses the answer to the next commit; before it is tried again another node writes lines."""

    overtaken = False

    async def commit_each(self, changes: Sequence[Change]) -> list[CommitResult]:
        results = await super().commit_each(changes)
        if self.overtaken:
            return results
        self.overtaken = True
        assert results == [Committed()]
        room = changes[0].after
        for number in range(OTHERS):
            theirs = change(room, Post(2, f"theirs {number}"), by="node-2")
            assert await super().commit_each([theirs]) == [Committed()]
            room = theirs.after
        raise StoreUnavailable("the answer is lost")


@pytest.fixture
def store(client: Client) -> RoomStore:
    return RoomStore(client, PARTITIONS, 60_000)


async def stored(store: RoomStore, *commands: Command) -> Room:
    room: Room | None = None
    for command in commands:
        each = change(room, command)
        assert await store.commit([each]) == [Committed()]
        room = each.after
    assert room is not None
    return room


async def test_a_line_is_there_once_although_its_answer_was_lost_and_others_wrote_meanwhile(
    client: Client, store: RoomStore
) -> None:
    joins = Join(1, "node-1", SESSION_1), Join(2, "node-2", SESSION_2)
    room = await stored(store, opening(chat_mode=ChatMode.TEXT), *joins)
    gaps: list[str] = []
    outcomes: list[Outcome] = []
    rooms = Rooms(
        "node-1",
        LosesAnswers(client, PARTITIONS, 60_000),
        RULES,
        Audience([]),
        now=lambda: T0,
        new_write_id=write_ids("node-1", "life"),
        on_gap=gaps.append,
        on_loss=gaps.append,
    )
    rooms.execute(room, ROOM, Post(1, "mine"), outcomes.append, SESSION_1)
    task = asyncio.create_task(rooms.run())
    async with asyncio.timeout(10):
        await rooms.all_stored()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    _, lines = await store.load(ROOM)
    assert [line.text for line in lines] == ["mine", *(f"theirs {number}" for number in range(OTHERS))]
    (outcome,) = outcomes
    assert cast(Done, outcome).message == lines[0]
    assert gaps == [ROOM]
