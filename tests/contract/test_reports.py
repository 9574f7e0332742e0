"""What may be assumed of reports, on each server: in the room's stream once, by members only, not too often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keepline.ops.redis.client import Client, connect
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import keys
from keepline.room.commands import End, Open, Post
from keepline.room.record import ChatMode, EndReason, Room
from keepline.room.reports import Report, decode_report, report_id
from signal_node.cluster.epochs import Epochs
from signal_node.rooms.store import RoomStore
from signal_node.signaling.reports import (
    CHAT_WINDOW_MS,
    WINDOW_MS,
    NoMember,
    NoSuchRoom,
    Reports,
    TooManyReports,
)
from tests.contract.addresses import PARTITIONS
from tests.contract.changes import change
from tests.contract.conftest import RedisServer
from tests.helpers.ports import free_port
from tests.unit.signal_node.calls import ROOM, T0, USER_1, USER_2

LIMIT = 3
LATER = T0 + 65_500
PARTITION = keys.partition_of(ROOM, PARTITIONS)


@pytest.fixture(autouse=True)
def whole_server(redis_server: RedisServer) -> None:
    """Nobody reports in the simulation, so its Redis has none of the commands that are used here."""
    if redis_server.name == "simulated":
        pytest.skip("nobody reports in the simulation")


@pytest.fixture
async def store(client: Client) -> RoomStore:
    await Epochs(client, PARTITIONS).begin(range(PARTITIONS))
    return RoomStore(client, PARTITIONS, 3_600_000)


@pytest.fixture
def reports(client: Client, store: RoomStore) -> Reports:
    return Reports(client, store, LIMIT, lambda: LATER)


async def put(store: RoomStore) -> Room:
    """Have Redis hold a room with a line of chat."""
    first = change(None, Open(ROOM, USER_1, USER_2, ChatMode.VIDEO, 0))
    await store.commit([first])
    said = change(first.after, Post(1, "you are ugly"), now=T0 + 1)
    await store.commit([said])
    return said.after


async def told(client: Client) -> list[Report]:
    """The reports that the persister is told of."""
    entries: Any = await client.xrange(keys.events(PARTITION))
    events = [fields[b"event"] for _, fields in entries]
    return [decode_report(event) for event in events if b'"kind":"report"' in event[:64]]


async def test_a_report_is_in_the_stream_with_what_is_known_of_the_room(
    client: Client, store: RoomStore, reports: Reports
) -> None:
    room = await put(store)
    await reports.add(USER_2, ROOM, "rude")
    (report,) = await told(client)
    assert (str(report.reporter_id), str(report.reported_id)) == (USER_2, USER_1)
    assert (report.reason, report.reported_at) == ("rude", LATER)
    assert report.report_id == report_id(report.room_id, report.reporter_id, "rude")
    shown = report.session_data["room"]
    assert (shown["room_id"], shown["version"], shown["status"]) == (ROOM, room.version, "active")
    assert [line["text"] for line in shown["messages"]] == ["you are ugly"]


async def test_also_of_a_room_that_has_ended(client: Client, store: RoomStore, reports: Reports) -> None:
    room = await put(store)
    await store.commit([change(room, End(EndReason.HANGUP), now=T0 + 2)])
    await reports.add(USER_1, ROOM, "rude")
    (report,) = await told(client)
    assert report.session_data["room"]["ended_reason"] == "hangup"


async def test_the_same_again_is_no_second_report_and_counts_once(
    client: Client, store: RoomStore, reports: Reports
) -> None:
    await put(store)
    await asyncio.gather(*(reports.add(USER_1, ROOM, "rude") for _ in range(2 * LIMIT)))
    assert len(await told(client)) == 1
    await reports.add(USER_1, ROOM, "loud")
    assert [report.reason for report in await told(client)] == ["rude", "loud"]


async def test_too_many_are_refused_with_a_time_to_come_again(
    client: Client, store: RoomStore, reports: Reports
) -> None:
    await put(store)
    for number in range(LIMIT):
        await reports.add(USER_1, ROOM, f"reason {number}")
    with pytest.raises(TooManyReports) as refused:
        await reports.add(USER_1, ROOM, "one more")
    assert 0 < refused.value.retry_after_ms <= WINDOW_MS
    await reports.add(USER_1, ROOM, "reason 0")
    await reports.add(USER_2, ROOM, "one more")
    assert len(await told(client)) == LIMIT + 1
    assert 0 < await client.pttl(keys.reports(PARTITION, ROOM, USER_1)) <= WINDOW_MS
    await client.delete(keys.reports(PARTITION, ROOM, USER_1))
    await reports.add(USER_1, ROOM, "one more")


async def test_the_chat_is_in_the_reports_of_a_room_once(
    client: Client, store: RoomStore, reports: Reports
) -> None:
    """Ten reports of a full chat kept 30 MB for good."""
    room = await put(store)
    await reports.add(USER_1, ROOM, "rude")
    await reports.add(USER_2, ROOM, "loud")
    said = change(room, Post(2, "no, you are"), now=T0 + 2)
    await store.commit([said])
    await reports.add(USER_1, ROOM, "rude again")
    first, second, third = await told(client)
    lines = [
        [m["text"] for m in report.session_data["room"]["messages"]] for report in (first, second, third)
    ]
    assert lines == [["you are ugly"], [], ["no, you are"]]
    assert [report.session_data["chat"] for report in (first, second, third)] == [
        {"earlier_lines": 0, "earlier_report": None, "left_out": 0},
        {"earlier_lines": 1, "earlier_report": str(first.report_id), "left_out": 0},
        {"earlier_lines": 1, "earlier_report": str(first.report_id), "left_out": 0},
    ]
    assert 0 < await client.pttl(keys.reported_chat(PARTITION, ROOM)) <= CHAT_WINDOW_MS


async def test_strangers_and_rooms_that_are_not_there(
    client: Client, store: RoomStore, reports: Reports
) -> None:
    with pytest.raises(NoSuchRoom):
        await reports.add(USER_1, ROOM, "rude")
    await put(store)
    with pytest.raises(NoMember):
        await reports.add("33333333-3333-4333-8333-333333333333", ROOM, "rude")
    assert await told(client) == []


async def test_without_redis_nothing_is_promised() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0")
    try:
        with pytest.raises(StoreUnavailable):
            await Reports(client, RoomStore(client, PARTITIONS, 1), LIMIT, lambda: T0).add(
                USER_1, ROOM, "rude"
            )
    finally:
        await client.aclose()
