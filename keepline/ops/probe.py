"""The container's health check, as an exit code: `python -m keepline.ops.probe`.

The image has no curl. This imports only the standard library, because it runs every few seconds beside the program.
"""

import http.client
import os
import sys
from collections.abc import Mapping

PATH = "/readyz"
TIMEOUT_SECONDS = 3.0
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Ask this host's ops port. Returns 0 if the program is ready; otherwise prints the reason and returns 1."""
    host = environ.get("KEEPLINE_OPS_HOST") or "localhost"  # IPv4, or IPv6 if there is no other
    port = environ.get("KEEPLINE_OPS_PORT") or "8081"
    connection = http.client.HTTPConnection(_WILDCARDS.get(host, host), int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", PATH)
        response = connection.getresponse()
        answer = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return _not_ready(f"{type(error).__name__}: {error}")
    finally:
        connection.close()
    return 0 if response.status == 200 else _not_ready(answer)


def _not_ready(why: str) -> int:
    print(why, file=sys.stderr)  # noqa: T201 - the engine shows what a health check prints
    return 1


if __name__ == "__main__":
    sys.exit(main())
