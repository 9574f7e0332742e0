"""What the tests of faults have in common: how to wait for agreement, and how to keep talking meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable
from typing import Any

from keepline.room import keys
from tests.acceptance.clients.bare_client import BareClient
from tests.acceptance.harness import Call
from tests.helpers.fleet import Fleet
from tests.helpers.rows import row_of_room
from tests.helpers.waiting import eventually

AGREED_SECONDS = 20.0
ARRIVAL_SECONDS = 0.5


class Disturbed(Exception):
    """A client got a frame that it should not have got. No AssertionError: those count as "not yet" while waiting."""


async def agreed(fleet: Fleet, room: str, *nodes: int, **expected: Any) -> dict[str, Any]:
    """Wait until these nodes show the room with the expected values and its row in Postgres is equal."""

    async def agree() -> dict[str, Any]:
        shown = [await fleet.room(room, node=node) for node in nodes]
        assert shown[0] == shown[0] | expected, shown[0]
        assert all(snapshot == shown[0] for snapshot in shown), shown
        row = await row_of_room(fleet.database_url, room)
        assert row == shown[0], f"in Postgres {row}, shown {shown[0]}"
        return shown[0]

    return await eventually(agree, timeout=AGREED_SECONDS, interval=0.1, what="Postgres agrees")


async def talk_for(seconds: float, *calls: Call) -> None:
    """Signals in both directions of each call, a few times a second for so long; nothing else may come."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def talked() -> bool:
        for call in calls:
            try:
                await call.goes_on()
            except AssertionError as error:
                raise Disturbed(str(error)) from error
        return loop.time() >= until

    await eventually(talked, timeout=seconds + 10.0, interval=0.2, what="the calls have gone on")


async def signals_arrive(*calls: Call) -> None:
    """Wait until signals arrive in both directions of each call; what is sent before a node listens is lost."""
    for call in calls:
        for sender, receiver in (call.clients, call.clients[::-1]):
            await _signal_arrives(call.room, sender, receiver)


async def _signal_arrives(room: str, sender: BareClient, receiver: BareClient) -> None:
    tries = itertools.count()

    async def arrived() -> bool:
        sent = next(tries)
        await sender.send("signal", room=room, data={"try": sent})
        async with asyncio.timeout(ARRIVAL_SECONDS):
            while True:
                frame = await receiver.receive()
                if (frame["type"], frame["room"]) != ("signal", room):
                    raise Disturbed(str(frame))
                if frame["data"]["try"] == sent:
                    return True

    await eventually(arrived, timeout=AGREED_SECONDS, what="a signal arrives")


async def nothing_left_of(fleet: Fleet, node: int) -> None:
    """Wait until Redis holds no trace of a dead node."""
    name = fleet.nodes[node].id

    async def gone() -> bool:
        known = {raw.decode() for raw in await fleet.redis.zrange(keys.nodes(), 0, -1)}
        held = [key async for key in fleet.redis.scan_iter(f"*:held:{name}")]
        assert (name not in known, held) == (True, [])
        return True

    await eventually(gone, timeout=AGREED_SECONDS, interval=0.1, what=f"nothing is left of {name}")


async def kill_everything(fleet: Fleet) -> None:
    """SIGKILL for each process, clients' side last."""
    programs = [*fleet.programs, *fleet.persister_programs]
    await asyncio.gather(*(program.kill() for program in programs))
    await asyncio.gather(fleet.valkey.kill(), fleet.postgres.kill())


async def start_programs(fleet: Fleet) -> None:
    """Start nodes and persisters, and wait until they are ready and Redis is whole."""
    programs = [*fleet.programs, *fleet.persister_programs]
    await asyncio.gather(*(program.start() for program in programs))
    await asyncio.gather(*(program.until_ready() for program in programs))
    await fleet.until_whole()


async def holders(fleet: Fleet, room: str) -> list[tuple[str | None, str | None]]:
    """Node and session of both sides, as the record in Redis has them."""
    (key,) = [key async for key in fleet.redis.scan_iter(f"*:room:{room}")]
    record = json.loads(await fleet.redis.get(key))
    return [(side["node"], side["session"]) for side in record["sides"]]


async def hear(calls: Iterable[Call], kind: str, **fields: Any) -> None:
    """The next frame of each call's Alice has to be this."""
    for call in calls:
        await call.alice.client.expect(kind, room=call.room, **fields)
