"""What programs need of Redis: the documented rights are enough, less is told in words, and so is an old version."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from keepline.cli.local.binaries import redis_binaries
from keepline.cli.local.servers import LOOPBACK, Valkey
from keepline.ops.errors import CannotRun
from keepline.ops.redis.client import connect
from keepline.ops.redis.requirements import require_for_node, require_for_persister
from keepline.room import keys
from tests.acceptance.harness import ON_TWO_NODES, Harness
from tests.helpers.cluster import Cluster, inherited_environment, running_cluster
from tests.helpers.ports import free_port
from tests.helpers.redis_cluster import running_cluster as running_redis_cluster
from tests.helpers.waiting import eventually

PASSWORD = "a-password-of-the-test"
OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
RIGHTS = re.search(r"ACL SETUSER keepline (.*)$", OPERATIONS.read_text(), re.MULTILINE)


def documented() -> list[str]:
    """The rights of docs/operations.md."""
    assert RIGHTS is not None
    return RIGHTS[1].replace("PASSWORD", PASSWORD).split()


@asynccontextmanager
async def limited(url: str, *more: str) -> AsyncIterator[str]:
    """The URL of a user with the documented rights, and some taken away."""
    admin: Any = connect(url)
    try:
        await admin.execute_command("ACL", "SETUSER", "keepline", "reset", *documented(), *more)
        yield url.replace("://", f"://keepline:{PASSWORD}@")
    finally:
        await admin.execute_command("ACL", "DELUSER", "keepline")
        await admin.aclose()


async def keepline(cluster: Cluster, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keepline.cli.main", *arguments),
        env=inherited_environment()
        | {"REDIS_URL": cluster.redis_url, "KEEPLINE_SERVICE_KEY": cluster.line["service_key"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return said.decode()


@pytest.mark.parametrize("program", ["valkey-server", "redis-server"])
async def test_a_cluster_runs_with_the_documented_rights(tmp_path: Path, program: str) -> None:
    binary = next((found for found in redis_binaries() if found.server.name == program), None)
    if binary is None:
        pytest.skip(f"no {program} of a version that is supported is on this machine")
    options = ("--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
    async with (
        Valkey(tmp_path, port=free_port(), binary=binary, options=options) as server,
        limited(server.url) as url,
        running_cluster(environ={"REDIS_URL": url}) as cluster,
        Harness(cluster, ON_TWO_NODES) as harness,
    ):
        call = await harness.call()
        await call.goes_on()
        line = (await call.alice.client.ask("chat", "ok", room=call.room, text="hello"))["message"]
        await call.bob.client.expect("chat", room=call.room, message=line)
        await harness.stored(call.room, status="active")
        admin: Any = connect(server.url)
        try:
            await admin.xadd(keys.events(0), {"event": b"{broken"})
            await eventually(
                lambda: admin.xlen(keys.dead_letters(0)), what="what cannot be read is put aside"
            )
        finally:
            await admin.aclose()
        said = await keepline(cluster, "doctor", "--json")
        assert "maxmemory-policy is allkeys-lru" in said, "INFO tells what CONFIG would"
        assert "the append-only file is off" in said
        assert "Traceback" not in said


async def test_a_cluster_runs_with_them_on_a_redis_cluster(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(running_redis_cluster(tmp_path, replicas=False))
        for master in servers.masters:
            await stack.enter_async_context(limited(master.url))
        url = servers.url.replace("://", f"://keepline:{PASSWORD}@")
        cluster = await stack.enter_async_context(running_cluster(environ={"REDIS_URL": url}))
        harness = await stack.enter_async_context(Harness(cluster, ON_TWO_NODES))
        call = await harness.call()
        await call.goes_on()
        line = (await call.alice.client.ask("chat", "ok", room=call.room, text="hello"))["message"]
        await call.bob.client.expect("chat", room=call.room, message=line)
        await harness.stored(call.room, status="active")
        assert (await cluster.end_room(call.room))["status"] == "ended"
        said = json.loads(await keepline(cluster, "doctor", "--json"))
        assert {found["kind"] for found in said["found"]} == {"redis-setting"}, "they write no file"
        refused = [log for log in (cluster.data / "logs").glob("*.log") if "NOPERM" in log.read_text()]
        assert not refused


@pytest.mark.parametrize(
    ("less", "missing"),
    [
        ("-zadd", "'zadd'"),
        ("-evalsha", "'evalsha'"),
        ("-publish", "'publish'"),
        ("resetchannels", "channel"),
        ("resetkeys", "key"),
    ],
)
async def test_a_node_names_the_rights_that_it_lacks(redis_url: str, less: str, missing: str) -> None:
    async with limited(redis_url, less) as url, connect(url) as client:
        with pytest.raises(CannotRun, match=missing) as refusal:
            await require_for_node(client)
        assert "Rights in Redis" in str(refusal.value)


async def test_a_persister_names_them_too(redis_url: str) -> None:
    async with limited(redis_url, "-xautoclaim", "-xack") as url, connect(url) as client:
        with pytest.raises(CannotRun, match=r"'xack'.*'xautoclaim'"):
            await require_for_persister(client)


async def test_nothing_is_left_of_the_look(redis_url: str) -> None:
    async with connect(redis_url) as client:
        await require_for_node(client)
        await require_for_persister(client)
        assert await client.keys() == []


async def test_a_program_that_lacks_rights_says_so_and_exits_2(redis_url: str) -> None:
    async with limited(redis_url, "-xadd") as url:
        for program in ("signal_node", "persister"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", program),
                env=inherited_environment()
                | {
                    "REDIS_URL": url,
                    "DATABASE_URL": f"postgresql://{LOOPBACK}:{free_port()}/none",
                    "KEEPLINE_AUTH_SECRET": "a secret that is long enough for every algorithm",
                    "KEEPLINE_PORT": str(free_port()),
                    "KEEPLINE_OPS_PORT": str(free_port()),
                },
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 2, said.decode()
            assert b"'xadd'" in said
            assert b"Traceback" not in said


async def test_an_old_redis_is_named_with_its_version() -> None:
    """A stand-in that answers the handshake as Redis 6.2 does: it is refused before anything else is asked of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = [await _word(reader) for _ in range(int(line[1:]))]
            if words[0].upper() == b"HELLO":
                writer.write(b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n")
            else:
                writer.write(b"+PONG\r\n" if words[0].upper() == b"PING" else b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"redis://{LOOPBACK}:{port}") as client:
            with pytest.raises(CannotRun, match=r"version 6\.2\.14: Keepline needs Redis 7\.0"):
                await require_for_node(client)


async def _word(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readline())[1:])
    return (await reader.readexactly(size + 2))[:-2]
