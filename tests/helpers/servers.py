"""Fixtures: a real Valkey and a real PostgreSQL, each test with data of its own.

`redis_url` and `database_url` share one server each for the whole run and start empty (the database:
migrated). `valkey` and `postgres` are servers of the test's own, for tests that stop, kill or configure
them.
"""

import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import redis.asyncio

from keepline.cli.local.postgres import Postgres
from keepline.cli.local.servers import Valkey
from tests.helpers.ports import free_port

_MIGRATE_SECONDS = 60.0


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for the shared servers' data, gone after the run."""
    with tempfile.TemporaryDirectory(prefix="keepline-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_valkey(server_folder: Path) -> AsyncIterator[Valkey]:
    """The Valkey behind `redis_url`; nobody stops it."""
    options = ("--appendonly", "no")
    async with Valkey(server_folder / "valkey", port=free_port(), options=options) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_postgres(server_folder: Path) -> AsyncIterator[Postgres]:
    """The PostgreSQL behind `database_url`; nobody stops it."""
    async with Postgres(server_folder / "postgres", port=free_port(), fsync=False) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_template(shared_postgres: Postgres) -> str:
    """Name of a database that has all migrations and no rows, to copy."""
    name = "migrated_template"
    await _administer(shared_postgres, f"CREATE DATABASE {name}")
    await migrate(shared_postgres.url_of(name))
    return name


@pytest.fixture
async def redis_url(shared_valkey: Valkey) -> str:
    """URL of a real, empty Valkey."""
    client = redis.asyncio.from_url(shared_valkey.url)
    try:
        await client.flushall()
    finally:
        await client.aclose()
    return shared_valkey.url


@pytest.fixture
async def empty_database_url(shared_postgres: Postgres) -> AsyncIterator[str]:
    """URL of a real PostgreSQL database without any table."""
    async for url in _fresh_database(shared_postgres, "template1"):
        yield url


@pytest.fixture
async def database_url(shared_postgres: Postgres, migrated_template: str) -> AsyncIterator[str]:
    """URL of a real PostgreSQL database with all migrations and no rows."""
    async for url in _fresh_database(shared_postgres, migrated_template):
        yield url


@pytest.fixture
async def valkey() -> AsyncIterator[Valkey]:
    """A running Valkey of the test's own that keeps what it acknowledged, also when it is killed in that moment."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with Valkey(Path(folder), port=free_port(), options=("--appendfsync", "always")) as server:
            yield server


@pytest.fixture
async def postgres() -> AsyncIterator[Postgres]:
    """A running PostgreSQL of the test's own; its database `keepline` has no table."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with Postgres(Path(folder), port=free_port(), fsync=False) as server:
            yield server


async def migrate(database_url: str) -> None:
    """Run all migrations on `database_url`, as an operator would."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "persister.migrate",
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_MIGRATE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, output.decode(errors="replace")


async def _fresh_database(server: Postgres, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    await _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.url_of(name)
    finally:
        await _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(server: Postgres, statement: str) -> None:
    connection = await asyncpg.connect(server.url_of("postgres"), timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=10)
