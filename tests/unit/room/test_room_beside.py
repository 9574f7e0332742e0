"""Reports and referrals as events: written, told from others, read again, and refused when they cannot be."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from keepline.room import referrals, reports
from keepline.room.codec import BadRecord, Event, decode_event, encode_event
from keepline.room.kinds import kind_of
from keepline.room.referrals import Referral, decode_referral, encode_referral
from keepline.room.reports import Report, decode_report, encode_report, report_id
from tests.unit.room.calls import video

ROOM, ALICE, BOB = uuid4(), uuid4(), uuid4()
T0 = 1_767_225_600_000
REPORT = Report(report_id(ROOM, ALICE, "rude"), ROOM, ALICE, BOB, "rude", T0, {"room": {"messages": ["…"]}})
REFERRAL = Referral("Wq3-x_9", ALICE, BOB, "Alice", None, T0)


def test_what_is_written_is_read_again() -> None:
    assert decode_report(encode_report(REPORT)) == REPORT
    assert decode_referral(encode_referral(REFERRAL)) == REFERRAL


def test_kinds_are_told_apart() -> None:
    room = encode_event(Event("open", video().room))
    assert kind_of(encode_report(REPORT)) == reports.KIND
    assert kind_of(encode_referral(REFERRAL)) == referrals.KIND
    assert kind_of(room) == "open"
    assert kind_of(b"{broken") == ""
    for decode in (decode_report, decode_referral):
        with pytest.raises(BadRecord):
            decode(room)
    for data in (encode_report(REPORT), encode_referral(REFERRAL)):
        with pytest.raises(BadRecord):
            decode_event(data)


def test_what_a_user_writes_makes_no_event_of_another_kind() -> None:
    room = encode_event(Event("open", video().room))
    sly = Referral('"kind":"report"', ALICE, BOB, '"kind":"report"', None, T0)
    assert kind_of(encode_referral(sly)) == referrals.KIND
    assert kind_of(room.replace(b'"open"', b'"post"')) == "post"


@pytest.mark.parametrize(
    "change",
    [
        {"report_id": "no id"},
        {"room_id": None},
        {"reporter_id": 7},
        {"reason": None},
        {"reported_at": -1},
        {"reported_at": "now"},
        {"session_data": []},
    ],
)
def test_a_report_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    raw = json.loads(encode_report(REPORT))
    with pytest.raises(BadRecord, match="not a report"):
        decode_report(json.dumps(raw | {"report": raw["report"] | change}))


@pytest.mark.parametrize(
    "change",
    [{"referral_code": ""}, {"referral_code": "x" * 51}, {"target_user_id": "me"}, {"created_at": 1.5}],
)
def test_a_referral_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    raw = json.loads(encode_referral(REFERRAL))
    with pytest.raises(BadRecord, match="not a referral"):
        decode_referral(json.dumps(raw | {"referral": raw["referral"] | change}))


def test_formats_of_other_releases_are_refused_and_their_new_fields_are_not() -> None:
    raw = json.loads(encode_report(REPORT))
    with pytest.raises(BadRecord):
        decode_report(json.dumps(raw | {"format": 2}))
    assert decode_report(json.dumps(raw | {"mood": "bad"})) == REPORT


def test_the_same_report_has_the_same_id_and_another_has_another() -> None:
    assert report_id(ROOM, ALICE, "rude") == REPORT.report_id
    others = {
        report_id(ROOM, BOB, "rude"),
        report_id(UUID(int=7), ALICE, "rude"),
        report_id(ROOM, ALICE, "r"),
    }
    assert len(others | {REPORT.report_id}) == 4
