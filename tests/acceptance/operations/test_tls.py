"""A whole cluster that reaches its Redis and its Postgres over TLS, named by URL, and checks who they are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from keepline.cli.local.binaries import RedisBinary, redis_binaries
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.servers import Valkey
from tests.acceptance.harness import ON_TWO_NODES, Harness
from tests.helpers.certificates import self_signed
from tests.helpers.cluster import running_cluster
from tests.helpers.ports import free_block, free_port

LOOPBACK = "127.0.0.1"
COMMAND_SECONDS = 60


def redis_with_tls() -> RedisBinary:
    """A server program that was built with TLS, which those in wheels are not."""
    for binary in redis_binaries():
        linked = subprocess.run(
            ["ldd", binary.server], capture_output=True, text=True, timeout=10, check=False
        )
        if "libssl" in linked.stdout:
            return binary
    pytest.skip("no Redis with TLS is on PATH (Debian, Ubuntu: apt-get install redis-server)")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """What both servers show, and what their clients trust."""
    file = tmp_path / "server.pem"
    file.write_bytes(self_signed(LOOPBACK))
    return file


@asynccontextmanager
async def redis_url(folder: Path, certificate: Path, *, trusted: Path | None = None) -> AsyncIterator[str]:
    """A Redis that takes clients over TLS."""
    port = free_block(2)
    options = (
        *("--tls-port", str(port + 1), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(certificate)),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)),
    )
    async with Valkey(folder / "redis", port=port, binary=redis_with_tls(), options=options) as server:
        async with Redis.from_url(server.url) as plain:
            await plain.config_set("port", "0")
        yield f"rediss://{LOOPBACK}:{port + 1}?ssl_ca_certs={trusted or certificate}"


@asynccontextmanager
async def postgres_url(folder: Path, certificate: Path) -> AsyncIterator[str]:
    """A Postgres that takes clients over TLS only."""
    async with Postgres(folder / "postgres", port=free_port(), fsync=False) as server:
        data = server.folder / "data"
        owner = data.stat()
        for name in ("server.crt", "server.key"):
            (data / name).write_bytes(certificate.read_bytes())
            (data / name).chmod(0o600)
            os.chown(data / name, owner.st_uid, owner.st_gid)
        (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
        connection = await asyncpg.connect(server.url, timeout=5)
        try:
            await connection.execute("ALTER SYSTEM SET ssl = on")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close(timeout=5)
        yield f"{server.url}?sslmode=verify-full&sslrootcert={certificate}"


async def test_a_call_with_tls_all_the_way(tmp_path: Path, certificate: Path) -> None:
    async with (
        redis_url(tmp_path, certificate) as redis,
        postgres_url(tmp_path, certificate) as postgres,
        running_cluster(nodes=2, environ={"REDIS_URL": redis, "DATABASE_URL": postgres}) as cluster,
        Harness(cluster, ON_TWO_NODES) as harness,
    ):
        call = await harness.call(chat_mode="text")
        await call.goes_on()
        await call.alice.client.ask("chat", "ok", room=call.room, text="hello")
        assert [line["text"] for line in (await harness.stored(call.room))["messages"]] == ["hello"]


async def test_a_server_that_cannot_show_who_it_is_is_not_trusted(tmp_path: Path, certificate: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(self_signed(LOOPBACK))
    async with redis_url(tmp_path, certificate, trusted=other) as redis:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "keepline.cli.main", "status"),
            env={**os.environ, "REDIS_URL": redis},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(COMMAND_SECONDS):
            out, _ = await command.communicate()
    assert command.returncode == 1
    assert "certificate verify failed" in out.decode()
