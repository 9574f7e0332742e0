"""The state of a running `keepline up`, which it writes to its data folder for other commands.

The file contains the line of `keepline up --json` and the process id of the command. It contains secrets, so only its
owner can read it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keepline.cli.base.private_files import replace_private

FILE = "running.json"
_PASSED_ON = ("KEEPLINE_REDIS_PREFIX", "KEEPLINE_AUTH_ISSUER", "KEEPLINE_AUTH_AUDIENCE")


def write(data: Path, line: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Write the state of the running cluster, with the variables of `keepline up` that other commands need."""
    settings = {name: environ[name] for name in _PASSED_ON if environ.get(name)}
    replace_private(data / FILE, json.dumps({"up": os.getpid(), "settings": settings, **line}))


def remove(data: Path) -> None:
    """Remove the file: nothing is running."""
    (data / FILE).unlink(missing_ok=True)


def read(data: Path) -> dict[str, Any] | None:
    """The state of the cluster running on `data`. None if nothing runs there, even after `keepline up` was killed."""
    try:
        line = json.loads((data / FILE).read_text())
        up = int(line["up"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return line if _lives(up) else None


def variables(line: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables with which a command reaches the running cluster."""
    return {
        "REDIS_URL": line["redis"]["url"],
        "DATABASE_URL": line["postgres"]["url"],
        "KEEPLINE_SERVICE_KEY": line["service_key"],
        "KEEPLINE_AUTH_SECRET": line["auth_secret"],
        **line["settings"],
    }


def surroundings(environ: Mapping[str, str], data: Path) -> Mapping[str, str]:
    """`environ`. If it does not set REDIS_URL, the variables of the cluster running on `data` replace its own."""
    if environ.get("REDIS_URL"):
        return environ
    line = read(data)
    return environ if line is None else {**environ, **variables(line)}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
