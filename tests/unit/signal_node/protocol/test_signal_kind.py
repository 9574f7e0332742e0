"""What a signal is, told from the frame that the codec has written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from signal_node.protocol.client_frames import Signal, forwarded
from signal_node.protocol.signal_kind import kind_of, room_of

ROOM = "7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01"
SDP = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" * 20


def frame(data: Any, stream: str = "s" * 64, n: int = 2**53 - 1) -> bytes:
    """A signal as the peer gets it; without more with the longest envelope that there is."""
    return forwarded(
        Signal(room=ROOM, stream=stream, n=n, data=Raw(json.dumps(data, separators=(",", ":")).encode()))
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"description": {"type": "offer", "sdp": SDP}}, "offer"),
        ({"to": "f" * 24, "description": {"type": "answer", "sdp": SDP}}, "answer"),
        ({"description": {"sdp": SDP, "type": "offer"}}, "description"),
        ({"candidate": {"candidate": "candidate:1", "sdpMid": "0"}}, "candidate"),
        ({"app": "candidate and description, an offer"}, None),
        ({"here": None}, None),
    ],
)
def test_what_a_frame_is(data: Any, kind: str | None) -> None:
    assert kind_of(frame(data)) == kind


def test_the_shortest_envelope_is_understood_as_well() -> None:
    assert kind_of(frame({"candidate": {"candidate": "candidate:1"}}, "s", 1)) == "candidate"
    assert kind_of(frame({"description": {"type": "offer", "sdp": SDP}}, "s", 1)) == "offer"


def test_the_room_is_found() -> None:
    assert room_of(frame({"app": 1})) == ROOM
