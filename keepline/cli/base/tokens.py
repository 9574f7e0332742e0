"""Tokens for `hello`, like those that an app's backend issues for its users."""

import uuid
from collections.abc import Mapping

import jwt

from keepline.cli.base.errors import UsageError

SHORTEST_SECRET_BYTES = 32


def mint(user: uuid.UUID, secret: str, *, now: float, ttl: int, environ: Mapping[str, str]) -> str:
    """Return a JWT (HS256) for `user`, valid from `now` (seconds since 1970) for `ttl` seconds.

    Issuer and audience are KEEPLINE_AUTH_ISSUER and KEEPLINE_AUTH_AUDIENCE, as in the nodes. Raises UsageError if the
    secret is shorter than the nodes accept.
    """
    if len(secret.encode()) < SHORTEST_SECRET_BYTES:
        raise UsageError(f"KEEPLINE_AUTH_SECRET must have at least {SHORTEST_SECRET_BYTES} bytes long")
    claims: dict[str, object] = {"sub": str(user), "iat": int(now), "exp": int(now) + ttl}
    for claim, variable in (("iss", "KEEPLINE_AUTH_ISSUER"), ("aud", "KEEPLINE_AUTH_AUDIENCE")):
        if environ.get(variable):
            claims[claim] = environ[variable]
    return jwt.encode(claims, secret, algorithm="HS256")
