"""Signal nodes and persisters started one by one on servers of their own: whatever dies stays dead.

    async with running_fleet(nodes=2, environ={"KEEPLINE_GRACE_SECONDS": "2"}) as fleet:
        await fleet.programs[1].kill()
        await fleet.redis.flushall()

`keepline up` starts again what dies, so a test of what the others do about a death needs this. Valkey and
PostgreSQL are `fleet.valkey` and `fleet.postgres`, to be killed, stopped and started as the test likes.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from keepline.cli.base.credentials import Credentials
from keepline.cli.local.layout import Plan, node_environment, persister_environment, shared_environment
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.process import Command
from keepline.cli.local.program import Program, python
from keepline.cli.local.servers import LOOPBACK, Valkey
from keepline.room import keys
from tests.helpers.cluster import HTTP_SECONDS, Deployment, inherited_environment
from tests.helpers.deaf_proxy import DeafProxy
from tests.helpers.ports import free_block, free_port
from tests.helpers.servers import migrate
from tests.helpers.waiting import eventually

READY_SECONDS = 30.0


class Fleet(Deployment):
    """`programs[i]` is node *i*; `proxies[i]` lies between it and Redis, where proxies were asked for."""

    def __init__(
        self,
        line: dict[str, Any],
        http: aiohttp.ClientSession,
        valkey: Valkey,
        postgres: Postgres,
        programs: list[Program],
        persister_programs: list[Program],
        proxies: list[DeafProxy],
    ) -> None:
        super().__init__(line, http)
        self.valkey = valkey
        self.postgres = postgres
        self.programs = programs
        self.persister_programs = persister_programs
        self.proxies = proxies
        # The library's types cannot tell which commands answer with what.
        self.redis: Any = redis.asyncio.from_url(
            valkey.url, socket_timeout=HTTP_SECONDS, retry=Retry(ConstantBackoff(0.1), 20)
        )

    async def start(self, *nodes: int) -> None:
        """Start nodes that do not run, and wait until they are ready."""
        await asyncio.gather(*(self.programs[node].start() for node in nodes))
        await asyncio.gather(*(self.programs[node].until_ready() for node in nodes))

    async def restart_unless_ready(self, node: int) -> None:
        """Put a node that a test has killed, or left in a bad state, back to work."""
        if not await self.is_ready(node):
            await self.programs[node].kill()
            await self.start(node)

    def rename_nodes(self, suffix: str) -> None:
        """Let nodes come back under other names at their next start, as containers do."""
        for at, (node, program) in enumerate(zip(self.nodes, self.programs, strict=True)):
            self.nodes[at] = replace(node, id=f"{node.id}-{suffix}")
            program.command.environment["KEEPLINE_NODE_ID"] = self.nodes[at].id

    async def until_ready(self) -> None:
        """Wait until all nodes are ready."""
        for node in range(len(self.nodes)):
            await eventually(
                lambda: self.is_ready(node),  # noqa: B023 - awaited in the loop
                timeout=READY_SECONDS,
                what=f"node {node} is ready",
            )

    async def until_reaping(self, *nodes: int) -> None:
        """Wait until nodes have been in touch with Redis for long enough to bury others."""

        async def seasoned() -> bool:
            seconds, _ = await self.redis.time()
            found = [await self.redis.get(keys.node(self.nodes[node].id)) for node in nodes]
            return all(raw and seconds * 1_000 - json.loads(raw)["started_at"] > 7_500 for raw in found)

        await eventually(seasoned, timeout=READY_SECONDS, interval=0.1, what="the nodes may bury others")

    async def until_whole(self) -> None:
        """Wait until every partition of Redis has its epoch, so that recovery is over."""

        async def whole() -> bool:
            partitions = int(await self.redis.get(keys.partitions()) or keys.DEFAULT_PARTITIONS)
            return bool(await self.redis.exists(*(keys.epoch(n) for n in range(partitions))) == partitions)

        await eventually(whole, timeout=READY_SECONDS, interval=0.1, what="Redis is whole again")

    async def empty_redis(self) -> None:
        """Put another Redis that has nothing in the place of this one, which dies without a word."""
        await self.valkey.kill()
        shutil.rmtree(self.valkey.folder)
        await self.valkey.start()

    async def metric(self, node: int, name: str) -> float:
        """The present value of a metric without labels of a node."""
        async with self.http.get(f"{self.nodes[node].http}/metrics") as response:
            lines = (await response.text()).splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith(f"{name} "))
        return float(value)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Stop a process with SIGSTOP while the context is open: it holds its connections and says nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def running_fleet(
    *,
    nodes: int = 2,
    persisters: int = 1,
    nodes_use_postgres: bool = True,
    proxied: bool = False,
    valkey_type: type[Valkey] = Valkey,
    environ: Mapping[str, str] | None = None,
    environ_of: Mapping[int, Mapping[str, str]] | None = None,
) -> AsyncIterator[Fleet]:
    """Run a fleet while the context is open.

    `environ` is added to what all programs inherit, `environ_of[i]` to what node *i* does.
    """
    async with AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", ignore_cleanup_errors=True))
        )
        logs = folder / "logs"
        valkey = valkey_type(folder / "redis", port=free_port(), log=logs / "redis.log")
        postgres = Postgres(folder / "postgres", port=free_port(), log=logs / "postgres.log", fsync=False)
        await stack.enter_async_context(valkey)
        await stack.enter_async_context(postgres)
        await migrate(postgres.url)
        plan = Plan(nodes, persisters, free_block(10 * max(nodes, persisters)))
        credentials = Credentials(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        inherited = {**inherited_environment(), **(environ or {})}
        shared = shared_environment(inherited, credentials, valkey.url, postgres.url)
        proxies = [
            await stack.enter_async_context(DeafProxy(LOOPBACK, valkey.port))
            for _ in range(nodes if proxied else 0)
        ]
        programs = [
            _node_program(
                plan,
                node,
                logs,
                {
                    **node_environment(plan, node, shared),
                    **({} if nodes_use_postgres else {"DATABASE_URL": ""}),
                    **({"REDIS_URL": proxies[node].redis_url} if proxied else {}),
                    **(environ_of or {}).get(node, {}),
                },
            )
            for node in range(nodes)
        ]
        persister_programs = [_persister_program(plan, worker, logs, shared) for worker in range(persisters)]
        line = _line(plan, credentials, valkey, postgres, persister_programs)
        timeout = aiohttp.ClientTimeout(total=HTTP_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        fleet = Fleet(line, http, valkey, postgres, programs, persister_programs, proxies)
        stack.push_async_callback(fleet.redis.aclose)
        for program in (*programs, *persister_programs):
            stack.push_async_callback(program.kill)
            await program.start()
        await asyncio.gather(*(program.until_ready() for program in (*programs, *persister_programs)))
        yield fleet


def _node_program(plan: Plan, node: int, logs: Path, environment: dict[str, str]) -> Program:
    name = plan.node_name(node)
    command = Command(
        name=name, arguments=python("signal_node"), log=logs / f"{name}.log", environment=environment
    )
    return Program(command, f"http://{LOOPBACK}:{plan.node_ops_port(node)}")


def _persister_program(plan: Plan, worker: int, logs: Path, shared: Mapping[str, str]) -> Program:
    name = plan.persister_name(worker)
    command = Command(
        name=name,
        arguments=python("persister"),
        log=logs / f"{name}.log",
        environment=persister_environment(plan, worker, shared),
    )
    return Program(command, f"http://{LOOPBACK}:{plan.persister_ops_port(worker)}")


def _line(
    plan: Plan, credentials: Credentials, valkey: Valkey, postgres: Postgres, persisters: list[Program]
) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "id": plan.node_name(node),
                "ws": f"ws://{LOOPBACK}:{plan.node_port(node)}/v1",
                "http": f"http://{LOOPBACK}:{plan.node_ops_port(node)}",
                "pid": 0,
            }
            for node in range(plan.nodes)
        ],
        "persisters": [{"http": persister.ops_url, "pid": 0} for persister in persisters],
        "redis": {"url": valkey.url, "pid": valkey.pid},
        "postgres": {"url": postgres.url, "pid": postgres.pid},
        "demo": "",
        "auth_secret": credentials.auth_secret,
        "service_key": credentials.service_key,
    }
