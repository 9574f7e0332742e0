"""Verifies tokens: whether one is valid, and which user it identifies.

A key is used only with its own algorithm: the shared secret with HS256, a key of the JWKS with RS256 or ES256. A token
with another algorithm is refused before any key is tried (RFC 8725, 3.1).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any
from uuid import UUID

import aiohttp
import jwt
import orjson
from jwt.exceptions import InvalidSubjectError

from keepline.ops.backoff import Backoff

LEEWAY_SECONDS = 5
_FETCH_SECONDS = 5
_FRESH_SECONDS = 600.0
_REFETCH_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_MAX_JWKS_BYTES = 256 * 1024
_MAX_MISSING = 1_000
_LONGEST_RETRY_SECONDS = 60.0

_SIGNED = (
    jwt.ImmatureSignatureError,
    jwt.InvalidAudienceError,
    jwt.InvalidIssuedAtError,
    jwt.InvalidIssuerError,
    InvalidSubjectError,
    jwt.MissingRequiredClaimError,
)
"""Errors in claims, which are checked after the signature."""

KEY_SECONDS = 10.0
"""How long a token waits for a key that has to be fetched."""

_MAX_HEADER = 1_024

REMEMBERED_SECONDS = 60.0
"""How long a valid token is not checked again, within its own lifetime."""

MAX_REMEMBERED = 10_000
"""Maximum number of remembered tokens, by digest; the oldest are dropped."""


class Unauthorized(Exception):
    """The token is invalid. The message tells the client why.

    `is_guess`: the token was not signed by us. An expired token, or one for another of our services, is not an attempt
    to guess.
    """

    def __init__(self, why: str, *, is_guess: bool = True) -> None:
        super().__init__(why)
        self.is_guess = is_guess


class KeysUnavailable(Exception):
    """The JWKS is unavailable, or may have a key that it did not have a moment ago. The token may be valid."""


class Jwks:
    """The public keys behind a URL. Known keys are used at once, even if the URL fails.

    `run` fetches the set every ten minutes. An unknown key id may be a new key: it counts as unknown only if it is
    missing in a set that was fetched after it was first seen. Until then the answer is "later". The set is fetched at
    most every five seconds, whatever ids arrive.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._missing: OrderedDict[str | None, float] = OrderedDict()
        self._fetched_at: float | None = None
        self._failed_at: float | None = None
        self._problem = ""
        self._lock = asyncio.Lock()

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Refresh the set until cancelled, so that a revoked key is not used for long."""
        backoff = Backoff(_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        while True:
            await self._fetch()
            if self._problem:
                await sleep(_RETRY_SECONDS + backoff.next())
            else:
                backoff.reset()
                await sleep(_FRESH_SECONDS)

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """The key with that id. Raises Unauthorized for an unknown one, KeysUnavailable."""
        return self._known(key_id) or await self._look_for(key_id)

    def has(self, key: jwt.PyJWK) -> bool:
        """Whether that very key was in the last fetched set."""
        return self._keys.get(key.key_id) is key

    def _known(self, key_id: str | None) -> jwt.PyJWK | None:
        """The only key, for a token without key id."""
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _look_for(self, key_id: str | None) -> jwt.PyJWK:
        seen_at = self._missing.setdefault(key_id, self._clock())
        if len(self._missing) > _MAX_MISSING:
            self._missing.popitem(last=False)
        if self._fetched_at is None or self._fetched_at < seen_at:
            await self._fetch()
        key = self._known(key_id)
        if key is not None:
            self._missing.pop(key_id, None)
            return key
        if self._fetched_at is not None and self._fetched_at >= seen_at:
            raise Unauthorized("the token was signed with an unknown key")
        why = self._problem or "the keys were fetched a moment ago, and the token's key is not among them"
        raise KeysUnavailable(f"cannot fetch the keys that sign tokens: {why}")

    def _older_than(self, seconds: float) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at > seconds

    async def _fetch(self) -> None:
        """Fetch the set, unless it was fetched or failed a moment ago. Concurrent callers share the fetch."""
        async with self._lock:
            failed = self._failed_at is not None and self._clock() - self._failed_at <= _RETRY_SECONDS
            if self._older_than(_REFETCH_SECONDS) and not failed:
                await self._get_keys()

    async def _get_keys(self) -> None:
        began = self._clock()
        try:
            self._keys = _keys_of(await _get(self._url))
        except (aiohttp.ClientError, TimeoutError, jwt.PyJWTError, ValueError, TypeError) as error:
            self._failed_at = self._clock()
            self._problem = str(error) or type(error).__name__
        else:
            self._fetched_at, self._failed_at, self._problem = began, None, ""


async def _get(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
    body = bytearray()
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as http,
        http.get(url) as response,
    ):
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAX_JWKS_BYTES:
                raise ValueError(f"more than {_MAX_JWKS_BYTES} bytes")
    return bytes(body)


def _keys_of(body: bytes) -> dict[str | None, jwt.PyJWK]:
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a JWK set")
    return {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys}


@dataclass(frozen=True, slots=True)
class _Checked:
    """A verified token: its user, its key, and until when (s since 1970) it is not checked again."""

    user: str
    key: Any
    until: float


class Verifier:
    """Checks tokens against the shared secret, the JWKS, or both, depending on the token's algorithm."""

    def __init__(
        self,
        secret: str | None,
        jwks: Jwks | None,
        issuer: str | None = None,
        audience: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the time of day in seconds since 1970."""
        self._secret = secret
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._checked: OrderedDict[bytes, _Checked] = OrderedDict()

    def user_lately(self, token: str) -> str | None:
        """The user of a token that was verified a moment ago, with a key that is still known; None otherwise."""
        checked = self._checked.get(_digest(token))
        if checked is None or self._clock() >= checked.until:
            return None
        if checked.key is not self._secret and (self._jwks is None or not self._jwks.has(checked.key)):
            return None
        return checked.user

    async def user_of(self, token: str) -> str:
        """The user's UUID, in lower case. Raises Unauthorized or KeysUnavailable."""
        header = _header_of(token)
        algorithm = header.get("alg")
        key: Any
        if algorithm == "HS256" and self._secret is not None:
            key = self._secret
        elif algorithm in ("RS256", "ES256") and self._jwks is not None:
            key = await self._fetched(self._jwks, header.get("kid"))
        else:
            raise Unauthorized("the token's algorithm is not accepted here")
        claims = self._claims(token, key, algorithm)
        user = _user(claims)
        self._remember(token, user, key, claims["exp"])
        return user

    async def _fetched(self, jwks: Jwks, key_id: str | None) -> jwt.PyJWK:
        try:
            async with asyncio.timeout(KEY_SECONDS):
                return await jwks.key(key_id)
        except TimeoutError:
            raise KeysUnavailable(
                f"the keys that sign tokens did not arrive within {KEY_SECONDS:g} s"
            ) from None

    def _remember(self, token: str, user: str, key: Any, expires_at: float) -> None:
        until = min(self._clock() + REMEMBERED_SECONDS, float(expires_at))
        self._checked[_digest(token)] = _Checked(user, key, until)
        if len(self._checked) > MAX_REMEMBERED:
            self._checked.popitem(last=False)

    def _claims(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired", is_guess=False) from None
        except jwt.InvalidSignatureError:
            raise Unauthorized("the token's signature is wrong") from None
        except jwt.PyJWTError as error:
            is_guess = not isinstance(error, _SIGNED)
            raise Unauthorized(f"the token is not valid: {error}", is_guess=is_guess) from None


def _header_of(token: str) -> dict[str, Any]:
    """What the token says of its signature. Raises Unauthorized."""
    header, _, rest = token.partition(".")
    try:
        if rest.count(".") != 1 or len(header) > _MAX_HEADER:
            raise jwt.DecodeError
        return _decoded_header(header)
    except jwt.PyJWTError:
        raise Unauthorized("the token is not a JWT") from None


@lru_cache(64)
def _decoded_header(header: str) -> dict[str, Any]:
    """All tokens of an issuer begin alike."""
    return jwt.get_unverified_header(f"{header}..")


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _user(claims: dict[str, Any]) -> str:
    try:
        return str(UUID(claims["sub"]))
    except (ValueError, AttributeError, TypeError):
        raise Unauthorized("the token's sub is not a UUID", is_guess=False) from None
