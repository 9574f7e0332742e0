"""The files of `migrations/`: plain SQL, in the order of their names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from keepline.ops.postgres.users_table import UsersTable
from persister import app_users


class MigrationError(Exception):
    """The migration failed. The message says at which step and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    name: str
    sql: str

    def fitted(self, users: UsersTable | None) -> Migration:
        """The same for another table of users."""
        return Migration(self.name, app_users.fitted(self.sql, users))

    @property
    def commands(self) -> list[str]:
        """The parts of the file that must be sent separately."""
        return re.split(r"^-- by itself$", self.sql, flags=re.MULTILINE)

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_folder() -> Path:
    """Return the folder with the SQL: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def read_migrations(folder: Path) -> list[Migration]:
    """Return the migrations of a folder, in order. Raises MigrationError if there are none."""
    found = [Migration(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.sql"))]
    if not found:
        raise MigrationError(f"no *.sql files in {folder}")
    return found
