"""Referrals over HTTP: create one, look one up. Bearer service key."""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from keepline.ops.http import HttpError
from keepline.room.referrals import MAX_CODE, MAX_NAME, Referral
from signal_node.http.bodies import decode_body
from signal_node.http.referrals import Referrals
from signal_node.http.service_key import ServiceKey
from signal_node.protocol import snapshots
from signal_node.rooms.archive import ArchiveUnavailable
from signal_node.signaling.work import RETRY_AFTER_MS

_CODE = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_CODE}}}")

# No U+0000, which Postgres cannot store.
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern="^[^\0]*$")]


class MakeReferral(Struct, forbid_unknown_fields=True):
    """The body of POST /v1/referrals."""

    target_user_id: UUID
    created_by_user_id: UUID
    target_name: _Name | None = None
    created_by_name: _Name | None = None


class ReferralAnswer(Struct):
    """A referral in the form of the HTTP API. Times are ms since 1970."""

    referral_code: str
    target_user_id: UUID
    created_by_user_id: UUID
    target_name: str | None
    created_by_name: str | None
    created_at: int
    expires_at: int


class ReferralApi:
    """The routes for the referrals of a cluster."""

    def __init__(self, referrals: Referrals, service_key: str | None) -> None:
        self._referrals = referrals
        self._key = ServiceKey(service_key)

    def routes(self) -> list[web.RouteDef]:
        """All routes, each with the service key."""
        return [
            web.post("/v1/referrals", self._key.guarded(self._make)),
            web.get("/v1/referrals/{referral_code}", self._key.guarded(self._get)),
        ]

    async def _make(self, request: web.Request) -> web.Response:
        body = decode_body(await request.read(), MakeReferral)
        referral = await self._referrals.make(
            body.target_user_id, body.created_by_user_id, body.target_name, body.created_by_name
        )
        return self._answer(referral, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        code = request.match_info["referral_code"]
        if not _CODE.fullmatch(code):
            raise HttpError(
                400,
                "bad_request",
                f"a referral code has 1 to {MAX_CODE} characters of A-Z, a-z, 0-9, _ and -",
            )
        try:
            referral = await self._referrals.find(code)
        except ArchiveUnavailable:
            raise HttpError(
                503, "unavailable", "Postgres is unavailable; retry later", retry_after_ms=RETRY_AFTER_MS
            ) from None
        if referral is None:
            raise HttpError(404, "referral_not_found", "referral not found; it may have expired")
        return self._answer(referral)

    def _answer(self, referral: Referral, status: int = 200) -> web.Response:
        answer = ReferralAnswer(
            referral.referral_code,
            referral.target_user_id,
            referral.created_by_user_id,
            referral.target_name,
            referral.created_by_name,
            referral.created_at,
            self._referrals.expires_at(referral),
        )
        return web.Response(body=snapshots.to_json(answer), status=status, content_type="application/json")
