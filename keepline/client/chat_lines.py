"""Stores chat messages exactly once: each is retried with the same key until its result is known.

The messages of a call are sent one after the other. So they are stored in the order in which the app sent them, and the
cluster has to remember only one key at a time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from keepline.client.errors import (
    PASSING_CODES,
    CallEnded,
    ConnectionLost,
    RequestFailed,
    RequestTimedOut,
)
from keepline.client.frames import Frame
from keepline.client.limits import Limits, check_text
from keepline.client.options import Options
from keepline.client.ready_event import ReadyEvent
from keepline.client.requester import Requester
from keepline.ops.backoff import Backoff


class ChatLines:
    """The messages that one member writes in one call."""

    def __init__(
        self,
        room_id: str,
        request: Requester,
        held: ReadyEvent,
        connected: ReadyEvent,
        limits: Callable[[], Limits],
        options: Options,
    ) -> None:
        """Take the event that the room is held, and the event that the client is connected, which outlasts the call."""
        self._room_id = room_id
        self._request = request
        self._held = held
        self._connected = connected
        self._limits = limits
        self._options = options
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def write(self, text: str, key: str | None) -> Frame:
        """Have a message stored, and return the answer.

        Raises RequestFailed or CallEnded if it is certainly not stored; ConnectionClosed or ConnectionLost if that
        cannot be known any more.
        """
        limits = self._limits()
        check_text("text", text, limits.chat_length)
        if not limits.chat_key:
            return await self._request(self._frame(text), self._held, repeatable=False)
        key = secrets.token_urlsafe(9) if key is None else key
        check_text("key", key, limits.chat_key)
        if self._waiting >= self._options.chats_waiting:
            raise RequestFailed("queue_full", f"{self._waiting} chat messages are waiting already")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._written({**self._frame(text), "key": key})
        finally:
            self._waiting -= 1

    def _frame(self, text: str) -> Frame:
        return {"type": "chat", "room": self._room_id, "text": text}

    async def _written(self, frame: Frame) -> Frame:
        """Send the message as long as the call lasts, then ask once more whether it was stored."""
        self._held.check()
        try:
            return await self._asked(frame, self._held)
        except CallEnded as ended:
            try:
                return await self._asked(frame, self._connected)
            except RequestFailed as error:
                if error.code == "room_ended":
                    raise ended from error
                raise ConnectionLost(
                    f"the call is over, and it is unknown whether the message is stored: {error}"
                ) from error

    async def _asked(self, frame: Frame, ready: ReadyEvent) -> Frame:
        backoff = Backoff(
            self._options.backoff_base, self._options.backoff_cap, uniform=self._options.uniform
        )
        while True:
            await ready.wait()
            if not self._limits().chat_key:
                raise ConnectionLost(
                    "this node does not support keys, so it is unknown whether the message is stored"
                )
            try:
                return await self._request(frame, ready, repeatable=False)
            except (ConnectionLost, RequestTimedOut):
                await asyncio.sleep(0)  # the next connection makes `ready` wait
            except RequestFailed as error:
                if error.code not in PASSING_CODES:
                    raise
                await self._options.sleep((error.retry_after or 0.0) + backoff.next())
