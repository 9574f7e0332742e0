"""An event that can also fail: requests wait for it while the client is disconnected."""

from __future__ import annotations

import asyncio


class ReadyEvent:
    """Set while a connection is usable, clear while the client reconnects, failed when it is closed for good."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    @property
    def is_set(self) -> bool:
        """Whether a request may be sent now."""
        return self._changed.is_set() and self._error is None

    def set(self) -> None:
        """Release waiting requests, and later ones."""
        self._changed.set()

    def clear(self) -> None:
        """Make requests wait until it is set again. A failed event stays failed."""
        if self._error is None:
            self._changed.clear()

    def fail(self, error: Exception) -> None:
        """Fail waiting requests, and later ones, with this error. The first error stays."""
        self._error = self._error or error
        self._changed.set()

    def check(self) -> None:
        """Raise the error of a failed event."""
        if self._error is not None:
            raise self._error

    async def wait(self) -> None:
        """Wait until it is set. Raises the error of a failed one. The caller sets the timeout."""
        self.check()
        while not self.is_set:
            await self._changed.wait()
            self.check()
