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
        """The number of signals sent, retransmitted and received twice, and their bytes."""
        return self._active.delivery

    def send(self, data: Any) -> Awaitable[None]:
        """Send a signal: any JSON value. Await the result to wait until the peer has it.

        Signals arrive exactly once and in the order of the calls, whether or not they are awaited. Many can be in
        flight at once. They wait while either side is away, and are sent no faster than the node allows.

        Raises SignalQueueFull if too many are waiting, RequestFailed with `too_large`, TypeError if `data` is not JSON,
        and CallEnded or ConnectionClosed. Awaiting raises SignalLost if the peer's page is gone, and CallEnded or
        ConnectionClosed if these prevent the delivery.

        A peer without an SDK, or with an older one, cannot acknowledge. For such a peer a signal counts as delivered
        when it is passed to the cluster, and arrives at most once.
        """
        return self._active.send_signal(data)

    def signal(self, *, description: Any = None, candidate: Any = None, app: Any = None) -> Awaitable[None]:
        """Send a signal in the usual form. Pass exactly one of a session description {type, sdp}, an ICE candidate
        {candidate, sdpMid, sdpMLineIndex}, or any value of the application.

        Raises ValueError unless exactly one is given, and the same errors as `send`.
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
        """Send a chat message. The cluster limits its length: by default to 500 characters (code points).

        Returns the message once it is stored. It is stored exactly once, even if that takes several connections and
        nodes, and the messages of a call are stored in the order of the calls. Raises RequestFailed or CallEnded if the
        message is not stored and never will be: the cluster refused the text, or the room ended first. Only after
        ConnectionClosed, when the client was closed, is the outcome unknown.

        This waits for as long as the cluster is unreachable. Use a timeout to limit that; to find out later, send again
        with the same `key` (1 to 64 characters; random by default).

        Nodes of older releases do not support keys. With them the outcome is also unknown after RequestTimedOut and
        ConnectionLost; `room.messages` shows after the reconnect whether the message was stored.
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

        While the client is disconnected, the request is kept and sent over the next connection, even if this raises
        RequestTimedOut first.
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

        A peer that is already present is also reported by a PeerChanged, so `joined` always means: start the call.

        Ends after `Ended`, `leave`, or the closing of the client. Raises ConnectionClosed if the server closed the
        client for good. If `Options.events_waiting` events are unread, newer ones are dropped and replaced by one
        `EventsLost`.
        """
        while (event := await self._active.events.get()) is not None:
            yield event
