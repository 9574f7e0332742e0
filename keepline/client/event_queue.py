"""The bounded queue between the connection and the application's `async for`."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from keepline.client.events import Ended, Event, EventsLost


class EventQueue:
    """The events of one call, in order, for one reader.

    At the limit, the newest events are dropped and replaced by one `EventsLost`. So a slow reader never delays the
    connection, and learns that it has to read the call's snapshot. `Ended` is always delivered.
    """

    def __init__(self, limit: int) -> None:
        """Take the maximum number of queued events, at least 1."""
        self._limit = limit
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        """Whether the next event would be dropped."""
        return len(self._events) >= self._limit

    def put(self, event: Event) -> None:
        """Append an event. Ignored after `close`."""
        if self._closed:
            return
        if len(self._events) < self._limit or isinstance(event, Ended):
            self._events.append(event)
        else:
            self._count_lost()
        self._changed.set()

    def close(self, error: Exception | None = None) -> None:
        """Let the reader finish after the queued events, with `error` if one is given."""
        if not self._closed:
            self._closed, self._error = True, error
            self._changed.set()

    async def get(self) -> Event | None:
        """Wait for the next event; None at the end. Raises the error of `close`, if there was one."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()

    def _count_lost(self) -> None:
        last = self._events[-1]
        if isinstance(last, EventsLost):
            self._events[-1] = replace(last, count=last.count + 1)
        else:
            self._events.append(EventsLost(1))
