"""`python -m bench persister`: how fast events become rows, compared with the same rows written by the plain statement.

Each event is another version of a room, and versions of one room are far apart, so folding saves nothing: every event
becomes a row. The plain loop has the rows in memory and only sends them; the time to create them does not count. The
difference is what the worker does in addition: reading, checking, acknowledging.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import asyncpg
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench import report
from bench.processes import free_port
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.process import Command
from keepline.cli.local.program import Program, python
from keepline.cli.local.servers import Valkey
from keepline.ops import redis
from keepline.room import keys
from keepline.room.codec import Event, encode_event
from keepline.room.commands import End, Join, Open
from keepline.room.record import ChatMode, EndReason, Room
from keepline.room.rows import RoomRow, to_row
from keepline.room.rules import Rules
from keepline.room.state import apply
from persister.database import QUERIES
from persister.stream import GROUP

VERSIONS = 4
"""A room is opened, joined by both and ended, within less time than a call in the history needs."""

_values_of = attrgetter(*RoomRow.__struct_fields__)
_USERS = 2_000
_PUBLISHED_AT_ONCE = 1_000
_POLL_SECONDS = 0.02
_REST_SECONDS = 0.1
"""Polling takes some ms of the worker's time. What it adds to the measured time is lost there, too."""

_GIVE_UP_SECONDS = 3_600.0
_DELAYS = 300


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of one setting. Rates are rows per second; memory is that of the largest worker."""

    batch: int
    workers: int
    bare_rows: float
    worker_rows: float
    peak_rss_mb: float

    @property
    def ratio(self) -> float:
        """The rate relative to the plain loop's."""
        return self.worker_rows / self.bare_rows


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench persister", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="how many events (1,000,000)")
    parser.add_argument("--batches", default="500,2000", help="batch sizes (500,2000)")
    parser.add_argument("--workers", default="1,2", help="numbers of workers (1,2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser.parse_args(words)


def versions(rooms: int, seed: int) -> Iterator[Room]:
    """All rooms in their first version, then all in their second, and so on."""
    users = [str(uuid.UUID(int=(seed << 64) + n + 1)) for n in range(_USERS)]
    now = int(time.time() * 1000)
    template, _ = apply(None, Open("", "1", "2", ChatMode.VIDEO, 600), now, Rules())
    states = [template]
    for command in (Join(1, "node-1", "s1"), Join(2, "node-2", "s2"), End(EndReason.HANGUP)):
        states.append(apply(states[-1], command, now + len(states) * 1000, Rules())[0])
    for state, number in itertools.product(states, range(rooms)):
        yield replace(
            state,
            room_id=str(uuid.UUID(int=(seed << 96) + number * 0x9E3779B97F4A7C15 % (1 << 64))),
            side_1=replace(state.side_1, user=users[number % _USERS]),
            side_2=replace(state.side_2, user=users[(number + 1) % _USERS]),
        )


async def publish(client: redis.Client, rooms: Iterator[Room]) -> None:
    """Append an event for each version, like the nodes."""
    while chunk := list(itertools.islice(rooms, _PUBLISHED_AT_ONCE)):
        async with client.pipeline(transaction=False) as pipe:
            for room in chunk:
                stream = keys.events(keys.partition_of(room.room_id, keys.DEFAULT_PARTITIONS))
                pipe.xadd(stream, {"event": encode_event(Event("bench", room))})
            await pipe.execute()


async def write_bare(url: str, rooms: Iterator[Room], batch: int) -> tuple[int, float]:
    """Write the rows with the plain statement. Returns their number and the seconds spent in Postgres."""
    connection = await asyncpg.connect(url, timeout=10)
    rows, seconds = 0, 0.0
    try:
        while chunk := sorted((to_row(r) for r in itertools.islice(rooms, batch)), key=lambda r: r.room_id):
            columns = [list(column) for column in zip(*map(_values_of, chunk), strict=True)]
            started = time.perf_counter()
            async with connection.transaction():
                await connection.execute(QUERIES["upsert_rooms"], *columns)
            seconds += time.perf_counter() - started
            rows += len(chunk)
    finally:
        await connection.close(timeout=10)
    return rows, seconds


@asynccontextmanager
async def workers(count: int, folder: Path, environ: dict[str, str]) -> AsyncIterator[list[Program]]:
    """Run persisters like operators do."""
    async with AsyncExitStack() as stack:
        programs = []
        for number in range(count):
            port = free_port()
            ours = {n: v for n, v in os.environ.items() if not n.startswith("KEEPLINE_")}
            environment = {**ours, **environ, "KEEPLINE_OPS_PORT": str(port), "KEEPLINE_LOG_FORMAT": "text"}
            command = Command(
                name=f"persister-{number + 1}",
                arguments=python("persister"),
                log=folder / f"persister-{number + 1}.log",
                environment=environment,
            )
            program = Program(command, f"http://127.0.0.1:{port}")
            await program.start()
            stack.push_async_callback(program.stop)
            programs.append(program)
        yield programs


async def consume(client: redis.Client, database: asyncpg.Connection[Any], events: int) -> float:
    """Wait until all events are acknowledged, and return the seconds since the first was read."""
    started: float | None = None
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while time.monotonic() < give_up_at:
        async with client.pipeline(transaction=False) as pipe:
            for partition in range(keys.DEFAULT_PARTITIONS):
                pipe.xinfo_groups(keys.events(partition))
            groups = [g for stream in await pipe.execute() for g in stream if g["name"] == GROUP.encode()]
        read = sum(group["entries-read"] or 0 for group in groups)
        if started is None and read:
            started = time.perf_counter()
        if started is not None and read >= events and not any(group["pending"] for group in groups):
            seconds = time.perf_counter() - started
            assert await database.fetchval("SELECT sum(version) FROM active_rooms") == events
            return seconds
        await asyncio.sleep(_POLL_SECONDS if started is None else _REST_SECONDS)
    raise TimeoutError("the events were not written in time")


async def delays(client: redis.Client, database: asyncpg.Connection[Any], seed: int) -> list[float]:
    """Publish one event at a time, and return for each the ms until its row can be read."""
    found = []
    for room in itertools.islice(versions(_DELAYS, seed), _DELAYS):
        started = time.perf_counter()
        await publish(client, iter([room]))
        while not await database.fetchval(
            "SELECT 1 FROM active_rooms WHERE room_id = $1", uuid.UUID(room.room_id)
        ):
            await asyncio.sleep(0)
        found.append((time.perf_counter() - started) * 1000)
    return found


class Stage:
    """The two servers, and a database for each measurement."""

    def __init__(self, valkey: Valkey, server: Postgres, folder: Path) -> None:
        self.valkey = valkey
        self._server = server
        self._folder = folder
        self._seed = 0

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[str, asyncpg.Connection[Any], int]]:
        """A migrated database with the users: its URL, a connection, and the seed of its rooms."""
        self._seed += 1
        name = f"bench_{self._seed}"
        admin = await asyncpg.connect(self._server.url_of("postgres"), timeout=10)
        await admin.execute(f"CREATE DATABASE {name}")
        url = self._server.url_of(name)
        migration = await asyncio.create_subprocess_exec(
            *python("persister.migrate"),
            env={**os.environ, "DATABASE_URL": url},
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await migration.wait():
            raise RuntimeError("the database could not be migrated")
        connection = await asyncpg.connect(url, timeout=10)
        users = {side.user for room in versions(_USERS, self._seed) for side in room.sides}
        await connection.execute("INSERT INTO users SELECT unnest($1::uuid[])", sorted(users))
        try:
            yield url, connection, self._seed
        finally:
            await connection.close(timeout=10)
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.close(timeout=10)

    async def measure(self, events: int, batch: int, count: int) -> Figures:
        """Measure the plain loop, then the workers, each on its own database."""
        rooms = events // VERSIONS
        async with self.database() as (url, _, seed):
            rows, seconds = await write_bare(url, versions(rooms, seed), batch)
        client = redis.connect(self.valkey.url)
        try:
            await client.flushall()
            async with self.database() as (url, connection, seed):
                await publish(client, versions(rooms, seed))
                environ = {"REDIS_URL": self.valkey.url, "DATABASE_URL": url}
                environ["KEEPLINE_BATCH_ENTRIES"] = str(batch)
                async with workers(count, self._folder, environ) as programs:
                    taken = await consume(client, connection, rows)
                    peak = max(_peak_rss_mb(program.pid) for program in programs)
        finally:
            await client.aclose()
        return Figures(batch, count, rows / seconds, rows / taken, peak)

    async def low_load(self) -> list[float]:
        """The ms from an event to its row on an idle system."""
        client = redis.connect(self.valkey.url)
        try:
            await client.flushall()
            async with self.database() as (url, connection, seed):
                environ = {"REDIS_URL": self.valkey.url, "DATABASE_URL": url}
                async with workers(1, self._folder, environ) as programs:
                    await programs[0].until_ready()
                    return await delays(client, connection, seed)
        finally:
            await client.aclose()


def _peak_rss_mb(pid: int) -> float:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def run(arguments: argparse.Namespace, console: Console) -> None:
    about = report.machine()
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="keepline-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with (
            Valkey(folder / "valkey", port=free_port(), options=("--appendonly", "no")) as valkey,
            Postgres(folder / "postgres", port=free_port()) as server,
        ):
            stage = Stage(valkey, server, folder)
            for batch in map(int, arguments.batches.split(",")):
                for count in map(int, arguments.workers.split(",")):
                    console.log(f"batches of {batch}, {count} workers")
                    figures.append(await stage.measure(arguments.events, batch, count))
            console.log("one event at a time")
            waits = sorted(await stage.low_load())
    _show(console, figures)
    p50, p99 = statistics.median(waits), waits[len(waits) * 99 // 100]
    console.print(f"event to row on an idle system: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    if arguments.json is not None:
        results = [{**asdict(f), "ratio": f.ratio} for f in figures]
        data = {"machine": about, "results": results, "event_to_row_ms": {"p50": p50, "p99": p99}}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _show(console: Console, figures: Sequence[Figures]) -> None:
    table = Table(title="events to rows", title_justify="left")
    for name in ("batch", "workers", "bare rows/s", "worker rows/s", "of bare", "peak RSS MB"):
        table.add_column(name, justify="right")
    for f in figures:
        table.add_row(
            f"{f.batch}",
            f"{f.workers}",
            f"{f.bare_rows:,.0f}",
            f"{f.worker_rows:,.0f}",
            f"{f.ratio:.2f}",
            f"{f.peak_rss_mb:.0f}",
        )
    console.print(table)
