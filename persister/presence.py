"""The presence of a persister, for `keepline status` and `doctor`: its database and its last error.

Persisters of one Redis divide its events among themselves. If they wrote to different databases, each database would
have only some of the rooms. So each persister checks which database the others use.
"""

from __future__ import annotations

from typing import Any

import structlog

from keepline.ops.health import LastTry
from keepline.ops.redis import Client
from keepline.ops.redis.cluster_time import cluster_ms
from keepline.room import keys
from keepline.room.presence import SILENT_MS, Presence, decode_presence, encode_presence
from persister.database import Database, NotNow

_FORGOTTEN_MS = 86_400_000

_log = structlog.get_logger(__name__)


class Presences:
    """The presence records of all persisters of this Redis, as seen by one of them."""

    def __init__(
        self, client: Client, database: Database, name: str, *, writes: LastTry, one_database: LastTry
    ) -> None:
        """`one_database` gets whether all live persisters write to the same database."""
        self._client = client
        self._database = database
        self._name = name
        self._writes = writes
        self._one_database = one_database
        self._identity: str | None = None

    async def tell(self, error: str | None) -> None:
        """Publish this persister's presence with its problem: `error`, or a failed write. Raises RedisError."""
        now = await cluster_ms(self._client)  # by Redis' clock, because machines' clocks may differ
        await self._identify()
        own = Presence(now, self._identity, error or self._writes.error)
        await self._client.hset(keys.persisters(), self._name, encode_presence(own))
        others = await self._others()
        forgotten = [name for name, one in others.items() if now - one.at > _FORGOTTEN_MS]
        if forgotten:
            await self._client.hdel(keys.persisters(), *forgotten)
        self._compare({name: one for name, one in others.items() if now - one.at < SILENT_MS})

    async def leave(self) -> None:
        """Remove this persister's presence. Raises RedisError."""
        await self._client.hdel(keys.persisters(), self._name)

    async def _identify(self) -> None:
        """Look up the database's id once. A URL can refer to another database only after a restart."""
        if self._identity is None:
            try:
                self._identity = await self._database.identity()
            except NotNow:
                return

    async def _others(self) -> dict[str, Presence]:
        found: Any = await self._client.hgetall(keys.persisters())
        presences = {name.decode(): decode_presence(value) for name, value in found.items()}
        presences.pop(self._name, None)
        return presences

    def _compare(self, living: dict[str, Presence]) -> None:
        elsewhere = sorted(name for name, one in living.items() if one.database not in (None, self._identity))
        if self._identity is None or not elsewhere:
            self._one_database.succeeded()
            return
        text = f"{', '.join(elsewhere)} read the same Redis and write to another database"
        if self._one_database.error is None:
            _log.warning("databases_differ", others=elsewhere, problem=text)
        self._one_database.failed(text)
