"""The servers that `keepline up` and these tests start keep what they acknowledged, whatever ends them."""

import os
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from keepline.cli.local.binaries import PostgresBinaries, ServerError, postgres_binaries
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.servers import Valkey
from tests.helpers.ports import free_port


async def put(url: str) -> None:
    client = redis.asyncio.from_url(url)
    await client.set("kept", "yes")
    await client.aclose()


async def got(url: str) -> object:
    client = redis.asyncio.from_url(url)
    value = await client.get("kept")
    await client.aclose()
    return value


async def run(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close(timeout=10)


async def test_valkey_keeps_its_data_over_a_stop_and_a_kill(tmp_path: Path) -> None:
    server = Valkey(tmp_path, port=free_port())
    async with server:
        await put(server.url)
        await server.stop()
        await server.start()
        assert await got(server.url) == b"yes"
        await server.kill()
        await server.start()
        assert await got(server.url) == b"yes"


async def test_valkey_is_set_up_to_lose_nothing_and_to_stay_on_loopback(valkey: Valkey) -> None:
    client = redis.asyncio.from_url(valkey.url, decode_responses=True)
    settings = await client.config_get("appendonly", "maxmemory-policy", "bind")
    await client.aclose()
    assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}


async def test_a_port_in_use_is_an_error_with_the_servers_own_words(tmp_path: Path, valkey: Valkey) -> None:
    with pytest.raises(ServerError, match="Address already in use"):
        await Valkey(tmp_path, port=valkey.port).start()


@pytest.mark.parametrize("binaries", postgres_binaries(), ids=lambda binaries: f"postgres-{binaries.major}")
async def test_postgres_keeps_its_data_over_a_stop_and_a_kill(
    tmp_path: Path, binaries: PostgresBinaries
) -> None:
    server = Postgres(tmp_path / "made" / "here", port=free_port(), binaries=binaries)
    async with server:
        await run(server.url, "CREATE TABLE kept (word text)")
        await run(server.url, "INSERT INTO kept VALUES ('yes')")
        await server.stop()
        await server.start()
        first = server.pid
        await server.kill()
        await server.start()
        assert server.pid != first
        assert [row["word"] for row in await run(server.url, "SELECT word FROM kept")] == ["yes"]


async def test_postgres_starts_although_its_lock_file_names_a_living_process(tmp_path: Path) -> None:
    server = Postgres(tmp_path, port=free_port(), fsync=False)
    async with server:
        await server.stop()
        lock_file = tmp_path / "data" / "postmaster.pid"
        about = f"{tmp_path / 'data'}\n1\n{server.port}\n\n127.0.0.1\n1 1\nready\n"
        lock_file.write_text(f"{os.getpid()}\n{about}")
        await server.start()
        assert await run(server.url, "SELECT 1")


async def test_an_unfinished_initdb_is_done_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("15\n")
    async with Postgres(tmp_path, port=free_port(), fsync=False) as server:
        assert await run(server.url, "SELECT 1")
    assert not unfinished.exists()


async def test_postgres_asks_for_the_password_and_listens_on_loopback_only(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace(_password(postgres), "wrong"), timeout=10)
    rows = await run(postgres.url, "SHOW listen_addresses")
    assert rows[0]["listen_addresses"] == "127.0.0.1"


def _password(server: Postgres) -> str:
    return (server.folder / "password").read_text()


async def test_data_of_a_version_that_is_not_here_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        ServerError, match=r"^no PostgreSQL 9, which created this data, .*keepline\[embedded\]"
    ):
        await Postgres(tmp_path, port=free_port()).start()


async def test_the_shared_database_is_migrated_and_empty(database_url: str) -> None:
    assert [tuple(row) for row in await run(database_url, "SELECT count(*) FROM active_rooms")] == [(0,)]


async def test_shared_servers_start_each_test_empty(redis_url: str, empty_database_url: str) -> None:
    assert await got(redis_url) is None
    await put(redis_url)
    assert await run(empty_database_url, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
