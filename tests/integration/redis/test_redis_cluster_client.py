"""The client of a cluster on three masters: what goes where, and what becomes of it when slots move or servers die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_asyncio
from redis.exceptions import ClusterDownError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as AnswerTimeout

from keepline.ops import redis
from keepline.ops.redis.cluster import Cluster
from tests.helpers.fleet import paused
from tests.helpers.ports import free_port
from tests.helpers.redis_cluster import Move, RedisCluster, running_cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = [f"{{p{number:02d}}}:key" for number in range(16)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisCluster]:
    """Three masters, for all tests of this file."""
    async with running_cluster(tmp_path_factory.mktemp("cluster"), replicas=False) as cluster:
        yield cluster


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Cluster]:
    client = redis.connect(url, **options)
    try:
        yield cast(Cluster, client)
    finally:
        await client.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def client(servers: RedisCluster) -> AsyncIterator[Cluster]:
    """A client of an empty cluster."""
    async with connected(servers.url) as cluster:
        await cluster.flushall()
        yield cluster


# --- what goes where ---


async def test_keys_are_spread_over_the_masters(client: Cluster) -> None:
    for number, name in enumerate(NAMES):
        await client.set(name, number)
    assert [await client.get(name) for name in NAMES] == [b"%d" % number for number in range(16)]
    sizes = [await master.dbsize() for master in await client.masters()]
    assert sum(sizes) == 16
    assert all(sizes)


async def test_a_pipeline_is_answered_in_the_order_asked(client: Cluster) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number, name in enumerate(NAMES):
            pipe.rpush(name, number, "x")
            pipe.lpop(name)
        assert await pipe.execute() == [answer for n in range(16) for answer in (2, b"%d" % n)]
    async with client.pipeline(transaction=False) as pipe:
        assert await pipe.execute() == []


async def test_an_error_is_that_commands_alone(client: Cluster) -> None:
    await client.set(NAMES[0], "no list")
    async with client.pipeline(transaction=False) as pipe:
        for name in NAMES:
            pipe.rpush(name, 1)
        answers = await pipe.execute(raise_on_error=False)
        assert isinstance(answers[0], ResponseError)
        assert answers[1:] == [1] * 15
        pipe.rpush(NAMES[0], 1)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await pipe.execute()


async def test_a_transaction_has_one_slot(client: Cluster) -> None:
    async with client.pipeline(transaction=True) as pipe:
        pipe.set(NAMES[3], 1)
        pipe.incr(NAMES[3])
        assert await pipe.execute() == [True, 2]


async def test_scripts_are_found_by_their_first_key(client: Cluster) -> None:
    source = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    script = client.register_script(source)
    assert [await script(keys=[name], args=[7]) for name in NAMES] == [7] * 16
    await client.script_flush()
    assert [await client.eval(source, 1, name, 1) for name in NAMES] == [8] * 16


async def test_what_has_no_key_goes_to_every_master_or_to_one(client: Cluster) -> None:
    assert await client.ping() is True
    seconds, _ = await client.time()
    assert seconds > 1_700_000_000


async def test_what_has_no_place_is_refused(client: Cluster) -> None:
    with pytest.raises(ValueError, match="DBSIZE has no key"):
        await client.dbsize()
    with pytest.raises(NotImplementedError):
        client.pubsub()
    async with client.pipeline(transaction=False) as pipe:
        pipe.ping()
        with pytest.raises(ValueError, match="PING has no key"):
            await pipe.execute()


async def test_who_finds_no_free_connection_waits(servers: RedisCluster) -> None:
    async with connected(servers.url, max_connections=2) as client:
        names = [f"waiting:{number}" for number in range(300)]
        assert await asyncio.gather(*(client.set(name, 1) for name in names)) == [True] * 300


# --- the map ---


async def test_one_server_that_answers_is_enough_to_begin(servers: RedisCluster) -> None:
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{servers.masters[1].port}"
    async with connected(url) as client:
        assert await client.ping()
        assert len(await client.masters()) == 3


async def test_no_server_is_an_error_that_says_why() -> None:
    async with connected(f"redis+cluster://127.0.0.1:{free_port()}") as client:
        for _ in range(2):
            with pytest.raises(RedisConnectionError, match=r"answered CLUSTER SLOTS: .* Error 111"):
                await client.get("key")


async def test_a_server_that_is_no_cluster_is_an_error_that_says_so(redis_url: str) -> None:
    async with connected(redis_url.removesuffix("/0").replace("redis:", "redis+cluster:")) as client:
        with pytest.raises(RedisConnectionError, match="cluster support disabled"):
            await client.get("key")


async def test_commands_follow_a_slot_that_moves(servers: RedisCluster, client: Cluster) -> None:
    first, second = "{moving}:first", "{moving}:second"
    async with connected(servers.url) as other:
        await other.set(first, 1)
        move = await Move.begin(client, first)
        assert await other.set(second, 2), "what is not there yet is written where it will be"
        assert await other.get(first) == b"1"
        await move.carry(first)
        assert await other.get(first) == b"1"
        async with other.pipeline(transaction=False) as pipe:
            for name in (first, NAMES[0], second):
                pipe.get(name)
            assert await pipe.execute() == [b"1", None, b"2"]
        await move.end()
        async with other.pipeline(transaction=True) as pipe:
            pipe.incr(first)
            pipe.incr(first)
            assert await pipe.execute() == [2, 3]
        assert await other.owner(first) == move.target
        for _ in range(2):
            async with client.pipeline(transaction=False) as pipe:
                for name in (first, *NAMES, second):
                    pipe.get(name)
                assert await pipe.execute() == [b"3", *[None] * 16, b"2"]


async def test_a_server_that_is_away_takes_only_its_own_with_it(
    servers: RedisCluster, client: Cluster
) -> None:
    lost = servers.master_of(NAMES[7])
    there = [servers.master_of(name) is not lost for name in NAMES]
    await lost.kill()
    try:
        async with client.pipeline(transaction=False) as pipe:
            for name in NAMES:
                pipe.incr(f"{name}:count")
            answers = await pipe.execute(raise_on_error=False)
            assert [answer == 1 for answer in answers] == there
            assert all(isinstance(answer, RedisError) for answer in answers if answer != 1)
        with pytest.raises((RedisConnectionError, ClusterDownError)):
            await client.get(NAMES[7])
        with pytest.raises((RedisConnectionError, ClusterDownError)):
            await client.ping()
    finally:
        await lost.start()

    async def answers_again() -> bool:
        try:
            return await client.ping() and await client.get(NAMES[7]) is None
        except RedisError:
            return False

    await eventually(answers_again, what="the server that came back is used again")
    there_still = [name for name, is_there in zip(NAMES, there, strict=True) if is_there]
    counts = [await client.get(f"{name}:count") for name in there_still]
    assert counts == [b"1"] * len(counts), "nothing was repeated"


async def test_only_the_first_waits_for_a_server_that_is_silent(servers: RedisCluster) -> None:
    silent = servers.master_of(NAMES[7])

    async with connected(servers.url, answer_seconds=0.3) as client:

        async def answers() -> bool:
            try:
                return await client.get(NAMES[7]) is None
            except RedisError:
                return False

        await client.ping()
        with paused(silent.pid):
            with pytest.raises(AnswerTimeout):
                await client.get(NAMES[7])
            started = time.monotonic()
            for _ in range(100):
                with pytest.raises(RedisConnectionError, match="does not answer"):
                    await client.get(NAMES[7])
            assert time.monotonic() - started < 0.3
        await eventually(answers, what="the server is asked again")
