"""Which process of this machine a heartbeat came from, so that a predecessor that died is known to be gone at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> str:
    """What process ids count in: one boot of a host, one container. Empty where the platform does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def has_ended(beat: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a heartbeat is known to be gone. False says nothing."""
    pid = beat.get("pid")
    here = beat.get("machine") == machine() != ""
    return here and isinstance(pid, int) and not Path(f"/proc/{pid}").exists()
