"""Errors of Postgres in words, with the statement that fixes them."""

from __future__ import annotations

import re
import socket

import asyncpg
from asyncpg import exceptions

from keepline.ops.postgres.urls import PostgresUrl

# asyncpg raises the last one if the connection is lost during a command.
ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Errors of a statement or a connection."""

_DENIED = re.compile(r"(?:permission denied for|must be owner of) (\w+) \"?([^\"]+)\"?")
_GRANTS = {
    "schema": "GRANT USAGE, CREATE ON SCHEMA",
    "table": "GRANT SELECT, INSERT, UPDATE, DELETE, REFERENCES ON",
    "relation": "GRANT SELECT, INSERT, UPDATE, DELETE, REFERENCES ON",
    "sequence": "GRANT USAGE ON SEQUENCE",
    "database": "GRANT CONNECT ON DATABASE",
    "function": "GRANT EXECUTE ON FUNCTION",
}
_MIGRATE = "run `python -m persister.migrate`"
_OURS = re.compile(
    r"\b(active_rooms|removed_rooms|referral_mappings|text_room_activity|rate_limits|users|chat_history"
    r"|reports|keepline_\w+)\b"
)
_MISSING = (
    exceptions.UndefinedTableError,
    exceptions.UndefinedColumnError,
    exceptions.UndefinedFunctionError,
)
_ANOTHERS_STATEMENT = (
    exceptions.DuplicatePreparedStatementError,
    exceptions.InvalidSQLStatementNameError,
)


def in_words(error: BaseException, url: PostgresUrl | None = None) -> str:
    """Describe an error for the log, with the fix if there is a known one.

    For an unknown user the detail is included. Other details quote rows, which may contain chat.
    """
    message = error.message if isinstance(error, asyncpg.PostgresError) else None
    text = message or str(error) or type(error).__name__  # str() of a server error includes its detail
    if isinstance(error, asyncpg.ForeignKeyViolationError) and error.detail:
        text += f"; {error.detail}"
    hint = getattr(error, "hint", None) or _mend(error, text, url)
    return f"{text} ({hint})" if hint and hint not in text else text


def _mend(error: BaseException, text: str, url: PostgresUrl | None) -> str | None:
    """The fix; None if there is no known one."""
    role = f'"{url.user}"' if url is not None and url.user else "the user of DATABASE_URL"
    if isinstance(error, exceptions.InsufficientPrivilegeError):
        return _grant(text, role)
    if isinstance(error, _MISSING):
        return _MIGRATE if _OURS.search(text) else None
    if isinstance(error, exceptions.InvalidCatalogNameError):
        return "create it, or set another one in DATABASE_URL"
    if isinstance(error, _ANOTHERS_STATEMENT):
        return "a pooler in transaction mode? add ?pgbouncer=true to DATABASE_URL"
    where = url.hosts if url is not None else "the host"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {where}: does it run, and is DATABASE_URL right?"
    if isinstance(error, socket.gaierror):
        return f"{where} has no address: check the host in DATABASE_URL"
    return None


def _grant(text: str, role: str) -> str | None:
    found = _DENIED.search(text)
    if found is None:
        return None
    kind, name = found[1], found[2]
    if text.startswith("must be owner"):
        return f"ALTER {kind.upper().replace('RELATION', 'TABLE')} {name} OWNER TO {role}"
    return f"{_GRANTS[kind]} {name} TO {role}" if kind in _GRANTS else None
