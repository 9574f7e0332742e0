"""What a node remembers of negotiations: by kind and time, within limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from signal_node.telemetry import negotiation_log
from signal_node.telemetry.negotiation_log import MAX_MOMENTS, NegotiationLog

ROOM = "7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01"


def frame(data: Any) -> bytes:
    """A signal as the peer gets it, with the longest envelope that there is."""
    envelope = {"type": "signal", "room": ROOM, "stream": "s" * 64, "n": 2**53 - 1}
    return json.dumps({**envelope, "data": data}, separators=(",", ":")).encode()


SDP = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" * 20


def relay(known: NegotiationLog, data: Any, session: str, at: float) -> None:
    known.relayed(ROOM, 1 if session == "a" else 2, session, frame(data), at)


OFFER = {"description": {"type": "offer", "sdp": SDP}}
CANDIDATE = {"candidate": {"candidate": "candidate:1"}}


def test_a_burst_of_candidates_is_one_moment() -> None:
    known = NegotiationLog()
    relay(known, OFFER, "a", 1.0)
    for at in (1.1, 1.2, 1.3):
        relay(known, CANDIDATE, "a", at)
    relay(known, CANDIDATE, "b", 1.4)
    relay(known, {"app": 1}, "b", 9.0)
    found = [(m.what, m.session, m.count, m.at, m.until) for m in known.of(ROOM)]
    assert found == [
        ("offer", "a", 1, 1.0, 1.0),
        ("candidate", "a", 3, 1.1, 1.3),
        ("candidate", "b", 1, 1.4, 1.4),
    ]
    known.note(ROOM, 2, "b", "lost", 5.0)
    assert known.negotiated_at(ROOM) == 1.4
    assert known.negotiated_at("another") is None


def test_rooms_and_moments_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation_log, "MAX_ROOMS", 2)
    known = NegotiationLog()
    for number in range(3):
        known.note(f"room-{number}", 1, "a", "resumed", 0.0)
    assert len(known) == 2
    assert list(known.of("room-0")) == []
    relay(known, CANDIDATE, "a", 0.0)
    assert [room for room in (ROOM, "room-1", "room-2") if list(known.of(room))] == ["room-1", "room-2"]
    for number in range(MAX_MOMENTS + 5):
        known.note(ROOM, 1, "a", "offer", float(number))
    assert [m.at for m in known.of(ROOM)] == [float(n) for n in range(5, MAX_MOMENTS + 5)]
