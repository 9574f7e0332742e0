"""The node as a program: `python -m signal_node`. SIGTERM drains and exits 0; a second one ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable

import structlog
from pydantic import SecretStr
from redis.exceptions import RedisError

from keepline.ops import http, metrics, program, redis
from keepline.ops.health import Health, Probe
from keepline.ops.settings import NodeSettings
from keepline.ops.tasks import Tasks
from keepline.room import keys
from keepline.room.rules import Rules
from signal_node.api import Api
from signal_node.auth import Jwks, Verifier
from signal_node.bus import Bus
from signal_node.clients import Clients
from signal_node.clock import now_ms
from signal_node.drain import drain
from signal_node.ice import IceServers
from signal_node.metrics import NodeCollector
from signal_node.node import Node
from signal_node.rooms import Rooms
from signal_node.session import Limits
from signal_node.store import RoomStore
from signal_node.timekeeper import Timekeeper
from signal_node.users import Users

_BACKLOG = 1_024
_PROBE_SECONDS = 2.0
_START_SECONDS = 30.0

_log = structlog.get_logger(__name__)


async def run(settings: NodeSettings) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    failures: list[str] = []

    def end(task: str, _: BaseException) -> None:
        failures.append(task)
        stop.set()

    async with contextlib.AsyncExitStack() as stack:
        node, server = await _start(settings, stop, Tasks(end), stack)
        await stop.wait()
        _log.info("draining", sessions=len(node.clients), seconds=settings.drain_seconds)
        server.close()
        await drain(node, settings.drain_seconds, hurry, random.random)
    _log.info("stopped", failed=failures)
    return 1 if failures else 0


async def _start(
    settings: NodeSettings, stop: asyncio.Event, tasks: Tasks, stack: contextlib.AsyncExitStack
) -> tuple[Node, asyncio.Server]:
    """Connect the parts; the stack ends them in the opposite order, the endpoint for operators last."""
    loop = asyncio.get_running_loop()
    registry = metrics.new_registry("signal_node")
    health = Health(time.monotonic)
    redis_probe = health.probe("redis")
    client = redis.connect(settings.redis_url)
    node = _node(settings, loop)
    bus = Bus(client, settings.node_id, node, node.dropped)
    health.require("running", lambda: "the node is draining" if stop.is_set() else None)
    health.require("inbox", lambda: None if bus.subscribed else "the inbox is not subscribed")
    api = Api(node, _secret(settings.service_key), settings.min_duration_seconds)
    app = http.create_app(health, registry, api.routes())

    stack.push_async_callback(client.aclose)
    store = RoomStore(client, await _partitions(client), round(settings.tombstone_seconds * 1_000))
    rooms = Rooms(
        settings.node_id, store, _rules(settings), node, now=now_ms, new_write_id=_write_ids(settings.node_id)
    )
    node.connect(rooms, store, Users(client, settings.node_id), bus)
    registry.register(NodeCollector(node))

    stack.push_async_callback(tasks.aclose)
    stack.push_async_callback(node.aclose)
    tasks.start("loop-lag", metrics.LoopLag(registry).run, restart=True)
    tasks.start("inbox", bus.run_receiver, restart=True)
    tasks.start("bus", bus.run_sender, restart=True)
    tasks.start("commits", rooms.run, restart=True)
    tasks.start("deadlines", Timekeeper(node, now_ms).run, restart=True)
    tasks.start("sweep", node.clients.run_sweep, restart=True)
    tasks.start("probe-redis", lambda: _watch_redis(client, redis_probe), restart=True)
    server = await loop.create_server(
        node.accept, settings.host, settings.port, backlog=_BACKLOG, reuse_address=True
    )
    stack.callback(server.close)
    ops_host, ops_port = await stack.enter_async_context(
        http.serve(app, settings.ops_host, settings.ops_port)
    )
    _log.info(
        "started",
        node=settings.node_id,
        clients=[f"{host}:{port}" for host, port, *_ in (s.getsockname() for s in server.sockets)],
        ops=f"http://{ops_host}:{ops_port}",
    )
    return node, server


def _node(settings: NodeSettings, loop: asyncio.AbstractEventLoop) -> Node:
    clients = Clients(
        loop,
        limits=Limits(
            settings.limit_bad_frames, settings.limit_frames_per_second, settings.limit_frames_burst
        ),
        max_frame=settings.limit_frame_bytes,
        max_outgoing=settings.limit_outgoing_bytes,
        origins=frozenset(settings.origins),
        hello_seconds=settings.limit_hello_seconds,
        ping_seconds=settings.limit_ping_seconds,
        pong_seconds=settings.limit_pong_seconds,
    )
    jwks = None if settings.jwks_url is None else Jwks(settings.jwks_url, time.monotonic)
    verifier = Verifier(_secret(settings.auth_secret), jwks, settings.auth_issuer, settings.auth_audience)
    ice = IceServers(settings.stun_urls, settings.turn_urls, _secret(settings.turn_secret) or "")
    return Node(settings.node_id, loop=loop, clients=clients, verifier=verifier, ice=ice)


def _rules(settings: NodeSettings) -> Rules:
    return Rules(
        no_show_ms=round(settings.no_show_seconds * 1_000),
        grace_ms=round(settings.grace_seconds * 1_000),
        text_idle_ms=round(settings.text_idle_seconds * 1_000),
        text_warning_ms=round(settings.text_warning_seconds * 1_000),
        ending_warning_ms=round(settings.ending_seconds * 1_000),
    )


def _write_ids(node: str) -> Callable[[], str]:
    """Ids of changes: the node, a number of this process's own, and a count."""
    prefix, count = f"{node}:{secrets.token_hex(4)}", itertools.count(1)
    return lambda: f"{prefix}:{next(count)}"


async def _partitions(client: redis.Client) -> int:
    """How many partitions this Redis was set up with, waiting for Redis at the start. Raises RedisError."""
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await client.set(keys.PARTITIONS, keys.DEFAULT_PARTITIONS, nx=True)
                return int(await client.get(keys.PARTITIONS) or keys.DEFAULT_PARTITIONS)
            except RedisError as error:
                _log.warning("redis_unavailable", error=str(error))
                await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter


async def _watch_redis(client: redis.Client, probe: Probe) -> None:
    while True:
        try:
            await client.ping()
            probe.succeeded()
        except RedisError as error:
            probe.failed(error)
        await asyncio.sleep(_PROBE_SECONDS)


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def main() -> None:
    """Start the program; exits 2 when the environment cannot be used, 1 when it failed."""
    settings = program.begin(NodeSettings, os.environ)
    try:
        with asyncio.Runner(loop_factory=program.new_event_loop) as runner:
            code = runner.run(run(settings))
    except (OSError, TimeoutError) as error:
        _log.error("cannot_start", error=str(error) or type(error).__name__)
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
