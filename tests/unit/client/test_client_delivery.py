import json
from typing import Any

import pytest

from keepline.client.delivery import Incoming, Outgoing
from keepline.client.errors import SignalQueueFull
from tests.unit.client.scripted_node import ROOM


def queue(limit: int = 10, max_bytes: int = 10_000) -> Outgoing:
    return Outgoing(ROOM, limit, max_bytes)


def add(outgoing: Outgoing, data: str) -> None:
    outgoing.add(outgoing.frame(data))


def head(outgoing: Outgoing) -> dict[str, Any]:
    text = outgoing.head()
    assert text is not None
    frame: dict[str, Any] = json.loads(text)
    return frame


def test_signals_are_numbered_from_one_in_a_stream_of_their_own() -> None:
    first, second = queue(), queue()
    add(first, "a")
    add(first, "b")
    frame = head(first)
    assert frame == {"type": "signal", "room": ROOM, "stream": first.stream, "n": 1, "data": "a"}
    assert 1 <= len(first.stream) <= 64
    assert first.stream != second.stream


def test_a_signal_stays_queued_until_it_is_sent() -> None:
    outgoing = queue()
    add(outgoing, "a")
    add(outgoing, "b")
    text = outgoing.head()
    assert text is not None
    assert outgoing.head() is text
    outgoing.sent(text)
    assert head(outgoing)["n"] == 2
    outgoing.sent(text)
    assert len(outgoing) == 1


def test_a_refused_signal_uses_up_no_number() -> None:
    outgoing = queue(limit=1)
    add(outgoing, "a")
    with pytest.raises(SignalQueueFull):
        add(outgoing, "b")
    text = outgoing.head()
    assert text is not None
    outgoing.sent(text)
    add(outgoing, "c")
    assert head(outgoing)["n"] == 2


def test_the_queue_is_bounded_in_bytes_as_well() -> None:
    outgoing = queue(max_bytes=1_000)
    add(outgoing, "a" * 700)
    with pytest.raises(SignalQueueFull):
        add(outgoing, "b" * 700)
    text = outgoing.head()
    assert text is not None
    outgoing.sent(text)
    add(outgoing, "b" * 700)


def test_what_was_seen_is_dropped_per_stream() -> None:
    incoming = Incoming()
    assert [incoming.accept("s", n) for n in (1, 2, 2, 1, 4, 3)] == [True, True, False, False, True, False]
    assert incoming.accept("t", 1)
    assert not incoming.accept("s", 4)
    assert incoming.accept("s", 5), "a stream that was left for another is heard again when it goes on"


def test_signals_without_numbers_are_always_taken() -> None:
    incoming = Incoming()
    assert all(incoming.accept(None, None) for _ in range(3))


def test_only_the_latest_streams_are_remembered() -> None:
    incoming = Incoming()
    assert incoming.accept("first", 5)
    assert all(incoming.accept(f"stream-{i}", 1) for i in range(16))
    assert incoming.accept("first", 5), "forgotten: nothing grows without bound"
