"""A whole cluster for a test: `keepline up --json` as a process of its own, on free ports.

    async with running_cluster(nodes=2) as cluster:
        room = await cluster.open_room(alice, bob)
        client = connect(cluster.nodes[0].ws, token=cluster.token(alice))

Whatever the test does, nothing that the cluster started is left when the context closes, or the test fails.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from keepline.cli.base.tokens import mint
from keepline.cli.local.process import Command, tail
from tests.helpers.ports import free_block
from tests.helpers.processes import marked, new_mark, working_in
from tests.helpers.waiting import eventually

READY_SECONDS = 90.0
STOP_SECONDS = 60.0
HTTP_SECONDS = 10.0

_SET_BY_USERS = {"REDIS_URL", "DATABASE_URL"} | {name for name in os.environ if name.startswith("KEEPLINE_")}


def inherited_environment() -> dict[str, str]:
    """Our environment without a developer's own settings, which must not leak into the clusters of tests."""
    return {name: value for name, value in os.environ.items() if name not in _SET_BY_USERS}


@dataclass(frozen=True, slots=True)
class RunningNode:
    """One signal node: its name, WebSocket URL, ops URL and the process id it had at the start."""

    id: str
    ws: str
    http: str
    pid: int


class HttpFailed(Exception):
    """The HTTP API answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Up:
    """A `keepline up` process, ready or not."""

    def __init__(
        self, process: asyncio.subprocess.Process, messages: Path, data: Path, mark: dict[str, str]
    ) -> None:
        self._process = process
        self._data = data
        self._others = working_in(data).keys()
        self._messages = messages
        self._mark = mark

    @classmethod
    async def start(
        cls, folder: Path, data: Path, *options: str, environ: Mapping[str, str] | None = None
    ) -> "Up":
        """Start `keepline up --data DATA OPTIONS`, its progress going to a file in `folder`; it dies with us."""
        mark = new_mark()
        messages = folder / f"up-{uuid.uuid4().hex[:8]}.log"
        program = (sys.executable, "-P", "-m", "keepline.cli.main")
        command = Command("up", (*program, "up", "--data", str(data), *options), messages)
        with messages.open("w") as log:
            process = await asyncio.create_subprocess_exec(
                *command.bound(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**inherited_environment(), **mark, **(environ or {})},
                start_new_session=True,
            )
        return cls(process, messages, data, mark)

    @property
    def pid(self) -> int:
        """Process id of `keepline up` itself."""
        return self._process.pid

    @property
    def messages(self) -> str:
        """What it has said on stderr until now."""
        return self._messages.read_text()

    async def ready(self) -> dict[str, Any]:
        """Wait for the line on stdout and return it decoded; fails with what was said on stderr."""
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await self._process.stdout.readline()
        assert line, f"keepline up ended without getting ready:\n{tail(self._messages, 40)}"
        cluster: dict[str, Any] = json.loads(line)
        return cluster

    async def rest_of_stdout(self) -> bytes:
        """What it printed after the line, once it has ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(STOP_SECONDS):
            return await self._process.stdout.read()

    async def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Wait until it ends by itself; returns the exit code."""
        async with asyncio.timeout(timeout):
            return await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; returns the exit code."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.wait()

    def left(self) -> dict[int, str]:
        """Everything of this cluster that lives: process ids with command lines."""
        found = marked(self._mark) | working_in(self._data)
        return {pid: command for pid, command in found.items() if pid not in self._others}

    async def clean_up(self) -> None:
        """End it if it runs, kill what outlived it and fail when there was any."""
        try:
            await self.stop()
            await eventually(lambda: not self.left(), timeout=10.0, what="nothing outlives keepline up")
        finally:
            for pid in self.left():
                os.kill(pid, signal.SIGKILL)
            if self._process.returncode is None:
                await self._process.wait()
            await self._drop_pipe()

    async def _drop_pipe(self) -> None:
        # Reading to the end lets the event loop close the pipe while it still runs.
        if self._process.stdout is not None:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.stdout.read()


class Deployment:
    """Nodes that run somehow, with an app backend's view of them. `line` is what `keepline up --json` says."""

    def __init__(self, line: dict[str, Any], http: aiohttp.ClientSession) -> None:
        self.line = line
        self.nodes = [RunningNode(**node) for node in line["nodes"]]
        self.persisters: list[dict[str, Any]] = line["persisters"]
        self.redis_url: str = line["redis"]["url"]
        self.database_url: str = line["postgres"]["url"]
        self.demo: str = line["demo"]
        self.http = http

    def token(self, user: uuid.UUID, ttl: int = 3600) -> str:
        """A token for `hello` as `user`."""
        return mint(user, self.line["auth_secret"], now=time.time(), ttl=ttl, environ={})

    async def open_room(
        self,
        user_1: uuid.UUID,
        user_2: uuid.UUID,
        *,
        chat_mode: str = "video",
        duration_seconds: int = 0,
        node: int = 0,
    ) -> dict[str, Any]:
        """Open a room over the HTTP API of a node; returns its snapshot."""
        body = {
            "user_1": str(user_1),
            "user_2": str(user_2),
            "chat_mode": chat_mode,
            "duration_seconds": duration_seconds,
        }
        return await self.api("POST", "/v1/rooms", node=node, json=body)

    async def room(self, room_id: str, *, node: int = 0) -> dict[str, Any]:
        """The snapshot of a room as a node sees it."""
        return await self.api("GET", f"/v1/rooms/{room_id}", node=node)

    async def end_room(self, room_id: str, *, node: int = 0) -> dict[str, Any]:
        """End a room over the HTTP API; returns its last snapshot."""
        return await self.api("DELETE", f"/v1/rooms/{room_id}", node=node)

    async def api(self, method: str, path: str, *, node: int = 0, json: Any = None) -> dict[str, Any]:
        """Call the HTTP API of a node with the service key; raises HttpFailed for an error answer."""
        key = {"Authorization": f"Bearer {self.line['service_key']}"}
        url = self.nodes[node].http + path
        async with self.http.request(method, url, json=json, headers=key) as response:
            body: dict[str, Any] = await response.json(content_type=None)
            if response.status >= 400:
                raise HttpFailed(response.status, body)
            return body

    async def is_ready(self, node: int) -> bool:
        """Whether a node's `/readyz` is 200 now; False as well when it does not answer."""
        try:
            async with self.http.get(f"{self.nodes[node].http}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


class Cluster(Deployment):
    """A cluster of `keepline up` that is ready."""

    def __init__(self, up: Up, line: dict[str, Any], data: Path, http: aiohttp.ClientSession) -> None:
        super().__init__(line, http)
        self.up = up
        self.data = data

    def node_log(self, node: int) -> str:
        """What a node has logged."""
        return (self.data / "logs" / f"{self.nodes[node].id}.log").read_text(errors="replace")


@asynccontextmanager
async def running_cluster(
    *,
    nodes: int = 2,
    persisters: int = 1,
    data: Path | None = None,
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> AsyncIterator[Cluster]:
    """Run a cluster while the context is open, by default on free ports and with data of its own.

    `options` are further ones of `keepline up`.
    `environ` is added to what its programs inherit, for example `{"KEEPLINE_GRACE_SECONDS": "2"}`.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        data = data or folder / "data"
        port = port or free_block(10 * max(nodes, persisters))
        options = ["--json", "--nodes", str(nodes), "--persisters", str(persisters), *options]
        up = await Up.start(folder, data, *options, "--port", str(port), environ=environ)
        stack.push_async_callback(up.clean_up)
        line = await up.ready()
        timeout = aiohttp.ClientTimeout(total=HTTP_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        yield Cluster(up, line, data, http)
