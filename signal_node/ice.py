"""The ICE servers that a client is told, with TURN credentials of its own.

Credentials follow the scheme that coturn calls `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user name is
`expiry:user`, the password the base64 of its HMAC-SHA1 under a secret that the TURN server shares.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

TTL_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class IceServers:
    """STUN and TURN servers of the cluster. `turn_secret` belongs to `turn_urls`."""

    stun_urls: Sequence[str] = ()
    turn_urls: Sequence[str] = ()
    turn_secret: str = ""

    def for_user(self, user: str, now: float) -> list[dict[str, Any]]:
        """RTCIceServer dictionaries that work for an hour from `now` (seconds since 1970)."""
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
