"""Referrals over HTTP, on a real loopback server: every answer and every refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from keepline.ops import http
from keepline.ops.health import Health
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.referrals import Referral
from signal_node.http.referral_api import ReferralApi
from signal_node.http.referrals import Referrals
from signal_node.rooms.archive import ArchiveUnavailable
from tests.unit.signal_node.calls import T0, USER_1, USER_2
from tests.unit.signal_node.http.test_rooms_api import KEY, Backend

PATH = "/v1/referrals"
BODY = {"target_user_id": USER_1, "created_by_user_id": USER_2}


class FakeReferrals:
    """Referrals in a dictionary; fails as told."""

    def __init__(self) -> None:
        self.known: dict[str, Referral] = {}
        self.failure: Exception | None = None

    def expires_at(self, referral: Referral) -> int:
        return referral.created_at + 1_000

    async def make(self, target: UUID, created_by: UUID, *names: str | None) -> Referral:
        if self.failure is not None:
            raise self.failure
        code = f"code-{len(self.known)}"
        self.known[code] = Referral(code, target, created_by, *names, T0)  # type: ignore[call-arg, arg-type]
        return self.known[code]

    async def find(self, code: str) -> Referral | None:
        if self.failure is not None:
            raise self.failure
        return self.known.get(code)


@pytest.fixture
def referrals() -> FakeReferrals:
    return FakeReferrals()


@pytest.fixture
async def backend(referrals: FakeReferrals) -> AsyncIterator[Backend]:
    routes = ReferralApi(cast(Referrals, referrals), KEY).routes()
    app = http.create_app(Health(lambda: 0.0), CollectorRegistry(), routes)
    timeout = aiohttp.ClientTimeout(total=10)
    async with http.serve(app, "127.0.0.1", 0) as address, aiohttp.ClientSession(timeout=timeout) as session:
        yield Backend(address, session)


async def test_what_is_made_is_answered_and_found(backend: Backend) -> None:
    status, made = await backend.call("POST", PATH, BODY | {"target_name": "Alice"})
    assert status == 201
    assert made == {
        "referral_code": "code-0",
        **BODY,
        "target_name": "Alice",
        "created_by_name": None,
        "created_at": T0,
        "expires_at": T0 + 1_000,
    }
    assert await backend.call("GET", f"{PATH}/code-0") == (200, made)


async def test_what_is_not_there_is_not_found(backend: Backend) -> None:
    assert await backend.refused("GET", f"{PATH}/nobody") == (404, "referral_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        {},
        {"target_user_id": USER_1},
        BODY | {"target_user_id": "me"},
        BODY | {"target_name": ""},
        BODY | {"target_name": "x" * 201},
        BODY | {"created_by_name": "a\0b"},
        BODY | {"created_by_name": 7},
        BODY | {"referral_code": "mine"},
    ],
)
async def test_bodies_that_cannot_be_are_refused(
    backend: Backend, referrals: FakeReferrals, body: Any
) -> None:
    assert await backend.refused("POST", PATH, body) == (400, "bad_request")
    assert referrals.known == {}


@pytest.mark.parametrize("code", ["x" * 51, "a%20b", "a.b", "%C3%BC", "a%00"])
async def test_codes_that_cannot_be_are_refused(backend: Backend, code: str) -> None:
    assert await backend.refused("GET", f"{PATH}/{code}") == (400, "bad_request")


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), ArchiveUnavailable("away")])
async def test_servers_that_are_away_are_told_with_a_time_to_retry(
    backend: Backend, referrals: FakeReferrals, failure: Exception
) -> None:
    referrals.failure = failure
    status, answer = await backend.call("GET", f"{PATH}/code-0")
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert answer["error"]["retry_after_ms"] > 0
    referrals.failure = StoreUnavailable("away")
    assert await backend.refused("POST", PATH, BODY) == (503, "unavailable")


@pytest.mark.parametrize("key", [None, "Bearer another"])
async def test_both_need_the_key(backend: Backend, key: str | None) -> None:
    assert await backend.refused("POST", PATH, BODY, key=key) == (401, "unauthorized")
    assert await backend.refused("GET", f"{PATH}/code-0", key=key) == (401, "unauthorized")
