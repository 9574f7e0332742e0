"""Which session holds a user. A user who connects again takes over, and shows by a secret that it is the same client.

The secret itself is never stored, only its digest; each connection gets a new one (it rotates).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha256

import orjson

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Script, Value, translated
from keepline.room import keys

BATCH = 500
TTL_MS = 24 * 3600 * 1_000


@dataclass(frozen=True, slots=True)
class Taken:
    """The user is ours. `node` and `session` held it before, None for nobody; `resumed`: it is the same client."""

    resume: str
    node: str | None
    session: str | None
    resumed: bool


class Users:
    """The registry of users in Redis."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._take = Script(client, __package__, "take_user.lua")
        self._release = Script(client, __package__, "release_user.lua")
        self._held: dict[str, tuple[str, str]] = {}

    async def take(self, user: str, session: str, presented: str | None) -> Taken:
        """Make the user this session's. Raises StoreUnavailable."""
        resume = secrets.token_urlsafe(24)
        digest = "" if presented is None else _digest(presented)
        arguments: list[Value] = [self._node, session, _digest(resume), digest, TTL_MS]
        node, before, resumed = await self._take.run([keys.user(user)], arguments)
        self._held[user] = (session, _digest(resume))
        return Taken(resume, node.decode() or None, before.decode() or None, bool(resumed))

    def let_go(self, user: str, session: str) -> None:
        """The session is closed. Redis keeps who it was, so that it can resume."""
        if self._held.get(user, ("", ""))[0] == session:
            del self._held[user]

    async def release(self, user: str, session: str) -> None:
        """Note in Redis that a session is gone, unless another holds the user now. Raises StoreUnavailable."""
        await self._release.run([keys.user(user)], [session])

    async def put_back(self) -> None:
        """Write again what Redis may have lost of the users held here. Raises StoreUnavailable."""
        held = list(self._held.items())
        for start in range(0, len(held), BATCH):
            with translated():
                async with self._client.pipeline(transaction=False) as pipe:
                    for user, (session, digest) in held[start : start + BATCH]:
                        value = {"node": self._node, "session": session, "resume": digest}
                        pipe.set(keys.user(user), orjson.dumps(value), px=TTL_MS, nx=True)
                    await pipe.execute()

    async def holder(self, user: str) -> tuple[str, str] | None:
        """Node and session that hold the user now. Raises StoreUnavailable."""
        with translated():
            value = await self._client.get(keys.user(user))
        if value is None:
            return None
        held = orjson.loads(value)
        return (held["node"], held["session"]) if held["session"] else None


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
