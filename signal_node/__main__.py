"""The node as a program: `python -m signal_node`. SIGTERM drains and exits with 0; a second one ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from keepline.ops import http, logs, metrics, postgres, program, redis
from keepline.ops.errors import CannotRun
from keepline.ops.garbage import Garbage
from keepline.ops.health import Health, Probe
from keepline.ops.redis.adoption import adopt
from keepline.ops.redis.partitions import agree_on_partitions
from keepline.ops.redis.requirements import require_for_node
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.ops.settings import NodeSettings
from keepline.ops.tasks import Tasks
from keepline.ops.tls import Certificate
from signal_node.app import App
from signal_node.bus.inbox import SILENT_SECONDS
from signal_node.cluster.registry import HEARTBEAT_TTL_MS
from signal_node.http.node_api import NodeApi
from signal_node.http.referral_api import ReferralApi
from signal_node.http.rooms_api import RoomsApi
from signal_node.metrics.collector import NodeCollector
from signal_node.rooms.archive import Archive, ArchiveUnavailable
from signal_node.signaling.admission_queue import Line
from signal_node.signaling.drain import Drains, DrainState
from signal_node.transport.listener import Door, Listener
from signal_node.wiring.settings import secret_of

_PROBE_SECONDS = 2.0
_PROBE_TIMEOUT_SECONDS = 2.0
_START_SECONDS = 30.0
_FRESH_BEAT_SECONDS = HEARTBEAT_TTL_MS / 1_000
_DOWN_SECONDS = 30.0

_PURPOSE = "A signal node: the server that clients connect to."

_log = structlog.get_logger(__name__)


async def run(settings: NodeSettings) -> int:
    """Run a node until SIGTERM or SIGINT, and return the exit code."""
    logs.bind(node=settings.node_id)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    drain_state = DrainState()
    failures: dict[str, BaseException] = {}

    def end(task: str, error: BaseException) -> None:
        failures[task] = error
        stop.set()
        if isinstance(error, CannotRun):
            drain_state.hurry.set()

    tasks = Tasks(end)

    def signalled() -> None:
        (drain_state.hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    async with contextlib.AsyncExitStack() as stack:
        app, drains = await _start(settings, drain_state, tasks, stack)
        await stop.wait()
        await drains.stop()
        with contextlib.suppress(StoreUnavailable):
            await app.cluster.registry.leave()
    _log.info("stopped", failed=list(failures))
    return program.exit_code(failures.values())


async def _start(
    settings: NodeSettings, drain_state: DrainState, tasks: Tasks, stack: contextlib.AsyncExitStack
) -> tuple[App, Drains]:
    """Start the node. The exit stack closes its parts in reverse order, the ops port last."""
    loop = asyncio.get_running_loop()
    client = redis.connect(settings.redis_url)
    stack.push_async_callback(client.aclose)
    archive = await _archive(settings, stack)
    app = App(settings, loop, client, await _partitions(client), archive, lambda: drain_state.active)
    listener = _listener(settings, app, loop)
    drains = Drains(
        settings.node_id,
        drain_state,
        app.drain,
        listener,
        tasks,
        seconds=settings.drain_seconds,
        linger=settings.drain_linger_seconds,
    )
    health = _health(app, drain_state)
    stack.push_async_callback(tasks.aclose)
    stack.push_async_callback(app.around.batches.aclose)
    stack.push_async_callback(app.work.aclose)
    redis_probe = health.probe("redis")
    tasks.start("garbage", Garbage(loop.time()).run, restart=True)
    tasks.start("probe-redis", lambda: _watch(redis_probe, lambda: _prove_redis(client, app)), restart=True)
    if archive is not None:
        postgres_probe = health.probe("postgres")
        tasks.start("probe-postgres", lambda: _watch(postgres_probe, archive.ping), restart=True)
    await app.cluster.heartbeat.claim_name()
    app.start(tasks)
    await app.cluster.burial.bury_predecessor()
    await listener.open()
    stack.callback(listener.close)
    ops = await _serve_operators(settings, app, drains, listener, health, tasks, stack)
    _log.info("started", clients=listener.addresses, ops=ops)
    return app, drains


def _listener(settings: NodeSettings, app: App, loop: asyncio.AbstractEventLoop) -> Listener:
    """The listener for clients, not open yet. Raises OSError if the certificate cannot be read."""
    certificate = _certificate(settings, loop)
    return Listener(
        app.clients.handler.accept,
        settings.host,
        settings.port,
        Door(app.limits.sockets.admits, app.limits.sockets.gone, app.admission.turn_away),
        None if certificate is None else certificate.context,
    )


def _health(app: App, drain_state: DrainState) -> Health:
    """The conditions of readiness and liveness."""
    health = Health(time.monotonic)
    inbox, heartbeat, recovery = app.signals.inbox.health, app.cluster.heartbeat, app.recovery
    health.require("running", lambda: "the node is draining" if drain_state.active else None)
    health.require("inbox", lambda: "the inbox is silent" if inbox.silent else None)
    health.require("recovery", lambda: None if recovery.open else "Redis lost its data; recovery is running")
    # Only a warning: if it made the node unready, the last remaining node would refuse clients that return to their
    # calls.
    queue = app.admission.queue
    health.warn("hellos", lambda: "many clients are logging in" if queue.is_full(Line.NEW) else None)
    health.pulse("inbox", inbox.heard_age, fresh_seconds=SILENT_SECONDS, down_seconds=_DOWN_SECONDS)
    health.pulse(
        "heartbeat",
        heartbeat.age,
        fresh_seconds=_FRESH_BEAT_SECONDS,
        down_seconds=_DOWN_SECONDS,
        problem=lambda: heartbeat.problem,
    )
    health.require("heartbeat", heartbeat.why_not_written)
    return health


async def _serve_operators(
    settings: NodeSettings,
    app: App,
    drains: Drains,
    listener: Listener,
    health: Health,
    tasks: Tasks,
    stack: contextlib.AsyncExitStack,
) -> str:
    """Open the port for operators and the app's backend, and return its URL."""
    registry = metrics.new_registry("signal_node")
    registry.register(NodeCollector(app, listener))
    registry.register(metrics.HealthCollector(health))
    tasks.start("loop-lag", metrics.LoopLag(registry).run, restart=True)
    rooms, cluster = app.rooms, app.cluster
    key = secret_of(settings.service_key)
    rooms_api = RoomsApi(
        rooms.store,
        rooms.timely,
        app.idempotency,
        app.users,
        app.signals.takeover,
        key,
        settings.min_duration_seconds,
        cluster.heartbeat.why_writes_wait,
    )
    node_api = NodeApi(
        settings.node_id,
        rooms.sessions,
        rooms.cache,
        app.signals.negotiation_log,
        drains,
        app.repairs,
        key,
        status=cluster.status,
        now=app.around.clock.now,
    )
    referrals = ReferralApi(app.referrals, key)
    routes = [*rooms_api.routes(), *referrals.routes(), *node_api.routes()]
    served = http.create_app(health, registry, routes)
    guard = http.guard(settings, registry)
    host, port = await stack.enter_async_context(
        http.serve(served, settings.ops_host, settings.ops_port, guard)
    )
    cluster.status.ops_port_opened(host, port)
    return http.http_url(host, port)


def _certificate(settings: NodeSettings, loop: asyncio.AbstractEventLoop) -> Certificate | None:
    """The certificate for clients, reloaded on SIGHUP. Raises OSError."""
    if settings.tls_certificate is None:
        return None
    certificate = Certificate(settings.tls_certificate, settings.tls_key)
    loop.add_signal_handler(signal.SIGHUP, certificate.reload)
    return certificate


async def _archive(settings: NodeSettings, stack: contextlib.AsyncExitStack) -> Archive | None:
    if settings.database_url is None:
        return None
    pool = await postgres.create_pool(settings.database_url, application="keepline-node", max_size=2)
    stack.callback(pool.terminate)
    return Archive(pool)


async def _partitions(client: redis.Client) -> int:
    """The number of partitions of this Redis. Waits for Redis. Raises CannotRun, TimeoutError."""
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await require_for_node(client)
                await adopt(client)
                return await agree_on_partitions(client)
            except RedisError as error:
                _log.warning("redis_unavailable", error=str(error))
                await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter


async def _prove_redis(client: redis.Client, app: App) -> None:
    """Check that every server answers, and that the last heartbeat was written."""
    await client.ping()
    if app.cluster.heartbeat.problem is not None:
        raise StoreUnavailable(app.cluster.heartbeat.problem)


async def _watch(probe: Probe, prove: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                await prove()
            probe.succeeded()
        except (RedisError, StoreUnavailable, ArchiveUnavailable, TimeoutError) as error:
            probe.failed(error)
        await asyncio.sleep(_PROBE_SECONDS)


def main() -> None:
    """Start the program. Exits with 2 if the environment is invalid, and with 1 if the program failed."""
    program.answer_arguments("signal-node", _PURPOSE, NodeSettings, sys.argv[1:])
    settings = program.begin(NodeSettings, os.environ)
    try:
        with asyncio.Runner(loop_factory=program.new_event_loop) as runner:
            code = runner.run(run(settings))
    except (CannotRun, StoreUnavailable, OSError, TimeoutError) as error:
        _log.error("cannot_start", error=str(error) or type(error).__name__)
        code = program.exit_code([error])
    sys.exit(code)


if __name__ == "__main__":
    main()
