"""A door at which requests wait while the client is away."""

from __future__ import annotations

import asyncio


class Gate:
    """Open while a connection can be used; shut while the client reconnects; barred when that is over for
    good.
    """

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        self._error: Exception | None = None

    @property
    def is_open(self) -> bool:
        """Whether one may pass now."""
        return self._moved.is_set() and self._error is None

    def open(self) -> None:
        """Let pass who waits and who comes."""
        self._moved.set()

    def shut(self) -> None:
        """Let nobody pass until it is opened again. A barred gate stays barred."""
        if self._error is None:
            self._moved.clear()

    def bar(self, error: Exception) -> None:
        """Turn away who waits and who comes, with this error. The first error stays."""
        self._error = self._error or error
        self._moved.set()

    def check(self) -> None:
        """Raise the error of a barred gate."""
        if self._error is not None:
            raise self._error

    async def passed(self) -> None:
        """Wait until the gate is open. Raises the error of a barred one. The caller sets the time limit."""
        self.check()
        while not self.is_open:
            await self._moved.wait()
            self.check()
