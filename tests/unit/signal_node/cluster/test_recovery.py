"""What a node fills in from Postgres, and what it leaves to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import pytest

from keepline.room.commands import Post
from keepline.room.record import Message, Room
from signal_node.cluster.recovery import LeaseLost, Recovery
from signal_node.cluster.revival import Revival
from signal_node.rooms.archive import Archived
from signal_node.rooms.store import Change, CommitResult, Committed
from tests.helpers.waiting import eventually
from tests.unit.signal_node.calls import ROOM, RULES, T0, USER_1, after
from tests.unit.signal_node.stores import text_room

LINES = [Message(seq, USER_1, f"line {seq}", T0) for seq in (1, 2, 3)]


class Cluster:
    """Redis, Postgres and the other nodes, as far as a recovery asks them.

    `filled_in`: another node has done the work by the time this one has the lease.
    """

    def __init__(self, row: Archived, *, filled_in: bool = False) -> None:
        self.archive = Rows(row)
        self.filled_in = filled_in
        self.epochs: list[bytes | None] = [None]
        self.rooms: dict[str, Room] = {}
        self.chat: list[int] = []
        self.puts = 0
        self.clock_changes = 0
        self.leases = 0
        self.leased = 0
        self.lose_lease_at: set[int] = set()
        self.logins = self

    async def read(self) -> list[bytes | None]:
        return list(self.epochs)

    async def lease(self, partition: int, name: str, ttl_ms: int) -> bool:
        self.leased += 1
        self.leases = 1
        if self.leased in self.lose_lease_at:
            return False
        if self.filled_in:
            self.epochs = [b"another's"]
        return True

    async def end_lease(self, partition: int, name: str) -> None:
        self.leases -= 1

    async def begin(self, partitions: Sequence[int]) -> None:
        self.epochs = [b"mine"]

    async def have_put_back(self, partition: int) -> set[str]:
        return {"here"}

    async def put_back(self, *_: Any) -> None:
        """Nothing is held here: epochs, users and limits have nothing to write."""
        self.puts += 1

    async def reconcile(self, room_ids: Sequence[str]) -> None:
        assert not room_ids

    put_back_chat = reconcile
    note_put_back = put_back

    def ids(self) -> list[str]:
        return []

    partitions = 1

    def partition_of(self, room_id: str) -> int:
        return 0

    async def load_many(self, room_ids: Sequence[str]) -> list[Room | None]:
        return [self.rooms.get(room_id) for room_id in room_ids]

    async def commit(self, changes: Sequence[Change]) -> list[CommitResult]:
        self.rooms |= {change.after.room_id: change.after for change in changes}
        return [Committed() for _ in changes]

    async def merge_chats(self, chats: Mapping[str, Sequence[Message]]) -> None:
        self.chat += [message.seq for messages in chats.values() for message in messages]


class Rows:
    """Postgres with one row."""

    def __init__(self, row: Archived) -> None:
        self.row = row

    async def limited(self) -> AsyncIterator[list[Any]]:
        for nothing in list[list[Any]]():
            yield nothing

    async def load(self, room_id: str) -> Archived:
        return self.row

    async def load_many(self, room_ids: Sequence[str]) -> list[Archived]:
        assert list(room_ids) == [ROOM]
        return [self.row]

    async def live_rooms_of(self, users: Sequence[str]) -> list[Archived]:
        return [self.row] if USER_1 in users else []

    async def room_ids(self, ended_within_seconds: float) -> AsyncIterator[list[str]]:
        yield [ROOM]


def recovery_of(cluster: Cluster) -> Recovery:
    parts = cast(Any, cluster)
    return Recovery(
        "here",
        rooms=parts,
        reconciler=parts,
        store=parts,
        users=parts,
        epochs=parts,
        registry=parts,
        archive=cast(Any, cluster.archive),
        limits=parts,
        revival=Revival(parts, RULES, grace_ms=30_000, now=lambda: T0, new_write_id=lambda: "write"),
        tombstone_ms=3_600_000,
        live=lambda: {"here"},
        clock_changes=lambda: cluster.clock_changes,
    )


async def recovered(cluster: Cluster) -> Recovery:
    recovery = recovery_of(cluster)
    await recovery.heal()
    assert recovery.whole
    assert cluster.leases == 0
    return recovery


async def test_a_room_that_nobody_holds_comes_back_with_its_chat() -> None:
    row = after(text_room(), *(Post(1, line.text) for line in LINES))
    cluster = Cluster(Archived(row, LINES, (True, True)))
    recovery = await recovered(cluster)
    assert cluster.rooms[ROOM].version == row.version + 1
    assert cluster.chat == [1, 2, 3]
    assert recovery.revival.counts.revived == 1


async def test_lines_beyond_the_last_of_the_record_stay_out() -> None:
    """A persister wrote them after the room had come back without them: their numbers are given out again."""
    room = after(text_room(), Post(1, "line 1"))
    cluster = Cluster(Archived(room, LINES, (True, True)))
    cluster.rooms = {ROOM: room}
    await recovered(cluster)
    assert cluster.chat == [1]


async def test_what_this_node_holds_is_written_again_when_the_clock_of_redis_has_stepped() -> None:
    """What has a time to live may be gone, in a partition that is whole."""
    cluster = Cluster(Archived(text_room(), [], (True, True)))
    recovery = await recovered(cluster)
    put_back = cluster.puts
    await recovery.heal()
    assert cluster.puts == put_back
    cluster.clock_changes += 1
    await recovery.heal()
    assert cluster.puts > put_back
    put_back = cluster.puts
    await recovery.heal()
    assert cluster.puts == put_back


async def test_what_another_node_has_filled_in_is_left_alone() -> None:
    cluster = Cluster(Archived(text_room(), [], (True, True)), filled_in=True)
    recovery = await recovered(cluster)
    assert cluster.rooms == {}
    assert recovery.counts.partitions == 0


async def test_one_room_comes_back_with_the_lines_of_its_record() -> None:
    row = after(text_room(), Post(1, "line 1"), Post(1, "line 2"))
    cluster = Cluster(Archived(row, LINES, (True, True)), filled_in=True)
    recovery = await recovered(cluster)
    assert await recovery.bring_back(ROOM)
    assert cluster.rooms[ROOM].version == row.version + 1
    assert cluster.chat == [1, 2]
    assert not await recovery.bring_back(ROOM)


async def test_who_comes_early_has_the_own_room_before_all_others() -> None:
    """The doors are open as soon as all nodes have put back what they hold; the fill takes its time."""
    cluster = Cluster(Archived(text_room(), [], (True, True)))
    fill = asyncio.Event()
    rows = cluster.archive

    async def slowly(room_ids: Sequence[str]) -> list[Archived]:
        await fill.wait()
        return [rows.row]

    rows.load_many = slowly  # type: ignore[method-assign]
    recovery = recovery_of(cluster)
    assert not recovery.open
    tasks = [asyncio.create_task(recovery.heal()), asyncio.create_task(recovery.recalls.run())]
    try:
        await eventually(lambda: recovery.open)
        assert cluster.rooms == {}
        await asyncio.gather(*(recovery.bring_back_rooms_of(user) for user in ("stranger", USER_1)))
        assert cluster.rooms[ROOM].version == rows.row.room.version + 1
        fill.set()
        await tasks[0]
        assert recovery.whole
        assert cluster.rooms[ROOM].version == rows.row.room.version + 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lease_that_is_lost_while_filling_ends_the_work() -> None:
    cluster = Cluster(Archived(text_room(), [], (True, True)))
    cluster.lose_lease_at = {2}
    recovery = recovery_of(cluster)
    with pytest.raises(LeaseLost):
        await recovery.heal()
    assert cluster.rooms == {}
    await recovery.heal()
    assert cluster.rooms.keys() == {ROOM}
