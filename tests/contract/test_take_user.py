"""What may be assumed of the registry of users, on each server."""

from __future__ import annotations

from hashlib import sha256

import orjson
import pytest

from keepline.ops.redis.client import Client, connect
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import keys
from signal_node.users.ownership import KEEP_MS, TTL_MS, Users
from tests.contract.changes import contents
from tests.helpers.ports import free_port
from tests.unit.signal_node.calls import SESSION_1, SESSION_2, USER_1, USER_2

KEY = keys.user(USER_1)


class Clock:
    """Time in ms."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replaced() -> list[tuple[str, str]]:
    """The sessions of which it turned out afterwards that they have lost their user, with their nodes."""
    return []


@pytest.fixture
def here(client: Client, clock: Clock, replaced: list[tuple[str, str]]) -> Users:
    return Users(client, "here", clock, on_replaced=lambda node, session: replaced.append((node, session)))


@pytest.fixture
def there(client: Client, clock: Clock) -> Users:
    return Users(client, "there", clock)


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


async def test_a_user_is_recognized_by_the_last_secret_and_nothing_is_taken(
    here: Users, there: Users
) -> None:
    assert not await there.recognizes(USER_1, "none yet")
    taken = await here.take(USER_1, SESSION_1, None)
    assert await there.recognizes(USER_1, taken.resume)
    assert not await there.recognizes(USER_1, "wrong")
    assert not await there.recognizes(USER_2, taken.resume)
    assert await here.holder(USER_1) == ("here", SESSION_1)


async def test_a_secret_is_good_until_its_successor_is_used(here: Users, there: Users) -> None:
    """The welcome that carried the successor may have been lost, also more than once."""
    first = await here.take(USER_1, "a", None)
    lost = await there.take(USER_1, "b", first.resume)
    lost_again = await here.take(USER_1, "c", first.resume)
    second = await there.take(USER_1, "d", first.resume)
    assert len({first.resume, lost.resume, lost_again.resume, second.resume}) == 4
    assert all(taken.resumed for taken in (lost, lost_again, second))
    assert (await here.take(USER_1, "e", second.resume)).resumed
    assert (await there.take(USER_1, "f", first.resume)).outdated
    assert (await there.take(USER_1, "f", lost.resume)).outdated
    assert (await there.take(USER_1, "f", second.resume)).resumed


async def test_who_is_outdated_takes_nothing_from_a_session_that_lives(here: Users, there: Users) -> None:
    phone = await here.take(USER_1, SESSION_1, None)
    laptop = await there.take(USER_1, SESSION_2, None)
    late = await here.take(USER_1, "late", phone.resume)
    assert (late.node, late.session, late.outcome) == ("there", SESSION_2, "outdated")
    assert await there.holder(USER_1) == ("there", SESSION_2)
    assert (await there.take(USER_1, "next", laptop.resume)).resumed


async def test_who_is_outdated_takes_over_when_nobody_is_there(here: Users, there: Users) -> None:
    phone = await here.take(USER_1, SESSION_1, None)
    await there.take(USER_1, SESSION_2, None)
    await there.release(USER_1, SESSION_2)
    late = await here.take(USER_1, "late", phone.resume)
    assert (late.node, late.session, late.outcome) == (None, None, "taken")


async def test_who_is_outdated_takes_over_from_a_session_that_is_known_to_be_dead(
    here: Users, there: Users
) -> None:
    phone = await here.take(USER_1, SESSION_1, None)
    await there.take(USER_1, SESSION_2, None)
    assert (await here.take(USER_1, "late", phone.resume, dead="another")).outdated
    late = await here.take(USER_1, "late", phone.resume, dead=SESSION_2)
    assert (late.session, late.outcome) == (SESSION_2, "taken")


async def test_a_session_that_asks_again_meets_itself(here: Users) -> None:
    """Its first take was carried out, but the answer was lost; it presents again what it came with."""
    first = await here.take(USER_1, SESSION_1, None)
    await here.take(USER_1, SESSION_2, first.resume)
    assert (await here.take(USER_1, SESSION_2, first.resume)).resumed


async def test_an_entry_of_the_release_before_is_understood(here: Users, client: Client) -> None:
    old = {"node": "there", "session": SESSION_1, "resume": sha256(b"old").hexdigest()}
    await client.set(KEY, orjson.dumps(old))
    assert (await here.take(USER_1, SESSION_2, "wrong")).outdated
    assert (await here.take(USER_1, SESSION_2, "old")).resumed


@pytest.mark.parametrize("presented", ["wrong", "", "\\0", "é"])
async def test_a_wrong_secret_is_none(here: Users, presented: str) -> None:
    assert (await here.take(USER_1, SESSION_1, presented)).outcome == "taken"
    assert (await here.take(USER_1, SESSION_2, presented)).outcome == "outdated"


async def test_a_secret_is_good_for_its_own_user(here: Users) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    await here.take(USER_2, SESSION_2, None)
    assert (await here.take(USER_2, "another", first.resume)).outdated


async def test_the_secret_itself_is_not_stored(here: Users, client: Client) -> None:
    taken = await here.take(USER_1, SESSION_1, None)
    assert len(taken.resume) >= 32
    stored = orjson.loads(await client.get(KEY) or b"")
    assert taken.resume not in str(stored)
    assert (await here.take(USER_1, SESSION_2, stored["resume"])).outdated


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
    here.forget(USER_2, SESSION_2)
    await client.flushall()
    await here.put_back()
    assert await here.holder(USER_1) == ("here", SESSION_1)
    assert await here.holder(USER_2) is None
    assert 0 < await client.pttl(KEY) <= TTL_MS
    assert (await there.take(USER_1, SESSION_2, first.resume)).resumed


async def test_what_is_written_again_takes_nothing_from_those_who_came_later(
    here: Users, there: Users, replaced: list[tuple[str, str]]
) -> None:
    await here.take(USER_1, SESSION_1, None)
    await there.take(USER_1, SESSION_2, None)
    await here.put_back()
    assert await here.holder(USER_1) == ("there", SESSION_2)
    assert replaced == [("here", SESSION_1)]  # the word of it had been lost


async def test_what_is_written_again_keeps_the_secret_before(
    here: Users, there: Users, client: Client
) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    await here.take(USER_1, SESSION_2, first.resume)
    await client.flushall()
    await here.put_back()
    assert (await there.take(USER_1, "late", first.resume)).resumed


async def test_a_login_while_redis_was_away_is_registered_afterwards(
    here: Users, there: Users, clock: Clock, client: Client, replaced: list[tuple[str, str]]
) -> None:
    await there.take(USER_1, SESSION_1, None)
    clock.ms += 1
    resume = here.take_alone(USER_1, SESSION_2)
    await here.catch_up()
    assert replaced == [("there", SESSION_1)]
    assert await here.holder(USER_1) == ("here", SESSION_2)
    assert 0 < await client.pttl(KEY) <= TTL_MS
    assert (await there.take(USER_1, "late", resume)).resumed


async def test_a_login_while_redis_was_away_gives_way_to_a_later_one(
    here: Users, there: Users, clock: Clock, replaced: list[tuple[str, str]]
) -> None:
    here.take_alone(USER_1, SESSION_1)
    clock.ms += 1
    await there.take(USER_1, SESSION_2, None)
    await here.catch_up()
    assert replaced == [("here", SESSION_1)]
    assert await here.holder(USER_1) == ("there", SESSION_2)


async def test_an_entry_is_written_again_while_its_connection_lasts(
    here: Users, clock: Clock, client: Client
) -> None:
    await here.take(USER_1, SESSION_1, None)
    await here.take(USER_2, SESSION_2, None)
    await client.pexpire(KEY, 60_000)
    await here.catch_up()
    assert await client.pttl(KEY) <= 60_000  # it was written a moment ago
    clock.ms += KEEP_MS
    here.forget(USER_2, SESSION_2)
    await client.delete(keys.user(USER_2))
    await here.catch_up()
    assert await client.pttl(KEY) > 60_000
    assert await here.holder(USER_1) == ("here", SESSION_1)
    assert await here.holder(USER_2) is None  # it has gone


async def test_the_end_of_a_session_while_redis_was_away_is_noted_afterwards(
    here: Users, there: Users
) -> None:
    first = await here.take(USER_1, SESSION_1, None)
    here.forget(USER_1, SESSION_1)
    here.release_later(USER_1, SESSION_1)
    await here.catch_up()
    assert await here.holder(USER_1) is None
    assert (await there.take(USER_1, SESSION_2, first.resume)).resumed
    here.release_later(USER_1, SESSION_1)
    await here.catch_up()
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
    away = Users(nowhere, "here", lambda: 0)
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


@pytest.mark.parametrize(
    "theirs", [b"Alice", b"7", b"[]", b'{"name": "Alice"}', b'{"session": "of the app"}', None]
)
async def test_a_key_of_an_app_is_not_overwritten_and_the_user_comes_in(
    here: Users, client: Client, clock: Clock, theirs: bytes | None
) -> None:
    """Without a prefix an app's `user:<uuid>` is where ours would be: a string, or a hash."""
    if theirs is None:
        await client.hset(KEY, "name", "Alice")
    else:
        await client.set(KEY, theirs)
    before = await contents(client)
    taken = await here.take(USER_1, SESSION_1, None)
    assert (taken.node, taken.session, taken.outcome) == (None, None, "taken")
    await here.release(USER_1, SESSION_1)
    clock.ms += KEEP_MS
    await here.catch_up()
    await here.put_back()
    assert await contents(client) == before
    if theirs is not None:
        assert await here.holder(USER_1) is None
        assert not await here.recognizes(USER_1, "a secret")
