"""The service key of the HTTP API, and its answers while Redis is away."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from keepline.ops.http import HttpError
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.codec import BadRecord
from signal_node.rooms.journal import JournalFull, NotStored
from signal_node.signaling.work import RETRY_AFTER_MS

ANSWER_SECONDS = 3.0
"""How long a request waits for Redis, because its caller has callers that wait, too."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ServiceKey:
    """The service key; None if none is set, which disables the API."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def guarded(self, handler: Handler) -> Handler:
        """Require the service key for a handler, and translate its exceptions."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            self._authorize(request)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await handler(request)
            except (StoreUnavailable, JournalFull, NotStored, TimeoutError):
                raise HttpError(
                    503,
                    "unavailable",
                    "temporarily unavailable: Redis cannot be reached",
                    retry_after_ms=RETRY_AFTER_MS,
                ) from None
            except BadRecord as error:
                raise HttpError(500, "internal", f"the room's record is damaged: {error}") from None

        return guarded

    def _authorize(self, request: web.Request) -> None:
        if self._key is None:
            raise HttpError(
                503, "unavailable", "the HTTP API is disabled: set KEEPLINE_SERVICE_KEY on the node"
            )
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = key.encode(errors="surrogateescape")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._key.encode()):
            raise HttpError(
                401, "unauthorized", "missing or wrong service key: send Authorization: Bearer KEY"
            )
