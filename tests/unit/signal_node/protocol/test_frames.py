"""The frames: what is let in, what is refused and how, what goes out."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from keepline.room import effects
from keepline.room.commands import End, Join, Leave, Lose, Post
from keepline.room.record import ChatMode, EndReason, Message, SideNumber
from signal_node.protocol import client_frames, server_frames, snapshots
from signal_node.protocol.bad_frames import BadFrame
from signal_node.protocol.client_frames import decode
from signal_node.protocol.error_codes import ErrorCode
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2, T0, USER_1, USER_2, after, met, opened

STREAM = "s" * 64
MOST = 2**53 - 1

GOOD: dict[str, dict[str, Any]] = {
    "hello": {"token": "t"},
    "join": {"room": ROOM},
    "signal": {"room": ROOM, "stream": STREAM, "n": MOST, "data": {"candidate": None}},
    "ack": {"room": ROOM, "stream": "s", "n": 1},
    "typing": {"room": ROOM},
    "chat": {"room": ROOM, "text": "é" * 500},
    "mode": {"room": ROOM, "action": "request"},
    "leave": {"room": ROOM},
    "end": {"room": ROOM},
    "report": {"room": ROOM, "reason": "é" * 500},
    "ping": {},
}
OPTIONAL = {("signal", "stream"), ("signal", "n")}

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("hello", {"token": ""}),
    ("hello", {"token": "t" * 4097}),
    ("hello", {"token": 7}),
    ("hello", {"resume": ""}),
    ("hello", {"resume": "r" * 257}),
    ("hello", {"resume": None}),
    ("signal", {"stream": ""}),
    ("signal", {"stream": "s" * 65}),
    ("signal", {"stream": 1}),
    ("signal", {"n": 0}),
    ("signal", {"n": -1}),
    ("signal", {"n": MOST + 1}),
    ("signal", {"n": 1.5}),
    ("signal", {"n": True}),
    ("signal", {"n": "1"}),
    ("ack", {"n": 0}),
    ("ack", {"n": MOST + 1}),
    ("ack", {"stream": "s" * 65}),
    ("chat", {"text": ""}),
    ("chat", {"text": "x" * 501}),
    ("chat", {"text": 1}),
    ("report", {"reason": ""}),
    ("report", {"reason": "x" * 501}),
    ("report", {"reason": None}),
    ("mode", {"action": "cancel"}),
    ("mode", {"action": ""}),
    *(
        (kind, {"room": value})
        for kind in GOOD
        if "room" in GOOD[kind]
        for value in (ROOM[:-1], ROOM + "1", 3, None)
    ),
    *((kind, {"id": value}) for kind in GOOD for value in ("", "i" * 65, MOST + 1, True, [1], None)),
]


def text_of(kind: str, changes: dict[str, Any] | None = None) -> str:
    return json.dumps({"type": kind, **GOOD[kind], **(changes or {})})


def refusal(text: str) -> BadFrame:
    with pytest.raises(BadFrame) as refused:
        decode(text)
    return refused.value


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_frame_is_understood_with_and_without_id(kind: str) -> None:
    named = json.loads(msgspec.json.encode(decode(text_of(kind, {"id": "i" * 64}))))
    assert named == {"type": kind, "id": "i" * 64, **GOOD[kind]}
    assert json.loads(msgspec.json.encode(decode(text_of(kind)))) == {"type": kind, **GOOD[kind]}


@pytest.mark.parametrize("request_id", ["i", 0, -1, MOST, 1.5])
@pytest.mark.parametrize("kind", GOOD)
def test_an_id_is_a_text_or_a_number(kind: str, request_id: str | float) -> None:
    assert decode(text_of(kind, {"id": request_id})).id == request_id
    assert refusal(text_of(kind, {"id": request_id, "extra": 1})).request_id == request_id


def test_every_frame_of_a_client_is_in_the_table_above() -> None:
    assert {kind.__struct_config__.tag for kind in client_frames.AnyClientFrame.__args__} == set(GOOD)


def test_hello_may_bring_the_secret_of_the_session_before() -> None:
    frame = decode(text_of("hello", {"resume": "r" * 256}))
    assert isinstance(frame, client_frames.Hello)
    assert frame.resume == "r" * 256


@pytest.mark.parametrize("action", ["request", "accept", "decline"])
def test_the_three_ways_to_speak_of_video(action: str) -> None:
    frame = decode(text_of("mode", {"action": action}))
    assert isinstance(frame, client_frames.Mode)
    assert frame.action == action


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in GOOD.items() for field in fields]
)
def test_a_missing_field_is_refused_unless_it_is_optional(kind: str, field: str) -> None:
    text = json.dumps({"type": kind, **{name: value for name, value in GOOD[kind].items() if name != field}})
    if (kind, field) in OPTIONAL:
        decode(text)
        return
    refused = refusal(text)
    assert refused.code is ErrorCode.BAD_REQUEST
    assert field in refused.message


@pytest.mark.parametrize(("kind", "changes"), WRONG)
def test_a_wrong_or_unbounded_value_is_refused(kind: str, changes: dict[str, Any]) -> None:
    refused = refusal(text_of(kind, changes))
    assert refused.code is ErrorCode.BAD_REQUEST
    assert next(iter(changes)) in refused.message


@pytest.mark.parametrize("kind", GOOD)
def test_an_unknown_field_is_refused(kind: str) -> None:
    assert "surprise" in refusal(text_of(kind, {"surprise": 1})).message


@pytest.mark.parametrize("kind", ["welcome", "peer", "goodbye", "", "JOIN", "x" * 1000])
def test_an_unknown_type_is_refused_as_such(kind: str) -> None:
    refused = refusal(json.dumps({"type": kind, "id": "7", "room": ROOM}))
    assert (refused.code, refused.request_id, refused.room) == (ErrorCode.UNKNOWN_TYPE, "7", ROOM)
    assert len(refused.message) < 200


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"type": "x" * 60_000}),
        '{"type":"' + "x" * 60_000 + '"',
        json.dumps({"type": "join", "room": ROOM, "x" * 60_000: 1}),
        json.dumps({"type": "mode", "room": ROOM, "action": "x" * 60_000}),
    ],
)
def test_what_was_sent_is_not_sent_back(text: str) -> None:
    assert len(refusal(text).message) <= 200


@pytest.mark.parametrize("text", ["{}", '{"type": 1}', '{"type": null}', '{"type": ["join"]}'])
def test_a_frame_needs_a_type(text: str) -> None:
    assert refusal(text).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "7", '"join"', "{", "{'type': 'join'}", "\ufeff{}", "NaN"]
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    refused = refusal(text)
    assert (refused.code, refused.request_id, refused.room) == (ErrorCode.BAD_REQUEST, UNSET, None)


def test_a_refusal_repeats_the_id_and_the_room_that_were_readable() -> None:
    refused = refusal(text_of("chat", {"id": "42", "text": ""}))
    assert (refused.request_id, refused.room) == ("42", ROOM)


@pytest.mark.parametrize(
    "wrong", [{"id": "i" * 65}, {"id": ""}, {"id": [7]}, {"room": "short"}, {"room": [ROOM]}]
)
def test_a_refusal_repeats_nothing_that_is_out_of_bounds(wrong: dict[str, Any]) -> None:
    refused = refusal(text_of("typing", wrong))
    assert refused.room is None if "room" in wrong else refused.request_id is UNSET


@pytest.mark.parametrize("opener", ["[", '{"a":'])
def test_deep_nesting_is_refused(opener: str) -> None:
    nested = opener * 20_000
    assert refusal(nested).message == "nested too deeply"
    assert refusal(f'{{"type":"signal","room":"{ROOM}","data":{nested}').code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\udfff\ud800"])
@pytest.mark.parametrize("frame", ['"chat","text":"{} abcdefgh"', '"signal","data":"{} abcdefgh"'])
def test_half_a_surrogate_pair_is_refused(escape: str, frame: str) -> None:
    assert "half of a surrogate pair" in refusal(f'{{"room":"{ROOM}","type":{frame.format(escape)}}}').message


@pytest.mark.parametrize("data", ["NaN", "01", "[1,]", '"\\x"', '"\x01"', "{'a': 1}", "undefined", "1 2"])
def test_data_of_a_signal_has_to_be_json(data: str) -> None:
    assert "not JSON" in refusal(f'{{"type":"signal","room":"{ROOM}","data":{data}}}').message


@pytest.mark.parametrize(
    "data", ["null", "0", '"é\\u0000"', "[[]]", '{"a": 1, "a": 2}', '{"description":{"sdp":""}}']
)
def test_data_of_a_signal_is_forwarded_byte_for_byte(data: str) -> None:
    frame = decode(f'{{"type":"signal","id":"1","room":"{ROOM}","data": {data} }}')
    assert isinstance(frame, client_frames.Signal)
    assert data.encode() in client_frames.forwarded(frame)
    assert "id" not in json.loads(client_frames.forwarded(frame))


@pytest.mark.parametrize("kind", ["signal", "ack", "typing"])
def test_what_is_forwarded_has_the_same_values_without_id(kind: str) -> None:
    frame = decode(text_of(kind, {"id": "1"}))
    assert isinstance(frame, client_frames.Signal | client_frames.Ack | client_frames.Typing)
    assert json.loads(client_frames.forwarded(frame)) == {"type": kind, **GOOD[kind]}


@pytest.mark.parametrize(
    "extra",
    [
        '"type":"ended"',
        '"type":"error","code":"room_ended"',
        '"type":"goodbye"',
        '"room":"ffffffff-ffff-4fff-8fff-ffffffffffff"',
        '"id":"x"',
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_key_given_twice_cannot_become_a_frame_of_the_server(extra: str, *, last: bool) -> None:
    """Readers of JSON disagree about which of two equal keys counts; what the peer gets has each key once."""
    plain = f'"type":"typing","room":"{ROOM}"'
    text = "{" + (f"{plain},{extra}" if last else f"{extra},{plain}") + "}"
    try:
        frame = decode(text)
    except BadFrame:
        return
    assert isinstance(frame, client_frames.Typing)
    pairs = json.loads(client_frames.forwarded(frame), object_pairs_hook=list)
    assert [name for name, _ in pairs] == ["type", "room"]
    assert pairs[0][1] == "typing"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELD = st.sampled_from(["type", "id", "room", "token", "resume", "stream", "n", "data", "text", "action"])
VALUE = JSON | st.sampled_from([*GOOD, ROOM, "s", 1, 2**64, -1, "request"])


@given(st.text() | st.builds(json.dumps, st.dictionaries(FIELD, VALUE) | JSON))
def test_nothing_but_a_frame_or_a_bad_frame_comes_of_a_text(text: str) -> None:
    try:
        frame = decode(text)
    except BadFrame as bad:
        server_frames.encode(
            server_frames.Error(
                id=bad.request_id or "", room=bad.room or "", code=bad.code, message=bad.message
            )
        )
    else:
        assert json.loads(msgspec.json.encode(frame))["type"] in GOOD


@given(st.text(alphabet='{}[]",:\\ud8etyp0123', max_size=40))
def test_texts_that_look_like_json_do_no_harm(text: str) -> None:
    with pytest.raises(BadFrame):
        decode(text)


# --- server frames ---

LINE = snapshots.ChatLine(3, USER_1, "hi", T0)
SNAPSHOT = snapshots.snapshot(met(), [])
SNAPSHOT_JSON = {
    "room_id": ROOM,
    "user_1": USER_1,
    "user_2": USER_2,
    "chat_mode": "video",
    "status": "active",
    "started_at": T0,
    "duration_seconds": 0,
    "grace_period_expires": None,
    "user_1_connected": True,
    "user_2_connected": True,
    "messages": [],
    "version": 3,
    "ended_reason": None,
    "ended_at": None,
}
ICE = [{"urls": ["stun:s"]}]
JOINED = effects.PeerChanged(1, "joined")

SERVER: list[tuple[server_frames.ServerFrame, dict[str, Any]]] = [
    (
        server_frames.Welcome(
            id="1", user=USER_1, session="s", resume="r", resumed=False, node="n", ice_servers=ICE, rooms=[]
        ),
        {
            "type": "welcome",
            "id": "1",
            "user": USER_1,
            "session": "s",
            "resume": "r",
            "resumed": False,
            "node": "n",
            "ice_servers": ICE,
            "rooms": [],
        },
    ),
    (server_frames.Pong(id=8), {"type": "pong", "id": 8}),
    (server_frames.Queued(ahead=3, wait_ms=20), {"type": "queued", "ahead": 3, "wait_ms": 20}),
    (
        server_frames.Error(code=ErrorCode.ROOM_ENDED, message="m", reason="grace_expired"),
        {"type": "error", "code": "room_ended", "message": "m", "reason": "grace_expired"},
    ),
    (
        server_frames.Joined(room=SNAPSHOT, side=2, polite=True, peer=snapshots.held_room(met(), [], 2).peer),
        {"type": "joined", "room": SNAPSHOT_JSON, "side": 2, "polite": True, "peer": "joined"},
    ),
    (server_frames.Ok(), {"type": "ok"}),
    (
        server_frames.Ok(id="1", message=LINE),
        {"type": "ok", "id": "1", "message": {"seq": 3, "from": USER_1, "text": "hi", "at": T0}},
    ),
    (
        server_frames.Error(code=ErrorCode.RATE_LIMITED, message="m", retry_after_ms=20),
        {"type": "error", "code": "rate_limited", "message": "m", "retry_after_ms": 20},
    ),
    (
        server_frames.Error(id="1", room=ROOM, code=ErrorCode.TOO_LARGE, message="m"),
        {"type": "error", "id": "1", "room": ROOM, "code": "too_large", "message": "m"},
    ),
    (server_frames.Ice(ice_servers=ICE), {"type": "ice", "ice_servers": ICE}),
    (
        server_frames.Goodbye(reason="draining", reconnect_after_ms=5),
        {"type": "goodbye", "reason": "draining", "reconnect_after_ms": 5},
    ),
]
EVENTS: list[tuple[effects.Effect, dict[str, Any]]] = [
    (JOINED, {"type": "peer", "state": "joined"}),
    (
        effects.PeerChanged(1, "reconnecting", 10_000),
        {"type": "peer", "state": "reconnecting", "grace_ms": 10_000},
    ),
    (
        effects.Posted(2, Message(3, USER_1, "hi", T0)),
        {"type": "chat", "message": {"seq": 3, "from": USER_1, "text": "hi", "at": T0}},
    ),
    (effects.ModeAsked(1, "decline"), {"type": "mode", "action": "decline"}),
    (
        effects.InactivityChanged("warning", 60_000),
        {"type": "inactivity", "state": "warning", "ends_in_ms": 60_000},
    ),
    (effects.InactivityChanged("cleared"), {"type": "inactivity", "state": "cleared"}),
    (effects.EndingSoon(0), {"type": "ending", "ends_in_ms": 0}),
    (effects.RoomEnded(EndReason.NO_SHOW), {"type": "ended", "reason": "no_show"}),
]


@pytest.mark.parametrize(("frame", "expected"), SERVER)
def test_a_frame_of_the_server_as_json(frame: server_frames.ServerFrame, expected: dict[str, Any]) -> None:
    assert json.loads(server_frames.encode(frame)) == expected


@pytest.mark.parametrize(("effect", "expected"), EVENTS)
def test_an_effect_as_json(effect: effects.Effect, expected: dict[str, Any]) -> None:
    frame = server_frames.event_frame(ROOM, effect)
    assert frame is not None
    assert json.loads(server_frames.encode(frame)) == {**expected, "room": ROOM}


def test_each_frame_of_the_server_is_in_a_table_above() -> None:
    in_events = {type(server_frames.event_frame(ROOM, effect)) for effect, _ in EVENTS}
    assert {type(frame) for frame, _ in SERVER} | in_events == set(server_frames.SERVER_FRAMES)


def test_a_replacement_is_told_by_the_close_not_by_a_frame() -> None:
    assert server_frames.event_frame(ROOM, effects.Replaced("n", "s")) is None


def test_the_snapshot_of_a_room_that_waits_for_a_side() -> None:
    seen = snapshots.snapshot(after(met(), Lose(1, SESSION_1), now=T0 + 5), [])
    assert (seen.status, seen.grace_period_expires) == ("grace_period", T0 + 5 + 10_000)
    assert (seen.user_1_connected, seen.user_2_connected) == (False, True)


def test_the_snapshot_of_a_room_that_is_over_has_its_chat() -> None:
    text_room = met(chat_mode=ChatMode.TEXT)
    over = after(text_room, Post(1, "hi"), End(EndReason.HANGUP), now=T0 + 9)
    seen = snapshots.snapshot(over, [Message(1, USER_1, "hi", T0 + 9)])
    assert (seen.status, seen.ended_reason, seen.ended_at) == ("ended", "hangup", T0 + 9)
    assert seen.messages == [snapshots.ChatLine(1, USER_1, "hi", T0 + 9)]
    assert seen.chat_mode == "text"


@pytest.mark.parametrize(("side", "polite"), [(1, False), (2, True)])
def test_the_second_side_is_the_polite_one(side: SideNumber, *, polite: bool) -> None:
    held = snapshots.held_room(met(), [], side)
    assert (held.side, held.polite) == (side, polite)


def test_what_each_side_sees_of_the_other() -> None:
    alone = after(opened(), Join(1, "here", SESSION_1))
    assert snapshots.held_room(alone, [], 1).peer == "absent"
    assert snapshots.held_room(alone, [], 2).peer == "joined"
    assert snapshots.held_room(after(met(), Lose(2, SESSION_2)), [], 1).peer == "reconnecting"
    assert snapshots.held_room(after(met(), Leave(2, SESSION_2)), [], 1).peer == "left"
    text_room = met(chat_mode=ChatMode.TEXT)
    assert snapshots.held_room(after(text_room, Lose(2, SESSION_2)), [], 1).peer == "away"
