"""The output of `keepline doctor`, for people and for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from keepline.cli.cluster.doctor import Outcome
from keepline.cli.cluster.findings import Finding


def as_json(found: list[Finding], outcomes: list[Outcome], left: list[Finding]) -> dict[str, Any]:
    """The problems found, the results of their repairs, and the problems that remain."""
    return {
        "found": [finding.as_json() for finding in found],
        "repairs": [
            {**outcome.finding.as_json(), "repaired": outcome.repaired, "why": outcome.why}
            for outcome in outcomes
        ],
        "left": [finding.as_json() for finding in left],
    }


def render(found: list[Finding], outcomes: list[Outcome], left: list[Finding]) -> RenderableType:
    """The problems, and what to do about them."""
    if not found:
        return "[green]Nothing is wrong.[/]"
    done = {outcome.finding.identity: outcome for outcome in outcomes}
    parts: list[RenderableType] = [_table(found, done)]
    if not outcomes:
        fixable = sum(finding.repair is not None for finding in found)
        parts.append(f"{len(found)} found" + (f"; --fix repairs {fixable} of them" if fixable else ""))
    else:
        parts.append(f"{sum(outcome.repaired for outcome in outcomes)} repaired, {len(left)} left")
        parts += [_table(left, {})] if left else []
    return Group(*parts)


def _table(findings: list[Finding], done: dict[tuple[Any, ...], Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "where", "what", "what to do"):
        table.add_column(name, overflow="fold", min_width=len(name))
    for finding in findings:
        table.add_row(finding.kind, escape(finding.where), escape(finding.what), escape(_todo(finding, done)))
    return table


def _todo(finding: Finding, done: dict[tuple[Any, ...], Outcome]) -> str:
    outcome = done.get(finding.identity)
    if outcome is not None:
        return "repaired" if outcome.repaired else f"not repaired: {outcome.why}"
    return "--fix" if finding.repair is not None else finding.advice
