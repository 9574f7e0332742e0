"""What a report says of a room, and what its sender is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.commands import End, Lose, Post
from keepline.room.record import ChatMode, EndReason, Message, Room
from keepline.room.reports import encode_report
from signal_node.protocol.effects import Effect, ReportRequest, Send
from signal_node.protocol.session import Session, SessionLimits
from signal_node.signaling.reports import (
    MAX_CHAT_BYTES,
    NoMember,
    NoSuchRoom,
    Reports,
    TooManyReports,
    report_of,
)
from signal_node.signaling.requests import Requests
from signal_node.signaling.work import Work
from signal_node.transport.connection import Connection
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2, T0, USER_1, USER_2, after, met, opened

LINE = Message(1, USER_2, "you are ugly", T0 + 1)


def data_of(room: Room, now: int, side: Any = 1) -> dict[str, Any]:
    return report_of(room, [LINE], side, "rude", now).session_data


def test_it_names_both_members_with_their_parts() -> None:
    room = after(met(), Lose(2, SESSION_2), now=T0 + 1_000)
    report = report_of(room, [LINE], 2, "rude", T0 + 2_000)
    assert (str(report.reporter_id), str(report.reported_id), report.reported_at) == (
        USER_2,
        USER_1,
        T0 + 2_000,
    )
    lost = {"user_id": USER_2, "side": 2, "role": "receiver", "presence": "reconnecting"}
    there = {"user_id": USER_1, "side": 1, "role": "initiator", "presence": "joined"}
    assert (report.session_data["reporter"], report.session_data["reported"]) == (lost, there)


def test_it_holds_the_snapshot_with_the_chat_as_plain_json() -> None:
    room = after(met(chat_mode=ChatMode.TEXT), Post(2, LINE.text), now=T0 + 1)
    shown = data_of(room, T0 + 2)["room"]
    assert (shown["room_id"], shown["chat_mode"], shown["version"]) == (ROOM, "text", room.version)
    assert shown["messages"] == [{"seq": 1, "from": USER_2, "text": LINE.text, "at": LINE.at}]
    assert json.loads(json.dumps(shown)) == shown


def test_a_full_chat_is_bounded_and_the_newest_lines_stay() -> None:
    lines = [Message(seq, USER_2, "x" * 3_000, T0 + seq) for seq in range(1, 1_001)]
    report = report_of(met(), lines, 1, "rude", T0)
    kept = [line["seq"] for line in report.session_data["room"]["messages"]]
    assert kept == list(range(1_001 - len(kept), 1_001))
    assert len(kept) > 50
    assert report.session_data["chat"]["left_out"] == 1_000 - len(kept)
    assert len(encode_report(report)) < MAX_CHAT_BYTES + 4_096


@pytest.mark.parametrize(
    ("room", "now", "expected"),
    [
        (opened(duration_seconds=600), T0 + 9_999, {"agreed": 600, "call": 0, "since_end": None}),
        (met(duration_seconds=600), T0 + 9_999, {"agreed": 600, "call": 9, "since_end": None}),
        (
            after(met(), End(EndReason.HANGUP), now=T0 + 7_500),
            T0 + 60_000,
            {"agreed": 0, "call": 7, "since_end": 52},
        ),
        (after(met(), End(EndReason.HANGUP), now=T0 + 5), T0, {"agreed": 0, "call": 0, "since_end": 0}),
    ],
)
def test_it_says_how_long_the_call_was(room: Room, now: int, expected: dict[str, int | None]) -> None:
    assert data_of(room, now)["durations"] == expected


class FakeReports:
    """Takes reports, or fails as told."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.taken: list[tuple[str, str, str]] = []

    async def add(self, user: str, room_id: str, reason: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.taken.append((user, room_id, reason))


class FakeConnection:
    """Notes what its client is sent."""

    def __init__(self) -> None:
        self.session = Session(SESSION_1, SessionLimits())
        self.session.user = USER_1
        self.sent: asyncio.Queue[Any] = asyncio.Queue()

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, Send)
            self.sent.put_nowait(json.loads(effect.data))


async def answer_to_a_report(reports: FakeReports) -> dict[str, Any]:
    no: Any = None
    work = Work(asyncio.get_running_loop())
    requests = Requests("here", no, no, no, no, no, no, None, cast(Reports, reports), work)
    connection = FakeConnection()
    requests.begin(cast(Connection, connection), ReportRequest(ROOM, "rude", "7"))
    async with asyncio.timeout(5):
        answer: dict[str, Any] = await connection.sent.get()
    await work.aclose()
    return answer


async def test_ok_once_it_is_stored() -> None:
    reports = FakeReports(None)
    assert await answer_to_a_report(reports) == {"type": "ok", "id": "7"}
    assert reports.taken == [(USER_1, ROOM, "rude")]


@pytest.mark.parametrize(
    ("failure", "code", "retry_after_ms"),
    [
        (NoSuchRoom(), "room_not_found", None),
        (NoMember(), "not_a_member", None),
        (TooManyReports(1_234), "rate_limited", 1_234),
        (StoreUnavailable("away"), "unavailable", 1_000),
        (TimeoutError(), "unavailable", 1_000),
        (RuntimeError("a bug"), "unavailable", 1_000),
    ],
)
async def test_a_refusal_names_the_room_and_says_when_to_try_again(
    failure: Exception, code: str, retry_after_ms: int | None
) -> None:
    answer = await answer_to_a_report(FakeReports(failure))
    assert (answer["type"], answer["id"], answer["room"]) == ("error", "7", ROOM)
    assert (answer["code"], answer.get("retry_after_ms")) == (code, retry_after_ms)
