"""What the tests with browsers share: one cluster of two nodes and one Chromium for each file."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from tests.helpers.browsers import chromium
from tests.helpers.cluster import Cluster, running_cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two_nodes() -> AsyncIterator[Cluster]:
    """A cluster of two nodes with its demo page, for all tests of a file."""
    async with running_cluster(nodes=2) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, for all tests of a file; each page that it opens is another visitor."""
    async with chromium() as browser:
        yield browser
