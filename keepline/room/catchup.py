"""What a client has missed between two records of its room, for a cache that missed notices and now has a
newer record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keepline.room.effects import (
    Effect,
    InactivityChanged,
    ModeAsked,
    PeerChanged,
    Posted,
    RoomEnded,
)
from keepline.room.record import ChatMode, Message, Presence, Room, Side, SideNumber, other
from keepline.room.rules import Rules


def missed(
    before: Room, after: Room, number: SideNumber, messages: Iterable[Message], now: int, rules: Rules
) -> Iterator[Effect]:
    """Yield what side `number`, which knows `before`, has to be told about `after`, in order.

    `messages` are messages of the room's chat. Those that are new and from the peer are included. `now` is ms since
    1970.
    """
    peer = other(number)
    if after.ended_at is None:  # an end vacates both sides, which is not a change of the peer
        yield from _presence(before.side(peer), after.side(peer), number, now)
    for message in messages:
        if message.seq > before.last_seq and message.sender == after.side(peer).user:
            yield Posted(number, message)
    if after.chat_mode is not before.chat_mode and after.chat_mode is ChatMode.VIDEO:
        yield ModeAsked(number, "accept")
    if after.mode_requested_by == peer and before.mode_requested_by != peer:
        yield ModeAsked(number, "request")
    if after.ended_at is None:
        yield from _warning(before, after, now, rules)
    if after.ended_reason is not None and before.ended_reason is None:
        yield RoomEnded(after.ended_reason)


def _warning(before: Room, after: Room, now: int, rules: Rules) -> Iterator[Effect]:
    if after.warning_started_at is None:
        if before.warning_started_at is not None:
            yield InactivityChanged("cleared")
    elif after.warning_started_at != before.warning_started_at:
        ends_at = after.warning_started_at + rules.text_warning_ms
        yield InactivityChanged("warning", max(0, ends_at - now))


def _presence(before: Side, after: Side, told: SideNumber, now: int) -> Iterator[Effect]:
    if after.session is not None:
        if after.session != before.session:
            came_back = before.came and not before.left
            yield PeerChanged(told, "reconnected" if came_back else "joined")
    elif after.presence is not before.presence:
        grace_ms = None if after.grace_until is None else max(0, after.grace_until - now)
        match after.presence:
            case Presence.RECONNECTING:
                yield PeerChanged(told, "reconnecting", grace_ms)
            case Presence.AWAY:
                yield PeerChanged(told, "away")
            case Presence.LEFT:
                yield PeerChanged(told, "left", grace_ms)
            case Presence.ABSENT | Presence.JOINED:
                pass  # no side returns to ABSENT, and a side without a session is never JOINED
