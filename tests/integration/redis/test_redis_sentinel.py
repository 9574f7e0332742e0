"""Whole clusters on a Redis that Sentinels watch."""

from pathlib import Path

from tests.helpers.redis_cluster import running_sentinels
from tests.integration.redis.failovers import a_call_goes_on


async def test_a_call_outlives_the_master(tmp_path: Path) -> None:
    async with running_sentinels(tmp_path) as watched:
        await a_call_goes_on(watched.url, lambda room: watched.master)
