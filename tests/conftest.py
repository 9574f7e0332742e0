"""Fixtures that every test may ask for, each in the helper that explains it; and which tests run side by side."""

import pytest

pytest_plugins = ["tests.helpers.servers", "tests.helpers.shared_clusters"]

CLUSTERS = ("tests/acceptance/", "tests/integration/")


@pytest.hookimpl(tryfirst=True)  # before the plugin that reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep those that start programs and time them in one process, one at a time; others go file by file."""
    for item in items:
        clusters = item.nodeid.startswith(CLUSTERS)
        item.add_marker(pytest.mark.xdist_group("clusters" if clusters else item.nodeid.partition("::")[0]))
