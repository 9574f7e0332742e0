"""The demo as an app's backend: opens rooms over the nodes' HTTP API, trying each node in turn."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from keepline.cli.demo.wishes import Wish
from keepline.ops.http import HttpError

_NODE_SECONDS = 3.0
_RETRY_AFTER_MS = 1_000


@dataclass(frozen=True, slots=True)
class DemoNode:
    """A signal node: its port for clients, on whatever host the visitor used, and its address from here."""

    name: str
    port: int
    socket: str
    http: str


class Rooms:
    """Opens and reads rooms. Raises HttpError 503 if no node answers."""

    def __init__(self, nodes: Sequence[DemoNode], service_key: str) -> None:
        self.nodes = nodes
        self._headers = {"Authorization": f"Bearer {service_key}"}

    async def open(self, wish: Wish, users: tuple[uuid.UUID, uuid.UUID], first: int) -> str:
        """Open a room for two users, over node `first` if it answers, and return its id."""
        body = {
            "user_1": str(users[0]),
            "user_2": str(users[1]),
            "chat_mode": wish.chat_mode,
            "duration_seconds": wish.duration_seconds,
        }
        _, room = await self._ask("POST", "/v1/rooms", (201,), first=first, body=body)
        return str(room["room_id"])

    async def look(self, room: str) -> dict[str, Any] | None:
        """A room as a node knows it; None if it does not exist or has ended."""
        status, snapshot = await self._ask("GET", f"/v1/rooms/{room}", (200, 404))
        return None if status == 404 or snapshot["status"] == "ended" else snapshot

    async def another_is_ready(self, name: str) -> bool:
        """Whether a node other than `name` can take its clients."""
        others = [node for node in self.nodes if node.name != name]
        async with self._session() as session:
            for node in others:
                try:
                    async with session.get(f"{node.http}/readyz") as response:
                        if response.status == 200:
                            return True
                except (aiohttp.ClientError, TimeoutError):
                    continue
        return False

    async def _ask(
        self, method: str, path: str, wanted: tuple[int, ...], *, first: int = 0, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        problem = ""
        async with self._session() as session:
            for node in [*self.nodes[first:], *self.nodes[:first]]:
                try:
                    async with session.request(method, node.http + path, json=body) as response:
                        if response.status in wanted:
                            return response.status, await response.json()
                        problem = await response.text()
                except (aiohttp.ClientError, TimeoutError) as error:
                    problem = str(error) or type(error).__name__
        raise HttpError(503, "unavailable", f"no node answers: {problem}", retry_after_ms=_RETRY_AFTER_MS)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_NODE_SECONDS), headers=self._headers
        )
