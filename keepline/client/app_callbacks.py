"""The application's callbacks outside of calls: states, and failed connection attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum

from keepline.client.errors import KeeplineError

_log = logging.getLogger(__name__)


class State(Enum):
    """The state of the client."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class AppCallbacks:
    """Calls the application's callbacks, and logs their errors."""

    def __init__(
        self,
        on_state: Callable[[State], None] | None,
        on_error: Callable[[KeeplineError], None] | None,
    ) -> None:
        self.state = State.CONNECTING
        self._on_state = on_state
        self._on_error = on_error
        self._failing = False

    def begin(self) -> None:
        """Report the initial state of every client."""
        self._tell_state()

    def enter(self, state: State) -> None:
        """Report a new state, if it is one."""
        self._failing = self._failing and state is not State.CONNECTED
        if state is not self.state:
            self.state = state
            self._tell_state()

    def failed(self, error: KeeplineError) -> None:
        """Report a failed attempt; another one may follow. The first in a row is also logged."""
        _log.log(logging.DEBUG if self._failing else logging.WARNING, "no connection: %s", error)
        self._failing = True
        if self._on_error is None:
            return
        try:
            self._on_error(error)
        except Exception:
            _log.exception("on_error failed for %r", error)

    def _tell_state(self) -> None:
        if self._on_state is None:
            return
        try:
            self._on_state(self.state)
        except Exception:
            _log.exception("on_state failed for %s", self.state)
