"""A cluster in a Redis that is an app's as well, with keys of the names that the first releases had."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid

import redis.asyncio

from keepline.ops.redis.client import connect
from keepline.room import keys
from tests.acceptance.harness import ON_TWO_NODES, Harness
from tests.helpers.cluster import Cluster, inherited_environment, running_cluster
from tests.helpers.ports import free_port


async def keepline(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """Run the operators' command on a cluster; exit code and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keepline.cli.main", *arguments),
        env=inherited_environment()
        | {
            "REDIS_URL": cluster.redis_url,
            "DATABASE_URL": cluster.database_url,
            "KEEPLINE_SERVICE_KEY": cluster.line["service_key"],
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


async def test_an_apps_keys_are_left_alone_and_do_no_harm(redis_url: str) -> None:
    alice, bob = uuid.uuid4(), uuid.uuid4()
    apps = redis.asyncio.from_url(redis_url)
    try:
        await apps.sadd("nodes", "an app's")
        strings = [f"user:{alice}", "user:42", f"user:{bob}:rooms", "node:node-1", "inbox:node-1"]
        await apps.mset(dict.fromkeys(strings, "an app's"))
        async with (
            running_cluster(environ={"REDIS_URL": redis_url}) as cluster,
            Harness(cluster, ON_TWO_NODES) as harness,
        ):
            room = (await cluster.open_room(alice, bob))["room_id"]
            members = [await harness.login(user, node) for node, user in enumerate((alice, bob))]
            for member in members:
                await member.client.ask("join", "joined", room=room)
            await harness.stored(room, status="active", user_1_connected=True, user_2_connected=True)
            _, said = await keepline(cluster, "doctor", "--json")
            kinds = {finding["kind"] for finding in json.loads(said)["found"]}
            assert kinds <= {"redis-setting"}, "the Redis of the tests has no file"
        assert await apps.mget(strings) == [b"an app's"] * len(strings)
        assert await apps.smembers("nodes") == {b"an app's"}
        ours = {name async for name in apps.scan_iter() if name not in {b"nodes", *map(str.encode, strings)}}
        assert ours
        assert {name for name in ours if not name.startswith(b"keepline:")} == set()
    finally:
        await apps.aclose()


async def test_programs_refuse_to_run_beside_nodes_without_a_prefix(redis_url: str) -> None:
    client = connect(redis_url)
    keys.use_prefix("")
    try:
        await client.set(keys.epoch(0), "1")
        await client.zadd(keys.nodes(), {"old-1": 1})
        await client.set(keys.node("old-1"), "{}")
    finally:
        keys.use_prefix(keys.DEFAULT_PREFIX)
        await client.aclose()
    for program in ("signal_node", "persister"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", program),
            env=inherited_environment()
            | {
                "REDIS_URL": redis_url,
                "DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/none",
                "KEEPLINE_AUTH_SECRET": "a secret that is long enough for every algorithm",
                "KEEPLINE_PORT": str(free_port()),
                "KEEPLINE_OPS_PORT": str(free_port()),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 2, said.decode()
        assert b"(old-1)" in said
        assert b"KEEPLINE_REDIS_PREFIX=none" in said
        assert b"Traceback" not in said
