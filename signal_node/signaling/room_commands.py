"""Commands for rooms, whether their caller waits until they are stored or not."""

from __future__ import annotations

import asyncio

import structlog

from keepline.room.commands import Command
from keepline.room.record import Room
from keepline.room.state import IllegalTransition
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import Done, JournalFull, OnDone, Outcome, ignore_outcome

_log = structlog.get_logger(__name__)


class RoomCommands:
    """Carries out commands on the rooms of this node."""

    def __init__(self, rooms: Rooms, loop: asyncio.AbstractEventLoop) -> None:
        self._rooms = rooms
        self._loop = loop

    async def execute(
        self, room: Room | None, room_id: str, command: Command, now: int | None = None
    ) -> Room:
        """Carry out a command and wait until it is stored. Raises IllegalTransition, NotStored, JournalFull."""
        outcome = await self.executed(room, room_id, command, None, now)
        if isinstance(outcome, Done):
            return outcome.room
        raise outcome

    async def executed(
        self,
        room: Room | None,
        room_id: str,
        command: Command,
        asker: str | None,
        now: int | None = None,
    ) -> Outcome:
        """Carry out a command, for the session `asker` if given, and return its result. Raises JournalFull."""
        stored: asyncio.Future[Outcome] = self._loop.create_future()
        try:
            self._rooms.execute(room, room_id, command, _settling(stored), asker, now)
        except IllegalTransition as error:
            return error
        return await stored

    def execute_quietly(self, room_id: str, command: Command) -> None:
        """Carry out a command whose result nobody waits for."""
        try:
            self._rooms.execute(None, room_id, command, ignore_outcome)
        except IllegalTransition:
            pass  # the room is gone or has ended: there is nothing left to lose
        except JournalFull:
            _log.error("command_dropped", room=room_id, command=command.kind)


def _settling(future: asyncio.Future[Outcome]) -> OnDone:
    def settle(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)

    return settle
