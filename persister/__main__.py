"""The persister as a program: `python -m persister`. On SIGTERM it finishes its current batch and exits with 0."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time

import structlog
from redis.exceptions import RedisError

from keepline.ops import http, logs, metrics, postgres, program, redis
from keepline.ops.health import Health, Probe
from keepline.ops.postgres.users_table import users_table
from keepline.ops.settings import PersisterSettings
from keepline.ops.tasks import Tasks
from persister.cleanup import Cleanup, Periods
from persister.database import Database
from persister.housekeeping import Housekeeping
from persister.metrics import Metrics
from persister.presence import Presences
from persister.stream import EventStreams
from persister.worker import Limits, Worker

_CLOSE_SECONDS = 5.0
_DAY_SECONDS = 86_400.0

_PURPOSE = "A persister: writes rooms from Redis to Postgres."

_log = structlog.get_logger(__name__)


async def run(settings: PersisterSettings) -> int:
    """Run a persister until SIGTERM or SIGINT, and return the exit code."""
    logs.bind(worker=settings.worker_id)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    failures: dict[str, BaseException] = {}

    def end(task: str, error: BaseException) -> None:
        failures[task] = error
        stop.set()

    async with contextlib.AsyncExitStack() as stack:
        tasks = Tasks(end)
        await _start(settings, stop, tasks, stack)
        await stop.wait()
        _log.info("stopping", drain_seconds=settings.drain_seconds)
    _log.info("stopped", failed=list(failures))
    return program.exit_code(failures.values())


async def _start(
    settings: PersisterSettings, stop: asyncio.Event, tasks: Tasks, stack: contextlib.AsyncExitStack
) -> None:
    """Connect the parts. The exit stack closes them in reverse order, the ops port last."""
    registry = metrics.new_registry("persister")
    health = Health(time.monotonic)
    redis_probe, postgres_probe = health.probe("redis"), health.probe("postgres")
    writes, one_database = health.last_try("writes"), health.last_try("one_database")
    health.require("running", lambda: "the persister is stopping" if stop.is_set() else None)
    health.require("redis", lambda: _why_not(redis_probe))
    health.require("postgres", lambda: _why_not(postgres_probe))
    registry.register(metrics.HealthCollector(health))
    app = http.create_app(health, registry)
    guard = http.guard(settings, registry)
    host, port = await stack.enter_async_context(http.serve(app, settings.ops_host, settings.ops_port, guard))

    client = redis.connect(settings.redis_url)
    stack.push_async_callback(client.aclose)
    pool = await postgres.create_pool(str(settings.database_url), application="keepline-persister")
    stack.push_async_callback(_close, pool)
    database = Database(
        pool,
        create_users=settings.create_users,
        late_seconds=settings.keep_ended_seconds / 2,
        users=users_table(settings.users_table, settings.users_column),
    )
    streams = EventStreams(client, settings.worker_id)
    counts = Metrics(registry)
    limits = Limits(settings.batch_entries, settings.claim_idle_seconds, settings.retry_cap_seconds)
    worker = Worker(
        streams, database, counts, limits, redis=redis_probe, postgres=postgres_probe, writes=writes
    )
    presences = Presences(client, database, settings.worker_id, writes=writes, one_database=one_database)
    chores = Housekeeping(streams, database, counts, presences, redis=redis_probe, postgres=postgres_probe)
    cleanup = Cleanup(database, counts, _periods(settings), postgres=postgres_probe)

    stack.push_async_callback(_leave, presences)
    stack.push_async_callback(tasks.aclose)
    await chores.look_at_postgres()  # report an invalid URL before anything else
    tasks.start("loop-lag", metrics.LoopLag(registry).run, restart=True)
    tasks.start("watch-postgres", chores.watch_postgres, restart=True)
    tasks.start("keep-streams", chores.keep_streams, restart=True)
    tasks.start("cleanup", cleanup.run, restart=True)
    work = tasks.start("worker", lambda: worker.run(stop), restart=False)
    stack.push_async_callback(asyncio.wait, [work], timeout=settings.drain_seconds)
    _log.info("started", ops=http.http_url(host, port))


def _periods(settings: PersisterSettings) -> Periods:
    return Periods(
        ended=settings.keep_ended_seconds,
        removed=settings.keep_removed_days * _DAY_SECONDS,
        referrals=settings.keep_referrals_days * _DAY_SECONDS,
        interval=settings.cleanup_seconds,
    )


async def _close(pool: postgres.Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), _CLOSE_SECONDS)
    except postgres.ERRORS:
        pool.terminate()


async def _leave(presences: Presences) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):  # others soon see that it has stopped
        await asyncio.wait_for(presences.leave(), _CLOSE_SECONDS)


def _why_not(probe: Probe) -> str | None:
    return None if probe.status != "down" else probe.error or "no answer yet"


def main() -> None:
    """Start the program. Exits with 2 if the environment is invalid, and with 1 if the program failed."""
    program.answer_arguments("persister", _PURPOSE, PersisterSettings, sys.argv[1:])
    settings = program.begin(PersisterSettings, os.environ)
    gc.freeze()  # imported modules are permanent: exclude them from garbage collection
    try:
        with asyncio.Runner(loop_factory=program.new_event_loop) as runner:
            code = runner.run(run(settings))
    except OSError as error:
        _log.error("cannot_start", error=str(error))
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
