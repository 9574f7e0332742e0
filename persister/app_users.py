"""The app's users, as the migrations find them: what fits, what does not, and the statement that mends it.

The files of `migrations/` refer to `users (user_id)`. If the settings name another table, the runner puts that one in
its place; if they name none, it leaves the references out. First it compares the settings with what a database refers
to already: a later migration must not refer to another table than the earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from keepline.ops.postgres import Connection
from keepline.ops.postgres.users_table import UsersTable

TABLES = ("active_rooms", "chat_history", "referral_mappings", "reports", "text_room_activity", "rate_limits")

# In 001: looks for the table, makes it, checks its key. Of a table that was named the checks below take its place.
_PART_OF_USERS = re.compile(r"^-- An empty table of our own.*?(?=^-- Indexes only)", re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r" REFERENCES users \(user_id\) ON DELETE (?:CASCADE|SET NULL)")

_COLUMNS = """SELECT attname AS name, format_type(atttypid, atttypmod) AS type, EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indpred IS NULL
            AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
    ) AS is_unique
    FROM pg_attribute a WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_LIKELY = """SELECT format('%s.%s', schemaname, tablename) FROM pg_tables
    WHERE schemaname NOT LIKE 'pg\\_%' AND schemaname <> 'information_schema'
        AND tablename ~* '(user|account|member|profile|customer)' ORDER BY 1 LIMIT 8"""
_REFERENCES = """SELECT conrelid::regclass::text AS "table", conname AS name, a.attname AS "column",
        confdeltype = 'n' AS sets_null,
        confrelid = coalesce(to_regclass($1), 0) AND f.attname = $2 AS is_right,
        confrelid::regclass::text || '(' || f.attname || ')' AS target
    FROM pg_constraint
    JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]
    JOIN pg_attribute f ON f.attrelid = confrelid AND f.attnum = confkey[1]
    WHERE contype = 'f' AND cardinality(conkey) = 1 AND f.atttypid = 'uuid'::regtype
        AND conrelid = ANY (ARRAY[to_regclass('active_rooms'), to_regclass('referral_mappings')]::oid[])
    ORDER BY 1, 3"""
_OWN_COLUMNS = (
    ("active_rooms", "user_1"),
    ("active_rooms", "user_2"),
    ("referral_mappings", "target_user_id"),
    ("referral_mappings", "created_by_user_id"),
)


class UnfitUsers(Exception):
    """The app's users cannot be referred to; the text says why, and what mends it."""


def fitted(sql: str, users: UsersTable | None) -> str:
    """A migration for this table of users."""
    if users is not None and users.is_default:
        return sql
    return _REFERENCE.sub(lambda found: _reference(users, found[0]), _PART_OF_USERS.sub("", sql))


def _reference(users: UsersTable | None, text: str) -> str:
    return "" if users is None else text.replace("users (user_id)", f"{users.table} ({users.key})")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the app's table."""

    name: str
    type: str
    is_unique: bool

    @property
    def fits(self) -> bool:
        """Whether a foreign key of the cluster may refer to it."""
        return self.type == "uuid" and self.is_unique


async def check_users(connection: Connection, users: UsersTable | None) -> str:
    """Say to what rows of the cluster will refer. Raises UnfitUsers. Needs a transaction, changes nothing."""
    await _check_references(connection, users)
    if users is None:
        return "no table of users: rows refer to none"
    columns = [Column(*row) for row in await connection.fetch(_COLUMNS, users.table)]
    if not columns:
        if users.is_default:
            return "a table users of our own, made empty unless there is one (see KEEPLINE_USERS_TABLE)"
        raise UnfitUsers(await _no_table(connection, users))
    if not any(column.name == users.column and column.fits for column in columns):
        raise UnfitUsers(_no_key(users, columns))
    return f"the app's {users}"


async def _no_table(connection: Connection, users: UsersTable) -> str:
    likely = ", ".join(row[0] for row in await connection.fetch(_LIKELY)) or "no table that looks like users"
    return f"KEEPLINE_USERS_TABLE names {users.name}, which is not there; there is {likely}"


def _no_key(users: UsersTable, columns: list[Column]) -> str:
    """Why rows cannot refer to the table as it is, and each way out, the easiest first."""
    lines = [
        f"table {users.name}: {_what_is_wrong(users, columns)}. Keepline's ids of users are UUIDs. Either:"
    ]
    lines += [
        f"  KEEPLINE_USERS_TABLE={users.name} KEEPLINE_USERS_COLUMN={column.name}  (a UUID, and unique)"
        for column in columns
        if column.fits
    ]
    lines += [
        f'  ALTER TABLE {users.table} ADD UNIQUE ("{column.name}");' + _then(users, column.name)
        for column in columns
        if column.type == "uuid" and not column.is_unique
    ]
    if not any(column.type == "uuid" for column in columns):
        lines.append(
            f"  ALTER TABLE {users.table} ADD COLUMN keepline_id UUID NOT NULL DEFAULT gen_random_uuid() UNIQUE;"
            + _then(users, "keepline_id")
        )
    lines.append("  KEEPLINE_USERS_TABLE=none  (rows of the cluster refer to no table)")
    lines.append("See docs/guides/existing-users.md.")
    return "\n".join(lines)


def _then(users: UsersTable, column: str) -> str:
    return f"  -- then KEEPLINE_USERS_TABLE={users.name} KEEPLINE_USERS_COLUMN={column}"


def _what_is_wrong(users: UsersTable, columns: list[Column]) -> str:
    for column in columns:
        if column.name == users.column:
            return (
                f"{column.name} is of type {column.type}"
                if column.type != "uuid"
                else f"{column.name} is not unique"
            )
    return f"there is no column {users.column}"


async def _check_references(connection: Connection, users: UsersTable | None) -> None:
    """Hold what rows refer to already against the settings."""
    if not await connection.fetchval("SELECT to_regclass('active_rooms') IS NOT NULL"):
        return
    wanted = users or UsersTable()
    found = await connection.fetch(_REFERENCES, wanted.table, wanted.column)
    wrong = [row for row in found if users is None or not row["is_right"]]
    if not wrong and (users is None or found):
        return
    target = wrong[0]["target"] if wrong else "no table of users"
    named = "none" if users is None else str(users)
    statements = list(_drops(wrong)) + ([] if users is None else list(_adds(users)))
    raise UnfitUsers(
        f"rows of the cluster refer to {target}, and the settings name {named}. Set KEEPLINE_USERS_TABLE and"
        " KEEPLINE_USERS_COLUMN as they were, or change the references:\n" + "\n".join(statements)
    )


def _drops(wrong: list[asyncpg.Record]) -> Iterator[str]:
    for row in wrong:
        yield f'  ALTER TABLE {row["table"]} DROP CONSTRAINT "{row["name"]}";'


def _adds(users: UsersTable) -> Iterator[str]:
    for table, column in _OWN_COLUMNS:
        reference = f"REFERENCES {users.table} ({users.key}) ON DELETE CASCADE"
        yield f"  ALTER TABLE {table} ADD FOREIGN KEY ({column}) {reference};"


async def plan(connection: Connection, users: UsersTable | None) -> list[str]:
    """What a migration of a database will use and make, in lines. Raises UnfitUsers."""
    lines = [f"users: {await check_users(connection, users)}"]
    for table in TABLES:
        there = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table)
        lines.append(f"{table}: {'there already; what is missing is added' if there else 'will be made'}")
    return lines
