"""The one function that decides all transitions of a room.

`TRANSITIONS` is a table of status × command. A missing pair *is* the error: `IllegalTransition`. Every transition
creates the next version. A command without effect returns the same room object, so `new is room` tells the caller that
there is nothing to commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from keepline.room.chat_keys import seq_of, with_key
from keepline.room.commands import (
    AcceptVideo,
    Command,
    DeclineVideo,
    End,
    Join,
    Leave,
    Lose,
    Open,
    Post,
    RequestVideo,
    Revive,
    Tick,
)
from keepline.room.deadlines import due
from keepline.room.effects import (
    Effect,
    EndingSoon,
    InactivityChanged,
    ModeAsked,
    PeerChanged,
    PeerState,
    Posted,
    Replaced,
    RoomEnded,
)
from keepline.room.record import (
    ChatMode,
    EndReason,
    Message,
    Presence,
    Room,
    Side,
    SideNumber,
    Status,
    other,
)
from keepline.room.rules import Rules

Outcome = tuple[Room, tuple[Effect, ...]]


class IllegalTransition(Exception):
    """The room does not allow this command in its current state. The message is for the client and says why.

    For a room that has ended, `ended_reason` says why.
    """

    def __init__(
        self,
        status: Status | None,
        command: Command,
        why: str = "",
        ended_reason: EndReason | None = None,
    ) -> None:
        where = "a room that does not exist" if status is None else f"a room that is {status.value}"
        super().__init__(why or f"{command.kind} is not possible in {where}")
        self.status = status
        self.command = command
        self.ended_reason = ended_reason


def apply(room: Room | None, command: Command, now: int, rules: Rules) -> Outcome:
    """Carry out a command at `now` (ms since 1970), and return the next record and the effects.

    Raises IllegalTransition if the table has no entry, or if the transition's own condition is not met.
    """
    status = None if room is None else room.status
    transition = TRANSITIONS.get((status, type(command)))
    if transition is None:
        raise IllegalTransition(status, command, ended_reason=None if room is None else room.ended_reason)
    return transition(room, command, now, rules)


def _changed(room: Room, now: int, **changes: Any) -> Room:
    return replace(room, version=room.version + 1, updated_at=max(now, room.updated_at), **changes)


def _with_side(number: SideNumber, side: Side) -> dict[str, Side]:
    return {"side_1" if number == 1 else "side_2": side}


def _open(room: None, command: Open, now: int, rules: Rules) -> Outcome:
    if command.user_1 == command.user_2:
        raise IllegalTransition(None, command, "a room needs two different users")
    opened = Room(
        room_id=command.room_id,
        side_1=Side(command.user_1),
        side_2=Side(command.user_2),
        chat_mode=command.chat_mode,
        duration_seconds=command.duration_seconds,
        opened_at=now,
        updated_at=now,
        waiting_from=now,
    )
    return opened, ()


def _join(room: Room, command: Join, now: int, rules: Rules) -> Outcome:
    before = room.side(command.side)
    if before.session == command.session and before.node == command.node:
        return room, ()
    if command.only_if_free and before.connected:
        return room, ()
    side = replace(
        before,
        node=command.node,
        session=command.session,
        came=True,
        left=False,
        absent_since=None,
        grace_until=None,
        lost_with_node=False,
    )
    changes: dict[str, Any] = _with_side(command.side, side)
    if room.met_at is None and room.side(other(command.side)).connected:
        changes |= _meet(room, changes, now)
    told: PeerState = "joined" if before.presence in (Presence.ABSENT, Presence.LEFT) else "reconnected"
    effects: list[Effect] = [PeerChanged(other(command.side), told)]
    if before.node is not None and before.session is not None and before.session != command.session:
        effects.append(Replaced(before.node, before.session))
    return _changed(room, now, **changes), tuple(effects)


def _meet(room: Room, changes: dict[str, Any], now: int) -> dict[str, Any]:
    """Both sides are connected for the first time, which starts the clocks of the call."""
    return {
        "side_1": replace(changes.get("side_1", room.side_1), idle_from=now),
        "side_2": replace(changes.get("side_2", room.side_2), idle_from=now),
        "met_at": now,
        "timed_from": now if room.chat_mode is ChatMode.VIDEO else None,
    }


def _lose(room: Room, command: Lose, now: int, rules: Rules) -> Outcome:
    grace_ms = rules.grace_ms if command.grace_ms is None else command.grace_ms
    return _step_out(room, command, now, grace_ms)


def _leave(room: Room, command: Leave, now: int, rules: Rules) -> Outcome:
    return _step_out(room, command, now, rules.grace_ms)


def _step_out(room: Room, command: Lose | Leave, now: int, video_grace_ms: int) -> Outcome:
    number, on_purpose = command.side, isinstance(command, Leave)
    before = room.side(number)
    if before.session != command.session:
        return room, ()  # the fence: a newer session holds the side, or none does
    grace_ms = video_grace_ms if room.chat_mode is ChatMode.VIDEO else None
    side = replace(
        before,
        node=None,
        session=None,
        left=on_purpose,
        absent_since=now,
        grace_until=None if grace_ms is None else now + grace_ms,
        lost_with_node=isinstance(command, Lose) and command.with_node,
    )
    told = PeerChanged(other(number), _absence(on_purpose, grace_ms), grace_ms)
    changes: dict[str, Any] = _with_side(number, side)
    return _changed(room, now, mode_requested_by=None, **changes), (told,)


def _absence(on_purpose: bool, grace_ms: int | None) -> PeerState:
    if on_purpose:
        return "left"
    return "away" if grace_ms is None else "reconnecting"


def _post(room: Room, command: Post, now: int, rules: Rules) -> Outcome:
    if command.key is not None and seq_of(room, command.key) is not None:
        return room, ()
    writer = room.side(command.side)
    message = Message(room.last_seq + 1, writer.user, command.text, now, command.key)
    told: list[Effect] = [Posted(other(command.side), message)]
    keys = writer.chat_keys if command.key is None else with_key(writer, command.key, message.seq)
    wrote = replace(writer, last_message_at=now, idle_from=now, chat_keys=keys)
    changes: dict[str, Any] = _with_side(command.side, wrote)
    if room.warning_started_at is not None:
        # A message by either side shows that the room is active: restart the clock of both.
        reader = room.side(other(command.side))
        changes |= _with_side(other(command.side), replace(reader, idle_from=now))
        told.append(InactivityChanged("cleared"))
    return _changed(room, now, last_seq=message.seq, warning_started_at=None, **changes), tuple(told)


def _request_video(room: Room, command: RequestVideo, now: int, rules: Rules) -> Outcome:
    if room.chat_mode is ChatMode.VIDEO:
        raise IllegalTransition(room.status, command, "the room is already a video room")
    if not room.side(command.side).connected:
        # A late command: accepting it would create a video room with an absent side that nothing waits for.
        raise IllegalTransition(room.status, command, "the requesting side is not connected")
    if not room.side(other(command.side)).connected:
        raise IllegalTransition(room.status, command, "the other side is not connected and cannot accept")
    if room.mode_requested_by == command.side:
        return room, ()
    if room.mode_requested_by is not None:
        # Both sides requested video, so they agree. Tell both.
        agreed, told = _accept_video(room, AcceptVideo(command.side), now, rules)
        return agreed, (*told, ModeAsked(command.side, "accept"))
    asked = _changed(room, now, mode_requested_by=command.side)
    return asked, (ModeAsked(other(command.side), "request"),)


def _accept_video(room: Room, command: AcceptVideo, now: int, rules: Rules) -> Outcome:
    if room.mode_requested_by != other(command.side):
        raise IllegalTransition(room.status, command, "the other side has not requested video")
    changes: dict[str, Any] = {
        "chat_mode": ChatMode.VIDEO,
        "timed_from": now,
        "mode_requested_by": None,
        "warning_started_at": None,
    }
    told: list[Effect] = [ModeAsked(other(command.side), "accept")]
    if room.warning_started_at is not None:
        told.append(InactivityChanged("cleared"))
    return _changed(room, now, **changes), tuple(told)


def _decline_video(room: Room, command: DeclineVideo, now: int, rules: Rules) -> Outcome:
    if room.mode_requested_by != other(command.side):
        raise IllegalTransition(room.status, command, "the other side has not requested video")
    return _changed(room, now, mode_requested_by=None), (ModeAsked(other(command.side), "decline"),)


def _end(room: Room, command: End, now: int, rules: Rules) -> Outcome:
    return _ended(room, command.reason, now)


def _ended(room: Room, reason: EndReason, now: int) -> Outcome:
    ended = _changed(
        room,
        now,
        side_1=_vacated(room.side_1, now),
        side_2=_vacated(room.side_2, now),
        mode_requested_by=None,
        warning_started_at=None,
        ended_at=now,
        ended_reason=reason,
    )
    return ended, (RoomEnded(reason),)


def _vacated(side: Side, now: int) -> Side:
    absent_since = now if side.connected else side.absent_since
    return replace(
        side, node=None, session=None, absent_since=absent_since, grace_until=None, lost_with_node=False
    )


def _revive(room: Room, command: Revive, now: int, rules: Rules) -> Outcome:
    video = room.chat_mode is ChatMode.VIDEO
    revived = _changed(
        room,
        now,
        side_1=_absent_again(room.side_1, now, command.grace_ms if video else None, rules),
        side_2=_absent_again(room.side_2, now, command.grace_ms if video else None, rules),
        waiting_from=now,
        mode_requested_by=None,
        warning_started_at=None,
    )
    return revived, ()


def _absent_again(side: Side, now: int, grace_ms: int | None, rules: Rules) -> Side:
    """The side of a restored room. All clocks restart, so that no member pays for the time of the outage.

    A side that had not joined yet gets at least the time that it gets after a room is opened.
    """
    if grace_ms is not None and not side.came:
        grace_ms = max(grace_ms, rules.no_show_ms)
    return replace(
        side,
        node=None,
        session=None,
        absent_since=now,
        grace_until=None if grace_ms is None else now + grace_ms,
        lost_with_node=True,
        idle_from=None if side.idle_from is None else now,
    )


def _tick(room: Room, command: Tick, now: int, rules: Rules) -> Outcome:
    effects: list[Effect] = []
    while (deadline := due(room, rules, crowded=command.crowded)) is not None and deadline.at <= now:
        if deadline.kind == "ending":
            ends_at = deadline.at + rules.ending_warning_ms
            room = _changed(room, now, ending_warned=True)
            effects.append(EndingSoon(max(0, ends_at - now)))
        elif deadline.kind == "idle":
            room = _changed(room, now, warning_started_at=now)
            effects.append(InactivityChanged("warning", rules.text_warning_ms))
        else:
            room, ended = _ended(room, _END_REASONS[deadline.kind], now)
            effects.extend(ended)
    return room, tuple(effects)


_END_REASONS = {
    "no_show": EndReason.NO_SHOW,
    "grace": EndReason.GRACE_EXPIRED,
    "duration": EndReason.DURATION,
    "inactivity": EndReason.INACTIVITY,
}


def _nothing(room: Room, command: Command, now: int, rules: Rules) -> Outcome:
    return room, ()


TRANSITIONS: dict[tuple[Status | None, type[Any]], Callable[[Any, Any, int, Rules], Outcome]] = {
    (None, Open): _open,
    (Status.ACTIVE, Join): _join,
    (Status.ACTIVE, Leave): _leave,
    (Status.ACTIVE, Lose): _lose,
    (Status.ACTIVE, Post): _post,
    (Status.ACTIVE, RequestVideo): _request_video,
    (Status.ACTIVE, AcceptVideo): _accept_video,
    (Status.ACTIVE, DeclineVideo): _decline_video,
    (Status.ACTIVE, End): _end,
    (Status.ACTIVE, Revive): _revive,
    (Status.ACTIVE, Tick): _tick,
    (Status.GRACE, Join): _join,
    (Status.GRACE, Leave): _leave,
    (Status.GRACE, Lose): _lose,
    (Status.GRACE, Post): _post,
    (Status.GRACE, End): _end,
    (Status.GRACE, Revive): _revive,
    (Status.GRACE, Tick): _tick,
    # Late commands for an ended room have no effect and are not errors.
    (Status.ENDED, Leave): _nothing,
    (Status.ENDED, Lose): _nothing,
    (Status.ENDED, Tick): _nothing,
}
