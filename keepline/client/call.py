"""One call, as the application sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from keepline.client.active_call import ActiveCall
from keepline.client.delivery import DeliveryCounts
from keepline.client.events import Event
from keepline.client.models import Message, PeerState, RoomSnapshot


class Call:
    """A room this client has joined. Made by `Keepline.join`.

    While the client is away requests wait for its return, within the request timeout, and signals are queued.

    Requests raise RequestFailed when the cluster refuses them, RequestTimedOut or ConnectionLost when it is
    not known what became of them, CallEnded after the end of the call, and ConnectionClosed after that of the
    client.
    """

    def __init__(self, active: ActiveCall) -> None:
        """Take the call as the client moves it from connection to connection."""
        self._active = active

    @property
    def room_id(self) -> str:
        """The room's UUID."""
        return self._active.room_id

    @property
    def room(self) -> RoomSnapshot:
        """The last snapshot, with the chat messages that came since."""
        return self._active.state.room

    @property
    def side(self) -> int:
        """1 for the initiator of the call, 2 for the other one."""
        return self._active.state.side

    @property
    def polite(self) -> bool:
        """This member's role in perfect negotiation; it never changes."""
        return self._active.state.polite

    @property
    def peer(self) -> PeerState:
        """What is known of the other side now. It may be ahead of the events that wait to be read."""
        return self._active.state.peer

    @property
    def ended(self) -> str | None:
        """Why the call is over for this member (`left` after `leave`), or None while it is not."""
        return self._active.ended

    @property
    def delivery(self) -> DeliveryCounts:
        """How many signals were sent and sent again, what came twice, and the bytes of it."""
        return self._active.delivery

    def send(self, data: Any) -> Awaitable[None]:
        """Send a signal: any value that JSON knows. Awaiting what it returns waits until the peer has it.

        Signals arrive once and in the order in which they were sent, also those that nobody waits for; many may be
        under way at once. They wait while one of the two is away. No more is sent than the node allows in a second.
        Raises SignalQueueFull when too many wait, RequestFailed with `too_large`, TypeError for what JSON does not
        know, CallEnded or ConnectionClosed. Awaiting raises SignalLost when the peer's page is gone, CallEnded or
        ConnectionClosed when it will never have the signal.

        A peer without an SDK, or with one of an older release, cannot say that it has a signal: for it the signal
        counts as delivered when it is handed to the cluster, and arrives at most once.
        """
        return self._active.send_signal(data)

    def signal(self, *, description: Any = None, candidate: Any = None, app: Any = None) -> Awaitable[None]:
        """Send a signal in the usual form: exactly one of a session description {type, sdp}, an ICE candidate
        {candidate, sdpMid, sdpMLineIndex}, and something of the application's own.

        Raises ValueError unless exactly one is given, and what `send` raises.
        """
        given = {"description": description, "candidate": candidate, "app": app}
        data = {name: value for name, value in given.items() if value is not None}
        if len(data) != 1:
            raise ValueError("a signal carries exactly one of description, candidate and app")
        return self.send(data)

    async def typing(self) -> None:
        """Tell the peer that this member is writing. Dropped while the client is away."""
        await self._active.send_note("typing")

    async def chat(self, text: str, *, key: str | None = None) -> Message:
        """Write to the peer, in as many characters (code points) as the cluster allows, 500 by default.

        Returns the message once it is stored, which is exactly once, however many connections and nodes it takes; lines
        of one call are stored in the order in which they were written. Raises RequestFailed or CallEnded when the line
        is not stored, and never will be: a text that the cluster refuses, a room that ended before. Nothing but the end
        of the client (ConnectionClosed) leaves that open. This takes as long as the cluster cannot be reached; who will
        not wait sets a limit, and may ask later with the same `key` (1 to 64 characters; drawn at random otherwise).

        A node of an older release knows no keys: then RequestTimedOut and ConnectionLost leave it open as well, and
        `room.messages` shows, once the client is back, whether the line was stored.
        """
        answer = await self._active.chat.write(text, key)
        message = Message.parse(answer["message"])
        self._active.state.add_message(message)
        return message

    async def request_video(self) -> None:
        """Ask the peer of a text call for video; ModeChanged brings the reply."""
        await self._active.ask("mode", action="request", repeatable=True)

    async def accept_video(self) -> None:
        """Accept the peer's request: the call is a video call from now on."""
        await self._active.ask("mode", action="accept")
        self._active.state.turn_to_video()

    async def decline_video(self) -> None:
        """Decline the peer's request."""
        await self._active.ask("mode", action="decline")

    async def leave(self) -> None:
        """Step out. The room stays for a while and can be joined again; this object is done.

        While the client is away that is remembered, and told to the cluster with the next connection, also when
        this raises RequestTimedOut meanwhile.
        """
        await self._active.leave()

    async def end(self) -> None:
        """Hang up for both. A call that is over already is fine; without a connection it is as with `leave`."""
        await self._active.end()

    async def report(self, reason: str) -> None:
        """Tell the app's moderators about the peer, in 1 to 500 characters (code points); also when the call has ended.

        Returns once the report is stored. To repeat the same one does no harm, and RequestFailed with
        `rate_limited` says when there have been too many. Never raises CallEnded.
        """
        await self._active.report(reason)

    async def events(self) -> AsyncIterator[Event]:
        """What happens in the call, in order. For one reader at a time.

        A peer that was there before is told by a PeerChanged, so that `joined` always is the moment to begin.

        Ends after `Ended`, `leave`, or the closing of the client; raises ConnectionClosed when the server
        closed the client for good. Where `Options.events_waiting` events wait unread, newer ones are dropped
        and one `EventsLost` stands in their place.
        """
        while (event := await self._active.events.get()) is not None:
            yield event
