"""The values in frames, decoded leniently: fields that this release does not know are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from keepline.client.errors import ProtocolError
from keepline.client.limits import Limits

PeerState = Literal["absent", "joined", "reconnecting", "away", "left"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `seq` counts from 1 within the room; `at` is ms since 1970."""

    seq: int
    sender: str
    text: str
    at: int

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read a message. Raises KeyError or TypeError if it is malformed."""
        return cls(seq=raw["seq"], sender=raw["from"], text=raw["text"], at=raw["at"])


@dataclass(frozen=True, slots=True)
class RoomSnapshot:
    """A room as the cluster sent it. Times are ms since 1970. The snapshot with the higher `version` is newer."""

    room_id: str
    user_1: str
    user_2: str
    chat_mode: str
    status: str
    started_at: int
    duration_seconds: int
    grace_period_expires: int | None
    user_1_connected: bool
    user_2_connected: bool
    messages: tuple[Message, ...]
    version: int
    ended_reason: str | None
    ended_at: int | None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read a snapshot. Raises KeyError or TypeError if it is malformed."""
        return cls(
            room_id=raw["room_id"],
            user_1=raw["user_1"],
            user_2=raw["user_2"],
            chat_mode=raw["chat_mode"],
            status=raw["status"],
            started_at=raw["started_at"],
            duration_seconds=raw["duration_seconds"],
            grace_period_expires=raw["grace_period_expires"],
            user_1_connected=raw["user_1_connected"],
            user_2_connected=raw["user_2_connected"],
            messages=tuple(Message.parse(message) for message in raw["messages"]),
            version=raw["version"],
            ended_reason=raw["ended_reason"],
            ended_at=raw["ended_at"],
        )

    def with_message(self, message: Message, keep: int) -> Self:
        """The snapshot with one more message. Keeps the last `keep` messages."""
        known = {m.seq: m for m in self.messages} | {message.seq: message}
        ordered = tuple(known[seq] for seq in sorted(known))
        return replace(self, messages=ordered[-keep:])


@dataclass(frozen=True, slots=True)
class Membership:
    """A room as one of its members sees it: the snapshot, the member's side and the other side's state."""

    room: RoomSnapshot
    side: int
    polite: bool
    peer: PeerState

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read the content of `joined` and of the rooms in `welcome`. Raises KeyError or TypeError."""
        return cls(
            room=RoomSnapshot.parse(raw["room"]), side=raw["side"], polite=raw["polite"], peer=raw["peer"]
        )


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server, as in WebRTC's RTCIceServer."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read one server; `urls` may be a string or a list. Raises KeyError or TypeError."""
        urls = raw["urls"]
        return cls(
            urls=(urls,) if isinstance(urls, str) else tuple(urls),
            username=raw.get("username"),
            credential=raw.get("credential"),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's answer to `hello`. `resume` is the secret for the next one."""

    user: str
    session: str
    resume: str
    resumed: bool
    node: str
    ice_servers: tuple[IceServer, ...]
    rooms: tuple[Membership, ...]
    limits: Limits

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read a `welcome` frame. Raises ProtocolError if it violates the protocol."""
        try:
            return cls(
                user=raw["user"],
                session=raw["session"],
                resume=raw["resume"],
                resumed=raw["resumed"],
                node=raw["node"],
                ice_servers=tuple(IceServer.parse(server) for server in raw["ice_servers"]),
                rooms=tuple(Membership.parse(room) for room in raw["rooms"]),
                limits=Limits.parse(raw.get("limits", {})),
            )
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"a welcome that cannot be read: {error!r}") from error
