"""Events of made-up calls, as the nodes write them."""

import uuid
from collections.abc import Iterable, Iterator

from keepline.room.codec import Event, encode_event
from keepline.room.commands import AcceptVideo, Command, End, Join, Open, Post, RequestVideo
from keepline.room.effects import Posted
from keepline.room.record import ChatMode, EndReason, Message, Room
from keepline.room.rules import Rules
from keepline.room.state import apply

T0 = 1_790_000_000_000
RULES = Rules()


def new_id() -> str:
    return str(uuid.uuid4())


def opening(
    user_1: str | None = None, user_2: str | None = None, *, chat_mode: ChatMode = ChatMode.TEXT
) -> Open:
    return Open(new_id(), user_1 or new_id(), user_2 or new_id(), chat_mode, 0)


def changes(first: Open, commands: Iterable[Command]) -> Iterator[Event]:
    """The events that a node writes when these commands come, one each second."""
    room: Room | None = None
    for second, command in enumerate([first, *commands]):
        room, effects = apply(room, command, T0 + second * 1000, RULES)
        said = [effect.message for effect in effects if isinstance(effect, Posted)]
        yield Event(type(command).__name__.lower(), room, said[0] if said else None)


def call(first: Open | None = None, *, lines: int = 3, end: bool = True) -> list[Event]:
    """A whole call: both come, one side writes some lines, somebody hangs up."""
    commands: list[Command] = [Join(1, "node-1", "a"), Join(2, "node-2", "b")]
    commands += [Post(1, f"line {number}") for number in range(1, lines + 1)]
    if end:
        commands.append(End(EndReason.HANGUP))
    return list(changes(first or opening(), commands))


def turned_to_video() -> list[Event]:
    """A text room in which both write, then agree on video, write once more and hang up."""
    commands: list[Command] = [
        Join(1, "node-1", "a"),
        Join(2, "node-2", "b"),
        Post(1, "hi"),
        Post(2, "video?"),
        RequestVideo(2),
        AcceptVideo(1),
        Post(1, "there you are"),
        End(EndReason.HANGUP),
    ]
    return list(changes(opening(), commands))


def encoded(events: Iterable[Event]) -> list[bytes]:
    return [encode_event(event) for event in events]


def said(events: Iterable[Event]) -> list[Message]:
    return [event.message for event in events if event.message is not None]
