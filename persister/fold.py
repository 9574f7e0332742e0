"""Reduces events to the rows to write. Pure, so that tests can try any order and any split.

For each room only the last version counts: for its activity the last one as a text room, for the history the last one
that has ended. Its messages are collected separately, because a late batch must still add its messages, even if its
version is outdated. For the failed logins of an address, the last count wins. Reports and referrals never change, so
any copy will do. Everything is sorted by room id, so that concurrent persisters take their locks in the same order and
cannot deadlock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from asyncpg.pgproto import pgproto
from msgspec import Struct

from keepline.room import attempts as logins
from keepline.room import referrals, reports
from keepline.room.attempts import Attempts
from keepline.room.codec import decode_event, message_to_dict
from keepline.room.kinds import kind_of
from keepline.room.referrals import Referral
from keepline.room.reports import Report
from keepline.room.rows import ActivityRow, HistoryRow, RoomRow, to_activity, to_history, to_row

_Id = pgproto.UUID


class Unwritable(ValueError):
    """An event that no table can hold. The message says why."""


class Change(Struct, frozen=True, gc=False):
    """The content of one event: one version of a room, and possibly a message in its stored form.

    `updated_at` is when the room got this version, in ms since 1970.
    """

    row: RoomRow
    updated_at: int
    activity: ActivityRow | None
    history: tuple[HistoryRow, ...]
    message: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What to write in one transaction, sorted by room id, and messages by `seq` within their room.

    `updated_at` has the time of the last change for each of `rows`, in ms since 1970.
    """

    rows: tuple[RoomRow, ...]
    updated_at: tuple[int, ...]
    activities: tuple[ActivityRow, ...]
    history: tuple[HistoryRow, ...]
    messages: tuple[tuple[UUID, tuple[dict[str, Any], ...]], ...]
    attempts: tuple[Attempts, ...]
    reports: tuple[Report, ...]
    referrals: tuple[Referral, ...]

    @property
    def users(self) -> list[UUID]:
        """All users that a row refers to, each once, sorted."""
        users = {user for row in self.rows for user in (row.user_1, row.user_2)}
        users.update(user for report in self.reports for user in (report.reporter_id, report.reported_id))
        users.update(user for r in self.referrals for user in (r.target_user_id, r.created_by_user_id))
        return sorted(users)

    def last_changed_before(self, ms: int) -> list[UUID]:
        """The rooms for which the batch has nothing newer than that, sorted."""
        changes = zip(self.rows, self.updated_at, strict=True)
        return [row.room_id for row, updated_at in changes if updated_at < ms]


AnyChange = Change | Attempts | Report | Referral

_BESIDE_ROOMS: dict[str, Callable[[bytes], AnyChange]] = {
    logins.KIND: logins.decode_attempts,
    reports.KIND: reports.decode_report,
    referrals.KIND: referrals.decode_referral,
}


def change_of(data: bytes) -> AnyChange:
    """Read an event. Raises Unwritable if it is invalid, or has values that cannot be a row."""
    try:
        decode = _BESIDE_ROOMS.get(kind_of(data))
        if decode is not None:
            return decode(data)
        event = decode_event(data)
        room = event.room
        row, activity, history = to_row(room, _Id), to_activity(room, _Id), to_history(room, _Id)
    except (ValueError, OverflowError, OSError, AttributeError, TypeError) as error:
        raise Unwritable(str(error) or type(error).__name__) from error
    message = None if event.message is None else message_to_dict(event.message)
    return Change(row, room.updated_at, activity, history, message)


def subject_of(change: AnyChange) -> str:
    """The subject of a change, for sorting: a room, an address or a code."""
    match change:
        case Change():
            return str(change.row.room_id)
        case Attempts():
            return change.address
        case Report():
            return str(change.room_id)
        case Referral():
            return change.referral_code


class _Versioned(Protocol):
    @property
    def room_id(self) -> UUID: ...

    @property
    def version(self) -> int: ...


_Row = TypeVar("_Row", bound=_Versioned)


def fold(changes: Iterable[AnyChange]) -> Batch:
    """Reduce changes, in any order, to the last version of each room and all messages."""
    attempts: dict[str, Attempts] = {}
    rows: dict[UUID, RoomRow] = {}
    updated_at: dict[UUID, int] = {}
    activities: dict[UUID, ActivityRow] = {}
    history: dict[UUID, tuple[HistoryRow, ...]] = {}
    messages: defaultdict[UUID, dict[int, dict[str, Any]]] = defaultdict(dict)
    reported: dict[UUID, Report] = {}
    referred: dict[str, Referral] = {}
    for change in changes:
        match change:
            case Attempts():
                counted = attempts.get(change.address)
                if counted is None or change.is_newer_than(counted):
                    attempts[change.address] = change
                continue
            case Report():
                reported.setdefault(change.report_id, change)
                continue
            case Referral():
                referred.setdefault(change.referral_code, change)
                continue
        room_id = change.row.room_id
        _keep_newer(rows, change.row)
        updated_at[room_id] = max(change.updated_at, updated_at.get(room_id, 0))
        if change.history and _is_newer(change.history, history.get(room_id)):
            history[room_id] = change.history
        if change.activity is not None:
            _keep_newer(activities, change.activity)
        if change.message is not None:
            messages[room_id].setdefault(change.message["seq"], change.message)
    return Batch(
        rows=tuple(rows[room_id] for room_id in sorted(rows)),
        updated_at=tuple(updated_at[room_id] for room_id in sorted(rows)),
        activities=tuple(activities[room_id] for room_id in sorted(activities)),
        history=tuple(entry for room_id in sorted(history) for entry in history[room_id]),
        messages=tuple(
            (room_id, tuple(by_seq[seq] for seq in sorted(by_seq)))
            for room_id, by_seq in sorted(messages.items())
        ),
        attempts=tuple(attempts[address] for address in sorted(attempts)),
        reports=tuple(reported[report_id] for report_id in sorted(reported)),
        referrals=tuple(referred[code] for code in sorted(referred)),
    )


def _is_newer(history: tuple[HistoryRow, ...], known: tuple[HistoryRow, ...] | None) -> bool:
    return known is None or known[0].room_version < history[0].room_version


def _keep_newer(rows: dict[UUID, _Row], row: _Row) -> None:
    known = rows.get(row.room_id)
    if known is None or known.version < row.version:
        rows[row.room_id] = row
