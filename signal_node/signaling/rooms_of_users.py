"""The rooms of a user who logs in: those in the welcome, and the sides that a resumed session takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.record import Room, SideNumber, Status
from signal_node.protocol import snapshots
from signal_node.protocol.session import Session
from signal_node.rooms.journal import Done, JournalFull
from signal_node.rooms.lookups import Asked, Lookups
from signal_node.signaling.room_commands import RoomCommands
from signal_node.signaling.work import STORED_SECONDS, Work
from signal_node.telemetry.negotiation_log import NegotiationLog

_log = structlog.get_logger(__name__)


class RoomsOfUsers:
    """Looks up the rooms of users. Without Redis, a user is welcomed without them."""

    def __init__(
        self,
        node: str,
        lookups: Lookups,
        room_commands: RoomCommands,
        negotiation_log: NegotiationLog,
        work: Work,
        bring_back: Callable[[str], Awaitable[bool]],
        *,
        now: Callable[[], float],
    ) -> None:
        """`bring_back(user)` restores rooms that Redis has lost, and returns whether it had to. `clock` is the event
        loop's.
        """
        self._bring_back = bring_back
        self._node = node
        self._room_commands = room_commands
        self._negotiation_log = negotiation_log
        self._now = now
        self._lookups = lookups
        self._work = work

    def ask(self, user: str) -> Asked:
        """Request the user's room ids."""
        return self._lookups.ask_rooms_of(user)

    async def records(self, user: str, index: Asked) -> list[tuple[str, Asked]]:
        """Request the records of the user's rooms; none if Redis does not return the ids."""
        try:
            async with asyncio.timeout(STORED_SECONDS):
                if await self._bring_back(user):
                    index = self.ask(user)
                room_ids = await self._lookups.rooms_in(index)
        except (StoreUnavailable, TimeoutError) as error:
            _log.warning("rooms_of_user_unavailable", error=str(error))
            return []
        return [(room_id, self._lookups.ask_record(room_id)) for room_id in room_ids]

    async def of(
        self, user: str, asked: Sequence[tuple[str, Asked]], session: Session, *, resumed: bool
    ) -> list[snapshots.HeldRoom]:
        """The user's live rooms. A resumed session takes all sides that the previous one held or lost."""
        over: list[str] = []
        answers = [
            self._held_room(user, room_id, record, session, resumed, over) for room_id, record in asked
        ]
        try:
            async with asyncio.timeout(STORED_SECONDS):
                # Most users have one room, for which a separate task would cost more than the work itself.
                rooms = [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)
        except (JournalFull, TimeoutError) as error:
            _log.warning("rooms_of_user_unavailable", error=str(error))
            return []
        if over:
            self._work.begin(self._forget_rooms(user, over))
        return [room for room in rooms if room is not None]

    async def _held_room(
        self, user: str, room_id: str, record: Asked, session: Session, resumed: bool, over: list[str]
    ) -> snapshots.HeldRoom | None:
        try:
            room = await self._lookups.room_in(record, room_id)
            if room is None or room.status is Status.ENDED or (side := room.side_of(user)) is None:
                over.append(room_id)
                return None
            if resumed:
                return await self._take_side(room, side, session)
            chat = await self._lookups.chat_in(self._lookups.ask_chat(room), room)
            return snapshots.held_room(room, chat, side)
        except (StoreUnavailable, BadRecord) as error:
            _log.warning("rooms_of_user_unavailable", room=room_id, error=str(error))
            return None

    async def _take_side(self, room: Room, side: SideNumber, session: Session) -> snapshots.HeldRoom | None:
        before = room.side(side)
        if not before.came or before.left or session.closed():
            return None
        chat = self._lookups.ask_chat(room)
        outcome = await self._room_commands.executed(
            room, room.room_id, commands.Join(side, self._node, session.id), session.id
        )
        if not isinstance(outcome, Done):
            return None
        self._negotiation_log.note(room.room_id, side, session.id, "resumed", self._now())
        return snapshots.held_room(outcome.room, await self._lookups.chat_in(chat, outcome.room), side)

    async def _forget_rooms(self, user: str, over: Sequence[str]) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._lookups.forget_rooms(user, over)
