"""How the parts of a call make requests."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from keepline.client.frames import Frame
from keepline.client.ready_event import ReadyEvent


class Requester(Protocol):
    """Carries out a request through the client."""

    def __call__(self, frame: Frame, ready: ReadyEvent, *, repeatable: bool) -> Awaitable[Frame]:
        """Send the frame once `ready` is set, and return the answer. Retries a repeatable one after a lost connection.

        Raises RequestFailed, RequestTimedOut, ConnectionLost, and the error of `ready`.
        """
        ...
