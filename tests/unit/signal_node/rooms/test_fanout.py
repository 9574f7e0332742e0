"""Who is told what of a transition, and through which node."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from keepline.room.codec import BadRecord, decode_record, encode_record
from keepline.room.commands import (
    AcceptVideo,
    Command,
    DeclineVideo,
    End,
    Join,
    Leave,
    Lose,
    Post,
    RequestVideo,
    Tick,
)
from keepline.room.record import ChatMode, EndReason, Room
from signal_node.rooms.fanout import Delivery, Notice, Routes, decode_notice, route
from tests.unit.signal_node.calls import RULES, SESSION_1, SESSION_2, T0, after, met, opened, step

SECOND = 1_000
IDLE = T0 + RULES.text_idle_ms


def routed(
    before: Room, command: Command, node: str = "here", asker: str | None = None, now: int = T0
) -> Routes:
    room, effects = step(before, command, now)
    return route(before, room, effects, node, asker)


def frames(deliveries: list[Delivery] | Any) -> list[tuple[str, str]]:
    """Deliveries in short: to whom, and the type of the frame."""
    return [(delivery.session, json.loads(delivery.data)["type"]) for delivery in deliveries]


def notice_for(routes: Routes, node: str) -> Notice:
    return decode_notice(routes.notices[node])


def text_room(node_1: str = "here", node_2: str = "here") -> Room:
    return met(node_1, node_2, chat_mode=ChatMode.TEXT)


def asked_for_video(node_1: str = "here", node_2: str = "here") -> Room:
    return after(text_room(node_1, node_2), RequestVideo(1))


def warned(node_1: str = "here", node_2: str = "here") -> Room:
    return after(text_room(node_1, node_2), Tick(), now=IDLE)


def ending(node_1: str = "here", node_2: str = "here") -> Room:
    return met(node_1, node_2, duration_seconds=60)


# What side 1 does, the asker, and who is told of it when both are on this node: at once, and once it is committed.
HERE: list[tuple[str, Room, Command, int, list[tuple[str, str]], list[tuple[str, str]]]] = [
    ("lose", met(), Lose(1, SESSION_1), T0, [(SESSION_2, "peer")], []),
    ("leave", met(), Leave(1, SESSION_1), T0, [(SESSION_2, "peer")], []),
    ("come back", after(met(), Lose(1, SESSION_1)), Join(1, "here", "new"), T0, [(SESSION_2, "peer")], []),
    ("post", text_room(), Post(1, "hi"), T0, [], [(SESSION_2, "chat")]),
    (
        "post after the warning",
        warned(),
        Post(1, "hi"),
        IDLE,
        [(SESSION_2, "inactivity")],
        [(SESSION_2, "chat"), (SESSION_1, "inactivity")],
    ),
    ("ask for video", text_room(), RequestVideo(1), T0, [(SESSION_2, "mode")], []),
    ("end", met(), End(EndReason.HANGUP), T0, [(SESSION_2, "ended")], [(SESSION_1, "ended")]),
]


@pytest.mark.parametrize(
    ("before", "command", "now", "at_once", "committed"),
    [case[1:] for case in HERE],
    ids=[case[0] for case in HERE],
)
def test_with_both_on_this_node(
    before: Room,
    command: Command,
    now: int,
    at_once: list[tuple[str, str]],
    committed: list[tuple[str, str]],
) -> None:
    """Who asked gets `ok` first, so what else it is told waits for the commit; so does a line, for its number."""
    routes = routed(before, command, asker=SESSION_1, now=now)
    assert frames(routes.at_once) == at_once
    assert frames(routes.committed) == committed
    assert routes.notices == {}
    assert routes.replaced == []


@pytest.mark.parametrize("action", [AcceptVideo, DeclineVideo])
def test_an_answer_about_video_goes_to_who_asked(action: type[AcceptVideo] | type[DeclineVideo]) -> None:
    routes = routed(asked_for_video(), action(2), asker=SESSION_2)
    assert frames(routes.at_once) == [(SESSION_1, "mode")]
    assert routes.committed == []


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (text_room(), IDLE, "inactivity"),
        (ending(), T0 + 30 * SECOND, "ending"),
        (met(duration_seconds=60), T0 + 60 * SECOND, "ended"),
    ],
)
def test_what_time_brings_is_told_to_both(before: Room, now: int, kind: str) -> None:
    routes = routed(before, Tick(), now=now)
    assert frames(routes.at_once)[-2:] == [(SESSION_1, kind), (SESSION_2, kind)]


@pytest.mark.parametrize(("node_1", "node_2"), [("here", "there"), ("there", "here")])
def test_the_other_node_gets_the_record_and_the_frames_of_its_client(node_1: str, node_2: str) -> None:
    before = met(node_1, node_2)
    remote = SESSION_2 if node_2 == "there" else SESSION_1
    local = SESSION_1 if node_2 == "there" else SESSION_2
    routes = routed(before, End(EndReason.DELETED))
    assert frames(routes.at_once) == [(local, "ended")]
    assert set(routes.notices) == {"there"}
    notice = notice_for(routes, "there")
    assert frames(notice.frames) == [(remote, "ended")]
    assert notice.room == after(before, End(EndReason.DELETED))


def test_two_other_nodes_each_get_their_own_clients_frames() -> None:
    routes = routed(met("there", "elsewhere"), End(EndReason.DELETED))
    assert (routes.at_once, routes.committed) == ([], [])
    assert frames(notice_for(routes, "there").frames) == [(SESSION_1, "ended")]
    assert frames(notice_for(routes, "elsewhere").frames) == [(SESSION_2, "ended")]


def test_a_change_that_concerns_nobody_elsewhere_still_brings_the_record() -> None:
    """The cache there has to know the newest version, though its client is told nothing."""
    routes = routed(met("here", "there"), Post(2, "hi"), node="here")
    assert notice_for(routes, "there").frames == []
    assert notice_for(routes, "there").room.last_seq == 1


def test_a_line_for_the_other_node_goes_with_the_commit() -> None:
    before = met("here", "there", chat_mode=ChatMode.TEXT)
    routes = routed(before, Post(1, "hi"), asker=SESSION_1)
    assert (routes.at_once, routes.committed) == ([], [])
    (delivery,) = notice_for(routes, "there").frames
    assert json.loads(delivery.data)["message"]["text"] == "hi"


def test_a_replaced_session_of_this_node() -> None:
    routes = routed(met(), Join(1, "here", "new"), asker="new")
    assert routes.replaced == [SESSION_1]
    assert frames(routes.at_once) == [(SESSION_2, "peer")]


def test_a_replaced_session_of_another_node_is_named_to_it() -> None:
    routes = routed(met("there", "here"), Join(1, "here", "new"), asker="new")
    assert routes.replaced == []
    notice = notice_for(routes, "there")
    assert list(notice.replaced) == [SESSION_1]
    assert notice.frames == []


def test_the_node_that_a_side_left_is_told_once_more() -> None:
    routes = routed(met("there", "here"), Lose(1, SESSION_1), node="here")
    assert set(routes.notices) == {"there"}


def test_nobody_is_told_where_nobody_is() -> None:
    alone = after(opened(), Join(1, "here", SESSION_1))
    routes = routed(alone, Lose(1, SESSION_1))
    assert (routes.at_once, routes.committed, routes.replaced, routes.notices) == ([], [], [], {})
    first = opened()
    routes = route(None, first, (), "here")
    assert (routes.at_once, routes.notices) == ([], {})


def test_an_end_is_told_to_those_who_were_there_until_now_only() -> None:
    before = after(met(), Lose(2, SESSION_2))
    assert frames(routed(before, End(EndReason.DELETED)).at_once) == [(SESSION_1, "ended")]


def test_notices_of_two_changes_do_not_share_their_lists() -> None:
    first = routed(met("there", "elsewhere"), End(EndReason.DELETED))
    second = routed(met("there", "elsewhere"), Lose(1, SESSION_1))
    assert len(notice_for(first, "there").frames) == 1
    assert notice_for(second, "there").frames == []


@pytest.mark.parametrize(
    "broken", [b"", b"{}", b"[]", b'{"room":{}}', b'{"room":null}', b'{"room":{},"frames":[["s"]]}', b"\xff"]
)
def test_a_broken_notice_is_refused(broken: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_notice(broken)


def test_a_notice_of_a_newer_release_may_say_more() -> None:
    said = msgspec.json.encode({"room": msgspec.Raw(encode_record(met())), "more": [1]})
    notice = decode_notice(said)
    assert notice.room == decode_record(encode_record(met()))
    assert (list(notice.frames), list(notice.replaced)) == ([], [])
