"""Sides that were lost with their node, while the cluster takes in the crowd that they are part of."""

from __future__ import annotations

import pytest

from keepline.room.codec import decode_record, encode_record
from keepline.room.commands import Leave, Revive
from keepline.room.effects import PeerChanged, RoomEnded
from keepline.room.record import EndReason, SideNumber, Status, other
from keepline.room.rules import Rules
from tests.unit.room.calls import T0, text, video

ENDED = (RoomEnded(EndReason.GRACE_EXPIRED),)


@pytest.mark.parametrize("side", [1, 2])
def test_a_side_lost_with_its_node_has_10_seconds_when_nobody_waits(side: SideNumber) -> None:
    call = video()
    assert call.at(5_000).lose(side, with_node=True) == (PeerChanged(other(side), "reconnecting", 10_000),)
    assert call.next_due == ("grace", 15_000)
    assert call.at(14_999).tick() == ()
    assert call.at(15_000).tick() == ENDED


@pytest.mark.parametrize("side", [1, 2])
def test_in_a_crowd_it_has_60_seconds_and_no_more(side: SideNumber) -> None:
    call = video()
    call.at(5_000).lose(side, with_node=True)
    before = call.room
    assert call.at(15_000).tick(crowded=True) == ()
    assert call.at(64_999).tick(crowded=True) == ()
    assert call.room is before, "nothing is to be stored for it"
    assert call.at(65_000).tick(crowded=True) == ENDED


def test_when_the_crowd_is_in_its_time_is_over() -> None:
    call = video()
    call.at(5_000).lose(1, with_node=True)
    assert call.at(40_000).tick(crowded=True) == ()
    assert call.at(40_001).tick() == ENDED


def test_back_within_the_longer_time_the_call_goes_on() -> None:
    call = video()
    call.lose(1, with_node=True)
    call.at(30_000).tick(crowded=True)
    assert call.join(1, "session-new") == (PeerChanged(2, "reconnected"),)
    assert call.room.status is Status.ACTIVE
    assert not call.room.side_1.lost_with_node


@pytest.mark.parametrize("on_purpose", [False, True])
def test_a_side_lost_by_itself_has_10_seconds_in_a_crowd_too(on_purpose: bool) -> None:
    call = video()
    if on_purpose:
        call.do(Leave(1, "session-1"))
    else:
        call.lose(1)
    assert call.at(9_999).tick(crowded=True) == ()
    assert call.at(10_000).tick(crowded=True) == ENDED


def test_of_two_sides_the_one_that_was_lost_by_itself_decides() -> None:
    call = video()
    call.lose(1, with_node=True)
    call.at(2_000).lose(2)
    assert call.at(11_999).tick(crowded=True) == ()
    assert call.at(12_000).tick(crowded=True) == ENDED


def test_lost_again_by_itself_it_has_10_seconds() -> None:
    call = video()
    call.lose(1, with_node=True)
    call.at(20_000).join(1)
    call.at(21_000).lose(1)
    assert call.at(31_000).tick(crowded=True) == ENDED


def test_a_longer_grace_period_is_not_made_shorter() -> None:
    call = video(rules=Rules(grace_ms=90_000))
    call.lose(1, with_node=True)
    assert call.at(89_999).tick(crowded=True) == ()
    assert call.at(90_000).tick(crowded=True) == ENDED


def test_other_deadlines_are_kept() -> None:
    call = video(duration_seconds=60)
    call.lose(1, with_node=True)
    told = call.at(60_000).tick(crowded=True)
    assert told[-1] == RoomEnded(EndReason.DURATION)


def test_a_room_from_postgres_waits_for_its_crowd() -> None:
    call = video()
    call.do(Revive(30_000))
    assert call.at(30_000).tick(crowded=True) == ()
    assert call.at(60_000).tick(crowded=True) == ENDED


def test_a_text_room_has_no_grace_period() -> None:
    chat = text()
    assert chat.lose(1, with_node=True) == (PeerChanged(2, "away", None),)
    assert (chat.room.side_1.grace_until, chat.next_due) == (None, ("idle", 120_000))
    assert chat.at(119_999).tick(crowded=True) == ()
    assert chat.room.side_1.absent_since == T0


def test_the_record_says_so_only_where_it_is_so() -> None:
    call = video()
    assert b"lost_with_node" not in encode_record(call.room), "older nodes need not read it the long way"
    call.lose(1, with_node=True)
    written = encode_record(call.room)
    assert written.count(b'"lost_with_node":true') == 1
    assert decode_record(written) == call.room
