"""Claims the node's name: two processes with one name would end each other's calls.

A name is free if no heartbeat has it. An existing heartbeat may belong to a killed predecessor. If that ran on this
machine, its process id tells; otherwise the heartbeat is watched until a live process would have renewed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from keepline.ops.errors import CannotRun
from signal_node.cluster.process import has_ended
from signal_node.cluster.registry import Namesake

SILENT_SECONDS = 3.0
"""Longer than a live process takes to renew its heartbeat, even if its first attempt gets no answer."""

LOOK_SECONDS = 0.25

_log = structlog.get_logger(__name__)


def taken(node: str, namesake: Namesake) -> CannotRun:
    """The error for a process whose name another one has."""
    status = namesake.status
    where = f"process {status.get('pid')}, {status.get('ops')}"
    return CannotRun(
        f"another node is running under the name {node} ({where}): give each node a unique KEEPLINE_NODE_ID"
    )


async def claim(node: str, beat: Callable[[bytes], Awaitable[Namesake | None]]) -> None:
    """Write the first heartbeat with `beat(replaces)`, once no other process has the name.

    Raises CannotRun if another process has it, and whatever `beat` raises.
    """
    loop = asyncio.get_running_loop()
    namesake, began = await beat(b""), loop.time()
    while namesake is not None:
        gone = has_ended(namesake.status) or loop.time() - began > SILENT_SECONDS
        if not gone:
            await asyncio.sleep(LOOK_SECONDS)
        now = await beat(namesake.beat if gone else b"")
        if now is not None and now.ttl_ms > namesake.ttl_ms:
            raise taken(node, now)
        namesake = now
