"""`keepline up`: a whole cluster on this machine, from real servers to the demo page.

Starts Redis and PostgreSQL, the migrations, nodes and persisters concurrently, then the demo page. Stops in reverse
order, so that nodes drain while Redis still answers.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from keepline.cli.base import running
from keepline.cli.base.credentials import Credentials, credentials_of
from keepline.cli.base.errors import CommandError, UsageError
from keepline.cli.local import log_files
from keepline.cli.local.backends import Backends, Say, start_backends
from keepline.cli.local.data_folder import data_folder
from keepline.cli.local.layout import (
    LOOPBACK,
    Plan,
    node_environment,
    persister_environment,
    shared_environment,
)
from keepline.cli.local.ports import require_free
from keepline.cli.local.process import Child, Command, describe_exit, tail
from keepline.cli.local.program import Program, python
from keepline.cli.local.site import demo_site, lan_url, url_host
from keepline.cli.local.supervisor import Notice, Supervisor
from keepline.ops.settings import NodeSettings, PersisterSettings, SettingsError, load

_MIGRATE_SECONDS = 120.0
_TO_DRAIN = 10.0


class LocalCluster:
    """Everything that one `keepline up` runs."""

    def __init__(self, plan: Plan, data: Path, environ: Mapping[str, str], say: Say) -> None:
        self.plan = plan
        self._data = data
        self._logs = data / "logs"
        self._environ = environ
        self._say = say
        self._supervisor = Supervisor(say, notice=self._notice)
        self._tell_pages: Notice | None = None
        self._programs: list[Program] = []
        self._describe: Callable[[], dict[str, Any]] = dict
        self._open = AsyncExitStack()

    @property
    def failed(self) -> asyncio.Future[None]:
        """Set to the error if the cluster can no longer be kept running."""
        return self._supervisor.failed

    async def start(self) -> dict[str, Any]:
        """Start everything, and return what `--json` prints. Raises CommandError or UsageError."""
        self._supervisor.tasks.start("cap logs", partial(log_files.keep_capped, self._logs), restart=True)
        credentials = credentials_of(self._data, self._environ)
        backends = await start_backends(self.plan, self._data, self._environ, self._supervisor, self._say)
        shared = shared_environment(self._environ, credentials, backends.redis_url, backends.database_url)
        await self._migrate(shared)
        nodes = [self._node(index, shared) for index in range(self.plan.nodes)]
        persisters = [self._persister(index, shared) for index in range(self.plan.persisters)]
        self._programs = [*nodes, *persisters]
        self._say(f"starting {_count(nodes, 'node')} and {_count(persisters, 'persister')}")
        await asyncio.gather(*(self._supervisor.start(program) for program in self._programs))
        await self._until_ready()
        for program in self._programs:
            self._supervisor.watch(program)
        self._describe = partial(self._line, nodes, persisters, backends, credentials)
        site = demo_site(self.plan, self._data, credentials, self._environ, self._supervisor.kill_one)
        self._tell_pages = await self._open.enter_async_context(site)
        running.write(self._data, self._describe(), self._environ)
        return self._describe()

    def _notice(self, name: str, what: str, pid: int) -> None:
        """Keep the file that other commands read up to date, and tell pages."""
        if self._tell_pages is not None:
            running.write(self._data, self._describe(), self._environ)
            self._tell_pages(name, what, pid)

    async def _until_ready(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for program in self._programs:
                    group.create_task(program.until_ready())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop everything that was started, in reverse order; kill it once `hurry` is set."""
        await self._supervisor.stop_watching()
        orderly = asyncio.create_task(self._stop_in_order())
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({orderly, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not orderly.done():
            await self._supervisor.kill()
        await orderly

    async def _stop_in_order(self) -> None:
        running.remove(self._data)
        await self._open.aclose()
        await self._supervisor.stop(self._programs)
        await self._supervisor.stop()

    async def _migrate(self, shared: Mapping[str, str]) -> None:
        self._say("migrating the database")
        log = self._logs / "migrate.log"
        child = await Child.start(Command("migrate", python("persister.migrate"), log, dict(shared)))
        try:
            async with asyncio.timeout(_MIGRATE_SECONDS):
                returncode = await child.wait()
        except TimeoutError:
            raise CommandError(
                f"the migration took longer than {_MIGRATE_SECONDS:.0f} s; see {log}"
            ) from None
        finally:
            await child.kill()
        if returncode != 0:
            raise CommandError(
                f"the migration failed ({describe_exit(returncode)}); end of {log}:\n{tail(log)}"
            )

    def _node(self, index: int, shared: Mapping[str, str]) -> Program:
        environment = node_environment(self.plan, index, shared)
        port = self.plan.node_ops_port(index)
        return self._program(self.plan.node_name(index), "signal_node", environment, port)

    def _persister(self, index: int, shared: Mapping[str, str]) -> Program:
        environment = persister_environment(self.plan, index, shared)
        port = self.plan.persister_ops_port(index)
        return self._program(self.plan.persister_name(index), "persister", environment, port)

    def _program(self, name: str, module: str, environment: dict[str, str], ops_port: int) -> Program:
        command = Command(
            name=name,
            arguments=python(module),
            log=self._logs / f"{name}.log",
            environment=environment,
            stop_seconds=float(environment["KEEPLINE_DRAIN_SECONDS"]) + _TO_DRAIN,
        )
        return Program(command, f"http://{LOOPBACK}:{ops_port}")

    def _line(
        self, nodes: list[Program], persisters: list[Program], backends: Backends, credentials: Credentials
    ) -> dict[str, Any]:
        host = url_host(self.plan.own_host)
        lan = lan_url(self.plan)
        return {
            "nodes": [
                {
                    "id": node.name,
                    "ws": f"ws://{host}:{self.plan.node_port(index)}/v1",
                    "http": node.ops_url,
                    "pid": node.pid,
                }
                for index, node in enumerate(nodes)
            ],
            "persisters": [{"http": persister.ops_url, "pid": persister.pid} for persister in persisters],
            **backends.describe(),
            "demo": f"http://{host}:{self.plan.demo_port}/",
            **({"lan": lan} if lan else {}),
            "auth_secret": credentials.auth_secret,
            "service_key": credentials.service_key,
        }


async def run(
    plan: Plan, data: Path, environ: Mapping[str, str], say: Say, ready: Callable[[dict[str, Any]], None]
) -> None:
    """Run a cluster until SIGINT, SIGTERM or SIGHUP, or until it fails. A second signal ends it at once.

    `ready` gets what `--json` prints, once all is ready. Raises CommandError or UsageError.
    """
    check_settings(plan, environ)
    end, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if end.is_set() else end).set()

    for number in (signal.SIGINT, signal.SIGTERM, *_unless_ignored(signal.SIGHUP)):
        loop.add_signal_handler(number, on_signal)
    with data_folder(data) as cut_short:
        listeners = plan.listeners(
            redis=not environ.get("REDIS_URL"), postgres=not environ.get("DATABASE_URL")
        )
        await require_free(listeners, patient=cut_short)
        (data / "logs").mkdir(exist_ok=True)
        log_files.set_aside(data / "logs")
        cluster = LocalCluster(plan, data, environ, say)
        try:
            await _start_and_wait(cluster, end, ready)
        finally:
            say("stopping")
            await cluster.stop(hurry)


async def _start_and_wait(
    cluster: LocalCluster, end: asyncio.Event, ready: Callable[[dict[str, Any]], None]
) -> None:
    ending = asyncio.create_task(end.wait())
    starting = asyncio.create_task(cluster.start())
    try:
        await _first_of(starting, ending, cluster.failed)
        if starting.done():
            ready(starting.result())
            await _first_of(ending, cluster.failed)
        if cluster.failed.done():
            cluster.failed.result()
    finally:
        for task in (starting, ending):
            task.cancel()
        await asyncio.gather(starting, ending, return_exceptions=True)


def check_settings(plan: Plan, environ: Mapping[str, str]) -> None:
    """Raise UsageError with all problems of the user's own settings, before anything is started."""
    stand_in = Credentials(
        environ.get("KEEPLINE_AUTH_SECRET") or "-" * 32, environ.get("KEEPLINE_SERVICE_KEY") or "-" * 32
    )
    redis_url = environ.get("REDIS_URL") or "redis://localhost"
    database_url = environ.get("DATABASE_URL") or "postgresql://localhost"
    shared = shared_environment(environ, stand_in, redis_url, database_url)
    try:
        load(NodeSettings, node_environment(plan, 0, shared))
        load(PersisterSettings, persister_environment(plan, 0, shared))
    except SettingsError as error:
        raise UsageError(str(error)) from None


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _unless_ignored(number: signal.Signals) -> list[signal.Signals]:
    """Keep ignoring SIGHUP if the parent process ignores it (nohup)."""
    return [] if signal.getsignal(number) is signal.SIG_IGN else [number]


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
