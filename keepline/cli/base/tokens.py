"""Tokens for `hello`: what an app's backend would mint for its users."""

import uuid
from collections.abc import Mapping

import jwt

from keepline.cli.base.errors import UsageError

SHORTEST_SECRET_BYTES = 32


def mint(user: uuid.UUID, secret: str, *, now: float, ttl: int, environ: Mapping[str, str]) -> str:
    """Return a JWT (HS256) for `user`, valid from `now` (seconds since 1970) for `ttl` seconds.

    Issuer and audience are those that the nodes expect, by KEEPLINE_AUTH_ISSUER and KEEPLINE_AUTH_AUDIENCE.
    Raises UsageError when the secret is too short for the nodes.
    """
    if len(secret.encode()) < SHORTEST_SECRET_BYTES:
        raise UsageError(f"KEEPLINE_AUTH_SECRET should be at least {SHORTEST_SECRET_BYTES} bytes long")
    claims: dict[str, object] = {"sub": str(user), "iat": int(now), "exp": int(now) + ttl}
    for claim, variable in (("iss", "KEEPLINE_AUTH_ISSUER"), ("aud", "KEEPLINE_AUTH_AUDIENCE")):
        if environ.get(variable):
            claims[claim] = environ[variable]
    return jwt.encode(claims, secret, algorithm="HS256")
