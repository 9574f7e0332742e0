"""`python -m bench.rehydrate`: the cost of reading all rooms from Redis and from Postgres.

Each way is compared with the minimum, by the same client libraries and in turns: a plain MGET, and a plain SELECT of
the same rows. The additional time is for decoding bytes to room objects. When rooms in memory are compared with those
in Redis, as nodes do after a fault, only those that differ are decoded; here none do, as is usual.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import asyncpg
import uvloop
from msgspec.structs import astuple

from bench.processes import free_port
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.servers import Valkey
from keepline.ops import postgres, redis
from keepline.room import keys
from keepline.room.codec import encode_record
from keepline.room.commands import Join, Open
from keepline.room.record import ChatMode, Room
from keepline.room.rows import RoomRow, to_row
from keepline.room.rules import Rules
from keepline.room.state import apply
from signal_node.rooms.archive import BATCH_ROWS, Archive
from signal_node.rooms.store import RoomStore

PARTITIONS = 16
BATCH = 1_000
NOW = 1_800_000_000_000
MIGRATE_SECONDS = 60.0

Work = Callable[[], Awaitable[int]]


def a_room() -> Room:
    """A call in progress."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    room, _ = apply(None, Open(ids[0], ids[1], ids[2], ChatMode.VIDEO, 600), NOW, Rules())
    room, _ = apply(room, Join(1, "node-1", "a" * 16), NOW + 100, Rules())
    return apply(room, Join(2, "node-2", "b" * 16), NOW + 200, Rules())[0]


async def turns(rounds: int, **works: Work) -> dict[str, float]:
    """Seconds per work, the median of its rounds; the works take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            await work()
            taken[name].append(time.perf_counter() - began)
    return {name: median(seconds) for name, seconds in taken.items()}


async def from_redis(rooms: list[Room], rounds: int, folder: Path) -> dict[str, float]:
    """A plain MGET, compared with comparing the same rooms and reading them, through the store, a batch at a time."""
    async with Valkey(folder / "valkey", port=free_port(), options=("--appendonly", "no")) as server:
        client = redis.connect(server.url)
        store = RoomStore(client, PARTITIONS, 3_600_000)
        names = [
            keys.room(keys.partition_of(room.room_id, PARTITIONS), room.room_id).encode() for room in rooms
        ]
        for start in range(0, len(rooms), BATCH):
            batch = zip(names[start : start + BATCH], rooms[start : start + BATCH], strict=True)
            await client.mset({name: encode_record(room) for name, room in batch})

        async def bare() -> int:
            found = 0
            for start in range(0, len(names), BATCH):
                found += len(await client.mget(names[start : start + BATCH]))
            return found

        async def compared() -> int:
            found = 0
            for start in range(0, len(rooms), BATCH):
                found += len(await store.compare(rooms[start : start + BATCH]))
            return found

        async def read() -> int:
            found = 0
            for start in range(0, len(rooms), BATCH):
                found += len(await store.load_many([room.room_id for room in rooms[start : start + BATCH]]))
            return found

        try:
            return await turns(rounds, bare=bare, compared=compared, read=read)
        finally:
            await client.aclose()


async def from_postgres(rooms: list[Room], rounds: int, folder: Path) -> dict[str, float]:
    """A plain SELECT of all columns by a cursor, compared with reading the same rooms through the archive."""
    async with Postgres(folder / "postgres", port=free_port(), fsync=False) as server:
        await migrated(server.url)
        pool = await postgres.create_pool(server.url, application="bench")
        archive = Archive(pool)
        async with pool.transaction() as connection:
            await insert(connection, rooms)

        async def bare() -> int:
            found = 0
            async with pool.transaction() as connection:
                cursor = await connection.cursor("SELECT * FROM active_rooms WHERE status <> 'ended'")
                while rows := await cursor.fetch(BATCH):
                    found += len(rows)
            return found

        async def read() -> int:
            found = 0
            async for page in archive.room_ids(0):
                for start in range(0, len(page), BATCH_ROWS):
                    found += len(await archive.load_many(page[start : start + BATCH_ROWS]))
            return found

        try:
            return await turns(rounds, bare=bare, read=read)
        finally:
            await pool.close()


async def migrated(url: str) -> None:
    """Create the tables."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "persister.migrate", env={**os.environ, "DATABASE_URL": url}
    )
    async with asyncio.timeout(MIGRATE_SECONDS):
        if await process.wait() != 0:
            raise SystemExit("the tables could not be made")


async def insert(
    connection: postgres.Connection | asyncpg.pool.PoolConnectionProxy, rooms: list[Room]
) -> None:
    """Write the rooms and their users."""
    rows = [to_row(room) for room in rooms]
    users = [(user,) for row in rows for user in (row.user_1, row.user_2)]
    await connection.copy_records_to_table("users", records=users, columns=["user_id"])
    columns = RoomRow.__struct_fields__
    records = [astuple(row) for row in rows]
    await connection.copy_records_to_table("active_rooms", records=records, columns=columns)


async def measure(count: int, rounds: int) -> None:
    """Measure both, and print a table."""
    rooms = [a_room() for _ in range(count)]
    with tempfile.TemporaryDirectory(prefix="keepline-bench-", ignore_cleanup_errors=True) as folder:
        results = {
            "Redis": await from_redis(rooms, rounds, Path(folder)),
            "Postgres": await from_postgres(rooms, rounds, Path(folder)),
        }
    print(f"{count:,} rooms, median of {rounds} rounds")
    print(f"{'from':10}{'way':10}{'s':>8}{'of bare':>10}{'rooms/s':>12}")
    for name, taken in results.items():
        for way, seconds in taken.items():
            print(f"{name:10}{way:10}{seconds:8.2f}{seconds / taken['bare']:10.2f}{count / seconds:12,.0f}")


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.rehydrate", description=__doc__)
    parser.add_argument("--rooms", type=int, default=100_000, help="how many rooms (100000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(options.rooms, options.rounds))


if __name__ == "__main__":
    main()
