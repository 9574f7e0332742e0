"""Answers to clients' requests, and a count of the errors among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from keepline.room.record import EndReason, Message
from signal_node.protocol import server_frames, snapshots
from signal_node.protocol.effects import Effect, RequestId, Send
from signal_node.protocol.error_codes import ErrorCode


class Answers:
    """Creates answers, and counts errors by code."""

    __slots__ = ("_errors",)

    def __init__(self, errors: Counter[ErrorCode]) -> None:
        self._errors = errors

    def done(self, request_id: RequestId, message: Message | None) -> Sequence[Effect]:
        """A command is committed; `message` is the chat message that it added."""
        line = UNSET if message is None else snapshots.chat_line(message)
        return (Send(server_frames.encode(server_frames.Ok(id=request_id, message=line))),)

    def failed(
        self,
        code: ErrorCode,
        message: str,
        room_id: str | UnsetType,
        request_id: RequestId,
        retry_after_ms: int | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
    ) -> Sequence[Effect]:
        """A request could not be carried out."""
        self._errors[code] += 1
        frame = server_frames.Error(
            id=request_id,
            room=room_id,
            code=code,
            message=message,
            retry_after_ms=retry_after_ms,
            reason=reason,
        )
        return (Send(server_frames.encode(frame)),)

    def ended(self, room_id: str, request_id: RequestId, reason: EndReason | None) -> Sequence[Effect]:
        """A request came too late. A client that was away when the room ended learns why."""
        why = UNSET if reason is None else reason.value
        return self.failed(ErrorCode.ROOM_ENDED, "the room has ended", room_id, request_id, reason=why)

    def peer_too_slow(self, room_id: str, retry_after_ms: int) -> Sequence[Effect]:
        """A signal was not delivered because the peer has too much unread data. That is not this client's fault."""
        message = "the peer reads too slowly; a signal was not delivered"
        return self.failed(ErrorCode.RATE_LIMITED, message, room_id, UNSET, retry_after_ms)
