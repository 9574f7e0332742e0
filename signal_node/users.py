"""Which session holds a user. A user who connects again takes over, and shows by a secret that it is the same client.

The secret itself is never stored, only its digest; each connection gets a new one (it rotates).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import sha1, sha256
from importlib.resources import files

import orjson
from redis.exceptions import NoScriptError, RedisError

from keepline.ops.redis import Client
from keepline.room import keys
from signal_node.store import StoreUnavailable

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
        self._script = files(__package__).joinpath("take_user.lua").read_text()
        self._digest = sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    async def take(self, user: str, session: str, presented: str | None) -> Taken:
        """Make the user this session's. Raises StoreUnavailable."""
        resume = secrets.token_urlsafe(24)
        arguments = [
            keys.user(user),
            self._node,
            session,
            _digest(resume),
            "" if presented is None else _digest(presented),
            str(TTL_MS),
        ]
        try:
            try:
                answer = await self._client.evalsha(self._digest, 1, *arguments)
            except NoScriptError:
                await self._client.script_load(self._script)
                answer = await self._client.evalsha(self._digest, 1, *arguments)
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        node, before, resumed = answer
        return Taken(resume, node.decode() or None, before.decode() or None, bool(resumed))

    async def holder(self, user: str) -> tuple[str, str] | None:
        """Node and session that hold the user now. Raises StoreUnavailable."""
        try:
            value = await self._client.get(keys.user(user))
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        if value is None:
            return None
        held = orjson.loads(value)
        return held["node"], held["session"]


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
