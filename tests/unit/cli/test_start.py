"""What a command loads before it knows what it has to do: libraries that take long are left to those that need them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.ports import free_port

SLOW = {
    "aiohttp",
    "aioice",
    "aiortc",
    "asyncio",
    "asyncpg",
    "jwt",
    "keepline.client",
    "keepline.ops.settings",
    "prometheus_client",
    "pydantic_settings",
    "redis",
    "structlog",
    "uvloop",
    "websockets",
}
RUN = """
import sys
sys.argv = ["keepline", *sys.argv[1:]]
from keepline.cli.main import main
try:
    main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def loaded_by(*arguments: str, exit_code: int = 0, **environ: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "", **environ},
    )
    assert done.returncode == exit_code, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("rooms", "--help"), ("up", "--help")])
def test_help_loads_nothing_that_takes_long(arguments: tuple[str, ...]) -> None:
    assert loaded_by(*arguments) & SLOW == set()


def test_a_token_needs_one_library_and_no_event_loop() -> None:
    user = "11111111-1111-4111-8111-111111111111"
    loaded = loaded_by("token", "--user", user, KEEPLINE_AUTH_SECRET="s" * 32)
    assert loaded & SLOW == {"jwt"}


def test_the_status_needs_the_library_of_redis_and_no_http_client() -> None:
    loaded = loaded_by("status", exit_code=1, REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert loaded & SLOW == {"asyncio", "redis", "structlog"}


def test_what_is_not_to_be_loaded_would_be_noticed() -> None:
    """The names are right: all of these are libraries of ours."""
    found = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(sorted(SLOW))}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr.decode()
