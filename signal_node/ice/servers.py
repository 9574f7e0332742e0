"""The ICE servers for a client, with its own TURN credentials.

Credentials follow the scheme that coturn calls `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user name is
`expiry:user`, and the password is the base64 of its HMAC-SHA1 with a secret that the TURN server shares.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from signal_node.protocol import server_frames
from signal_node.protocol.session import Stage
from signal_node.transport.connections import Connections

TTL_SECONDS = 3600

REFRESH_SECONDS = 2700
"""Age of credentials at which new ones are sent. They are then valid for another quarter of an hour."""

_ROUND_SECONDS = 5.0
_AT_A_TIME = 200
"""Number of credentials created per turn of the event loop: after a restart, all clients of a node are due together."""


@dataclass(frozen=True, slots=True)
class IceServers:
    """STUN and TURN servers of the cluster. `turn_secret` belongs to `turn_urls`."""

    stun_urls: Sequence[str] = ()
    turn_urls: Sequence[str] = ()
    turn_secret: str = ""

    def for_user(self, user: str, now: float) -> list[dict[str, Any]]:
        """RTCIceServer dictionaries that are valid for an hour from `now` (seconds since 1970)."""
        servers: list[dict[str, Any]] = []
        if self.stun_urls:
            servers.append({"urls": list(self.stun_urls)})
        if self.turn_urls:
            name = f"{int(now) + TTL_SECONDS}:{user}"
            digest = hmac.digest(self.turn_secret.encode(), name.encode(), sha1)
            servers.append(
                {"urls": list(self.turn_urls), "username": name, "credential": b64encode(digest).decode()}
            )
        return servers


async def run_refresh(ice: IceServers, clients: Connections, now: Callable[[], float] = time.time) -> None:
    """Send clients new credentials long before theirs expire, until cancelled. Returns at once without TURN servers.

    The age of a connection determines when its client is due, so no state is kept per client: it is due when another
    `REFRESH_SECONDS` have passed in the life of the connection since the last round.
    """
    if not ice.turn_urls:
        return
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        await asyncio.sleep(_ROUND_SECONDS)
        this = loop.time()
        due = [
            connection
            for connection in clients
            if (this - connection.opened_at) // REFRESH_SECONDS
            > (last - connection.opened_at) // REFRESH_SECONDS
        ]
        for done, connection in enumerate(due, start=1):
            if connection.session.stage is Stage.READY:
                servers = ice.for_user(connection.session.user, now())
                connection.write(server_frames.encode(server_frames.Ice(ice_servers=servers)))
            if done % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        last = this
