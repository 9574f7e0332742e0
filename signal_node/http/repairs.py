"""The repairs of `keepline doctor --fix`, which a node carries out with ordinary commands.

Each repair checks itself whether it is needed, and changes a room only by a commit, which its version guards. So a
repair that arrives late or twice has no effect.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from keepline.ops.http import HttpError, json_response
from keepline.room import commands
from keepline.room.codec import RESTORED, Event
from keepline.room.deadlines import due
from keepline.room.record import Room, SideNumber, Status
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition
from signal_node.cluster.recovery import Recovery
from signal_node.cluster.registry import Registry
from signal_node.http.bodies import decode_body
from signal_node.http.service_key import ServiceKey
from signal_node.rooms.archive import ArchiveUnavailable
from signal_node.rooms.cache import Rooms
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import RoomStore
from signal_node.signaling.local_sessions import LocalSessions
from signal_node.signaling.room_commands import RoomCommands
from signal_node.users.ownership import Users

Name = Annotated[str, Meta(min_length=1, max_length=64)]


class SideRepair(Struct, tag="side", forbid_unknown_fields=True):
    """A side is held by a session that does not exist."""

    room: Name
    side: SideNumber
    session: Name


class HeldRepair(Struct, tag="held", forbid_unknown_fields=True):
    """The index of a node's rooms does not match the room."""

    room: Name
    node: Name


class DeadlineRepair(Struct, tag="deadline", forbid_unknown_fields=True):
    """A room lacks a deadline that it needs, or has one that it does not need."""

    room: Name


class CacheRepair(Struct, tag="cache", forbid_unknown_fields=True):
    """The cache of this node and Redis differ."""

    room: Name


class RowRepair(Struct, tag="row", forbid_unknown_fields=True):
    """Postgres lacks what Redis has."""

    room: Name


class LostRepair(Struct, tag="lost", forbid_unknown_fields=True):
    """Redis lacks what Postgres has."""

    room: Name


class IndexRepair(Struct, tag="index", forbid_unknown_fields=True):
    """The index of a user's rooms names missing rooms."""

    user: Name


class UserRepair(Struct, tag="user", forbid_unknown_fields=True):
    """A user is held by a session that does not exist."""

    user: Name
    node: Name
    session: Name


Repair = (
    SideRepair | HeldRepair | DeadlineRepair | CacheRepair | RowRepair | LostRepair | IndexRepair | UserRepair
)


class Repairs:
    """The repairs of one node, and their route."""

    def __init__(
        self,
        node: str,
        sessions: LocalSessions,
        rooms: Rooms,
        store: RoomStore,
        room_commands: RoomCommands,
        users: Users,
        registry: Registry,
        reconciler: Reconciler,
        recovery: Recovery,
        rules: Rules,
    ) -> None:
        self._node = node
        self._sessions = sessions
        self._rooms = rooms
        self._store = store
        self._room_commands = room_commands
        self._users = users
        self._registry = registry
        self._reconciler = reconciler
        self._recovery = recovery
        self._rules = rules

    def route(self, key: ServiceKey) -> web.RouteDef:
        """The route, with the service key."""
        return web.post("/v1/node/repairs", key.guarded(self._post))

    async def _post(self, request: web.Request) -> web.Response:
        repair: Repair = decode_body(await request.read(), Repair)  # type: ignore[arg-type]
        try:
            return json_response({"repaired": await self.repair(repair)})
        except ArchiveUnavailable as error:
            raise HttpError(503, "unavailable", f"Postgres is away: {error}") from None

    async def repair(self, repair: Repair) -> bool:
        """Repair one problem; False if there was nothing to repair.

        Raises StoreUnavailable, ArchiveUnavailable, BadRecord, JournalFull, NotStored.
        """
        match repair:
            case SideRepair(room_id, side, session):
                return await self._lose(room_id, side, session)
            case HeldRepair(room_id, node):
                return await self._note_held(room_id, node)
            case DeadlineRepair(room_id):
                return await self._set_deadline(room_id)
            case CacheRepair(room_id):
                self._reconciler.suspicions.look_at(room_id)
                return self._rooms.get(room_id) is not None
            case RowRepair(room_id):
                return await self._tell_persister(room_id)
            case LostRepair(room_id):
                return _is_uuid(room_id) and await self._recovery.bring_back(room_id)
            case IndexRepair(user):
                await self._store.rooms_of(user)  # it removes missing rooms
                return True
            case UserRepair(user, node, session):
                return await self._release_user(user, node, session)

    async def _lose(self, room_id: str, side: Literal[1, 2], session: str) -> bool:
        room, _ = await self._store.load(room_id)
        held = None if room is None else room.side(side)
        if held is None or held.session != session or await self._is_there(held.node, session):
            return False
        try:
            await self._room_commands.execute(room, room_id, commands.Lose(side, session))
        except IllegalTransition:
            return False
        return True

    async def _is_there(self, node: str | None, session: str) -> bool:
        """Whether a session may be open. Only its own node can know; ask that one if it is live."""
        if node == self._node:
            return self._sessions.has(session)
        live, _ = await self._registry.nodes()
        return node in live

    async def _note_held(self, room_id: str, node: str) -> bool:
        room = await self._load(room_id)
        partition = self._store.partition_of(room_id)
        if room is not None and any(side.node == node for side in room.sides):
            await self._registry.hold(partition, node, room_id)
        else:
            await self._registry.remove_held(partition, node, room_id)
        return True

    async def _set_deadline(self, room_id: str) -> bool:
        room = await self._load(room_id)
        deadline = None if room is None else due(room, self._rules)
        if deadline is None:
            await self._store.clear_deadline(room_id)
        else:
            await self._store.add_deadline(room_id, deadline.at)
        return True

    async def _tell_persister(self, room_id: str) -> bool:
        room, lines = await self._store.load(room_id)
        if room is None:
            return False
        await self._store.add_events(
            [Event(RESTORED, room), *(Event(RESTORED, room, line) for line in lines)]
        )
        return True

    async def _release_user(self, user: str, node: str, session: str) -> bool:
        if await self._is_there(node, session):
            return False
        await self._users.release(user, session)
        return True

    async def _load(self, room_id: str) -> Room | None:
        """A live room."""
        room, _ = await self._store.load(room_id)
        return None if room is None or room.status is Status.ENDED else room


def _is_uuid(room_id: str) -> bool:
    """Whether Postgres can have such a room at all; it refuses to look for others."""
    try:
        UUID(room_id)
    except ValueError:
        return False
    return True
