"""`python -m persister` as an operator runs it: through signals, crashes and the absence of its servers."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from keepline.cli.cluster.access import reach
from keepline.cli.cluster.status import status
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.servers import Valkey
from keepline.ops import redis
from keepline.room import keys
from keepline.room.codec import Event, encode_event
from tests.helpers.ports import free_port
from tests.helpers.servers import migrate
from tests.helpers.waiting import eventually
from tests.unit.persister.calls import call

Check = Callable[[], bool | Awaitable[bool]]


SECONDS = 40
"""How long to wait for a process; much longer than it takes, for machines that are busy."""


class Program:
    """A persister in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self.url + path) as response,
        ):
            return response.status, await response.text()

    async def until(self, path: str, status: int) -> None:
        async def check() -> bool:
            return (await self.get(path))[0] == status

        condition: Check = check
        await eventually(condition, timeout=SECONDS, what=f"{path} is {status}")

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 15)


@asynccontextmanager
async def persister(redis_url: str, database_url: str, **environ: str) -> AsyncIterator[Program]:
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEEPLINE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "persister",
        env=clean
        | {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "KEEPLINE_OPS_PORT": str(port)}
        | {"KEEPLINE_CREATE_USERS": "true", "KEEPLINE_RETRY_CAP_SECONDS": "0.5"}
        | environ,
    )
    try:
        yield Program(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def publish(redis_url: str, *calls: list[Event]) -> None:
    client = redis.connect(redis_url)
    for event in (event for events in calls for event in events):
        stream = keys.events(keys.partition_of(event.room.room_id, keys.DEFAULT_PARTITIONS))
        await client.xadd(stream, {"event": encode_event(event)})
    await client.aclose()


async def written(database_url: str, *calls: list[Event]) -> None:
    """Wait until the last version of every call is in the table, with all its messages."""

    async def check() -> bool:
        connection = await asyncpg.connect(database_url, timeout=5)
        try:
            rows = await connection.fetch(
                "SELECT room_id, version, jsonb_array_length(messages) AS lines FROM active_rooms"
            )
        finally:
            await connection.close(timeout=5)
        return {(row["room_id"], row["version"], row["lines"]) for row in rows} == {
            (UUID(events[-1].room.room_id), events[-1].room.version, events[-1].room.last_seq)
            for events in calls
        }

    condition: Check = check
    await eventually(condition, timeout=SECONDS, interval=0.1, what="all calls are written")


async def test_it_starts_works_and_stops(redis_url: str, database_url: str) -> None:
    calls = [call(lines=3) for _ in range(10)]
    async with persister(redis_url, database_url) as program:
        await program.until("/readyz", 200)
        await publish(redis_url, *calls)
        await written(database_url, *calls)
        status, metrics = await program.get("/metrics")
        assert status == 200
        assert "keepline_persister_rows_written_total" in metrics
        assert 'keepline_build_info{program="persister"' in metrics
        assert await program.stop() == 0


async def test_postgres_away_stops_nothing_and_loses_nothing(valkey: Valkey, postgres: Postgres) -> None:
    await migrate(postgres.url)
    early, late = [call() for _ in range(5)], [call() for _ in range(5)]
    async with persister(valkey.url, postgres.url) as program:
        await program.until("/readyz", 200)
        await publish(valkey.url, *early)
        await written(postgres.url, *early)
        await postgres.kill()
        await publish(valkey.url, *late)

        async def degraded() -> bool:
            return '"status":"degraded"' in (await program.get("/healthz"))[1]

        condition: Check = degraded
        await eventually(condition, timeout=SECONDS, what="the persister says that it is degraded")
        assert (await program.get("/livez"))[0] == 200
        await postgres.start()
        await written(postgres.url, *early, *late)
        assert await program.stop() == 0


async def test_redis_that_crashes_and_comes_back_is_picked_up_again(
    valkey: Valkey, postgres: Postgres
) -> None:
    await migrate(postgres.url)
    early, late = [call() for _ in range(5)], [call() for _ in range(5)]
    async with persister(valkey.url, postgres.url) as program:
        await program.until("/readyz", 200)
        await publish(valkey.url, *early)
        await valkey.kill()
        await valkey.start()
        await publish(valkey.url, *late)
        await written(postgres.url, *early, *late)
        assert await program.stop() == 0


async def test_it_starts_before_its_servers_do(valkey: Valkey, postgres: Postgres) -> None:
    await migrate(postgres.url)
    await valkey.stop()
    await postgres.stop()
    async with persister(valkey.url, postgres.url) as program:
        await program.until("/livez", 200)
        await program.until("/readyz", 503)
        await valkey.start()
        await postgres.start()
        await program.until("/readyz", 200)


async def test_it_waits_for_the_tables(redis_url: str, empty_database_url: str) -> None:
    calls = [call()]
    async with persister(redis_url, empty_database_url) as program:
        await program.until("/readyz", 503)
        await publish(redis_url, *calls)
        await migrate(empty_database_url)
        await written(empty_database_url, *calls)


async def test_what_a_killed_worker_had_read_is_written_by_another(
    valkey: Valkey, postgres: Postgres
) -> None:
    await migrate(postgres.url)
    calls = [call(lines=5) for _ in range(20)]
    async with persister(valkey.url, postgres.url) as first:
        await first.until("/readyz", 200)
        await postgres.stop()
        await publish(valkey.url, *calls)
        client = redis.connect(valkey.url)

        async def some_read() -> bool:
            groups = [await client.xinfo_groups(keys.events(p)) for p in range(keys.DEFAULT_PARTITIONS)]
            return any(group["pending"] for (group,) in groups)

        condition: Check = some_read
        await eventually(condition)
        await client.aclose()
        first.process.kill()
        await first.process.wait()
    await postgres.start()
    async with persister(valkey.url, postgres.url, KEEPLINE_CLAIM_IDLE_SECONDS="1"):
        await written(postgres.url, *calls)


async def test_it_stops_at_once_while_postgres_is_away(redis_url: str) -> None:
    async with persister(redis_url, "postgresql://nobody@127.0.0.1:1/none") as program:
        await program.until("/livez", 200)
        await publish(redis_url, call())
        assert await program.stop() == 0


async def test_a_database_that_does_not_answer_is_said_at_once_and_by_the_status(
    redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It logged `started`, and then nothing."""
    async with persister(redis_url, "postgresql://u:secret@127.0.0.1:1/none") as program:
        await program.until("/livez", 200)
        async with reach({"REDIS_URL": redis_url}) as cluster:

            async def told() -> bool:
                problems = (await status(cluster))["problems"]
                return any(p.startswith("persister ") and "127.0.0.1" in p for p in problems)

            condition: Check = told
            await eventually(condition, timeout=SECONDS, what="status tells the last error")
        assert await program.stop() == 0
        events = [
            json.loads(line)["event"] for line in capfd.readouterr().err.splitlines() if line[:1] == "{"
        ]
        assert events.index("postgres_unavailable") < events.index("started")
        async with reach({"REDIS_URL": redis_url}) as cluster:
            assert (await status(cluster))["persisters"] == {}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"REDIS_URL": "redis://127.0.0.1"}, ["DATABASE_URL"]),
        (
            {"REDIS_URL": "redis://127.0.0.1", "DATABASE_URL": "postgresql://h/app?sslmod=require"},
            ["DATABASE_URL", "did you mean sslmode?"],
        ),
        ({"KEEPLINE_OPS_PORT": "x"}, ["DATABASE_URL", "REDIS_URL", "KEEPLINE_OPS_PORT"]),
    ],
)
async def test_an_environment_it_cannot_use_is_told_in_full(
    environ: dict[str, str], words: list[str]
) -> None:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KEEPLINE_") and name not in ("REDIS_URL", "DATABASE_URL")
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "persister", env=clean | environ, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert all(word in errors.decode() for word in words)


async def test_a_port_in_use_is_said_in_one_line(redis_url: str, database_url: str, valkey: Valkey) -> None:
    async with persister(redis_url, database_url, KEEPLINE_OPS_PORT=str(valkey.port)) as program:
        assert await asyncio.wait_for(program.process.wait(), 20) == 1
