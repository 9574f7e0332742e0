"""`keepline drain NODE`: have a node move its clients to other nodes, and watch the progress."""

import asyncio
from collections.abc import Callable
from typing import Any

from keepline.cli.base.errors import CommandError
from keepline.cli.cluster.access import ListedNode, NodeSilent, Reach

PATH = "/v1/node/drain"
POLL_SECONDS = 0.25


async def begin(reach: Reach, node: ListedNode, seconds: float | None) -> dict[str, Any]:
    """Start to drain a node, and return the state of the drain. Raises CommandError."""
    body = {} if seconds is None else {"seconds": seconds}
    return await _asked(reach, node, "POST", body)


async def undo(reach: Reach, node: ListedNode) -> dict[str, Any]:
    """Cancel a drain, and return its state. Raises CommandError."""
    report = await _asked(reach, node, "DELETE")
    if report["state"] != "ready":
        raise CommandError(f"{node.name} is stopping; that cannot be undone")
    return report


async def until_drained(
    reach: Reach, node: ListedNode, timeout: float, on_report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Wait until a node has no clients. `on_report` gets the state. Raises CommandError after `timeout` s."""
    report: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout):
            while True:
                report = await _asked(reach, node, "GET")
                on_report(report)
                if report["state"] != "draining":
                    return report
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CommandError(
            f"{node.name} still has {report.get('sessions', 'its')} sessions after {timeout:g} s; "
            "the drain continues in the background"
        ) from None


async def _asked(reach: Reach, node: ListedNode, method: str, body: Any = None) -> dict[str, Any]:
    try:
        report: dict[str, Any] = await reach.ask(node, PATH, method=method, body=body)
    except NodeSilent as silence:
        raise CommandError(f"{node.name}: {silence}") from None
    return report
