"""The token bucket, by a clock in the test's hand."""

from signal_node.protocol.token_bucket import Bucket


def test_a_burst_then_the_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_ms() == 500
    assert not bucket.take(100.4)
    assert bucket.take(100.9)
    assert not bucket.take(100.9)


def test_the_wait_it_names_is_long_enough() -> None:
    bucket = Bucket(rate=3.0, burst=1)
    now = 5.0
    assert bucket.take(now)
    for _ in range(20):
        assert not bucket.take(now)
        now += (bucket.wait_ms() + 1) / 1_000
        assert bucket.take(now)
