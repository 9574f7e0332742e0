"""What may be assumed of referrals, on each server: stored with their event or not at all, gone when they expire."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from keepline.ops.redis.client import Client, connect
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import keys
from keepline.room.referrals import Referral, decode_referral
from signal_node.http import referrals as referrals_module
from signal_node.http.referrals import Referrals
from signal_node.rooms.archive import Archive, ArchiveUnavailable
from tests.contract.addresses import PARTITIONS, T0
from tests.contract.changes import contents
from tests.contract.conftest import RedisServer
from tests.helpers.ports import free_port
from tests.unit.signal_node.calls import USER_1, USER_2

TARGET, MAKER = UUID(USER_1), UUID(USER_2)
KEEP_SECONDS = 600.0


class FakeArchive:
    """Postgres with the referrals that the test gives it; fails as told."""

    def __init__(self) -> None:
        self.known: dict[str, Referral] = {}
        self.failure: Exception | None = None
        self.asked: list[tuple[str, float]] = []

    async def referral(self, code: str, keep_seconds: float) -> Referral | None:
        self.asked.append((code, keep_seconds))
        if self.failure is not None:
            raise self.failure
        return self.known.get(code)


@pytest.fixture(autouse=True)
def whole_server(redis_server: RedisServer) -> None:
    """Nobody refers anybody in the simulation."""
    if redis_server.name == "simulated":
        pytest.skip("nobody refers anybody in the simulation")


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive()


@pytest.fixture
def over(archive: FakeArchive) -> Callable[[Client], Referrals]:
    """The referrals of a node over a client."""

    def make(client: Client) -> Referrals:
        known = cast(Archive, archive)
        return Referrals(client, PARTITIONS, known, keep_seconds=KEEP_SECONDS, now=lambda: T0)

    return make


@pytest.fixture
def referrals(client: Client, over: Callable[[Client], Referrals]) -> Referrals:
    return over(client)


async def told(client: Client) -> list[Referral]:
    """The referrals that the persister is told of."""
    entries: list[Any] = [await client.xrange(keys.events(p)) for p in range(PARTITIONS)]
    return [decode_referral(fields[b"event"]) for stream in entries for _, fields in stream]


def key_of(referral: Referral) -> str:
    code = referral.referral_code
    return keys.referral(keys.partition_of(code, PARTITIONS), code)


async def test_a_referral_is_found_and_the_persister_told(
    client: Client, referrals: Referrals, archive: FakeArchive
) -> None:
    made = await referrals.make(TARGET, MAKER, "Alice", None)
    assert made == Referral(made.referral_code, TARGET, MAKER, "Alice", None, T0)
    assert await referrals.find(made.referral_code) == made
    assert await told(client) == [made]
    assert 0 < await client.pttl(key_of(made)) <= KEEP_SECONDS * 1_000
    assert archive.asked == []


async def test_codes_are_fit_for_urls_and_differ(referrals: Referrals) -> None:
    codes = [(await referrals.make(TARGET, MAKER, None, None)).referral_code for _ in range(20)]
    assert len(set(codes)) == 20
    assert all(len(code) == 22 and set(code) <= set(letters_of_urls()) for code in codes)


def letters_of_urls() -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


async def test_a_code_that_is_taken_is_not_given_again(
    client: Client, referrals: Referrals, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = iter(["same", "same", "other"])
    monkeypatch.setattr(secrets, "token_urlsafe", lambda _: next(codes))
    first = await referrals.make(TARGET, MAKER, None, None)
    second = await referrals.make(MAKER, TARGET, None, None)
    assert (first.referral_code, second.referral_code) == ("same", "other")
    assert await referrals.find("same") == first
    assert len(await told(client)) == 2


async def test_a_write_whose_answer_was_lost_is_tried_again_without_harm(
    client: Client, referrals: Referrals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_urlsafe", lambda _: "same")
    assert await referrals.make(TARGET, MAKER, None, None) == await referrals.make(TARGET, MAKER, None, None)
    assert len(await told(client)) == 1


async def test_what_redis_has_lost_comes_from_postgres_and_is_put_back_for_what_is_left_of_its_time(
    client: Client, referrals: Referrals, archive: FakeArchive
) -> None:
    old = replace(await referrals.make(TARGET, MAKER, None, "Bob"), created_at=T0 - 400_000)
    await client.flushall()
    archive.known[old.referral_code] = old
    assert await referrals.find(old.referral_code) == old
    assert 0 < await client.pttl(key_of(old)) <= 200_000
    assert await referrals.find(old.referral_code) == old
    assert archive.asked == [(old.referral_code, KEEP_SECONDS)]
    assert await told(client) == []


async def test_what_nobody_knows_is_not_there(referrals: Referrals, archive: FakeArchive) -> None:
    assert await referrals.find("nobody") is None
    archive.failure = ArchiveUnavailable("away")
    with pytest.raises(ArchiveUnavailable):
        await referrals.find("nobody")


async def test_without_postgres_redis_alone_decides(client: Client) -> None:
    referrals = Referrals(client, PARTITIONS, None, keep_seconds=KEEP_SECONDS, now=lambda: T0)
    made = await referrals.make(TARGET, MAKER, None, None)
    assert await referrals.find(made.referral_code) == made
    await client.delete(key_of(made))
    assert await referrals.find(made.referral_code) is None


async def test_without_redis_postgres_answers_for_what_it_has(
    referrals: Referrals, over: Callable[[Client], Referrals], archive: FakeArchive
) -> None:
    made = await referrals.make(TARGET, MAKER, None, None)
    archive.known[made.referral_code] = made
    client = connect(f"redis://127.0.0.1:{free_port()}/0")
    try:
        alone = over(client)
        assert await alone.find(made.referral_code) == made
        with pytest.raises(StoreUnavailable):
            await alone.find("nobody")
        with pytest.raises(StoreUnavailable):
            await alone.make(TARGET, MAKER, None, None)
    finally:
        await client.aclose()


async def test_what_comes_late_is_not_stored(
    client: Client, over: Callable[[Client], Referrals], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrals_module, "STORED_SECONDS", -1.0)
    with pytest.raises(StoreUnavailable, match="too late"):
        await over(client).make(TARGET, MAKER, None, None)
    assert await contents(client) == {}
