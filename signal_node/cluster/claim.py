"""Whether a node may have its name: two processes of one name would bury each other's calls.

A name is free when no heartbeat has it. One that is there may be a predecessor's who was killed: where that ran on this
machine its process id tells, else it is watched until a living process would have renewed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from keepline.ops.errors import CannotRun
from signal_node.cluster.process import has_ended
from signal_node.cluster.registry import Namesake

SILENT_SECONDS = 3.0
"""Longer than a living process takes to renew its heartbeat, also when a first try gets no answer."""

LOOK_SECONDS = 0.25

_log = structlog.get_logger(__name__)


def taken(node: str, namesake: Namesake) -> CannotRun:
    """What to say to a process whose name another one has."""
    status = namesake.status
    where = f"process {status.get('pid')}, {status.get('ops')}"
    return CannotRun(
        f"another node is running under the name {node} ({where}): set KEEPLINE_NODE_ID to a name of its own for each"
    )


async def claim(node: str, beat: Callable[[bytes], Awaitable[Namesake | None]]) -> None:
    """Write the first heartbeat by `beat(replaces)`, once no other process has the name.

    Raises CannotRun when one does, and what `beat` raises.
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
