"""The wish to leave or end a call, which outlasts connections, time limits and the patience of the caller."""

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
"""Errors that say that this member has no part in the room any more."""


class Departure:
    """Asks the cluster until it has answered, in a task of its own.

    A call that somebody hung up without a network would otherwise come back to life with the next connection.
    """

    def __init__(
        self, ask: Callable[[str], Awaitable[Any]], gone: Callable[[str], None], options: Options
    ) -> None:
        """Take how to ask, and whom to tell of a room that is gone already, and why."""
        self._ask = ask
        self._gone = gone
        self._options = options
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether it is meant and not done yet."""
        return self._task is not None and not self._task.done()

    async def make(self, kind: str, done: Callable[[], None]) -> None:
        """Send `leave` or `end`, and call `done` once it is answered.

        Raises RequestTimedOut when that takes longer than a request may: it is still meant then.
        """
        if not self.pending:
            self._task = asyncio.create_task(self._run(kind, done), name=f"keepline-{kind}")
            self._task.add_done_callback(_retrieved)
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self.over()
        except TimeoutError as error:
            raise RequestTimedOut(f"no answer to {kind} yet; it is sent when the client is back") from error
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
    """Its caller may wait no longer: what went wrong then is the end of the client, which is told elsewhere."""
    if not task.cancelled() and not isinstance(task.exception(), KeeplineError | None):
        task.get_loop().call_exception_handler({"message": "a departure failed", "task": task})
