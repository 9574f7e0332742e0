"""Checks that the TURN servers which clients are given provide a relay, by requesting one like a client.

A successful allocation (RFC 8656, section 7) shows that the server is running, that its name resolves as for clients,
that it shares the secret of the credentials, and that it has a free relay. The relay is released at once. The result is
only for the metrics, the log and `keepline status`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from aioice.stun import TransactionError
from aioice.turn import create_turn_endpoint

from keepline.ops.ice_url import TurnServer, parse_turn
from signal_node.ice.servers import IceServers

_CHECK_SECONDS = 5.0
_LIFETIME_SECONDS = 60
"""When the server drops an allocation that could not be released."""

_BROWSERS_OWN_HOST = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names that are meant for browsers on the server's host. In a container they would be another host."""

Allocate = Callable[[TurnServer, str, str], Awaitable[None]]

_log = structlog.get_logger(__name__)


class TurnChecks:
    """Requests a relay from each TURN server at intervals. `down` has the reason for each failing server, by URL."""

    def __init__(
        self,
        ice: IceServers,
        node: str,
        seconds: float,
        *,
        allocate: Allocate | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Check in the name of `node`, about every `seconds`; never if 0.

        `allocate(server, username, credential)` requests and releases a relay, or raises TransactionError or OSError.
        """
        self._ice = ice
        # A server limits the relays per user, so each node needs its own user name.
        self._user = f"check-{node}"
        self._seconds = seconds
        self._allocate = allocate or _allocated
        self._now = now
        self._servers = _checkable(ice.turn_urls) if seconds else {}
        self._down: dict[str, str | None] = {}

    @property
    def up(self) -> Mapping[str, bool]:
        """Whether each server gave a relay in its last check. Servers that were not checked yet are missing."""
        return {url: reason is None for url, reason in self._down.items()}

    @property
    def down(self) -> Mapping[str, str]:
        """Why servers gave none."""
        return {url: reason for url, reason in self._down.items() if reason is not None}

    async def run(self) -> None:
        """Check until cancelled. Returns at once if there is nothing to check."""
        while self._servers:
            await self.check()
            await asyncio.sleep(self._seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def check(self) -> None:
        """Check all servers concurrently. Takes five seconds at most."""
        await asyncio.gather(*(self._check(url, server) for url, server in self._servers.items()))

    async def _check(self, url: str, server: TurnServer) -> None:
        (turn,) = (each for each in self._ice.for_user(self._user, self._now()) if "username" in each)
        reason = None
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._allocate(server, turn["username"], turn["credential"])
        except TimeoutError:
            reason = "does not answer"
        except (TransactionError, OSError) as error:
            reason = str(error) or type(error).__name__
        # In the first check, report only failures.
        if reason != self._down.get(url):
            if reason is None:
                _log.info("turn_gives_relays", url=url)
            else:
                _log.warning("turn_gives_no_relay", url=url, reason=reason)
        self._down[url] = reason


def _checkable(urls: Sequence[str]) -> dict[str, TurnServer]:
    """The servers by URL, without those that only browsers can reach, and without DTLS, which is not supported here."""
    servers = {url: parse_turn(url) for url in urls}
    return {
        url: server
        for url, server in servers.items()
        if server.host not in _BROWSERS_OWN_HOST and not (server.tls and server.transport == "udp")
    }


async def _allocated(server: TurnServer, username: str, credential: str) -> None:
    """Request and release a relay. Raises TransactionError or OSError."""
    transport, _ = await create_turn_endpoint(
        asyncio.DatagramProtocol,
        (server.host, server.port),
        username,
        credential,
        lifetime=_LIFETIME_SECONDS,
        ssl=server.tls or None,
        transport=server.transport,
    )
    transport.close()
