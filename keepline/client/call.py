"""One call, as the application sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from keepline.client.active_call import ActiveCall
from keepline.client.delivery import DeliveryCounts
from keepline.client.events import Event
from keepline.client.models import Message, PeerState, RoomSnapshot


class Call:
    """A room that this client has joined. Created by `Keepline.join`.

    While the client is disconnected, requests wait for the connection within the request timeout, and signals are
    queued.

    Requests raise RequestFailed if the cluster refuses them, RequestTimedOut or ConnectionLost if their result is
    unknown, CallEnded after the end of the call, and ConnectionClosed after the client was closed.
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
        """The last snapshot, with the chat messages that arrived since."""
        return self._active.state.room

    @property
    def side(self) -> int:
        """1 for the initiator of the call, 2 for the other member."""
        return self._active.state.side

    @property
    def polite(self) -> bool:
        """This member's role in perfect negotiation; it never changes."""
        return self._active.state.polite

    @property
    def peer(self) -> PeerState:
        """The current state of the other side. It may be ahead of unread events."""
        return self._active.state.peer

    @property
    def ended(self) -> str | None:
        """Why the call is over for this member (`left` after `leave`); None while it is not."""
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
        {candidate, sdpMid, sdpMLineIndex}, and any value of the application.

        Raises ValueError unless exactly one is given, and what `send` raises.
        """
        given = {"description": description, "candidate": candidate, "app": app}
        data = {name: value for name, value in given.items() if value is not None}
        if len(data) != 1:
            raise ValueError("a signal must have exactly one of description, candidate and app")
        return self.send(data)

    async def typing(self) -> None:
        """Tell the peer that this member is typing. Dropped while disconnected."""
        await self._active.send_note("typing")

    async def chat(self, text: str, *, key: str | None = None) -> Message:
        """Send a chat message of as many characters (code points) as the cluster allows, 500 by default.

        Returns the message once it is stored. It is stored exactly once, however many connections and nodes it takes,
        and the messages of one call are stored in the order in which they were sent. Raises RequestFailed or CallEnded
        if the message is not stored and never will be: the cluster refuses the text, or the room ended before. Only the
        end of the client (ConnectionClosed) leaves that open. This takes as long as the cluster is unreachable. To
        limit the wait, use a timeout, and possibly ask again later with the same `key` (1 to 64 characters; random by
        default).

        Nodes of older releases do not support keys. Then RequestTimedOut and ConnectionLost also leave it open, and
        `room.messages` shows after the reconnect whether the message was stored.
        """
        answer = await self._active.chat.write(text, key)
        message = Message.parse(answer["message"])
        self._active.state.add_message(message)
        return message

    async def request_video(self) -> None:
        """Ask the peer of a text call for video. ModeChanged brings the reply."""
        await self._active.ask("mode", action="request", repeatable=True)

    async def accept_video(self) -> None:
        """Accept the peer's request: from now on this is a video call."""
        await self._active.ask("mode", action="accept")
        self._active.state.turn_to_video()

    async def decline_video(self) -> None:
        """Decline the peer's request."""
        await self._active.ask("mode", action="decline")

    async def leave(self) -> None:
        """Leave. The room stays for a while and can be joined again; this object is finished.

        While the client is disconnected, the wish is remembered and sent with the next connection, even if this raises
        RequestTimedOut meanwhile.
        """
        await self._active.leave()

    async def end(self) -> None:
        """Hang up for both. Succeeds if the call has already ended. Without a connection it works like `leave`."""
        await self._active.end()

    async def report(self, reason: str) -> None:
        """Report the peer to the app's moderators, in 1 to 500 characters (code points), even after the end of the
        call.

        Returns once the report is stored. Repeating the same report is harmless. RequestFailed with `rate_limited`
        means that there were too many. Never raises CallEnded.
        """
        await self._active.report(reason)

    async def events(self) -> AsyncIterator[Event]:
        """The events of the call, in order, for one reader at a time.

        A peer that was present before is reported by a PeerChanged, so that `joined` always is the moment to start.

        Ends after `Ended`, `leave`, or the closing of the client. Raises ConnectionClosed if the server closed the
        client for good. If `Options.events_waiting` events are unread, newer ones are dropped and replaced by one
        `EventsLost`.
        """
        while (event := await self._active.events.get()) is not None:
            yield event
