"""`keepline doctor`: checks everything twice, reports what was wrong both times, and has nodes repair it.

The cluster keeps running meanwhile. Work in progress looks inconsistent for a moment, so only problems that persist
count. Nodes carry out the repairs, and check again before they do (`/v1/node/repairs`).
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keepline.cli.base.errors import CommandError
from keepline.cli.cluster.access import ListedNode, NodeSilent, Reach
from keepline.cli.cluster.findings import Finding
from keepline.cli.cluster.problems import disorders
from keepline.cli.cluster.survey import survey
from keepline.cli.local.program import python
from keepline.ops.backoff import Backoff

SETTLE_SECONDS = 3.0
"""Time between the two checks: longer than a notice, a commit and a batch of the persister take."""

MIGRATE_SECONDS = 30.0
REPAIRS_AT_ONCE = 8
TRIES = 3

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one repair."""

    finding: Finding
    repaired: bool
    why: str = ""


async def examine(reach: Reach, on_progress: Callable[[int], None]) -> list[Finding]:
    """The problems that persist between two checks. Raises RedisError, OSError."""
    first = disorders(await survey(reach, on_progress))
    found: list[Finding] = []
    if first:
        await asyncio.sleep(SETTLE_SECONDS)
        seen = {finding.identity for finding in first}
        again = disorders(await survey(reach, on_progress))
        found = [finding for finding in again if finding.identity in seen]
    return found + await _migrations(reach)


async def _migrations(reach: Reach) -> list[Finding]:
    """Whether the schema is that of this release, as in `keepline migrate --check`."""
    if reach.pool is None:
        return []
    check = [*python("persister.migrate"), "--check"]
    try:
        done = await asyncio.to_thread(
            subprocess.run,
            check,
            capture_output=True,
            text=True,
            timeout=MIGRATE_SECONDS,
            check=False,
            env=dict(reach.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding("migrations", "Postgres", f"cannot be checked: {type(error).__name__}")]
    if done.returncode == 0:
        return []
    words = (done.stdout.strip() or "keepline migrate --check fails").splitlines()
    return [Finding("migrations", "Postgres", "; ".join(words), advice="keepline migrate")]


async def fix(reach: Reach, findings: Sequence[Finding], on_progress: Callable[[int], None]) -> list[Outcome]:
    """Have nodes repair what they can. Raises RedisError, OSError."""
    live = [node for node in await reach.nodes() if node.beat is not None]
    if not live:
        raise CommandError("no node is running: start one, then try again")
    turns = asyncio.Semaphore(REPAIRS_AT_ONCE)
    outcomes: list[Outcome] = []

    async def in_order(of_one: list[Finding]) -> None:
        async with turns:
            for finding in of_one:
                outcomes.append(await _repair(reach, finding, live))
                on_progress(len(outcomes))

    by_place: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.repair is not None:
            by_place.setdefault(finding.where, []).append(finding)
    # One repair of a room may make the next one unnecessary.
    await asyncio.gather(*(in_order(of_one) for of_one in by_place.values()))
    return outcomes


async def _repair(reach: Reach, finding: Finding, live: list[ListedNode]) -> Outcome:
    asked = [node for node in live if finding.ask in (None, node.name)]
    if not asked:
        return Outcome(finding, False, f"{finding.ask} is already gone")
    backoff, why = Backoff(0.1, 1.0), ""
    for number in range(TRIES):
        node = asked[number % len(asked)]
        try:
            answer: Any = await _sent(reach, node, finding)
            return Outcome(finding, answer["repaired"], "" if answer["repaired"] else "nothing to repair")
        except (NodeSilent, CommandError) as error:
            why = str(error)
            await asyncio.sleep(backoff.next())
    return Outcome(finding, False, why)


def _sent(reach: Reach, node: ListedNode, finding: Finding) -> Awaitable[Any]:
    return reach.ask(node, "/v1/node/repairs", method="POST", body=finding.repair)
