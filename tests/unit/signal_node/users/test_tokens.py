"""Tokens: whose are good, by the shared secret and by public keys from a real loopback server."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from signal_node.users import tokens
from signal_node.users.tokens import Jwks, KeysUnavailable, Unauthorized, Verifier
from tests.helpers.waiting import eventually

SECRET = "a shared secret of 32 bytes, say"
USER = "11111111-1111-4111-8111-11111111ABCD"
LATER = 4_000_000_000
RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ANOTHER_EC_KEY = ec.generate_private_key(ec.SECP256R1())
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def claims(**changes: Any) -> dict[str, Any]:
    given = {"sub": USER, "exp": LATER, **changes}
    return {name: value for name, value in given.items() if value is not None}


def hs256(secret: str = SECRET, **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm="HS256")


def signed(key: PrivateKey, key_id: str | None, **changes: Any) -> str:
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    headers = None if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def by_hand(header: dict[str, Any], body: dict[str, Any], signature: str = "") -> str:
    parts = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, body))
    return ".".join((*parts, signature))


async def refusal(verifier: Verifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await verifier.user_of(token)
    return str(refused.value)


BY_SECRET = Verifier(SECRET, None)

# --- the shared secret ---


async def test_a_good_token_names_its_user_in_lower_case() -> None:
    assert await BY_SECRET.user_of(hs256()) == USER.lower()


async def test_a_token_is_good_until_it_expires_give_or_take_some_seconds() -> None:
    now = int(time.time())
    await BY_SECRET.user_of(hs256(exp=now - 1))
    assert await refusal(BY_SECRET, hs256(exp=now - 60)) == "the token has expired"


async def test_a_token_may_not_be_used_before_its_time() -> None:
    assert "not yet valid" in await refusal(BY_SECRET, hs256(nbf=LATER - 10))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"sub": "alice"}, "not a UUID"),
        ({"sub": ""}, "not a UUID"),
        ({"exp": "tomorrow"}, "exp"),
    ],
)
async def test_claims_that_are_missing_or_wrong(changes: dict[str, Any], why: str) -> None:
    assert why in await refusal(BY_SECRET, hs256(**changes))


async def test_a_sub_that_is_no_text_is_refused() -> None:
    token = jwt.PyJWS().encode(json.dumps({"sub": 7, "exp": LATER}).encode(), SECRET, algorithm="HS256")
    assert "sub" in (await refusal(BY_SECRET, token)).lower()


@pytest.mark.parametrize(
    "token", ["", "x", "a.b", "a.b.c", "é.é.é", "\0", "." * 4096, by_hand({"alg": ["HS256"]}, {})]
)
async def test_what_is_no_token_is_refused(token: str) -> None:
    await refusal(BY_SECRET, token)


async def test_a_token_of_another_secret_is_refused() -> None:
    assert await refusal(BY_SECRET, hs256("b" * 32)) == "the token's signature is wrong"


async def test_a_token_whose_claims_were_changed_is_refused() -> None:
    header, _, signature = hs256().split(".")
    _, other_claims, _ = hs256(sub="22222222-2222-4222-8222-222222222222").split(".")
    assert (
        await refusal(BY_SECRET, f"{header}.{other_claims}.{signature}") == "the token's signature is wrong"
    )


NOT_ACCEPTED = "the token's algorithm is not accepted here"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", ""])
async def test_another_algorithm_is_refused_before_any_key_is_tried(algorithm: str) -> None:
    token = by_hand({"alg": algorithm, "typ": "JWT"}, claims())
    assert await refusal(BY_SECRET, token) == NOT_ACCEPTED


async def test_the_secret_checks_hs256_only() -> None:
    longer = jwt.encode(claims(), SECRET * 2, algorithm="HS512")
    assert await refusal(Verifier(SECRET * 2, None), longer) == NOT_ACCEPTED


async def test_with_public_keys_alone_no_secret_opens() -> None:
    """The classic: a token "signed" with the public key as if it were a shared secret."""
    by_keys = Verifier(None, Jwks("http://127.0.0.1:1/never-asked", lambda: 0.0))
    public = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": "rsa"}
    unsigned = by_hand(header, claims()).rstrip(".")
    signature = jwt.get_algorithm_by_name("HS256").sign(unsigned.encode(), public)
    token = f"{unsigned}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert await refusal(by_keys, token) == NOT_ACCEPTED
    assert await refusal(by_keys, hs256()) == NOT_ACCEPTED


async def test_issuer_and_audience_where_they_are_set() -> None:
    strict = Verifier(SECRET, None, "https://issuer", "keepline")
    good: dict[str, Any] = {"iss": "https://issuer", "aud": ["other", "keepline"]}
    assert await strict.user_of(hs256(**good)) == USER.lower()
    for wrong in ({"iss": "https://evil"}, {"iss": None}, {"aud": "other"}, {"aud": None}):
        await refusal(strict, hs256(**{**good, **wrong}))


async def test_an_audience_does_not_matter_where_none_is_set() -> None:
    assert await BY_SECRET.user_of(hs256(aud="whoever", iss="whoever")) == USER.lower()


# --- public keys ---


class KeyServer:
    """Serves a JWKS on loopback, as told."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str | None, PrivateKey] = {"rsa": RSA_KEY, "ec": EC_KEY}
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0
        self.now = 1_000.0
        self.answers = asyncio.Event()
        self.answers.set()

    def verifier(self) -> Verifier:
        return Verifier(None, Jwks(self.url, lambda: self.now))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        await self.answers.wait()
        body = self.document() if self.body is None else self.body
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for start in range(0, len(body), 100):
            await response.write(body[start : start + 100])
            await asyncio.sleep(0)
        return response

    def document(self) -> bytes:
        return json.dumps({"keys": [_public(key_id, key) for key_id, key in self.keys.items()]}).encode()


def _public(key_id: str | None, key: PrivateKey) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return public if key_id is None else {**public, "kid": key_id}


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    app = web.Application()
    app.router.add_get("/jwks.json", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/jwks.json"
        yield server
    finally:
        await runner.cleanup()


async def test_rs256_and_es256_by_the_key_that_the_token_names(server: KeyServer) -> None:
    verifier = server.verifier()
    assert await verifier.user_of(signed(RSA_KEY, "rsa")) == USER.lower()
    assert await verifier.user_of(signed(EC_KEY, "ec")) == USER.lower()
    assert server.asked == 1, "the document is kept, and read whole though it came in pieces"


async def test_a_single_key_needs_no_name(server: KeyServer) -> None:
    server.keys = {None: EC_KEY}
    assert await server.verifier().user_of(signed(EC_KEY, None)) == USER.lower()


async def test_the_right_name_on_a_wrong_signature(server: KeyServer) -> None:
    verifier = server.verifier()
    assert "signature" in await refusal(verifier, signed(ANOTHER_EC_KEY, "ec"))
    await refusal(verifier, signed(EC_KEY, "rsa"))
    await refusal(verifier, signed(RSA_KEY, "ec"))
    await refusal(verifier, hs256())


async def test_claims_count_with_public_keys_too(server: KeyServer) -> None:
    assert await refusal(server.verifier(), signed(EC_KEY, "ec", exp=1)) == "the token has expired"


async def test_both_a_secret_and_keys_may_be_configured(server: KeyServer) -> None:
    both = Verifier(SECRET, Jwks(server.url, lambda: server.now))
    assert await both.user_of(hs256()) == USER.lower()
    assert server.asked == 0
    assert await both.user_of(signed(RSA_KEY, "rsa")) == USER.lower()


async def test_an_unknown_key_makes_us_look_again_but_not_for_every_token(server: KeyServer) -> None:
    verifier = server.verifier()
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.now += 3
    for _ in range(5):
        with pytest.raises(KeysUnavailable, match="a moment ago"):
            await verifier.user_of(signed(ANOTHER_EC_KEY, "new"))
    assert server.asked == 1
    server.now += tokens._REFETCH_SECONDS
    unknown = [refusal(verifier, signed(ANOTHER_EC_KEY, "new")) for _ in range(5)]
    assert set(await asyncio.gather(*unknown)) == {"the token was signed with an unknown key"}
    assert server.asked == 2


async def test_a_key_rotated_right_after_a_fetch_is_good_a_moment_later(server: KeyServer) -> None:
    verifier = server.verifier()
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.keys["new"] = ANOTHER_EC_KEY
    server.now += 1
    with pytest.raises(KeysUnavailable):
        await verifier.user_of(signed(ANOTHER_EC_KEY, "new"))
    server.now += tokens._REFETCH_SECONDS
    assert await verifier.user_of(signed(ANOTHER_EC_KEY, "new")) == USER.lower()


async def test_ids_that_are_made_up_cause_no_more_fetches_than_one(server: KeyServer) -> None:
    verifier = server.verifier()
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.now += 1
    for number in range(tokens._MAX_MISSING + 10):
        with pytest.raises(KeysUnavailable):
            await verifier.user_of(by_hand({"alg": "ES256", "kid": str(number)}, {}))
    assert server.asked == 1


async def test_a_server_that_hangs_holds_up_nobody_whose_key_is_known(server: KeyServer) -> None:
    jwks = Jwks(server.url, lambda: server.now)
    verifier = Verifier(None, jwks)
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.answers.clear()
    server.now += tokens._FRESH_SECONDS + 1
    fetching = asyncio.create_task(jwks.run())
    await eventually(lambda: server.asked == 2)
    assert await verifier.user_of(signed(EC_KEY, "ec")) == USER.lower()
    assert not fetching.done()
    fetching.cancel()
    server.answers.set()


async def test_the_keys_are_fetched_every_ten_minutes_and_more_often_while_that_fails(
    server: KeyServer,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        server.now += seconds
        server.status = 503 if len(waits) in (1, 2) else 200
        if len(waits) == 4:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Jwks(server.url, lambda: server.now).run(sleep)
    assert waits[0] == waits[3] == tokens._FRESH_SECONDS
    assert tokens._RETRY_SECONDS <= max(waits[1:3]) <= 3 * tokens._RETRY_SECONDS


@pytest.mark.parametrize(
    "changes", [{"exp": 1}, {"nbf": 2**31}, {"sub": None}, {"sub": "alice"}, {"exp": None}]
)
async def test_a_token_of_ours_is_no_guess(changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized) as refused:
        await Verifier(SECRET, None).user_of(hs256(**changes))
    assert not refused.value.is_guess


@pytest.mark.parametrize(
    "token", ["junk", hs256("another secret, also 32 bytes long"), hs256()[:-2], by_hand({"alg": "none"}, {})]
)
async def test_what_nothing_shows_to_be_ours_is_a_guess(token: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        await Verifier(SECRET, None).user_of(token)
    assert refused.value.is_guess


async def test_with_one_key_a_token_need_not_name_it(server: KeyServer) -> None:
    server.keys = {"ec": EC_KEY}
    assert await server.verifier().user_of(signed(EC_KEY, None)) == USER.lower()
    server.keys = {"ec": EC_KEY, "rsa": RSA_KEY}
    server.now += 1
    assert "unknown key" in await refusal(server.verifier(), signed(EC_KEY, None))


async def test_keys_may_be_rotated(server: KeyServer) -> None:
    verifier = server.verifier()
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.keys = {"new": ANOTHER_EC_KEY}
    server.now += tokens._REFETCH_SECONDS + 1
    assert await verifier.user_of(signed(ANOTHER_EC_KEY, "new")) == USER.lower()
    assert await refusal(verifier, signed(EC_KEY, "ec")) == "the token was signed with an unknown key"


async def test_a_key_that_was_taken_away_is_good_for_ten_minutes_at_most(server: KeyServer) -> None:
    jwks = Jwks(server.url, lambda: server.now)
    verifier = Verifier(None, jwks)
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.keys = {"rsa": RSA_KEY}
    server.now += tokens._FRESH_SECONDS - 1
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.now += 1
    fetching = asyncio.create_task(jwks.run())
    await eventually(lambda: server.asked == 2 and jwks._fetched_at == server.now)
    await refusal(verifier, signed(EC_KEY, "ec"))
    fetching.cancel()


UNUSABLE = [
    b"",
    b"[]",
    b"null",
    b"{}",
    b'{"keys": []}',
    b'{"keys": 7}',
    b'{"keys": [7, {"kty": "RSA"}, {"kty": 7}, {"kty": "EC", "crv": [], "x": 1}]}',
    b"<html>",
    b"\xff",
    b'{"keys": "' + b"x" * 300_000 + b'"}',
]


@pytest.mark.parametrize("body", UNUSABLE, ids=range(len(UNUSABLE)))
async def test_what_is_no_jwks_is_as_good_as_none(server: KeyServer, body: bytes) -> None:
    server.body = body
    with pytest.raises(KeysUnavailable):
        await server.verifier().user_of(signed(EC_KEY, "ec"))


async def test_a_server_that_fails_does_not_make_tokens_wrong(server: KeyServer) -> None:
    server.status = 500
    verifier = server.verifier()
    with pytest.raises(KeysUnavailable, match="500"):
        await verifier.user_of(signed(EC_KEY, "ec"))
    server.status = 200
    server.now += tokens._RETRY_SECONDS + 0.1
    assert await verifier.user_of(signed(EC_KEY, "ec")) == USER.lower()


async def test_known_keys_stay_good_while_the_server_is_away(server: KeyServer) -> None:
    verifier = server.verifier()
    await verifier.user_of(signed(EC_KEY, "ec"))
    server.status = 503
    server.now += tokens._FRESH_SECONDS + 1
    assert await verifier.user_of(signed(EC_KEY, "ec")) == USER.lower()
    with pytest.raises(KeysUnavailable):
        await verifier.user_of(signed(ANOTHER_EC_KEY, "new"))


async def test_while_the_server_is_away_one_look_speaks_for_all(server: KeyServer) -> None:
    server.status = 503
    verifier = server.verifier()
    tokens = [signed(EC_KEY, "ec") for _ in range(20)]
    answers = await asyncio.gather(*(verifier.user_of(token) for token in tokens), return_exceptions=True)
    assert {type(answer) for answer in answers} == {KeysUnavailable}
    assert server.asked == 1


async def test_an_address_where_nobody_listens() -> None:
    nowhere = Verifier(None, Jwks("http://127.0.0.1:1/jwks.json", lambda: 0.0))
    with pytest.raises(KeysUnavailable):
        await nowhere.user_of(signed(EC_KEY, "ec"))


# --- tokens that are remembered ---


async def test_a_token_that_was_good_a_moment_ago_is_not_checked_again() -> None:
    now = time.time()
    verifier = Verifier(SECRET, None, clock=lambda: now)
    token = hs256()
    assert verifier.user_lately(token) is None
    await verifier.user_of(token)
    now += tokens.REMEMBERED_SECONDS - 1
    assert verifier.user_lately(token) == USER.lower()
    assert verifier.user_lately(token[:-1]) is None
    now += 1
    assert verifier.user_lately(token) is None


async def test_no_token_is_remembered_beyond_its_own_life() -> None:
    now = time.time()
    verifier = Verifier(SECRET, None, clock=lambda: now)
    token = hs256(exp=int(now) + 10)
    await verifier.user_of(token)
    now += 9
    assert verifier.user_lately(token) == USER.lower()
    now += 2
    assert verifier.user_lately(token) is None


async def test_a_token_is_forgotten_with_the_key_that_signed_it(server: KeyServer) -> None:
    verifier = server.verifier()
    token = signed(EC_KEY, "ec")
    await verifier.user_of(token)
    assert verifier.user_lately(token) == USER.lower()
    del server.keys["ec"]
    server.now += 3_600
    await refusal(verifier, signed(ANOTHER_EC_KEY, "new"))
    assert verifier.user_lately(token) is None


async def test_a_token_that_was_refused_is_not_remembered() -> None:
    verifier = Verifier(SECRET, None)
    token = hs256(secret="x" * 32)
    await refusal(verifier, token)
    assert verifier.user_lately(token) is None


async def test_so_many_are_remembered_and_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 2)
    verifier = Verifier(SECRET, None)
    three = [hs256(jti=str(number)) for number in range(3)]
    for token in three:
        await verifier.user_of(token)
    assert [verifier.user_lately(token) for token in three] == [None, USER.lower(), USER.lower()]


async def test_a_key_that_does_not_arrive_is_unavailable(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "KEY_SECONDS", 0.05)
    server.answers.clear()
    with pytest.raises(KeysUnavailable, match="did not arrive"):
        await server.verifier().user_of(signed(EC_KEY, "ec"))
    server.answers.set()
