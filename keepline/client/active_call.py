"""The internal part of a call, which outlives each connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from keepline.client.call_state import CallState
from keepline.client.chat_lines import ChatLines
from keepline.client.connection import Connection
from keepline.client.delivery import DeliveryCounts
from keepline.client.departure import Departure
from keepline.client.errors import CallEnded, ConnectionLost, KeeplineError
from keepline.client.event_queue import EventQueue
from keepline.client.events import Ended, Event, PeerChanged, Rejoined, SignalReceived, SignalRefused
from keepline.client.frames import Frame
from keepline.client.limits import REASON_LENGTH, Limits, check_text
from keepline.client.models import Membership
from keepline.client.options import Options
from keepline.client.ready_event import ReadyEvent
from keepline.client.requester import Requester
from keepline.client.signals import Signals


class ActiveCall:
    """A call as the client sees it, moved from connection to connection. The app's `Call` delegates to it."""

    def __init__(
        self,
        membership: Membership,
        request: Requester,
        client_ready: ReadyEvent,
        forget: Callable[[ActiveCall], None],
        options: Options,
    ) -> None:
        """`request` makes requests, `client_ready` waits for any connection, `forget` is called at the end."""
        self.state = CallState(membership, options.messages_kept)
        self.events = EventQueue(options.events_waiting)
        self.ended: str | None = None
        self._request = request
        self._client_ready = client_ready
        self._forget = forget
        self._signals = Signals(self.room_id, options)
        self._ready = ReadyEvent()
        self._connection: Connection | None = None
        self._was_held = False
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
        """`connection` holds this side of the room (again)."""
        known, came_back = self._was_held, self._was_held and self._connection is not connection
        self._connection, self._was_held = connection, True
        self.limits = connection.limits
        if came_back:
            self.events.put(Rejoined(resumed))
        for event in self.state.renew(membership) if known else self.state.first_events():
            self.events.put(event)
            self._heed(event)
        self._ready.set()
        self._meet_peer()

    def hold_back(self) -> None:
        """The connection is about to be replaced: requests and signals wait for the next one."""
        self._ready.clear()
        self._signals.pause()

    def go_on(self) -> None:
        """The connection is not replaced after all."""
        if self._connection is not None:
            self._ready.set()
            self._meet_peer()

    def lose(self) -> None:
        """The connection is lost. Requests and signals wait for the next one."""
        self._connection = None
        self._ready.clear()
        self._signals.pause()

    def close(self, error: KeeplineError, *, by_server: bool) -> None:
        """The client is closed for good."""
        self._connection = None
        self._ready.fail(error)
        self._signals.close(error)
        self.events.close(error if by_server else None)

    def receive(self, frame: Frame) -> None:
        """Process a frame about this room. Raises KeyError or TypeError if it is malformed."""
        if frame["type"] == "ended":
            self.over(frame["reason"])
            return
        if frame["type"] in ("signal", "ack"):
            self._read_signal(frame)
            return
        for event in self.state.apply(frame):
            self.events.put(event)
            self._heed(event)

    def _heed(self, event: Event) -> None:
        match event:
            case SignalRefused(retry_after_seconds=seconds):
                self._signals.hold(1.0 if seconds is None else seconds)
            case PeerChanged(state="left"):
                self._signals.peer_left()
            case PeerChanged(state=state):
                if state == "reconnected":
                    self._signals.peer_back()
                self._meet_peer()

    def over(self, reason: str) -> None:
        """The call has ended: report it to the app, and refuse further requests."""
        if self.ended is None:
            self.events.put(Ended(reason))
            self.finish(reason)

    def finish(self, reason: str) -> None:
        """This member is no longer part of the call."""
        self.ended = reason
        self._ready.fail(CallEnded(reason))
        self._signals.close(CallEnded(reason))
        self.events.close()
        self._forget(self)

    async def ask(self, kind: str, *, repeatable: bool = False, **fields: Any) -> Frame:
        """Make a request about this room. Retry a repeatable one if the connection breaks meanwhile."""
        frame = {"type": kind, "room": self.room_id, **fields}
        return await self._request(frame, self._ready, repeatable=repeatable)

    async def report(self, reason: str) -> None:
        """Report the peer, during the call or after it."""
        check_text("reason", reason, REASON_LENGTH)
        frame = {"type": "report", "room": self.room_id, "reason": reason}
        await self._request(frame, self._client_ready, repeatable=True)

    @property
    def departing(self) -> bool:
        """Whether this member is about to leave, so that a join starts a new call."""
        return self._departure.pending

    async def departed(self) -> None:
        """Wait until this member has left."""
        await self._departure.over()

    async def leave(self) -> None:
        """Leave, now or once the client is connected again."""
        self._ready.check()
        await self._departure.make("leave", lambda: self.finish("left"))

    async def end(self) -> None:
        """Hang up for both, now or once the client is connected again. Succeeds if the call has already ended."""
        if self.ended is None:
            await self._departure.make("end", lambda: self.over("hangup"))

    def send_signal(self, data: Any) -> Awaitable[None]:
        """Send a signal. The result is done once the peer has it."""
        self._ready.check()
        return self._signals.send(data, self.limits)

    @property
    def delivery(self) -> DeliveryCounts:
        """The cost of reliable delivery so far."""
        return self._signals.counts

    async def send_note(self, kind: str) -> None:
        """Send a frame that is useless later. Dropped while disconnected, or if the rate limit is reached."""
        self._ready.check()
        if self._connection is not None and self._connection.free:
            await self._connection.paced()
            try:
                await self._connection.send({"type": kind, "room": self.room_id})
            except ConnectionLost:
                return

    def _meet_peer(self) -> None:
        """Let signals flow while both sides are present."""
        if self._connection is not None and self._ready.is_set and self.state.peer == "joined":
            self._signals.flow(self._connection)
        else:
            self._signals.pause()

    def _read_signal(self, frame: Frame) -> None:
        """Process a signal. If the app's queue is full, drop it: the peer retransmits it, and at most a window."""
        if frame["type"] == "signal" and self.events.full and "stream" in frame:
            return
        for data in self._signals.receive(frame):
            self.events.put(SignalReceived(data))
