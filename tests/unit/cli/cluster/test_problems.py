"""What counts as a disorder, and what does not: pure, over surveys that are made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from keepline.cli.base.time_text import age, clock
from keepline.cli.cluster.access import ListedNode
from keepline.cli.cluster.findings import Finding
from keepline.cli.cluster.problems import OVERDUE_MS, disorders
from keepline.cli.cluster.streams import Lag
from keepline.cli.cluster.survey import RowVersion, Survey
from keepline.room.commands import End
from keepline.room.presence import Presence
from keepline.room.record import EndReason, Room
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2, T0, after, met

NODE_1, NODE_2 = "node-1", "node-2"

RUNNING = {"persister-1": Presence()}


def looked(room: Room | None, **changes: Any) -> Survey:
    """A survey in which nothing is wrong, with one call over two nodes, but for the changes."""
    survey = Survey(partitions=16, redis_now=float(T0), rows={})
    for name, session in ((NODE_1, SESSION_1), (NODE_2, SESSION_2)):
        survey.nodes.append(ListedNode(name, {"ops": f"http://{name}"}))
        cached = {} if room is None else {room.room_id: {"version": room.version, "settled": True}}
        survey.looks[name] = {"sessions": [session], "rooms": cached}
        survey.nodes_ahead[name] = 5.0
    if room is not None:
        survey.rooms[room.room_id] = room
        survey.held = {(side.node, room.room_id) for side in room.sides if side.node is not None}
        survey.rows = {room.room_id: RowVersion(room.version, room.status.value)}
    for name, value in changes.items():
        setattr(survey, name, value)
    return survey


def call() -> Room:
    return met(node_1=NODE_1, node_2=NODE_2)


def kinds(survey: Survey) -> list[str]:
    return [finding.kind for finding in disorders(survey)]


def test_nothing_is_wrong_with_a_healthy_call() -> None:
    assert disorders(looked(call())) == []
    assert disorders(looked(None)) == []


def test_an_ended_room_may_be_gone_from_postgres_and_from_caches() -> None:
    ended = after(call(), End(EndReason.HANGUP))
    survey = looked(ended, rows={})
    for look in survey.looks.values():
        look["rooms"] = {}
    assert disorders(survey) == []


def test_what_waits_to_be_stored_is_no_split() -> None:
    survey = looked(call())
    survey.looks[NODE_1]["rooms"][ROOM] = {"version": 99, "settled": False}
    assert disorders(survey) == []


def test_what_is_on_its_way_to_postgres_is_no_split() -> None:
    assert kinds(looked(call(), rows={})) == ["split-postgres"]
    assert kinds(looked(call(), rows={}, lag=Lag(unread=1), persisters=RUNNING)) == []
    assert kinds(looked(call(), rows=None)) == []


def test_of_a_node_that_does_not_answer_nothing_is_claimed() -> None:
    survey = looked(call(), silent={NODE_2: "refused"})
    del survey.looks[NODE_2], survey.nodes_ahead[NODE_2]
    assert kinds(survey) == ["silent-node"]


def test_a_dead_node_holds_nothing() -> None:
    survey = looked(call())
    survey.nodes[1] = ListedNode(NODE_2, None)
    del survey.looks[NODE_2]
    (ghost,) = disorders(survey)
    assert (ghost.kind, ghost.ask) == ("ghost", None)
    assert ghost.repair == {"type": "side", "room": ROOM, "side": 2, "session": SESSION_2}


def test_a_live_node_is_asked_about_its_own_ghosts() -> None:
    survey = looked(call())
    survey.looks[NODE_1]["sessions"] = []
    (ghost,) = disorders(survey)
    assert (ghost.kind, ghost.ask) == ("ghost", NODE_1)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"own_ahead": 2_000.0}, "clock"),
        ({"own_ahead": -2_000.0}, "clock"),
        ({"nodes_ahead": {NODE_1: -1_500.0}}, "clock"),
        ({"nodes_ahead": {NODE_1: 7_000.0}}, "clock"),
        ({"lost_partitions": [3]}, "lost-partition"),
        ({"unreadable": {"room": "of format 2"}}, "unreadable"),
        ({"postgres_problem": "OSError", "rows": None}, "postgres"),
        ({"servers": [{"maxmemory-policy": "allkeys-lru"}]}, "redis-setting"),
        ({"servers": [{"appendonly": "no"}]}, "redis-setting"),
        ({"servers": [{"client-output-buffer-limit": "normal 0 0 0 pubsub 1048576 0 0"}]}, "redis-setting"),
        ({"stuck": {"worker": 3}}, "stuck-events"),
        ({"lag": Lag(unread=1, oldest_ms=200_000), "persisters": RUNNING}, "lag"),
        ({"lag": Lag(pending=1)}, "no-persister"),
        ({"lag": Lag(dead_letters=1)}, "dead-letters"),
        ({"indexes": {"user": ["gone"]}}, "orphan-index"),
        ({"holders": {"user": (NODE_1, "gone")}}, "ghost-user"),
    ],
)
def test_what_is_wrong_by_itself(changes: dict[str, Any], kind: str) -> None:
    assert kinds(looked(call(), **changes)) == [kind]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"maxmemory-policy": "noeviction", "appendonly": "yes"},
        {"client-output-buffer-limit": "pubsub 33554432 8388608 60"},
        {"client-output-buffer-limit": "pubsub 0 0 0"},
    ],
)
def test_settings_that_are_safe(settings: dict[str, str]) -> None:
    assert kinds(looked(call(), servers=[settings])) == []


def test_deadlines_are_missing_too_many_or_not_met() -> None:
    room = met(node_1=NODE_1, node_2=NODE_2, duration_seconds=60)
    assert kinds(looked(room)) == ["missing-deadline"]
    assert kinds(looked(room, deadlines={ROOM: T0})) == []
    assert kinds(looked(room, deadlines={ROOM: T0 - OVERDUE_MS - 1})) == ["overdue"]
    assert kinds(looked(call(), deadlines={ROOM: T0})) == ["orphan-deadline"]


def test_a_second_look_knows_a_finding_again() -> None:
    lag_then, lag_now = Finding("lag", "events", "2 min behind"), Finding("lag", "events", "3 min behind")
    assert lag_then.identity == lag_now.identity
    moved = [Finding("split-cache", ROOM, "", (NODE_1, version), {"type": "cache"}) for version in (3, 4)]
    assert moved[0].identity != moved[1].identity


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (-5, "0 ms"),
        (850, "850 ms"),
        (12_000, "12 s"),
        (200_000, "3 min 20 s"),
        (7_500_000, "2 h 5 min"),
        (349_200_000, "4 d 1 h"),
    ],
)
def test_lengths_of_time(ms: int, words: str) -> None:
    assert age(ms) == words


def test_times_of_day() -> None:
    assert clock(1_767_225_600_007) == "2026-01-01 00:00:00.007"
