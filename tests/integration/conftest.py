"""Fixtures of the integration tests: a client of the shared, empty Redis and a pool of the migrated database."""

from collections.abc import AsyncIterator

import pytest

from keepline.ops import postgres, redis
from keepline.ops.postgres import Pool
from keepline.ops.redis import Client


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    """A client of an empty Redis."""
    connected = redis.connect(redis_url)
    yield connected
    await connected.aclose()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections to a database with all migrations and no rows."""
    opened = await postgres.create_pool(database_url, application="tests")
    yield opened
    await opened.close()
