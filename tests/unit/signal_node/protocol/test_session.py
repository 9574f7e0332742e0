"""A session: what it decides about each frame at each stage. Time is an argument."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import UNSET

from keepline.room.commands import AcceptVideo, Command, DeclineVideo, End, Leave, Post, RequestVideo
from keepline.room.record import EndReason, Message
from signal_node.protocol import close_codes
from signal_node.protocol.backlog import MAX_FRAMES
from signal_node.protocol.effects import (
    Act,
    Authenticate,
    CloseConnection,
    Effect,
    JoinRequest,
    LineRequest,
    Relay,
    ReportRequest,
    Send,
)
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.session import Session, SessionLimits, Stage
from signal_node.protocol.session_rooms import MAX_ROOMS
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, SESSION_1, T0, USER_1, met

FRAMES: dict[str, dict[str, Any]] = {
    "hello": {"token": "t"},
    "join": {"room": ROOM},
    "signal": {"room": ROOM, "stream": "s", "n": 1, "data": {}},
    "ack": {"room": ROOM, "stream": "s", "n": 1},
    "typing": {"room": ROOM},
    "chat": {"room": ROOM, "text": "hi"},
    "mode": {"room": ROOM, "action": "request"},
    "leave": {"room": ROOM},
    "end": {"room": ROOM},
    "report": {"room": ROOM, "reason": "rude"},
    "ping": {},
}


def text(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **FRAMES.get(kind, {}), **fields})


def told(effects: Sequence[Effect]) -> list[Any]:
    """Effects in short: frames as JSON, closes as their code, the rest as it is."""
    return [
        json.loads(effect.data)
        if isinstance(effect, Send)
        else effect.close.code
        if isinstance(effect, CloseConnection)
        else effect
        for effect in effects
    ]


def error_of(effects: Sequence[Effect]) -> dict[str, Any]:
    """The one frame of the effects, an error."""
    (frame,) = told(effects)
    assert frame["type"] == "error"
    del frame["type"], frame["message"]
    return dict(frame)


class Client:
    """A session and its clock, which stands still unless told otherwise."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.session = Session(SESSION_1, limits or SessionLimits())
        self.now = 1000.0

    def says(self, kind: str, **fields: Any) -> Sequence[Effect]:
        return self.session.receive(text(kind, **fields), self.now)

    def is_welcomed(self) -> Sequence[Effect]:
        self.session.user = USER_1
        return self.session.welcomed(
            request_id=UNSET, resume="r", resumed=False, node="n", ice_servers=[], rooms=[]
        )


def new(limits: SessionLimits | None = None) -> Client:
    return Client(limits)


def authenticating() -> Client:
    client = new()
    client.says("hello")
    return client


def ready(limits: SessionLimits | None = None) -> Client:
    client = new(limits)
    client.says("hello")
    client.is_welcomed()
    return client


def in_room(limits: SessionLimits | None = None) -> Client:
    client = ready(limits)
    client.session.rooms.hold(ROOM, 1)
    return client


# --- hello ---


@pytest.mark.parametrize("kind", sorted(set(FRAMES) - {"hello"}))
def test_whatever_comes_before_hello_ends_the_connection(kind: str) -> None:
    client = new()
    error, close = told(client.says(kind, id="7"))
    assert (error["code"], error["id"], close) == ("unauthorized", "7", 4401)
    assert client.says("hello") == ()


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        ('{"type":"hello","id":"7"}', "token"),
        ('{"type":"hello","id":"7","token":1}', "$.token"),
        (json.dumps({"type": "hello", "id": "7", "token": "t" * 4097}), "$.token"),
        ('{"type":"hello","id":"7","token":"t","resume":null}', "$.resume"),
        ('{"type":"hello","id":"7","token":"t","room":"r"}', "room"),
        ('{"type":"hello","id":[7],"token":"t"}', "$.id"),
        ('\ufeff{"type":"hello","token":"t"}', "byte order mark"),
        ("{", "not JSON"),
        ("[]", "object"),
        ("", "not JSON"),
    ],
)
def test_a_hello_that_cannot_be_read_is_told_what_is_wrong_with_it(hello: str, why: str) -> None:
    error, close = told(new().session.receive(hello, 0))
    assert (error["code"], close) == ("bad_request", 4400)
    assert why in error["message"]
    assert error.get("id") == ("7" if '"7"' in hello else None)


@pytest.mark.parametrize("around", ["\n", " ", "\r\n\t"])
def test_white_space_around_a_token_does_no_harm(around: str) -> None:
    assert new().says("hello", token=f"{around}t{around}") == (Authenticate("t", None, UNSET),)


def test_hello_asks_for_a_look_at_the_token() -> None:
    assert new().says("hello", id="7", resume="r") == (Authenticate("t", "r", "7"),)
    assert new().says("hello") == (Authenticate("t", None, UNSET),)


def test_a_good_token_is_welcomed() -> None:
    client = authenticating()
    (welcome,) = told(client.is_welcomed())
    assert (welcome["type"], welcome["user"], welcome["session"]) == ("welcome", USER_1, SESSION_1)
    assert client.session.stage is Stage.READY


def test_the_welcome_tells_what_may_be_sent() -> None:
    client = new(SessionLimits(frames_per_second=20, frames_burst=30, frame_bytes=4096, ping_ms=500))
    client.says("hello")
    (welcome,) = told(client.is_welcomed())
    assert welcome["limits"] == {
        "frames_per_second": 20,
        "frames_burst": 30,
        "frame_bytes": 4096,
        "chat_length": 500,
        "chat_key": 64,
        "ping_ms": 500,
    }


@pytest.mark.parametrize("answer", [{"id": "7"}, {"id": 0}, {}])
def test_a_ping_is_answered_with_its_id(answer: dict[str, Any]) -> None:
    assert told(ready().says("ping", **answer)) == [{"type": "pong", **answer}]


def test_a_number_as_id_is_repeated_with_every_kind_of_answer() -> None:
    client = in_room()
    assert error_of(client.says("chat", id=0, text=""))["id"] == 0
    assert error_of(client.says("hello", id=0))["id"] == 0
    assert error_of(client.says("join", id=7, room=ROOM[:-1]))["id"] == 7
    assert told(client.session.answers.done(0, None)) == [{"type": "ok", "id": 0}]
    assert told(new().says("join", id=0))[0]["id"] == 0


def test_a_bad_token_is_told_so_and_closed() -> None:
    client = authenticating()
    error, close = told(client.session.refused("7", "expired"))
    assert (error["code"], error["id"], error["message"], close) == ("unauthorized", "7", "expired", 4401)
    assert client.is_welcomed() == ()


def test_hello_may_come_again_when_the_token_could_not_be_checked() -> None:
    client = authenticating()
    client.says("join")
    answer = error_of(client.session.postponed("7", "no keys", 1_000))
    assert answer == {"code": "unavailable", "id": "7", "retry_after_ms": 1_000}
    assert client.says("hello") == (Authenticate("t", None, UNSET),)
    assert len(client.is_welcomed()) == 1, "what waited for the first answer is dropped with it"


def test_hello_comes_once() -> None:
    assert error_of(ready().says("hello", id="7")) == {"code": "bad_request", "id": "7"}


# --- while the token is looked at ---


def test_what_comes_meanwhile_waits_for_the_welcome_in_order() -> None:
    client = authenticating()
    assert client.says("join", id="1") == ()
    assert client.says("join", id="2", room=OTHER_ROOM) == ()
    effects = client.is_welcomed()
    assert told(effects)[0]["type"] == "welcome"
    assert list(effects[1:]) == [JoinRequest(ROOM, "1"), JoinRequest(OTHER_ROOM, "2")]


def test_no_more_than_the_backlog_waits() -> None:
    client = authenticating()
    for _ in range(MAX_FRAMES):
        assert client.says("join") == ()
    assert told(client.says("join")) == [4429]
    assert client.is_welcomed() == ()


def test_the_backlog_is_bounded_in_bytes() -> None:
    client = authenticating()
    large = text("signal", data="\N{GRINNING FACE}" * 15_000)  # escaped: 180,000 bytes of JSON
    assert told(client.session.receive(large, client.now)) == [4429]
    client = authenticating()
    half = json.dumps({"type": "signal", "data": "\N{GRINNING FACE}" * 16_000}, ensure_ascii=False)
    assert client.session.receive(half, client.now) == ()
    assert client.session.receive(half, client.now) == ()
    assert told(client.session.receive(half, client.now)) == [4429]


def test_garbage_in_the_backlog_counts_once_it_is_read() -> None:
    client = authenticating()
    for _ in range(10):
        assert client.session.receive("{", client.now) == ()
    assert told(client.is_welcomed())[-1] == 4400


def test_nothing_in_the_backlog_is_read_after_the_close() -> None:
    client = authenticating()
    for _ in range(10):
        client.session.receive("{", client.now)
    client.says("join")
    answers = told(client.is_welcomed())
    assert answers[-1] == 4400
    assert len(answers) == 1 + 10 + 1


# --- rooms ---


@pytest.mark.parametrize("kind", ["signal", "ack", "typing"])
def test_what_is_for_the_peer_is_relayed_without_its_id(kind: str) -> None:
    (relay,) = in_room().says(kind, id="7")
    assert isinstance(relay, Relay)
    assert (relay.room_id, relay.side) == (ROOM, 1)
    assert json.loads(relay.data) == {"type": kind, **FRAMES[kind]}


@pytest.mark.parametrize("kind", ["signal", "ack", "typing", "chat", "mode", "leave", "end"])
def test_a_room_has_to_be_joined_first(kind: str) -> None:
    for client in (ready(), in_room()):
        answer = error_of(client.says(kind, id="7", room=OTHER_ROOM))
        assert answer == {"code": "not_a_member", "id": "7", "room": OTHER_ROOM}


@pytest.mark.parametrize("kind", ["signal", "ack", "typing", "chat", "mode", "leave", "end"])
def test_of_a_room_that_has_ended_the_client_is_told_so(kind: str) -> None:
    client = in_room()
    client.session.rooms.release(ROOM, ended=True, reason=EndReason.DURATION)
    refused = {"code": "room_ended", "id": "7", "room": ROOM, "reason": "duration"}
    assert error_of(client.says(kind, id="7")) == refused


def test_a_room_that_was_left_is_not_a_past_one() -> None:
    client = in_room()
    client.session.rooms.release(ROOM, ended=False)
    assert error_of(client.says("typing"))["code"] == "not_a_member"


def test_only_so_many_past_rooms_are_remembered() -> None:
    client = ready()
    rooms = [f"{number:036d}" for number in range(MAX_ROOMS + 1)]
    for room in rooms:
        client.session.rooms.hold(room, 1)
        client.session.rooms.release(room, ended=True)
    assert error_of(client.says("typing", room=rooms[0]))["code"] == "not_a_member"
    assert error_of(client.says("typing", room=rooms[1]))["code"] == "room_ended"


def test_a_room_never_held_does_not_become_a_past_one() -> None:
    client = ready()
    client.session.rooms.release(ROOM, ended=True)
    assert error_of(client.says("typing"))["code"] == "not_a_member"


@pytest.mark.parametrize(
    ("kind", "fields", "command"),
    [
        ("chat", {}, Post(1, "hi")),
        ("chat", {"key": "k"}, Post(1, "hi", "k")),
        ("mode", {"action": "request"}, RequestVideo(1)),
        ("mode", {"action": "accept"}, AcceptVideo(1)),
        ("mode", {"action": "decline"}, DeclineVideo(1)),
        ("leave", {}, Leave(1, SESSION_1)),
        ("end", {}, End(EndReason.HANGUP)),
    ],
)
def test_what_changes_a_room_becomes_a_command(kind: str, fields: dict[str, Any], command: Command) -> None:
    assert in_room().says(kind, id="7", **fields) == (Act(ROOM, command, "7"),)


def test_a_line_with_a_key_is_looked_for_where_the_room_is_not_held() -> None:
    client = ready()
    assert client.says("chat", id="7", key="k", room=ROOM.upper()) == (LineRequest(ROOM, "k", "7"),)
    assert error_of(client.says("chat", id="7"))["code"] == "not_a_member"


@pytest.mark.parametrize("line", ["\0", "a\0b"])
@pytest.mark.parametrize(("kind", "field"), [("chat", "text"), ("chat", "key"), ("report", "reason")])
def test_what_users_write_may_not_contain_what_postgres_cannot_hold(kind: str, field: str, line: str) -> None:
    answer = error_of(in_room().says(kind, id="7", **{field: line}))
    assert answer == {"code": "bad_request", "id": "7", "room": ROOM}


def test_a_room_can_be_reported_without_being_joined_and_after_its_end() -> None:
    client = in_room()
    for _ in range(2):
        for room in (ROOM, OTHER_ROOM):
            assert client.says("report", id="7", room=room) == (ReportRequest(room, "rude", "7"),)
        client.session.rooms.release(ROOM, ended=True)


@pytest.mark.parametrize("without", ["stream", "n"])
def test_stream_and_n_go_together(without: str) -> None:
    fields = {name: value for name, value in FRAMES["signal"].items() if name != without}
    client = in_room()
    answer = error_of(client.session.receive(json.dumps({"type": "signal", "id": "7", **fields}), client.now))
    assert answer == {"code": "bad_request", "id": "7", "room": ROOM}


def test_a_signal_may_come_without_stream_and_n() -> None:
    client = in_room()
    plain = json.dumps({"type": "signal", "room": ROOM, "data": 1})
    (relay,) = client.session.receive(plain, client.now)
    assert isinstance(relay, Relay)


def test_a_connection_holds_only_so_many_rooms() -> None:
    client = ready()
    for number in range(MAX_ROOMS):
        client.session.rooms.hold(f"{number:036d}", 1)
    assert error_of(client.says("join", id="7")) == {"code": "bad_request", "id": "7", "room": ROOM}
    again = f"{0:036d}"
    assert client.says("join", room=again) == (JoinRequest(again, UNSET),), (
        "one that it holds it may join again"
    )
    client.session.rooms.release(again, ended=False)
    assert client.says("join") == (JoinRequest(ROOM, UNSET),)


# --- answers ---


def test_joined_says_which_side_and_what_of_the_peer() -> None:
    (frame,) = told(in_room().session.rooms.joined(met(), [], "7"))
    assert (frame["type"], frame["id"], frame["side"], frame["polite"], frame["peer"]) == (
        "joined",
        "7",
        1,
        False,
        "joined",
    )


def test_a_room_that_ended_before_the_answer_is_not_joined() -> None:
    client = in_room()
    client.session.rooms.release(ROOM, ended=True, reason=EndReason.HANGUP)
    answer = error_of(client.session.rooms.joined(met(), [], "7"))
    assert answer == {"code": "room_ended", "id": "7", "room": ROOM, "reason": "hangup"}


def test_ok_brings_the_line_with_its_number() -> None:
    line = Message(1, USER_1, "hi", T0)
    assert told(ready().session.answers.done("7", line)) == [
        {"type": "ok", "id": "7", "message": {"seq": 1, "from": USER_1, "text": "hi", "at": T0}}
    ]
    assert told(ready().session.answers.done(UNSET, None)) == [{"type": "ok"}]


# --- limits ---


def test_too_many_frames_are_dropped_with_a_word_about_when_to_go_on() -> None:
    client = in_room(SessionLimits(bad_frames=10, frames_per_second=4, frames_burst=3))
    for _ in range(2):  # hello took one of the three
        assert isinstance(client.says("typing")[0], Relay)
    dropped = error_of(client.says("typing", id="7"))
    assert dropped == {"code": "rate_limited", "id": "7", "retry_after_ms": 250}
    assert error_of(client.session.receive("{", client.now)) == {
        "code": "rate_limited",
        "retry_after_ms": 250,
    }
    client.now += 0.25
    assert isinstance(client.says("typing")[0], Relay)
    assert error_of(client.says("typing"))["code"] == "rate_limited"


def test_who_does_not_stop_is_closed_as_rate_limited() -> None:
    client = in_room(SessionLimits(bad_frames=10, frames_per_second=1, frames_burst=1))
    answers = [told(client.says("typing")) for _ in range(11)]
    assert [answer[0]["code"] for answer in answers[:10]] == ["rate_limited"] * 10
    assert (answers[9][1:], answers[10]) == ([4429], [])


def test_a_pause_fills_the_bucket_no_further_than_the_burst() -> None:
    client = in_room(SessionLimits(bad_frames=10, frames_per_second=50, frames_burst=3))
    client.now += 3600
    relayed = [isinstance(client.says("typing")[0], Relay) for _ in range(4)]
    assert relayed == [True, True, True, False]


@pytest.mark.parametrize(
    "bad", ["{", '{"type":"nonsense"}', '{"type":"typing"}', '{"type":"hello","token":"t"}']
)
def test_ten_bad_frames_end_the_connection(bad: str) -> None:
    client = ready()
    for _ in range(9):
        assert len(client.session.receive(bad, client.now)) == 1
    error, close = told(client.session.receive(bad, client.now))
    assert (error["type"], close) == ("error", 4400)
    assert client.session.receive(bad, client.now) == ()


def test_bad_frames_are_forgotten_one_by_one() -> None:
    client = ready()
    for _ in range(9):
        client.says("nonsense")
    for _ in range(20):
        client.now += 6.0
        assert len(client.says("nonsense")) == 1
    assert told(client.says("nonsense"))[-1] == 4400


@pytest.mark.parametrize(
    "mistake",
    [
        text("chat", text="x" * 501),
        text("chat", text=""),
        text("chat", text="\0"),
        text("chat", text="cut \ud83d"),
        text("signal", data={"app": "cut \ud83d"}),
        text("report", reason="x" * 501),
        text("report", reason="\0"),
        text("report", reason="cut \ud83d"),
    ],
)
def test_mistakes_of_users_end_no_connection(mistake: str) -> None:
    client = in_room()
    named = json.dumps(json.loads(mistake) | {"id": 7})
    for _ in range(50):
        refused = error_of(client.session.receive(named, client.now))
        assert refused == {"code": "bad_request", "id": 7, "room": ROOM}
        client.now += 1


def test_a_room_too_many_ends_no_connection() -> None:
    client = ready()
    for number in range(MAX_ROOMS):
        client.session.rooms.hold(f"{number:036d}", 1)
    for _ in range(50):
        assert error_of(client.says("join"))["code"] == "bad_request"
        client.now += 1


@pytest.mark.parametrize("kind", ["signal", "ack", "typing"])
def test_a_room_in_upper_case_is_the_same_room_to_the_peer(kind: str) -> None:
    (relay,) = in_room().says(kind, room=ROOM.upper())
    assert isinstance(relay, Relay)
    assert (relay.room_id, json.loads(relay.data)["room"]) == (ROOM, ROOM)


@pytest.mark.parametrize("kind", ["join", "chat", "mode", "leave", "end", "report"])
def test_a_room_in_upper_case_is_the_same_room(kind: str) -> None:
    client = in_room()
    assert client.says(kind, room=ROOM.upper()) == client.says(kind)


def test_an_unknown_type_is_named_with_its_id_and_room() -> None:
    answer = error_of(ready().says("nonsense", id="7", room=ROOM))
    assert answer == {"code": "unknown_type", "id": "7", "room": ROOM}


# --- after the close ---


@pytest.mark.parametrize("kind", FRAMES)
def test_nothing_is_heard_after_the_close(kind: str) -> None:
    client = in_room()
    assert told(client.session.close(close_codes.DRAINING)) == [4503]
    assert client.says(kind) == ()
    assert client.session.close(close_codes.REPLACED) == ()


def test_a_late_look_at_the_token_brings_nothing_back() -> None:
    """The answer about a token may come when the time for hello is over."""
    for late in ("welcomed", "refused", "postponed"):
        client = authenticating()
        client.session.close(close_codes.NO_HELLO)
        if late == "welcomed":
            answer = client.is_welcomed()
        elif late == "refused":
            answer = client.session.refused(UNSET, "expired")
        else:
            answer = client.session.postponed(UNSET, "no keys", 1_000)
        assert list(answer) == []
        assert client.session.stage is Stage.CLOSED
        assert client.says("hello") == ()


def test_errors_may_carry_a_time_to_retry() -> None:
    answer = error_of(ready().session.answers.failed(ErrorCode.UNAVAILABLE, "away", ROOM, "7", 1_000))
    assert answer == {"code": "unavailable", "id": "7", "room": ROOM, "retry_after_ms": 1_000}
