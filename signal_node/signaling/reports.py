"""Reports of a member about the other one: stored for the app's moderators, with what is known of the room.

A report is answered once it is in the room's stream, where it survives the node. People report after a call, so an
ended room can be reported as long as its tombstone lasts, even by a user who has not joined it over this connection.

The chat of a room is stored once in its reports: a later one has the messages since then, and the id of the report
before.
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
"""The window in which a user's reports of a room are counted. It starts with the first."""

CHAT_WINDOW_MS = 24 * 3_600_000
"""How long it is remembered which report of a room has its chat, from the last report on."""

MAX_CHAT_BYTES = 256 * 1024
"""Maximum size of the chat in a report; the oldest messages are left out."""

_ROLES = {1: "initiator", 2: "receiver"}


class NoSuchRoom(Exception):
    """The room does not exist, or ended too long ago."""


class NoMember(Exception):
    """The user is not a member of the room."""


class TooManyReports(Exception):
    """The user has reported the room too often; `retry_after_ms` says when the next report is possible."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__("too many reports of this room")
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class EarlierChat:
    """The chat up to message `seq` is in that report, or in earlier ones that it refers to."""

    seq: int = 0
    report_id: str | None = None

    @classmethod
    def read(cls, value: Any) -> EarlierChat:
        """Decode the result of `written`; empty for None."""
        if value is None:
            return cls()
        seq, _, report = text(value).partition(" ")
        return cls(int(seq), report)

    def written(self) -> str:
        """Encode it for Redis."""
        return f"{self.seq} {self.report_id}"


class Reports:
    """Accepts the reports of one node's clients."""

    def __init__(self, client: Client, store: RoomStore, limit: int, now: Callable[[], int]) -> None:
        """Take the number of reports of one room per user and window, and `now()`, ms since 1970."""
        self._client = client
        self._store = store
        self._limit = limit
        self._now = now
        self._append = Script(client, __package__, "append_report.lua")

    async def add(self, user: str, room_id: str, reason: str) -> None:
        """Store a report. A known report has no effect.

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
    """The report of the user on `side` at `now`, ms since 1970."""
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
    """As many of the last messages as fit into a report."""
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
    """Durations in seconds: agreed (0: no limit), length of the call so far, time since its end."""
    until = now if room.ended_at is None else room.ended_at
    return {
        "agreed": room.duration_seconds,
        "call": 0 if room.met_at is None else max(0, until - room.met_at) // 1_000,
        "since_end": None if room.ended_at is None else max(0, now - room.ended_at) // 1_000,
    }
