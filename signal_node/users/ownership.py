"""Which session holds a user. A user who connects again takes over, and proves by a secret to be the same client.

Only the digest of the secret is stored, never the secret itself. Each connection gets a new one (it rotates). The
previous one stays valid until the new one is used, because the answer with the new one may have been lost.

What could not be written to Redis when it happened (a login while it was away, the end of a session) is written later.
Entries have a TTL of a day, and are renewed while the connection lasts.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import orjson
import structlog

from keepline.ops.redis.batches import Batches
from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Call, Script, StoreUnavailable, Value, translated
from keepline.room import keys

BATCH = 500
TTL_MS = 24 * 3600 * 1_000
KEEP_MS = TTL_MS // 4
"""Age at which an entry is renewed."""

NEVER = -math.inf

TICK_SECONDS = 1.0
MAX_UNRELEASED = 10_000
"""Maximum number of session ends that wait for Redis; the oldest are dropped, and their users are free when the entry
expires.
"""

Outcome = Literal["taken", "resumed", "outdated"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of a take. `node` and `session` held the user before; None for nobody.

    `resumed`: it is the same client. `outdated`: it was, but another client holds the user now, and keeps it.
    """

    resume: str
    node: str | None
    session: str | None
    outcome: Outcome

    @property
    def resumed(self) -> bool:
        """Whether the same client has returned."""
        return self.outcome == "resumed"

    @property
    def outdated(self) -> bool:
        """Whether the take was refused."""
        return self.outcome == "outdated"


@dataclass(slots=True)
class _Held:
    """A user of this node. `written_at` is when Redis was told. Times are in ms."""

    session: str
    digest: str
    previous: str
    taken_at: int
    written_at: float


class Users:
    """The registry of users in Redis. Run `run` as a task."""

    def __init__(
        self,
        client: Client,
        node: str,
        now: Callable[[], int],
        batches: Batches | None = None,
        *,
        on_replaced: Callable[[str, str], None] = lambda node, session: None,
    ) -> None:
        """`now` is the clock in ms since 1970.

        `on_replaced(node, session)` is called if it turns out later that a session has lost its user.
        """
        self._client = client
        self._batches = batches or Batches(client)
        self._node = node
        self._now = now
        self._on_replaced = on_replaced
        self._take = Script(client, __package__, "take_user.lua")
        self._keep = Script(client, __package__, "keep_user.lua")
        self._release = Script(client, __package__, "release_user.lua")
        self._held: OrderedDict[str, _Held] = OrderedDict()  # by `written_at`
        self._unreleased: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def take(self, user: str, session: str, presented: str | None, dead: str | None = None) -> Taken:
        """Assign the user to this session. `dead` is a session that is known not to be alive. Raises
        StoreUnavailable.
        """
        resume = secrets.token_urlsafe(24)
        digest, last = _digest(resume), "" if presented is None else _digest(presented)
        at = self._now()
        arguments: list[Value] = [self._node, session, digest, last, at, TTL_MS, dead or ""]
        node, before, outcome = await self._take.ask(self._batches, [keys.user(user)], arguments)
        taken = Taken(resume, node.decode() or None, before.decode() or None, outcome.decode())
        if not taken.outdated:
            self._hold(user, _Held(session, digest, last if taken.resumed else "", at, at))
        return taken

    def take_alone(self, user: str, session: str) -> str:
        """Assign the user to this session without Redis, which is told once it is back. Returns the resume secret."""
        resume = secrets.token_urlsafe(24)
        self._hold(user, _Held(session, _digest(resume), "", self._now(), NEVER))
        self._held.move_to_end(user, last=False)
        return resume

    def _hold(self, user: str, held: _Held) -> None:
        self._held[user] = held
        self._held.move_to_end(user)

    def forget(self, user: str, session: str) -> None:
        """The session has closed. Redis keeps the entry, so that the client can resume."""
        held = self._held.get(user)
        if held is not None and held.session == session:
            del self._held[user]

    async def release(self, user: str, session: str) -> None:
        """Note in Redis that a session is gone, unless another holds the user now. Raises StoreUnavailable."""
        await self._release.ask(self._batches, [keys.user(user)], [session])

    def release_later(self, user: str, session: str) -> None:
        """Do the same once Redis is back."""
        self._unreleased[user, session] = None
        if len(self._unreleased) > MAX_UNRELEASED:
            self._unreleased.popitem(last=False)

    async def put_back(self) -> None:
        """Write back the users held here that Redis may have lost. Raises StoreUnavailable."""
        users = list(self._held)
        for start in range(0, len(users), BATCH):
            await self._keep_all(users[start : start + BATCH])

    async def recognizes(self, user: str, presented: str) -> bool:
        """Whether a user may resume with this secret. Raises StoreUnavailable."""
        with translated():
            value = await self._client.get(keys.user(user))
        held = _decoded(value)
        return _digest(presented) in (held.get("resume"), held.get("previous"))

    async def holder(self, user: str) -> tuple[str, str] | None:
        """Node and session that hold the user now. Raises StoreUnavailable."""
        with translated():
            value = await self._client.get(keys.user(user))
        held = _decoded(value)
        return (held["node"], held["session"]) if held.get("session") and held.get("node") else None

    async def run(self) -> None:
        """Write pending changes and renew entries until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.catch_up()
            except StoreUnavailable as error:
                _log.debug("users_not_kept", error=str(error))

    async def catch_up(self) -> None:
        """Write pending ends of sessions, and users that were not written for long. Raises StoreUnavailable."""
        while self._unreleased:
            await self._release_some()
        while due := self._due():
            await self._keep_all(due)

    async def _release_some(self) -> None:
        ended = [one for one, _ in zip(self._unreleased, range(BATCH), strict=False)]
        calls: list[Call] = [([keys.user(user)], [session]) for user, session in ended]
        _raise_first(await self._release.run_many(calls))
        for one in ended:
            self._unreleased.pop(one, None)

    def _due(self) -> list[str]:
        since = self._now() - KEEP_MS
        due: list[str] = []
        for user, held in self._held.items():
            if held.written_at > since or len(due) == BATCH:
                break
            due.append(user)
        return due

    async def _keep_all(self, users: Iterable[str]) -> None:
        asked = [(user, held) for user in users if (held := self._held.get(user)) is not None]
        calls: list[Call] = [
            (
                [keys.user(user)],
                [self._node, held.session, held.digest, held.previous, held.taken_at, TTL_MS],
            )
            for user, held in asked
        ]
        answers = await self._keep.run_many(calls) if calls else []
        at = self._now()
        for (user, held), answer in zip(asked, answers, strict=True):
            if not isinstance(answer, Exception):
                self._kept(user, held, at, *(part.decode() for part in answer))
        _raise_first(answers)

    def _kept(self, user: str, held: _Held, at: int, node: str, session: str, outcome: str) -> None:
        if self._held.get(user) is held:
            held.written_at = at
            self._held.move_to_end(user)
        if outcome == "replaced":
            self._on_replaced(self._node, held.session)
        elif session:
            self._on_replaced(node, session)


def _decoded(value: Any) -> dict[str, Any]:
    """Who holds a user; nothing for a key that is an app's, which may be where ours have no prefix."""
    try:
        held = orjson.loads(value or b"{}")
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _raise_first(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, Exception):
            raise StoreUnavailable(f"{type(answer).__name__}: {answer}") from answer


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
