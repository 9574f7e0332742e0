"""What runs under a `keepline up`: it says so in its data folder, where other commands find it.

The file is the line of `keepline up --json`, with the process id of the command. It holds secrets: only its owner may
read it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keepline.cli.base.private_files import replace_private

FILE = "running.json"


def write(data: Path, line: Mapping[str, Any]) -> None:
    """Say what runs now."""
    replace_private(data / FILE, json.dumps({"up": os.getpid(), **line}))


def remove(data: Path) -> None:
    """Nothing runs any more."""
    (data / FILE).unlink(missing_ok=True)


def read(data: Path) -> dict[str, Any] | None:
    """What runs on `data`; None when nothing does, be it because `keepline up` was killed."""
    try:
        line = json.loads((data / FILE).read_text())
        up = int(line["up"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return line if _lives(up) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
