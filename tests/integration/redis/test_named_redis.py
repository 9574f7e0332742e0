"""What `keepline up` asks of a Redis that others run: that every part of it which `REDIS_URL` names answers."""

from pathlib import Path

import pytest
from redis.exceptions import RedisError

from keepline.cli.local.servers import Valkey, ping
from tests.helpers.ports import free_port
from tests.helpers.redis_cluster import running_cluster, running_sentinels


async def test_a_server_answers_until_it_is_away(valkey: Valkey) -> None:
    await ping(valkey.url)
    await valkey.stop()
    with pytest.raises((RedisError, OSError)):
        await ping(valkey.url)


async def test_a_cluster_answers(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await ping(cluster.url)


async def test_a_set_with_sentinels_answers(tmp_path: Path) -> None:
    async with running_sentinels(tmp_path) as watched:
        await ping(watched.url)


@pytest.mark.parametrize("url", ["redis+cluster://127.0.0.1:{}", "redis+sentinel://127.0.0.1:{}/keepline"])
async def test_nobody_at_the_named_address_is_an_error(url: str) -> None:
    with pytest.raises((RedisError, OSError)):
        await ping(url.format(free_port()))


async def test_what_is_no_url_of_redis_is_an_error() -> None:
    with pytest.raises(ValueError, match="redis://"):
        await ping("http://127.0.0.1")
