"""The calls of a client: passes each frame to its call, and moves each call to the next connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from keepline.client.active_call import ActiveCall
from keepline.client.call_state import refusal
from keepline.client.connection import Connection
from keepline.client.departure import GONE
from keepline.client.errors import ConnectionLost, KeeplineError, ProtocolError, RequestFailed
from keepline.client.events import Event
from keepline.client.frames import Frame
from keepline.client.models import Membership, Welcome
from keepline.client.options import Options
from keepline.client.ready_event import ReadyEvent
from keepline.client.requester import Requester
from keepline.ops.backoff import Backoff


class Calls:
    """All calls that this client has joined and that have not ended."""

    def __init__(self, request: Requester, ready: ReadyEvent, options: Options) -> None:
        """Take how calls make their requests, and the receiver of events that outlast a call."""
        self._request = request
        self._ready = ready
        self._options = options
        self._calls: dict[str, ActiveCall] = {}
        self._expected: set[str] = set()

    def get(self, room_id: str) -> ActiveCall | None:
        """The call in a room, if there is one."""
        return self._calls.get(room_id)

    def any_room(self) -> str | None:
        """A room that this client is in; None if there is none."""
        return next(iter(self._calls), None)

    @contextmanager
    def expecting(self, room_id: str) -> Iterator[None]:
        """Create a call from a `joined` that arrives within this context. A later one is ignored."""
        self._expected.add(room_id)
        try:
            yield
        finally:
            self._expected.discard(room_id)

    def joined(self, connection: Connection, membership: Membership) -> None:
        """Create the call as soon as the frame is read, before `join` continues, because frames about it may follow."""
        room_id = membership.room.room_id
        if room_id not in self._calls:
            if room_id not in self._expected:
                return
            self._calls[room_id] = ActiveCall(
                membership, self._request, self._ready, self._forget, self._options
            )
        self._calls[room_id].hold(connection, membership, resumed=False)

    def receive(self, frame: Frame) -> None:
        """Process a frame about a room. Raises KeyError or TypeError if it is malformed."""
        room_id = frame.get("room")
        call = self._calls.get(room_id) if isinstance(room_id, str) else None
        if call is not None:
            call.receive(frame)
        elif frame["type"] == "error" and "id" not in frame and room_id is None:
            self.notify(refusal(frame))  # the server could not read the frame, so it cannot say whose it was

    def notify(self, event: Event) -> None:
        """Tell every call."""
        for call in self._calls.values():
            call.events.put(event)

    def resumed(self, connection: Connection, welcome: Welcome) -> None:
        """The connection already holds the rooms of the welcome."""
        for membership in welcome.rooms:
            call = self._calls.get(membership.room.room_id)
            if call is not None:
                call.hold(connection, membership, resumed=True)

    def hold_back(self) -> None:
        """The connection is about to be replaced: requests and signals wait."""
        for call in self._calls.values():
            call.hold_back()

    def go_on(self) -> None:
        """It is not replaced after all: send what has waited."""
        for call in self._calls.values():
            call.go_on()

    def lose(self) -> None:
        """The connection is gone."""
        for call in self._calls.values():
            call.lose()

    def close(self, error: KeeplineError, *, by_server: bool) -> None:
        """The client is closed for good."""
        for call in self._calls.values():
            call.close(error, by_server=by_server)
        self._calls.clear()

    async def restore(self, connection: Connection) -> None:
        """Rejoin what the session did not resume."""
        async with asyncio.TaskGroup() as restoring:
            for call in list(self._calls.values()):
                if not call.held:
                    restoring.create_task(self._rejoin(connection, call))

    async def _rejoin(self, connection: Connection, call: ActiveCall) -> None:
        options = self._options
        backoff = Backoff(options.backoff_base, options.backoff_cap, uniform=options.uniform)
        while True:
            try:
                await connection.paced()
                async with asyncio.timeout(options.request_timeout):
                    await connection.request({"type": "join", "room": call.room_id})
                return
            except RequestFailed as error:
                if error.code in GONE:
                    call.over(error.reason or error.code)
                    return
                await options.sleep((error.retry_after or 0.0) + backoff.next())
            except (TimeoutError, ProtocolError):
                connection.abort()  # this node does not answer, but another one may
                return
            except ConnectionLost:
                return

    def _forget(self, call: ActiveCall) -> None:
        self._calls.pop(call.room_id, None)
