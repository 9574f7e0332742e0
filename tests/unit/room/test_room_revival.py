"""A room that comes back from Postgres after all that was in memory is gone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import asdict

from keepline.room.commands import End, Revive
from keepline.room.effects import InactivityChanged, PeerChanged, RoomEnded
from keepline.room.record import EndReason, Presence, Status
from keepline.room.rows import from_row, to_row
from keepline.room.state import IllegalTransition
from tests.unit.room.calls import T0, Call, text, video


def revived(call: Call, at_ms: int, grace_ms: int = 30_000) -> Call:
    """The same call after a trip through Postgres, in which everybody was cut off."""
    updated_at = datetime.fromtimestamp(call.room.updated_at / 1_000, UTC)
    call.room = from_row(asdict(to_row(call.room)) | {"updated_at": updated_at})
    assert call.at(at_ms).do(Revive(grace_ms)) == ()
    return call


def test_a_call_waits_for_both_sides_and_goes_on_when_they_are_back() -> None:
    call = revived(video(600), 100_000)
    assert (call.room.status, call.next_due) == (Status.GRACE, ("grace", 130_000))
    assert [side.presence for side in call.room.sides] == [Presence.RECONNECTING] * 2
    assert [side.absent_since for side in call.room.sides] == [T0 + 100_000] * 2
    call.at(110_000).join(1)
    assert call.at(129_999).join(2) == (PeerChanged(1, "reconnected"),)
    assert (call.room.status, call.room.started_at, call.next_due) == (Status.ACTIVE, T0, ("ending", 570_000))


def test_a_call_to_which_nobody_returns_ends() -> None:
    call = revived(video(), 100_000)
    assert call.at(129_999).tick() == ()
    assert call.at(130_000).tick() == (RoomEnded(EndReason.GRACE_EXPIRED),)


def test_the_time_in_which_nobody_could_write_does_not_count() -> None:
    call = text()
    call.at(120_000).tick()
    revived(call, 500_000)
    assert (call.room.warning_started_at, call.next_due) == (None, ("idle", 620_000))
    assert call.at(620_000).tick() == (InactivityChanged("warning", 60_000),)


def test_who_had_not_come_yet_gets_the_time_of_a_new_room() -> None:
    call = revived(video(met=False), 50_000)
    assert call.next_due is not None
    assert call.next_due[1] == 110_000
    call.at(60_000).join(1)
    call.at(109_999).join(2)
    assert (call.room.status, call.room.started_at) == (Status.ACTIVE, T0 + 109_999)


def test_an_empty_text_room_is_a_no_show_counted_from_its_revival() -> None:
    call = revived(text(met=False), 50_000)
    assert call.next_due == ("no_show", 110_000)
    assert [side.idle_from for side in call.room.sides] == [None, None]
    assert call.at(110_000).tick() == (RoomEnded(EndReason.NO_SHOW),)


def test_one_who_waited_alone_has_the_grace_of_the_revival() -> None:
    call = video(met=False)
    call.join(1)
    revived(call, 50_000)
    assert [side.grace_until for side in call.room.sides] == [T0 + 80_000, T0 + 110_000]


def test_a_revival_makes_the_next_version_and_keeps_the_rest() -> None:
    call = video(90)
    before = call.room
    revived(call, 1_000)
    assert call.room.version == before.version + 1
    assert (call.room.met_at, call.room.timed_from) == (before.met_at, before.timed_from)


def test_what_has_ended_stays_ended() -> None:
    call = video()
    call.do(End(EndReason.HANGUP))
    with pytest.raises(IllegalTransition, match="revive is not possible in a room that is ended"):
        call.do(Revive(30_000))
