"""What a member of a room says about the other one: kept for the app's moderators, with what is known of the room.

It is answered once it is in the room's stream, where it outlives the node. People report after a call, so a room that
has ended can be reported for as long as its tombstone lasts, also by who has never joined over this connection.

The chat of a room is in its reports once: a later one has the lines since then, and names the report with those before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Script, text, translated
from keepline.room import keys
from keepline.room.codec import encode_message
from keepline.room.record import Message, Room, SideNumber, other
from keepline.room.reports import Report, encode_report, report_id
from signal_node.protocol import snapshots
from signal_node.rooms.store import RoomStore

WINDOW_MS = 3_600_000
"""The window in which the reports of a room by one user are counted; it begins with the first."""

CHAT_WINDOW_MS = 24 * 3_600_000
"""How long it is remembered which report of a room has its chat, since the last report."""

MAX_CHAT_BYTES = 256 * 1024
"""Chat in a report; the oldest lines give way."""

_ROLES = {1: "initiator", 2: "receiver"}


class NoSuchRoom(Exception):
    """There is no room of that id, or it ended long ago."""


class NoMember(Exception):
    """The user is not one of the room's two."""


class TooManyReports(Exception):
    """The user has reported the room often enough; `retry_after_ms` says when it may again."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__("too many reports of this room")
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class EarlierChat:
    """The chat up to line `seq` is in that report, or in the ones that it names."""

    seq: int = 0
    report_id: str | None = None

    @classmethod
    def read(cls, value: Any) -> EarlierChat:
        """What `written` gave; nothing for None."""
        if value is None:
            return cls()
        seq, _, report = text(value).partition(" ")
        return cls(int(seq), report)

    def written(self) -> str:
        """As Redis keeps it."""
        return f"{self.seq} {self.report_id}"


class Reports:
    """Takes the reports of one node's clients."""

    def __init__(self, client: Client, store: RoomStore, limit: int, now: Callable[[], int]) -> None:
        """Take how many reports of one room a user may make within the window, and `now()`, ms since 1970."""
        self._client = client
        self._store = store
        self._limit = limit
        self._now = now
        self._append = Script(client, __package__, "append_report.lua")

    async def add(self, user: str, room_id: str, reason: str) -> None:
        """Take a report; one that is known already changes nothing.

        Raises NoSuchRoom, NoMember, TooManyReports, StoreUnavailable, BadRecord.
        """
        room, messages = await self._store.load(room_id)
        if room is None:
            raise NoSuchRoom
        side = room.side_of(user)
        if side is None:
            raise NoMember
        partition = self._store.partition_of(room_id)
        reported = keys.reported_chat(partition, room_id)
        with translated():
            earlier = EarlierChat.read(await self._client.get(reported))
        report = report_of(room, messages, side, reason, self._now(), earlier)
        last_seq = messages[-1].seq if messages else 0
        wait_ms = await self._append.run(
            [keys.events(partition), keys.reports(partition, room_id, user), reported],
            [
                str(report.report_id),
                encode_report(report),
                self._limit,
                WINDOW_MS,
                keys.MAX_EVENTS,
                EarlierChat(last_seq, str(report.report_id)).written() if last_seq > earlier.seq else "",
                CHAT_WINDOW_MS,
            ],
        )
        if wait_ms:
            raise TooManyReports(wait_ms)


def report_of(
    room: Room,
    messages: Sequence[Message],
    side: SideNumber,
    reason: str,
    now: int,
    earlier: EarlierChat = EarlierChat(),
) -> Report:
    """The report that the user on `side` makes at `now`, ms since 1970."""
    new = [line for line in messages if line.seq > earlier.seq]
    kept = _newest(new)
    room_id, reporter = UUID(room.room_id), UUID(room.side(side).user)
    return Report(
        report_id=report_id(room_id, reporter, reason),
        room_id=room_id,
        reporter_id=reporter,
        reported_id=UUID(room.side(other(side)).user),
        reason=reason,
        reported_at=now,
        session_data={
            "room": msgspec.to_builtins(snapshots.snapshot(room, kept)),
            "chat": {
                "earlier_lines": earlier.seq,
                "earlier_report": earlier.report_id,
                "left_out": len(new) - len(kept),
            },
            "reporter": _member(room, side),
            "reported": _member(room, other(side)),
            "durations": _durations(room, now),
        },
    )


def _newest(messages: Sequence[Message]) -> Sequence[Message]:
    """As many of the last lines as a report takes."""
    room_for = MAX_CHAT_BYTES
    for at in range(len(messages) - 1, -1, -1):
        room_for -= len(encode_message(messages[at]))
        if room_for < 0:
            return messages[at + 1 :]
    return messages


def _member(room: Room, side: SideNumber) -> dict[str, Any]:
    return {
        "user_id": room.side(side).user,
        "side": side,
        "role": _ROLES[side],
        "presence": room.side(side).presence.value,
    }


def _durations(room: Room, now: int) -> dict[str, int | None]:
    """In seconds: what was agreed (0: no limit), how long the call has lasted, how long ago it ended."""
    until = now if room.ended_at is None else room.ended_at
    return {
        "agreed": room.duration_seconds,
        "call": 0 if room.met_at is None else max(0, until - room.met_at) // 1_000,
        "since_end": None if room.ended_at is None else max(0, now - room.ended_at) // 1_000,
    }
