"""Determines whom to notify of a transition. Pure. Frames for this node's sessions, notices for other nodes.

A notice has the complete new record, so the receiving cache is correct whatever it missed, and the encoded frames for
its clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from keepline.room.codec import BadRecord, decode_record, encode_record
from keepline.room.effects import Effect, ModeAsked, PeerChanged, Posted, Replaced
from keepline.room.record import SIDES, Room, Side, SideNumber
from signal_node.protocol import server_frames


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame for a session."""

    session: str
    data: bytes


@dataclass(slots=True)
class Routes:
    """The recipients of the effects of one transition.

    `at_once`: sessions of this node, before anything is committed. `committed`: sessions of this node after the commit
    (a chat message gets its number only then, and the sender gets its answer first). `replaced`: sessions of this node
    that lost their side. `notices`: by node.
    """

    at_once: list[Delivery] = field(default_factory=list)
    committed: list[Delivery] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    notices: dict[str, bytes] = field(default_factory=dict)


class _Notice(msgspec.Struct):
    room: Raw
    frames: list[tuple[str, Raw]] = []
    replaced: list[str] = []


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice from another node about a room."""

    room: Room
    frames: Sequence[Delivery]
    replaced: Sequence[str]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Notice)


def route(
    before: Room | None, after: Room, effects: Sequence[Effect], node: str, asker: str | None = None
) -> Routes:
    """The recipients of the effects of `before` → `after`, as seen from `node`. `asker` is the session that requested
    it.
    """
    routes = Routes()
    remote = {name: _Notice(Raw(b"null")) for name in _other_nodes(before, after, node)}
    for effect in effects:
        if isinstance(effect, Replaced):
            _replace(effect, node, routes, remote)
            continue
        frame = server_frames.event_frame(after.room_id, effect)
        if frame is None:
            continue
        data = server_frames.encode(frame)
        for number in _recipients(effect):
            holder = _holder(before, after, number)
            if holder.session is None or holder.node is None:
                continue
            if holder.node != node:
                remote[holder.node].frames.append((holder.session, Raw(data)))
            elif isinstance(effect, Posted) or holder.session == asker:
                routes.committed.append(Delivery(holder.session, data))
            else:
                routes.at_once.append(Delivery(holder.session, data))
    record = Raw(encode_record(after)) if remote else Raw(b"null")
    for name, notice in remote.items():
        notice.room = record
        routes.notices[name] = _encoder.encode(notice)
    return routes


def _replace(effect: Replaced, node: str, routes: Routes, remote: Mapping[str, _Notice]) -> None:
    if effect.node == node:
        routes.replaced.append(effect.session)
    else:
        remote[effect.node].replaced.append(effect.session)


def _recipients(effect: Effect) -> tuple[SideNumber, ...]:
    if isinstance(effect, PeerChanged | Posted | ModeAsked):
        return (effect.to,)
    return SIDES


def _holder(before: Room | None, after: Room, number: SideNumber) -> Side:
    """The side that holds the place, or held it until now: a member whose side is vacated by the end is told, too."""
    side = after.side(number)
    return side if side.session is not None or before is None else before.side(number)


def _other_nodes(before: Room | None, after: Room, node: str) -> set[str]:
    rooms = (after,) if before is None else (before, after)
    return {side.node for room in rooms for side in room.sides if side.node is not None} - {node}


def decode_notice(data: bytes) -> Notice:
    """Decode a notice. Raises BadRecord."""
    try:
        raw = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BadRecord(f"not a notice: {error}") from error
    return Notice(
        decode_record(bytes(raw.room)),
        [Delivery(session, bytes(frame)) for session, frame in raw.frames],
        raw.replaced,
    )
