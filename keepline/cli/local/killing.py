"""How `keepline kill` asks a running `keepline up` to kill one of its programs."""

import json
import urllib.error
import urllib.request
from typing import Any

from keepline.cli.base.errors import CommandError

_SECONDS = 20.0


def kill(line: dict[str, Any], program: str) -> int:
    """Kill a program, and return its process id. Raises CommandError."""
    request = urllib.request.Request(  # noqa: S310 - the address is that of our own page
        f"{line['demo']}demo/kill",
        data=json.dumps({"program": program}).encode(),
        headers={"Authorization": f"Bearer {line['service_key']}", "Content-Type": "application/json"},
    )
    try:
        with _DIRECTLY.open(request, timeout=_SECONDS) as response:
            return int(json.load(response)["pid"])
    except urllib.error.HTTPError as refusal:
        raise CommandError(_reason(refusal)) from None
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"keepline up (pid {line['up']}) does not answer: {error}") from None


_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""An opener without the environment's proxy, which cannot reach our loopback."""


def _reason(refusal: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(refusal)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"keepline up answered {refusal.code}"
