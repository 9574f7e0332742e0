"""The wish to leave or end a call, which outlasts connections, timeouts and its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from keepline.client.errors import (
    PASSING_CODES,
    CallEnded,
    KeeplineError,
    RequestFailed,
    RequestTimedOut,
)
from keepline.client.options import Options
from keepline.ops.backoff import Backoff

GONE = frozenset({"room_ended", "room_not_found", "not_a_member"})
"""Errors that mean that this member is no longer part of the room."""


class Departure:
    """Sends the request until the cluster has answered, in its own task.

    Otherwise a call that was hung up without a network would come back to life with the next connection.
    """

    def __init__(
        self, ask: Callable[[str], Awaitable[Any]], gone: Callable[[str], None], options: Options
    ) -> None:
        """Take how to send the request, and whom to tell if the room is gone already, and why."""
        self._ask = ask
        self._gone = gone
        self._options = options
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether the wish is pending."""
        return self._task is not None and not self._task.done()

    async def make(self, kind: str, done: Callable[[], None]) -> None:
        """Send `leave` or `end`, and call `done` once it is answered.

        Raises RequestTimedOut if that takes longer than a request may. The wish then remains pending.
        """
        if not self.pending:
            self._task = asyncio.create_task(self._run(kind, done), name=f"keepline-{kind}")
            self._task.add_done_callback(_retrieved)
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self.over()
        except TimeoutError as error:
            raise RequestTimedOut(
                f"no answer to {kind} yet; it is sent when the client is connected again"
            ) from error
        if self._task is not None and (failure := self._task.exception()) is not None:
            raise failure

    async def over(self) -> None:
        """Wait until it is done, or has failed."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self, kind: str, done: Callable[[], None]) -> None:
        options = self._options
        backoff = Backoff(options.backoff_base, options.backoff_cap, uniform=options.uniform)
        while True:
            try:
                await self._ask(kind)
                return done()
            except CallEnded:
                return None
            except RequestTimedOut:
                continue
            except RequestFailed as error:
                if error.code in GONE:
                    return self._gone(error.reason or ("hangup" if kind == "end" else error.code))
                if error.code not in PASSING_CODES:
                    raise
                await options.sleep((error.retry_after or 0.0) + backoff.next())


def _retrieved(task: asyncio.Task[None]) -> None:
    """The caller may have given up. An error here is then the end of the client, which is reported elsewhere."""
    if not task.cancelled() and not isinstance(task.exception(), KeeplineError | None):
        task.get_loop().call_exception_handler({"message": "a departure failed", "task": task})
