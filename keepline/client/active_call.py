"""A call that this client is in, and the connections that carry it, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from keepline.client.call_state import CallState
from keepline.client.chat_lines import ChatLines
from keepline.client.connection import Connection
from keepline.client.delivery import Outgoing
from keepline.client.departure import Departure
from keepline.client.errors import CallEnded, ConnectionLost, KeeplineError, RequestFailed
from keepline.client.event_queue import EventQueue
from keepline.client.events import Ended, Rejoined, SignalRefused
from keepline.client.frames import Frame
from keepline.client.limits import REASON_LENGTH, Limits, check_size, check_text
from keepline.client.models import Membership
from keepline.client.options import Options
from keepline.client.ready_event import ReadyEvent
from keepline.client.requester import Requester


class ActiveCall:
    """The working side of a call: the client moves it from connection to connection, the call sends through
    it.
    """

    def __init__(
        self,
        membership: Membership,
        request: Requester,
        client_ready: ReadyEvent,
        forget: Callable[[ActiveCall], None],
        options: Options,
    ) -> None:
        """Take how to make requests, the event for those that outlast the call, and whom to tell when it is over."""
        self.state = CallState(membership, options.messages_kept)
        self.events = EventQueue(options.events_waiting)
        self.ended: str | None = None
        self._request = request
        self._client_ready = client_ready
        self._forget = forget
        self._outgoing = Outgoing(self.room_id, options.signals_waiting, options.signal_bytes_waiting)
        self._ready = ReadyEvent()
        self._connection: Connection | None = None
        self._was_held = False
        self._flushing = asyncio.Lock()
        self._returned = (
            False  # with signals that waited, and that the peer may miss if it is not back as well
        )
        self._peer_moved = asyncio.Event()
        self._departure = Departure(lambda kind: self.ask(kind, repeatable=True), self.over, options)
        self.limits = Limits()
        self.chat = ChatLines(self.room_id, request, self._ready, client_ready, lambda: self.limits, options)

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
            self._returned = len(self._outgoing) > 0
        self.limits = connection.limits
        if came_back:
            self.events.put(Rejoined(resumed))
        for event in self.state.renew(membership) if known else self.state.first_events():
            self.events.put(event)
        self._peer_moved.set()
        self._ready.set()

    def hold_back(self) -> None:
        """The connection is about to be left: what is sent from now on waits for the next one."""
        self._ready.clear()

    def go_on(self) -> None:
        """It is not left, as it seems."""
        if self._connection is not None:
            self._ready.set()

    def lose(self) -> None:
        """The connection is gone; what is sent from now on waits."""
        self._connection = None
        self._ready.clear()

    def close(self, error: KeeplineError, *, by_server: bool) -> None:
        """The client is closed for good."""
        self._connection = None
        self._ready.fail(error)
        self.events.close(error if by_server else None)

    def receive(self, frame: Frame) -> None:
        """Take a frame about this room. Raises KeyError or TypeError when it cannot be read."""
        if frame["type"] == "ended":
            self.over(frame["reason"])
            return
        for event in self.state.apply(frame):
            self.events.put(event)
        self._peer_moved.set()

    def over(self, reason: str) -> None:
        """The call has ended: tell the reader, turn away what is still to be sent."""
        if self.ended is None:
            self.events.put(Ended(reason))
            self.finish(reason)

    def finish(self, reason: str) -> None:
        """This member has no part in the call any more."""
        self.ended = reason
        self._ready.fail(CallEnded(reason))
        self.events.close()
        self._peer_moved.set()
        self._forget(self)

    async def ask(self, kind: str, *, repeatable: bool = False, **fields: Any) -> Frame:
        """Make a request about this room; a repeatable one again if the connection breaks meanwhile."""
        frame = {"type": kind, "room": self.room_id, **fields}
        return await self._request(frame, self._ready, repeatable=repeatable)

    async def report(self, reason: str) -> None:
        """Report the peer, whether the call is over or not."""
        check_text("reason", reason, REASON_LENGTH)
        frame = {"type": "report", "room": self.room_id, "reason": reason}
        await self._request(frame, self._client_ready, repeatable=True)

    @property
    def departing(self) -> bool:
        """Whether this member is about to leave: a join is one of its own then."""
        return self._departure.pending

    async def departed(self) -> None:
        """Wait until this member has left."""
        await self._departure.over()

    async def leave(self) -> None:
        """Step out, now or as soon as the client is back."""
        self._ready.check()
        await self._departure.make("leave", lambda: self.finish("left"))

    async def end(self) -> None:
        """Hang up for both, now or as soon as the client is back. A call that is over already is fine."""
        if self.ended is None:
            await self._departure.make("end", lambda: self.over("hangup"))

    async def send_signal(self, data: Any) -> None:
        """Queue a signal and send what is queued, if the connection is there."""
        self._ready.check()
        text = self._outgoing.frame(data)
        check_size(text, self.limits)  # what no node takes must not get into the queue
        self._outgoing.add(text)
        await self.flush()

    async def send_note(self, kind: str) -> None:
        """Send a frame that means nothing later: dropped while the client is away or has sent as much as it may."""
        self._ready.check()
        if self._connection is not None and self._connection.free:
            await self._connection.paced()
            try:
                await self._connection.send({"type": kind, "room": self.room_id})
            except ConnectionLost:
                return

    async def flush(self) -> None:
        """Hand queued signals to the connection, one at a time so that their order is kept."""
        async with self._flushing:
            while (connection := self._sends_on()) is not None:
                await connection.paced()
                if connection is self._sends_on() and (text := self._outgoing.head()) is not None:
                    await self._hand(text, connection)
            if not self._outgoing:
                self._returned = False

    async def restore(self) -> None:
        """Send what waited while the client was away, as soon as the peer is there to get it."""
        await self.flush()
        while self._outgoing and self.ended is None:
            await self._peer_moved.wait()
            self._peer_moved.clear()
            await self.flush()

    def _sends_on(self) -> Connection | None:
        """The connection on which queued signals may leave now; None if there are none, or they have to wait.

        A peer that left on purpose is not waited for: what it would have got is of its last visit.
        """
        if not self._outgoing or not self._ready.is_set:
            return None
        if self._returned and self.state.peer not in ("joined", "left"):
            return None
        return self._connection

    async def _hand(self, text: bytes, connection: Connection) -> None:
        try:
            await connection.send_text(text)
        except ConnectionLost:
            if self._connection is connection:
                self.lose()  # the signal stays queued until the rejoin
        except RequestFailed as error:  # queued when another node allowed more
            self._outgoing.sent(text)
            self.events.put(SignalRefused(error.code, error.message))
        else:
            self._outgoing.sent(text)
