"""The steps of a room's trace: what operators are shown of each transition. Never a word of the chat.

Written by the commit itself, so the trace of a call survives every node; the id of its entry in the stream is the time,
on the clock of Redis.
"""

from __future__ import annotations

import msgspec
import orjson
from msgspec import Struct

from keepline.room.codec import BadRecord
from keepline.room.record import Room, Side
from keepline.room.writes import node_of

STEP_FIELD = b"step"
"""The field of an entry of the trace that holds the step's JSON."""

SHORT = 6
"""Characters of a session's id that are enough to tell it from another of the room."""


class SideStep(Struct, frozen=True):
    """One side after a step: `presence` as the peer sees it, and who holds it."""

    presence: str
    node: str | None
    session: str | None


class Step(Struct, frozen=True):
    """One transition. `by` is the node that made it."""

    kind: str
    by: str
    version: int
    status: str
    mode: str
    reason: str | None
    sides: tuple[SideStep, SideStep]


_decoder = msgspec.json.Decoder(Step)


def encode_step(kind: str, room: Room) -> bytes:
    """The JSON of the step that led to `room`."""
    return orjson.dumps(
        {
            "kind": kind,
            "by": node_of(room.write_id),
            "version": room.version,
            "status": room.status.value,
            "mode": room.chat_mode.value,
            "reason": None if room.ended_reason is None else room.ended_reason.value,
            "sides": [_side(room.side_1), _side(room.side_2)],
        }
    )


def _side(side: Side) -> dict[str, str | None]:
    session = None if side.session is None else side.session[:SHORT]
    return {"presence": side.presence.value, "node": side.node, "session": session}


def decode_step(data: bytes) -> Step:
    """The step behind its JSON; fields of a newer release are left out. Raises BadRecord."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRecord(f"not a step: {error}") from error
