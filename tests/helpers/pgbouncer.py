"""A real PgBouncer in transaction mode before a PostgreSQL, as the system's packages have it."""

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from keepline.cli.local.postgres import Postgres
from keepline.cli.local.process import Command, SystemUser
from keepline.cli.local.servers import LOOPBACK, PROBE_SECONDS, Server
from tests.helpers.ports import free_port

missing = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")

_SETTINGS = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = {host}
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
ignore_startup_parameters =
logfile = {log}
"""


class PgBouncer(Server):
    """Shares `pool_size` sessions of a PostgreSQL out among all who come, transaction by transaction."""

    name = "pgbouncer"

    def __init__(self, folder: Path, postgres: Postgres, *, port: int, pool_size: int = 3) -> None:
        super().__init__(folder, port, None)
        self._postgres = postgres
        self._pool_size = pool_size

    def url_of(self, database: str) -> str:
        """URL of a database through it; the password is between it and PostgreSQL."""
        return f"postgresql://{self._postgres.user}@{LOOPBACK}:{self.port}/{database}"

    async def probe(self, pid: int) -> None:
        """Raise unless a connection is accepted."""
        connection = await asyncpg.connect(self.url_of("postgres"), timeout=PROBE_SECONDS)
        await connection.close(timeout=PROBE_SECONDS)

    async def _prepare(self) -> Command:
        parts = urlsplit(self._postgres.url)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(
            _SETTINGS.format(
                host=LOOPBACK,
                port=parts.port,
                user=parts.username,
                password=parts.password,
                own_port=self.port,
                pool_size=self._pool_size,
                log=self.folder / "own.log",
            )
        )
        user = None
        if os.geteuid() == 0:  # which it refuses to run as
            nobody = pwd.getpwnam("nobody")
            user = SystemUser(nobody.pw_uid, nobody.pw_gid, pass_folders=True)
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        program = shutil.which("pgbouncer")
        assert program is not None
        return Command(
            self.name,
            (program, str(settings)),
            self.log,
            folder=Path("/"),
            user=user,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGTERM,
        )


@asynccontextmanager
async def pgbouncer_before(postgres: Postgres, *, pool_size: int = 3) -> AsyncIterator[PgBouncer]:
    """Run one while the context is open."""
    with tempfile.TemporaryDirectory(prefix="keepline-pgbouncer-", ignore_cleanup_errors=True) as folder:
        async with PgBouncer(Path(folder) / "run", postgres, port=free_port(), pool_size=pool_size) as server:
            yield server
