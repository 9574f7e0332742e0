"""A store whose answers the test gives, and an audience that notes what it is told."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

from keepline.room.commands import Command, Post
from keepline.room.record import ChatMode, Room
from keepline.room.writes import written
from signal_node.rooms.cache import Rooms
from signal_node.rooms.fanout import Delivery, Notice
from signal_node.rooms.journal import Done, Outcome
from signal_node.rooms.store import Change, CommitResult, Committed, RoomStore
from tests.unit.signal_node.calls import ROOM, RULES, SESSION_1, T0, after, met

WAIT_SECONDS = 10.0


class ScriptedStore:
    """Holds every commit until the test answers it. A room is in the lane that its id ends with, or the first."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.rooms: dict[str, Room] = {}
        self._commits: asyncio.Queue[tuple[Sequence[Change], asyncio.Future[list[CommitResult]]]] = (
            asyncio.Queue()
        )
        self._answer: asyncio.Future[list[CommitResult]] | None = None

    def lane_of(self, room_id: str) -> int:
        return int(room_id[-1], 16) % self.lanes

    async def load(self, room_id: str) -> tuple[Room | None, list[object]]:
        return self.rooms.get(room_id), []

    async def commit_each(self, changes: Sequence[Change]) -> list[CommitResult]:
        answer: asyncio.Future[list[CommitResult]] = asyncio.get_running_loop().create_future()
        self._commits.put_nowait((changes, answer))
        return await answer

    async def asked(self) -> list[Change]:
        """Wait for the next commit and return its changes; it stays in flight until `answer`."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                changes, self._answer = await self._commits.get()
                if changes:
                    return list(changes)
                self._answer.set_result([])

    def unanswered(self) -> asyncio.Future[list[CommitResult]]:
        """The answer to the commit in flight, for later: others may be asked for meanwhile."""
        assert self._answer is not None
        answer, self._answer = self._answer, None
        return answer

    @property
    def idle(self) -> bool:
        """Whether nothing but the commit in flight has been asked for."""
        return self._commits.empty()

    async def answer(self, *results: CommitResult | Exception) -> None:
        """Answer the commit in flight, and let the cache take the answer in."""
        assert self._answer is not None
        answer, self._answer = self._answer, None
        if isinstance(results[0], Exception):
            answer.set_exception(results[0])
        else:
            answer.set_result(cast(list[CommitResult], list(results)))
        await turns()

    async def commits(self) -> Change:
        """Wait for a commit of one change and let it through."""
        (change,) = await self.asked()
        await self.answer(Committed())
        return change


class Audience:
    """Notes what the clients of this node are told."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.told: list[tuple[str, str]] = []
        self.replaced_ones: list[str] = []
        self.changes: list[tuple[int | None, int]] = []
        self.staying: set[str] = set()

    def deliver(self, session: str, data: bytes) -> None:
        frame = json.loads(data)
        self.told.append((session, frame.get("state") or frame["type"]))
        self.log.append(f"tell {session} {frame['type']}")

    def replaced(self, session: str) -> None:
        self.replaced_ones.append(session)

    def stays(self, session: str) -> bool:
        return session in self.staying

    def room_changed(self, before: Room | None, after: Room) -> None:
        self.changes.append((None if before is None else before.version, after.version))


class Cache:
    """Rooms over a scripted store, as node "here"; the clock stands at T0."""

    def __init__(self, lanes: int = 1) -> None:
        self.log: list[str] = []
        self.now = T0
        self.gaps: list[str] = []
        self.losses: list[str] = []
        self.store = ScriptedStore(lanes)
        self.audience = Audience(self.log)
        count = itertools.count(1)
        self.rooms = Rooms(
            "here",
            cast(RoomStore, self.store),
            RULES,
            self.audience,
            now=lambda: self.now,
            new_write_id=lambda: f"write-{next(count)}",
            on_gap=self.gaps.append,
            on_loss=self.losses.append,
        )

    def do(
        self, room: Room | None, command: Command, room_id: str, asker: str | None = None
    ) -> list[Outcome]:
        """Execute a command; the list gets its outcome."""
        outcomes: list[Outcome] = []

        def on_done(outcome: Outcome) -> None:
            self.log.append(f"done {type(command).__name__}")
            outcomes.append(outcome)

        self.rooms.execute(room, room_id, command, on_done, asker)
        return outcomes


def version_of(outcomes: list[Outcome]) -> int:
    """The version that the one outcome is about."""
    (outcome,) = outcomes
    assert isinstance(outcome, Done), outcome
    return outcome.room.version


def text_room(node_2: str = "here", room_id: str = ROOM) -> Room:
    return met("here", node_2, room_id, ChatMode.TEXT)


def elsewhere(room: Room, *commands: Command) -> Room:
    """The room as another node has changed it."""
    return written(room, after(room, *commands), "elsewhere")


def heard(room: Room, *frames: Delivery, replaced: tuple[str, ...] = ()) -> Notice:
    return Notice(room, frames, replaced)


async def keep(cache: Cache, room: Room) -> Room:
    """Have the room in the cache, at the version after the given one."""
    cache.do(room, Post(1, "kept"), room.room_id, SESSION_1)
    change = await cache.store.commits()
    cache.audience.told.clear()
    return change.after


@asynccontextmanager
async def running(lanes: int = 1) -> AsyncIterator[Cache]:
    """A cache whose committer runs."""
    cache = Cache(lanes)
    task = asyncio.create_task(cache.rooms.run())
    try:
        yield cache
        assert not task.done(), "the committer has to go on whatever happens"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
