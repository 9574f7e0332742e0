"""Whole clusters on a Redis Cluster."""

from pathlib import Path

from keepline.room import keys
from tests.helpers.redis_cluster import running_cluster
from tests.integration.redis.failovers import a_call_goes_on


async def test_a_call_outlives_the_master_that_has_its_room(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as servers:
        await a_call_goes_on(servers.url, lambda room: servers.master_of(keys.tag(_partition(room))))


def _partition(room: str) -> int:
    return keys.partition_of(room, keys.DEFAULT_PARTITIONS)
