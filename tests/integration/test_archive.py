"""Rooms as nodes read them from a real PostgreSQL."""

import asyncpg
import pytest

from keepline.ops.postgres import Pool
from keepline.room.codec import Event
from persister.database import Database
from persister.fold import change_of, fold
from signal_node.rooms.archive import Archive, ArchiveUnavailable
from tests.unit.persister.calls import call, encoded


async def written(pool: Pool, *calls: list[Event]) -> None:
    for events in calls:
        await Database(pool, create_users=True).write(fold(map(change_of, encoded(events))))


def ids(calls: list[list[Event]]) -> list[str]:
    return sorted(events[0].room.room_id for events in calls)


async def test_all_ids_come_page_by_page_the_live_ones_first(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal_node.rooms.archive.PAGE_IDS", 3)
    live, ended = [call(end=False) for _ in range(7)], [call() for _ in range(4)]
    await written(pool, *live, *ended)
    archive = Archive(pool)
    pages = [page async for page in archive.room_ids(3600)]
    assert [len(page) for page in pages] == [3, 3, 1, 3, 1]
    assert [room_id for page in pages for room_id in page] == ids(live) + ids(ended)
    assert [room_id async for page in archive.room_ids(0) for room_id in page] == ids(live)


async def test_a_row_that_cannot_be_read_keeps_no_other_from_being_read(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    """No node became ready before."""
    calls = [call(end=False) for _ in range(5)]
    await written(pool, *calls)
    broken, *others = ids(calls)
    await pool.execute(
        """UPDATE active_rooms SET messages = '[{"seq": 1, "line": "?"}]' WHERE room_id = $1""", broken
    )
    archive = Archive(pool)
    for _ in range(2):
        found = await archive.load_many([broken, *others])
        assert sorted(one.room.room_id for one in found) == others
    assert archive.unreadable == 2
    assert capsys.readouterr().out.count("row_unreadable") == 1


async def test_the_live_rooms_of_users(pool: Pool) -> None:
    live, ended = [call(end=False) for _ in range(3)], call()
    await written(pool, *live, ended)
    users = [live[0][0].room.sides[0].user, live[1][0].room.sides[1].user, ended[0].room.sides[0].user]
    found = await Archive(pool).live_rooms_of(users)
    assert sorted(one.room.room_id for one in found) == ids(live[:2])


async def test_a_connection_that_the_server_closed_meanwhile_is_told_as_unavailable(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg reports it as an error of its own when the loss races with a command."""

    async def race(*_: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    monkeypatch.setattr(asyncpg.Connection, "fetch", race)
    with pytest.raises(ArchiveUnavailable, match="cannot switch to state"):
        await Archive(pool).load(call()[0].room.room_id)
