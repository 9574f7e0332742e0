"""What attacks need that others have: users, and a room with a chat as long as it can be."""

from __future__ import annotations

import uuid

import redis.asyncio
from msgspec.structs import replace

from keepline.room import keys
from keepline.room.codec import decode_record, encode_message, encode_record
from keepline.room.record import Message
from keepline.room.rules import MAX_MESSAGES, MAX_TEXT
from tests.helpers.cluster import Deployment

FLOODS = {
    "pings": "4429",
    "pings of 125 bytes": "4429",
    "pongs": "4429",
    "empty fragments": "4429",
    "fragments of a byte": "4429",
    "empty texts": "4400",
    "pings after login": "4429",
    "texts after login": "4429",
    "pings after our close": "4400",
}
"""Attack, and the code with which its connections are closed; who goes on sending may find a reset instead."""


def tokens_of(cluster: Deployment, users: int) -> list[str]:
    """Good tokens of so many users."""
    return [cluster.token(uuid.uuid4()) for _ in range(users)]


async def own_rooms(cluster: Deployment, count: int) -> tuple[list[str], list[str]]:
    """So many text rooms, and a token of a member of each."""
    rooms, tokens = [], []
    for _ in range(count):
        users = uuid.uuid4(), uuid.uuid4()
        rooms.append((await cluster.open_room(*users, chat_mode="text"))["room_id"])
        tokens.append(cluster.token(users[0]))
    return rooms, tokens


async def full_chat(cluster: Deployment) -> tuple[str, uuid.UUID]:
    """A room of whose chat no more is kept, 2 MB, and a member. To write all that would take the limit's time."""
    alice, bob = uuid.uuid4(), uuid.uuid4()
    room_id = (await cluster.open_room(alice, bob, chat_mode="text"))["room_id"]
    partition = keys.partition_of(room_id, keys.DEFAULT_PARTITIONS)
    record_key, chat_key = keys.room(partition, room_id), keys.chat(partition, room_id)
    async with redis.asyncio.from_url(cluster.redis_url) as client:
        record = decode_record(await client.get(record_key) or b"")
        async with client.pipeline() as pipe:
            for seq in range(1, MAX_MESSAGES + 1):
                line = encode_message(Message(seq, str(alice), "\U0001f600" * MAX_TEXT, record.opened_at))
                pipe.xadd(chat_key, {"message": line}, id=f"{seq}-0")
            pipe.set(record_key, encode_record(replace(record, last_seq=MAX_MESSAGES)))
            await pipe.execute()
    return room_id, bob
