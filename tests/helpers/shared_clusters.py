"""Fixtures: two whole clusters for all tests that break nothing in them; each is started when first asked for."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.helpers.cluster import Cluster, running_cluster

_PATIENCE = {
    "KEEPLINE_LIMIT_LOGINS_PER_SECOND": "1000",
    "KEEPLINE_LIMIT_FRAMES_PER_SECOND": "5000",
    "KEEPLINE_LIMIT_FRAMES_BURST": "5000",
}
_HASTE = {
    "KEEPLINE_LIMIT_LOGINS_PER_SECOND": "1000",
    "KEEPLINE_GRACE_SECONDS": "1",
    "KEEPLINE_NO_SHOW_SECONDS": "3",
    "KEEPLINE_TEXT_IDLE_SECONDS": "1",
    "KEEPLINE_TEXT_WARNING_SECONDS": "2",
    "KEEPLINE_MIN_DURATION_SECONDS": "2",
    "KEEPLINE_ENDING_SECONDS": "1",
    "KEEPLINE_ORIGINS": "https://app.example:443, https://*.preview.example, capacitor://localhost",
    "KEEPLINE_LIMIT_HELLO_SECONDS": "2",
    "KEEPLINE_LIMIT_OUTGOING_BYTES": "65536",
    # Enough to fill the buffers of the system in no time.
    "KEEPLINE_LIMIT_WORK_MS": "500",
    "KEEPLINE_LIMIT_WORK_BURST_MS": "1000",
    "KEEPLINE_AUTH_SECRET": "long enough for every algorithm of the HMAC family, also HS512: 64 bytes",
    # Tests that try one bad token after another all come from one address.
    "KEEPLINE_LIMIT_FAILED_LOGINS": "10000",
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def patient_cluster() -> AsyncIterator[Cluster]:
    """Two nodes with the default times, which bear thousands of frames at once."""
    async with running_cluster(nodes=2, environ=_PATIENCE) as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hasty_cluster() -> AsyncIterator[Cluster]:
    """Two nodes with short times, narrow buffers and one allowed origin."""
    async with running_cluster(nodes=2, environ=_HASTE) as cluster:
        yield cluster
