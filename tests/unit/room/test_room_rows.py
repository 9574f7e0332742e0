"""A room as a row of Postgres and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from keepline.room.commands import End, Tick
from keepline.room.record import ChatMode, EndReason, Message, Presence, Room, Status
from keepline.room.rows import (
    COLUMNS,
    ActivityRow,
    HistoryRow,
    RoomRow,
    from_row,
    to_activity,
    to_history,
    to_row,
)
from persister.database import QUERIES
from tests.unit.room.calls import ROOM, T0, USER_1, USER_2, text, video
from tests.unit.room.histories import random_lives, rooms


def _time(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def _stored(room: Room, updated_at: int | None = None) -> dict[str, Any]:
    """The row as Postgres gives it back."""
    return asdict(to_row(room)) | {"updated_at": _time(room.updated_at if updated_at is None else updated_at)}


def test_a_row_says_what_the_record_says() -> None:
    call = video(90, met=False)
    call.join(1)
    call.at(3_001).join(2)
    call.at(5_000).lose(2)
    assert to_row(call.room) == RoomRow(
        room_id=UUID(ROOM),
        user_1=UUID(USER_1),
        user_2=UUID(USER_2),
        started_at=_time(T0 + 3_001),
        duration_seconds=90,
        chat_mode="video",
        status="grace_period",
        grace_period_expires=_time(T0 + 15_000),
        user_1_connected=True,
        user_2_connected=False,
        created_at=_time(T0),
        version=4,
        ended_reason=None,
        ended_at=None,
    )


def test_the_activity_of_a_text_room_says_who_wrote_when() -> None:
    chat = text()
    chat.at(7_000).post(2)
    chat.at(130_000).do(Tick())
    assert to_activity(chat.room) == ActivityRow(
        room_id=UUID(ROOM),
        user_1_last_message_at=None,
        user_2_last_message_at=_time(T0 + 7_000),
        warning_started_at=_time(T0 + 130_000),
        version=chat.room.version,
    )
    assert to_activity(video().room) is None


def test_a_call_that_is_over_is_in_the_history_of_both() -> None:
    call = video(met=False)
    call.join(1)
    call.at(2_000).join(2)
    assert to_history(call.room) == ()
    call.at(62_900).do(End(EndReason.HANGUP))
    first, second = to_history(call.room)
    assert first == HistoryRow(
        room_id=UUID(ROOM),
        user_id=UUID(USER_1),
        partner_id=UUID(USER_2),
        chat_mode="video",
        started_at=_time(T0 + 2_000),
        ended_at=_time(T0 + 62_900),
        duration_seconds=60,
        room_version=4,
    )
    assert second == replace(first, user_id=UUID(USER_2), partner_id=UUID(USER_1))


@pytest.mark.parametrize(("together_ms", "rows"), [(4_999, 0), (5_000, 2)])
def test_a_call_under_five_seconds_leaves_no_history(together_ms: int, rows: int) -> None:
    hung_up = video()
    hung_up.at(together_ms).do(End(EndReason.HANGUP))
    lost = video()
    lost.at(together_ms).lose(2)
    lost.at(together_ms + 10_000).do(Tick())
    assert (hung_up.room.ended_reason, lost.room.ended_reason) == (
        EndReason.HANGUP,
        EndReason.GRACE_EXPIRED,
    )
    assert [len(to_history(call.room)) for call in (hung_up, lost)] == [rows, rows]


def test_a_call_in_which_they_never_met_leaves_no_history() -> None:
    call = video(met=False)
    call.join(1)
    call.at(60_000).do(Tick())
    assert call.room.ended_reason is EndReason.NO_SHOW
    assert to_history(call.room) == ()


def test_the_row_of_an_ended_room_says_when_and_why() -> None:
    call = text()
    call.at(7_007).do(End(EndReason.DELETED))
    row = to_row(call.room)
    assert (row.chat_mode, row.status, row.ended_reason) == ("text", "ended", "deleted")
    assert (row.ended_at, row.grace_period_expires) == (_time(T0 + 7_007), None)


@random_lives
@given(rooms(), st.integers(-5_000, 5_000))
def test_what_a_row_holds_survives(room: Room, updated_later_by: int) -> None:
    row = _stored(room, room.updated_at + updated_later_by)
    back = from_row(row)
    kept = (
        "room_id",
        "chat_mode",
        "duration_seconds",
        "opened_at",
        "started_at",
        "version",
        "ended_at",
        "ended_reason",
    )
    assert [getattr(back, name) for name in kept] == [getattr(room, name) for name in kept]
    assert [side.user for side in back.sides] == [side.user for side in room.sides]
    assert [side.connected for side in back.sides] == [False, False]
    assert back.updated_at == room.updated_at + updated_later_by
    if back.met_at is not None:
        assert (back.met_at, back.status) == (room.met_at, room.status)
        assert back.grace_period_expires == room.grace_period_expires


@random_lives
@given(rooms())
def test_a_second_trip_changes_nothing(room: Room) -> None:
    once = from_row(_stored(room))
    # A row does not tell a call that began in the very ms in which it was opened from one that never did.
    assume(once.met_at is None or once.met_at > once.opened_at)
    twice = from_row(_stored(once))
    came = [side.came for side in twice.sides]
    assert replace(twice, side_1=once.side_1, side_2=once.side_2) == once
    assert once.met_at is None or came == [True, True]


def test_milliseconds_are_kept_exactly_and_time_zones_do_not_matter() -> None:
    for ms in (0, 1, 999, 1_001, T0 + 1, T0 + 333, T0 + 999):
        room = replace(video().room, opened_at=ms)
        row = _stored(room)
        assert row["created_at"] == _time(ms)
        elsewhere = row | {"created_at": _time(ms).astimezone(timezone(timedelta(hours=5, minutes=45)))}
        assert from_row(elsewhere).opened_at == ms


def test_two_that_had_met_have_come_and_are_absent_since_the_last_change() -> None:
    call = video(60, met=False)
    call.join(1)
    call.at(2_000).join(2)
    back = from_row(_stored(call.room, T0 + 2_500))
    assert (back.met_at, back.timed_from) == (T0 + 2_000, T0 + 2_000)
    for side in back.sides:
        assert (side.came, side.absent_since, side.grace_until) == (True, T0 + 2_500, None)


def test_two_that_met_in_the_very_moment_of_the_opening_have_met() -> None:
    assert from_row(_stored(video().room)).met_at == T0


def test_a_grace_period_that_ran_still_does() -> None:
    call = video(met=False)
    call.join(1)
    call.at(2_000).join(2)
    call.at(3_000).lose(1)
    back = from_row(_stored(call.room))
    assert (back.status, back.grace_period_expires) == (Status.GRACE, T0 + 13_000)
    assert [side.presence for side in back.sides] == [Presence.RECONNECTING] * 2


@pytest.mark.parametrize("chat_mode", ChatMode)
def test_one_who_waited_alone_has_come_but_there_was_no_meeting(chat_mode: ChatMode) -> None:
    call = video(met=False) if chat_mode is ChatMode.VIDEO else text(met=False)
    call.at(1_000).join(2)
    back = from_row(_stored(call.room))
    assert (back.met_at, back.timed_from, back.started_at) == (None, None, T0)
    assert [side.came for side in back.sides] == [False, True]
    assert [side.absent_since for side in back.sides] == [None, T0 + 1_000]
    assert [side.idle_from for side in back.sides] == [None, None]


def test_a_text_room_is_quiet_since_its_last_change() -> None:
    call = text(met=False)
    call.join(1)
    call.at(1_000).join(2)
    call.at(600_000).post(1)
    back = from_row(_stored(call.room))
    assert [side.idle_from for side in back.sides] == [T0 + 600_000] * 2
    assert back.timed_from is None


def test_who_wrote_when_comes_from_the_activity() -> None:
    call = text()
    call.at(2_000).post(1)
    activity = to_activity(call.room)
    assert activity is not None
    back = from_row(_stored(call.room) | {"user_1_last_message_at": activity.user_1_last_message_at})
    assert [side.last_message_at for side in back.sides] == [T0 + 2_000, None]
    assert to_activity(back) == activity


def test_the_messages_say_where_to_count_on() -> None:
    lines = [Message(seq, USER_1, "hi", T0) for seq in (7, 9, 8)]
    row = _stored(text().room)
    assert from_row(row, lines).last_seq == 9
    assert from_row(row).last_seq == 0


@pytest.mark.parametrize("broken", [{"room_id": "7"}, {"room_id": ""}])
def test_an_id_that_is_no_uuid_has_no_row(broken: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="UUID"):
        to_row(replace(video().room, room_id=broken["room_id"]))


def test_times_beyond_the_calendar_have_no_row() -> None:
    with pytest.raises(ValueError, match="year"):
        to_row(replace(video().room, ended_at=2**63, ended_reason=EndReason.HANGUP))


@pytest.mark.parametrize("broken", [{"chat_mode": "audio"}, {"ended_reason": "bored"}])
def test_a_row_with_a_word_that_we_do_not_know_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken.values()))):
        from_row(_stored(video().room) | broken)


def test_a_stale_grace_period_of_an_ended_row_means_nothing() -> None:
    call = video(met=False)
    call.join(1)
    call.at(2_000).join(2)
    call.do(End(EndReason.HANGUP))
    back = from_row(_stored(call.room) | {"grace_period_expires": _time(T0 + 10_000)})
    assert back.met_at is not None
    assert (back.status, back.grace_period_expires) == (Status.ENDED, None)


def test_the_persister_writes_the_columns_in_their_order() -> None:
    """The statement takes one array for each column, by its place alone."""
    statement = QUERIES["upsert_rooms"]
    named = re.search(r"INSERT INTO active_rooms \((.*?)\)", statement, re.DOTALL)
    assert named is not None
    assert tuple(re.findall(r"\w+", named[1])) == COLUMNS
    assert len(set(re.findall(r"\$(\d+)::", statement))) == len(COLUMNS)
    fixed = {"room_id", "user_1", "user_2", "created_at"}
    assert set(re.findall(r"^    (\w+) = EXCLUDED", statement, re.MULTILINE)) == set(COLUMNS) - fixed
