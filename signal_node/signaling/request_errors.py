"""Why a request could not be carried out, as its client is told."""

from __future__ import annotations

from collections.abc import Sequence

from keepline.room.record import Status
from keepline.room.state import IllegalTransition
from signal_node.protocol.effects import Act, Effect, JoinRequest, LineRequest, ReportRequest, RequestId
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.session import Session
from signal_node.rooms.journal import NotStored
from signal_node.signaling.work import AWAY, RETRY_AFTER_MS


def no_room(session: Session, effect: JoinRequest | LineRequest | ReportRequest) -> Sequence[Effect]:
    """The room is not there."""
    why = "there is no such room"
    return session.answers.failed(ErrorCode.ROOM_NOT_FOUND, why, effect.room_id, effect.request_id)


def no_member(session: Session, effect: JoinRequest | LineRequest | ReportRequest) -> Sequence[Effect]:
    """The user is not one of its two."""
    why = "you are not a member of this room"
    return session.answers.failed(ErrorCode.NOT_A_MEMBER, why, effect.room_id, effect.request_id)


def unavailable(
    session: Session, effect: JoinRequest | Act | LineRequest | ReportRequest
) -> Sequence[Effect]:
    """Redis cannot be reached, or does not answer."""
    return session.answers.failed(
        ErrorCode.UNAVAILABLE, AWAY, effect.room_id, effect.request_id, RETRY_AFTER_MS
    )


def refusal(
    session: Session, outcome: IllegalTransition | NotStored, room_id: str, request_id: RequestId
) -> Sequence[Effect]:
    """A command was not carried out."""
    if isinstance(outcome, NotStored):
        return session.answers.failed(
            ErrorCode.UNAVAILABLE, "the change could not be stored", room_id, request_id
        )
    if outcome.status is Status.ENDED:
        return session.answers.ended(room_id, request_id, outcome.ended_reason)
    if outcome.status is None:
        return session.answers.failed(ErrorCode.ROOM_NOT_FOUND, "there is no such room", room_id, request_id)
    return session.answers.failed(ErrorCode.BAD_REQUEST, str(outcome), room_id, request_id)
