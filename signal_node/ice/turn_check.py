"""Proves that the TURN servers which clients are told of give them a relay: it asks for one, as a client would.

An allocation (RFC 8656, section 7) shows that the server runs, is found under the name that clients get, shares the
secret of the credentials, and has a relay left. It is given back at once. Nothing else depends on the outcome: it is
for the metrics, the log and `keepline status`.
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
"""When the server forgets an allocation that could not be given back."""

_BROWSERS_OWN_HOST = frozenset({"localhost", "127.0.0.1", "::1"})
"""What is meant for browsers on the server's host. In a container it would be another one."""

Allocate = Callable[[TurnServer, str, str], Awaitable[None]]

_log = structlog.get_logger(__name__)


class TurnChecks:
    """Asks each TURN server for a relay every so often. `down` says why those do not give one, by URL."""

    def __init__(
        self,
        ice: IceServers,
        node: str,
        seconds: float,
        *,
        allocate: Allocate | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Ask in the name of `node` every `seconds` or so, never with 0.

        `allocate(server, username, credential)` gets a relay and gives it back, or raises TransactionError or OSError.
        """
        self._ice = ice
        # A server counts the relays of each user, so that no two nodes may be the same one.
        self._user = f"check-{node}"
        self._seconds = seconds
        self._allocate = allocate or _allocated
        self._now = now
        self._servers = _checkable(ice.turn_urls) if seconds else {}
        self._down: dict[str, str | None] = {}

    @property
    def up(self) -> Mapping[str, bool]:
        """Whether each server gave a relay when it was last asked; one that was not asked yet is not in it."""
        return {url: reason is None for url, reason in self._down.items()}

    @property
    def down(self) -> Mapping[str, str]:
        """Why servers gave none."""
        return {url: reason for url, reason in self._down.items() if reason is not None}

    async def run(self) -> None:
        """Ask until cancelled; at once done when there is nobody to ask."""
        while self._servers:
            await self.check()
            await asyncio.sleep(self._seconds * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def check(self) -> None:
        """Ask all servers, side by side. Takes five seconds at most."""
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
        # The first time only what is wrong is worth a word.
        if reason != self._down.get(url):
            if reason is None:
                _log.info("turn_gives_relays", url=url)
            else:
                _log.warning("turn_gives_no_relay", url=url, reason=reason)
        self._down[url] = reason


def _checkable(urls: Sequence[str]) -> dict[str, TurnServer]:
    """The servers by their URLs, without those that only browsers can reach, and DTLS, which nothing here speaks."""
    servers = {url: parse_turn(url) for url in urls}
    return {
        url: server
        for url, server in servers.items()
        if server.host not in _BROWSERS_OWN_HOST and not (server.tls and server.transport == "udp")
    }


async def _allocated(server: TurnServer, username: str, credential: str) -> None:
    """Get a relay and give it back. Raises TransactionError, or OSError."""
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
