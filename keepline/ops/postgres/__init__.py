"""Postgres: its URLs, connections, and readable errors."""

from keepline.ops.postgres.errors import ERRORS, in_words
from keepline.ops.postgres.pool import Connection, Connector, Lent, Pool, begun, create_pool, set_codecs

__all__ = [
    "ERRORS",
    "Connection",
    "Connector",
    "Lent",
    "Pool",
    "begun",
    "create_pool",
    "in_words",
    "set_codecs",
]
