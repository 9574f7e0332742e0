"""Alerts: each is tested, explained in the runbook, and asks for metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "operations" / "alerts.md"
METRICS = ROOT / "docs" / "metrics.md"
SEVERITIES = {"critical", "warning", "info"}

NAME = re.compile(r"\b(keepline[_:][\w:]+)")
SERIES = re.compile(r"_(bucket|sum|count)$")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """The rules of a kind, alert or record, by name."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    found = [rule for file in files for group in load(file)["groups"] for rule in group["rules"]]
    return {rule[kind]: rule for rule in found if kind in rule}


def known_names() -> set[str]:
    """What expressions may ask for: documented metrics, and recorded ones."""
    return {*re.findall(r"^\| `(keepline_\w+)`", METRICS.read_text(), re.MULTILINE), *rules("record")}


def asked_for(expression: str) -> set[str]:
    return {SERIES.sub("", name) for name in NAME.findall(expression)}


def runbook_sections() -> dict[str, str]:
    """The sections of the runbook that are about an alert, with their text, by the alert's name."""
    parts = re.split(r"^###+ (Keepline\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


ALERTS = rules("alert")


def promtool(*arguments: str) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian, Ubuntu: apt-get install prometheus)")
    run = subprocess.run(
        [found, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=100
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", *(str(file) for file in sorted((PROMETHEUS / "rules").glob("*.yml"))))


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    text = (PROMETHEUS / "prometheus.yml").read_text()
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/etc/prometheus/rules", str(PROMETHEUS / "rules")))
    promtool("check", "config", str(file))


def test_alerts_fire_and_stay_silent_as_their_tests_say() -> None:
    promtool("test", "rules", "tests/alerts.yml")


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for test in load(PROMETHEUS / "tests" / "alerts.yml")["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case["exp_alerts"] else silent).add(case["alertname"])
    assert fires == silent == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{name.lower()}"


def test_the_runbook_has_exactly_one_section_per_alert() -> None:
    sections = runbook_sections()
    assert sections.keys() == ALERTS.keys()
    for name, text in sections.items():
        assert re.findall(r"^- \*\*(\w+)\*\*:", text, re.MULTILINE) == ["Symptom", "Check", "Action"], name


@pytest.mark.parametrize("severity", sorted(SEVERITIES))
def test_the_runbook_lists_alerts_by_severity(severity: str) -> None:
    contents = RUNBOOK.read_text().split("\n## ", 1)[0]
    (listed,) = re.findall(rf"^`{severity}` (.*?)(?=^`|\Z)", contents, re.MULTILINE | re.DOTALL)
    expected = {name for name, alert in ALERTS.items() if alert["labels"]["severity"] == severity}
    assert set(re.findall(r"\[(Keepline\w+)\]", listed)) == expected


def test_expressions_ask_for_metrics_that_there_are() -> None:
    known = known_names()
    for rule in (*ALERTS.values(), *rules("record").values()):
        assert asked_for(rule["expr"]) <= known, rule


def test_what_is_recorded_is_used() -> None:
    dashboards = "".join(file.read_text() for file in (ROOT / "deploy" / "grafana").rglob("*.json"))
    text = dashboards + "".join(alert["expr"] for alert in ALERTS.values())
    assert {name for name in rules("record") if name not in text} == set()
