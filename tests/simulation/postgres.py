"""Postgres and its persisters, as far as rooms are concerned.

Rows are written as the persister's SQL does it: only over an older version, and lines of chat as a union by number.
Workers read the event streams as a consumer group: what one has read and not acknowledged another takes over, so
batches are written late, twice, and in any order. What Postgres refuses goes to the dead letters. An operator replays
it later, when newer versions of the room may have been written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from msgspec.structs import asdict
from redis.exceptions import RedisError

from keepline.room import keys
from keepline.room.codec import message_from_dict
from keepline.room.record import Status
from keepline.room.rows import RoomRow, from_row
from persister.fold import Batch, Change, change_of, fold
from signal_node.rooms.archive import Archive, Archived, ArchiveUnavailable
from tests.simulation.network import RedisLink
from tests.simulation.server import Server
from tests.simulation.trace import Trace
from tests.simulation.values import EntryId, Stream

BATCH_ROWS = 4
CLAIM_SECONDS = 4.0
IDLE_SECONDS = 0.3

_Read = list[tuple[bytes, EntryId, bytes]]


@dataclass(slots=True)
class Row:
    """A row of `active_rooms`."""

    room: RoomRow
    messages: dict[int, dict[str, Any]]
    updated_at: datetime

    def archived(self) -> Archived:
        lines = [message_from_dict(self.messages[seq]) for seq in sorted(self.messages)]
        raw = {**asdict(self.room), "updated_at": self.updated_at}
        held = (self.room.user_1_connected, self.room.user_2_connected)
        return Archived(from_row(raw, lines), lines, held)


class Postgres:
    """The table. `away`: it cannot be asked. `refused`: rooms whose rows a trigger refuses.

    `on_revival` is told of rooms that had ended and are written live.
    """

    def __init__(self, now_ms: Callable[[], int], on_revival: Callable[[str, str], None]) -> None:
        self.rows: dict[str, Row] = {}
        self.away = False
        self.refused: set[str] = set()
        self.on_revival = on_revival
        self._now_ms = now_ms

    def write(self, batch: Batch) -> None:
        """Upsert the rooms, then add the lines."""
        now = datetime.fromtimestamp(self._now_ms() / 1_000, UTC)
        for room in batch.rows:
            room_id = str(room.room_id)
            row = self.rows.get(room_id)
            if row is None:
                self.rows[room_id] = Row(room, {}, now)
            elif row.room.version < room.version:
                if row.room.status == "ended" and room.status != "ended":
                    self.on_revival("Postgres", room_id)
                row.room, row.updated_at = room, now
        for room_uuid, lines in batch.messages:
            row = self.rows[str(room_uuid)]
            for line in lines:
                if row.messages.setdefault(line["seq"], line) is line:
                    row.updated_at = now


class SimulatedArchive(Archive):
    """What nodes read."""

    def __init__(self, postgres: Postgres, random: Random) -> None:
        self._postgres = postgres
        self._random = random
        self.unreadable = 0

    async def _ask(self) -> None:
        await asyncio.sleep(self._random.uniform(0.001, 0.02))
        if self._postgres.away:
            raise ArchiveUnavailable("ConnectionRefusedError")

    async def load(self, room_id: str) -> Archived | None:
        await self._ask()
        row = self._postgres.rows.get(room_id)
        return None if row is None else row.archived()

    async def load_many(self, room_ids: Sequence[str]) -> list[Archived]:
        await self._ask()
        rows = self._postgres.rows
        return [rows[room_id].archived() for room_id in room_ids if room_id in rows]

    async def live_rooms_of(self, users: Sequence[str]) -> list[Archived]:
        await self._ask()
        found = [row.archived() for row in self._postgres.rows.values()]
        return [
            one
            for one in found
            if one.room.status is not Status.ENDED and {s.user for s in one.room.sides} & set(users)
        ]

    async def room_ids(self, ended_within_seconds: float) -> AsyncIterator[list[str]]:
        await self._ask()
        found = list(self._postgres.rows)
        for start in range(0, len(found), BATCH_ROWS):
            await self._ask()
            yield found[start : start + BATCH_ROWS]

    async def limited(self) -> AsyncIterator[list[Any]]:
        """Nobody has failed to log in."""
        await self._ask()
        for nothing in list[list[Any]]():
            yield nothing


class Persister:
    """One worker. `run` is to be run as a task of a process of its own."""

    def __init__(
        self, name: str, postgres: Postgres, link: RedisLink, partitions: int, random: Random, trace: Trace
    ) -> None:
        self.name = name
        self._postgres = postgres
        self._link = link
        self._streams = [keys.events(partition).encode() for partition in range(partitions)]
        self._random = random
        self._trace = trace

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                read = await self._link.perform(lambda server: self._read(server, loop.time()))
            except RedisError:
                await asyncio.sleep(self._random.uniform(0.1, 1.0))
                continue
            if not read:
                await asyncio.sleep(self._random.uniform(0.5, 1.5) * IDLE_SECONDS)
                continue
            await self._write(read)

    async def _write(self, read: _Read) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.001, 0.1))
            if not self._postgres.away:
                break
        refused = [entry for entry in read if self._is_refused(entry[2])]
        self._postgres.write(fold(change_of(data) for _, _, data in read if not self._is_refused(data)))
        try:
            await self._link.perform(lambda server: self._acknowledge(server, read, refused))
        except RedisError as error:
            self._trace.note(self.name, f"could not acknowledge: {error}")

    def _read(self, server: Server, now: float) -> _Read:
        read: _Read = []
        for key in self._streams:
            stream = server.typed(key, Stream)
            if stream is None:
                continue
            for entry_id, fields in stream.entries:
                owner = stream.pending.get(entry_id)
                new = entry_id > stream.read_to
                if new or (owner is not None and now - owner[1] > CLAIM_SECONDS):
                    stream.pending[entry_id] = (self.name, now)
                    stream.read_to = max(stream.read_to, entry_id)
                    read.append((key, entry_id, fields[b"event"]))
        return read

    def _is_refused(self, data: bytes) -> bool:
        change = change_of(data)
        return isinstance(change, Change) and str(change.row.room_id) in self._postgres.refused

    def _bury(self, server: Server, refused: _Read) -> None:
        """Move entries to the dead letters, once, as the script of the persister does."""
        for key, entry_id, data in refused:
            stream = server.typed(key, Stream)
            if stream is not None and stream.pending.pop(entry_id, None) is not None:
                self._trace.note(self.name, "puts a refused row aside")
                letters = key.replace(b":events", b":dead-letters")
                server.execute([b"XADD", letters, b"*", b"event", data])

    def _acknowledge(self, server: Server, read: _Read, refused: _Read) -> None:
        self._bury(server, refused)
        for key, entry_id, _ in read:
            stream = server.typed(key, Stream)
            if stream is None:
                continue
            stream.pending.pop(entry_id, None)
            kept = min(stream.pending, default=(stream.read_to[0], stream.read_to[1] + 1))
            stream.entries = [entry for entry in stream.entries if entry[0] >= kept]


def replay(server: Server, partitions: int) -> None:
    """Put all dead letters back among the events, as `keepline dead-letters replay --all` does."""
    for partition in range(partitions):
        letters = server.typed(keys.dead_letters(partition).encode(), Stream)
        for _, fields in [] if letters is None else letters.entries:
            server.execute([b"XADD", keys.events(partition).encode(), b"*", b"event", fields[b"event"]])
        if letters is not None:
            letters.entries.clear()
