"""Requests in progress on a node, each in its own task, which ends with its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

STORED_SECONDS = 3.0
"""How long a hello or a join waits for Redis before it is answered without it."""

RETRY_AFTER_MS = 1_000

AWAY = "temporarily unavailable: Redis cannot be reached; retry later"

_log = structlog.get_logger(__name__)


class Work:
    """The tasks of requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out a request that sends its own answer."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def aclose(self) -> None:
        """Cancel everything in progress."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("request_failed", exc_info=error)
