"""The trace that commits leave behind: what it holds, how much of it, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.commands import End, Join, Lose, Post
from keepline.room.record import ChatMode, EndReason, Room
from keepline.room.steps import STEP_FIELD, Step, decode_step
from signal_node.rooms import store as store_module
from signal_node.rooms.store import TRACE_MS, Committed, RoomStore
from signal_node.rooms.tombstones import LEFT_OVER_MS
from tests.contract.changes import change
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2, opening

PARTITIONS = 16
TOMBSTONE_MS = 60_000
TRACE = keys.trace(keys.partition_of(ROOM, PARTITIONS), ROOM)


@pytest.fixture
def store(client: Client) -> RoomStore:
    return RoomStore(client, PARTITIONS, TOMBSTONE_MS)


async def carry_out(store: RoomStore, room: Room | None, command: Any) -> Room:
    """Commit what a command makes of a room."""
    made = change(room, command)
    assert await store.commit([made]) == [Committed()]
    return made.after


async def steps(client: Client) -> list[Step]:
    """The trace, oldest first."""
    entries: Any = await client.xrange(TRACE)
    return [decode_step(fields[STEP_FIELD]) for _, fields in entries]


async def test_each_transition_is_a_step(store: RoomStore, client: Client) -> None:
    room = await carry_out(store, None, opening(ROOM, ChatMode.TEXT))
    room = await carry_out(store, room, Join(1, "node-1", SESSION_1))
    room = await carry_out(store, room, Join(2, "node-2", SESSION_2))
    room = await carry_out(store, room, Post(1, "not for operators"))
    room = await carry_out(store, room, Lose(2, SESSION_2))
    assert TRACE_MS - 60_000 < await client.pttl(TRACE) <= TRACE_MS
    await carry_out(store, room, End(EndReason.HANGUP))
    assert LEFT_OVER_MS < await client.pttl(TRACE) <= TOMBSTONE_MS + LEFT_OVER_MS
    found = await steps(client)
    assert [(step.kind, step.version, step.status) for step in found] == [
        ("open", 1, "active"),
        ("join", 2, "active"),
        ("join", 3, "active"),
        ("lose", 5, "active"),
        ("end", 6, "ended"),
    ]
    assert [side.presence for side in found[3].sides] == ["joined", "away"]
    assert (found[2].sides[1].node, found[2].sides[1].session) == ("node-2", SESSION_2[:6])
    assert (found[4].reason, found[4].mode) == ("hangup", "text")
    raw: Any = await client.xrange(TRACE)
    assert b"operators" not in repr(raw).encode()


async def test_only_the_last_steps_are_kept(
    store: RoomStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_STEPS", 3)
    room = await carry_out(store, None, opening(ROOM, ChatMode.TEXT))
    for number in range(4):
        room = await carry_out(store, room, Join(1, "node-1", f"session-{number}"))
    assert [step.version for step in await steps(client)] == [3, 4, 5]


async def test_a_trace_that_cannot_be_written_stops_no_commit(store: RoomStore, client: Client) -> None:
    await client.set(TRACE, "of another type")
    room = await carry_out(store, None, opening(ROOM, ChatMode.TEXT))
    assert (await store.load(ROOM))[0] == room
