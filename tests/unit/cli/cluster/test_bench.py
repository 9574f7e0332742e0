"""What `keepline bench` works out without a cluster."""

from collections import Counter

import pytest

from keepline.cli.base.errors import UsageError
from keepline.cli.cluster.bench import Load, distribution, place_of


def test_a_distribution_by_nearest_rank() -> None:
    assert distribution([]) is None
    assert distribution([0.002]) == {"count": 1, "p50": 2.0, "p90": 2.0, "p99": 2.0, "max": 2.0}
    assert distribution([number / 1_000 for number in range(100, 0, -1)]) == {
        "count": 100,
        "p50": 50.0,
        "p90": 90.0,
        "p99": 99.0,
        "max": 100.0,
    }


def test_a_connection_sends_no_more_than_nodes_take() -> None:
    Load(calls=5, rate=400, seconds=1).check()
    with pytest.raises(UsageError, match="up to 400"):
        Load(calls=5, rate=401, seconds=1).check()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_calls_are_spread_over_all_pairs_of_places(count: int) -> None:
    places = [f"ws://{number}" for number in range(count)]
    pairs = Counter((place_of(places, call, 0), place_of(places, call, 1)) for call in range(4 * count**2))
    assert pairs == {(one, other): 4 for one in places for other in places}
