"""Which table has the app's users: rows of the cluster refer to it, or to none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NONE: Final = "none"
DEFAULT_TABLE, DEFAULT_COLUMN = "users", "user_id"
_NAME = re.compile(r'[^\s".\x00]{1,63}')


@dataclass(frozen=True, slots=True)
class UsersTable:
    """A table, perhaps with its schema, and the column with the UUID of a user. Names are as the database has them."""

    name: str = DEFAULT_TABLE
    column: str = DEFAULT_COLUMN

    @property
    def table(self) -> str:
        """The table as SQL has it."""
        return ".".join(f'"{part}"' for part in self.name.split("."))

    @property
    def key(self) -> str:
        """The column as SQL has it."""
        return f'"{self.column}"'

    @property
    def is_default(self) -> bool:
        """Whether it is the one that is taken where nobody names any."""
        return self == UsersTable()

    def __str__(self) -> str:
        return f"{self.name}({self.column})"


def users_table(name: str, column: str) -> UsersTable | None:
    """The table that these settings name; None for `none`. Raises ValueError."""
    if name.lower() == NONE:
        return None
    parts = name.split(".")
    if len(parts) > 2 or not all(map(_NAME.fullmatch, parts)):
        raise ValueError("should be a table, schema.table or none, without quotes")
    if not _NAME.fullmatch(column):
        raise ValueError("should name a table with a column without quotes")
    return UsersTable(name, column)


def users_table_of(environ: Mapping[str, str]) -> UsersTable | None:
    """The table that KEEPLINE_USERS_TABLE and KEEPLINE_USERS_COLUMN name. Raises ValueError that names them."""
    name = environ.get("KEEPLINE_USERS_TABLE") or DEFAULT_TABLE
    column = environ.get("KEEPLINE_USERS_COLUMN") or DEFAULT_COLUMN
    try:
        return users_table(name, column)
    except ValueError as error:
        raise ValueError(f"KEEPLINE_USERS_TABLE, KEEPLINE_USERS_COLUMN: {error}") from None
