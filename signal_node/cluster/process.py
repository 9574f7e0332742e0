"""Identifies the process of a heartbeat on this machine, so that a dead predecessor is recognised at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> str:
    """The scope of process ids: one boot of a host, one container. Empty on platforms that do not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def has_ended(beat: Mapping[str, Any]) -> bool:
    """Whether the process of a heartbeat is known to have ended. False means that it is unknown."""
    pid = beat.get("pid")
    here = beat.get("machine") == machine() != ""
    return here and isinstance(pid, int) and not Path(f"/proc/{pid}").exists()
