"""Failed logins per address and IPv6 network. After `limit` failures, logins are refused until the window has passed.

All nodes count in Redis. Each node also remembers its own failures and the blocks it has seen. While Redis does not
answer, it decides by these alone, and it writes the missing failures when Redis is back. Refused logins do not count,
so a block ends.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from keepline.ops.redis.batches import Batches
from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Call, Script, StoreUnavailable, Value
from keepline.room import keys
from keepline.room.attempts import Attempts, encode_attempts
from signal_node.limits.addresses import limit_of

ANSWER_SECONDS = 1.0
"""How long a login waits for Redis before this node decides alone, and how long the node then does not ask Redis."""

SEND_SECONDS = 0.5
MAX_ADDRESSES = 10_000
"""Maximum number of addresses that one node remembers; the one that failed longest ago is dropped first."""

_MAX_EVENTS = keys.MAX_EVENTS // 2
_BATCH = 500

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """What this node knows of an address: its failures here (id → ms), and those that Redis does not have yet."""

    own: dict[str, int] = field(default_factory=dict)
    unsent: set[str] = field(default_factory=set)
    blocked_until: int = 0

    @property
    def oldest_at(self) -> int:
        return next(iter(self.own.values()))

    def drop_oldest(self) -> None:
        oldest = next(iter(self.own))
        del self.own[oldest]
        self.unsent.discard(oldest)


@dataclass(slots=True)
class _Question:
    """A query to Redis about an address, shared by concurrent logins."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    answered: bool = False


@dataclass(slots=True)
class FailedLogins:
    """`limit` failures within `window_ms` block an address. Run `run` as a task."""

    client: Client
    partitions: int
    limit: int
    window_ms: int
    now: Callable[[], int]
    batches: Batches | None = None
    _known: OrderedDict[str, _Known] = field(init=False, default_factory=OrderedDict)
    _questions: dict[str, _Question] = field(init=False, default_factory=dict)
    _events: dict[str, Attempts] = field(init=False, default_factory=dict)
    _alone_until: int = field(init=False, default=0)
    _note: Script = field(init=False)
    _restore: Script = field(init=False)
    _append: Script = field(init=False)
    _batches: Batches = field(init=False)

    def __post_init__(self) -> None:
        self._note = Script(self.client, __package__, "note_failures.lua")
        self._restore = Script(self.client, __package__, "restore_failures.lua")
        self._append = Script(self.client, __package__, "append_attempts.lua")
        self._batches = self.batches or Batches(self.client)

    async def wait_ms(self, address: str) -> int:
        """The ms until the address may log in again; 0 for now. Queries Redis at most once."""
        if not self._wait_here(address) and self.now() >= self._alone_until:
            await self._ask(address)
        return self._wait_here(address)

    async def _ask(self, address: str) -> None:
        """Query the other nodes' failures. Concurrent logins from the same address share the answer."""
        while (question := self._questions.get(address)) is not None:
            await question.over.wait()
            if question.answered:
                return
        question = self._questions[address] = _Question()
        try:
            await self._tell(address)
            question.answered = True
        finally:
            del self._questions[address]
            question.over.set()

    async def failed(self, address: str, attempt: str) -> None:
        """Record a failed login; `attempt` is its id. If Redis answers, every node then knows it."""
        known = self._remember(address)
        known.own[attempt] = self.now()
        known.unsent.add(attempt)
        if len(known.own) > self._limit_of(address):
            known.drop_oldest()
        if self.now() >= self._alone_until:
            await self._tell(address)

    async def put_back(self) -> None:
        """Write back the failures seen here that Redis may have lost. Raises StoreUnavailable."""
        for known in self._known.values():
            known.unsent.update(known.own)
        await self._send_failures()

    async def restore(self, archived: Iterable[Attempts], partitions: frozenset[int]) -> None:
        """Restore failures in `partitions` that no node remembers, from Postgres. Raises StoreUnavailable."""
        now = self.now()
        calls: list[Call] = []
        for one in archived:
            left = one.last_at + self.window_ms - now
            if left > 0 and self._partition(one.address) in partitions:
                count = min(one.attempts, self._limit_of(one.address))
                calls.append(([self._key(one.address)], [count, one.first_at, one.last_at, left]))
        _whole(await self._restore.run_many(calls) if calls else [])

    async def run(self) -> None:
        """Send pending events twice a second, until cancelled."""
        while True:
            await asyncio.sleep(SEND_SECONDS)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._send_failures()
                    await self._send_events(list(self._events)[:_BATCH])
            except (StoreUnavailable, TimeoutError) as error:
                _log.warning("failed_logins_not_shared", error=str(error))
            self._forget()

    # --- what this node knows ---

    def _limit_of(self, address: str) -> int:
        return limit_of(address, self.limit)

    def _remember(self, address: str) -> _Known:
        known = self._known.pop(address, None) or _Known()
        self._known[address] = known
        if len(self._known) > MAX_ADDRESSES:
            self._known.popitem(last=False)
        return known

    def _wait_here(self, address: str) -> int:
        known = self._known.get(address)
        if known is None:
            return 0
        now = self.now()
        if len(known.own) == self._limit_of(address):
            known.blocked_until = max(known.blocked_until, known.oldest_at + self.window_ms)
        return max(0, known.blocked_until - now)

    def _forget(self) -> None:
        """Drop failures that are older than the window."""
        now = self.now()
        since = now - self.window_ms
        for address, known in list(self._known.items()):
            while known.own and known.oldest_at <= since:
                known.drop_oldest()
            if not known.own and known.blocked_until <= now:
                del self._known[address]

    # --- what all nodes know ---

    def _partition(self, address: str) -> int:
        return keys.partition_of(address, self.partitions)

    def _key(self, address: str) -> str:
        return keys.failed_logins(self._partition(address), address)

    def _call(self, address: str) -> tuple[Call, list[str]]:
        """A call that sends Redis the missing failures and returns the total, and the ids of those failures."""
        known = self._known.get(address) or _Known()
        told = {attempt: at for attempt, at in known.own.items() if attempt in known.unsent}
        arguments: list[Value] = [self.now(), self.window_ms, self._limit_of(address)]
        for attempt, at in told.items():
            arguments += [at, attempt]
        return ([self._key(address)], arguments), list(told)

    async def _tell(self, address: str) -> None:
        """Send Redis our failures and read the total. Without an answer, only our own failures count."""
        call, told = self._call(address)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._learn(address, told, await self._note.ask(self._batches, *call))
                if told and self._wait_here(address):
                    await self._send_events([address])
        except (StoreUnavailable, TimeoutError) as error:
            self._alone_until = self.now() + round(ANSWER_SECONDS * 1_000)
            _log.warning("failed_logins_counted_alone", error=str(error))

    def _learn(self, address: str, told: Sequence[str], answer: Sequence[int]) -> None:
        count, first_at, last_at = answer
        if count >= self._limit_of(address):
            known = self._remember(address)
            known.blocked_until = max(known.blocked_until, first_at + self.window_ms)
        if told:
            self._remember(address).unsent.difference_update(told)
            if address in self._events or len(self._events) < MAX_ADDRESSES:
                self._events[address] = Attempts(address, count, first_at, last_at, last_at + self.window_ms)

    async def _send_failures(self) -> None:
        unsent = [address for address, known in self._known.items() if known.unsent]
        for start in range(0, len(unsent), _BATCH):
            batch = [(address, *self._call(address)) for address in unsent[start : start + _BATCH]]
            answers = await self._note.run_many([call for _, call, _ in batch])
            for (address, _, told), answer in zip(batch, _whole(answers), strict=True):
                self._learn(address, told, answer)

    async def _send_events(self, addresses: Sequence[str]) -> None:
        """Send events to the persister. A block is sent at once; earlier failures are batched."""
        events = [event for address in addresses if (event := self._events.get(address)) is not None]
        calls: list[Call] = [
            ([keys.events(self._partition(event.address))], [encode_attempts(event), _MAX_EVENTS])
            for event in events
        ]
        _whole(await self._append.run_many(calls) if calls else [])
        for event in events:
            if self._events.get(event.address) is event:
                del self._events[event.address]


def _whole(answers: Sequence[Any]) -> Sequence[Any]:
    """The answers of a pipeline. Raises StoreUnavailable if any is an error."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise StoreUnavailable(f"{type(answer).__name__}: {answer}") from answer
    return answers
