"""Rooms for the tests of the node, made by the rules themselves."""

from __future__ import annotations

from keepline.room.commands import Command, Join, Open
from keepline.room.effects import Effect
from keepline.room.record import ChatMode, Room
from keepline.room.rules import Rules
from keepline.room.state import apply

T0 = 1_800_000_000_000
ROOM = "7f4e6f0e-3a5f-4a6e-9d53-0c2d5f6f7a01"
OTHER_ROOM = "0b6a3d7e-1f77-4d0a-8a3c-5a1d0f7c2b02"
USER_1 = "11111111-1111-4111-8111-111111111111"
USER_2 = "22222222-2222-4222-8222-222222222222"
SESSION_1 = "session-1-aaaaaa"
SESSION_2 = "session-2-bbbbbb"
RULES = Rules()


def opening(room_id: str = ROOM, chat_mode: ChatMode = ChatMode.VIDEO, duration_seconds: int = 0) -> Open:
    return Open(room_id, USER_1, USER_2, chat_mode, duration_seconds)


def step(room: Room | None, command: Command, now: int = T0) -> tuple[Room, tuple[Effect, ...]]:
    return apply(room, command, now, RULES)


def opened(room_id: str = ROOM, chat_mode: ChatMode = ChatMode.VIDEO, duration_seconds: int = 0) -> Room:
    return step(None, opening(room_id, chat_mode, duration_seconds))[0]


def after(room: Room, *commands: Command, now: int = T0) -> Room:
    """The room once all commands have been carried out."""
    for command in commands:
        room, _ = step(room, command, now)
    return room


def met(
    node_1: str = "here",
    node_2: str = "here",
    room_id: str = ROOM,
    chat_mode: ChatMode = ChatMode.VIDEO,
    duration_seconds: int = 0,
) -> Room:
    """A room with both sides there, each on the named node."""
    room = opened(room_id, chat_mode, duration_seconds)
    return after(room, Join(1, node_1, SESSION_1), Join(2, node_2, SESSION_2))
