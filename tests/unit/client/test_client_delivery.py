import pytest

from keepline.client.delivery import Incoming, Outgoing
from keepline.client.errors import SignalQueueFull


def test_signals_are_numbered_from_one_in_a_stream_of_their_own() -> None:
    first, second = Outgoing(limit=10), Outgoing(limit=10)
    first.add("a")
    first.add("b")
    head = first.head()
    assert head is not None
    assert (head.n, head.data) == (1, "a")
    assert 1 <= len(head.stream) <= 64
    assert first.stream != second.stream


def test_a_signal_stays_queued_until_it_is_sent() -> None:
    outgoing = Outgoing(limit=10, stream="s")
    outgoing.add("a")
    outgoing.add("b")
    head = outgoing.head()
    assert head is not None
    assert outgoing.head() is head
    outgoing.sent(head)
    following = outgoing.head()
    assert following is not None
    assert following.n == 2
    outgoing.sent(head)
    assert len(outgoing) == 1


def test_a_refused_signal_uses_up_no_number() -> None:
    outgoing = Outgoing(limit=1, stream="s")
    outgoing.add("a")
    with pytest.raises(SignalQueueFull):
        outgoing.add("b")
    head = outgoing.head()
    assert head is not None
    outgoing.sent(head)
    outgoing.add("c")
    following = outgoing.head()
    assert following is not None
    assert following.n == 2


def test_what_was_seen_is_dropped_per_stream() -> None:
    incoming = Incoming()
    assert [incoming.accept("s", n) for n in (1, 2, 2, 1, 4, 3)] == [True, True, False, False, True, False]
    assert incoming.accept("t", 1)
    assert not incoming.accept("s", 4)


def test_signals_without_numbers_are_always_taken() -> None:
    incoming = Incoming()
    assert all(incoming.accept(None, None) for _ in range(3))


def test_only_the_latest_streams_are_remembered() -> None:
    incoming = Incoming()
    assert incoming.accept("first", 5)
    assert all(incoming.accept(f"stream-{i}", 1) for i in range(16))
    assert incoming.accept("first", 5), "forgotten: nothing grows without bound"
