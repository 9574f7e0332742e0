"""Small parts: backoff, loop lag, connections, the first steps of a program."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily

from keepline.ops import redis
from keepline.ops.backoff import Backoff
from keepline.ops.health import Health
from keepline.ops.metrics import HealthCollector, LoopLag, Timings, new_registry
from keepline.ops.program import begin
from keepline.ops.redis.client import ANSWER_SECONDS, CONNECT_SECONDS
from keepline.ops.settings import PersisterSettings


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_the_ceiling_doubles_up_to_the_cap_and_starts_over() -> None:
    backoff = Backoff(1, 5, uniform=lambda low, high: high)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_waits_are_spread_from_zero_to_the_ceiling() -> None:
    delays = [Backoff(8, 8).next() for _ in range(400)]
    assert min(delays) < 1
    assert max(delays) > 7
    assert all(0 <= delay <= 8 for delay in delays)


@pytest.mark.parametrize(("base", "cap"), [(0, 1), (2, 1), (-1, 1)])
def test_a_backoff_needs_sensible_bounds(base: float, cap: float) -> None:
    with pytest.raises(ValueError, match="base must be above zero"):
        Backoff(base, cap)


def test_lag_is_how_late_a_timer_ran() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(registry)
    lag.observe(due=10.0, now=10.3)
    assert lag.last == pytest.approx(0.3)
    lag.observe(due=10.0, now=9.9)
    assert lag.last == 0
    assert registry.get_sample_value("keepline_loop_lag_seconds_count") == 2
    assert registry.get_sample_value("keepline_loop_lag_seconds_bucket", {"le": "0.25"}) == 1


async def test_lag_is_sampled_while_its_task_runs() -> None:
    registry = CollectorRegistry()
    sampled = asyncio.Event()
    lag = LoopLag(registry, interval=0.001)
    observe = lag.observe

    def note(due: float, now: float) -> None:
        observe(due, now)
        sampled.set()

    lag.observe = note  # type: ignore[method-assign]
    task = asyncio.create_task(lag.run())
    await asyncio.wait_for(sampled.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert registry.get_sample_value("keepline_loop_lag_seconds_count")


def test_programs_have_registries_of_their_own() -> None:
    assert new_registry("a").get_sample_value("keepline_build_info", {"program": "b"}) is None


def test_redis_connections_are_bounded_and_never_repeat_a_command() -> None:
    pool = redis.connect("rediss://:secret@host:6380/2", max_connections=3).connection_pool
    assert pool.max_connections == 3
    options = pool.connection_kwargs
    assert (options["host"], options["port"], options["db"]) == ("host", 6380, 2)
    assert options["socket_timeout"] == ANSWER_SECONDS
    assert options["socket_connect_timeout"] == CONNECT_SECONDS
    assert options["protocol"] == 3
    assert options["retry"].get_retries() == 0


def test_a_socket_file_takes_no_tcp_options() -> None:
    options = redis.connect("unix:///run/redis.sock").connection_pool.connection_kwargs
    assert options["path"] == "/run/redis.sock"
    assert "socket_keepalive" not in options


def test_other_urls_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="redis://"):
        redis.connect("http://host")


def test_a_program_that_cannot_use_its_environment_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        begin(PersisterSettings, {"KEEPLINE_LOG_LEVEL": "loud"})
    assert exit_.value.code == 2
    errors = capsys.readouterr().err
    for variable in ("REDIS_URL", "DATABASE_URL", "KEEPLINE_LOG_LEVEL"):
        assert variable in errors


@pytest.mark.usefixtures("restored_logging")
def test_a_program_warns_of_variables_that_nobody_reads(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"REDIS_URL": "redis://r", "DATABASE_URL": "postgres://d", "KEEPLINE_LOGLEVEL": "x"}
    begin(PersisterSettings, environ)
    assert "did you mean KEEPLINE_LOG_LEVEL?" in capsys.readouterr().err


def test_timings_are_a_histogram_of_their_bounds() -> None:
    timings = Timings((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        timings.observe(seconds)
    family = HistogramMetricFamily("x", "x", labels=["path"])
    timings.add_to(family, ["here"])
    shown = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert shown == {
        ("x_bucket", "0.1"): 2,
        ("x_bucket", "1.0"): 3,
        ("x_bucket", "+Inf"): 4,
        ("x_count", None): 4,
        ("x_sum", None): pytest.approx(7.65),
    }
    assert timings.count == 4


def test_health_is_shown_as_metrics() -> None:
    now = 100.0
    health = Health(lambda: now)
    health.probe("redis")
    health.probe("postgres").succeeded()
    health.pulse("inbox", lambda: 1.5, fresh_seconds=1, down_seconds=9)
    health.require("running", lambda: None)
    health.require("recovery", lambda: "under way")
    now += 2.0
    registry = CollectorRegistry()
    registry.register(HealthCollector(health))

    def shown(name: str, label: str) -> dict[str, float]:
        return {
            sample.labels[label]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == f"keepline_{name}"
        }

    assert registry.get_sample_value("keepline_ready") == 0
    assert shown("condition_failed", "condition") == {"running": 0, "recovery": 1}
    assert shown("dependency_up", "dependency") == {"redis": 0, "postgres": 1, "inbox": 0}
    assert shown("dependency_proof_age_seconds", "dependency") == {"postgres": 2.0, "inbox": 1.5}
