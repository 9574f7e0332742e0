"""Folding: whatever the split and the order of the batches, the table ends up the same."""

import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepline.room.codec import encode_event
from keepline.room.record import ChatMode
from keepline.room.rows import ActivityRow, HistoryRow, RoomRow
from persister.fold import AnyChange, Batch, Unwritable, change_of, fold
from tests.unit.persister.calls import call, encoded, new_id, opening, said, turned_to_video


class Table:
    """A model of the tables that knows the version guards and the union of messages."""

    def __init__(self) -> None:
        self.rows: dict[UUID, RoomRow] = {}
        self.activities: dict[UUID, ActivityRow] = {}
        self.history: dict[tuple[UUID, UUID], HistoryRow] = {}
        self.messages: dict[UUID, dict[int, dict[str, Any]]] = {}

    def write(self, batch: Batch) -> None:
        for row in batch.rows:
            known = self.rows.get(row.room_id)
            if known is None or known.version < row.version:
                self.rows[row.room_id] = row
        for activity in batch.activities:
            noted = self.activities.get(activity.room_id)
            if noted is None or noted.version < activity.version:
                self.activities[activity.room_id] = activity
        for entry in batch.history:
            entered = self.history.get((entry.room_id, entry.user_id))
            if entered is None or entered.room_version < entry.room_version:
                self.history[entry.room_id, entry.user_id] = entry
        for room_id, added in batch.messages:
            kept = self.messages.setdefault(room_id, {})
            for message in added:
                kept.setdefault(message["seq"], message)


def read(events: list[bytes]) -> list[AnyChange]:
    return [change_of(data) for data in events]


lives = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=4)


@settings(deadline=None, derandomize=False, print_blob=True, max_examples=150)
@given(lives=lives, seed=st.integers(0, 2**32), redelivered=st.integers(0, 10), cut=st.integers(1, 7))
def test_any_split_and_order_gives_the_same_table(
    lives: list[tuple[int, bool]], seed: int, redelivered: int, cut: int
) -> None:
    changes = [change for lines, end in lives for change in read(encoded(call(lines=lines, end=end)))]
    changes += read(encoded(turned_to_video()))
    in_order = Table()
    in_order.write(fold(changes))

    rng = random.Random(seed)
    shuffled = changes + rng.choices(changes, k=redelivered)
    rng.shuffle(shuffled)
    anyhow = Table()
    for start in range(0, len(shuffled), cut):
        anyhow.write(fold(shuffled[start : start + cut]))

    assert anyhow.rows == in_order.rows
    assert anyhow.activities == in_order.activities
    assert anyhow.history == in_order.history
    assert len(in_order.history) == 2 * sum(end and lines >= 4 for lines, end in lives) + 2
    assert anyhow.messages == in_order.messages


def test_the_last_version_and_all_messages_of_a_room_remain() -> None:
    events = call(lines=3)
    batch = fold(read(encoded(events)))
    (row,) = batch.rows
    assert (row.version, row.status, row.ended_reason) == (events[-1].room.version, "ended", "hangup")
    ((room_id, messages),) = batch.messages
    assert room_id == row.room_id
    assert [message["text"] for message in messages] == ["line 1", "line 2", "line 3"]
    assert messages[0] == {"seq": 1, "from": row_user(row), "text": "line 1", "at": said(events)[0].at}


def test_the_activity_of_a_room_that_turned_to_video_is_its_last_as_a_text_room() -> None:
    events = turned_to_video()
    batch = fold(read(encoded(events)))
    (activity,) = batch.activities
    last_text = [event.room for event in events if event.room.chat_mode is ChatMode.TEXT][-1]
    assert (batch.rows[0].chat_mode, activity.version) == ("video", last_text.version)


def row_user(row: RoomRow) -> str:
    return str(row.user_1)


def test_rooms_and_users_are_sorted_so_that_workers_lock_in_one_order() -> None:
    batch = fold(change for _ in range(20) for change in read(encoded(call(lines=1))))
    rooms = [row.room_id for row in batch.rows]
    assert rooms == sorted(rooms)
    assert [room_id for room_id, _ in batch.messages] == rooms
    assert batch.users == sorted(batch.users)
    assert len(batch.users) == 40


def test_a_room_changed_last_when_the_newest_of_its_versions_came_about() -> None:
    first, second = call(lines=0), call(lines=5)
    batch = fold(read(encoded([*first, *reversed(second)])))
    ids = {events[0].room.room_id: UUID(events[0].room.room_id) for events in (first, second)}
    assert batch.last_changed_before(second[-1].room.updated_at) == [ids[first[0].room.room_id]]
    assert batch.last_changed_before(second[-1].room.updated_at + 1) == sorted(ids.values())
    assert batch.last_changed_before(first[-1].room.updated_at) == []


def test_a_user_of_two_rooms_counts_once() -> None:
    user = new_id()
    events = [event for _ in range(2) for event in call(opening(user_1=user), lines=0)]
    assert len(fold(read(encoded(events))).users) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"[]",
        b'{"format":1}',
        b'{"format":99,"kind":"join","room":{}}',
        b'{"format":1,"kind":"join","room":{"room_id":"x"}}',
    ],
)
def test_a_broken_event_is_unwritable(data: bytes) -> None:
    with pytest.raises(Unwritable):
        change_of(data)


@pytest.mark.parametrize("users", [("not-a-uuid", None), (None, "")])
def test_an_event_whose_ids_are_no_uuids_is_unwritable(users: tuple[str | None, str | None]) -> None:
    event = call(opening(user_1=users[0]), lines=0)[0]
    data = encode_event(event).replace(event.room.side_2.user.encode(), b"no-uuid")
    with pytest.raises(Unwritable):
        change_of(data)


def test_a_time_beyond_the_calendar_is_unwritable() -> None:
    event = call(lines=0)[0]
    data = encode_event(event).replace(str(event.room.opened_at).encode(), b"9" * 18)
    with pytest.raises(Unwritable):
        change_of(data)
