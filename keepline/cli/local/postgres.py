"""A real PostgreSQL as a child process; see `servers`."""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import stat
import sys
from pathlib import Path
from urllib.parse import quote

import asyncpg

from keepline.cli.base.private_files import create_private
from keepline.cli.local.binaries import PostgresBinaries, ServerError, find_postgres
from keepline.cli.local.process import Child, Command, SystemUser, describe_exit, tail
from keepline.cli.local.servers import LOOPBACK, POLL_SECONDS, PROBE_SECONDS, Server
from keepline.ops.postgres import Connector

_INITDB_SECONDS = 60.0
_LEFTOVER_SECONDS = 15.0


class Postgres(Server):
    """PostgreSQL with one database, `keepline`, and one user of that name.

    The user's password is created with the data and stored beside it. If this runs as root, PostgreSQL runs as the user
    nobody, because it refuses to run as root. `fsync=False` is for tests only: a crash of the machine may then lose the
    data.
    """

    name = "postgres"
    database = "keepline"
    user = "keepline"

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        log: Path | None = None,
        binaries: PostgresBinaries | None = None,
        fsync: bool = True,
    ) -> None:
        super().__init__(folder, port, log)
        self._binaries = binaries
        self._fsync = fsync
        self._data = self.folder / "data"
        self._password = ""

    @property
    def url(self) -> str:  # type: ignore[override]
        """URL of the database `keepline`, known once the server has been started."""
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """URL of another database of this server."""
        return f"postgresql://{self.user}:{quote(self._password)}@{LOOPBACK}:{self.port}/{database}"

    async def start(self) -> None:
        """Start it, and create its data and its database if they are missing."""
        await super().start()
        connection = await asyncpg.connect(self.url_of("postgres"), timeout=PROBE_SECONDS)
        try:
            known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", self.database)
            if known is None:
                await connection.execute(f'CREATE DATABASE "{self.database}"')
        finally:
            await connection.close(timeout=PROBE_SECONDS)

    async def probe(self, pid: int) -> None:
        """Raise unless a connection is accepted. The password tells this server from any other."""
        await connect_once(self.url_of("postgres"))

    async def _prepare(self) -> Command:
        binaries = self._binaries = self._binaries or find_postgres(_written_by(self._data))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        user = self._user(binaries)
        _own(self.folder, user)
        self._password = self._keep_password(user)
        await _until_deserted(self._data)
        if not self._data.exists():
            await self._create_data(binaries, user)
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "shared_buffers": "32MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._command((str(binaries.server), "-D", str(self._data), *words), user)

    async def _create_data(self, binaries: PostgresBinaries, user: SystemUser | None) -> None:
        """Run initdb in a temporary folder, so that an interrupted one does not look finished."""
        unfinished = self._data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        arguments = [str(binaries.initdb), "-D", str(unfinished), "-U", self.user]
        arguments += ["--pwfile", str(self.folder / "password"), "--auth=scram-sha-256"]
        arguments += ["--encoding=UTF8", "--no-locale", *([] if self._fsync else ["--no-sync"])]
        child = await Child.start(self._command(tuple(arguments), user))
        try:
            async with asyncio.timeout(_INITDB_SECONDS):
                returncode = await child.wait()
        except BaseException:
            await child.kill()
            raise
        if returncode != 0:
            raise ServerError(
                f"initdb failed ({describe_exit(returncode)}); end of {self.log}:\n{tail(self.log)}"
            )
        unfinished.rename(self._data)

    def _command(self, arguments: tuple[str, ...], user: SystemUser | None) -> Command:
        # SIGINT is PostgreSQL's fast shutdown. SIGTERM would wait for its clients to leave.
        return Command(
            name=self.name,
            arguments=arguments,
            log=self.log,
            environment={**os.environ, "LC_ALL": "C"},
            folder=self.folder if user is None else Path("/"),
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
            user=user,
        )

    def _user(self, binaries: PostgresBinaries) -> SystemUser | None:
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        uid, gid = nobody.pw_uid, nobody.pw_gid
        if self._data.exists() and self._data.stat().st_uid != 0:  # created before this ran as root
            uid, gid = self._data.stat().st_uid, self._data.stat().st_gid
        server = binaries.server.resolve()
        passed = {server, *_folders_above(server), *_folders_above(self.folder)}
        closed = not all(path.stat().st_mode & stat.S_IXOTH for path in passed)
        return SystemUser(uid, gid, pass_folders=closed)

    def _keep_password(self, user: SystemUser | None) -> str:
        path = self.folder / "password"
        if not path.exists():
            create_private(path, secrets.token_urlsafe(24))
            _own(path, user)
        return path.read_text().strip()


async def connect_once(url: str) -> None:
    """Open and close a connection to the PostgreSQL at `url`. Raises one of `postgres.ERRORS`, or ValueError."""
    connection = await Connector(url, "keepline-cli", PROBE_SECONDS).connect()
    await connection.close(timeout=PROBE_SECONDS)


def _own(path: Path, user: SystemUser | None) -> None:
    if user is not None:
        os.chown(path, user.uid, user.gid)


def _folders_above(path: Path) -> list[Path]:
    return [parent for parent in path.parents if parent.exists()]


def _written_by(data: Path) -> int | None:
    """The PostgreSQL version that created `data`, which no other version can read."""
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


async def _until_deserted(data: Path) -> None:
    """Wait until no process of an earlier server works in `data`, then delete its lock file.

    PostgreSQL takes any living process with the id in its lock file for a running server, and ids are reused soon in
    containers and after a reboot. The file must not be deleted while such a server runs, though: two servers would
    write to the same files. Only Linux can tell; on other systems PostgreSQL decides.
    """
    if sys.platform != "linux":
        return
    try:
        async with asyncio.timeout(_LEFTOVER_SECONDS):
            while _processes_in(data):  # noqa: ASYNC110 - other processes set no event
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        numbers = ", ".join(map(str, _processes_in(data)))
        raise ServerError(f"PostgreSQL is still running on {data} (pid {numbers}): stop it first") from None
    (data / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(data: Path) -> list[int]:
    """Ids of the processes whose working folder is `data`, as it is for all processes of PostgreSQL."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                folder = (entry / "cwd").readlink()
            except OSError:  # it has ended meanwhile, or belongs to another user
                continue
            if folder == data:
                found.append(int(entry.name))
    return found
