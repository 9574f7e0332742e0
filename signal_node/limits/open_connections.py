"""Open connections per address and IPv6 network, counted over all nodes.

Each process writes its own count for an address to Redis whenever a connection opens or closes, and at intervals to
renew its lease. The answer is the count of all other processes, so one round trip decides on all connections that
opened during the previous one. Until then a connection is open, but its hello waits. Without Redis, this process' count
decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Call, Script, StoreUnavailable
from keepline.room import keys
from signal_node.limits.addresses import limit_of

ANSWER_SECONDS = 1.0
TICK_SECONDS = 1.0
REFRESH_MS = 20_000
LEASE_MS = 60_000
"""Lease of a process' count. The count of a dead process counts no longer than its heartbeat lasts."""

_BATCH = 500

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Share:
    """The connections of one address to this process: admitted ones, and new ones that wait for Redis."""

    address: str
    counted: set[str] = field(default_factory=set)
    waiting: dict[str, asyncio.Event] = field(default_factory=dict)
    sent_at: int = 0
    dirty: bool = False

    def __len__(self) -> int:
        return len(self.counted) + len(self.waiting)


class OpenConnections:
    """At most `limit` connections of an address, over all processes. Run `run` as a task."""

    def __init__(
        self,
        client: Client,
        partitions: int,
        process: Callable[[], str],
        limit: int,
        *,
        others: Callable[[], set[str]],
        now: Callable[[], int],
        refuse: Callable[[str], None],
    ) -> None:
        """`process()` is this process' name, `others()` are the names of the other live processes.

        `refuse(session)` is called for a connection that exceeds the limit.
        """
        self._script = Script(client, __package__, "share_connections.lua")
        self._partitions = partitions
        self._process = process
        self._limit = limit
        self._others = others
        self._now = now
        self._refuse = refuse
        self._shares: dict[str, _Share] = {}
        self._dirty = asyncio.Event()
        self._alone = False

    def opened(self, address: str, session: str) -> bool:
        """A connection has opened; False if this process alone already exceeds the limit of the address."""
        share = self._shares.get(address)
        if share is None:
            share = self._shares[address] = _Share(address)
        if len(share) >= limit_of(address, self._limit):
            return False
        if self._alone:
            share.counted.add(session)
        else:
            share.waiting[session] = asyncio.Event()
        self._changed(share)
        return True

    def closed(self, address: str, session: str) -> None:
        """A connection has closed. Harmless for a refused one, which is not counted."""
        share = self._shares.get(address)
        if share is None:
            return
        settling = share.waiting.pop(session, None)
        if settling is not None:
            settling.set()
        elif session in share.counted:
            share.counted.remove(session)
        else:
            return
        self._changed(share)

    async def answered(self, address: str, session: str) -> None:
        """Wait until Redis has decided whether the connection may stay."""
        share = self._shares.get(address)
        settling = None if share is None else share.waiting.get(session)
        if settling is not None:
            await settling.wait()

    def put_back(self) -> None:
        """Write back the counts that Redis may have lost."""
        for share in self._shares.values():
            self._changed(share)

    async def run(self) -> None:
        """Send changed counts, one batch after the other, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._dirty.wait()
            except TimeoutError:
                self._refresh()
            await self._send()
            if self._alone:
                await asyncio.sleep(TICK_SECONDS)

    def _changed(self, share: _Share) -> None:
        share.dirty = True
        self._dirty.set()

    def _refresh(self) -> None:
        since = self._now() - REFRESH_MS
        for share in self._shares.values():
            if share.sent_at <= since:
                self._changed(share)

    async def _send(self) -> None:
        self._dirty.clear()
        dirty = [share for share in self._shares.values() if share.dirty]
        for start in range(0, len(dirty), _BATCH):
            batch = dirty[start : start + _BATCH]
            asked = [tuple(share.waiting) for share in batch]
            answers = await self._exchange(batch)
            for share, sessions, answer in zip(batch, asked, answers, strict=True):
                self._apply_answer(share, sessions, answer)

    async def _exchange(self, batch: Sequence[_Share]) -> list[Any]:
        """Write our counts and read those of the others. Answers may be errors."""
        now, others = self._now(), sorted(self._others())
        calls: list[Call] = []
        for share in batch:
            share.dirty, share.sent_at = False, now
            key = keys.open_connections(keys.partition_of(share.address, self._partitions), share.address)
            calls.append(([key], [self._process(), len(share), now, LEASE_MS, *others]))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answers = await self._script.run_many(calls)
        except (StoreUnavailable, TimeoutError) as error:
            _log.warning("connections_counted_alone", error=str(error))
            answers = [error] * len(batch)
            self._go_on_alone()
        else:
            self._alone = False
        return answers

    def _go_on_alone(self) -> None:
        """Redis is away: decide on all waiting connections by our own count."""
        self._alone = True
        for share in self._shares.values():
            share.dirty = True  # the write may or may not have happened, so it stays pending
            self._apply_answer(share, tuple(share.waiting), 0)

    def _apply_answer(self, share: _Share, sessions: Sequence[str], answer: Any) -> None:
        """Decide on the connections in a query. Without an answer, only this process' count matters."""
        if isinstance(answer, Exception):
            answer = 0
            share.dirty = True  # for the next tick
        for session in sessions:
            settling = share.waiting.pop(session, None)
            if settling is None:
                continue  # closed meanwhile
            if len(share.counted) + answer < limit_of(share.address, self._limit):
                share.counted.add(session)
            else:
                self._changed(share)
                self._refuse(session)
            settling.set()
        if not len(share) and not share.dirty:
            del self._shares[share.address]
