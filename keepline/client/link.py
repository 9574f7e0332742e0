"""Ties a call to the connections that carry it, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from keepline.client.call_state import CallState
from keepline.client.connection import Connection
from keepline.client.delivery import Outgoing
from keepline.client.errors import CallEnded, ConnectionLost, KeeplineError
from keepline.client.event_queue import EventQueue
from keepline.client.events import Ended, Rejoined
from keepline.client.frames import Frame, encoded
from keepline.client.gate import Gate
from keepline.client.models import Membership
from keepline.client.options import Options


class Requester(Protocol):
    """How a call asks its client to carry out a request."""

    def __call__(self, frame: Frame, gate: Gate, *, repeatable: bool) -> Awaitable[Frame]:
        """Send the frame once the gate is open, and return the answer."""
        ...


class CallLink:
    """The working side of a call: the client moves it from connection to connection, the call sends through
    it.
    """

    def __init__(
        self,
        membership: Membership,
        request: Requester,
        client_gate: Gate,
        forget: Callable[[CallLink], None],
        options: Options,
    ) -> None:
        """Take how to make requests, the gate of those that outlast the call, and whom to tell when it is over."""
        self.state = CallState(membership, options.messages_kept)
        self.events = EventQueue(options.events_waiting)
        self.ended: str | None = None
        self._request = request
        self._client_gate = client_gate
        self._forget = forget
        self._outgoing = Outgoing(options.signals_waiting)
        self._gate = Gate()
        self._connection: Connection | None = None
        self._was_held = False
        self._flushing = asyncio.Lock()

    @property
    def room_id(self) -> str:
        """The room's UUID."""
        return self.state.room.room_id

    @property
    def held(self) -> bool:
        """Whether a live connection holds this side of the room."""
        return self._connection is not None

    def hold(self, connection: Connection, membership: Membership, *, resumed: bool) -> None:
        """The connection holds this side of the room, for the first time or again."""
        known, came_back = self._was_held, self._was_held and self._connection is not connection
        self._connection, self._was_held = connection, True
        if came_back:
            self.events.put(Rejoined(resumed))
        for event in self.state.renew(membership) if known else self.state.first_events():
            self.events.put(event)
        self._gate.open()

    def hold_back(self) -> None:
        """The connection is about to be left: what is sent from now on waits for the next one."""
        self._gate.shut()

    def go_on(self) -> None:
        """It is not left, as it seems."""
        if self._connection is not None:
            self._gate.open()

    def lose(self) -> None:
        """The connection is gone; what is sent from now on waits."""
        self._connection = None
        self._gate.shut()

    def close(self, error: KeeplineError, *, by_server: bool) -> None:
        """The client is closed for good."""
        self._connection = None
        self._gate.bar(error)
        self.events.close(error if by_server else None)

    def receive(self, frame: Frame) -> None:
        """Take a frame about this room. Raises KeyError or TypeError when it cannot be read."""
        if frame["type"] == "ended":
            self.over(frame["reason"])
            return
        for event in self.state.apply(frame):
            self.events.put(event)

    def over(self, reason: str) -> None:
        """The call has ended: tell the reader, turn away what is still to be sent."""
        if self.ended is None:
            self.events.put(Ended(reason))
            self.finish(reason)

    def finish(self, reason: str) -> None:
        """This member has no part in the call any more."""
        self.ended = reason
        self._gate.bar(CallEnded(reason))
        self.events.close()
        self._forget(self)

    async def ask(self, kind: str, *, repeatable: bool = False, **fields: Any) -> Frame:
        """Make a request about this room; a repeatable one again if the connection breaks meanwhile."""
        frame = {"type": kind, "room": self.room_id, **fields}
        return await self._request(frame, self._gate, repeatable=repeatable)

    async def report(self, reason: str) -> None:
        """Report the peer, whether the call is over or not."""
        frame = {"type": "report", "room": self.room_id, "reason": reason}
        await self._request(frame, self._client_gate, repeatable=True)

    async def send_signal(self, data: Any) -> None:
        """Queue a signal and send what is queued, if the connection is there."""
        self._gate.check()
        self._outgoing.add(encoded(data))  # what JSON does not know must not get into the queue
        await self.flush()

    async def send_note(self, kind: str) -> None:
        """Send a frame that means nothing later: dropped while the client is away."""
        self._gate.check()
        if self._connection is not None:
            try:
                await self._connection.send({"type": kind, "room": self.room_id})
            except ConnectionLost:
                return

    async def flush(self) -> None:
        """Hand queued signals to the connection, one at a time so that their order is kept."""
        async with self._flushing:
            while (connection := self._connection) is not None and self._gate.is_open:
                signal = self._outgoing.head()
                if signal is None:
                    return
                numbered = {"stream": signal.stream, "n": signal.n, "data": signal.data}
                try:
                    await connection.send({"type": "signal", "room": self.room_id, **numbered})
                except ConnectionLost:
                    if self._connection is connection:
                        self.lose()  # the signal stays queued until the rejoin
                else:
                    self._outgoing.sent(signal)
