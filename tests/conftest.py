"""Fixtures that every test may ask for; each lives in the helper that explains it."""

pytest_plugins = ["tests.helpers.servers", "tests.helpers.shared_clusters"]
