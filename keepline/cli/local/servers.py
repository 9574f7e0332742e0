"""A real Valkey and a real PostgreSQL as child processes, for `keepline up` and for the tests.

Both keep their data in a folder and reuse it at the next start, even after a crash. They listen on loopback only.
Production does not use this module: there, `REDIS_URL` and `DATABASE_URL` point to existing servers.
"""

import asyncio
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import asyncpg
import redis.asyncio
from redis.exceptions import RedisError

from keepline.cli.local.binaries import RedisBinary, ServerError, find_redis
from keepline.cli.local.process import Child, Command, describe_exit, tail
from keepline.ops import redis as ops_redis

LOOPBACK = "127.0.0.1"
READY_SECONDS = 30.0
PROBE_SECONDS = 5.0
POLL_SECONDS = 0.02


class Server(ABC):
    """A server that runs as our child. It can be restarted after its death, with the same port, URL and data."""

    name: str
    url: str

    def __init__(self, folder: Path, port: int, log: Path | None) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.log = (log or self.folder / f"{self.name}.log").resolve()
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        return self._started().pid

    async def start(self) -> None:
        """Start it and wait until it answers. Raises ServerError with the end of its log if it does not."""
        command = await self._prepare()
        child = await Child.start(command)
        try:
            await self._until_ready(child)
        except BaseException:
            await child.kill()
            raise
        self._child = child

    async def wait(self) -> int:
        """Wait until it ends, and return its exit code, negative for a signal."""
        return await self._started().wait()

    async def stop(self) -> None:
        """Stop it in an orderly way, with SIGKILL if it takes too long. Does nothing if it is not running."""
        if self._child is not None:
            await self._child.stop()

    async def kill(self) -> None:
        """Kill it with SIGKILL, like a crash. Does nothing if it is not running."""
        if self._child is not None:
            await self._child.kill()

    @abstractmethod
    async def probe(self, pid: int) -> None:
        """Raise unless the server with that process id answers a client now."""

    @abstractmethod
    async def _prepare(self) -> Command:
        """Prepare its folder for a start, and return the command to run."""

    def _started(self) -> Child:
        if self._child is None:
            raise ServerError(f"{self.name} has not been started")
        return self._child

    async def _until_ready(self, child: Child) -> None:
        problem = "no answer"
        try:
            async with asyncio.timeout(READY_SECONDS):
                while child.returncode is None:
                    try:
                        await self.probe(child.pid)
                    except (OSError, RedisError, asyncpg.PostgresError, TimeoutError) as error:
                        problem = str(error)
                        await asyncio.sleep(POLL_SECONDS)
                    else:
                        return
            problem = describe_exit(await child.wait())
        except TimeoutError:
            problem = f"not ready after {READY_SECONDS:.0f} s: {problem}"
        raise ServerError(f"{self.name} did not start ({problem}); end of {self.log}:\n{tail(self.log)}")


class Valkey(Server):
    """Valkey (or Redis) with its append-only file on, synced every second, and eviction off.

    If it is killed during a sync, it may lose what it acknowledged in the last two seconds. `options` are further pairs
    for its command line, such as `"--maxmemory", "64mb"`.
    """

    name = "redis"

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        log: Path | None = None,
        binary: RedisBinary | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder, port, log)
        self.url = f"redis://{LOOPBACK}:{port}/0"
        self._binary = binary
        self._options = options

    async def probe(self, pid: int) -> None:
        """Raise unless it answers, and no other server had the port already."""
        answering = await _process_behind(self.url)
        if answering != pid:
            raise OSError(f"port {self.port} is served by process {answering}")

    async def _prepare(self) -> Command:
        self._binary = self._binary or find_redis()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",  # the append-only file has all data
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return Command(
            name=self.name,
            arguments=(str(self._binary.server), *words, *self._options),
            log=self.log,
            death_signal=signal.SIGTERM,
        )


async def ping(url: str) -> None:
    """Send PING to the servers of `url`: a single one, the primary of Sentinels, or each primary of a cluster.

    Raises RedisError or OSError if one does not answer within 5 s, ValueError if `url` is invalid.
    """
    client = ops_redis.connect(url)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            for server in await ops_redis.servers(client):
                await server.ping()
    finally:
        await client.aclose()


async def _process_behind(url: str) -> int:
    async with _client(url) as client:
        return int((await client.info("server"))["process_id"])


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.from_url(
        url, socket_connect_timeout=PROBE_SECONDS, socket_timeout=PROBE_SECONDS, single_connection_client=True
    )
