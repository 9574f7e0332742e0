"""What may be assumed of the registry of users, on each server."""

from __future__ import annotations

import orjson
import pytest

from keepline.ops.redis.client import Client, connect
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import keys
from signal_node.users.ownership import TTL_MS, Users
from tests.helpers.ports import free_port
from tests.unit.signal_node.calls import SESSION_1, SESSION_2, USER_1, USER_2

KEY = keys.user(USER_1)


@pytest.fixture
def here(client: Client) -> Users:
    return Users(client, "here")


@pytest.fixture
def there(client: Client) -> Users:
    return Users(client, "there")


async def test_a_user_whom_nobody_held(here: Users, client: Client) -> None:
    taken = await here.take(USER_1, SESSION_1, None)
    assert (taken.node, taken.session, taken.resumed) == (None, None, False)
    assert await here.holder(USER_1) == ("here", SESSION_1)
    assert await here.holder(USER_2) is None
    assert 0 < await client.pttl(KEY) <= TTL_MS


async def test_a_user_who_connects_elsewhere_is_taken_over(here: Users, there: Users) -> None:
    await here.take(USER_1, SESSION_1, None)
    taken = await there.take(USER_1, SESSION_2, None)
    assert (taken.node, taken.session, taken.resumed) == ("here", SESSION_1, False)
    assert await here.holder(USER_1) == ("there", SESSION_2)


async def test_the_same_client_shows_itself_by_the_last_secret(here: Users, there: Users) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    second = await there.take(USER_1, SESSION_2, first.resume)
    assert (second.node, second.session, second.resumed) == ("here", SESSION_1, True)
    third = await here.take(USER_1, SESSION_1, second.resume)
    assert third.resumed


async def test_a_secret_is_good_once(here: Users) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    second = await here.take(USER_1, SESSION_2, first.resume)
    assert len({first.resume, second.resume}) == 2
    again = await here.take(USER_1, SESSION_1, first.resume)
    assert not again.resumed


@pytest.mark.parametrize("presented", ["wrong", "", "\\0", "é"])
async def test_a_wrong_secret_is_none(here: Users, presented: str) -> None:
    assert not (await here.take(USER_1, SESSION_1, presented)).resumed
    assert not (await here.take(USER_1, SESSION_2, presented)).resumed


async def test_a_secret_is_good_for_its_own_user(here: Users) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    await here.take(USER_2, SESSION_2, None)
    assert not (await here.take(USER_2, "another", first.resume)).resumed


async def test_the_secret_itself_is_not_stored(here: Users, client: Client) -> None:
    taken = await here.take(USER_1, SESSION_1, None)
    assert len(taken.resume) >= 32
    stored = orjson.loads(await client.get(KEY) or b"")
    assert taken.resume not in str(stored)
    digest = stored["resume"]
    assert not (await here.take(USER_1, SESSION_2, digest)).resumed


async def test_who_has_gone_may_still_resume(here: Users, there: Users, client: Client) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    await here.release(USER_1, SESSION_1)
    assert await here.holder(USER_1) is None
    assert await client.pttl(KEY) > 0
    taken = await there.take(USER_1, SESSION_2, first.resume)
    assert (taken.node, taken.session, taken.resumed) == (None, None, True)


async def test_a_late_word_of_an_older_session_changes_nothing(here: Users, there: Users) -> None:
    await here.take(USER_1, SESSION_1, None)
    await there.take(USER_1, SESSION_2, None)
    await here.release(USER_1, SESSION_1)
    await here.release(USER_2, SESSION_1)
    assert await here.holder(USER_1) == ("there", SESSION_2)
    assert await here.holder(USER_2) is None


async def test_what_redis_has_lost_is_written_again(here: Users, there: Users, client: Client) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    await here.take(USER_2, SESSION_2, None)
    here.let_go(USER_2, SESSION_2)
    await client.flushall()
    await here.put_back()
    assert await here.holder(USER_1) == ("here", SESSION_1)
    assert await here.holder(USER_2) is None
    assert 0 < await client.pttl(KEY) <= TTL_MS
    assert (await there.take(USER_1, SESSION_2, first.resume)).resumed


async def test_what_is_written_again_takes_nothing_from_others(here: Users, there: Users) -> None:
    await here.take(USER_1, SESSION_1, None)
    await there.take(USER_1, SESSION_2, None)
    await here.put_back()
    assert await here.holder(USER_1) == ("there", SESSION_2)


async def test_a_server_that_forgot_the_scripts_is_told_again(here: Users, client: Client) -> None:
    await client.script_flush()
    first = await here.take(USER_1, SESSION_1, None)
    await client.script_flush()
    assert (await here.take(USER_1, SESSION_2, first.resume)).resumed
    await client.script_flush()
    await here.release(USER_1, SESSION_2)
    assert await here.holder(USER_1) is None


async def test_a_server_that_is_away_is_said_to_be() -> None:
    nowhere = connect(f"redis://127.0.0.1:{free_port()}")
    away = Users(nowhere, "here")
    try:
        for work in (
            away.take(USER_1, SESSION_1, None),
            away.holder(USER_1),
            away.release(USER_1, SESSION_1),
        ):
            with pytest.raises(StoreUnavailable):
                await work
    finally:
        await nowhere.aclose()
