"""Text rooms: messages, absence, inactivity, and how a text room becomes a video room."""

from __future__ import annotations

import pytest

from keepline.room.commands import AcceptVideo, DeclineVideo, RequestVideo
from keepline.room.effects import InactivityChanged, ModeAsked, PeerChanged, Posted, RoomEnded
from keepline.room.record import ChatMode, EndReason, Message, Presence, SideNumber, Status, other
from keepline.room.state import IllegalTransition
from tests.unit.room.calls import SECOND, T0, USER_1, USER_2, Call, text, video

both_sides = pytest.mark.parametrize("side", [1, 2])


def test_messages_count_and_go_to_the_other_side() -> None:
    call = text()
    assert call.at(1_000).post(1, "hi") == (Posted(2, Message(1, USER_1, "hi", T0 + 1_000)),)
    assert call.at(2_000).post(2, "ho") == (Posted(1, Message(2, USER_2, "ho", T0 + 2_000)),)
    assert call.at(2_000).post(2, "!!") == (Posted(1, Message(3, USER_2, "!!", T0 + 2_000)),)
    assert call.room.last_seq == 3
    assert [side.last_message_at for side in call.room.sides] == [T0 + 1_000, T0 + 2_000]


def test_video_rooms_carry_messages_too() -> None:
    call = video()
    call.post(1)
    assert (call.room.last_seq, call.next_due) == (1, None)


@both_sides
def test_a_lost_side_is_away_and_the_room_stays_active(side: SideNumber) -> None:
    call = text()
    assert call.at(1_000).lose(side) == (PeerChanged(other(side), "away"),)
    assert (call.room.status, call.room.grace_period_expires) == (Status.ACTIVE, None)
    assert call.room.side(side).presence is Presence.AWAY
    assert call.next_due == ("idle", 120_000)


@both_sides
def test_a_side_that_leaves_has_left(side: SideNumber) -> None:
    call = text()
    assert call.leave(side) == (PeerChanged(other(side), "left"),)
    assert (call.room.status, call.room.side(side).presence) == (Status.ACTIVE, Presence.LEFT)


def test_nobody_writes_for_120_seconds_warning_60_more_end() -> None:
    call = text(met=False)
    call.at(1_000).join(1)
    call.at(5_000).join(2)
    assert call.next_due == ("idle", 125_000)
    assert call.at(124_999).tick() == ()
    assert call.at(125_000).tick() == (InactivityChanged("warning", 60_000),)
    assert call.room.warning_started_at == T0 + 125_000
    assert call.next_due == ("inactivity", 185_000)
    assert call.at(184_999).tick() == ()
    assert call.at(185_000).tick() == (RoomEnded(EndReason.INACTIVITY),)


@both_sides
def test_it_takes_only_one_silent_side(side: SideNumber) -> None:
    call = text()
    call.at(100_000).post(other(side))
    assert call.next_due == ("idle", 120_000)
    call.at(110_000).post(side)
    assert call.next_due == ("idle", 220_000)


@both_sides
def test_a_message_by_either_side_clears_the_warning_for_both(side: SideNumber) -> None:
    call = text()
    call.at(100_000).post(1)
    call.at(120_000).tick()
    told = call.at(179_999).post(side)
    assert told == (
        Posted(other(side), Message(2, call.room.side(side).user, "hi", T0 + 179_999)),
        InactivityChanged("cleared"),
    )
    assert call.room.warning_started_at is None
    assert call.next_due == ("idle", 299_999)
    assert call.room.side(other(side)).last_message_at == (T0 + 100_000 if side == 2 else None)


def test_the_full_warning_counts_from_when_it_was_given() -> None:
    call = text()
    assert call.at(150_000).tick() == (InactivityChanged("warning", 60_000),)
    assert call.next_due == ("inactivity", 210_000)


def test_away_or_left_for_good_ends_by_inactivity() -> None:
    call = text()
    call.lose(1)
    call.leave(2)
    call.at(120_000).tick()
    assert call.at(180_000).tick() == (RoomEnded(EndReason.INACTIVITY),)


def test_coming_back_is_not_writing() -> None:
    call = text()
    call.lose(1)
    call.at(119_000).join(1)
    assert call.next_due == ("idle", 120_000)


def test_coming_back_does_not_clear_a_warning() -> None:
    call = text()
    call.lose(1)
    call.at(120_000).tick()
    assert call.at(130_000).join(1) == (PeerChanged(2, "reconnected"),)
    assert call.next_due == ("inactivity", 180_000)


def test_text_before_the_other_side_came_does_not_start_the_idle_clock() -> None:
    call = text(met=False)
    call.join(1)
    call.at(1_000).post(1)
    assert call.next_due == ("no_show", 60_000)
    call.at(50_000).join(2)
    assert call.next_due == ("idle", 170_000)


def test_text_rooms_have_no_length() -> None:
    assert text(60).next_due == ("idle", 120_000)


@both_sides
def test_one_side_asks_and_the_other_accepts(side: SideNumber) -> None:
    call = text(60)
    assert call.at(1_000).do(RequestVideo(side)) == (ModeAsked(other(side), "request"),)
    assert (call.room.chat_mode, call.room.mode_requested_by) == (ChatMode.TEXT, side)
    assert call.at(2_000).do(AcceptVideo(other(side))) == (ModeAsked(side, "accept"),)
    assert (call.room.chat_mode, call.room.mode_requested_by) == (ChatMode.VIDEO, None)


def test_a_text_room_that_became_a_video_room_follows_its_rules_from_then_on() -> None:
    call = text(60)
    call.do(RequestVideo(1))
    call.at(10_000).do(AcceptVideo(2))
    assert call.room.started_at == T0
    assert call.next_due == ("ending", 40_000)
    call.at(20_000).lose(1)
    assert (call.room.status, call.next_due) == (Status.GRACE, ("grace", 30_000))


def test_accepting_clears_an_inactivity_warning() -> None:
    call = text()
    call.at(120_000).tick()
    call.do(RequestVideo(1))
    assert call.room.warning_started_at == T0 + 120_000
    assert call.do(AcceptVideo(2)) == (ModeAsked(1, "accept"), InactivityChanged("cleared"))
    assert call.next_due is None


@both_sides
def test_the_other_side_declines(side: SideNumber) -> None:
    call = text()
    call.do(RequestVideo(side))
    assert call.do(DeclineVideo(other(side))) == (ModeAsked(side, "decline"),)
    assert (call.room.chat_mode, call.room.mode_requested_by) == (ChatMode.TEXT, None)


def test_asking_twice_changes_nothing() -> None:
    call = text()
    call.do(RequestVideo(1))
    before = call.room
    assert call.at(1_000).do(RequestVideo(1)) == ()
    assert call.room is before


@both_sides
def test_when_both_ask_they_agree_and_both_hear_of_it(side: SideNumber) -> None:
    call = text()
    call.do(RequestVideo(side))
    told = call.at(1_000).do(RequestVideo(other(side)))
    assert set(told) == {ModeAsked(1, "accept"), ModeAsked(2, "accept")}
    assert (call.room.chat_mode, call.room.mode_requested_by) == (ChatMode.VIDEO, None)


@pytest.mark.parametrize("answer", [AcceptVideo, DeclineVideo])
def test_only_the_other_side_can_answer_and_only_what_was_asked(
    answer: type[AcceptVideo | DeclineVideo],
) -> None:
    call = text()
    with pytest.raises(IllegalTransition, match="has not requested"):
        call.do(answer(2))
    call.do(RequestVideo(1))
    with pytest.raises(IllegalTransition, match="has not requested"):
        call.do(answer(1))


@both_sides
@pytest.mark.parametrize("goes", [Call.lose, Call.leave])
def test_a_request_is_off_when_either_goes(goes: object, side: SideNumber) -> None:
    call = text()
    call.do(RequestVideo(1))
    call.lose(side) if goes is Call.lose else call.leave(side)
    assert call.room.mode_requested_by is None
    call.join(side)
    with pytest.raises(IllegalTransition, match="has not requested"):
        call.do(AcceptVideo(2))


@both_sides
def test_a_request_needs_both_to_be_there(side: SideNumber) -> None:
    call = text()
    call.lose(side)
    with pytest.raises(IllegalTransition, match="is not connected"):
        call.do(RequestVideo(other(side)))
    with pytest.raises(IllegalTransition, match="the requesting side is not connected"):
        call.do(RequestVideo(side))


def test_video_cannot_be_asked_for_in_a_video_room() -> None:
    call = video()
    with pytest.raises(IllegalTransition, match="already a video room"):
        call.do(RequestVideo(1))
    call.lose(2)
    with pytest.raises(
        IllegalTransition, match="requestvideo is not possible in a room that is grace_period"
    ):
        call.do(RequestVideo(1))


def test_an_answer_in_a_video_room_is_refused() -> None:
    call = text()
    call.do(RequestVideo(1))
    call.do(AcceptVideo(2))
    with pytest.raises(IllegalTransition, match="has not requested"):
        call.at(180 * SECOND).do(AcceptVideo(2))
