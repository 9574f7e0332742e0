from typing import Any

import pytest

from keepline.client.call_state import CallState
from keepline.client.events import (
    ChatReceived,
    Ending,
    Event,
    Inactivity,
    ModeChanged,
    PeerChanged,
    SignalRefused,
    Typing,
)
from keepline.client.models import Membership, Message
from tests.unit.client.scripted_node import ALICE, ROOM, membership, message


def state(peer: str = "joined", **changes: Any) -> CallState:
    return CallState(Membership.parse(membership(peer, **changes)), messages_kept=3)


def renewed(before: CallState, peer: str = "joined", **changes: Any) -> list[Event]:
    return before.renew(Membership.parse(membership(peer, **changes)))


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ({"type": "peer", "state": "joined"}, PeerChanged("joined")),
        (
            {"type": "peer", "state": "reconnecting", "grace_ms": 10_000},
            PeerChanged("reconnecting", grace_seconds=10.0),
        ),
        ({"type": "typing"}, Typing()),
        ({"type": "chat", "message": message(1)}, ChatReceived(Message.parse(message(1)))),
        ({"type": "mode", "action": "request"}, ModeChanged("request")),
        ({"type": "inactivity", "state": "warning", "ends_in_ms": 60_000}, Inactivity("warning", 60.0)),
        ({"type": "inactivity", "state": "cleared"}, Inactivity("cleared")),
        ({"type": "ending", "ends_in_ms": 30_000, "more": "later"}, Ending(30.0)),
        (
            {"type": "error", "code": "rate_limited", "message": "slow down", "retry_after_ms": 500},
            SignalRefused("rate_limited", "slow down", 0.5),
        ),
    ],
)
def test_frames_become_events(frame: dict[str, Any], event: Event) -> None:
    assert state().apply({"room": ROOM, **frame}) == [event]


@pytest.mark.parametrize(
    "frame", [{"type": "ack"}, {"type": "not_known_yet"}, {"type": "error", "id": "7", "code": "unavailable"}]
)
def test_frames_that_are_no_event(frame: dict[str, Any]) -> None:
    assert state().apply({"room": ROOM, **frame}) == []


def test_the_peer_is_followed() -> None:
    call = state("absent")
    for told, now in [("joined", "joined"), ("reconnecting", "reconnecting"), ("reconnected", "joined")]:
        call.apply({"type": "peer", "room": ROOM, "state": told})
        assert call.peer == now


def test_accepting_turns_the_call_to_video() -> None:
    call = state(chat_mode="text")
    call.apply({"type": "mode", "room": ROOM, "action": "accept"})
    assert call.room.chat_mode == "video"


def test_messages_are_kept_up_to_the_limit() -> None:
    call = state()
    for seq in range(1, 6):
        call.apply({"type": "chat", "room": ROOM, "message": message(seq)})
    assert [line.seq for line in call.room.messages] == [3, 4, 5]


def test_a_message_that_comes_twice_is_told_once() -> None:
    call = state(messages=[message(1)])
    assert call.apply({"type": "chat", "room": ROOM, "message": message(1)}) == []


def test_a_new_snapshot_tells_what_was_missed() -> None:
    call = state(chat_mode="text", messages=[message(1)])
    lines = [message(1), message(2, "mine", ALICE), message(3, "yours")]
    missed = renewed(call, "left", chat_mode="video", messages=lines)
    assert missed == [ChatReceived(Message.parse(lines[2])), ModeChanged("accept"), PeerChanged("left")]
    assert renewed(call, "left", chat_mode="video", messages=lines) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("reconnecting", "joined", "reconnected"),
        ("away", "joined", "reconnected"),
        ("absent", "joined", "joined"),
        ("left", "joined", "joined"),
        ("joined", "reconnecting", "reconnecting"),
        ("joined", "away", "away"),
    ],
)
def test_a_new_snapshot_tells_of_the_peer(before: str, after: str, told: str) -> None:
    call = state(before)
    assert renewed(call, after) == [PeerChanged(told)]
    assert call.peer == after


def test_a_frame_that_cannot_be_read_changes_nothing() -> None:
    call = state()
    with pytest.raises(KeyError):
        call.apply({"type": "peer", "room": ROOM})
    assert call.peer == "joined"
