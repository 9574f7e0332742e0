"""Restores the rooms of users who connect during recovery before all other rooms.

Users who connect while a batch is in progress are in the next one, so a crowd costs one query and one write per batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from signal_node.rooms.archive import ArchiveUnavailable

BATCH_USERS = 200
MAX_WAITING = 10_000

_log = structlog.get_logger(__name__)


class Recalls:
    """The users whose rooms are being restored. Run `run` as a task."""

    def __init__(self, bring_back: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        """Takes a function that restores the rooms of some users, and may raise StoreUnavailable,
        ArchiveUnavailable.
        """
        self._bring_back = bring_back
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._asked = asyncio.Event()

    async def rooms_of(self, user: str) -> None:
        """Wait until the user's rooms are restored, or cannot be now. Raises StoreUnavailable if too many
        users wait.
        """
        answer = self._waiting.get(user)
        if answer is None:
            if len(self._waiting) >= MAX_WAITING:
                raise StoreUnavailable("too many users are waiting for their rooms")
            answer = self._waiting[user] = asyncio.get_running_loop().create_future()
            self._asked.set()
        await asyncio.shield(answer)

    async def run(self) -> None:
        """Restore batch after batch, until cancelled."""
        while True:
            await self._asked.wait()
            users = list(islice(self._waiting, BATCH_USERS))
            try:
                await self._bring_back(users)
            except (StoreUnavailable, ArchiveUnavailable) as error:
                _log.warning("recall_failed", users=len(users), error=str(error))
            finally:
                for user in users:
                    answer = self._waiting.pop(user)
                    if not answer.done():
                        answer.set_result(None)
                if not self._waiting:
                    self._asked.clear()
