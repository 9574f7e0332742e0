"""The addresses of a cluster, tried in turn."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri


class Addresses:
    """The addresses of nodes."""

    def __init__(self, url: str | Sequence[str]) -> None:
        """Take one address or several. Raises ValueError for none, and for one that no WebSocket can be opened to."""
        self._urls = (url,) if isinstance(url, str) else tuple(url)
        if not self._urls:
            raise ValueError("at least one url is required")
        for each in self._urls:
            _check(each)
        self._attempts = 0

    def next(self, hint: str | None) -> str:
        """The current address, with a room as a hint for load balancers."""
        url = self._urls[self._attempts % len(self._urls)]
        self._attempts += 1
        return url if hint is None else f"{url}{'&' if '?' in url else '?'}room={quote(hint, safe='')}"


def _check(url: str) -> None:
    try:
        parse_uri(url)
    except (InvalidURI, ValueError) as error:
        raise ValueError(f"an address must start with ws:// or wss:// and a host: {error}") from None
