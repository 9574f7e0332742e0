"""The state of a call, and the events that follow from a frame. Pure: no connection, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from keepline.client.events import (
    ChatReceived,
    Ending,
    Event,
    Inactivity,
    ModeChanged,
    PeerChanged,
    SignalRefused,
    Typing,
)
from keepline.client.frames import Frame, seconds
from keepline.client.models import Membership, Message, PeerState, RoomSnapshot


class CallState:
    """One member's view of the room, updated by frames, and by snapshots after a reconnect."""

    def __init__(self, membership: Membership, messages_kept: int) -> None:
        """Take the first snapshot, and how many chat messages to keep."""
        self.room: RoomSnapshot = membership.room
        self.side = membership.side
        self.polite = membership.polite
        self.peer: PeerState = membership.peer
        self._messages_kept = messages_kept
        self._last_seq = max((message.seq for message in self.room.messages), default=0)
        self._read: dict[str, Callable[[Frame], list[Event]]] = {
            "peer": self._peer,
            "typing": lambda frame: [Typing()],
            "chat": self._chat,
            "mode": self._mode,
            "inactivity": lambda frame: [Inactivity(frame["state"], seconds(frame, "ends_in_ms"))],
            "ending": lambda frame: [Ending(frame["ends_in_ms"] / 1000)],
            "error": self._refusal,
        }

    @property
    def user(self) -> str:
        """The member whose view this is."""
        return self.room.user_1 if self.side == 1 else self.room.user_2

    def apply(self, frame: Frame) -> list[Event]:
        """Process a frame about this room. Unknown types give no event.

        Raises KeyError or TypeError for a malformed frame, which changes nothing.
        """
        read = self._read.get(frame["type"])
        return [] if read is None else read(frame)

    def first_events(self) -> list[Event]:
        """What a reader of events must know about the time before the join."""
        return [] if self.peer == "absent" else [PeerChanged(self.peer)]

    def renew(self, membership: Membership) -> list[Event]:
        """Process a new snapshot after a reconnect. Returns the events for what was missed."""
        before, self.room = self.room, membership.room
        missed: list[Event] = [
            ChatReceived(message)
            for message in self.room.messages
            if message.seq > self._last_seq and message.sender != self.user
        ]
        self._last_seq = max((message.seq for message in self.room.messages), default=self._last_seq)
        if before.chat_mode != self.room.chat_mode:
            missed.append(ModeChanged("accept"))
        if membership.peer != self.peer:
            missed.extend(self._peer_differs(membership.peer))
        return missed

    def add_message(self, message: Message) -> None:
        """Add a stored message of either side to the snapshot."""
        self.room = self.room.with_message(message, self._messages_kept)
        self._last_seq = max(self._last_seq, message.seq)

    def turn_to_video(self) -> None:
        """Both sides have agreed on video."""
        self.room = replace(self.room, chat_mode="video")

    def _peer_differs(self, now: PeerState) -> list[Event]:
        before, self.peer = self.peer, now
        if now == "joined" and before in ("reconnecting", "away"):
            return [PeerChanged("reconnected")]
        return [] if now == "absent" else [PeerChanged(now)]

    def _peer(self, frame: Frame) -> list[Event]:
        event = PeerChanged(frame["state"], seconds(frame, "grace_ms"))
        self.peer = "joined" if frame["state"] == "reconnected" else frame["state"]
        return [event]

    def _chat(self, frame: Frame) -> list[Event]:
        message = Message.parse(frame["message"])
        seen = any(known.seq == message.seq for known in self.room.messages)
        self.add_message(message)
        return [] if seen else [ChatReceived(message)]

    def _mode(self, frame: Frame) -> list[Event]:
        if frame["action"] == "accept":
            self.turn_to_video()
        return [ModeChanged(frame["action"])]

    def _refusal(self, frame: Frame) -> list[Event]:
        if "id" in frame:
            return []  # the answer to a request, which its caller gets
        return [refusal(frame)]


def refusal(frame: Frame) -> SignalRefused:
    """The event for an `error` frame that answers no request. Raises KeyError if it has no code."""
    return SignalRefused(frame["code"], frame.get("message", ""), seconds(frame, "retry_after_ms"))
