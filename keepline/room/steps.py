"""The steps of a room's trace, which shows operators each transition. They never contain chat.

The commit itself writes them, so a trace survives the nodes. The id of a step's stream entry is its time, by Redis'
clock.
"""

from __future__ import annotations

import msgspec
import orjson
from msgspec import Struct

from keepline.room.codec import BadRecord
from keepline.room.record import Room, Side
from keepline.room.writes import node_of

STEP_FIELD = b"step"
"""The field of a trace entry that holds the step's JSON."""

SHORT = 6
"""Number of characters of a session id that distinguish it from others of the room."""


class SideStep(Struct, frozen=True):
    """One side after a step: its `presence` as the peer sees it, and the session that holds it."""

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
    """Encode the step that led to `room` as JSON."""
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
    """Decode a step, ignoring fields of newer releases. Raises BadRecord."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRecord(f"not a step: {error}") from error
