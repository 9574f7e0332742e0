"""Health: what a probe says as time goes by."""

import pytest

from keepline.ops.health import Health, Probe


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def probe(health: Health) -> Probe:
    return health.probe("redis", fresh_seconds=10, down_seconds=30)


def test_what_was_never_proved_is_down(probe: Probe) -> None:
    assert probe.report() == {"status": "down", "age_ms": None, "failed_ms_ago": None, "error": None}


def test_a_proof_holds_until_it_is_stale_and_then_until_it_is_void(clock: Clock, probe: Probe) -> None:
    probe.succeeded()
    seen = []
    for age in (0, 10, 10.001, 30, 30.001):
        clock.now = 1000 + age
        seen.append(probe.status)
    assert seen == ["ok", "ok", "degraded", "degraded", "down"]


def test_a_failure_degrades_until_the_next_proof(clock: Clock, probe: Probe) -> None:
    probe.succeeded()
    clock.now += 1
    probe.failed(ConnectionError("refused"))
    clock.now += 0.5
    assert probe.report() == {
        "status": "degraded",
        "age_ms": 1500,
        "failed_ms_ago": 500,
        "error": "ConnectionError: refused",
    }
    probe.succeeded()
    assert (probe.status, probe.error) == ("ok", None)


def test_a_long_error_is_cut(probe: Probe) -> None:
    probe.failed("x" * 10_000)
    assert probe.error is not None
    assert len(probe.error) == 200


def test_readiness_lists_the_reasons_that_hold_now(health: Health) -> None:
    reason: str | None = "still starting"
    health.require("started", lambda: reason)
    health.require("heard", lambda: None)
    assert health.reasons() == {"started": "still starting"}
    reason = None
    assert health.reasons() == {}


def test_the_report_has_each_dependency_and_the_sum(health: Health, probe: Probe) -> None:
    other = health.probe("postgres")
    probe.succeeded()
    other.succeeded()
    assert health.report()["status"] == "ok"
    other.failed("away")
    report = health.report()
    assert report["status"] == "degraded"
    assert report["ready"] is True
    assert report["dependencies"]["redis"]["status"] == "ok"
    assert report["dependencies"]["postgres"]["error"] == "away"


def test_a_name_can_be_given_once(health: Health, probe: Probe) -> None:
    with pytest.raises(ValueError, match="redis"):
        health.probe("redis")


@pytest.mark.parametrize(
    ("age", "status", "age_ms"),
    [(None, "down", None), (3.0, "ok", 3000), (3.1, "degraded", 3100), (31.0, "down", 31000)],
)
def test_a_dependency_may_have_its_proofs_elsewhere(
    health: Health, age: float | None, status: str, age_ms: int | None
) -> None:
    health.pulse("inbox", lambda: age, fresh_seconds=3, down_seconds=30)
    assert health.report()["dependencies"]["inbox"] == {
        "status": status,
        "age_ms": age_ms,
        "failed_ms_ago": None,
        "error": None,
    }
