"""What may be assumed of commands that leave together, on each server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError, ResponseError

from keepline.ops.redis import batches as module
from keepline.ops.redis.batches import MAX_BATCH, Batches
from keepline.ops.redis.client import Client, connect
from tests.helpers.ports import free_port


class Counting:
    """A client that counts what is written to it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.writes = 0

    def pipeline(self, *, transaction: bool) -> Any:
        self.writes += 1
        return self._client.pipeline(transaction=transaction)


async def test_everybody_gets_an_answer_of_their_own(client: Client) -> None:
    batches = Batches(client)
    count = MAX_BATCH + 10
    written = await asyncio.gather(*(batches.ask("SADD", f"set:{n}", n) for n in range(count)))
    assert written == [1] * count
    read = await asyncio.gather(*(batches.ask("SISMEMBER", f"set:{n}", n % 7) for n in range(count)))
    assert read == [int(n == n % 7) for n in range(count)]


async def test_what_is_asked_in_one_tick_leaves_in_one_write(client: Client) -> None:
    counting = Counting(client)
    batches = Batches(counting)  # type: ignore[arg-type]
    await asyncio.gather(*(batches.ask("GET", "{a}:b") for _ in range(50)))
    assert counting.writes == 1
    await batches.ask("GET", "{a}:b")
    assert counting.writes == 2


async def test_commands_on_one_key_stay_in_order(client: Client) -> None:
    batches = Batches(client)
    asked = [batches.ask("SADD", "set", 1), batches.ask("SISMEMBER", "set", 1), batches.ask("SREM", "set", 1)]
    assert await asyncio.gather(*asked, batches.ask("SISMEMBER", "set", 1)) == [1, 1, 1, 0]


async def test_an_error_is_for_the_one_who_asked(client: Client) -> None:
    batches = Batches(client)
    await batches.ask("SADD", "set", 1)
    wrong, right = batches.ask("GET", "set"), batches.ask("SISMEMBER", "set", 1)
    assert await right == 1
    with pytest.raises(ResponseError):
        await wrong


async def test_what_was_given_up_before_it_left_is_not_done(client: Client) -> None:
    batches = Batches(client)
    given_up, other = batches.ask("SADD", "set", "given up"), batches.ask("SADD", "set", "other")
    given_up.cancel()
    await other
    assert await client.smembers("set") in ({b"other"}, [b"other"])  # the simulated client leaves it a list


async def test_who_waits_at_the_end_is_told(client: Client) -> None:
    batches = Batches(client)
    not_begun = batches.ask("GET", "key")
    await batches.aclose()
    asked = [batches.ask("GET", "{a}:b") for _ in range(MAX_BATCH + 1)]
    await asyncio.sleep(0)
    await batches.aclose()
    answers = await asyncio.gather(not_begun, *asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConnectionError}


async def test_a_server_that_is_away_is_said_to_be_to_all() -> None:
    nowhere = connect(f"redis://127.0.0.1:{free_port()}")
    try:
        batches = Batches(nowhere)
        asked = [batches.ask("GET", "key") for _ in range(3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionError] * 3
    finally:
        await nowhere.aclose()


async def test_only_so_many_may_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    batches = Batches(client)
    asked = [batches.ask("GET", "{a}:b") for _ in range(3)]
    with pytest.raises(ConnectionError, match="already waiting for this server"):
        await asked[2]
    assert await asyncio.gather(*asked[:2]) == [None, None]
