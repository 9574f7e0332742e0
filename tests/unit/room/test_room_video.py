"""Video rooms: grace periods and the agreed length of the call."""

from __future__ import annotations

import pytest

from keepline.room.commands import End
from keepline.room.effects import EndingSoon, PeerChanged, RoomEnded
from keepline.room.record import EndReason, Presence, SideNumber, Status, other
from keepline.room.rules import Rules
from tests.unit.room.calls import SECOND, T0, video


@pytest.mark.parametrize("side", [1, 2])
def test_a_lost_side_has_10_seconds(side: SideNumber) -> None:
    call = video()
    assert call.at(5_000).lose(side) == (PeerChanged(other(side), "reconnecting", 10_000),)
    assert (call.room.status, call.room.grace_period_expires) == (Status.GRACE, T0 + 15_000)
    assert call.room.side(side).presence is Presence.RECONNECTING
    assert call.room.side(side).absent_since == T0 + 5_000
    assert call.at(14_999).tick() == ()
    assert call.at(15_000).tick() == (RoomEnded(EndReason.GRACE_EXPIRED),)
    assert call.room.ended_at == T0 + 15_000


@pytest.mark.parametrize("side", [1, 2])
def test_a_side_that_leaves_has_10_seconds_too_and_the_peer_hears_that_it_left(side: SideNumber) -> None:
    call = video()
    assert call.leave(side) == (PeerChanged(other(side), "left", 10_000),)
    assert call.room.side(side).presence is Presence.LEFT
    assert (call.room.status, call.next_due) == (Status.GRACE, ("grace", 10_000))


@pytest.mark.parametrize("side", [1, 2])
def test_back_in_time_the_room_is_active_again(side: SideNumber) -> None:
    call = video()
    call.at(5_000).lose(side)
    call.at(14_999).join(side, "session-new")
    assert (call.room.status, call.room.grace_period_expires) == (Status.ACTIVE, None)
    assert call.room.side(side).absent_since is None
    assert call.at(15_000).tick() == ()


@pytest.mark.parametrize("first", [1, 2])
def test_each_side_has_its_own_grace_and_the_earliest_wins(first: SideNumber) -> None:
    second = other(first)
    call = video()
    call.at(1_000).lose(first)
    call.at(6_000).lose(second)
    assert [call.room.side(side).grace_until for side in (first, second)] == [T0 + 11_000, T0 + 16_000]
    assert call.next_due == ("grace", 11_000)
    call.at(10_000).join(first)
    assert (call.room.status, call.next_due) == (Status.GRACE, ("grace", 16_000))
    call.at(15_999).join(second)
    assert call.room.status is Status.ACTIVE


def test_a_second_loss_starts_a_new_grace() -> None:
    call = video()
    call.lose(1)
    call.at(9_000).join(1)
    call.at(12_000).lose(1)
    assert call.next_due == ("grace", 22_000)


def test_the_length_of_the_grace_is_a_rule() -> None:
    call = video(rules=Rules(grace_ms=30_000))
    assert call.lose(1) == (PeerChanged(2, "reconnecting", 30_000),)
    assert call.next_due == ("grace", 30_000)


def test_people_write_while_a_side_is_awaited() -> None:
    call = video()
    call.lose(1)
    call.post(2)
    assert (call.room.status, call.room.last_seq) == (Status.GRACE, 1)


def test_a_room_can_be_hung_up_while_a_side_is_awaited() -> None:
    call = video()
    call.lose(1)
    assert call.do(End(EndReason.HANGUP)) == (RoomEnded(EndReason.HANGUP),)


def test_a_call_ends_at_its_length_and_warns_30_seconds_before() -> None:
    call = video(60, met=False)
    call.at(1_000).join(1)
    call.at(7_000).join(2)
    assert call.next_due == ("ending", 37_000)
    assert call.at(36_999).tick() == ()
    assert call.at(37_000).tick() == (EndingSoon(30_000),)
    assert call.room.ending_warned
    assert call.next_due == ("duration", 67_000)
    assert call.at(66_999).tick() == ()
    assert call.at(67_000).tick() == (RoomEnded(EndReason.DURATION),)


def test_a_late_warning_says_how_long_there_really_is() -> None:
    call = video(60)
    assert call.at(42_000).tick() == (EndingSoon(18_000),)


def test_a_tick_that_is_far_too_late_does_all_that_was_due() -> None:
    call = video(60)
    before = call.room.version
    assert call.at(3_600 * SECOND).tick() == (EndingSoon(0), RoomEnded(EndReason.DURATION))
    assert call.room.version == before + 2


def test_the_clock_of_the_call_goes_on_while_a_side_is_awaited() -> None:
    call = video(60)
    call.at(55_000).tick()
    call.at(55_000).lose(1)
    assert call.next_due == ("duration", 60_000)
    assert call.at(60_000).tick() == (RoomEnded(EndReason.DURATION),)


def test_a_call_without_a_length_never_ends_by_itself() -> None:
    call = video(0)
    assert call.next_due is None
    assert call.at(86_400 * SECOND).tick() == ()
