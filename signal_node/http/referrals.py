"""Referrals: created over HTTP, stored in Redis until they expire, and in Postgres by the persister.

Redis answers. If it has lost a referral, Postgres answers, and Redis gets it back. Nothing here is on the path of a
signal, so it may wait for Postgres.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import structlog

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Script, StoreUnavailable, translated
from keepline.ops.redis.server_time import ServerTime
from keepline.room import keys
from keepline.room.referrals import Referral, decode_referral, encode_referral
from signal_node.rooms.archive import Archive, ArchiveUnavailable
from signal_node.rooms.timely import STORED_SECONDS

CODE_BYTES = 16
TOO_LATE = -1
ARCHIVE_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Referrals:
    """The referrals of one cluster."""

    def __init__(
        self,
        client: Client,
        partitions: int,
        archive: Archive | None,
        *,
        keep_seconds: float,
        now: Callable[[], int],
    ) -> None:
        """`keep` is the lifetime of a referral, and `now()` the time in ms since 1970."""
        self._client = client
        self._partitions = partitions
        self._archive = archive
        self._keep_ms = round(keep_seconds * 1_000)
        self._now = now
        self._store = Script(client, __package__, "store_referral.lua")
        self._server_time = ServerTime(client)

    def expires_at(self, referral: Referral) -> int:
        """When it expires, in ms since 1970."""
        return referral.created_at + self._keep_ms

    async def make(
        self, target: UUID, created_by: UUID, target_name: str | None, created_by_name: str | None
    ) -> Referral:
        """Create a referral with an unguessable code, and store it in time or never. Raises StoreUnavailable."""
        until = asyncio.get_running_loop().time() + STORED_SECONDS
        while True:
            code = secrets.token_urlsafe(CODE_BYTES)
            referral = Referral(code, target, created_by, target_name, created_by_name, self._now())
            partition = keys.partition_of(code, self._partitions)
            names = [keys.referral(partition, code), keys.events(partition)]
            not_after = await self._server_time.not_after(names[0], until)
            stored = await self._store.run(
                names, [encode_referral(referral), self._keep_ms, keys.MAX_EVENTS, not_after]
            )
            if stored == TOO_LATE:
                raise StoreUnavailable("it came too late to be done")
            if stored:
                return referral

    async def find(self, code: str) -> Referral | None:
        """The referral of a code; None if it does not exist or has expired.

        Raises StoreUnavailable or ArchiveUnavailable if a server that may have it does not answer; BadRecord.
        """
        partition = keys.partition_of(code, self._partitions)
        away: StoreUnavailable | None = None
        try:
            with translated():
                stored = await self._client.get(keys.referral(partition, code))
            if stored is not None:
                return decode_referral(stored)
        except StoreUnavailable as error:
            away = error
        referral = await self._archived(code)
        if away is None and referral is not None:
            await self._put_back(partition, referral)
        if away is not None and referral is None:
            raise away
        return referral

    async def _archived(self, code: str) -> Referral | None:
        if self._archive is None:
            return None
        try:
            async with asyncio.timeout(ARCHIVE_SECONDS):
                return await self._archive.referral(code, self._keep_ms / 1_000)
        except TimeoutError as error:
            raise ArchiveUnavailable("no answer in time") from error

    async def _put_back(self, partition: int, referral: Referral) -> None:
        """Restore it in Redis. If that fails, the next request tries again."""
        left_ms = max(1, self.expires_at(referral) - self._now())
        with suppress(StoreUnavailable), translated():
            key = keys.referral(partition, referral.referral_code)
            await self._client.set(key, encode_referral(referral), px=left_ms, nx=True)
            _log.info("referral_put_back")
