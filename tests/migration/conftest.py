"""A PostgreSQL for the migration tests, and an empty database in it for each."""

import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from keepline.cli.postgres import Postgres


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    folder: Path = tmp_path_factory.mktemp("postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Postgres(folder, port=port, fsync=False) as server:
        yield server


@pytest_asyncio.fixture
async def empty_database(postgres_server: Postgres) -> AsyncIterator[str]:
    """URL of a database with nothing in it, dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_server.url, timeout=5)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield postgres_server.url_of(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close(timeout=5)
