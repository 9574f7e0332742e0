"""Fixtures that every test may ask for, each in the helper that explains it; and which tests run side by side."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

pytest_plugins = ["tests.helpers.servers", "tests.helpers.shared_clusters"]

hypothesis.settings.register_profile("any machine", deadline=None, print_blob=True)
hypothesis.settings.load_profile("any machine")  # how long an example takes says nothing about the code

TOGETHER = {
    "tests/acceptance/": "whole clusters",
    "tests/contract/": "single servers",
    "tests/integration/": "single servers",
    "tests/migration/": "single servers",
    "tests/security/": "single servers",
}
"""Folders whose tests share servers: the files of one group run in one process, one after the other.

The two groups take about equally long, so that two processes finish together. Every test has another one running
beside it: none may depend on how fast or quiet the machine is.
"""


@pytest.fixture(autouse=True)
def logs_stay_as_they_were() -> Iterator[None]:
    """A command that a test runs in this process does not decide what the next test's code logs."""
    config = structlog.get_config()
    yield
    structlog.configure(**config)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps tests that share servers in one process; the others go file by file."""

    def _split_scope(self, nodeid: str) -> str:
        groups = (group for folder, group in TOGETHER.items() if nodeid.startswith(folder))
        return next(groups, nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Share the tests out so, when there is more than one process."""
    return Scheduling(config, log)
