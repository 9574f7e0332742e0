"""Tokens for `hello`."""

import uuid

import jwt
import pytest

from keepline.cli.base.errors import UsageError
from keepline.cli.base.tokens import mint

USER = uuid.UUID("7f3c1e0a-6a54-4d2c-9a34-0d5c2a1b3c4d")
SECRET = "s" * 32
NOW = 1_800_000_000.7


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        token,
        SECRET,
        algorithms=["HS256"],
        options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
    )
    return claims


def test_a_token_names_the_user_and_its_end() -> None:
    token = mint(USER, SECRET, now=NOW, ttl=60, environ={"KEEPLINE_AUTH_ISSUER": ""})
    assert claims_of(token) == {"sub": str(USER), "iat": 1_800_000_000, "exp": 1_800_000_060}


def test_issuer_and_audience_are_those_of_the_nodes() -> None:
    environ = {"KEEPLINE_AUTH_ISSUER": "https://app.example", "KEEPLINE_AUTH_AUDIENCE": "keepline"}
    claims = claims_of(mint(USER, SECRET, now=NOW, ttl=60, environ=environ))
    assert (claims["iss"], claims["aud"]) == ("https://app.example", "keepline")


def test_a_secret_that_nodes_refuse_is_refused_here() -> None:
    with pytest.raises(UsageError, match="at least 32 bytes"):
        mint(USER, "short", now=NOW, ttl=60, environ={})
